"""What the verbs say of themselves, by their parsers: completion.py and reference.py are made of it."""

from __future__ import annotations

import argparse
import textwrap
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ..jobs.protocol import STATES
from . import VERBS
from . import options as each
from .talk import EXAMPLES, EXITS_SHORT

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


@dataclass(slots=True)
class Verb:
    """A verb's command line; `about` and `examples` are as they are shown."""

    usage: str
    about: str
    arguments: list[Argument]
    examples: str


def verbs() -> dict[str, Verb]:
    """All of them, in the order of the help."""
    made: Any = argparse.ArgumentParser(prog="dgmp").add_subparsers()
    found = {}
    for name in VERBS:
        if name == "each":
            found[name] = each_verb()
            continue
        import_module(f".{name}", __package__).add_parser(made)
        found[name] = verb(name, made.choices[name])
    return found


def verb(name: str, parser: argparse.ArgumentParser) -> Verb:
    """What argparse knows."""
    shown = [action for action in parser._actions if action.help != argparse.SUPPRESS and action.dest != "help"]
    arguments = [argument(action) for action in shown]
    about = " ".join((parser.description or f"{VERBS[name].capitalize()}.").split())
    examples = textwrap.dedent((parser.epilog or "").removesuffix(EXITS_SHORT).removeprefix(EXAMPLES).strip("\n"))
    said = textwrap.dedent("       " + parser.usage) if parser.usage else usage(name, shown, arguments)
    return Verb(said, about, arguments, examples)


def usage(name: str, actions: list[argparse.Action], arguments: list[Argument]) -> str:
    """The same in every version of Python."""
    given = [(a.value, action.required) for action, a in zip(actions, arguments, strict=True) if not a.names]
    words = [value if needed else f"[{value}]" for value, needed in given]
    return " ".join([f"dgmp {name}", *["[options]"][:any(a.names for a in arguments)], *words])


def argument(action: argparse.Action) -> Argument:
    value = "" if action.nargs == 0 else str(action.metavar or (action.dest.upper() if action.option_strings else action.dest))
    words = [str(choice) for choice in action.choices or ()] or (list(STATES) if value == "STATES" else [])
    if action.choices and not action.metavar:
        value = "|".join(words)
    several = isinstance(action, argparse._AppendAction) or action.nargs in ("*", "+", argparse.REMAINDER)
    return Argument(sorted(action.option_strings, key=len), value, WORDS if words else KINDS.get(value, NOTHING), words,
                    (action.help or "").replace("%%", "%"), several)


def each_verb() -> Verb:
    """`dgmp each` reads its command line itself."""
    options = [o for o in each.OPTIONS if isinstance(o, each.Option) and o.key != "help"]
    arguments = [Argument(sorted(o.names, key=len), o.value, WORDS if "|" in o.value else KINDS.get(o.value, NOTHING),
                          o.value.split("|") if "|" in o.value else [], o.about, o.many) for o in options]
    command = Argument([], "cmd", COMMAND, [], "the command and its arguments", True)
    usage = textwrap.dedent("       " + each.USAGE.removeprefix("usage: "))
    return Verb(usage, each.ABOUT.strip("\n"), [*arguments, command], each.EXAMPLES.strip("\n"))
