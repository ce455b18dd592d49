"""wait_readable, wait_writable: for a file descriptor (Go: what its net package does with runtime.poll)."""

from __future__ import annotations

import errno
import operator
import os
import select
import time
from typing import Any

from . import runtime
from .future import deadline_of

LONGEST_MS = 1 << 30  # poll takes an int


def descriptor(fd: Any) -> int:
    """As select takes it: a number, or an object with fileno()."""
    try:
        number = operator.index(fd)
    except TypeError:
        fileno = getattr(fd, "fileno", None)
        if fileno is None:
            raise TypeError(f"fd must be a file descriptor or have fileno(), not {type(fd).__name__}") from None
        number = operator.index(fileno())
    if number < 0:
        raise ValueError(f"fd must not be negative, as {number} is")
    return number


def wait_readable(fd: Any, timeout: float | None = None) -> None:
    """Waits until reading from fd does not block: there is data, the end, or an error (Go: what package net does by netpoll).

    In a G only that G waits: it parks, and its M runs others meanwhile.  Several may wait for one descriptor; all are told,
    and who comes too late to read anything waits again.  Descriptors that never block, such as regular files, are ready at
    once.

    Args:
        fd: a file descriptor, or an object with `fileno()` such as a socket.  It should be non-blocking.
        timeout: seconds to wait at most; None: for ever.

    Raises:
        TimeoutError: the time is up.
        OSError: fd is not open; or it is closed while the G waits, which is noticed within some seconds.
        Cancelled: the G was asked to end.
        TypeError, ValueError: fd is no descriptor, or timeout no number.

    Example:
        >>> import dgmp, os, socket
        >>> a, b = socket.socketpair()
        >>> def echo(fd):
        ...     dgmp.wait_readable(fd)
        ...     return os.read(fd, 100)
        >>> b.send(b"hello")
        5
        >>> echo(a.fileno())
        b'hello'
        >>> a.close(), b.close()
        (None, None)
    """
    wait(descriptor(fd), False, timeout)


def wait_writable(fd: Any, timeout: float | None = None) -> None:
    """Waits until writing to fd does not block; as `wait_readable` otherwise.

    Args:
        fd, timeout: as for `wait_readable`.

    Raises:
        What `wait_readable` raises.

    Example:
        >>> import dgmp, socket
        >>> a, b = socket.socketpair()
        >>> dgmp.wait_writable(a)
        >>> a.close(), b.close()
        (None, None)
    """
    wait(descriptor(fd), True, timeout)


def wait(fd: int, write: bool, timeout: float | None) -> None:
    deadline = deadline_of(timeout)
    member = runtime._member
    ready = poll if member is None or not member.m.in_g() else member.wait_fd
    if not ready(fd, write, deadline):
        raise TimeoutError(f"descriptor {fd} has not become {'writable' if write else 'readable'} within {timeout} s")


def poll(fd: int, write: bool, deadline: int | None) -> bool:
    """Outside of Gs."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT if write else select.POLLIN)
    while True:
        left = LONGEST_MS if deadline is None else max(0, deadline - time.monotonic_ns()) / 1e6
        if events := poll.poll(min(left, LONGEST_MS)):
            if events[0][1] & select.POLLNVAL:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            return True
        if deadline is not None and time.monotonic_ns() >= deadline:
            return False
