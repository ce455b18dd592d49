"""The messages between clients and the daemon, version 1: docs/protocol.md says them in full.

A client's DEALER sends one frame, a msgpack map, and the daemon's ROUTER answers with one:

    {"v": 1, "id": 7, "verb": "submit", "body": {…}}     a request
    {"v": 1, "id": 7, "ok": {…}}                         its reply
    {"v": 1, "id": 7, "error": {"code": …, "text": …}}   or this
    {"v": 1, "id": 8, "event": "jobs", "body": {…}}      pushed; id is that of the subscription

This outermost map stays as it is in every version, so that two who do not understand each other can say so.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ..errors import DgmpError
from .ranges import MOST_WOVEN, Ranges

VERSION = 1
MAX_MESSAGE = 16 << 20
MAX_TASKS = 100_000_000  # of one job
MAX_RANGES = 10_000
PAGE = 1000  # rows in a reply

WAITING, RUNNING, FINISHED, FAILED, CANCELLED, ABORTED = (
    "waiting", "running", "finished", "failed", "cancelled", "aborted")
STATES = (WAITING, RUNNING, FINISHED, FAILED, CANCELLED, ABORTED)
ENDED = (FINISHED, FAILED, CANCELLED, ABORTED)

BAD_MESSAGE, BAD_VERSION, BAD_SPEC, NO_SUCH_JOB, NO_SUCH_TASK, NOT_ENDED, CLOSING, STORE, INTERNAL = (
    "bad_message", "bad_version", "bad_spec", "no_such_job", "no_such_task", "not_ended", "closing", "store", "internal")


class ProtocolError(DgmpError):
    """A request that the daemon refuses, with a code for programs and a text for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class NoDaemon(DgmpError):
    """No daemon runs for this user, or it has ended before it answered."""


def bad(text: str) -> ProtocolError:
    return ProtocolError(BAD_SPEC, text)


def encode(message: dict[str, Any]) -> bytes:
    from .wire import pack

    return pack(message)


def decode(data: bytes) -> dict[str, Any]:
    """The message; ProtocolError if it is none."""
    from .wire import unpack

    try:
        message = unpack(data)
    except (ValueError, TypeError, RecursionError) as e:  # TypeError: a key that is a map
        raise ProtocolError(BAD_MESSAGE, f"not a message: {type(e).__name__}") from None
    if not isinstance(message, dict) or not all(isinstance(k, str) for k in message):
        raise ProtocolError(BAD_MESSAGE, "not a message: a map was expected")
    return message


@dataclass(slots=True)
class JobSpec:
    """What `submit` says of a job; every field but argv has a default.

    Attributes:
        argv: the command.  It is run as it stands, without a shell.
        name: shown in lists; the command's name if empty.
        array: the task ids as ranges (first, last, step); a job without one has the task 0.
        entries: the lines that were sent for it (entries.py), of which each task has one; its tasks are the lines' numbers,
            or those of them that array says.
        cwd: the folder it runs in.
        env: its whole environment; DGMP_JOB_ID, DGMP_TASK_ID, DGMP_ATTEMPT, DGMP_SLOT, DGMP_CPUS are put in.
        umask: for the files that it makes.
        after: jobs that must have ended, however.
        after_ok: jobs that must have finished; if one does not, this job is aborted.
        retries: how often a task that failed is run again.
        timeout: seconds that a task may run.
        on_lost: what becomes of a task whose end nobody saw (keeper.py): it is run again, or it has failed.
        cpus: cores that a task holds, and is bound to.  None: a slot, which counts as one core, without being bound to it;
            0: not even that.
        mem: bytes of memory that a task holds; 0 says nothing of it.
        resources: the named resources that a task holds.
        priority: the higher ones first; with equal ones the earlier job.
        stdout, stderr: files instead of the daemon's own; `{job}`, `{task}` and `{attempt}` in them are replaced.
    """

    argv: list[str]
    name: str = ""
    array: list[list[int]] = field(default_factory=list)
    entries: int | None = None
    cwd: str = "/"
    env: dict[str, str] = field(default_factory=dict)
    umask: int = 0o077
    after: list[int] = field(default_factory=list)
    after_ok: list[int] = field(default_factory=list)
    retries: int = 0
    timeout: float | None = None
    on_lost: str = "rerun"
    cpus: int | None = None
    mem: int = 0
    resources: dict[str, int] = field(default_factory=dict)
    priority: int = 0
    stdout: str | None = None
    stderr: str | None = None

    @property
    def command(self) -> str:
        """The command as a shell would take it."""
        return shlex.join(self.argv)

    def tasks(self) -> Ranges:
        """The ids of its tasks."""
        return Ranges(self.array or [[0, 0, 1]])

    def message(self) -> dict[str, Any]:
        """What differs from the defaults."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) not in (None, [], {}, "")}


def job_spec(body: Any) -> JobSpec:
    """The spec in a message from anybody; ProtocolError says what is wrong with it."""
    if not isinstance(body, dict):
        raise bad("a job is a map")
    known = {f.name for f in fields(JobSpec)}
    if unknown := sorted(str(k) for k in body if k not in known):
        raise bad(f"a job has no {unknown[0]!r}")
    spec = JobSpec(argv=strings(body.get("argv"), "argv"))
    if not spec.argv or not spec.argv[0]:
        raise bad("argv is empty: there is no command")
    for name in ("name", "cwd", "stdout", "stderr"):
        if body.get(name) is not None:
            setattr(spec, name, string(body[name], name))
    if not spec.cwd.startswith("/"):
        raise bad(f"cwd must be absolute, not {spec.cwd!r}")
    for name in ("stdout", "stderr"):
        path = getattr(spec, name)
        if path is not None and not path.startswith("/"):
            raise bad(f"{name} must be absolute, not {path!r}")
    spec.array = task_ranges(body.get("array") or [])
    if body.get("entries") is not None:
        spec.entries = number(body["entries"], "entries", 1, 1 << 53)
    spec.env = environment(body.get("env") or {})
    spec.after, spec.after_ok = job_ids(body.get("after") or [], "after"), job_ids(body.get("after_ok") or [], "after_ok")
    spec.umask = number(body.get("umask", 0o077), "umask", 0, 0o777)
    spec.retries = number(body.get("retries", 0), "retries", 0, 1_000_000)
    if body.get("cpus") is not None:
        spec.cpus = number(body["cpus"], "cpus", 0, 1 << 16)
    spec.mem = number(body.get("mem", 0), "mem", 0, 1 << 62)
    spec.priority = number(body.get("priority", 0), "priority", -(1 << 31), 1 << 31)
    timeout = body.get("timeout")
    if timeout is not None:
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < 1e9:
            raise bad(f"timeout must be seconds above 0, not {timeout!r}")
        spec.timeout = float(timeout)
    spec.on_lost = body.get("on_lost", "rerun")
    if spec.on_lost not in ("rerun", "fail"):
        raise bad(f"on_lost must be 'rerun' or 'fail', not {spec.on_lost!r}")
    resources = body.get("resources") or {}
    if not isinstance(resources, dict):
        raise bad("resources is a map from name to amount")
    if own := [name for name in ("cpus", "mem") if name in resources]:
        raise bad(f"{own[0]} is no named resource: the job has a field {own[0]!r}")
    spec.resources = {string(k, "a resource"): number(v, f"resource {k}", 1, 1 << 62) for k, v in resources.items()}
    return spec


def check_fields(body: dict[str, Any], *known: str) -> None:
    """ProtocolError: body has others than these."""
    for name in body:
        if name not in known:
            raise bad(f"no such field: {name[:40]!r}")


def string(value: Any, what: str) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise bad(f"{what} must be a string without NUL, not {str(value)[:100]!r}")
    return value


def strings(value: Any, what: str) -> list[str]:
    if not isinstance(value, list):
        raise bad(f"{what} must be a list of strings")
    return [string(v, what) for v in value]


def number(value: Any, what: str, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise bad(f"{what} must be a whole number from {least} to {most}, not {str(value)[:100]!r}")
    return value


def job_ids(value: Any, what: str) -> list[int]:
    if not isinstance(value, list) or len(value) > MAX_RANGES:
        raise bad(f"{what} must be a list of at most {MAX_RANGES} jobs' ids")
    return sorted({number(v, what, 1, 1 << 53) for v in value})


def environment(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise bad("env is a map from name to value")
    for k, v in value.items():
        if not string(k, "a variable's name") or "=" in k:
            raise bad(f"a variable cannot be named {k!r}")
        string(v, f"the variable {k}")
    return value


def task_ranges(value: Any) -> list[list[int]]:
    """Ranges of task ids; overlapping ones are put together."""
    if not isinstance(value, list) or len(value) > MAX_RANGES:
        raise bad(f"array must be a list of at most {MAX_RANGES} ranges")
    ranges = []
    for r in value:
        if not isinstance(r, list) or len(r) not in (2, 3):
            raise bad("a range is [first, last] or [first, last, step]")
        first, last = number(r[0], "a task's id", 0, 1 << 53), number(r[1], "a task's id", 0, 1 << 53)
        step = number(r[2], "a step", 1, 1 << 53) if len(r) == 3 else 1
        if first > last:
            raise bad(f"the range {first}-{last} is empty")
        if (last - first) // step >= MAX_TASKS:
            raise bad(f"a job has at most {MAX_TASKS} tasks")
        ranges.append([first, last, step])
    try:
        whole = Ranges(ranges, MOST_WOVEN)
    except ValueError as e:
        raise bad(str(e)) from None
    if len(whole) > MAX_TASKS:
        raise bad(f"a job has at most {MAX_TASKS} tasks")
    return whole.pack()


@dataclass(slots=True)
class Select:
    """Jobs, and perhaps tasks of them; what a selector such as `1-3`, `last` or `5.1-10` says.

    Attributes:
        jobs: "all", "last", or (first, last).
        tasks: ranges of task ids, or None for all.
    """

    jobs: str | tuple[int, int]
    tasks: Ranges | None = None

    @property
    def single(self) -> bool:
        """It names one job, which must be there."""
        return self.jobs == "last" or (not isinstance(self.jobs, str) and self.jobs[0] == self.jobs[1])

    def message(self) -> list[Any]:
        jobs = self.jobs if isinstance(self.jobs, str) else list(self.jobs)
        return [jobs, None if self.tasks is None else self.tasks.pack()]


def selects(body: Any) -> list[Select]:
    """The selection in a message: a list of [jobs, tasks]."""
    if not isinstance(body, list) or len(body) > MAX_RANGES:
        raise bad("select must be a list of [jobs, tasks]")
    return [one_select(item) for item in body]


def one_select(item: Any) -> Select:
    if not isinstance(item, list) or len(item) != 2:
        raise bad("select must be a list of [jobs, tasks]")
    jobs, tasks = item
    if jobs not in ("all", "last"):
        if not isinstance(jobs, list) or len(jobs) != 2:
            raise bad("jobs must be 'all', 'last' or [first, last]")
        jobs = (number(jobs[0], "a job's id", 1, 1 << 53), number(jobs[1], "a job's id", 1, 1 << 53))
    return Select(jobs, None if tasks is None else Ranges(task_ranges(tasks)))


def states_of(value: Any, default: Sequence[str]) -> list[str]:
    """The states in a message, or these."""
    if value is None:
        return list(default)
    if not isinstance(value, list) or not all(v in STATES for v in value):
        raise bad(f"states must be among {', '.join(STATES)}")
    return value
