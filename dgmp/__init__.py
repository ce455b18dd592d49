"""dgmp: Go's GMP scheduler for Python, with operating-system processes for Ms."""

from .api.future import Future
from .api.runtime import (
    Runtime,
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
from .api.task import Task, task
from .errors import (
    CoordinatorDied,
    DgmpError,
    EncodingError,
    LargeCaptureWarning,
    RemoteTraceback,
    RuntimeClosed,
    TooManyGs,
    WorkerDied,
)

__version__ = "0.1.0"

__all__ = [
    "CoordinatorDied", "DgmpError", "EncodingError", "Future", "LargeCaptureWarning", "RemoteTraceback", "Runtime",
    "RuntimeClosed", "Task", "TooManyGs", "WorkerDied", "current", "gather", "go", "goid", "gomaxprocs", "gosched", "map",
    "map_unordered", "num_g", "spawn", "starmap", "stats", "task",
]
