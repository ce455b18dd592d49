"""Python programs attach to the daemon's node."""

import os
import signal
import time

import pytest

import dgmp
from tests import helpers
from tests.helpers import alive, eventually
from tests.jobs.harness import Node, kill, reaped

SECONDS = 30.0


@pytest.fixture
def place():
    with Node() as place:
        yield place


def pid_of_m():
    return os.getpid()


def test_it_is_booted_when_the_first_program_comes(place):
    place.up("--cpus=1")
    assert not place.processes("workers.node")
    with dgmp.Runtime(attach=True) as a, dgmp.Runtime(attach=True) as b:
        assert helpers.still_fine(a) and helpers.still_fine(b)
        assert a.gomaxprocs() == 1
        assert a.node.view.runtime_id == b.node.view.runtime_id
    node, = place.processes("workers.node")
    with dgmp.Runtime(attach=True) as rt:  # it stays
        assert helpers.still_fine(rt)
    assert place.processes("workers.node") == [node]
    place.client().shutdown()
    assert eventually(lambda: not alive(node))
    with pytest.raises(dgmp.CannotAttach, match="no node listens at .*node.sock: `dgmp up` starts one"):
        dgmp.Runtime(attach=True)


def test_one_that_dies_is_booted_anew(place):
    daemon = place.up()
    rt = dgmp.Runtime(attach=True)
    pending = rt.go(time.sleep, 3600)
    node, = place.processes("workers.node")
    os.kill(node, signal.SIGKILL)
    assert type(pending.exception(SECONDS)) is dgmp.CoordinatorDied
    rt.close()
    deadline = time.monotonic() + SECONDS
    while True:  # who comes as it dies, or soon after it was booted, is turned away
        try:
            again = dgmp.Runtime(attach=True)
            break
        except dgmp.CannotAttach:
            assert time.monotonic() < deadline
    with again:
        assert helpers.still_fine(again)
    assert alive(daemon)


def test_it_ends_with_a_daemon_that_is_killed(place):
    daemon = place.up()
    rt = dgmp.Runtime(attach=True)
    m, pending = rt.go(pid_of_m).result(SECONDS), rt.go(time.sleep, 3600)
    kill(daemon)
    place.daemons = [pid for pid in place.daemons if not reaped(pid)]
    place.up()  # at once: the old one may listen still
    with dgmp.Runtime(attach=True) as other:
        assert helpers.still_fine(other)
        assert type(pending.exception(SECONDS)) is dgmp.CoordinatorDied
        assert eventually(lambda: not alive(m))
        rt.close()


def test_who_waits_for_one_that_cannot_boot_is_turned_away(place, monkeypatch):
    monkeypatch.setenv("DGMP_PYTHON", "/nowhere/python")
    daemon = place.up()
    for _ in range(2):
        with pytest.raises(dgmp.CannotAttach):
            dgmp.Runtime(attach=True)
    assert alive(daemon) and place.client().status()
    assert "the node for Python programs has ended with exit code 1" in (place.state / "daemon.log").read_text()
