"""Gs that wait: channels beside multiprocessing's pipes and queues, blocking calls, sleepers.  python -m bench.waits [name ...]

Each figure is the median of REPEAT rounds, the systems one after another in each round.
"""
import multiprocessing as mp
import os
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import dgmp

REPEAT = 5
PING = 2_000
MESSAGES = 30_000


# ---------------------------------------------------------------- ping-pong
def pong(there, back, n):
    for _ in range(n):
        back.send(there.recv())
    return dgmp.current()["m"]


def ping(there, back, n):
    """us a round trip, and the M."""
    back.recv()  # pong runs, on its M
    begun = time.perf_counter_ns()
    for i in range(n):
        there.send(i)
        back.recv()
    return (time.perf_counter_ns() - begun) / n / 1e3, dgmp.current()["m"]


def pong_first(there, back, n):
    back.send(None)
    return pong(there, back, n)


def dgmp_ping_pong(procs, apart):
    """us a round trip of two Gs on one M, or on two."""
    with dgmp.Runtime(procs=procs) as rt:
        for _ in range(50):
            there, back = rt.chan(), rt.chan()
            hold = [rt.go(os.getpid) for _ in range(4)]
            [h.result() for h in hold]
            a, b = rt.go(pong_first, there, back, PING), rt.go(ping, there, back, PING)
            us, m = b.result()
            if (m != a.result()) == apart:
                return us
    raise SystemExit("the two Gs were never where they should be")


def pipe_pong(conn, n):
    for _ in range(n):
        conn.send(conn.recv())


def pipe_ping_pong():
    ours, theirs = mp.Pipe()
    other = mp.Process(target=pipe_pong, args=(theirs, PING))
    other.start()
    begun = time.perf_counter_ns()
    for i in range(PING):
        ours.send(i)
        ours.recv()
    us = (time.perf_counter_ns() - begun) / PING / 1e3
    other.join()
    return us


def queue_pong(there, back, n):
    for _ in range(n):
        back.put(there.get())


def queue_ping_pong(kind):
    there, back = kind(), kind()
    other = mp.Process(target=queue_pong, args=(there, back, PING))
    other.start()
    begun = time.perf_counter_ns()
    for i in range(PING):
        there.put(i)
        back.get()
    us = (time.perf_counter_ns() - begun) / PING / 1e3
    other.join()
    return us


# ---------------------------------------------------------------- a stream of messages
def produce(chan, n, ready):
    ready.recv()
    message = b"x" * 64
    for _ in range(n):
        chan.send(message)
    return dgmp.current()["m"]


def consume(chan, n, ready):
    ready.send(None)
    begun = time.perf_counter()
    for _ in range(n):
        chan.recv()
    return n / (time.perf_counter() - begun), dgmp.current()["m"]


def dgmp_stream():
    with dgmp.Runtime(procs=2) as rt:
        for _ in range(50):
            chan, ready = rt.chan(1024), rt.chan()
            a, b = rt.go(produce, chan, MESSAGES, ready), rt.go(consume, chan, MESSAGES, ready)
            rate, m = b.result()
            if m != a.result():
                return rate
    raise SystemExit("the two Gs were never on two Ms")


def queue_produce(queue, n):
    message = b"x" * 64
    for _ in range(n):
        queue.put(message)


def queue_stream(kind):
    queue = kind()
    other = mp.Process(target=queue_produce, args=(queue, MESSAGES))
    other.start()
    queue.get()
    begun = time.perf_counter()
    for _ in range(MESSAGES - 1):
        queue.get()
    rate = (MESSAGES - 1) / (time.perf_counter() - begun)
    other.join()
    return rate


# ---------------------------------------------------------------- many that wait
def block(_):
    time.sleep(0.05)


def block_saying_so(_):
    with dgmp.blocking():
        time.sleep(0.05)


def park(_):
    dgmp.sleep(0.05)


def sleepers(fn):
    """Seconds for 200 Gs of 50 ms on 2 Ps, in a runtime that has just booted."""
    with dgmp.Runtime(procs=2) as rt:
        rt.go(os.getpid).result()
        begun = time.perf_counter()
        for f in [rt.go(fn, i) for i in range(200)]:
            f.result()
        return time.perf_counter() - begun


def pool_sleepers():
    with ProcessPoolExecutor(2) as pool:
        pool.submit(os.getpid).result()
        begun = time.perf_counter()
        for f in [pool.submit(block, i) for i in range(200)]:
            f.result()
        return time.perf_counter() - begun


def memory(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            total += next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total * 1024


def wait_for(chan):
    chan.recv()


def parked(n):
    """Bytes of each of n Gs that are parked on a channel, in client, Ms and segment together."""
    with dgmp.Runtime(procs=2) as rt:
        go = rt.chan()
        f = rt.go(wait_for, go)
        pids = {os.getpid(), *rt.pids()} if hasattr(rt, "pids") else {os.getpid(), *family(os.getpid())}
        before = memory(pids)
        begun = time.perf_counter()
        futures = [rt.go(wait_for, go) for _ in range(n)]
        while sum(x["state"] == "waiting" for x in rt.snapshot().to_dict()["gs"]) < n + 1:
            time.sleep(0.05)
        took = time.perf_counter() - begun
        pids = {os.getpid(), *family(os.getpid())}
        each = (memory(pids) - before) / n
        go.close()
        for x in [f, *futures]:
            x.exception()
        return each, took


def family(pid):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue
            if parent == pid:
                found += [int(entry), *family(int(entry))]
    return found


# ---------------------------------------------------------------- whole programs
def ring_node(left, right, last):
    """Passes the token on, one less; who has 0 ends the ring."""
    for token in left:
        if not token:
            last.send(True)
        else:
            right.send(token - 1)


def thread_ring(n, hops):
    """Seconds for a token to hop through a ring of n Gs."""
    with dgmp.Runtime(procs=2) as rt:
        chans, last = [rt.chan() for _ in range(n)], rt.chan()
        futures = [rt.go(ring_node, chans[i], chans[(i + 1) % n], last) for i in range(n)]
        begun = time.perf_counter()
        chans[0].send(hops)
        last.recv()
        took = time.perf_counter() - begun
        for chan in chans:
            chan.close()
        for f in futures:
            f.result()
        return took


def sieve(n):
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "examples"))
    import prime_sieve

    with dgmp.Runtime(procs=2) as rt:
        begun = time.perf_counter()
        assert rt.go(prime_sieve.primes, n).result()[-1] == {500: 3571, 100: 541}[n]
        return time.perf_counter() - begun


FIGURES = {
    "thread ring, 500 Gs, 100,000 hops, s": [("dgmp", lambda: thread_ring(500, 100_000))],
    "prime sieve, 500 primes, s": [("dgmp", lambda: sieve(500))],
    "ping-pong on one M, us": [("dgmp", lambda: dgmp_ping_pong(1, False))],
    "ping-pong on two Ms, us": [("dgmp", lambda: dgmp_ping_pong(2, True)), ("Pipe", pipe_ping_pong),
                                ("SimpleQueue", lambda: queue_ping_pong(mp.SimpleQueue)),
                                ("Queue", lambda: queue_ping_pong(mp.Queue))],
    "64-byte messages/s": [("dgmp", dgmp_stream), ("SimpleQueue", lambda: queue_stream(mp.SimpleQueue)),
                           ("Queue", lambda: queue_stream(mp.Queue))],
    "200 x 50 ms, s": [("time.sleep", lambda: sleepers(block)), ("blocking()", lambda: sleepers(block_saying_so)),
                       ("dgmp.sleep", lambda: sleepers(park)), ("ppe", pool_sleepers)],
}


def main():
    for title, systems in FIGURES.items():
        if sys.argv[1:] and not any(x in title for x in sys.argv[1:]):
            continue
        values = {name: [] for name, _ in systems}
        for _ in range(REPEAT):
            for name, measure in systems:
                values[name].append(measure())
        print(title + ":", ", ".join(f"{name} {statistics.median(x):.4g}" for name, x in values.items()), flush=True)
    for n in (10_000, 100_000):
        if not sys.argv[1:] or "parked" in sys.argv[1:]:
            each, took = parked(n)
            print(f"{n:,} parked Gs: {each:,.0f} bytes each, parked after {took:.1f} s", flush=True)


if __name__ == "__main__":
    main()
