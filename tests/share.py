"""What Gs do in Ms that end after a few of them: each new M imports this anew, so it imports little."""

import os
import sys
import time

import dgmp

KEPT = []


def pid_and(x):
    return os.getpid(), x


def receive_and_tell(requests, replies):
    replies.send((requests.recv(), os.getpid()))


def send_all(requests, n):
    for i in range(n):
        requests.send(i)


def wait_for(c, started):
    started.send(os.getpid())
    return c.recv()


def spawn_one(c):
    dgmp.go(c.recv)
    return os.getpid()


def lock(mutex):
    mutex.lock()
    return os.getpid()


def unlock(mutex):
    mutex.unlock()


def call_later(path):
    dgmp.after_func(0.05, append, path)
    return os.getpid()


def append(path):
    with open(path, "a") as file:
        file.write("called\n")


async def sleep_a_little(i):
    import asyncio

    await asyncio.sleep(0.001)
    return i


def last_words():
    sys.stdout.write("unfinished")


def leak(megabytes):
    KEPT.append(b"x" * (megabytes << 20))
    return os.getpid()


def eat(megabytes):
    kept = [b"x" * (1 << 20) for _ in range(megabytes)]
    time.sleep(60)  # until it is found
    return len(kept)


def measure(large):
    return sum(1 for i in range(0, len(large), 4096) if large[i] == 0) * 4096, os.getpid()


def fill(c):
    """Spawns Gs that wait, until it is told; what, and how many there were."""
    futures = []
    try:
        while True:
            futures.append(dgmp.go(c.recv))
    except dgmp.TooManyGs as e:
        return str(e), len(futures)


def spawn_in_a_thread(n):
    import threading

    results = []
    thread = threading.Thread(target=lambda: results.extend(f.result() for f in [dgmp.go(abs, -1) for _ in range(n)]))
    thread.start()
    while thread.is_alive():
        dgmp.sleep(0.01)
    return sum(results)


def nest(n):
    return n and 1 + dgmp.go(nest, n - 1).result()


def receive_beside(c, data):
    return c.recv(), len(data)


def fill_memory(size):
    futures = []
    c = dgmp.Chan()
    try:
        while True:
            futures.append(dgmp.go(receive_beside, c, b"x" * size))
    except MemoryError as e:
        c.close()
        return str(e), len(futures)


def give(size):
    return b"x" * size


def receive_any(channels):
    return dgmp.select(*[dgmp.recv(c) for c in channels])[0]


def block_in_c(started, seconds):
    """Where no signal's handler runs meanwhile."""
    import ctypes

    libc = ctypes.PyDLL(None)
    started.send(True)
    libc.usleep(int(seconds * 1e6))
