"""Binding Ms to cores: which M to bind, and when to let one loose.  Called by server at sysmon's pace.

An M that has held the same P for two looks is bound to that P's core.  A pinned process beside a busy foreign one gets half
a core where a loose one gets 0.95 (measured), so an M that waited for its core for more than a fifth of the time is let
loose for a second.  Nothing is bound unless there is a P for every core, under a CPU quota, or beside another dgmp
runtime on the machine; `pin=True` binds without these reliefs, `pin=False` never.  An M that takes another P, or starts
a process, lets itself loose (runtime.affinity).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from .._core import View

WAITS_TOO_MUCH = 0.2
LOOSE_NS = 1_000_000_000
NEIGHBOURS_NS = 1_000_000_000
NAME = "dgmp.runtime."


class Binder:
    """Decides, at each look, what to bind.

    Args:
        view: the coordinator's.
        cores: the cores of the whole affinity set; P i belongs to cores[i % len(cores)].
        forced: pin=True.
        waited: pid -> ns that it has waited for a core so far.
        alone: whether no other runtime is on the machine.
        bind: (pid, cores): sets the affinity.
    """

    def __init__(self, view: View, cores: list[int], forced: bool, waited: Callable[[int], int], alone: Callable[[], bool],
                 bind: Callable[[int, list[int]], None]) -> None:
        self.view, self.cores, self.forced = view, cores, forced
        self.waited, self.alone, self.bind = waited, alone, bind
        self.seen: dict[int, tuple[int, int, int]] = {}  # pid -> its P, its wait and the time, at the last look
        self.loose: dict[int, int] = {}  # pid -> until when
        self.next_neighbours = 0
        self.is_alone = True

    def look(self, now: int) -> None:
        if not self.forced and now >= self.next_neighbours:
            self.next_neighbours = now + NEIGHBOURS_NS
            self.is_alone = self.alone()
        seen = {}
        for m, pid, p, bound in self.view.holders():
            wait = 0 if self.forced else self.waited(pid)
            seen[pid] = p, wait, now
            before = self.seen.get(pid)
            if before is None or before[0] != p:
                continue
            waits = wait - before[1] > WAITS_TOO_MUCH * (now - before[2])
            may = self.forced or (self.is_alone and self.view.nprocs == len(self.cores))
            if bound == p and (waits or not may):
                self.let_loose(m, pid)
                self.loose[pid] = now + LOOSE_NS
            elif bound < 0 and may and not waits and now >= self.loose.get(pid, 0):
                self.loose.pop(pid, None)
                self.bind(pid, [self.cores[p % len(self.cores)]])
                if not self.view.set_bound(m, p):  # it has another by now
                    self.let_loose(m, pid)
        self.seen = seen

    def let_loose(self, m: int, pid: int) -> None:
        self.bind(pid, self.cores)
        self.view.set_bound(m, -1)


def waited(pid: int) -> int:
    """How long the main thread of a process was runnable without a core, in ns."""
    try:
        with open(f"/proc/{pid}/schedstat", "rb") as file:
            return int(file.read().split()[1])
    except (OSError, IndexError, ValueError):  # it has died; or the kernel does not count
        return 0


def set_affinity(pid: int, cores: list[int]) -> None:
    with contextlib.suppress(OSError):
        os.sched_setaffinity(pid, cores)


def neighbours(text: bytes) -> int:
    """How many runtimes there are, ours too, in the text of /proc/net/unix: each has an abstract socket of that name."""
    return len({line.rsplit(b"@", 1)[1] for line in text.splitlines() if b"@" + NAME.encode() in line})


def alone() -> bool:
    try:
        with open("/proc/net/unix", "rb") as file:
            return neighbours(file.read()) <= 1
    except OSError:
        return True
