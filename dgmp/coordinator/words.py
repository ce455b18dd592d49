"""The last words of Ms that die: what they had written to sys.stderr, and what faulthandler says of a crash.

The first the M keeps in the segment (_core/said.c).  For the second a memfd has room for each M: where the program has
enabled faulthandler an M has it write there, and the coordinator writes it to the program's stderr once the M is dead, so
that it is seen as before.  What C code writes to descriptor 2 itself goes where that leads, and is not known here.
"""

from __future__ import annotations

import contextlib
import os

ROOM = 1 << 20  # for each M: a hundred threads, of a hundred frames each, is what faulthandler shows at most
MOST_SAID = 2048  # bytes that the segment keeps
LINES, CRASH_LINES, WIDTH = 10, 14, 200  # what a message shows


class Words:
    """The memfd.  `fd` is -1 if there is none."""

    def __init__(self) -> None:
        self.fd = -1
        with contextlib.suppress(OSError):
            self.fd = os.memfd_create("dgmp-crashes", os.MFD_CLOEXEC)

    def take(self, m: int) -> bytes:
        """What faulthandler has said in M m, which is dead; the next one of that number finds nothing."""
        try:
            said = os.pread(self.fd, ROOM, m * ROOM).partition(b"\0")[0] if self.fd >= 0 else b""
            if said:
                os.pwrite(self.fd, bytes(len(said)), m * ROOM)
            return said
        except OSError:
            return b""


def place_for(m: int, fd: int) -> int | None:
    """In M m: a descriptor at its place of the memfd; None: there is none to be had."""
    import fcntl

    try:
        opened = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_CLOEXEC)
        try:  # where it is in nobody's way, as user code may close it
            high = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 500)
        finally:
            os.close(opened)
        os.lseek(high, m * ROOM, os.SEEK_SET)
        return high
    except OSError:
        return None


def last(said: bytes, crash: bytes) -> str:
    """The last lines of both, for people."""
    lines = said.decode("utf-8", "replace").splitlines()
    lines = lines[len(said) >= MOST_SAID and len(lines) > 1:][-LINES:]  # the first may have lost its beginning
    lines += [line for line in crash.decode("utf-8", "replace").splitlines() if line.strip()][:CRASH_LINES]
    return "\n".join(line if len(line) <= WIDTH else line[:WIDTH] + "..." for line in lines)
