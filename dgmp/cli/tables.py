"""Tables and times for people: by rich on a terminal if it is there (the extra `dgmp[tui]`), else plain, in columns.

rich takes longer to import than all else of a verb, so it is imported only when a table goes to a terminal.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from ..jobs.amounts import spoken

GAP = "  "
STYLES = {"running": "cyan", "finished": "green", "failed": "red", "cancelled": "yellow", "aborted": "magenta"}


def print_table(heads: Sequence[str], rows: Iterable[Sequence[Any]], right: Iterable[str] = ()) -> None:
    """Prints it to stdout; columns named in `right` are aligned there, the last one is cut to a terminal's width."""
    cells = [["-" if cell is None or cell == "" else visible(str(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb"):
        try:
            return print_rich(heads, cells, set(right))
        except ImportError:
            pass
    print_plain(heads, cells, set(right), shutil.get_terminal_size().columns if sys.stdout.isatty() else None)


def print_plain(heads: Sequence[str], rows: list[list[str]], right: set[str], width: int | None) -> None:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in [list(heads), *rows]:
        cells = [f"{cell:>{w}}" if head in right else f"{cell:<{w}}" for head, cell, w in zip(heads, row, widths, strict=True)]
        line = GAP.join(cells).rstrip()
        print(line if width is None or len(line) <= width else line[:max(1, width - 1)] + "…")


def print_rich(heads: Sequence[str], rows: list[list[str]], right: set[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for at, head in enumerate(heads):
        last = at == len(heads) - 1
        table.add_column(head, justify="right" if head in right else "left", no_wrap=True, overflow="ellipsis",
                         min_width=None if last else len(head), ratio=1 if last else None)
    for row in rows:
        table.add_row(*[Text(cell, style=STYLES.get(cell.partition(" ")[0], "") if head == "STATE" else "")
                        for head, cell in zip(heads, row, strict=True)])
    Console(highlight=False).print(table)


def print_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """Name and value, a line each; those without a value are left out."""
    shown = [(name, visible(str(value))) for name, value in fields if value not in (None, "", [], {})]
    width = max(len(name) for name, _ in shown)
    for name, value in shown:
        print(f"{name:<{width}}{GAP}{value}")


def visible(text: str) -> str:
    """With what would move the cursor, or is no character, shown as an escape: names are what people have typed.

    Example:
        >>> visible("a\\nb\\x1b[31m\\udc80é")
        'a\\\\nb\\\\x1b[31m\\\\x80é'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else byte_escape(c) for c in text)


def byte_escape(c: str) -> str:
    if "\udc80" <= c <= "\udcff":  # a byte that was no UTF-8
        return f"\\x{ord(c) - 0xdc00:02x}"
    return c.encode("unicode_escape").decode()


def moment(seconds: float | None) -> str | None:
    """A time of day, with its date if that is not today's."""
    if seconds is None:
        return None
    then = time.localtime(seconds)
    today = then[:3] == time.localtime()[:3]
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S", then)


def elapsed(started: float | None, ended: float | None) -> str | None:
    """How long it has taken, or takes until now."""
    if started is None:
        return None
    seconds = max(0.0, (time.time() if ended is None else ended) - started)
    return f"{seconds:.2f}s" if seconds < 10 else spoken(seconds)


def amount(size: float | None) -> str | None:
    """Bytes as people say them, in powers of 1024 as --mem takes them."""
    if size is None:
        return None
    for unit in ("", "K", "M", "G", "T"):
        if size < 1024 or unit == "T":
            return f"{size:.0f}{unit}" if size >= 10 or not unit else f"{size:.1f}{unit}"
        size /= 1024
    raise AssertionError
