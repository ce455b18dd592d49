"""The crash matrix: at each stage of a G each way to fail, or to die, and exactly what becomes of it; what waits for the dead,
and the others, who are unharmed.  (After loky's test_reusable_executor.)"""

import asyncio
import collections
import contextlib
import os
import queue
import random
import re
import signal
import subprocess
import threading
from pathlib import Path

import pytest

import dgmp
from tests import helpers
from tests.chaos import dying
from tests.chaos.dying import DIES, IN_CLIENT, IN_M, RAISES
from tests.chaos.test_kill import gone
from tests.helpers import PYTHON, descendants

ROOT = str(Path(__file__).parent.parent.parent)
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def node():
    with dgmp.Runtime(procs=2) as runtime:
        yield runtime


@pytest.fixture
def rt(node):
    """One for all: each test leaves it as it was."""
    return node


# ---------------------------------------------------------------------- how the call is made
def directly(rt, stage, act):
    fn, make = IN_M[stage]
    f = rt.go(fn, make(act))
    return dying.how_it_ended(f.exception(20)), f.spawned_at


def from_a_callback(rt, stage, act):
    fn, make = IN_M[stage]
    made = queue.SimpleQueue()
    rt.go(abs, -1).add_done_callback(lambda _: made.put(rt.go(fn, make(act))))
    f = made.get(timeout=20)
    return dying.how_it_ended(f.exception(20)), f.spawned_at


def from_another_g(rt, stage, act):
    how, place, pid = rt.go(dying.try_on_another_m, stage, act).result(20)
    assert how[2] != pid
    return how, place


SUBMIT = [directly, from_a_callback, from_another_g]
by_name = pytest.mark.parametrize
names = {"ids": lambda x: getattr(x, "__name__", x)}


# ---------------------------------------------------------------------- stages in the M
def raised(stage, act):
    """(type, pattern of the text) of what a G ends with at whose stage `act` is called."""
    kind, text = RAISES[act]
    said = f"{kind.__name__}: {re.escape(text)}"
    if stage == "collect the arguments":  # Python writes it to stderr, and goes on
        return "NoneType", "None"
    if stage == "run" or kind is MemoryError:
        return kind.__name__, re.escape(text)
    if stage == "unpickle the task":
        return "EncodingError", rf"the arguments of ignore\(\) cannot be unpickled: {said}"
    return "EncodingError", rf"the result \(OnPickle\) of G \d+ \(give\) cannot be pickled: .*{said}"


@by_name("submit", SUBMIT, **names)
@by_name("act", RAISES, **names)
@by_name("stage", IN_M)
def test_what_is_raised_ends_its_g_alone(rt, stage, act, submit):
    pids = set(rt.node.view.pids())
    (kind, text, _, _), _ = submit(rt, stage, act)
    expected, pattern = raised(stage, act)
    assert kind == expected and re.match(pattern, text), text
    assert helpers.still_fine(rt) and pids <= set(rt.node.view.pids())  # and no M


@by_name("submit", SUBMIT, **names)
@by_name("act", DIES, **names)
@by_name("stage", IN_M)
def test_a_death_ends_its_g_alone_and_says_which_and_how(rt, stage, act, submit):
    (kind, text, pid, exitcode), place = submit(rt, stage, act)
    how, code = DIES[act]
    assert (kind, exitcode) == ("WorkerDied", code)
    assert re.match(rf"G \d+ \({IN_M[stage][0].__name__}\), spawned at {re.escape(place)}, ", text)
    assert re.search(rf"m\d+, pid {pid}\b.*{how}", text) and not helpers.alive(pid)
    assert helpers.still_fine(rt)


@by_name("act", DIES, **names)
def test_a_parent_that_is_parked_on_the_dead_m_is_told_so(node, act):
    """With one P the child runs in its parent's process."""
    with dgmp.Runtime(procs=1, max_ms=1) as rt:
        f = rt.go(dying.try_on_this_m, "run", act)
        error = f.exception(20)
        how, code = DIES[act]
        assert type(error) is dgmp.WorkerDied and error.exitcode == code and not helpers.alive(error.pid)
        assert re.match(rf"G \d+ \(try_on_this_m\), spawned at {re.escape(f.spawned_at)}, was parked on", str(error))
        assert re.search(rf"pid {error.pid}\b.* {how} while it ran G \d+", str(error))
        assert helpers.still_fine(rt)


# ---------------------------------------------------------------------- stages in whoever calls go
def seen_by_the_caller(stage, act):
    """(type, pattern) of what `stage` raises in its caller."""
    kind, text = RAISES[act]
    said = f"{kind.__name__}: {re.escape(text)}"
    if stage in (dying.collect_the_result, dying.run_a_callback):  # said on stderr, and logged
        return type(None), "None"
    if kind is MemoryError:
        return kind, re.escape(text)
    if stage is dying.pickle_the_task:
        return dgmp.EncodingError, rf"argument 1 of ignore\(\) cannot be pickled: .*{said}"
    return dgmp.EncodingError, rf"the result of give cannot be unpickled: {said}"


def caught(fn, *args):
    try:
        fn(*args)
    except BaseException as e:
        return e
    return None


@by_name("act", RAISES, **names)
@by_name("stage,where", [(stage, where) for stage in IN_CLIENT for where in ("in the program", "in a callback", "in a G")
                         if (stage, where) != (dying.run_a_callback, "in a callback")], **names)  # it waits for another
def test_what_is_raised_in_the_caller_is_told_to_it(node, monkeypatch, stage, act, where):
    monkeypatch.setattr("dgmp.api.runtime._default", node)
    if where == "in a G":
        error = node.go(stage, act).exception(20)
    elif where == "in the program":
        error = caught(stage, act)
    else:
        made = queue.SimpleQueue()
        node.go(abs, -1).add_done_callback(lambda _: made.put(caught(stage, act)))
        error = made.get(timeout=20)
    expected, pattern = seen_by_the_caller(stage, act)
    assert type(error) is expected and re.match(pattern, str(error)), repr(error)
    assert helpers.still_fine(node)


@by_name("act", DIES, **names)
@by_name("stage", IN_CLIENT, **names)
def test_a_parent_that_dies_at_a_stage_of_its_child(rt, stage, act):
    f = rt.go(stage, act)
    error = f.exception(20)
    how, code = DIES[act]
    assert type(error) is dgmp.WorkerDied and error.exitcode == code
    assert f"({stage.__name__}), spawned at {f.spawned_at}, " in str(error)
    assert re.search(rf"pid {error.pid}\b.*{how}", str(error))
    assert helpers.still_fine(rt)


PROGRAM = """
import sys, dgmp
from tests.chaos import dying
dgmp.gather(*[dgmp.go(abs, -i) for i in range(20)])
print("ready", flush=True)
sys.stdin.readline()
dying.{stage}(dying.{act})
"""


@by_name("act", DIES, **names)
@by_name("stage", IN_CLIENT, **names)
def test_a_program_that_dies_at_a_stage_of_its_g_leaves_nothing(node, stage, act):
    code = PROGRAM.format(stage=stage.__name__, act=act.__name__)
    program = subprocess.Popen([PYTHON, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, cwd=ROOT)
    assert program.stdout.readline() == "ready\n"
    family = descendants(program.pid)
    assert len(family) >= 3
    program.communicate("go on\n", timeout=60)
    assert program.returncode == DIES[act][1]
    assert gone(family)


# ---------------------------------------------------------------------- many deaths at once
@by_name("n", [1, 2, 5, 13])
def test_ms_that_kill_each_other(node, n):
    """Each kills the next one, after its own delay: who is killed first kills nobody any more."""
    with dgmp.Runtime(procs=n) as rt:
        for step in (0, 0.0005):
            pids, victims = dgmp.Chan(n, runtime=rt), dgmp.Chan(n, runtime=rt)
            futures = [rt.go(dying.kill_another, pids, victims, i * step) for i in range(n)]
            found = [pids.recv(timeout=20) for _ in range(n)]
            assert len(set(found)) == n
            for i in range(n):
                victims.send(found[(i + 1) % n], timeout=20)
            errors = [f.exception(20) for f in futures]
            dead = {error.pid for error in errors if error is not None}
            assert dead and dead <= set(found)
            assert all(error is None or (type(error), error.exitcode) == (dgmp.WorkerDied, -signal.SIGKILL) for error in errors)
            assert helpers.still_fine(rt)


def kill_at_random(rt, rng, ended, rounds=30):
    for _ in range(rounds):
        if ended.wait(rng.random() * 0.02):
            return
        pids = [pid for _, pid in rt.node.view.pids()]
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(pids), signal.SIGKILL)


def results(futures, default=None):
    """Theirs; default for those whose M was killed."""
    found = []
    for f in futures:
        error = f.exception(30)
        assert error is None or (type(error), error.exitcode) == (dgmp.WorkerDied, -signal.SIGKILL), error
        found.append(default if error else f.result())
    return found


@by_name("seed", range(3))
def test_ms_are_killed_while_the_number_of_ps_changes(node, seed):
    rng, ended = random.Random(seed), threading.Event()
    with dgmp.Runtime(procs=2) as rt:
        killer = threading.Thread(target=kill_at_random, args=(rt, rng, ended))
        killer.start()
        inside = [rt.go(dying.resize, 20) for _ in range(2)]
        futures = []
        for i in range(60):
            futures += [rt.go(helpers.fib, 5) for _ in range(5)]
            assert 1 <= rt.gomaxprocs(i % 5 + 1) <= 5
        assert set(results(futures)) <= {5, None}
        ended.set()
        killer.join()
        results(inside)
        rt.gomaxprocs(3)
        assert rt.gomaxprocs(2) == 3 and helpers.still_fine(rt)


@by_name("seed", range(3))
def test_many_threads_submit_while_ms_are_killed(node, seed):
    """Also from callbacks, and from Gs: every call ends once, with its own result or with WorkerDied."""
    rng, ended = random.Random(seed), threading.Event()
    with dgmp.Runtime(procs=2) as rt:
        told = collections.Counter()
        found: dict[int, list] = {}

        def submit(number):
            futures = [rt.go(helpers.add, number, i) for i in range(150)]
            for f in futures:
                f.add_done_callback(lambda f: told.update([id(f)]))
            found[number] = [x - number - i if x is not None else None for i, x in enumerate(results(futures))]
            assert helpers.eventually(lambda: all(told[id(f)] == 1 for f in futures))

        threads = [threading.Thread(target=submit, args=(1000 * n,)) for n in range(8)]
        killer = threading.Thread(target=kill_at_random, args=(rt, rng, ended, 10))
        for thread in (*threads, killer):
            thread.start()
        for thread in threads:
            thread.join()
        ended.set()
        killer.join()
        assert len(found) == 8 and all(set(x) <= {0, None} and x.count(0) > 50 for x in found.values())
        assert helpers.still_fine(rt)


# ---------------------------------------------------------------------- maps and closing
def items(n):
    yield from range(n)
    raise LookupError("out of items")


@by_name("chunksize", [None, 1, 7])
def test_a_map_whose_input_raises_gives_what_came_before(rt, chunksize):
    for n in (0, 1, 100, 1000):
        got = []
        with pytest.raises(LookupError, match="out of items"):
            for x in rt.map(helpers.identity, items(n), chunksize=chunksize):
                got.append(x)
        assert got == list(range(n))
    assert helpers.still_fine(rt)


def test_a_map_whose_items_kill_their_ms_goes_on(rt):
    """Each chunk of which an item kills its M ends so, item by item, and the input raises in the end."""
    got, died = [], 0
    values = rt.map(dying.kill_if_multiple_of_50, items(200), chunksize=5)
    while True:
        try:
            got.append(next(values))
        except dgmp.WorkerDied:
            died += 1
        except LookupError:
            break
    assert died == 4 * 5 and got == [x for x in range(200) if x % 50 >= 5]
    assert helpers.still_fine(rt)


@by_name("cancel", [True, False])
def test_close_while_the_queues_are_full(node, cancel):
    """The ring, the global queue, and a thread that is stopped as there are too many."""
    rt = dgmp.Runtime(procs=2)
    rt.node.quota = 3000
    gate = dgmp.Chan(runtime=rt)
    blockers = [rt.go(dying.wait_for, gate) for _ in range(2)]
    futures, error, begun = [], [], threading.Event()

    def submit():
        try:
            while True:
                futures.append(rt.go(helpers.add, len(futures), 0))
                if len(futures) == 2500:
                    begun.set()
        except dgmp.DgmpError as e:
            error.append(e)

    thread = threading.Thread(target=submit)
    thread.start()
    assert begun.wait(20)
    if not cancel:
        for _ in blockers:
            gate.send(None)
    rt.close(cancel=cancel)
    thread.join(20)
    assert not thread.is_alive() and type(error[0]) is dgmp.RuntimeClosed
    ended = [f.exception(20) for f in futures]
    assert {type(e) for e in ended} <= {type(None), dgmp.RuntimeClosed, dgmp.Cancelled}
    assert all(f.result() == i for i, (f, e) in enumerate(zip(futures, ended, strict=True)) if e is None)
    assert cancel or ended.count(None) >= 2500


# ---------------------------------------------------------------------- who waits learns of it
def test_a_parent_learns_of_its_childs_death(rt):
    assert rt.go(dying.catch, dying.kill).result(20) == ["WorkerDied"] * 4


def test_a_group_learns_of_it_and_cancels_the_others(node, monkeypatch):
    monkeypatch.setattr("dgmp.api.runtime._default", node)
    assert node.go(dying.run_group).result(20) == dying.run_group() == ("WorkerDied", "Cancelled")


def test_the_next_holder_of_a_mutex_learns_of_it(rt):
    mutex = dgmp.Mutex(runtime=rt)
    assert type(rt.go(dying.lock_and_die, mutex).exception(20)) is dgmp.WorkerDied
    with pytest.raises(dgmp.HolderDied):
        mutex.lock()
    with mutex:
        pass


def test_a_channel_forgets_who_died_waiting_for_it(rt):
    """Neither a value goes to a dead receiver, nor is one taken from a dead sender; selects likewise."""
    c, pids = dgmp.Chan(runtime=rt), dgmp.Chan(8, runtime=rt)
    dead = [rt.go(fn, pids, c) for fn in (dying.receive, dying.select_receive)]
    for _ in dead:
        pids.recv(timeout=20)
    assert helpers.eventually(lambda: len([g for g in rt.snapshot().gs if g.wait_reason in ("chan receive", "select")]) == 2)
    kill_all(rt)
    assert all(type(f.exception(20)) is dgmp.WorkerDied for f in dead)
    assert not c.try_send("lost") and dgmp.select(dgmp.send(c, "lost"), timeout=0)[0] == -1
    dead = [rt.go(fn, pids, c) for fn in (dying.send, dying.select_send)]
    for _ in dead:
        pids.recv(timeout=20)
    assert helpers.eventually(lambda: len([g for g in rt.snapshot().gs if g.wait_reason in ("chan send", "select")]) == 2)
    kill_all(rt)
    assert all(type(f.exception(20)) is dgmp.WorkerDied for f in dead)
    assert c.try_recv() == (None, False)
    f = rt.go(dying.receive, pids, c)
    c.send("found", timeout=20)
    assert f.result(20) == "found"


def kill_all(rt):
    pids = [pid for _, pid in rt.node.view.pids()]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert helpers.eventually(lambda: not any(helpers.alive(pid) for pid in pids))


async def await_in_the_client(rt):
    alone, other = rt.go(dying.kill), rt.go(helpers.identity, 5)
    with pytest.raises(dgmp.WorkerDied) as e:
        await alone
    with pytest.raises(dgmp.WorkerDied):
        await asyncio.gather(other, rt.go(dying.abort))
    return e.value.exitcode, await other


def test_coroutines_learn_of_it(rt):
    assert asyncio.run(await_in_the_client(rt)) == (-signal.SIGKILL, 5)
    assert rt.go(dying.await_a_death).result(20) == ("WorkerDied", -signal.SIGKILL)
    assert helpers.still_fine(rt)


def test_async_gs_die_with_the_m_that_runs_them_and_others_take_their_place(rt):
    pids = dgmp.Chan(3, runtime=rt)
    futures = [rt.go(dying.sleep_there, pids) for _ in range(3)]
    (pid,) = {pids.recv(timeout=20) for _ in futures}
    os.kill(pid, signal.SIGKILL)
    for f in futures:
        error = f.exception(20)
        assert type(error) is dgmp.WorkerDied and (error.pid, error.exitcode) == (pid, -signal.SIGKILL)
    assert rt.go(dying.await_a_death).result(20) == ("WorkerDied", -signal.SIGKILL)
    assert helpers.still_fine(rt)
