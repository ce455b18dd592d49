"""Channels, select and timers: Go's, between any Gs, threads and processes of a runtime.

The channel itself is in shared memory (_core/chan.c); a Chan is this process's hold on it.  Each operation is one call of
the core, which does it or returns a Wait; on that a G parks, a thread sleeps.  A Chan that is pickled notes that in
ship.travel, so that the channel stays as long as anything refers to it.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .._core import WHY_CHAN_RECV, WHY_CHAN_SEND, WHY_SELECT, Block, Handle, Wait
from ..errors import ChanClosed
from ..runtime import numbers
from ..ship import travel, values
from . import runtime as runtimes
from .future import FOR_EVER, deadline_of

if TYPE_CHECKING:
    from .node import Node
    from .runtime import Runtime

T = TypeVar("T")
MOST_CAPACITY = 1 << 40


class Codec:
    """Values that the core does not know how to send, to bytes or a Block."""

    def __init__(self, node: Node) -> None:
        self.view = node.view
        self.view.codec(self.encode, pickle.loads, values.loads, ChanClosed)

    def encode(self, value: Any) -> bytes | Block:
        data = values.encode(value, f"the message ({type(value).__name__})", "message")
        return data if isinstance(data, bytes) else self.view.pack(data.stream, data.buffers)


def codec_of(node: Node) -> None:
    """Before the first channel of this process is used."""
    if node.codec is None:
        node.codec = Codec(node)


class Chan(Generic[T]):
    """A channel (Go: make(chan T, capacity)).

    It belongs to one runtime.  It can be an argument, a result, a captured variable or a message in another channel, and
    lives as long as anybody refers to it.  Values are copied; large buffers in them are read in place, read-only.

    Args:
        capacity: how many values it keeps that nobody has received yet.  0: who sends waits for who receives.
        runtime: the one that it belongs to; default: that of the calling G, or the embedded one.

    Raises:
        TypeError, ValueError: capacity is no whole number, or negative.
        MemoryError: the runtime's shared memory has no room for it.

    Example:
        >>> import dgmp
        >>> def produce(out):
        ...     for i in range(3):
        ...         out.send(i * i)
        ...     out.close()
        >>> squares = dgmp.Chan()
        >>> f = dgmp.go(produce, squares)
        >>> list(squares)
        [0, 1, 4]
    """

    __slots__ = ("_node", "_handle", "_send", "_recv", "__weakref__")
    _also: tuple[Chan[Any], ...] = ()  # a receive from this one is from any of these, too (api.context)

    def __init__(self, capacity: int = 0, *, runtime: Runtime | None = None) -> None:
        cap = numbers.at_least("capacity", capacity, 0)
        node = runtimes.node_in(runtime)
        self._become(node, new_handle(node, min(cap, MOST_CAPACITY), 0, 0, -1))

    def _become(self, node: Node, handle: Handle) -> None:
        self._node, self._handle = node, handle
        self._send, self._recv = handle.send, handle.recv

    def send(self, value: T, timeout: float | None = None) -> None:
        """Sends value: waits until it is received, or has room in the buffer (Go: c <- value).

        Args:
            timeout: seconds to wait at most; None, infinity and more than a century: for ever.

        Raises:
            ChanClosed: the channel is closed, or was as we waited.
            TimeoutError: the time is up; value was not sent.
            EncodingError: value cannot be pickled.

        Example:
            >>> import dgmp
            >>> c = dgmp.Chan(1)
            >>> c.send("x")
            >>> c.recv()
            'x'
        """
        deadline = None if timeout is None else deadline_of(timeout)
        wait = self._send(value)
        if wait is not None:
            wait_for(self._node, wait, deadline, timeout, WHY_CHAN_SEND)

    def recv(self, timeout: float | None = None) -> T:
        """Receives the next value, and waits for it (Go: <-c).

        Go gives a zero value if the channel is closed; Python has none for all types, so here that raises.  See `recv_ok`.

        Args:
            timeout: as for `send`.

        Raises:
            ChanClosed: the channel is closed and all that was in it has been received.
            TimeoutError: the time is up.

        Example:
            >>> import dgmp
            >>> c = dgmp.Chan(1)
            >>> c.send([1, 2])
            >>> c.recv()
            [1, 2]
        """
        deadline = None if timeout is None else deadline_of(timeout)
        value: Any = self._recv()
        if type(value) is Wait:
            value = wait_for(self._node, value, deadline, timeout, WHY_CHAN_RECV)
        return value  # type: ignore[no-any-return]

    def recv_ok(self, timeout: float | None = None) -> tuple[T | None, bool]:
        """Receives as `recv` does: (value, True), or (None, False) from a closed channel (Go: v, ok := <-c).

        Example:
            >>> import dgmp
            >>> c = dgmp.Chan(1)
            >>> c.send(7)
            >>> c.close()
            >>> c.recv_ok(), c.recv_ok()
            ((7, True), (None, False))
        """
        deadline = None if timeout is None else deadline_of(timeout)
        pair: Any = self._handle.recv_ok()
        if type(pair) is Wait:
            pair = wait_for(self._node, pair, deadline, timeout, WHY_CHAN_RECV)
        return pair  # type: ignore[no-any-return]

    def try_send(self, value: T) -> bool:
        """Sends value if that needs no waiting (Go: select with a default case).  Whether it did.

        Raises:
            ChanClosed: the channel is closed.
            EncodingError: value cannot be pickled.

        Example:
            >>> import dgmp
            >>> c = dgmp.Chan(1)
            >>> c.try_send(1), c.try_send(2)
            (True, False)
        """
        return self._handle.try_send(value)

    def try_recv(self) -> tuple[T | None, bool]:
        """(value, True) if there is one now, else (None, False).

        Raises:
            ChanClosed: the channel is closed and all that was in it has been received.

        Example:
            >>> import dgmp
            >>> dgmp.Chan(1).try_recv()
            (None, False)
        """
        return self._handle.try_recv()

    def close(self) -> None:
        """No more values come: who receives gets what is in the buffer, then learns that it is closed (Go: close(c)).

        Who waits to send gets ChanClosed.

        Raises:
            ChanClosed: it was closed already.
            TypeError: it is a timer's.

        Example:
            >>> import dgmp
            >>> c = dgmp.Chan()
            >>> c.close()
            >>> list(c)
            []
        """
        self._handle.close()

    @property
    def closed(self) -> bool:
        """Whether it has been closed; there may be values in it."""
        return self._handle.closed()

    @property
    def cap(self) -> int:
        """How many values its buffer can hold (Go: cap(c))."""
        return self._handle.cap

    def __len__(self) -> int:
        """How many values are in its buffer (Go: len(c))."""
        return self._handle.len

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[T]:
        """The values, until it is closed (Go: for v := range c)."""
        while True:
            value, ok = self.recv_ok()
            if not ok:
                return
            yield value  # type: ignore[misc]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Chan) and other._handle.word == self._handle.word and other._node is self._node

    def __hash__(self) -> int:
        return hash(self._handle.word)

    def __repr__(self) -> str:
        try:
            state = f"{len(self)}/{self.cap}{' closed' if self.closed else ''}"
        except Exception:  # its runtime has ended
            state = "of a runtime that has ended"
        return f"<dgmp.Chan {self._handle.word & 0x3fffffffffffffff:x} {state}>"

    def __reduce__(self) -> tuple[Any, ...]:
        self._handle.escape()
        travel.note(self._handle.word)
        return _arrived, (self._node.view.runtime_id, self._handle.word)


def new_handle(node: Node, cap: int, due: int, period: int, closes_at: int) -> Handle:
    codec_of(node)
    return node.view.chan(cap, due, period, closes_at)


def chan_of(node: Node, handle: Handle) -> Chan[Any]:
    chan: Chan[Any] = Chan.__new__(Chan)
    chan._become(node, handle)
    return chan


def _arrived(runtime_id: int, word: int) -> Chan[Any]:
    node = runtimes.node_of(runtime_id)
    if node is None:
        raise LookupError("the channel belongs to a runtime of which this process is no member")
    codec_of(node)
    try:
        return chan_of(node, node.view.handle(word))
    except LookupError:
        raise LookupError("the channel has ended: nobody referred to it any more") from None


# ---------------------------------------------------------------------- waiting
def wait_for(node: Node, wait: Wait, deadline: int | None, timeout: float | None, reason: int) -> Any:
    """The outcome of a wait: the calling G parks, a thread sleeps."""
    got: Any = wait
    while got is wait:
        node.await_(wait, deadline, reason)
        late = deadline is not None and time.monotonic_ns() >= deadline
        got = wait.end(late)
        if got is None and late and not wait.came:
            what = "the value could not be sent" if reason == WHY_CHAN_SEND else "nothing came"
            raise TimeoutError(f"{what} within {timeout} s")
    return got


# ---------------------------------------------------------------------- select
class Case:
    """A case of `select`, as `recv` and `send` make it."""

    __slots__ = ("chan", "parts")

    def __init__(self, chan: Chan[Any], *value: Any) -> None:
        if not isinstance(chan, Chan):
            raise TypeError(f"a case needs a Chan, not {type(chan).__name__}")
        self.chan, self.parts = chan, (chan._handle, *value)


def recv(chan: Chan[Any]) -> Case:
    """A case of `select`: receive from chan (Go: case v := <-chan).

    Example:
        See `select`.
    """
    return Case(chan)


def send(chan: Chan[T], value: T) -> Case:
    """A case of `select`: send value to chan (Go: case chan <- value).

    Example:
        See `select`.
    """
    return Case(chan, value)


def select(*cases: Case, timeout: float | None = None) -> tuple[int, Any, bool]:
    """Waits until one of the cases can go, and does it (Go: select).  Of several that can, a random one.

    Args:
        cases: made by `recv` and `send`; all channels of one runtime.  Without any it waits for ever.
        timeout: seconds to wait at most.  0 is Go's default case: if no case can go now, none does.

    Returns:
        (i, value, ok): which case it was; what was received, None for a send; False for a receive from a closed channel.
        (-1, None, False): none, within timeout.

    Raises:
        ChanClosed: the chosen case sends to a closed channel.
        TypeError: a case is none, or sends to a timer.
        ValueError: the channels belong to different runtimes.
        EncodingError: a value cannot be pickled.

    Example:
        >>> import dgmp
        >>> a, b = dgmp.Chan(1), dgmp.Chan(1)
        >>> a.send("hello")
        >>> dgmp.select(dgmp.recv(a), dgmp.recv(b))
        (0, 'hello', True)
        >>> dgmp.select(dgmp.recv(a), timeout=0)
        (-1, None, False)
        >>> dgmp.select(dgmp.send(b, 1), dgmp.recv(a))
        (0, None, True)
    """
    deadline = None if timeout is None else deadline_of(timeout)
    more: list[int] = []  # further cases: which of the caller's each belongs to
    parts: list[Any] = []
    for i, case in enumerate(cases):
        if type(case) is not Case:
            raise TypeError(f"select takes cases made by recv(chan) and send(chan, value), not {type(case).__name__}")
        parts.append(case.parts)
        if case.chan._also:
            more += [i] * len(case.chan._also)
    for i in dict.fromkeys(more):
        parts += [(chan._handle,) for chan in cases[i].chan._also]
    node = cases[0].chan._node if cases else runtimes.node()
    block = deadline is None or time.monotonic_ns() < deadline
    got = node.view.select(tuple(parts), block)
    while type(got) is Wait:
        wait = got
        node.await_(wait, deadline, WHY_SELECT)
        got = wait.end(deadline is not None and time.monotonic_ns() >= deadline)
    if got is None:
        return -1, None, False
    return got if got[0] < len(cases) else (more[got[0] - len(cases)], *got[1:])


# ---------------------------------------------------------------------- timers
def due_in(seconds: float) -> int:
    """On the monotonic clock, in ns; -1: never."""
    deadline = deadline_of(seconds)
    return -1 if deadline is None else deadline


def after(seconds: float, *, runtime: Runtime | None = None) -> Chan[float]:
    """A channel that gives the time, as `time.time()` would say it, once so many seconds are over (Go: time.After).

    Nothing runs for it, and it costs nothing once nobody refers to it.

    Example:
        >>> import dgmp
        >>> work = dgmp.Chan()
        >>> i, _, _ = dgmp.select(dgmp.recv(work), dgmp.recv(dgmp.after(0.001)))
        >>> i
        1
    """
    node = runtimes.node_in(runtime)
    return chan_of(node, new_handle(node, 0, due_in(seconds), 0, -1))


def tick(seconds: float, *, runtime: Runtime | None = None) -> Chan[float]:
    """A channel that gives the time every so many seconds (Go: time.Tick).  Ticks that nobody received in time are dropped.

    Raises:
        ValueError: seconds is not more than 0.

    Example:
        >>> import dgmp
        >>> ticks = dgmp.tick(0.001)
        >>> ticks.recv() < ticks.recv()
        True
    """
    deadline_of(seconds)  # checks it, before a runtime boots for it
    if not seconds > 0:
        raise ValueError(f"a tick needs more than {seconds} seconds")
    node = runtimes.node_in(runtime)
    period = int(min(float(seconds), FOR_EVER) * 1e9) or 1
    return chan_of(node, new_handle(node, 0, due_in(seconds), period, -1))


def closes_at(node: Node, deadline: int | None) -> Chan[Any]:
    """A channel without values that closes by itself at `deadline`, monotonic ns; None: not by itself."""
    return chan_of(node, new_handle(node, 0, 0, 0, -1 if deadline is None else deadline))
