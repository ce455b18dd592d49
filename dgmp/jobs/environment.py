"""The environment and the folder of each job (--env, --wd).

A job has the launcher's environment, what --env K=V sets, and: PARALLEL_SEQ and DGMP_JOB_SEQ its sequence number,
PARALLEL_JOBSLOT and DGMP_SLOT its slot, PARALLEL_PID the launcher, DGMP_ATTEMPT (1 the first), and what it is told of what it
holds (resources.Held.variables).

common() is called once, by cli.each; of_job() and folder() for each job, by launcher.
"""

from __future__ import annotations

import os

from .process import NO_PROGRAM, CannotRun

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OURS = ("PARALLEL_SEQ", "PARALLEL_JOBSLOT", "PARALLEL_PID", "DGMP_JOB_SEQ", "DGMP_SLOT", "DGMP_ATTEMPT")
OF_SLOT = (b"PARALLEL_JOBSLOT=", b"DGMP_SLOT=")  # what a job's slot is told by


def common(environ: Mapping[str, str], assignments: Iterable[str] = (), told: Iterable[str] = ()) -> dict[str, str]:
    """The part that all jobs have.

    Args:
        environ: the launcher's own.
        assignments: what --env says: K=V sets, a mere NAME is there anyway.
        told: the names of what each job is told of its own.

    Raises:
        ValueError: an --env names nothing.
    """
    outer = {*OURS, *told}  # an outer launcher's
    variables = {name: value for name, value in environ.items() if name not in outer}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not name or "\0" in text:
            raise ValueError(f"--env {text!r}: give a variable's name, or NAME=VALUE")
        if equals and name not in OURS:
            variables[name] = value
    return variables


def of_job(seq: int, attempt: int, launcher: int) -> list[bytes]:
    """The part that is a job's own, as execve wants it; with OF_SLOT.

    Args:
        launcher: its pid.
    """
    return [b"PARALLEL_SEQ=%d" % seq, b"DGMP_JOB_SEQ=%d" % seq, b"PARALLEL_PID=%d" % launcher, b"DGMP_ATTEMPT=%d" % attempt]


def folder(path: str, seq: int) -> str:
    """The folder that --wd gives a job: made if it is not there; `...` is a new one for each job, which stays.

    Raises:
        CannotRun: it cannot be made.
    """
    if path == "...":
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        path = os.path.join(cache, "dgmp", "wd", f"{os.uname().nodename}-{os.getpid()}-{seq}")
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as e:
        raise CannotRun(NO_PROGRAM, f"cannot make the folder {path} (--wd): {e.strerror}") from None
    return path
