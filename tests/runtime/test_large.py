"""Large arguments and results: copied once, read in place, freed with the last view, in any order of deaths."""

import array
import gc
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import dgmp
from dgmp.runtime import boot
from tests import helpers
from tests.helpers import eventually

N = 20_000  # doubles: 160 kB
KEPT: list = []


def large_blocks(rt):
    gc.collect()
    return rt.stats()["large_blocks"]


def keep(values):
    KEPT.append(values)
    return float(values.sum())


def kept_sum():
    return float(sum(v.sum() for v in KEPT))


def forget():
    KEPT.clear()
    gc.collect()


def make(n, value=1.0):
    return np.full(n, value)


def flags(values):
    return values.flags.writeable, values.flags.owndata


def doubled(values):
    return values * 2


def child_sum(values):
    return dgmp.go(np.sum, values[1:]).result()


def kill_own_process(values):
    os.kill(os.getpid(), signal.SIGKILL)


def test_arrays_are_read_in_place(rt):
    assert rt.go(flags, make(N)).result() == (False, False)
    values = rt.go(make, N, 3.0).result()
    assert values.sum() == 3.0 * N and flags(values) == (False, False)
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 1
    del values
    assert eventually(lambda: large_blocks(rt) == 0)


def test_small_arrays_are_copies(rt):
    assert rt.go(flags, make(10)).result()[0] is True
    assert rt.stats()["large_blocks"] == 0


@pytest.mark.parametrize("value", [
    bytes(range(256)) * 400, bytearray(b"ab" * 50_000), "\u00e9" * 70_000, array.array("d", range(20_000)), list(range(50_000)),
    np.arange(N).reshape(100, 200), np.asfortranarray(np.arange(N).reshape(100, 200)), np.arange(N)[::2],
    np.arange(N, dtype=">i4"),
    np.array([{"a": 1}] * 3, dtype=object), np.zeros((3, 0, 5)), np.ma.masked_array(np.arange(N), np.arange(N) % 2),
    np.zeros(N, dtype=[("x", "f8"), ("y", "i4")]), {"a": np.arange(N), "b": [np.arange(N), b"c" * 70_000]}, bytes(65_535),
    bytes(65_536), bytes(65_537)], ids=lambda value: type(value).__name__)
def test_large_values_travel_equal(rt, value):
    back = rt.go(helpers.identity, value).result()
    assert type(back) is type(value)
    if isinstance(value, dict):
        np.testing.assert_equal(back, value)
    elif isinstance(value, np.ndarray):
        assert back.dtype == value.dtype and back.shape == value.shape and np.array_equal(back, value)
        assert back.flags.f_contiguous == value.flags.f_contiguous or not value.flags.forc
    else:
        assert back == value
    del back
    assert eventually(lambda: large_blocks(rt) == 0)


@pytest.mark.parametrize("view", [
    memoryview(b"x" * 100_000), memoryview(b"small"), memoryview(b""), memoryview(array.array("i", range(30_000))),
    memoryview(np.arange(24_000.0).reshape(20, 30, 40)), memoryview(bytes(200_000))[::2], memoryview(bytearray(b"a" * 100))],
    ids=range(7))
def test_memoryviews_travel(rt, view):
    back = rt.go(helpers.identity, view).result()
    assert type(back) is memoryview and back.readonly
    assert back == view and back.format == view.format and back.shape == view.shape


def test_a_view_that_cannot_be_made_again_is_refused(rt):
    with pytest.raises(dgmp.EncodingError, match="memoryview of format"):
        rt.go(len, memoryview(np.zeros(3, dtype=[("x", "f8")])))


def test_one_array_twice_is_sent_once_and_stays_one(rt):
    values = make(N)
    rt.go(helpers.identity, 1).result()
    a, b = rt.go(helpers.identity, [values, values]).result()
    assert a is b


def test_arguments_are_sent_as_they_are_at_go(rt):
    values = np.zeros(N)
    futures = []
    for i in range(10):
        values[:] = i
        futures.append(rt.go(np.sum, values))
    values[:] = -1
    assert [f.result() for f in futures] == [i * N for i in range(10)]


def test_kept_by_the_ms_module():
    with dgmp.Runtime(procs=1) as one:
        assert one.go(keep, make(N, 2.0)).result() == 2.0 * N
        for i in range(20):  # blocks that are free now are used again; the kept one is not
            one.go(doubled, make(N, float(i))).result()
        assert one.go(kept_sum).result() == 2.0 * N and eventually(lambda: large_blocks(one) == 1)
        one.go(forget).result()
        assert eventually(lambda: large_blocks(one) == 0)


def test_passed_on_to_a_child_and_returned(rt):
    assert rt.go(child_sum, make(N)).result() == N - 1
    values = rt.go(helpers.identity, make(N)).result()
    again = rt.go(doubled, values).result()
    del values
    assert again.sum() == 2 * N
    del again
    assert eventually(lambda: large_blocks(rt) == 0)


def test_a_future_as_argument_is_read_in_place(rt):
    source = rt.go(make, N, 5.0)
    sums = [rt.go(np.sum, source) for _ in range(20)]
    assert dgmp.gather(*sums) == [5.0 * N] * 20
    assert rt.go(flags, source).result() == (False, False)
    assert rt.go(helpers.identity, source).result().sum() == 5.0 * N
    del source, sums
    assert eventually(lambda: large_blocks(rt) == 0)


def test_views_die_in_any_order(rt):
    rng = np.random.default_rng(7)
    live = {}
    for i in range(200):
        live[i] = rt.go(make, N, float(i)).result()
        if len(live) > 20:
            del live[int(rng.choice(list(live)))]
        for j, values in live.items():
            assert values[0] == values[-1] == j
    assert rt.stats()["large_blocks"] == len(live)
    live.clear()
    del values
    assert eventually(lambda: large_blocks(rt) == 0)


def test_a_view_outlives_the_future_and_the_runtime():
    with dgmp.Runtime(procs=1) as rt:
        values = rt.go(make, N, 4.0).result()
        part = values[10:20]
        del values
    gc.collect()
    assert part.sum() == 40.0


def test_a_view_outlives_the_program_quietly():
    program = """
import atexit
atexit.register(lambda: print(x.sum()))  # runs after dgmp's own
import numpy as np, dgmp
x = dgmp.go(np.ones, 100_000).result()"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "100000.0\n", "")


def test_read_by_many_threads(rt):
    source = rt.go(make, N, 1.0)
    seen = []

    def read():
        seen.append(source.result().sum())

    threads = [threading.Thread(target=read) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert seen == [N] * 8


def test_what_a_dead_m_read_is_freed(rt):
    rt.go(keep, make(N)).result()
    for _ in range(4):
        with pytest.raises(dgmp.WorkerDied):
            rt.go(kill_own_process, make(N)).result()
    assert rt.go(np.sum, make(N)).result() == N
    with pytest.raises(dgmp.WorkerDied):
        dgmp.gather(*[rt.go(kill_own_process, None) for _ in range(2)])
    assert eventually(lambda: large_blocks(rt) <= 1)  # one of two Ms may have kept its


def test_a_forked_child_lets_go_of_nothing(rt):
    values = rt.go(make, N, 6.0).result()
    pid = os.fork()
    if pid == 0:
        ok = values.sum() == 6.0 * N
        del values
        gc.collect()
        os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0
    rt.go(make, N, 7.0).result()
    assert values.sum() == 6.0 * N


@pytest.fixture
def small_heap(monkeypatch):
    monkeypatch.setattr(boot, "HEAP", 64 << 20)


def test_more_in_flight_than_there_is_room_for(small_heap):
    values = make(1_000_000)
    with dgmp.Runtime(procs=2) as rt:
        assert dgmp.gather(*[rt.go(np.size, values) for _ in range(60)]) == [1_000_000] * 60


def test_what_finds_no_room_says_so(small_heap):
    with dgmp.Runtime(procs=1) as rt:
        with pytest.raises(MemoryError, match="8000.... bytes, .*at most half"):
            rt.go(np.size, make(10_000_000))
        with pytest.raises(MemoryError, match="no room for the result of 8000.... bytes"):
            rt.go(make, 10_000_000).result()
        assert rt.go(np.sum, make(N)).result() == N


def test_arrow_tables_are_read_in_place(rt):
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"x": pa.array(range(50_000))})
    assert rt.go(helpers.identity, table).result().equals(table)


def test_pandas_frames_travel(rt):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"x": np.arange(N, dtype="f8"), "y": np.arange(N, dtype="i8"), "z": ["a"] * N})
    back = rt.go(helpers.identity, frame).result()
    assert back.equals(frame)
