"""A process that dies between any two steps of the core, at a place chosen beforehand (dgmp/_core/killpoints.h): what its Gs
were doing is lost with WorkerDied at the most, everything else comes out right, and nothing hangs or stays.

With the build of `make killpoints`; each case is a program of its own (tests/programs/mixture.py).
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import alive, eventually

ROOT = Path(__file__).parent.parent.parent
BUILD = ROOT / "build" / "killpoints"
NAMES = re.findall(r"X\((\w+)\)", (ROOT / "dgmp" / "_core" / "killpoints.h").read_text())
NODE_DIED = 4
BY_MS = [name for name in NAMES if not name.startswith(("retake_", "handoffp_", "repair_", "adopt_"))]
SELDOM = {"runqsteal_next_before", "runqsteal_next_after", "mreserve_before", "mreserve_after", "startm_reserved",
          "heap_give_locked", "heap_split_locked", "heap_relink_locked", "sema_grant_locked", "wait_cancel_after"}
BY_COORDINATOR = [name for name in NAMES if name.startswith("repair_")] + [
    "adopt_collected", "globrunqput_locked", "hand_over_after", "heap_locked", "inbox_push_after", "mwant_after",
    "notewakeup_after", "pool_put_locked", "retake_before", "retake_after", "startm_before"]
BY_CLIENT = ["chan_locked", "chan_send_locked", "fn_fill_locked", "gclear_after", "gcollect_after", "gfget_after",
             "globrunqput_locked", "gwait_for_linked", "hand_over_after", "heap_locked", "inbox_drop_before", "mreserve_after",
             "mwant_after", "notewakeup_after", "pidletake_before", "place_locked", "pool_take_locked", "startm_reserved",
             "wakep_before"]
AS_IT_BOOTS = ("globrunqput_locked", "mreserve_after", "startm_reserved")
BY_ATTACHED = [name for name in BY_CLIENT if name not in AS_IT_BOOTS]
pytestmark = [pytest.mark.skipif(not (BUILD / "native.so").exists(), reason="needs make killpoints"), pytest.mark.timeout(300)]


def marked(text):
    """The processes that have it in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and text.encode() in (folder / "environ").read_bytes() and alive(int(folder.name)):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


class Ended:
    """How the program ended, whose processes died at `point`."""

    def __init__(self, tmp_path, point, *args, program="mixture.py", **variables):
        log = tmp_path / "killed"
        log.touch()
        path = os.pathsep.join([str(BUILD), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "DGMP_KILLPOINT": point, "DGMP_KILLPOINT_LOG": str(log)} | variables
        run = subprocess.run([sys.executable, str(ROOT / "tests" / "programs" / program), *args], env=environment,
                             capture_output=True, text=True, timeout=250)
        self.code, self.errors = run.returncode, run.stderr
        self.lines = run.stdout.split("\n")
        self.right, self.lost = map(int, self.lines[:2]) if self.code == 0 and len(self.lines) > 2 else (0, 0)
        self.killed = log.read_text().split("\n")[:-1]
        self.nothing_left = eventually(lambda: not marked(str(log)))


def test_nobody_dies_without_being_told_to(tmp_path):
    ended = Ended(tmp_path, "")
    assert (ended.code, ended.lost, ended.killed) == (0, 0, []), ended.errors
    assert ended.nothing_left


@pytest.mark.parametrize("name", BY_MS)
def test_an_m_dies(tmp_path, name):
    ended = Ended(tmp_path, f"m/{name}")
    assert ended.code == 0, ended.errors
    assert ended.nothing_left
    if name in SELDOM and not ended.killed:
        pytest.skip("no M came there this time")
    assert len(ended.killed) == 1 and ended.killed[0].startswith(f"{name} m")
    assert ended.right > 300  # of 399, in three rounds


@pytest.mark.parametrize("name", BY_COORDINATOR)
def test_the_coordinator_dies(tmp_path, name):
    """As an M has died."""
    ended = Ended(tmp_path, f"coordinator/{name}", "kills")
    assert ended.code == NODE_DIED, ended.errors
    assert len(ended.killed) == 1 and ended.killed[0].startswith(f"{name} m")
    assert ended.nothing_left


@pytest.mark.parametrize("name", BY_CLIENT)
def test_the_client_dies(tmp_path, name):
    ended = Ended(tmp_path, f"client/{name}")
    assert ended.code == -signal.SIGKILL, ended.errors
    assert ended.nothing_left


@pytest.mark.parametrize("name", BY_ATTACHED)
def test_a_client_dies_that_has_attached(tmp_path, name):
    """Who has booted the node and another client go on, and nothing of the dead one is left there."""
    ended = Ended(tmp_path, "", f"client/{name}", program="shared.py")
    assert ended.code == 0, ended.errors
    assert ended.lines[-2] == str(-signal.SIGKILL)
    assert len(ended.killed) == 1 and ended.killed[0].startswith(f"{name} m")
    assert ended.nothing_left
