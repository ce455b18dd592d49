"""The last lines of a dead M's stderr, in WorkerDied: of sys.stderr, and of faulthandler where the program has enabled it."""

import ctypes
import faulthandler
import os
import subprocess
import sys

import pytest

import dgmp
from tests import helpers
from tests.helpers import PYTHON


@pytest.fixture
def rt():
    was = faulthandler.is_enabled()
    faulthandler.disable()
    with dgmp.Runtime(procs=2) as runtime:
        yield runtime
        assert runtime.stats()["throws"] == 0
    if was:
        faulthandler.enable()


def dies_talking(how, *lines):
    for line in lines:
        print(line, file=sys.stderr)
    match how:
        case "segfault":
            ctypes.string_at(0)
        case "abort":
            os.abort()
        case "exit":
            os._exit(3)
        case _:
            helpers.kill_self(how)


@pytest.mark.parametrize("how", ["segfault", "abort", "exit", 9, 15])
def test_what_it_had_written_is_in_the_error(rt, how):
    with pytest.raises(dgmp.WorkerDied, match=r"\nThe last lines of its stderr:\n    one\n    zw\u00f6lf$") as caught:
        rt.go(dies_talking, how, "one", "zw\u00f6lf").result(20)
    assert caught.value.stderr == "one\nzw\u00f6lf"
    with pytest.raises(dgmp.WorkerDied) as caught:  # the next one there begins anew
        rt.go(dies_talking, how).result(20)
    assert caught.value.stderr == "" and "stderr" not in str(caught.value)


def test_only_the_last_lines(rt):
    error = rt.go(dies_talking, 9, *[f"line {i} {'x' * 50}" for i in range(500)], "y" * 300).exception(20)
    lines = error.stderr.splitlines()
    assert [line[:8] for line in lines[:-1]] == [f"line {i}" for i in range(491, 500)]
    assert lines[-1] == "y" * 200 + "..."


def test_one_line_that_is_longer_than_what_is_kept(rt):
    error = rt.go(dies_talking, 9, "a" * 5000 + "b" * 3000).exception(20)
    assert error.stderr == "b" * 200 + "..."


def dies_later(started, go_on):
    print("dying", file=sys.stderr)
    started.send(True)
    go_on.recv()
    helpers.kill_self()


def waits(f):
    return f


def asks(started, go_on):
    dgmp.lock_os_thread()  # its children run elsewhere
    f = dgmp.go(dies_later, started, go_on)
    started.recv()
    go_on.send(True)
    return f.exception()


def test_a_g_is_told_and_so_is_who_waits_for_one_as_an_argument(rt):
    started, go_on = rt.chan(), rt.chan()
    error = rt.go(asks, started, go_on).result(20)
    assert isinstance(error, dgmp.WorkerDied) and error.stderr == "dying"
    error = rt.go(waits, rt.go(dies_talking, 9, "dying")).exception(20)
    assert "did not run" in str(error) and error.stderr == "dying"


def forks_and_dies():
    print("parent", file=sys.stderr)
    pid = os.fork()
    if pid == 0:
        print("child", file=sys.stderr)
        sys.stderr.flush()
        os._exit(0)
    os.waitpid(pid, 0)
    helpers.kill_self()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_a_forked_child_writes_is_not_the_ms(rt):
    assert rt.go(forks_and_dies).exception(20).stderr == "parent"


def test_the_history_is_told_too(rt):
    error = rt.spawn(dies_talking, (9, "again"), retries=1).exception(20)
    assert len(error.history) == 2 and error.stderr == "again"


CRASH = """
import ctypes, faulthandler, sys, dgmp
faulthandler.enable()
def crash():
    print("before", file=sys.stderr)
    ctypes.string_at(0)
with dgmp.Runtime(procs=2) as rt:
    for _ in range(2):
        error = rt.go(crash).exception(20)
        print(error)
    print(rt.go(faulthandler.is_enabled).result(20))
"""


def test_what_faulthandler_says_is_in_the_error_and_on_the_programs_stderr():
    done = subprocess.run([PYTHON, "-c", CRASH], capture_output=True, text=True, timeout=60)
    assert done.stderr.count("Fatal Python error: Segmentation fault") == done.stderr.count("before\n") == 2
    assert done.stderr.count("Current thread") == 2 and "in crash" in done.stderr
    assert done.stdout.count("    before\n    Fatal Python error: Segmentation fault\n    Current thread") == 2
    assert done.stdout.count(" in crash\n") == 2 and done.stdout.endswith("True\n")


FULL = """
import ctypes, faulthandler, os, sys, dgmp
faulthandler.enable()
with dgmp.Runtime(procs=1) as rt:
    rt.go(abs, -1).result(20)
    os.set_blocking(2, False)
    for size in (4096, 1):
        try:
            while True:
                os.write(2, b"x" * size)
        except BlockingIOError:
            pass
    os.set_blocking(2, True)
    error = rt.go(ctypes.string_at, 0).exception(20)
    print("Segmentation" in error.stderr, rt.go(abs, -2).result(20))
"""


def test_a_stderr_that_nobody_reads_stops_nobody():
    program = subprocess.Popen([PYTHON, "-c", FULL], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert program.stdout.read() == "True 2\n"  # with stderr full
    program.communicate(timeout=60)
    assert program.returncode == 0
