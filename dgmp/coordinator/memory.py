"""How much memory the Ms take, where a Runtime has a memory_limit.  Called by state at a pace of its own.

What counts is an M's own anonymous memory: not the segment, where arguments and results lie, not files, not what it shares
with the zygote it was forked from.  /proc/PID/statm tells that in ten microseconds, but for the last: of that, smaps_rollup
tells once, when the M is first seen above the limit (it takes ten milliseconds for a gigabyte).  What is shared becomes less
as it is written to, so that an M is found a little late, never early.

Above the soft limit an M is asked to end between two Gs (_core/retire.c).  Above the hard one it is killed, if it runs a G,
or was asked before.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from .._core import View

LOOK_NS = 20_000_000
PAGE = os.sysconf("SC_PAGE_SIZE")


class Watch:
    """Decides, at each look, which Ms are to end.

    Args:
        view: the coordinator's.
        soft, hard: the limits, in bytes.
        resident: pid -> its anonymous memory, in bytes; 0: it is gone.
        own: pid -> its part of that, as smaps_rollup says; None: that cannot be known.
    """

    def __init__(self, view: View, soft: int, hard: int, resident: Callable[[int], int],
                 own: Callable[[int], int | None]) -> None:
        self.view, self.soft, self.hard = view, soft, hard
        self.resident, self.own = resident, own
        self.shared: dict[int, int] = {}  # pid -> what it shares with the zygote
        self.asked: set[int] = set()  # pids
        self.next_look = 0

    def look(self, now: int, ms: dict[int, int]) -> list[tuple[int, str]]:
        """The Ms to kill, and why; those to retire have been asked.

        Args:
            ms: m -> pid of those to look at.
        """
        self.next_look = now + LOOK_NS
        kill = []
        for m, pid in ms.items():
            used = self.resident(pid)
            if used <= self.soft:
                continue
            if pid not in self.shared:
                own = self.own(pid)
                self.shared[pid] = 0 if own is None else max(0, self.resident(pid) - own)
            used -= self.shared[pid]
            if used > self.hard and (pid in self.asked or self.view.running(m) is not None):
                kill.append((m, f"was killed by dgmp, as it took {size(used)} of memory, more than the hard limit of "
                                f"{size(self.hard)}; let it take less at once, or raise memory_limit"))
            elif used > self.soft:
                self.asked.add(pid)
                self.view.retire(m)
        pids = set(ms.values())
        self.shared = {pid: n for pid, n in self.shared.items() if pid in pids}
        self.asked &= pids
        return kill


def size(n: int) -> str:
    """In words."""
    return f"{n / 1e9:.2f} GB" if n >= 1_000_000_000 else f"{n / 1e6:.1f} MB"


def resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            _, all_, shared = file.read().split()[:3]
    except (OSError, ValueError):  # it has died
        return 0
    return (int(all_) - int(shared)) * PAGE


def own(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            fields = dict(line.split(b":") for line in file if line.endswith(b"kB\n"))
        return int(fields[b"Pss_Anon"].split()[0]) << 10
    except (OSError, KeyError, ValueError, IndexError):  # it has died; or an old kernel
        return None
