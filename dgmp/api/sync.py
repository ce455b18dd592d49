"""Mutex, RWMutex, Semaphore, WaitGroup and Once: Go's package sync, between processes.

All are made of one kind of shared object, a counting semaphore in the segment (_core/sema.c) that is served in order of arrival
and knows how much each process holds.  A G that has to wait parks; a thread sleeps on a futex.  What a killed process
held is free again, and the next one learns it (HolderDied).

How an operation went is written by the core into a list of ours, in the call that did it: an exception that strikes at
any moment after finds it there and undoes it (Sema.undo).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from .._core import SEMA_BLOCKS, SEMA_DIED, SEMA_DONE, WHY_SEMA
from ..errors import HolderDied
from ..runtime import numbers
from ..runtime.signals import call
from ..ship import travel
from . import runtime as api
from .future import PENDING, Future, Listener, deadline_of
from .node import LOOK_NS, Member, Node

T = TypeVar("T")
READERS = 1 << 30  # units of an RWMutex: a reader holds one, a writer all
MOST = (1 << 32) - 1  # units that one can ask for
MOMENT_NS = 1_000_000  # to wait for one who is handing over


class Wait:
    """What a G parks for: a wait at a semaphore.

    Args:
        to: where the core has put the wait, and will put how it ended.
    """

    __slots__ = ("sema", "to", "_then")

    def __init__(self, sema: Sema, to: list[int]) -> None:
        self.sema, self.to = sema, to
        self._then: list[Any] = []

    @property
    def _state(self) -> bool:
        return self.to[0] >= 0 or not self.sema.node.view.sema_pending(self.to[0])

    def give_up(self) -> bool:
        self.sema.give_up(self.to)
        return self.to[0] == SEMA_BLOCKS


class Sema:
    """One process's handle of a counting semaphore.

    Args:
        node: the runtime.
        n: how many units it has; 0: no limit, it only counts.
        tell_at: the death of a process that held so many is told to the next one.
    """

    __slots__ = ("node", "handle", "word")

    def __init__(self, node: Node, n: int, tell_at: int) -> None:
        self.node = node
        self.handle = node.view.sema_new(n, tell_at)
        self.word = self.handle.word

    def acquire(self, units: int, timeout: float | None, what: str) -> None:
        """Waits until units are free, and takes them."""
        view, word = self.node.view, self.word
        self.wait(lambda waiter, wait, to: view.sema_acquire(word, units, waiter, wait, to), units, timeout, what)

    def wait_zero(self, timeout: float | None, what: str) -> None:
        """Waits until no unit is held."""
        view, word = self.node.view, self.word
        self.wait(lambda waiter, wait, to: view.sema_wait_zero(word, waiter, wait, to), 0, timeout, what)

    def try_acquire(self, units: int) -> bool:
        """Takes the units if they are free and nobody waits."""
        to = [SEMA_BLOCKS]
        try:
            gp = api.current_g()
            self.node.view.sema_acquire(self.word, units, 0 if gp is None else gp.word, False, to)
            self.run_handlers()
        except BaseException:
            self.undo(to, units)
            raise
        if to[0] == SEMA_DIED:
            raise self.holder_died()
        return to[0] == SEMA_DONE

    def release(self, units: int) -> bool:
        """False: so many are not held."""
        done = self.node.view.sema_release(self.word, units)
        self.run_handlers()
        return done

    def wait(self, operation: Callable[[int, bool, list[int]], None], units: int, timeout: float | None, what: str) -> None:
        deadline = deadline_of(timeout)
        gp = api.current_g()
        waiter = 0 if gp is None else gp.word
        to = [SEMA_BLOCKS]
        try:
            operation(waiter, deadline is None or time.monotonic_ns() < deadline, to)
            while to[0] < 0:
                if gp is not None:
                    self.park(to, deadline)
                else:
                    self.sleep(to, deadline)
                if to[0] == SEMA_BLOCKS and (deadline is None or time.monotonic_ns() < deadline):
                    operation(waiter, True, to)  # who was about to hand over died
            self.run_handlers()
        except BaseException:
            self.undo(to, units)
            raise
        if to[0] == SEMA_DIED:
            raise self.holder_died()
        if to[0] == SEMA_BLOCKS:
            raise TimeoutError(f"{what} within {timeout} s")

    def park(self, to: list[int], deadline: int | None) -> None:
        """The calling G waits until that has ended."""
        waits = Wait(self, to)
        assert isinstance(self.node, Member)
        self.node.park(waits, deadline, WHY_SEMA, waits.give_up)
        if to[0] < 0:
            self.node.view.sema_wait_end(self.word, False, to)

    def sleep(self, to: list[int], deadline: int | None) -> None:
        """The calling thread does."""
        node, view = self.node, self.node.view
        if isinstance(node, Member) and threading.get_ident() == node.m.thread:
            raise RuntimeError("a signal handler whose G has ended runs on the scheduler and cannot wait")
        while view.sema_pending(to[0]):
            if node.stops and node.is_told():
                self.give_up(to)
                return node.raise_cancelled() if to[0] == SEMA_BLOCKS else None
            left = LOOK_NS if deadline is None else min(LOOK_NS, deadline - time.monotonic_ns())
            if left <= 0:
                return self.give_up(to)
            view.sema_sleep(to[0], left)
            if left == LOOK_NS and view.sema_pending(to[0]):
                node.collect()
                node.look(deadline is None)
        view.sema_wait_end(self.word, False, to)

    def give_up(self, to: list[int]) -> None:
        """Ends the wait, if it goes on: what it waits for comes in this moment, or not any more."""
        view = self.node.view
        while to[0] < 0:
            view.sema_wait_end(self.word, True, to)
            if to[0] < 0:
                view.sema_sleep(to[0], MOMENT_NS)

    def undo(self, to: list[int], units: int) -> None:
        """As if it had not been begun; quietly if the runtime is gone."""
        with contextlib.suppress(Exception):
            self.give_up(to)
            if to[0] == SEMA_DONE:
                self.node.view.sema_release(self.word, units)

    def run_handlers(self) -> None:
        """Those of signals that came meanwhile: this module counts as the scheduler (runtime.signals)."""
        if self.node.pending:
            self.node.run_handlers()

    def holder_died(self) -> HolderDied:
        goid = self.node.view.sema_state(self.word)[3]
        who = f"G {goid}" if goid else "a thread"
        return HolderDied(f"the process died in which {who} held it; it is free again")

    def used(self) -> int:
        return self.node.view.sema_state(self.word)[0]

    def __reduce__(self) -> Any:
        self.handle.escape()
        travel.note(self.word)
        return arrived, (self.node.view.runtime_id, self.word)


def arrived(runtime_id: int, word: int) -> Sema:
    """One that has travelled."""
    node = api.node_of(runtime_id)
    if node is None:
        raise LookupError("it belongs to a runtime of which this process is no member")
    sema = Sema.__new__(Sema)
    try:
        sema.node, sema.handle, sema.word = node, node.view.handle(word), word
    except LookupError:
        raise LookupError("it has ended: nobody referred to it any more") from None
    return sema


class Primitive:
    """What the classes of this module share: a semaphore."""

    __slots__ = ("_sema", "__weakref__")
    _sema: Sema

    def __reduce__(self) -> Any:
        return restored, (type(self), self._sema)


def restored(cls: type[Primitive], sema: Sema) -> Primitive:
    """One that has travelled."""
    primitive = cls.__new__(cls)
    primitive._sema = sema
    return primitive


class Mutex(Primitive):
    """A lock between all Gs, threads and processes of a runtime (Go: sync.Mutex).

    Who waits gets it in order of arrival.  As in Go it belongs to nobody: who unlocks it may be another than who has locked it,
    and one G that locks it twice waits for ever.  It travels in arguments, closures and results.

    Args:
        runtime: where it lives; by default the runtime of this process, as for `dgmp.go`.

    Example:
        >>> import dgmp
        >>> m = dgmp.Mutex()
        >>> with m:
        ...     m.locked(), m.try_lock()
        (True, False)
    """

    __slots__ = ()

    def __init__(self, *, runtime: api.Runtime | None = None) -> None:
        self._sema = Sema(api.node_in(runtime), 1, 1)

    def lock(self, timeout: float | None = None) -> None:
        """Waits until it is free, and locks it.

        Args:
            timeout: seconds to wait at most; None: for ever.

        Raises:
            TimeoutError: it was not free in that time.
            HolderDied: the process died that held it; it is free now, and this call has not locked it.
            Cancelled: the calling G was cancelled as it waited.
        """
        self._sema.acquire(1, timeout, "the Mutex was not free")

    def try_lock(self) -> bool:
        """Locks it if it is free and nobody waits for it; whether it did.

        Raises:
            HolderDied: as `lock` does.
        """
        return self._sema.try_acquire(1)

    def unlock(self) -> None:
        """Unlocks it; who has waited longest has it now.

        Raises:
            RuntimeError: it is not locked.
        """
        if not self._sema.release(1):
            raise RuntimeError("the Mutex is not locked")

    def locked(self) -> bool:
        """Whether anybody holds it at the moment."""
        return self._sema.used() > 0

    def __enter__(self) -> Mutex:
        self.lock()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.unlock()

    def __repr__(self) -> str:
        return f"<dgmp.Mutex {'locked' if self.locked() else 'unlocked'}>"


class RLocker:
    """The read lock of an RWMutex, for `with` (Go: RWMutex.RLocker)."""

    __slots__ = ("_rw",)

    def __init__(self, rw: RWMutex) -> None:
        self._rw = rw

    def __enter__(self) -> RWMutex:
        self._rw.rlock()
        return self._rw

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._rw.runlock()


class RWMutex(Primitive):
    """A lock that many readers or one writer can hold (Go: sync.RWMutex).

    Served in order of arrival: a writer that waits keeps readers waiting that come after it, so no G may read-lock it twice.

    Args:
        runtime: as for `Mutex`.

    Example:
        >>> import dgmp
        >>> rw = dgmp.RWMutex()
        >>> with rw.rlocker(), rw.rlocker():
        ...     rw.try_rlock(), rw.try_lock()
        (True, False)
        >>> rw.runlock()
        >>> with rw:  # to write
        ...     rw.try_rlock()
        False
    """

    __slots__ = ()

    def __init__(self, *, runtime: api.Runtime | None = None) -> None:
        self._sema = Sema(api.node_in(runtime), READERS, READERS)

    def rlock(self, timeout: float | None = None) -> None:
        """Waits until no writer holds it, or came before, and locks it for reading.  Args and raises: as `Mutex.lock`; the
        death of readers is not told."""
        self._sema.acquire(1, timeout, "the RWMutex was not free for reading")

    def try_rlock(self) -> bool:
        """Locks it for reading if that is possible at once; whether it did (Go: RWMutex.TryRLock)."""
        return self._sema.try_acquire(1)

    def runlock(self) -> None:
        """Undoes one `rlock`.

        Raises:
            RuntimeError: it is not locked for reading.
        """
        if not 0 < self._sema.used() < READERS or not self._sema.release(1):
            raise RuntimeError("the RWMutex is not locked for reading")

    def lock(self, timeout: float | None = None) -> None:
        """Waits until nobody holds it, and locks it for writing.  Args and raises: as `Mutex.lock`."""
        self._sema.acquire(READERS, timeout, "the RWMutex was not free for writing")

    def try_lock(self) -> bool:
        """Locks it for writing if nobody holds it or waits for it; whether it did (Go: RWMutex.TryLock).

        Raises:
            HolderDied: as `Mutex.lock` does.
        """
        return self._sema.try_acquire(READERS)

    def unlock(self) -> None:
        """Undoes `lock`.

        Raises:
            RuntimeError: it is not locked for writing.
        """
        if not self._sema.release(READERS):
            raise RuntimeError("the RWMutex is not locked for writing")

    def rlocker(self) -> RLocker:
        """For `with rw.rlocker():`, which holds it for reading."""
        return RLocker(self)

    def __enter__(self) -> RWMutex:
        self.lock()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.unlock()

    def __repr__(self) -> str:
        used = self._sema.used()
        return f"<dgmp.RWMutex {'write-locked' if used == READERS else f'with {used} readers'}>"


class Semaphore(Primitive):
    """n units, of which each can be held by one at a time (Go: golang.org/x/sync/semaphore).

    Served in order of arrival: one that wants many is not overtaken by those that want few.

    Args:
        n: how many units there are, at least one.
        runtime: as for `Mutex`.

    Raises:
        ValueError, TypeError: n is not such a number.

    Example:
        >>> import dgmp
        >>> s = dgmp.Semaphore(3)
        >>> s.acquire(2)
        >>> s.try_acquire(2), s.try_acquire()
        (False, True)
        >>> s.release(3)
        >>> with s:  # holds one
        ...     pass
    """

    __slots__ = ("_n",)

    def __init__(self, n: int, *, runtime: api.Runtime | None = None) -> None:
        self._n = units_of(n)
        self._sema = Sema(api.node_in(runtime), self._n, 1)

    def acquire(self, n: int = 1, timeout: float | None = None) -> None:
        """Waits until n units are free, and takes them.

        Raises:
            ValueError: there are not that many.
            TimeoutError: they were not free in that time, in seconds.
            HolderDied: a process died that held some, which are free now; this call has taken none.
            Cancelled: the calling G was cancelled as it waited.
        """
        self._sema.acquire(self._fits(n), timeout, f"{n} of the {self._n} units were not free")

    def try_acquire(self, n: int = 1) -> bool:
        """Takes n units if they are free and nobody waits; whether it did.

        Raises:
            ValueError: there are not that many.
            HolderDied: as `acquire` does.
        """
        return self._sema.try_acquire(self._fits(n))

    def release(self, n: int = 1) -> None:
        """Gives n units back, also such as another has taken.

        Raises:
            ValueError: so many are not held.
        """
        if not self._sema.release(units_of(n)):
            raise ValueError(f"{n} units of the Semaphore are not held")

    def _fits(self, n: int) -> int:
        if units_of(n) > self._n:
            raise ValueError(f"the Semaphore has {self._n} units, not {n}")
        return n

    def __enter__(self) -> Semaphore:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.release()

    def __reduce__(self) -> Any:
        return restored_semaphore, (self._n, self._sema)

    def __repr__(self) -> str:
        return f"<dgmp.Semaphore, {self._sema.used()} of {self._n} units held>"


def restored_semaphore(n: int, sema: Sema) -> Semaphore:
    """One that has travelled."""
    semaphore = Semaphore.__new__(Semaphore)
    semaphore._n, semaphore._sema = n, sema
    return semaphore


def units_of(n: Any) -> int:
    """n, if it can be a number of units."""
    units = numbers.at_least("n", n, 1)
    if units > MOST:
        raise ValueError(f"n must be at most {MOST}, not {units}")
    return units


class Done(Listener):
    """Counts a G of a WaitGroup as done when it has ended."""

    __slots__ = ("sema",)

    def __init__(self, sema: Sema) -> None:
        super().__init__()
        self.sema = sema

    def ended(self, future: Future[Any]) -> None:
        with contextlib.suppress(Exception):  # the runtime is gone
            self.sema.node.view.sema_release(self.sema.word, 1)


class WaitGroup(Primitive):
    """A number of things that are to be done, and who waits until all are (Go: sync.WaitGroup).

    What `go` runs counts as done however it ends, also when its M is killed.  Of what is counted by hand nobody knows who is to
    do it: if the process dies that has added it, it counts no more, and `wait` raises HolderDied, once.

    Args:
        runtime: as for `Mutex`.

    Example:
        >>> import dgmp
        >>> wg = dgmp.WaitGroup()
        >>> fs = [wg.go(pow, 2, n) for n in range(5)]
        >>> wg.wait()
        >>> [f.result() for f in fs]
        [1, 2, 4, 8, 16]
    """

    __slots__ = ()

    def __init__(self, *, runtime: api.Runtime | None = None) -> None:
        self._sema = Sema(api.node_in(runtime), 0, 1)

    def add(self, n: int = 1) -> None:
        """n more things are to be done; fewer, if n is negative.

        Raises:
            ValueError: less than nothing would be to be done.
        """
        if n > 0:
            self._sema.acquire(units_of(n), None, "")
        elif n < 0 and not self._sema.release(units_of(-n)):
            raise ValueError("negative WaitGroup counter")

    def done(self) -> None:
        """One of them is done.

        Raises:
            ValueError: there was nothing to be done.
        """
        self.add(-1)

    def go(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Runs `fn(*args, **kwargs)` as a G that is to be done (Go: WaitGroup.Go)."""
        node = self._sema.node
        self.add()
        try:
            future: Future[T] = node.go(fn, args, kwargs, None, 2)
        except BaseException:
            self.add(-1)
            raise
        future.listen().append(Done(self._sema))
        if future._state != PENDING:
            node.tell(future)
        elif api.current_g() is None:
            node.need_collector()  # others wait for us to see that it has ended
        return future

    def wait(self, timeout: float | None = None) -> None:
        """Waits until nothing is to be done any more; at once if so.

        Raises:
            TimeoutError: there still was, after that many seconds.
            HolderDied: a process died that had added something.
            Cancelled: the calling G was cancelled as it waited.
        """
        self._sema.wait_zero(timeout, "not everything in the WaitGroup was done")

    def __repr__(self) -> str:
        return f"<dgmp.WaitGroup, {self._sema.used()} to be done>"


class Once(Primitive):
    """Has something done exactly once (Go: sync.Once).

    Args:
        runtime: as for `Mutex`.

    Example:
        >>> import dgmp
        >>> once = dgmp.Once()
        >>> once.do(lambda: print("done"))
        done
        >>> once.do(lambda: print("done"))
    """

    __slots__ = ()

    def __init__(self, *, runtime: api.Runtime | None = None) -> None:
        self._sema = Sema(api.node_in(runtime), 1, 1)

    def do(self, fn: Callable[[], Any]) -> None:
        """Calls fn, here, if it is the first call of this Once; else waits until that has returned.

        If fn raises an Exception it has been done all the same, as in Go.  If the process died that ran it, or what ended it is
        no Exception (Cancelled, an interrupt), the next one runs it.
        """
        while not self._done():
            try:
                self._sema.acquire(1, None, "")
            except HolderDied:
                continue
            try:
                if not self._done():
                    try:
                        call(fn, (), {})
                    except Exception:
                        self._sema.node.view.sema_set_flag(self._sema.word)
                        raise
                    self._sema.node.view.sema_set_flag(self._sema.word)
            finally:
                self._sema.release(1)

    def _done(self) -> bool:
        return self._sema.node.view.sema_state(self._sema.word)[1] != 0

    def __repr__(self) -> str:
        return f"<dgmp.Once {'done' if self._done() else 'not done'}>"
