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

MOST_PIECES = 1 << 20  # a line of more is not kept whole


class Line(list[Any]):
    """What somebody has written of a line that is not finished: pieces of text, or (BINARY in what) of bytes."""

    __slots__ = ("what",)

    def __init__(self, what: int) -> None:
        self.what = what


class Stream:
    """stdout or stderr of an M: whose unfinished lines there are, and how lines leave."""

    def __init__(self, output: Output, number: int, like: tuple[str, str, bool]) -> None:
        self.output, self.m, self.number, self.like = output, output.m, number, like
        self.lines: dict[Any, Line] = {}

    def who(self) -> Any:
        """Whose line it is: a G's, another thread's, or (None) the scheduler's."""
        ident = get_ident()
        return self.m.curg if ident == self.m.thread else ident

    def put(self, what: int, piece: Any, lf: Any, cr: Any) -> None:
        m = self.m
        ident = get_ident()
        who = m.curg if ident == m.thread else ident
        line = self.lines.get(who)
        if line is None or line.what != what:
            line = self.begin(who, what)
        line.append(piece)
        if lf in piece or cr in piece or len(line) > MOST_PIECES:
            # As a line-buffered stream: a carriage return is for somebody who watches.
            rest = piece[len(piece):] if cr in piece else piece[piece.rfind(lf) + 1:]
            if rest:
                line[-1] = piece[:-len(rest)]
            self.send(line)
            if rest:
                line.append(rest)
        if m.pending:
            self.output.run_handlers()

    def begin(self, who: Any, what: int) -> Line:
        self.finish(who)
        line = self.lines[who] = Line(what)
        return line

    def finish(self, who: Any) -> None:
        """Sends that line as it is, if there is one."""
        line = self.lines.get(who)
        if line:
            self.send(line)
        self.lines.pop(who, None)

    def send(self, line: Line) -> None:
        what = line.what
        data = b"".join(line) if what & BINARY else "".join(line).encode("utf-8", "surrogatepass")
        if self.number == STDERR:
            self.m.view.said(data)
        self.output.send(what, data)
        line.clear()  # after: at the limit of the stack it may not have been sent


class Lines(io.RawIOBase):
    """What a stream of text writes to, and what is its `.buffer`."""

    def __init__(self, stream: Stream, is_text: bool) -> None:
        self.stream, self.is_text = stream, is_text
        self.name = ("<stdout>", "<stderr>")[stream.number]

    def write(self, data: Any) -> int:
        if self.closed:
            raise ValueError("I/O operation on closed file.")
        if type(data) is not bytes:
            data = memoryview(data).tobytes()
        if self.is_text:
            self.stream.put(self.stream.number, data.decode("utf-8", "surrogatepass"), "\n", "\r")
        elif data:
            self.stream.put(self.stream.number | BINARY, data, b"\n", b"\r")
        return len(data)

    def flush(self) -> None:
        super().flush()
        self.stream.finish(self.stream.who())

    def close(self) -> None:
        if not self.closed:
            super().close()
            self.stream.output.lost(self)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.stream.number + 1

    def isatty(self) -> bool:
        return self.stream.like[2]


class Text(io.TextIOWrapper):
    """Looks like the client's stream."""

    mode = "w"

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.text, self.bytes = Lines(stream, True), Lines(stream, False)
        self.usual = True  # neither reconfigured nor closed nor detached
        self.like: tuple[str, str] | None = stream.like[:2]
        super().__init__(self.text, "utf-8", "surrogatepass", "\n", write_through=True)

    def write(self, text: str) -> int:
        if not self.usual or type(text) is not str:
            return super().write(text)
        self.stream.put(self.stream.number, text, "\n", "\r")
        return len(text)

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
        self.usual = False
        if encoding is not None:
            self.like = None
            self.text.is_text = codecs.lookup(super().encoding).name == "utf-8"

    def detach(self) -> Lines:  # type: ignore[override]
        super().detach()
        self.usual = False
        self.stream.output.lost(self.text)
        return self.bytes

    def close(self) -> None:
        self.usual = False
        super().close()


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
        self.m, self.send, self.run_handlers = m, send, run_handlers
        self.out, self.err = Stream(self, STDOUT, like[STDOUT]), Stream(self, STDERR, like[STDERR])
        self.out_lines, self.err_lines = self.out.lines, self.err.lines
        os.register_at_fork(after_in_child=self.forget)
        m.stdout, m.stderr = Text(self.out), Text(self.err)
        m.output = self
        self.restore()

    def forget(self) -> None:
        """In a child that a G has forked: what is not finished is its parent's."""
        self.out_lines.clear()
        self.err_lines.clear()

    def lost(self, lines: Lines) -> None:
        """User code has closed or detached them: the next G finds new ones."""
        m = self.m
        if isinstance(m.stdout, Text) and lines in (m.stdout.text, m.stdout.bytes):
            m.stdout = None
        if isinstance(m.stderr, Text) and lines in (m.stderr.text, m.stderr.bytes):
            m.stderr = None

    def settle(self, gp: G) -> None:
        """gp has ended: its unfinished lines are sent, and the streams are ours again.  Raises nothing."""
        with contextlib.suppress(BaseException):
            self.out.finish(gp)
            self.err.finish(gp)
            self.restore()

    def restore(self) -> None:
        if self.m.stdout is None:
            self.m.stdout = Text(self.out)
        if self.m.stderr is None:
            self.m.stderr = Text(self.err)
        sys.stdin = sys.__stdin__ = self.m.stdin  # type: ignore[misc]
        sys.stdout = sys.__stdout__ = self.m.stdout  # type: ignore[misc]
        sys.stderr = sys.__stderr__ = self.m.stderr  # type: ignore[misc]

    def flush_threads(self) -> None:
        """The M has nothing to do: what the scheduler and threads that have ended had not finished is sent."""
        if self.out_lines or self.err_lines:
            alive = sys._current_frames()
            for stream in (self.out, self.err):
                for who in [who for who in list(stream.lines) if who is None or isinstance(who, int) and who not in alive]:
                    stream.finish(who)
