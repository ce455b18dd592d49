"""The command line: one module a verb.  `dgmp run`, `dgmp version`."""

from __future__ import annotations

import argparse

from .. import __version__
from . import run, version


def main(argv: list[str] | None = None) -> int:
    """Entry of the `dgmp` command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="dgmp", description="Go's GMP scheduler for Python, with processes for Ms.")
    parser.add_argument("--version", action="version", version=f"dgmp {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    run.add_parser(verbs)
    version.add_parser(verbs)
    options = parser.parse_args(argv)
    code: int = options.act(options)
    return code

