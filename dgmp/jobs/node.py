"""The node to which Python programs attach (Runtime(attach=True)) while a daemon is up.

The daemon listens for them and boots the node when the first one comes, so that who only queues commands pays for none.  The
node (dgmp.workers.node) gets the listening socket, in which that program waits, and stays until the daemon ends.  One that dies
is booted anew when somebody comes; but whoever has waited for one that died at once is turned away, or it would go on for ever.
Called by daemon.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time

from ..coordinator import sessions

AT_ONCE = 2.0  # seconds in which a node that dies had not come up
PATIENCE = 2.0  # seconds that it may take to end


class Node:
    """
    Args:
        path: where to listen; nobody else may.
        procs: how many Ps the node is to have.
    """

    def __init__(self, path: str, procs: int) -> None:
        self.path, self.procs = path, procs
        self.listener = sessions.listening(path, alone=True)
        self.process: subprocess.Popen[bytes] | None = None
        self.pidfd = -1
        self.started = 0.0

    def fileno(self) -> int:
        """What to wait for: somebody comes, or the node has ended."""
        return self.listener.fileno() if self.process is None else self.pidfd

    def look(self) -> str | None:
        """That descriptor is readable.  What to log."""
        if self.process is None:
            return self.boot()
        code = self.process.wait()
        os.close(self.pidfd)
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process = None
        if time.monotonic() - self.started < AT_ONCE:
            self.turn_away()
        return f"the node for Python programs has ended with exit code {code}"

    def boot(self) -> str | None:
        command = [sys.executable, "-m", "dgmp.workers.node", str(self.listener.fileno()), str(self.procs)]
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True,
                                            pass_fds=[self.listener.fileno()])
            self.pidfd = os.pidfd_open(self.process.pid)
        except OSError as e:
            self.turn_away()
            return f"no node can be started for Python programs: {e.strerror}"
        self.started = time.monotonic()
        return None

    def turn_away(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.listener.accept()[0].close()

    def close(self) -> None:
        """Programs that are attached learn that it has ended."""
        self.listener.close()
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        if self.process is None:
            return
        self.process.stdin.close()  # type: ignore[union-attr]
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.pidfd)
