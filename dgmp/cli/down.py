"""`dgmp down`: ends this user's daemon."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ..jobs.amounts import duration
from ..jobs.protocol import RUNNING
from . import talk

if TYPE_CHECKING:
    from ..jobs.client import Client

DESCRIPTION = """
Ends the daemon.  It starts nothing more, waits for the tasks that run, and ends; what waits stays, and goes on with the next
`dgmp up`.  With --now the tasks that run are ended too, and run again then."""
EXAMPLES = """
dgmp down                  # once the tasks that run have ended
dgmp down --now            # at once: SIGTERM for them, then SIGKILL
dgmp down --timeout 60 || dgmp down --now
"""


def add_parser(verbs: Any) -> None:
    parser = talk.verb_parser(verbs, "down", DESCRIPTION, EXAMPLES)
    parser.add_argument("--now", action="store_true", help="end the tasks that run; they wait for the next daemon")
    parser.add_argument("--timeout", metavar="TIME", type=talk.argument(duration),
                        help="wait no longer: 90, 10m; the daemon goes down nevertheless (exit code 124)")
    parser.set_defaults(act=act)


@talk.talks
def act(client: Client, options: Any) -> int:
    running = client.status()["tasks"][RUNNING]
    if running and not options.now:
        print(f"dgmp: waiting for {talk.plural(running, 'running task')} (`dgmp down --now` ends them)", file=sys.stderr)
    try:
        client.shutdown(options.now, options.timeout)
    except TimeoutError:
        raise TimeoutError("tasks run still; the daemon goes down once they have ended (`dgmp down --now` ends them)") from None
    print("the dgmp daemon is down")
    return talk.OK
