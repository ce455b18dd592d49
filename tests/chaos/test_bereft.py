"""The coordinator dies: every wait of the program ends with CoordinatorDied, soon, and nothing of the node is left."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import subprocess
import threading
import time

import pytest

import dgmp
from tests import helpers
from tests.chaos.kills import kill_a_client, kill_coordinators
from tests.helpers import PYTHON, alive, descendants, eventually

PATIENCE = 30  # seconds, for a machine that has other things to do; without a death these waits last for a minute


@pytest.fixture
def doomed():
    """A runtime, and what kills its coordinator once all that is to happen first has."""
    with dgmp.Runtime(procs=2) as rt:
        rt.main.result(PATIENCE)
        yield rt
        assert eventually(lambda: not descendants(os.getpid()), PATIENCE), "left although it was noticed"


def kill(rt, number=signal.SIGKILL):
    os.kill(rt._pid, number)


def in_thread(function, *args):
    """Runs it; what it raises is in the list that is returned, with the thread."""
    raised = []

    def run():
        try:
            function(*args)
            raised.append(None)
        except BaseException as e:
            raised.append(e)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, raised


def in_result(rt):
    return rt.spawn(time.sleep, (60,)).result


def in_gather(rt):
    futures = [rt.go(dgmp.sleep, 60) for _ in range(3)]
    return lambda: dgmp.gather(*futures)


def in_many(rt):
    futures = [rt.go(dgmp.sleep, 60) for _ in range(200)]
    return lambda: dgmp.gather(*futures)


def with_a_timeout(rt):
    future = rt.go(dgmp.sleep, 60)
    return lambda: future.result(60)


def in_receive(rt):
    return rt.chan().recv


def in_send(rt):
    chan = rt.chan()
    return lambda: chan.send(1)


def in_iteration(rt):
    chan = rt.chan()
    return lambda: list(chan)


def in_select(rt):
    first, second = rt.chan(), rt.chan()
    return lambda: dgmp.select(dgmp.recv(first), dgmp.send(second, 1))


def in_mutex(rt):
    mutex = dgmp.Mutex(runtime=rt)
    mutex.lock()
    return mutex.lock


def in_rwmutex(rt):
    mutex = dgmp.RWMutex(runtime=rt)
    mutex.rlock()
    return mutex.lock


def in_semaphore(rt):
    semaphore = dgmp.Semaphore(1, runtime=rt)
    semaphore.acquire()
    return semaphore.acquire


def in_waitgroup(rt):
    group = dgmp.WaitGroup(runtime=rt)
    group.add(1)
    return group.wait


def in_map(rt):
    results = rt.map(time.sleep, [60] * 4, chunksize=1)
    return lambda: next(results)


def in_map_unordered(rt):
    results = rt.map_unordered(time.sleep, [60] * 4, chunksize=1)
    return lambda: next(results)


def in_group(rt):
    group = dgmp.Group(runtime=rt)

    def wait():
        try:
            with group:
                group.go(dgmp.sleep, 60)
        except ExceptionGroup as e:
            raise e.exceptions[0] from None

    return wait


def in_asyncio(rt):
    future = rt.go(dgmp.sleep, 60)

    async def wait():
        await future

    return lambda: asyncio.run(wait())


WAITS = [in_result, in_gather, in_many, with_a_timeout, in_receive, in_send, in_iteration, in_select, in_mutex, in_rwmutex,
         in_semaphore, in_waitgroup, in_map, in_map_unordered, in_group, in_asyncio]


@pytest.mark.parametrize("wait", WAITS)
def test_every_wait_learns_of_it(doomed, wait):
    thread, raised = in_thread(wait(doomed))
    thread.join(0.05)  # it may be before its wait, or in it
    kill(doomed)
    thread.join(PATIENCE)
    assert [type(e) for e in raised] == [dgmp.CoordinatorDied]


def spawns(rt):
    rt.go(abs, -1)


def round_trips(rt):
    rt.go(abs, rt.go(abs, -1)).result()


def maps(rt):
    list(rt.map(abs, range(1000)))


def carries(rt):
    rt.go(len, bytes(3_000_000)).result()


def sends(rt):
    chan = rt.chan()
    rt.go(chan.recv)
    chan.send([1])


def awaits(rt):
    async def all_of(futures):
        for future in futures:
            await future

    asyncio.run(all_of([rt.go(abs, -1) for _ in range(10)]))


def resizes(rt):
    rt.gomaxprocs(1)
    rt.gomaxprocs(2)


def looks(rt):
    rt.stats()
    rt.snapshot()


def polls(rt):
    future = rt.go(dgmp.sleep, 60)
    while not future.done():
        time.sleep(0.001)
    future.result()


def groups(rt):
    try:
        with dgmp.Group(runtime=rt) as group:
            group.go(abs, -1)
    except ExceptionGroup as e:
        raise e.exceptions[0] from None


def ticks(rt):
    for _ in dgmp.tick(0.001, runtime=rt):
        pass


@pytest.mark.parametrize("seed", range(3))
def test_whatever_threads_are_at(doomed, seed):
    def again_and_again(act):
        while True:
            act(doomed)

    acts = [spawns, round_trips, maps, carries, sends, awaits, resizes, looks, polls, groups, ticks]
    threads = [in_thread(again_and_again, act) for act in acts]
    time.sleep(random.Random(seed).uniform(0, 0.3))
    kill(doomed)
    for thread, _ in threads:
        thread.join(PATIENCE)
    assert {act.__name__: [type(e) for e in raised] for act, (_, raised) in zip(acts, threads, strict=True)} == {
        act.__name__: [dgmp.CoordinatorDied] for act in acts}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM])
def test_by_any_signal(doomed, number):
    future = doomed.go(dgmp.sleep, 60)
    kill(doomed, number)
    with pytest.raises(dgmp.CoordinatorDied, match="coordinator died"):
        future.result(PATIENCE)


def test_many_threads_at_once(doomed):
    waits = [in_thread(wait(doomed)) for wait in WAITS[:-3]]
    kill(doomed)
    for thread, _ in waits:
        thread.join(PATIENCE)
    assert [type(e) for _, raised in waits for e in raised] == [dgmp.CoordinatorDied] * len(waits)


def test_who_is_told_finds_that_nothing_runs_any_more(doomed, monkeypatch):
    """Found by `make chaos SEED=3015`: Gs could begin after the client had been told."""
    told = []
    future = doomed.go(dgmp.sleep, 60)

    def stop(stop=doomed.node.stop):
        told.append(future._state)
        stop()

    monkeypatch.setattr(doomed.node, "stop", stop)
    kill(doomed)
    with pytest.raises(dgmp.CoordinatorDied):
        future.result(PATIENCE)
    assert told[0] == 0


def test_callbacks_are_called(doomed):
    called = threading.Event()
    future = doomed.go(dgmp.sleep, 60)
    future.add_done_callback(lambda f: called.set())
    kill(doomed)
    assert called.wait(PATIENCE)
    assert isinstance(future.exception(), dgmp.CoordinatorDied)


def test_it_is_noticed_though_nobody_waits(doomed):
    """A program that computes: its Futures end, and the processes that its Gs have started are gone."""
    future = doomed.go(subprocess.run, ["sleep", "60"])
    assert eventually(lambda: any("sleep 60" in line for pid, (_, line) in helpers.processes().items()
                                  if pid in descendants(os.getpid())))
    family = descendants(os.getpid())
    kill(doomed)
    assert eventually(lambda: not any(alive(pid) for pid in family))
    assert eventually(lambda: future._state)


def gone(pid):
    return eventually(lambda: not alive(pid))


def test_go_right_after_it_says_so(doomed):
    pid = doomed._pid
    kill(doomed)
    assert gone(pid)
    with pytest.raises(dgmp.CoordinatorDied):
        doomed.go(abs, -1)


RIGHT_AFTER = """
import os, signal, dgmp
from dgmp.api import runtime
from tests.helpers import alive, eventually
pending = dgmp.go(dgmp.sleep, 60)
chan = dgmp.Chan()
for _ in range(5):
    first = runtime._default
    pid = first._pid
    os.kill(pid, signal.SIGKILL)
    while alive(pid):
        pass
    assert {use} == 1
    assert runtime._default is not first and first._closed
try:
    pending.result()
except dgmp.CoordinatorDied as e:
    print(e)
"""


@pytest.mark.parametrize("use", ["dgmp.go(abs, -1).result()", "next(dgmp.map(abs, [-1]))", "dgmp.spawn(abs, (-1,)).result()",
                                 "len([dgmp.Chan(1)])", "dgmp.stats()['gomaxprocs'] // 2 or 1"])
def test_go_right_after_it_boots_anew(use):
    done = subprocess.run([PYTHON, "-c", RIGHT_AFTER.format(use=use)], capture_output=True, text=True, timeout=60,
                          env=os.environ | {"DGMP_PROCS": "2"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "the runtime's coordinator died; what was pending is lost\n"


def test_what_was_read_in_place_stays(doomed):
    numpy = pytest.importorskip("numpy")
    array = doomed.go(numpy.arange, 100_000).result(PATIENCE)
    kill(doomed)
    with pytest.raises(dgmp.CoordinatorDied):
        doomed.go(dgmp.sleep, 60).result(PATIENCE)
    assert int(array.sum()) == 4_999_950_000


def test_while_it_makes_ms(doomed):
    """Many Ms block, so that more are being made."""
    futures = [doomed.go(time.sleep, 60) for _ in range(20)]
    assert eventually(lambda: doomed.stats()["ms_made"] > 3)
    kill(doomed)
    for future in futures:
        with pytest.raises(dgmp.CoordinatorDied):
            future.result(PATIENCE)


def test_while_it_repairs(doomed):
    futures = [doomed.go(time.sleep, 60) for _ in range(4)]
    assert eventually(lambda: len(doomed.node.view.pids()) >= 4)
    for _, pid in doomed.node.view.pids():
        helpers.kill(pid)
    kill(doomed)
    for future in futures:
        with pytest.raises((dgmp.CoordinatorDied, dgmp.WorkerDied)):
            future.result(PATIENCE)
    with pytest.raises(dgmp.CoordinatorDied):
        doomed.go(dgmp.sleep, 60).result(PATIENCE)


def test_a_stopped_zygote_ends_with_it(doomed):
    future = doomed.go(dgmp.sleep, 60)
    zygote = helpers.zygote_of(doomed._pid)
    os.kill(zygote, signal.SIGSTOP)
    kill(doomed)
    assert gone(zygote)
    with pytest.raises(dgmp.CoordinatorDied):
        future.result(PATIENCE)


def test_with_the_client_at_once():
    """Nobody is left to clean up but the zygote."""
    code = "import dgmp, subprocess; f = dgmp.go(subprocess.run, ['sleep', '60']); print('ready', flush=True); f.result()"
    program = subprocess.Popen([PYTHON, "-c", code], stdout=subprocess.PIPE, text=True)
    assert program.stdout.readline() == "ready\n"
    assert eventually(lambda: any("sleep 60" in helpers.processes().get(p, (0, ""))[1] for p in descendants(program.pid)))
    family = descendants(program.pid)
    coordinator = helpers.coordinator_of(program.pid)
    program.kill()
    os.kill(coordinator, signal.SIGKILL)
    program.wait(PATIENCE)
    program.stdout.close()
    assert eventually(lambda: not any(alive(p) for p in family))


def test_dgmp_run_ends_and_leaves_nothing(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import subprocess\nprint('ready', flush=True)\nsubprocess.run(['sleep', '60'])\n")
    program = subprocess.Popen([PYTHON, "-m", "dgmp", "run", str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    assert program.stdout.readline() == "ready\n"
    assert eventually(lambda: any("sleep 60" in helpers.processes().get(p, (0, ""))[1] for p in descendants(program.pid)))
    family = descendants(program.pid)
    coordinator = helpers.coordinator_of(program.pid)
    os.kill(coordinator, signal.SIGKILL)
    _, err = program.communicate(timeout=PATIENCE)
    assert (program.returncode, err) == (2, "dgmp: the runtime's coordinator died; what was pending is lost\n")
    assert eventually(lambda: not any(alive(p) for p in family))


@pytest.mark.parametrize("seed", range(2))
def test_coordinators_killed_at_random_moments(seed):
    assert kill_coordinators(seed, 2, PATIENCE) == []


@pytest.mark.parametrize("seed", range(4))
def test_clients_killed_at_random_moments(seed):
    assert kill_a_client(seed, PATIENCE) == []


def test_the_segment_goes_with_the_runtime():
    def segments():
        with open("/proc/self/maps") as maps:
            return maps.read().count("memfd:dgmp")

    gc.collect()
    gc.disable()
    before = segments()
    with dgmp.Runtime(procs=1) as rt:
        chan = rt.chan(1)
        chan.send([1])
        chan.recv()
        rt.go(abs, -1).result()
        during = segments()
    del rt, chan
    after = segments()
    gc.enable()
    assert (during, after) == (before + 1, before)
