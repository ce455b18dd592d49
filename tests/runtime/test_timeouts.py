"""Gs that run, and are cancelled or have had their time: they raise between two bytecodes, or their M is killed."""

import asyncio
import hashlib
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

import dgmp
from tests import helpers

SHORT = 0.3


def spin(path=None):
    if path:
        Path(path).write_text(str(os.getpid()))
    while True:
        pass


def tidy(path, how):
    """Says that it runs, then does what `how` does; what it saw at the end is in the file."""
    end = "nothing"
    try:
        Path(path).write_text("begun")
        how()
    except BaseException as e:
        end = type(e).__name__
        raise
    finally:
        Path(path + ".end").write_text(f"{end} {dgmp.cancelled()}")


def sleep():
    time.sleep(3600)


def wait_for_a_process():
    subprocess.run(["sleep", "3600"])


def wait_for_a_lock():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def wait_in_dgmp():
    dgmp.sleep(3600)


def wait_for_a_child():
    child = dgmp.go(dgmp.sleep, 3600)
    try:
        child.result()
    finally:
        child.cancel()


def run_a_loop():
    asyncio.run(asyncio.sleep(3600))


def compute():
    spin()


def recurse():
    def deeper(n):
        return deeper(n - 1) if n else spin()

    deeper(500)


def in_a_sort():
    sorted(range(10), key=lambda x: spin())


def deaf(path):
    """C code that never looks for signals; nothing comes between what says that it has begun and it."""
    with dgmp.nopreempt():
        Path(path).write_text("begun")
        hashlib.pbkdf2_hmac("sha256", b"x", b"y", 2 ** 31 - 1)


def stubborn(path):
    while True:
        try:
            spin(path)
        except BaseException:
            pass


def masked(path):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})
    spin(path)


async def await_for_ever():
    await asyncio.sleep(3600)


def timed_out(rt, path, fn, *args, **terms):
    """The error of such a G that had begun before its time was up, which is longer until one has."""
    for timeout in (SHORT, 3, 12):
        error = rt.spawn(fn, args, timeout=timeout, **terms).exception(30)
        assert type(error) is TimeoutError
        if os.path.exists(path):
            break
    return error


def begun(path):
    return helpers.eventually(lambda: os.path.exists(path), 30)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "g")


@pytest.mark.parametrize("how", [sleep, wait_for_a_process, wait_for_a_lock, wait_in_dgmp, wait_for_a_child, run_a_loop,
                                 compute, recurse, in_a_sort])
def test_cancel_of_a_running_g(path, how):
    with dgmp.Runtime(procs=2) as rt:
        f = rt.go(tidy, path, how)
        assert begun(path) and f.cancel()
        with pytest.raises(dgmp.Cancelled, match=r"G \d+ \(tidy\) was cancelled"):
            f.result(30)
        assert f.cancelled() and Path(path + ".end").read_text() == "Cancelled True"
        assert rt.stats()["ms_made"] <= 4 and rt.go(abs, -1).result(30) == 1


@pytest.mark.parametrize("how", [sleep, wait_for_a_lock, wait_in_dgmp, wait_for_a_child, run_a_loop, compute])
def test_timeout_of_a_running_g(path, how):
    with dgmp.Runtime(procs=2) as rt:
        error = timed_out(rt, path, tidy, path, how)
        assert re.match(r"G \d+ \(tidy\) ran longer than its timeout", str(error))
        assert Path(path + ".end").read_text() == "Cancelled True"


def test_a_timeout_that_is_not_reached(rt):
    assert dgmp.spawn(helpers.add, (1, 2), timeout=60).result(30) == 3
    assert [dgmp.spawn(helpers.identity, (i,), timeout=60 + i).result(30) for i in range(100)] == list(range(100))


def test_the_shorter_of_two_timeouts(path):
    with dgmp.Runtime(procs=2) as rt:
        long = rt.spawn(tidy, (path, compute), timeout=3600)
        assert begun(path)
        with pytest.raises(TimeoutError):
            rt.spawn(spin, timeout=SHORT).result(30)
        assert not long.done() and long.cancel()


def test_of_coroutines(path):
    with dgmp.Runtime(procs=2) as rt:
        with pytest.raises(TimeoutError, match="ran longer than its timeout"):
            rt.spawn(await_for_ever, timeout=SHORT).result(30)


@pytest.mark.parametrize("how", [deaf, stubborn])
def test_after_its_grace_the_m_is_killed(path, how):
    with dgmp.Runtime(procs=2, grace=SHORT) as rt:
        other = rt.go(helpers.nap, 1)
        f = rt.go(how, path)
        assert begun(path) and f.cancel()
        with pytest.raises(dgmp.Cancelled, match="was cancelled and did not end within 0.3 s: its M .* was killed") as e:
            f.result(30)
        assert f.cancelled() and how.__name__ in str(e.value) and "spawned at" in str(e.value)
        assert other.result(30) == 1 and rt.go(abs, -1).result(30) == 1


def test_one_that_masks_the_signal(path):
    with dgmp.Runtime(procs=1, grace=SHORT) as rt:
        f = rt.go(masked, path)
        assert begun(path) and f.cancel()
        with pytest.raises(dgmp.Cancelled, match="did not end within 0.3 s"):
            f.result(30)


@pytest.mark.parametrize("how", [deaf, stubborn])
def test_after_its_timeout_and_grace_too(path, how):
    with dgmp.Runtime(procs=1) as rt:
        error = timed_out(rt, path, how, path, grace=SHORT)
        assert "ran longer than its timeout and did not end within 0.3 s" in str(error) and how.__name__ in str(error)
        assert rt.go(abs, -1).result(30) == 1


def test_an_infinite_grace(path):
    def slow_to_end(path):
        try:
            tidy(path, spin)
        finally:
            time.sleep(1)

    with dgmp.Runtime(procs=1, grace=0.1) as rt:
        f = rt.spawn(slow_to_end, (path,), grace=float("inf"))
        assert begun(path) and f.cancel()
        with pytest.raises(dgmp.Cancelled) as e:
            f.result(30)
        assert "was killed" not in str(e.value)


def test_who_is_parked_beside_it_follows_its_terms(path):
    def parked(there, back):
        there.send("here")
        return back.recv()

    with dgmp.Runtime(procs=1, max_ms=1, grace=SHORT) as rt:
        there, back = rt.chan(), rt.chan()
        ends, again = rt.spawn(parked, (there, back)), rt.spawn(parked, (there, back), retries=1)
        assert [there.recv(timeout=30) for _ in range(2)] == ["here"] * 2
        assert helpers.eventually(lambda: [g.wait_reason for g in rt.snapshot().gs].count("chan receive") == 2)
        f = rt.go(deaf, path)
        assert begun(path) and f.cancel()
        with pytest.raises(dgmp.WorkerDied, match="was parked"):
            ends.result(30)
        assert there.recv(timeout=30) == "here"
        back.send(5, timeout=30)
        assert again.result(30) == 5 and f.cancelled()


def test_a_timeout_may_be_retried(path):
    def slow_at_first(path):
        if not os.path.exists(path):
            tidy(path, spin)
        return "done"

    with dgmp.Runtime(procs=1) as rt:
        assert rt.spawn(slow_at_first, (path,), timeout=2, retries=9, retry_on=TimeoutError).result(60) == "done"


def test_and_so_may_one_that_was_killed_for_it(path):
    def deaf_at_first(path):
        if not os.path.exists(path):
            deaf(path)
        return "done"

    with dgmp.Runtime(procs=1) as rt:
        f = rt.spawn(deaf_at_first, (path,), timeout=2, grace=SHORT, retries=9, retry_on=TimeoutError, crash_limit=9)
        assert f.result(60) == "done"


def test_who_was_cancelled_is_not_run_again(path):
    with dgmp.Runtime(procs=1, grace=SHORT) as rt:
        f = rt.spawn(deaf, (path,), retries=5)
        assert begun(path) and f.cancel()
        with pytest.raises(dgmp.Cancelled):
            f.result(30)


def test_nopreempt_holds_it_off(path):
    def careful(path):
        with dgmp.nopreempt():
            Path(path).write_text("begun")
            end = time.monotonic() + 0.3
            while time.monotonic() < end:
                pass
            Path(path + ".done").write_text("")
        spin()

    with dgmp.Runtime(procs=1) as rt:
        f = rt.go(careful, path)
        assert begun(path) and f.cancel()
        with pytest.raises(dgmp.Cancelled):
            f.result(30)
        assert os.path.exists(path + ".done")


def test_the_next_g_of_that_m_is_not_hit(path):
    """Signals that come late find another G: none of those is interrupted."""
    with dgmp.Runtime(procs=1) as rt:
        for _ in range(30):
            f = rt.go(helpers.busy, 0.002)
            g = rt.go(helpers.busy, 0.002)
            f.cancel()
            assert g.result(30) == 0.002


def test_a_group_ends_those_that_run(path):
    def fails():
        begun(path)
        raise ValueError("first")

    with dgmp.Runtime(procs=2) as rt:
        with pytest.raises(ExceptionGroup):
            with dgmp.Group(runtime=rt) as group:
                group.go(tidy, path, compute)
                group.go(fails)
        assert Path(path + ".end").read_text() == "Cancelled True"


def test_idle_beside_one_that_waits_in_its_cleanup(path):
    """Who has been told, and waits, is looked at less and less often."""
    def waits(path):
        try:
            tidy(path, spin)
        finally:
            dgmp.sleep(3600)

    with dgmp.Runtime(procs=1) as rt:
        f = rt.go(waits, path)
        assert begun(path) and f.cancel()
        assert helpers.eventually(lambda: any(g.wait_reason == "sleep" for g in rt.snapshot().gs))
        assert not f.done() and f.cancel()
        with pytest.raises(dgmp.Cancelled):
            f.result(30)


def test_whose_time_is_up_as_it_waits_has_its_grace_too(path):
    def goes_on():
        try:
            Path(path).write_text("begun")
            dgmp.sleep(3600)
        except dgmp.Cancelled:
            spin()

    with dgmp.Runtime(procs=1) as rt:
        assert "did not end within 0.3 s" in str(timed_out(rt, path, goes_on, grace=SHORT))


def waits_on_and_on(path):
    while True:
        try:
            Path(path).write_text("begun")
            dgmp.sleep(3600)
        except dgmp.Cancelled:
            pass


def test_one_that_catches_it_and_waits_on_is_killed(path):
    with dgmp.Runtime(procs=1, grace=SHORT) as rt:
        f = rt.go(waits_on_and_on, path)
        assert begun(path) and f.cancel()
        with pytest.raises(dgmp.Cancelled, match="did not end within 0.3 s"):
            f.result(30)
        assert "did not end within 0.3 s" in str(timed_out(rt, path + "2", waits_on_and_on, path + "2"))
        assert rt.go(abs, -1).result(30) == 1


def test_but_not_beside_others_that_are_parked(path):
    with dgmp.Runtime(procs=1, max_ms=1, grace=SHORT) as rt:
        there, back = rt.chan(), rt.chan()
        other = rt.go(lambda: there.send("here") or back.recv())
        there.recv()
        f = rt.go(waits_on_and_on, path)
        assert begun(path) and f.cancel()
        with pytest.raises(TimeoutError):
            f.result(10 * SHORT)
        back.send("now")
        assert other.result(30) == "now"
        with pytest.raises(dgmp.Cancelled, match="did not end within 0.3 s"):
            f.result(30)


def test_an_import_is_not_torn(tmp_path, monkeypatch):
    """It ends before its G does."""
    (tmp_path / "slow_to_import.py").write_text("import time\nbegun = time.monotonic()\n"
                                                "while time.monotonic() < begun + 0.3:\n    pass\nwhole = True\n")
    monkeypatch.syspath_prepend(tmp_path)

    def imports():
        import slow_to_import

        spin()
        return slow_to_import

    def imported():
        import slow_to_import

        return slow_to_import.whole

    with dgmp.Runtime(procs=1) as rt:
        with pytest.raises(TimeoutError):
            rt.spawn(imports, timeout=0.1).result(30)
        assert rt.go(imported).result(30)


def test_a_builtin_as_the_gs_own_function():
    with dgmp.Runtime(procs=2) as rt:
        with pytest.raises(TimeoutError, match="ran longer than its timeout$"):
            rt.spawn(time.sleep, (3600,), timeout=SHORT).result(30)
        f = rt.go(time.sleep, 3600)
        assert helpers.eventually(lambda: any(g.state == "running" for g in rt.snapshot().gs)) and f.cancel()
        with pytest.raises(dgmp.Cancelled):
            f.result(30)


def test_one_whose_time_was_up_as_its_m_was_killed_for_another(path):
    with dgmp.Runtime(procs=1, grace=SHORT) as rt:
        late = rt.spawn(dgmp.sleep, (3600,), timeout=2)
        assert helpers.eventually(lambda: any(g.wait_reason == "sleep" for g in rt.snapshot().gs))
        stubborn = rt.spawn(deaf, (path,), timeout=3)
        with pytest.raises(TimeoutError, match="did not end within"):
            stubborn.result(30)
        with pytest.raises(TimeoutError, match="ran longer than its timeout"):
            late.result(30)
