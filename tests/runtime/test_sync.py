"""Mutex, RWMutex, Semaphore, WaitGroup, Once: between Gs, threads and processes; killed holders and waiters; cancelled ones."""

import os
import signal
import threading

import pytest

import dgmp
from tests import helpers
from tests.runtime.test_cancel import is_cancelled, parked, wait_for_ever


@pytest.fixture
def rt():
    with dgmp.Runtime(procs=2) as runtime:
        yield runtime


def kill_ms(rt, but=()):
    """Every M that has a G, the others that there are, too."""
    for m, pid in rt.node.view.pids():
        if m < rt.node.view.max_ms and pid not in but:
            helpers.kill(pid)


# ---------------------------------------------------------------------- Mutex
def add_to_file(mutex, path, n):
    for _ in range(n):
        with mutex:
            number = int(path.read_text())
            if number % 3 == 0:
                dgmp.gosched()
            path.write_text(str(number + 1))


@pytest.mark.parametrize("procs", [1, 2])
def test_one_at_a_time(procs, tmp_path):
    path = tmp_path / "number"
    path.write_text("0")
    with dgmp.Runtime(procs=procs) as rt:
        mutex = dgmp.Mutex(runtime=rt)
        fs = [rt.go(add_to_file, mutex, path, 50) for _ in range(6)]
        threads = [threading.Thread(target=add_to_file_here, args=(mutex, path, 20)) for _ in range(2)]
        for thread in threads:
            thread.start()
        dgmp.gather(*fs)
        for thread in threads:
            thread.join()
        assert path.read_text() == "340" and not mutex.locked()


def add_to_file_here(mutex, path, n):
    for _ in range(n):
        with mutex:
            path.write_text(str(int(path.read_text()) + 1))


def test_mutex_alone(rt):
    m = dgmp.Mutex(runtime=rt)
    assert m.try_lock() and not m.try_lock() and m.locked() and "locked" in repr(m)
    for timeout in (0, -1, 0.01):
        with pytest.raises(TimeoutError, match="the Mutex was not free within"):
            m.lock(timeout=timeout)
    with pytest.raises(TypeError):
        m.lock("soon")
    m.unlock()
    with pytest.raises(RuntimeError, match="not locked"):
        m.unlock()
    with pytest.raises(KeyError):
        with m:
            raise KeyError
    m.lock(timeout=0)
    assert rt.go(dgmp.Mutex.try_lock, m).result(20) is False
    rt.go(dgmp.Mutex.unlock, m).result(20)  # it belongs to nobody
    assert not m.locked()


def lock_and(then, mutex, *args):
    with mutex:
        return then(*args)


def test_it_travels(rt):
    m = dgmp.Mutex(runtime=rt)
    box = {"m": m}
    assert rt.go(lambda: box["m"].try_lock()).result(20) is True
    assert m.locked()
    again = rt.go(helpers.identity, [m]).result(20)[0]
    again.unlock()
    assert not m.locked()
    made_there = rt.go(dgmp.Mutex).result(20)
    with made_there:
        assert rt.go(dgmp.Mutex.locked, made_there).result(20)


def in_turn(mutex, path, i):
    with mutex:
        with path.open("a") as file:
            file.write(f"{i} ")


def test_in_order_of_arrival(rt, tmp_path):
    m = dgmp.Mutex(runtime=rt)
    m.lock()
    fs = [parked(rt, in_turn, m, tmp_path / "order", i) for i in range(5)]
    assert not m.try_lock()
    m.unlock()
    dgmp.gather(*fs)
    assert (tmp_path / "order").read_text() == "0 1 2 3 4 "


def try_lock_within(mutex, timeout):
    try:
        mutex.lock(timeout)
    except TimeoutError:
        return "timed out"
    mutex.unlock()
    return "had it"


def test_timeouts_in_gs(rt):
    m = dgmp.Mutex(runtime=rt)
    m.lock()
    assert dgmp.gather(*[rt.go(try_lock_within, m, 0.01 * i) for i in range(4)]) == ["timed out"] * 4
    waits = parked(rt, try_lock_within, m, 60)
    m.unlock()
    assert waits.result(20) == "had it" and not m.locked()


def test_a_cancelled_waiter_leaves_the_queue(rt):
    m = dgmp.Mutex(runtime=rt)
    m.lock()
    first, second = parked(rt, lock_and, os.getpid, m), parked(rt, lock_and, os.getpid, m)
    assert first.cancel() and is_cancelled(first)
    m.unlock()
    assert second.result(20) and m.try_lock()


def test_a_cancelled_holder_unlocks(rt):
    m = dgmp.Mutex(runtime=rt)
    f = parked(rt, lock_and, wait_for_ever, m)
    assert m.locked() and f.cancel() and is_cancelled(f) and not m.locked()


def test_the_next_one_learns_that_the_holder_was_killed(rt):
    m = dgmp.Mutex(runtime=rt)
    f = rt.go(lock_and, helpers.kill_self, m)
    assert isinstance(f.exception(20), dgmp.WorkerDied)
    with pytest.raises(dgmp.HolderDied, match="G [0-9]+ held it"):
        m.lock(timeout=20)
    m.lock(timeout=20)
    m.unlock()
    f = rt.go(lock_and, helpers.kill_self, m)
    assert isinstance(f.exception(20), dgmp.WorkerDied)
    assert helpers.eventually(lambda: not m.locked())  # it has been repaired
    with pytest.raises(dgmp.HolderDied):
        m.try_lock()
    assert m.try_lock()


def learns_it(mutex):
    try:
        mutex.lock()
    except dgmp.HolderDied:
        return "learnt"
    mutex.unlock()
    return "had it"


def kill_when(path, mutex):
    with mutex:
        while not path.exists():
            pass  # keeps this M to itself: what waits, waits elsewhere
        helpers.kill_self()


def test_waiters_are_not_stuck_when_the_holder_is_killed(rt, tmp_path):
    m = dgmp.Mutex(runtime=rt)
    holder = rt.go(kill_when, tmp_path / "now", m)
    assert helpers.eventually(m.locked)
    waiters = [parked(rt, learns_it, m) for _ in range(3)]
    (tmp_path / "now").touch()
    assert isinstance(holder.exception(20), dgmp.WorkerDied)
    assert sorted(dgmp.gather(*waiters)) == ["had it", "had it", "learnt"]
    assert not m.locked()


def test_a_thread_that_waits_learns_it(rt, tmp_path):
    m = dgmp.Mutex(runtime=rt)
    holder = rt.go(kill_when, tmp_path / "now", m)
    assert helpers.eventually(m.locked)
    learnt = []
    thread = threading.Thread(target=lambda: learnt.append(learns_it(m)))
    thread.start()
    (tmp_path / "now").touch()
    thread.join(20)
    assert learnt == ["learnt"] and isinstance(holder.exception(20), dgmp.WorkerDied)


def test_a_killed_waiter_is_passed_over(rt):
    m = dgmp.Mutex(runtime=rt)
    m.lock()
    fs = [parked(rt, lock_and, os.getpid, m) for _ in range(3)]
    kill_ms(rt)
    assert all(isinstance(f.exception(20), dgmp.WorkerDied) for f in fs)
    m.unlock()
    assert rt.go(lock_and, helpers.identity, m, 1).result(20) == 1


def test_an_interrupted_wait_is_undone(rt):
    """Ctrl-C in a client's wait: it neither has the lock afterwards nor stands in the queue."""
    m = dgmp.Mutex(runtime=rt)
    m.lock()
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        timer.start()
        m.lock()
    timer.join()
    m.unlock()
    assert m.try_lock()


def test_the_runtime_is_closed_while_a_thread_waits():
    ended = []

    def wait():
        try:
            m.lock()
        except dgmp.DgmpError as e:
            ended.append(type(e))

    with dgmp.Runtime(procs=1) as rt:
        m = dgmp.Mutex(runtime=rt)
        m.lock()
        thread = threading.Thread(target=wait)
        thread.start()
    thread.join(20)
    assert ended == [dgmp.RuntimeClosed]


# ---------------------------------------------------------------------- RWMutex
def read(rw, path, n):
    for _ in range(n):
        with rw.rlocker():
            a, b = path.read_text().split()
            assert a == b
            dgmp.gosched()


def write(rw, path, n):
    for _ in range(n):
        with rw:
            a = int(path.read_text().split()[0]) + 1
            path.write_text(f"{a} torn")
            dgmp.gosched()
            path.write_text(f"{a} {a}")


def test_readers_and_writers(rt, tmp_path):
    path = tmp_path / "numbers"
    path.write_text("0 0")
    rw = dgmp.RWMutex(runtime=rt)
    dgmp.gather(*[rt.go(fn, rw, path, 20) for fn in (read, write, read, read, write, read)])
    assert path.read_text() == "40 40" and repr(rw) == "<dgmp.RWMutex with 0 readers>"


def test_rwmutex_alone(rt):
    rw = dgmp.RWMutex(runtime=rt)
    rw.rlock()
    rw.rlock(timeout=0)
    assert not rw.try_lock() and rw.try_rlock()
    for _ in range(3):
        rw.runlock()
    with pytest.raises(RuntimeError, match="for reading"):
        rw.runlock()
    assert rw.try_lock() and not rw.try_rlock() and "write-locked" in repr(rw)
    with pytest.raises(RuntimeError, match="for reading"):
        rw.runlock()
    with pytest.raises(TimeoutError):
        rw.rlock(0.01)
    with pytest.raises(TimeoutError):
        rw.lock(0.01)
    rw.unlock()
    rw.rlock()
    with pytest.raises(RuntimeError, match="for writing"):
        rw.unlock()


def write_lock(rw):
    with rw:
        return "written"


def test_a_waiting_writer_is_not_overtaken(rt):
    rw = dgmp.RWMutex(runtime=rt)
    rw.rlock()
    writer = parked(rt, write_lock, rw)
    assert not rw.try_rlock()
    rw.runlock()
    assert writer.result(20) == "written" and rw.try_rlock()


def test_a_killed_writer_is_told_and_a_killed_reader_is_not(rt):
    rw = dgmp.RWMutex(runtime=rt)
    assert isinstance(rt.go(read_lock_and_die, rw).exception(20), dgmp.WorkerDied)
    rw.lock(timeout=20)
    rw.unlock()
    assert isinstance(rt.go(lock_and, helpers.kill_self, rw).exception(20), dgmp.WorkerDied)
    with pytest.raises(dgmp.HolderDied):
        rw.rlock(timeout=20)
    rw.rlock(timeout=20)


def read_lock_and_die(rw):
    rw.rlock()
    helpers.kill_self()


# ---------------------------------------------------------------------- Semaphore
def hold(s, path, n):
    s.acquire(n)
    for i in range(n):
        (path / f"{dgmp.goid()} {i}").touch()
    seen = len(list(path.iterdir()))
    dgmp.gosched()
    for i in range(n):
        (path / f"{dgmp.goid()} {i}").unlink()
    s.release(n)
    return seen


def test_never_more_than_n(rt, tmp_path):
    s = dgmp.Semaphore(3, runtime=rt)
    seen = dgmp.gather(*[rt.go(hold, s, tmp_path, 1 + i % 3) for i in range(60)])
    assert max(seen) <= 3 and s.try_acquire(3)


def test_semaphore_alone(rt):
    s = dgmp.Semaphore(2, runtime=rt)
    with s, s:
        assert not s.try_acquire()
        with pytest.raises(TimeoutError, match="2 of the 2 units"):
            s.acquire(2, timeout=0.01)
    assert "0 of 2" in repr(s)
    for n in (0, -1, 1 << 40):
        with pytest.raises(ValueError):
            s.acquire(n)
        with pytest.raises(ValueError):
            dgmp.Semaphore(n, runtime=rt)
    with pytest.raises(TypeError):
        s.acquire("1")
    with pytest.raises(ValueError, match="has 2 units"):
        s.acquire(3)
    with pytest.raises(ValueError, match="not held"):
        s.release()


def test_a_large_request_is_not_overtaken(rt, tmp_path):
    s = dgmp.Semaphore(3, runtime=rt)
    s.acquire(2)
    large = parked(rt, hold, s, tmp_path, 3)
    small = parked(rt, hold, s, tmp_path, 1)
    assert not s.try_acquire()
    large.cancel()
    assert is_cancelled(large) and small.result(20) == 1  # who gives up lets those behind pass


def acquire_and_die(s, n):
    s.acquire(n)
    helpers.kill_self()


def test_units_of_a_killed_process_are_free_again(rt):
    s = dgmp.Semaphore(5, runtime=rt)
    s.acquire(2)
    assert isinstance(rt.go(acquire_and_die, s, 3).exception(20), dgmp.WorkerDied)
    with pytest.raises(dgmp.HolderDied):
        s.acquire(3, timeout=20)
    s.acquire(3, timeout=20)
    s.release(5)


# ---------------------------------------------------------------------- WaitGroup
def test_waitgroup_alone(rt):
    wg = dgmp.WaitGroup(runtime=rt)
    wg.wait()
    wg.add(2)
    wg.add()
    wg.add(-1)
    wg.add(0)
    with pytest.raises(TimeoutError, match="not everything"):
        wg.wait(timeout=0.01)
    wg.done()
    assert "1 to be done" in repr(wg)
    wg.done()
    wg.wait(timeout=0)
    with pytest.raises(ValueError, match="negative"):
        wg.done()


def wait_on(wg):
    wg.wait()
    return "all done"


def test_all_waiters_go_on_at_zero(rt):
    wg = dgmp.WaitGroup(runtime=rt)
    wg.add(3)
    waiters = [parked(rt, wait_on, wg) for _ in range(4)]
    dgmp.gather(*[rt.go(dgmp.WaitGroup.done, wg) for _ in range(3)])
    assert dgmp.gather(*waiters) == ["all done"] * 4


def test_go_counts_however_it_ends(rt):
    wg = dgmp.WaitGroup(runtime=rt)
    waiter = rt.go(wait_on, wg)
    fs = [wg.go(helpers.identity, 1), wg.go(helpers.fail, "x"), wg.go(helpers.kill_self), wg.go(helpers.identity, Unpickled()),
          wg.go(wait_for_ever)]
    for f in fs[:-1]:
        f.exception(20)
    with pytest.raises(TimeoutError):
        wg.wait(timeout=0.01)
    fs[-1].cancel()
    wg.wait(timeout=20)
    waiter.exception(20)
    with pytest.raises(dgmp.EncodingError):
        wg.go(helpers.identity, threading.Lock())
    wg.wait(timeout=0)


class Unpickled:
    def __setstate__(self, state):
        raise ValueError("not here")

    def __getstate__(self):
        return {"x": 1}


def group_of_gs(n):
    wg = dgmp.WaitGroup()
    fs = [wg.go(helpers.identity, i) for i in range(n)]
    wg.wait()
    return [f.done() for f in fs]


@pytest.mark.parametrize("procs", [1, 2])
def test_waitgroup_in_a_g(procs):
    with dgmp.Runtime(procs=procs) as rt:
        assert rt.go(group_of_gs, 100).result(20) == [True] * 100


def add_and_die(wg, path):
    wg.add(5)
    while not path.exists():
        pass
    helpers.kill_self()


def test_who_waits_learns_that_one_died_that_had_added(rt, tmp_path):
    wg = dgmp.WaitGroup(runtime=rt)
    f = rt.go(add_and_die, wg, tmp_path / "now")
    assert helpers.eventually(lambda: "5 to" in repr(wg))
    waiter = parked(rt, wait_on, wg)
    (tmp_path / "now").touch()
    assert isinstance(waiter.exception(20), dgmp.HolderDied) and isinstance(f.exception(20), dgmp.WorkerDied)
    wg.wait(timeout=0)
    wg.done()  # of one that it had meant: late, and no error


# ---------------------------------------------------------------------- Once
def note(path, text):
    with path.open("a") as file:
        file.write(text)


def do_once(once, path):
    once.do(lambda: note(path, "x"))
    return path.read_text()


def test_once(rt, tmp_path):
    once = dgmp.Once(runtime=rt)
    assert "not done" in repr(once)
    seen = dgmp.gather(*[rt.go(do_once, once, tmp_path / "a") for _ in range(20)])
    assert seen == ["x"] * 20 and repr(once) == "<dgmp.Once done>"


def test_once_that_raises_is_done(rt):
    once = dgmp.Once(runtime=rt)
    with pytest.raises(KeyError):
        once.do(lambda: {}["x"])
    once.do(lambda: pytest.fail("again"))


def test_the_next_one_runs_it_if_its_runner_died(rt, tmp_path):
    once = dgmp.Once(runtime=rt)
    f = rt.go(dgmp.Once.do, once, helpers.kill_self)
    assert isinstance(f.exception(20), dgmp.WorkerDied)
    assert rt.go(do_once, once, tmp_path / "a").result(20) == "x"
    once = dgmp.Once(runtime=rt)
    f = parked(rt, dgmp.Once.do, once, wait_for_ever)
    other = parked(rt, do_once, once, tmp_path / "b")
    assert f.cancel() and is_cancelled(f) and other.result(20) == "x"


# ---------------------------------------------------------------------- everything at once
def use_and_maybe_die(mutex, rw, s, i):
    for k in range(10):
        try:
            with mutex:
                if i % 7 == 3 and k == 5:
                    helpers.kill_self()
            with s:
                dgmp.gosched()
                if i % 7 == 5 and k == 5:
                    helpers.kill_self()
            with rw if k % 3 == 0 else rw.rlocker():
                if i % 11 == 8 and k == 3:
                    helpers.kill_self()
        except dgmp.HolderDied:
            continue
    return i


def test_kills_and_cancels_leave_nobody_stuck(rt):
    mutex, rw, s = dgmp.Mutex(runtime=rt), dgmp.RWMutex(runtime=rt), dgmp.Semaphore(2, runtime=rt)
    fs = [rt.go(use_and_maybe_die, mutex, rw, s, i) for i in range(40)]
    for f in fs[::6]:
        f.cancel()
    for i, f in enumerate(fs):
        error = f.exception(30)
        assert f.result() == i if error is None else isinstance(error, (dgmp.WorkerDied, dgmp.Cancelled))
    for acquire in (mutex.lock, rw.lock, lambda t: s.acquire(2, t)):
        try:
            acquire(20)
        except dgmp.HolderDied:
            acquire(20)


def test_who_learns_of_a_death_finds_free_what_was_held(rt):
    """The units that nobody holds are not taken before the death is told."""
    for _ in range(10):
        s = dgmp.Semaphore(2, runtime=rt)

        def die(s=s):
            s.acquire()
            os.kill(os.getpid(), signal.SIGKILL)

        assert isinstance(rt.go(die).exception(20), dgmp.WorkerDied)
        with pytest.raises(dgmp.HolderDied):
            s.try_acquire()
        assert s.try_acquire(2)
