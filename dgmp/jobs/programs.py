"""How the keeper starts a task's program, and learns of its end."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Collection, Sequence
from functools import lru_cache

from .._core.native import execute, reap

SHELL = "/bin/sh"
null = -1


class Failed(OSError):
    """The program cannot be started, now or later."""


def start(argv: Sequence[str], path: str, env: Sequence[bytes], more: Sequence[bytes], cwd: str, stdout: int, stderr: int,
          cores: Collection[int]) -> tuple[int, int]:
    """Its pid and pidfd.  It has a process group of its own, /dev/null as stdin, and no other descriptors of ours.

    Raises:
        Failed: and why, with a filename.
        OSError: nothing could be started; later perhaps.
    """
    global null
    if null < 0:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    program = find(argv[0], path, int(time.monotonic()))
    try:
        return execute(program, argv, env, more, cwd, null, stdout, stderr, cores or None, 0, 0, False, 0)
    except OSError as e:
        if e.errno == errno.ENOEXEC and e.filename == program:  # a script that does not say of what: as shells do
            return start([SHELL, program, *argv[1:]], path, env, more, cwd, stdout, stderr, cores)
        if e.filename is not None:
            raise Failed(e.errno, e.strerror, e.filename or argv[0]) from None
        raise


@lru_cache(256)
def find(name: str, path: str, second: int) -> str:
    """The file that is meant, in the folders of PATH; remembered for this second."""
    if "/" in name:
        return name
    for folder in path.split(os.pathsep):
        found = os.path.join(folder or ".", name)
        if os.access(found, os.X_OK) and not os.path.isdir(found):
            return found
    return name


def end_of(pidfd: int) -> tuple[int, float, int]:
    """Of a child that has ended: its exit code or minus its signal, its CPU seconds, the most bytes it had in memory."""
    ended = reap(pidfd)
    assert ended is not None
    code, signal, user, system, maxrss = ended
    return -signal or code, user + system, maxrss << 10
