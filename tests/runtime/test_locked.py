"""lock_os_thread, after Go's TestLockOSThreadNesting, TestLockOSThreadExit, TestYieldLocked and TestBlockLocked."""

import os

import pytest

import dgmp
from tests.helpers import eventually


@pytest.fixture
def rt():
    with dgmp.Runtime(procs=2) as runtime:
        yield runtime
        assert runtime.stats()["throws"] == 0


def nested():
    dgmp.unlock_os_thread()  # nothing to undo
    m = dgmp.api.runtime._member.m
    seen = []
    for step in (dgmp.lock_os_thread, dgmp.lock_os_thread, dgmp.unlock_os_thread, dgmp.unlock_os_thread,
                 dgmp.unlock_os_thread):
        step()
        seen.append(m.locked)
    return seen


def test_locks_nest(rt):
    assert rt.go(nested).result(20) == [True, True, True, False, False]


def test_outside_of_gs_nothing_happens():
    dgmp.lock_os_thread()
    dgmp.unlock_os_thread()


def where():
    return os.getpid()


def locked_parent(n):
    dgmp.lock_os_thread()
    pids = dgmp.gather(*[dgmp.go(where) for _ in range(n)])
    for _ in range(20):
        dgmp.gosched()
    pids += dgmp.gather(*[dgmp.go(where) for _ in range(n)])
    dgmp.unlock_os_thread()
    return os.getpid(), pids


def test_children_of_a_locked_g_run_elsewhere(rt):
    for _ in range(5):
        pid, pids = rt.go(locked_parent, 20).result(20)
        assert len(pids) == 40 and pid not in pids


def test_children_of_a_locked_g_run_on_one_p():
    with dgmp.Runtime(procs=1) as rt:
        for _ in range(5):
            pid, pids = rt.go(locked_parent, 20).result(20)
            assert len(pids) == 40 and pid not in pids


def locked_yields(n):
    """As TestYieldLocked."""
    dgmp.lock_os_thread()
    me = os.getpid()
    others = [dgmp.go(where) for _ in range(n)]
    for _ in range(n):
        dgmp.gosched()
        assert os.getpid() == me
    pids = [f.result() for f in others]
    dgmp.unlock_os_thread()
    return me, pids


def test_yield_locked():
    with dgmp.Runtime(procs=1) as rt:
        found = [rt.go(locked_yields, 10) for _ in range(4)]
        for f in found:
            me, pids = f.result(20)
            assert me not in pids


def blocks_in_turn(n):
    dgmp.lock_os_thread()
    for i in range(n):
        assert dgmp.go(abs, -i).result() == i
    dgmp.unlock_os_thread()
    return n


def test_block_locked(rt):
    assert [f.result(20) for f in [rt.go(blocks_in_turn, 50) for _ in range(6)]] == [50] * 6


def ends_locked(path):
    dgmp.lock_os_thread()
    os.chdir(path)
    return os.getpid()


def test_an_m_ends_with_its_locked_g(rt, tmp_path):
    """Its folder is no other G's, and its process is replaced when it is needed."""
    before = os.getcwd()
    for _ in range(4):
        pid = rt.go(ends_locked, str(tmp_path)).result(20)
        assert eventually(lambda: not os.path.exists(f"/proc/{pid}"))  # noqa: B023
        found = [rt.go(where_and_cwd) for _ in range(50)]
        assert all(f.result(20) == before for f in found)


def where_and_cwd():
    return os.getcwd()


def waits_here(pids):
    """Parked on this M, which a locked G leaves to end: first it must be run to its end."""
    return dgmp.go(read, pids).result(), os.getpid()


def read(path):
    with open(path, "rb") as file:
        return file.read()


def ends_locked_beside(path):
    dgmp.lock_os_thread()
    return os.getpid()


def test_an_m_does_not_end_before_what_is_parked_there(tmp_path):
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    with dgmp.Runtime(procs=1) as rt:
        parked = [rt.go(waits_here, path)]
        pid = rt.go(ends_locked_beside, path).result(20)
        with open(path, "wb") as file:
            file.write(b"x")
        assert parked[0].result(20)[0] == b"x"
        assert eventually(lambda: not os.path.exists(f"/proc/{pid}"))
        assert rt.go(abs, -2).result(20) == 2
        assert rt.stats()["throws"] == 0


def dies_locked():
    dgmp.lock_os_thread()
    os.kill(os.getpid(), 9)


def test_an_m_with_a_locked_g_is_killed(rt):
    with pytest.raises(dgmp.WorkerDied):
        rt.go(dies_locked).result(20)
    assert rt.go(abs, -2).result(20) == 2
