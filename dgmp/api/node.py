"""A process's access to a runtime: spawning, waiting, collecting.  What api.client, of users' programs, and api.member, of
an M, share.

Waiting without a thread: whoever waits drains the inbox itself and finishes whatever has come, for all threads.  It
publishes what it awaits, so that only that completion wakes it; with many outstanding, of which many end, it asks for the
sooner of 64 completions and 1 ms, because a wake-up for each would cost more than the tasks.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

from .._core import Block, View
from ..errors import Cancelled, CoordinatorDied, DgmpError, RuntimeClosed, WorkerDied
from ..runtime import nodes, numbers
from ..ship import closure, functions, values
from ..ship.values import SMALL_TYPES, Large
from .future import PENDING, AnyOf, Future, Listener, deadline_of

if TYPE_CHECKING:
    from .._core import Wait
    from .chan import Codec

GLOBAL_QUEUE, LOCAL_TAIL, RUNNEXT, MAIN_G = 0, 1, 2, 3
ENDED = RuntimeClosed, CoordinatorDied, WorkerDied  # what all calls of a runtime raise that has ended
END_SECONDS = 2.0  # longer than what was pending takes to end with its runtime
NEVER = 1 << 62
MANY = 64  # outstanding Gs from which on completions are waited for in batches
BATCH_NS = 1_000_000
FEW = 4  # that end in so long: a wake-up for each that is awaited costs less than one for each millisecond
NAP, NAP_NS = 16, 8_000_000  # where results need not be given out one by one, the sooner of so many and so long
LOOK_NS = 250_000_000  # how often a waiting thread looks whether the runtime is still there
NO_TIME = (1 << 63) - 1  # Wait.until: never
WAIT_SPIN_NS = 20_000  # a thread's, for what comes through a channel
SPIN_NS = 60_000  # a little more than a task on a spinning M takes, and two wake-ups cost


class ArgumentFailed(Exception):
    """A Future among the arguments has ended with an error."""

    def __init__(self, error: BaseException, name: str) -> None:
        super().__init__(name)
        self.error, self.name = error, name


def value_of(future: Future[Any]) -> Any:
    """Its result, which may be waited for."""
    try:
        error = future.exception()
    except DgmpError as e:  # its runtime is gone
        error = e
    if error is not None:
        raise ArgumentFailed(error, future.name)
    return future.result()


def nothing() -> bool:
    """What is left of the coordinator that a Client asks and stops."""
    return False


class Node:
    """A process's access to a runtime: a Client's or a Member's."""

    where = LOCAL_TAIL
    idle_look_ns = -1  # how often the collector thread looks whether the runtime is still there

    deadline = staticmethod(deadline_of)

    def __init__(self, view: View) -> None:
        self.view = view
        nodes[view.runtime_id] = self
        self.encoder = closure.Encoder(view)
        self.terms: dict[Any, bytes | None] = {}  # those that were said last, and their bytes (api.terms)
        self.tabled: dict[bytes, int] = {}  # what maps have put into the function table, and its keys
        self.lock = threading.RLock()
        self.sleepers = 0
        self.few = False  # Gs had ended when we last woke up
        self.looked = 0  # when, whether the runtime is still there
        self.spawned = 0
        self.quota = view.nslots - view.nslots // 4
        self.untold: list[Any] = []  # Futures that have ended, and whose callbacks and waiters have not been told
        self.collector: threading.Thread | None = None
        self.gone: BaseException | None = None
        self.all_ended = threading.Event()  # then all that was pending has ended with that
        self.stop: Callable[[], object] = nothing  # ends the processes of the runtime, in a client
        self.codec: Codec | None = None  # of messages in channels
        self.look_for_changes = view.look_for_changes  # what the program has changed around itself, the next Gs see
        self.pending: Collection[Any] = ()  # in an M: signals whose handlers wait until the caller is back in user code
        self.run_handlers: Callable[[], None] = lambda: None
        self.stops: dict[int, set[Any]] = {}  # threads that are to raise Cancelled where they wait, and the Groups that want it

    def ended(self) -> BaseException:
        """What to raise, the runtime being gone; each time another one, as a traceback keeps alive whose frames it has."""
        assert self.gone is not None
        error = type(self.gone)(*self.gone.args)
        error.__dict__.update(self.gone.__dict__)
        return error

    # ------------------------------------------------------------------ spawning
    def go(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], name: str | None, depth: int,
           where: int | None = None, terms: bytes | None = None) -> Future[Any]:
        """Makes a G of the call and queues it."""
        if self.gone is not None:
            raise self.ended()
        self.look_for_changes()
        if not callable(fn):
            raise TypeError(values.no_function(fn))
        frame = sys._getframe(depth)
        code, lasti = frame.f_code, frame.f_lasti
        future: Future[Any] = Future(self, fn, name, code, lasti)
        small = plain = not kwargs
        for x in args:
            if type(x) not in SMALL_TYPES:
                small = False
                if type(x) is Future:
                    plain = False
        try:
            if plain:
                key, data = self.encoder.encode(fn, args, small)
                deps = None
            else:
                key, data, deps = self.encode_with_futures(fn, args, kwargs)
            if where is None:
                where = self.where
            label = name if key or name else values.label(fn)
            call = data if isinstance(data, bytes) else self.pack(data)
            while True:
                try:
                    done = self.view.spawn(future, key, call, where, deps, code, lasti, label, terms)
                except MemoryError:
                    if not self.wait_for_room():
                        raise
                    continue
                if done:
                    break
                if done is None:
                    self.full()
                    where = GLOBAL_QUEUE
                else:  # one of deps was collected meanwhile
                    key, data, deps = self.encode_with_futures(fn, args, kwargs)
                    call = data if isinstance(data, bytes) else self.pack(data)
        except ArgumentFailed as e:
            from ..ship import failure

            note = failure.argument_note(f"{future.name}, spawned at {future.spawned_at}", e.name)
            future.fail(failure.copy_with_note(e.error, note))
            return future
        self.spawned += 1
        if not self.spawned & 63:
            self.throttle()
        return future

    def send(self, future: Future[Any], key: int, call: bytes | Block) -> bool:
        """Queues a G of a call that has been encoded already, behind the others.  False: there is no room for it now."""
        if self.gone is not None:
            raise self.ended()
        if self.view.outstanding >= self.quota or not self.view.spawn(
                future, key, call, self.behind(), None, future._code, future._lasti, future.name, None):
            return False
        self.spawned += 1
        return True

    def encode(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> tuple[int, bytes | Block]:
        """What `send` takes, of a call without Futures among its arguments."""
        self.look_for_changes()
        key, data = self.encoder.encode(fn, args, False)
        return key, data if isinstance(data, bytes) else self.pack(data)

    def behind(self) -> int:
        return LOCAL_TAIL

    def cancel(self, futures: Collection[Future[Any]]) -> None:
        """Those that nobody has begun are dropped, quietly if the runtime is gone.  Finalizers call this."""
        for future in futures:
            try:
                self.view.cancel(future.word)
            except Exception:  # closed, or in a forked child
                return

    def cancel_all(self, futures: Iterable[Future[Any]]) -> None:
        """Those that nobody has begun end, the others are asked to.  Nothing is collected."""
        for future in futures:
            try:
                if future._state == PENDING and not self.view.cancel(future.word):
                    self.view.ask(future.word)
            except ENDED:  # they have ended with that
                return

    def cancel_one(self, future: Future[Any]) -> bool:
        """See Future.cancel."""
        if future.done():
            return future.cancelled()
        try:
            placed = self.view.cancel(future.word) or self.view.ask(future.word)
        except ENDED:  # in this moment: it has ended with that
            return False
        self.collect()
        return placed or future.cancelled()

    def encode_with_futures(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[
        int, bytes | Large, tuple[int, ...] | None
    ]:
        args, kwargs, deps = self.dependencies(args, kwargs)
        return functions.WHOLE, self.encoder.encode_whole(fn, args, kwargs), deps

    def dependencies(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[
        tuple[Any, ...], dict[str, Any], tuple[int, ...] | None
    ]:
        """Futures among the arguments: finished ones by value, the others as Dependency i of the tuple returned."""
        self.collect()
        waits: list[int] = []
        seen: dict[int, closure.Dependency] = {}

        def resolve(x: Any) -> Any:
            if type(x) is not Future:
                return x
            if x._node is not self or x._state != PENDING:
                return value_of(x)
            if id(x) not in seen:
                seen[id(x)] = closure.Dependency(len(waits), x.name)
                waits.append(x.word)
            return seen[id(x)]

        args = tuple(resolve(x) for x in args)
        kwargs = {k: resolve(x) for k, x in kwargs.items()}
        return args, kwargs, tuple(waits) or None

    def pack(self, large: Large) -> Block:
        """A copy of it in the segment."""
        try:
            return self.view.pack(large.stream, large.buffers)
        except MemoryError:
            raise MemoryError(
                f"the arguments take {large.size} bytes, for which the runtime's shared memory has no room now; it has "
                f"{self.view.heap_size} bytes in all, of which one call can have at most half") from None

    def throttle(self) -> None:
        """Every 64 spawns: finished Gs are collected, so that memory stays bounded."""
        self.collect()

    def full(self) -> None:
        """There is no room for one more G: waits for some, where that may be."""
        raise NotImplementedError

    def wait_for_room(self) -> bool:
        """There is no room in the shared memory: waits for some, where that may be.  False: there will be none."""
        return False

    def gomaxprocs(self, n: int | None) -> int:
        """See dgmp.gomaxprocs."""
        if self.gone is not None:
            raise self.ended()
        n = numbers.whole_or_none("the number of Ps", n) or 0
        most = min(self.view.max_ms, self.view.max_ps)
        if not 0 <= n <= most:
            raise ValueError(f"the number of Ps must be between 1 and {most}, not {n}")
        if n in (0, self.view.nprocs):
            return self.view.nprocs
        while (old := self.view.procresize(n, LOOK_NS)) is None:
            self.look()
        return old

    def stats(self) -> dict[str, Any]:
        """See Runtime.stats.  What has ended is collected first: a program may ask for nothing else."""
        self.collect()
        blocks, size = self.view.large()
        return self.view.stats() | {"large_blocks": blocks, "large_bytes": size, "objects": self.view.objects()}

    # ------------------------------------------------------------------ collecting and waiting
    def collect(self, ours: int = 0) -> None:
        """Finishes the Futures whose Gs have finished.  ours: 1 if the caller is one of the sleepers."""
        if self.gone is not None:
            return
        try:
            n = self.view.drain(self.untold, 0)
        except DgmpError:  # another thread has just ended it
            if self.gone is None:
                raise
            return
        if n < 0:
            self.catch_up(-n)
        if n or self.untold:  # an interrupt may have left some untold
            self.tell_all()
            self.kick_sleepers(ours)

    def catch_up(self, written_to: int) -> None:
        """In a client: what Gs have printed comes before their results, which are collected then as far as the core says."""
        raise NotImplementedError

    def kick_sleepers(self, ours: int = 0) -> None:
        """The inbox has been drained: who else sleeps on it looks again whether its Future has ended."""
        if self.sleepers > ours:
            self.view.kick()

    def tell_all(self) -> None:
        """A Future leaves the list only when all of its callbacks have been called: an interrupt between loses none."""
        while self.untold:
            try:
                future = self.untold[0]
            except IndexError:  # another thread was faster
                return
            self.tell(future)
            with contextlib.suppress(ValueError):
                self.untold.remove(future)

    def tell(self, future: Future[Any] | int) -> None:
        """future has ended: each callback is called once, whoever comes first.  A word: that G of this M has been readied."""
        if isinstance(future, int):
            return self.ready(future)
        while future._then:
            with contextlib.suppress(IndexError):
                self.call(future, future._then.pop(0))

    def ready(self, word: int) -> None:
        """Only Ms have started Gs."""

    def call(self, future: Future[Any], then: Any) -> None:
        if isinstance(then, Listener):
            then.ended(future)
        else:
            future.run_callback(then)

    def need_collector(self) -> None:
        """A callback waits, so somebody must collect even when nobody asks."""
        with self.lock:
            if self.collector is None:
                self.collector = threading.Thread(target=self.collect_for_ever, name="dgmp-collector", daemon=True)
                self.collector.start()

    def collects_for(self, loop: Any) -> bool:
        """Whether the thread of this asyncio loop collects results anyway."""
        return False

    def collect_for_ever(self) -> None:
        self.sleepers += 1
        try:
            while self.gone is None:
                seq = self.view.inbox_seq()
                self.view.wait(seq, 0, 0, 0, self.idle_look_ns if self.view.outstanding else -1)
                self.collect(1)
                if self.view.outstanding:
                    self.look()
        except (*ENDED, RuntimeError):
            pass
        finally:
            self.sleepers -= 1

    def wait(self, future: Future[Any] | AnyOf | Listener, timeout: float | None) -> None:
        """The calling thread waits until future has finished."""
        deadline = deadline_of(timeout)
        self.collect()
        if future._state != PENDING:
            return
        self.sleepers += 1
        nap = future.in_chunks
        try:
            while True:
                seq = self.view.inbox_seq()  # before the state: another thread may drain between
                if future._state != PENDING:
                    return
                left = LOOK_NS
                if deadline is not None:
                    left = min(left, deadline - time.monotonic_ns())
                    if left <= 0:
                        raise TimeoutError(f"{future.name} has not finished within {timeout} s")
                outstanding = self.view.outstanding
                if outstanding > MANY and not self.few:
                    self.view.wait(seq, 0, MANY, 0, min(left, BATCH_NS))
                elif outstanding > MANY and nap:
                    self.view.wait(seq, 0, NAP, 0, min(left, NAP_NS))
                    nap = False
                elif outstanding > MANY:
                    self.view.wait(seq, future.word, MANY, 0, left)
                else:
                    # Spin for one task on an M that spins.  One that had to be woken is better off with our core: with
                    # us spinning on it a cold round trip took 210 us, with us asleep 90 (measured).
                    spin = SPIN_NS if outstanding < 2 and not self.view.woke else 0
                    self.view.wait(seq, future.word, NEVER, spin, left)
                self.collect(1)
                self.few = outstanding - self.view.outstanding < FEW
                if self.stops and future._state == PENDING and self.is_told():
                    self.raise_cancelled()
                if future._state == PENDING and time.monotonic_ns() - self.looked > LOOK_NS:
                    self.looked = time.monotonic_ns()
                    self.look(deadline is None)
        except ENDED:  # one like what it has ended with; or it was raised by a handler of the user's
            if self.gone is None:
                raise
            if isinstance(future, Future):  # whoever has seen it first may not have come to this one yet
                self.stop()
                future.fail(self.gone)
            elif future._state == PENDING:  # what it waits for ends in this moment
                self.all_ended.wait(END_SECONDS)
                if future._state == PENDING:
                    raise self.ended() from None
        finally:
            self.sleepers -= 1
            if self.sleepers and self.gone is None:
                self.view.kick()  # who else waits learns that its wish is the published one now

    def await_(self, wait: Wait, deadline: int | None, reason: int) -> None:
        """The calling thread sleeps until wait may have ended, or the deadline (monotonic, ns).  It may come back early."""
        if self.stops and self.is_told() and wait.give_up():
            self.raise_cancelled()
        left = min(LOOK_NS, wait.until - time.monotonic_ns())
        if deadline is not None:
            left = min(left, deadline - time.monotonic_ns())
        wait.sleep(min(WAIT_SPIN_NS, left), left)
        if time.monotonic_ns() - self.looked > LOOK_NS:
            self.looked = time.monotonic_ns()
            self.collect()
            self.look(deadline is None and wait.until >= NO_TIME)

    def refuse_scheduler(self) -> None:
        """The calling thread is about to sleep: an M's own must not, outside Gs."""

    def is_told(self) -> bool:
        """Whether the calling thread is to raise Cancelled."""
        return threading.get_ident() in self.stops

    def raise_cancelled(self) -> None:
        """The calling thread, or G, is to raise Cancelled: it does."""
        error = Cancelled("the Group was cancelled")
        for group in self.stops.pop(threading.get_ident(), ()):
            group.raised = error
        try:
            raise error
        finally:
            del error  # which has this frame in its traceback: a cycle keeps alive what the frames that it left hold

    def look(self, for_ever: bool = False) -> None:
        """Is the runtime still there?  for_ever: the calling thread waits without a limit; if nothing can wake it any more, it
        learns that."""
