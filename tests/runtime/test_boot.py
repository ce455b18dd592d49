"""Booting a runtime from odd programs, and with something in the way."""

import contextlib
import os
import subprocess
import sys

import pytest

import dgmp
from dgmp.api import runtime as api
from tests import helpers
from tests.helpers import PYTHON


def sees():
    return sys.argv, sys.path


def python(code, *args, redirect=""):
    return subprocess.run(["sh", "-c", f'exec "$@" {redirect}', "sh", PYTHON, "-c", code, *args], capture_output=True,
                          text=True, timeout=60)


def test_more_arguments_than_a_socket_holds():
    code = "import sys, dgmp; assert dgmp.go(eval, '__import__(\"sys\").argv').result(20) == sys.argv"
    done = python(code, *map(str, range(100_000, 140_000)))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_long_path_and_odd_strings(monkeypatch):
    path = [f"/nowhere/{i:0100}" for i in range(3000)]
    monkeypatch.setattr(sys, "path", [*sys.path, b"/bytes", *path, None])
    monkeypatch.setattr(sys, "argv", ["name", "\udcff\ud800", 3, "é"])
    with dgmp.Runtime(procs=1) as rt:
        argv, path = rt.go(sees).result(20)
    assert argv == ["name", "\udcff\ud800", "é"]
    assert path == [x for x in sys.path if isinstance(x, str)]


def test_interrupted_once_the_coordinator_is_there(monkeypatch):
    @contextlib.contextmanager
    def interrupted():
        yield
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "interrupts_held", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dgmp.Runtime(procs=1)
    assert not helpers.descendants(os.getpid())


def test_interrupted_once_its_processes_are_there(monkeypatch):
    """Nothing is left open, either (conftest.py looks)."""
    def interrupted(self, main):
        raise KeyboardInterrupt

    monkeypatch.setattr(api.Runtime, "_newproc", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dgmp.Runtime(procs=1)
    assert not helpers.descendants(os.getpid())


def test_the_coordinator_ends_quietly_if_its_message_is_not_whole(monkeypatch, capfd):
    def halved(*message):
        fd = whole(*message)
        os.ftruncate(fd, os.fstat(fd).st_size // 2)
        return fd

    whole = api.boot_message
    monkeypatch.setattr(api, "boot_message", halved)
    with pytest.raises(dgmp.CoordinatorDied):  # perhaps as it boots
        with dgmp.Runtime(procs=1) as rt:
            rt.main.result(20)
    assert capfd.readouterr() == ("", "")


CLOSED_STDIO = """
import os, sys, dgmp

def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True

was = [is_open(fd) for fd in range(3)]
print("main", flush=True)
dgmp.go(print, "G").result(20)
assert dgmp.go(lambda: [os.fstat(fd) and fd for fd in range(3)]).result(20) == [0, 1, 2]
assert [is_open(fd) for fd in range(3)] == was and not all(was)
"""


@pytest.mark.parametrize("redirect", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_stdio(redirect):
    done = python(CLOSED_STDIO, redirect=redirect)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == ("" if " >" in " " + redirect else "main\nG\n")


DIED = """
import os, signal, dgmp
from dgmp.api import runtime
f = dgmp.spawn(__import__("time").sleep, (60,), name="sleeper")
first = runtime._default
os.kill(first._pid, signal.SIGKILL)
try:
    f.result(20)
except dgmp.CoordinatorDied as e:
    print(e)
use = {use}
print(use)
assert dgmp.go(abs, -3).result(20) == 3 and runtime._default is not first and first._closed
"""


@pytest.mark.parametrize("use,out", [("dgmp.go(abs, -2).result(20)", "2"), ("dgmp.gomaxprocs()", "3"),
                                     ("dgmp.num_g() < 2", "True"), ("dgmp.stats()['gomaxprocs']", "3")])
def test_a_new_default_runtime_when_the_coordinator_has_died(use, out, monkeypatch):
    monkeypatch.setenv("DGMP_PROCS", "3")
    done = python(DIED.format(use=use))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"the runtime's coordinator died; what was pending is lost\n{out}\n"


ENDING = """
import atexit, sys, threading

def use(dgmp, when):
    for act in (lambda: dgmp.go(abs, 1), dgmp.stats, dgmp.Runtime):
        try:
            act()
            print(when, "it worked")
        except dgmp.RuntimeClosed as e:
            print(when, e)

class Late:
    def __del__(self, use=use):
        use(self.dgmp, "del")

late = Late()
atexit.register(lambda: use(dgmp, "atexit"))  # runs after dgmp's own
import dgmp
Late.dgmp = dgmp
{first}
"""


@pytest.mark.parametrize("first", ["", "dgmp.go(abs, 1).result(20)", "dgmp.go(abs, 1)"])
def test_nothing_is_booted_while_the_program_ends(first):
    done = python(ENDING.format(first=first))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "atexit the program is ending\n" * 3 + "del the program is ending\n" * 3


def test_a_daemon_thread_learns_that_the_program_ends():
    code = """
import atexit, threading, dgmp
told = threading.Event()
def work():
    try:
        while True:
            dgmp.go(abs, 1).result()
    except dgmp.RuntimeClosed as e:
        print(e)
        told.set()
atexit.unregister(dgmp.api.ending.end)
atexit.register(lambda: told.wait(20))
atexit.register(dgmp.api.ending.end)
threading.Thread(target=work, daemon=True).start()
dgmp.go(abs, 1).result()
"""
    done = python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "the program is ending\n", "")
