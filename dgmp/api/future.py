"""Future: what `go` returns.

A Future belongs to the process that spawned its G.  Whoever drains that process's inbox finishes it (`finish`): a thread
in `result`, `done` or `go`, the collector thread, or, in an M, the scheduler.  It keeps the result's bytes until somebody
asks; decoding is the asker's work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgpack

from .._core import RESULT_WORKER_DIED
from ..errors import WorkerDied
from ..ship import closure

if TYPE_CHECKING:
    from .node import Node

T = TypeVar("T")
PENDING, FINISHED, DECODED = 0, 1, 2


class Future(Generic[T]):
    """The result of a G, when it has one.

    Example:
        >>> import dgmp
        >>> f = dgmp.go(pow, 2, 10)
        >>> f.result()
        1024
        >>> f.done()
        True
    """

    __slots__ = ("_node", "_state", "_kind", "_data", "_value", "_error", "_callbacks", "_waiters", "word", "_name", "_fn",
                 "_code", "_lasti", "__weakref__")

    def __init__(self, node: Node, fn: Any, name: str | None) -> None:
        self._node = node
        self._state = PENDING
        self._waiters: list[Any] | None = None
        self._callbacks: list[Callable[[Any], Any]] | None = None
        self._fn = fn
        self._name = name
        self._code: Any = None
        self._lasti = 0
        self._kind = 0
        self._data = b""
        self._value: Any = None
        self._error: BaseException | None = None
        self.word = 0

    @property
    def name(self) -> str:
        """The G's name: as given to `spawn`, else its function's."""
        return self._name or closure.describe(self._fn)

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

    def finish(self, kind: int, data: bytes) -> None:
        """The result has come; called once, by whoever drained it."""
        self._kind = kind
        self._data = data
        self._state = FINISHED
        if self._waiters is not None or self._callbacks is not None:
            self._tell()

    def fail(self, error: BaseException) -> None:
        """Ends it here: the runtime is gone."""
        if self._state == PENDING:
            self._value, self._error = None, error
            self._state = DECODED
            self._tell()

    def _tell(self) -> None:
        waiters, self._waiters = self._waiters, None
        for goready in waiters or ():
            goready()
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            self._call(callback)

    def _call(self, callback: Callable[[Any], Any]) -> None:
        try:
            callback(self)
        except Exception:
            import logging

            logging.getLogger("dgmp").exception("a callback of %r failed", self)

    def _decode(self) -> None:
        if self._state == FINISHED:
            if self._kind == RESULT_WORKER_DIED:
                self._value, self._error = None, self._worker_died()
            else:
                self._value, self._error = closure.decode_result(self._kind, self._data)
            self._state = DECODED
            self._data = b""

    def _worker_died(self) -> WorkerDied:
        how = msgpack.unpackb(self._data)
        return WorkerDied(f"G {how['goid'] or ''} ({self.name}), spawned at {self.spawned_at}, did not finish: its M "
                          f"(pid {how['pid']}) {how['how']}.  Other Gs go on; spawn it again if it may run twice.")

    def result(self, timeout: float | None = None) -> T:
        """Waits for the G and returns what its function returned.

        In a G only that G waits: it parks, and its M runs others meanwhile.

        Args:
            timeout: seconds to wait at most; None waits for ever.

        Raises:
            TimeoutError: the time is up; the G goes on.
            WorkerDied: the process that ran it died.
            Exception: whatever the function raised, its remote traceback as `__cause__`.
        """
        if self._state == PENDING:
            self._node.wait(self, timeout)
        if self._state != DECODED:
            self._decode()
        if self._error is not None:
            try:
                raise self._error
            finally:
                self = None  # type: ignore[assignment]  # no cycle from the traceback to the future
        value: T = self._value
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Waits as `result` does; the exception the G ended with, or None."""
        if self._state == PENDING:
            self._node.wait(self, timeout)
        self._decode()
        return self._error

    def done(self) -> bool:
        """Whether the G has finished; never waits."""
        if self._state == PENDING:
            self._node.collect()
        return self._state != PENDING

    def add_done_callback(self, callback: Callable[[Future[T]], Any]) -> None:
        """Calls `callback(future)` once the G has finished; at once if it has.

        It runs in some thread of this process that collects results; what it raises is logged and ignored.
        """
        with self._node.lock:
            if self._state == PENDING:
                if self._callbacks is None:
                    self._callbacks = []
                self._callbacks.append(callback)
                pending = True
            else:
                pending = False
        if pending:
            self._node.need_collector()
        else:
            self._call(callback)

    def __repr__(self) -> str:
        return f"<dgmp.Future of {self.name} {'pending' if self._state == PENDING else 'finished'}>"

    def __reduce__(self) -> Any:
        raise TypeError("a dgmp.Future stays in its process; pass it as an argument of go() or return its result()")
