"""`dgmp cancel JOBS`: what waits does not start, what runs is ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..jobs.selectors import selection
from . import talk

if TYPE_CHECKING:
    from ..jobs.client import Client

DESCRIPTION = """
Cancels jobs, or tasks of them.  Those that run get SIGTERM, with all that they have started, and SIGKILL if they go on;
`dgmp wait` tells when they have ended."""
EXAMPLES = """
dgmp cancel 5                       # the whole job
dgmp cancel 5.500-1000              # these tasks of it
dgmp cancel all && dgmp wait all    # everything, and until it has ended
"""


def add_parser(verbs: Any) -> None:
    parser = talk.verb_parser(verbs, "cancel", DESCRIPTION, EXAMPLES)
    talk.add_json(parser)
    parser.add_argument("selector", type=talk.argument(selection), metavar="JOBS", help="such as 5, 1-3,last, all, 5.1-10")
    parser.set_defaults(act=act)


@talk.talks
def act(client: Client, options: Any) -> int:
    done = client.cancel(options.selector)
    if options.json:
        talk.print_json("dgmp.cancel/1", cancelled=done["cancelled"], ending=done["ending"])
    elif not done["cancelled"] and not done["ending"]:
        print("nothing to cancel: nothing of it waits or runs")
    else:
        print(f"cancelled {talk.plural(done['cancelled'], 'waiting task')}, ended {talk.plural(done['ending'], 'running one')}")
    return talk.OK
