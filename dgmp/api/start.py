"""Starting the coordinator's process: its boot message, its descriptors, its signals."""

from __future__ import annotations

import contextlib
import errno
import marshal
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

from ..ship import world
from . import interpreter

# -c and not -m: runpy would import the package's __main__ machinery first.  The boot message says where `dgmp` is.
COORDINATOR = """
import marshal, sys
try:
    with open(14, "rb") as file:
        boot = marshal.load(file)
    sys.path[:] = boot["import"] + sys.path[not sys.flags.safe_path:]
except (OSError, EOFError, LookupError, TypeError, ValueError):
    sys.exit(1)
from dgmp.coordinator.server import main
main(boot)
"""
FIRST_FD = 10  # the coordinator's descriptors are this one and those after it: see coordinator.server
ABOVE = 17  # ours are moved here first, lest the two ranges overlap


@contextlib.contextmanager
def stdio_taken() -> Iterator[None]:
    """No descriptor made meanwhile is 0, 1 or 2, where somebody may print to it: those that are closed are held."""
    held = [os.open(os.devnull, os.O_RDWR)]
    while held[-1] <= 2:
        held.append(os.open(os.devnull, os.O_RDWR))
    try:
        yield
    finally:
        for fd in held:
            os.close(fd)


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """No KeyboardInterrupt meanwhile: between a process and the place where its pid is kept."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def boot_message(now: world.World, options: dict[str, Any]) -> int:
    """A memfd with what an M takes over from this program, whose world is `now`, and `options`, which may say otherwise.

    It is no message on the socket, as it need not fit into the socket's buffer; and it is marshalled, as its reader knows
    only then where to import anything else from.  Any string survives that.
    """
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    message = {
        "client": os.getpid(), "pgrp": os.getpgrp(), "path": now["path"], "filters": now["filters"],
        "argv": world.strings(getattr(sys, "argv", [])),
        "import": import_path(now, here), "cores": sorted(os.sched_getaffinity(0)),
    } | world.start_up() | options
    fd = os.memfd_create("dgmp-boot")
    try:
        with open(fd, "wb", closefd=False) as file:
            marshal.dump(message, file)
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def import_path(now: world.World, here: str) -> list[str]:
    """Where the coordinator finds `dgmp`, which lies here, and what that needs: sys.path, but without "", which stands for a
    directory that may have been removed."""
    directory = now["cwd"][0] if now["cwd"] is not None else ""
    path = [x or directory for x in now["path"] if x or directory]
    return path if here in path else [*path, here]


def above(fd: int) -> int:
    """A copy, of a number from ABOVE on."""
    import fcntl

    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, ABOVE)
    except OSError as e:
        if e.errno == errno.EINVAL:  # so many are not allowed (ulimit -n)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from None
        raise


def start_coordinator(executable: str, descriptors: list[int]) -> int:
    """The process, in a group of its own, with these descriptors from FIRST_FD on.  Returns its pid."""
    with contextlib.ExitStack() as close:
        moves = []
        for i, fd in enumerate(descriptors):  # two steps, so that none is inheritable here even for a moment
            high = above(fd)
            close.callback(os.close, high)
            moves.append((os.POSIX_SPAWN_DUP2, high, FIRST_FD + i))
        return os.posix_spawnp(
            executable, [executable, *interpreter.options(), "-c", COORDINATOR], os.environ, file_actions=moves, setpgroup=0,
            setsigmask=[], setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGPIPE],
        )
