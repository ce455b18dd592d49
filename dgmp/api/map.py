"""map: a function over the items of its iterables, in chunks, each of them a G.

The iterator that a user gets is an itertools.chain, so that no Python code of ours runs for an item, only for a chunk.  The
chain runs over Chunks and over its outlet in turn: Chunks yields nothing itself, but when it ends, the results of the next
chunk lie in the outlet.  So the chain, which is at its end once the iterator it gets its iterators from has raised, can be
gone on with after every error and after Ctrl-C.

Chunks sends while the next chunk to be given out has not finished, within a window (pace).  All this is done by the thread,
or in the G, that asks for results: there is no thread beside it.

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
from ..errors import DgmpError, EncodingError, TooManyGs
from ..runtime import numbers
from ..ship import closure, failure, functions, reason, values
from ..ship.chunk import Failed
from .future import PENDING, AnyOf, Future
from .node import Node
from .pace import MOST_BYTES, TARGET_NS, Pace, cost_of

T = TypeVar("T")
# A function that is larger goes with every chunk, and once so many are there all others do: the table keeps what it has got.
MOST_TABLED = 1 << 20  # bytes
MOST_TABLED_IN_ALL = 16 << 20
MOST_FUNCTIONS = 1024
# Inputs that do not wait for anything.  Others are pulled in pieces of about so long, with a look at the clock after each.
INSTANT = frozenset({list, tuple, range, str, bytes, bytearray, dict, set, frozenset, deque, array})
PIECE_NS = 20_000
MOST_PIECE = 64
HEAVY = 1024  # bytes of an item, from which on a result is let go of as soon as it has been taken
NOTHING: Iterator[Any] = iter(())
END = object()  # in the outlet: there are no more results
SPARE = 16  # how many threads may come to the outlet at one time


# ---------------------------------------------------------------------- results
class Lost(Failed):
    """Stands in the place of a result that will never come, as its chunk has ended with an error."""

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


class Sent(Future[Any]):
    """A chunk, from its items to its results."""

    __slots__ = ("items", "count", "size", "call", "came", "known")

    in_chunks = True

    def __init__(self, node: Node, name: str, place: tuple[Any, int], then: list[Any]) -> None:
        super().__init__(node, None, name, *place)
        self._then = then
        self.word = 0  # not sent yet
        self.items: list[Any] = []
        self.count = 0  # of items; 0: not encoded yet
        self.size = 0  # in bytes, encoded
        self.call: bytes | Block = b""
        self.came = 0  # bytes of its results
        self.known = False  # how long it took

    def results(self) -> Iterator[Any]:
        """It has finished."""
        error = self.exception()
        if error is None:
            _, results, failed = self._value
            return Results(results, self.name) if failed or self.came > HEAVY * self.count else iter(results)
        if self.count == 1:
            return Results([Lost(error)], self.name)
        note = f"the item was one of {self.count} that went as one chunk"
        return Results([Lost(failure.copy_with_note(error, note)) for _ in range(self.count)], self.name)


# ---------------------------------------------------------------------- items
class Input:
    """The items, as far as they have not been sent.

    Args:
        items: an iterator; of tuples if width, the number of iterables, is more than one.
        starred: its items are tuples of arguments, or other iterables that can become that.
        instant: the iterables never wait.
    """

    def __init__(self, items: Iterator[Any], width: int, starred: bool, instant: bool) -> None:
        self.items, self.width, self.starred, self.instant = items, width, starred, instant
        self.piece = 1  # how many to pull at once
        self.slow_ns = 0  # what one item took, if that is long
        self.pulled_all = False
        self.error: BaseException | None = None  # that ended it; comes to the user after the results of all items before
        self.split: deque[list[Any]] = deque()  # items that could not go in one chunk

    def ended(self) -> bool:
        return self.pulled_all and not self.split

    def end(self, error: BaseException) -> None:
        """Nothing more is sent: `error` comes in the place of what is left."""
        if not self.ended():
            self.pulled_all, self.error = True, error
            self.split.clear()

    def fill(self, chunk: Sent, n: int, exactly: bool) -> None:
        """Puts the next n items into the chunk, or as many as there are or, if not exactly that many must be, come soon."""
        try:
            if self.split:
                if not chunk.items:
                    chunk.items = self.split.popleft()
            elif not self.pulled_all:
                self.pull(chunk.items, n, exactly)
        except Exception as e:
            self.pulled_all, self.error = True, e
        if self.starred:
            chunk.items[:] = builtins.map(arguments, chunk.items)

    def pull(self, items: list[Any], n: int, exactly: bool) -> None:
        if self.instant:
            items.extend(itertools.islice(self.items, max(0, n - len(items))))
            self.pulled_all = len(items) < n
            return
        begun = last = time.monotonic_ns()
        while len(items) < n and (last - begun < TARGET_NS or exactly):
            had = len(items)
            piece = min(self.piece, n - had)
            items.extend(itertools.islice(self.items, piece))  # keeps what came before an exception
            if len(items) < had + piece:
                self.pulled_all = True
                return
            now = time.monotonic_ns()
            took, last = now - last, now
            self.piece = max(1, min(4 * self.piece, MOST_PIECE, PIECE_NS * piece // (took + 1)))
            self.slow_ns = took // piece if took > TARGET_NS * piece else 0

    def halve(self, items: list[Any]) -> None:
        half = len(items) // 2
        self.split.appendleft(items[half:])
        del items[half:]

    def columns(self, items: list[Any]) -> list[Any]:
        """A list for each parameter, as a chunk's function takes them."""
        return list(zip(*items, strict=True)) if self.width > 1 else [items]

    def arguments(self, item: Any) -> tuple[Any, ...]:
        return item if self.width > 1 or self.starred and isinstance(item, tuple) else (item,)


def arguments(item: Any) -> Any:
    """An item of starmap's as a tuple; if it is none, the call in the M says so."""
    try:
        return tuple(item)
    except TypeError:
        return item


# ---------------------------------------------------------------------- chunks
class Chunks:
    """Sends chunks, and puts the results of one after another into the outlet.

    Every step leaves it in a state in which another can go on: Ctrl-C may end each, and signal handlers and finalizers of user
    code, and the input itself, may ask for results in the midst of each.

    Args:
        place: code and instruction of the call, for messages.
    """

    def __init__(self, node: Node, fn: Callable[..., Any], source: Input, pace: Pace, ordered: bool,
                 place: tuple[Any, int]) -> None:
        self.node = node
        self.fn = fn
        self.source = source
        self.pace = pace
        self.ordered = ordered
        self.place = place
        self.lock = threading.RLock()
        self.chunk = closure.snapshot_for_map(fn, source.starred)
        self.key = self.table_key()
        self.serial = time.monotonic_ns() << 12 | node.view.id
        self.making: Sent | None = None  # the last of sent, if it is not on its way yet
        self.sent: deque[Sent] = deque()  # and not given out, in order
        self.unnoticed: deque[Sent] = deque()  # those of sent of which we do not know that they have finished
        self.any = AnyOf(self.unnoticed)
        self.finished: deque[Sent] = deque()  # and not given out, if that is not done in order
        self.giving: Sent | None = None  # still in sent, as its results have been taken only in part
        self.current = NOTHING  # over these results
        self.outlet: list[Any] = [NOTHING]

    def table_key(self) -> int:
        if len(self.chunk.pickled) > MOST_TABLED:
            return functions.WHOLE
        data = values.dumps(self.chunk, self.chunk.__qualname__)
        tabled = self.node.tabled
        key = tabled.get(data, functions.WHOLE)
        if not key and len(tabled) < MOST_FUNCTIONS and sum(builtins.map(len, tabled)) + len(data) <= MOST_TABLED_IN_ALL:
            with contextlib.suppress(MemoryError):  # the table is full
                key = tabled[data] = self.node.view.intern(data)
        return key

    def chain(self) -> Iterator[Any]:
        """In zip(self) there is no method __iter__ in Python for the chain to call, in which an interrupt would end it."""
        in_turn = zip(iter(self.outlet.pop, END), itertools.repeat(zip(self)), strict=False)
        return itertools.chain.from_iterable(itertools.chain.from_iterable(in_turn))

    # ------------------------------------------------------------------ giving out
    def __iter__(self) -> Chunks:
        return self

    def __next__(self) -> Any:
        with self.lock:
            if not operator.length_hint(self.current):  # else another thread has made the chain pass by it
                self.release()
                chunk = self.next_finished()
                if chunk is None:
                    self.outlet[:] = [END] * SPARE
                    raise StopIteration
                results = chunk.results()
                self.giving, self.current = chunk, results
                chunk._value = None
            self.outlet[:] = [*[NOTHING] * SPARE, self.current]
            raise StopIteration

    def release(self) -> None:
        """The results of the chunk that was given out last have been taken."""
        chunk = self.giving
        if chunk is not None:
            if self.finished and self.finished[0] is chunk:
                self.finished.popleft()
            with contextlib.suppress(ValueError):
                self.sent.remove(chunk)
                self.pace.given(chunk.count, chunk.size)
            self.giving = None

    def next_finished(self) -> Sent | None:
        """The next chunk whose results are to be given out; None: there is none."""
        self.send()
        self.send()
        while True:
            self.node.collect()
            self.notice(self.pace.procs + 4)  # nearly all that have finished, as they begin in order
            ready = self.sent if self.ordered else self.finished
            if ready and ready[0].known:
                return ready[0]
            if self.node.gone is not None:
                self.stop(self.node.gone)
            if self.source.slow_ns and self.running() and self.wait(self.source.slow_ns / 4e9):
                continue  # what was about to come has not been delayed by the next item
            if self.send() or self.any_will_do() and self.notice(len(self.unnoticed)):
                continue
            if self.sent:
                self.wait(None)
            elif self.source.ended():
                error, self.source.error = self.source.error, None
                if error is not None:
                    raise error
                return None
            else:
                self.pace.empty()

    def notice(self, most: int) -> bool:
        """Learns from chunks that have finished, among the first of those that it is not known of, how long they took."""
        noticed = False
        for chunk in list(itertools.islice(self.unnoticed, most)):
            if chunk._state != PENDING:
                if not chunk.known:
                    self.learn(chunk)
                    chunk.known = True
                    if not self.ordered:
                        self.finished.append(chunk)
                self.unnoticed.remove(chunk)
                noticed = True
        return noticed

    def learn(self, chunk: Sent) -> None:
        data = chunk._data
        chunk.came = max(chunk.came, len(data[0] if isinstance(data, tuple) else data))
        if chunk.exception() is None:
            self.pace.done(chunk.count, chunk._value[0], max(chunk.size, chunk.came))

    def any_will_do(self) -> bool:
        """Whether any chunk that finishes is of use: to be given out, or to tell how large the next one to send should be."""
        return not self.ordered or self.making is not None or self.pace.waits()

    def wait(self, timeout: float | None) -> bool:
        """For the next chunk to give out, or for any.  False: the time is up."""
        try:
            self.node.wait(self.any if self.any_will_do() else self.sent[0], timeout)
        except TimeoutError:
            return False
        except DgmpError:
            if self.node.gone is None:
                raise
        return True  # and if the runtime is gone, that comes in the places of what has not

    def stop(self, error: BaseException) -> None:
        """The runtime is gone: what has not been sent never will be."""
        self.source.end(error)
        chunk, self.making = self.making, None
        if chunk is not None:
            chunk.count = len(chunk.items) or 1
            chunk.fail(error)

    def running(self) -> bool:
        """Whether something is on its way, which leaves room when it has finished."""
        return any(chunk.word and chunk._state == PENDING for chunk in self.unnoticed)

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
        if self.making is None and (self.pace.is_full() or self.source.ended() or self.pace.waits()):
            return False
        n = self.pace.size()
        if self.making is None:
            if not self.pace.has_room(n):
                return False
            self.making = Sent(self.node, self.chunk.__qualname__, self.place, self.any._then)
        chunk = self.making
        if not self.sent or self.sent[-1] is not chunk:
            self.sent.append(chunk)
        if not self.unnoticed or self.unnoticed[-1] is not chunk:
            self.unnoticed.append(chunk)
        if not chunk.count:
            self.source.fill(chunk, n, self.pace.chunksize is not None)
            if not chunk.items:
                self.sent.pop()
                self.unnoticed.pop()
                self.making = None
                return False
        try:
            if not self.start(chunk):
                return False
        except (EncodingError, MemoryError, TooManyGs) as e:
            chunk.count = chunk.count or len(chunk.items)
            chunk.fail(e)
        except DgmpError:
            if self.node.gone is None:
                raise
            return False  # another thread has just seen that the runtime is gone: see stop
        self.making, chunk.items, chunk.call = None, [], b""
        self.pace.sent(chunk.count, chunk.size)
        if self.source.instant and self.pace.rest == 0:
            self.source.pulled_all = True
        return True

    def start(self, chunk: Sent) -> bool:
        """False: there is no room now, but will be."""
        try:
            if not chunk.count:
                self.encode(chunk)
            while not chunk.word and not self.node.send(chunk, self.key, chunk.call):
                if self.running():
                    return False
                self.node.full()
        except MemoryError:
            if self.running():
                return False
            raise
        return True

    def encode(self, chunk: Sent) -> None:
        """What cannot be pickled is found by halving: the other items go their way without it."""
        while True:
            try:
                call = self.encoded(chunk.items)
            except reason.USER_ERRORS:
                if len(chunk.items) == 1:
                    raise
            else:
                chunk.size = len(call) if isinstance(call, bytes) else call.size
                if chunk.size <= MOST_BYTES or len(chunk.items) == 1 or self.pace.chunksize is not None:
                    break
            self.source.halve(chunk.items)
        chunk.call = call if isinstance(call, bytes) else self.node.pack(call)
        chunk.count = len(chunk.items)

    def encoded(self, items: list[Any]) -> bytes | values.Large:
        call: Any = (self.serial, *self.source.columns(items))
        if self.key == functions.WHOLE:
            call = self.chunk, call, {}
        if len(items) > 1:
            return values.pickled(call)
        if type(items[0]) in values.SMALL_TYPES and self.key != functions.WHOLE:
            return values.small(call)
        return closure.encode_call(call, self.fn, self.source.arguments(items[0]), {})

    # ------------------------------------------------------------------ the end
    def __del__(self) -> None:
        """Nobody wants the results any more."""
        if hasattr(self, "sent"):
            self.node.cancel(self.sent)

    def __reduce__(self) -> Any:
        raise TypeError("the iterator of a map stays in its process; pass a list of its results")


# ---------------------------------------------------------------------- what runtime calls
def start(node: Node, fn: Callable[..., T], iterables: Sequence[Iterable[Any]], chunksize: int | None, buffersize: int | None,
          depth: int, *, starred: bool = False, ordered: bool = True) -> Iterator[T]:
    """The iterator over fn's results; depth: of the user's frame, as seen from here."""
    if node.gone is not None:
        raise node.ended()
    node.look_for_changes()
    if not callable(fn):
        raise TypeError(f"map needs a function, not {fn!r}")
    if not iterables:
        raise TypeError("map needs at least one iterable after the function")
    chunksize, buffersize = at_least_one("chunksize", chunksize), at_least_one("buffersize", buffersize)
    pace = Pace(cost_of(fn), node.view.nprocs, length_of(iterables), chunksize, buffersize)
    iterators = [iterator_of(iterable, f"argument {at} of map") for at, iterable in enumerate(iterables, 2)]
    items = iterators[0] if len(iterators) == 1 else zip(*iterators, strict=False)
    source = Input(items, len(iterators), starred, all(type(iterable) in INSTANT for iterable in iterables))
    frame = sys._getframe(depth)
    chunks = Chunks(node, fn, source, pace, ordered, (frame.f_code, frame.f_lasti))
    chunks.begin()
    return chunks.chain()


def at_least_one(name: str, value: Any) -> int | None:
    """A parameter that must be a whole number from 1 on, or None."""
    number = numbers.whole_or_none(name, value)
    return None if number is None else min(numbers.at_least(name, number, 1), sys.maxsize)


def length_of(iterables: Sequence[Iterable[Any]]) -> int | None:
    """Of the shortest, as far as they know their lengths."""
    lengths = []
    for iterable in iterables:
        with contextlib.suppress(Exception):  # user code
            length = operator.length_hint(iterable, -1)
            if length >= 0:
                lengths.append(length)
    return min(lengths, default=None)


def iterator_of(iterable: Any, name: str) -> Iterator[Any]:
    try:
        return iter(iterable)
    except TypeError:
        if hasattr(type(iterable), "__iter__"):  # its own error
            raise
        raise TypeError(f"{name} must be iterable, not {type(iterable).__name__}") from None
