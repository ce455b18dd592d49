"""Functions that Gs of the tests run (importable, so they travel by reference) and ways to look at processes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dgmp

PATIENCE = 30  # seconds: new Ms that import a test's module, and pytest with it, need a dozen on a machine with a load of 14
NOT_OF_LIBC = (1 << 31) - 1  # in a mask of signals: without 32 and 33, which children of make ignore


def identity(x):
    return x


def add(a, b=0):
    return a + b


def fib(n):
    return n if n < 2 else sum(dgmp.gather(dgmp.go(fib, n - 1), dgmp.go(fib, n - 2)))


def nap(seconds):
    time.sleep(seconds)
    return seconds


def fail(text):
    raise ValueError(text)


def kill_self(number=signal.SIGKILL):
    os.kill(os.getpid(), number)


def kill(pid, number=signal.SIGKILL):
    """That process, which may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def who():
    return dgmp.current()


def busy(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return seconds


def compute_until(path):
    """Keeps its M's P, which nobody takes from one that computes, however long that is."""
    while not os.path.exists(path):
        pass
    return path


def still_fine(rt):
    """Whether that runtime works."""
    return dgmp.gather(*[rt.go(identity, i) for i in range(20)]) == list(range(20))


def processes() -> dict[int, tuple[int, str]]:
    """pid -> (parent, command line) of everything that runs (zombies too)."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stat, open(f"/proc/{name}/cmdline", "rb") as words:
                    parent = int(stat.read().rpartition(b")")[2].split()[1])
                    found[int(name)] = parent, words.read().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
    return found


def descendants(root: int) -> set[int]:
    kids: dict[int, list[int]] = {}
    for pid, (parent, _) in processes().items():
        kids.setdefault(parent, []).append(pid)
    out: set[int] = set()
    todo = [root]
    while todo:
        for pid in kids.get(todo.pop(), []):
            out.add(pid)
            todo.append(pid)
    return out


def childless() -> bool:
    """Whether this process has no child, not even a zombie: then it has no descendants."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return False
    except ChildProcessError:
        return True


def coordinator_of(pid: int) -> int:
    """That of a program's runtime."""
    return next(p for p, (parent, line) in processes().items() if parent == pid and "dgmp.coordinator" in line)


def zygote_of(coordinator: int) -> int:
    """Its first one: the oldest of its children, among which an M may be that has not said yet that it is one."""
    def begun(pid: int) -> int:
        return int((Path("/proc") / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[19])

    return min((p for p, (parent, _) in processes().items() if parent == coordinator), key=lambda p: (begun(p), p))


def eventually(check: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Waits until check() holds; whether it did."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def alive(pid: int) -> bool:
    """Whether pid is a process that runs (a zombie does not)."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


PYTHON = sys.executable
