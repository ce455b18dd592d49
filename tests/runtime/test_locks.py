"""threading's locks among Gs of one M: who waits for a parked G parks, and the lock knows them apart."""

import _thread
import concurrent.futures
import importlib
import inspect
import logging
import os
import pickle
import queue
import sys
import threading
import weakref

import pytest

import dgmp
from dgmp import _core
from tests import helpers

KINDS = ["Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore"]


@pytest.fixture
def rt():
    with dgmp.Runtime(procs=1, max_ms=1) as runtime:  # all Gs are on one M, even if it blocks
        yield runtime


class Shared:
    """What the Gs of one M share: its module globals are theirs."""

    lock: object = None
    log: list = []


def make(kind):
    Shared.lock, Shared.log = getattr(threading, kind)(), []
    return Shared.lock


def until_logged(what):
    """The other Gs of this M run meanwhile."""
    while what not in Shared.log:
        dgmp.gosched()


def second():
    Shared.log.append("second asks")
    with Shared.lock:
        Shared.log.append("second has it")


def first(kind, how):
    with make(kind):
        other = dgmp.go(second)
        if how == "gosched":
            until_logged("second asks")
        else:
            dgmp.go(helpers.identity, 1).result()
            until_logged("second asks")
            dgmp.go(helpers.identity, 1).result()
        Shared.log.append("first lets go")
    other.result()
    return Shared.log


@pytest.mark.parametrize("how", ["gosched", "result"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_g_that_parks_while_it_holds_a_lock_keeps_it(rt, kind, how):
    assert rt.go(first, kind, how).result(30) == ["second asks", "first lets go", "second has it"]


def who_waits():
    with make("Lock"):
        other = dgmp.go(second)
        until_logged("second asks")
        parks = dgmp.stats()["parks"]
        for _ in range(10):
            dgmp.go(helpers.identity, 1).result()
        parks = dgmp.stats()["parks"] - parks
    other.result()
    return parks


def test_who_waits_is_parked_and_does_not_poll(rt):
    assert rt.go(who_waits).result(30) <= 20


def reenter():
    lock = make("RLock")
    with lock:
        with lock:
            other = dgmp.go(ask_for_rlock)
            until_logged("asked")
            owned = lock._is_owned(), lock._recursion_count()
        dgmp.gosched()
        Shared.log.append("still mine")
    other.result()
    return owned, Shared.log


def ask_for_rlock():
    assert not Shared.lock._is_owned()
    assert not Shared.lock.acquire(blocking=False)
    assert not Shared.lock.acquire(timeout=0.001)
    with pytest.raises(RuntimeError, match="un-acquired"):
        Shared.lock.release()
    Shared.log.append("asked")
    with Shared.lock:
        Shared.log.append("got it")


def test_an_rlock_is_owned_by_the_g(rt):
    assert rt.go(reenter).result(30) == ((True, 2), ["asked", "still mine", "got it"])


def produce(n):
    for i in range(n):
        Shared.lock.put(i)


def consume(n):
    Shared.lock = queue.Queue(1)
    f = dgmp.go(produce, n)
    got = [Shared.lock.get() for _ in range(n)]
    f.result()
    return got


def test_a_queue_between_gs_of_one_m(rt):
    assert rt.go(consume, 50).result(30) == list(range(50))


def meet(i):
    return Shared.lock.wait()


def barrier(n):
    Shared.lock = threading.Barrier(n)
    return sorted(dgmp.gather(*[dgmp.go(meet, i) for i in range(n)]))


def test_a_barrier_of_gs_of_one_m(rt):
    assert rt.go(barrier, 20).result(30) == list(range(20))


def count_up(n):
    for _ in range(n):
        with Shared.lock:
            value = Shared.log[0]
            dgmp.gosched()
            Shared.log[0] = value + 1


def contend(kind, gs, n):
    make(kind)
    Shared.log.append(0)
    dgmp.gather(*[dgmp.go(count_up, n) for _ in range(gs)])
    return Shared.log[0]


@pytest.mark.parametrize("kind", KINDS)
def test_many_gs_contend(rt, kind):
    assert rt.go(contend, kind, 20, 10).result(30) == 200


def contend_with_threads(kind, gs, threads, n):
    make(kind)
    Shared.log.append(0)

    def count():
        for _ in range(n):
            with Shared.lock:
                value = Shared.log[0]
                os.sched_yield()
                Shared.log[0] = value + 1

    others = [threading.Thread(target=count) for _ in range(threads)]
    for thread in others:
        thread.start()
    dgmp.gather(*[dgmp.go(count_up, n) for _ in range(gs)])
    for thread in others:
        thread.join()
    return Shared.log[0]


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Condition"])
def test_gs_and_threads_contend(rt, kind):
    assert rt.go(contend_with_threads, kind, 5, 3, 20).result(60) == 160


def hold_in_a_thread():
    """A thread waits for a lock that a parked G holds, and a G for one that a thread holds."""
    lock, held, let_go = make("Lock"), threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            let_go.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    other = dgmp.go(second)
    until_logged("second asks")
    let_go.set()
    other.result()
    thread.join()
    return Shared.log


def test_a_g_waits_for_a_thread(rt):
    assert rt.go(hold_in_a_thread).result(30) == ["second asks", "second has it"]


def pool_inside_a_g():
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        f = dgmp.go(pool_for_another)
        return list(pool.map(helpers.identity, range(20))), f.result()


def pool_for_another():
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return sum(pool.map(helpers.identity, range(20)))


def test_thread_pools_in_two_gs(rt):
    assert rt.go(pool_inside_a_g).result(30) == (list(range(20)), 190)


def thread_that_waits_for_a_g():
    """The G joins the thread, which wants a lock of a G that is parked on this M."""
    make("Lock")
    Shared.event = threading.Event()
    holder = dgmp.go(hold_until_event)
    until_logged("held")
    thread = threading.Thread(target=second)
    thread.start()
    dgmp.go(set_event)
    thread.join()
    holder.result()
    return Shared.log


def hold_until_event():
    with Shared.lock:
        Shared.log.append("held")
        Shared.event.wait()


def set_event():
    Shared.event.set()


def test_join_parks(rt):
    assert rt.go(thread_that_waits_for_a_g).result(30) == ["held", "second asks", "second has it"]


def time_out():
    with make("Lock"):
        other = dgmp.go(try_for_a_while)
        until_logged("tries")
        assert other.result() is False
    return Shared.lock.acquire(timeout=0)


def try_for_a_while():
    Shared.log.append("tries")
    return Shared.lock.acquire(timeout=0.01)


def test_a_g_gives_up(rt):
    assert rt.go(time_out).result(30) is True


def wait_in(what):
    Shared.log.append("waits")
    if what == "lock":
        Shared.lock.acquire()
    elif what == "queue":
        Shared.queue.get()
    elif what == "condition":
        with Shared.condition:
            try:
                Shared.condition.wait()
            finally:
                assert Shared.condition._is_owned()


def cancel_one_that_waits(what):
    make("Lock").acquire()
    Shared.queue, Shared.condition = queue.Queue(), threading.Condition()
    f = dgmp.go(wait_in, what)
    until_logged("waits")
    dgmp.gosched()
    if what == "condition":  # it is to get the lock back, which is ours for a while
        with Shared.condition:
            f.cancel()
            dgmp.gosched()
    else:
        f.cancel()
    with pytest.raises(dgmp.Cancelled):
        f.result(20)
    Shared.lock.release()
    return Shared.lock.acquire(blocking=False)


@pytest.mark.parametrize("what", ["lock", "queue", "condition"])
def test_a_g_that_waits_can_be_cancelled(rt, what):
    assert rt.go(cancel_one_that_waits, what).result(30)


def log_twice():
    handler = Slow()
    logger = logging.getLogger("tests.locks")
    logger.addHandler(handler)
    logger.propagate = False
    fs = [dgmp.go(log_one, i) for i in range(5)]
    dgmp.gather(*fs)
    logger.removeHandler(handler)
    return handler.seen


class Slow(logging.Handler):
    """Parks while it holds its lock."""

    def __init__(self):
        super().__init__()
        self.seen, self.inside = [], 0

    def emit(self, record):
        self.inside += 1
        dgmp.gosched()
        self.seen.append((record.getMessage(), self.inside))
        self.inside -= 1


def log_one(i):
    logging.getLogger("tests.locks").warning("%d", i)


def test_logging(rt):
    assert sorted(rt.go(log_twice).result(30)) == [(str(i), 1) for i in range(5)]


SLOW_MODULE = """
import dgmp
dgmp.gosched()
dgmp.gosched()
dgmp.go(abs, 1).result()
value = 7
"""


def import_it(_):
    return importlib.import_module("slow_module_of_locks").value


def import_in_many(folder):
    sys.path.insert(0, folder)
    return dgmp.gather(*[dgmp.go(import_it, i) for i in range(5)])


def test_a_module_that_parks_while_it_is_imported(rt, tmp_path):
    """No G of the M finds it half made."""
    (tmp_path / "slow_module_of_locks.py").write_text(SLOW_MODULE)
    assert rt.go(import_in_many, str(tmp_path)).result(30) == [7] * 5


def looks():
    lock, rlock = threading.Lock(), threading.RLock()
    assert isinstance(lock, _core.Lock) and isinstance(rlock, _core.RLock)
    assert isinstance(lock, type(threading.Lock())) and not isinstance(lock, type(rlock))
    assert inspect.isclass(threading.Lock) == (sys.version_info >= (3, 13))
    assert isinstance(threading.Condition()._lock, _core.RLock) and isinstance(queue.Queue().mutex, _core.Lock)
    assert isinstance(threading._active_limbo_lock, _core.RLock) and isinstance(logging._lock, _core.RLock)
    assert _thread.allocate_lock is not threading.Lock and not isinstance(_thread.allocate_lock(), _core.Lock)
    for x, name in (lock, "lock"), (rlock, "RLock"):
        assert repr(x).startswith(f"<unlocked _thread.{name} object ") and weakref.ref(x)() is x
        with pytest.raises(TypeError, match=f"cannot pickle '_thread.{name}' object"):
            pickle.dumps(x)
        for args, error in [((False, 1), ValueError), ((True, -2), ValueError), ((True, 1e12), OverflowError),
                            ((True, "1"), TypeError)]:
            with pytest.raises(error):
                x.acquire(*args)
        with pytest.raises(RuntimeError):
            x.release()
        assert x.acquire() is True and repr(x).startswith("<locked")
        x._at_fork_reinit()
        with pytest.raises(RuntimeError):
            x.release()
        with x as got:
            assert got is True
    assert not lock.locked()
    with pytest.raises(RuntimeError):
        rlock._release_save()
    with rlock, rlock:
        saved = rlock._release_save()
        assert not rlock._is_owned()
        rlock._acquire_restore(saved)
        assert rlock._recursion_count() == 2
    assert type("Sub", (type(rlock),), {})().acquire()
    return True


def test_they_look_like_cpythons(rt):
    assert rt.go(looks).result(30)


def test_what_makes_locks_travels(rt):
    """`from threading import Lock` in a function that travels by value."""
    make, make_r = threading.Lock, threading.RLock
    assert rt.go(lambda: (isinstance(make(), _core.Lock), isinstance(make_r(), _core.RLock))).result(30) == (True, True)


def fork_while_held():
    lock, rlock = threading.Lock(), threading.RLock()
    with lock, rlock:
        pid = os.fork()
        if pid == 0:
            try:
                rlock.acquire()
                rlock.release()
                ok = not lock.acquire(timeout=0.01)
                thread = threading.Thread(target=lambda: lock.release())
                thread.start()
                lock.acquire()
                thread.join()
                os._exit(0 if ok else 1)
            finally:
                os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_in_a_child_that_a_g_forks(rt):
    assert rt.go(fork_while_held).result(30) == 0


def test_the_client_has_cpythons(rt):
    assert threading.Lock is _thread.allocate_lock or threading.Lock is type(_thread.allocate_lock())
    assert not isinstance(threading.RLock(), _core.RLock)
