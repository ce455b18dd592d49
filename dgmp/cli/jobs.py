"""`dgmp jobs`: what the daemon has, newest first."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ..jobs.protocol import STATES
from ..jobs.selectors import selection
from . import talk
from .tables import elapsed, moment, print_table

if TYPE_CHECKING:
    from ..jobs.client import Client

HEADS = ("ID", "STATE", "DONE", "FAILED", "SUBMITTED", "TIME", "NAME", "COMMAND")
NUMBERS = ("ID", "DONE", "FAILED", "TIME")
DESCRIPTION = """
Lists jobs, newest first.  A job is running once a task has started and not all have ended; when all have, it is finished, or
failed, cancelled or aborted as one of them is."""
EXAMPLES = """
dgmp jobs                                  # the last hundred
dgmp jobs --state running,waiting          # those still to do
dgmp jobs --name 'align*' --all            # all of this name
dgmp jobs 10-20,last                       # these
dgmp jobs --json | jq '.jobs[] | select(.counts.failed > 0) | .id'
"""


def add_parser(verbs: Any) -> None:
    parser = talk.verb_parser(verbs, "jobs", DESCRIPTION, EXAMPLES)
    parser.add_argument("--state", metavar="STATES", type=talk.argument(states), action="append", default=[],
                        help=f"only these: {', '.join(STATES)}")
    parser.add_argument("--name", metavar="PATTERN", help="only those of this name; *, ? and [abc] as in file names")
    parser.add_argument("-n", "--limit", metavar="N", type=talk.argument(limit), default=100,
                        help="at most so many (default 100)")
    parser.add_argument("--all", action="store_true", help="without a limit")
    talk.add_json(parser)
    parser.add_argument("selector", nargs="?", type=talk.argument(selection), metavar="JOBS", help="only these: 1-3,last")
    parser.set_defaults(act=act)


def states(text: str) -> list[str]:
    """What --state says; ValueError."""
    said = [state.strip() for state in text.split(",")]
    if wrong := [state for state in said if state not in STATES]:
        raise ValueError(f"{wrong[0]!r} is no state: there are {', '.join(STATES)}")
    return said


def limit(text: str) -> int:
    """What --limit says; ValueError."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError(f"{text!r} is no number of jobs")
    return int(text)


@talk.talks
def act(client: Client, options: Any) -> int:
    jobs, counts, more = listed(client, options)
    if options.json:
        talk.print_json("dgmp.jobs/1", jobs=jobs, counts=counts, more=more)
        return talk.OK
    print_table(HEADS, map(row, jobs), NUMBERS)
    if more:
        print("dgmp: there are more: --all lists all, --limit N so many", file=sys.stderr)
    return talk.OK


def listed(client: Client, options: Any) -> tuple[list[dict[str, Any]], dict[str, int], bool]:
    """The jobs that are asked for, how many there are in each state, and whether there are more."""
    wanted = [state for said in options.state for state in said] or None
    jobs: list[dict[str, Any]] = []
    while True:
        page = client.jobs(options.selector, states=wanted, name=options.name, before=jobs[-1]["id"] if jobs else None,
                           limit=1000 if options.all else min(1000, options.limit - len(jobs)))
        jobs += page["jobs"]
        if not page["more"] or (not options.all and len(jobs) >= options.limit):
            return jobs, page["counts"], page["more"]


def row(job: dict[str, Any]) -> tuple[Any, ...]:
    """A job in the table."""
    total, counts = job["total"], job["counts"]
    done = total - counts.get("waiting", 0) - counts.get("running", 0)
    return (job["id"], job["state"] + held(job), f"{done}/{total}", counts.get("failed", 0) or None, moment(job["submitted"]),
            elapsed(job["started"], job["ended"]), job["name"], job["command"])


def held(job: dict[str, Any]) -> str:
    """What a job still waits for."""
    first = ",".join(map(str, job.get("held", [])[:3]))
    return f" (after {first}{',…' if len(job['held']) > 3 else ''})" if first else ""
