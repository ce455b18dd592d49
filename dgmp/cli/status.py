"""`dgmp status`: the daemon, and what it has to do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from . import talk

if TYPE_CHECKING:
    from ..jobs.client import Client

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
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status["started"]))
    going = ", going down" if status["closing"] else ""
    print(f"daemon    pid {status['pid']}, dgmp {status['dgmp']}, up since {since}{going}")
    print(f"keeper    pid {status['keeper']}")
    print(f"folders   {status['runtime']}, {status['state']}")
    print(f"cpus      {status['cpus']['used']} of {status['cpus']['total']} in use")
    print(f"jobs      {talk.in_words(status['jobs'])}")
    print(f"tasks     {talk.in_words({state: status['tasks'][state] for state in ('running', 'waiting')})}")
    return talk.OK
