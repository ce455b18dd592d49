"""A short run of chaos (harness.py); `make chaos SEEDS=` is the long one.  The seeds draw kills of Ms, zygote, client and
coordinator, and stops of all four."""

import subprocess
from pathlib import Path

import pytest

from tests.chaos.harness import plan
from tests.chaos.history import Role
from tests.helpers import PYTHON

ROOT = Path(__file__).parent.parent.parent
SECONDS = 2


@pytest.mark.parametrize("seed", [2, 4, 5, 12])
def test_chaos(seed):
    done = subprocess.run([PYTHON, "-m", "tests.chaos.harness", "--seed", str(seed), "--seconds", str(SECONDS)],
                          cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_seed_says_what_strikes_whom_and_when():
    assert plan(5, 10) == plan(5, 10) != plan(6, 10)
    drawn = [strike for seed in range(20) for strike in plan(seed, 10)]
    assert {(strike.role, strike.stop > 0) for strike in drawn} == {(role, stops) for role in Role for stops in (True, False)}
