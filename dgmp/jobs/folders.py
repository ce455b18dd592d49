"""The two folders of the queue: one for its sockets, one for what stays.  Both are ours alone, or they are refused."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from pathlib import Path

from ..errors import DgmpError

SOCKET, LOCK, KEEPER_SOCKET = "daemon.sock", "daemon.lock", "keeper.sock"
LOG, STORE = "daemon.log", "jobs.sqlite"
LONGEST_SOCKET = 107  # sun_path
LOCK_SECONDS, LOCK_LOOKS = 0.02, 100


class UnsafeFolder(DgmpError):
    """A folder of the daemon's is not ours alone."""


def runtime_folder() -> Path:
    """Where the sockets are; it may not be there yet."""
    uid = os.getuid()
    if said := os.environ.get("DGMP_RUNTIME_DIR"):
        return Path(said).absolute()
    if os.environ.get("XDG_RUNTIME_DIR") or os.path.isdir(f"/run/user/{uid}"):
        from platformdirs import user_runtime_path

        return user_runtime_path("dgmp")
    return Path(f"/tmp/dgmp-{uid}")  # not TMPDIR, which differs from shell to shell


def state_folder() -> Path:
    """Where jobs and their output are kept; it may not be there yet."""
    if said := os.environ.get("DGMP_STATE_DIR"):
        return Path(said).absolute()
    from platformdirs import user_state_path

    return user_state_path("dgmp")


def make(folder: Path) -> Path:
    """Makes it, if it is not there, and checks it."""
    try:
        make_durably(folder, 0o700)
    except FileExistsError:
        raise UnsafeFolder(f"{folder} is no folder") from None
    except OSError as e:
        raise UnsafeFolder(f"cannot make the folder {folder}: {e.strerror}") from None
    check(folder)
    return folder


def make_durably(folder: Path, mode: int = 0o777) -> None:
    """With those above it; a power failure does not undo it."""
    if folder.is_dir():
        return
    make_durably(folder.parent)
    folder.mkdir(mode, exist_ok=True)
    with contextlib.suppress(OSError):  # not every file system syncs a folder
        fd = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def check(folder: Path) -> None:
    """UnsafeFolder: it is a link, somebody else's, or open to others."""
    found = os.lstat(folder)
    if stat.S_ISLNK(found.st_mode):
        raise UnsafeFolder(f"{folder} is a symbolic link: dgmp wants a folder of its own there")
    if not stat.S_ISDIR(found.st_mode):
        raise UnsafeFolder(f"{folder} is no folder")
    if found.st_uid != os.getuid():
        raise UnsafeFolder(f"{folder} belongs to uid {found.st_uid}, not to you (uid {os.getuid()})")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise UnsafeFolder(f"{folder} is open to others (mode {stat.S_IMODE(found.st_mode):04o}): say chmod 700 {folder}")


def socket_path(folder: Path, name: str) -> str:
    """The path of a socket in it, if it is short enough to be one."""
    path = str(folder / name)
    if len(os.fsencode(path)) > LONGEST_SOCKET:
        raise UnsafeFolder(f"{path} is too long for a socket ({LONGEST_SOCKET} bytes): set DGMP_RUNTIME_DIR to a shorter one")
    return path


class AlreadyUp(DgmpError):
    """There is a daemon in this folder."""


def lock(*where: Path) -> list[int]:
    """One daemon a folder; AlreadyUp."""
    held: list[int] = []
    for folder in dict.fromkeys(folder.resolve() for folder in where):
        held.append(os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        if (pid := locked_by(held[-1])) is not None:
            for fd in held:
                os.close(fd)
            elsewhere = "; its sockets are elsewhere: set DGMP_RUNTIME_DIR as it has, or kill it" if len(held) > 1 else ""
            raise AlreadyUp(f"a dgmp daemon is up already (pid {pid}, {folder}){elsewhere}")
    for fd in held:
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
    return held


def locked_by(fd: int) -> int | None:
    """Locks it, and returns None; else the pid of who has it, 0 if it has not said."""
    for _ in range(LOCK_LOOKS):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return None
        pid = int(os.pread(fd, 20, 0) or b"0")
        if pid and os.path.exists(f"/proc/{pid}"):
            return pid
        time.sleep(LOCK_SECONDS)  # it was killed as it started its keeper, which has not let go of it yet, or is starting
    return pid
