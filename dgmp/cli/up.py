"""`dgmp up`: starts this user's daemon, and returns once it answers."""

from __future__ import annotations

from typing import Any

from ..jobs import boot
from . import talk

DESCRIPTION = """
Starts the daemon of this user, which keeps a queue of jobs, and returns once it answers.  Jobs of an earlier daemon go on: what
had finished stays finished, what still runs is found again, what waits is started.  There is one daemon for a user."""
EXAMPLES = """
dgmp up                                   # all cores
dgmp up --cpus 4 --mem 16G                # these are shared out among tasks
dgmp up --resource-total gpu=2            # for dgmp submit --resource gpu=1
dgmp up --foreground                      # for systemd: deploy/systemd/dgmp.service
"""


def add_parser(verbs: Any) -> None:
    parser = talk.verb_parser(verbs, "up", DESCRIPTION, EXAMPLES)
    boot.add_arguments(parser)
    parser.add_argument("--foreground", action="store_true", help="be the daemon, and log to stderr")
    parser.set_defaults(act=act)


def act(options: Any) -> int:
    try:
        boot.resources_of(options)
    except ValueError as e:
        return talk.complain(str(e), talk.MISUSED)
    return talk.exit_code(lambda: here(options) if options.foreground else in_background(options))


def in_background(options: Any) -> int:
    print(f"the dgmp daemon is up (pid {boot.bring_up(boot.words(options))})")
    return talk.OK


def here(options: Any) -> int:
    from ..jobs.daemon import main

    return talk.REFUSED if main(boot.words(options)) else talk.OK
