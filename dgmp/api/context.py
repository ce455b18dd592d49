"""Context: a deadline and a cancellation that reach whoever has been given it (Go: package context).

A Context has a channel of its own that is closed when it is cancelled, and closes itself at its deadline; and it knows those of
its ancestors.  It is done when any of them is closed, so nobody has to tell the children, wherever they are.  What it was
cancelled for lies in a second channel, as a message that nobody receives.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..errors import Cancelled, ChanClosed
from . import runtime as api
from .chan import Chan, chan_of, closes_at, new_handle, recv, select
from .future import FOR_EVER, deadline_of

if TYPE_CHECKING:
    from .node import Node


class Done(Chan[Any]):
    """What `Context.done` returns: gives no value, and is closed when the Context is done.  For receiving only."""

    __slots__ = ("_also",)
    _also: tuple[Chan[Any], ...]  # those of the ancestors: closed when one of them is

    def recv_ok(self, timeout: float | None = None) -> tuple[Any, bool]:
        if select(recv(self), timeout=timeout)[0] < 0:
            raise TimeoutError(f"nothing came within {timeout} s")
        return None, False

    def recv(self, timeout: float | None = None) -> Any:
        self.recv_ok(timeout)
        raise ChanClosed("receive from a closed channel")

    def try_recv(self) -> tuple[Any, bool]:
        if self.closed:
            raise ChanClosed("receive from a closed channel")
        return None, False

    @property
    def closed(self) -> bool:
        return self._handle.closed() or any(chan.closed for chan in self._also)

    def __iter__(self) -> Iterator[Any]:
        self.recv_ok()
        return iter(())

    def send(self, value: Any, timeout: float | None = None) -> None:
        raise TypeError("nothing can be sent to the channel of a Context")

    def try_send(self, value: Any) -> bool:
        raise TypeError("nothing can be sent to the channel of a Context")

    def close(self) -> None:
        raise TypeError("the channel of a Context is closed by Context.cancel")

    def __reduce__(self) -> tuple[Any, ...]:
        return done_of, (chan_alone(self), self._also)


def chan_alone(chan: Chan[Any]) -> Chan[Any]:
    """The same channel, without its ancestors."""
    alone: Chan[Any] = Chan.__new__(Chan)
    alone._become(chan._node, chan._handle)
    return alone


def done_of(chan: Chan[Any], also: tuple[Chan[Any], ...]) -> Done:
    done: Done = Done.__new__(Done)
    done._become(chan._node, chan._handle)
    done._also = also
    return done


class Context:
    """Tells Gs, on whichever M, to stop: when it is cancelled, or its deadline has come, or that of a parent (Go: context).

    Travels in arguments, closures, results and messages; who has one can make children of it, and cancel it.  Cancelling a
    child does not touch its parent.  Nothing is interrupted: a G asks `cancelled()`, or waits for `done()` among other things.

    Args:
        parent: whose deadline and cancellation it inherits.
        timeout: it is done after so many seconds; None: not by time.
        deadline: it is done at that time, as time.monotonic() says it, which is the same in all processes; None: not by time.
        runtime: where it lives: by default its parent's, or that of this process.

    Raises:
        TypeError, ValueError: timeout or deadline is no number of seconds, or NaN.

    Example:
        >>> import dgmp
        >>> def work(ctx, jobs):
        ...     while True:
        ...         i, job, ok = dgmp.select(dgmp.recv(jobs), dgmp.recv(ctx.done()))
        ...         if i == 1:
        ...             return type(ctx.err()).__name__
        >>> with dgmp.Context(timeout=60) as ctx:
        ...     f = dgmp.go(work, dgmp.Context(ctx), dgmp.Chan())
        >>> f.result(), ctx.cancelled()
        ('Cancelled', True)
    """

    __slots__ = ("_chans", "_causes", "_deadline", "_is_done", "__weakref__")

    def __init__(self, parent: Context | None = None, *, timeout: float | None = None, deadline: float | None = None,
                 runtime: api.Runtime | None = None) -> None:
        if parent is not None and not isinstance(parent, Context):
            raise TypeError(f"parent must be a Context, not {type(parent).__name__}")
        node = parent._chans[0]._node if parent is not None else api.node_in(runtime)
        ends = [deadline_of(timeout), None if deadline is None else on_the_clock(deadline)]
        if parent is not None:
            ends.append(parent._deadline)
        self._deadline: int | None = min((end for end in ends if end is not None), default=None)
        self._make(node, parent)

    def _make(self, node: Node, parent: Context | None) -> None:
        """Its own channels first, then those of its ancestors, the nearest first."""
        done, cause = closes_at(node, self._deadline), chan_of(node, new_handle(node, 1, 0, 0, -1))
        self._chans: tuple[Chan[Any], ...] = (done, *(parent._chans if parent is not None else ()))
        self._causes: tuple[Chan[bytes], ...] = (cause, *(parent._causes if parent is not None else ()))
        self._is_done = False

    @property
    def deadline(self) -> float | None:
        """When it is done at the latest, as time.monotonic() says it; None: it has no deadline."""
        return None if self._deadline is None else self._deadline / 1e9

    def done(self) -> Done:
        """A channel that is closed when it is done: for `select`, and to wait (`recv_ok`)."""
        return done_of(self._chans[0], self._chans[1:])

    def cancelled(self) -> bool:
        """Whether it is done: cancelled, or beyond its deadline.  Cheap enough for inner loops."""
        if not self._is_done:
            self._is_done = any(chan._handle.closed() for chan in self._chans)
        return self._is_done

    def cancel(self, cause: BaseException | str | None = None) -> None:
        """Cancels it and all its children, from anywhere.  Once it is done this does nothing.

        Args:
            cause: why; becomes the `__cause__` of what `err` returns.
        """
        if isinstance(cause, str):
            cause = RuntimeError(cause)
        if cause is not None and not isinstance(cause, BaseException):
            raise TypeError(f"cause must be an exception, a string or None, not {type(cause).__name__}")
        if self.cancelled():
            return
        data = b""
        if cause is not None:
            from ..ship import failure

            data = failure.encode_error(cause)[1]
        with contextlib.suppress(ChanClosed):  # another was faster
            self._causes[0].try_send(data)
            self._chans[0].close()

    def err(self) -> BaseException | None:
        """Why it is done (Go: ctx.Err and context.Cause): None if it is not.

        Returns:
            Cancelled, with its cause as `__cause__`; or TimeoutError: its deadline has come.
        """
        if not self.cancelled():
            return None
        for chan, cause in zip(self._chans, self._causes, strict=True):
            data = cause._handle.peek() if chan._handle.closed() else None
            if data is not None:
                error = Cancelled("the Context was cancelled")
                if data:
                    from ..ship import failure

                    error.__cause__ = failure.decode_error(data)
                return error
        return TimeoutError("the deadline of the Context has come")

    def __enter__(self) -> Context:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.cancel()

    def __repr__(self) -> str:
        state = "done" if self.cancelled() else "not done"
        if self._deadline is None or self._is_done:
            return f"<dgmp.Context {state}>"
        return f"<dgmp.Context {state}, {(self._deadline - time.monotonic_ns()) / 1e9:.3f} s to its deadline>"

    def __reduce__(self) -> tuple[Any, ...]:
        return restored, (self._chans, self._causes, self._deadline)


def restored(chans: tuple[Chan[Any], ...], causes: tuple[Chan[bytes], ...], deadline: int | None) -> Context:
    """One that has travelled."""
    context: Context = Context.__new__(Context)
    context._chans, context._causes, context._deadline, context._is_done = chans, causes, deadline, False
    return context


def on_the_clock(deadline: float) -> int | None:
    """In ns; None: never."""
    try:
        if math.isnan(deadline):
            raise ValueError("deadline is not a time but NaN")
    except TypeError:
        raise TypeError(f"deadline must be a number of seconds or None, not {type(deadline).__name__}") from None
    left = deadline - time.monotonic()
    return None if left > FOR_EVER else max(int(deadline * 1e9), 1) if left > 0 else time.monotonic_ns()
