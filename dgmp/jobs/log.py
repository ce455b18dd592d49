"""daemon.log: what the daemon, its keeper and its node have to say.

All of them append to it, so whoever finds it too long moves its end aside, to daemon.log.1, and empties it for all.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from pathlib import Path

MOST = 8 << 20


def say(who: str, text: str) -> None:
    """A line of it.  If there is no room for it, it stays in the buffer of stderr until there is."""
    with contextlib.suppress(OSError):
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} dgmp {who}: {text}", file=sys.stderr, flush=True)


def bound(path: Path) -> None:
    """Keeps it, and the one that was before, at MOST bytes."""
    with contextlib.suppress(OSError):
        if os.stat(path).st_size > MOST:
            turn_over(path)


def turn_over(path: Path) -> None:
    with open(path, "rb") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        size = os.fstat(log.fileno()).st_size
        if size <= MOST:  # somebody else was faster
            return
        try:
            with contextlib.suppress(OSError), open(f"{path}.1", "wb") as before:  # if the disk is full it is gone
                before.write(os.pread(log.fileno(), MOST, size - MOST))
        finally:
            os.truncate(path, 0)
