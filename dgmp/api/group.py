"""Group: a block that does not end before its Gs do (Go: errgroup.Group; asyncio.TaskGroup).

A Group is told of the end of each of its Gs by whoever collects in this process (`Listener`), so an error is seen while the
block still runs.  Then the others are cancelled, and the block itself: the G or thread that is in it raises Cancelled where
it waits, or in the next `go` of the Group.  A thread that waits for something other than Gs collects now and then.  The Group
belongs to the thread or G that has entered it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from .._core import RESULT_NONE, RESULT_VALUE
from ..errors import Cancelled
from . import runtime as api
from .future import DECODED, PENDING, Future, Listener

if TYPE_CHECKING:
    from typing import Unpack

    from ..runtime.proc import G
    from .member import Member
    from .node import Node

T = TypeVar("T")


class Gs(Listener):
    """The Gs of one Group.

    Args:
        node: whose they are.
        member, gp: the G that is in the block, if it is one.
    """

    __slots__ = ("node", "member", "gp", "thread", "live", "failed", "stopped", "raised")

    name = "the Gs of a Group"

    def __init__(self, node: Node, member: Member | None, gp: G | None) -> None:
        super().__init__()
        self.node, self.member, self.gp = node, member, gp
        self.thread = get_ident()
        self.live: OrderedDict[int, Future[Any]] = OrderedDict()
        self.failed: list[Future[Any]] = []
        self.stopped = False  # they have been cancelled: no more are taken
        self.raised: Cancelled | None = None  # in the block, because of that

    @property
    def _state(self) -> int:
        """PENDING while one has not ended.  An interrupt may have kept one from being noted."""
        while self.live:
            try:
                future = next(iter(self.live.values()))
            except (StopIteration, RuntimeError):  # another thread has just noted one
                continue
            if future._state == PENDING:
                return PENDING
            self.note(future)
        return DECODED

    def ended(self, future: Future[Any]) -> None:
        self.note(future)
        if not self.live:
            while self._then:
                self.node.ready(self._then.pop())

    def note(self, future: Future[Any]) -> None:
        """Once for each that has ended: those that have failed are kept, and the first of them stops the others."""
        if self.live.pop(id(future), None) is None or future._kind in (RESULT_VALUE, RESULT_NONE) or future._was_cancelled():
            return
        self.failed.append(future)
        if not self.stopped:
            self.stop()

    def stop(self) -> None:
        """Cancels them, and whoever is in the block."""
        self.stopped = True
        self.node.cancel_all(list(self.live.values()))
        if self.gp is not None and self.member is not None:
            assert self.gp.stop is not None
            self.gp.stop.add(self)
            self.member.m.goready(self.gp.word)
        elif self.thread:
            self.node.stops.setdefault(self.thread, set()).add(self)

    def block_is_over(self) -> None:
        gp, self.gp = self.gp, None
        thread, self.thread = self.thread, 0
        if gp is not None and gp.stop is not None:
            gp.stop.discard(self)
        stops = self.node.stops.get(thread)
        if stops is not None:
            stops.discard(self)
            if not stops:
                self.node.stops.pop(thread, None)


def rank(error: BaseException) -> int:
    """Of what has ended a block, and its wait at the end: 0 is raised alone, 1 with the errors of the Gs, 2 only without."""
    return 0 if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)) else 2 if isinstance(error, Cancelled) else 1


class Group:
    """A `with` block that waits for the Gs that are spawned in it: structured concurrency (Go: golang.org/x/sync/errgroup).

    When one of them fails the others are cancelled, and an ExceptionGroup of all errors is raised at the end of the block;
    the Cancelled of those that were cancelled are left out.  The block itself is cancelled, too, where it waits in a call of
    dgmp, or in the next `go`.  When the block raises, all are cancelled, and its exception is raised: in an
    ExceptionGroup if some of them failed, by itself otherwise.  Who is cancelled, or interrupted, while it waits at the end
    cancels them, and waits on; after a second interrupt it does not.

    May be nested, in Gs too; may be entered once, and is not to be passed to other Gs.

    Args:
        runtime: whose Gs they are; by default that of this process, as for `dgmp.go`.

    Raises:
        ExceptionGroup: as above; BaseExceptionGroup if an error is no Exception.
        RuntimeError: it is entered a second time, or used outside of its block.

    Example:
        >>> import dgmp
        >>> with dgmp.Group() as g:
        ...     a, b = g.go(pow, 2, 10), g.go(pow, 3, 2)
        >>> a.result() + b.result()
        1033
        >>> try:
        ...     with dgmp.Group() as g:
        ...         f = g.go(int, "x")
        ... except* ValueError as e:
        ...     print(e.exceptions)
        (ValueError("invalid literal for int() with base 10: 'x'"),)
    """

    def __init__(self, runtime: api.Runtime | None = None) -> None:
        self._runtime = runtime
        self._gs: Gs | None = None
        self._state = "new"
        self._told: BaseException | None = None  # raised in the caller while it waited at the end

    def __enter__(self) -> Group:
        if self._state != "new":
            raise RuntimeError("a Group can be entered once")
        node = api.node_in(self._runtime)
        member, gp = api._member, api.current_g()
        if gp is not None and gp.stop is None:
            gp.stop = set()
        self._gs, self._state = Gs(node, member, gp), "open"
        return self

    # ------------------------------------------------------------------ in the block
    def go(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Runs `fn(*args, **kwargs)` as a G of this Group.

        Raises:
            Cancelled: the Group has been cancelled; at the end of the block what it was cancelled for is raised instead.
            Whatever `dgmp.go` raises.
        """
        return self._add(fn, args, kwargs, None)

    def spawn(self, fn: Callable[..., T], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None, *,
              name: str | None = None, **terms: Unpack[api.Terms]) -> Future[T]:
        """The long form of `go`, as `dgmp.spawn` is."""
        return self._add(fn, *api.call(args, kwargs, name), terms)

    def _add(self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], name: str | None,
             terms: api.Terms | None = None) -> Future[T]:
        gs = self._gs
        if gs is None or self._state != "open":
            raise RuntimeError(f"the Group is {self._state}: it takes Gs only inside of its with block")
        if gs.stopped:
            gs.raised = Cancelled("the Group was cancelled")
            raise gs.raised
        future: Future[T] = gs.node.go(fn, args, kwargs, name, 3, None, api.say(gs.node, terms) if terms else None)
        gs.live[id(future)] = future
        future.listen().append(gs)
        if future._state != PENDING:
            gs.node.tell(future)
        if gs.stopped:  # as it was being added
            gs.node.cancel_all([future])
        return future

    def cancel(self) -> None:
        """Cancels the Gs of this Group, and its block; without an error there is none to be raised at the end.  Idempotent."""
        if self._gs is not None and self._state != "closed" and not self._gs.stopped:
            self._gs.stop()

    # ------------------------------------------------------------------ the end
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> bool:
        gs = self._gs
        assert gs is not None
        self._state = "ending"
        gs.block_is_over()
        if error is not None:
            self.cancel()
        try:
            self._wait(gs)
        finally:
            self._state = "closed"
        try:
            return self._end(gs, error)
        finally:
            self._gs = self._told = error = None  # no cycles

    def _wait(self, gs: Gs) -> None:
        """For all of them.  Who is told to end, or interrupted, cancels them and waits on."""
        while True:
            try:
                gs.node.wait(gs, None)
                return
            except BaseException as e:
                if self._told is not None and not isinstance(e, Cancelled):
                    raise
                self._told = e
                gs.stopped = True
                gs.node.cancel_all(list(gs.live.values()))

    def _end(self, gs: Gs, error: BaseException | None) -> bool:
        """Raises what there is to be raised."""
        told = min((e for e in (self._told, error) if e is not None), key=rank, default=None)
        raised, gs.raised, self._told = gs.raised, None, None  # their tracebacks lead to who has this Group
        errors = [e for e in (future.exception() for future in gs.failed) if e is not None]
        if errors and (told is None or rank(told) > 0):
            if told is not None and rank(told) == 1:
                errors.insert(0, told)
            n = len(errors)
            raise BaseExceptionGroup(f"{n} error{'s' if n > 1 else ''} in a dgmp.Group", errors) from None
        if told is None or told is raised:
            return True
        if told is error:
            return False
        raise told

    def __repr__(self) -> str:
        n = len(self._gs.live) if self._gs is not None else 0
        return f"<dgmp.Group {self._state}, {n} G{'s' if n != 1 else ''} not ended>"

    def __reduce__(self) -> Any:
        raise TypeError("a dgmp.Group stays with who has entered it; a G can make one of its own")
