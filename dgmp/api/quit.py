"""SIGQUIT (Ctrl-\\) to the program: a dump of all Gs on stderr, as Go's runtime prints it; then it dies of the signal.

It dies as it would without dgmp, by the signal's default action, and Go's programs end so too: that a library has been
imported must not take away the key with which users end what does not end otherwise.  Who wants to look and go on, as
Java's programs do, installs a handler: `signal.signal(signal.SIGQUIT, lambda *_: print(dgmp.snapshot()))`.

The handler is installed with the first runtime, by the main thread (others cannot), unless the program has a handler of its
own or ignores the signal; the last runtime that is closed takes it away.  Under `dgmp run` it is m0 that has it: the
launcher passes the signal on.  Called by runtime and workers.m.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any

from .._core import View

_views: list[View] = []  # of the runtimes to be dumped
_pid = 0  # of the process in which they were


def install(view: View) -> None:
    """SIGQUIT shows what `view` sees, too."""
    global _pid
    if threading.current_thread() is not threading.main_thread():
        return
    if not _views and signal.getsignal(signal.SIGQUIT) is signal.SIG_DFL:
        signal.signal(signal.SIGQUIT, quit)
    _pid = os.getpid()
    _views.append(view)


def remove(view: View) -> None:
    """Its runtime is closed.  In another thread than the main one the handler stays, and then does nothing but die."""
    with contextlib.suppress(ValueError):
        _views.remove(view)
    if not _views and threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGQUIT) is quit:
            signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def quit(number: int, frame: FrameType | None) -> None:
    """The handler.  Under `dgmp run` the signal comes twice from a terminal, which sends it to the launcher, too: once is
    enough, and in the midst of the first import of `snapshot` one could not have it a second time."""
    signal.signal(number, signal.SIG_IGN)
    try:
        if os.getpid() == _pid:
            say(dump())
    finally:
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
        os.kill(os.getpid(), number)


def dump() -> str:
    from .snapshot import take

    text = ["SIGQUIT: quit\n"]
    for view in list(_views):
        with contextlib.suppress(Exception):  # closed at this moment
            text.append(str(take(view)))
    return "\n".join(text)


def say(text: str) -> None:
    """To descriptor 2, as faulthandler does: the program may have been interrupted in the midst of a write to sys.stderr."""
    data: Any = memoryview(text.encode("utf-8", "backslashreplace"))
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(2, data):]
