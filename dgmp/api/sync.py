"""Mutex, RWMutex, Semaphore, WaitGroup and Once: Go's package sync, between processes.

All are made of one kind of shared object, a counting semaphore that is served in order of arrival and knows how much each
process holds (api.sema).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from ..errors import HolderDied
from ..runtime import numbers
from ..runtime.signals import call
from . import runtime as api
from .future import PENDING, Future, Listener
from .sema import Sema

T = TypeVar("T")
READERS = 1 << 30  # units of an RWMutex: a reader holds one, a writer all
MOST = (1 << 32) - 1  # units that one can ask for


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
