"""`dgmp version`."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(verbs: Any) -> None:
    verbs.add_parser("version", description="Prints dgmp's version.", epilog="example: dgmp version").set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    from dgmp import __version__

    print(f"dgmp {__version__}")
    return 0
