"""Programs that attach to the node of `dgmp up`."""

import os
import subprocess
import sys
import textwrap

import pytest

from tests.helpers import eventually
from tests.jobs.harness import kill


def program(code):
    """A Python that attaches, and goes on to do this."""
    text = "import dgmp, os, sys\ndef square(x):\n    return x * x\nwith dgmp.Runtime(attach=True) as rt:\n" + \
        textwrap.indent(textwrap.dedent(code), "    ")
    return subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env=dict(os.environ))


SQUARES = "print(dgmp.gather(*[rt.go(square, i) for i in range(5)]), flush=True)\nsys.stdin.read()"


def test_the_node_is_booted_when_a_program_comes_and_several_share_it(here):
    here.up()
    assert not here.processes("dgmp.jobs.node")
    programs = [program(SQUARES) for _ in range(2)]
    assert [p.stdout.readline() for p in programs] == ["[0, 1, 4, 9, 16]\n"] * 2
    assert len(here.processes("dgmp.jobs.node")) == 1
    for p in programs:
        assert p.communicate(timeout=60) == ("", "")
    here.client().shutdown()
    assert not here.processes() and not [path for path in here.runtime.iterdir() if path.suffix == ".sock"]


@pytest.mark.parametrize("victim", ["daemon", "node"])
def test_programs_are_told_that_the_node_is_gone_and_there_is_another(here, victim):
    daemon = here.up()
    first = program(SQUARES)
    assert first.stdout.readline() == "[0, 1, 4, 9, 16]\n", first.stderr.read()
    for pid in [daemon] if victim == "daemon" else here.processes("dgmp.jobs.node"):
        kill(pid)
    if victim == "daemon":
        here.up()
    second = program(SQUARES)
    assert second.stdout.readline() == "[0, 1, 4, 9, 16]\n", second.stderr.read()
    assert second.communicate(timeout=60) == ("", "")
    first.communicate(timeout=60)
    assert eventually(lambda: len(here.processes("dgmp.jobs.node")) == 1, 20)


def test_without_a_daemon_it_says_how_to_start_one(here):
    out, err = program("pass").communicate(timeout=60)
    assert "`dgmp up` starts one" in err


def test_who_waits_for_a_node_that_cannot_boot_is_turned_away(here, monkeypatch):
    monkeypatch.setenv("DGMP_PYTHON", "/nowhere/python")
    here.up()
    for _ in range(2):
        out, err = program("pass").communicate(timeout=60)
        assert "CannotAttach" in err
    assert here.client().status()
