"""deploy/systemd/dgmp.service: what it says, and that what it starts is a service."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import eventually
from tests.jobs.harness import Node, kill

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "dgmp.service"
DGMP = "%h/.local/bin/dgmp"


@pytest.fixture
def node():
    with Node() as node:
        yield node


def command(node, key):
    """What systemd would run, here."""
    said = re.search(rf"^{key}=-?(.*)$", UNIT.read_text(), re.M)[1]
    assert said.startswith(DGMP + " ")
    return [sys.executable, "-m", "dgmp", *said.removeprefix(DGMP).split()]


def service(node):
    return subprocess.Popen(command(node, "ExecStart"), env={**os.environ, **node.env}, stdin=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)


def dgmp(node, *words):
    done = subprocess.run([sys.executable, "-m", "dgmp", *words], env={**os.environ, **node.env}, cwd=node.work,
                          capture_output=True, text=True, timeout=60)
    return done.stdout.strip() if done.returncode == 0 else None


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_takes_it(tmp_path):
    unit = tmp_path / "dgmp.service"
    unit.write_text(UNIT.read_text().replace(DGMP, "/bin/true"))
    done = subprocess.run(["systemd-analyze", "--user", "verify", str(unit)], capture_output=True, text=True,
                          env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_is_started_again_after_a_kill_and_stopped(node):
    first = service(node)
    assert eventually(lambda: dgmp(node, "status"))
    job = dgmp(node, "submit", "while [ ! -e go ]; do sleep 0.01; done; echo once >> ran")
    assert eventually(lambda: dgmp(node, "jobs", "--state", "running").count("\n") == 1)
    kill(first.pid)
    first.wait()
    second = service(node)
    assert eventually(lambda: dgmp(node, "status"))
    (node.work / "go").touch()
    assert dgmp(node, "wait", job) == "" and node.lines("ran") == ["once"]
    other = service(node)
    assert str(other.wait(60)) == re.search("RestartPreventExitStatus=(.*)", UNIT.read_text())[1]
    stop = subprocess.run(command(node, "ExecStop"), env={**os.environ, **node.env}, capture_output=True, timeout=60)
    assert stop.returncode == 0
    assert second.wait(60) == 0 and eventually(lambda: not node.processes())
