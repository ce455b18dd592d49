"""`dgmp each` with many short jobs, which threads start as others end: as if the launcher had started each of them itself."""

import os
import random
import signal
import subprocess

import pytest

from tests.cli.test_launcher import EACH, Sleeper, each, launcher_of, start
from tests.helpers import descendants, eventually, processes

CORES = len(os.sched_getaffinity(0))


def numbers(n):
    return "".join(f"{i}\n" for i in range(1, n + 1))


def joblog(path):
    """Rows: sequence number, start, seconds, exit code, command."""
    rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
    return [(int(row[0]), float(row[2]), float(row[3]), int(row[6]), row[8]) for row in rows]


@pytest.fixture
def sleeper():
    made = Sleeper()
    yield made
    assert eventually(lambda: not made.pids())


@pytest.mark.parametrize("slots", [2, 8])
def test_each_runs_once_in_its_slot_and_in_order(slots, tmp_path):
    """A slot has one job at a time, and what that is told is so."""
    log = tmp_path / "log"
    script = 'mkdir $DGMP_SLOT || exit 9; echo $DGMP_SLOT $PARALLEL_JOBSLOT $DGMP_JOB_SEQ $DGMP_ATTEMPT {}; rmdir $DGMP_SLOT'
    run = each(f"-j{slots}", "--joblog", str(log), "--tag", script, stdin=numbers(300), cwd=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    seen = [line.replace("\t", " ").split() for line in run.stdout.splitlines()]
    assert sorted(int(words[0]) for words in seen) == [*range(1, 301)]
    assert all(tag == seq == value and slot == same and 1 <= int(slot) <= slots and attempt == "1"
               for tag, slot, same, seq, attempt, value in seen)
    rows = sorted(joblog(log))
    assert [row[0] for row in rows] == [*range(1, 301)] and all(row[3] == 0 and row[2] >= 0 for row in rows)
    begun = [row[1] for row in rows]
    apart = CORES + 2  # that many may be begun by different threads in one moment
    assert all(one <= other for one, other in zip(begun, begun[apart:], strict=False))


def test_the_slot_in_the_command_and_order_kept():
    run = each("-j3", "-k", "echo {%} $DGMP_SLOT {}", stdin=numbers(60))
    seen = [line.split() for line in run.stdout.splitlines()]
    assert [int(words[2]) for words in seen] == [*range(1, 61)] and all(slot == told for slot, told, _ in seen)


def test_a_program_that_cannot_be_run_any_more(tmp_path):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n[ $1 -ne 40 ] || chmod a-x program\n"
                       "[ $1 -lt 50 ] || while [ -x program ]; do sleep 0.01; done\n")
    program.chmod(0o755)
    log = tmp_path / "log"
    run = each("-j2", "--joblog", str(log), "./program", stdin=numbers(200), cwd=tmp_path)
    rows = sorted(joblog(log))
    assert [row[0] for row in rows] == [*range(1, 201)]
    failed = [row[0] for row in rows if row[3]]
    assert {row[3] for row in rows} == {0, 126} and {*range(60, 201)} <= {*failed} and 40 not in failed
    assert run.stderr.count("dgmp: ./program: Permission denied\n") == len(failed) and run.returncode == min(101, len(failed))


def test_threads_are_made_for_many_short_jobs_alone():
    def most(*args):
        run = each(*args, "ls /proc/$PPID/task | wc -l #", stdin=numbers(60))
        return max(map(int, run.stdout.split()))

    assert most("-j1") == most("-j2", "--halt", "soon,fail=1") == most("-j2", "--retries", "2") == 1
    assert most("-j2") == 1 + min(2, CORES)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_after_a_signal_what_has_started_ends_and_nothing_more_starts(number, tmp_path):
    started = tmp_path / "started"
    for attempt in range(5):
        log = tmp_path / f"log{attempt}"
        started.write_text("")
        run = start("-j4", "--joblog", str(log), f"echo {{}} >> {started}", ":::", *map(str, range(1, 20001)))
        wanted = random.randrange(10, 60)
        assert eventually(lambda wanted=wanted: len(started.read_text().splitlines()) >= wanted)
        run.send_signal(number)
        run.communicate(timeout=60)
        ran = sorted(map(int, started.read_text().splitlines()))
        assert ran == sorted(row[0] for row in joblog(log)) == [*range(1, len(ran) + 1)] and len(ran) < 20000


def test_what_has_ended_before_sigterm_is_printed_and_logged(tmp_path):
    """But for what ran at that moment, one job in each slot: that is ended."""
    for attempt in range(3):
        started, log = tmp_path / f"started{attempt}", tmp_path / f"log{attempt}"
        started.write_text("")
        run = start("-j2", "--joblog", str(log), f"echo {{}} >> {started}; echo {{}}", ":::", *map(str, range(1, 4001)))
        assert eventually(lambda started=started: len(started.read_text().splitlines()) >= 150)
        run.terminate()
        printed = set(map(int, run.communicate(timeout=60)[0].split()))
        assert run.returncode == -signal.SIGTERM
        ran, logged = set(map(int, started.read_text().splitlines())), {row[0] for row in joblog(log)}
        assert logged == printed and logged <= ran and len(ran - logged) <= 2


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can be a user who has no other processes")
def test_threads_do_not_take_the_last_processes_that_the_user_may_have():
    caps = "+dac_override,+dac_read_search"  # the project may be where others cannot read
    user = ["setpriv", f"--reuid={random.randrange(1 << 20, 1 << 30)}", f"--inh-caps={caps}", f"--ambient-caps={caps}"]
    if subprocess.run([*user, "true"], capture_output=True).returncode:
        pytest.skip("one cannot become another user here")
    run = subprocess.run([*user, "prlimit", f"--nproc={2 + min(2, CORES)}", *EACH, "-j2", "/bin/echo", ":::",
                          *map(str, range(300))], capture_output=True, text=True, timeout=40)
    assert run.returncode == 0 and sorted(map(int, run.stdout.split())) == [*range(300)]


def test_what_threads_have_started_is_listed_and_ended(sleeper):
    run = start("-j3", f"[ {{}} -le 30 ] || exec {sleeper.command}", ":::", *map(str, range(1, 40)))
    assert eventually(lambda: len(sleeper.pids()) == 3)
    run.send_signal(signal.SIGUSR1)
    listed = {int(run.stderr.readline().split()[1]) for _ in range(3)}
    assert listed == set(sleeper.pids())
    run.terminate()
    run.communicate(timeout=60)
    assert run.returncode == -signal.SIGTERM and not sleeper.pids()


def test_the_launcher_killed_leaves_no_job(sleeper):
    for _ in range(5):
        run = subprocess.Popen([*EACH, "-j3", f": {sleeper.command}; true", ":::", *map(str, range(20000))],
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wanted = random.randrange(10, 60)
        seen = set()

        def enough(seen=seen, run=run, wanted=wanted):
            seen.update(descendants(run.pid))
            return len(seen) >= wanted

        assert eventually(enough)
        os.kill(launcher_of(run.pid), signal.SIGKILL)
        assert run.wait(timeout=60) == -signal.SIGKILL
        assert not [pid for pid, (_, text) in processes().items() if sleeper.seconds in text]
