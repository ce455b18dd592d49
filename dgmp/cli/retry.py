"""`dgmp retry --failed`: tasks that have ended wait again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..jobs.selectors import selection
from . import talk

if TYPE_CHECKING:
    from ..jobs.client import Client

DESCRIPTION = """
Lets tasks that have failed (or were cancelled, or aborted) wait again, with all their retries; what has finished stays
finished."""
EXAMPLES = """
dgmp retry --failed                 # the failed tasks of all jobs
dgmp retry 5                        # the failed tasks of job 5
dgmp retry --failed --cancelled last
dgmp retry 5.17                     # one of them
"""


def add_parser(verbs: Any) -> None:
    parser = talk.verb_parser(verbs, "retry", DESCRIPTION, EXAMPLES)
    for state in ("failed", "cancelled", "aborted"):
        parser.add_argument(f"--{state}", dest="states", action="append_const", const=state,
                            help=f"those that {'have failed (the default)' if state == 'failed' else f'were {state}'}")
    talk.add_json(parser)
    parser.add_argument("selector", nargs="?", type=talk.argument(selection), metavar="JOBS",
                        help="such as 5, 1-3,last, 5.1-10 (without any, all jobs, if a state is given)")
    parser.set_defaults(act=act, parser=parser)


@talk.talks
def retry(client: Client, options: Any) -> int:
    retried = client.retry(options.selector or selection("all"), options.states or ["failed"])
    if options.json:
        talk.print_json("dgmp.retry/1", retried=retried)
    else:
        states = " or ".join(options.states or ["failed"])
        print(f"{talk.plural(retried, 'task')} to run again" if retried else f"nothing to retry: no task is {states}")
    return talk.OK


def act(options: Any) -> int:
    if options.selector is None and options.states is None:
        options.parser.error("say which: dgmp retry JOBS, or dgmp retry --failed for all")
    return retry(options)
