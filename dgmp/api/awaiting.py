"""`await future`: in an async G, or in any running asyncio loop of a process that owns the Future.

The Future's end is told to the loop by a callback, from whatever thread collects results, as asyncio has it for threads.  Kept
apart from Future so that asyncio is imported only by those who use it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from .future import PENDING, Quick

if TYPE_CHECKING:
    from .future import Future


class Waker(Quick):
    """A callback that wakes a coroutine."""

    __slots__ = ("loop", "waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[None]) -> None:
        self.loop, self.waiter = loop, waiter

    def __call__(self, future: Future[Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits
            self.loop.call_soon_threadsafe(self.wake)

    def wake(self) -> None:
        if not self.waiter.done():
            self.waiter.set_result(None)


def wait(future: Future[Any]) -> Generator[Any, None, None]:
    """Until future has finished, without blocking the loop."""
    node = future._node
    node.collect()
    if future._state != PENDING:
        return
    loop = asyncio.get_running_loop()
    waker = Waker(loop, loop.create_future())
    listeners = future.listen()
    listeners.append(waker)
    if future._state != PENDING:
        node.tell(future)
    elif not node.collects_for(loop):
        node.need_collector()
    try:
        yield from waker.waiter
    finally:
        with contextlib.suppress(ValueError):  # it has been called
            listeners.remove(waker)
