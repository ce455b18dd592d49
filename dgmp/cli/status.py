"""`dgmp status`: the daemon, and what it has to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..jobs.protocol import RUNNING, WAITING
from . import talk
from .tables import elapsed, moment, print_fields, print_table

if TYPE_CHECKING:
    from ..jobs.client import Client

SHOWN = 20  # running tasks
DESCRIPTION = "Shows whether the daemon runs, and what it has to do.  Its exit code says the former: 0, or 3 if none runs."
EXAMPLES = """
dgmp status
dgmp status --json | jq .tasks.waiting
"""


def add_parser(verbs: Any) -> None:
    parser = talk.verb_parser(verbs, "status", DESCRIPTION, EXAMPLES)
    talk.add_json(parser)
    parser.set_defaults(act=act)


@talk.talks
def act(client: Client, options: Any) -> int:
    status = client.status()
    if options.json:
        talk.print_json("dgmp.status/1", **status)
        return talk.OK
    print_fields(fields(status))
    if status["running"]:
        print()
        print_table(("RUNNING", "PID", "STARTED", "TIME"), map(row, status["running"][:SHOWN]), ("PID", "TIME"))
        if (more := status["tasks"][RUNNING] - SHOWN) > 0:
            print(f"and {more} more")
    return talk.OK


def fields(status: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    going = ", going down" if status["closing"] else ""
    yield "daemon", f"pid {status['pid']}, dgmp {status['dgmp']}, up since {moment(status['started'])}{going}"
    yield "keeper", f"pid {status['keeper']}"
    yield "folders", f"{status['runtime']}, {status['state']}"
    yield "cpus", f"{status['cpus']['used']} of {status['cpus']['total']} in use"
    yield "resources", ", ".join(f"{name}={n}" for name, n in status["resources"].items() if name not in ("cpus", "mem"))
    yield "jobs", talk.in_words(status["jobs"])
    yield "tasks", talk.in_words({state: status["tasks"][state] for state in (RUNNING, WAITING)})


def row(task: dict[str, Any]) -> tuple[Any, ...]:
    """A running task in the table."""
    return (f"{task['job']}.{task['task']}", task["pid"], moment(task["started"]), elapsed(task["started"], None))
