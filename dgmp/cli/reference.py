"""docs/cli.md, made from the verbs' parsers: python -m dgmp.cli.reference > docs/cli.md"""

from __future__ import annotations

import textwrap

from . import VERBS
from .parsers import Argument, Verb, verbs
from .talk import EXITS

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
    head = HEAD.format(verbs="\n".join(f"| [`dgmp {verb}`](#dgmp-{verb}) | {what} |" for verb, what in VERBS.items()),
                       exits="\n".join(f"| {code} | {what} |" for code, what in EXITS.items()))
    return "\n".join([head, *(section(name, verb) for name, verb in verbs().items())])


def section(name: str, verb: Verb) -> str:
    about = fenced(verb.about) if "\n" in verb.about else textwrap.fill(verb.about, 125)
    parts = [f"## dgmp {name}", fenced(verb.usage), about]
    if verb.arguments:
        parts.append("| | |\n| --- | --- |\n" + "\n".join(f"| {cell(spelled(a))} | {cell(a.help)} |" for a in verb.arguments))
    return "\n\n".join([*parts, *[fenced(verb.examples)][:bool(verb.examples)]]) + "\n"


def fenced(text: str) -> str:
    return f"```\n{text}\n```"


def spelled(argument: Argument) -> str:
    value = f" {argument.value}" if argument.value else ""
    return ", ".join(f"`{name}{value}`" for name in argument.names) or f"`{argument.value}`"


def cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
