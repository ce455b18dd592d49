"""Waits of an M's Gs for file descriptors (Go: netpoll.go).  The mechanism, and the thread, are in _core/netpoll.c.

Called by api.netpoll, through Member, and by the selector of async Gs (runtime.aio).
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from .._core import POLL_GONE, POLL_READY, WHY_IO

if TYPE_CHECKING:
    from .proc import M


class Wait:
    """What a G is parked on that waits for a descriptor."""

    __slots__ = ("view", "number")

    def __init__(self, m: M, number: int) -> None:
        self.view, self.number = m.view, number

    @property
    def _state(self) -> int:
        return self.view.poll_state(self.number)

    def ready(self) -> int:
        """As deep as what gopark calls: near the recursion limit this fails, not that."""
        return self._state

    @property
    def _then(self) -> list[Any]:  # the core knows the word
        return []


def park(m: M, fd: int, write: bool, deadline: int | None) -> bool:
    """The calling G of m waits until fd is ready, or the deadline, or it comes back early as from every park.

    Returns:
        Whether fd is ready.

    Raises:
        OSError: fd is not open, or was closed meanwhile.
    """
    gp = m.curg
    assert gp is not None
    number = m.view.poll_add(fd, write, gp.word)
    if number is None:
        return True
    m.polled += 1
    wait = Wait(m, number)
    try:
        if not wait.ready():
            m.gopark(wait, deadline, WHY_IO)
    finally:
        m.polled -= 1
        state = m.view.poll_end(number)
    if state == POLL_GONE:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return state == POLL_READY
