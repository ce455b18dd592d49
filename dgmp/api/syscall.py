"""What a G says about where it may run: `blocking`.

All user code is treated as a syscall: if it blocks, its M's P is taken after a few milliseconds (coordinator.state).  A G that
says so beforehand costs its P nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import runtime

if TYPE_CHECKING:
    from ..runtime.proc import M


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
        member = runtime._member
        self.m: M | None = member.m if member is not None and member.m.in_g() else None
        if self.m is not None and not self.m.view.entersyscallblock():
            self.m = None  # inside another block; or the P is gone already, as for a G that has blocked without one

    def __exit__(self, *error: object) -> None:
        if self.m is not None and self.m.view.exitsyscall():
            self.m.pinned()
