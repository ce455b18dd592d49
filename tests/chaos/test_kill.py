"""Each kind of process killed at any moment: nothing hangs, nothing is left (within 2 seconds)."""

import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

import msgpack
import pytest

import dgmp
from tests import helpers
from tests.helpers import PATIENCE, PYTHON, alive, coordinator_of, descendants, eventually

WORK = str(Path(__file__).parent.parent / "programs" / "work.py")
ROOT = str(Path(__file__).parent.parent.parent)
ROUNDS = 60 if os.environ.get("DGMP_SOAK") else 4


def start(*args):
    program = subprocess.Popen([PYTHON, WORK, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    assert program.stdout.readline() == "ready\n"
    return program, descendants(program.pid)


def gone(pids):
    return eventually(lambda: not any(alive(p) for p in pids))


@pytest.mark.parametrize("args,code", [(["return"], 3), (["raise"], 1)])
def test_normal_end_and_exception_leave_nothing(args, code):
    program, family = start(*args)
    out, _ = program.communicate(timeout=PATIENCE)
    assert program.returncode == code
    assert gone(family)


def test_ctrl_c_ends_all():
    program, family = start()
    program.send_signal(signal.SIGINT)
    out, _ = program.communicate(timeout=PATIENCE)
    assert out.count("Traceback") <= 1
    assert gone(family)


def test_killed_client_leaves_nothing():
    program, family = start()
    program.kill()
    program.wait()
    assert gone(family)
    program.stdout.close()


def test_killed_coordinator_is_told_and_leaves_nothing():
    program, family = start()
    os.kill(coordinator_of(program.pid), signal.SIGKILL)
    out, _ = program.communicate(timeout=PATIENCE)
    assert program.returncode == 4 and out.startswith("told:")
    assert gone(family)


def test_what_gs_started_ends_with_a_killed_coordinator():
    rt = dgmp.Runtime(procs=2)
    f = rt.go(subprocess.run, ["sleep", "100"])
    assert eventually(lambda: any("sleep 100" in helpers.processes().get(p, (0, ""))[1] for p in descendants(os.getpid())))
    family = descendants(os.getpid())
    os.kill(coordinator_of(os.getpid()), signal.SIGKILL)
    with pytest.raises(dgmp.CoordinatorDied):
        f.result(20)
    rt.close()
    assert gone(family)


def open_here():
    return subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, text=True).stdout


def test_what_gs_start_has_none_of_our_descriptors(rt):
    assert "dgmp" not in (text := rt.go(open_here).result(20)) and "[event" not in text and "[timer" not in text


def test_a_zygote_that_cannot_start_is_said(tmp_path):
    (tmp_path / "greenlet.py").write_text("raise ImportError('broken here')")
    program = subprocess.run([PYTHON, "-c", "import dgmp; dgmp.go(abs, -1).result()"], capture_output=True, text=True,
                             timeout=30, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert program.returncode == 1 and "zygotes in a row died" in program.stderr
    assert "the zygote cannot start: ImportError: broken here" in program.stderr


def test_every_thread_learns_the_last_words(rt, monkeypatch):
    """Those of a coordinator that has left a message of ours unread, too."""
    ended, channel = [], rt._socket
    monkeypatch.setattr(rt.node, "end", ended.append)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        ours.send(b"unread")
        theirs.send(msgpack.packb({"fatal": "no room"}))
        theirs.close()
        rt._socket = ours
        try:
            assert not rt._alive() and not rt._alive()
        finally:
            rt._socket, rt._last_words = channel, None
    assert [str(e) for e in ended] == ["no room", "no room"]


def test_num_g_is_exact_after_kills(rt):
    for _ in range(30):
        futures = [rt.go(helpers.fib, 6) for _ in range(4)]
        for _, pid in rt.node.view.pids():
            helpers.kill(pid)  # of the round before, and just found dead
        for f in futures:
            f.exception(20)
    assert eventually(lambda: rt.stats()["num_g"] == 0)
    assert rt.stats()["rescues"] == 0 and rt.stats()["throws"] == 0


def test_killed_zygote_is_replaced(tmp_path):
    with dgmp.Runtime(procs=1) as rt:
        rt.main.result(20)
        zygote = helpers.zygote_of(rt._pid)
        os.kill(zygote, signal.SIGKILL)
        assert eventually(lambda: not alive(zygote))
        for _, pid in rt.node.view.pids():
            os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: rt.go(helpers.identity, 1).exception(20) is None)  # by another M
        assert rt.stats()["throws"] == 0


def test_ms_killed_at_random_moments():
    """Every G ends exactly once, with its result or with WorkerDied; the runtime works on."""
    rng = random.Random(7)
    for _ in range(ROUNDS):
        with dgmp.Runtime(procs=2) as rt:
            futures = [rt.go(helpers.fib, 6) for _ in range(60)] + [rt.go(helpers.identity, 8) for _ in range(300)]
            for _ in range(3):
                time.sleep(rng.random() * 0.01)
                pids = [pid for _, pid in rt.node.view.pids()]
                if pids:
                    helpers.kill(rng.choice(pids))
            ended = []
            for f in futures:
                try:
                    ended.append(f.result(30))
                except dgmp.WorkerDied:
                    ended.append(None)
            assert set(ended) <= {8, None} and ended.count(8) > 100
            assert rt.go(helpers.fib, 5).result(30) == 5
            assert eventually(lambda: rt.stats()["spinningthreads"] == 0 and rt.stats()["idleprocs"] == 2)  # noqa: B023
            assert eventually(lambda: rt.stats()["num_g"] == 0), rt.stats()  # noqa: B023


def test_capture_output_returns_when_the_program_ends():
    code = "import dgmp; dgmp.go(print, 'from a G').result(); print('from main')"
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, timeout=20)
    assert (done.stdout, done.stderr) == ("from a G\nfrom main\n", "")


def cpu_ns(pids):
    total = 0
    for pid in pids:
        for task in (Path("/proc") / str(pid) / "task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total


def test_idle_uses_no_cpu():
    with dgmp.Runtime(procs=2) as rt:
        dgmp.gather(*[rt.go(helpers.busy, 0.05) for _ in range(4)])
        assert eventually(lambda: rt.stats()["idleprocs"] == 2)
        family = descendants(os.getpid())

        def is_quiet():
            """For so long; at first the last ones have to come to rest."""
            before = cpu_ns(family)
            time.sleep(2)
            return cpu_ns(family) - before < 4_000_000  # a fifth of 20 ms in 10 s

        assert eventually(is_quiet)


def named(names, c):
    names.send(os.getpid())
    return c.recv()


def test_gs_that_were_readied_on_a_killed_m_end_at_their_owner():
    with dgmp.Runtime(procs=2) as runtime:
        names, c = dgmp.Chan(runtime=runtime), dgmp.Chan(runtime=runtime)
        futures = [runtime.go(named, names, c) for _ in range(20)]
        pids = {names.recv(timeout=20) for _ in futures}
        assert eventually(lambda: [g.wait_reason for g in runtime.snapshot().gs] == ["chan receive"] * 20)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        for i in range(20):
            c.send(i, timeout=20)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: not any(alive(pid) for pid in pids))
        for future in futures:
            with pytest.raises(dgmp.WorkerDied):
                future.result(timeout=20)


@pytest.mark.parametrize("seed", range(2))
def test_zygotes_killed_at_random_moments(seed):
    """Each is replaced; what it was asked for, or had just made, is neither lost nor there twice."""
    chance = random.Random(seed)
    with dgmp.Runtime(procs=2) as rt:
        rt.main.result(20)
        for _ in range(12 * ROUNDS // 4):
            futures = [rt.go(helpers.nap, 0.01) for _ in range(6)] + [rt.go(helpers.fib, 4) for _ in range(6)]
            for _, pid in rt.node.view.pids():
                helpers.kill(pid)  # so that others are wanted
            time.sleep(chance.random() * 0.02)
            ms = {pid for _, pid in rt.node.view.pids()}
            for pid in [p for p, (parent, _) in helpers.processes().items() if parent == rt._pid and p not in ms]:
                helpers.kill(pid)
            assert {type(f.exception(20)) for f in futures} <= {type(None), dgmp.WorkerDied}
        assert rt.go(helpers.fib, 5).result(20) == 5
        assert eventually(lambda: rt.stats()["num_g"] == 0)
        assert eventually(lambda: len(descendants(rt._pid)) == 1 + len(rt.node.view.pids()))
        assert rt.stats()["throws"] == 0
