"""Temporary files without names, and the outputs of jobs that have ended before their turn (--keep-order).

No file here has a name while anything can happen to us, so none is ever left.  Of a job that waits nothing is in memory and no
descriptor is held: the output lies in a segment, a file for many, and where is a record in the index, another file.  A segment
is given back when all in it have had their turn.
"""

from __future__ import annotations

import errno
import os
import struct

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

SEGMENT = 64 << 20
RESERVED = 16  # descriptors
BLOCK = 1 << 18
RECORD = struct.Struct("<IIQQQQ")  # whether it is there, the segment, the offset, the lengths of stdout, stderr and the note


class DiskFull(Exception):
    """There is no room for output."""


def folder() -> str:
    """Where temporary files are made: $TMPDIR, or /tmp."""
    return os.environ.get("TMPDIR") or "/tmp"


class Reserve:
    """Descriptors that are kept for the ends of jobs: what has begun must not fail because so much else has."""

    def __init__(self) -> None:
        self.kept: list[int] = []

    def fill(self) -> None:
        """Before more is begun.

        Raises:
            OSError: there are too many open files for that.
        """
        while len(self.kept) < RESERVED:
            self.kept.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def give(self) -> bool:
        """Frees one; whether there was one."""
        if self.kept:
            os.close(self.kept.pop())
            return True
        return False


reserve = Reserve()


def temporary_file(append: bool = True, for_end: bool = False) -> int:
    """A new one.

    Args:
        append: whatever is written to it goes to its end.
        for_end: the reserve may be used.

    Raises:
        DiskFull: there is no room.
        OSError: none can be made there.
    """
    while True:
        try:
            return _open(folder(), os.O_RDWR | os.O_CLOEXEC | (os.O_APPEND if append else 0))
        except OSError as e:
            if e.errno in (errno.ENOSPC, errno.EDQUOT):
                raise full(folder()) from None
            if e.errno != errno.EMFILE or not for_end or not reserve.give():
                raise


def _open(where: str, flags: int) -> int:
    try:
        return os.open(where, flags | os.O_TMPFILE, 0o600)
    except OSError as e:
        if e.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT) or not os.path.isdir(where):
            raise
    return _unlinked(where, flags)


def _unlinked(where: str, flags: int) -> int:
    """Where the file system knows no O_TMPFILE."""
    while True:
        path = os.path.join(where, f"dgmp-{os.getpid()}-{os.urandom(8).hex()}")
        try:
            fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            continue
        os.unlink(path)
        return fd


def full(where: str) -> DiskFull:
    """There is no room in this folder."""
    here = os.path.realpath(where) == os.path.realpath(folder())
    return DiskFull(f"the disk of {folder() if here else where} is full, output is incomplete: make room there"
                    + (", or name another folder in TMPDIR" if here else ""))


def full_of(fd: int) -> DiskFull:
    """There is no room where this file is."""
    return full(os.path.dirname(os.readlink(f"/proc/self/fd/{fd}")))


def blocks(fd: int, offset: int, length: int) -> Iterator[bytes]:
    """That part of a file."""
    end = offset + length
    while offset < end:
        data = os.pread(fd, min(BLOCK, end - offset), offset)
        if not data:  # somebody has cut it
            return
        yield data
        offset += len(data)


def write_all(fd: int, data: bytes) -> None:
    """To a temporary file, or one that is kept.

    Raises:
        DiskFull: there is no room.
    """
    left = memoryview(data)
    while left:
        left = left[full_when(os.write, fd, left):]


def full_when(write: Callable[..., int], fd: int, *args: Any) -> int:
    """write(fd, *args), with DiskFull for its error."""
    try:
        return write(fd, *args)
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise full_of(fd) from None
        raise


class Spill:
    """The outputs of jobs that wait for their turn, by number."""

    def __init__(self) -> None:
        self.index = -1
        self.segments: dict[int, list[int]] = {}  # number -> its file, how many wait in it
        self.number = 0
        self.size = 0  # of the segment that is written to

    def put(self, seq: int, out: Iterable[bytes], err: Iterable[bytes], note: bytes = b"") -> None:
        """Takes what a job has printed, and what is to be noted once that has been shown.

        Raises:
            DiskFull: there is no room for it.
        """
        segment = self._segment()
        offset = self.size
        lengths = [self._append(segment[0], part) for part in (out, err, (note,))]
        segment[1] += 1
        if self.index < 0:
            self.index = temporary_file(append=False, for_end=True)
        record = RECORD.pack(1, self.number, offset, *lengths)
        full_when(os.pwrite, self.index, record, seq * RECORD.size)

    def get(self, seq: int) -> tuple[Iterator[bytes], Iterator[bytes], bytes] | None:
        """What put() was given; None: it has not ended.  To be read before the next call."""
        if self.index < 0:
            return None
        record = os.pread(self.index, RECORD.size, seq * RECORD.size)
        there, number, offset, out, err, note = RECORD.unpack(record) if len(record) == RECORD.size else (0,) * 6
        if not there:
            return None
        fd = self.segments[number][0]
        noted = b"".join(blocks(fd, offset + out + err, note)) if note else b""
        return blocks(fd, offset, out), blocks(fd, offset + out, err), noted

    def drop(self, seq: int) -> None:
        """Its turn has been."""
        _, number, *_ = RECORD.unpack(os.pread(self.index, RECORD.size, seq * RECORD.size))
        segment = self.segments[number]
        segment[1] -= 1
        if segment[1]:
            return
        if number != self.number:
            os.close(self.segments.pop(number)[0])
        else:
            os.ftruncate(segment[0], 0)
            self.size = 0

    def _segment(self) -> list[int]:
        """The one to write to."""
        if self.size >= SEGMENT:
            self.number += 1
            self.size = 0
        if self.number not in self.segments:
            self.segments[self.number] = [temporary_file(for_end=True), 0]
        return self.segments[self.number]

    def _append(self, fd: int, part: Iterable[bytes]) -> int:
        length = 0
        for data in part:
            write_all(fd, data)
            length += len(data)
        self.size += length
        return length

    def close(self) -> None:
        """Nothing waits any more."""
        for fd in (self.index, *(segment[0] for segment in self.segments.values())):
            if fd >= 0:
                os.close(fd)
        self.index = -1
        self.segments.clear()
