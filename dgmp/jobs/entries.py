"""The lines of `dgmp submit --each-line`: each is the entry of one task, which is that line's number.

They travel and stay in blocks: some whole lines, each with its newline, packed by zlib.  The client sends blocks before the job
(the verb `entries`), the daemon puts them into the store as they are, and unpacks one as its tasks are given to the keeper.
A million lines are some hundred rows.  A task finds its entry in DGMP_ENTRY, and in place of `{}` in its words.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, BinaryIO

from .protocol import bad

if TYPE_CHECKING:
    from .store import Store

VARIABLE = "DGMP_ENTRY"
PLACE = "{}"
BLOCK, MESSAGE = 64 << 10, 1 << 20
MOST_UNPACKED = 1 << 20
LONGEST = (128 << 10) - len(VARIABLE) - 2  # that the kernel takes in an environment
MOST_CACHED = 16


def packed(file: BinaryIO, name: str) -> Iterator[bytes]:
    """The file's lines in blocks; ProtocolError names a line that cannot be an entry."""
    lines: list[bytes] = []
    size = number = 0
    for line in iter(lambda: file.readline(LONGEST + 1), b""):
        number += 1
        if not line.endswith(b"\n"):
            if len(line) > LONGEST:
                raise bad(f"line {number} of {name} is longer than {LONGEST:,} bytes, the most that an environment can hold")
            line += b"\n"
        if b"\0" in line:
            raise bad(f"line {number} of {name} has a NUL in it, which no environment can hold")
        lines.append(line)
        size += len(line)
        if size >= BLOCK:
            yield zlib.compress(b"".join(lines), 1)
            lines, size = [], 0
    if lines:
        yield zlib.compress(b"".join(lines), 1)


def messages(blocks: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Some blocks together, as a message takes them."""
    some: list[bytes] = []
    for block in blocks:
        some.append(block)
        if sum(map(len, some)) >= MESSAGE:
            yield some
            some = []
    if some:
        yield some


def unpacked(block: bytes) -> list[bytes]:
    """The lines of a block from anybody; ProtocolError."""
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(block, MOST_UNPACKED)
    except zlib.error:
        raise bad("a block of entries is not packed by zlib") from None
    if not unpacking.eof or not data.endswith(b"\n") or b"\0" in data:
        raise bad(f"a block of entries is whole lines without NUL, {MOST_UNPACKED:,} bytes at most")
    return data[:-1].split(b"\n")


def filled(argv: Iterable[str], entry: bytes) -> list[str]:
    """The words with the entry in its place.

    Example:
        >>> filled(["gzip", "-9", "logs/{}"], b"a b")
        ['gzip', '-9', 'logs/a b']
    """
    text = os.fsdecode(entry)
    return [word.replace(PLACE, text) for word in argv]


class Entries:
    """What the store has of them; the last blocks that were read are kept."""

    def __init__(self) -> None:
        self.blocks: dict[int, tuple[int, list[bytes]]] = {}  # set of entries -> the first task, and the lines

    def find(self, store: Store, entries: int, task: int) -> bytes:
        """The entry of a task."""
        first, lines = self.blocks.get(entries, (0, []))
        if not first <= task < first + len(lines):
            first, block = store.block(entries, task)
            lines = unpacked(block)
            self.blocks.pop(entries, None)
            while len(self.blocks) >= MOST_CACHED:
                del self.blocks[next(iter(self.blocks))]
            self.blocks[entries] = first, lines
        return lines[task - first]
