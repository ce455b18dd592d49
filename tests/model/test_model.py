"""The quick ones of `make model`; all of them take some minutes."""

import os
import subprocess
import sys

import pytest

from . import check

QUICK = [case for case in check.CASES if case.quick]
needs_spin = pytest.mark.skipif(bool(check.missing()), reason=f"needs {' and '.join(check.missing())} (apt install)")


@needs_spin
@pytest.mark.parametrize("case", QUICK, ids=[case.name for case in QUICK])
def test_model(case):
    assert check.verify(case).states > 100


@needs_spin
def test_a_fault_in_a_model_fails_loudly_and_says_how_it_comes_about(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "KEPT", str(tmp_path))
    fault = next(case for case in QUICK if case.without)
    with pytest.raises(check.Failed, match="spin -t") as e:
        check.verify(fault._replace(without=""))
    where = str(e.value).split("cd ")[1]
    steps = subprocess.run(where.join(["cd ", ""]), shell=True, capture_output=True, text=True, timeout=60).stdout
    assert "assertion violated" in steps


@needs_spin
def test_a_mutant_without_a_fault_fails_loudly():
    sound = next(case for case in QUICK if not case.without)
    with pytest.raises(check.Failed, match="without an error"):
        check.verify(sound._replace(without="nothing"))


def test_each_model_has_mutants_and_without_spin_it_says_what_to_install():
    for model in ("park", "ring", "chan", "death"):
        assert sum(case.model == model and bool(case.without) for case in check.CASES) >= 4
    done = subprocess.run([sys.executable, os.path.join(check.HERE, "check.py")], env={"PATH": ""}, capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 2 and "apt install spin" in done.stderr
