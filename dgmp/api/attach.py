"""Joining a node that others have booted (coordinator.sessions is the other end).  Called by api.runtime.

The program becomes a client of that node like the one that has booted it: with an inbox, a ring that every M steals from, and
caches of its own.  What its Gs find around them is told as that differs from the world in which the node was booted.
"""

from __future__ import annotations

import errno
import marshal
import os
import socket
from typing import NamedTuple

from .._core import KIND_CLIENT, View
from ..coordinator import sessions
from ..errors import CannotAttach
from ..ship import world

SECONDS = 10.0  # a coordinator that answers later than that has been stopped
START = "`dgmp up` starts one"


class Joined(NamedTuple):
    """A place in a node."""

    connection: socket.socket
    view: View
    event: int
    alarm: int
    base: world.World


def place_of(attach: object) -> str:
    """The socket that Runtime(attach=...) names.

    Raises:
        TypeError: it names none.
    """
    if attach is True:
        return sessions.default_path()
    if isinstance(attach, (str, os.PathLike)):
        return os.path.abspath(os.fsdecode(attach))
    raise TypeError(f"attach must be True, or the path of a node's socket, not {attach!r}")


def join(path: str, output: int) -> Joined:
    """Attaches to the node that listens there.

    Args:
        path: its socket.
        output: the Ms' end of this program's output channel.

    Raises:
        CannotAttach: there is none, or it does not take this program.
    """
    try:
        connection = sessions.connect(path, SECONDS)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        raise CannotAttach(f"no node listens at {path}: {START}") from None
    except OSError as e:
        raise CannotAttach(f"cannot attach to the node at {path}: {e.strerror or e}") from e
    fds: list[int] = []
    try:
        sessions.send(connection, {"protocol": sessions.PROTOCOL, "attach": sessions.identity()}, [output])
        answer, fds = sessions.receive(connection, 4)
        if len(fds) != 4:
            raise CannotAttach(f"the node at {path} does not take this program: "
                               f"{answer.get('refused', 'it has ended, or speaks another protocol')}")
        return joined(connection, answer, fds)
    except BaseException as e:
        for fd in fds:
            os.close(fd)
        connection.close()
        if isinstance(e, (OSError, ValueError)):
            what = "it does not answer" if isinstance(e, TimeoutError) else str(e)
            raise CannotAttach(f"cannot attach to the node at {path}: {what}") from e
        raise


def joined(connection: socket.socket, answer: dict[str, int], fds: list[int]) -> Joined:
    """What the node has given us, mapped."""
    segment, event, alarm, base = fds
    known: world.World = marshal.loads(os.pread(base, os.fstat(base).st_size, 0))
    view = View(segment, answer["slot"], event, alarm)
    if not view.attach(KIND_CLIENT, answer["pid"], answer["client"]):
        raise OSError(errno.EBUSY, "another process has our place there")
    connection.setblocking(False)
    os.close(segment)
    os.close(base)
    fds.clear()
    return Joined(connection, view, event, alarm, known)
