"""A daemon of a test's own, in folders of its own, and everything of it ended when the test is over."""

import contextlib
import os
import select
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from dgmp.jobs import boot, folders
from dgmp.jobs.client import Client
from dgmp.jobs.protocol import decode
from tests.helpers import eventually, processes


class Node:
    """Folders for a daemon; `with` ends what runs in them.

    Attributes:
        env: what a task of it should have in its environment, so that it is found when the test is over.
    """

    def __init__(self):
        self.root = Path(tempfile.mkdtemp(prefix="dgmp-", dir="/tmp"))
        self.runtime, self.state, self.work = self.root / "run", self.root / "state", self.root / "work"
        self.work.mkdir()
        self.env = {"PATH": os.environ["PATH"], "DGMP_RUNTIME_DIR": str(self.runtime), "DGMP_STATE_DIR": str(self.state)}
        self.before = {}
        self.clients = []
        self.daemons = []

    def __enter__(self):
        for name in ("DGMP_RUNTIME_DIR", "DGMP_STATE_DIR"):
            self.before[name] = os.environ.get(name)
            os.environ[name] = self.env[name]
        return self

    def __exit__(self, *exception):
        for client in self.clients:
            client.close()
        assert eventually(self.end), f"processes left: {self.processes()}"
        for name, value in self.before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
        shutil.rmtree(self.root)

    def end(self):
        for pid in self.processes():
            kill(pid)
        self.daemons = [pid for pid in self.daemons if not reaped(pid)]
        return not self.daemons and not self.processes()

    def up(self, *arguments):
        """Starts the daemon; returns its pid."""
        self.daemons.append(boot.bring_up(list(arguments or ["--cpus=2"])))
        return self.daemons[-1]

    def client(self):
        client = Client()
        self.clients.append(client)
        return client

    def processes(self, module=""):
        """Those of this daemon: itself, its keeper, their tasks; or those that run a module."""
        mark = f"DGMP_RUNTIME_DIR={self.runtime}".encode()
        found = {}
        for pid, (parent, _) in processes().items():
            with contextlib.suppress(OSError):
                if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") and \
                        module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found[pid] = parent
        found.pop(os.getpid(), None)
        return [pid for pid, parent in found.items() if not module or parent not in found]  # a child that is to exec is none

    def keeper(self, client):
        """The pid of the daemon's keeper, once there is one."""
        assert eventually(lambda: client.status()["keeper"])
        return client.status()["keeper"]

    def submit(self, client, script, **spec):
        """A job of `sh -c script` in the work folder."""
        return client.submit(["sh", "-c", script], **{"cwd": str(self.work), "env": self.env, **spec})

    def python(self, client, code, **spec):
        return client.submit([sys.executable, "-c", code], **{"cwd": str(self.work), "env": self.env, **spec})

    def lines(self, name):
        """Of a file in the work folder."""
        try:
            return (self.work / name).read_text().splitlines()
        except FileNotFoundError:
            return []


class Raw:
    """A client that says what it likes."""

    def __init__(self, node):
        import zmq

        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(f"ipc://{node.runtime / folders.SOCKET}")

    def ask(self, *frames):
        self.socket.send_multipart(frames)
        return self.hear()

    def hear(self):
        assert self.socket.poll(60_000), "no answer"
        return decode(self.socket.recv())

    def close(self):
        self.socket.close()
        self.context.term()


def kill(pid, number=signal.SIGKILL):
    """With SIGKILL it is gone, and no zombie of ours, when this returns."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    signal.pidfd_send_signal(pidfd, number)
    if number == signal.SIGKILL:
        ended = select.poll()
        ended.register(pidfd, select.POLLIN)
        assert ended.poll(60_000), f"{pid} does not die"
        reaped(pid)
    os.close(pidfd)


def reaped(pid):
    """It has ended, and is no zombie of ours."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
