"""The examples of README.md's section on the job launcher do what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs.harness import Node

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"```sh\n(.*?)```", README.read_text().partition("## The job launcher")[2].partition("\n## ")[0], re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_readme(block):
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
        expected = re.findall("# → (.*)", block)
        lines = done.stdout.splitlines()
        assert expected and [line for line in lines if line in expected] == expected, done.stdout
