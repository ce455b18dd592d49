"""What is where: imports go downwards only, and names of modules in strings are those of modules."""

import ast
from importlib.util import find_spec, resolve_name
from pathlib import Path

import pytest

from dgmp.runtime.signals import POLICY

ROOT = Path(__file__).parents[2]
LEVELS = [("_core", "errors"), ("ship", "observe"), ("coordinator", "runtime"), ("api", "jobs"), ("workers",), ("cli",)]
LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts}
# The child that the coordinator forks becomes the zygote.
UPWARDS = {("dgmp.coordinator.server", "dgmp.workers.zygote")}
FILES = [path for package in sorted(LEVEL) for path in sorted((ROOT / "dgmp" / package).glob("*.py"))]


def imported(path):
    """The modules of dgmp that a file imports, anywhere in it."""
    package = ".".join(path.parent.relative_to(ROOT).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("dgmp."))
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module
            if base == "dgmp":
                yield from (f"dgmp.{alias.name}" for alias in node.names if alias.name in LEVEL)
            elif base.startswith("dgmp."):
                yield from (f"{base}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_imports_go_downwards(path):
    level = LEVEL[path.parent.name]
    module = f"dgmp.{path.parent.name}.{path.stem}"
    upwards = [name for name in imported(path) if LEVEL[name.split(".")[1]] > level
               and not any(module == a and name.startswith(b) for a, b in UPWARDS)]
    assert upwards == []


def test_the_scheduler_is_made_of_modules():
    assert [name for name in POLICY if find_spec(name) is None] == []
