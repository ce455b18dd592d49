"""User code is a syscall: Gs that block keep nobody waiting, and Ms that come back get no core of their own."""

import asyncio
import collections
import os
import signal
import struct
import subprocess
import sys
import time

import pytest

import dgmp
from tests.blocking import (
    block,
    give_way,
    in_a_blocking_block,
    killed_while_blocked,
    read,
    read_blocking,
    read_then_burn,
    spawn_after,
    write,
    write_all,
)
from tests.helpers import eventually


@pytest.fixture
def fifos(tmp_path):
    paths = [str(tmp_path / f"fifo{i}") for i in range(6)]
    for path in paths:
        os.mkfifo(path)
    return paths


def test_gs_that_block_keep_nobody_waiting(fifos):
    """Six block on two Ps until a seventh and others have run."""
    with dgmp.Runtime(procs=2) as rt:
        blocked = [rt.go(read, path) for path in fifos]
        writers = [rt.go(write, path) for path in fifos]
        assert len({f.result(20) for f in writers}) >= 1
        assert [f.result(20) for f in blocked] == [b"x"] * 6
        stats = rt.stats()
        assert stats["throws"] == stats["rescues"] == 0


def test_a_blocking_block_gives_its_p_away(fifos):
    with dgmp.Runtime(procs=1) as rt:
        blocked = [rt.go(read_blocking, path) for path in fifos]
        for path in fifos:
            rt.go(write, path).result(20)
        results = [f.result(20) for f in blocked]
        assert [(before, after, data) for before, _, after, data in results] == [(0, 0, b"x")] * 6
        assert -1 in {during for _, during, _, _ in results}  # a P is given to one that computes in its block


def test_blocking_outside_of_gs_does_nothing():
    with dgmp.blocking():
        pass


def raise_in_block():
    with dgmp.blocking():
        raise KeyError("x")


def test_an_error_in_a_blocking_block_passes():
    with dgmp.Runtime(procs=1) as rt, pytest.raises(KeyError):
        rt.go(raise_in_block).result(20)


def test_gs_that_gave_way_get_a_p_when_theirs_goes_to_another_m():
    with dgmp.Runtime(procs=1) as rt:
        futures = [rt.go(fn, 200) for fn in (give_way, block) * 3]
        assert [f.result(20) for f in futures] == [200] * 6


def test_spawning_and_parking_without_a_p(fifos):
    with dgmp.Runtime(procs=1) as rt:
        blocked = [rt.go(spawn_after, path) for path in fifos]
        for path in fifos:
            rt.go(write, path).result(20)
        assert [f.result(20) for f in blocked] == [(b"x", list(range(300)))] * 6


def test_parking_in_a_blocking_block(fifos):
    with dgmp.Runtime(procs=1) as rt:
        blocked = [rt.go(in_a_blocking_block, path) for path in fifos]
        for path in fifos:
            rt.go(write, path).result(20)
        assert [f.result(20) for f in blocked] == [b"x"] * 6


def test_ms_that_come_back_get_no_core_of_their_own(fifos, tmp_path):
    """Four come back from blocking at once and compute, on one P: they do so one after the other."""
    counts = str(tmp_path / "counts")
    with open(counts, "wb") as file:
        file.truncate(4 * 8000)
    with dgmp.Runtime(procs=1) as rt:
        burners = [rt.go(read_then_burn, fifos[i], counts, i) for i in range(4)]
        rt.go(write_all, fifos[:4]).result(20)  # the last in the queue: all four have blocked, and been taken their P
        assert [f.result(25) for f in burners] == [None] * 4
        assert rt.stats()["throws"] == 0
    with open(counts, "rb") as file:
        ran = [struct.unpack("1000q", file.read(8000)) for _ in range(4)]
    at_once = collections.Counter(sum(1 for g in ran if g[t] > 100) for t in range(1000))
    assert at_once[1] > at_once[2] + at_once[3] + at_once[4]


def test_a_lone_sleeper_keeps_its_p():
    with dgmp.Runtime(procs=2) as rt:
        assert rt.go(sleep_and_look).result(20)


def sleep_and_look():
    before = dgmp.current()["p"]
    time.sleep(0.3)
    return dgmp.current()["p"] == before


def test_all_ms_may_block(fifos):
    """With no M left the work waits for one that comes back, and no wake-up is lost."""
    with dgmp.Runtime(procs=1, max_ms=2) as rt:
        blocked = [rt.go(read, path) for path in fifos[:2]]
        others = [rt.go(abs, -i) for i in range(20)]
        for path in fifos[:2]:
            write(path)
        assert [f.result(20) for f in blocked] == [b"x"] * 2
        assert [f.result(20) for f in others] == list(range(20))
        assert rt.stats()["rescues"] == 0


def test_an_m_without_a_p_is_killed(fifos, tmp_path):
    with dgmp.Runtime(procs=1) as rt:
        pids = str(tmp_path / "pid")
        blocked = rt.go(killed_while_blocked, fifos[0], pids)
        assert rt.go(abs, -1).result(20) == 1  # its P has been retaken
        assert eventually(lambda: os.path.exists(pids + ".done"))
        with open(pids + ".done") as file:
            os.kill(int(file.read()), signal.SIGKILL)
        with pytest.raises(dgmp.WorkerDied):
            blocked.result(20)
        assert dgmp_results(rt, 200) == list(range(200))
        assert rt.stats()["throws"] == 0


def dgmp_results(rt, n):
    return [f.result(20) for f in [rt.go(abs, -i) for i in range(n)]]


def own_sigurg_handler():
    got = []

    def handler(number, frame):
        got.append(number)

    before = signal.getsignal(signal.SIGURG)
    assert signal.signal(signal.SIGURG, handler) == before == signal.SIG_DFL
    assert signal.getsignal(signal.SIGURG) is handler
    os.kill(os.getpid(), signal.SIGURG)
    signal.signal(signal.SIGURG, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGURG)
    with pytest.raises(TypeError):
        signal.signal(signal.SIGURG, "no handler")
    return got


def test_user_code_may_have_a_sigurg_handler():
    with dgmp.Runtime(procs=1) as rt:
        assert rt.go(own_sigurg_handler).result(20) == [signal.SIGURG]


def status_of_a_subprocess():
    return subprocess.run([sys.executable, "-c", "print(open('/proc/self/status').read())"], capture_output=True, text=True,
                          check=True).stdout


def test_subprocesses_have_sigurg_as_they_would():
    with dgmp.Runtime(procs=1) as rt:
        status = dict(line.split(":", 1) for line in rt.go(status_of_a_subprocess).result(20).splitlines() if ":" in line)
        for name in ("SigBlk", "SigIgn", "SigCgt"):
            assert not int(status[name], 16) >> (signal.SIGURG - 1) & 1


def test_a_warning_says_what_blocks_all_ms(fifos, capfd):
    with dgmp.Runtime(procs=1, max_ms=2) as rt:
        blocked = [rt.go(read, path) for path in fifos[:2]]
        other = rt.go(abs, -1)
        told = []
        assert eventually(lambda: told.append(capfd.readouterr().err) or "blocking.read (2: G " in "".join(told))
        for path in fifos[:2]:
            write(path)
        assert [f.result(20) for f in blocked] == [b"x"] * 2 and other.result(20) == 1
        assert rt.stats()["rescues"] == 0
    assert "".join(told).count("warning") == 1


def wait_a_moment_for_one_that_sleeps():
    sleeper = dgmp.go(time.sleep, 3600)
    try:
        sleeper.result(timeout=0.05)
    except TimeoutError:
        sleeper.cancel()
    return type(sleeper.exception(timeout=20))


def fail_soon():
    dgmp.sleep(0.05)
    raise ValueError


def fail_beside_one_that_sleeps():
    with dgmp.Group() as group:
        group.go(fail_soon)
        dgmp.sleep(0.01)
        group.go(time.sleep, 3600)


async def wait_a_moment():
    await asyncio.sleep(0.05)


def receive():
    dgmp.Chan().recv()


def test_who_sleeps_keeps_no_started_g_of_its_m_waiting():
    with dgmp.Runtime(procs=1, max_ms=1) as rt:
        assert rt.go(wait_a_moment_for_one_that_sleeps).result(20) is dgmp.Cancelled
        with pytest.raises(ExceptionGroup):
            rt.go(fail_beside_one_that_sleeps).result(20)
        waits, sleeps = rt.go(wait_a_moment), rt.go(time.sleep, 3600)
        assert waits.result(20) is None
        sleeps.cancel()
        assert type(sleeps.exception(20)) is dgmp.Cancelled


async def sleep_with_the_loop():
    time.sleep(3600)


def test_so_does_a_coroutine_that_sleeps():
    with dgmp.Runtime(procs=1, max_ms=1) as rt:
        there, back = rt.chan(), rt.chan()
        waits = rt.go(lambda: there.send("here") or back.recv())
        there.recv()
        f = rt.go(sleep_with_the_loop)
        back.send("now")
        assert waits.result(20) == "now"
        f.cancel()
        assert type(f.exception(20)) is dgmp.Cancelled


def sleep_on(begun):
    begun.send(None)
    while True:
        try:
            time.sleep(3600)
        except BaseException:
            pass


def test_who_sleeps_though_it_was_cancelled_is_killed():
    with dgmp.Runtime(procs=1, max_ms=1, grace=0.1) as rt:
        begun = rt.chan()
        parked, f = rt.go(receive), rt.go(sleep_on, begun)
        begun.recv(timeout=20)
        f.cancel()
        assert "was killed by SIGKILL" in str(f.exception(20))
        assert type(parked.exception(20)) is dgmp.WorkerDied


def sleep_for(seconds):
    began = time.monotonic()
    time.sleep(seconds)
    return time.monotonic() - began


def sleep_in_a_child():
    child = os.fork()
    if child == 0:
        time.sleep(0.001)
        os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize(("seconds", "error"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError),
                                                (1e300, OverflowError), (0, None), (0.02, None)])
def test_sleeping_beside_others_is_as_it_always_is(seconds, error):
    with dgmp.Runtime(procs=1, max_ms=1) as rt:
        parked = rt.go(receive)
        f = rt.go(sleep_for, seconds)
        if error is not None:
            assert type(f.exception(20)) is error
        else:
            assert f.result(20) >= seconds
        assert rt.go(lambda: time.sleep).result(20) is time.sleep
        assert rt.go(sleep_in_a_child).result(20) == 0
        parked.cancel()
