"""`dgmp show JOBS`: all that the daemon knows of them, or of some tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..jobs.protocol import CANCELLED, NO_SUCH_TASK, RUNNING, ProtocolError, Select
from ..jobs.ranges import Ranges
from ..jobs.selectors import selection, written
from . import talk
from .jobs import held, states
from .tables import amount, elapsed, moment, print_fields, print_table

if TYPE_CHECKING:
    from ..jobs.client import Client

HEADS = ("TASK", "STATE", "ATTEMPT", "EXIT", "STARTED", "TIME", "CPU", "MEMORY", "PID", "NOTE")
NUMBERS = ("TASK", "ATTEMPT", "EXIT", "TIME", "CPU", "MEMORY", "PID")
NOT_STARTED = ("waiting", "cancelled", "aborted")
LONGEST_ENTRY = 100  # that people are shown
DESCRIPTION = """
Shows all that is known of jobs, or of tasks of them."""
EXAMPLES = """
dgmp show last                      # the job, and the first tasks of it that failed
dgmp show 5.1-10                    # these tasks
dgmp show 5 --tasks --state failed  # all its failed tasks
dgmp show 5 --json
"""


def add_parser(verbs: Any) -> None:
    parser = talk.verb_parser(verbs, "show", DESCRIPTION, EXAMPLES)
    parser.add_argument("--tasks", action="store_true", help="list the tasks, too")
    parser.add_argument("--state", metavar="STATES", type=talk.argument(states), action="append", default=[],
                        help="list the tasks in these states")
    talk.add_json(parser)
    parser.add_argument("selector", type=talk.argument(selection), metavar="JOBS", help="such as 5, 1-3,last, 5.1-10")
    parser.set_defaults(act=act)


@talk.talks
def act(client: Client, options: Any) -> int:
    wanted = [state for said in options.state for state in said] or None
    shown = []
    for select in options.selector:
        for job in client.show([Select(select.jobs)]):
            if options.tasks or wanted or select.tasks is not None:
                job["tasks"], job["not_started"] = tasks(client, job["id"], select.tasks, wanted)
                if select.tasks is not None and len(select.tasks) == 1 and not (wanted or job["tasks"] or job["not_started"]):
                    raise ProtocolError(NO_SUCH_TASK, f"job {job['id']} has no task {next(iter(select.tasks))}")
            shown.append(job)
    if not shown and any(not isinstance(select.jobs, str) for select in options.selector):
        return talk.complain("there are no such jobs", talk.NOT_FOUND)
    if options.json:
        talk.print_json("dgmp.show/1", jobs=shown)
        return talk.OK
    for at, job in enumerate(shown):
        if at:
            print()
        print_job(job)
    return talk.OK


def tasks(client: Client, job: int, chosen: Ranges | None,
          wanted: Sequence[str] | None) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The tasks that have started, and by state the ranges of those that have not."""
    started: list[dict[str, Any]] = []
    while True:
        page = client.tasks(job, chosen, wanted, after=started[-1]["task"] if started else None)
        started += page["tasks"]
        if not page["more"]:
            return started, {state: page[state] for state in NOT_STARTED if page.get(state)}


def print_job(job: dict[str, Any]) -> None:
    print_fields(fields(job))
    failures, listed = job.get("failures"), job.get("tasks")
    if listed is None and failures:
        print(f"\nfailed (`dgmp logs {job['id']}.{failures[0]['task']}` shows the output of one):")
        print_table(HEADS, map(row, failures), NUMBERS)
    if listed:
        print()
        print_table(HEADS, map(row, listed), NUMBERS)
    for state, ranges in (job.get("not_started") or {}).items():
        print(f"{'not started, ' if state == CANCELLED else ''}{state}: {written(ranges)}")


def fields(job: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "job", job["id"]
    yield "name", job["name"]
    yield "state", job["state"] + held(job)
    yield "command", job["command"]
    yield "cwd", job.get("cwd")
    yield "array", written(job.get("array") or [])
    yield "tasks", f"{job['total']}: {talk.in_words(job['counts'])}" if job["total"] > 1 else None
    yield "submitted", moment(job["submitted"])
    yield "started", moment(job["started"])
    yield "ended", moment(job["ended"])
    yield "time", elapsed(job["started"], job["ended"])
    yield "after", written([[n, n] for n in job.get("after") or []])
    yield "after ok", written([[n, n] for n in job.get("after_ok") or []])
    yield "priority", job["priority"] or None
    yield "retries", job.get("retries") or None
    yield "timeout", f"{job['timeout']:g} s" if job.get("timeout") else None
    yield "cpus", job.get("cpus")
    yield "mem", amount(job.get("mem") or None)
    yield "resources", ", ".join(f"{name}={n}" for name, n in (job.get("resources") or {}).items())
    yield "on lost", "fails" if job.get("on_lost") == "fail" else None
    yield "stdout", job.get("stdout")
    yield "stderr", job.get("stderr")


def row(task: dict[str, Any]) -> tuple[Any, ...]:
    """A task in the table."""
    cpu = task.get("cpu")
    return (task["task"], task["state"], task["attempt"], task["exit"], moment(task["started"]),
            elapsed(task["started"], task["ended"]), None if cpu is None else f"{cpu:.2f}s", amount(task.get("maxrss") or None),
            task["pid"] if task["state"] == RUNNING else None, note(task))


def note(task: dict[str, Any]) -> str:
    """Why a task has ended, if not by its exit code, and its line of --each-line."""
    entry = task.get("entry")
    if entry is not None and len(entry) > LONGEST_ENTRY:
        entry = entry[:LONGEST_ENTRY - 1] + "…"
    return "; ".join(part for part in (why(task), None if entry is None else f"entry {entry}") if part)


def why(task: dict[str, Any]) -> str | None:
    reason = task.get("reason")
    if reason == "signal" and task["exit"] is not None:
        from .run import signal_name

        return f"killed by {signal_name(-task['exit'])}"
    said = {"timeout": "its time was up", "lost": "nobody saw its end", "spawn": "could not be started"}.get(reason or "")
    return f"{said}: {task['text']}" if said and task.get("text") else said
