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
