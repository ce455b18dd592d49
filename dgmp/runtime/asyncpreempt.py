"""Asynchronous preemption: a G that runs for long gives way to started Gs of its M (Go: preemptone, asyncPreempt).

sysmon sees that a G has run for 10 ms while a started G waits on its M, and sends SIGURG (runtime.preempt has the handler).
The handler runs between two bytecodes of the G, and switches to g0 from there.  That is safe only where the C stack is flat,
that is, where nothing but the interpreter's loop stands on it: code in C that has called back, as a sort does its key or a
buffer its raw file, may be half-way through something and hold a lock which no other G of the thread can wait for.

Python code that calls Python code does not grow the C stack, however deep it is.  So flat means that it is exactly as deep, as
an address in the handler tells, as it is for a plain function.  That distance, and what the calls add that are harmless, is
measured when the first G is to be preempted, as it differs between Pythons; if the measurements contradict each other nothing
is preempted.  In 3.11 a call of the form f(*args) adds to it, so those that are under way are counted.

A G that cannot be preempted where it is gives way at its next call of the runtime, or is asked again 10 ms later.
DGMP_DEBUG=asyncpreemptoff=1 switches all of it off.
"""

from __future__ import annotations

import _imp
import signal
import types
from collections.abc import Callable
from itertools import starmap
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent

from .._core import WHY_PREEMPTED, send_self, stack_address
from ..ship import chunk
from . import boot, script
from .preempt import is_ours
from .proc import Runner
from .signals import call

if TYPE_CHECKING:
    from .proc import M

OFTEN = 100
EXACT = 16  # bytes: two distances that differ by less are the same
EXECS = {script.run_source.__code__, script.run_module.__code__}


def ask() -> None:
    """As a G does: SIGURG comes, and its handler runs between two bytecodes of this function."""
    send_self(signal.SIGURG)
    for _ in range(2):
        pass


def ask_of(_: Any) -> None:
    ask()


def ask_deep(n: int) -> None:
    if n:
        ask_deep(n - 1)
    else:
        ask()


def call_with_stars() -> None:
    call(ask, (), {})


def ask_in_map(run: Callable[..., bool]) -> Callable[[], object]:
    return lambda: run(map(ask_of, [0]), 1, [], "")


def ask_in_starmap(run: Callable[..., bool]) -> Callable[[], object]:
    return lambda: run(starmap(ask_of, [(0,)]), 1, [], "")


def as_new(fn: Callable[..., bool]) -> Callable[..., bool]:
    """A copy that has never run: the interpreter makes its calls in another way than those of code that has run often."""
    return types.FunctionType(fn.__code__.replace(), fn.__globals__)


def run_often(fn: Callable[..., bool]) -> None:
    for _ in range(OFTEN):
        fn(iter([0]), 1, [], "")


def ask_in_exec() -> None:
    exec(compile("ask()", "", "exec"), {"ask": ask})


class Asker:
    """As a Task, or a map's chunk."""

    def __call__(self) -> None:
        ask()


class AsyncPreempt:
    """Preemption in one M.

    Args:
        m: the M.
    """

    def __init__(self, m: M) -> None:
        self.m = m
        self.off = boot.debug("asyncpreemptoff") not in (None, "0")
        self.probe: Callable[[], object] | None = None  # what is being measured
        self.seen: int | None = None
        self.star_call = 0  # the opcode of f(*args)
        self.flat = 0  # distance from a runner's mark to the handler, in a plain function of a G; 0: not measured
        self.stars = self.slot = self.exec = 0  # what f(*args), the call of an object, and exec add
        self.maps: tuple[int, ...] = ()  # and what a map's chunk does

    # ------------------------------------------------------------------ in the handler
    def preempt(self, frame: Any) -> None:
        """The hook of runtime.preempt: the interrupted frame is a G's own code."""
        if self.probe is not None:
            if frame.f_code is ask.__code__:  # else it is one more, from sysmon
                self.seen = getcurrent().mark - stack_address()
                if self.probe is ask:
                    caller = frame.f_back  # call
                    self.star_call = caller.f_code.co_code[caller.f_lasti]
            return
        m = self.m
        gp = m.curg
        if self.off or gp is None or not m.in_g() or is_ours(frame):
            return
        if type(gp.greenlet) is not Runner:  # the loop of the async Gs: always in C code
            return
        m.collect()
        if not (m.ready or m.yielded):
            return
        depth = gp.greenlet.mark - stack_address()
        if not self.flat:
            self.measure()
        if self.off:
            return
        if gp.word not in m.nopreempt and not _imp.lock_held() and self.is_flat(frame, depth):
            m.gosched(WHY_PREEMPTED)
        else:
            m.overdue = gp

    def is_flat(self, frame: Any, depth: int) -> bool:
        """Whether depth is what a plain function of a G has, but for what the calls under way are known to add."""
        add = depth - self.flat
        if abs(add) < EXACT:
            return True
        maps: tuple[int, ...] = (0,)
        called = None
        while frame is not None:
            code = frame.f_code
            if code is call.__code__:
                if called is not None and called.f_code.co_name == "__call__":
                    add -= self.slot
                break
            if called is not None:
                if code is chunk.run.__code__:
                    maps = self.maps
                elif code in EXECS:
                    add -= self.exec
                elif self.stars and code.co_code[frame.f_lasti] == self.star_call:
                    add -= self.stars
            called, frame = frame, frame.f_back
        return any(abs(add - more) < EXACT for more in maps)

    # ------------------------------------------------------------------ measuring
    def measure(self) -> None:
        """Once, in the first G that is to be preempted."""
        flat, deep, stars = self.distance(ask), self.distance(lambda: ask_deep(50)), self.distance(call_with_stars)
        slot, execs = self.distance(Asker()), self.distance(ask_in_exec)
        often = as_new(chunk.run)
        run_often(often)
        maps = {self.distance(way(run)) for way in (ask_in_map, ask_in_starmap) for run in (as_new(chunk.run), often)}
        if flat and flat == deep and stars - flat >= 0:
            self.flat, self.stars, self.slot, self.exec = flat, stars - flat, slot - flat, execs - flat
            self.maps = tuple(x - flat for x in maps)
        else:
            self.off = True

    def distance(self, probe: Callable[[], object]) -> int:
        """From a runner's mark to the handler in what probe calls; 0: no signal comes."""
        self.probe, self.seen = probe, None
        try:
            Runner(self.run).switch()
        finally:
            self.probe = None
        return self.seen or 0

    def run(self) -> None:
        """As M.run and M.goexit call a G's function."""
        getcurrent().mark = stack_address()
        self.goexit()

    def goexit(self) -> None:
        assert self.probe is not None
        call(self.probe, (), {})
