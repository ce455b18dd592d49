"""max_tasks_per_child and memory_limit: Ms that end between two Gs, and those that are killed."""

import os
import subprocess
import sys
from collections import Counter

import pytest

import dgmp
from tests import helpers, share
from tests.helpers import alive, eventually

MANY = 1000 if os.environ.get("DGMP_SOAK") else 150


def sound(rt):
    """Nobody had to look for work that nobody came for."""
    stats = rt.stats()
    return stats["rescues"] == stats["throws"] == 0


# ------------------------------------------------------------------ max_tasks_per_child
@pytest.mark.parametrize("n", [1, 4])
def test_an_m_runs_so_many_gs(n):
    with dgmp.Runtime(procs=2, max_tasks_per_child=n) as rt:
        futures = [rt.go(share.pid_and, i) for i in range(MANY)]
        results = [f.result(60) for f in futures]
        assert [i for _, i in results] == list(range(MANY))
        assert max(Counter(pid for pid, _ in results).values()) <= n
        assert sound(rt)


def test_one_that_has_done_its_share_ends_at_once_and_is_replaced_only_for_work():
    def is_not_replaced():
        with dgmp.Runtime(procs=1, max_tasks_per_child=3) as rt:
            rt.main.result(20)  # which is none of the three
            ran: Counter[int] = Counter()
            while 3 not in ran.values():
                ran[rt.go(os.getpid).result(20)] += 1
            done = next(pid for pid, n in ran.items() if n == 3)
            assert eventually(lambda: not alive(done))
            none_left = eventually(lambda: rt.stats()["threads"] == 0, 2) and rt.stats()["ms_made"] == 1
            assert rt.go(os.getpid).result(20) != done
            assert sound(rt)
            return none_left

    assert any(is_not_replaced() for _ in range(8))  # as a second M may be made while the first one lies down


@pytest.mark.parametrize("procs, max_ms", [(2, None), (2, 2), (1, 1), (2, 8)])
def test_nested_gs(procs, max_ms):
    """Parents wait in Ms that have done their share; with no room for others these go on all the same."""
    with dgmp.Runtime(procs=procs, max_ms=max_ms, max_tasks_per_child=1) as rt:
        assert rt.go(helpers.fib, 7).result(60) == 13
        assert eventually(lambda: rt.stats()["num_g"] == 0)
        assert sound(rt)


def test_more_gs_park_than_there_may_be_ms():
    with dgmp.Runtime(procs=2, max_ms=6, max_tasks_per_child=1) as rt:
        requests, replies = rt.chan(), rt.chan(40)
        futures = [rt.go(share.receive_and_tell, requests, replies) for _ in range(40)]
        sender = rt.go(share.send_all, requests, 40)
        assert sorted(replies.recv(timeout=60)[0] for _ in range(40)) == list(range(40))
        for f in [*futures, sender]:
            f.result(60)
        assert sound(rt)


def test_an_m_does_not_end_before_what_is_parked_there():
    with dgmp.Runtime(procs=1, max_tasks_per_child=1) as rt:
        c, started = rt.chan(), rt.chan(1)
        waits = rt.go(share.wait_for, c, started)
        pid = started.recv(timeout=20)
        for i in range(5):
            assert rt.go(share.pid_and, i).result(20)[0] != pid
        assert alive(pid)
        c.send(7)
        assert waits.result(20) == 7 and eventually(lambda: not alive(pid))
        assert sound(rt)


def test_an_m_does_not_end_before_what_it_has_spawned():
    with dgmp.Runtime(procs=1, max_tasks_per_child=1) as rt:
        c = rt.chan()
        pid = rt.go(share.spawn_one, c).result(20)
        assert rt.go(share.pid_and, 0).result(20)[0] != pid and alive(pid)
        c.send(1)
        assert eventually(lambda: not alive(pid)) and eventually(lambda: rt.stats()["num_g"] == 0)


def test_an_m_does_not_end_while_it_holds_a_mutex():
    """Another process may release what was acquired here; the end of this one would give it to the next with HolderDied."""
    with dgmp.Runtime(procs=1, max_tasks_per_child=1) as rt:
        mutex = dgmp.Mutex(runtime=rt)
        pid = rt.go(share.lock, mutex).result(20)
        assert rt.go(share.pid_and, 0).result(20) == (pid, 0)
        rt.go(share.unlock, mutex).result(20)
        with mutex:
            pass
        assert eventually(lambda: not alive(pid))


def test_an_m_does_not_end_before_its_timers(tmp_path):
    path = tmp_path / "calls"
    with dgmp.Runtime(procs=1, max_tasks_per_child=1) as rt:
        rt.go(share.call_later, str(path)).result(20)
        assert eventually(path.exists)


def test_async_gs():
    with dgmp.Runtime(procs=2, max_tasks_per_child=2) as rt:
        for _ in range(3):
            futures = [rt.go(share.sleep_a_little, i) for i in range(20)] + [rt.go(abs, -i) for i in range(10)]
            assert [f.result(60) for f in futures] == [*range(20), *range(10)]
        assert sound(rt)


def test_maps_and_dependencies():
    with dgmp.Runtime(procs=2, max_tasks_per_child=2) as rt:
        assert list(rt.map(helpers.add, range(50), range(50), chunksize=2)) == [2 * i for i in range(50)]
        total = rt.go(helpers.identity, 0)
        for i in range(20):
            total = rt.go(helpers.add, total, i)
        assert total.result(60) == 190
        assert sound(rt)


def test_what_was_printed_is_not_lost(capsys):
    with dgmp.Runtime(procs=1, max_tasks_per_child=1) as rt:
        for i in range(10):
            rt.go(print, i).result(20)
        rt.go(share.last_words).result(20)
    assert capsys.readouterr().out == "".join(f"{i}\n" for i in range(10)) + "unfinished"


def test_ms_that_are_to_end_are_killed():
    """At any moment: each G ends once."""
    with dgmp.Runtime(procs=2, max_tasks_per_child=1) as rt:
        ended = Counter()
        for _ in range(8):
            futures = [rt.go(helpers.fib, 4) for _ in range(4)] + [rt.go(share.pid_and, i) for i in range(6)]
            for _, pid in rt.node.view.pids():
                helpers.kill(pid)
            for f in futures:
                ended[type(f.exception(60))] += 1
        assert sum(ended.values()) == 80 and set(ended) <= {type(None), dgmp.WorkerDied}
        assert eventually(lambda: rt.stats()["num_g"] == 0)
        assert sound(rt)


PROGRAM = """
import os, dgmp
pids = [dgmp.go(os.getpid).result() for _ in range(6)]
print(max(pids.count(pid) for pid in pids))
"""


def test_limits_in_the_environment():
    def run(code, **env):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                              env={**os.environ, **env})
        return done.stdout + done.stderr[-300:]

    assert run(PROGRAM, DGMP_MAX_TASKS_PER_CHILD="2") in ("1\n", "2\n")
    bad = run(PROGRAM, DGMP_MAX_TASKS_PER_CHILD="x")
    assert "DGMP_MAX_TASKS_PER_CHILD must be a whole number of at least 1, not 'x'" in bad
    eat = "import dgmp\n" "try: dgmp.go(lambda: [bytes([1]) * (1 << 20) for _ in range(4096)]).result()\n" \
          "except dgmp.WorkerDied as e: print(e)"
    assert "memory, more than the hard limit of 150.0 MB" in run(eat, DGMP_MEMORY_LIMIT="100MB")


@pytest.mark.parametrize("value, error", [
    (0, ValueError), (-1, ValueError), ("3", TypeError), (True, TypeError), (1.5, TypeError)])
def test_bad_numbers_of_tasks(value, error):
    with pytest.raises(error, match="max_tasks_per_child must be"):
        dgmp.Runtime(max_tasks_per_child=value)


# ------------------------------------------------------------------ memory_limit
def test_an_m_that_leaks_is_replaced_between_gs():
    """And nothing is lost.  What a G takes is seen at the next look."""
    with dgmp.Runtime(procs=1, memory_limit=(60 << 20, 1 << 40)) as rt:
        pids = Counter()
        assert eventually(lambda: pids.update([rt.go(share.leak, 3).result(30)]) or len(pids) >= 3), pids
        assert eventually(lambda: rt.stats()["threads"] <= 1)
        assert sound(rt)


def test_an_idle_m_that_is_too_large_ends():
    with dgmp.Runtime(procs=1, memory_limit=(60 << 20, 1 << 40)) as rt:
        pid = rt.go(share.leak, 80).result(30)
        assert eventually(lambda: not alive(pid)) and rt.go(abs, -1).result(30) == 1


def test_a_g_that_takes_too_much_is_killed():
    with dgmp.Runtime(procs=2, memory_limit="50MB") as rt:
        greedy = rt.spawn(share.eat, (2000,), name="greedy")
        others = [rt.go(helpers.identity, i) for i in range(50)]
        assert [f.result(30) for f in others] == list(range(50))
        text = (r"\(greedy\), spawned at .*test_limits.*did not finish: its M \(m\d+, pid \d+.*was killed by dgmp, as it took "
                r".*MB of memory, more than the hard limit of 75.0 MB; let it take less at once, or raise memory_limit")
        with pytest.raises(dgmp.WorkerDied, match=text) as caught:
            greedy.result(30)
        assert caught.value.exitcode == -9
        assert rt.go(abs, -2).result(30) == 2


def test_what_is_shared_is_nobodys():
    """Arguments and results in the segment, which an M maps, too."""
    with dgmp.Runtime(procs=1, memory_limit=(200 << 20, 1 << 40)) as rt:
        pid = rt.go(os.getpid).result(30)
        large = memoryview(bytes(100 << 20))
        kept = [rt.go(share.measure, large).result(30) for _ in range(4)]
        assert rt.stats()["large_bytes"] + 1 and [n for n, _ in kept] == [100 << 20] * 4
        assert {p for _, p in kept} == {pid}


@pytest.mark.parametrize("value, error", [
    (0, ValueError), (-5, ValueError), (1000, ValueError), ("much", ValueError), ("2 parsec", ValueError), ("0GB", ValueError),
    ("-1GB", ValueError), ((1 << 30, 1 << 29), ValueError), ((1, 2, 3), ValueError), (float("nan"), ValueError),
    (float("inf"), ValueError), ([1 << 30], TypeError), (True, TypeError), (b"2GB", TypeError), (1 << 80, ValueError)])
def test_bad_limits(value, error):
    with pytest.raises(error, match="memory_limit"):
        dgmp.Runtime(memory_limit=value)
