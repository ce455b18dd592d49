"""Gs that are run again: after the death of their M, or an error that was named; and those that are not."""

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

import dgmp
from dgmp import WorkerDied
from tests import helpers

DIED = "was killed by SIGKILL"


def note(path):
    """One more run of the G; how many there have been."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()} {time.monotonic()}\n")
    return len(Path(path).read_text().splitlines())


def dies(path, times, result="done"):
    if note(path) <= times:
        helpers.kill_self()
    return result


def fails(path, times, error=OSError):
    if note(path) <= times:
        raise error("not yet")
    return "done"


async def fails_in_a_loop(path, times):
    await asyncio.sleep(0)
    return fails(path, times)


def parks(there, back, path):
    note(path)
    there.send("parked")
    return back.recv()


def naps_then_dies(path):
    note(path)
    time.sleep(0.01)
    helpers.kill_self(signal.SIGSEGV)


class Own(Exception):
    pass


@pytest.fixture
def runs(tmp_path):
    return str(tmp_path / "runs")


def count(path):
    return len(Path(path).read_text().splitlines())


def test_a_g_is_run_again_after_the_death_of_its_m(runs):
    with dgmp.Runtime(procs=2) as rt:
        f = rt.spawn(dies, (runs, 2), retries=2)
        assert f.result(30) == "done" and count(runs) == 3


def test_by_default_it_is_not(runs):
    with dgmp.Runtime(procs=1) as rt:
        with pytest.raises(WorkerDied, match=DIED) as e:
            rt.go(dies, runs, 1).result(30)
        assert count(runs) == 1 and len(e.value.history) == 1 and e.value.history[0][0] == e.value.pid


def test_retries_end_with_the_history(runs):
    with dgmp.Runtime(procs=1) as rt:
        f = rt.spawn(dies, (runs, 9), retries=1, name="killer")
        with pytest.raises(WorkerDied) as e:
            f.result(30)
        pids = [int(line.split()[0]) for line in Path(runs).read_text().splitlines()]
        assert [pid for pid, _ in e.value.history] == pids and len(pids) == 2
        assert all(how.startswith(DIED) for _, how in e.value.history)
        assert "killer" in str(e.value) and f"before that pid {pids[0]} {DIED}" in str(e.value)
        assert e.value.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("said", [{"retries": 100}, {"retries": 100, "crash_limit": 2}])
def test_who_kills_ms_again_and_again_ends(runs, said):
    with dgmp.Runtime(procs=1, crash_limit=3) as rt:
        with pytest.raises(WorkerDied) as e:
            rt.spawn(naps_then_dies, (runs,), **said).result(60)
        assert len(e.value.history) == count(runs) == said.get("crash_limit", 3)
        assert all("SIGSEGV" in how for _, how in e.value.history)


def test_an_error_that_was_named(runs):
    with dgmp.Runtime(procs=1) as rt:
        assert rt.spawn(fails, (runs, 2), retries=2, retry_on=(WorkerDied, OSError)).result(30) == "done"
        assert count(runs) == 3


def test_an_error_that_was_not(runs):
    with dgmp.Runtime(procs=1) as rt:
        for f in (rt.spawn(fails, (runs, 2), retries=2), rt.spawn(fails, (runs, 9, ValueError), retries=2, retry_on=OSError)):
            with pytest.raises((OSError, ValueError), match="not yet"):
                f.result(30)
        assert count(runs) == 2


def test_errors_of_main_and_of_functions_travel(runs):
    class Local(Own):
        pass

    def fn(path):
        if note(path) <= 1:
            raise Local("once")
        return "done"

    with dgmp.Runtime(procs=1) as rt:
        assert rt.spawn(fn, (runs,), retries=1, retry_on=(Own,)).result(30) == "done"
        assert rt.spawn(fails, (runs + "2", 1, Own), retries=1, retry_on=Own).result(30) == "done"


def test_the_last_error_counts(runs):
    with dgmp.Runtime(procs=1) as rt:
        f = rt.spawn(fails, (runs, 9), retries=3, retry_on=OSError)
        with pytest.raises(OSError, match="not yet"):
            f.result(30)
        assert count(runs) == 4


def test_coroutines_are_run_again(runs):
    with dgmp.Runtime(procs=1) as rt:
        assert rt.spawn(fails_in_a_loop, (runs, 2), retries=2, retry_on=OSError, backoff=0.01).result(30) == "done"
        assert count(runs) == 3


@pytest.mark.parametrize("fn, error", [(dies, WorkerDied), (fails, OSError)])
@pytest.mark.parametrize("backoff, pauses", [(0.05, [0.05, 0.1]), ([0.1, 0.02], [0.1, 0.02]), ((0.06,), [0.06, 0.06])])
def test_backoff(runs, fn, error, backoff, pauses):
    with dgmp.Runtime(procs=1) as rt:
        assert rt.spawn(fn, (runs, 2), retries=2, retry_on=error, backoff=backoff).result(30) == "done"
    times = [float(line.split()[1]) for line in Path(runs).read_text().splitlines()]
    assert all(b - a >= pause for a, b, pause in zip(times, times[1:], pauses, strict=False))


def test_while_it_waits_to_be_run_again(runs):
    """It is no deadlock, one can see it, and cancel it."""
    with dgmp.Runtime(procs=1) as rt:
        f = rt.spawn(fails, (runs, 9), retries=9, retry_on=OSError, backoff=3600)

        def waits():
            return any(g.wait_reason == "wait to be run again" for g in rt.snapshot().gs)

        assert helpers.eventually(waits)
        with pytest.raises(TimeoutError):
            f.result(0.3)
        assert f.cancel() and f.cancelled() and count(runs) == 1


def test_no_deadlock_while_one_waits_to_be_run_again(runs):
    with dgmp.Runtime(procs=1) as rt:
        assert rt.spawn(fails, (runs, 1), retries=1, retry_on=OSError, backoff=0.7).result() == "done"


def test_a_parked_g_follows_its_terms_without_a_strike(runs):
    with dgmp.Runtime(procs=1, max_ms=1, crash_limit=1) as rt:
        there, back = rt.chan(), rt.chan()
        again, ends = rt.spawn(parks, (there, back, runs), retries=5), rt.spawn(parks, (there, back, runs), name="innocent")
        assert [there.recv(timeout=30) for _ in range(2)] == ["parked"] * 2
        assert helpers.eventually(lambda: [g.wait_reason for g in rt.snapshot().gs].count("chan receive") == 2)
        pid = int(Path(runs).read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerDied, match="was parked on an M") as e:
            ends.result(30)
        assert "innocent" in str(e.value) and e.value.history == []
        assert there.recv(timeout=30) == "parked"
        back.send("woken", timeout=30)
        assert again.result(30) == "woken" and count(runs) == 3


def test_arguments_and_dependents_survive(runs):
    with dgmp.Runtime(procs=2) as rt:
        big = os.urandom(1 << 20)
        a = rt.spawn(dies, (runs, 1, big), retries=1)
        b = rt.spawn(dies, (runs + "b", 1), {"result": a}, retries=1)
        assert rt.go(len, b).result(30) == len(big) and a.result(30) == big
        assert rt.stats()["large_blocks"] <= 2


def test_children_of_a_dead_m_do_not_come_back(runs):
    def parent(path):
        children = [dgmp.spawn(dies, (path + "c", 0), retries=3) for _ in range(3)]
        n = note(path)
        values = dgmp.gather(*children)
        if n == 1:
            helpers.kill_self()
        return values

    with dgmp.Runtime(procs=2) as rt:
        assert rt.spawn(parent, (runs,), retries=1).result(30) == ["done"] * 3
        assert helpers.eventually(lambda: rt.stats()["num_g"] == 0)


def test_groups_and_members_can_retry(runs):
    def parent(path):
        with dgmp.Group() as group:
            f = group.spawn(dies, (path, 1), retries=1)
        return f.result()

    with dgmp.Runtime(procs=2) as rt:
        assert rt.spawn(parent, (runs,), retries=1).result(30) == "done"  # it may be parked where its child dies


def test_a_runtime_that_retries(runs):
    with dgmp.Runtime(procs=2, on_worker_death="retry") as rt:
        assert rt.go(dies, runs, 2).result(30) == "done"
        with pytest.raises(WorkerDied) as e:
            rt.go(dies, runs + "2", 9).result(30)
        assert len(e.value.history) == 3


def test_a_runtime_that_breaks(runs):
    with dgmp.Runtime(procs=2, on_worker_death="break") as rt:
        others = [rt.go(helpers.nap, 3600) for _ in range(5)]
        with pytest.raises(WorkerDied):
            rt.go(dies, runs, 9).result(30)
        for f in others:
            with pytest.raises(WorkerDied, match='on_worker_death="break"') as e:
                f.result(30)
            assert e.value.exitcode == -signal.SIGKILL
        with pytest.raises(WorkerDied):
            rt.go(helpers.identity, 1)


def test_many_with_kills(runs):
    """Each result is right, and none comes twice, while Ms are killed under them."""
    with dgmp.Runtime(procs=2) as rt:
        futures = [rt.spawn(helpers.add, (i, 1), retries=100, crash_limit=100) for i in range(5000)]
        kills = 0
        while not futures[-1].done() and kills < 20:
            ms = [m for m in rt.snapshot().ms if m.g]
            if ms:
                with contextlib.suppress(ProcessLookupError):  # it has just been killed
                    os.kill(ms[0].pid, signal.SIGKILL)
                    kills += 1
        assert [f.result(60) for f in futures] == list(range(1, 5001))
        assert helpers.eventually(lambda: rt.stats()["num_g"] == 0)


@pytest.mark.parametrize("said, error", [
    ({"retries": -1}, ValueError), ({"retries": 1.5}, TypeError), ({"retries": 201}, ValueError),
    ({"retry_on": 3, "retries": 1}, TypeError), ({"retry_on": [OSError], "retries": 1}, TypeError),
    ({"backoff": -1}, ValueError), ({"backoff": "x"}, TypeError), ({"backoff": float("nan")}, ValueError),
    ({"backoff": [0.1] * 65}, ValueError), ({"timeout": 0}, ValueError), ({"timeout": "x"}, TypeError),
    ({"timeout": float("nan")}, ValueError), ({"grace": -1}, ValueError), ({"grace": "x"}, TypeError),
    ({"crash_limit": 0}, ValueError), ({"crash_limit": None, "retries": None}, TypeError), ({"unknown": 1}, TypeError)])
def test_what_makes_no_sense(rt, said, error):
    with pytest.raises(error) as e:
        rt.spawn(abs, (1,), **said)
    assert "terms(" not in str(e.value)


@pytest.mark.parametrize("said, error", [
    ({"on_worker_death": "hope"}, ValueError), ({"crash_limit": 0}, ValueError), ({"crash_limit": "x"}, TypeError),
    ({"grace": -1}, ValueError), ({"grace": None}, TypeError)])
def test_runtimes_that_make_no_sense(said, error):
    with pytest.raises(error):
        dgmp.Runtime(**said)


def test_coroutines_that_go_to_another_m(tmp_path):
    """To be handed over is no attempt."""
    with dgmp.Runtime(procs=2) as rt:
        first = rt.go(asyncio.sleep, 0.5)
        futures = [rt.spawn(fails_in_a_loop, (str(tmp_path / str(i)), 1), retries=1, retry_on=OSError) for i in range(20)]
        assert [f.result(30) for f in futures] == ["done"] * 20 and first.result(30) is None


def test_an_m_that_ends_by_itself_breaks_nothing():
    with dgmp.Runtime(procs=1, on_worker_death="break", max_tasks_per_child=2) as rt:
        assert [rt.go(helpers.identity, i).result(30) for i in range(9)] == list(range(9))


def test_who_waits_to_be_run_again_is_not_run_for_the_death_of_what_it_had_waited_for(runs):
    """Repair tells the dependents of what was done on a dead M once more."""
    def fails_with(argument, path):
        assert argument == 7
        return fails(path, 1)

    with dgmp.Runtime(procs=1) as rt:
        a = rt.go(helpers.identity, 7)
        f = rt.spawn(fails_with, (a, runs), retries=1, retry_on=OSError, backoff=3600)
        assert helpers.eventually(lambda: any(g.wait_reason == "wait to be run again" for g in rt.snapshot().gs))
        for _, pid in rt.node.view.pids():
            helpers.kill(pid)
        rt.go(helpers.identity, 1).exception(30)
        assert rt.go(helpers.identity, 1).result(30) == 1 and count(runs) == 1 and f.cancel()
