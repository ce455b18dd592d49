"""Stopping the world: changing the number of Ps while work runs."""

import os
import signal
import threading

import pytest

import dgmp
from tests.helpers import eventually


@pytest.fixture
def rt():
    with dgmp.Runtime(procs=2) as runtime:
        yield runtime
        assert runtime.stats()["throws"] == 0


def resize(n):
    return dgmp.gomaxprocs(n)


def test_from_a_client_and_from_a_g(rt):
    assert rt.gomaxprocs() == rt.gomaxprocs(0) == rt.gomaxprocs(5) == 2
    assert rt.gomaxprocs() == 5 and rt.stats()["gomaxprocs"] == 5 and len(rt.stats()["runq"]) == 5
    assert "procs=5" in repr(rt)
    assert rt.go(resize, 1).result(20) == 5
    assert rt.go(resize, 0).result(20) == 1 == rt.gomaxprocs()
    assert [f.result(20) for f in [rt.go(abs, -i) for i in range(500)]] == list(range(500))


def test_what_it_takes():
    rt = dgmp.Runtime(procs=2)
    for bad in (-1, 67, 5000):
        with pytest.raises(ValueError, match="between 1 and 66"):
            rt.gomaxprocs(bad)
    with pytest.raises(TypeError, match="whole number"):
        rt.gomaxprocs(1.5)
    rt.close()
    with pytest.raises(dgmp.RuntimeClosed):
        rt.gomaxprocs(1)


def tree(depth):
    if depth == 0:
        return 1
    return sum(f.result() for f in [dgmp.go(tree, depth - 1) for _ in range(3)])


def test_nothing_is_lost_while_work_runs(rt):
    sums = [rt.go(tree, 4) for _ in range(10)]
    flat = [rt.go(abs, -i) for i in range(3000)]
    for i in range(60):
        rt.gomaxprocs(1 + i * 7 % 6)
    rt.gomaxprocs(2)
    assert [f.result(25) for f in flat] == list(range(3000))
    assert [f.result(25) for f in sums] == [81] * 10
    assert eventually(lambda: rt.stats()["idleprocs"] == 2)



def follow(n):
    """A G that readies another for ever."""
    for _ in range(n):
        dgmp.go(abs, -1).result()
    return n


def test_stop_the_world_deadlock(rt):
    """As TestStopTheWorldDeadlock: resizes against Gs that spawn and wait without end."""
    running = [rt.go(follow, 800) for _ in range(2)]
    i = 0
    while not all(f.done() for f in running):
        i += 1
        rt.gomaxprocs(1 + i % 3)
    assert [f.result(25) for f in running] == [800, 800]


def test_several_at_once(rt):
    """Two threads and Gs stop the world against each other."""
    def often():
        for i in range(60):
            rt.gomaxprocs(1 + i % 4)

    threads = [threading.Thread(target=often) for _ in range(2)]
    for t in threads:
        t.start()
    resizes = [rt.go(resize, 1 + i % 5) for i in range(40)]
    flat = [rt.go(abs, -i) for i in range(500)]
    for t in threads:
        t.join(25)
        assert not t.is_alive()
    assert all(1 <= f.result(25) <= 5 for f in resizes)
    assert [f.result(25) for f in flat] == list(range(500))


def resize_for_ever(path):
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    os.rename(path, path + ".done")
    i = 0
    while True:
        i += 1
        dgmp.gomaxprocs(1 + i % 3)


def test_who_stops_the_world_is_killed(rt, tmp_path):
    """The world goes on, whatever it was at."""
    for i in range(12):
        path = str(tmp_path / f"pid{i}")
        victim = rt.go(resize_for_ever, path)
        assert eventually(lambda: os.path.exists(path + ".done"))  # noqa: B023
        flat = [rt.go(abs, -j) for j in range(200)]
        with open(path + ".done") as file:
            os.kill(int(file.read()), signal.SIGKILL)
        with pytest.raises(dgmp.WorkerDied):
            victim.result(20)
        assert [f.result(25) for f in flat] == list(range(200))


def test_a_stopped_m_does_not_hang_us(rt):
    """It has its P in user code: that is frozen where it is."""
    pid_and_wait = rt.go(stop_oneself)
    pid = None

    def find():
        nonlocal pid
        pid = next((p for _, p in rt.node.view.pids() if stopped(p)), None)
        return pid is not None

    assert eventually(find)
    try:
        rt.gomaxprocs(3)
        assert [f.result(20) for f in [rt.go(abs, -j) for j in range(50)]] == list(range(50))
        rt.gomaxprocs(1)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert pid_and_wait.result(20) == pid


def stop_oneself():
    os.kill(os.getpid(), signal.SIGSTOP)
    return os.getpid()


def stopped(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "T"
