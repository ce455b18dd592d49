"""The daemon's side of its keeper: finds the one that is there, or starts one, and reads its journal.

What the keeper tells is in the journal alone, and where the daemon has read to is in the store, in the same transaction as
what it has made of it.  So it makes no difference whether the daemon was there when a task ended, or reads of it later.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import folders
from .entries import Entries
from .files import Logs, Spool
from .journal import Reader
from .keeper import VERSION, birth, told_to
from .log import say
from .protocol import RUNNING
from .queue import Queue
from .store import CANCELLING, Job, Store, Task
from .wire import pack, stream


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Keeping:
    """One daemon's keeper.

    Args:
        runtime, state: the folders.
        arguments: what a new one is told of the resources.

    Attributes:
        known: it has said hello, and everything that was before it is settled: it may be given tasks.
        socket: to it, or None.
        pidfd: of it, or -1.
    """

    def __init__(self, runtime: Path, state: Path, arguments: list[str]) -> None:
        self.runtime, self.state, self.arguments = runtime, state, arguments
        self.logs = Logs(folders.make(state / "logs"))  # of tasks whose keeper is dead
        self.entries = Entries()
        self.reader: Reader | None = None
        self.socket: socket.socket | None = None
        self.child: subprocess.Popen[bytes] | None = None
        self.pid, self.pidfd = 0, -1
        self.known = False
        self.retiring = False  # it is of another version
        self.sent: set[int] = set()  # jobs that it knows
        self.unpacker = stream()
        self.output = b""
        self.swept = 1  # up to this segment of the journal

    # ------------------------------------------------------------------ find it, or start it
    def begin(self, queue: Queue, store: Store) -> None:
        """After the start of the daemon, or a failure: as if nothing were known but the store."""
        self.disconnect()
        meta = store.meta()
        if "keeper" in meta:
            self.reader = Reader(folders.make(self.state / "journal"), meta["keeper"], meta["segment"], meta["offset"])
            if meta["boot"] == boot_id() and self.reader.locked():
                self.find(meta["keeper_pid"])
                if self.pidfd >= 0:
                    return
        self.replace(queue, store)

    def find(self, pid: int) -> None:
        """It lives; if its socket is gone, it ends when it has done what it has, and we wait for that."""
        with contextlib.suppress(ProcessLookupError):
            self.pidfd, self.pid = os.pidfd_open(pid), pid
        with contextlib.suppress(OSError):
            self.connect()
            self.send(["hello", *self.arguments])

    def connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(folders.socket_path(self.runtime, folders.KEEPER_SOCKET))
        except OSError:
            connection.close()
            raise
        connection.setblocking(False)
        self.socket, self.output, self.sent = connection, b"", set()
        self.unpacker = stream()

    def replace(self, queue: Queue, store: Store) -> None:
        """It is dead: what it had is settled, and there is a new one."""
        same_boot = store.meta().get("boot") == boot_id()
        if self.reader is not None:
            self.read(queue)
        orphans = list(self.settle(queue, same_boot))
        queue.put()
        self.put(store)
        store.commit()  # as long as that cannot be, no keeper is made
        self.clear_spool(orphans)
        name = secrets.token_hex(4)
        self.start(name)
        self.reader, self.swept = Reader(folders.make(self.state / "journal"), name), 1
        store.put_meta(keeper=name, keeper_pid=self.pid, segment=1, offset=0, boot=boot_id())
        store.commit()
        self.reader.remove_others()
        for job, task in orphans:
            self.introduce(job, store)
            self.send(["adopt", job.id, task.task, task.attempt, task.pid, task.born, task.stdout, task.stderr])
            if task.claimed == CANCELLING:
                self.send(["cancel", job.id, [task.task]])
        self.send(["hello", *self.arguments])  # last: what its answer does not name it does not have

    def clear_spool(self, orphans: list[tuple[Job, Task]]) -> None:
        """Nobody writes there any more but those."""
        named = {os.path.basename(piece[0]) for _, task in orphans for piece in (task.stdout, task.stderr) if piece}
        for path in folders.make(self.state / "spool").iterdir():
            if path.name not in named:
                path.unlink()

    def lost(self, queue: Queue, job: Job, task: Task) -> None:
        """Nobody knows how it ended; what it has written is kept."""
        if task.stdout or task.stderr:
            spool = Spool.found(folders.make(self.state / "spool"), task.stdout, task.stderr)
            with contextlib.suppress(OSError):
                task.stdout, task.stderr = self.logs.take(job.id, task.task, task.attempt, spool)
        queue.lost(job, task)

    def settle(self, queue: Queue, same_boot: bool) -> Iterator[tuple[Job, Task]]:
        """What the dead keeper had; those that still run are given back."""
        lost = {}
        for job, task in queue.claimed():
            if not same_boot:
                self.lost(queue, job, task)
            elif task.state != RUNNING:
                queue.unclaim(job, task)
            elif task.pid is None:
                lost[job.id, task.task, task.attempt] = job, task
            elif task.pid and birth(task.pid) == task.born:
                yield job, task
            else:
                self.lost(queue, job, task)
        if lost:
            started = by_environment(self.reader.keeper if self.reader else "")
            for key, (job, task) in lost.items():
                if key in started:
                    task.pid, task.born = started[key]
                    yield job, task
                else:
                    self.lost(queue, job, task)

    def start(self, name: str) -> None:
        """A new one."""
        path = folders.socket_path(self.runtime, folders.KEEPER_SOCKET)
        with socket.socket(socket.AF_UNIX) as listening:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            listening.bind(path)
            os.chmod(path, 0o600)
            listening.listen()
            self.connect()
            with open(self.state / folders.LOG, "ab") as log:
                self.child = subprocess.Popen(
                    [sys.executable, "-m", "dgmp.jobs.keeper", str(listening.fileno()), str(self.state), name,
                     *self.arguments], cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                    pass_fds=(listening.fileno(),))
        self.pid, self.pidfd = self.child.pid, os.pidfd_open(self.child.pid)

    def disconnect(self) -> None:
        self.known = False
        if self.socket is not None:
            self.socket.close()
            self.socket = None
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pid, self.pidfd = 0, -1

    def ended(self) -> bool:
        """Whether it has, really; its pidfd says something."""
        if self.child is not None:
            self.child.poll()
        return self.reader is None or not self.reader.locked()

    # ------------------------------------------------------------------ messages
    def send(self, *messages: list[Any]) -> None:
        self.output += b"".join(pack(message) for message in messages)
        self.flush()

    def flush(self) -> None:
        with contextlib.suppress(OSError):  # that it is gone, its pidfd tells
            while self.output and self.socket is not None:
                self.output = self.output[self.socket.send(self.output):]

    def introduce(self, job: Job, store: Store) -> None:
        if job.id not in self.sent:
            self.sent.add(job.id)
            self.send(["job", job.id, list(job.order), job.spec.message(), store.environment(job.env)])

    def order(self, orders: list[tuple[Any, ...]], store: Store) -> None:
        """What the queue has decided, now that it is in the store."""
        for what, *rest in orders:
            if what == "claim":
                job, tasks = rest
                self.introduce(job, store)
                has = job.spec.entries
                entries = [] if has is None else [self.entries.find(store, has, task) for task, _ in tasks]
                self.send(["claim", job.id, tasks, entries])
            elif what == "cancel" and rest[0] in self.sent:
                self.send(["cancel", *rest])
            elif what == "over" and rest[0] in self.sent:
                self.sent.discard(rest[0])
                self.send(["over", rest[0]])

    def receive(self, queue: Queue, store: Store) -> None:
        """What it says."""
        assert self.socket is not None
        try:
            data = self.socket.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:  # it is dying, and its pidfd will tell
            self.socket.close()
            self.socket, self.known = None, False
            return
        self.unpacker.feed(data)
        for message in self.unpacker:
            self.read(queue)
            if message[0] == "hello":
                self.hello(queue, store, *message[1:])
        if self.retiring and not queue.claimed():
            self.send(["exit"])

    def hello(self, queue: Queue, store: Store, version: int, pid: int, has: list[list[int]]) -> None:
        """It is there, and says what it has of what the store says it was given."""
        self.retiring = version != VERSION
        if self.retiring:
            self.send(["stop", "drain"])
        there = {tuple(key) for key in has}
        for job, task in queue.claimed():
            if (job.id, task.task, task.attempt) in there:
                self.introduce(job, store)
                if task.claimed == CANCELLING:
                    self.send(["cancel", job.id, [task.task]])
            elif task.state == RUNNING:
                queue.lost(job, task)
            else:
                queue.unclaim(job, task)
        self.known = not self.retiring

    # ------------------------------------------------------------------ the journal
    def read(self, queue: Queue) -> None:
        """What is new in it."""
        assert self.reader is not None
        for kind, *rest in self.reader.read():
            if kind == "starting":
                at, tasks = rest
                for key in tasks:
                    if found := queue.find(*key):
                        queue.starting(*found, at)
            elif found := queue.find(*rest[:3]):
                if kind == "running":
                    queue.running(*found, *rest[3:])
                elif kind == "ended":
                    queue.ended(*found, rest[3])
                elif kind == "dropped":
                    queue.unclaim(*found)
        if self.reader.damaged and self.pidfd >= 0:
            say("daemon", f"the journal {self.reader.path(self.reader.segment)} is damaged: its keeper (pid {self.pid}) is "
                          "ended, and replaced")
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def sweep(self) -> None:
        """Segments of the journal that the store is past."""
        if self.reader is not None and self.reader.segment > self.swept:
            self.swept = self.reader.segment
            self.reader.sweep()

    def put(self, store: Store) -> None:
        """How far it has been read."""
        if self.reader is not None:
            store.put_meta(segment=self.reader.segment, offset=self.reader.offset)


def by_environment(keeper: str) -> dict[tuple[int, int, int], tuple[int, int]]:
    """(job, task, attempt) -> (pid, start time) of the tasks of this keeper that run."""
    found: dict[tuple[int, int, int], tuple[int, int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        pid, told = int(name), told_to(int(name))
        try:
            if told["DGMP_KEEPER"] == keeper and os.getpgid(pid) == pid:  # no child of a task
                found[int(told["DGMP_JOB_ID"]), int(told["DGMP_TASK_ID"]), int(told["DGMP_ATTEMPT"])] = pid, birth(pid)
        except (OSError, ValueError, KeyError):  # it is not ours, or none of them
            continue
    return found
