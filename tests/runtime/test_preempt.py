"""A G that runs for long gives way to the started Gs of its M, but nowhere where that would do harm."""

import asyncio
import builtins
import contextvars
import ctypes
import functools
import gc
import importlib
import io
import logging
import os
import signal
import subprocess
import sys
import threading

import pytest

import dgmp
from dgmp._core import send_self
from tests import helpers


@pytest.fixture
def rt():
    with dgmp.Runtime(procs=1, max_ms=1) as runtime:  # all Gs are on one M, even if it blocks
        yield runtime


class Shared:
    """What the Gs of one M share."""

    log: list = []
    stop = False
    ran: list = []  # how often the other ran in each preempt_now()


def preempt_now():
    """As if sysmon had asked, which it may do as well: SIGURG comes, and is handled in here."""
    seen = len(Shared.log)
    send_self(signal.SIGURG)
    for _ in range(2):
        pass
    Shared.ran.append(len(Shared.log) - seen)


def other():
    """A started G that can go on at any time."""
    while not Shared.stop:
        Shared.log.append("other")
        dgmp.gosched()


def alternates(fn):
    """Calls fn beside a started G that can go on; how often that ran in each preempt_now()."""
    Shared.stop, Shared.log, Shared.ran = False, [], []
    f = dgmp.go(other)
    while not Shared.log:
        dgmp.gosched()
    try:
        fn()
        return Shared.ran
    finally:
        Shared.stop = True
        f.result()


# ------------------------------------------------------------------ where a G is preempted
def plain():
    preempt_now()


def recursive(n=300):
    if n:
        recursive(n - 1)
    else:
        preempt_now()


def decorated_with(fn):
    @functools.wraps(fn)
    def wrapper(*args, **kwargs):
        return fn(*args, **kwargs)
    return wrapper


@decorated_with
@decorated_with
def decorated():
    preempt_now()


def in_a_try():
    try:
        raise ValueError("x")
    except ValueError as e:
        before = sys.exc_info()
        preempt_now()
        assert sys.exc_info() == before and before[1] is e
        try:
            raise KeyError("y") from e
        except KeyError:
            preempt_now()
    assert sys.exc_info() == (None, None, None)


def in_a_comprehension():
    [preempt_now() for _ in range(1)]


def method():
    Sample.__new__(Sample).method()


class Sample:
    def method(self):
        preempt_now()


def with_an_rlock():
    with threading.RLock():
        preempt_now()


FLAT = [plain, recursive, decorated, in_a_comprehension, method, with_an_rlock]


@pytest.mark.parametrize("fn", [*FLAT, in_a_try])
def test_python_code_is_preempted_at_any_depth(rt, fn):
    ran = rt.go(alternates, fn).result(30)
    assert ran and all(ran), ran


def spin_until_other():
    """Nobody sends a signal here: sysmon has to."""
    seen = len(Shared.log)
    while len(Shared.log) < seen + 3:
        pass


def test_preemption(rt):
    """Go's TestPreemption: a loop without calls gives way."""
    rt.go(alternates, spin_until_other).result(30)


def hog(i, n):
    """Counts rounds until all have made n: only who is let in again and again can."""
    Shared.rounds[i] = 0
    while min(Shared.rounds) < n:
        mark = sum(Shared.rounds)
        Shared.rounds[i] += 1
        while sum(Shared.rounds) == mark + 1 and min(Shared.rounds) < n:  # until another hog moves
            pass


def hogs(k, n):
    Shared.rounds = [0] * k
    fs = [dgmp.go(start_then_hog, i, n) for i in range(k)]
    dgmp.gather(*fs)
    return min(Shared.rounds)


def start_then_hog(i, n):
    dgmp.gosched()
    hog(i, n)


def test_several_hogs_on_one_m_all_get_on(rt):
    assert rt.go(hogs, 3, 4).result(60) >= 4


# ------------------------------------------------------------------ where it is not
class Dying:
    def __del__(self):
        preempt_now()


def in_del():
    x = Dying()
    del x


def in_del_from_gc():
    x = Dying()
    x.me = x
    del x
    gc.collect()


def in_del_of_star_args():
    def take(*args):
        pass
    take(*(Dying(),))


def in_a_sort_key():
    sorted([1, 2], key=lambda x: preempt_now() or x)


def generate():
    preempt_now()
    yield 1


def in_a_generator():
    list(generate())


def in_next():
    next(generate())


class Raw(io.RawIOBase):
    def writable(self):
        return True

    def write(self, data):
        preempt_now()
        return len(data)


def in_a_buffered_write():
    with io.BufferedWriter(Raw()) as file:
        file.write(b"x")


def in_a_text_write():
    with io.TextIOWrapper(io.BufferedWriter(Raw())) as file:
        file.write("x")


def in_an_import():
    builtins.preempt_now = preempt_now
    sys.modules.pop("module_of_preempt", None)
    importlib.import_module("module_of_preempt")


def in_ctypes():
    ctypes.CFUNCTYPE(None)(preempt_now)()


def in_asyncio():
    async def main():
        preempt_now()
        await asyncio.sleep(0)
        preempt_now()

    asyncio.run(main())


def in_partial():
    functools.partial(preempt_now)()


def in_map():
    list(map(lambda x: preempt_now(), [1]))  # noqa: C417


def in_a_block():
    with dgmp.nopreempt(), dgmp.nopreempt():
        preempt_now()
        seen = len(Shared.log)
    assert len(Shared.log) > seen  # it was overdue


def in_an_outer_block():
    with dgmp.nopreempt():
        with dgmp.nopreempt():
            pass
        preempt_now()


def in_a_signal_handler():
    signal.signal(signal.SIGUSR1, lambda number, frame: preempt_now())
    send_self(signal.SIGUSR1)
    for _ in range(2):
        pass
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)


NOT_FLAT = [in_del, in_del_from_gc, in_del_of_star_args, in_a_sort_key, in_a_generator, in_next, in_a_buffered_write,
            in_a_text_write, in_an_import, in_ctypes, in_asyncio, in_partial, in_map, in_a_signal_handler]


@pytest.mark.parametrize("fn", NOT_FLAT)
def test_code_that_c_has_called_is_not_preempted(rt, tmp_path, monkeypatch, fn):
    (tmp_path / "module_of_preempt.py").write_text("preempt_now()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    ran = rt.go(alternates, fn).result(30)
    assert ran and not any(ran), ran


@pytest.mark.parametrize("fn", [in_a_block, in_an_outer_block])
def test_nopreempt_puts_it_off_to_the_end_of_the_block(rt, fn):
    assert rt.go(alternates, fn).result(30) == [0]


def waits_in_a_block():
    with dgmp.nopreempt():
        seen = len(Shared.log)
        while len(Shared.log) == seen:
            dgmp.gosched()
        preempt_now()


def test_a_g_may_wait_inside_nopreempt(rt):
    assert rt.go(alternates, waits_in_a_block).result(30) == [0]


def test_nopreempt_outside_of_gs():
    with dgmp.nopreempt():
        pass


def overdue():
    """sysmon may be faster now and then."""
    for _ in range(100):
        in_a_sort_key()
        seen = len(Shared.log)
        dgmp.go(helpers.identity, 1)
        if len(Shared.log) > seen:
            return
    raise AssertionError("it has never given way")


def test_a_g_that_is_overdue_gives_way_at_its_next_call(rt):
    rt.go(alternates, overdue).result(30)


def sort_for_long():
    """sysmon asks and asks; what the key shares with nobody stays so."""
    marks = []

    def key(x):
        marks.append(len(Shared.log))
        return sum(range(3000)) * 0 + x

    list_ = list(range(2000))
    assert sorted(list_, key=key) == list_
    assert len(set(marks)) == 1


def test_a_long_sort_is_not_interrupted(rt):
    rt.go(alternates, sort_for_long).result(30)


def test_switched_off(monkeypatch):
    monkeypatch.setenv("DGMP_DEBUG", "asyncpreemptoff=1")
    with dgmp.Runtime(procs=1) as rt:
        assert rt.go(alternates, plain).result(30) == [0]


def test_without_another_g_nothing_happens(rt):
    parks = rt.stats()["parks"]
    rt.go(plain).result(30)
    assert rt.stats()["parks"] == parks


# ------------------------------------------------------------------ what the calls of the runtime add
def in_chunk(i):
    seen = len(Shared.log)
    preempt_now()
    return len(Shared.log) - seen


def starred(a, b):
    return in_chunk(a)


def run_beside(other_go):
    f = dgmp.go(other)
    while not Shared.log:
        dgmp.gosched()
    try:
        return other_go()
    finally:
        Shared.stop = True
        f.result()


@dgmp.task
def a_task():
    return in_chunk(0)


@pytest.mark.parametrize("how", ["map", "starmap", "task"])
def test_what_a_map_or_a_task_calls_is_preempted(rt, how):
    def beside():
        if how == "map":
            return list(dgmp.map(in_chunk, range(4)))
        if how == "starmap":
            return list(dgmp.starmap(starred, [(i, i) for i in range(4)]))
        return [a_task.go().result()]

    got = rt.go(run_beside, beside).result(30)
    assert all(got), got


SCRIPT = """
import builtins, dgmp, os, signal
from dgmp._core import send_self

builtins.log = []
def other():
    while True:
        log.append(1)
        dgmp.gosched()

if __name__ == "__main__":
    dgmp.go(other)
    while not log:
        dgmp.gosched()
    seen = len(log)
    send_self(signal.SIGURG)
    for _ in range(2):
        pass
    print(len(log) - seen, flush=True)
    os._exit(0)
"""


# ------------------------------------------------------------------ what a preempted G keeps
def preempted_while_holding(kind):
    Shared.lock, Shared.log = getattr(threading, kind)(), []
    with Shared.lock:
        wants = dgmp.go(want_after_gosched)
        while not Shared.log:
            dgmp.gosched()
        for _ in range(5):
            preempt_now()
        Shared.log.append("lets go")
    wants.result()
    return Shared.log


def want_after_gosched():
    Shared.log.append("runs")
    dgmp.gosched()
    with Shared.lock:
        Shared.log.append("has it")


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Condition"])
def test_a_g_that_is_preempted_while_it_holds_a_lock_keeps_it(rt, kind):
    assert rt.go(preempted_while_holding, kind).result(30) == ["runs", "lets go", "has it"]


class Slow(logging.Handler):
    def __init__(self):
        super().__init__()
        self.seen, self.inside = [], 0

    def emit(self, record):
        self.inside += 1
        preempt_now()
        self.seen.append((record.getMessage(), self.inside))
        self.inside -= 1


def log_one(i):
    dgmp.gosched()
    logging.getLogger("tests.preempt").warning("%d", i)


def log_from_many():
    handler, logger = Slow(), logging.getLogger("tests.preempt")
    logger.addHandler(handler)
    logger.propagate = False
    dgmp.gather(*[dgmp.go(log_one, i) for i in range(5)])
    logger.removeHandler(handler)
    return sorted(handler.seen)


def test_logging(rt):
    assert rt.go(log_from_many).result(30) == [(str(i), 1) for i in range(5)]


VAR = contextvars.ContextVar("VAR", default="nobody's")


def own_context(name):
    before = VAR.get()
    VAR.set(name)
    for _ in range(3):
        preempt_now()
        dgmp.gosched()
    return before, VAR.get()


def contexts():
    return dgmp.gather(*[dgmp.go(own_context, str(i)) for i in range(4)]), dgmp.go(own_context, "x").result()[0]


def test_context_variables_are_a_gs_own(rt):
    assert rt.go(contexts).result(30) == ([("nobody's", str(i)) for i in range(4)], "nobody's")


def count_depth(n):
    return count_depth(n - 1) + 1 if n else preempt_now() or 0


def deep():
    limit = sys.getrecursionlimit()
    assert count_depth(limit - 200) == limit - 200


def test_recursion_depth_is_a_gs_own(rt):
    assert all(rt.go(alternates, deep).result(30))


def own_streams():
    out, sys.stdout = sys.stdout, io.StringIO()
    mine = sys.stdout
    preempt_now()
    assert sys.stdout is mine
    sys.stdout = out


def test_streams_are_a_gs_own(rt):
    assert all(rt.go(alternates, own_streams).result(30))


# ------------------------------------------------------------------ asyncio in two Gs
def loop_in_a_g(i):
    async def agen():
        yield 1
        dgmp.gosched()
        yield 2

    async def main():
        loop = asyncio.get_running_loop()
        seen = []
        for _ in range(3):
            dgmp.go(helpers.identity, i).result()
            assert asyncio.get_running_loop() is loop and asyncio.current_task() is task
            seen.append(await asyncio.sleep(0, i))
            async for x in agen():
                assert asyncio.get_running_loop() is loop, x
        return seen

    async def outer():
        nonlocal task
        task = asyncio.current_task()
        return await main()

    task = None
    result = asyncio.run(outer())
    assert asyncio._get_running_loop() is None and sys.get_asyncgen_hooks() == (None, None)
    return result


def loops():
    return dgmp.gather(*[dgmp.go(loop_in_a_g, i) for i in range(4)]), tuple(sys.get_asyncgen_hooks())


def test_asyncio_run_in_several_gs_of_one_m(rt):
    assert rt.go(loops).result(30) == ([[i] * 3 for i in range(4)], (None, None))


def test_the_main_g_of_a_program_is_preempted(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    env = os.environ | {"DGMP_PROCS": "1"}
    command = [sys.executable, "-c", "import dgmp.cli; dgmp.cli.main()", "run", str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)
    assert ran.stdout == "1\n", ran.stderr
