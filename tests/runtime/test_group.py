"""Group: waits for its Gs, cancels at the first error, what it raises; from clients and in Gs, nested."""

import gc
import os
import pickle
import signal
import threading
import time

import pytest

import dgmp
from tests import helpers
from tests.runtime.test_cancel import is_cancelled, wait_for_ever


def test_it_waits_for_all(rt):
    with dgmp.Group(rt) as g:
        fs = [g.go(helpers.nap, 0.01 * (i % 3)) for i in range(20)]
        f = g.spawn(int, ("ff",), {"base": 16}, name="parse")
        assert "open" in repr(g)
    assert all(f.done() for f in fs) and f.result() == 255 and f.name == "parse"
    assert "closed, 0 Gs" in repr(g)


def test_it_cancels_the_rest_at_the_first_error(rt, tmp_path):
    with pytest.raises(ExceptionGroup, match="1 error in a dgmp.Group") as caught:
        with dgmp.Group(rt) as g:
            waits = [g.go(wait_for_ever) for _ in range(5)]
            fails = g.go(fail_when, tmp_path / "now")
            queued = [g.go(wait_for_ever) for _ in range(5)]
            (tmp_path / "now").touch()
    assert [str(e) for e in caught.value.exceptions] == ["outer"] and caught.value.exceptions[0] is fails.exception()
    assert all(is_cancelled(f) for f in waits + queued)
    assert caught.value.__context__ is None and caught.value.__cause__ is None


def fail_when_told(text):
    try:
        wait_for_ever()
    finally:
        raise KeyError(text)


def test_all_errors_are_in_the_group_and_none_that_was_cancelled():
    with dgmp.Runtime(procs=2) as rt:
        with pytest.raises(ExceptionGroup) as caught:
            with dgmp.Group(rt) as g:
                two = [g.go(fail_when_told, "a"), g.go(fail_when_told, "b")]
                assert helpers.eventually(lambda: sum(x.state == "waiting" for x in rt.snapshot().gs) == 2)
                g.go(wait_for_ever)
                g.go(helpers.fail, "first")
        assert [type(e) for e in caught.value.exceptions] == [ValueError, KeyError, KeyError]
        assert all(isinstance(f.exception(), KeyError) and not f.cancelled() for f in two)


def test_the_exception_of_the_block_cancels_all_and_is_raised(rt):
    error = LookupError("mine")
    with pytest.raises(LookupError) as caught:
        with dgmp.Group(rt) as g:
            f = g.go(wait_for_ever)
            raise error
    assert caught.value is error and is_cancelled(f)


def test_with_those_of_gs_in_a_group(rt):
    with pytest.raises(ExceptionGroup) as caught:
        with dgmp.Group(rt) as g:
            f = g.go(helpers.fail, "theirs")
            f.exception(20)
            raise LookupError("mine")
    assert [str(e) for e in caught.value.exceptions] == ["mine", "theirs"]


def test_an_interrupt_of_the_block_stays_alone(rt):
    with pytest.raises(KeyboardInterrupt):
        with dgmp.Group(rt) as g:
            g.go(helpers.fail, "theirs").exception(20)
            f = g.go(wait_for_ever) if not g._gs.stopped else None
            raise KeyboardInterrupt
    assert f is None or is_cancelled(f)


def test_go_raises_once_the_group_is_cancelled(rt):
    begun = []
    with pytest.raises(ExceptionGroup) as caught:
        with dgmp.Group(rt) as g:
            g.go(helpers.fail, "x").exception(20)
            begun.append(1)
            g.go(helpers.identity, 1)
            begun.append(2)
    assert [str(e) for e in caught.value.exceptions] == ["x"] and begun == [1]


def test_cancelled_by_the_block(rt):
    with dgmp.Group(rt) as g:
        f = g.go(wait_for_ever)
        g.cancel()
        g.cancel()
        g.go(helpers.identity, 1)
        raise AssertionError("not reached")
    assert is_cancelled(f)
    g.cancel()


def test_one_cancelled_by_hand_is_no_error(rt):
    with dgmp.Group(rt) as g:
        f, other = g.go(wait_for_ever), g.go(helpers.identity, 5)
        assert f.cancel()
    assert is_cancelled(f) and other.result() == 5


def test_a_killed_m_is_an_error(rt):
    with pytest.raises(ExceptionGroup) as caught:
        with dgmp.Group(rt) as g:
            g.go(helpers.kill_self)
    assert [type(e) for e in caught.value.exceptions] == [dgmp.WorkerDied]


def exits():
    raise SystemExit(3)


def test_an_exit_in_a_g_does_not_exit_here(rt):
    with pytest.raises(BaseExceptionGroup) as caught:
        with dgmp.Group(rt) as g:
            g.go(exits)
    assert not isinstance(caught.value, ExceptionGroup) and caught.value.exceptions[0].code == 3


def test_a_failed_argument(rt):
    bad = rt.go(helpers.fail, "argument")
    bad.exception(20)
    with pytest.raises(ExceptionGroup) as caught:
        with dgmp.Group(rt) as g:
            f = g.go(helpers.identity, bad)
    assert str(caught.value.exceptions[0]) == "argument" and f.done()


def test_misuse(rt):
    g = dgmp.Group(rt)
    with pytest.raises(RuntimeError, match="new"):
        g.go(helpers.identity, 1)
    with g:
        with pytest.raises(TypeError):
            pickle.dumps(g)
    with pytest.raises(RuntimeError, match="closed"):
        g.go(helpers.identity, 1)
    with pytest.raises(RuntimeError, match="once"):
        with g:
            pass


def test_an_interrupted_wait_cancels_and_waits_on(rt):
    """Ctrl-C while the block waits at its end."""

    def interrupt():
        helpers.eventually(lambda: g._state == "ending")
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    with pytest.raises(KeyboardInterrupt):
        with dgmp.Group(rt) as g:
            f = g.go(wait_for_ever)
            thread.start()
    thread.join()
    assert f.cancelled()


def test_the_runtime_ends_meanwhile():
    with dgmp.Runtime(procs=1) as rt:
        closer = threading.Thread(target=rt.close, args=(True,))
        with pytest.raises(ExceptionGroup) as caught:
            with dgmp.Group(rt) as g:
                g.go(wait_for_ever)
                closer.start()
        closer.join()
        assert [type(e) for e in caught.value.exceptions] == [dgmp.RuntimeClosed]


def wait_on_chan(rt):
    dgmp.Chan(runtime=rt).recv()


def wait_on_select(rt):
    dgmp.select(dgmp.recv(dgmp.Chan(runtime=rt)), dgmp.send(dgmp.Chan(runtime=rt), 1))


def wait_on_mutex(rt):
    mutex = dgmp.Mutex(runtime=rt)
    with mutex:
        mutex.lock()


def wait_on_future(rt):
    f = rt.go(wait_for_ever)
    try:
        f.result()
    finally:
        f.cancel()


@pytest.mark.parametrize("wait", [wait_on_chan, wait_on_select, wait_on_mutex, wait_on_future])
def test_a_thread_that_waits_in_the_block_is_told(rt, wait):
    seen = []
    with pytest.raises(ExceptionGroup) as caught:
        with dgmp.Group(rt) as g:
            g.go(helpers.fail, "x")
            try:
                wait(rt)
            except dgmp.Cancelled:
                seen.append(g._gs.stopped)
                raise
    assert [str(e) for e in caught.value.exceptions] == ["x"] and seen == [True]
    assert not rt.node.stops and rt.go(helpers.identity, 1).result(20) == 1


# ---------------------------------------------------------------------- inside Gs
def group_in_a_g(n):
    with dgmp.Group() as g:
        fs = [g.go(helpers.add, i, 1) for i in range(n)]
    return [f.result() for f in fs]


@pytest.mark.parametrize("procs", [1, 2])
def test_in_a_g(procs):
    with dgmp.Runtime(procs=procs) as rt:
        assert rt.go(group_in_a_g, 50).result(20) == list(range(1, 51))


def block_waits():
    after = []
    try:
        with dgmp.Group() as g:
            g.go(helpers.fail, "x")
            try:
                wait_for_ever()
            except dgmp.Cancelled:
                after.append(dgmp.cancelled())
                raise
    except* ValueError as e:
        after.append(len(e.exceptions))
    dgmp.go(helpers.identity, 1).result()  # it can wait again
    dgmp.gosched()
    return after


@pytest.mark.parametrize("procs", [1, 2])
def test_a_block_that_waits_is_cancelled(procs):
    with dgmp.Runtime(procs=procs) as rt:
        f = rt.go(block_waits)
        assert f.result(20) == [False, 1] and not f.cancelled()


def block_is_cancelled_by_itself():
    with dgmp.Group() as g:
        f = g.go(wait_for_ever)
        g.cancel()
        wait_for_ever()
    dgmp.gosched()
    return f.cancelled()


def test_a_block_that_cancels_itself(rt):
    assert rt.go(block_is_cancelled_by_itself).result(20) is True


def waits_at_the_end(path):
    with dgmp.Group() as g:
        g.go(leave_a_note, path)
        g.go(wait_for_ever)


def leave_a_note(path):
    path.touch()
    try:
        wait_for_ever()
    finally:
        dgmp.gosched()
        path.unlink()


def test_a_g_that_is_cancelled_at_the_end_cancels_its_own(rt, tmp_path):
    f = rt.go(waits_at_the_end, tmp_path / "note")
    assert helpers.eventually((tmp_path / "note").exists)
    assert f.cancel() and is_cancelled(f)
    assert not (tmp_path / "note").exists() and rt.stats()["num_g"] == 0


def nested(path):
    try:
        with dgmp.Group() as outer:
            outer.go(fail_when, path)
            with dgmp.Group() as inner:
                inner.go(leave_a_note, path)
    except ExceptionGroup as e:
        return [str(x) for x in e.exceptions], path.exists()


def fail_when(path):
    while not path.exists():
        dgmp.gosched()
    raise ValueError("outer")


def test_an_error_outside_cancels_the_block_inside(rt, tmp_path):
    assert rt.go(nested, tmp_path / "note").result(20) == (["outer"], False)


def nested_client_like(levels):
    with dgmp.Group() as g:
        if levels:
            g.go(nested_client_like, levels - 1)
            g.go(wait_for_ever)
        else:
            g.go(helpers.fail, "deep")


def test_errors_come_up_through_the_levels(rt):
    with pytest.raises(ExceptionGroup) as caught:
        with dgmp.Group(rt) as g:
            g.go(nested_client_like, 3)
    error, depth = caught.value, 0
    while isinstance(error, ExceptionGroup):
        (error,), depth = error.exceptions, depth + 1
    assert str(error) == "deep" and depth == 5


@pytest.mark.parametrize("round_", range(5))
def test_whenever_it_fails_all_end(round_):
    with dgmp.Runtime(procs=2) as rt:
        with pytest.raises(ExceptionGroup):
            with dgmp.Group(rt) as g:
                for i in range(200):
                    g.go(helpers.fail if i == 20 * round_ else wait_for_ever if i % 5 == 0 else helpers.identity,
                         *([] if i % 5 == 0 and i != 20 * round_ else [i]))
        assert rt.main.result(20) is None and rt.stats()["num_g"] == 0


def receive_for_ever():
    dgmp.Chan().recv()


def test_a_group_that_failed_keeps_no_channel():
    def run_one():
        with pytest.raises(ExceptionGroup), dgmp.Group() as group:
            group.go(receive_for_ever)
            group.go(int, "x")
            dgmp.Chan().recv()
        return gc.isenabled()

    with dgmp.Runtime(procs=1) as runtime:
        runtime.go(gc.disable).result(timeout=20)  # a cycle would keep the channels
        assert runtime.go(run_one).result(timeout=20) is False
        assert helpers.eventually(lambda: runtime.stats()["objects"] == 0)


def test_a_group_that_was_cancelled_keeps_no_channel():
    def wait(begun):
        with dgmp.Group() as group:
            group.go(receive_for_ever)
            begun.send(gc.isenabled())

    with dgmp.Runtime(procs=1) as runtime:
        runtime.go(gc.disable).result(timeout=20)
        begun = runtime.chan()
        f = runtime.go(wait, begun)
        assert begun.recv(timeout=20) is False
        f.cancel()
        assert type(f.exception(timeout=20)) is dgmp.Cancelled
        del begun, f
        assert helpers.eventually(lambda: runtime.stats()["objects"] == 0)


def deaf(begun):
    begun.send(None)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGURG])
    time.sleep(60)


def test_one_whose_m_is_killed_as_it_does_not_end_was_cancelled():
    """Found by `make chaos SEED=10013`: it counted as one more error."""
    with dgmp.Runtime(procs=2, grace=0.1) as rt:
        begun = rt.chan()
        with pytest.raises(ExceptionGroup) as caught, dgmp.Group(rt) as g:
            f = g.go(deaf, begun)
            begun.recv(timeout=20)
            g.go(int, "x")
        assert [type(e) for e in caught.value.exceptions] == [ValueError] and f.cancelled()
