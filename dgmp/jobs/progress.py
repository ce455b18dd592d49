"""--bar, --eta and --progress: how far it has come, on stderr.

On a terminal one line, the last one, is drawn again as things happen, at most ten times a second, and taken away before
anything else is written there (hide).  Elsewhere it is a whole line every few seconds.  How many jobs there are is not known
while their inputs are still coming; until then it is said how many are done.

Called by control.
"""

from __future__ import annotations

import contextlib
import os

from .amounts import spoken

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Literal

    from .halt import Tally

    Style = Literal["bar", "eta", "progress"]
SOON = 0.1  # seconds between two drawings as things happen
CLOCK = 1.0  # as nothing does
PLAIN = 5.0  # between two whole lines
LEAST_BAR = 8  # columns
HIDE = "\r\x1b[K"


class Progress:
    """Draws it.

    Args:
        style: what is drawn.
        tally: what is counted.
        fd: where.
        now: when it begins.
    """

    def __init__(self, style: Style, tally: Tally, fd: int, now: float) -> None:
        self.style, self.tally, self.fd, self.begun = style, tally, fd, now
        self.terminal = os.isatty(fd)
        self.running = 0
        self.changed = self.drawn = self.below = False
        self.last = now if not self.terminal else now - CLOCK
        self.said = ""

    def started(self) -> None:
        self.running += 1
        self.changed = True

    def ended(self) -> None:
        self.running -= 1
        self.changed = True

    def look(self, now: float) -> float:
        """Draws, if it is time; returns when that is again."""
        if now >= self.due():
            self.draw(now)
        return self.due()

    def due(self) -> float:
        return self.last + ((SOON if self.changed else CLOCK) if self.terminal else PLAIN)

    def draw(self, now: float) -> None:
        self.last, self.changed = now, False
        if self.terminal:
            self.write("\n" * self.below + "\r" + self.text(now, self.columns() - 1) + "\x1b[K")
            self.drawn, self.below = True, False
        else:
            text = self.text(now, None)
            if text != self.said:
                self.write(f"dgmp: {text}\n")
            self.said = text

    def hide(self, line: bool = True) -> None:
        """Something else is about to be written on the terminal; line: it ends one, else we begin one of our own."""
        self.below = not line
        if self.drawn:
            self.write(HIDE)
            self.drawn, self.changed = False, True

    def close(self, now: float) -> None:
        """Nothing runs any more: the last word."""
        self.draw(now)
        if self.terminal:
            self.write("\n")
            self.drawn = False

    def columns(self) -> int:
        """Of the terminal, which may have been resized."""
        with contextlib.suppress(OSError):
            return os.get_terminal_size(self.fd).columns or 80
        return 80

    def text(self, now: float, columns: int | None) -> str:
        done, total = self.tally.done + self.tally.skipped, self.tally.total
        text = self.words(now, done, total)
        if columns is None:
            return text
        if self.style == "bar" and total:
            percent = f"{100 * done // total:3d}%"
            width = columns - len(percent) - len(text) - 4
            if width >= LEAST_BAR:
                filled = width * done // total
                text = f"{percent} [{'#' * filled}{' ' * (width - filled)}] {text}"
            else:
                text = f"{percent} {text}"
        return text[:max(0, columns)]

    def words(self, now: float, done: int, total: int | None) -> str:
        tally = self.tally
        words = [f"{done}/{total} done" if total is not None else f"{done} done"]
        if self.style != "bar":
            words.append(f"{self.running} running")
        if tally.failed:
            words.append(f"{tally.failed} failed")
        if self.style != "progress" and tally.done:
            each = (now - self.begun) / tally.done
            if self.style == "eta":
                words.append(f"{each:.2f}s a job")
            if total is not None:
                words.append(f"ETA {spoken(each * max(0, total - done) + 0.5)}")
        elif self.style != "progress" and total is not None:
            words.append("ETA ?")
        if total is None:
            words.append(spoken(now - self.begun))
        return ", ".join(words)

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # nobody looks any more
            os.write(self.fd, text.encode())
