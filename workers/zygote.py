"""The zygote: a single-threaded process with everything imported that an M needs, which forks Ms in about 1 ms (newm).

It says that it is READY, reads M numbers from its socket and answers (m, pid), or (m, -errno) when it cannot fork.  It
forks twice and lets the middle process end, so that the Ms become children of the coordinator, the nearest subreaper:
they outlive the zygote and die with the coordinator.  When that dies, however it does, its socket tells the zygote (which is
woken first, if it was stopped), and what is left of the node, such as processes that Gs have started, ends with the zygote.
Always fork, never raw clone: a robust mutex would not be recovered after a clone.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
from typing import Any, NoReturn

from dgmp import _core
from dgmp.coordinator.server import FROM_ZYGOTE, SHOWER_FD, TO_ZYGOTE
from dgmp.coordinator.state import FAILED
from dgmp.runtime import locks, undo

from . import m as worker

READY = -1


def fork(control: socket.socket, m: int) -> int | None:
    """None, and the coordinator knows: there is no room for another process now."""
    try:
        return os.fork()
    except OSError as e:
        tell(control, m, -(e.errno or 1))
        return None


def tell(control: socket.socket, m: int, pid: int) -> None:
    with contextlib.suppress(OSError):  # the coordinator has died: next_m says so
        control.send(FROM_ZYGOTE.pack(m, pid))


def next_m(control: socket.socket) -> int | None:
    """Which M to make; None: the coordinator has died."""
    try:
        data = control.recv(4096)
    except OSError:
        return None
    return int(TO_ZYGOTE.unpack(data)[0]) if data else None


def end_of_node(coordinator: int) -> NoReturn:
    """The coordinator has died: all of its group ends.  Nobody else can have that number while we are in it."""
    if os.getpgrp() == coordinator:
        os.killpg(coordinator, signal.SIGKILL)
    os._exit(0)


def zygote_main(control: socket.socket, coordinator: int, stdio: tuple[int, int, int], boot: dict[str, Any]) -> None:
    """Serves until the coordinator is gone; never returns."""
    _core.when_parent_dies(signal.SIGCONT)
    signal.signal(signal.SIGINT, worker.ignore)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # the coordinator's handler is not for us
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # an M is in the background: `stty tostop` must not stop it
    locks.install()  # here, so that the modules which are imported below have them
    undo.install()
    tell(control, READY, 0)
    warm = False
    while (m := next_m(control)) is not None:
        middle = fork(control, m)
        if middle == 0:
            try:
                pid = fork(control, m)
                if pid:
                    tell(control, m, pid)
                elif pid == 0:
                    control.close()
                    try:
                        worker.m_main(m, coordinator, stdio, boot)
                    finally:  # it never returns, but where user code has taken Python's builtins away
                        os._exit(FAILED)
            finally:
                os._exit(0)
        if middle is None:
            continue
        os.waitpid(middle, 0)
        if m == 0 and boot["foreground"]:
            os.close(SHOWER_FD)  # as the coordinator does
        if not warm:  # after m0, whom nobody should keep waiting: what is imported here is shared by the others
            with contextlib.suppress(Exception):  # a module of the user's may have the name of one that they need
                import _posixsubprocess  # noqa: F401

                import dgmp.api.functions  # noqa: F401
                import dgmp.ship.dynamic  # noqa: F401  # cloudpickle
                import dgmp.ship.failure  # noqa: F401
                if "logging" in sys.modules:
                    import dgmp.runtime.logs  # noqa: F401

            warm = True
            gc.collect()
            gc.freeze()
    end_of_node(coordinator)
