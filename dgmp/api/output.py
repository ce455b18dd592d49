"""What Gs print and log, in the client: it is written to whatever sys.stdout and sys.stderr are at that moment, and handled
by the loggers of the program; under `dgmp run`, in m0, which runs the program.

Ms send it over one socket (ship.packets).  It is read and written by whoever collects results, before these are given out,
and by a thread, so that it appears while the program does something else.  One writes at a time.  A handler or a stream's
own write() that waits for a G while its thread is writing goes on without; and nobody waits long for another thread that
is stuck in a write.  What the streams raise is ignored: a print does not fail because the program has closed its stdout.
"""

from __future__ import annotations

import _thread
import contextlib
import io
import os
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from .._core import receive
from ..ship.packets import BINARY, RECORD, STDERR, Joiner, kind, split

PATIENCE = 1.0  # seconds to wait for another thread that writes
LOOK = 0.02  # how often to make room meanwhile
PAUSE = 0.001
ROOM = 4096  # packets that are taken out of the channel while nobody can write
BUFFER = 1 << 19  # bytes that may lie in the channel, as the kernel counts them: a thousand short lines


class Output:
    """The client's end of the channel.

    Args:
        ends: that, and the Ms'; None: a new channel.
    """

    def __init__(self, ends: tuple[socket.socket, socket.socket] | None = None) -> None:
        self.ours, self.theirs = ends or socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        self.joiner = Joiner()
        self.packets: list[bytes] = []
        self.lock = threading.RLock()
        self.closed = False
        self.thread: int | None = None
        self.ended = threading.Lock()
        self.waits: Callable[[int], object] = int  # is told when the thread begins to wait for more, and ends: 1, -1
        self.ended_by_others: Callable[[], object] = int  # is called by the thread when all have ended that could print
        _outputs.add(self)

    def start(self) -> None:
        """The coordinator has the other end.  The thread is none of `threading`: notebooks show what such a thread prints
        in the cell that started it, and what others print in the one that runs."""
        self.theirs.close()
        self.ended.acquire()
        try:
            self.thread = _thread.start_new_thread(self.show_for_ever, ())
        except RuntimeError:  # there is no room for another: then what is printed appears with the next result
            self.ended.release()

    def give_away(self) -> None:
        """The coordinator has both ends: m0 of `dgmp run` is the one that writes."""
        self.ours.close()
        self.theirs.close()

    def show_for_ever(self) -> None:
        with contextlib.suppress(OSError):
            while not self.closed:
                self.waits(1)
                try:
                    more = self.ours.recv(1, socket.MSG_PEEK)
                finally:
                    self.waits(-1)
                if not more:
                    break
                with contextlib.suppress(BaseException):  # of user code: sys.exit in a handler
                    self.show()
                time.sleep(PAUSE)  # a G that prints much need not wake us for each line
        if not self.closed:
            with contextlib.suppress(BaseException):  # RuntimeClosed, CoordinatorDied; or of user code, in a callback
                self.ended_by_others()
        self.ended.release()

    def show(self) -> bool:
        """Writes all that has been sent; False: somebody else is at it."""
        if self.is_ours():
            self.make_room()
            return False
        try:
            if not self.acquire():
                return False
            self.receive()
            while self.packets:
                self.write_next()
            return True
        finally:  # an interrupt may have come before it was acquired, or after
            try:
                self.lock.release()
            except RuntimeError:
                pass

    def acquire(self) -> bool:
        deadline = time.monotonic() + PATIENCE
        while not self.lock.acquire(timeout=LOOK):
            if time.monotonic() > deadline:
                return False
            self.make_room()
        return True

    def is_ours(self) -> bool:
        """Whether the calling thread is writing: it is in user code, a stream's or a signal handler's."""
        return bool(self.lock._is_owned())  # type: ignore[attr-defined]

    def receive(self) -> None:
        with contextlib.suppress(OSError):  # os.closerange in the program
            receive(self.ours.fileno(), self.packets)

    def make_room(self) -> None:
        """Whoever is writing may wait for a G that waits until it can send."""
        if len(self.packets) < ROOM:
            self.receive()

    def write_next(self) -> None:
        """The next message, and with it those of the same kind that follow; it may not be whole yet."""
        messages: list[bytes] = []
        what = n = 0
        for packet in self.packets:
            if messages and (kind(packet) != what or what == RECORD):
                break
            n += 1
            message = self.joiner.message(packet)
            if message is not None:
                what = kind(packet)
                messages.append(message)
        del self.packets[:n]
        if not messages:
            return
        try:
            write(what, b"".join(messages))
        except RecursionError:  # of the caller: it comes again with less on its stack
            self.packets[:0] = split(what, b"".join(messages))
            raise
        except Exception:
            pass

    def close(self) -> None:
        """All Ms are dead: what they have sent is written, and the thread ends."""
        self.closed = True
        self.theirs.close()
        try:
            self.show()
        finally:
            with contextlib.suppress(OSError):
                self.ours.shutdown(socket.SHUT_RD)
            if self.thread not in (None, threading.get_ident()):
                self.ended.acquire(timeout=PATIENCE)
            self.ours.close()


_outputs: weakref.WeakSet[Output] = weakref.WeakSet()


class Fork:
    """The program forks only while nobody writes: its child has no half of a text in its own buffer of stdout."""

    def __init__(self) -> None:
        self.held: list[Output] = []

    def before(self) -> None:
        for output in list(_outputs):
            if output.lock.acquire(timeout=PATIENCE):
                self.held.append(output)

    def after(self) -> None:
        while self.held:
            self.held.pop().lock.release()


_fork = Fork()
os.register_at_fork(before=_fork.before, after_in_parent=_fork.after, after_in_child=_fork.after)


def write(what: int, data: bytes) -> None:
    """Raises what the stream or the program's logging raises."""
    if what == RECORD:
        handle(data)
        return
    stream: Any = sys.stderr if what & STDERR else sys.stdout
    if stream is None:
        return
    try:
        (write_bytes if what & BINARY else write_text)(stream, data)
        if isinstance(stream, io.TextIOWrapper) or not data.endswith(b"\n"):
            stream.flush()
    except BrokenPipeError:
        forget(stream)


def write_text(stream: Any, data: bytes) -> None:
    text = data.decode("utf-8", "surrogatepass")
    try:
        stream.write(text)
    except UnicodeEncodeError:
        stream.write(text.encode(stream.encoding, "backslashreplace").decode(stream.encoding))


def write_bytes(stream: Any, data: bytes) -> None:
    if hasattr(stream, "buffer"):
        stream.flush()
        stream.buffer.write(data)
        stream.buffer.flush()
    else:
        stream.write(data.decode(getattr(stream, "encoding", None) or "utf-8", "replace"))


def forget(stream: Any) -> None:
    """What nobody reads any more must not be tried again, and fail again, as the program ends."""
    fd = stream.fileno()
    kept = os.dup(fd)
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.dup2(null, fd)
        stream.flush()
    finally:
        os.dup2(kept, fd)
        os.close(kept)
        os.close(null)


def handle(data: bytes) -> None:
    import logging

    from ..ship import records

    record = records.decode(data)
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


def streams() -> list[tuple[str, str, bool]]:
    """What user code in an M may ask of sys.stdout and sys.stderr: encoding, errors and isatty."""
    return [like(sys.stdout, "strict"), like(sys.stderr, "backslashreplace")]


def like(stream: Any, errors: str) -> tuple[str, str, bool]:
    try:
        return str(stream.encoding or "utf-8"), str(stream.errors or errors), bool(stream.isatty())
    except Exception:  # None, or of a class of the program's own
        return "utf-8", errors, False
