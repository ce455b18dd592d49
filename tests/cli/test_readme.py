"""The examples of README.md do what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs.harness import Node

README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_python(block, tmp_path):
    (tmp_path / "block.py").write_text(block)
    done = subprocess.run([sys.executable, "block.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    check(done.stdout, re.findall(r"^print\(.*\) +# (.*)", block, re.MULTILINE))


@pytest.mark.parametrize("block", re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
def test_shell(block):
    with Node() as node:
        (node.root / "bin").mkdir()
        (node.root / "bin" / "dgmp").write_text(f"#!/bin/sh\nexec {sys.executable} -m dgmp \"$@\"\n")
        (node.root / "bin" / "dgmp").chmod(0o755)
        for name in "abc":
            (node.work / f"{name}.log").write_text("line\n" * 100)
        env = {**os.environ, **node.env, "PATH": f"{node.root}/bin:{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-e", "-o", "pipefail", "-c", block], cwd=node.work, env=env, capture_output=True,
                              text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        check(done.stdout, re.findall("# → (.*)", block))


def check(printed, expected):
    """Whether these lines are printed, in this order, perhaps among others."""
    assert expected and [line for line in printed.splitlines() if line in expected] == expected, printed
