"""Python functions as jobs: dgmp.jobs.call."""

import subprocess
import sys

import pytest

OURS = """
import sys
def total(numbers, *words):
    return sum(numbers), words
def nothing():
    pass
def fail(text):
    raise ValueError(text)
def leave(code):
    sys.exit(code)
async def later(x):
    return x + 1
class Thing:
    @staticmethod
    def twice(x):
        return 2 * x
three = 3
"""


@pytest.fixture
def call(tmp_path):
    (tmp_path / "ours.py").write_text(OURS)
    (tmp_path / "broken.py").write_text("import no_such_thing\n")
    return lambda *words: subprocess.run([sys.executable, "-m", "dgmp.jobs.call", *words], cwd=tmp_path, capture_output=True,
                                         text=True, timeout=60)


@pytest.mark.parametrize("words,printed", [
    (["ours:total", "[1, 2, 3]", "word", "'4'", "4"], "(6, ('word', '4', 4))\n"), (["ours:nothing"], ""),
    (["ours:later", "1"], "2\n"),
    (["ours:Thing.twice", "x y"], "x yx y\n"), (["statistics:mean", "[1, 2]"], "1.5\n"), (["os.path:join", "/", "a"], "/a\n"),
])
def test_calls(call, words, printed):
    done = call(*words)
    assert (done.returncode, done.stdout, done.stderr) == (0, printed, "")


def test_an_exception_is_its_traceback(call):
    done = call("ours:fail", "é")
    assert done.returncode == 1 and done.stderr.endswith("ValueError: é\n") and "call.py" not in done.stderr
    assert call("ours:leave", "7").returncode == 7


@pytest.mark.parametrize("target,said", [
    ("ours", "say module:function"), ("nowhere:f", "no module 'nowhere'"), ("ours:none", "no 'none' in <module 'ours'"),
    ("ours:three", "is no function, but 3"), ("ours.inner:f", "no module 'ours.inner'"), (":f", "say module:function"),
])
def test_no_function(call, target, said):
    done = call(target)
    assert (done.returncode, done.stdout) == (2, "") and said in done.stderr and "Traceback" not in done.stderr


def test_a_module_that_cannot_be_imported(call):
    done = call("broken:f")
    assert done.returncode == 1 and "No module named 'no_such_thing'" in done.stderr and "broken.py" in done.stderr
