"""Channels and select: Go's semantics (chan_test.go, test/chan), between Gs, threads and processes."""

import os
import signal
import threading
import time
from collections import Counter

import pytest

import dgmp
from dgmp.api import chan
from tests.helpers import eventually


def live(rt):
    return rt.node.view.objects()


# ---------------------------------------------------------------------- one process
def test_a_buffer_is_a_queue(rt):
    c = rt.chan(3)
    assert (len(c), c.cap, c.closed) == (0, 3, False)
    for i in range(3):
        c.send(i)
    assert len(c) == 3 and not c.try_send(3)
    assert [c.recv() for _ in range(3)] == [0, 1, 2]
    assert c.try_recv() == (None, False)


VALUES = [None, True, False, 0, -1, 2**63 - 1, -2**63, 2**63, 10**40, 1.5, float("inf"), "", "é" * 40, "\ud800", b"",
          b"x" * 500, "y" * 100_000, b"z" * 300_000, (1, "a"), [1, [2]], {"k": {3}}, bytearray(b"abc"), range(4), 1j, int]


@pytest.mark.parametrize("value", VALUES, ids=lambda x: repr(x)[:20])
def test_values_arrive_as_they_were_sent(rt, value):
    c = rt.chan(1)
    c.send(value)
    got = c.recv()
    assert got == value and type(got) is type(value)


def test_subclasses_arrive_as_such(rt):
    c = rt.chan(1)
    for value in (Color(7), Name("x"), Raw(b"y")):
        c.send(value)
        got = c.recv()
        assert got == value and type(got) is type(value)


class Color(int):
    pass


class Name(str):
    pass


class Raw(bytes):
    pass


def test_what_cannot_be_pickled(rt):
    c = rt.chan(1)
    with pytest.raises(dgmp.EncodingError, match="message"):
        c.send(threading.Lock())
    assert len(c) == 0


def test_close(rt):
    c = rt.chan(2)
    c.send("last")
    c.close()
    assert c.closed
    assert c.recv_ok() == ("last", True) and c.recv_ok() == (None, False)
    for do in (c.recv, c.try_recv, lambda: c.send(1), lambda: c.try_send(1), c.close):
        with pytest.raises(dgmp.ChanClosed):
            do()
    assert list(c) == []


def test_timeouts(rt):
    c = rt.chan()
    for do in (lambda t: c.send(1, timeout=t), lambda t: c.recv(timeout=t), lambda t: c.recv_ok(timeout=t)):
        with pytest.raises(TimeoutError):
            do(0.01)
        with pytest.raises(TimeoutError):
            do(0)
        with pytest.raises(TypeError):
            do("1")
        with pytest.raises(ValueError):
            do(float("nan"))
    assert c.try_recv() == (None, False) and not c.try_send(1)  # who gave up is no longer there


def test_arguments(rt):
    with pytest.raises(TypeError):
        rt.chan("1")
    with pytest.raises(ValueError):
        rt.chan(-1)
    with pytest.raises(MemoryError):
        rt.chan(1 << 60)
    assert rt.chan(True).cap == 1


def test_identity_and_repr(rt):
    c, d = rt.chan(), rt.chan(4)
    assert c == c and c != d and len({c, d}) == 2 and c != 1
    d.send(1)
    assert repr(d).endswith("1/4>") and "closed" not in repr(c)
    assert rt.go(identity, c).result() == c
    assert dgmp.Chan[int] is not None


def identity(x):
    return x


# ---------------------------------------------------------------------- Gs
def send_all(c, values, close=False):
    for x in values:
        c.send(x)
    if close:
        c.close()


def receive_all(c):
    return list(c)


@pytest.mark.parametrize("capacity", [0, 1, 10])
def test_between_gs_and_a_client(rt, capacity):
    c = rt.chan(capacity)
    rt.go(send_all, c, range(500), True)
    assert list(c) == list(range(500))
    f = rt.go(receive_all, c := rt.chan(capacity))
    send_all(c, range(500), True)
    assert f.result() == list(range(500))


@pytest.mark.parametrize("capacity", [0, 5])
def test_many_producers_and_consumers(rt, capacity):
    """Go: TestMultiConsumer.  Each value is received once, and those of one producer in order."""
    c = rt.chan(capacity)
    consumers = [rt.go(receive_all, c) for _ in range(5)]
    producers = [rt.go(send_all, c, [(p, i) for i in range(200)]) for p in range(4)]
    dgmp.gather(*producers)
    c.close()
    got = dgmp.gather(*consumers)
    assert Counter(x for part in got for x in part) == Counter((p, i) for p in range(4) for i in range(200))
    for part in got:
        for p in range(4):
            mine = [i for q, i in part if q == p]
            assert mine == sorted(mine)


def relay(source, to):
    for x in source:
        to.send(x + 1)
    to.close()


def test_a_chain_of_gs(rt):
    """Go: test/chan/goroutines.go, perm.go: each G hands on what it gets."""
    first = source = rt.chan()
    for _ in range(100):
        to = rt.chan()
        rt.go(relay, source, to)
        source = to
    first.send(0)
    first.send(10)
    first.close()
    assert list(source) == [100, 110]


def numbers(out, stop):
    i = 2
    while dgmp.select(dgmp.send(out, i), dgmp.recv(stop))[0] == 0:
        i += 1


def keep(source, out, prime, stop):
    while True:
        which, x, _ = dgmp.select(dgmp.recv(source), dgmp.recv(stop))
        if which:
            return
        if x % prime and dgmp.select(dgmp.send(out, x), dgmp.recv(stop))[0]:
            return


def sieve(n):
    stop = dgmp.Chan()
    source = dgmp.Chan()
    dgmp.go(numbers, source, stop)
    found = []
    for _ in range(n):
        prime = source.recv()
        found.append(prime)
        out = dgmp.Chan()
        dgmp.go(keep, source, out, prime, stop)
        source = out
    stop.close()
    return found


def test_prime_sieve(rt):
    """Go: test/chan/sieve1.go, with an end."""
    assert rt.go(sieve, 15).result() == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47]


def wait_in_turn(c, order, i):
    order.send(i)
    return c.recv()


def test_receivers_are_served_in_order_of_arrival(rt):
    c, order = rt.chan(), rt.chan(10)
    gs = []
    for i in range(10):
        gs.append(rt.go(wait_in_turn, c, order, i))
        assert order.recv() == i
        assert eventually(lambda n=i + 1: rt.stats()["parks"] >= n)
    for i in range(10):
        c.send(i)
    assert dgmp.gather(*gs) == list(range(10))


def pong(a, b):
    for x in a:
        b.send(x)


def ping(n):
    a, b = dgmp.Chan(), dgmp.Chan()
    dgmp.go(pong, a, b)
    for i in range(n):
        a.send(i)
        assert b.recv() == i
    a.close()
    return True


def test_ping_pong(rt):
    assert rt.go(ping, 1000).result()
    a, b = rt.chan(), rt.chan()
    rt.go(pong, a, b)
    for i in range(200):
        a.send(i)
        assert b.recv() == i
    a.close()


def count_while(c, done):
    n = 0
    while done.try_recv() == (None, False):
        dgmp.gosched()
        n += 1
        if n == 1:
            c.send(None)
    return n


def test_other_gs_run_beside_ping_pong():
    """Two Gs that ready each other for ever do not starve a third on the same M."""
    with dgmp.Runtime(procs=1) as rt:
        started, done = rt.chan(), rt.chan(1)
        counter = rt.go(count_while, started, done)
        started.recv()
        talkers = rt.go(ping, 3000)
        fresh = rt.go(identity, 5)
        assert fresh.result() == 5
        assert talkers.result()
        done.send(None)
        assert counter.result() > 10


# ---------------------------------------------------------------------- select
def test_select_does_one_of_what_can_go(rt):
    a, b = rt.chan(1), rt.chan(1)
    assert dgmp.select(dgmp.recv(a), dgmp.recv(b), timeout=0) == (-1, None, False)
    b.send("b")
    assert dgmp.select(dgmp.recv(a), dgmp.recv(b)) == (1, "b", True)
    assert dgmp.select(dgmp.recv(b), dgmp.send(a, 5)) == (1, None, True)
    assert a.recv() == 5
    a.close()
    assert dgmp.select(dgmp.recv(a), dgmp.recv(b)) == (0, None, False)
    with pytest.raises(dgmp.ChanClosed):
        dgmp.select(dgmp.send(a, 1), dgmp.recv(b))
    with pytest.raises(TimeoutError):
        b.recv(timeout=0.01)
    assert dgmp.select(dgmp.recv(b), timeout=0.01) == (-1, None, False)


def test_select_arguments(rt):
    c = rt.chan()
    for wrong in (c, 1, (c,)):
        with pytest.raises(TypeError):
            dgmp.select(wrong)
    with pytest.raises(TypeError):
        dgmp.recv(1)
    with dgmp.Runtime(procs=1) as other:
        with pytest.raises(ValueError, match="different runtimes"):
            dgmp.select(dgmp.recv(c), dgmp.recv(other.chan()), timeout=0)


def test_select_is_random_among_the_ready(rt):
    """Go: TestPseudoRandomSend, TestSelectFairness."""
    a, b = rt.chan(2000), rt.chan(2000)
    sent = Counter(dgmp.select(dgmp.send(a, 0), dgmp.send(b, 1))[0] for _ in range(2000))
    assert sent[0] > 800 and sent[1] > 800
    got = Counter(dgmp.select(dgmp.recv(a), dgmp.recv(b))[1] for _ in range(1000))
    assert got[0] > 300 and got[1] > 300


def test_duplicate_channel(rt):
    """Go: TestSelectDuplicateChannel: sudogs of one select in one queue."""
    c, d = rt.chan(), rt.chan()
    gs = [rt.go(select_thrice, c, d) for _ in range(2)]
    assert eventually(lambda: rt.stats()["parks"] >= 2)
    d.send(1)
    c.send(2)
    assert sorted(dgmp.gather(*gs)) == [1, 2]


def select_thrice(c, d):
    return dgmp.select(dgmp.recv(c), dgmp.recv(c), dgmp.recv(d))[1]


def self_select(c, me, n):
    other = []
    for _ in range(n):
        which, x, _ = dgmp.select(dgmp.send(c, me), dgmp.recv(c))
        if which == 1:
            other.append(x)
    return other


@pytest.mark.parametrize("capacity", [0, 10])
def test_self_select(rt, capacity):
    """Go: TestSelfSelect: a select does not receive from itself, unless through the buffer."""
    c = rt.chan(capacity)
    a, b = rt.go(self_select, c, "a", 400), rt.go(self_select, c, "b", 400)
    if capacity == 0:  # one may end first, and leave the other alone
        while not (a.done() and b.done()):
            if dgmp.select(dgmp.recv(c), dgmp.send(c, "client"), timeout=0.05)[0] == -1:
                continue
        assert "a" not in a.result() and "b" not in b.result()
    assert len(a.result()) <= 400 and len(b.result()) <= 400


def stress_sender(cs, n):
    for i in range(n):
        dgmp.select(*[dgmp.send(c, 1) for c in cs[i % 2:]])


def stress_receiver(cs, n):
    return sum(dgmp.select(*[dgmp.recv(c) for c in cs])[1] for _ in range(n))


def test_select_stress(rt):
    """Go: TestSelectStress."""
    cs = [rt.chan(), rt.chan(), rt.chan(2), rt.chan(3)]
    senders = [rt.go(stress_sender, cs, 500) for _ in range(4)]
    receivers = [rt.go(stress_receiver, cs, 500) for _ in range(4)]
    assert sum(dgmp.gather(*receivers)) == 2000
    dgmp.gather(*senders)
    assert all(c.try_recv() == (None, False) for c in cs[:2])


def fill_then_close(c, d):
    c.send(1)
    c.close()
    d.close()


def test_nonblocking_select_race(rt):
    """Go: TestNonblockSelectRace2: a channel that was closed before is seen to be closed."""
    for _ in range(100):
        c, d = rt.chan(1), rt.chan()
        f = rt.go(fill_then_close, c, d)
        d.recv_ok()
        assert dgmp.select(dgmp.recv(c), timeout=0) == (0, 1, True)
        assert dgmp.select(dgmp.recv(c), timeout=0) == (0, None, False)
        f.result()


def test_close_wakes_all(rt):
    c, d = rt.chan(), rt.chan()
    receivers = [rt.go(dgmp.Chan.recv_ok, c) for _ in range(5)]
    selecting = rt.go(select_thrice, c, d)
    assert eventually(lambda: rt.stats()["parks"] >= 6)
    c.close()
    assert dgmp.gather(*receivers) == [(None, False)] * 5 and selecting.result() is None


def try_to_send(c):
    try:
        c.send(1)
        return "sent"
    except dgmp.ChanClosed:
        return "closed"


def test_close_wakes_senders(rt):
    c = rt.chan()
    gs = [rt.go(try_to_send, c) for _ in range(4)]
    assert eventually(lambda: rt.stats()["parks"] >= 4)
    c.close()
    assert dgmp.gather(*gs) == ["closed"] * 4


def test_select_without_cases_waits(rt):
    assert dgmp.select(timeout=0) == (-1, None, False)
    with pytest.raises(TypeError):
        dgmp.select(timeout="x")


# ---------------------------------------------------------------------- timers
def test_after(rt):
    c = dgmp.after(0.01, runtime=rt)
    assert abs(c.recv() - time.time()) < 60
    with pytest.raises(TimeoutError):
        c.recv(timeout=0.01)
    for do in (c.close, lambda: c.send(1), lambda: dgmp.select(dgmp.send(c, 1), timeout=0)):
        with pytest.raises(TypeError):
            do()
    for forever in (3600, float("inf"), 1e300):
        assert dgmp.after(forever, runtime=rt).try_recv() == (None, False)
    with pytest.raises(ValueError):
        dgmp.after(float("nan"), runtime=rt)
    with pytest.raises(TypeError):
        dgmp.after("1", runtime=rt)


def test_tick(rt):
    c = dgmp.tick(0.002, runtime=rt)
    times = [c.recv() for _ in range(5)]
    assert times == sorted(times) and times[-1] - times[0] > 0.006
    for wrong in (0, -1):
        with pytest.raises(ValueError):
            dgmp.tick(wrong, runtime=rt)


def test_after_in_a_loop_leaves_nothing(rt):
    before = live(rt)
    c = rt.chan(1)
    for _ in range(1000):
        c.send(1)
        assert dgmp.select(dgmp.recv(c), dgmp.recv(dgmp.after(10, runtime=rt)))[0] in (0, 1)
    assert live(rt) == before + 1


def wait_with_timer(n):
    quiet = dgmp.Chan()
    return [dgmp.select(dgmp.recv(quiet), dgmp.recv(dgmp.after(0.001)))[0] for _ in range(n)]


def test_timers_in_gs(rt):
    assert dgmp.gather(*[rt.go(wait_with_timer, 5) for _ in range(20)]) == [[1] * 5] * 20


def test_a_channel_that_closes_by_itself(rt):
    from dgmp.api import chan

    c = chan.closes_at(rt.node, time.monotonic_ns() + 5_000_000)
    waiting = rt.go(dgmp.Chan.recv_ok, c)
    assert c.recv_ok() == (None, False) and waiting.result() == (None, False) and c.closed
    never = chan.closes_at(rt.node, None)
    assert not never.closed
    never.close()
    assert never.recv_ok() == (None, False)


# ---------------------------------------------------------------------- threads, interrupts, ends
def test_threads_of_the_client(rt):
    c, got = rt.chan(), []
    threads = [threading.Thread(target=lambda: got.append(c.recv())) for _ in range(4)]
    for t in threads:
        t.start()
    for i in range(4):
        c.send(i)
    for t in threads:
        t.join()
    assert sorted(got) == [0, 1, 2, 3]


def from_threads(c, n):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(3) as pool:
        done = [pool.submit(c.send, i) for i in range(n)]
        got = sorted(c.recv() for _ in range(n))
        return got == list(range(n)) and all(f.result() is None for f in done)


def test_threads_of_an_m(rt):
    assert rt.go(from_threads, rt.chan(), 20).result()


def test_ctrl_c_ends_a_wait(rt):
    c = rt.chan()
    timer = threading.Timer(0.1, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        timer.start()
        c.recv(timeout=20)
    timer.join()
    assert not c.try_send(1)


def test_the_end_of_the_runtime_ends_waits():
    rt = dgmp.Runtime(procs=1)
    c, errors = rt.chan(), []

    def wait():
        try:
            c.recv()
        except dgmp.DgmpError as e:
            errors.append(type(e))

    t = threading.Thread(target=wait)
    t.start()
    rt.close(cancel=True)
    t.join(20)
    assert errors == [dgmp.RuntimeClosed]
    with pytest.raises(dgmp.RuntimeClosed):
        c.send(1)
    assert "ended" in repr(c)


def test_a_dead_coordinator_ends_waits():
    with dgmp.Runtime(procs=1) as rt:
        c = rt.chan()
        rt.go(identity, 1).result()
        threading.Timer(0.05, os.kill, (rt._pid, signal.SIGKILL)).start()
        with pytest.raises(dgmp.CoordinatorDied):
            c.recv(timeout=20)


# ---------------------------------------------------------------------- channels travel
def reply(requests):
    for x, to in requests:
        to.send(x * 2)


def test_a_channel_in_a_message(rt):
    requests = rt.chan()
    server = rt.go(reply, requests)
    for i in range(50):
        to = rt.chan()
        requests.send((i, to))
        assert to.recv() == 2 * i
    requests.close()
    server.result()


def make_chan(x):
    c = dgmp.Chan(1)
    c.send(x)
    return c


def fail_with(c):
    raise ValueError(c)


def test_a_channel_in_a_result_an_error_and_a_closure(rt):
    assert rt.go(make_chan, 5).result().recv() == 5
    c = rt.chan(5)
    with pytest.raises(ValueError) as caught:
        rt.go(fail_with, c).result()
    assert caught.value.args == (c,)
    for i in range(4):
        rt.go(lambda i=i: c.send(i)).result()
    assert [c.recv() for _ in range(4)] == [0, 1, 2, 3]
    assert [d.recv() for d in rt.map(make_chan, range(20))] == list(range(20))
    assert list(rt.map(lambda x: c.try_send(x), range(3))) == [True] * 3


def test_a_channel_beside_a_large_buffer(rt):
    np = pytest.importorskip("numpy")
    c = rt.chan(1)
    array = np.arange(100_000)
    _, d = rt.go(identity, (array, c)).result()
    d.send((array, d))
    back, e = c.recv()
    assert (back == array).all() and e == c


def test_a_channel_is_no_member_of_another_runtime(rt):
    with dgmp.Runtime(procs=1) as other:
        c = other.chan()
        with pytest.raises(dgmp.EncodingError, match="belongs to a runtime"):
            rt.go(identity, c).result()


def test_channels_end_when_nobody_refers_to_them(rt):
    base = live(rt)
    c = rt.chan(10)
    assert rt.go(identity, c).result() == c
    for _ in range(5):
        c.send(rt.chan(10))  # only in the buffer
    assert eventually(lambda: live(rt) == base + 6)
    inner = c.recv()
    inner.send("still here")
    del c
    assert eventually(lambda: live(rt) == base + 1)
    assert inner.recv() == "still here"
    inner.send(inner)  # in its own buffer
    del inner
    assert eventually(lambda: live(rt) == base)


def test_a_result_that_nobody_has_looked_at_keeps_its_channels(rt):
    base = live(rt)
    f = rt.go(make_chan, 5)
    assert eventually(f.done)
    rt.go(make_chan, 5).result()
    assert eventually(lambda: live(rt) == base + 1)
    assert f.result().recv() == 5
    del f
    assert eventually(lambda: live(rt) == base)


def hold_and_wait(c, gate):
    mine = dgmp.Chan(1)
    c.send((os.getpid(), mine))
    gate.recv()


def test_channels_end_when_their_holders_are_killed(rt):
    base = live(rt)
    c, gate = rt.chan(1), rt.chan()
    f = rt.go(hold_and_wait, c, gate)
    pid, theirs = c.recv()
    assert live(rt) == base + 3
    del theirs, gate
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(dgmp.WorkerDied):
        f.result()
    assert eventually(lambda: live(rt) == base + 1)


def wait_at(c, told):
    told.send(os.getpid())
    return c.recv()


def test_a_killed_waiter_gets_nothing(rt):
    c, told = rt.chan(), rt.chan()
    f = rt.go(wait_at, c, told)
    os.kill(told.recv(), signal.SIGKILL)
    with pytest.raises(dgmp.WorkerDied):
        f.result()
    assert eventually(lambda: not c.try_send(1))
    g = rt.go(identity, 3)
    assert g.result() == 3


def talk_for_ever(a, b, told):
    told.send(os.getpid())
    i = 0
    while True:
        i += 1
        dgmp.select(dgmp.send(a, b"x" * (i % 300)), dgmp.recv(b), dgmp.recv(a), dgmp.send(b, i))


def test_killed_talkers_leave_the_channels_usable(rt):
    """Killed at any instruction, with the channels' locks or without."""
    a, b, told = rt.chan(), rt.chan(2), rt.chan(10)
    for _ in range(12):
        gs = [rt.go(talk_for_ever, a, b, told) for _ in range(2)]
        pids = {told.recv(), told.recv()}
        for _ in range(3):
            dgmp.select(dgmp.recv(a), dgmp.send(b, 0), timeout=0.01)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for g in gs:
            with pytest.raises(dgmp.WorkerDied):
                g.result()
    while b.try_recv()[1] or a.try_recv()[1]:
        pass
    assert b.try_send(1) and b.try_send(2) and not b.try_send(3) and not a.try_send(1)
    assert b.recv() == 1


def test_many_parked_gs(rt):
    c, gate = rt.chan(), rt.chan()
    gs = [rt.go(dgmp.Chan.recv_ok, gate) for _ in range(500)]
    assert eventually(lambda: rt.stats()["parks"] >= 500)
    gate.close()
    assert dgmp.gather(*gs) == [(None, False)] * 500
    assert c.cap == 0


def test_cancelling_a_g_that_waits_at_a_channel(rt):
    c = rt.chan()
    gs = [rt.go(dgmp.Chan.recv, c), rt.go(dgmp.Chan.send, c, 1, 60), rt.go(select_thrice, c, rt.chan())]
    gs[1].cancel()
    for g in gs:
        g.cancel()
        with pytest.raises(dgmp.Cancelled):
            g.result()
    assert not c.try_send(1) and c.try_recv() == (None, False)


def echo_once(c, flag):
    flag.send(c.recv())


def send_and_spin(c, flag):
    f = dgmp.go(echo_once, c, flag)
    while not c.try_send(7):
        dgmp.gosched()
    while not len(flag):
        pass
    return f.result(), flag.recv()


def test_a_g_that_computes_is_preempted_for_one_that_it_has_readied():
    with dgmp.Runtime(procs=1) as rt:
        assert rt.go(send_and_spin, rt.chan(), rt.chan(1)).result() == (None, 7)


def test_timeouts_say_what_did_not_happen(rt):
    c = dgmp.Chan(runtime=rt)
    with pytest.raises(TimeoutError, match="the value could not be sent within 0.001 s"):
        c.send(1, timeout=0.001)
    with pytest.raises(TimeoutError, match="nothing came within 0.001 s"):
        c.recv(timeout=0.001)


def test_a_tick_begins_when_its_runtime_is_there(rt, monkeypatch):
    """Booting the embedded one takes longer than many a period."""
    order = []
    monkeypatch.setattr(chan.runtimes, "node_in", lambda runtime: order.append("node") or rt.node)
    due_in = chan.due_in
    monkeypatch.setattr(chan, "due_in", lambda seconds: order.append("due") or due_in(seconds))
    dgmp.tick(1)
    assert order == ["node", "due"]


@pytest.mark.parametrize("make", [dgmp.Chan, dgmp.Mutex, dgmp.Context, lambda runtime: dgmp.after(1, runtime=runtime),
                                  lambda runtime: dgmp.Group(runtime).__enter__()])
def test_what_is_no_runtime(make):
    with pytest.raises(TypeError, match="runtime must be a dgmp.Runtime, not str"):
        make(runtime="x")


def test_a_coroutine_is_no_function(rt):
    async def f():
        pass

    coroutine = f()
    with pytest.raises(TypeError, match=r"say go\(fn, ...\), not go\(fn\(...\)\)"):
        rt.go(coroutine)
    coroutine.close()


def test_what_cannot_be_sent_is_named(rt):
    with open(os.devnull) as file, pytest.raises(dgmp.EncodingError, match=r"message\[1\] is an open file .* pass its path"):
        dgmp.Chan(1, runtime=rt).send([0, file])
