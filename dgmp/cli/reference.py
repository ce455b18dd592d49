"""docs/cli.md, made from the verbs' parsers: python -m dgmp.cli.reference > docs/cli.md"""

from __future__ import annotations

import argparse
import textwrap

from . import VERBS
from .parsers import Argument, arguments, parsers
from .talk import EXAMPLES, EXITS

HEAD = """# The command line

This page is generated from the verbs' parsers (`python -m dgmp.cli.reference`); `dgmp VERB --help` says the same.

| verb | |
| --- | --- |
{verbs}

## Exit codes

Of all verbs but `run` and `each`:

| code | means |
| --- | --- |
{exits}

`dgmp run` ends with the script's exit code, or by the signal that ended it; `dgmp each` by GNU parallel's convention.
"""


def page() -> str:
    """The text of docs/cli.md."""
    found = parsers()
    head = HEAD.format(verbs="\n".join(f"| [`dgmp {verb}`](#dgmp-{verb}) | {what} |" for verb, what in VERBS.items()),
                       exits="\n".join(f"| {code} | {what} |" for code, what in EXITS.items()))
    return "\n".join([head, *(section(verb, found[verb]) for verb in VERBS)])


def section(verb: str, parser: argparse.ArgumentParser) -> str:
    given = arguments(parser)
    description = " ".join((parser.description or f"{VERBS[verb].capitalize()}.").split())
    parts = [f"## dgmp {verb}", f"```\n{usage(verb, parser, given)}\n```", textwrap.fill(description, 125)]
    if given:
        parts.append("| | |\n| --- | --- |\n" + "\n".join(f"| {cell(spelled(a))} | {cell(a.help)} |" for a in given))
    if epilog := (parser.epilog or "").strip():
        examples = epilog.removeprefix(EXAMPLES).strip("\n")
        parts.append(f"```\n{textwrap.dedent(examples)}\n```")
    return "\n\n".join(parts) + "\n"


def usage(verb: str, parser: argparse.ArgumentParser, given: list[Argument]) -> str:
    if parser.usage:
        return textwrap.dedent("       " + parser.usage)
    options = " [options]" if any(a.names for a in given) else ""
    needed = [action.required for action in parser._actions if not action.option_strings]
    positional = [a.value for a in given if not a.names]
    words = [value if must else f"[{value}]" for value, must in zip(positional, needed, strict=True)]
    return " ".join([f"dgmp {verb}{options}", *words])


def spelled(argument: Argument) -> str:
    value = f" {argument.value}" if argument.value else ""
    return ", ".join(f"`{name}{value}`" for name in argument.names) or f"`{argument.value}`"


def cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
