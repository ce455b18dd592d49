"""What the client of a run of chaos gives its runtime to do, each with what has to come of it.

A workload is a function of a `Work`, which runs in a thread of the client, draws what it does from the run's seed, submits
Gs and waits for their ends.  Every G runs in `run`, or `run_async`, which tells the history (history.py) of its begin and
end; its owner tells of the rest.  Gs that meet somebody's death give back LOST, or LOST in place of a part.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import os
import random
import signal
import subprocess
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dgmp

from .history import Flag, Kind, Log, Outcome

FOLDER = "DGMP_CHAOS_FOLDER"  # where the history is written
RETRIES = "DGMP_CHAOS_RETRIES"  # of each G at least
LOST = "lost"
PATIENCE = 0.05  # seconds that a thread waits for what may never come before it looks again

_log: Log | None = None
_numbers = itertools.count(1)
runtime: dgmp.Runtime | None = None  # in the client


def log(kind: Kind, id: int = 0, value: int = 0, detail: int = 0) -> None:
    global _log
    if _log is None or _log.pid != os.getpid():
        _log = Log(os.environ[FOLDER])
    _log.write(kind, id, value, detail)


def least_retries() -> int:
    return int(os.environ.get(RETRIES, 0))


def number() -> int:
    return os.getpid() << 32 | next(_numbers)


# ------------------------------------------------------------------------------------------------- of every G
def run(id: int, fn: Callable[..., Any], *args: Any) -> Any:
    log(Kind.START, id, dgmp.goid() or 0)
    try:
        return fn(*args)
    finally:
        log(Kind.FINISH, id)


async def run_async(id: int, seconds: float) -> float:
    log(Kind.START, id)
    try:
        await asyncio.sleep(seconds)
        return seconds
    finally:
        log(Kind.FINISH, id)


def run_flaky(id: int, times: int) -> int:
    """Fails so many times, and then does not: each of its runs leaves a byte."""
    log(Kind.START, id, dgmp.goid() or 0)
    with open(Path(os.environ[FOLDER]) / f"{id:x}.runs", "ab") as runs:
        runs.write(b".")
    if os.path.getsize(runs.name) <= times:
        log(Kind.RAISED, id)
        raise Flaky
    log(Kind.FINISH, id)
    return times


class Flaky(Exception):
    pass


class Owned:
    """A G, as its owner sees it."""

    def __init__(self, id: int, expected: Any) -> None:
        self.id = id
        self.expected = expected
        self.future: Any = None
        self.ended = False

    def cancel(self) -> None:
        log(Kind.CANCEL, self.id)
        self.future.cancel()

    def called(self, future: Any) -> None:
        log(Kind.CALLED, self.id)

    def end(self) -> Any:
        """Waits for it, and tells how it ended; its result, or LOST."""
        value: Any = LOST
        try:
            value = self.future.result()
        except BaseException as e:
            if not self.future.done():  # it is the waiter who is to end
                log(Kind.DROP, self.id)
                raise
            self.tell(outcome_of(e), e)
        else:
            self.tell(Outcome.RIGHT if self.expected == value else Outcome.LOST if lost(value) else Outcome.WRONG, value)
        return value

    def tell(self, outcome: Outcome, what: Any) -> None:
        self.ended = True
        log(Kind.END, self.id, getattr(what, "pid", 0), outcome)
        if outcome in (Outcome.WRONG, Outcome.FAILED):
            complain(f"G {self.id:x}, {self.future!r}: {outcome.name}, not {self.expected!r:.200}", what)


def lost(value: Any) -> bool:
    return isinstance(value, str) and value == LOST or isinstance(value, list) and any(lost(part) for part in value)


def outcome_of(e: BaseException) -> Outcome:
    kinds = ((dgmp.WorkerDied, Outcome.DIED), (dgmp.Cancelled, Outcome.CANCELLED), (dgmp.CoordinatorDied, Outcome.NODE_DIED),
             (TimeoutError, Outcome.LATE))
    return next((outcome for kind, outcome in kinds if isinstance(e, kind)), Outcome.FAILED)


def complain(text: str, what: Any) -> None:
    """For whoever looks into a run that failed."""
    if isinstance(what, BaseException):
        what = "".join(traceback.format_exception(what))
    with open(Path(os.environ[FOLDER]) / "complaints.txt", "a") as file:
        file.write(f"pid {os.getpid()}: {text}\n{what!s:.5000}\n\n")


def submit(fn: Callable[..., Any], *args: Any, expected: Any, flags: int = 0, where: Any = None,
           body: Callable[..., Any] = run, **terms: Any) -> Owned:
    """Spawns `body(id, fn, *args)` and tells of it.

    Args:
        expected: its result.
        where: a Runtime, or a Group.
        terms: for spawn: how it may fail.
    """
    owned = Owned(number(), expected)
    where = where or runtime or dgmp
    call = (owned.id, fn, *args) if body is run else (owned.id, *args)
    log(Kind.SUBMIT, owned.id, max(terms.get("retries", 0), least_retries()), flags)
    owned.future = where.spawn(body, call, **terms) if terms else where.go(body, *call)
    log(Kind.ACCEPT, owned.id)
    return owned


class Work:
    """What one thread of the client has to do.

    Args:
        seed: of what it draws.
        runtime: where.
    """

    def __init__(self, seed: str, runtime: dgmp.Runtime) -> None:
        self.chance = random.Random(seed)
        self.runtime = runtime
        self.owned: list[Owned] = []

    def go(self, fn: Callable[..., Any], *args: Any, expected: Any, **options: Any) -> Owned:
        owned = submit(fn, *args, expected=expected, **options)
        self.owned.append(owned)
        if self.chance.random() < 0.2:
            log(Kind.LISTEN, owned.id)
            owned.future.add_done_callback(owned.called)
        return owned

    def end(self) -> None:
        """All that have not ended do, and are told of."""
        for owned in self.owned:
            if not owned.ended:
                owned.end()


# ------------------------------------------------------------------------------------------------- what Gs do
def square(x: int) -> int:
    return x * x


def count(n: int) -> int:
    """In Python, so that it can be preempted."""
    total = 0
    for i in range(n):
        total += i
    return total


def fib(n: int) -> Any:
    if n < 2:
        return n
    parts = [owned.end() for owned in [submit(fib, n - i, expected=number_of(n - i)) for i in (1, 2)]]
    return LOST if lost(parts) else sum(parts)


def number_of(n: int) -> int:
    return n if n < 2 else number_of(n - 1) + number_of(n - 2)


def spawn_many(n: int) -> Any:
    """More than a ring holds."""
    parts = [owned.end() for owned in [submit(square, i, expected=i * i) for i in range(n)]]
    return LOST if lost(parts) else sum(parts)


def send_all(chan: Any, ids: list[int]) -> int:
    sent = 0
    with contextlib.suppress(dgmp.ChanClosed):
        for id in ids:
            log(Kind.SENT, id)
            chan.send(id)
            sent += 1
    return sent


def got(id: int) -> None:
    log(Kind.GOT, id)


def receive_all(chan: Any) -> str:
    for id in chan:
        got(id)
    return "all"


def receive_either(first: Any, second: Any) -> str:
    open_ones = [first, second]
    while open_ones:
        which, id, ok = dgmp.select(*[dgmp.recv(chan) for chan in open_ones])
        if ok:
            got(id)
        else:
            del open_ones[which]
    return "all"


def sleep(seconds: float) -> float:
    dgmp.sleep(seconds)
    return seconds


def block(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def block_saying_so(seconds: float) -> float:
    with dgmp.blocking():
        time.sleep(seconds)
    return seconds


def start_a_program() -> int:
    return subprocess.run(["true"]).returncode


def lock_in_turn(mutex: Any, id: int, times: int) -> int:
    for _ in range(times):
        while True:
            try:
                mutex.lock()
                break
            except dgmp.HolderDied:
                continue
        try:
            log(Kind.LOCK, id)
            if times % 2:
                dgmp.gosched()
        finally:
            log(Kind.UNLOCK, id)
            mutex.unlock()
    return times


def acquire(semaphore: Any, n: int) -> int:
    while True:
        with contextlib.suppress(dgmp.HolderDied):
            semaphore.acquire(n)
            break
    try:
        dgmp.gosched()
    finally:
        semaphore.release(n)
    return n


def group_of(n: int, fails: bool) -> Any:
    """Gs of a Group, one of which may fail."""
    owned = []
    try:
        with dgmp.Group() as g:
            for i in range(n):
                owned.append(submit(square, i, expected=i * i, where=g, flags=Flag.CANCELLABLE))
            owned.append(submit(sleep, 0.01, expected=0.01, where=g, flags=Flag.CANCELLABLE))
            if fails:
                g.go(int, "x")
    except* (ValueError, dgmp.WorkerDied):
        pass
    for one in owned:
        one.end()
    return "grouped"


def negated(data: Any) -> Any:
    """A large array, read in place, and another."""
    return -data


def total(*parts: int) -> int:
    return sum(parts)


def spin() -> None:
    while True:
        pass


def deaf(seconds: float) -> None:
    """Hears no signal, so its process is killed."""
    log(Kind.DIE)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGURG])
    time.sleep(seconds)


def exit_at_once() -> None:
    log(Kind.DIE)
    os._exit(3)


def segfault() -> None:
    log(Kind.DIE)
    ctypes.string_at(0)


def kill_itself() -> None:
    log(Kind.DIE)
    os.kill(os.getpid(), signal.SIGKILL)


# ------------------------------------------------------------------------------------------------- workloads
def fan_out(work: Work) -> None:
    for i in range(work.chance.randrange(20, 300)):
        work.go(square, i, expected=i * i)
    for _ in range(work.chance.randrange(10)):
        n = work.chance.randrange(100_000)
        work.go(count, n, expected=n * (n - 1) // 2)


def retries(work: Work) -> None:
    for i in range(work.chance.randrange(20, 200)):
        work.go(square, i, expected=i * i, retries=work.chance.randrange(1, 6))
    for _ in range(work.chance.randrange(5)):
        n = work.chance.randrange(3, 6)
        work.go(fib, n, expected=number_of(n), retries=2, backoff=0.01)


def flaky(work: Work) -> None:
    for _ in range(work.chance.randrange(1, 20)):
        times = work.chance.randrange(4)
        work.go(None, times, expected=times, body=run_flaky, retries=times + 4, retry_on=(Flaky, dgmp.WorkerDied),
                backoff=work.chance.choice([0.0, 0.01]))


def timeouts(work: Work) -> None:
    for _ in range(work.chance.randrange(1, 10)):
        fn, seconds = work.chance.choice([sleep, block]), work.chance.choice([0.0, 3600.0])
        work.go(fn, seconds, expected=seconds, flags=Flag.TIMED, timeout=0.05)
    work.go(spin, expected=None, flags=Flag.TIMED, timeout=0.05)
    if work.chance.random() < 0.2:
        work.go(deaf, 3600.0, expected=None, flags=Flag.TIMED, timeout=0.05, grace=0.1)


def fork_join(work: Work) -> None:
    for _ in range(work.chance.randrange(1, 5)):
        n = work.chance.randrange(3, 8)
        work.go(fib, n, expected=number_of(n))
    n = work.chance.randrange(100, 700)
    work.go(spawn_many, n, expected=sum(i * i for i in range(n)))


def channels(work: Work) -> None:
    """The senders are waited for; the client receives, too, as the receivers may be killed."""
    chan = work.runtime.chan(work.chance.choice([0, 1, 8]))
    for _ in range(work.chance.randrange(1, 4)):
        work.go(receive_all, chan, expected="all")
    pass_messages(work, [chan])


def selects(work: Work) -> None:
    chans = [work.runtime.chan(work.chance.choice([0, 1, 8])) for _ in range(2)]
    for _ in range(work.chance.randrange(1, 4)):
        work.go(receive_either, *chans, expected="all")
    pass_messages(work, chans)


def pass_messages(work: Work, chans: list[Any]) -> None:
    n = work.chance.randrange(1, 60)
    senders = [work.go(send_all, work.chance.choice(chans), [number() for _ in range(n)], expected=n) for _ in range(4)]
    while not all(sender.future.done() for sender in senders):
        which, id, ok = dgmp.select(*[dgmp.recv(chan) for chan in chans], timeout=PATIENCE)
        if ok:
            got(id)
    for chan in chans:
        chan.close()
        for id in chan:
            got(id)


def sleepers(work: Work) -> None:
    for _ in range(work.chance.randrange(5, 60)):
        seconds = work.chance.random() * 0.05
        work.go(sleep, seconds, expected=seconds)


def mutexes(work: Work) -> None:
    mutex, id = dgmp.Mutex(runtime=work.runtime), number()
    for _ in range(work.chance.randrange(2, 12)):
        times = work.chance.randrange(1, 20)
        work.go(lock_in_turn, mutex, id, times, expected=times)
    lock_in_turn(mutex, id, 3)


def semaphores(work: Work) -> None:
    semaphore = dgmp.Semaphore(3, runtime=work.runtime)
    for _ in range(work.chance.randrange(2, 30)):
        n = work.chance.randrange(1, 4)
        work.go(acquire, semaphore, n, expected=n)


def groups(work: Work) -> None:
    for _ in range(work.chance.randrange(1, 6)):
        work.go(group_of, work.chance.randrange(20), work.chance.random() < 0.5, expected="grouped")


def arrays(work: Work) -> None:
    import numpy

    for _ in range(work.chance.randrange(1, 6)):
        data = numpy.arange(work.chance.randrange(5_000, 60_000))
        work.go(negated, data, expected=Same(-data))


class Same:
    """Equal to an array of the same numbers."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __eq__(self, other: object) -> bool:
        return hasattr(other, "shape") and other.shape == self.data.shape and bool((other == self.data).all())


def maps(work: Work) -> None:
    n = work.chance.randrange(1, 500)
    items = [Owned(number(), i * i) for i in range(n)]
    for item in items:
        log(Kind.SUBMIT, item.id, least_retries(), Flag.TOGETHER)
    results = work.runtime.map(run, [item.id for item in items], [square] * n, range(n))
    for item in items:
        log(Kind.ACCEPT, item.id)
    for item in items:
        try:
            value = next(results)
        except StopIteration:  # what had not been sent when the coordinator died is one error
            if work.runtime.node.gone is None:
                raise
            item.tell(Outcome.NODE_DIED, None)
        except dgmp.DgmpError as e:
            item.tell(outcome_of(e), e)
        else:
            item.tell(Outcome.RIGHT if value == item.expected else Outcome.WRONG, value)


def cancels(work: Work) -> None:
    for _ in range(work.chance.randrange(10, 60)):
        fn, argument = work.chance.choice([(sleep, 0.02), (sleep, 3600.0), (block, 0.01), (block, 3600.0), (square, 0)])
        work.go(fn, argument, expected=argument)
    for owned in work.owned:
        if owned.expected == 3600.0 or work.chance.random() < 0.5:
            owned.cancel()


def blocking(work: Work) -> None:
    for _ in range(work.chance.randrange(2, 12)):
        fn, seconds = work.chance.choice([block, block_saying_so]), work.chance.random() * 0.05
        work.go(fn, seconds, expected=seconds)
    work.go(start_a_program, expected=0)


def asyncs(work: Work) -> None:
    for _ in range(work.chance.randrange(2, 30)):
        seconds = work.chance.random() * 0.03
        work.go(run_async, seconds, expected=seconds, flags=Flag.TOGETHER, body=run_async)  # as tasks of one loop


def resizes(work: Work) -> None:
    for _ in range(work.chance.randrange(1, 5)):
        work.runtime.gomaxprocs(work.chance.randrange(1, 5))
        for i in range(20):
            work.go(square, i, expected=i * i)
        time.sleep(work.chance.random() * 0.02)


def dependents(work: Work) -> None:
    """Futures as arguments."""
    for _ in range(work.chance.randrange(1, 20)):
        parts = [work.go(square, i, expected=i * i) for i in range(work.chance.randrange(1, 6))]
        expected = sum(part.expected for part in parts)
        work.go(total, *[part.future for part in parts], expected=expected, flags=Flag.TOGETHER)


def closures(work: Work) -> None:
    """By value, with what they capture."""
    for _ in range(10):
        n = work.chance.randrange(10)  # few: each is another function, which the runtime keeps
        work.go(lambda x, n=n: x + n, 1, expected=n + 1)


def deaths(work: Work) -> None:
    for _ in range(work.chance.randrange(1, 3)):
        work.go(work.chance.choice([exit_at_once, segfault, kill_itself]), expected=None)
    for i in range(30):
        work.go(square, i, expected=i * i)


ALL = (fan_out, retries, flaky, timeouts, fork_join, channels, selects, sleepers, mutexes, semaphores, groups, arrays, maps,
       cancels, blocking, asyncs, resizes, dependents, closures, deaths)
ONCE = (channels, selects)  # what they send would come twice if they were run again
PEACEFUL = tuple(workload for workload in ALL if workload not in (deaths, timeouts))


def round_of_work(seed: str, runtime: dgmp.Runtime, workloads: tuple[Callable[[Work], None], ...]) -> None:
    """Each workload in a thread of its own, until all of their Gs have ended."""
    threads = [threading.Thread(target=perform, args=(workload, Work(f"{seed}:{i}", runtime)), name=workload.__name__)
               for i, workload in enumerate(workloads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

def perform(workload: Callable[[Work], None], work: Work) -> None:
    try:
        workload(work)
    except dgmp.CoordinatorDied:  # the history says whether it should have
        pass
    except BaseException as e:
        log(Kind.END, 0, 0, Outcome.FAILED)  # a G that nobody submitted: a violation
        complain(f"{workload.__name__} failed", e)
    work.end()
