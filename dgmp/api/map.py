"""map: a function over the items of its iterables, in chunks, each of them a G.

The iterator that a user gets is an itertools.chain over Chunks, so that no Python code of ours runs for an item, only for a
chunk.  Chunks pulls items from the input (itertools.islice), sends them, and gives out the results of chunk after chunk; it
sends while the next one to be given out has not finished, within a window (pace).  All this is done by the thread, or in the
G, that asks for results: there is no thread beside it.

Called by runtime.
"""

from __future__ import annotations

import builtins
import contextlib
import itertools
import operator
import sys
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from .._core import RESULT_ERROR, Block
from ..errors import EncodingError, TooManyGs
from ..ship import closure, failure, functions, reason, values
from ..ship.chunk import Failed, snapshot
from .future import AnyOf, Future
from .node import Node
from .pace import MOST_BYTES, TARGET_NS, Pace, cost_of

T = TypeVar("T")
MOST_TABLED = 1 << 20  # bytes; a function that is larger goes with every chunk, as the table keeps what it has got for ever
# Inputs that do not wait for anything.  Others are pulled in pieces of about so long, with a look at the clock after each.
INSTANT = frozenset({list, tuple, range, str, bytes, bytearray, dict, set, frozenset, deque, array})
PIECE_NS = 20_000
MOST_PIECE = 64
HEAVY = 1024  # bytes of an item, from which on a result is let go of as soon as it has been taken


class Lost(Failed):
    """Stands in the place of a result that will never come: the chunk ended with an error, or the input did."""

    __slots__ = ("lost_by",)

    def __init__(self, lost_by: BaseException) -> None:
        self.lost_by = lost_by


class Results:
    """Iterator over the results of a chunk, some of which are errors: each is raised in its place."""

    def __init__(self, results: Iterable[Any], name: str) -> None:
        self.results = deque(results)
        self.name = name  # of the function

    def __length_hint__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Results:
        return self

    def __next__(self) -> Any:
        try:
            result = self.results.popleft()
        except IndexError:
            raise StopIteration from None
        if type(result) is Lost:
            raise result.lost_by
        if type(result) is Failed:
            raise closure.decode_result(RESULT_ERROR, result.data, self)[1]  # type: ignore[misc]
        return result


def lost(error: BaseException, items: int) -> Results:
    """For a chunk that ended with an error: each of its items does."""
    if items == 1:
        return Results([Lost(error)], "")
    note = f"the item was one of {items} that ran as one chunk"
    return Results([Lost(failure.copy_with_note(error, note)) for _ in range(items)], "")


class Sent(Future[Any]):
    """A chunk, from its items to its results."""

    __slots__ = ("items", "count", "size", "call", "came", "known")

    def __init__(self, chunks: Chunks, name: str, code: Any, lasti: int) -> None:
        super().__init__(chunks.node, None, name)
        self._code, self._lasti = code, lasti
        self._then = [chunks.arrivals]
        self.items: list[Any] = []
        self.count = 0  # of items; 0: not encoded yet
        self.size = 0  # in bytes, encoded
        self.call: bytes | Block = b""
        self.came = 0  # bytes of its results
        self.known = False  # that it has finished

    def results(self) -> Iterator[Any]:
        """It has finished."""
        error = self.exception()
        if error is not None:
            return lost(error, self.count)
        (_, results, failed), self._value = self._value, None
        return Results(results, self.name) if failed or self.came > HEAVY * self.count else iter(results)


class Chunks:
    """What the chain runs over: an iterator of iterators over results.

    Every step leaves it in a state in which another can go on, as Ctrl-C may end each, and finalizers and signal handlers of
    user code, or the input itself, may call it in the midst of each.
    """

    def __init__(self, node: Node, fn: Callable[..., Any], items: Iterator[Any], pace: Pace, *, width: int, starred: bool,
                 ordered: bool, instant: bool, depth: int) -> None:
        self.node = node
        self.lock = threading.RLock()
        self.items = items
        self.width = width  # how many iterables there were
        self.pace = pace
        self.fn = fn
        self.chunk = snapshot(fn, starred)
        self.starred = starred
        self.key = self.table_key()
        self.serial = time.monotonic_ns() << 12 | node.view.id
        self.ordered = ordered
        frame = sys._getframe(depth)
        self.place = frame.f_code, frame.f_lasti
        self.instant = instant
        self.piece = 1  # how many items to pull at once, if it is not
        self.slow_ns = 0  # what pulling one item took, if that is long
        self.ended = False  # the input
        self.input_error: BaseException | None = None
        self.making: Sent | None = None  # the last of sent: not yet on its way
        self.split: deque[list[Any]] = deque()  # items that could not be sent in one chunk
        self.sent: deque[Sent] = deque()  # and not given out, in order
        self.arrivals = AnyOf(node)  # finished, and not looked at yet
        self.finished: deque[Sent] = deque()  # if they are not given out in order
        self.running = 0
        self.giving: Sent | None = None  # in sent still, as its results have been taken only in part
        self.current: Iterator[Any] = iter(())  # over these results

    def table_key(self) -> int:
        if len(self.chunk.pickled) <= MOST_TABLED:
            with contextlib.suppress(MemoryError):  # the table is full
                return self.node.view.intern(values.dumps(self.chunk, self.chunk.__qualname__))
        return functions.WHOLE

    # ------------------------------------------------------------------ giving out
    def __iter__(self) -> Chunks:
        return self

    def __next__(self) -> Iterator[Any]:
        with self.lock:
            if not operator.length_hint(self.current):  # else another thread made the chain ask once more
                self.give_next()
            return self.current

    def give_next(self) -> None:
        """Sets current.  An error is given out as an iterator that raises it: raised here it would end the chain."""
        try:
            self.release()
            chunk = self.next_finished()
            results = None if chunk is None else chunk.results()
        except BaseException as e:
            self.current = lost(e, 1)
            return
        if results is None:
            raise StopIteration
        self.giving, self.current = chunk, results

    def release(self) -> None:
        """The results of the chunk that was given out last have been taken."""
        chunk = self.giving
        if chunk is not None:
            self.giving = None
            self.sent.remove(chunk)
            if not self.ordered:
                self.finished.remove(chunk)
            self.pace.given(chunk.count, chunk.size)

    def next_finished(self) -> Sent | None:
        """The next chunk whose results are to be given out; None: there is none."""
        self.send()
        self.send()
        while True:
            self.look()
            ready = self.sent if self.ordered else self.finished
            if ready and ready[0].known:
                return ready[0]
            if self.node.gone is not None:
                self.stop(self.node.gone)
            if self.slow_ns and self.running and self.wait(self.slow_ns / 4e9):
                continue  # what was about to come was not delayed by the next item
            if self.send():
                continue
            if not self.sent:
                error, self.input_error = self.input_error, None
                if error is not None:
                    raise error
                return None
            self.wait(None)

    def look(self) -> None:
        """Learns from the chunks that have finished."""
        self.node.collect()
        arrived = self.arrivals.finished
        while arrived:
            chunk = arrived[0]
            chunk.came = chunk.came or len(chunk._data)
            error = chunk.exception()
            if not self.ordered:
                self.finished.append(chunk)
            arrived.popleft()
            chunk.known = True
            if chunk.word:
                self.running -= 1
                if error is None:
                    self.pace.done(chunk.count, chunk._value[0], max(chunk.size, chunk.came))

    def wait(self, timeout: float | None) -> bool:
        """For the next chunk to give out; for any, if that is as good or tells how large the next one to send should be.
        False: the time is up."""
        any_will_do = not self.ordered or self.making is not None or self.pace.waits()
        try:
            self.node.wait(self.arrivals if any_will_do else self.sent[0], timeout)
        except TimeoutError:
            return False
        return True

    def stop(self, error: BaseException) -> None:
        """The runtime is gone: what has not been sent never will be."""
        if not self.ended or self.split:
            self.ended, self.input_error = True, error
            self.split.clear()
        chunk, self.making = self.making, None
        if chunk is not None:
            chunk.count = len(chunk.items) or 1
            chunk.fail(error)

    # ------------------------------------------------------------------ sending
    def begin(self) -> None:
        """At the call: a few chunks, fewer if it takes long to pull their items."""
        begun = time.monotonic_ns()
        for _ in range(2 * self.pace.procs):
            if not self.send() or time.monotonic_ns() - begun > TARGET_NS:
                break

    def send(self) -> bool:
        """Sends one more chunk, if there are items and room; whether it did."""
        if self.node.gone is not None:
            return False
        n = self.pace.size()
        chunk = self.making
        if chunk is None:
            if self.ended and not self.split or self.pace.waits() or not self.pace.has_room(n):
                return False
            self.making = chunk = Sent(self, self.chunk.__qualname__, *self.place)
            self.sent.append(chunk)
        if not chunk.count:
            self.fill(chunk, n)
            if not chunk.items:
                self.making = None
                self.sent.remove(chunk)
                return False
        try:
            if not chunk.count:
                self.encode(chunk)
            while not self.node.send(chunk, self.key, chunk.call):
                if self.running:  # there will be room when these have finished
                    return False
                self.node.full()
            self.running += 1
        except (EncodingError, MemoryError, TooManyGs) as e:
            if self.running and isinstance(e, MemoryError):
                return False
            chunk.count = chunk.count or len(chunk.items)
            chunk.fail(e)
        self.making, chunk.items, chunk.call = None, [], b""
        self.pace.sent(chunk.count, chunk.size)
        self.ended = self.ended or self.instant and self.pace.rest == 0
        return True

    def encode(self, chunk: Sent) -> None:
        """What cannot be pickled is found by halving: the other items go their way without it."""
        while True:
            items = chunk.items
            try:
                call = self.encoded(items)
            except reason.USER_ERRORS:
                if len(items) == 1:
                    raise
            else:
                chunk.size = len(call) if isinstance(call, bytes) else call.size
                if chunk.size <= MOST_BYTES or len(items) == 1 or self.pace.chunksize is not None:
                    break
            half = len(items) // 2
            self.split.appendleft(items[half:])
            del items[half:]
        chunk.call = call if isinstance(call, bytes) else self.node.pack(call)
        chunk.count = len(items)

    def encoded(self, items: list[Any]) -> bytes | values.Large:
        call: Any = (self.serial, *(zip(*items, strict=True) if self.width > 1 else [items]))
        if self.key == functions.WHOLE:
            call = self.chunk, call, {}
        if len(items) > 1:
            return values.pickled(call)
        args = items[0] if self.width > 1 or self.starred and isinstance(items[0], tuple) else (items[0],)
        return closure.encode_call(call, self.fn, args, {})

    # ------------------------------------------------------------------ pulling
    def fill(self, chunk: Sent, n: int) -> None:
        """Puts the next n items into the chunk, or as many as there are or come soon."""
        items = chunk.items
        try:
            if self.split:
                if not items:
                    chunk.items = self.split.popleft()
            elif not self.ended:
                self.pull(items, n)
        except Exception as e:  # comes to the user after the results of all items before it
            self.ended, self.input_error = True, e
        if self.starred:
            chunk.items[:] = builtins.map(arguments, chunk.items)

    def pull(self, items: list[Any], n: int) -> None:
        if self.instant:
            items.extend(itertools.islice(self.items, n - len(items)))
            self.ended = len(items) < n
            return
        begun = last = time.monotonic_ns()
        while len(items) < n and (last - begun < TARGET_NS or self.pace.chunksize is not None):
            had = len(items)
            piece = min(self.piece, n - had)
            items.extend(itertools.islice(self.items, piece))
            if len(items) < had + piece:
                self.ended = True
                return
            now = time.monotonic_ns()
            took, last = now - last, now
            self.piece = max(1, min(4 * self.piece, MOST_PIECE, PIECE_NS * piece // (took + 1)))
            self.slow_ns = took // piece if took > TARGET_NS * piece else 0

    # ------------------------------------------------------------------ the end
    def __del__(self) -> None:
        """Nobody wants the results any more."""
        if hasattr(self, "sent"):
            self.node.cancel(self.sent)

    def __reduce__(self) -> Any:
        raise TypeError("the iterator of a map stays in its process; pass a list of its results")


def arguments(item: Any) -> Any:
    """An item of starmap's as a tuple; if it is none, the call in the M says so."""
    try:
        return tuple(item)
    except TypeError:
        return item


# ---------------------------------------------------------------------- what runtime calls
def length_of(iterables: Sequence[Iterable[Any]]) -> int | None:
    """Of the shortest, as far as they know their lengths."""
    lengths = []
    for iterable in iterables:
        with contextlib.suppress(Exception):  # user code
            length = operator.length_hint(iterable, -1)
            if length >= 0:
                lengths.append(length)
    return min(lengths, default=None)


def at_least_one(name: str, value: Any) -> int | None:
    """A parameter that must be a whole number from 1 on, or None."""
    if value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number or None, not {value!r}") from None
    if number < 1:
        raise ValueError(f"{name} must be at least 1, not {number}")
    return number


def iterator_of(iterable: Any, name: str) -> Iterator[Any]:
    try:
        return iter(iterable)
    except TypeError:
        if hasattr(type(iterable), "__iter__"):  # its own error
            raise
        raise TypeError(f"{name} must be iterable, not {type(iterable).__name__}") from None


def start(node: Node, fn: Callable[..., T], iterables: Sequence[Iterable[Any]], chunksize: int | None, buffersize: int | None,
          depth: int, *, starred: bool = False, ordered: bool = True) -> Iterator[T]:
    """The iterator over fn's results; depth: of the user's frame, as seen from here."""
    node.catch_changes()
    if not callable(fn):
        raise TypeError(f"map needs a function, not {fn!r}")
    if not iterables:
        raise TypeError("map needs at least one iterable after the function")
    chunksize, buffersize = at_least_one("chunksize", chunksize), at_least_one("buffersize", buffersize)
    pace = Pace(cost_of(fn), node.view.nprocs, length_of(iterables), chunksize, buffersize)
    iterators = [iterator_of(iterable, f"argument {at} of map") for at, iterable in enumerate(iterables, 2)]
    items = iterators[0] if len(iterators) == 1 else zip(*iterators, strict=False)
    instant = all(type(iterable) in INSTANT for iterable in iterables)
    chunks = Chunks(node, fn, items, pace, width=len(iterators), starred=starred, ordered=ordered, instant=instant,
                    depth=depth + 1)
    chunks.begin()
    return itertools.chain.from_iterable(chunks)
