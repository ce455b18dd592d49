"""`dgmp wait JOBS`: returns when they have ended, with an exit code that says how."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any

from ..jobs.amounts import duration
from ..jobs.protocol import ABORTED, CANCELLED, FAILED, NoDaemon, Select
from ..jobs.ranges import packed, ranges_of
from ..jobs.selectors import selection, written
from . import talk
from .show import tasks as tasks_of

if TYPE_CHECKING:
    from ..jobs.client import Client

BAD = (FAILED, CANCELLED, ABORTED)
DESCRIPTION = """
Waits until jobs, or tasks of them, have ended.  On stderr is a line for each that did not finish.  If the daemon ends meanwhile
and another one is up within five seconds, it is waited on with that."""
EXAMPLES = """
dgmp wait last                                  # the job submitted last
dgmp wait 3-7 && echo all of them finished
dgmp wait 5.1-10 --timeout 1h                   # the first ten tasks of job 5
id=$(dgmp submit -- make) && dgmp wait $id
"""


def add_parser(verbs: Any) -> None:
    parser = talk.verb_parser(verbs, "wait", DESCRIPTION, EXAMPLES)
    parser.add_argument("--timeout", metavar="TIME", type=talk.argument(duration),
                        help="wait no longer: 90, 10m, 1h30m (exit code 124)")
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing of those that did not finish")
    talk.add_json(parser)
    parser.add_argument("selector", type=talk.argument(selection), metavar="JOBS", help="such as 5, 1-3,last, all, 5.1-10")
    parser.set_defaults(act=act)


@talk.talks
def act(client: Client, options: Any) -> int:
    chosen = [talk.pinned(client, select) for select in options.selector]
    deadline = None if options.timeout is None else time.monotonic() + options.timeout
    with contextlib.ExitStack() as successors:
        while True:
            try:
                wait(client, chosen, deadline)
                return report(client, chosen, options)
            except NoDaemon as e:
                client = successors.enter_context(talk.successor(e))


def wait(client: Client, chosen: list[Select], deadline: float | None) -> None:
    try:
        client.wait(chosen, None if deadline is None else max(0.0, deadline - time.monotonic()), BAD)
    except TimeoutError:
        raise TimeoutError("they have not ended yet") from None


def report(client: Client, chosen: list[Select], options: Any) -> int:
    """Says how they have ended; the exit code."""
    if any(not isinstance(select.jobs, str) for select in chosen) and not client.jobs(chosen, limit=1)["jobs"]:
        return talk.complain("there are no such jobs", talk.NOT_FOUND)
    if options.json:
        talk.print_json("dgmp.jobs/1", jobs=client.wait(chosen))
    whole = [select for select in chosen if select.tasks is None]
    bad = client.wait(whole, states=BAD) if whole else []
    return max(talk.verdict(bad, options.quiet), *[tasks_verdict(client, select, options.quiet) for select in chosen])


def tasks_verdict(client: Client, select: Select, quiet: bool) -> int:
    """The exit code for some tasks of jobs, which have ended: what has become of the jobs does not matter."""
    code = talk.OK
    for job in client.wait([select]) if select.tasks is not None else ():
        tasks, never = tasks_of(client, job["id"], select.tasks, BAD)
        bad = ranges_of(task["task"] for task in tasks)
        for ranges in never.values():
            bad.add(packed(ranges))
        if bad:
            code = talk.UNSUCCESSFUL
            if not quiet:
                print(f"dgmp: tasks {written(bad)} of job {job['id']} have not finished", file=sys.stderr)
    return code
