"""A runtime that is full: of Gs, of payloads, of functions, of channels and of those that wait.  Client threads wait and
collect meanwhile; Gs are told; nothing hangs, and nothing is lost.  The segments are small."""

import os
import re
import subprocess
import threading

import pytest

import dgmp
from dgmp.runtime import boot
from tests import helpers, share
from tests.helpers import eventually

SLOTS = 256
HEAP = 16 << 20


@pytest.fixture
def small(monkeypatch):
    """A runtime of few slots and little memory, which at the end is as it was, and works."""
    monkeypatch.setattr(boot, "NSLOTS", SLOTS)
    monkeypatch.setattr(boot, "HEAP", HEAP)
    with dgmp.Runtime(procs=2) as rt:
        assert rt.node.view.nslots == SLOTS and rt.node.view.heap_size == HEAP
        rt.main.result(20)
        yield rt
        assert eventually(lambda: rt.node.collect() or rt.stats()["num_g"] == 0) and rt.stats()["throws"] == 0
        assert [f.result(20) for f in [rt.go(helpers.identity, i) for i in range(2 * SLOTS)]] == list(range(2 * SLOTS))


# ------------------------------------------------------------------ slots
def test_the_program_waits_for_slots(small):
    futures = [small.go(helpers.identity, i) for i in range(20 * SLOTS)]
    assert [f.result(20) for f in futures] == list(range(20 * SLOTS))


def test_its_threads_do_too(small):
    sums = []

    def work():
        sums.append(sum(f.result(60) for f in [small.go(helpers.identity, i) for i in range(4 * SLOTS)]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == [sum(range(4 * SLOTS))] * 4


def test_gs_are_told(small):
    c = small.chan()
    text, n = small.go(share.fill, c).result(60)
    assert text == f"all {SLOTS} slots of the runtime are taken; wait for some Gs before spawning more"
    assert SLOTS - 40 < n < SLOTS  # but for those that processes keep for themselves
    c.close()


def test_gs_find_slots_that_the_program_has_had(small):
    """A process keeps few of those that are free."""
    assert len([f.result(20) for f in [small.go(helpers.identity, i) for i in range(4 * SLOTS)]]) == 4 * SLOTS
    c = small.chan()
    assert small.go(share.fill, c).result(60)[1] > SLOTS // 2
    c.close()


def test_threads_of_an_m_wait(small):
    assert small.go(share.spawn_in_a_thread, 4 * SLOTS).result(60) == 4 * SLOTS


def test_recursion_that_is_too_deep_ends(small):
    """Each G waits for the next: in the end one is told, and so are all."""
    with pytest.raises(dgmp.TooManyGs):
        small.go(share.nest, 10 * SLOTS).result(60)
    assert small.go(share.nest, 10).result(60) == 10


def test_maps_wait(small):
    assert list(small.map(helpers.identity, range(20 * SLOTS), chunksize=1)) == list(range(20 * SLOTS))


PROGRAM = """
import dgmp
from dgmp.runtime import boot
boot.NSLOTS = 1024
with dgmp.Runtime(procs=2) as rt:
    c, futures = rt.chan(), []
    try:
        for _ in range(%d):
            futures.append(rt.go(c.recv))
    except dgmp.Deadlock as e:
        print("told", *e.__notes__)
    for i in range(len(futures)):
        c.send(i)
    print(len(futures), sorted(f.result(20) for f in futures) == list(range(len(futures))))
"""


def run(program):
    """On its own: where there are signal handlers something might come."""
    done = subprocess.run([helpers.PYTHON, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.stdout


def test_a_program_that_fills_the_slots_with_gs_that_wait_for_it_may_go_on():
    """Three quarters of the slots are its quota; when all Gs wait the rest is, too."""
    assert run(PROGRAM % 1000) == "1000 True\n"


def test_one_that_needs_more_is_told_of_the_deadlock():
    told, went_on = run(PROGRAM % 2000).splitlines()
    assert told.startswith("told the program waited for room for one more G or its arguments: ")
    assert told.endswith(" of its Gs have not ended, and there are 1024 slots")
    n, right = went_on.split()
    assert 1000 <= int(n) <= 1024 and right == "True"


def test_one_whose_gs_wait_for_something_else_is_told_why_it_stands(small, monkeypatch):
    from dgmp.api import client

    monkeypatch.setattr(client, "STUCK_NS", 300_000_000)
    c = small.chan()
    with pytest.warns(RuntimeWarning, match="waited . s for room for one more G or its arguments, and no G has ended") as told:
        other = threading.Thread(target=lambda: eventually(lambda: told) and c.close())  # with another thread it is no deadlock
        other.start()
        futures = [small.go(c.recv) for _ in range(2 * SLOTS)]
    assert len(told) == 1
    other.join()
    assert {type(f.exception(20)) for f in futures} == {dgmp.ChanClosed}


# ------------------------------------------------------------------ payloads
def test_arguments_wait_for_room(small):
    """Half of the memory at a time, many times over."""
    futures = [small.go(len, b"x" * 50_000) for _ in range(3000)]
    assert {f.result(20) for f in futures} == {50_000}


WAITING = """
import dgmp
from dgmp.runtime import boot
boot.NSLOTS, boot.HEAP = 4096, 16 << 20
def receive_beside(c, data):
    return c.recv(), len(data)
with dgmp.Runtime(procs=2) as rt:
    c, futures = rt.chan(), []
    try:
        for _ in range(2000):
            futures.append(rt.go(receive_beside, c, b"x" * 50_000))
    except dgmp.Deadlock as e:
        print("told", len(futures) > 100)
    c.close()
    print({type(f.exception(20)).__name__ for f in futures}, rt.go(len, b"x" * 50_000).result(20))
"""


def test_arguments_wait_for_those_that_nobody_will_free():
    assert run(WAITING) == "told True\n{'ChanClosed'} 50000\n"


def test_in_a_g_arguments_fail(small):
    text, n = small.go(share.fill_memory, 120_000).result(60)
    assert re.match(r"the arguments take 120... bytes, for which the runtime's shared memory has no room now", text) and n > 20


def test_results_fail(small):
    """They ran, and their errors say that; what fits is there."""
    futures = [small.go(share.give, 120_000) for _ in range(180)]
    for f in futures:
        f._node.wait(f, 20)
    ended = [f.exception(20) or f.result() for f in futures]
    errors = [x for x in ended if isinstance(x, MemoryError)]
    assert errors and all(x == b"x" * 120_000 for x in ended if isinstance(x, bytes))
    assert "had no room for the result" in str(errors[0]) and "of give; it ran" in str(errors[0])
    del futures, ended


def test_a_death_is_told_without_room_for_how(monkeypatch):
    monkeypatch.setattr(boot, "NSLOTS", 4096)
    monkeypatch.setattr(boot, "HEAP", 1 << 20)
    with dgmp.Runtime(procs=1) as rt:
        rt.go(abs, -1).result(20)
        c, kept, size = rt.chan(500), 0, 60_000
        while size > 200:
            try:
                c.try_send(b"x" * size)
                kept += 1
            except MemoryError:
                size //= 2
        error = rt.go(os._exit, 3).exception(20)
        assert kept and isinstance(error, dgmp.WorkerDied)
        if not error.pid:
            assert "its M (not known) died; there was no room in the runtime's shared memory to say how" in str(error)
        assert rt.go(abs, -2).result(20) == 2


# ------------------------------------------------------------------ functions
def test_the_function_table_is_full(monkeypatch):
    monkeypatch.setattr(boot, "HEAP", 256 << 20)
    with dgmp.Runtime(procs=1) as rt:
        view, n = rt.node.view, 0
        with pytest.raises(MemoryError, match="function table, of 65536 entries, is full"):
            while True:
                view.intern(b"%d" % n)
                n += 1
        assert n > 65_000 and rt.go(lambda: 5).result(20) == 5
        assert rt.spawn(helpers.identity, (1,), retries=1).result(20) == 1
        assert list(rt.map(lambda x: -x, range(20))) == [-i for i in range(20)]


# ------------------------------------------------------------------ channels, and who waits
def test_there_are_no_more_channels(small):
    kept = []
    text = f"no more than {SLOTS} channels, mutexes and the like .* no room for a channel of capacity 0"
    with pytest.raises(MemoryError, match=text):
        for _ in range(2 * SLOTS):
            kept.append(small.chan())  # noqa: PERF401
    with pytest.raises(MemoryError, match=f"no more than {SLOTS} channels, mutexes"):
        dgmp.Mutex(runtime=small)
    kept.clear()
    assert small.chan(3).cap == 3


def test_there_is_no_room_for_a_channel(small):
    with pytest.raises(MemoryError, match=f"shared memory, of {HEAP} bytes, has no room for a channel of capacity 1000000"):
        small.chan(1_000_000)
    kept = []
    with pytest.raises(MemoryError, match="has no room for a channel of capacity 5000"):
        for _ in range(SLOTS - 1):
            kept.append(small.chan(5000))  # noqa: PERF401


def test_there_is_no_room_for_a_message(small):
    c = small.chan(1000)
    n = 0
    with pytest.raises(MemoryError, match="no room for a message of 600.. bytes"):
        while c.try_send(n.to_bytes(4, "big") + b"x" * 60_000):
            n += 1
    assert n > 50
    for i in range(n):  # those that were sent are there
        assert c.recv()[:4] == i.to_bytes(4, "big")


def test_too_many_wait(small):
    """A select of many cases takes a record for each."""
    channels = [small.chan() for _ in range(100)]
    futures = [small.go(share.receive_any, channels) for _ in range(10)]
    assert eventually(lambda: any(f.done() for f in futures))
    told = [f.exception() for f in futures if f.done()]
    assert all(f"no more than {2 * SLOTS} cases and calls can wait" in str(e) for e in told)
    for c in channels:
        c.close()
    assert all(f.exception(20) is None or isinstance(f.exception(20), MemoryError) for f in futures)


def test_cancelling_again_and_again_does_not_fill_an_inbox(monkeypatch):
    """One that blocks in C code does not look; it is told once."""
    monkeypatch.setattr(boot, "NSLOTS", 1024)  # an inbox has room for twice as many words
    with dgmp.Runtime(procs=1, grace=float("inf")) as rt:
        started = rt.chan(1)
        f = rt.go(share.block_in_c, started, 0.5)
        started.recv(timeout=20)
        for _ in range(10_000):
            f.cancel()
        f.exception(20)
        assert rt.go(abs, -1).result(20) == 1 and rt.stats()["throws"] == 0
