"""Programs that attach to a node that others have booted: a session for each, in the coordinator.

The node listens on a Unix socket (SOCK_SEQPACKET, 0600, in a folder of its user's alone), which whoever boots it has made with
`listening`: api.runtime, for Runtime(listen=...).  A packet is a msgpack map; one that begins a connection has the protocol's
number in it.  Both ends look by SO_PEERCRED whether the other is of the same user: one uid is one trust domain.

    from a program        {"protocol": 1, "attach": identity()}, and its end of its output channel
    back                  {"client": number, "slot": index of its process slot, "pid": its pid, as the node knows it}, and the
                          segment, the eventfd that wakes the coordinator, sysmon's alarm, and a file with the world at boot
    or                    {"refused": why}
    then, from a program  {"close": whether it still reads something in place}, or nothing: it has ended
    back                  {"fatal": text} or {"broken": how an M died}, as the node ends; end of file: it has left, or the node
                          has gone
    from an M             {"protocol": 1, "output": number of a client}
    back                  {}, and that client's output channel, or {"refused": why}

A program has left when it says so, when its end of the socket is closed, or when its pidfd says that it has died.  Then its Gs
are cancelled, and what it held is free (state).  One that still reads large results in place keeps its slot, and these, until
its socket is closed.  Called by server; api.attach is the other end, runtime.clients an M's.
"""

from __future__ import annotations

import array
import contextlib
import errno
import marshal
import os
import socket
import stat
import struct
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import __version__

if TYPE_CHECKING:
    from .._core import View

PROTOCOL = 1
MOST_CLIENTS = 30  # beside the one that has booted the node
FIRST = 2  # slots of clients from max_ms on: that one's, and the coordinator's
BACKLOG = 64
PACKET = 1 << 16
CREDENTIALS = struct.Struct("3i")
LONGEST_PATH = 107  # sun_path


def default_path() -> str:
    """Where the node of this user's daemon listens."""
    uid = os.getuid()
    folder = os.environ.get("DGMP_RUNTIME_DIR", "")
    if not folder and (users := os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"):
        folder = os.path.join(users, "dgmp") if os.path.isdir(users) else f"/tmp/dgmp-{uid}"
    return os.path.join(os.path.abspath(folder), "node.sock")


def identity() -> dict[str, Any]:
    """What a program must have in common with a node to be its client: what travels between them is made by both."""
    return {"dgmp": __version__, "python": str(sys.implementation.cache_tag), "prefix": sys.prefix}


def difference(theirs: Any) -> str:
    """In what a program's identity differs from ours, for its user; "": in nothing."""
    ours = identity()
    if not isinstance(theirs, dict):
        return "it does not say what it is"
    names = {"dgmp": "dgmp", "python": "Python", "prefix": "the Python installation"}
    return ", ".join(f"{names[name]} {ours[name]} there and {theirs.get(name)} here" for name in ours
                     if ours[name] != theirs.get(name))


def of_another(node: int, program: int) -> str:
    return f"it is a node of uid {node}, and this program has {program}"


def peer(connection: socket.socket) -> tuple[int, int]:
    """The pid and uid of the process at the other end, as it connected or began to listen."""
    pid, uid, _ = CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
    return pid, uid


@contextlib.contextmanager
def at(path: str) -> Any:
    """The path in the form that a socket takes: one that is too long goes by way of its folder."""
    if len(os.fsencode(path)) <= LONGEST_PATH:
        yield path
        return
    folder, name = os.path.split(path)
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def connect(path: str, seconds: float) -> socket.socket:
    """A connection to the node there, of which nothing is waited for longer than so many seconds.

    Raises:
        OSError: there is none, or (PermissionError) it is another user's.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.settimeout(seconds)
        with at(path) as address:
            connection.connect(address)
        if peer(connection)[1] != os.geteuid():
            raise PermissionError(errno.EPERM, of_another(peer(connection)[1], os.geteuid()))
    except BaseException:
        connection.close()
        raise
    return connection


def listening(path: str) -> socket.socket:
    """The socket on which a node listens.  A file that a dead one has left there is replaced.

    Raises:
        OSError: a node listens there already, or the folder is missing, or others can write to it.
    """
    folder = os.stat(os.path.dirname(path) or ".")
    if folder.st_uid != os.geteuid() or stat.S_IMODE(folder.st_mode) & 0o022:
        raise PermissionError(errno.EPERM, "a node listens only where nobody else can put a file: the folder must be this "
                                           "user's, and others must not write to it", os.path.dirname(path))
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "it is no socket", path)
        try:
            connect(path, 1.0).close()
        except ConnectionRefusedError:
            os.unlink(path)
        else:
            raise OSError(errno.EADDRINUSE, "a node listens there already", path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        os.fchmod(listener.fileno(), 0o600)  # before there is a file
        with at(path) as address:
            listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def remove(path: str, inode: int) -> None:
    """The node that has listened there has ended; another may listen there by now."""
    with contextlib.suppress(OSError):
        if os.lstat(path).st_ino == inode:
            os.unlink(path)


def receive(connection: socket.socket, most: int) -> tuple[dict[str, Any], list[int]]:
    """A packet, and descriptors that came with it; {} is what is none of ours, or the end.  Raises OSError."""
    import msgpack

    data, fds, _, _ = socket.recv_fds(connection, PACKET, most, socket.MSG_CMSG_CLOEXEC)
    try:
        message = msgpack.unpackb(data) if data else {}
    except Exception:  # msgpack has many
        message = {}
    return message if isinstance(message, dict) else {}, fds


def send(connection: socket.socket, message: dict[str, Any], fds: list[int]) -> None:
    """Raises OSError."""
    import msgpack

    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    connection.sendmsg([msgpack.packb(message)], rights, socket.MSG_NOSIGNAL)


class Session:
    """A program that has attached."""

    def __init__(self, client: int, slot: int, pidfd: int, connection: socket.socket, output: int) -> None:
        self.client, self.slot, self.pidfd, self.connection, self.output = client, slot, pidfd, connection, output


class Sessions:
    """All of a node.

    Args:
        listener: the socket.
        view: the coordinator's.
        base: the world at boot, from which clients say how theirs differ.
        descriptors: what a client needs of the node: see above.
        watch, unwatch: a descriptor, and what to call when it is readable.
        act: takes events for the state machine.
        is_busy: whether a slot is still to be cleared after another.
    """

    def __init__(self, listener: socket.socket, view: View, base: dict[str, Any], descriptors: list[int],
                 watch: Callable[[int, Callable[[], object]], None], unwatch: Callable[[int], None],
                 act: Callable[[list[tuple[Any, ...]]], None], is_busy: Callable[[int], bool]) -> None:
        self.listener, self.view, self.descriptors = listener, view, descriptors
        self.watch, self.unwatch, self.act, self.is_busy = watch, unwatch, act, is_busy
        self.sessions: dict[int, Session] = {}  # by the numbers of clients
        self.strangers: dict[int, socket.socket] = {}  # who has connected, and not said for what
        self.serial = 0
        self.spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)  # given up to turn somebody away
        self.base = os.memfd_create("dgmp-base", os.MFD_CLOEXEC)
        os.pwrite(self.base, marshal.dumps(base), 0)
        watch(listener.fileno(), self.on_connect)

    def descriptors_of_ours(self) -> list[int]:
        """What a child that is no coordinator must not keep."""
        sessions = list(self.sessions.values())
        return [self.listener.fileno(), self.spare, self.base, *self.strangers,
                *(fd for x in sessions for fd in (x.pidfd, x.connection.fileno(), x.output))]

    # ------------------------------------------------------------------ coming
    def on_connect(self) -> None:
        try:
            connection, _ = self.listener.accept()
        except OSError as e:
            if e.errno in (errno.EMFILE, errno.ENFILE):
                self.turn_away()
            return
        connection.setblocking(False)
        pid, uid = peer(connection)
        if uid != os.geteuid():
            refuse(connection, of_another(os.geteuid(), uid))
            return
        fd = connection.fileno()
        self.strangers[fd] = connection
        self.watch(fd, lambda: self.on_hello(fd, pid))

    def turn_away(self) -> None:
        """There is no descriptor for another: whoever waits at the door would keep us awake."""
        os.close(self.spare)
        with contextlib.suppress(OSError):
            refuse(self.listener.accept()[0], "the node has no descriptors left")
        self.spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def on_hello(self, fd: int, pid: int) -> None:
        connection = self.strangers.pop(fd)
        self.unwatch(fd)
        try:
            message, fds = receive(connection, 4)
        except OSError:
            connection.close()
            return
        try:
            if message.get("protocol") != PROTOCOL:
                refuse(connection, f"it speaks version {PROTOCOL} of the protocol")
            elif "output" in message:
                self.give_output(connection, message["output"])
            elif len(fds) != 1:
                refuse(connection, "an output channel comes with a request to attach")
            elif not self.attach(connection, message.get("attach"), pid, fds[0]):
                connection.close()
            else:
                fds.clear()
        finally:
            for fd in fds:
                os.close(fd)

    def attach(self, connection: socket.socket, theirs: Any, pid: int, output: int) -> bool:
        slot = self.free_slot()
        if other := difference(theirs):
            return refuse(connection, f"it must run the same: {other}")
        if slot is None:
            return refuse(connection, f"{MOST_CLIENTS} programs have attached already, which is as many as can")
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as e:  # it has died; or it is in another pid namespace, and has no number here
            return refuse(connection, f"its process cannot be watched: {e.strerror}")
        self.serial = self.serial % 0xffffff + 1
        client = self.serial << 8 | (slot - self.view.max_ms)
        session = self.sessions[client] = Session(client, slot, pidfd, connection, output)
        self.view.admit(slot, pid, client)
        self.watch(connection.fileno(), lambda: self.on_message(session))
        self.watch(pidfd, lambda: self.leave(session))
        try:
            send(connection, {"client": client, "slot": slot, "pid": pid}, [*self.descriptors, self.base])
        except OSError:
            self.leave(session)
        return True

    def free_slot(self) -> int | None:
        taken = {session.slot for session in self.sessions.values()}
        slots = range(self.view.max_ms + FIRST, self.view.max_ms + FIRST + MOST_CLIENTS)
        return next((x for x in slots if x not in taken and not self.is_busy(x)), None)

    def give_output(self, connection: socket.socket, client: Any) -> None:
        session = self.sessions.get(client)
        if session is None:
            refuse(connection, "that client has left")
            return
        with connection, contextlib.suppress(OSError):
            send(connection, {}, [session.output])

    # ------------------------------------------------------------------ going
    def on_message(self, session: Session) -> None:
        try:
            message, fds = receive(session.connection, 1)
        except BlockingIOError:
            return
        except OSError:
            message, fds = {}, []
        for fd in fds:
            os.close(fd)
        if message.get("close") is True:
            self.act([("client_quits", session.client)])
        else:
            self.leave(session)

    def leave(self, session: Session) -> None:
        """It has gone, or keeps nothing of the node's any more; it learns that when all that it held is free."""
        del self.sessions[session.client]
        for fd in (session.pidfd, session.connection.fileno()):
            self.unwatch(fd)
        os.close(session.pidfd)
        os.close(session.output)
        self.act([("client_left", session.client, session.slot)])
        session.connection.close()

    def end(self, last_words: dict[str, Any]) -> None:
        """The node ends."""
        for session in self.sessions.values():
            with contextlib.suppress(OSError):
                send(session.connection, last_words, [])


def refuse(connection: socket.socket, why: str) -> bool:
    with connection, contextlib.suppress(OSError):
        send(connection, {"refused": why}, [])
    return False
