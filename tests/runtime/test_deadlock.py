"""All goroutines are asleep: who waits for them learns it; and nobody is told so while something can still come.

Each case is a program of its own: a process in which pytest-timeout has installed a signal handler can be woken by it.
"""

import subprocess
import sys
import textwrap

import pytest

HEAD = """
import os, signal, sys, threading, time
import dgmp
from tests import asleep
"""


def program(code, *options):
    return subprocess.run([sys.executable, *(options or ("-c",)), HEAD + textwrap.dedent(code)], capture_output=True, text=True,
                          timeout=60)


def script(tmp_path, code):
    path = tmp_path / "script.py"
    path.write_text("import sys\nsys.path.insert(0, '.')\n" + HEAD + textwrap.dedent(code))
    return subprocess.run([sys.executable, "-m", "dgmp", "run", str(path)], capture_output=True, text=True, timeout=60)


def test_the_program_that_waits_learns_it():
    done = program("""
        f, g = dgmp.spawn(asleep.park, name="one"), dgmp.go(asleep.wait_for_a_child)
        for x in (f, g, f):
            try:
                x.result()
            except dgmp.Deadlock as e:
                text = str(e)
        print(text)
        """)
    assert done.stderr == ""
    assert done.stdout.startswith("all goroutines are asleep - deadlock!\n\nG ")
    assert "[chan receive]: one, m0 pid " in done.stdout
    assert "[wait for result]: tests.asleep.wait_for_a_child, m" in done.stdout
    assert done.stdout.count("[chan receive]: tests.asleep.park, m") == 1
    assert "\tspawned at <string>:" in done.stdout and "/tests/asleep.py:" in done.stdout


def test_it_goes_on_after_a_deadlock():
    done = program("""
        f = dgmp.go(asleep.park)
        try:
            f.result()
        except dgmp.Deadlock:
            print(dgmp.go(abs, -5).result())
        """)
    assert (done.stdout, done.stderr) == ("5\n", "")


def test_closing_does_not_wait_for_ever():
    done = program("""
        try:
            with dgmp.Runtime(procs=1) as rt:
                rt.go(asleep.park)
        except dgmp.Deadlock as e:
            print(str(e).splitlines()[0], rt)
        """)
    assert (done.stdout, done.stderr) == ("all goroutines are asleep - deadlock! <dgmp.Runtime procs=1 closed>\n", "")


def test_closing_does_not_wait_for_ever_for_the_children_of_gs():
    done = program("""
        def leave():
            dgmp.go(asleep.park)
        try:
            with dgmp.Runtime(procs=1) as rt:
                rt.go(leave).result()
        except dgmp.Deadlock:
            print(rt)
        """)
    assert (done.stdout, done.stderr) == ("<dgmp.Runtime procs=1 closed>\n", "")


def test_the_main_g_learns_it(tmp_path):
    done = script(tmp_path, """
        try:
            asleep.park()
        except dgmp.Deadlock as e:
            print(str(e).splitlines()[0])
        dgmp.go(asleep.park).result()
        """)
    assert done.stdout == "all goroutines are asleep - deadlock!\n"
    assert "dgmp.errors.Deadlock: all goroutines are asleep - deadlock!\n\nG 1 [wait for result]: main, m0 pid " in done.stderr
    assert done.returncode == 1


def test_the_standard_librarys_locks_and_queues():
    done = program("""
        import queue
        def lock_twice():
            lock = threading.Lock()
            lock.acquire()
            lock.acquire()
        for fn in (lock_twice, lambda: threading.Event().wait(), lambda: queue.Queue().get()):
            try:
                dgmp.go(fn).result()
            except dgmp.Deadlock as e:
                print(str(e).count("\\nG "), str(e).splitlines()[2][:10])
        """)
    assert (done.stdout, done.stderr) == ("1 G 2 [lock]\n2 G 2 [lock]\n3 G 2 [lock]\n", "")


CHANNELS = """
def receive(c):
    return c.recv()
def exchange(a, b):
    a.send(1)
    return b.recv()
a, b, c, d = (dgmp.Chan() for _ in range(4))
for wait in (
    a.recv,
    lambda: a.send(1),
    lambda: dgmp.select(dgmp.recv(a), dgmp.send(b, 1)),
    lambda: dgmp.go(receive, c).result(),
    lambda: dgmp.gather(dgmp.go(exchange, b, d), dgmp.go(exchange, d, b)),
):
    try:
        wait()
    except dgmp.Deadlock as e:
        print("deadlock")
        text = str(e)
print(text.count("[chan receive]: __main__.receive, m"), text.count("[chan send]: __main__.exchange, m"))
"""



def test_channels_that_nobody_uses_but_us():
    done = program(CHANNELS)
    assert (done.stdout, done.stderr) == ("deadlock\n" * 5 + "1 2\n", "")



def test_channels_that_only_the_main_g_uses(tmp_path):
    done = script(tmp_path, CHANNELS)
    assert (done.stdout, done.stderr) == ("deadlock\n" * 5 + "1 2\n", "")



def test_timers_are_waited_for():
    done = program("""
        def receive(c):
            return c.recv_ok()[1]
        print(dgmp.after(1.2).recv_ok()[1], dgmp.go(receive, dgmp.after(1.2)).result())
        """)
    assert (done.stdout, done.stderr) == ("True True\n", "")


COMES = {
    "a timer of a G": """
        print(dgmp.go(asleep.park, time.monotonic_ns() + 1_200_000_000).result())
        """,
    "a descriptor": """
        r, w = os.pipe()
        os.set_inheritable(r, True)
        child = os.fork()
        if child == 0:
            time.sleep(1.2)
            os.write(w, b"x")
            os._exit(0)
        dgmp.go(dgmp.wait_readable, r).result()
        os.waitpid(child, 0)
        print("late")
        """,
    "a G that sleeps": """
        def later():
            dgmp.sleep(1.2)
            return "late"
        print(dgmp.go(later).result())
        """,
    "a call for later": """
        os.environ["DGMP_PROCS"] = "1"
        f = dgmp.go(asleep.park)
        dgmp.after_func(1.2, asleep.release)
        print(f.result())
        """,
    "a G in user code": """
        f = dgmp.go(asleep.park)
        dgmp.go(time.sleep, 1.2).result()
        print("late")
        """,
    "a time-out of the program": """
        try:
            dgmp.go(asleep.park).result(timeout=1.2)
        except TimeoutError:
            print("late")
        """,
    "another thread of the program": """
        with dgmp.Runtime(procs=1) as rt:
            f = rt.go(asleep.park)
            threading.Timer(1.2, rt.go, [asleep.release]).start()
            print(f.result())
        """,
    "a callback of the program": """
        with dgmp.Runtime(procs=1) as rt:
            f = rt.go(asleep.park)
            rt.go(abs, 1).add_done_callback(lambda _: (time.sleep(1.2), rt.go(asleep.release)))
            print(f.result())
        """,
    "a handler that logs what Gs log": """
        import logging
        class Handler(logging.Handler):
            def emit(self, record):
                time.sleep(1.2)
                rt.go(asleep.release)
        logging.getLogger().addHandler(Handler())
        with dgmp.Runtime(procs=1) as rt:
            f = rt.go(asleep.park)
            rt.go(logging.warning, "later")
            print(f.result())
        """,
    "a signal handler of the program": """
        with dgmp.Runtime(procs=1) as rt:
            f = rt.go(asleep.park)
            signal.signal(signal.SIGALRM, lambda *_: rt.go(asleep.release))
            signal.setitimer(signal.ITIMER_REAL, 1.2)
            print(f.result())
        """,
    "a signal handler of a G": """
        def wake_me():
            signal.signal(signal.SIGALRM, lambda *_: asleep.release())
            signal.setitimer(signal.ITIMER_REAL, 1.2)
            return asleep.park()
        print(dgmp.go(wake_me).result())
        """,
    "a thread that a G has left": """
        print(dgmp.go(asleep.park_and_leave_a_thread, 1.2).result())
        """,
}


@pytest.mark.parametrize("what", COMES)
def test_no_alarm_while_something_can_come(what):
    done = program(COMES[what])
    assert done.stdout in ("late\n", "released\n")
    assert done.stderr == ""


def test_no_alarm_for_what_runs_or_has_ended():
    """Long enough for several looks; Gs that end, wait for each other, and are spawned all the time."""
    done = program("""
        def tree(n):
            if n:
                return sum(dgmp.gather(*[dgmp.go(tree, n - 1) for _ in range(2)]))
            time.sleep(0.01)
            return 1
        end = time.monotonic() + 2
        while time.monotonic() < end:
            assert dgmp.go(tree, 5).result() == 32
        print("fine")
        """)
    assert (done.stdout, done.stderr) == ("fine\n", "")


def test_what_another_runtime_of_the_program_calls_back():
    done = program("""
        c = dgmp.Chan(1)
        f = dgmp.go(c.recv)
        with dgmp.Runtime(procs=1) as other:
            other.go(time.sleep, 1.5).add_done_callback(lambda _: c.send("came"))
            print(f.result())
        """)
    assert (done.stdout, done.stderr) == ("came\n", "")
