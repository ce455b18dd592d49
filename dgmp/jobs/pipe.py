"""--pipe: standard input cut into blocks of whole records, one for each job.

A record ends where --recend is followed by --recstart (either may be empty).  A block is as many whole records as --block has
room for, or -N of them; one that is longer than --block is passed on whole.  Read by netpoll.read, as inputs are.  Called by
cli.each.
"""

from __future__ import annotations

import re
from math import ceil

from .netpoll import read
from .template import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 1 << 20
GROWTH = 1.3
CHUNK = 65536


class Records:
    """Where records begin.

    Args:
        start, end: what a record starts and ends with.
        regexp: these are regular expressions.
        remove: they are taken away (--remove-rec-sep).
    """

    def __init__(self, start: bytes | None = None, end: bytes | None = None, *, regexp: bool = False,
                 remove: bool = False) -> None:
        if start is None and end is None:
            end = b"\n"
        self.start, self.end, self.remove = start or b"", end or b"", remove
        self.anywhere = not self.start and not self.end
        start, end = (self.start, self.end) if regexp else (re.escape(self.start), re.escape(self.end))
        try:
            self.boundary = re.compile(b"(?:%s)(?=%s)" % (end, start), re.DOTALL)
            self.separator = re.compile(b"(?:%s)(?:%s)" % (end, start), re.DOTALL)
        except re.error as e:
            raise InputError(f"--recstart and --recend are no regular expressions: {e}") from None
        self.regexp = regexp

    def last(self, data: bytes | bytearray) -> int:
        """Where the last record begins that may be incomplete; 0: nowhere but at the start."""
        if self.anywhere:
            return len(data)
        if self.regexp:
            at = 0
            for found in self.boundary.finditer(data):
                at = found.end() or at
            return at
        at = data.rfind(self.end + self.start, 0 if self.end else 1)
        return 0 if at < 0 else at + len(self.end)

    def nth(self, data: bytes | bytearray, n: int, begin: int, count: int) -> tuple[int, int, int]:
        """Looks from begin on, with count records passed, for the end of the nth.

        Returns (where it ends or 0, how far was looked, how many were passed).
        """
        if self.anywhere:
            return (n, n, n) if len(data) >= n else (0, len(data), 0)
        both, end = self.end + self.start, 0
        while count < n:
            if self.regexp:
                found = next((m for m in self.boundary.finditer(data, begin) if m.end()), None)
                if found is None:
                    return 0, begin, count
                end = found.end()
                begin = end if self.end else end + 1
            else:
                at = data.find(both, begin or (0 if self.end else 1))
                if at < 0:
                    return 0, max(begin, len(data) - len(both) + 1), count
                end = at + len(self.end)
                begin = end if self.end else end + 1
            count += 1
        return end, begin, count

    def given(self, block: bytes) -> bytes:
        """What the job gets of it."""
        if not self.remove:
            return block
        block = self.separator.sub(b"", block)
        for text, regexp in ((self.start, b"^(?:%s)"), (self.end, b"(?:%s)$")):
            if text:
                block = re.sub(regexp % (text if self.regexp else re.escape(text)), b"", block)
        return block


def blocks(fd: int, records: Records, size: int = BLOCK, count: int = 0, header: bytes = b"") -> Iterator[bytes]:
    """The blocks of a file, as they come.

    Args:
        size: how long a block is at most, if its records are shorter.
        count: how many records a block has; 0: as many as there is room for.
        header: what matches this regular expression at the start of the file stands before each block (--header).
    """
    data = bytearray()
    head = b""
    if header:
        while len(data) < max(size, CHUNK) and (more := read(fd, CHUNK)):
            data += more
        found = re.match(header, data)
        if found is not None:
            head = found[0]
            del data[:len(head)]
    for block in by_count(fd, records, count, data) if count else by_size(fd, records, size, data):
        yield head + records.given(block)


def header_of(text: str) -> bytes:
    """What --header says, as a regular expression: `:` is the first line, a number so many lines.

    Raises:
        InputError: it is none.
    """
    lines = 1 if text == ":" else int(text) if text.isdecimal() else 0
    try:
        return b"(?:[^\\n]*(?:\\n|$)){%d}" % lines if lines else re.compile(text.encode(errors="surrogateescape")).pattern
    except re.error as e:
        raise InputError(f"--header {text!r} is no regular expression: {e}") from None


def by_size(fd: int, records: Records, size: int, data: bytearray) -> Iterator[bytes]:
    ended = False
    while True:
        while len(data) < size and not ended:
            more = read(fd, size - len(data))
            data += more
            ended = not more
        if len(data) < size:
            break
        end = records.last(data[:size])
        if end:
            yield bytes(data[:end])
            del data[:end]
        else:
            size = ceil(size * GROWTH + 1)
    if data:
        yield bytes(data)


def by_count(fd: int, records: Records, count: int, data: bytearray) -> Iterator[bytes]:
    looked = passed = 0
    while True:
        end, looked, passed = records.nth(data, count, looked, passed)
        if end:
            yield bytes(data[:end])
            del data[:end]
            looked = passed = 0
            continue
        more = read(fd, CHUNK)
        if not more:
            break
        data += more
    if data:
        yield bytes(data)
