"""The C11 core: what must be atomic.  core.h has the layout of the shared segment; each C file is one concept.

`create` makes a segment and `View` is one process's view of it; every method of a View is one C call that runs no
Python between taking a G or a P and having published where it went.  The core knows no policy.
"""

from .native import (
    KIND_CLIENT,
    KIND_M,
    RESULT_CANCELLED,
    RESULT_ERROR,
    RESULT_NO_MEMORY,
    RESULT_NONE,
    RESULT_VALUE,
    RESULT_WORKER_DIED,
    WHY_CHAN_RECV,
    WHY_CHAN_SEND,
    WHY_FUTURE,
    WHY_GOSCHED,
    WHY_IO,
    WHY_LOCK,
    WHY_NONE,
    WHY_OTHER,
    WHY_PREEMPTED,
    WHY_SELECT,
    WHY_SEMA,
    WHY_SLEEP,
    Block,
    View,
    alarm,
    become_subreaper,
    create,
    die_with_parent,
    inotify,
    inotify_watch,
    receive,
)

__all__ = [
    "KIND_CLIENT", "KIND_M", "RESULT_CANCELLED", "RESULT_ERROR", "RESULT_NONE", "RESULT_NO_MEMORY", "RESULT_VALUE",
    "RESULT_WORKER_DIED",
    "WHY_CHAN_RECV", "WHY_CHAN_SEND", "WHY_FUTURE", "WHY_GOSCHED", "WHY_IO", "WHY_LOCK",
    "WHY_NONE", "WHY_OTHER", "WHY_PREEMPTED", "WHY_SELECT", "WHY_SEMA", "WHY_SLEEP",
    "Block", "View", "alarm", "become_subreaper", "create", "die_with_parent", "inotify", "inotify_watch", "receive",
]
