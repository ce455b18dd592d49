"""Gs that block, for tests.  Each takes an M of its own, and they wait for each other to have one: so these are importable
without pytest, which costs an M ten times what its boot does."""

import mmap
import os
import struct
import time

import dgmp


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write(path):
    with open(path, "wb") as file:
        file.write(b"x")
    return os.getpid()


def read_blocking(path):
    before = dgmp.current()["p"]
    with dgmp.blocking():
        with dgmp.blocking():
            during = dgmp.current()["p"]
            data = read(path)
    return before, during, dgmp.current()["p"], data


def give_way(n):
    for _ in range(n):
        dgmp.gosched()
    return n


def block(n):
    for _ in range(n):
        with dgmp.blocking():
            pass
    return n


def spawn_after(path):
    data = read(path)
    return data, dgmp.gather(*[dgmp.go(abs, -i) for i in range(300)])


def in_a_blocking_block(path):
    with dgmp.blocking():
        child = dgmp.go(read, path)
        return child.result()


def read_then_burn(path, counts, i):
    """Notes in which twentieths of a second it has run."""
    read(path)
    with open(counts, "r+b") as file, mmap.mmap(file.fileno(), 0) as shared:
        begun = time.thread_time()
        while time.thread_time() - begun < 0.3:
            at = 8 * (i * 1000 + int(time.monotonic() * 20) % 1000)
            shared[at:at + 8] = struct.pack("q", struct.unpack("q", shared[at:at + 8])[0] + 1)


def write_all(paths):
    for path in paths:
        write(path)


def killed_while_blocked(path, pids):
    with open(pids, "w") as file:
        file.write(str(os.getpid()))
    os.rename(pids, pids + ".done")
    return read(path)
