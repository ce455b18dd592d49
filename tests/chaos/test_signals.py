"""Ctrl-C, Ctrl-Z and what Gs leave behind, with real terminals, process groups and orphans."""

import importlib
import os
import pty
import random
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

import dgmp
from tests import helpers
from tests.chaos.test_kill import ROUNDS, gone, start
from tests.helpers import PATIENCE, PYTHON, alive, descendants, eventually

DGMP = [PYTHON, "-m", "dgmp", "run"]

WAITS_IN_RESULT = """
import time, dgmp
def nap(): time.sleep(60)
def main():
    f = dgmp.go(nap)
    print("ready", flush=True)
    f.result()
main()
"""
CLEANS_UP = """
import sys, time
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("cleaning up", flush=True)
    sys.exit(5)
"""
PARKED_AND_CLEANS_UP = """
import sys, time, dgmp
def nap(): time.sleep(60)
try:
    f = dgmp.go(nap)
    print("ready", flush=True)
    f.result()
except KeyboardInterrupt:
    print("cleaning up", flush=True)
    sys.exit(5)
"""
STUBBORN = """
import time
said = False
while True:
    try:
        if not said:
            said = True
            print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        pass
"""


def run(tmp_path, text, procs=2, **options):
    script = tmp_path / "script.py"
    script.write_text(text)
    program = subprocess.Popen([*DGMP, "--procs", str(procs), str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, **options)
    assert program.stdout.readline() == "ready\n"
    return program, descendants(program.pid)


@pytest.mark.parametrize("text,code,out,tracebacks", [
    (WAITS_IN_RESULT, 130, "", 1), (CLEANS_UP, 5, "cleaning up\n", 0), (PARKED_AND_CLEANS_UP, 5, "cleaning up\n", 0),
    (STUBBORN, 130, "", 0)])
def test_ctrl_c_reaches_the_script(tmp_path, text, code, out, tracebacks):
    program, family = run(tmp_path, text)
    program.send_signal(signal.SIGINT)
    said, err = program.communicate(timeout=PATIENCE)
    assert (program.returncode, said, err.count("Traceback")) == (code, out, tracebacks), err
    assert "dgmp/" not in err.replace(str(tmp_path), "")
    assert gone(family)


HANDLES = """
import os, signal, sys, time, dgmp
def handler(number, frame):
    os.write(1, b"handler %d\\n" % number)
    if number == {last}:
        sys.exit(7)
for number in {numbers}:
    signal.signal(number, handler)
print("ready", flush=True)
while True:
    {wait}
"""
SIGNALS = [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT, signal.SIGALRM]


@pytest.mark.parametrize("wait", ["signal.pause()", "dgmp.go(time.sleep, 0.01).result()", "dgmp.gosched()"])
def test_signals_reach_the_scripts_handlers(tmp_path, wait):
    """Whether it computes, waits in a system call, or is parked while another G runs: the handler runs in the main G."""
    numbers = [int(number) for number in SIGNALS]
    program, family = run(tmp_path, HANDLES.format(last=numbers[-1], numbers=numbers, wait=wait), procs=1)
    for number in numbers:
        program.send_signal(number)
        assert program.stdout.readline() == f"handler {number}\n"
    said, err = program.communicate(timeout=PATIENCE)
    assert (program.returncode, said, err) == (7, "", "")
    assert gone(family)


PARKED = """
import signal, sys, time, dgmp
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
begun = dgmp.stats()["gs"]
child = dgmp.go(time.sleep, 60)
while dgmp.stats()["gs"] == begun:  # until another M has taken it
    pass
print("ready", flush=True)
child.result()
"""


def test_a_signal_readies_the_main_g(tmp_path):
    """m0 has nothing to do, the main G waits for what another M does."""
    program, family = run(tmp_path, PARKED)
    program.terminate()
    assert (*program.communicate(timeout=PATIENCE), program.returncode) == ("", "", 7)
    assert gone(family)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGALRM])
def test_a_script_without_handlers_dies_of_a_signal(tmp_path, number):
    program, family = run(tmp_path, "import time\nprint('ready', flush=True)\ntime.sleep(60)\n")
    program.send_signal(number)
    said, err = program.communicate(timeout=PATIENCE)
    assert (program.returncode, said) == (-number, "")
    assert err.startswith("SIGQUIT: quit\n\nG 1 [running]: main, m0 pid ") if number == signal.SIGQUIT else not err
    assert gone(family)


def test_a_signal_that_is_ignored_stays_so(tmp_path):
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        program, family = run(tmp_path, "print('ready', flush=True)\nprint(input())\n", stdin=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGHUP, before)
    program.send_signal(signal.SIGHUP)
    assert program.communicate("still here\n", timeout=PATIENCE) == ("still here\n", "")
    assert program.returncode == 0
    assert gone(family)


def test_terminated_at_random_moments(tmp_path):
    rng = random.Random(11)
    (tmp_path / "script.py").write_text("import time\ntime.sleep(60)\n")
    for _ in range(2 * ROUNDS):
        program = subprocess.Popen([*DGMP, str(tmp_path / "script.py")], stderr=subprocess.PIPE, text=True)
        time.sleep(rng.random() * 0.15)
        family = descendants(program.pid)
        program.terminate()
        _, err = program.communicate(timeout=PATIENCE)
        assert (program.returncode, err) == (-signal.SIGTERM, "")
        assert gone(family)


def test_ctrl_c_on_a_terminal(tmp_path):
    """The terminal signals the whole foreground group: the launcher and m0, which reads the terminal."""
    script = tmp_path / "script.py"
    script.write_text("import dgmp\nprint('hello ' + input('name? '), flush=True)\ninput('again? ')\n")
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(PYTHON, [*DGMP, str(script)])
    said = read_until(terminal, b"name? ")
    os.write(terminal, b"you\n")
    said += read_until(terminal, b"again? ")
    family = descendants(pid)
    os.write(terminal, b"\x03")
    said += read_until(terminal, None)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert b"hello you" in said and said.count(b"Traceback") <= 1
    assert gone(family)
    os.close(terminal)


def test_ctrl_backslash_on_a_terminal(tmp_path):
    """As with Ctrl-C both get it; all Gs are shown once."""
    script = tmp_path / "script.py"
    script.write_text("import time, dgmp\nprint('ready', flush=True)\nwhile True:\n    time.sleep(0.01)\n")
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(PYTHON, [*DGMP, str(script)])
    read_until(terminal, b"ready")
    family = descendants(pid)
    os.write(terminal, b"\x1c")
    said = read_until(terminal, None)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGQUIT
    assert said.count(b"SIGQUIT: quit") == said.count(b"G 1 [running]: main, m0 pid ") == 1, said
    assert gone(family)
    os.close(terminal)


def read_until(fd, text):
    """What comes, up to text, or (None) to the end."""
    got = b""
    while text is None or text not in got:
        assert select.select([fd], [], [], 20)[0], got
        try:
            data = os.read(fd, 4096)
        except OSError:  # the other end of a terminal is gone
            break
        if not data:
            break
        got += data
    return got


def test_ctrl_c_at_random_moments():
    rng = random.Random(3)
    for _ in range(ROUNDS):
        program, family = start()
        time.sleep(rng.random() * 0.05)
        program.send_signal(signal.SIGINT)
        out, _ = program.communicate(timeout=PATIENCE)
        assert program.returncode in (1, 130, -signal.SIGINT) and out.count("Traceback") <= 1, out
        assert gone(family)


def test_ctrl_z_and_fg(tmp_path):
    """Stopped for longer than any patience, then continued: the answer is the same."""
    text = ("import dgmp, os\nfrom tests.helpers import fib\nprint('ready', flush=True)\ntold = False\n"
            f"while not told:\n    told = os.path.exists({str(tmp_path / 'told')!r})\n"
            "    answer = sum(dgmp.gather(*[dgmp.go(fib, 12) for _ in range(20)]))\nprint(answer)\n")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    program, family = run(tmp_path, text, start_new_session=True, env=env)
    for _ in range(3):
        os.killpg(program.pid, signal.SIGSTOP)
        assert eventually(lambda: state(program.pid) == "T")
        time.sleep(0.3)  # the coordinator, in a group of its own, runs on and must not take m0 for dead
        os.killpg(program.pid, signal.SIGCONT)
    (tmp_path / "told").touch()
    said, err = program.communicate(timeout=60)
    assert (program.returncode, said, err) == (0, "2880\n", "")
    assert gone(family)


def state(pid):
    return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]


def test_ms_stopped_at_random_moments_lose_nothing():
    rng = random.Random(5)
    for _ in range(ROUNDS):
        with dgmp.Runtime(procs=2) as rt:
            futures = [rt.go(helpers.fib, 6) for _ in range(100)] + [rt.go(helpers.identity, 8) for _ in range(1000)]
            for _ in range(3):
                time.sleep(rng.random() * 0.01)
                for _, pid in rt.node.view.pids():
                    os.kill(pid, signal.SIGSTOP)
                    assert eventually(lambda: state(pid) == "T")  # noqa: B023
                    futures.append(rt.go(helpers.identity, 8))
                    os.kill(pid, signal.SIGCONT)
            assert set(dgmp.gather(*futures)) == {8}


def start_sleeper():
    return subprocess.Popen(["sleep", "60"], start_new_session=False).pid


def leave_a_zombie():
    """A grandchild whose parent ends first: it becomes the coordinator's."""
    out, into = os.pipe()
    if os.fork() == 0:
        if os.fork() == 0:
            os.write(into, f"{os.getpid()}".encode())
        os._exit(0)
    os.wait()
    return int(os.read(out, 20))


def test_processes_that_gs_start_end_with_the_runtime():
    with dgmp.Runtime(procs=2) as rt:
        sleeper = rt.go(start_sleeper).result(20)
        orphan = rt.go(start_sleeper).result(20)
        with pytest.raises(dgmp.WorkerDied):
            rt.go(helpers.kill_self).result(20)
        assert alive(sleeper) and alive(orphan)
        zombie = rt.go(leave_a_zombie).result(20)
        assert eventually(lambda: not (Path("/proc") / str(zombie)).exists())
    assert gone([sleeper, orphan])


BARRAGE = """
import signal, time, dgmp
def handler(number, frame):
    seen.append(dgmp.go(abs, -4).result())
def main():
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    while len(seen) < 300:
        assert dgmp.gather(*[dgmp.go(abs, -i) for i in range(20)]) == list(range(20))
    signal.setitimer(signal.ITIMER_REAL, 0)
    return set(seen)
seen = []
"""


@pytest.mark.parametrize("procs", [1, 2])
@pytest.mark.parametrize("start", ["print(main())", "print(dgmp.go(main).result())"])
def test_a_handler_may_use_the_runtime_wherever_it_strikes(tmp_path, start, procs):
    (tmp_path / "script.py").write_text(BARRAGE + start)
    done = subprocess.run([*DGMP, "--procs", str(procs), str(tmp_path / "script.py")], capture_output=True, text=True,
                          timeout=2 * PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{4}\n", "")


class Alarm(Exception):
    pass


def raise_alarm(number, frame):
    raise Alarm


def limit_waiting(rounds):
    """Each round ends with the result or with an Alarm here, and leaves the child alone."""
    rng = random.Random(rounds)
    signal.signal(signal.SIGALRM, raise_alarm)
    alarms = 0
    for _ in range(rounds):
        child = dgmp.go(helpers.nap, 0.002)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0001 + rng.random() * 0.004)
            child.result()
            while True:
                dgmp.go(helpers.identity, 1).result()
        except Alarm:
            alarms += 1
        assert child.result() == 0.002
    return alarms


@pytest.mark.parametrize("procs", [1, 2])
def test_an_alarm_limits_the_g_that_set_it(procs):
    with dgmp.Runtime(procs=procs) as rt:
        others = [rt.go(helpers.fib, 8) for _ in range(10)]
        assert rt.go(limit_waiting, 200).result(30) == 200
        assert set(dgmp.gather(*others)) == {21}
        assert rt.go(helpers.fib, 8).result(30) == 21


def install(handler):
    signal.signal(signal.SIGUSR1, handler)
    return os.getpid()


def install_by_import(name):
    return importlib.import_module(name).pid


def handle_alone(number, frame):
    dgmp.go(print, "the handler ran", flush=True)
    dgmp.go(print).result()


def test_a_handler_of_a_module_outlives_the_g_that_imported_it(capfd, tmp_path, monkeypatch):
    """It can do everything but wait, and harm nobody: the M that was idle, and then the G whose code it interrupts."""
    for name in ("handle_alone", "raise_alarm"):
        (tmp_path / f"installs_{name}.py").write_text(f"from tests.chaos import test_signals\n"
                                                      f"pid = test_signals.install(test_signals.{name})\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with dgmp.Runtime(procs=1) as rt:
        pid = rt.go(install_by_import, "installs_handle_alone").result(20)
        assert eventually(lambda: rt.stats()["idleprocs"] == 1)
        os.kill(pid, signal.SIGUSR1)
        assert eventually(lambda: "the handler ran" in capfd.readouterr().out)
        assert rt.go(install_by_import, "installs_raise_alarm").result(20) == pid
        computes = rt.go(helpers.compute_until, tmp_path / "gate")
        assert eventually(lambda: any(g.state == "running" for g in rt.snapshot().gs))
        os.kill(pid, signal.SIGUSR1)
        (tmp_path / "gate").touch()
        assert computes.result(20) == tmp_path / "gate"
        assert rt.go(os.getpid).result(20) == pid
    said = capfd.readouterr().err
    assert said.count("Exception ignored in: <function raise_alarm") == 1


HANDLERS = """
import signal
def handler(number, frame): pass
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
assert signal.signal(signal.SIGUSR1, handler) is signal.SIG_DFL
assert signal.getsignal(signal.SIGUSR1) is handler
assert signal.signal(signal.SIGUSR1, signal.SIG_IGN) is handler
assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
signal.raise_signal(signal.SIGUSR1)
"""


def test_handlers_are_what_the_script_made_them(tmp_path):
    (tmp_path / "script.py").write_text(HANDLERS)
    done = subprocess.run([*DGMP, str(tmp_path / "script.py")], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
