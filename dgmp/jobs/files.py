"""Where the output of the daemon's tasks lies.

A running task writes to files of its own in the spool folder.  Once it has ended, nothing is left of an empty one, a small
one is appended to its job's log, a large one is renamed; so is a small one for which the log has no room.  So a job's log is
one file of each keeper, and where in it the output of a task is says the task's row in the store: a piece, [file under the
state folder, offset, length].

None of it is forced to the disk, so after a power failure a file may end before a piece of it.  No keeper appends to a log of
one before it: what comes later would lie where that piece was.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .protocol import JobSpec

SMALL = 64 << 10
MOST_OPEN = 64
NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class Spool:
    """The two files of a running task; or those that the job's stdout= and stderr= name.

    Args:
        folder: the spool folder.
        name: of its files there.
    """

    __slots__ = ("folder", "names", "stderr", "stdout")

    def __init__(self, folder: Path, name: str, spec: JobSpec, job: int, task: int, attempt: int) -> None:
        self.folder = folder
        self.stdout = self.stderr = -1
        self.names: list[str | None] = [None, None]
        said = [told and told.replace("{job}", str(job)).replace("{task}", str(task)).replace("{attempt}", str(attempt))
                for told in (spec.stdout, spec.stderr)]
        try:
            self.stdout = self.open(0, said[0], f"{name}.out", spec.umask)
            self.stderr = self.open(1, said[1], f"{name}.err", spec.umask)
        except OSError:
            self.remove()
            raise

    def open(self, which: int, said: str | None, name: str, umask: int) -> int:
        if said is not None:
            ours = os.umask(umask)
            try:
                return os.open(said, APPEND, 0o666)
            finally:
                os.umask(ours)
        self.names[which] = name
        return os.open(self.folder / name, NEW, 0o600)

    @classmethod
    def found(cls, folder: Path, stdout: Any, stderr: Any) -> Spool:
        """Of a task whose keeper is dead."""
        spool = cls.__new__(cls)
        spool.folder = folder
        spool.stdout = spool.stderr = -1
        spool.names = [piece and os.path.basename(piece[0]) for piece in (stdout, stderr)]
        return spool

    def close(self) -> None:
        """The task has them now."""
        for fd in (self.stdout, self.stderr):
            if fd >= 0:
                os.close(fd)
        self.stdout = self.stderr = -1

    def remove(self) -> None:
        self.close()
        for name in self.names:
            if name is not None:
                (self.folder / name).unlink(missing_ok=True)

    def pieces(self) -> list[list[Any] | None]:
        """As long as it runs: what there is, and will be."""
        return [None if name is None else [f"spool/{name}", 0, None] for name in self.names]


class Logs:
    """The output of what has ended.

    Args:
        folder: of the jobs' logs.
        keeper: whose these are; without one, there is no log, and all output is renamed, be it once or twice.
    """

    def __init__(self, folder: Path, keeper: str | None = None) -> None:
        self.folder, self.keeper = folder, keeper
        self.small = 0 if keeper is None else SMALL
        self.open: dict[int, int] = {}  # job -> its log

    def take(self, job: int, task: int, attempt: int, spool: Spool) -> list[list[Any] | None]:
        """Puts away what a task has written: its two pieces."""
        return [None if name is None else self.take_one(job, f"{job}-{task}-{attempt}.{stream}", spool.folder / name)
                for stream, name in zip(("out", "err"), spool.names, strict=True)]

    def take_one(self, job: int, name: str, path: Path) -> list[Any] | None:
        whole = self.folder / name
        try:
            size = path.stat().st_size
        except FileNotFoundError:  # it was there in a turn that came to nothing
            return [f"logs/{name}", 0, whole.stat().st_size] if whole.exists() else None
        if not size:
            path.unlink()
            return None
        piece = self.append(job, path, size) if size <= self.small else None
        if piece is None:
            path.rename(whole)
        return piece or [f"logs/{name}", 0, size]

    def append(self, job: int, path: Path, size: int) -> list[Any] | None:
        """Adds it to its job's log; None if that cannot be, for want of room, say."""
        try:
            piece = [f"logs/{job}-{self.keeper}.log", append(self.log(job), path.read_bytes()), size]
            path.unlink()
        except OSError:
            return None
        return piece

    def log(self, job: int) -> int:
        if job not in self.open:
            if len(self.open) >= MOST_OPEN:
                self.close(next(iter(self.open)))
            self.open[job] = os.open(self.folder / f"{job}-{self.keeper}.log", APPEND, 0o600)
        return self.open[job]

    def close(self, job: int) -> None:
        fd = self.open.pop(job, -1)
        if fd >= 0:
            os.close(fd)


def append(fd: int, data: bytes) -> int:
    """Where it begins now; OSError: nothing of it is there."""
    begin = os.fstat(fd).st_size
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left):]
    except OSError:
        os.ftruncate(fd, begin)
        raise
    return begin
