"""Replacement strings: a command line with `{}`, `{.}`, `{2/}`, `{name}`, `{#}` and so on, and what it becomes for each draft.

A template has two forms.  The *line* is what people see and what the shell runs: each value is quoted as its place asks for
(shell.Scanner).  The *words* are an argv, with the values as they are, and need no shell: a line has them if nothing in it
means anything to a shell, and with --quote always.

The values of a draft are those of its records, one after the other: `{}` is all of them, `{2}` the second.  With -X, -N and -L
a word with `{}` is repeated for each value.  With -X one with `{2}` is repeated for each record, and that is the second of the
record.  Called by source and command.
"""

from __future__ import annotations

import os

from ..errors import DgmpError
from .shell import Scanner, as_it_is, is_plain, is_program, needs_no_shell, quote, shell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .command import Draft

    Record = tuple[str, ...]

LONGEST_LINE = 131_071  # bytes, as one argument of the shell; Linux: MAX_ARG_STRLEN, less the NUL at its end
BLANKS = " \t\n"
STRINGS = {"{}": "", "{.}": ".", "{/}": "/", "{//}": "//", "{/.}": "/.", "{#}": "#", "{%}": "%"}


class InputError(DgmpError):
    """Inputs that cannot be read, or of which no command line can be made."""


def whole(value: str) -> str:
    return value


def without_extension(value: str) -> str:
    dot = value.rfind(".")
    return value[:dot] if dot > value.rfind("/") else value


def basename(value: str) -> str:
    return value[value.rfind("/") + 1:]


def dirname(value: str) -> str:
    path = value.rstrip("/")
    if "/" not in path:
        return "/" if value[:1] == "/" else "."
    return path[:path.rfind("/")].rstrip("/") or "/"


def basename_without_extension(value: str) -> str:
    return without_extension(basename(value))


def without(extensions: int) -> Callable[[str], str]:
    """Takes so many off, if there are so many."""
    def part(value: str) -> str:
        name, *found = basename(value).rsplit(".", extensions)
        return value if len(found) < extensions else value[:len(value) - len(basename(value))] + name
    return part


def last(extensions: int) -> Callable[[str], str]:
    """So many, or nothing."""
    def part(value: str) -> str:
        _, *found = basename(value).rsplit(".", extensions)
        return "" if len(found) < extensions else ".".join(found)
    return part


def folder(value: str) -> str:
    return value[:max(0, value.rfind("/"))]


PLUS: dict[str, Callable[[str], str]] = {
    "+/": folder, "+.": last(1), "+..": last(2), "+...": last(3), "..": without(2), "...": without(3),
    "/..": lambda value: without(2)(basename(value)), "/...": lambda value: without(3)(basename(value))}
PLUS_STRINGS = {f"{{{part}}}": part for part in PLUS}
PARTS: dict[str, Callable[[str], str]] = {
    "/.": basename_without_extension, "//": dirname, "/": basename, ".": without_extension, "": whole, **PLUS}


class Field:
    """A replacement string at its place in the line."""

    __slots__ = ("index", "of", "part", "quoting")

    def __init__(self, of: str, index: int | None, quoting: Callable[[str], str]) -> None:
        self.of, self.index, self.quoting = of, index, quoting
        self.part = PARTS.get(of)

    def found(self, values: Sequence[str], columns: Sequence[str], seq: int, slot: int | None) -> list[str]:
        """What it stands for: all the values, or one of the columns."""
        if self.part is None:
            return [str(seq) if self.of == "#" else "{%}" if slot is None else str(slot)]
        if self.index is None:
            return [self.part(value) for value in values]
        index = self.index - 1 if self.index > 0 else self.index + len(columns)
        return [self.part(columns[index])] if 0 <= index < len(columns) else []

    @property
    def is_input(self) -> bool:
        return self.part is not None


Piece = str | Field


class Template:
    """A command line with replacement strings.

    Args:
        text: the line; or, with quoted, its words.
        names: those of the columns, from 1, for `{name}`.
        strings: what replacement strings are called (-I).
        append: whether the inputs come last if no replacement string says where.
        quoted: the words are passed on as they are (--quote).
        repeat: words are repeated (-X, -N, -L).
        whole: but `{2}` is the second of all values (-N, -L).
        literal: the values are not quoted: they are the command line, or it is no command line (--tagstring).
    """

    def __init__(self, text: str | list[str], names: Sequence[str] = (), *, strings: Mapping[str, str] = STRINGS,
                 append: bool = True, quoted: bool = False, repeat: bool = False, whole: bool = False,
                 literal: bool = False) -> None:
        self.text = " ".join(map(quote, text)) if isinstance(text, list) else text
        self.repeat, self.whole, self.literal = repeat, whole, literal
        columns = {name: i for i, name in reversed([*enumerate(names, 1)])}
        parts = sorted((part for name, part in strings.items() if name == f"{{{part}}}" and part in PARTS),
                       key=len, reverse=True)

        def pieces(text: str, scanner: Scanner | None) -> list[Piece]:
            return split(text, strings, columns, parts, scanner)

        scanner = None if literal else Scanner()
        if isinstance(text, list):
            self.tokens = [pieces(word, None) for word in text]
            self.gaps = [" "] * (len(text) - 1) + [""]
        else:
            self.tokens, self.gaps = tokens(pieces(text, scanner)) if text else ([], [])
        if append and not any(isinstance(piece, Field) for token in self.tokens for piece in token):
            if self.tokens:
                self.gaps[-1] = " "
            self.tokens.append([Field("", None, as_it_is if literal or quoted else quote)])
            self.gaps.append("")
        self.numbered = "PARALLEL_SEQ" in self.text or "DGMP_JOB_SEQ" in self.text or any(
            isinstance(piece, Field) and piece.of == "#" for token in self.tokens for piece in token)
        self.slotted = any(isinstance(piece, Field) and piece.of == "%" for token in self.tokens for piece in token)
        self.quoted = quoted
        self.plain = quoted or (all(is_plain(piece) for token in self.tokens for piece in token if isinstance(piece, str))
                                and not any("\n" in gap for gap in self.gaps))
        first = self.tokens[0] if self.tokens else []
        if self.plain and not quoted and all_text(first):
            self.plain = is_program("".join(map(str, first)))

    # -- the line --------------------------------------------------------------------------------

    def line(self, draft: Draft, slot: int | None) -> str:
        """The command line of this draft; without a slot `{%}` is left as it is."""
        if self.quoted:
            return " ".join(map(quote, self.words(draft, slot)))
        return "".join([self.written(token, draft, slot) + gap for token, gap in zip(self.tokens, self.gaps, strict=True)])

    def written(self, token: list[Piece], draft: Draft, slot: int | None) -> str:
        return " ".join([self.join(token, *turn, draft.seq, slot) for turn in self.turns(token, draft.records, draft.inputs)])

    def join(self, token: list[Piece], values: Sequence[str], columns: Sequence[str], seq: int, slot: int | None) -> str:
        return "".join([piece if isinstance(piece, str)
                        else " ".join(map(piece.quoting, piece.found(values, columns, seq, slot))) for piece in token])

    def turns(self, token: list[Piece], records: Sequence[Record], inputs: Record) -> list[tuple[Record, Record]]:
        """How often a word is there, and of what: the values for `{}`, and those for `{2}`."""
        if not self.repeats(token) or not inputs:
            return [(inputs, inputs)]
        if not self.whole and has_column(token):
            return [(record, record) for record in records]
        return [((value,), inputs) for value in inputs]

    def repeats(self, token: list[Piece]) -> bool:
        """Whether this word is repeated."""
        return self.repeat and has_input(token) and not (self.whole and not has_all(token))

    # -- the words -------------------------------------------------------------------------------

    def words(self, draft: Draft, slot: int | None) -> list[str]:
        """The argv of this draft, if no shell is needed."""
        words: list[str] = []
        for token in self.tokens:
            for turn in self.turns(token, draft.records, draft.inputs):
                if len(token) == 1 and isinstance(token[0], str):
                    words.append(token[0])
                else:
                    words += self.spread(token, *turn, draft.seq, slot) or ([""] if self.quoted else [])
        return words

    def spread(self, token: list[Piece], values: Record, columns: Record, seq: int, slot: int | None) -> list[str]:
        """A word: several, if a replacement string in it stands for several values."""
        words: list[str] = []
        current: str | None = None
        for piece in token:
            found = [piece] if isinstance(piece, str) else piece.found(values, columns, seq, slot)
            if found:
                current = (current or "") + found[0]
                words += [current, *found[1:-1]] if len(found) > 1 else []
                current = found[-1] if len(found) > 1 else current
        return words if current is None else [*words, current]

    def argv(self, draft: Draft, slot: int | None) -> list[str]:
        """What is to be started: the words, or the shell with the line."""
        if self.plain and not self.literal:
            argv = self.words(draft, slot)
            if self.quoted or (argv and needs_no_shell(argv)):
                return argv
        line = self.line(draft, slot)
        if self.literal and is_plain(line):
            argv = [word for word in line.split(" ") if word]
            if argv and needs_no_shell(argv):
                return argv
        return [shell(), "-c", line]

    # -- how long it gets ------------------------------------------------------------------------

    def size(self) -> int:
        """Bytes of the line without inputs."""
        return sum(len(os.fsencode(piece)) for token in self.tokens for piece in token
                   if isinstance(piece, str) and not self.repeats(token)) + sum(map(len, self.gaps))

    def grows(self, record: Record) -> int:
        """By how many bytes the line grows with this record."""
        total = 0
        for token in self.tokens:
            fields = [piece for piece in token if isinstance(piece, Field) and piece.is_input]
            if self.repeats(token):
                found = [self.join(token, *turn, 0, None) for turn in self.turns(token, (record,), record)]
            else:
                found = [f.quoting(value) for f in fields for value in f.found(record, record, 0, None)]
            total += sum(len(os.fsencode(text)) + 1 for text in found)
        return total


def split(text: str, strings: Mapping[str, str], columns: Mapping[str, int], parts: Sequence[str],
          scanner: Scanner | None) -> list[Piece]:
    """The replacement strings of a line, and what is between them."""
    pieces: list[Piece] = []
    begun = at = 0
    first = {string[0] for string in strings} | {"{"}
    while at < len(text):
        found = found_at(text, at, strings, columns, parts) if text[at] in first else None
        if found is None:
            at += 1
            continue
        length, of, index = found
        if scanner is not None:
            scanner.read(text[begun:at])
        if at > begun:
            pieces.append(text[begun:at])
        pieces.append(Field(of, index, as_it_is if scanner is None or of not in PARTS else scanner.quoting()))
        if scanner is not None:
            scanner.value()
        begun = at = at + length
    if begun < len(text):
        pieces.append(text[begun:])
    return pieces


def found_at(text: str, at: int, strings: Mapping[str, str], columns: Mapping[str, int],
             parts: Sequence[str]) -> tuple[int, str, int | None] | None:
    """The replacement string that begins there: its length, of what it is, and of which column.

    Args:
        parts: what may follow a column, the longest first.
    """
    longest = max((string for string in strings if text.startswith(string, at)), key=len, default="")
    if longest:
        return len(longest), strings[longest], None
    end = text.find("}", at)
    if text[at] != "{" or end < 0:
        return None
    inner = text[at + 1:end]
    for part in parts:
        name = inner.removesuffix(part)
        if part and name == inner:
            continue
        if name in columns:
            return end + 1 - at, part, columns[name]
        if name.removeprefix("-").isdecimal():
            return end + 1 - at, part, int(name) or None
    return None


def tokens(pieces: list[Piece]) -> tuple[list[list[Piece]], list[str]]:
    """The words between blanks, and the blanks after each."""
    words: list[list[Piece]] = [[]]
    gaps: list[str] = []
    for piece in pieces:
        if not isinstance(piece, str):
            words[-1].append(piece)
            continue
        while piece:
            rest = piece.lstrip(BLANKS)
            if rest != piece:
                gaps.append(piece[:len(piece) - len(rest)])
                words.append([])
            end = min((at for at in map(rest.find, BLANKS) if at >= 0), default=len(rest))
            if end:
                words[-1].append(rest[:end])
            piece = rest[end:]
    gaps.append("")
    if not words[-1] and len(words) > 1:  # blanks at the end belong to the word before them
        words.pop()
        gaps.pop()
    return words, gaps


def all_text(token: list[Piece]) -> bool:
    return bool(token) and all(isinstance(piece, str) for piece in token)


def has_all(token: list[Piece]) -> bool:
    """`{}`, or a part of it."""
    return any(isinstance(piece, Field) and piece.is_input and piece.index is None for piece in token)


def has_column(token: list[Piece]) -> bool:
    """`{2}`, or a part of it."""
    return any(isinstance(piece, Field) and piece.index is not None for piece in token)


def has_input(token: list[Piece]) -> bool:
    return any(isinstance(piece, Field) and piece.is_input for piece in token)

