"""f.cancel() of Gs that are queued, wait for arguments, are parked, or run; what is told, and to whom; dgmp.cancelled()."""

import gc
import threading
import time

import pytest

import dgmp
from tests import helpers


class Never:
    """What a G can wait for, and never comes."""

    _state = 0

    def __init__(self):
        self._then = []


def wait_for_ever(deadline=None, give_up=lambda: True):
    from dgmp.api import runtime

    return runtime._member.park(Never(), deadline, give_up=give_up)


def parked(rt, fn, *args):
    """A G of that call, which has parked."""
    parks = rt.stats()["parks"]
    f = rt.go(fn, *args)
    assert helpers.eventually(lambda: rt.stats()["parks"] > parks)
    return f


def computing(rt, path):
    """A G that has begun, and keeps its M until there is such a file."""
    f = rt.go(helpers.compute_until, path)
    assert helpers.eventually(lambda: any(g.state == "running" and "compute" in g.name for g in rt.snapshot().gs))
    return f


def is_cancelled(f, timeout=20):
    with pytest.raises(dgmp.Cancelled):
        f.result(timeout)
    return f.done() and f.cancelled() and isinstance(f.exception(), dgmp.Cancelled)


def test_a_queued_g_ends_at_once(tmp_path):
    with dgmp.Runtime(procs=1) as rt:
        busy = computing(rt, tmp_path / "gate")
        told = threading.Event()
        queued = rt.go(helpers.kill_self)
        queued.add_done_callback(lambda f: told.set())
        assert not queued.cancelled()
        assert queued.cancel() and queued.done() and queued.cancelled()
        assert told.wait(20)
        assert is_cancelled(queued) and "kill_self was cancelled before it began" in str(queued.exception())
        assert queued.cancel()  # still: as in concurrent.futures
        (tmp_path / "gate").touch()
        assert busy.result(20) and not busy.cancel() and not busy.cancelled()


def test_dependents_of_a_cancelled_g_end_as_cancelled_too(tmp_path):
    with dgmp.Runtime(procs=1) as rt:
        computing(rt, tmp_path / "gate")
        a = rt.go(helpers.identity, 1)
        b = rt.go(helpers.add, a, 1)
        c = rt.go(helpers.add, b, a)
        assert a.cancel()
        late = rt.go(helpers.identity, a)
        assert is_cancelled(a) and is_cancelled(late)
        (tmp_path / "gate").touch()
        assert is_cancelled(b) and is_cancelled(c)  # their M has told them
        assert "argument of" in "".join(c.exception().__notes__) and "identity" in str(b.exception())


def test_one_that_waits_for_its_arguments(tmp_path):
    with dgmp.Runtime(procs=1) as rt:
        a = rt.go(helpers.compute_until, tmp_path / "gate")
        b = rt.go(helpers.kill_self, a)
        c = rt.go(helpers.identity, b)
        assert b.cancel() and b.cancelled() and is_cancelled(c)
        (tmp_path / "gate").touch()
        assert a.result(20) == tmp_path / "gate"
        assert rt.go(helpers.identity, a).result(20) == tmp_path / "gate"  # its result is still there for others
        assert helpers.eventually(lambda: rt.go(dgmp.num_g).result(20) == 1)


def cleans_up(path, again):
    try:
        wait_for_ever()
    finally:
        slept = dgmp.go(helpers.identity, 5).result(20)  # it may wait here
        with open(path, "a") as file:
            file.write(f"{slept} {dgmp.cancelled()}")
        if again:
            wait_for_ever()


def test_a_parked_g_raises_where_it_waits(rt, tmp_path):
    f = parked(rt, cleans_up, tmp_path / "a", False)
    assert not f.done() and f.cancel()
    assert is_cancelled(f) and (tmp_path / "a").read_text() == "5 True"
    assert "wait_for_ever" in str(f.exception().__cause__)  # where that was
    assert f.cancel() and rt.stats()["num_g"] == 0


def test_one_that_waits_in_finally_is_told_again_only_when_asked_again(rt, tmp_path):
    f = parked(rt, cleans_up, tmp_path / "a", True)
    assert f.cancel()
    assert helpers.eventually(lambda: (tmp_path / "a").exists() and (tmp_path / "a").read_text() == "5 True")
    with pytest.raises(TimeoutError):
        f.result(0.05)
    assert not f.cancelled() and f.cancel() and is_cancelled(f)


def goes_on():
    try:
        wait_for_ever()
    except dgmp.Cancelled:
        return dgmp.go(helpers.add, 1, 2).result(20)


def test_one_that_goes_on_has_a_result(rt):
    f = parked(rt, goes_on)
    assert f.cancel() and f.result(20) == 3
    assert not f.cancelled() and not f.cancel()


def swallows_exceptions():
    try:
        wait_for_ever()
    except Exception:
        return "caught"


def test_cancelled_is_no_exception(rt):
    f = parked(rt, swallows_exceptions)
    assert f.cancel() and is_cancelled(f)


def until_cancelled(path):
    path.touch()
    while not dgmp.cancelled():
        pass


def may_not_be_interrupted(path):
    with dgmp.nopreempt():
        until_cancelled(path / "runs")
        (path / "told").touch()


def test_code_that_may_not_be_interrupted_is_told(rt, tmp_path):
    f = rt.go(may_not_be_interrupted, tmp_path)
    assert helpers.eventually((tmp_path / "runs").exists)
    assert f.cancel() and (f.exception(20) is None or f.cancelled()) and (tmp_path / "told").exists()
    assert dgmp.cancelled() is False and rt.go(dgmp.cancelled).result(20) is False


def runs_then_waits(path, wait):
    with dgmp.nopreempt():
        until_cancelled(path / "runs")
        try:
            wait(path / "ends")
        except dgmp.Cancelled:
            wait_in_turn = dgmp.go(helpers.identity, 7).result(20)
            return "told", wait_in_turn, dgmp.cancelled()


def until_exists(path):
    while not path.exists():
        dgmp.gosched()


def wait_for_a_child(path):
    dgmp.go(until_exists, path).result()


def iterate_a_map(path):
    list(dgmp.map(until_exists, [path]))


def give_way(path):
    dgmp.gosched()


def receive(path):
    dgmp.Chan().recv()


def send(path):
    dgmp.Chan().send(1)


def select_(path):
    dgmp.select(dgmp.recv(dgmp.Chan()), dgmp.send(dgmp.Chan(), 1), timeout=1000)


@pytest.mark.parametrize("wait", [wait_for_a_child, give_way, iterate_a_map, receive, send, select_])
def test_the_next_call_that_waits_raises_it(rt, tmp_path, wait):
    f = rt.go(runs_then_waits, tmp_path, wait)
    assert helpers.eventually((tmp_path / "runs").exists)
    assert f.cancel() and f.result(20) == ("told", 7, True)
    (tmp_path / "ends").touch()


@pytest.mark.parametrize("wait", [wait_for_a_child, iterate_a_map, receive, send, select_])
def test_each_call_that_waits_raises_it(rt, tmp_path, wait):
    f = parked(rt, wait, tmp_path / "ends")
    assert f.cancel() and is_cancelled(f)
    (tmp_path / "ends").touch()


def takes_what_has_come(path):
    child = dgmp.go(helpers.identity, 3)
    while not child.done():
        pass
    with pytest.raises(dgmp.Cancelled):
        with dgmp.nopreempt():
            until_cancelled(path)
            got = child.result()  # need not wait
        wait_for_ever()
    return got


def test_a_call_that_need_not_wait_is_served(rt, tmp_path):
    f = rt.go(takes_what_has_come, tmp_path / "runs")
    assert helpers.eventually((tmp_path / "runs").exists)
    assert f.cancel() and f.result(20) == 3


def test_what_has_come_in_this_moment_is_kept(rt):
    """give_up says that it has come: the wait ends with it, and the next one raises."""

    def waits():  # only where it waits
        with dgmp.nopreempt():
            return waits_twice()

    def waits_twice():
        from dgmp.api import runtime

        got = Never()

        def give_up():
            got._state = 1
            return False

        come = runtime._member.park(got, None, give_up=give_up)
        timed = wait_for_ever(time.monotonic_ns(), lambda: False)
        with pytest.raises(dgmp.Cancelled):
            wait_for_ever()
        return come, timed, wait_for_ever(time.monotonic_ns() + 1000)

    f = parked(rt, waits)
    assert f.cancel() and f.result(20) == (True, True, False)


def raises_it_of_another():
    child = dgmp.go(wait_for_ever)
    child.cancel()
    child.result()


def test_the_cancelled_of_another_is_an_error_of_ones_own(rt):
    f = rt.go(raises_it_of_another)
    assert isinstance(f.exception(20), dgmp.Cancelled) and not f.cancelled() and not f.cancel()


def cancels_its_children():
    parked_child, queued = dgmp.go(wait_for_ever), [dgmp.go(helpers.nap, 0) for _ in range(5)]
    dgmp.go(helpers.identity, 0).result(20)
    for f in [parked_child, *queued]:
        f.cancel()
    with pytest.raises(dgmp.Cancelled):
        parked_child.result(20)
    return parked_child.cancelled(), all(type(f.exception(20)) in (dgmp.Cancelled, type(None)) for f in queued)


@pytest.mark.parametrize("procs", [1, 2])
def test_inside_gs(procs):
    with dgmp.Runtime(procs=procs) as rt:
        assert rt.go(cancels_its_children).result(20) == (True, True)


def cancels_from_a_thread():
    child = dgmp.go(wait_for_ever)
    while dgmp.stats()["parks"] < 1 or dgmp.stats()["runqueue"]:
        dgmp.gosched()
    thread = threading.Thread(target=child.cancel)
    thread.start()
    try:
        child.result(20)
    except dgmp.Cancelled:
        thread.join()
        return child.cancelled()


def test_from_a_thread_of_an_m(rt):
    assert rt.go(cancels_from_a_thread).result(20) is True


def wait_or_return(i):
    if i % 3 == 0:
        wait_for_ever()
    if i % 3 == 1:
        dgmp.gosched()
    return i


@pytest.mark.parametrize("round_", range(3))
def test_each_ends_once_whenever_it_is_cancelled(round_):
    with dgmp.Runtime(procs=2) as rt:
        told = []
        fs = [rt.go(wait_or_return, i) for i in range(300)]
        for f in fs:
            f.add_done_callback(told.append)
        for f in reversed(fs) if round_ % 2 else fs:
            f.cancel()
        for i, f in enumerate(fs):
            error = f.exception(20)
            assert f.result() == i if error is None else isinstance(error, dgmp.Cancelled) and f.cancelled()
        assert all(f.cancelled() for f in fs[::3])
        assert helpers.eventually(lambda: len(told) == 300) and len(set(map(id, told))) == 300
        assert rt.main.result(20) is None and rt.stats()["num_g"] == 0


def test_one_whose_m_was_killed_is_not_cancelled(rt):
    import os

    f = parked(rt, wait_for_ever)
    pid = rt.go(os.getpid).result(20)
    for p in {pid, *(p for _, p in rt.node.view.pids())} - {os.getpid(), rt._pid}:
        helpers.kill(p)
    assert isinstance(f.exception(20), dgmp.WorkerDied) and not f.cancelled() and not f.cancel()


def test_after_the_end_of_its_runtime():
    with dgmp.Runtime(procs=1) as rt:
        f = parked(rt, wait_for_ever)
        assert rt.go(helpers.identity, 1).result(20) == 1
        rt.close(cancel=True)
    assert isinstance(f.exception(), dgmp.RuntimeClosed) and not f.cancel() and not f.cancelled()


def holds_a_channel_and_waits(started):
    gc.disable()  # a cycle would keep the channel
    mine = dgmp.Chan()
    started.send(None)
    mine.recv()


def test_a_cancelled_g_drops_its_channels_at_once():
    with dgmp.Runtime(procs=1) as runtime:
        started = dgmp.Chan(runtime=runtime)
        f = runtime.go(holds_a_channel_and_waits, started)
        started.recv(timeout=20)
        assert helpers.eventually(lambda: [g.wait_reason for g in runtime.snapshot().gs] == ["chan receive"])
        f.cancel()
        with pytest.raises(dgmp.Cancelled):
            f.result(timeout=20)
        assert runtime.go(gc.isenabled).result(timeout=20) is False
        del started, f
        assert helpers.eventually(lambda: runtime.stats()["objects"] == 0)
