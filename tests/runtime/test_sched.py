"""Go's scheduler tests, carried over (proc_test.go)."""

import mmap
import struct
import sys
import tempfile
import time

import pytest

import dgmp
from tests import helpers


class Word:
    """A word that processes share, in a file that has no name any more."""

    def __init__(self):
        self.file = tempfile.NamedTemporaryFile()
        self.file.truncate(4096)
        self.path = self.file.name


def open_word(path):
    with open(path, "r+b") as f:
        return mmap.mmap(f.fileno(), 4096)


def load(word):
    return struct.unpack_from("q", word, 0)[0]


def pass_baton(path, i, n, rounds):
    """Spinner i of n passes a baton to i + 1: deadlocks unless all n run at once."""
    word = open_word(path)
    deadline = time.monotonic() + 60
    for r in range(rounds):
        while load(word) != r * n + i:
            if time.monotonic() > deadline:
                return False
        struct.pack_into("q", word, 0, r * n + i + 1)
    return True


@pytest.mark.parametrize("nested", [False, True])
def test_parallelism(nested):
    with dgmp.Runtime(procs=3) as rt:
        for _ in range(5):
            word = Word()
            if nested:
                assert rt.go(spawn_batons, word.path, 3).result(90)
            else:
                assert all(dgmp.gather(*[rt.go(pass_baton, word.path, i, 3, 20) for i in range(3)]))


def spawn_batons(path, n):
    return all(dgmp.gather(*[dgmp.go(pass_baton, path, i, n, 20) for i in range(n)]))


def yield_until(path):
    word = open_word(path)
    yields = 0
    while load(word) == 0:
        dgmp.gosched()
        yields += 1
        if yields > 1_000_000:
            return -1
    return yields


def set_word(path):
    struct.pack_into("q", open_word(path), 0, 1)


def yield_progress_inside(path):
    f = dgmp.go(yield_until, path)
    dgmp.go(set_word, path).result()
    return f.result()


def test_yield_progress():
    """A loop of Gosched lets the others in: fresh Gs on the global queue and children on the local one."""
    with dgmp.Runtime(procs=1) as rt:
        word = Word()
        f = rt.go(yield_until, word.path)
        rt.go(set_word, word.path).result(20)
        assert f.result(20) >= 0
        assert rt.go(yield_progress_inside, Word().path).result(20) >= 0


def hog(path, offset, seconds):
    """Ping-pong with a child: counts its rounds in the word at offset."""
    word = open_word(path)
    end = time.monotonic() + seconds
    n = 0
    while time.monotonic() < end:
        dgmp.go(helpers.identity, n).result()
        n += 1
    struct.pack_into("q", word, offset, n)
    return n


def test_ping_pong_hog():
    """Two pairs on one P get comparable shares: runnext inherits its time slice, but starves nobody."""
    with dgmp.Runtime(procs=1) as rt:
        word = Word()
        a, b = rt.go(hog, word.path, 0, 0.5), rt.go(hog, word.path, 8, 0.5)
        x, y = a.result(30), b.result(30)
        assert min(x, y) * 20 >= max(x, y), (x, y)


def flood(n):
    return sum(dgmp.gather(*[dgmp.go(helpers.identity, 1) for _ in range(n)]))


def test_global_queue_is_not_starved():
    """A G from outside runs while an M's local queue never gets empty."""
    with dgmp.Runtime(procs=1) as rt:
        f = rt.go(flood, 20_000)
        g = rt.go(helpers.identity, 7)
        assert g.result(30) == 7
        assert f.result(30) == 20_000


def chain():
    """Readies another of its kind for ever."""
    dgmp.go(chain)


def spawn_beside_a_chain():
    f = dgmp.go(helpers.identity, 7)
    dgmp.go(chain)  # kicks it from runnext to the ring
    return f.result()


@pytest.mark.parametrize("procs", [1, 2])
def test_chains_of_inherited_slices_starve_nobody(procs):
    """Neither what lies in the client's ring, which no M runs, nor the rest of the chain's own ring."""
    with dgmp.Runtime(procs=procs) as rt:
        for _ in range(procs):
            rt.go(chain).result(20)
        assert rt.go(helpers.identity, 7).result(20) == 7
        assert rt.go(spawn_beside_a_chain).result(20) == 7
        rt.close(cancel=True)


class Waits:
    """Waits for a G when it dies."""

    def __del__(self):
        dgmp.go(helpers.identity, 1).result()


def test_a_finalizer_that_waits():
    with dgmp.Runtime(procs=1) as rt:
        rt.go(Waits).exception(20)
        assert rt.go(id, Waits()).result(20)
        assert rt.go(helpers.identity, 1).result(20) == 1
        assert rt.stats()["throws"] == 0 and rt.stats()["ms_made"] == 1


def close_stdout():
    sys.stdout.write("unfinished")
    sys.stdout.close()
    sys.stdout = None


def test_an_m_outlives_the_stdout_of_user_code():
    with dgmp.Runtime(procs=1) as rt:
        rt.go(close_stdout).result(20)
        assert helpers.eventually(lambda: rt.stats()["idlethreads"] == 1)
        assert rt.go(helpers.identity, 1).result(20) == 1
        assert rt.stats()["ms_made"] == 1


def take_number(path, seconds):
    """Its rank among the Gs that have begun."""
    with open(path, "ab", buffering=0) as file:
        file.write(b".")
        rank = file.tell()
    helpers.busy(seconds)
    return rank


def test_long_gs_begin_about_in_order():
    """An M takes few long Gs at once from the client: none lies behind half of the others while an M has nothing."""
    with dgmp.Runtime(procs=2) as rt, tempfile.NamedTemporaryFile() as file:
        rt.go(helpers.busy, 0.002).result(20)
        ranks = dgmp.gather(*[rt.go(take_number, file.name, 0.002) for _ in range(100)])
        assert sorted(abs(rank - i) for i, rank in enumerate(ranks, 1))[90] < 20


def test_ms_are_made_on_demand(tmp_path):
    with dgmp.Runtime(procs=4) as rt:
        rt.main.result(20)
        assert helpers.eventually(lambda: rt.stats()["ms_made"] == 1)  # the coordinator counts it once it has heard of it
        computes = [rt.go(helpers.compute_until, tmp_path / "gate") for _ in range(20)]
        assert helpers.eventually(lambda: sum(g.state == "running" for g in rt.snapshot().gs) == 4)
        (tmp_path / "gate").touch()
        dgmp.gather(*computes)
        assert rt.stats()["ms_made"] < 10


def test_big_gomaxprocs():
    with dgmp.Runtime(procs=1024, max_ms=1024) as rt:
        assert rt.go(helpers.identity, 1).result(20) == 1
