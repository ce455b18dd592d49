"""A process's access to a runtime: spawning, waiting, collecting.  `Client` for users' programs, `Member` inside an M.

Waiting without a thread: whoever waits drains the inbox itself and finishes whatever has come, for all threads.  It
publishes what it awaits, so that only that completion wakes it; with many outstanding, of which many end, it asks for the
sooner of 64 completions and 1 ms, because a wake-up for each would cost more than the tasks.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

from .._core import WHY_FUTURE, WHY_IO, WHY_OTHER, Block, View
from ..errors import Cancelled, CoordinatorDied, Deadlock, DgmpError, RuntimeClosed, TooManyGs, WorkerDied
from ..runtime import nodes, numbers
from ..ship import closure, functions, values
from ..ship.terms import ASKED_TO_RAISE
from ..ship.values import SMALL_TYPES, Large
from .future import PENDING, AnyOf, Future, Listener, Quick, deadline_of
from .world import Teller

if TYPE_CHECKING:
    from .._core import Wait
    from ..runtime import proc
    from ..runtime.signals import Signals
    from .chan import Codec
    from .output import Output

GLOBAL_QUEUE, LOCAL_TAIL, RUNNEXT, MAIN_G = 0, 1, 2, 3
ENDED = RuntimeClosed, CoordinatorDied, WorkerDied  # what all calls of a runtime raise that has ended
END_SECONDS = 2.0  # longer than what was pending takes to end with its runtime
NEVER = 1 << 62
MANY = 64  # outstanding Gs from which on completions are waited for in batches
BATCH_NS = 1_000_000
FEW = 4  # that end in so long: a wake-up for each that is awaited costs less than one for each millisecond
NAP, NAP_NS = 16, 8_000_000  # where results need not be given out one by one, the sooner of so many and so long
LOOK_NS = 250_000_000  # how often a waiting thread looks whether the runtime is still there
ROOM_NS = 1_000_000_000
STUCK_NS = 5_000_000_000  # after so long without room, and no G ending, the program is told why it waits
FEW_BYTES = 32 << 20  # of large arguments in flight: about what stays in a cache
MOST_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 8
PATIENCE_NS = 10_000_000
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
    """What Client and Member share."""

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


class Member(Node):
    """Inside an M: a G that waits parks; other threads of the M are clients."""

    where = RUNNEXT

    def __init__(self, view: View, m: proc.M, signals: Signals) -> None:
        super().__init__(view)
        self.m = m
        m.untold, m.tell, m.kick_sleepers = self.untold, self.tell_all, self.kick_sleepers
        self.pending, self.run_handlers = m.pending, signals.run
        m.has_timers = self.has_timers
        self.callbacks: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.caller: threading.Thread | None = None
        self.output: Output | None = None
        self.shown = 0

    def be_the_client(self, output: Output) -> None:
        """This is the M of a program's main G (`dgmp run`): the other Ms print and log here."""
        from .levels import Levels

        self.output = output
        Levels(self.view)

    def show(self) -> None:
        """What Gs have printed is written, before anybody here has their results."""
        outputs = self.view.outputs
        if self.output is not None and outputs != self.shown and self.output.show():
            self.shown = outputs

    def tell_of_changes(self) -> None:
        """This is the M of a program's main G (`dgmp run`): what that changes is told as a client's changes are."""
        Teller(self.view, self.m.worlds)

        def world() -> int:
            self.view.look_for_changes()
            return self.m.worlds.current

        self.m.world = world

    def go(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], name: str | None, depth: int,
           where: int | None = None, terms: bytes | None = None) -> Future[Any]:
        if where is None and threading.get_ident() != self.m.thread:
            where = GLOBAL_QUEUE
        try:
            return super().go(fn, args, kwargs, name, depth + 1, where, terms)
        finally:
            if self.pending:
                self.run_handlers()
            if self.m.overdue is not None:
                self.m.settle_overdue()

    def wait(self, future: Future[Any] | AnyOf | Listener, timeout: float | None) -> None:
        m = self.m
        gp = m.curg
        if gp is None or not m.in_g():
            if threading.get_ident() == m.thread:
                raise RuntimeError("a signal handler whose G has ended runs on the scheduler and cannot wait for a G")
            super().wait(future, timeout)
            return self.show()
        try:
            self.park_until(future, timeout)
        finally:
            self.show()
            if self.pending:
                self.run_handlers()

    def await_(self, wait: Wait, deadline: int | None, reason: int) -> None:
        m = self.m
        if not m.in_g():
            if threading.get_ident() == m.thread:
                raise RuntimeError("a signal handler whose G has ended runs on the scheduler and cannot wait")
            return super().await_(wait, deadline, reason)
        until = wait.until
        if until < NO_TIME:
            deadline = until if deadline is None else min(deadline, until)
        self.park(wait, deadline, reason, wait.give_up)

    def park_until(self, future: Future[Any] | AnyOf | Listener, timeout: float | None) -> None:
        self.m.collect()
        if future._state != PENDING:
            return
        future.listen()
        if not self.park(future, deadline_of(timeout), WHY_FUTURE):
            raise TimeoutError(f"{future.name} has not finished within {timeout} s")

    def park(self, waits: Any, deadline: int | None = None, reason: int = WHY_OTHER,
             give_up: Callable[[], bool] = lambda: True) -> bool:
        """The calling G waits; what every blocking call in a G goes through.  Signal handlers of user code run meanwhile.

        Args:
            waits, deadline, reason: as for M.gopark, which says who readies the G.
            give_up: withdraws what it waits for, called before the call ends without it.  False: it has come in this moment,
                so that it does not end so.

        Returns:
            True: it has come.  False: the deadline has, and it has been given up.

        Raises:
            Cancelled: the G was asked to end, before or while it waited; once for each time that it was asked.
            Whatever a signal handler raises: give_up has been called, and what it says is lost.
        """
        m, gp = self.m, self.m.curg
        assert gp is not None
        if gp.ends and (deadline is None or gp.ends < deadline):
            deadline = gp.ends
        gp.asked = m.is_late(gp) or self.view.asked(gp.word) & ASKED_TO_RAISE != 0
        if (gp.asked or gp.stop) and not waits._state and give_up():
            self.raise_cancelled()
        while not waits._state:
            if deadline is not None and time.monotonic_ns() >= deadline:
                if not give_up():
                    return True
                if m.is_late(gp):
                    gp.asked = True
                    self.raise_cancelled()
                return False
            try:
                m.gopark(waits, deadline, reason, True)
                if self.pending:
                    self.run_handlers()
            except BaseException:
                give_up()
                raise
            if (gp.asked or gp.stop) and not waits._state and give_up():
                self.raise_cancelled()
        return True

    def gosched(self) -> None:
        """The calling G gives way."""
        gp = self.m.curg
        self.m.gosched()
        if self.pending:
            self.run_handlers()
        if gp is not None and (gp.asked or gp.stop):
            self.raise_cancelled()

    def raise_cancelled(self) -> None:
        gp = self.m.curg
        if gp is None or not self.m.in_g():
            return super().raise_cancelled()
        if gp.asked or not gp.stop:
            error = self.m.cancellation(gp)
        else:
            error = Cancelled("the Group was cancelled")
            for group in gp.stop:
                group.raised = error
        if gp.stop:
            gp.stop.clear()
        gp.asked = False
        self.view.told(gp.word)
        try:
            raise error
        finally:
            del error  # which has this frame in its traceback: a cycle keeps alive what the frames that it left hold

    def wait_fd(self, fd: int, write: bool, deadline: int | None) -> bool:
        """The calling G waits until fd is ready, or the deadline; whether it is."""
        from ..runtime.netpoll import Wait

        wait = Wait(self.m, fd, write)
        try:
            self.park(wait, deadline, WHY_IO)
        finally:
            ready = wait.end()
        return ready

    def collect(self, ours: int = 0) -> None:
        if threading.get_ident() == self.m.thread:
            self.m.collect()
            self.show()
            if self.pending:
                self.run_handlers()
        else:
            super().collect(ours)
            self.show()

    @staticmethod
    def has_timers() -> bool:
        """Whether this process is still to make calls that after_func was asked for."""
        timers = sys.modules.get("dgmp.api.timers")
        return timers is not None and timers.any_armed()

    def behind(self) -> int:
        return LOCAL_TAIL if threading.get_ident() == self.m.thread else GLOBAL_QUEUE

    def collects_for(self, loop: Any) -> bool:
        return self.m.asyncs is not None and self.m.asyncs.loop is loop

    def ready(self, word: int) -> None:
        if self.output is not None and (text := self.view.told_deadlock(word)):
            self.m.deadlocks[word] = self.view.function(text).decode(errors="replace")
        self.m.goready(word)

    def call(self, future: Future[Any], then: Any) -> None:
        """A parked G is readied; a callback runs on a thread of its own, as the scheduler must not wait for it."""
        if type(then) is int:
            self.m.goready(then)
        elif isinstance(then, Listener):
            then.ended(future)
        elif threading.get_ident() != self.m.thread or isinstance(then, Quick):
            future.run_callback(then)
        else:
            if self.caller is None:
                self.caller = threading.Thread(target=self.call_for_ever, name="dgmp-callbacks", daemon=True)
                self.caller.start()
            self.callbacks.put((future, then))

    def call_for_ever(self) -> None:
        while True:
            future, then = self.callbacks.get()
            future.run_callback(then)

    def full(self) -> None:
        seq = self.view.inbox_seq()
        self.collect()
        if threading.get_ident() != self.m.thread:
            self.view.wait(seq, 0, 0, 0, BATCH_NS)
            return
        raise TooManyGs(f"all {self.view.nslots} slots of the runtime are taken; wait for some Gs before spawning more")


class Client(Node):
    """A process that runs no Gs: the user's program."""

    idle_look_ns = LOOK_NS

    def __init__(self, view: View, alive: Callable[[], bool], stop: Callable[[], object], output: Output | None,
                 teller: Teller | None = None) -> None:
        super().__init__(view)
        self.alive = alive
        self.stop = stop
        self.output = output
        if output is not None:
            output.ended_by_others = self.look
        self.asleep: tuple[int, int] | None = None  # all were, with so much done in all, when deadlock.check looked first
        self.look_again = 0  # not before, at what may come from outside
        self.warned = False
        # Since when there has been no room, when we looked last, and how many Gs there were.
        self.stuck: tuple[int, int, int] | None = None
        self.main_word = 0  # of the main G of `dgmp run`, for which we wait: a deadlock is its affair
        self.shares = teller is not None  # the node with other clients
        from .levels import Levels

        Levels(view, teller.publish_levels if teller is not None else None)

    def throttle(self) -> None:
        """A quarter of the slots is for what Gs spawn, clients share the rest; but if none ends, they may wait for what this
        thread has still to do."""
        self.collect()
        if self.shares:
            self.quota = (self.view.nslots - self.view.nslots // 4) // (1 + self.view.clients())
        try:
            while self.view.outstanding > self.quota and not self.warned:
                self.full()
        except Deadlock:
            self.quota = self.view.nslots
            self.shares = False

    def full(self, more: int = MANY) -> None:
        self.sleepers += 1
        try:
            self.view.wait(self.view.inbox_seq(), 0, more, 0, BATCH_NS)
        finally:
            self.sleepers -= 1
        self.collect()
        now = time.monotonic_ns()
        since, last, outstanding = self.stuck or (now, now, 0)
        if now - last > LOOK_NS or self.view.outstanding != outstanding:
            since = now
        self.stuck = since, now, self.view.outstanding
        if now - since < LOOK_NS or now - self.looked < LOOK_NS:
            return self.look()
        self.looked = now
        if now - since > STUCK_NS:
            self.warn_of_no_room(now - since)
        try:
            self.look(True)
        except Deadlock as e:
            e.add_note(f"the program waited for room for one more G or its arguments: {self.view.outstanding} of its Gs have "
                       f"not ended, and there are {self.view.nslots} slots")
            raise

    def warn_of_no_room(self, ns: int) -> None:
        """Once in a runtime: nothing else tells why a program stands still that goes on spawning Gs."""
        if not self.warned:
            self.warned = True
            view = self.view
            warnings.warn(f"a call of dgmp has waited {ns / 1e9:.0f} s for room for one more G or its arguments, and no G has "
                          f"ended meanwhile: {view.outstanding} of this program's have not (there are {view.nslots} slots, and "
                          f"{view.heap_size} bytes of shared memory); do they wait for what it was about to do?",
                          RuntimeWarning, stacklevel=2)

    def wait_for_room(self) -> bool:
        """Until a G of ours has ended, or a second is over, as others may have given some back."""
        outstanding, until = self.view.outstanding, time.monotonic_ns() + ROOM_NS
        while self.view.outstanding >= outstanding > 0 and time.monotonic_ns() < until:
            self.full(1)
        return outstanding > 0

    def pack(self, large: Large) -> Block:
        """Waits while too much is on its way already."""
        outstanding, since = self.view.outstanding, time.monotonic_ns()
        while self.crowded(since):
            self.full(max(1, min(outstanding // 4, MANY)))
            if self.view.outstanding < outstanding:
                outstanding, since = self.view.outstanding, time.monotonic_ns()
        while True:
            try:
                return super().pack(large)
            except MemoryError:
                if not self.view.bytes_out:
                    raise
            self.full(1)

    def crowded(self, since: int) -> bool:
        """Whether one more large argument had better wait; since: when a G has last ended, or we began.

        Blocks that are used again at once are warm.  But Gs that take long are not waited for, as this thread has better
        things to do, until they have an eighth of the machine's memory."""
        view = self.view
        if view.bytes_out < FEW_BYTES or view.blocks_out <= 2 * view.nprocs:
            return False
        return view.bytes_out > MOST_BYTES or time.monotonic_ns() - since < PATIENCE_NS

    def catch_up(self, written_to: int) -> None:
        """What Gs have printed is written."""
        outputs = self.view.outputs
        if self.output is None or self.output.show():
            self.view.shown(outputs)
        self.view.drain(self.untold, written_to)

    def look(self, for_ever: bool = False) -> None:
        if self.output is not None and self.output.is_ours():
            self.output.make_room()
        if self.gone is None and not self.alive():
            self.end(CoordinatorDied("the runtime's coordinator died; what was pending is lost"))
        if self.gone is not None:
            raise self.ended()
        if for_ever:
            self.checkdead()

    def checkdead(self) -> None:
        self.collect()
        done = self.view.checkdead()
        if not done:
            self.asleep = None
            return
        with contextlib.suppress(OSError):  # there is no descriptor to look with: another time
            from . import deadlock

            deadlock.check(self, done)

    def died(self) -> bool:
        """Whether the coordinator has, though perhaps nobody has noticed."""
        if self.gone is not None:
            return True
        died = self.view.coordinator_died()
        return not self.alive() if died is None else died

    def end(self, error: BaseException) -> None:
        """No more work: the processes of the runtime end, and then every pending Future does, with error: whoever is told of it
        can do it all anew, as nothing of it runs any more."""
        if self.output is not None:
            self.output.show()
        with self.lock:
            if self.gone is not None:
                return
            self.gone = error
        pending = self.view.close(error)
        try:
            self.stop()
        finally:
            for future in pending:
                future.fail(error)  # type: ignore[attr-defined]
            self.all_ended.set()
            self.forget_runtime()

    def forget_runtime(self) -> None:
        """No cycle with it: the segment goes with the last that refers to it."""
        self.alive = self.stop = nothing
        if self.output is not None:
            self.output.ended_by_others = nothing
