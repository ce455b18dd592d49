"""--timeout, --delay, --load and --memfree: when a job is ended for taking too long, and when none may start.

Each class is one option: events and the time in, decisions out.  What the machine is like just now they ask a function for,
which is one of those at the end of this module.  Called by control.
"""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_left, insort
from collections import deque

from . import amounts

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LATEST = 1001  # run times that a median is of
LOAD_SECONDS = 0.2  # between two looks at the machine while nothing may start
MEMORY_SECONDS = 0.3  # between two looks while there are jobs to end
LEAST_DELAY = 0.001
AUTO = "auto"


class Median:
    """Of the latest run times."""

    def __init__(self) -> None:
        self.by_age: deque[float] = deque()
        self.by_size: list[float] = []

    def add(self, seconds: float) -> None:
        if len(self.by_age) == LATEST:
            del self.by_size[bisect_left(self.by_size, self.by_age.popleft())]
        self.by_age.append(seconds)
        insort(self.by_size, seconds)

    def get(self) -> float | None:
        """The lower one of two; None: there is none yet."""
        return self.by_size[(len(self.by_size) - 1) // 2] if self.by_size else None


class Timeout:
    """--timeout DURATION, or N% of the median run time of the jobs that have succeeded so far (of the latest 1,001 of them).

    Attributes:
        expired: those that have been reported, until they end.
    """

    def __init__(self, seconds: float | None = None, percent: float | None = None) -> None:
        self.fixed, self.percent = seconds, percent
        self.median = Median()
        self.running: dict[Any, None] = {}  # in the order they have begun, which is that of their deadlines
        self.expired: set[Any] = set()

    @classmethod
    def parse(cls, text: str) -> Timeout | None:
        """What --timeout says; None: nothing, as 0 does.

        Raises:
            ValueError: it is neither a duration nor a percentage.
        """
        try:
            if text.endswith("%"):
                percent = float(text[:-1])
                if not 0 < percent < float("inf"):
                    raise ValueError(text)
                return cls(percent=percent)
            seconds = amounts.duration(text)
        except ValueError:
            raise ValueError(f"--timeout {text}: give seconds (or such as 30s, 5m, 1h), or a percentage of the median run time "
                             "such as 300%") from None
        return cls(seconds) if seconds else None

    def seconds(self) -> float | None:
        """How long a job may take; None: for ever, as none has succeeded yet."""
        if self.percent is None:
            return self.fixed
        median = self.median.get()
        return None if median is None else median * self.percent / 100

    def started(self, process: Any) -> None:
        self.running[process] = None

    def ended(self, process: Any, seconds: float, well: bool) -> bool:
        """Whether its time had been up."""
        self.running.pop(process, None)
        if well and self.percent is not None and process not in self.expired:
            self.median.add(seconds)
        if process in self.expired:
            self.expired.discard(process)
            return True
        return False

    def look(self, now: float) -> tuple[list[Any], float | None]:
        """Those whose time is up, each once, and when the next one's is."""
        seconds = self.seconds()
        late: list[Any] = []
        if seconds is None:
            return late, None
        for process in self.running:
            if now < process.begun + seconds:
                break
            late.append(process)
        for process in late:
            del self.running[process]
            self.expired.add(process)
        return late, next((process.begun + seconds for process in self.running), None)


class Delay:
    """--delay DURATION between two starts; with `auto` after it, a third longer after each failure, a tenth shorter after
    each success.
    """

    def __init__(self, seconds: float, auto: bool = False) -> None:
        self.seconds, self.auto = seconds, auto
        self.last: float | None = None

    @classmethod
    def parse(cls, text: str) -> Delay | None:
        """What --delay says; None: nothing.

        Raises:
            ValueError: it is no duration.
        """
        try:
            seconds = amounts.duration(text.removesuffix(AUTO))
        except ValueError as e:
            raise ValueError(f"--delay {text}: {e}") from None
        return cls(seconds, text.endswith(AUTO)) if seconds else None

    def may_start(self, now: float) -> bool | float:
        if self.last is None or now >= self.last + self.seconds:
            return True
        return self.last + self.seconds

    def started(self, now: float) -> None:
        self.last = now

    def ended(self, well: bool) -> None:
        if self.auto:
            self.seconds = max(LEAST_DELAY, self.seconds * (0.9 if well else 1.3))


class Load:
    """--load MAX: nothing starts while that many processes, or more, run or wait for the disk just now.

    Args:
        most: of them.
        running: how many there are, but for this one.
    """

    def __init__(self, most: float, running: Callable[[], float]) -> None:
        self.most, self.running = most, running

    @classmethod
    def parse(cls, text: str, cpus: int) -> Load:
        """What --load says.

        Raises:
            ValueError: it is no number.
        """
        try:
            most = amounts.of_cpus(text, cpus)
        except ValueError as e:
            raise ValueError(f"--load {text}: {e}") from None
        return cls(max(most, 0.01), running_processes)

    def may_start(self, now: float) -> bool | float:
        return self.running() < self.most or now + LOAD_SECONDS


class FreeMemory:
    """--memfree SIZE: nothing starts while less memory than that is free; with less than half of it free, the youngest job is
    ended, to be run again later.  A job that runs alone is left alone: it could not have more.

    Args:
        least: bytes.
        free: how many there are.
    """

    def __init__(self, least: int, free: Callable[[], int]) -> None:
        self.least, self.free = least, free
        self.running: dict[Any, None] = {}  # in the order they have begun
        self.ending: Any = None
        self.next_look = 0.0

    @classmethod
    def parse(cls, text: str) -> FreeMemory | None:
        """What --memfree says; None: nothing.

        Raises:
            ValueError: it is no size, or more than there is.
        """
        try:
            least = amounts.size(text)
        except ValueError as e:
            raise ValueError(f"--memfree {text}: {e}") from None
        most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if least > most:
            raise ValueError(f"--memfree {text}: this machine has {amounts.spoken_size(most)} in all: no job could ever start")
        return cls(least, free_memory) if least else None

    def may_start(self, now: float) -> bool | float:
        return self.free() >= self.least or now + MEMORY_SECONDS

    def started(self, process: Any) -> None:
        self.running[process] = None

    def ended(self, process: Any) -> bool:
        """Whether it was ended for the memory it took."""
        self.running.pop(process, None)
        if process is self.ending:
            self.ending = None
            return True
        return False

    def look(self, now: float) -> tuple[list[Any], float | None]:
        """The youngest, if it is to be ended, and when to look again: one at a time, as its end makes room."""
        if len(self.running) < 2 or self.ending is not None:
            return [], None
        if now < self.next_look:
            return [], self.next_look
        self.next_look = now + MEMORY_SECONDS
        if 2 * self.free() >= self.least:
            return [], self.next_look
        self.ending = next(reversed(self.running))
        return [self.ending], None


def running_processes() -> float:
    """That run or wait for the disk now, on the whole machine, but for this one."""
    n = -1
    with open("/proc/stat", "rb", buffering=0) as file:
        for line in file.read(1 << 20).splitlines():
            if line.startswith((b"procs_running ", b"procs_blocked ")):
                n += int(line.split()[1])
    return max(0, n)


def free_memory(meminfo: str = "/proc/meminfo", cgroup: Callable[[], int | None] | None = None) -> int:
    """Bytes that may be taken without swapping: the machine's, or what the cgroup leaves if that is less."""
    free = 0
    with open(meminfo, "rb", buffering=0) as file:
        for line in file.read(1 << 16).splitlines():
            if line.startswith(b"MemAvailable:"):
                free = int(line.split()[1]) << 10
    left = (cgroup or cgroup_memory)()
    return free if left is None else min(free, left)


def cgroup_memory(root: str = "/sys/fs/cgroup", self_file: str = "/proc/self/cgroup") -> int | None:
    """What this process's cgroup, or the tightest one above it, leaves; caches that can be dropped count as free."""
    left: list[int] = []
    with contextlib.suppress(OSError):
        for line in read(self_file).splitlines():
            _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
            if controllers and "memory" not in controllers.split(","):
                continue
            base = os.path.join(root, "memory") if controllers else root
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
            parts = [part for part in path.split("/") if part]
            for depth in range(len(parts) + 1):
                folder = os.path.join(base, *parts[:depth])
                with contextlib.suppress(OSError, ValueError):  # there is none, or "max"
                    most, used = (int(read(os.path.join(folder, name))) for name in names)
                    left.append(max(0, most - used + droppable(os.path.join(folder, "memory.stat"))))
    return min(left, default=None)


def droppable(stat: str) -> int:
    """Bytes of file caches that a cgroup would give up first."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in read(stat).splitlines():
            if line.startswith(("inactive_file ", "total_inactive_file ")):
                return int(line.split()[1])
    return 0


def read(path: str) -> str:
    with open(path, "rb", buffering=0) as file:
        return file.read(1 << 16).decode("ascii", "replace")
