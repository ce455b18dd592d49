"""Programs that attach to the node of `dgmp up`."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from dgmp.coordinator import sessions
from tests.helpers import eventually
from tests.jobs.harness import kill


@pytest.fixture
def program():
    """Starts a Python that attaches, and goes on to do this."""
    started = []

    def start(code):
        text = "import dgmp, os, sys\ndef square(x):\n    return x * x\nwith dgmp.Runtime(attach=True) as rt:\n" + \
            textwrap.indent(textwrap.dedent(code), "    ")
        started.append(subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, env=dict(os.environ)))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.communicate()


SQUARES = "print(dgmp.gather(*[rt.go(square, i) for i in range(5)]), flush=True)\nsys.stdin.read()"


def test_the_node_is_booted_when_a_program_comes_and_several_share_it(here, program):
    here.up()
    assert not here.processes("dgmp.jobs.node")
    programs = [program(SQUARES) for _ in range(2)]
    assert [p.stdout.readline() for p in programs] == ["[0, 1, 4, 9, 16]\n"] * 2
    assert len(here.processes("dgmp.jobs.node")) == 1
    for p in programs:
        assert p.communicate(timeout=60) == ("", "")
    here.client().shutdown()
    assert eventually(lambda: not here.processes()) and not [path for path in here.runtime.iterdir() if path.suffix == ".sock"]


@pytest.mark.parametrize("victim", ["daemon", "node"])
def test_programs_are_told_that_the_node_is_gone_and_there_is_another(here, program, victim):
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
    assert eventually(lambda: len(here.processes("dgmp.jobs.node")) == 1)


def test_without_a_daemon_it_says_how_to_start_one(here, program):
    out, err = program("pass").communicate(timeout=60)
    assert "`dgmp up` starts one" in err


def test_who_waits_for_a_node_that_cannot_boot_is_turned_away(here, program, monkeypatch):
    monkeypatch.setenv("DGMP_PYTHON", "/nowhere/python")
    here.up()
    for _ in range(2):
        out, err = program("pass").communicate(timeout=60)
        assert "CannotAttach" in err
    assert here.client().status()


def test_who_comes_as_the_node_dies_waits_for_the_next_one(here, program):
    """The daemon learns of both at once, and the node had only just come up."""
    daemon = here.up()
    assert program(SQUARES).stdout.readline() == "[0, 1, 4, 9, 16]\n"
    kill(daemon, signal.SIGSTOP)
    for pid in here.processes("dgmp.jobs.node"):
        kill(pid)
    with sessions.connect(sessions.default_path(), 60) as connection, open(os.devnull) as output:
        sessions.send(connection, {"protocol": sessions.PROTOCOL, "attach": sessions.identity()}, [output.fileno()])
        kill(daemon, signal.SIGCONT)
        answer, fds = sessions.receive(connection, 4)
    assert "client" in answer and len(fds) == 4
    for fd in fds:
        os.close(fd)
