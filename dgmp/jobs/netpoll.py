"""What the launcher waits for: descriptors of any kind, in one epoll; and inputs, read by a G that parks while there are none.

A process is waited for by its pidfd, signals by a signalfd, output by pipes: each has a function that is called as it is
ready.  The inputs are a generator, which reads as it pleases by read() below.  Where that would wait, the G in which the
generator runs (a greenlet) parks, and the launcher goes on with what else there is.
"""

from __future__ import annotations

import os
import select
from collections import deque

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .source import Source

    Act = Callable[[Any], object]

LONGEST = 1e6  # seconds that epoll is asked to wait at once

_waiting: list[Callable[[int], None]] = []  # parks the G that reads; none: reads may wait


def read(fd: int, size: int) -> bytes:
    """os.read, for inputs: other work goes on while there is nothing to read."""
    while True:
        if _waiting:
            _waiting[-1](fd)
        try:
            return os.read(fd, size)
        except BlockingIOError:  # somebody has set O_NONBLOCK on what we share with them
            wait(fd, select.POLLIN)


def wait(fd: int, events: int, seconds: float | None = None) -> bool:
    """Whether that came in time."""
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


class Netpoll:
    """One epoll, and what is done as a descriptor is ready."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.acts: dict[int, tuple[Act, Any]] = {}

    def add(self, fd: int, act: Act, about: Any = None) -> None:
        """act(about) is called whenever fd can be read.

        Raises:
            PermissionError: that it always can, a regular file.
        """
        self.epoll.register(fd, select.EPOLLIN)
        self.acts[fd] = act, about

    def remove(self, fd: int) -> None:
        """Before it is closed: a child that is just becoming a program may still have it open."""
        del self.acts[fd]
        self.epoll.unregister(fd)

    def poll(self, seconds: float | None) -> bool:
        """Waits until something is ready, at most so long, and does what there is to do for it; whether there was anything."""
        acts = self.acts
        ready = self.epoll.poll(None if seconds is None else min(seconds, LONGEST))
        for fd, _ in ready:
            found = acts.get(fd)
            if found is not None:  # what came before has not closed it
                found[0](found[1])
        return bool(ready)

    def close(self) -> None:
        self.epoll.close()


class Inputs:
    """An iterator that may park.

    Args:
        source: what it yields; reads by read().
        parks: whether it may have to wait; else no G is made for it.

    Attributes:
        over: there will be no more.
        parked: it waits for more.
        ahead: what has been read, and not taken.
        count: how many have been read.
    """

    def __init__(self, source: Source, netpoll: Netpoll, parks: bool) -> None:
        self.source, self.netpoll = source, netpoll
        self.over = False
        self.parked = False
        self.ahead: deque[Any] = deque()
        self.count = 0
        self.g: Any = None
        if parks:
            import greenlet

            self.g0 = greenlet.getcurrent()
            self.g = greenlet.greenlet(self._run)

    def peek(self) -> Any:
        """The next one, which stays; None: there is none, or none yet."""
        if not self.ahead and not self.over and not self.parked:
            self._read()
        return self.ahead[0] if self.ahead else None

    def take(self) -> Any:
        """What peek() has found."""
        return self.ahead.popleft()

    def read_ahead(self, more: int) -> bool:
        """Reads so many, if they are there; whether all these were."""
        while more and not self.over and not self.parked:
            self._read()
            more -= 1
        return not more

    def _read(self) -> None:
        if self.g is None:
            self._next()
        else:
            self._switch()

    def _next(self) -> None:
        found = next(self.source, None)
        if found is None:
            self.over = True
        else:
            self.ahead.append(found)
            self.count += 1

    def _run(self) -> None:
        while not self.over:
            self._next()
            self.g0.switch()

    def _switch(self) -> None:
        _waiting.append(self._park)
        try:
            self.g.switch()
        finally:
            _waiting.remove(self._park)

    def _park(self, fd: int) -> None:
        """In the G: until fd can be read."""
        if wait(fd, select.POLLIN, 0):
            return
        self.parked = True
        self.netpoll.add(fd, self._ready, fd)
        self.g0.switch()

    def _ready(self, fd: int) -> None:
        self.netpoll.remove(fd)
        self.parked = False
        self._switch()
