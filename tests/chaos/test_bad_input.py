"""What no scheduler would like to be given: it costs the G that brings it, or nobody, and is said."""

import asyncio
import contextlib
import ctypes
import errno
import functools
import multiprocessing
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback

import pytest

import dgmp
from tests import helpers
from tests.helpers import PYTHON


@pytest.fixture(scope="module")
def node():
    with dgmp.Runtime(procs=2) as runtime:
        yield runtime


@pytest.fixture
def rt(node):
    """One for all: each test leaves it as it was."""
    return node


# ---------------------------------------------------------------------- a pickle that blocks
class Blocks:
    """Its pickling waits until it may go on."""

    def __init__(self):
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __reduce__(self):
        self.begun.set()
        assert self.go_on.wait(20)
        return str, ("through",)


@pytest.mark.parametrize("submit", [
    lambda rt, x: rt.go(helpers.identity, x).result(20),
    lambda rt, x: rt.go(helpers.add, "", b=x).result(20),
    lambda rt, x: rt.go(lambda: x).result(20),  # in a function by value
    lambda rt, x: next(rt.map(helpers.identity, [x])),
    lambda rt, x: send_and_receive(rt, x),
], ids=["argument", "keyword", "closure", "map", "channel"])
def test_a_pickle_that_blocks_holds_up_its_caller_only(rt, submit):
    x = Blocks()
    got = []
    thread = threading.Thread(target=lambda: got.append(submit(rt, x)))
    thread.start()
    assert x.begun.wait(20)
    assert helpers.still_fine(rt) and rt.go(lambda: "by value").result(20) == "by value"
    assert list(rt.map(abs, range(-10, 0))) == list(range(10, 0, -1))
    c = dgmp.Chan(1, runtime=rt)
    c.send("free")
    assert c.recv() == "free" and not got
    x.go_on.set()
    thread.join(20)
    assert got == ["through"]


def send_and_receive(rt, x):
    c = dgmp.Chan(1, runtime=rt)
    c.send(x)
    return c.recv()


def hold(c):
    """Its unpickling waits in an M until somebody sends."""
    return Held, (c,)


def Held(c):  # noqa: N802
    return c.recv()


class Holds:
    def __init__(self, c):
        self.c = c

    def __reduce__(self):
        return hold(self.c)


def test_an_unpickling_that_waits_for_another_g_parks(rt):
    c = dgmp.Chan(runtime=rt)
    futures = [rt.go(helpers.identity, Holds(c)) for _ in range(8)]  # more than there are Ps
    assert helpers.still_fine(rt)
    for i in range(8):
        c.send(i, timeout=20)
    assert sorted(dgmp.gather(*futures)) == list(range(8))


# ---------------------------------------------------------------------- results that do not travel
def make_generator():
    return (x for x in range(3))


async def a_coroutine():
    return 1


async def give_async_generator():
    async def numbers():
        yield 1
    return numbers()


def open_file():
    return open(os.devnull)


KINDS = [
    (make_generator, "a generator", "return a list of its items"), (threading.Lock, "lock", ""), (threading.RLock, "RLock", ""),
    (threading.Event, "", ""), (open_file, "file", ""), (lambda: [a_coroutine()], "a coroutine", "run it inside the G"),
    (give_async_generator, "async generator", ""), (lambda: sys._getframe(), "stack frame", ""),
    (lambda: subprocess.Popen(["true"]), "Popen", ""),
    (threading.current_thread, "", ""), (lambda: dgmp.go(abs, 1), "dgmp.Future", "return its result()"),
    (lambda: memoryview(b"x").cast("B") and iter(memoryview(b"xy")), "", ""),
]


@pytest.mark.parametrize("fn,what,instead", KINDS, ids=[str(i) for i in range(len(KINDS))])
def test_a_result_of_a_kind_that_does_not_travel_is_named(rt, fn, what, instead):
    error = rt.spawn(fn, name="mine").exception(20)
    assert type(error) is dgmp.EncodingError, error
    assert re.match(r"the result \(.*\) of G \d+ \(.*\) cannot be pickled: ", str(error))
    assert what.lower() in str(error).lower() and instead in str(error)
    assert error.__notes__[0].startswith("the G was spawned at ") and helpers.still_fine(rt)


# ---------------------------------------------------------------------- exceptions
class Bare(Exception):
    """Needs what its args do not have."""

    def __init__(self, code, *, reason):
        super().__init__()
        self.code, self.reason = code, reason


class Fails(Exception):
    """In whatever is asked of it."""

    def fail(self, *args):
        raise LookupError("in the exception itself")

    __str__ = __repr__ = __reduce__ = __reduce_ex__ = __getstate__ = __format__ = fail


class Exits(Exception):
    def __str__(self):
        sys.exit(3)

    __repr__ = __reduce__ = __str__


class Recurses(Exception):
    def __str__(self):
        return str(self)

    __repr__ = __str__


class Grows(Exception):
    """Each time that it is pickled it has become another."""

    def __reduce__(self):
        return Grows, (Grows(),)


def raise_of(name):
    cls = {"Fails": Fails, "Exits": Exits, "Recurses": Recurses}[name]
    raise cls("it")


def raise_bare():
    raise Bare(5, reason="why")


def raise_grows():
    raise Grows


def long_chain(n, how):
    error = None
    for i in range(n):
        new = ValueError(i)
        setattr(new, how, error)
        error = new
    raise error


def cyclic_causes():
    a, b = ValueError("a"), KeyError("b")
    a.__cause__, b.__cause__ = b, a
    a.__context__, b.__context__ = b, a
    raise a


def own_cause():
    error = ValueError("its own")
    error.__cause__ = error
    error.me = error
    error.args = ("its own", error)
    raise error


def group(depth, width):
    errors = [ValueError(i) for i in range(width)]
    for _ in range(depth):
        errors = [ExceptionGroup("of them", errors)]
    raise errors[0]


def huge_message():
    raise ValueError("x" * 30_000_000)


def raise_from_deep_recursion():
    def dive(n):
        if n:
            dive(n - 1)
        raise ValueError("deep")
    dive(900)


@pytest.mark.parametrize("name", ["Fails", "Exits", "Recurses"])
def test_an_exception_that_fails_in_all_it_is_asked(rt, name):
    f = rt.go(raise_of, name)
    error, raised = f.exception(20), None
    assert (type(error).__name__, error.args) == (name, ("it",))
    assert "in raise_of" in str(error.__cause__)
    try:
        f.result()
    except Exception as e:
        raised = e is error
    error = f = None  # pytest must not look at it
    assert raised and helpers.still_fine(rt)


def test_an_exception_whose_init_needs_arguments(rt):
    error = rt.go(raise_bare).exception(20)
    assert type(error) is Bare and (error.code, error.reason, error.args) == (5, "why", ())
    assert rt.go(lambda: type(dgmp.go(raise_bare).exception()).__name__).result(20) == "Bare"


def test_an_exception_that_becomes_another_as_it_is_pickled(rt):
    assert type(rt.go(raise_grows).exception(20)) is Grows and helpers.still_fine(rt)


@pytest.mark.parametrize("how", ["__cause__", "__context__"])
@pytest.mark.parametrize("n", [100, 5_000, 20_000])
def test_long_chains_of_causes(rt, n, how):
    error = rt.go(long_chain, n, how).exception(50)
    assert type(error) is ValueError and error.args == (n - 1,)
    length, at = 0, error
    while at is not None and type(at) is ValueError:
        length, at = length + 1, getattr(at, how)
    assert length >= min(n, 10_000)
    assert helpers.still_fine(rt)


@pytest.mark.parametrize("fn", [cyclic_causes, own_cause])
def test_cyclic_causes(rt, fn):
    error = rt.go(fn).exception(20)
    assert type(error) is ValueError and "".join(traceback.format_exception(error)).count(f"in {fn.__name__}") >= 1
    if fn is cyclic_causes:
        assert type(error.__cause__) is KeyError and error.__context__ is error.__cause__
        assert error.__cause__.__context__ is error
    else:
        assert error.me is error and error.args[1] is error
    assert helpers.still_fine(rt)


@pytest.mark.parametrize("depth,width", [(1, 10_000), (40, 3), (300, 1)])
def test_exception_groups_large_and_deep(rt, depth, width):
    error = rt.go(group, depth, width).exception(30)
    levels = 0
    while isinstance(error, ExceptionGroup):
        levels, members, error = levels + 1, error.exceptions, error.exceptions[0]
    assert levels == depth and len(members) >= min(width, 9_000) and type(error) is ValueError
    assert helpers.still_fine(rt)


def test_a_message_of_30_mb(rt):
    error = rt.go(huge_message).exception(30)
    assert type(error) is ValueError and len(error.args[0]) == 30_000_000 and len(str(error.__cause__)) < 1_000_000


def test_a_deep_traceback(rt):
    error = rt.go(raise_from_deep_recursion).exception(20)
    assert error.args == ("deep",) and "in dive" in str(error.__cause__)


# ---------------------------------------------------------------------- what ends programs
def raise_in_g(cls):
    raise cls("x")


def swallow(cls):
    """A G that catches what ends programs is not ended by it."""
    try:
        dgmp.go(raise_in_g, cls).result()
    except BaseException as e:
        return type(e) is cls
    return False


async def raise_in_coroutine(cls):
    raise cls("x")


@pytest.mark.parametrize("cls", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, StopIteration,
                                 StopAsyncIteration, BaseException])
def test_what_ends_programs_ends_a_g(rt, cls):
    pids = set(rt.node.view.pids())
    assert type(rt.go(raise_in_g, cls).exception(20)) is cls
    assert rt.go(swallow, cls).result(20) is True
    error = rt.go(raise_in_coroutine, cls).exception(20)
    assert type(error) is (RuntimeError if cls is StopIteration else cls)
    assert [type(f.exception(20)) for f in [rt.go(raise_in_coroutine, cls), rt.go(abs, -1)]][1] is type(None)
    assert list(rt.map(abs, [-1, -2])) == [1, 2] and pids <= set(rt.node.view.pids())


# ---------------------------------------------------------------------- children of fork
def fork(child, *args):
    pid = os.fork()
    if pid == 0:
        return child(*args)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fork_and_use(name, *args):
    """Every call of dgmp says that this is no place for it."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        functools.reduce(getattr, name.split("."), dgmp)(*args)
    except RuntimeError as e:
        code = 0 if "forked" in str(e) else 2
    os._exit(code)


def runtime_of_its_own():
    pid = os.fork()
    if pid == 0:
        with dgmp.Runtime(procs=1) as rt:
            os._exit(rt.go(int, "7").result(20))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("child,args,code", [
    (abs, (-7,), 0), (helpers.fail, ("in the child",), 1), (sys.exit, (3,), 3), (sys.exit, ("why",), 1), (sys.exit, (), 0),
    (os._exit, (4,), 4), (helpers.kill_self, (), -signal.SIGKILL), (os.abort, (), -signal.SIGABRT),
    (ctypes.string_at, (0,), -signal.SIGSEGV), (dgmp.go, (abs, -1), 1), (print, ("from the child",), 0),
])
def test_a_child_that_a_g_has_forked_ends_as_a_program_would(rt, capfd, child, args, code):
    pids = set(rt.node.view.pids())
    assert rt.go(fork, child, *args).result(20) == code
    assert helpers.still_fine(rt) and pids <= set(rt.node.view.pids())
    if child is helpers.fail:
        assert "ValueError: in the child" in capfd.readouterr().err
    if child is print:
        assert helpers.eventually(lambda: "from the child" in capfd.readouterr().out)


@pytest.mark.parametrize("name,args", [
    ("go", (abs, -1)), ("map", (abs, [1])), ("gosched", ()), ("sleep", (0.01,)), ("Chan", ()), ("Mutex", ()), ("snapshot", ()),
    ("stats", ()), ("gomaxprocs", (1,)), ("num_g", ()),
])
def test_a_child_that_a_g_has_forked_is_no_member(rt, name, args):
    assert rt.go(fork_and_use, name, *args).result(20) == 0
    assert helpers.still_fine(rt)


def test_a_child_that_a_g_has_forked_may_have_a_runtime_of_its_own(rt):
    assert rt.go(runtime_of_its_own).result(30) == 7
    assert helpers.still_fine(rt)


async def fork_in_a_coroutine(child, *args):
    pid = os.fork()
    if pid == 0:
        return child(*args)
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        await asyncio.sleep(0.005)
    return os.waitstatus_to_exitcode(ended[1])


async def count(c):
    """Another G of the same loop: no child runs any of it."""
    for i in range(100):
        await asyncio.sleep(0.001)
        c.send((os.getpid(), i))


@pytest.mark.parametrize("child,args,code", [
    (abs, (-7,), 0), (helpers.fail, ("in the child",), 1), (sys.exit, (3,), 3), (os._exit, (4,), 4),
    (helpers.kill_self, (), -signal.SIGKILL), (time.sleep, (0.02,), 0),
])
def test_a_child_that_a_coroutine_has_forked_ends_alone(rt, child, args, code):
    c = dgmp.Chan(1000, runtime=rt)
    first = rt.go(asyncio.sleep, 3600)  # where it is, the others are, however long they take to come
    others = [rt.go(count, c) for _ in range(3)]
    assert dgmp.gather(*[rt.go(fork_in_a_coroutine, child, *args) for _ in range(4)]) == [code] * 4
    dgmp.gather(*others)
    first.cancel()
    c.close()
    said = list(c)
    assert len(said) == 300 and len({pid for pid, _ in said}) == 1 and sorted(i for _, i in said) == sorted(3 * [*range(100)])


def run_a_loop():
    asyncio.run(asyncio.sleep(0.01))
    os._exit(9)


def test_a_child_that_a_g_has_forked_may_run_a_loop(rt):
    assert rt.go(fork, run_a_loop).result(20) == 9


def limit_memory():
    size = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 20), resource.getrlimit(resource.RLIMIT_AS)[1]))
    return bytearray(1 << 30)


def fill_memory():
    size = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + (256 << 20), resource.getrlimit(resource.RLIMIT_AS)[1]))
    held = []
    for piece in (1 << 24, 1 << 16, 1 << 10):
        try:
            while True:
                held.append(bytearray(piece))
        except MemoryError:
            pass
    while True:
        held.append(bytearray(1 << 9))


def limit_files():
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return open(os.devnull)


def test_limits_that_a_g_has_set_strike_it_alone(rt):
    assert type(rt.go(limit_memory).exception(20)) is MemoryError
    assert type(rt.go(fill_memory).exception(20)) is MemoryError
    assert rt.go(lambda: len(bytearray(1 << 28))).result(20) == 1 << 28
    assert rt.go(limit_files).exception(20).errno == errno.EMFILE
    assert helpers.still_fine(rt)


def run_things():
    """In a child that was forked: whatever starts processes works there."""
    assert subprocess.run(["echo", "x"], capture_output=True, text=True).stdout == "x\n" and os.system("exit 3") >> 8 == 3
    os._exit(os.waitstatus_to_exitcode(os.waitpid(os.posix_spawn("/bin/sh", ["sh", "-c", "exit 5"], os.environ), 0)[1])
             + fork(os._exit, 1))


def test_a_child_that_a_g_has_forked_may_start_processes(rt):
    assert rt.go(fork, run_things).result(20) == 6
    assert helpers.still_fine(rt)


def fork_while_others_wait(c):
    """The child has their stacks, and runs none of them."""
    return fork(c.recv)


def test_fork_beside_parked_gs(rt):
    c = dgmp.Chan(runtime=rt)
    waiting = [rt.go(c.recv) for _ in range(4)]
    assert helpers.eventually(lambda: len([g for g in rt.snapshot().gs if g.wait_reason == "chan receive"]) == 4)
    assert dgmp.gather(*[rt.go(fork_while_others_wait, c) for _ in range(4)]) == [1] * 4
    for i in range(4):
        c.send(i, timeout=20)
    assert sorted(dgmp.gather(*waiting)) == [0, 1, 2, 3]


def exit_with(code):
    sys.exit(code)


def run_process(method, code):
    process = multiprocessing.get_context(method).Process(target=exit_with, args=(code,))
    process.start()
    process.join()
    return process.exitcode


def run_pool(method):
    with multiprocessing.get_context(method).Pool(2) as pool:
        return pool.map(abs, [-1, -2, -3])


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_in_a_g(rt, method):
    assert rt.go(run_process, method, 5).result(30) == 5
    assert rt.go(run_pool, method).result(30) == [1, 2, 3]
    assert helpers.still_fine(rt)


def test_subprocesses_in_a_g(rt):
    run = functools.partial(subprocess.run, capture_output=True, text=True)
    assert rt.go(run, ["cat"], input="x").result(20).stdout == "x"
    assert rt.go(run, [PYTHON, "-c", "import sys; sys.exit(3)"]).result(20).returncode == 3
    assert dgmp.gather(*[rt.go(lambda: run(["echo", "y"]).stdout) for _ in range(10)]) == ["y\n"] * 10


# ---------------------------------------------------------------------- threads that a G leaves
def leave_a_thread(daemon, path):
    """It goes on when its G has ended: prints, spawns, waits, and says so."""
    def work():
        wait_for(path)
        print("the thread prints")
        out.append(dgmp.go(abs, -5).result())
        c = dgmp.Chan(1)
        c.send(out[0])
        with open(f"{path}.done", "w") as file:
            file.write(f"{c.recv()} {dgmp.goid()}")

    out = []
    threading.Thread(target=work, daemon=daemon).start()


def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.001)


@pytest.mark.parametrize("daemon", [True, False])
def test_a_thread_that_a_g_has_left_goes_on(rt, tmp_path, capfd, daemon):
    path = tmp_path / "go"
    rt.go(leave_a_thread, daemon, str(path)).result(20)
    assert helpers.still_fine(rt)
    path.touch()
    done = tmp_path / "go.done"
    assert helpers.eventually(lambda: done.exists() and done.read_text() == "5 None")
    assert helpers.eventually(lambda: "the thread prints" in capfd.readouterr().out)
    assert helpers.still_fine(rt)


def leave_threads_that_raise_and_exit():
    for act in (lambda: helpers.fail("in a thread"), sys.exit, lambda: exit_with(3)):
        thread = threading.Thread(target=act)
        thread.start()
        thread.join()
    return os.getpid()


def test_threads_that_raise_or_exit_end_alone(rt):
    pid = rt.go(leave_threads_that_raise_and_exit).result(20)
    assert helpers.alive(pid) and helpers.still_fine(rt)


def leave_a_killer(how):
    thread = threading.Thread(target=how)
    thread.start()
    dgmp.sleep(3600)


def test_a_thread_that_kills_its_m_ends_what_is_started_there(node):
    with dgmp.Runtime(procs=2) as rt:
        for how in (helpers.kill_self, lambda: os._exit(9)):
            error = rt.go(leave_a_killer, how).exception(20)
            assert type(error) is dgmp.WorkerDied and error.exitcode in (-signal.SIGKILL, 9)
            assert helpers.still_fine(rt)


def test_the_end_does_not_wait_for_threads_that_gs_have_left(node):
    rt = dgmp.Runtime(procs=1)
    pid = rt.go(leave_a_sleeping_thread).result(20)
    rt.close()
    assert not helpers.alive(pid)


def leave_a_sleeping_thread():
    threading.Thread(target=time.sleep, args=(3600,)).start()
    return os.getpid()


# ---------------------------------------------------------------------- very large
@pytest.mark.skipif("DGMP_TEST_LARGE" not in os.environ, reason="takes 13 GB; set DGMP_TEST_LARGE to run it")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("size", [(1 << 32) - 1, 1 << 32, (1 << 32) + 4097])
def test_results_of_4_gb(node, size):
    with dgmp.Runtime(procs=1) as rt:
        got = rt.go(large, size).result(200)
        view = memoryview(got)
        assert len(view) == size and view[0] == view[size // 2] == view[-1] == 7
        del got, view
        assert helpers.still_fine(rt)


def large(size):
    with contextlib.suppress(ImportError):
        import numpy as np

        return np.full(size, 7, np.uint8)
    return pickle.PickleBuffer(bytearray(b"\7") * size)
