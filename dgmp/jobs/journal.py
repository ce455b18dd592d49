"""What a keeper writes of its tasks, for the daemon to read: an append-only file, whole records only.

A record is its length and checksum (4 bytes each), then a msgpack list:

    ["starting", time, [[job, task, attempt]…]]       written before they are started
    ["running", job, task, attempt, pid, born, stdout, stderr]
    ["ended", job, task, attempt, {"ended", "exit", "reason", "text", "cpu", "maxrss", "stdout", "stderr"}]
    ["dropped", job, task, attempt]                   told to cancel it, before it had started
    ["next"]                                          the journal goes on in the next segment

The journal of a keeper is the files KEEPER.1, KEEPER.2, …; the keeper holds a lock (flock) on the first one as long as it
lives.  They are not synced: no task outlives a power failure, and what a daemon acknowledges it has in its store.  A record
that a kill cut short is at the end, and the daemon does not read it.  A keeper that lives and whose journal is damaged
(by a disk, or by hand) cannot tell any more: the daemon replaces it.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .wire import pack, unpack

HEAD = struct.Struct("<II")
SEGMENT = 16 << 20
LONGEST = 1 << 24


class Writer:
    """The keeper's end.

    Args:
        folder: the folder of journals.
        keeper: its name.
    """

    def __init__(self, folder: Path, keeper: str) -> None:
        self.folder, self.keeper, self.segment = folder, keeper, 1
        self.fd = self.lock = self.open(1)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.size = 0
        self.left = b""  # that could not be written yet
        self.following = -1  # the next segment, once this one has been closed with "next"
        self.after = b""  # what is left for that one

    def open(self, segment: int) -> int:
        return os.open(self.folder / f"{self.keeper}.{segment}", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, records: Iterable[list[Any]]) -> bool:
        """Appends them; False if they are not all in the file yet: then call it again, perhaps with none."""
        data = b"".join(frame(record) for record in records)
        if self.following < 0:
            self.left += data
        else:
            self.after += data
        try:
            self.flush()
            if self.size >= SEGMENT:
                self.following = self.open(self.segment + 1)
                self.segment += 1
                self.left = frame(["next"])
                self.flush()
        except OSError:
            return not self.left
        return True

    def flush(self) -> None:
        while self.left or self.following >= 0:
            if not self.left:  # "next" has been written
                if self.fd != self.lock:
                    os.close(self.fd)
                self.fd, self.following, self.size, self.left, self.after = self.following, -1, 0, self.after, b""
                continue
            written = os.write(self.fd, self.left)
            self.left = self.left[written:]
            self.size += written

    def close(self) -> None:
        """With it goes the lock."""
        for fd in {self.fd, self.lock, self.following} - {-1}:
            os.close(fd)


class Reader:
    """The daemon's end.

    Args:
        folder: the folder of journals.
        keeper: whose.
        segment, offset: where to go on.

    Attributes:
        damaged: what comes next is no record and will be none, or the file is gone: nothing more can be read.
    """

    def __init__(self, folder: Path, keeper: str, segment: int = 1, offset: int = 0) -> None:
        self.folder, self.keeper, self.segment, self.offset = folder, keeper, segment, offset
        self.damaged = False

    def path(self, segment: int) -> Path:
        return self.folder / f"{self.keeper}.{segment}"

    def read(self) -> list[list[Any]]:
        """The records from here on to the end."""
        records: list[list[Any]] = []
        while True:
            try:
                with open(self.path(self.segment), "rb") as file:
                    self.damaged = file.seek(0, os.SEEK_END) < self.offset
                    file.seek(self.offset)
                    data = file.read()
            except FileNotFoundError:
                self.damaged = True
                return records
            found, used = unframe(data)
            self.offset += used
            if not found or found[-1] != ["next"]:
                self.damaged = self.damaged or is_noise(data[used:])
                return records + found
            records += found[:-1]
            self.segment, self.offset = self.segment + 1, 0

    def locked(self) -> bool:
        """The keeper lives."""
        try:
            fd = os.open(self.path(1), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def sweep(self) -> None:
        """Removes segments that have been read; the first one stays, empty, as its lock counts."""
        for path in self.folder.glob(f"{self.keeper}.*"):
            segment = int(path.suffix[1:])
            if segment == 1 < self.segment:
                os.truncate(path, 0)
            elif segment < self.segment:
                path.unlink()

    def remove_others(self) -> None:
        """The journals of keepers before it, and of those that were never given anything."""
        for path in self.folder.iterdir():
            if path.stem != self.keeper:
                path.unlink()


def frame(record: list[Any]) -> bytes:
    body = pack(record)
    return HEAD.pack(len(body), zlib.crc32(body)) + body


def is_noise(data: bytes) -> bool:
    """No record begins here, and none that is still being written."""
    if len(data) < HEAD.size:
        return False
    length, _ = HEAD.unpack_from(data)
    return not 0 < length <= LONGEST or len(data) >= HEAD.size + length


def unframe(data: bytes) -> tuple[list[list[Any]], int]:
    """The whole records at the front, and how many bytes they are."""
    records, at = [], 0
    while at + HEAD.size <= len(data):
        length, checksum = HEAD.unpack_from(data, at)
        body = data[at + HEAD.size:at + HEAD.size + length]
        if not 0 < length <= LONGEST or len(body) < length or zlib.crc32(body) != checksum:
            break
        records.append(unpack(body))
        at += HEAD.size + length
    return records, at
