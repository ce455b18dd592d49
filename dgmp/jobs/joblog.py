"""--joblog FILE: a line for each job that has ended, in GNU parallel's nine columns; and --resume and its like, which read it.

A line is written with one write to a file opened for appending, as the job's output has been handed on: a kill loses at most
the jobs that were running.  What a crash has left of a last line is cut off when the log is used again.

parallel knows jobs by their sequence number alone, and runs the wrong ones when the input or the command has changed.  Here a
job is known by its key, a hash of the command's template, its inputs and the folder it runs in.  As the nine columns must stay
what scripts expect, the keys are in a file beside the log, FILE.keys: first a line that says of which command and folder they
are, then for each job, written just before its line in the log, the two columns by which that line is found, and the key:

    #dgmp-keys 1 <origin: a hash of the next two> <folder> <command>                         (with \\n and the like)
    <Seq> <Starttime> <key> <origin>                                                          (both separated by tabs)

Which jobs have run is what the log says; the keys only say whose lines these are.  Lines without one (a log that GNU parallel
has written, or that came without its keys) are compared by their sequence number and the Command column.

Called by control; the log is read before the first job starts.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import time
from collections import namedtuple

from ..errors import DgmpError

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from typing import Any

COLUMNS = ("Seq", "Host", "Starttime", "JobRuntime", "Send", "Receive", "Exitval", "Signal", "Command")
HEADER = "\t".join(COLUMNS).encode() + b"\n"
HERE = ":"  # the Host column
SLOT = "{%}"
OPEN = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/")  # what somebody has opened, and may have written to
MAGIC = "#dgmp-keys 1"
PATIENCE_SECONDS = 2.0  # for a lock


class JobLogError(DgmpError):
    """The log cannot be used: what is wrong, and what to do."""


Line = namedtuple("Line", "seq started sent exitval signal command")  # of the log, as far as it is read


class Origin(namedtuple("Origin", "command folder")):
    """Whose jobs a log has: what the command is made of, and where it is run."""

    __slots__ = ()

    def digest(self) -> str:
        from _blake2 import blake2b  # hashlib would load OpenSSL: 3 ms

        return blake2b(f"{self.command}\0{self.folder}".encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


class JobLog:
    """A log that is written.

    Args:
        path: the file; - is standard output.
        append: goes on with the file that is there, if any.
        origin: whose jobs these are; None: several command lines', and origins says whose.
        origins: key -> the hash of the job's origin, of those that are run again (failed()).
        alone: nobody else may append to it meanwhile.

    Raises:
        JobLogError: it cannot be opened, or somebody is at it.
    """

    def __init__(self, path: str, append: bool = False, origin: Origin | None = None, alone: bool = True,
                 origins: Mapping[str, str] | None = None) -> None:
        self.path, self.append = path, append
        self.origin, self.origins = origin, origins or {}
        self.digest = origin.digest() if origin is not None else ""
        self.keys: int | None = None
        self.fd = os.dup(1) if path in ("-", "/dev/stdout") else self.open(path)
        self.regular = stat.S_ISREG(os.fstat(self.fd).st_mode) and path != "-" and not path.startswith(OPEN)
        if self.regular and not locked(self.fd, alone):
            self.close()
            raise JobLogError(f"the joblog {path} is being written by another dgmp: wait for it, or take another file")

    def begin(self) -> JobLog:
        """Makes it ready to be written; before, it can be read.

        Raises:
            JobLogError: it cannot be written.
        """
        try:
            self.prepare(self.fd)
            if not self.regular or os.fstat(self.fd).st_size == 0:
                self.write(self.fd, HEADER)
            if self.regular and (self.origin is not None or self.origins):
                self.keys = self.open(self.path + ".keys")
                self.prepare(self.keys)
            if self.keys is not None and self.origin is not None:
                folder, command = (word.encode("unicode_escape") for word in (self.origin.folder, self.origin.command))
                self.write(self.keys, b"%s\t%s\t%s\t%s\n" % (MAGIC.encode(), self.digest.encode(), folder, command))
        except JobLogError:
            self.close()
            raise
        return self

    def open(self, path: str) -> int:
        flags = os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            try:
                return os.open(path, os.O_RDWR | flags, 0o666)
            except PermissionError:  # it may be written alone
                return os.open(path, os.O_WRONLY | flags, 0o666)
        except OSError as e:
            raise JobLogError(f"cannot write the joblog {path}: {e.strerror}") from None

    def prepare(self, fd: int) -> None:
        if not self.regular:
            return
        if self.append:
            cut(fd)
        else:
            os.ftruncate(fd, 0)

    def line(self, process: Any) -> bytes:
        """What is to be written of a job that has ended: a line for the keys, perhaps an empty one, and one for the log."""
        command, started = process.command, f"{process.started:.3f}"
        key = ""
        if self.keys is not None:
            key = command.key
            origin = self.digest or self.origins.get(key, "")
            key = f"{command.seq}\t{started}\t{key}\t{origin}" if origin else ""
        return key.encode() + b"\n" + line(command.seq, started, process.seconds, process.sent, process.received,
                                           process.exitval, process.signal, command.text)

    def add(self, line: bytes) -> None:
        """Writes that.

        Raises:
            JobLogError: it cannot be written.
        """
        end = line.index(b"\n") + 1
        if self.keys is not None and end > 1:
            self.write(self.keys, line[:end])
        self.write(self.fd, line[end:])

    def write(self, fd: int, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(fd, data):]
        except OSError as e:
            raise JobLogError(f"cannot write the joblog {self.path}: {e.strerror}; jobs that have ended since are not in it"
                              ) from None

    def close(self) -> None:
        """It is not written any more."""
        for fd in (self.fd, self.keys):
            if fd is not None:
                os.close(fd)


def locked(fd: int, alone: bool) -> bool:
    """Whether nobody else is at it; one that was killed may need a moment to end what it has started."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(fd, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            return True
        except OSError as e:
            if e.errno != errno.EWOULDBLOCK:  # this file system has no locks
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)


def line(seq: int, started: str, seconds: float, sent: int, received: int, exitval: int, signal: int, command: str) -> bytes:
    """As parallel writes it: a newline in the command is a NUL there."""
    text = f"{seq}\t{HERE}\t{started}\t{seconds:10.3f}\t{sent}\t{received}\t{exitval}\t{signal}\t"
    return text.encode() + os.fsencode(command).replace(b"\n", b"\0") + b"\n"


def cut(fd: int) -> None:
    """Takes off the end what is no whole line: a crash has left it."""
    data = tail(fd)
    if data and not data.endswith(b"\n"):
        os.ftruncate(fd, os.fstat(fd).st_size - len(data) + data.rfind(b"\n") + 1)


def tail(fd: int) -> bytes:
    """The last line and, if that is not whole, the end of the one before."""
    end = os.fstat(fd).st_size
    length = 1 << 16
    while True:
        begin = max(0, end - length)
        data = os.pread(fd, end - begin, begin)
        if begin == 0 or b"\n" in data:
            return data
        length *= 8


def lines(path: str) -> Iterator[Line]:
    """The whole lines of a log.

    Raises:
        JobLogError: it is no joblog, or cannot be read.
        FileNotFoundError: there is none.
    """
    try:
        with open(path, "rb") as file:
            wrong = b""
            for number, data in enumerate(file):
                if wrong:
                    raise JobLogError(f"{path} is no joblog: it has the line {shown(wrong)}; take another file for --joblog")
                if not data.endswith(b"\n"):
                    return
                if data == HEADER or number == 0 and data.startswith(b"Seq\t"):
                    continue
                found = parsed(data[:-1])
                if found is None:
                    wrong = data[:-1]
                else:
                    yield found
            if wrong and wrong.strip(b"\0"):  # else the last block was not written as the power failed
                raise JobLogError(f"{path} is no joblog: it has the line {shown(wrong)}; take another file for --joblog")
    except FileNotFoundError:
        raise
    except OSError as e:
        raise JobLogError(f"cannot read the joblog {path}: {e.strerror}") from None


def parsed(data: bytes) -> Line | None:
    fields = data.split(b"\t", 8)
    try:
        seq, _, started, _, sent, _, exitval, signal, command = fields
        return Line(int(seq), started.decode(), int(sent), int(exitval), int(signal),
                    os.fsdecode(command.replace(b"\0", b"\n")))
    except ValueError:
        return None


def shown(data: bytes) -> str:
    text = ascii(data.decode("utf-8", "replace"))
    return text if len(text) <= 80 else text[:76] + "...'"


class Keys:
    """What FILE.keys says, read along with the log; lines that a crash has spoilt are left out.

    Args:
        path: the log.

    Attributes:
        origins: those of the lines read so far, by their hashes.
    """

    def __init__(self, path: str) -> None:
        self.origins: dict[str, Origin] = {}
        self.ahead: dict[tuple[int, str], tuple[str, str]] = {}
        self.entries = read_keys(path, self.origins)

    def of(self, entry: Line) -> tuple[str, str]:
        """A line's key and origin; empty: it has none."""
        wanted = entry.seq, entry.started
        found = self.ahead.pop(wanted, None)
        if found is not None:
            return found
        for line_, told in self.entries:
            if line_ == wanted:
                return told
            self.ahead[line_] = told
        return "", ""


def read_keys(path: str, origins: dict[str, Origin]) -> Generator[tuple[tuple[int, str], tuple[str, str]], None, None]:
    """(Seq, Starttime) and (key, origin) of each line; the origins are put where they are wanted."""
    with contextlib.suppress(FileNotFoundError), open(path + ".keys", encoding="utf-8", errors="replace") as file:
        for text in file:
            fields = text.rstrip("\n").split("\t")
            with contextlib.suppress(ValueError):
                if len(fields) == 4 and fields[0] == MAGIC:
                    folder, command = (word.encode().decode("unicode_escape") for word in fields[2:])
                    origins[fields[1]] = Origin(command, folder)
                elif len(fields) == 4 and text.endswith("\n"):
                    yield (int(fields[0]), fields[1]), (fields[2], fields[3])


class Done:
    """What a log says has been done: --resume and --resume-failed.

    Args:
        path: the log.
        origin: what is to be run now.
        failed_again: --resume-failed: what has failed is not done.

    Raises:
        JobLogError: it is no joblog, or of another command line.
    """

    def __init__(self, path: str, origin: Origin, failed_again: bool = False) -> None:
        self.path = path
        self.by_number: dict[tuple[bytes, int], bool] = {}  # key and sequence number -> whether it is done
        self.by_key: dict[bytes, int] | None = None  # how many with this key have been done: as the numbers have changed
        self.without_key: dict[int, tuple[str, bool]] = {}  # sequence number -> the command, and whether it is done
        known, here, others = Keys(path), origin.digest(), ""
        with contextlib.suppress(FileNotFoundError):
            for entry in lines(path):
                done = not (failed_again and (entry.exitval or entry.signal))
                key, whose = known.of(entry)
                if not key:
                    self.without_key[entry.seq] = entry.command, done
                elif whose == here:
                    self.by_number[bytes.fromhex(key), entry.seq] = done
                else:
                    others = whose
        known.entries.close()
        if others and not self.by_number and not self.without_key:
            self.refuse(known.origins.get(others), origin)

    def refuse(self, was: Origin | None, now: Origin) -> None:
        if was is None:
            what = "of another command line"
        elif was.command != now.command:
            what = f"of the command {was.command!r}, not of {now.command!r}"
        else:
            what = f"of jobs in {was.folder}, not in {now.folder}"
        raise JobLogError(f"the joblog {self.path} is {what}: resume with the command line as it was, in the same folder, or "
                          "take another --joblog")

    def has(self, draft: Any) -> bool:
        """Whether this job, the next one from the inputs, has been done.

        Raises:
            JobLogError: the log has another command in its place.
        """
        logged = self.without_key.pop(draft.seq, None)
        if logged is not None and not same(logged[0], draft.text):
            raise JobLogError(f"the joblog {self.path} is of other jobs: as number {draft.seq} it has {logged[0]!r}, and this "
                              f"command line makes that {draft.text!r}; resume with the command line and inputs as they were, "
                              "or take another --joblog")
        key = bytes.fromhex(draft.key)
        if self.by_key is None:
            done = self.by_number.pop((key, draft.seq), None)
            if done is not None:
                return done
            if not self.by_number:
                return logged is not None and logged[1]
            self.by_key = {}
            for (other, _), well in self.by_number.items():
                self.by_key[other] = self.by_key.get(other, 0) + well
            self.by_number.clear()
        if self.by_key.get(key):
            self.by_key[key] -= 1
            return True
        return logged is not None and logged[1]


def same(logged: str, draft: str) -> bool:
    """Whether a logged command line is that of a draft, but for how it quotes, and the slot, which that does not know."""
    if logged == draft:
        return True
    if SLOT in draft:
        pattern = re.escape(draft)
        for text in (f"'{SLOT}'", SLOT):
            pattern = pattern.replace(re.escape(text), "[0-9]+")
        if re.fullmatch(pattern, logged):
            return True
    import shlex

    try:
        return shlex.split(logged) == shlex.split(draft)
    except ValueError:
        return False


# A job that --retry-failed runs again.  Empty: the key and the hash of its origin, if the log has none; the folder in which it
# ran, if nobody knows.
Failed = namedtuple("Failed", "seq command key origin folder")


def failed(path: str) -> list[Failed]:
    """The jobs whose last line in the log says that they failed, in the order of their numbers.

    Raises:
        JobLogError: it is no joblog, or there is none.
    """
    known = Keys(path)
    latest: dict[tuple[str, int], tuple[Failed, bool]] = {}
    try:
        for entry in lines(path):
            if entry.sent:
                raise JobLogError(f"job {entry.seq} in the joblog {path} has read a block of --pipe, which is not there: give "
                                  "the same command line and input with --resume-failed instead")
            key, origin = known.of(entry)
            folder = known.origins[origin].folder if origin in known.origins else ""
            latest[key, entry.seq] = Failed(entry.seq, entry.command, key, origin, folder), bool(entry.exitval or entry.signal)
    except FileNotFoundError:
        raise JobLogError(f"there is no joblog {path} to retry the failed jobs of") from None
    finally:
        known.entries.close()
    return sorted((job for job, again in latest.values() if again), key=lambda job: job.seq)
