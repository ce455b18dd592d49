"""Future: what `go` returns.

A Future belongs to the process that spawned its G.  Whoever drains that process's inbox (`View.drain`) sets _kind, _data
and _state in it: a thread in `result`, `done` or `go`, the collector thread, or, in an M, the scheduler.  It keeps the
result's bytes until somebody asks; decoding is the asker's work.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Collection, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .._core import RESULT_CANCELLED, RESULT_ERROR, RESULT_WORKER_DIED, Block, Handle
from ..errors import Cancelled, EncodingError
from ..ship import closure, values

if TYPE_CHECKING:
    from .node import Node

T = TypeVar("T")
PENDING, FINISHED, DECODED = 0, 1, 2  # FINISHED is set by the core
ANY_WORD = 1  # in place of a G's word: every completion wakes the waiter
FOR_EVER = 3e9  # seconds: a century is no limit


def deadline_of(timeout: float | None) -> int | None:
    """When `timeout` seconds from now are over, on the monotonic clock in ns; None: there is no limit."""
    if timeout is None:
        return None
    try:
        if math.isnan(timeout):
            raise ValueError("timeout is not a number of seconds but NaN")
    except TypeError:
        raise TypeError(f"timeout must be a number of seconds or None, not {type(timeout).__name__}") from None
    except OverflowError:  # an int beyond every float
        pass
    if timeout > FOR_EVER:
        return None
    return time.monotonic_ns() + (int(float(timeout) * 1e9) if timeout > 0 else 0)


class Quick:
    """A callback of ours that never blocks: it may run on the scheduler."""

    __slots__ = ()

    def __call__(self, future: Any) -> None:
        raise NotImplementedError


class AnyOf:
    """What one can wait for, as for a Future: that one of several Futures has finished.

    Args:
        futures: may change; whose `_then` is this one's, so that a G that is parked here goes on when one of them ends.
    """

    __slots__ = ("futures", "_then")

    word = ANY_WORD
    in_chunks = False
    name = "any of several Gs"

    def __init__(self, futures: Collection[Any]) -> None:
        self.futures = futures
        self._then: list[Any] = []

    @property
    def _state(self) -> int:
        return FINISHED if any(future._state != PENDING for future in self.futures) else PENDING

    def listen(self) -> list[Any]:
        return self._then


class Listener:
    """What stands in the `_then` of Futures to be told of the end of each, at once, by whoever collects: maybe the scheduler
    of an M, so it is short and runs no user code.  One can wait for it, as for a Future."""

    __slots__ = ("_then", "__weakref__")

    word = ANY_WORD
    in_chunks = False
    name = "what several Gs are to do"

    def __init__(self) -> None:
        self._then: list[Any] = []

    @property
    def _state(self) -> int:
        raise NotImplementedError

    def listen(self) -> list[Any]:
        return self._then

    def ended(self, future: Future[Any]) -> None:
        raise NotImplementedError


class Future(Generic[T]):
    """The result of a G, when it has one (Go: none; there a goroutine sends it on a channel).

    Example:
        >>> import dgmp
        >>> f = dgmp.go(pow, 2, 10)
        >>> f.result()
        1024
        >>> f.done()
        True
    """

    __slots__ = ("_node", "_state", "_kind", "_data", "_value", "_error", "_then", "word", "_name", "_fn", "_code", "_lasti",
                 "__weakref__")

    in_chunks = False  # whether who waits for it may as well wait for a few
    word: int  # of its slot; the core sets it as it spawns the G
    _kind: int  # of the result, in _data; the core sets both, and _state after them
    _data: bytes | Block | tuple[bytes | Block, tuple[Handle | None, ...]]  # and what keeps the shared objects in it
    _value: Any  # when it is DECODED
    _error: BaseException | None

    def __init__(self, node: Node, fn: Any, name: str | None, code: Any = None, lasti: int = 0) -> None:
        self._node = node
        self._state = PENDING
        self._then: list[Any] | None = None  # callbacks, and words of Gs that are parked until it has finished
        self._fn = fn
        self._name = name
        self._code = code
        self._lasti = lasti

    @property
    def name(self) -> str:
        """The G's name: as given to `spawn`, else its function's."""
        return self._name or values.describe(self._fn)

    @property
    def _label(self) -> str:
        """The G's name in dumps, for the core."""
        return self._name or values.label(self._fn)

    @property
    def spawned_at(self) -> str:
        """Where the G was spawned: file and line."""
        if self._code is None:
            return "an unknown place"
        line = self._code.co_firstlineno
        for start, end, at in self._code.co_lines():
            if start <= self._lasti < end and at is not None:
                line = at
        return f"{self._code.co_filename}:{line}"

    def fail(self, error: BaseException) -> None:
        """Ends it here: the runtime is gone, or an argument has failed."""
        if self._state == PENDING:
            self._kind = RESULT_CANCELLED if isinstance(error, Cancelled) else RESULT_ERROR
            self._value, self._error, self._data = None, error, b""
            self._state = DECODED
            self._node.tell(self)

    def listen(self) -> list[Any]:
        """Where to put a callback.  Whoever has put one looks at the state after."""
        with self._node.lock:
            if self._then is None:
                self._then = []
            return self._then

    def run_callback(self, callback: Callable[[Any], Any]) -> None:
        """What it raises is logged and ignored, but for Ctrl-C: that is not the callback's."""
        try:
            callback(self)
        except BaseException as e:
            from ..ship import reason

            if isinstance(e, KeyboardInterrupt) and reason.is_ctrl_c(e):
                raise
            import logging

            with contextlib.suppress(Exception):  # near the recursion limit, or a handler that fails
                logging.getLogger("dgmp").exception("a callback of %r failed", self)

    def _decode(self) -> None:
        data = self._data  # before the state: another thread may be at it too
        if self._state != FINISHED:
            return
        kept = data
        if isinstance(data, tuple):
            data = data[0]
        if self._kind == RESULT_WORKER_DIED:
            value: Any = None
            error: BaseException | None = self._worker_died(bytes(data))
        else:
            value, error = closure.decode_result(self._kind, data, self)
        del kept
        if isinstance(error, EncodingError):
            error.add_note(f"the G was spawned at {self.spawned_at}")
        if self._state == FINISHED:
            self._value, self._error = value, error
            self._state = DECODED
            self._data = b""
        if self._node.pending:
            self._node.run_handlers()

    def _worker_died(self, data: bytes) -> BaseException:
        from ..ship import death

        return death.error(data, self.name, f", spawned at {self.spawned_at}")

    def result(self, timeout: float | None = None) -> T:
        """Waits for the G and returns what its function returned.

        In a G only that G waits: it parks, and its M runs others meanwhile.

        Args:
            timeout: seconds to wait at most; None, infinity and more than a century wait for ever, a negative one not at
                all.

        Raises:
            TimeoutError: the time is up; the G goes on.
            TypeError, ValueError: timeout is no number, or NaN.
            WorkerDied: the process died in which it ran or was parked.
            Cancelled: it was cancelled; or the calling G was, while it waited.
            Exception: whatever the function raised, its remote traceback as `__cause__`.
        """
        if self._state == PENDING:
            self._node.wait(self, timeout)
        if self._state != DECODED:
            self._decode()
        if self._error is not None:
            error, context = self._error, self._error.__context__
            try:
                raise error.with_traceback(None)  # always the same one, each time with a new traceback,
            finally:
                error.__context__ = context  # and with its own context, not with what its asker is at
                del self, error, context  # no cycle from the traceback to the future
        value: T = self._value
        return value

    def __await__(self) -> Generator[Any, None, T]:
        """In a coroutine: its result, once it has finished; other tasks of the loop run meanwhile.  Cancelling the one that
        awaits does not cancel the G.

        Example:
            >>> import asyncio, dgmp
            >>> async def main():
            ...     return await dgmp.go(pow, 2, 5) + await dgmp.go(pow, 2, 3)
            >>> asyncio.run(main()), dgmp.go(main).result()
            (40, 40)
        """
        if self._state == PENDING:
            from . import awaiting

            yield from awaiting.wait(self)
        return self.result()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Waits for the G as `result` does, and returns how it failed.

        Args:
            timeout: as for `result`.

        Returns:
            The exception the G ended with, `Cancelled` and `WorkerDied` too; None if it returned.

        Raises:
            TimeoutError: the time is up; the G goes on.
            TypeError, ValueError: timeout is no number, or NaN.

        Example:
            >>> import dgmp
            >>> dgmp.go(int, "x").exception()
            ValueError("invalid literal for int() with base 10: 'x'")
        """
        if self._state == PENDING:
            self._node.wait(self, timeout)
        self._decode()
        return self._error

    def done(self) -> bool:
        """Whether the G has finished; never waits."""
        if self._state == PENDING:
            self._node.collect()
        return self._state != PENDING

    def cancel(self) -> bool:
        """Cancels the G.

        One that is queued, or waits for its arguments, ends at once; those that wait for it as an argument end likewise, and
        do not run, as soon as an M comes to them.  One that waits in a call of dgmp raises `Cancelled` there; one that runs,
        between two bytecodes, also out of `time.sleep` and other calls that a signal interrupts, but not inside of
        `dgmp.nopreempt()`.  It may clean up in its `finally` blocks, or go on: it is not told again unless cancel is called
        again, and `dgmp.cancelled()` remembers it.  If it still runs when its grace is over (`spawn`, `Runtime`; 5 seconds),
        as it is in C code that never returns or will not end, its M is killed and another takes its place.

        Returns:
            True: it has ended as cancelled, or has been asked to.  False: it had already ended otherwise.  As in
            concurrent.futures, except that a running one can be cancelled, too.

        Example:
            >>> import dgmp
            >>> f = dgmp.go(lambda: dgmp.go(dgmp.gosched).result())
            >>> f.result(), f.cancel(), f.cancelled()
            (None, False, False)
        """
        return self._node.cancel_one(self)

    def cancelled(self) -> bool:
        """Whether the G was cancelled, and has ended so; never waits."""
        return self.done() and self._was_cancelled()

    def _was_cancelled(self) -> bool:
        """Of one that has ended.  Its M may have died before it could say so, or have been killed for it."""
        if self._kind != RESULT_WORKER_DIED:
            return self._kind == RESULT_CANCELLED
        data = self._data  # before the state, as in _decode
        if self._state == DECODED:
            return isinstance(self._error, Cancelled)
        from ..ship import death

        return death.split(bytes(data[0] if isinstance(data, tuple) else data))[1] == death.CANCELLED

    def add_done_callback(self, callback: Callable[[Future[T]], Any]) -> None:
        """Calls `callback(future)` once the G has finished; at once if it has.

        It runs in some thread of this process that collects results; what it raises is logged and ignored.

        Raises:
            TypeError: it cannot be called.
        """
        if not callable(callback):
            raise TypeError(f"a callback must be callable, not {callback!r}")
        self.done()
        if self._state != PENDING:
            self.run_callback(callback)
            return
        self.listen().append(callback)
        if self._state == PENDING:
            self._node.need_collector()
        else:
            self._node.tell(self)

    def __repr__(self) -> str:
        return f"<dgmp.Future of {self.name} {'pending' if self._state == PENDING else 'finished'}>"

    def __reduce__(self) -> Any:
        raise TypeError("a dgmp.Future stays in its process; pass it directly as an argument of go(), not inside a container, "
                        "or pass its result()")
