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
    spawn,
    starmap,
    stats,
)
from .errors import (
    Cancelled,
    CoordinatorDied,
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
    from .api.syscall import blocking, lock_os_thread, unlock_os_thread
    from .api.task import Task, task

__version__ = "0.1.0"

__all__ = [
    "Cancelled", "CoordinatorDied", "DgmpError", "EncodingError", "Future", "Group", "LargeCaptureWarning",
    "RemoteTraceback", "Runtime", "RuntimeClosed", "Task", "TooManyGs", "WorkerDied", "blocking", "cancelled", "current",
    "gather", "go", "goid", "gomaxprocs", "gosched", "lock_os_thread", "map", "map_unordered", "num_g", "spawn", "starmap",
    "stats", "task", "unlock_os_thread",
]

# Imported when asked for: a runtime starts sooner so.
_later = {"Future": "future", "Group": "group", "Task": "task", "blocking": "syscall", "lock_os_thread": "syscall",
          "task": "task", "unlock_os_thread": "syscall"}


def __getattr__(name: str) -> Any:
    if name not in _later:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    globals()[name] = value = getattr(import_module(f".api.{_later[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_later})
