"""One line about the scheduler, in Go's format (GODEBUG=schedtrace)."""

from __future__ import annotations

from typing import Any


def schedtrace_line(stats: dict[str, Any], ms: int) -> str:
    """The line for a snapshot taken `ms` milliseconds after boot.

    Example:
        >>> schedtrace_line({"gomaxprocs": 2, "idleprocs": 0, "threads": 3, "spinningthreads": 0, "needspinning": 0,
        ...                  "idlethreads": 1, "runqueue": 0, "runq": [4, 7]}, 1004)
        'SCHED 1004ms: gomaxprocs=2 idleprocs=0 threads=3 spinningthreads=0 needspinning=0 idlethreads=1 runqueue=0 [4 7]'
    """
    names = ("gomaxprocs", "idleprocs", "threads", "spinningthreads", "needspinning", "idlethreads", "runqueue")
    fields = " ".join(f"{name}={stats[name]}" for name in names)
    return f"SCHED {ms}ms: {fields} [{' '.join(map(str, stats['runq']))}]"
