"""A pseudo-terminal with a program on it, as a user in front of it sees and types."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

ESCAPES = re.compile(r"\x1b(?:\[[0-9;?=>]*[A-Za-z]|[=>()][0-9A-B]?|\][^\x07\x1b]*(?:\x07|\x1b\\))")


class Terminal:
    """Runs a program on a terminal of this size, with its own session, so that Ctrl-C reaches it."""

    def __init__(self, argv, env=None, columns=100, rows=30, cwd=None):
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
        self.process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=cwd,
                                        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(theirs)
        self.raw = ""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.ours)

    @property
    def text(self):
        """All it has shown, without escape sequences."""
        return ESCAPES.sub("", self.raw)

    def type(self, text):
        os.write(self.ours, text.encode())

    def read(self, seconds):
        """Something more, if it comes; whether there can be more."""
        if not select.select([self.ours], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.ours, 1 << 16)
        except OSError:  # nobody has the other end any more
            return False
        self.raw += data.decode(errors="replace")
        return bool(data)

    def until(self, pattern, seconds=30.0):
        """Reads until a part of what it has shown is like this; that part."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text, re.DOTALL)):
            left = deadline - time.monotonic()
            if left <= 0 or not self.read(left):
                raise AssertionError(f"no {pattern!r} in {self.text!r}")
        return found[0]

    def end(self, seconds=30.0):
        """Reads until it has ended; its exit code."""
        deadline = time.monotonic() + seconds
        while self.read(max(0.0, deadline - time.monotonic())):
            assert time.monotonic() < deadline, self.text
        return self.process.wait(seconds)
