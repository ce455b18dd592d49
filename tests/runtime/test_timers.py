"""Gs that sleep, and functions that are called later."""

import math
import os
import threading
import time
from pathlib import Path

import pytest

import dgmp
from dgmp.runtime.proc import MOST_RUNNERS
from dgmp.runtime.timers import FEW, Timers
from tests import helpers
from tests.helpers import eventually


@pytest.fixture(scope="module")
def node():
    """The embedded runtime, for all tests that need none of their own."""
    from dgmp.api import runtime

    dgmp.go(int).result()
    yield runtime._default
    runtime._default.close(cancel=True)


# ---------------------------------------------------------------- the heap
def test_timers_fire_in_order():
    timers = Timers()
    for deadline, word in [(30, 3), (10, 1), (20, 2), (10, 11)]:
        timers.add(deadline, word)
    assert timers.wait(4) == 6 and timers.wait(15) == 0
    assert timers.expire(20) == [1, 11, 2]
    assert timers.expire(20) == [] and timers.expire(30) == [3]
    assert timers.wait(0) == -1


def test_stopped_timers_do_not_fire_and_do_not_stay():
    timers = Timers()
    made = [timers.add(deadline, deadline) for deadline in range(1, 1001)]
    for timer in made[1:]:
        timers.stop(timer)
        timers.stop(timer)
        assert timers.stopped <= max(FEW, len(timers.heap) / 2)
    assert len(timers.heap) <= 2 * FEW
    assert timers.expire(1000) == [1] and timers.heap == [] and timers.stopped == 0
    timers.stop(made[0])
    assert timers.stopped == 0


# ---------------------------------------------------------------- sleep
def slept(seconds):
    began = time.monotonic()
    dgmp.sleep(seconds)
    return time.monotonic() - began


def test_a_sleeping_g_parks(rt):
    parks = rt.stats()["parks"]
    assert rt.go(slept, 0.02).result(30) >= 0.02
    assert rt.stats()["parks"] == parks + 1


def test_sleep_outside_of_gs():
    assert slept(0.01) >= 0.01


def slept_on_another_thread():
    took = []
    thread = threading.Thread(target=lambda: took.append(slept(0.01)))
    thread.start()
    thread.join()
    return took[0]


def test_sleep_on_another_thread_of_an_m(rt):
    assert rt.go(slept_on_another_thread).result(30) >= 0.01


def odd_sleeps():
    for seconds in (0, -1, -math.inf, -0.0):
        dgmp.sleep(seconds)
    for seconds in (None, "1", []):
        with pytest.raises(TypeError, match="number"):
            dgmp.sleep(seconds)
    with pytest.raises(ValueError, match="NaN"):
        dgmp.sleep(math.nan)
    return True


def test_odd_sleeps(rt):
    assert odd_sleeps() and rt.go(odd_sleeps).result(30)


def test_sleeping_for_ever_ends_with_the_runtime():
    rt = dgmp.Runtime(procs=1)
    f = rt.go(dgmp.sleep, math.inf)
    parked = eventually(lambda: rt.stats()["parks"] == 1)
    rt.close(cancel=True)
    assert parked
    with pytest.raises(dgmp.RuntimeClosed):
        f.result()


def woken_at(deadline):
    dgmp.sleep(deadline - time.monotonic())
    return time.monotonic()


def test_the_earlier_deadline_wakes_first():
    with dgmp.Runtime(procs=1) as rt:
        rt.go(slept, 0).result(30)  # it has imported this module
        now = time.monotonic()
        woken = dgmp.gather(*[rt.go(woken_at, now + 2 - 0.01 * i) for i in range(5)])
        assert woken == sorted(woken, reverse=True)


def test_one_m_runs_on_while_its_gs_sleep():
    with dgmp.Runtime(procs=1, max_ms=1) as rt:
        sleepers = [rt.go(slept, 3600) for _ in range(20)]
        assert rt.go(helpers.add, 1, 2).result(30) == 3
        assert not any(f.done() for f in sleepers)
        for f in sleepers:
            f.cancel()


def threads_of_ms(rt):
    return sum(len(os.listdir(f"/proc/{pid}/task")) for _, pid in rt.node.view.pids())


def test_ten_thousand_sleepers_take_no_process_and_little_memory():
    rt = dgmp.Runtime(procs=2)
    try:
        look_at_sleepers(rt)
    finally:
        rt.close(cancel=True)


def look_at_sleepers(rt):
    def memory():
        lines = [line for _, pid in rt.node.view.pids()
                 for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith("Pss:")]
        return sum(int(line.split()[1]) for line in lines) * 1024

    dgmp.gather(*[rt.go(dgmp.sleep, 0.01) for _ in range(100)])
    before = memory()
    n = 10_000
    sleepers = [rt.go(dgmp.sleep, math.inf) for _ in range(n)]
    assert eventually(lambda: rt.stats()["parks"] >= n, 60)
    assert (memory() - before) / n < 20_000
    assert threads_of_ms(rt) == rt.stats()["threads"] <= 3
    assert not any(f.done() for f in sleepers)


def many_timeouts(n):
    """Each leaves a timer that is never to fire."""
    f = dgmp.go(dgmp.sleep, math.inf)
    for _ in range(n):
        g = dgmp.go(dgmp.sleep, 0)
        g.result(3600)
    with pytest.raises(TimeoutError):
        f.result(0)
    from dgmp.api import runtime

    return len(runtime._member.m.timers.heap)


def test_what_sysmon_is_told_is_never_past():
    """Else it asked Gs to give way for ever, to nobody."""
    told = []
    timers = Timers(told.append)
    waits = [timers.add(deadline, word=deadline) for deadline in range(10, 10 + 2 * FEW + 4)]
    assert told == [10]
    timers.stop(waits[0])
    assert timers.expire(10) == [] and told[-1] == 11  # the first had been stopped
    for timer in waits[1:-1]:  # so many that most leave together
        timers.stop(timer)
        assert told[-1] == timers.heap[0][0]
    assert told[-1] > waits[FEW][0]
    timers.stop(waits[-1])
    assert timers.expire(1000) == [] and told[-1] == 0


def test_timers_of_waits_that_ended_do_not_pile_up():
    rt = dgmp.Runtime(procs=1)
    try:
        assert rt.go(many_timeouts, 1000).result(60) <= 2 * FEW + 2
    finally:
        rt.close(cancel=True)


def test_runners_of_sleepers_are_not_kept():
    with dgmp.Runtime(procs=1) as rt:
        chan = rt.chan()
        futures = [rt.go(chan.recv_ok) for _ in range(MOST_RUNNERS + 100)]
        chan.close()
        dgmp.gather(*futures)
        assert rt.go(pooled).result(30) <= MOST_RUNNERS
        assert rt.go(slept, 0.001).result(30) >= 0.001


def pooled():
    from dgmp.api import runtime

    return len(runtime._member.m.runners)


def raise_memory_error_on_waking():
    dgmp.sleep(0.01)
    raise MemoryError("mine")


def test_a_sleeper_that_fails(rt):
    with pytest.raises(MemoryError, match="mine"):
        rt.go(raise_memory_error_on_waking).result(30)


# ---------------------------------------------------------------- after_func
def touch(path, text="x"):
    with open(path, "a") as file:
        file.write(text)


def test_after_func_from_the_client(tmp_path, node):
    path = tmp_path / "called"
    began = time.monotonic()
    timer = dgmp.after_func(0.02, touch, str(path), text="late")
    assert "active" in repr(timer)
    assert eventually(lambda: path.exists() and path.read_text() == "late")
    assert time.monotonic() - began >= 0.02
    assert not timer.stop() and "stopped" in repr(timer)


def after_func_in_a_g(path):
    dgmp.after_func(0.01, touch, path)
    return dgmp.goid()


def test_after_func_from_a_g_that_has_ended(tmp_path, node):
    path = tmp_path / "called"
    dgmp.go(after_func_in_a_g, str(path)).result(30)
    assert eventually(path.exists)


def test_stop_and_reset(tmp_path, node):
    stopped, reset = tmp_path / "stopped", tmp_path / "reset"
    timer = dgmp.after_func(3600, touch, str(stopped))
    assert timer.stop() and not timer.stop()
    timer = dgmp.after_func(3600, touch, str(reset))
    assert timer.reset(0.01)
    assert eventually(reset.exists)
    assert not timer.reset(0.01)  # it has fired: it fires once more
    assert eventually(lambda: reset.read_text() == "xx")
    assert not stopped.exists()


def test_the_timer_thread_ends_with_the_last_timer(node):
    def timer_threads():
        return [thread for thread in threading.enumerate() if thread.name == "dgmp-timers"]

    assert eventually(lambda: not timer_threads())
    timers = [dgmp.after_func(3600, touch, "/nowhere") for _ in range(3)]
    assert len(timer_threads()) == 1
    assert all(timer.stop() for timer in timers)
    assert eventually(lambda: not timer_threads())


def test_a_timer_keeps_no_runtime_open(tmp_path):
    path = tmp_path / "called"
    with dgmp.Runtime(procs=1) as rt:
        rt.go(after_func_far_away, str(path)).result(30)
    assert not path.exists()


def after_func_far_away(path):
    dgmp.after_func(3600, touch, path)


def test_odd_after_funcs(node):
    for args in [(None, touch), ("1", touch), (0.1, "touch")]:
        with pytest.raises(TypeError):
            dgmp.after_func(*args)
    with pytest.raises(ValueError):
        dgmp.after_func(math.nan, touch)
    with pytest.raises(dgmp.EncodingError):
        dgmp.after_func(1, touch, threading.Lock())
    timer = dgmp.after_func(math.inf, touch)
    assert timer.stop()


def test_an_error_of_a_late_call_is_logged(node, caplog):
    dgmp.after_func(0, helpers.fail, "the late call")
    assert eventually(lambda: "fail, called by a timer, failed" in caplog.text)
    assert "ValueError: the late call" in caplog.text
