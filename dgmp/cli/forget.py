"""`dgmp forget JOBS`: jobs that have ended go, with all that they have written."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..jobs.amounts import duration
from ..jobs.protocol import ENDED
from ..jobs.selectors import selection, written
from . import talk

if TYPE_CHECKING:
    from ..jobs.client import Client

DESCRIPTION = """
Removes jobs that have ended, and their output, for good.  A job that still waits or runs is refused if it is named, and kept if
it is one of a range or of all.  Files that --stdout and --stderr named are yours, and stay."""
EXAMPLES = """
dgmp forget 5                       # this job
dgmp forget all --older 7d          # what ended more than a week ago (a line for cron)
dgmp forget 1-100 --finished        # those that succeeded
dgmp forget all --cancelled --aborted
"""


def add_parser(verbs: Any) -> None:
    parser = talk.verb_parser(verbs, "forget", DESCRIPTION, EXAMPLES)
    for state in ENDED:
        parser.add_argument(f"--{state}", dest="states", action="append_const", const=state,
                            help=f"only those that {'have' if state in ('finished', 'failed') else 'were'} {state}")
    parser.add_argument("--older", metavar="TIME", type=talk.argument(duration),
                        help="only those that ended so long ago: 90, 10m, 12h, 7d")
    talk.add_json(parser)
    parser.add_argument("selector", type=talk.argument(selection), metavar="JOBS", help="such as 5, 1-3,last, all")
    parser.set_defaults(act=act, parser=parser)


@talk.talks
def forget(client: Client, options: Any) -> int:
    before = None if options.older is None else time.time() - options.older
    done = client.forget_jobs(options.selector, options.states, before)
    if options.json:
        talk.print_json("dgmp.forget/1", forgotten=done["forgotten"], open=done["open"])
        return talk.OK
    forgotten = talk.plural(done["forgotten"], "job")
    print(f"forgot {forgotten}" if done["forgotten"] else "nothing to forget: no such job has ended")
    if done["open"]:
        print(f"kept what has not ended: {written(done['open'])}")
    return talk.OK


def act(options: Any) -> int:
    if any(select.tasks is not None for select in options.selector):
        options.parser.error("jobs are forgotten as a whole: name no tasks")
    return forget(options)
