"""The timers of one M: until when its parked Gs wait at most (Go: time.go).

A heap by deadline, as each P has one in Go; here it is the M's, as a parked G cannot leave its process.  Whoever stops a
timer only marks it, as Go does (timerModifiedXX); marked ones leave when they come to the top, or all together when they are
the greater part.  So a timer costs O(log n), whether it fires or not.

Called by proc, on the M's own thread.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

FEW = 64  # stopped timers that nobody minds


class Timers:
    """The heap: [deadline, serial, word] each; word 0: stopped, or it has fired.

    Args:
        publish: is told the first deadline when that is another one, 0 if there is none; sysmon looks at it.
    """

    def __init__(self, publish: Callable[[int], None] = lambda deadline: None) -> None:
        self.publish = publish
        self.published = 0
        self.heap: list[list[int]] = []
        self.serial = 0
        self.stopped = 0  # of those in the heap

    def add(self, deadline: int, word: int) -> list[int]:
        """A timer that fires for G `word` at the deadline (monotonic, ns)."""
        self.serial += 1
        timer = [deadline, self.serial, word]
        heappush(self.heap, timer)
        self.tell()
        return timer

    def stop(self, timer: list[int]) -> None:
        """It does not fire any more."""
        if timer[2]:
            timer[2] = 0
            self.stopped += 1
            if self.stopped > FEW and 2 * self.stopped > len(self.heap):
                self.heap = [timer for timer in self.heap if timer[2]]
                heapify(self.heap)
                self.stopped = 0
                self.tell()

    def expire(self, now: int) -> list[int]:
        """The words whose time is up, the earliest first."""
        heap = self.heap
        words: list[int] = []
        while heap and (heap[0][0] <= now or not heap[0][2]):
            timer = heappop(heap)
            if timer[2]:
                words.append(timer[2])
                timer[2] = 0
            else:
                self.stopped -= 1
        self.tell()
        return words

    def tell(self) -> None:
        """The first deadline may be another one."""
        first = self.heap[0][0] if self.heap else 0
        if first != self.published:
            self.published = first
            self.publish(first)

    def wait(self, now: int) -> int:
        """How long nothing fires, in ns; -1: for ever."""
        return max(0, self.heap[0][0] - now) if self.heap else -1


class Pause:
    """What a G waits for that only sleeps: nobody brings it."""

    _state = 0

    @property
    def _then(self) -> list[Any]:
        return []


PAUSE = Pause()
