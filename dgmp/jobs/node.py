"""The node of the daemon, for Runtime(attach=True): booted when the first program attaches, by socket activation.

The daemon listens at the node's socket (coordinator.sessions) and takes nothing from it.  When somebody has connected it starts
this module's process, which boots a runtime that listens there in its place; it lives as long as the daemon, and no queue needs
it.  One that ends is started again for the next program that comes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from ..coordinator import sessions

PATIENCE = 5.0  # with one that is to end
UP = b"1"


class NodeHost:
    """The daemon's side.

    Args:
        log: where its process writes what it has to say.

    Attributes:
        waiting: what to poll: the socket, as long as no node listens there, else the pidfd of its process.
        line: to that process: it says UP there, if it comes so far, and ends when this end is closed.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self.path = sessions.default_path()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)  # of a daemon that was killed, whose node may not have ended yet
        self.listener = sessions.listening(self.path)
        self.inode = os.lstat(self.path).st_ino
        self.waiting = self.listener.fileno()
        self.process: subprocess.Popen[bytes] | None = None

    def turn(self) -> None:
        """What was polled says something."""
        if self.process is None:
            try:
                self.start()
            except OSError:  # no process, or no descriptor, is to be had now
                self.turn_away()
            return
        if self.process.poll() is None:
            return
        if not self.came_up():
            self.turn_away()
        self.forget()

    def came_up(self) -> bool:
        """The node that has ended."""
        with contextlib.suppress(OSError):
            return self.line.recv(1, socket.MSG_DONTWAIT) == UP
        return False

    def turn_away(self) -> None:
        """Who waits for a node that does not come up."""
        with contextlib.suppress(OSError):
            self.listener.accept()[0].close()

    def start(self) -> None:
        self.line, theirs = socket.socketpair()
        try:
            with theirs, open(self.log, "ab") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "dgmp.jobs.node", str(self.listener.fileno())], cwd="/", stdin=theirs.fileno(),
                    stdout=log, stderr=log, start_new_session=True, pass_fds=(self.listener.fileno(),))
        except OSError:
            self.line.close()
            raise
        self.waiting = os.pidfd_open(self.process.pid)

    def forget(self) -> None:
        if self.process is not None:
            self.line.close()
            os.close(self.waiting)
            self.process, self.waiting = None, self.listener.fileno()

    def close(self) -> None:
        """The daemon ends, and so does the node: programs that are attached are told."""
        sessions.remove(self.path, self.inode)
        if self.process is not None:
            process = self.process
            self.forget()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.listener.close()


def main(listener: int) -> None:
    """The node's process, until the daemon has ended."""
    from ..api.runtime import Runtime

    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with Runtime(listen=socket.socket(fileno=listener)), socket.socket(fileno=0) as line:
        line.sendall(UP)
        line.recv(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
