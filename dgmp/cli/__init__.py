"""The command line: one module a verb, imported when that verb is used, so that each starts as soon as it can.

A verb is a line of VERBS and a module of its name, which has `add_parser(verbs)`, as argparse's sub-commands are made, and
in the parser's defaults `act(options) -> exit code`; or else `main(words) -> exit code`, if it reads its command line itself.
"""

from __future__ import annotations

import sys
from importlib import import_module

from .. import __version__

TYPE_CHECKING = False  # as in dgmp/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

VERBS = {
    "each": "run a command for each input",
    "run": "run a Python script as the main G",
    "up": "start the daemon of this user",
    "down": "end the daemon",
    "status": "show the daemon, and what it has to do",
    "submit": "give the daemon a job",
    "jobs": "list jobs",
    "show": "show all about a job",
    "logs": "print what a job has written",
    "wait": "wait until jobs have ended",
    "attach": "show the progress of jobs",
    "cancel": "cancel jobs",
    "retry": "run failed tasks again",
    "forget": "remove ended jobs and their output",
    "completion": "print a completion script for a shell",
    "version": "print the version",
}
USAGE = "usage: dgmp [-h] [--version] VERB ..."


def main(argv: list[str] | None = None) -> int:
    """Entry of the `dgmp` command; returns its exit code."""
    words = sys.argv[1:] if argv is None else argv
    if not words:
        return misused("no verb was given")
    verb, *rest = words
    if verb in ("-h", "--help"):
        print(f"{USAGE}\n\nGo's GMP scheduler for Python, with processes for Ms.\n\nverbs:")
        print("\n".join(f"  {name:<12}{what}" for name, what in VERBS.items()))
        print("\n`dgmp VERB --help` says more about one.")
        return 0
    if verb == "--version":
        print(f"dgmp {__version__}")
        return 0
    if verb not in VERBS:
        return misused(f"there is no verb {verb!r}")
    module = import_module(f".{verb}", __name__)
    code: int = module.main(rest) if hasattr(module, "main") else parsed(module.add_parser, words)
    return code


def parsed(add_parser: Callable[[Any], None], words: list[str]) -> int:
    """Has argparse read the command line of the one verb."""
    from argparse import ArgumentParser

    parser = ArgumentParser(prog="dgmp")
    verbs = parser.add_subparsers(metavar="VERB")
    add_parser(verbs)
    options, more = parser.parse_known_args(words)
    if more:
        verbs.choices[words[0]].error(f"unrecognized arguments: {' '.join(more)}")
    code: int = options.act(options)
    return code


def misused(what: str) -> int:
    print(f"{USAGE}\ndgmp: {what}; `dgmp --help` lists the verbs", file=sys.stderr)
    return 2
