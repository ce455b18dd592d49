"""Mixed work for many minutes, with a kill now and then: memory, descriptors, processes and shared memory must stay flat.

    python -m tests.chaos.soak [--minutes N] [--seed N]        (make soak MINUTES=)

Between two rounds of work, when nothing runs, it is measured what the client, the coordinator and all Ms together take.  Of
each figure the median of the second sixth of the time is compared with that of the last: the first one warms up.  Ends with
1 if one of them has grown.

What the client takes from the system goes up and down by megabytes with the threads that it starts, each of which may make
malloc an arena more; a leak would show in what of that is in use: `blocks` of Python's own, and bytes of malloc.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import math
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from array import array
from pathlib import Path
from typing import NamedTuple

import dgmp
from dgmp._core import become_subreaper
from tests.helpers import descendants, eventually, kill

from . import workloads
from .history import leaks

PROCS = 2
MOST_MS = 8  # as many as block at once will be made, and stay
AT_ONCE = 3  # workloads
KILL_EACH = 5.0  # seconds, on average
PARTS = 6
MB = 1 << 20
MOST_MEMORY = 5 * MB  # may each grow by, or by a tenth: the arenas of malloc fill in steps
RING_WORDS = 5  # of 8 bytes that a G takes in queues on its way; each word is new until its queue has come round
MEMORY = ("client", "malloc", "coordinator", "m", "segment")
MOST = {"processes": 2, "fds": 8, "blocks": 1000, "malloc": MB / 4}  # may grow by so much


class Sample(NamedTuple):
    """What is in use: bytes of memory that the client has for itself, blocks of Python's and bytes of malloc that are in use
    there; bytes that the coordinator has, and an M on average; bytes of the segment that are there; descriptors of client and
    coordinator, and of an M; processes; shared objects; large blocks; and how many Gs there have been."""

    client: float
    blocks: float
    malloc: float
    coordinator: float
    m: float
    segment: float
    fds: float
    fds_of_m: float
    processes: float
    objects: float
    large_blocks: float
    gs: float


class MallInfo(ctypes.Structure):
    """struct mallinfo2 of glibc."""

    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]


def in_use_of_malloc() -> int:
    """Bytes, in all arenas; 0 where the libc does not say."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        return 0
    mallinfo.restype = MallInfo
    said = mallinfo()
    return int(said.uordblks + said.hblkhd)


def private_memory(pid: int) -> int:
    """Bytes that no other process has; the segment is not among them."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss_Anon:"):
                return int(line.split()[1]) << 10
    return 0


def descriptors(pid: int) -> int:
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return 0


def segment_memory(pid: int) -> int:
    """Bytes of the shared segment that are there: those of the memfd that this process has open, or mapped."""
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/fd").iterdir():
            if os.readlink(path).startswith("/memfd:dgmp (deleted)"):
                return os.stat(path).st_blocks * 512
    return 0


def take(runtime: dgmp.Runtime) -> Sample:
    family = descendants(os.getpid())
    ms = list(family - {runtime._pid})  # and the zygote, which is one that has not begun
    stats = runtime.stats()
    return Sample(private_memory(os.getpid()), sys.getallocatedblocks(), in_use_of_malloc(),
                  private_memory(runtime._pid), statistics.mean(map(private_memory, ms)), segment_memory(runtime._pid),
                  descriptors(os.getpid()) + descriptors(runtime._pid),
                  statistics.mean(map(descriptors, ms)), len(family), stats["objects"], stats["large_blocks"],
                  stats["spawned"])


class Soak:
    """A runtime at work.

    Args:
        seed: of what is drawn.
        runtime: where.
    """

    def __init__(self, seed: int, runtime: dgmp.Runtime) -> None:
        self.chance = random.Random(seed)
        self.seed = seed
        self.runtime = runtime
        self.rounds = self.kills = 0
        self.next_kill = time.monotonic() + KILL_EACH
        self.samples = tempfile.TemporaryFile()  # in memory they would be what grows
        self.wrong: list[str] = []

    def round(self) -> None:
        self.maybe_kill()
        chosen = self.chance.sample(workloads.PEACEFUL, AT_ONCE)
        workloads.round_of_work(f"{self.seed}:{self.rounds}", self.runtime, tuple(chosen))
        self.runtime.gomaxprocs(PROCS)
        self.rounds += 1
        if not eventually(self.settled, 20):
            self.wrong.append(f"after round {self.rounds}: {', '.join(leaks(self.runtime.stats()))}")
        array("d", take(self.runtime)).tofile(self.samples)

    def history(self) -> list[Sample]:
        values = array("d")
        self.samples.seek(0)
        values.frombytes(self.samples.read())
        size = len(Sample._fields)
        return [Sample(*values[i:i + size]) for i in range(0, len(values), size)]

    def settled(self) -> bool:
        gc.collect()
        return not leaks(self.runtime.stats())

    def maybe_kill(self) -> None:
        if time.monotonic() < self.next_kill:
            return
        self.next_kill = time.monotonic() + self.chance.expovariate(1 / KILL_EACH)
        pids = [m.pid for m in self.runtime.snapshot().ms]
        if pids:
            self.kills += 1
            kill(self.chance.choice(pids))


def table(samples: list[Sample]) -> tuple[str, list[str]]:
    """The medians of each part, and which figures have grown."""
    size = max(1, len(samples) // PARTS)
    medians = [Sample(*map(statistics.median, zip(*samples[i * size:(i + 1) * size], strict=True))) for i in range(PARTS)]
    lines, grown = [f"{'median of sixth':<16}" + "".join(f"{i + 1:>10}" for i in range(PARTS))], []
    for name in Sample._fields:
        values = [getattr(median, name) for median in medians]
        shown = [f"{value / MB:.1f} MB" if name in MEMORY else f"{value:.0f}" for value in values]
        lines.append(f"{name:<16}" + "".join(f"{text:>10}" for text in shown))
        if values[-1] - values[1] > most(name, medians[1], medians[-1]):
            grown.append(f"{name} has grown from {shown[1]} to {shown[-1]}")
    return "\n".join(lines), grown


def most(name: str, before: Sample, after: Sample) -> float:
    """By how much a figure may grow."""
    if name == "gs":
        return math.inf
    if name in MOST or name not in MEMORY:
        return MOST.get(name, 0.5)
    rings = 8 * RING_WORDS * (after.gs - before.gs) if name == "segment" else 0
    return max(MOST_MEMORY, getattr(before, name) / 10) + rings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    become_subreaper()
    folder = os.environ[workloads.FOLDER] = tempfile.mkdtemp(prefix="dgmp-soak-")
    end = time.monotonic() + 60 * options.minutes
    with dgmp.Runtime(procs=PROCS, max_ms=MOST_MS) as runtime:
        workloads.runtime = runtime
        soak = Soak(options.seed, runtime)
        while time.monotonic() < end or soak.rounds < 2 * PARTS:
            soak.round()
            for path in Path(folder).glob("*.log"):  # nobody checks this history
                os.truncate(path, 0)
    workloads.runtime = None
    text, grown = table(soak.history())
    complaints = Path(folder, "complaints.txt")
    if complaints.exists():
        soak.wrong.append(f"complaints: {complaints.read_text():.2000}")
    if not eventually(lambda: not descendants(os.getpid())):
        soak.wrong.append("processes are left")
    print(f"{soak.rounds} rounds, {soak.kills} kills\n{text}")
    for wrong in soak.wrong + grown:
        print(wrong)
    shutil.rmtree(folder)
    return 1 if soak.wrong or grown else 0


if __name__ == "__main__":
    sys.exit(main())
