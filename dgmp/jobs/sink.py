"""Where output goes: our stdout and stderr, whatever these are, written so that a slow reader stops output and nothing else."""

from __future__ import annotations

import os
import select
import stat

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = 1 << 18
SURE = 4096  # bytes that a pipe which can be written takes without waiting: PIPE_BUF


class Closed(Exception):
    """Nobody reads it any more (EPIPE)."""


class CannotWrite(Exception):
    """What was written to is full, or closed, or broken."""


class Sink:
    """One of our own descriptors.

    Args:
        fd: which.
        name: of it, for people.

    Attributes:
        interrupt: a descriptor that, once it can be read, has act() called while the sink waits for its reader; or -1.
        act: may raise.
        before: is called before anything is written, and told whether that ends a line.
    """

    def __init__(self, fd: int, name: str) -> None:
        self.fd, self.name = fd, name
        self.interrupt = -1
        self.act: Callable[[], object] = lambda: None
        self.before: Callable[[bool], object] | None = None
        self.muted = False  # it swallows everything
        self._regular: bool | None = None

    def write(self, data: bytes | memoryview) -> None:
        """All of it.

        Raises:
            Closed: its reader has gone.
            CannotWrite: it cannot be written.
        """
        if self.before is not None:
            self.before(bytes(data[-1:]) == b"\n")
        if self.muted:
            return
        left = memoryview(data)
        try:
            while left:
                if not self.regular():
                    self._wait(at_once=len(left) <= SURE)
                    left = left[os.write(self.fd, left[:SURE]):]
                else:
                    left = left[os.write(self.fd, left):]
        except BlockingIOError:
            self.write(left)
        except BrokenPipeError:
            raise Closed(self.name) from None
        except OSError as e:
            raise CannotWrite(f"cannot write to {self.name}: {e.strerror}") from None

    def regular(self) -> bool:
        """Whether it never waits for a reader."""
        if self._regular is None:
            self._regular = stat.S_ISREG(os.fstat(self.fd).st_mode)
        return self._regular

    def _wait(self, at_once: bool) -> None:
        """Until some can be written; at_once: that will be all, so what interrupts can wait if its reader does."""
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        if self.interrupt >= 0:
            poll.register(self.interrupt, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if self.interrupt in ready and not (at_once and self.fd in ready):
                self.act()
            if self.fd in ready:
                return

    def gone(self) -> bool:
        """Whether nobody reads it any more."""
        poll = select.poll()
        poll.register(self.fd, 0)
        return any(events & select.POLLERR for _, events in poll.poll(0))
