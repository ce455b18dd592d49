"""`dgmp wait JOBS`: returns when they have ended, with an exit code that says how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..jobs.amounts import duration
from ..jobs.selectors import selection
from . import talk

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
    if options.json:
        talk.print_json("dgmp.jobs/1", jobs=jobs)
    return talk.verdict(jobs, options.quiet)
