"""A little of everything, for tests in which a process dies at a kill point: each part must come out right, or be lost to
somebody's death.  Prints how many parts were right and how many lost, and what else there was; 4: the coordinator died."""

import os
import random
import signal
import sys
import time

import dgmp
from tests.helpers import eventually, fib, identity

PATIENCE = 5.0  # seconds for what may never come, as who was to do it has died
LOST = (dgmp.WorkerDied, dgmp.HolderDied, TimeoutError)
ROUNDS = 3
RETRIED = "retried"


def send(c, numbers):
    for i in numbers:
        c.send(i, timeout=PATIENCE)
    return len(numbers)


def receive(c, n):
    return [c.recv(timeout=PATIENCE) for _ in range(n)]


def choose(a, b, n):
    found = []
    for _ in range(n):
        which, value, _ = dgmp.select(dgmp.recv(a), dgmp.recv(b), timeout=PATIENCE)
        if which < 0:
            raise TimeoutError("nothing came")
        found.append(value)
    return sorted(found)


def count(mutex, cell, n):
    """What was in the cell, which is a channel of one place, is its own."""
    for _ in range(n):
        with mutex:
            cell.send(cell.recv(timeout=PATIENCE) + 1, timeout=PATIENCE)
    return n


def add_all(*numbers):
    return sum(numbers)


def after_others(n):
    """Gs that wait for others as their arguments."""
    return dgmp.go(add_all, *[dgmp.go(identity, i) for i in range(n)]).result()


def cancels(n):
    futures = [dgmp.go(time.sleep, 1) for _ in range(n)]
    return sum(f.cancel() for f in futures)


def gives_up():
    c = dgmp.Chan()
    try:
        c.recv(timeout=0.01)
    except TimeoutError:
        return "gave up"


def closes(n):
    c = dgmp.Chan(n)
    for i in range(n):
        c.send(i)
    reader = dgmp.go(list, c)
    c.close()
    return reader.result()


def resizes():
    was = dgmp.gomaxprocs(3)
    dgmp.gomaxprocs(1)
    dgmp.gomaxprocs(was)
    return was


def fails_at_times(x):
    if random.random() < 0.5:
        raise LookupError(x)
    return x


def floods(n):
    """More than a ring holds."""
    return sum(dgmp.gather(*[dgmp.go(identity, 1) for _ in range(n)]))


def parts(rt, kills):
    """(future, what has to come of it); what is retried is never lost"""
    a, b, c, cell = (dgmp.Chan(room, runtime=rt) for room in (0, 3, 2, 1))
    mutex = dgmp.Mutex(runtime=rt)
    large = os.urandom(100_000)
    cell.send(0)
    yield from ((rt.go(identity, i), i) for i in range(100))
    yield from ((rt.go(fib, 6), 8) for _ in range(4))
    yield rt.go(floods, 400), 400
    yield from ((rt.go(send, a, range(10)), 10), (rt.go(send, b, range(10, 20)), 10), (rt.go(send, c, range(10)), 10))
    yield rt.go(choose, a, b, 20), list(range(20))
    yield rt.go(receive, c, 10), list(range(10))
    yield from ((rt.go(count, mutex, cell, 5), 5) for _ in range(3))
    yield rt.go(after_others, 20), 190
    yield rt.go(cancels, 5), 5
    yield rt.go(gives_up), "gave up"
    yield rt.go(closes, 5), [0, 1, 2, 3, 4]
    yield from ((rt.go(identity, large), large) for _ in range(4))
    yield from ((rt.go(time.sleep, 0.03), None) for _ in range(6))
    yield rt.go(resizes), None
    for i, backoff in enumerate([0, 0, 0, 0.01]):
        yield rt.spawn(fails_at_times, (i,), name=RETRIED, retries=100, retry_on=(LookupError, dgmp.WorkerDied),
                       backoff=[backoff]), i
    yield rt.go(add_all, *[rt.go(identity, i) for i in range(5)]), 10
    if kills:
        yield rt.go(os.kill, rt.go(os.getpid).result(PATIENCE), signal.SIGKILL), None


def work(rt, kills):
    right, lost = 0, []
    for _ in range(ROUNDS):
        futures = list(parts(rt, kills))
        for future, expected in futures:
            try:
                value = future.result(12 * PATIENCE)
                assert expected is None or value == expected, f"{future} gave {value!r:.100}, not {expected!r:.100}"
                right += 1
            except LOST as e:
                assert future.done() and future.name != RETRIED, f"{future} has not ended, or was not retried: {e!r}"
                lost.append(f"{type(e).__name__}: {e!s:.60}")
        if sum(rt.map(identity, range(200), chunksize=7)) != 19900:
            raise AssertionError("a map is wrong")
    return right, lost


def is_settled(stats):
    return stats["num_g"] == 0 and stats["idleprocs"] == stats["gomaxprocs"] and stats["spinningthreads"] == 0


def main():
    attach = [x.removeprefix("attach=") for x in sys.argv if x.startswith("attach=")]
    with dgmp.Runtime(attach=attach[0]) if attach else dgmp.Runtime(procs=2) as rt:
        try:
            right, lost = work(rt, "kills" in sys.argv)
        except dgmp.WorkerDied as e:  # of the map
            right, lost = 0, [str(e)]
        assert dgmp.gather(*[rt.go(identity, i) for i in range(50)]) == list(range(50))
        assert eventually(lambda: is_settled(rt.stats())) and not rt.stats()["throws"], rt.stats()
    print(right, len(lost), *lost, sep="\n")


if __name__ == "__main__":
    try:
        main()
    except dgmp.CoordinatorDied:
        sys.exit(4)
