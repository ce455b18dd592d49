"""Ways for a process to die, or to fail, and things that do it at a certain stage of a G; importable, so that they travel by
reference."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import dgmp

MARK = "deliberately"  # in the text of what is raised


def raise_error():
    raise LookupError(MARK)


def sys_exit():
    sys.exit(3)


def os_exit():
    os._exit(4)


def libc_exit():
    ctypes.CDLL(None).exit(5)


def libc_exit_0():
    ctypes.CDLL(None).exit(0)


def segfault():
    ctypes.string_at(0)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()


def abort():
    os.abort()


def overflow_the_stack():
    """In C: the parser of regular expressions calls itself at each bracket."""
    depth = 2_000_000
    ctypes.CDLL(None).regcomp(ctypes.create_string_buffer(256), b"(" * depth + b")" * depth, 1)


def recurse():
    recurse()


def take_all_memory():
    return bytearray(1 << 62)


# The way, and its error's type and text; or, for what no process survives, how that is said, and its exit code.
RAISES: dict[Callable[[], Any], tuple[type[BaseException], str]] = {
    raise_error: (LookupError, MARK), sys_exit: (SystemExit, "3"),
    recurse: (RecursionError, "maximum recursion depth exceeded"), take_all_memory: (MemoryError, ""),
}
DIES: dict[Callable[[], Any], tuple[str, int]] = {
    os_exit: ("ended with exit code 4", 4), libc_exit: ("ended with exit code 5", 5),
    libc_exit_0: ("ended with exit code 0", 0),
    segfault: ("was killed by SIGSEGV", -signal.SIGSEGV), kill: ("was killed by SIGKILL", -signal.SIGKILL),
    terminate: ("was killed by SIGTERM", -signal.SIGTERM), abort: ("was killed by SIGABRT", -signal.SIGABRT),
    overflow_the_stack: ("was killed by SIGSEGV", -signal.SIGSEGV),
}


class Carrier:
    """Goes from process to process, and acts at one stage of that, in one of them.

    Args:
        act: what it does.
        where: in any process but its home ("M"), or there, once it has come back ("client").
        home: the pid; this process by default.
    """

    def __init__(self, act: Callable[[], Any], where: str = "M", home: int = 0) -> None:
        self.act, self.where, self.home = act, where, home or os.getpid()

    def __reduce__(self) -> Any:
        return again, (type(self), self.__dict__)

    def act_if_here(self) -> None:
        if (os.getpid() == self.home) == (self.where == "client"):
            self.act()


class OnPickle(Carrier):
    def __reduce__(self) -> Any:
        self.act_if_here()
        return super().__reduce__()


class OnUnpickle(Carrier):
    pass


class OnCollect(Carrier):
    def __del__(self) -> None:
        self.act_if_here()


def again(cls: type[Carrier], state: dict[str, Any]) -> Carrier:
    made = cls.__new__(cls)
    made.__dict__.update(state)
    if isinstance(made, OnUnpickle):
        made.act_if_here()
    return made


# ---------------------------------------------------------------------- what Gs run
def call(act: Callable[[], Any]) -> Any:
    return act()


def ignore(*args: Any) -> None:
    """Gets what it gets."""


def give(x: Any) -> Any:
    return x


# Stages in the M: the function of the G, and its argument made of what to do.
IN_M: dict[str, tuple[Callable[..., Any], Callable[[Any], Any]]] = {
    "unpickle the task": (ignore, OnUnpickle), "run": (call, give), "pickle the result": (give, OnPickle),
    "collect the arguments": (ignore, OnCollect),
}


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """A G that is here keeps its M for itself: its children run elsewhere.  Nothing in the program."""
    dgmp.lock_os_thread()
    try:
        yield
    finally:
        dgmp.unlock_os_thread()


# Stages in whoever calls `go`: the program, or a G that is the parent of another.
def pickle_the_task(act: Callable[[], Any]) -> None:
    with alone():
        dgmp.go(ignore, OnPickle(act, "client")).result()


def unpickle_the_result(act: Callable[[], Any]) -> None:
    with alone():
        dgmp.go(give, OnUnpickle(act, "client")).result()


def collect_the_result(act: Callable[[], Any]) -> None:
    with alone():
        dgmp.go(OnCollect, act, "client", os.getpid()).result()


def run_a_callback(act: Callable[[], Any]) -> None:
    ended = threading.Event()

    def callback(future: dgmp.Future[Any]) -> None:
        try:
            act()
        finally:
            ended.set()

    dgmp.go(abs, -1).add_done_callback(callback)
    ended.wait()


IN_CLIENT = [pickle_the_task, unpickle_the_result, collect_the_result, run_a_callback]


def how_it_ended(error: BaseException | None) -> tuple[str, str, Any, Any]:
    """What a test wants to know of an error, and can have pickled."""
    return type(error).__name__, str(error), getattr(error, "pid", None), getattr(error, "exitcode", None)


def try_on_another_m(stage: str, act: Callable[[], Any]) -> tuple[tuple[str, str, Any, Any], str, int]:
    """How a child that runs elsewhere ended, where it was spawned, and our pid."""
    fn, make = IN_M[stage]
    with alone():
        child = dgmp.go(fn, make(act))
        return how_it_ended(child.exception()), child.spawned_at, os.getpid()


def try_on_this_m(stage: str, act: Callable[[], Any]) -> Any:
    fn, make = IN_M[stage]
    return dgmp.go(fn, make(act)).result()


# ---------------------------------------------------------------------- deaths of others
def kill_another(pids: dgmp.Chan, victims: dgmp.Chan, delay: float) -> None:
    with alone():
        pids.send(os.getpid())
        victim = victims.recv()
        time.sleep(delay)
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)


def resize(times: int) -> None:
    for i in range(times):
        dgmp.gomaxprocs(i % 5 + 1)


def kill_if_multiple_of_50(x: int) -> int:
    if x % 50 == 0:
        kill()
    return x


def wait_for(c: dgmp.Chan) -> None:
    c.recv()


def catch(act: Callable[[], Any]) -> list[str]:
    """What a parent is told, in each way to ask."""
    with alone():
        errors = [dgmp.go(act).exception(), dgmp.go(give, dgmp.go(act)).exception()]
        for ask in (lambda: dgmp.go(act).result(), lambda: dgmp.gather(dgmp.go(abs, -1), dgmp.go(act))):
            try:
                ask()
            except dgmp.DgmpError as e:
                errors.append(e)
        return [type(error).__name__ for error in errors]


def run_group() -> tuple[str, str]:
    with alone():
        sleeper: Any = None
        try:
            with dgmp.Group() as group:
                sleeper = group.go(try_to_sleep)
                group.go(kill)
        except ExceptionGroup as e:
            return type(e.exceptions[0]).__name__, type(sleeper.exception()).__name__
        return "", ""


def try_to_sleep() -> None:
    with alone():
        dgmp.sleep(3600)


def lock_and_die(mutex: dgmp.Mutex) -> None:
    mutex.lock()
    kill()


def receive(pids: dgmp.Chan, c: dgmp.Chan) -> Any:
    pids.send(os.getpid())
    return c.recv()


def select_receive(pids: dgmp.Chan, c: dgmp.Chan) -> Any:
    pids.send(os.getpid())
    return dgmp.select(dgmp.recv(c), dgmp.recv(dgmp.Chan()))


def send(pids: dgmp.Chan, c: dgmp.Chan) -> None:
    pids.send(os.getpid())
    c.send("of a dead one")


def select_send(pids: dgmp.Chan, c: dgmp.Chan) -> Any:
    pids.send(os.getpid())
    return dgmp.select(dgmp.send(c, "of a dead one"), dgmp.recv(dgmp.Chan()))


async def await_a_death() -> tuple[str, Any]:
    """On the M of the async Gs, which runs no others as long as it has any."""
    try:
        await dgmp.go(kill)
    except dgmp.WorkerDied as e:
        return type(e).__name__, e.exitcode
    return "", None


async def sleep_there(pids: dgmp.Chan) -> None:
    pids.send(os.getpid())  # there is room
    await asyncio.sleep(3600)
