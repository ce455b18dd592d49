"""sys.stdout and sys.stderr of an M, when its client writes what Gs print.

Text is UTF-8 on its way, so a print never fails for the encoding; what goes through `.buffer` stays bytes.  A line is one
message: each G, and each other thread, has its own unfinished lines, which are sent when they are finished, flushed, or
their G ends.  What user code puts in the place of a stream is its G's own: another G of the same M, which runs while that
one is parked or after it, finds ours.  `.fileno()` is the client's descriptor: what is written to that goes there at once.

Called by workers.m, which makes it, and proc (settle, flush_threads).
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Any

from ..ship.packets import BINARY, STDERR, STDOUT

if TYPE_CHECKING:
    from .proc import G, M

LONGEST_LINE = 1 << 20  # bytes; a longer one is sent in pieces


class Line:
    """What somebody has written of a line that is not finished."""

    __slots__ = ("what", "pieces", "size")

    def __init__(self, what: int, data: bytes) -> None:
        self.what, self.pieces, self.size = what, [data], len(data)


class Lines(io.RawIOBase):
    """Sends what is written to it, by lines.  BINARY in what: not text."""

    def __init__(self, output: Output, stream: int, flags: int, isatty: bool) -> None:
        self.output, self.stream, self.what, self.tty = output, stream, stream | flags, isatty
        self.name = ("<stdout>", "<stderr>")[stream]

    def write(self, data: Any) -> int:
        if self.closed:
            raise ValueError("I/O operation on closed file.")
        if type(data) is not bytes:
            data = memoryview(data).tobytes()
        output = self.output
        key = output.who(), self.stream
        line = output.unfinished.get(key)
        if line is not None and line.what != self.what:
            output.finish(key)
            line = None
        # As a line-buffered stream: a carriage return is for somebody who watches.
        end = len(data) if b"\r" in data else data.rfind(b"\n") + 1
        if end:
            if line is not None:
                del output.unfinished[key]
                output.send(self.what, b"".join([*line.pieces, data[:end]]))
            else:
                output.send(self.what, data[:end])
            if end < len(data):
                output.unfinished[key] = Line(self.what, data[end:])
        elif line is None:
            if data:
                output.unfinished[key] = Line(self.what, data)
        else:
            line.pieces.append(data)
            line.size += len(data)
            if line.size > LONGEST_LINE:
                output.finish(key)
        if output.m.pending:
            output.run_handlers()
        return len(data)

    def flush(self) -> None:
        super().flush()
        self.output.finish((self.output.who(), self.stream))

    def close(self) -> None:
        if not self.closed:
            super().close()
            self.output.lost(self)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.stream + 1

    def isatty(self) -> bool:
        return self.tty


class Text(io.TextIOWrapper):
    """Looks like the client's stream."""

    mode = "w"

    def __init__(self, output: Output, stream: int, like: tuple[str, str, bool]) -> None:
        self.text = Lines(output, stream, 0, like[2])
        self.bytes = Lines(output, stream, BINARY, like[2])
        self.like: tuple[str, str] | None = like[:2]
        super().__init__(self.text, "utf-8", "surrogatepass", "\n", write_through=True)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.like[0] if self.like else super().encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.like[1] if self.like else super().errors

    @property
    def buffer(self) -> Lines:  # type: ignore[override]
        return self.bytes

    def reconfigure(self, *, encoding: Any = None, errors: Any = None, **others: Any) -> None:
        """Whoever chooses an encoding wants those bytes."""
        super().reconfigure(encoding=encoding, errors=errors, write_through=True, **others)
        if encoding is not None:
            self.like = None
            is_text = codecs.lookup(super().encoding).name == "utf-8"
            self.text.what = self.text.stream | (0 if is_text else BINARY)

    def detach(self) -> Lines:  # type: ignore[override]
        super().detach()
        self.text.output.lost(self.text)
        return self.bytes


class Output:
    """Both streams of an M.

    Args:
        m: the M.
        send: sends a message (ship.packets) to the client.
        run_handlers: runs pending signal handlers of the G that calls.
        like: encoding, errors and isatty of the client's stdout and stderr.
    """

    def __init__(self, m: M, send: Callable[[int, bytes], None], run_handlers: Callable[[], None],
                 like: list[tuple[str, str, bool]]) -> None:
        self.m, self.send, self.run_handlers, self.like = m, send, run_handlers, like
        self.unfinished: dict[tuple[Any, int], Line] = {}
        os.register_at_fork(after_in_child=self.unfinished.clear)
        m.stdout, m.stderr = self.new(STDOUT), self.new(STDERR)
        m.output = self
        self.restore()

    def new(self, stream: int) -> Text:
        return Text(self, stream, self.like[stream])

    def who(self) -> Any:
        """Whose line it is: a G's, another thread's, or (None) the scheduler's."""
        ident = get_ident()
        return self.m.curg if ident == self.m.thread else ident

    def finish(self, key: tuple[Any, int]) -> None:
        """Sends the unfinished line, if there is one."""
        line = self.unfinished.pop(key, None)
        if line is not None:
            self.send(line.what, b"".join(line.pieces))

    def lost(self, lines: Lines) -> None:
        """User code has closed or detached them: the next G finds new ones."""
        for stream, text in enumerate((self.m.stdout, self.m.stderr)):
            if isinstance(text, Text) and lines in (text.text, text.bytes):
                if stream == STDOUT:
                    self.m.stdout = None
                else:
                    self.m.stderr = None

    def settle(self, gp: G) -> None:
        """gp has ended: its unfinished lines are sent, and the streams are ours again.  Raises nothing."""
        with contextlib.suppress(BaseException):
            self.finish((gp, STDOUT))
            self.finish((gp, STDERR))
            self.restore()

    def restore(self) -> None:
        if self.m.stdout is None:
            self.m.stdout = self.new(STDOUT)
        if self.m.stderr is None:
            self.m.stderr = self.new(STDERR)
        sys.stdout = sys.__stdout__ = self.m.stdout  # type: ignore[misc]
        sys.stderr = sys.__stderr__ = self.m.stderr  # type: ignore[misc]

    def flush_threads(self) -> None:
        """The M has nothing to do: what other threads, whose end nobody sees, have not finished is sent."""
        for key in list(self.unfinished):
            if key[0] is None or isinstance(key[0], int):
                self.finish(key)
