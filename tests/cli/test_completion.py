"""What the scripts of `dgmp completion` complete, in the shells themselves."""

import re
import shlex
import shutil
import subprocess
import sys

import pytest

from dgmp.cli import VERBS
from dgmp.cli.parsers import verbs
from tests.terminal import Terminal

STUB = """#!/bin/sh
if [ "$*" = "completion jobs" ]; then
    printf '17\\tmake (running)\\n18\\tx: y (failed)\\n'
else
    printf '<%s>' dgmp "$@"; echo '</dgmp>'
fi
"""
DGMP = [sys.executable, "-m", "dgmp"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with the scripts, a `dgmp` that knows two jobs and prints its arguments, and things to complete."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh", "fish"):
        script = subprocess.run([*DGMP, "completion", shell], capture_output=True, text=True, check=True).stdout
        (folder / f"_dgmp.{shell}").write_text(script)
    (folder / "bin").mkdir()
    (folder / "bin" / "dgmp").write_text(STUB)
    (folder / "bin" / "dgmp").chmod(0o755)
    (folder / "data folder").mkdir()
    (folder / "data.txt").touch()
    return folder


def environment(home):
    return {"PATH": f"{home}/bin:/usr/bin:/bin", "HOME": str(home), "TERM": "xterm", "LC_ALL": "C.UTF-8"}


COMPLETED = [
    ("su", ["submit"]),
    ("--v", ["--version"]),
    ("submit --af", ["submit", "--after"]),  # or --after-ok
    ("submit --on-lost r", ["submit", "--on-lost", "rerun"]),
    ("submit --cwd da", ["submit", "--cwd", "data folder/"]),
    ("submit --stdout data.", ["submit", "--stdout", "data.txt"]),
    ("jobs --state can", ["jobs", "--state", "cancelled"]),
    ("wait la", ["wait", "last"]),
    ("show 18,17", ["show", "18,17"]),
    ("logs -f al", ["logs", "-f", "all"]),
    ("cancel 3,al", ["cancel", "3,all"]),
    ("completion f", ["completion", "fish"]),
    ("submit --name x --wait basenam", ["submit", "--name", "x", "--wait", "basename"]),
    ("submit -- basename data.", ["submit", "--", "basename", "data.txt"]),
    ("submit basename --st", ["submit", "basename", "--st"]),  # not ours to complete
]


NOT_IN_FISH = ("show 18,17", "cancel 3,al")


@pytest.mark.parametrize("typed,completed", COMPLETED)
def test_bash(home, typed, completed):
    with Terminal(["bash", "--norc", "-i"], env={**environment(home), "PS1": "> "}, cwd=home) as terminal:
        terminal.type("source ./_dgmp.bash; echo rea''dy\n")
        terminal.until(r"[\r\n]ready")
        check(terminal, typed, completed)


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
@pytest.mark.parametrize("typed,completed", COMPLETED)
def test_zsh(home, typed, completed):
    with Terminal(["zsh", "-f", "-i"], env=environment(home), cwd=home) as terminal:
        terminal.type("PS1='> '; autoload -Uz compinit; compinit -u -D; source ./_dgmp.zsh; echo rea''dy\n")
        terminal.until(r"[\r\n]ready")
        check(terminal, typed, completed)


def check(terminal, typed, completed):
    """Tab, and return: what is run then."""
    terminal.type(f"dgmp {typed}\t\n")
    ran = terminal.until(r"<dgmp>.*</dgmp>")
    words = [word.rstrip("/") for word in re.findall("<([^/>][^>]*)>", ran)]
    assert words[1:] == [word.rstrip("/") for word in completed], terminal.text


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
@pytest.mark.parametrize("typed,completed", [c for c in COMPLETED if c[0] not in NOT_IN_FISH])
def test_fish(home, typed, completed):
    script = f"source _dgmp.fish; complete -C {shlex.quote('dgmp ' + typed)}"
    done = subprocess.run(["fish", "--no-config", "-c", script], env=environment(home), cwd=home,
                          capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    candidates = [line.partition("\t")[0] for line in done.stdout.splitlines()]
    assert (completed[-1] in candidates) == (completed[-1] != typed.split()[-1]), candidates


def test_every_option_is_completed(home):
    for name, verb in verbs().items():
        for option in verb.arguments:
            for spelled in option.names:
                assert all(spelled in (home / f"_dgmp.{shell}").read_text() for shell in ("bash", "zsh")), (name, spelled)
                assert re.search(rf"__dgmp_verb {name}' .*-[slo] {spelled.lstrip('-')}\b", (home / "_dgmp.fish").read_text())
    assert set(verbs()) == set(VERBS)
