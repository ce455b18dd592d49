"""What the verbs' parsers say of themselves: completion.py and reference.py are made of it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ..jobs.protocol import STATES
from . import VERBS

FILE, FOLDER, JOBS, COMMAND, WORDS, NOTHING = "file", "folder", "jobs", "command", "words", "nothing"
KINDS = {"FILE": FILE, "DIR": FOLDER, "JOBS": JOBS, "ID[.TASK]": JOBS, "cmd": COMMAND, "script.py|module": FILE}


@dataclass(slots=True)
class Argument:
    """An option, or a positional argument.

    Attributes:
        names: of an option, the short ones first.
        value: what its value is called, "" if it takes none.
        kind: what the value is, for completion.
        words: the values that there are, if kind is WORDS.
        several: it may be there more than once.
    """

    names: list[str]
    value: str
    kind: str
    words: list[str]
    help: str
    several: bool


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Every verb's parser."""
    verbs: Any = argparse.ArgumentParser(prog="dgmp").add_subparsers()
    for name in VERBS:
        import_module(f".{name}", __package__).add_parser(verbs)
    found: dict[str, argparse.ArgumentParser] = verbs.choices
    return found


def arguments(parser: argparse.ArgumentParser) -> list[Argument]:
    """In the parser's order; the help option aside."""
    return [argument(action) for action in parser._actions if action.help != argparse.SUPPRESS and action.dest != "help"]


def argument(action: argparse.Action) -> Argument:
    value = "" if action.nargs == 0 else str(action.metavar or (action.dest.upper() if action.option_strings else action.dest))
    words = [str(choice) for choice in action.choices or ()] or (list(STATES) if value == "STATES" else [])
    kind = WORDS if words else KINDS.get(value, NOTHING)
    if action.choices and not action.metavar:
        value = "|".join(words)
    several = isinstance(action, argparse._AppendAction) or action.nargs in ("*", "+", argparse.REMAINDER)
    return Argument(sorted(action.option_strings, key=len), value, kind, words, (action.help or "").replace("%%", "%"), several)
