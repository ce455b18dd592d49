"""Context: deadline and cancellation, inherited by children, seen from Gs and threads, in select."""

import gc
import math
import pickle
import threading
import time

import pytest

import dgmp
from tests import helpers
from tests.runtime.test_cancel import is_cancelled, parked


def test_cancel(rt):
    ctx = dgmp.Context(runtime=rt)
    assert not ctx.cancelled() and ctx.err() is None and ctx.deadline is None and "not done" in repr(ctx)
    assert not ctx.done().closed and ctx.done().try_recv() == (None, False)
    ctx.cancel()
    ctx.cancel("too late to say why")
    assert ctx.cancelled() and ctx.done().closed and repr(ctx) == "<dgmp.Context done>"
    error = ctx.err()
    assert type(error) is dgmp.Cancelled and error.__cause__ is None
    assert ctx.done().recv_ok() == (None, False) and list(ctx.done()) == []
    with pytest.raises(dgmp.ChanClosed):
        ctx.done().recv()
    with pytest.raises(dgmp.ChanClosed):
        ctx.done().try_recv()


def test_the_cause_is_seen_everywhere(rt):
    ctx = dgmp.Context(runtime=rt)
    child = dgmp.Context(ctx)
    rt.go(dgmp.Context.cancel, ctx, ValueError("no more")).result(20)
    for _ in range(2):
        for c in (ctx, child):
            cause = c.err().__cause__
            assert type(cause) is ValueError and str(cause) == "no more"
    assert rt.go(lambda: str(ctx.err().__cause__)).result(20) == "no more"
    other = dgmp.Context(runtime=rt)
    other.cancel("shutting down")
    assert str(other.err().__cause__) == "shutting down" and rt.go(lambda: str(other.err().__cause__)).result(20)
    large = dgmp.Context(runtime=rt)
    large.cancel(KeyError("x" * 5000))
    assert large.err().__cause__.args == ("x" * 5000,)


def test_children_inherit_and_parents_do_not(rt):
    root = dgmp.Context(runtime=rt)
    a, b = dgmp.Context(root), dgmp.Context(root)
    aa = dgmp.Context(a)
    a.cancel()
    assert [c.cancelled() for c in (root, a, aa, b)] == [False, True, True, False]
    assert dgmp.Context(aa).cancelled() and aa.done().closed and not b.done().closed
    root.cancel()
    assert b.cancelled()


def test_deadlines(rt):
    now = time.monotonic()
    ctx = dgmp.Context(timeout=60, runtime=rt)
    assert now + 60 <= ctx.deadline <= time.monotonic() + 60 and "to its deadline" in repr(ctx)
    assert dgmp.Context(ctx, timeout=3600).deadline == ctx.deadline == dgmp.Context(ctx).deadline
    assert dgmp.Context(ctx, timeout=1).deadline < ctx.deadline
    assert abs(dgmp.Context(ctx, deadline=now + 5).deadline - now - 5) < 1e-6
    assert dgmp.Context(timeout=5, deadline=now + 3600, runtime=rt).deadline < now + 60
    for over in (dgmp.Context(timeout=0, runtime=rt), dgmp.Context(timeout=-1, runtime=rt),
                 dgmp.Context(deadline=now - 1, runtime=rt), dgmp.Context(deadline=-math.inf, runtime=rt)):
        assert over.cancelled() and type(over.err()) is TimeoutError
    for never in (dgmp.Context(timeout=math.inf, runtime=rt), dgmp.Context(deadline=math.inf, runtime=rt)):
        assert never.deadline is None and not never.cancelled()
    soon = dgmp.Context(timeout=0.02, runtime=rt)
    child = dgmp.Context(soon)
    assert child.done().recv_ok(timeout=20) == (None, False)
    assert soon.cancelled() and type(child.err()) is TimeoutError
    soon.cancel("late")
    assert type(soon.err()) is TimeoutError


def test_misuse(rt):
    ctx = dgmp.Context(runtime=rt)
    for wrong in ({"timeout": "1"}, {"deadline": "1"}, {"parent": rt}):
        with pytest.raises(TypeError):
            dgmp.Context(**wrong)
    for wrong in ({"timeout": math.nan}, {"deadline": math.nan}):
        with pytest.raises(ValueError):
            dgmp.Context(runtime=rt, **wrong)
    with pytest.raises(TypeError, match="cause"):
        ctx.cancel(5)
    for use in (lambda: ctx.done().send(1), lambda: ctx.done().try_send(1), lambda: ctx.done().close()):
        with pytest.raises(TypeError):
            use()
    assert not ctx.cancelled()


def test_with(rt):
    with pytest.raises(KeyError):
        with dgmp.Context(runtime=rt) as ctx:
            raise KeyError
    assert ctx.cancelled()


def until_done(ctx):
    n = 0
    while not ctx.cancelled():
        n += 1
    return type(ctx.err()).__name__


def test_running_code_asks(rt):
    ctx = dgmp.Context(runtime=rt)
    f = rt.go(until_done, dgmp.Context(dgmp.Context(ctx)))
    ctx.cancel()
    assert f.result(20) == "Cancelled"
    assert rt.go(until_done, dgmp.Context(timeout=0.02, runtime=rt)).result(20) == "TimeoutError"


def select_done(ctx, jobs):
    seen = []
    while True:
        i, value, ok = dgmp.select(dgmp.recv(jobs), dgmp.recv(ctx.done()), dgmp.recv(dgmp.Context(ctx).done()))
        if i:
            return seen, i in (1, 2), value, ok
        seen.append(value)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_select_in_gs(rt, depth):
    root = ctx = dgmp.Context(runtime=rt)
    for _ in range(depth):
        ctx = dgmp.Context(ctx)
    jobs = dgmp.Chan(runtime=rt)
    f = rt.go(select_done, ctx, jobs)
    for i in range(3):
        jobs.send(i, timeout=20)
    root.cancel()
    assert f.result(20) == ([0, 1, 2], True, None, False)


def test_select_in_a_thread(rt):
    root = dgmp.Context(runtime=rt)
    ctx, never = dgmp.Context(root), dgmp.Chan(runtime=rt)
    assert dgmp.select(dgmp.recv(ctx.done()), timeout=0)[0] == -1
    got = []
    cases = dgmp.recv(never), dgmp.send(never, 1), dgmp.recv(ctx.done())
    thread = threading.Thread(target=lambda: got.append(dgmp.select(*cases)))
    thread.start()
    root.cancel()
    thread.join(20)
    assert got == [(2, None, False)]


def wait_done(ctx):
    return ctx.done().recv_ok()


def test_a_parked_g_goes_on_at_the_deadline_of_an_ancestor(rt):
    root = dgmp.Context(timeout=0.1, runtime=rt)
    assert rt.go(wait_done, dgmp.Context(dgmp.Context(root), timeout=60)).result(20) == (None, False)


def test_a_g_that_waits_for_it_can_be_cancelled(rt):
    f = parked(rt, wait_done, dgmp.Context(dgmp.Context(runtime=rt)))
    assert f.cancel() and is_cancelled(f)


def test_it_travels(rt):
    ctx = dgmp.Context(timeout=60, runtime=rt)
    child = rt.go(dgmp.Context, ctx).result(20)  # made in a G
    assert abs(child.deadline - ctx.deadline) < 1e-6 and not child.cancelled()
    box = dgmp.Chan(1, runtime=rt)
    box.send({"ctx": child})
    arrived = box.recv(timeout=20)["ctx"]
    done = rt.go(lambda: arrived.done()).result(20)
    ctx.cancel()
    assert arrived.cancelled() and child.cancelled() and done.closed


def test_what_nobody_has_is_freed(rt):
    import dgmp._core as core

    objects = rt.node.view.objects
    assert isinstance(rt.node.view, core.View)
    before = objects()
    ctx = dgmp.Context(runtime=rt)
    assert rt.go(until_done_or_not, ctx).result(20) is False
    child = dgmp.Context(ctx)
    assert objects() == before + 4
    del ctx
    assert not child.cancelled()  # it holds its ancestors' channels
    del child
    gc.collect()
    assert helpers.eventually(lambda: objects() == before)


def until_done_or_not(ctx):
    return ctx.cancelled()


def test_pickle_outside_of_its_runtime():
    with dgmp.Runtime(procs=1) as rt:
        data = pickle.dumps(dgmp.Context(runtime=rt))
    with pytest.raises(LookupError):
        pickle.loads(data)
