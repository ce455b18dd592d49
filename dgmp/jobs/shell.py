"""The shell: which one runs a command line, when none is needed, and how a value is written in one.

A value is written so that the shell takes it for the value and nothing else, wherever in the line it stands: by itself, in
'...' or "...", in $(...) or `...`, and in the script after a -c or eval.  In a here-document that cannot be.
Called by template.
"""

from __future__ import annotations

import os
from functools import lru_cache

from ..errors import DgmpError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Quoting = Callable[[str], str]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Quoting as GNU parallel does it, so that what --dry-run and the joblog show is the same.
SAFE = frozenset(LETTERS + "0123456789_./+-")
# Without any of these a line means the same to every shell: words between blanks.
SPECIAL = frozenset("!\"#$&'()*;<>?[\\]^`{|}~\x7f" + "".join(map(chr, range(32))))
NESTING = r"(?:^|\s)(?:-[A-Za-z]*c|eval)\s+$"
HERE = r"(?<!<)<<-?[ \t]*([^\s<;&|()]+)[\s;&|)]$"
SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "ksh93", "mksh", "lksh", "ash", "yash", "posh", "rbash", "busybox"}
# What the shell itself does, whatever there may be in PATH.
BUILTINS = set("""
    . : alias bg bind break builtin caller case cd command compgen complete compopt continue coproc declare dirs disown do done
    elif else enable esac eval exec exit export fc fg fi for function getopts hash help history if in jobs let local logout
    mapfile popd pushd pwd read readarray readonly return select set shift shopt source suspend then time times trap type
    typeset ulimit umask unalias unset until wait while
    """.split())
# What the shell does and a program does alike, but for this one argument.
TWINS = {"[", "echo", "false", "kill", "printf", "test", "true"}
ABOUT_ITSELF = ("--help", "--version")


def quote(value: str) -> str:
    """As a word of its own, or a part of one."""
    if value and SAFE.issuperset(value):
        return value
    return "'" + in_single(value) + "'"


def is_plain(text: str) -> bool:
    """Whether nothing in it means anything to a shell, but blanks."""
    return SPECIAL.isdisjoint(text)


def in_single(value: str) -> str:
    """Between single quotes."""
    return value.replace("'", "'\"'\"'") if "'" in value else value


def in_double(value: str) -> str:
    """Between double quotes."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$").replace("`", "\\`")


def in_backquotes(text: str) -> str:
    """A piece of the command between backquotes, where backslashes are read once more."""
    return text.replace("\\", "\\\\").replace("`", "\\`")


def as_it_is(value: str) -> str:
    return value


class Unquotable(DgmpError):
    """There is no way to write a value here."""


class Scanner:
    """Reads a command line from the left, and knows at each place how a value is written there."""

    def __init__(self) -> None:
        self.inside: list[str] = []  # what is open: ' " ` $( (
        self.before = ""  # what was read at the level of words
        self.script: Scanner | None = None  # of what is in the quotes that are open, if that is a script
        self.escaped = self.comment = False
        self.here: list[str] = []  # the ends of here-documents that begin with the next line, or have begun
        self.body: str | None = None  # the line of a here-document, as far as it has been read

    def read(self, text: str) -> None:
        for c in text:
            if self.body is not None:
                self.in_here_document(c)
                continue
            self.step(c)
            if c == "\n" and not self.inside and self.here:
                self.body = ""

    def here_document(self) -> None:
        """Whether a word has ended that says how a here-document will."""
        import re

        found = re.search(HERE, self.before)
        if found is not None:
            self.here.append(found[1].replace("\\", "").replace("'", "").replace('"', ""))

    def in_here_document(self, c: str) -> None:
        assert self.body is not None
        if c != "\n":
            self.body += c
            return
        if self.body.lstrip("\t") == self.here[0]:
            del self.here[0]
        self.body = "" if self.here else None

    def value(self) -> None:
        """A value stands here."""
        if self.script is not None:
            self.script.value()
        self.before += "x"

    def step(self, c: str) -> None:
        inner = self.inside[-1] if self.inside else ""
        if self.comment:
            self.comment = c != "\n"
        elif self.escaped:
            self.escaped = False
            self.feed(c if inner != '"' or c in '\\"$`' else "\\" + c)
            c = "x"  # it means nothing any more
        elif inner == "'":
            if c == "'":
                self.close()
            else:
                self.feed(c)
        elif c == "\\":
            self.escaped = True
        elif inner == '"':
            if c == '"':
                self.close()
            elif not self.opened(c):
                self.feed(c)
        elif c in "'\"":
            nested = self.begins_script()
            self.inside.append(c)
            self.script = Scanner() if nested else None
        elif c == "#" and (not self.before or self.before[-1] in " \t\n;&|("):
            self.comment = True
        elif c == ")" and inner in ("$(", "("):
            self.inside.pop()
        elif c == "(" and not self.before.endswith("$"):
            self.inside.append("(")
        else:
            self.opened(c)
        self.before = self.before[-40:] + ("x" if inner in ("'", '"') and c in "<#&;| \t\n" else c)
        if "<<" in self.before and not self.inside and c in " \t\n;&|)":
            self.here_document()

    def feed(self, c: str) -> None:
        if self.script is not None:
            self.script.read(c)

    def opened(self, c: str) -> bool:
        """Whether it begins or ends a command within the line."""
        if c == "`":
            if "`" in self.inside:
                while self.inside.pop() != "`":
                    pass
            else:
                self.inside.append("`")
            return True
        if c == "(" and self.before.endswith("$"):
            self.inside.append("$(")
            return True
        return False

    def begins_script(self) -> bool:
        """Whether what comes is a script for another shell."""
        import re

        return re.search(NESTING, self.before) is not None

    def close(self) -> None:
        self.inside.pop()
        self.script = None

    def quoting(self) -> Quoting:
        """How a value is written here.

        Raises:
            Unquotable: in no way.
        """
        if self.body is not None or (self.script is not None and self.script.body is not None):
            raise Unquotable("an input cannot be put safely into a here-document: let the command have it as an argument")
        inner = self.inside[-1] if self.inside else ""
        here = {"'": in_single, '"': in_double}.get(inner, quote)
        steps: list[Quoting] = [here]
        if self.script is not None and inner in ("'", '"'):
            steps.insert(0, self.script.quoting())
        steps += [in_backquotes] * self.inside.count("`")
        return steps[0] if len(steps) == 1 else chain(steps)


def chain(steps: list[Quoting]) -> Quoting:
    def quoting(value: str) -> str:
        for step in steps:
            value = step(value)
        return value

    return quoting


def needs_no_shell(argv: list[str]) -> bool:
    """Whether the program would do what a shell would."""
    return is_program(argv[0]) and not (argv[0] in TWINS and argv[1:2] and argv[1] in ABOUT_ITSELF)


@lru_cache(maxsize=1000)
def is_program(name: str) -> bool:
    """Whether it can be started without a shell, and that would start the same."""
    if "/" in name:
        return True
    if not name or name in BUILTINS or "=" in name or f"BASH_FUNC_{name}%%" in os.environ:
        return False
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return any(os.access(path, os.X_OK) and os.path.isfile(path) for path in (os.path.join(f, name) for f in folders))


@lru_cache(maxsize=1)
def shell() -> str:
    """The one that runs command lines: PARALLEL_SHELL, else that from which this was started, else SHELL, else /bin/sh.

    Those whose language is another than sh's (csh, fish) are passed over.
    """
    given = os.environ.get("PARALLEL_SHELL")
    if given:
        return given
    pid = os.getppid()
    while pid > 1:
        try:
            path = os.readlink(f"/proc/{pid}/exe")
            with open(f"/proc/{pid}/stat", "rb") as f:
                pid = int(f.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError):
            break
        if os.path.basename(path) in SHELLS:
            return path if os.access(path, os.X_OK) and os.path.basename(path) != "busybox" else "/bin/sh"
    path = os.environ.get("SHELL", "")
    return path if os.path.basename(path) in SHELLS and os.access(path, os.X_OK) else "/bin/sh"
