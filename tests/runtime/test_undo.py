"""What a G changes in its process is undone when it has ended, or ends its M: the next G of that M finds what the first one
found (runtime/undo.py, the table in docs/reliability.md)."""

import contextlib
import ctypes
import decimal
import faulthandler
import locale
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import dgmp
from dgmp.coordinator.server import ALARM_FD, EVENT_FD, OUTPUT_FD
from tests import helpers

LIBC = ctypes.CDLL(None)


@pytest.fixture(scope="module")
def node():
    with dgmp.Runtime(procs=1, max_ms=1) as runtime:
        yield runtime


@pytest.fixture
def rt(node):
    """One for all, with one M at a time: what a G leaves, the next one would find."""
    return node


def mask():
    before = os.umask(0)
    os.umask(before)
    return before


def handlers(*numbers):
    return [signal.getsignal(number) for number in numbers]


def blocked():
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())


def trace(frame, event, arg):
    return None


def handler(number, frame):
    """Of a G that has ended."""


def open_files():
    return [os.readlink(f"/proc/self/fd/{fd}") for fd in range(3)]


def wakeup_fd():
    fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(fd)
    return fd


def set_wakeup_fd():
    r, w = os.pipe()
    os.set_blocking(w, False)
    signal.set_wakeup_fd(w)


def replace_stdin(by):
    sys.stdin = by


def set_timers():
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(timer, 100)


def timers():
    return [signal.getitimer(timer) for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)]


def ignore_signals():
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGURG):
        signal.signal(number, signal.SIG_IGN)


def change_environment():
    os.environ["DGMP_TEST_UNDO"] = "1"
    os.environ["PATH"] = "/nowhere"
    os.environ.pop("HOME", None)
    os.putenv("DGMP_TEST_PUTENV", "1")


def environment():
    return dict(os.environ), sorted(subprocess.run(["/usr/bin/env"], capture_output=True, text=True).stdout.splitlines())


def replace_stdout():
    with open("/dev/null", "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def close_in_c():
    open(0).close()
    open(1).close()


CHANGES = [
    (os.umask, (0o777,), mask),
    (os.sched_setaffinity, (0, [max(os.sched_getaffinity(0))]), lambda: os.sched_getaffinity(0)),
    (signal.pthread_sigmask, (signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGURG, signal.SIGTERM]), blocked),
    (signal.signal, (signal.SIGUSR2, handler), lambda: handlers(signal.SIGUSR2)),
    (ignore_signals, (), lambda: handlers(signal.SIGTERM, signal.SIGUSR1, signal.SIGURG)),
    (signal.alarm, (100,), timers),
    (set_timers, (), timers),
    (set_wakeup_fd, (), wakeup_fd),
    (sys.setrecursionlimit, (100,), sys.getrecursionlimit),
    (sys.setrecursionlimit, (20_000,), sys.getrecursionlimit),
    (sys.setswitchinterval, (100.0,), sys.getswitchinterval),
    (sys.set_int_max_str_digits, (0,), sys.get_int_max_str_digits),
    (sys.settrace, (trace,), sys.gettrace),
    (sys.setprofile, (trace,), sys.getprofile),
    (socket.setdefaulttimeout, (0.001,), socket.getdefaulttimeout),
    (locale.setlocale, (locale.LC_ALL, "C"), lambda: locale.setlocale(locale.LC_ALL)),
    (decimal.setcontext, (decimal.Context(prec=3),), lambda: decimal.getcontext().prec),
    (os.chdir, ("/",), os.getcwd),
    (change_environment, (), environment),
    (os.close, (0,), open_files),
    (os.close, (1,), open_files),
    (os.closerange, (0, 3), open_files),
    (replace_stdout, (), open_files),
    (replace_stdin, (None,), lambda: sys.stdin is not None and sys.stdin.read()),
    (os.closerange, (0, 4096), open_files),
    (os.closerange, (3, 4096), lambda: dgmp.gather(dgmp.go(abs, -1), dgmp.go(abs, -2))),
]


@pytest.mark.parametrize("change,args,look", CHANGES, ids=[f"{change.__name__}{args}" for change, args, _ in CHANGES])
def test_the_next_g_finds_what_the_first_one_found(rt, change, args, look):
    before, pid = rt.go(look).result(20), rt.go(os.getpid).result(20)
    rt.go(change, *args).result(20)
    assert rt.go(look).result(20) == before
    assert rt.go(os.getpid).result(20) == pid


def and_fails(change, *args):
    change(*args)
    raise LookupError


def and_exits(change, *args):
    change(*args)
    sys.exit(1)


async def in_a_coroutine(change, *args):
    change(*args)


@pytest.mark.parametrize("how", [and_fails, and_exits, in_a_coroutine, lambda change, *args: dgmp.go(change, *args).result()])
def test_however_it_ends(rt, how):
    before = rt.go(mask).result(20)
    rt.go(how, os.umask, 0o777).exception(20)
    assert rt.go(mask).result(20) == before


def ignore(*args):
    """What an audit hook does."""


def identity():
    """What a process is, and what limits it."""
    return (os.getsid(0), os.getpgid(0), os.getgid(), os.getpriority(os.PRIO_PROCESS, 0),
            resource.getrlimit(resource.RLIMIT_CORE), resource.getrlimit(resource.RLIMIT_NOFILE))


FOR_EVER = [(os.setsid, ()), (os.setpgid, (0, 0)), (os.setgid, (os.getgid(),)), (sys.addaudithook, (ignore,))]
PERHAPS = [(os.nice, (1,)), (os.setpriority, (os.PRIO_PROCESS, 0, 5)), (resource.setrlimit, (resource.RLIMIT_CORE, (0, 0))),
           (resource.setrlimit, (resource.RLIMIT_NOFILE, (100, 100)))]


@pytest.mark.parametrize("change,args", FOR_EVER + PERHAPS, ids=lambda x: getattr(x, "__name__", str(x)))
def test_what_cannot_be_undone_ends_the_m_after_its_g(rt, change, args):
    """nice and hard limits can be, with a privilege."""
    before, pid = rt.go(identity).result(20), rt.go(os.getpid).result(20)
    rt.go(change, *args).result(20)
    assert rt.go(identity).result(20) == before
    if (change, args) in FOR_EVER:
        assert helpers.eventually(lambda: not helpers.alive(pid))


# ---------------------------------------------------------------------- several Gs of an M
def set_and_wait(value, begun, go_on):
    os.umask(value)
    begun.send(None)
    go_on.recv()
    return mask()


def test_the_last_one_that_is_left_holds(rt):
    before = rt.go(mask).result(20)
    begun = dgmp.Chan(runtime=rt)
    gates = [dgmp.Chan(runtime=rt) for _ in range(2)]
    futures = []
    for value, gate in zip((0o111, 0o222), gates, strict=True):
        futures.append(rt.go(set_and_wait, value, begun, gate))
        begun.recv(timeout=20)
    assert rt.go(mask).result(20) == 0o222
    gates[1].send(None)
    assert futures[1].result(20) == 0o222
    assert rt.go(mask).result(20) == 0o111
    gates[0].send(None)
    assert futures[0].result(20) == 0o111
    assert rt.go(mask).result(20) == before


def test_what_a_module_does_as_it_is_imported_stays(tmp_path, monkeypatch, node):
    (tmp_path / "sets_a_limit.py").write_text("import os, sys\nsys.setrecursionlimit(1234)\nos.environ['DGMP_TEST_M'] = '1'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    look = lambda: (sys.getrecursionlimit(), os.environ.get("DGMP_TEST_M"), os.getpid())  # noqa: E731
    with dgmp.Runtime(procs=1, max_ms=1) as rt:
        def load():
            import sets_a_limit  # noqa: F401
            return look()

        found = rt.go(load).result(20)
        assert found[:2] == (1234, "1") and rt.go(look).result(20) == found
        rt.go(sys.setrecursionlimit, 2345).result(20)
        assert rt.go(look).result(20) == found


def test_a_new_world_is_not_undone(monkeypatch, node, tmp_path):
    """The program changes its own environment and directory while a G that has changed them is parked."""
    monkeypatch.setenv("DGMP_TEST_W", "1")
    with dgmp.Runtime(procs=1, max_ms=1) as rt:
        begun, go_on = dgmp.Chan(runtime=rt), dgmp.Chan(runtime=rt)

        def change():
            os.environ["DGMP_TEST_W"] = "of a G"
            os.chdir("/")
            begun.send(None)
            go_on.recv()

        f = rt.go(change)
        begun.recv(timeout=20)
        monkeypatch.setenv("DGMP_TEST_W", "2")
        monkeypatch.chdir(tmp_path)
        look = lambda: (os.environ["DGMP_TEST_W"], os.getcwd())  # noqa: E731
        assert rt.go(look).result(20) == ("2", str(tmp_path))
        go_on.send(None)
        f.result(20)
        assert rt.go(look).result(20) == ("2", str(tmp_path))


# ---------------------------------------------------------------------- what was left behind
def test_an_alarm_that_was_left_behind_does_not_strike(node):
    with dgmp.Runtime(procs=1, max_ms=1) as rt:
        pid = rt.go(os.getpid).result(20)
        for set_it in (lambda: signal.setitimer(signal.ITIMER_REAL, 0.02),
                       lambda: faulthandler.dump_traceback_later(0.02, exit=True)):
            rt.go(set_it).result(20)
            assert rt.go(helpers.busy, 0.1).result(20) == 0.1
            assert rt.go(os.getpid).result(20) == pid


@pytest.mark.parametrize("after", range(0, 40, 3))
@pytest.mark.parametrize("install", ["settrace", "setprofile"])
def test_a_trace_function_that_raises_ends_its_g_alone(rt, install, after):
    pid = rt.go(os.getpid).result(20)

    def set_it():
        calls = []

        def function(frame, event, arg):
            calls.append(event)
            if len(calls) > after:
                raise LookupError("of a trace function")

        getattr(sys, install)(function)

    error = rt.go(set_it).exception(20)
    assert error is None or type(error) is LookupError
    assert rt.go(lambda: (sys.gettrace(), sys.getprofile(), os.getpid())).result(20) == (None, None, pid)


def test_a_low_recursion_limit_ends_its_g_alone(rt):
    pid = rt.go(os.getpid).result(20)

    def lower():
        limit = 1
        while True:
            try:
                return sys.setrecursionlimit(limit)
            except RecursionError:
                limit += 1

    for _ in range(3):
        rt.go(lower).exception(20)
    assert rt.go(lambda: (sys.getrecursionlimit(), os.getpid())).result(20) == (sys.getrecursionlimit(), pid)


# ---------------------------------------------------------------------- descriptors
def test_descriptors_that_are_closed_in_c_are_there_again(rt):
    before = rt.go(open_files).result(20)
    rt.go(close_in_c).result(20)
    assert helpers.eventually(lambda: rt.go(time.sleep, 0.02).result(20) or is_open(rt, before))


def is_open(rt, before):
    with contextlib.suppress(OSError):
        return rt.go(open_files).result(20) == before
    return False


def test_our_descriptors_are_not_there_for_user_code(rt):
    for fd in (EVENT_FD, ALARM_FD, OUTPUT_FD):
        with pytest.raises(OSError, match="Bad file descriptor"):
            rt.go(os.close, fd).result(20)
        with pytest.raises(OSError, match=f"descriptor {fd} is one through which dgmp works"):
            rt.go(os.dup2, 0, fd).result(20)
    assert dgmp.gather(*[rt.go(abs, -i) for i in range(50)]) == list(range(50))


def lose_descriptors():
    for fd in range(3, 1000):
        LIBC.close(fd)
    dgmp.lock_os_thread()  # others must run the child, and they are to be made
    return dgmp.go(abs, -1).result()


def test_an_m_that_has_lost_its_descriptors_ends_and_says_so(node):
    with dgmp.Runtime(procs=1) as rt:
        error = rt.go(lose_descriptors).exception(20)
        assert type(error) is dgmp.WorkerDied and "perhaps user code in C has closed the runtime's descriptors" in str(error)
        assert rt.go(abs, -1).result(20) == 1


def test_a_child_that_was_forked_may_close_what_it_likes(rt):
    def fork():
        pid = os.fork()
        if pid == 0:
            os.closerange(3, 4096)
            os._exit(0 if len(os.listdir("/proc/self/fd")) == 4 else 1)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert rt.go(fork).result(20) == 0


# ---------------------------------------------------------------------- what is not undone
def break_builtins():
    import builtins

    builtins.len = builtins.print = None


def fail_at_everything():
    sys.addaudithook(int)


def sleep_until(path):
    while not path.exists():
        time.sleep(0.05)
    return "fine"


def begun(rt, name):
    """How many Gs of that name have."""
    return sum(g.started and g.name.endswith(name) for g in rt.snapshot().gs)


def test_a_g_that_breaks_its_python_harms_no_other(node, tmp_path):
    """The M ends, perhaps with that G or what it takes next; who has begun elsewhere goes on, and others find another M."""
    for harm in (break_builtins, fail_at_everything, lambda: sys.modules.clear(),
                 lambda: __import__("builtins").__dict__.clear()):
        with dgmp.Runtime(procs=2) as rt:
            (gate := tmp_path / "gate").unlink(missing_ok=True)
            others = [rt.go(sleep_until, gate) for _ in range(4)]
            assert helpers.eventually(lambda: begun(rt, "sleep_until") == 4)  # noqa: B023
            error = rt.go(harm).exception(20)
            assert error is None or type(error) in (dgmp.WorkerDied, TypeError)
            gate.touch()
            assert dgmp.gather(*others) == ["fine"] * 4
            assert helpers.eventually(lambda: rt.go(abs, -1).exception(20) is None)  # noqa: B023


def test_other_threads_changes_stay(node):
    with dgmp.Runtime(procs=1) as rt:
        def in_a_thread():
            thread = threading.Thread(target=os.umask, args=(0o123,))
            thread.start()
            thread.join()

        rt.go(in_a_thread).result(20)
        assert rt.go(mask).result(20) == 0o123
