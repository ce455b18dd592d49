"""Waits of an M's Gs for file descriptors (Go: netpoll.go).  The mechanism, and the thread, are in _core/netpoll.c.

Called by api.netpoll, through Member, and by the selector of async Gs (runtime.aio).
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from .._core import POLL_GONE, POLL_READY

if TYPE_CHECKING:
    from .proc import M


class Wait:
    """What the calling G is parked on that waits for a descriptor.  Whoever makes one ends it.

    Args:
        m: its M.
        fd, write: what for.

    Raises:
        OSError: fd is not open.
    """

    __slots__ = ("m", "number")

    def __init__(self, m: M, fd: int, write: bool) -> None:
        gp = m.curg
        assert gp is not None
        self.m = m
        self.number = m.view.poll_add(fd, write, gp.word)  # None: it is always ready
        if self.number is not None:
            m.polled += 1

    @property
    def _state(self) -> int:
        return POLL_READY if self.number is None else self.m.view.poll_state(self.number)

    @property
    def _then(self) -> list[Any]:  # the core knows the word
        return []

    def end(self) -> bool:
        """Whether fd was ready; raises OSError if it was closed meanwhile."""
        if self.number is None:
            return True
        self.m.polled -= 1
        state = self.m.view.poll_end(self.number)
        if state == POLL_GONE:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return state == POLL_READY
