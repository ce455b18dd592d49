"""The environment and the folder of each job (--env, --wd).  Called by launcher.

A job has the launcher's environment, what --env K=V sets, and: PARALLEL_SEQ and DGMP_JOB_SEQ its sequence number,
PARALLEL_JOBSLOT and DGMP_SLOT its slot, PARALLEL_PID the launcher, DGMP_ATTEMPT (1 the first), and what it holds
(resources.Held.variables).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

OURS = ("PARALLEL_SEQ", "PARALLEL_JOBSLOT", "PARALLEL_PID", "DGMP_JOB_SEQ", "DGMP_SLOT", "DGMP_ATTEMPT")


class Environment:
    """Makes them.

    Args:
        environ: the launcher's own.
        assignments: what --env says: K=V sets, a mere NAME is there anyway.

    Raises:
        ValueError: an --env names nothing.
    """

    def __init__(self, environ: Mapping[bytes, bytes], assignments: Iterable[str] = ()) -> None:
        variables = dict(environ)
        for text in assignments:
            name, equals, value = text.partition("=")
            if not name or "\0" in text:
                raise ValueError(f"--env {text!r}: give a variable's name, or NAME=VALUE")
            if equals:
                variables[os.fsencode(name)] = os.fsencode(value)
        for own in OURS:
            variables.pop(own.encode(), None)
        self.variables = variables
        self.base = [name + b"=" + value for name, value in variables.items()]
        self.pid = b"PARALLEL_PID=%d" % os.getpid()

    def of(self, seq: int, slot: int, attempt: int, told: Mapping[str, str] | None = None) -> list[bytes]:
        """A job's, as execve wants it.

        Args:
            told: further variables, before those that have these names.
        """
        base = self.base
        if told:
            names = {os.fsencode(name) for name in told}
            base = [name + b"=" + value for name, value in self.variables.items() if name not in names]
            base += [os.fsencode(f"{name}={value}") for name, value in told.items()]
        return [*base, self.pid, b"PARALLEL_SEQ=%d" % seq, b"DGMP_JOB_SEQ=%d" % seq, b"PARALLEL_JOBSLOT=%d" % slot,
                b"DGMP_SLOT=%d" % slot, b"DGMP_ATTEMPT=%d" % attempt]


def folder(path: str, seq: int) -> str:
    """The folder that --wd gives a job: made if it is not there; `...` is a new one for each job, which stays.

    Raises:
        OSError: it cannot be made.
    """
    if path == "...":
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        path = os.path.join(cache, "dgmp", "wd", f"{os.uname().nodename}-{os.getpid()}-{seq}")
    os.makedirs(path, exist_ok=True)
    return path
