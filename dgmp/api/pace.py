"""How many items of a map go into its next chunk, and how many chunks may be on their way.

A chunk should take about a millisecond: then 10**6 trivial items need a thousand chunks and not a million Gs, and of items
that take longer each is a chunk of its own.  How long an item takes is measured by the Ms and remembered per function; of a
function that nobody knows a few single items are sent first.  A chunk is at most some times as large as one whose time is
known, and towards the end of an input of known length the chunks become small, so that all Ms end together.

No processes and no clocks in here.  Called by map.
"""

from __future__ import annotations

import functools
import threading
import types
import weakref
from typing import Any

from ..ship.snapshot import Snapshot

TARGET_NS = 1_000_000
GROWTH = 8
PER_P = 4  # so many chunks for each P should the rest of an input be cut into
LEAST_NS = 50_000  # but not into smaller ones than this, by what this call has measured
MOST_BYTES = 1 << 20  # of a chunk, encoded

# The window: what has been sent and not been given out.  A straggler of 200 ms at its head among tasks of 2 ms must not stop
# the others; a million trivial results must not lie in memory.
MOST_CHUNKS = 1024
MOST_ITEMS = 1 << 18
MOST_WINDOW_BYTES = 64 << 20

KEEP = 0.75  # of what was measured before, with each new measurement
MOST_KNOWN = 1024


class Cost:
    """What an item of a function has cost of late: time, and bytes of its arguments or its result."""

    __slots__ = ("items", "ns", "bytes")

    def __init__(self) -> None:
        self.items = self.ns = self.bytes = 0.0

    def add(self, items: int, ns: int, size: int) -> None:
        self.items = KEEP * self.items + items
        self.ns = KEEP * self.ns + ns
        self.bytes = KEEP * self.bytes + size


_known: weakref.WeakKeyDictionary[Any, Cost] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def cost_of(fn: Any) -> Cost:
    """What is known of a function: of its code, as a lambda is made anew each time; of a callable object, by its class."""
    while isinstance(fn, (functools.partial, Snapshot)):
        fn = fn.func if isinstance(fn, functools.partial) else fn._fn
    if isinstance(fn, types.MethodType):
        fn = fn.__func__
    if isinstance(fn, types.FunctionType):
        fn = fn.__code__
    elif not isinstance(fn, (types.BuiltinFunctionType, type)):
        fn = type(fn)
    try:
        with _lock:
            known = _known.get(fn)
            if known is None:
                if len(_known) >= MOST_KNOWN:
                    del _known[next(iter(_known))]
                known = _known[fn] = Cost()
            return known
    except Exception:  # a metaclass's __hash__ or __eq__
        return Cost()


class Pace:
    """The sizes of one map's chunks.

    Args:
        cost: of its function.
        procs: how many Ps there are.
        length: of the input; None if it is not known.
        chunksize, buffersize: as given to `map`.
    """

    def __init__(self, cost: Cost, procs: int, length: int | None, chunksize: int | None, buffersize: int | None) -> None:
        self.cost = cost
        self.procs = procs
        self.rest = length
        self.chunksize = chunksize
        self.buffersize = buffersize
        self.begun = 0  # chunks
        self.measured = 0  # items, in this call
        self.limit = max(1, self.for_target() // GROWTH)
        self.chunks = self.items = self.bytes = 0  # in the window

    # ------------------------------------------------------------------ what happened
    def sent(self, items: int, size: int) -> None:
        self.begun += 1
        self.chunks += 1
        self.items += items
        self.bytes += size
        if self.rest is not None:
            self.rest -= items

    def done(self, items: int, ns: int, size: int) -> None:
        """size: in bytes, of its arguments or of its results, whichever are more."""
        self.cost.add(items, ns, size)
        self.measured += items
        self.limit = max(self.limit, GROWTH * items)

    def given(self, items: int, size: int) -> None:
        self.chunks -= 1
        self.items -= items
        self.bytes -= size

    def empty(self) -> None:
        """Nothing is on its way, whatever interrupts may have left in the books."""
        self.chunks = self.items = self.bytes = self.begun = 0

    # ------------------------------------------------------------------ what to do
    def for_target(self) -> int:
        """How many items take TARGET_NS; 0: nobody knows."""
        return int(TARGET_NS * self.cost.items / max(self.cost.ns, 1))

    def waits(self) -> bool:
        """Whether a result must come first, to learn from."""
        return self.chunksize is None and not self.cost.items and self.begun >= 2 * self.procs

    def size(self) -> int:
        """How many items the next chunk should have."""
        n = self.chunksize
        if n is None:
            n = min(self.for_target(), self.limit)
            if self.cost.bytes:
                n = min(n, int(MOST_BYTES * self.cost.items / self.cost.bytes))
            if self.rest is not None:
                n = min(n, max(self.rest // (PER_P * self.procs), self.least()))
            if self.buffersize is not None:
                n = min(n, self.buffersize // (2 * self.procs))
        if self.buffersize is not None:
            n = min(n, self.buffersize)
        return max(1, n)

    def least(self) -> int:
        return min(self.for_target() * LEAST_NS // TARGET_NS, self.measured // 32)

    def is_full(self) -> bool:
        """Whether there is no room whatever the next chunk's size."""
        return self.chunks >= MOST_CHUNKS and self.buffersize is None and self.chunks >= 2 * self.procs

    def has_room(self, n: int) -> bool:
        """Whether n items more may be on their way."""
        if self.buffersize is not None:
            return self.items + n <= self.buffersize
        if self.chunks < 2 * self.procs:
            return True
        return self.chunks < MOST_CHUNKS and self.items + n <= MOST_ITEMS and self.bytes_waiting() < MOST_WINDOW_BYTES

    def bytes_waiting(self) -> float:
        """Of the arguments sent, or the results that are expected for them."""
        return max(self.bytes, self.items * self.cost.bytes / max(self.cost.items, 1))
