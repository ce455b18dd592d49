"""The Python that a runtime's processes run: which one, and with which start-up options.

It is this program's own, `sys.executable`, unless Runtime(executable=...) or DGMP_PYTHON name another; one that this
process does not itself run is first asked whether it is a Python of the same version.  Called by api.start.
"""

from __future__ import annotations

import errno
import functools
import os
import select
import sys
import time

OVERRIDE = "name a Python with dgmp.Runtime(executable=...) or in the environment variable DGMP_PYTHON"
# What the options say that sys.flags keeps under these names.  -i is for the program alone.
LETTERS = {"debug": "d", "optimize": "O", "dont_write_bytecode": "B", "no_site": "S", "verbose": "v", "bytes_warning": "b",
           "quiet": "q", "isolated": "I", "ignore_environment": "E", "no_user_site": "s", "safe_path": "P"}
NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ENOEXEC, errno.ELOOP, errno.ENAMETOOLONG}
ANSWER = "dgmp asks for {tag}"
QUESTION = "import sys; print('dgmp asks for', sys.implementation.cache_tag)"
ANSWER_SECONDS, ANSWER_BYTES = 10.0, 1 << 16


def options() -> list[str]:
    """The start-up options of this process, but for -W: what that has led to comes with the boot message."""
    letters = ["-" + letter * getattr(sys.flags, name) for name, letter in LETTERS.items() if getattr(sys.flags, name)]
    x: dict[str, str | bool] = {"utf8": str(sys.flags.utf8_mode), **sys._xoptions}
    if sys.flags.dev_mode:
        x["dev"] = True
    return [*letters, *(f"-X{name}" if value is True else f"-X{name}={value}" for name, value in x.items())]


def find(given: str | os.PathLike[str] | None = None) -> str:
    """The interpreter to start.

    Args:
        given: the user's choice; None: DGMP_PYTHON's, else sys.executable.

    Raises:
        RuntimeError: there is none, or it is no Python of this version.
    """
    if given is not None:
        path, source = os.fspath(given), "executable="
    elif os.environ.get("DGMP_PYTHON"):
        path, source = os.environ["DGMP_PYTHON"], "DGMP_PYTHON="
    else:
        path, source = sys.executable, "sys.executable="
    if not path:
        raise RuntimeError(f"there is no Python to start processes with: {source}{path!r}; {OVERRIDE}")
    if not is_ours(path):
        fault = fault_of(path)
        if fault:
            raise RuntimeError(f"processes cannot be started with {source}{path!r}: {fault}; {OVERRIDE}")
    return path


def is_ours(path: str) -> bool:
    """Whether it is what this process runs, and not a program with Python built in."""
    try:
        return os.path.samefile(path, "/proc/self/exe") and "python" in os.path.basename(os.path.realpath(path)).lower()
    except OSError:
        return False


@functools.cache
def fault_of(path: str) -> str:
    """Why it cannot be used; "" if it can."""
    import subprocess

    try:
        child = subprocess.Popen([path, "-c", QUESTION], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL)
    except OSError as e:
        if e.errno not in NOT_THERE:
            raise
        return os.strerror(e.errno or 0)
    try:
        assert child.stdout is not None
        answer = read(child.stdout.fileno())
    finally:
        child.kill()
        child.communicate()
    start, tag = ANSWER.format(tag="").encode(), str(sys.implementation.cache_tag).encode()
    if start + tag + b"\n" in answer:
        return ""
    if start in answer:
        other = answer.partition(start)[2].split(b"\n")[0].decode(errors="replace")
        return f"it is {other} and not {tag.decode()}, as this program is"
    return "it is not a Python"


def read(fd: int) -> bytes:
    """What it says before it ends, within limits."""
    said = b""
    deadline = time.monotonic() + ANSWER_SECONDS
    while len(said) < ANSWER_BYTES and select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
        more = os.read(fd, ANSWER_BYTES)
        if not more:
            break
        said += more
    return said
