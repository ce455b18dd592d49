"""Signal handlers of user code in an M.

Python runs them in the main thread between any two bytecodes: in a G's own code, in another G's, or in the scheduler, where
an exception would kill the M, and a call of the runtime would meet it half-way through a step.  So an M's signal.signal
wraps what it is given.  In user code, whoever's, the handler runs at once; in the scheduler it is remembered, and runs in
the G that installed it when that is back in user code, which it soon is: it is readied.  What a handler raises is raised
in that G, even if it ran in another's code.  When that G ends its handlers do (runtime.undo); one that is still to run then,
or that a module has installed, runs between two Gs, and what it raises is reported.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from . import report

if TYPE_CHECKING:
    from .proc import G, M

# A frame of these means that the scheduler was interrupted, or user code that it must not be thrown out of.
POLICY = {"dgmp.runtime.proc", "dgmp.runtime.timers", "dgmp.runtime.netpoll", "dgmp.runtime.park", "dgmp.runtime.aio",
          "dgmp.runtime.selector", "dgmp.runtime.output", "dgmp.runtime.logs", "dgmp.runtime.clients", "dgmp.api.node",
          "dgmp.api.member", "dgmp.api.chan", "dgmp.api.sema", "dgmp.api.sync", "dgmp.ship.closure", "dgmp.ship.dynamic",
          "dgmp.ship.death"}


def call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Where user code begins: what is called from here, and does not call the scheduler, may be interrupted."""
    return fn(*args, **kwargs)


def in_policy(frame: Any) -> bool:
    """Whether the interrupted code is the scheduler's, or was called by it, rather than a G's own."""
    while frame is not None and frame.f_code is not call.__code__:
        if frame.f_globals.get("__name__") in POLICY:
            return True
        frame = frame.f_back
    return False


def user_frame() -> Any:
    """The innermost frame that is not ours; None between two Gs."""
    frame: Any = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("dgmp."):
        frame = frame.f_back
    return frame


class Handler:
    """What stands in for a handler of user code: the handler, and the G that installed it."""

    def __init__(self, signals: Signals, function: Callable[[int, Any], Any], owner: G | None) -> None:
        self.signals, self.function, self.owner = signals, function, owner

    def __call__(self, number: int, frame: Any) -> None:
        self.signals.arrived(self, number, frame)

    def is_orphan(self) -> bool:
        return self.owner is None or self.owner.greenlet is None

    def run(self, number: int, frame: Any) -> None:
        call(self.function, (number, frame), {})


class Signals:
    """The signals of one M.

    Args:
        m: the M.
        once: Ctrl-C becomes a KeyboardInterrupt only once: under `dgmp run` m0 gets it from the terminal and from the
            launcher, which ends everything soon after.
    """

    def __init__(self, m: M, once: bool) -> None:
        self.m = m
        self.once = once
        self.interrupted = False
        # Handlers that are still to run, and what handlers have raised that is still to be raised.
        self.pending: deque[tuple[Handler, int, BaseException | None]] = m.pending
        self.handled: set[int] = set()  # for which user code has a handler: one may wake this M
        m.run_orphans, m.run_handlers = self.run_orphans, self.run

    def install(self) -> None:
        """Before any user code."""
        set_handler, get_handler = signal.signal, signal.getsignal

        def given(handler: Any) -> Any:
            return handler.function if isinstance(handler, Handler) else handler

        def put_back(number: int, handler: Any) -> None:
            set_handler(number, handler)
            self.note(number, handler)

        @wraps(set_handler)
        def wrapped_signal(signalnum: Any, handler: Any) -> Any:
            if callable(handler):
                handler = Handler(self, handler, self.m.curg)
            before = set_handler(signalnum, handler)
            self.note(signalnum, handler)
            self.m.changed(("signal", signalnum), before, handler, lambda handler: put_back(signalnum, handler))
            return given(before)

        @wraps(get_handler)
        def wrapped_getsignal(signalnum: Any) -> Any:
            return given(get_handler(signalnum))

        signal.signal, signal.getsignal = wrapped_signal, wrapped_getsignal

    def note(self, number: int, handler: Any) -> None:
        if isinstance(handler, Handler) and handler.function is not signal.default_int_handler:
            self.handled.add(number)
        else:
            self.handled.discard(number)
        self.m.view.can_be_woken(bool(self.handled))

    def arrived(self, handler: Handler, number: int, frame: Any) -> None:
        """In the main thread, between any two bytecodes."""
        if os.getpid() != self.m.pid:  # a child that user code forked: it is no M
            handler.run(number, frame)
        elif self.is_repeated(handler):
            return
        elif in_policy(frame):
            self.remember(handler, number, None)
        elif self.m.curg is handler.owner:
            handler.run(number, frame)
        else:
            self.run_for_another(handler, number, frame)

    def is_repeated(self, handler: Handler) -> bool:
        if not self.once or handler.function is not signal.default_int_handler:
            return False
        was, self.interrupted = self.interrupted, True
        return was

    def run_for_another(self, handler: Handler, number: int, frame: Any) -> None:
        """In user code that did not install it.  Ctrl-C ends that as well, as it keeps the M from the other."""
        try:
            handler.run(number, frame)
        except BaseException as e:
            self.remember(handler, number, e)
            if isinstance(e, KeyboardInterrupt) and self.m.curg is not None:
                raise

    def remember(self, handler: Handler, number: int, error: BaseException | None) -> None:
        """A signal that has come again before its handler could run has come once, as it is with signals."""
        entry = (handler, number, error)
        if entry not in self.pending:
            self.pending.append(entry)
        if handler.owner is not None:
            self.m.goready(handler.owner.word)

    def run(self) -> None:
        """Called in Gs where the scheduler's code ends, if anything is pending.  What is another's lets that go first."""
        while self.pending and self.m.in_g():
            mine = [entry for entry in list(self.pending) if entry[0].owner is self.m.curg]
            if not mine:
                self.m.gosched()
                continue
            self.pending.remove(mine[0])
            try:
                self.settle(*mine[0])
            except BaseException:
                self.run()
                raise

    def settle(self, handler: Handler, number: int, error: BaseException | None) -> None:
        if error is not None:
            raise error
        handler.run(number, user_frame())

    def run_orphans(self) -> None:
        """Called between two Gs, if anything is pending: what no G is left for."""
        while orphans := [entry for entry in list(self.pending) if entry[0].is_orphan()]:
            self.pending.remove(orphans[0])
            try:
                self.settle(*orphans[0])
            except BaseException as e:
                report.unraisable(e, orphans[0][0].function)
