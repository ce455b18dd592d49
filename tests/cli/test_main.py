"""The dgmp command itself: what it says of its verbs, and that it loads no more than it needs."""

import subprocess
import sys
from importlib import import_module

import pytest

import dgmp
from dgmp.cli import VERBS

DGMP = [sys.executable, "-m", "dgmp"]


def run(*words):
    return subprocess.run([*DGMP, *words], capture_output=True, text=True, timeout=60)


def loaded(code):
    """The modules of dgmp, and the dear ones of others, that a Python has after this."""
    code += "\nimport sys; print(*(n for n in sys.modules if n.startswith('dgmp.') or n in ('typing', 'argparse', 'zmq')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_version():
    assert (run("--version").stdout, run("version").stdout) == (f"dgmp {dgmp.__version__}\n",) * 2


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_lists_all_verbs(word):
    done = run(word)
    assert (done.returncode, done.stderr) == (0, "")
    for verb, what in VERBS.items():
        assert f"  {verb} " in done.stdout and what in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_is_there(verb):
    module = import_module(f"dgmp.cli.{verb}")
    assert hasattr(module, "main") or hasattr(module, "add_parser")
    done = run(verb, "--help")
    assert (done.returncode, done.stderr) == (0, "") and f"dgmp {verb}" in done.stdout


@pytest.mark.parametrize("words", [(), ("nonsense",), ("--nonsense",), ("",)])
def test_no_such_verb(words):
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "dgmp --help" in done.stderr and "Traceback" not in done.stderr


def test_a_start_loads_no_runtime():
    assert loaded("from dgmp import cli\ncli.main(['--version'])") == {"dgmp.api", "dgmp.api.ending", "dgmp.errors", "dgmp.cli"}
    assert loaded("from dgmp import cli\ncli.main(['--help'])") == {"dgmp.api", "dgmp.api.ending", "dgmp.errors", "dgmp.cli"}


def test_handlers_at_exit_from_before_the_first_go_still_have_their_runtime():
    code = "import atexit, dgmp\natexit.register(lambda: print(dgmp.go(abs, -3).result()))\nprint(dgmp.go(abs, -2).result())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n3\n", "")


def test_nothing_is_booted_at_the_very_end():
    code = "import atexit\natexit.register(lambda: dgmp.go(abs, -3))\nimport dgmp"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "RuntimeClosed" in done.stderr and "program is ending" in done.stderr
