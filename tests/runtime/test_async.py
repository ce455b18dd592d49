"""Coroutines as Gs."""

import asyncio
import contextvars
import functools
import gc
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest

import dgmp
from dgmp.runtime.aio import is_coroutine_function
from tests import helpers
from tests.helpers import eventually


@pytest.fixture(scope="module")
def node():
    """The embedded runtime, for all tests that need none of their own."""
    from dgmp.api import runtime

    dgmp.go(int).result()
    yield runtime._default
    runtime._default.close(cancel=True)


async def nap(x, seconds=0.01):
    await asyncio.sleep(seconds)
    return x, os.getpid(), dgmp.goid()


class Thing:
    async def method(self, x):
        return x

    async def __call__(self, x):
        return x

    def plain(self, x):
        return x


@dgmp.task
async def a_task(x):
    return x


def returns_a_coroutine(x):
    return Thing().method(x)


# ---------------------------------------------------------------- what is a coroutine function, and runs
def test_is_coroutine_function():
    thing = Thing()
    for fn in (nap, functools.partial(nap, 1), thing.method, Thing.method, thing, a_task):
        assert is_coroutine_function(fn)
    for fn in (thing.plain, functools.partial(int), int, returns_a_coroutine, dgmp.task(int)):
        assert not is_coroutine_function(fn)


@pytest.mark.parametrize("fn", [Thing().method, Thing(), functools.partial(Thing().method), a_task, returns_a_coroutine,
                                functools.partial(Thing.method, Thing()), lambda x: nap(x)])
def test_all_sorts_of_coroutine_functions(node, fn):
    results = dgmp.gather(*[dgmp.go(fn, i) for i in range(20)])
    assert [x[0] if type(x) is tuple else x for x in results] == list(range(20))


def test_a_closure(node):
    y = 5

    async def local(x):
        await asyncio.sleep(0)
        return x + y

    assert dgmp.gather(*[dgmp.go(local, i) for i in range(50)]) == list(range(5, 55))


def test_a_thousand_at_once_on_one_m(node):
    first = dgmp.go(nap, 0, 3600)  # where it is, the others are, however long they take to come
    got = dgmp.gather(*[dgmp.go(nap, i, 0.05) for i in range(1000)])
    first.cancel()
    assert [x for x, _, _ in got] == list(range(1000))
    assert len({goid for _, _, goid in got}) == 1000
    assert len({pid for _, pid, _ in got}) == 1


def test_other_gs_go_on_meanwhile(node):
    asyncs = [dgmp.go(nap, i, 3600) for i in range(10)]
    assert dgmp.gather(*[dgmp.go(int, i) for i in range(200)]) == list(range(200))
    assert not any(f.done() for f in asyncs)
    for f in asyncs:
        assert f.cancel() and type(f.exception(20)) is dgmp.Cancelled


def test_one_m_runs_both():
    with dgmp.Runtime(procs=1, max_ms=1) as rt:
        asyncs = [rt.go(nap, i, 0.1) for i in range(10)]
        assert dgmp.gather(*[rt.go(int, i) for i in range(100)]) == list(range(100))
        sleeper = rt.go(dgmp.sleep, 0.05)
        assert [x for x, _, _ in dgmp.gather(*asyncs)] == list(range(10))
        sleeper.result(30)


async def spawns_and_awaits(n):
    return sum([await dgmp.go(helpers.add, i, 1) for i in range(n)]) + sum(await asyncio.gather(
        *[as_coroutine(dgmp.go(nap, i)) for i in range(n)]))


async def as_coroutine(future):
    return (await future)[0]


@pytest.mark.parametrize("options", [{"procs": 1, "max_ms": 1}, {"procs": 1}, {"procs": 2}])
def test_awaiting_futures(options):
    with dgmp.Runtime(**options) as rt:
        assert rt.go(spawns_and_awaits, 10).result(60) == 55 + 45


async def awaits_in_the_client(gate):
    with pytest.raises(ValueError, match="seven"):
        await dgmp.go(helpers.fail, "seven")
    done = dgmp.go(int, 3)
    while not done.done():
        await asyncio.sleep(0.001)
    assert await done == 3
    slow = dgmp.go(waits_for, gate.with_name("begun"), gate)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(as_coroutine(slow), 0.05)
    assert not slow.done()
    gate.touch()
    return await asyncio.gather(*[as_coroutine(dgmp.go(nap, i)) for i in range(20)]), await slow


def test_awaiting_futures_in_a_loop_of_the_client(node, tmp_path):
    assert asyncio.run(awaits_in_the_client(tmp_path / "gate")) == (list(range(20)), "innocent")


def test_awaiting_futures_in_asyncio_run_of_a_g(node):
    assert dgmp.go(asyncio_run_in_a_g).result(30) == list(range(5))


def asyncio_run_in_a_g():
    async def main():
        return list(await asyncio.gather(*[as_coroutine(dgmp.go(nap, i)) for i in range(5)]))

    return asyncio.run(main())


# ---------------------------------------------------------------- inside
variable = contextvars.ContextVar("variable", default=0)


async def has_a_context(x):
    assert variable.get() == 0
    variable.set(x)
    await asyncio.sleep(0.001)
    assert dgmp.current()["g"] == dgmp.goid() and "has_a_context" in dgmp.current()["name"]
    mine = dgmp.goid()

    async def child():
        await asyncio.sleep(0)
        return dgmp.goid() == mine and variable.get() == x

    return await asyncio.create_task(child()) and variable.get() == x


def test_each_g_has_its_context(node):
    assert all(dgmp.gather(*[dgmp.go(has_a_context, i) for i in range(50)]))


async def asks_a_thread(x):
    variable.set(x)
    return await asyncio.to_thread(variable.get)


def test_to_thread(node):
    assert dgmp.gather(*[dgmp.go(asks_a_thread, i) for i in range(50)]) == list(range(50))


async def talks(n):
    async def serve(reader, writer):
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def ask(i):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"hello {i}\n".encode())
        answer = await reader.readline()
        writer.close()
        return answer.decode().strip()

    async with server:
        return list(await asyncio.gather(*[ask(i) for i in range(n)]))


def test_streams(node):
    assert dgmp.go(talks, 20).result(60) == [f"HELLO {i}" for i in range(20)]


async def blocks_the_loop():
    """Calls of dgmp that are not awaited hold the loop up, and nothing worse."""
    dgmp.sleep(0.01)
    a, b = socket.socketpair()
    with a, b:
        b.send(b"x")
        dgmp.wait_readable(a)
    dgmp.gosched()
    return dgmp.go(helpers.add, 1, 2).result(20)


def test_blocking_calls(node):
    assert dgmp.gather(*[dgmp.go(blocks_the_loop) for _ in range(5)]) == [3] * 5


def runs_a_loop_of_its_own(x):
    return asyncio.run(nap(x))[0]


async def runs_gs_with_loops():
    return [await dgmp.go(runs_a_loop_of_its_own, i) for i in range(3)]


def test_asyncio_run_beside_async_gs():
    with dgmp.Runtime(procs=1, max_ms=1) as rt:
        assert rt.go(runs_gs_with_loops).result(30) == [0, 1, 2]


async def leaves_tasks(path):
    async def for_ever():
        try:
            await asyncio.sleep(3600)
        finally:
            with open(path, "w") as file:
                file.write("cancelled")

    asyncio.create_task(for_ever())
    await asyncio.sleep(0.001)


def test_what_a_g_leaves_is_cancelled(node, tmp_path):
    path = tmp_path / "left"
    dgmp.go(leaves_tasks, str(path)).result(30)
    assert path.read_text() == "cancelled"


# ---------------------------------------------------------------- errors
async def fails(x):
    await asyncio.sleep(0)
    raise ValueError(x)


async def exits():
    raise SystemExit(3)


async def returns_what_cannot_travel():
    return threading.Lock()


def is_cancelled_as_it_makes_a_coroutine(path):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGURG])
    Path(path).write_text("begun")
    eventually(dgmp.cancelled, 30)
    return nap(1, 3600)


async def forgets_all():
    gc.collect()


def test_one_that_was_cancelled_before_its_first_step_is_not_warned_of(tmp_path, capfd):
    path = tmp_path / "begun"
    with dgmp.Runtime(procs=1) as rt:
        f = rt.go(is_cancelled_as_it_makes_a_coroutine, str(path))
        assert eventually(path.exists, 30) and f.cancel()
        with pytest.raises(dgmp.Cancelled):
            f.result(30)
        rt.go(forgets_all).result(30)
    assert capfd.readouterr().err == ""


async def cancels_itself():
    asyncio.current_task().cancel()
    await asyncio.sleep(1)


def test_errors_are_results(node):
    survivor = dgmp.go(nap, 7, 0.1)
    with pytest.raises(ValueError, match="seven") as e:
        dgmp.go(fails, "seven").result(30)
    assert "in fails" in str(e.value.__cause__)
    with pytest.raises(SystemExit):
        dgmp.go(exits).result(30)
    with pytest.raises(dgmp.EncodingError):
        dgmp.go(returns_what_cannot_travel).result(30)
    with pytest.raises(asyncio.CancelledError):
        dgmp.go(cancels_itself).result(30)
    with pytest.raises(TypeError):
        dgmp.go(nap).result(30)
    assert survivor.result(30)[0] == 7


async def marks(path, cancelled):
    with open(path, "w") as file:
        file.write("began")
    try:
        await asyncio.sleep(3600)
    finally:
        with open(cancelled, "w") as file:
            file.write("cancelled")


@pytest.mark.parametrize("others", [0, 3])
def test_cancelling(node, tmp_path, others):
    beside = [dgmp.go(nap, i, 0.5) for i in range(others)]
    began, cancelled = tmp_path / "began", tmp_path / "cancelled"
    f = dgmp.go(marks, str(began), str(cancelled))
    assert eventually(began.exists)
    assert f.cancel()
    with pytest.raises(dgmp.Cancelled):
        f.result(20)
    assert cancelled.exists()
    dgmp.gather(*beside)


async def kills_its_m():
    await asyncio.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)


def test_another_m_takes_over_when_the_poller_dies():
    with dgmp.Runtime(procs=2) as rt:
        sleepers = [rt.go(nap, i, 3600) for i in range(20)]
        # What has not begun goes on with the next.
        assert eventually(lambda: sum(g.wait_reason == "IO wait" for g in rt.snapshot().gs) == 20)
        killer = rt.go(kills_its_m)
        for f in (killer, *sleepers):
            with pytest.raises(dgmp.WorkerDied):
                f.result(30)
        assert [rt.go(nap, i).result(30)[0] for i in range(20)] == list(range(20))


async def kills_after(i):
    await asyncio.sleep(0.02)
    if i % 10 == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return i


def test_each_async_g_ends_once_though_pollers_die():
    with dgmp.Runtime(procs=2) as rt:
        ended = 0
        for _ in range(3):
            for f in [rt.go(kills_after, i) for i in range(50)]:
                try:
                    f.result(60)
                except dgmp.WorkerDied:
                    pass
                ended += 1
        assert ended == 150
        assert rt.go(nap, 1).result(30)[0] == 1


def test_an_idle_loop_takes_no_cpu(node):
    pid = dgmp.go(nap, 1).result(30)[1]
    f = dgmp.go(nap, 1, 0.5)

    def ticks():
        with open(f"/proc/{pid}/stat") as file:
            return sum(map(int, file.read().rpartition(")")[2].split()[11:13]))

    before = ticks()
    f.result(30)
    assert ticks() - before <= 5


async def wait_for_ever():
    await asyncio.sleep(3600)


async def block_in(begun, never):
    begun.send(None)
    never.recv()


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("way", ["cancel", "timeout"])
def test_one_that_blocks_the_loop_in_a_call_of_dgmp_ends_as_it_is_told(others, way):
    """Else no other async G would ever go on."""
    with dgmp.Runtime(procs=2) as rt:
        waiting = [rt.go(wait_for_ever) for _ in range(others)]
        begun, never = rt.chan(), rt.chan()
        f = rt.spawn(block_in, (begun, never), timeout=0.5 if way == "timeout" else None)
        if way == "cancel":
            begun.recv(timeout=20)
            f.cancel()
        assert type(f.exception(20)) is (dgmp.Cancelled if way == "cancel" else TimeoutError)
        for other in waiting:
            assert not other.done()
            other.cancel()
            assert type(other.exception(20)) is dgmp.Cancelled


def test_the_chat_example():
    example = Path(__file__).parents[2] / "examples" / "chat.py"
    done = subprocess.run([helpers.PYTHON, str(example), "--people", "10"], capture_output=True, text=True, timeout=60)
    assert done.stdout == "10 people said 10 lines, and each heard 10\n", done.stderr


async def make_a_channel():
    chan = dgmp.Chan(1)
    chan.send("inside")
    return chan


def test_channels_in_results(rt):
    chans = dgmp.gather(*[rt.go(make_a_channel) for _ in range(20)])
    assert [chan.recv(20) for chan in chans] == ["inside"] * 20


async def hand_the_loop_on(first, second):
    """Ends while another async G waits for a lock in a thread's start: it has been the host."""
    if first:
        await asyncio.sleep(0)
        return None
    return [await asyncio.to_thread(abs, -i) for i in range(second)]


def test_threads_start_whoever_the_loop_runs_as(rt):
    for _ in range(20):
        hosts = [rt.go(hand_the_loop_on, True, 0) for _ in range(5)]
        assert rt.go(hand_the_loop_on, False, 3).result(20) == [0, 1, 2]
        dgmp.gather(*hosts)


# ---------------------------------------------------------------- whose code runs
async def waits_for(begun, path):
    Path(begun).touch()
    while not os.path.exists(path):
        await asyncio.sleep(0.01)
    return "innocent"


async def kills_again_and_again(path):
    await asyncio.sleep(0)
    with open(path, "a") as runs:
        runs.write("x")
    helpers.kill_self()


async def computes(path):
    await asyncio.sleep(0)
    Path(path).touch()
    while True:
        pass


@pytest.fixture
def beside(tmp_path):
    """A runtime whose loop runs under the word of another, who is innocent and is still there at the end."""
    begun, end = tmp_path / "innocent", tmp_path / "end"
    with dgmp.Runtime(procs=1, grace=0.3) as rt:
        innocent = rt.spawn(waits_for, (str(begun), str(end)), retries=50)
        assert eventually(begun.exists, 30)
        yield rt
        assert not innocent.done()
        end.touch()
        assert innocent.result(30) == "innocent"


def test_the_strike_is_his_whose_code_ran(beside, tmp_path):
    runs = tmp_path / "runs"
    f = beside.spawn(kills_again_and_again, (str(runs),), retries=10)
    with pytest.raises(dgmp.WorkerDied, match="kills_again_and_again.* did not finish") as e:
        f.result(60)
    assert len(e.value.history) == 3 and runs.read_text() == "xxx"


def test_one_that_computes_beside_others_is_killed_after_its_timeout(beside, tmp_path):
    with pytest.raises(TimeoutError, match="did not end within 0.3 s"):
        beside.spawn(computes, (str(tmp_path / "begun"),), timeout=0.5).result(60)


def test_or_when_it_was_cancelled(beside, tmp_path):
    begun = tmp_path / "begun"
    f = beside.go(computes, str(begun))
    assert eventually(begun.exists, 30) and f.cancel()
    with pytest.raises(dgmp.Cancelled, match="did not end within 0.3 s"):
        f.result(60)
