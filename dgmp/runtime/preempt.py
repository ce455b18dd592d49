"""SIGURG in an M: sysmon has something to tell the user code that runs there (Go: preempt_unix.go, doSigPreempt).

A G that has been asked to end, or whose time is up, raises Cancelled where it is.
An M whose P was taken while its G blocked, and that has come back and works, is one too many: the handler stops it where it
is, in the middle of the G, until it has a P again.  Nothing of that G is switched away, so it does not matter what it is at.
In the scheduler the signal is ignored, as the next call of the runtime sees that the P is gone.  SIGURG is Go's choice, for
Go's reasons: it is hardly ever used, and ignored where nobody expects it; processes that user code starts do not inherit a
handler.  User code may have a handler of its own for it, which is called each time the signal comes, also for nothing.
Installed by workers.m before Signals, which wraps what is here.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from ..ship.terms import ASKED_TO_RAISE
from .signals import call, in_policy

if TYPE_CHECKING:
    from .proc import M

IMPORTING = "<frozen importlib._bootstrap>"


def is_ours(frame: Any) -> bool:
    name = frame.f_globals.get("__name__")
    return isinstance(name, str) and name.startswith("dgmp.")


def importing(frame: Any) -> bool:
    """Whether the G is in the midst of an import: an exception might leave half of a module, which cannot be loaded again."""
    while frame is not None and frame.f_code is not call.__code__:
        if frame.f_code.co_filename == IMPORTING:
            return True
        frame = frame.f_back
    return False


class Preemption:
    """What SIGURG does in one M.

    Args:
        m: the M.

    Attributes:
        preempt: called with the interrupted frame, which is user code that has a P.
    """

    def __init__(self, m: M) -> None:
        self.m = m
        self.preempt: Callable[[Any], object] = lambda frame: None
        self.users: Any = signal.SIG_DFL  # the handler that user code has set

    def install(self) -> None:
        """Before any user code."""
        set_handler, get_handler = signal.signal, signal.getsignal
        set_handler(signal.SIGURG, self.arrived)

        @wraps(set_handler)
        def wrapped_signal(signalnum: Any, handler: Any) -> Any:
            if signalnum != signal.SIGURG or not (callable(handler) or handler in (signal.SIG_DFL, signal.SIG_IGN)):
                return set_handler(signalnum, handler)
            set_handler(signalnum, self.arrived)  # as it was; raises where it may not be set
            before, self.users = self.users, handler
            return before

        @wraps(get_handler)
        def wrapped_getsignal(signalnum: Any) -> Any:
            return self.users if signalnum == signal.SIGURG else get_handler(signalnum)

        signal.signal, signal.getsignal = wrapped_signal, wrapped_getsignal

    def end(self, frame: Any) -> None:
        """Raises Cancelled, if the interrupted code is that of a G which is to end; a coroutine's is told by its loop."""
        m, gp = self.m, self.m.curg
        if gp is None or not m.in_g() or (m.asyncs is not None and gp is m.asyncs.g) or gp.word in m.nopreempt:
            return
        # Of ours only what calls a G's function, which may be a builtin; else it raises when it waits, or soon after.
        if (is_ours(frame) and frame.f_code is not call.__code__) or importing(frame):
            return
        if m.is_late(gp) or m.view.asked(gp.word) & ASKED_TO_RAISE:
            gp.asked = False
            m.view.told(gp.word)
            raise m.cancellation(gp)

    def arrived(self, number: int, frame: Any) -> None:
        """In the main thread, between any two bytecodes."""
        m = self.m
        if os.getpid() == m.pid and m.curg is not None and not in_policy(frame):
            self.end(frame)
            if m.view.exitsyscall():
                m.pinned()
            self.preempt(frame)
        if callable(self.users):
            self.users(number, frame)
