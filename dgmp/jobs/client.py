"""What talks to the daemon: the verbs, and programs that submit jobs.

Example:
    with Client() as client:
        job = client.submit(["make", "-C", "/src"], cwd="/src", env=dict(os.environ))
        client.wait([select(job)])

A call raises NoDaemon if none runs, or if it dies before it has answered; ProtocolError, with its code, if it refuses.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from . import folders
from .protocol import BAD_VERSION, MAX_MESSAGE, VERSION, NoDaemon, ProtocolError, Select, bad, decode, encode
from .ranges import Ranges, ranges_of

NO_DAEMON = "no dgmp daemon for this user: start it with `dgmp up`"


def select(job: int | str, tasks: Iterable[int] | None = None) -> Select:
    """One job by its id, or "all" or "last"; perhaps some tasks of it."""
    return Select(job if isinstance(job, str) else (job, job), None if tasks is None else ranges_of(tasks))


class Client:
    """A connection to this user's daemon.

    Args:
        folder: the runtime folder (default: this user's).
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or folders.runtime_folder()
        self.ids = itertools.count(1)
        self.replies: dict[int, dict[str, Any]] = {}  # that came while another was awaited
        self.events: list[tuple[int, str, dict[str, Any]]] = []
        self.pid = find_daemon(self.folder)
        import zmq

        from .context import new_context

        self.context = new_context()
        try:
            self.pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:  # it has died, and a child of its had the socket a moment longer
            raise NoDaemon(NO_DAEMON) from None
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 200  # a last `forget`, say
        self.socket.connect(f"ipc://{folders.socket_path(self.folder, folders.SOCKET)}")
        self.poller = zmq.Poller()
        self.poller.register(self.socket, zmq.POLLIN)
        self.poller.register(self.pidfd, zmq.POLLIN)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; what was submitted goes on."""
        if self.pidfd >= 0:
            self.socket.close()
            self.context.term()
            os.close(self.pidfd)
            self.pidfd = -1

    # ------------------------------------------------------------------ verbs
    def hello(self) -> dict[str, Any]:
        """The daemon's version, pid, start time and folders."""
        from .. import __version__

        return self.call("hello", dgmp=__version__, pid=os.getpid())

    def submit(self, argv: Sequence[str], **spec: Any) -> int:
        """Submits a job; its other fields are those of protocol.JobSpec.  Returns its id."""
        job: int = self.call("submit", argv=list(argv), **spec)["job"]
        return job

    def entries(self, file: BinaryIO, name: str = "the file") -> tuple[int, int]:
        """Sends the lines of a file, for the `entries` of one job; their id, and how many lines there are."""
        from .entries import messages, packed

        sent: dict[str, Any] = {}
        try:
            for blocks in messages(packed(file, name)):
                sent = self.call("entries", entries=sent.get("entries"), blocks=blocks)
        except (ProtocolError, OSError, KeyboardInterrupt):
            if sent:
                self.drop_entries(sent["entries"])
            raise
        if not sent:
            raise bad(f"there are no lines in {name}")
        return sent["entries"], sent["lines"]

    def drop_entries(self, entries: int) -> None:
        """Has the daemon drop lines that wait for a job, as none comes; those of a job stay."""
        self.send("drop_entries", {"entries": entries})

    def submit_function(self, target: str, args: Sequence[str] = (), **spec: Any) -> int:
        """Submits module:function with these arguments (dgmp.jobs.call) to this Python."""
        return self.submit([sys.executable, "-m", "dgmp.jobs.call", target, *args], **{"name": target, **spec})

    def jobs(self, select: Sequence[Select] | None = None, states: Sequence[str] | None = None, name: str | None = None,
             limit: int = 100, before: int | None = None) -> dict[str, Any]:
        """A page of jobs, newest first: {"jobs", "more", "counts"}."""
        return self.call("list", select=messages(select), states=states, name=name, limit=limit, before=before)

    def show(self, select: Sequence[Select]) -> list[dict[str, Any]]:
        """All that is known of jobs."""
        jobs: list[dict[str, Any]] = self.call("show", select=messages(select))["jobs"]
        return jobs

    def tasks(self, job: int, tasks: Ranges | None = None, states: Sequence[str] | None = None, after: int | None = None,
              limit: int = 1000, output: bool = False) -> dict[str, Any]:
        """A page of the tasks of a job that have started, perhaps with what logs() says, and ranges of those that have not."""
        ranges = None if tasks is None else tasks.pack()
        return self.call("tasks", job=job, tasks=ranges, states=states, after=after, limit=limit, output=output or None)

    def logs(self, job: int, task: int = 0) -> dict[str, Any]:
        """Where the output of a task lies: {"state", "attempt", "stdout", "stderr"}; read() reads a piece."""
        return self.call("logs", job=job, task=task)

    def wait(self, select: Sequence[Select], timeout: float | None = None,
             states: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The jobs, or those in these states, once all have ended; TimeoutError."""
        jobs: list[dict[str, Any]] = self.call("wait", timeout, select=messages(select), states=states)["jobs"]
        return jobs

    def cancel(self, select: Sequence[Select]) -> dict[str, int]:
        """Cancels jobs or tasks: {"cancelled", "ending"}."""
        return self.call("cancel", select=messages(select))

    def retry(self, select: Sequence[Select], states: Sequence[str] = ("failed",)) -> int:
        """Lets the tasks in these states wait again; returns how many."""
        retried: int = self.call("retry", select=messages(select), states=list(states))["retried"]
        return retried

    def forget_jobs(self, select: Sequence[Select], states: Sequence[str] | None = None,
                    before: float | None = None) -> dict[str, Any]:
        """Forgets jobs that have ended, with their output; perhaps only those in these states, or that ended before a time."""
        return self.call("forget_jobs", select=messages(select), states=states, before=before)

    def status(self) -> dict[str, Any]:
        """The daemon, and what it has to do."""
        return self.call("status")

    def shutdown(self, now: bool = False, timeout: float | None = None) -> None:
        """Ends the daemon, and returns when it has ended; TimeoutError."""
        self.call("shutdown", timeout, now=now)
        import select as selecting

        ended = selecting.poll()
        ended.register(self.pidfd, selecting.POLLIN)
        if not ended.poll(None if timeout is None else timeout * 1000):
            raise TimeoutError("the daemon has not ended yet")

    def subscribe(self, select: Sequence[Select] | None = None, tasks: bool = False) -> Subscription:
        """The jobs as they are, and what changes of them from now on."""
        number = self.send("subscribe", {"select": messages(select), "tasks": tasks})
        return Subscription(self, number, self.reply(number, None)["jobs"])

    # ------------------------------------------------------------------ messages
    def call(self, verb: str, within: float | None = None, /, **body: Any) -> dict[str, Any]:
        """One request and its reply, within so many seconds; fields that are None are not sent."""
        return self.reply(self.send(verb, body), within)

    def send(self, verb: str, body: dict[str, Any]) -> int:
        number = next(self.ids)
        fields = {k: v for k, v in body.items() if v is not None}
        data = encode({"v": VERSION, "id": number, "verb": verb, "body": fields})
        if len(data) > MAX_MESSAGE:  # the daemon would end the connection, and never answer
            raise bad(f"this {verb} is a message of {len(data)} bytes, and the daemon takes at most {MAX_MESSAGE}")
        self.socket.send(data)
        return number

    def reply(self, number: int, timeout: float | None) -> dict[str, Any]:
        try:
            self.receive_until(lambda: number in self.replies, timeout)
        except (TimeoutError, KeyboardInterrupt):
            self.send("forget", {"id": number})
            raise
        message = self.replies.pop(number)
        if "error" in message:
            raise ProtocolError(message["error"]["code"], message["error"]["text"])
        ok: dict[str, Any] = message["ok"]
        return ok

    def receive_until(self, done: Callable[[], bool], timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not done():
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = dict(self.poller.poll(None if left is None else int(left * 1000) + 1))
            if self.socket in ready:
                self.take(decode(self.socket.recv()))
            elif self.pidfd in ready:
                raise NoDaemon("the dgmp daemon has ended before it answered: `dgmp up`, and `dgmp jobs` says what it knows")
            elif left == 0.0 and not ready:
                raise TimeoutError("the daemon has not answered yet")

    def take(self, message: dict[str, Any]) -> None:
        number = message.get("id")
        if not isinstance(number, int):
            if message.get("error", {}).get("code") == BAD_VERSION:
                raise ProtocolError(BAD_VERSION, message["error"]["text"])
        elif "event" in message:
            self.events.append((number, message["event"], message["body"]))
        else:
            self.replies[number] = message


class Subscription:
    """What `subscribe` gives.

    Attributes:
        jobs: as they were when it began.
    """

    def __init__(self, client: Client, number: int, jobs: list[dict[str, Any]]) -> None:
        self.client, self.number, self.jobs = client, number, jobs

    def next(self, timeout: float | None = None) -> tuple[str, dict[str, Any]]:
        """The next event, ("jobs", body) or ("tasks", body); TimeoutError."""
        self.client.receive_until(lambda: any(e[0] == self.number for e in self.client.events), timeout)
        at = next(i for i, e in enumerate(self.client.events) if e[0] == self.number)
        _, event, body = self.client.events.pop(at)
        return event, body

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        while True:
            yield self.next()

    def close(self) -> None:
        """No more events."""
        self.client.call("forget", id=self.number)
        self.client.events = [e for e in self.client.events if e[0] != self.number]


def messages(select: Sequence[Select] | None) -> list[Any] | None:
    return None if select is None else [s.message() for s in select]


def read(piece: dict[str, Any] | None, at: int = 0, most: int = 1 << 20) -> bytes:
    """Up to `most` bytes of a piece of output (Client.logs) from byte `at` of it on.

    FileNotFoundError: the task has ended meanwhile, and its output is elsewhere: ask again.
    """
    if piece is None or (piece["length"] is not None and at >= piece["length"]):
        return b""
    if piece["length"] is not None:
        most = min(most, piece["length"] - at)
    with open(piece["path"], "rb") as file:
        return os.pread(file.fileno(), most, piece["offset"] + at)


def find_daemon(folder: Path) -> int:
    """The pid of the daemon that listens there; NoDaemon."""
    try:
        folders.check(folder)
    except FileNotFoundError:
        raise NoDaemon(NO_DAEMON) from None
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(folders.socket_path(folder, folders.SOCKET))
        except (FileNotFoundError, ConnectionRefusedError):
            raise NoDaemon(NO_DAEMON) from None
        pid, uid, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    if uid != os.getuid():
        raise NoDaemon(f"the daemon in {folder} is uid {uid}'s, not yours")
    found: int = pid
    return found
