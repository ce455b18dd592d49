"""The four steps in which a runtime boots: osinit, schedinit, newproc, mstart (Go: rt0_go in asm_amd64.s).

osinit and schedinit run in the process that starts the runtime, newproc makes the main G there, and mstart is m0's
entry, in the process that the zygote makes for it.  `DGMP_DEBUG=boot` prints the steps as they happen.
"""

from __future__ import annotations

import math
import os
import sys

from .._core import KIND_CLIENT, View, create
from . import numbers

NSLOTS = 1 << 20  # Gs at once; 272 bytes of sparse memory each
HEAP = 32 << 30  # sparse; falls back under RLIMIT_AS and RLIMIT_FSIZE
MAX_PROCS = 1024
MAX_MS = 4092  # what an M's number has room for in the core's words, but for clients and "none"
MAX_SCHEDTRACE_MS = 86_400_000  # a day


def debug(option: str) -> str | None:
    """The value of an option of DGMP_DEBUG (`boot,schedtrace=1000`): '' if it has none, None if it is not there."""
    for item in os.environ.get("DGMP_DEBUG", "").split(","):
        name, _, value = item.partition("=")
        if name.strip() == option:
            return value.strip()
    return None


def schedtrace_ms() -> int:
    """How often to print a line about the scheduler; 0: never."""
    text = debug("schedtrace")
    if text is None:
        return 0
    ms = numbers.in_text(text)
    if ms is None or not 1 <= ms <= MAX_SCHEDTRACE_MS:
        raise ValueError(f"schedtrace must be a whole number of milliseconds between 1 and {MAX_SCHEDTRACE_MS}, "
                         f"not {text[:40]!r}")
    return ms


def trace(text: str) -> None:
    if debug("boot") is not None:
        print(f"dgmp: boot: {text}", file=sys.stderr, flush=True)


def read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def cgroup_quota(root: str = "/sys/fs/cgroup", self_file: str = "/proc/self/cgroup") -> float | None:
    """The CPU quota of this process's cgroup in cores, the tightest of its ancestors; None if there is none."""
    quotas: list[float] = []
    try:
        lines = read(self_file).splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = os.path.join(root, controllers) if controllers else root
        parts = [part for part in path.split("/") if part]
        for depth in range(len(parts) + 1):
            quotas += _quota(os.path.join(base, *parts[:depth]))
    return min(quotas, default=None)


def _quota(folder: str) -> list[float]:
    try:
        quota, period = read(os.path.join(folder, "cpu.max")).split()
    except (OSError, ValueError):
        try:
            quota = read(os.path.join(folder, "cpu.cfs_quota_us")).strip()
            period = read(os.path.join(folder, "cpu.cfs_period_us")).strip()
        except OSError:
            return []
    if quota in ("max", "-1") or float(period) <= 0:
        return []
    return [float(quota) / float(period)]


def osinit() -> int:
    """How many cores this process may use: its affinity mask, and the cgroup's CPU quota rounded up."""
    cores = len(os.sched_getaffinity(0))
    quota = cgroup_quota()
    n = cores if quota is None else max(1, min(cores, math.ceil(quota)))
    trace(f"osinit: {n} cores (affinity {cores}, quota {'none' if quota is None else quota})")
    return n


def default_procs(ncpu: int) -> int:
    """DGMP_PROCS, else as many as there are cores."""
    text = os.environ.get("DGMP_PROCS", "")
    procs = numbers.in_text(text) if text else ncpu
    if procs is None or not 1 <= procs <= MAX_PROCS:
        raise ValueError(f"DGMP_PROCS must be a whole number between 1 and {MAX_PROCS}, not {text[:40]!r}")
    return procs


def schedinit(ncpu: int, procs: int | None, max_ms: int | None, coordinator_fd: int, sysmon_fd: int,
              others: int = 0) -> tuple[int, View]:
    """Makes the segment with all Ps idle, and room for so many other clients.  Returns the memfd and the client's view."""
    if procs is None:
        procs = default_procs(ncpu)
    if not 1 <= procs <= MAX_PROCS:
        raise ValueError(f"procs must be between 1 and {MAX_PROCS}, not {procs}")
    if max_ms is None:
        max_ms = 64 + procs
    if not procs <= max_ms <= MAX_MS:
        raise ValueError(f"max_ms must be between procs ({procs}) and {MAX_MS}, not {max_ms}")
    fd = create(procs, max_ms, 2 + others, NSLOTS, HEAP)
    view = View(fd, max_ms, coordinator_fd, sysmon_fd)
    view.attach(KIND_CLIENT, os.getpid())
    trace(f"schedinit: gomaxprocs={procs}, maxmcount={max_ms}")
    return fd, view


def binding(pin: bool | None, ncpu: int, procs: int) -> str:
    """How Ms are bound to cores (coordinator.binding): "never", "relieved" or "forced"."""
    if pin is not None:
        return "forced" if pin else "never"
    return "relieved" if procs == ncpu == len(os.sched_getaffinity(0)) and cgroup_quota() is None else "never"


def mstart_trace(m: int) -> None:
    trace(f"mstart: m{m} is pid {os.getpid()}, into schedule()")


def main() -> None:
    """The main G of an embedded runtime: it runs first, on m0.  The user's main program is the client."""
    trace("runtime.main: running")
