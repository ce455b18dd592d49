"""What Ms take over from the program: start-up options, warnings filters, faulthandler."""

import contextlib
import faulthandler
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import warnings

import pytest

import dgmp
from tests.helpers import PYTHON


def python(*args, cwd=None, env=None, stdin=None):
    """A program's (exit code, stdout, stderr)."""
    done = subprocess.run([PYTHON, *map(str, args)], capture_output=True, text=True, timeout=60, cwd=cwd, input=stdin,
                          env={**os.environ, **(env or {})})
    return done.returncode, done.stdout, done.stderr


# ------------------------------------------------------------------ start-up options
SAME = """
import sys, dgmp

def world():
    import faulthandler, sys, warnings
    filters = [(x[0], x[1] and x[1].pattern, x[2].__name__, getattr(x[3], "pattern", x[3]), x[4]) for x in warnings.filters]
    return (tuple(sys.flags), sys.warnoptions, sys._xoptions, filters, faulthandler.is_enabled(), sys.dont_write_bytecode,
            sys.pycache_prefix, sys.get_int_max_str_digits(), __debug__)

if dgmp.go(world).result() != world():
    print(world(), dgmp.go(world).result(), sep="\\n")
"""


@pytest.mark.parametrize("options", [
    "", "-X dev", "-X dev -W error::UserWarning -O", "-OO -B -q", "-bb -W ignore", "-b", "-I", "-E -s", "-P",
    "-W error::ResourceWarning:some.module:7", "-X faulthandler -X utf8=1", "-X utf8=0",
    "-X int_max_str_digits=5000 -X pycache_prefix=/nowhere -X frozen_modules=off -X mine=3 -X other",
])
def test_start_up_options(options):
    assert python(*options.split(), "-c", SAME) == (0, "", "")


@pytest.mark.parametrize("env", [{"PYTHONOPTIMIZE": "2"}, {"PYTHONWARNINGS": "error::UserWarning,ignore"},
                                 {"PYTHONDEVMODE": "1"}, {"PYTHONFAULTHANDLER": "1"}, {"PYTHONINSPECT": ""}])
def test_start_up_options_in_the_environment(env):
    assert python("-c", SAME, env=env) == (0, "", "")


CHANGE = """
import faulthandler, os, sys, warnings
os.environ |= {"PYTHONWARNINGS": "error", "PYTHONFAULTHANDLER": "1"}
warnings.filterwarnings("error", "a b", UserWarning, "some[.]module", 7)
sys.set_int_max_str_digits(700)
sys.dont_write_bytecode = True
sys.warnoptions.append("mine")
"""


def test_what_the_program_has_changed_of_them():
    assert python("-c", CHANGE + SAME) == (0, "", "")


def test_import_times_are_shown_of_ms_too():
    program = "import dgmp; print(dgmp.go(eval, '__import__(\"colorsys\").__name__').result())"
    code, out, err = python("-X", "importtime", "-c", program)
    assert (code, out) == (0, "colorsys\n")
    assert [line for line in err.splitlines() if line.endswith(" colorsys")]


def test_without_site(tmp_path):
    """-S leaves no site-packages: a program that adds them itself gets Ms that have them."""
    for name, to in ("dgmp", "dgmp"), ("dgmp.workers", "dgmp/workers"):
        source = os.path.dirname(importlib.util.find_spec(name).origin)
        shutil.copytree(source, tmp_path / to, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    packages = os.path.dirname(os.path.dirname(importlib.util.find_spec("msgpack").origin))
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; sys.path.append({packages!r})"
    assert python("-S", "-c", code + SAME, cwd="/") == (0, "", "")


# ------------------------------------------------------------------ warnings
class LocalWarning(UserWarning):
    pass


def warn(category, text="text"):
    """Whether a warning is ignored, shown or raised here."""
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown):
        try:
            warnings.warn(text, category, stacklevel=1)
        except Warning:
            return "error"
    return "shown" if text in shown.getvalue() else "ignored"


@pytest.mark.parametrize("category", [UserWarning, LocalWarning, DeprecationWarning])
@pytest.mark.parametrize("action,outcome", [("error", "error"), ("ignore", "ignored"), ("always", "shown")])
def test_warnings_filters(category, action, outcome):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if action != "ignore" else "always")
        warnings.filterwarnings(action, "t.xt", category=category)
        with dgmp.Runtime(procs=1) as rt:
            assert rt.go(warn, category).result(20) == outcome
            assert rt.go(warn, category, "other").result(20) == ("ignored" if action != "ignore" else "shown")


def test_filters_of_no_use_to_ms():
    with warnings.catch_warnings():
        warnings.filters[:0] = [("ignore", object(), UserWarning, None, 0), ("ignore", None, "text", None, 0)]
        warnings.filterwarnings("error", category=type("Unimportable", (UserWarning,), {"__module__": "nowhere"}))
        warnings.filterwarnings("error", category=LocalWarning)
        with dgmp.Runtime(procs=1) as rt:
            assert rt.go(warn, LocalWarning).result(20) == "error"


@pytest.mark.parametrize("enabled", [True, False])
def test_faulthandler(enabled):
    was = faulthandler.is_enabled()
    try:
        faulthandler.enable() if enabled else faulthandler.disable()
        with dgmp.Runtime(procs=1) as rt:
            assert rt.go(faulthandler.is_enabled).result(20) is enabled
    finally:
        faulthandler.enable() if was else faulthandler.disable()


# ------------------------------------------------------------------ which Python
@pytest.fixture
def no_override(monkeypatch):
    monkeypatch.delenv("DGMP_PYTHON", raising=False)


@pytest.mark.parametrize("path", ["", None])
def test_no_python_is_known(path, monkeypatch, no_override):
    monkeypatch.setattr(sys, "executable", path)
    with pytest.raises(RuntimeError, match=r"no Python .* sys\.executable=.*Runtime\(executable=\.\.\.\) or .* DGMP_PYTHON"):
        dgmp.Runtime(procs=1)
    with dgmp.Runtime(procs=1, executable=PYTHON) as rt:
        assert rt.go(eval, "__import__('sys').executable").result(20) == PYTHON
    monkeypatch.setenv("DGMP_PYTHON", PYTHON)
    with dgmp.Runtime(procs=1) as rt:
        assert rt.go(abs, -1).result(20) == 1


@pytest.mark.parametrize("path,why", [("/nowhere/python", "No such file"), ("/bin/true", "not a Python"),
                                      ("/bin/cat", "not a Python"), ("/dev/null", "Permission denied")])
def test_no_python_is_there(path, why, monkeypatch, no_override):
    with pytest.raises(RuntimeError, match=f"executable='{path}': .*{why}.*DGMP_PYTHON"):
        dgmp.Runtime(procs=1, executable=path)
    monkeypatch.setattr(sys, "executable", path)
    with pytest.raises(RuntimeError, match=f"sys.executable='{path}': .*{why}.*DGMP_PYTHON"):
        dgmp.Runtime(procs=1)


@pytest.fixture
def program(tmp_path):
    """Makes an executable script of the shell."""
    def make(text):
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)
    return make


def test_another_version_of_python(program):
    path = program('echo "dgmp asks for cpython-310"')
    with pytest.raises(RuntimeError, match="it is cpython-310 and not cpython-3"):
        dgmp.Runtime(procs=1, executable=path)


def test_a_program_that_says_too_much(program):
    with pytest.raises(RuntimeError, match="not a Python"):
        dgmp.Runtime(procs=1, executable=program("exec yes"))


def test_a_script_that_starts_python(program):
    with dgmp.Runtime(procs=1, executable=program(f'exec {PYTHON} "$@"')) as rt:
        assert rt.go(abs, -1).result(20) == 1


def test_a_bad_executable_under_dgmp_run(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("")
    code, _, err = python("-m", "dgmp", "run", script, env={"DGMP_PYTHON": "/nowhere"})
    assert code == 2 and err.count("\n") == 1
    assert err.startswith("dgmp: processes cannot be started with DGMP_PYTHON='/nowhere'")
