"""The inputs of `dgmp each`: `:::`, `::::`, standard input, CSV and ranges, and how they are put together.

All is read when it is asked for, by netpoll.read: an endless producer works, and jobs go on while there is nothing to read.  A
*record* is a tuple of values, one for each column; what is put together here are generators of records.  Called by source.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat

from .netpoll import read
from .template import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable, Iterator

    from .template import Record

    Records = Iterator[Record]

CHUNK = 65536
RANGE = r"(-?\d[\d_]*)(?:-(-?\d[\d_]*)(?::(\d+))?)?"
ESCAPES = {"n": "\n", "t": "\t", "0": "\0", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "\\": "\\"}


class Layout:
    """How a line becomes a record.

    Args:
        delimiter: what ends a line; more than one byte, too.
        columns: a regular expression between the columns (--colsep).
        csv: what separates the columns of CSV.
        trim: n, l, r, lr or rl: blanks are taken off at the left and right.
        end: no line comes after this one (-E).
    """

    def __init__(self, delimiter: bytes = b"\n", columns: str | None = None, csv: str | None = None, trim: str | None = None,
                 end: str | None = None) -> None:
        self.delimiter, self.csv, self.end = delimiter, csv, end
        self.columns = None if columns is None or csv is not None else compiled(columns)
        self.trim = trimming(trim or ("lr" if self.columns is not None else "n"))

    def record(self, line: str) -> Record:
        if self.columns is None:
            return (self.trim(line),)
        return tuple([self.trim(value or "") for value in self.columns.split(line)])


def compiled(columns: str) -> re.Pattern[str]:
    import re

    try:
        return re.compile(columns)
    except re.error as e:
        raise InputError(f"--colsep {columns!r} is no regular expression: {e}") from None


def trimming(which: str) -> Callable[[str], str]:
    blanks = " \t\r\n"
    ways: dict[str, Callable[[str], str]] = {
        "n": str, "l": lambda s: s.lstrip(blanks), "r": lambda s: s.rstrip(blanks), "lr": lambda s: s.strip(blanks),
        "rl": lambda s: s.strip(blanks)}
    if which not in ways:
        raise InputError(f"--trim {which!r}: it is one of n, l, r, lr")
    return ways[which]


def unescaped(text: str) -> str:
    r"""Of a delimiter: \n, \t, \0, \x41, \101.

    Example:
        >>> unescaped(r"a\tb\x41\\")
        'a\tbA\\'
    """
    import re

    def one(found: re.Match[str]) -> str:
        code = found[1]
        if code[0] == "x":
            return chr(int(code[1:], 16))
        return chr(int(code, 8)) if code.isdigit() and code != "0" else ESCAPES.get(code, code)

    return re.sub(r"\\(x[0-9a-fA-F]{1,2}|[0-7]{1,3}|.)", one, text, flags=re.DOTALL)


# -- sources --------------------------------------------------------------------------------------


def lines(fd: int, delimiter: bytes) -> Iterator[str]:
    """The lines of a file, as they come; it is closed at its end."""
    rest: bytes | bytearray = b""
    while data := read(fd, CHUNK):
        if delimiter not in rest[-len(delimiter):] + data:
            if not isinstance(rest, bytearray):
                rest = bytearray(rest)  # a long line grows in place
            rest += data
            continue
        *whole, rest = (bytes(rest) + data).split(delimiter)
        for line in whole:
            yield os.fsdecode(line)
    if rest:
        yield os.fsdecode(bytes(rest))
    if fd:
        os.close(fd)


def delimited(words: list[str], delimiter: bytes) -> list[str]:
    """Of the words that follow `:::`, those between delimiters."""
    return os.fsdecode(delimiter.join(map(os.fsencode, words))).split(os.fsdecode(delimiter)) if words else words


def from_file(path: str, layout: Layout) -> Records:
    """The records of a file; `-` is standard input.

    Raises:
        InputError: it cannot be opened.
    """
    return records(lines(opened(path), layout.delimiter), layout)


def opened(path: str) -> int:
    """Its descriptor; InputError: it cannot be opened."""
    if path == "-":
        return 0
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.close(fd)
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except OSError as e:
        raise InputError(f"cannot open the input file {path!r}: {e.strerror}") from None
    return fd


def records(found: Iterable[str], layout: Layout) -> Records:
    """Lines as records."""
    if layout.csv is not None:
        yield from of_csv(found, layout)
        return
    make = layout.record
    for line in found:
        if line == layout.end:
            return
        yield make(line)


def of_csv(found: Iterable[str], layout: Layout) -> Records:
    """As spreadsheets write it: values in "..." may hold the separator, line ends and doubled quotes."""
    from csv import Error, reader

    def parsed(text: str) -> Record:
        try:
            rows = list(reader([line + "\n" for line in text.split("\n")], delimiter=layout.csv or ",", strict=True))
        except Error as e:
            raise InputError(f"this is no CSV ({e}): {text[:60]!r}") from None
        return tuple([layout.trim(value) for value in (rows[0] if rows else [""])])

    pending: list[str] = []
    quotes, first = 0, True
    for line in found:
        if first:
            line, first = line.removeprefix("\ufeff"), False
        pending.append(line)
        quotes += line.count('"')
        if quotes % 2 == 0:
            yield parsed("\n".join(pending).removesuffix("\r"))
            pending, quotes = [], 0
    if pending:
        raise InputError(f"this is no CSV (a quote is not closed): {pending[0][:60]!r}")


def from_range(spec: str) -> Records:
    """1-1000, 0-10:2, 1,5,7-9: whole numbers, as HyperQueue's --array has them."""
    import re

    from .ranges import numbers

    for part in spec.split(","):
        found = re.fullmatch(RANGE, part.strip())
        if found is None:
            raise InputError(f"{spec!r} is no range: give such as 1-1000, 0-10:2 or 1,5,7-9")
        first, last = int(found[1]), int(found[2] or found[1])
        step = int(found[3] or 1)
        if step < 1 or last < first:
            raise InputError(f"{spec!r} is no range: {part!r} has no numbers in it")
        for n in numbers((first, last, step)):
            yield (str(n),)


# -- several of them ------------------------------------------------------------------------------


def product(sources: list[Records]) -> Records:
    """All combinations, the last source the fastest.  The first one is read as it comes, the others are kept."""
    if len(sources) == 1:
        yield from sources[0]
        return
    kept = [list(source) for source in sources[1:]]
    for record in sources[0]:
        for combination in itertools.product(*kept):
            yield tuple(itertools.chain(record, *combination))


def linked(sources: list[Records]) -> Records:
    """`:::+`: the first with the first, as long as all have one."""
    if len(sources) == 1:
        yield from sources[0]
        return
    for together in zip(*sources, strict=False):
        yield tuple(itertools.chain(*together))


def linked_around(sources: list[Records]) -> Records:
    """--link: the first with the first, till the longest ends; the others begin again."""
    if len(sources) == 1:
        yield from sources[0]
        return
    seen: list[list[Record]] = [[] for _ in sources]
    ended = [False] * len(sources)
    for n in itertools.count():
        together: list[Record] = []
        for i, source in enumerate(sources):
            record = () if ended[i] else next(source, ())
            if record == ():
                ended[i] = True
                record = seen[i][n % len(seen[i])] if seen[i] else ("",)
            else:
                seen[i].append(record)
            together.append(record)
        if all(ended):
            return
        yield tuple(itertools.chain(*together))


# -- several records a job ------------------------------------------------------------------------


def one_by_one(found: Records) -> Iterator[tuple[Record, ...]]:
    for record in found:
        yield (record,)


def batches(found: Records, most: int, size: int, longest: int, grows: Callable[[Record], int],
            spread: int = 0) -> Iterator[tuple[Record, ...]]:
    """As many records as go into a command.

    Args:
        most: no more than so many; 0: as many as there is room for.
        size: the length of the command without them, in bytes.
        longest: what its length must be less than.
        grows: by how much it grows with a record.
        spread: those that are left when no more come are spread over so many commands (-X, -m); 0: they are not.

    Raises:
        InputError: there is no room for a single one.
    """
    batch: list[Record] = []
    length = size
    for record in found:
        more = grows(record)
        if batch and length + more > longest:
            yield tuple(batch)
            batch, length = [], size
        if length + more > longest:
            raise InputError(f"the command line is too long ({length + more} bytes, {longest} are allowed) with this input: "
                             f"{' '.join(record)[:60]!r}")
        batch.append(record)
        length += more
        if len(batch) == most:
            yield tuple(batch)
            batch, length = [], size
    if batch:
        part = -(-len(batch) // spread) if spread else len(batch)
        for at in range(0, len(batch), part):
            yield tuple(batch[at:at + part])


def without_values(found: Records) -> Iterator[tuple[Record, ...]]:
    """-N0 and -n0: a command for each record, without it."""
    for _ in found:
        yield ((),)


def without_blanks(found: Records) -> Records:
    """--no-run-if-empty: inputs of nothing but blanks are left out."""
    for record in found:
        if any(value.strip(" \t\r\n") for value in record):
            yield record


def shuffled(found: Records) -> Records:
    """--shuf: in random order."""
    from random import shuffle

    kept = list(found)
    shuffle(kept)
    yield from kept
