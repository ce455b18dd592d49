"""What becomes of jobs' output.  Called by the launcher alone; bytes stay bytes, and memory is bounded whatever jobs print.

Grouped (the default): a job writes to two files without names, its slot's, so that nothing is to be pumped while it runs.  At
its end what is in them goes to our stdout and stderr, whole, one job after the other.  The next job of the slot gets the same
files, emptied, unless somebody may still write to them: a child that the job has left behind.

--line-buffer: pipes, read as lines come.  --ungroup: ours, and nothing is done.  --results: files with names, in a tree like
GNU parallel's; what would be grouped is in them alone.

--keep-order: what ends before its turn waits in a spill (spill.py), on disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select

from .netpoll import Netpoll, wait
from .process import NO_PROGRAM, CannotRun, Process
from .sink import Sink
from .spill import Spill, blocks, full_of, temporary_file, write_all

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from .policy import Policy

    Parts = tuple[Iterable[bytes], Iterable[bytes]]
    Told = tuple[Iterable[bytes], Iterable[bytes], bytes]  # and what is logged once it has been shown

LONGEST = 1 << 20  # of a line in memory
PIECE = 1 << 16
MOST_PIECES = 64
NOTHING: Parts = ((), ())
NO_FILE = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EILSEQ, errno.EINVAL)  # of such a name, there
LONGEST_SHOWN = 200


class Output:
    """Ungrouped: jobs have our stdout and stderr.  The others do more.

    Args:
        tag: each line begins with its job's tag and a tab.
        keep_order: jobs are shown in the order of their numbers, 1 the first.
        results: command -> the files for its stdout, its stderr and its number; None: there are none.
    """

    grouped = False
    early = False  # a job may be given its files long before it starts, and without a slot

    def __init__(self, tag: bool = False, keep_order: bool = False,
                 results: Callable[[Any], tuple[str, str, str]] | None = None) -> None:
        self.tagged = tag
        self.order = Order(self.show) if keep_order else None
        self.results = results
        self.out, self.err = Sink(1, "stdout"), Sink(2, "stderr")

    def attach(self, netpoll: Netpoll, alone: Callable[[Process], bool], policy: Policy) -> None:
        """The launcher's.

        Args:
            alone: whether a job that has ended has left nobody behind.
            policy: logs jobs as their output has been handed on.
        """
        self.netpoll, self.alone, self.policy = netpoll, alone, policy

    def open(self, process: Process) -> tuple[int, int]:
        """What a job that is to start gets for its 1 and 2.

        Raises:
            OSError: there are too many open files just now.
            DiskFull: there is no room.
            CannotRun: this job's results can have no files; of its output only the end is to be told of, by ended() or again().
        """
        return -1, -1

    def begun(self, process: Process) -> None:
        """It has them."""

    def say(self, process: Process, text: str) -> None:
        """For the stderr of a job that could not be run; before begun()."""
        self.err.write(f"dgmp: {text}\n".encode(errors="surrogateescape"))

    def ended(self, process: Process) -> None:
        """It is done: what it has printed is handed on, at once or in its turn."""
        self.policy.log(self.policy.line(process))

    def again(self, process: Process) -> None:
        """It will be run again: what it has printed is forgotten."""

    def spare(self) -> None:
        """Descriptors are lacking: what is kept for later jobs is closed."""

    def skipped(self, seq: int) -> None:
        """There will be no such job."""
        if self.order is not None:
            self.order.put(seq, (*NOTHING, b""))

    def show(self, told: Told) -> None:
        """To our stdout and stderr."""
        for sink, part in ((self.out, told[0]), (self.err, told[1])):
            for data in part:
                sink.write(data)
        self.policy.log(told[2])

    def hand_on(self, process: Process, parts: Parts) -> None:
        """Now, or in its turn."""
        told = (*parts, self.policy.line(process))
        if self.order is None:
            self.show(told)
        else:
            self.order.put(process.command.seq, told)

    def mute(self) -> None:
        """Nothing more is written."""
        self.out.muted = self.err.muted = True

    def hurry(self) -> None:
        """We do not wait for readers any more."""
        self.out.hurried = self.err.hurried = True

    def close(self) -> None:
        """Nothing runs any more: what still waits for its turn has it."""
        if self.order is not None:
            self.order.rest()

    def tag_of(self, process: Process) -> bytes:
        return os.fsencode(process.command.tag) + b"\t" if self.tagged else b""


class Order:
    """Hands on what jobs have printed in the order of their numbers.

    Attributes:
        turn: whose it is.
    """

    def __init__(self, show: Callable[[Told], None]) -> None:
        self.show = show
        self.turn = 1
        self.last = 0  # of those that have been put
        self.waiting = 0
        self.spill = Spill()
        self.comes: Callable[[int], None] = lambda seq: None  # it is that one's turn, and it has not ended

    def put(self, seq: int, told: Told) -> None:
        """That job is done."""
        self.last = max(self.last, seq)
        if seq != self.turn:
            self.spill.put(seq, *told)
            self.waiting += 1
            return
        self.show(told)
        self.turn += 1
        self._those_that_waited()

    def _those_that_waited(self) -> None:
        while self.waiting:
            told = self.spill.get(self.turn)
            if told is None:
                break
            self.show(told)
            self.spill.drop(self.turn)
            self.waiting -= 1
            self.turn += 1
        self.comes(self.turn)

    def rest(self) -> None:
        """Those whose turn will not come, as others have not been run."""
        while self.waiting:
            self.turn += 1
            self._those_that_waited()
        self.spill.close()


class Grouped(Output):
    """Each job's whole output at its end."""

    grouped = True

    @property
    def early(self) -> bool:  # type: ignore[override]
        return self.results is None

    def attach(self, netpoll: Netpoll, alone: Callable[[Process], bool], policy: Policy) -> None:
        super().attach(netpoll, alone, policy)
        self.files: list[tuple[int, int]] = []  # empty, for whoever comes

    def open(self, process: Process) -> tuple[int, int]:
        if self.results is not None:
            process.out, process.err = open_results(*self.results(process.command), process.command)
        elif self.files:
            process.out, process.err = self.files.pop()
        else:
            process.out = temporary_file()
            try:
                process.err = temporary_file()
            except BaseException:
                os.close(process.out)
                raise
        return process.out, process.err

    def say(self, process: Process, text: str) -> None:
        write_all(process.err, f"dgmp: {text}\n".encode(errors="surrogateescape"))

    def ended(self, process: Process) -> None:
        if process.out is None:
            self.hand_on(process, NOTHING)
            return
        out, err = os.fstat(process.out).st_size, os.fstat(process.err).st_size
        process.received = out
        try:
            if out or err or process.exitval:
                check_room(process.err)
            self.hand_on(process, self.parts(process, out, err) if (out or err) and self.results is None else NOTHING)
        finally:
            self._free(process, bool(out or err))

    def again(self, process: Process) -> None:
        if process.out is not None:
            self._free(process, True)

    def spare(self) -> None:
        while self.files:
            for fd in self.files.pop():
                os.close(fd)

    def parts(self, process: Process, out: int, err: int) -> Parts:
        tag = self.tag_of(process)
        found = blocks(process.out, 0, out), blocks(process.err, 0, err)
        return (tagged(found[0], tag), tagged(found[1], tag)) if tag else found

    def _free(self, process: Process, used: bool) -> None:
        if self.results is None and self.alone(process):
            if used:
                os.ftruncate(process.out, 0)
                os.ftruncate(process.err, 0)
            self.files.append((process.out, process.err))
        else:
            os.close(process.out)
            os.close(process.err)
        process.out = process.err = None


def check_room(fd: int) -> None:
    """DiskFull: a job may not have been able to print all it had."""
    room = os.fstatvfs(fd)
    if room.f_bfree * room.f_frsize < PIECE:
        try:
            size = os.fstat(fd).st_size
            os.posix_fallocate(fd, size, PIECE // 16)
            os.ftruncate(fd, size)
        except OSError:
            raise full_of(fd) from None


def tagged(parts: Iterable[bytes], tag: bytes) -> Iterator[bytes]:
    """With the tag before each line."""
    fresh = True
    for data in parts:
        ends = data.endswith(b"\n")
        body = data[:-1] if ends else data
        body = body.replace(b"\n", b"\n" + tag)
        yield (tag if fresh else b"") + body + (b"\n" if ends else b"")
        fresh = ends


def open_results(stdout: str, stderr: str, seq: str, command: Any) -> tuple[int, int]:
    """The files of a job's results; the third one has its number in it.

    Raises:
        CannotRun: there can be no such files, whatever others have.
        OSError: they cannot be made.
    """
    try:
        return _open_results(stdout, stderr, seq, command)
    except OSError as e:
        if e.errno not in NO_FILE:
            raise
        raise CannotRun(NO_PROGRAM, f"cannot keep the results in {stdout[:LONGEST_SHOWN]}: {e.strerror}") from None


def _open_results(stdout: str, stderr: str, seq: str, command: Any) -> tuple[int, int]:
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
    os.makedirs(os.path.dirname(stdout) or ".", exist_ok=True)
    with open(seq, "w") as file:
        file.write(str(command.seq))
    out = os.open(stdout, flags, 0o666)
    try:
        return out, os.open(stderr, flags, 0o666)
    except BaseException:
        os.close(out)
        raise


class LineBuffered(Output):
    """Each line as it comes, whole."""

    def attach(self, netpoll: Netpoll, alone: Callable[[Process], bool], policy: Policy) -> None:
        super().attach(netpoll, alone, policy)
        self.left: set[Lines] = set()  # whose job has ended, and that somebody may still write to
        self.running: dict[int, Process] = {}  # by number, with --keep-order
        if self.order is not None:
            self.order.comes = self._comes

    def open(self, process: Process) -> tuple[int, int]:
        copies: tuple[int, int] = (-1, -1)
        if self.results is not None:
            copies = open_results(*self.results(process.command), process.command)
        process.out = Lines(self, self.out, process, copies[0])
        try:
            process.err = Lines(self, self.err, process, copies[1])
        except BaseException:
            process.out.discard()
            raise
        return process.out.write_end, process.err.write_end

    def begun(self, process: Process) -> None:
        seq = process.command.seq
        if self.order is not None:
            self.running[seq] = process
            process.out.held = process.err.held = seq != self.order.turn
        for lines in (process.out, process.err):
            lines.begun()

    def say(self, process: Process, text: str) -> None:
        os.write(process.err.write_end, f"dgmp: {text}\n".encode(errors="surrogateescape"))

    def ended(self, process: Process) -> None:
        if process.out is None:
            self.hand_on(process, NOTHING)
            return
        out, err = process.out, process.err
        more = [(lines, lines.drain()) for lines in (out, err)]
        process.received = out.received
        if self.order is None:
            for lines, may_come in more:
                lines.job_ended(may_come)
            self.policy.log(self.policy.line(process))
        else:
            self.running.pop(process.command.seq, None)
            self.hand_on(process, (out.rest(), err.rest()))
            out.discard()
            err.discard()
        process.out = process.err = None

    def again(self, process: Process) -> None:
        self.running.pop(process.command.seq, None)
        if process.out is None:
            return
        process.out.discard()
        process.err.discard()
        process.out = process.err = None

    def _comes(self, seq: int) -> None:
        process = self.running.get(seq)
        if process is not None:
            process.out.release()
            process.err.release()

    def close(self) -> None:
        super().close()
        for lines in list(self.left):
            lines.drain()
            lines.finish()


class Lines:
    """One of a job's two pipes."""

    def __init__(self, output: LineBuffered, sink: Sink, process: Process, copy: int) -> None:
        self.output, self.sink, self.copy = output, sink, copy
        self.tag = output.tag_of(process)
        self.fd, self.write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.fd, False)
        self.part = b""  # of a line
        self.long = -1  # a file, for the beginning of a line that is too long
        self.held = False  # it is not our turn
        self.file = -1  # what is held
        self.received = 0
        self.fresh = True  # the next byte begins a line
        self.watched = False

    def begun(self) -> None:
        os.close(self.write_end)
        self.write_end = -1
        self.output.netpoll.add(self.fd, self._ready)
        self.watched = True

    def _ready(self, _: Any) -> None:
        if not self._read():
            self.finish()

    def _read(self) -> bool:
        """A piece; False: there will be none any more."""
        try:
            data = os.read(self.fd, PIECE)
        except BlockingIOError:
            return True
        if data:
            self.received += len(data)
            if self.copy >= 0:
                write_all(self.copy, data)
            self._take(data)
        return bool(data)

    def drain(self) -> bool:
        """What is there, but not for ever: somebody may write faster than we read.  Whether more may come."""
        return self.fd >= 0 and all(self._read() for _ in range(MOST_PIECES) if wait(self.fd, select.POLLIN, 0))

    def _take(self, data: bytes) -> None:
        lines, newline, part = data.rpartition(b"\n")
        if newline:
            self._emit_part()
            self._emit(lines + newline)
        self.part += part
        if len(self.part) > LONGEST:
            if self.long < 0:
                self.long = temporary_file(for_end=True)
            write_all(self.long, self.part)
            self.part = b""

    def _emit_part(self) -> None:
        """The line that has begun, as far as it has come."""
        if self.long >= 0:
            for data in blocks(self.long, 0, os.fstat(self.long).st_size):
                self._emit(data)
            os.close(self.long)
            self.long = -1
        if self.part:
            self._emit(self.part)
            self.part = b""

    def _emit(self, data: bytes) -> None:
        if self.tag:
            ends = data.endswith(b"\n")
            body = (data[:-1] if ends else data).replace(b"\n", b"\n" + self.tag)
            data = (self.tag if self.fresh else b"") + body + (b"\n" if ends else b"")
            self.fresh = ends
        if not self.held:
            self.sink.write(data)
            return
        if self.file < 0:
            self.file = temporary_file(for_end=True)
        write_all(self.file, data)

    def release(self) -> None:
        """It is our turn."""
        for data in self._held():
            self.sink.write(data)
        self.held = False

    def _held(self) -> Iterator[bytes]:
        if self.file >= 0:
            yield from blocks(self.file, 0, os.fstat(self.file).st_size)
            os.close(self.file)
            self.file = -1

    def rest(self) -> Iterator[bytes]:
        """What has not been shown, as the job has ended."""
        if self.held:
            self._emit_part()
            yield from self._held()
        else:
            self._emit_part()

    def job_ended(self, more: bool) -> None:
        """What children of it still write comes in lines, too."""
        if more:
            self._emit_part()
            self.output.left.add(self)
        else:
            self.finish()

    def finish(self) -> None:
        """Nobody writes any more."""
        self._emit_part()
        self._close_pipe()
        self.output.left.discard(self)

    def _close_pipe(self) -> None:
        if self.fd >= 0:
            if self.watched:
                self.output.netpoll.remove(self.fd)
            os.close(self.fd)
            self.fd = -1
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1
        if self.copy >= 0:
            os.close(self.copy)
            self.copy = -1

    def discard(self) -> None:
        self._close_pipe()
        for fd in (self.long, self.file):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self.long = self.file = -1
        self.part = b""
