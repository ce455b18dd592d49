"""What a G says about the process and the core it runs on: `blocking`, `lock_os_thread`.

All user code is treated as a syscall: if it blocks, its M's P is taken after a few milliseconds (coordinator.state).  A G that
says so beforehand costs its P nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import runtime

if TYPE_CHECKING:
    from ..runtime.proc import M


def this_m() -> M | None:
    """The M whose G calls; None outside of Gs, and in other threads."""
    member = runtime._member
    return member.m if member is not None and member.m.in_g() else None


class blocking:
    """A `with` block whose code waits for something outside: others run on its P meanwhile (Go: entersyscallblock).

    The P of the G goes to another M at once, where plain blocking code is noticed after a few milliseconds.  At the end of the
    block the G goes on when there is a P for it.  Inside the block the G should only wait: if it computes, it is stopped until
    there is a P.  In other threads and outside of Gs the block does nothing.  Blocks may be nested.

    Example:
        >>> import time, dgmp
        >>> def wait():
        ...     with dgmp.blocking():
        ...         time.sleep(0.01)
        >>> dgmp.gather(dgmp.go(wait), dgmp.go(wait))
        [None, None]
    """

    __slots__ = ("m",)

    def __enter__(self) -> None:
        self.m = this_m()
        if self.m is not None and not self.m.view.entersyscallblock():
            self.m = None  # inside another block; or the P is gone already, as for a G that has blocked without one

    def __exit__(self, *error: object) -> None:
        if self.m is not None and self.m.view.exitsyscall():
            self.m.pinned()


def lock_os_thread() -> None:
    """The calling G gets its M, a process, for itself: until `unlock_os_thread`, no other G runs there (Go:
    runtime.LockOSThread).

    For libraries with state of the process, such as the working directory or a licence.  Calls nest: it takes as many unlocks.
    While the G waits, its P works elsewhere; Gs that it spawns run on other Ms.  Gs that had been started on this M and are
    parked there cannot move: they wait until it is unlocked, so do not wait for one of them.  If the G ends while it is locked,
    its M ends as well, once nothing else is left there, so that no other G finds what it has left.  Outside of Gs nothing
    happens.

    Example:
        >>> import os, dgmp
        >>> def in_root():
        ...     dgmp.lock_os_thread()
        ...     os.chdir("/")
        ...     return dgmp.go(abs, -1).result(), os.getcwd()  # its M ends with it
        >>> dgmp.go(in_root).result()
        (1, '/')
    """
    m = this_m()
    if m is not None:
        m.lock_os_thread()


def unlock_os_thread() -> None:
    """Undoes one `lock_os_thread` of the calling G; nothing if there is none (Go: runtime.UnlockOSThread).

    Example:
        >>> import dgmp
        >>> def locked():
        ...     dgmp.lock_os_thread()
        ...     try:
        ...         return "alone in this process"
        ...     finally:
        ...         dgmp.unlock_os_thread()
        >>> dgmp.go(locked).result()
        'alone in this process'
    """
    m = this_m()
    if m is not None:
        m.unlock_os_thread()
