"""dgmp: Go's GMP scheduler for Python, with operating-system processes for Ms."""

from __future__ import annotations

from .api import ending as _ending  # noqa: F401  (what ends at exit takes its turn here)
from .errors import (
    Cancelled,
    CannotAttach,
    ChanClosed,
    CoordinatorDied,
    Deadlock,
    DgmpError,
    EncodingError,
    HolderDied,
    LargeCaptureWarning,
    RemoteTraceback,
    RuntimeClosed,
    TooManyGs,
    WorkerDied,
)

TYPE_CHECKING = False  # typing itself takes a third of a command's start
if TYPE_CHECKING:
    from typing import Any

    from .api.chan import Chan, after, recv, select, send, tick
    from .api.context import Context
    from .api.functions import (
        cancelled,
        current,
        gather,
        go,
        goid,
        gomaxprocs,
        gosched,
        map,
        map_unordered,
        num_g,
        snapshot,
        spawn,
        starmap,
        stats,
    )
    from .api.future import Future
    from .api.group import Group
    from .api.netpoll import wait_readable, wait_writable
    from .api.preempt import nopreempt
    from .api.runtime import Runtime
    from .api.sync import Mutex, Once, RWMutex, Semaphore, WaitGroup
    from .api.syscall import blocking, lock_os_thread, unlock_os_thread
    from .api.task import Task, task
    from .api.timers import Timer, after_func, sleep

__version__ = "0.1.0"

__all__ = [
    "Cancelled", "CannotAttach", "Chan", "ChanClosed", "Context", "CoordinatorDied", "Deadlock", "DgmpError",
    "EncodingError", "Future", "Group", "HolderDied", "LargeCaptureWarning", "Mutex", "Once", "RWMutex", "RemoteTraceback",
    "Runtime", "RuntimeClosed", "Semaphore", "Task", "Timer", "TooManyGs", "WaitGroup", "WorkerDied", "after", "after_func",
    "blocking", "cancelled", "current", "gather", "go", "goid", "gomaxprocs", "gosched", "lock_os_thread", "map",
    "map_unordered", "nopreempt", "num_g", "recv", "select", "send", "sleep", "snapshot", "spawn", "starmap", "stats",
    "task", "tick", "unlock_os_thread", "wait_readable", "wait_writable",
]

# Imported when asked for: a program, and the dgmp command above all, starts sooner so.
_later = {
    "Chan": "chan", "Context": "context", "Future": "future", "Group": "group", "Mutex": "sync", "Once": "sync",
    "RWMutex": "sync", "Runtime": "runtime", "Semaphore": "sync", "Task": "task", "Timer": "timers", "WaitGroup": "sync",
    "after": "chan", "after_func": "timers", "blocking": "syscall", "cancelled": "functions", "current": "functions",
    "gather": "functions", "go": "functions", "goid": "functions", "gomaxprocs": "functions", "gosched": "functions",
    "lock_os_thread": "syscall", "map": "functions", "map_unordered": "functions", "nopreempt": "preempt",
    "num_g": "functions", "recv": "chan", "select": "chan", "send": "chan", "sleep": "timers", "snapshot": "functions",
    "spawn": "functions", "starmap": "functions", "stats": "functions", "task": "task", "tick": "chan",
    "unlock_os_thread": "syscall", "wait_readable": "netpoll", "wait_writable": "netpoll",
}


def __getattr__(name: str) -> Any:
    if name not in _later:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    globals()[name] = value = getattr(import_module(f".api.{_later[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_later})
