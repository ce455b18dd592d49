"""SIGSTOP and SIGCONT of each kind of process: what is stopped stands still, the others go on, and nothing is lost."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

import dgmp
from tests import helpers
from tests.helpers import PYTHON, alive, coordinator_of, descendants, eventually, zygote_of

PATIENCE = 30


def state(pid):
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0].decode()


@contextlib.contextmanager
def stopped(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        assert eventually(lambda: state(pid) == "T")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def until(name):
    """Works until there is a file of that name."""
    turns = 0
    while not os.path.exists(name):
        turns += 1
    return os.getpid()


def say(names):
    names.send(os.getpid())


def test_a_stopped_m_keeps_only_its_own_g(tmp_path):
    """Its P is taken from it, as if it were blocked."""
    go_on = tmp_path / "go_on"
    with dgmp.Runtime(procs=1) as rt:
        names = rt.chan(1)
        slow = rt.go(lambda: (say(names), until(str(go_on)))[1])
        pid = names.recv(timeout=PATIENCE)
        queued = [rt.go(os.getpid) for _ in range(20)]
        with stopped(pid):
            others = {f.result(PATIENCE) for f in queued}
            assert pid not in others and not slow.done()
            go_on.touch()
        assert slow.result(PATIENCE) == pid
        assert rt.go(abs, -1).result(PATIENCE) == 1
        assert rt.stats()["rescues"] == 0


def test_all_goes_on_beside_a_stopped_coordinator():
    with dgmp.Runtime(procs=2) as rt:
        dgmp.gather(*[rt.go(helpers.busy, 0.02) for _ in range(4)])
        with stopped(rt._pid):
            assert rt.go(helpers.fib, 5).result(PATIENCE) == 5
            victim = rt.go(helpers.kill_self)  # nobody sees to it now
            assert not eventually(victim.done, 0.3)
        with pytest.raises(dgmp.WorkerDied):
            victim.result(PATIENCE)
        assert rt.go(helpers.fib, 5).result(PATIENCE) == 5


def test_close_ends_a_stopped_coordinator():
    rt = dgmp.Runtime(procs=2)
    pending = rt.go(dgmp.sleep, 60)
    assert eventually(lambda: rt.stats()["parks"] > 0)
    family = descendants(os.getpid())
    os.kill(rt._pid, signal.SIGSTOP)
    rt.close(cancel=True)
    assert eventually(lambda: not any(alive(p) for p in family))
    with pytest.raises(dgmp.RuntimeClosed):
        pending.result()


def test_a_stopped_coordinator_ends_with_its_client(tmp_path):
    program, family, _ = client(tmp_path)
    coordinator = coordinator_of(program.pid)
    os.kill(coordinator, signal.SIGSTOP)
    assert eventually(lambda: state(coordinator) == "T")
    program.kill()
    program.communicate(timeout=PATIENCE)
    assert eventually(lambda: not any(alive(p) for p in family))


def test_ms_are_made_once_the_zygote_goes_on():
    with dgmp.Runtime(procs=2) as rt:
        rt.main.result(PATIENCE)
        with stopped(zygote_of(rt._pid)):
            os.kill(dict(rt.node.view.pids())[0], signal.SIGKILL)
            future = rt.go(abs, -1)
            assert not eventually(future.done, 0.3)
        assert future.result(PATIENCE) == 1


CLIENT = """
import pathlib, sys, dgmp
from tests.helpers import compute_until
held = [dgmp.go(compute_until, f"{sys.argv[1]}/go_on") for _ in range(2)]  # the others are queued behind them
futures = [dgmp.go(pathlib.Path(sys.argv[1], str(i)).touch) for i in range(20)]
chan, after = dgmp.Chan(), dgmp.after(0.1)
print("ready", flush=True)
sys.stdin.readline()  # here we are stopped
after.recv(timeout=0)
assert [f.result(timeout=0) for f in held + futures][2:] == [None] * 20  # they have ended, though we were not there
try:
    chan.recv(timeout=0.1)
except TimeoutError:
    print("fine")
"""


def client(folder):
    """A program that will do nothing before it reads a line; and what waits until its Gs have ended, for which they do not
    need it, and a little longer."""
    program = subprocess.Popen([PYTHON, "-c", CLIENT, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env=os.environ | {"DGMP_PROCS": "2"})
    assert program.stdout.readline() == "ready\n"
    family = descendants(program.pid)

    def gs_end():
        (folder / "go_on").touch()
        assert eventually(lambda: len(list(folder.iterdir())) == 21)
        assert not eventually(lambda: not all(alive(p) for p in family), 1.5)  # nobody is ended for it

    return program, family, gs_end


def test_a_stopped_client_finds_what_has_come(tmp_path):
    program, _, gs_end = client(tmp_path)
    with stopped(program.pid):
        gs_end()
    assert (*program.communicate("\n", timeout=PATIENCE), program.returncode) == ("fine\n", "", 0)


PTRACE_ATTACH, PTRACE_DETACH = 16, 17


@contextlib.contextmanager
def under_a_debugger(pid):
    """Stopped by it, as at a breakpoint."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(PTRACE_ATTACH, pid, None, None):
        pytest.skip(f"no ptrace here: {os.strerror(ctypes.get_errno())}")
    os.waitpid(pid, 0)
    try:
        assert state(pid) == "t"
        yield
    finally:
        assert libc.ptrace(PTRACE_DETACH, pid, None, None) == 0


def test_a_client_under_a_debugger_is_left_alone(tmp_path):
    """Its program stands at a breakpoint; Gs go on, nothing times out or is ended."""
    program, _, gs_end = client(tmp_path)
    with under_a_debugger(program.pid):
        gs_end()
    assert (*program.communicate("\n", timeout=PATIENCE), program.returncode) == ("fine\n", "", 0)


def test_an_m_under_a_debugger_is_left_alone(tmp_path):
    go_on = tmp_path / "go_on"
    with dgmp.Runtime(procs=1) as rt:
        names = rt.chan(1)
        slow = rt.go(lambda: (say(names), until(str(go_on)))[1])
        pid = names.recv(timeout=PATIENCE)
        with under_a_debugger(pid):
            assert rt.go(abs, -1).result(PATIENCE) == 1
            go_on.touch()
        assert slow.result(PATIENCE) == pid


@pytest.mark.parametrize("seed", range(3))
def test_all_kinds_stopped_at_random_moments(seed):
    """Whatever stands still for a while, every G ends once, with its result."""
    chance = random.Random(seed)
    with dgmp.Runtime(procs=2) as rt:
        rt.main.result(PATIENCE)
        for _ in range(10):
            futures = [rt.go(helpers.fib, 5) for _ in range(8)] + [rt.go(helpers.nap, 0.002) for _ in range(8)]
            pids = [rt._pid, zygote_of(rt._pid), *(pid for _, pid in rt.node.view.pids())]
            for pid in chance.sample(pids, chance.randrange(1, len(pids) + 1)):
                with stopped(pid):
                    chance.choice(futures).done()
            assert [f.result(PATIENCE) for f in futures] == [5] * 8 + [0.002] * 8
        assert eventually(lambda: rt.stats()["num_g"] == 0)
        assert rt.stats()["throws"] == 0
