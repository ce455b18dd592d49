"""`dgmp wait JOBS`: returns when they have ended, with an exit code that says how."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ..jobs.amounts import duration
from ..jobs.protocol import ABORTED, CANCELLED, FAILED, Select
from ..jobs.ranges import packed, ranges_of
from ..jobs.selectors import selection, written
from . import talk
from .show import tasks as tasks_of

if TYPE_CHECKING:
    from ..jobs.client import Client

DESCRIPTION = """
Waits until jobs, or tasks of them, have ended.  On stderr is a line for each that did not finish."""
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
    try:
        jobs = client.wait(options.selector, options.timeout)
    except TimeoutError:
        raise TimeoutError("they have not ended yet") from None
    if not jobs and any(not isinstance(select.jobs, str) for select in options.selector):
        return talk.complain("there are no such jobs", talk.NOT_FOUND)
    if options.json:
        talk.print_json("dgmp.jobs/1", jobs=jobs)
    whole = [select for select in options.selector if select.tasks is None]
    if len(whole) < len(options.selector):
        jobs = client.wait(whole) if whole else []
    return max(talk.verdict(jobs, options.quiet), *[tasks_verdict(client, s, options.quiet) for s in options.selector], talk.OK)


def tasks_verdict(client: Client, select: Select, quiet: bool) -> int:
    """The exit code for some tasks of jobs, which have ended: what has become of the jobs does not matter."""
    code = talk.OK
    for job in client.wait([select]) if select.tasks is not None else ():
        tasks, never = tasks_of(client, job["id"], select.tasks, [FAILED, CANCELLED, ABORTED])
        bad = ranges_of(task["task"] for task in tasks)
        for ranges in never.values():
            bad.add(packed(ranges))
        if bad:
            code = talk.UNSUCCESSFUL
            if not quiet:
                print(f"dgmp: tasks {written(bad)} of job {job['id']} have not finished", file=sys.stderr)
    return code
