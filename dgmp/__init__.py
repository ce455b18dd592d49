"""dgmp: Go's GMP scheduler for Python, with operating-system processes for Ms."""

from typing import TYPE_CHECKING, Any

from .api.runtime import (
    Runtime,
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
from .errors import (
    Cancelled,
    CoordinatorDied,
    Deadlock,
    DgmpError,
    EncodingError,
    LargeCaptureWarning,
    RemoteTraceback,
    RuntimeClosed,
    TooManyGs,
    WorkerDied,
)

if TYPE_CHECKING:
    from .api.future import Future
    from .api.group import Group
    from .api.netpoll import wait_readable, wait_writable
    from .api.preempt import nopreempt
    from .api.syscall import blocking
    from .api.task import Task, task
    from .api.timers import Timer, after_func, sleep

__version__ = "0.1.0"

__all__ = [
    "Cancelled", "CoordinatorDied", "Deadlock", "DgmpError", "EncodingError", "Future", "Group", "LargeCaptureWarning",
    "RemoteTraceback", "Runtime", "RuntimeClosed", "Task", "Timer", "TooManyGs", "WorkerDied", "after_func", "blocking",
    "cancelled", "current", "gather", "go", "goid", "gomaxprocs", "gosched", "map", "map_unordered", "nopreempt", "num_g",
    "sleep", "snapshot", "spawn", "starmap", "stats", "task", "wait_readable", "wait_writable",
]

# Imported when asked for: a runtime starts sooner so.
_later = {
    "Future": "future", "Group": "group", "Task": "task", "Timer": "timers", "after_func": "timers", "blocking": "syscall",
    "nopreempt": "preempt", "sleep": "timers", "task": "task", "wait_readable": "netpoll", "wait_writable": "netpoll",
}


def __getattr__(name: str) -> Any:
    if name not in _later:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    globals()[name] = value = getattr(import_module(f".api.{_later[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_later})
