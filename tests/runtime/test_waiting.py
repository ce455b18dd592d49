"""What waits inside Gs: time-outs, callbacks, the recursion limit; and what is refused when all slots are taken."""

import math
import signal
import sys
import threading
import time
from decimal import Decimal
from fractions import Fraction

import pytest

import dgmp
from dgmp import _core
from dgmp.api.future import Future
from tests import helpers


def timed_out_then_done(timeout):
    gate = dgmp.Chan()
    f = dgmp.go(gate.recv)
    with pytest.raises(TimeoutError):
        f.result(timeout)
    assert not f.done()
    gate.send("done")
    return f.result(30)


def test_a_timeout_inside_a_g_parks_it(rt):
    parks = rt.stats()["parks"]
    assert rt.go(timed_out_then_done, 0.1).result(30) == "done"
    assert rt.stats()["parks"] - parks <= 4  # they waited, they did not poll


WAITS_FOR_EVER = [None, math.inf, 1e10, sys.maxsize, 1e300, 10**400]
NOT_AT_ALL = [0, -0.0, -1, -math.inf, -(10**400)]


def wait_with_odd_timeouts(go, gate):
    assert [go(helpers.nap, 0.01).result(timeout) for timeout in WAITS_FOR_EVER] == [0.01] * len(WAITS_FOR_EVER)
    f = go(gate.recv)
    for timeout in NOT_AT_ALL:
        with pytest.raises(TimeoutError):
            f.result(timeout)
    with pytest.raises(ValueError, match="timeout"):
        f.exception(math.nan)
    for timeout in ("1", [], object()):
        with pytest.raises(TypeError, match="timeout must be a number"):
            f.result(timeout)
    gate.send("done")
    assert f.result(Fraction(30)) == "done" and f.result(Decimal("0.1")) == "done"


def test_odd_timeouts(rt):
    wait_with_odd_timeouts(rt.go, rt.chan())


def odd_timeouts_in_a_g():
    wait_with_odd_timeouts(dgmp.go, dgmp.Chan())
    return dgmp.current()["pid"]


def test_odd_timeouts_inside_a_g(rt):
    assert rt.go(odd_timeouts_in_a_g).result(30) in [pid for _, pid in rt.node.view.pids()]


def wait_for(future_of, timeout):
    try:
        return dgmp.go(helpers.nap, future_of).result(timeout)
    except TimeoutError:
        return None


def test_many_deadlines_on_one_m():
    with dgmp.Runtime(procs=2) as rt:
        waiters = [rt.go(wait_for, 0.002, 20) for _ in range(50)] + [rt.go(wait_for, 0.2, 0.01 * i) for i in range(1, 6)]
        ended = dgmp.gather(*waiters)
        assert ended[:50] == [0.002] * 50 and set(ended[50:]) <= {None, 0.2}


def result_of_callback():
    """The callback itself waits for a G: on the scheduler it would wait for ever."""
    seen, done = [], threading.Event()

    def callback(future):
        seen.append((future.result(), dgmp.go(helpers.add, 2, 3).result(20)))
        done.set()

    f = dgmp.go(helpers.identity, 1)
    f.add_done_callback(callback)
    f.result(20)
    while not done.is_set():
        dgmp.gosched()
    f.add_done_callback(lambda future: seen.append(future.result()))
    return seen[0], seen[1:]


@pytest.mark.parametrize("procs", [1, 2])
def test_callbacks_inside_a_g(procs):
    with dgmp.Runtime(procs=procs) as rt:
        assert rt.go(result_of_callback).result(30) == ((1, 5), [1])


class NotAnException(BaseException):
    pass


FAILURES = [ValueError("x"), SystemExit(3), NotAnException(), GeneratorExit()]


def raiser(error):
    def callback(future):
        raise error

    return callback


def results_beside_failing_callbacks(go):
    """On futures that have ended, and in whatever thread collects; what was raised is seen by nobody else."""
    ended = go(helpers.identity, 1)
    ended.result(20)
    last = threading.Event()
    for error in FAILURES:
        ended.add_done_callback(raiser(error))
        f = go(helpers.identity, 2)
        f.add_done_callback(raiser(error))
        assert f.result(20) == 2
    go(helpers.identity, 3).add_done_callback(lambda future: last.set())
    return last.wait(20)  # nobody collects here: the thread that does is still there


def test_a_callback_that_raises_is_logged(rt, caplog):
    assert results_beside_failing_callbacks(rt.go)
    assert [record.exc_info[0] for record in caplog.records] == [type(e) for e in FAILURES for _ in range(2)]


def failing_callbacks_in_a_g():
    import logging

    logging.disable()
    return results_beside_failing_callbacks(dgmp.go)


def test_a_callback_that_raises_inside_a_g(rt):
    assert rt.go(failing_callbacks_in_a_g).result(40)


def test_only_a_real_ctrl_c_leaves_a_callback(rt, caplog):
    ended = rt.go(helpers.identity, 1)
    ended.result(20)
    with pytest.raises(KeyboardInterrupt):
        ended.add_done_callback(lambda future: signal.raise_signal(signal.SIGINT))
    ended.add_done_callback(raiser(KeyboardInterrupt()))
    elsewhere = threading.Thread(target=ended.add_done_callback, args=(raiser(KeyboardInterrupt()),))
    elsewhere.start()
    elsewhere.join()
    assert len(caplog.records) == 2


def compute_until_called():
    called = threading.Event()
    dgmp.go(helpers.identity, 1).add_done_callback(lambda future: called.set())
    deadline = time.monotonic() + 20
    while not called.is_set() and time.monotonic() < deadline:
        pass  # never parks: a thread collects
    return called.is_set()


def test_a_callback_comes_while_its_g_computes(rt):
    assert rt.go(compute_until_called).result(40)


def wait_at_every_depth(path=()):
    """Spawns and waits at each depth down to the recursion limit and a little beyond."""
    results = []

    def deeper(n):
        try:
            results.append(dgmp.go(helpers.identity, n).result())
        except RecursionError:
            results.append(None)
        try:
            deeper(n + 1)
        except RecursionError:
            return

    sys.setrecursionlimit(260)
    try:
        deeper(0)
    finally:
        sys.setrecursionlimit(1000)
    numbers = [x for x in results if x is not None]
    assert numbers == sorted(numbers) and len(numbers) > 50 and numbers[0] == 0
    return dgmp.go(helpers.fib, 5).result()


@pytest.mark.parametrize("procs", [1, 2])
def test_recursion_limit_while_parking(procs):
    with dgmp.Runtime(procs=procs) as rt:
        for _ in range(5):
            assert rt.go(wait_at_every_depth).result(60) == 5


def spawn_too_many(n):
    futures = []
    try:
        for _ in range(n):
            futures.append(dgmp.go(helpers.identity, 1))
    except dgmp.TooManyGs as e:
        return len(futures), str(e), sum(dgmp.gather(*futures))
    return len(futures), "", sum(dgmp.gather(*futures))


@pytest.fixture
def few_slots(monkeypatch):
    from dgmp.runtime import boot

    monkeypatch.setattr(boot, "NSLOTS", 2048)


def test_too_many_gs_inside_a_g(few_slots):
    with dgmp.Runtime(procs=1) as rt:
        n, text, total = rt.go(spawn_too_many, 5000).result(60)
        assert 0 < n < 2048 and total == n and "2048 slots" in text
        assert rt.go(helpers.fib, 6).result(30) == 8


def test_a_client_waits_for_slots_and_loses_nothing(few_slots):
    with dgmp.Runtime(procs=2) as rt:
        assert [f.result() for f in [rt.go(helpers.identity, i) for i in range(10_000)]] == list(range(10_000))


def test_the_core_counts_what_is_outstanding(rt):
    assert rt.node.view.outstanding in (0, 1)  # main
    gate = rt.chan(4)
    futures = [rt.go(gate.recv) for _ in range(4)]
    assert rt.node.view.outstanding >= 4
    for i in range(4):
        gate.send(i)
    dgmp.gather(*futures)
    rt.main.result(20)
    assert rt.node.view.outstanding == 0 and _core.KIND_CLIENT == 2


def test_who_is_told_of_the_end_of_the_runtime_finds_the_future_done(rt, monkeypatch):
    """Found by `make chaos SEED=4042`: another thread had seen the end first, and was still at telling."""
    f = rt.go(helpers.nap, 60)
    closed, go_on, fail = threading.Event(), threading.Event(), Future.fail

    def fail_late(future, error):
        if threading.current_thread() is ender:
            closed.set()
            go_on.wait(20)
        fail(future, error)

    monkeypatch.setattr(Future, "fail", fail_late)
    ender = threading.Thread(target=rt.node.end, args=(dgmp.CoordinatorDied("gone"),))
    ender.start()
    try:
        assert closed.wait(20)
        with pytest.raises(dgmp.CoordinatorDied, match="gone"):
            f.result(20)
        assert f.done()
    finally:
        go_on.set()
        ender.join()
