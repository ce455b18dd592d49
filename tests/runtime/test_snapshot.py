"""dgmp.snapshot(): every G, M and P, from the program and inside Gs; and the dump at SIGQUIT."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

import dgmp
from tests import asleep, helpers
from tests.helpers import eventually

HERE = os.path.abspath(__file__)
FOR_LONG = 60 * 10**9


def line_of(text):
    with open(HERE) as file:
        return next(i for i, line in enumerate(file, 1) if text in line and "line_of" not in line)


def test_gs_say_what_they_do_and_where_they_come_from():
    with dgmp.Runtime(procs=1) as rt:
        waits = rt.go(asleep.park, time.monotonic_ns() + FOR_LONG)  # the one that waits
        assert eventually(lambda: rt.stats()["parks"] == 1)
        runs = rt.spawn(helpers.busy, (60,), name="busy")
        assert eventually(lambda: any(g.state == "running" for g in rt.snapshot().gs))
        queued = rt.go(helpers.identity, 1)
        shot = rt.snapshot()
        by_name = {g.name: g for g in shot.gs}
        (m,) = [m for m in shot.ms if m.g is not None]
        g = by_name["tests.asleep.park"]
        assert (g.state, g.wait_reason, g.owner) == ("waiting", "chan receive", "client")
        assert (g.m, g.pid, g.started) == (m.m, m.pid, True)
        assert 0 < g.waited < 60 and g.spawned_at == f"{HERE}:{line_of('# the one that waits')}"
        g = by_name["busy"]
        assert (g.state, g.wait_reason, g.waited, g.m, g.started) == ("running", "", None, m.m, True)
        assert (m.state, m.p, m.g) == ("running", 0, g.goid)
        g = by_name["tests.helpers.identity"]
        assert (g.state, g.wait_reason, g.m, g.pid, g.started) == ("runnable", "", None, None, False)
        (p,) = shot.ps
        assert p.m == m.m and p.schedtick >= 2
        assert p.runqsize + shot.runqueue + shot.clientqueue + (p.runnext is not None) == 1
        assert not queued.done() and not runs.done() and not waits.done()
        assert json.loads(json.dumps(shot.to_dict()))["gs"][-1]["name"] == "tests.helpers.identity"
        rt.close(cancel=True)


def look_from_inside():
    child = dgmp.go(asleep.park, time.monotonic_ns() + FOR_LONG)
    while not any(g.state == "waiting" for g in dgmp.snapshot().gs):
        dgmp.gosched()
    me = dgmp.current()
    (g,) = [g for g in dgmp.snapshot().gs if g.goid == me["g"]]
    (c,) = [g for g in dgmp.snapshot().gs if g.name == "tests.asleep.park"]
    assert not child.done()
    return g.state, g.m == me["m"], g.pid == os.getpid(), c.owner == f"m{me['m']}", c.spawned_at.startswith(HERE)


def test_inside_a_g():
    with dgmp.Runtime(procs=1) as rt:
        assert rt.go(look_from_inside).result(30) == ("running", True, True, True, True)
        rt.close(cancel=True)


def test_as_many_gs_as_there_are(rt):
    """Go: TestNumGoroutine."""
    futures = [rt.go(asleep.park, time.monotonic_ns() + FOR_LONG) for _ in range(100)]
    assert eventually(lambda: rt.stats()["parks"] == 100)
    rt.node.collect()
    shot = rt.snapshot()
    assert len(shot.gs) == rt.stats()["num_g"] == sum(not f.done() for f in futures)
    assert str(shot).count("[chan receive]: tests.asleep.park, m") == 100
    assert shot.dump(10).count("[chan receive]") == 10 and "... and 90 more Gs" in shot.dump(10)
    rt.close(cancel=True)


def test_nothing_is_stopped_and_nothing_is_mixed(rt):
    """Snapshots while Gs come and go: what is said about each fits together."""
    seen = 0
    while seen < 50_000:
        futures = [rt.go(helpers.identity, i) for i in range(1000)] + [rt.go(helpers.fib, 6)]
        while not futures[-1].done():
            for g in rt.snapshot().gs:
                seen += 1
                assert g.state in ("runnable", "running", "waiting", "dead")
                assert (g.waited is not None) == (g.state == "waiting"), g
                assert g.started or g.m is None, g
                assert g.name == "main" or g.name.startswith("tests.helpers."), g
        assert dgmp.gather(*futures)[-1] == 8


def test_a_g_of_each_kind_has_a_name(rt):
    names = {"builtins.abs": abs, "tests.helpers.identity": helpers.identity, "<lambda>": lambda x: x}
    fs = [rt.go(fn, 1) for fn in names.values()]
    found = [g.name for g in rt.snapshot().gs]
    assert dgmp.gather(*fs) == [1, 1, 1]
    for name in names:
        assert any(name in g for g in found) or len(found) < 3  # some may have been collected


def test_many_names_fill_half_of_the_table_only(rt):
    """A program may give each G a name of its own: those that do not fit are unknown, places never are."""
    for i in range(30_000):
        f = rt.spawn(int, name=f"name {i}")
        if i % 100 == 0:
            f.result()
    f = rt.go(helpers.nap, 60)
    g = next(g for g in rt.snapshot().gs if g.name == "tests.helpers.nap")
    assert g.spawned_at.startswith(HERE) and not f.done()
    rt.close(cancel=True)


def test_a_closed_runtime_has_no_snapshot():
    rt = dgmp.Runtime(procs=1)
    rt.close()
    with pytest.raises(dgmp.RuntimeClosed):
        rt.snapshot()


# ---------------------------------------------------------------------- SIGQUIT
QUIT = """
import sys
sys.path.insert(0, ".")
import signal, threading, time, dgmp
from tests import asleep, helpers
def main():
    dgmp.go(asleep.park, time.monotonic_ns() + 60 * 10**9)
    f = dgmp.spawn(helpers.busy, (60,), name="busy")
    while not {"waiting", "running"} <= {g.state for g in dgmp.snapshot().gs if g.name != "main"}:
        time.sleep(0.005)
    %s
    print("ready", flush=True)
    %s
main()
"""


def quit_it(tmp_path, before="", wait="f.result()", command=()):
    path = tmp_path / "script.py"
    path.write_text(QUIT % (before, wait))
    program = subprocess.Popen([sys.executable, *command, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert program.stdout.readline() == "ready\n"
        program.send_signal(signal.SIGQUIT)
        said, err = program.communicate(timeout=20)
        return program.returncode, said, err
    finally:
        program.kill()
        program.communicate()


@pytest.mark.parametrize("command", [(), ("-m", "dgmp", "run")])
@pytest.mark.parametrize("wait", ["f.result()", "time.sleep(60)"])
def test_sigquit_dumps_all_gs(tmp_path, command, wait):
    code, said, err = quit_it(tmp_path, wait=wait, command=command)
    assert (code, said) == (-signal.SIGQUIT, "")
    assert err.startswith("SIGQUIT: quit\n\nG ")
    assert re.search(r"^G \d+ \[chan receive\]: tests\.asleep\.park, m\d+ pid \d+\n\tspawned at .*script.py:7$", err, re.M)
    assert re.search(r"^G \d+ \[running\]: busy, m\d+ pid \d+\n\tspawned at .*script.py:8$", err, re.M)
    assert re.search(r"^P0: ", err, re.M) and re.search(r"^M\d+: running pid=\d+ p=\d g=\d+", err, re.M)


def test_a_handler_of_the_programs_own_is_left_alone(tmp_path):
    own = "signal.signal(signal.SIGQUIT, lambda *_: sys.exit(7))"
    assert quit_it(tmp_path, before=own) == (7, "", "")


def test_the_handler_goes_with_the_last_runtime():
    assert signal.getsignal(signal.SIGQUIT) is signal.SIG_DFL
    with dgmp.Runtime(procs=1):
        with dgmp.Runtime(procs=1):
            assert signal.getsignal(signal.SIGQUIT) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGQUIT) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGQUIT) is signal.SIG_DFL


def test_a_runtime_started_in_a_thread_has_no_handler():
    handlers = []

    def start():
        with dgmp.Runtime(procs=1):
            handlers.append(signal.getsignal(signal.SIGQUIT))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert handlers == [signal.SIG_DFL]
