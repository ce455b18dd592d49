"""Each rule of the history finds what it is for, in made-up histories, and leaves alone what may happen."""

import os
import subprocess

import pytest

from tests.chaos import workloads
from tests.chaos.history import (
    IDLE_BOUND,
    RECORD,
    SECOND,
    Flag,
    Kind,
    Log,
    Outcome,
    Record,
    Role,
    leaks,
    lost_wake_ups,
    read,
    violations,
)
from tests.helpers import PYTHON

CLIENT, M1, M2 = 100, 201, 202
QUIET = {"num_g": 0, "large_blocks": 0, "large_bytes": 0, "objects": 0, "runqueue": 0, "spinningthreads": 0, "throws": 0,
         "idleprocs": 2, "gomaxprocs": 2}


def records(*steps):
    """Of (pid, kind, id, value, detail), a microsecond apart; what is missing is 0."""
    return [Record(1000 * i, *(lambda pid, kind, id=0, value=0, detail=0: (id, value, pid, kind, detail))(*step))
            for i, step in enumerate(steps)]


def submitted(g=1, retries=0, flags=0, owner=CLIENT):
    return [(owner, Kind.SUBMIT, g, retries, flags), (owner, Kind.ACCEPT, g)]


def ran(g=1, m=M1):
    return [(m, Kind.START, g), (m, Kind.FINISH, g)]


def ended(g=1, outcome=Outcome.RIGHT, pid=0, owner=CLIENT):
    return [(owner, Kind.END, g, pid, outcome)]


def found(*steps):
    """The names of the rules that a history breaks."""
    return {text.partition(":")[0] for text in violations(records(*steps, (CLIENT, Kind.LIVED)))}


def kill(pid, role=Role.M):
    return (1, Kind.KILL, pid, 0, role)


GOOD = {
    "a call": [*submitted(), *ran(), *ended()],
    "killed as it ran": [*submitted(), (M1, Kind.START, 1), kill(M1), *ended(outcome=Outcome.DIED, pid=M1)],
    "killed before it began": [*submitted(), kill(M1), *ended(outcome=Outcome.DIED, pid=M1)],
    "killed after it ran": [*submitted(), *ran(), kill(M1), *ended(outcome=Outcome.DIED, pid=M1)],
    "killed by itself": [*submitted(), (M1, Kind.START, 1), (M1, Kind.DIE), *ended(outcome=Outcome.DIED, pid=M1)],
    "stopped for so long that it was killed": [*submitted(), (M1, Kind.START, 1), (1, Kind.STOP, M1),
                                               *ended(outcome=Outcome.DIED, pid=M1)],
    "retried": [*submitted(retries=1), (M1, Kind.START, 1), kill(M1), *ran(m=M2), *ended()],
    "retried though it had come to its end": [*submitted(retries=1), *ran(), kill(M1), *ran(m=M2), *ended()],
    "retried after its error": [*submitted(retries=1), (M1, Kind.START, 1), (M1, Kind.RAISED, 1), *ran(), *ended()],
    "given up": [*submitted(retries=1), (M1, Kind.START, 1), kill(M1), (M2, Kind.START, 1), kill(M2),
                 *ended(outcome=Outcome.DIED, pid=M2)],
    "late": [*submitted(flags=Flag.TIMED), *ran(), *ended(outcome=Outcome.LATE)],
    "a chunk dies together": [*submitted(1, flags=Flag.TOGETHER), *submitted(2, flags=Flag.TOGETHER), kill(M1),
                              *ended(1, Outcome.DIED, M1), *ended(2, Outcome.DIED, M1)],
    "its owner dies": [*submitted(owner=M1), kill(M1)],
    "its owner is cancelled": [*submitted(owner=M1), (M1, Kind.DROP, 1)],
    "cancelled": [*submitted(), (CLIENT, Kind.CANCEL, 1), *ended(outcome=Outcome.CANCELLED)],
    "cancelled with its Group": [*submitted(flags=Flag.CANCELLABLE), *ended(outcome=Outcome.CANCELLED)],
    "the coordinator dies": [*submitted(1), *submitted(2, owner=M1), kill(300, Role.COORDINATOR),
                             *ended(outcome=Outcome.NODE_DIED)],
    "a callback": [*submitted(), (CLIENT, Kind.LISTEN, 1), *ran(), (CLIENT, Kind.CALLED, 1), *ended()],
    "a message": [(M1, Kind.SENT, 7), (M2, Kind.GOT, 7)],
    "a message that is lost with a process": [(M1, Kind.SENT, 7), kill(M2)],
    "a mutex": [(M1, Kind.LOCK, 7), (M1, Kind.UNLOCK, 7), (M2, Kind.LOCK, 7), (M2, Kind.UNLOCK, 7)],
    "a mutex whose holder dies": [(M1, Kind.LOCK, 7), kill(M1), (M2, Kind.LOCK, 7), (M2, Kind.UNLOCK, 7)],
    "lost with a child": [*submitted(), *ran(), kill(M2), *ended(outcome=Outcome.LOST)],
}

BAD = {
    "lost": ("ends_once", submitted()),
    "lost by an M": ("ends_once", submitted(owner=M1)),
    "doubled": ("ends_once", [*submitted(), *ran(), *ended(), *ended()]),
    "ended elsewhere": ("ends_once", [*submitted(), *ran(), *ended(owner=M2)]),
    "ended and never submitted": ("ends_once", [*ran(), *ended()]),
    "a callback too many": ("told_once", [*submitted(), (CLIENT, Kind.LISTEN, 1), *ran(), (CLIENT, Kind.CALLED, 1),
                                          (CLIENT, Kind.CALLED, 1), *ended()]),
    "a callback forgotten": ("told_once", [*submitted(), (CLIENT, Kind.LISTEN, 1), *ran(), *ended()]),
    "run twice": ("runs_again_only_after_a_death", [*submitted(), (M1, Kind.START, 1), kill(M1), *ran(m=M2), *ended()]),
    "run more often than its retries": ("runs_again_only_after_a_death",
                                        [*submitted(retries=1), (M1, Kind.START, 1), kill(M1), (M2, Kind.START, 1),
                                         kill(M2), *ran(m=203), *ended()]),
    "retried while it still runs": ("runs_again_only_after_a_death",
                                    [*submitted(retries=1), (M1, Kind.START, 1), *ran(m=M2), (M1, Kind.FINISH, 1), *ended()]),
    "run twice in one process": ("runs_again_only_after_a_death", [*submitted(retries=1), *ran(), *ran(), *ended()]),
    "begun after it ended": ("no_start_after_the_end", [*submitted(), (CLIENT, Kind.CANCEL, 1),
                                                        *ended(outcome=Outcome.CANCELLED), *ran()]),
    "begun before it was submitted": ("no_start_after_the_end", [*ran(), *submitted(), *ended()]),
    "dead for no reason": ("died_for_a_reason", [*submitted(), (M1, Kind.START, 1), *ended(outcome=Outcome.DIED, pid=M1)]),
    "given up too soon": ("died_for_a_reason", [*submitted(retries=1), (M1, Kind.START, 1), kill(M1),
                                                *ended(outcome=Outcome.DIED, pid=M1)]),
    "late without a timeout": ("results_are_right", [*submitted(), *ran(), *ended(outcome=Outcome.LATE)]),
    "dead with another": ("died_for_a_reason", [*submitted(), (M1, Kind.START, 1), kill(M2),
                                                *ended(outcome=Outcome.DIED, pid=M2)]),
    "a death that costs queued Gs": ("died_for_a_reason", [*submitted(1), *submitted(2), kill(M1),
                                                           *ended(1, Outcome.DIED, M1), *ended(2, Outcome.DIED, M1)]),
    "cancelled for no reason": ("cancelled_when_asked", [*submitted(), *ended(outcome=Outcome.CANCELLED)]),
    "a wrong result": ("results_are_right", [*submitted(), *ran(), *ended(outcome=Outcome.WRONG)]),
    "an exception": ("results_are_right", [*submitted(), *ran(), *ended(outcome=Outcome.FAILED)]),
    "a result of a function that did not run": ("results_are_right", [*submitted(), *ended()]),
    "lost with nobody": ("results_are_right", [*submitted(), *ran(), *ended(outcome=Outcome.LOST)]),
    "ended with a coordinator that lives": ("results_are_right", [*submitted(), *ended(outcome=Outcome.NODE_DIED)]),
    "a message twice": ("delivered_once", [(M1, Kind.SENT, 7), (M2, Kind.GOT, 7), (M2, Kind.GOT, 7)]),
    "a message from nowhere": ("delivered_once", [(M2, Kind.GOT, 7)]),
    "a message that is lost": ("delivered_once", [(M1, Kind.SENT, 7)]),
    "a mutex with two holders": ("one_holder", [(M1, Kind.LOCK, 7), (M2, Kind.LOCK, 7), (M1, Kind.UNLOCK, 7)]),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_may_happen_is_left_alone(name):
    assert found(*GOOD[name]) == set()


@pytest.mark.parametrize("name", BAD)
def test_what_must_not_happen_is_found(name):
    rule, steps = BAD[name]
    assert rule in found(*steps)


def samples(*steps):
    """Of (second, kind, id, value, detail), once an M has begun to run."""
    steps = [(0, Kind.START, 1, 1, 0), *steps]
    return {text.partition(":")[0] for text in
            violations(Record(int(second * SECOND), id, value, 1, kind, detail) for second, kind, id, value, detail in steps)
            if "work" in text}


def idle(second, goid, ps=1):
    return (second, Kind.SAMPLE, 0, goid, ps)


LONG = IDLE_BOUND / SECOND + 1


@pytest.mark.parametrize("steps,broken", [
    ([idle(0, 5), idle(LONG, 5)], True),
    ([idle(0, 5), idle(1, 5), idle(LONG - 1.5, 5)], False),
    ([idle(0, 5), idle(1, 6), idle(LONG, 5)], False),  # another G is the oldest: it goes on
    ([idle(0, 5), idle(1, 0), idle(LONG, 5)], False),
    ([idle(0, 5), idle(1, 5, 0), idle(LONG, 5)], False),  # no P was idle
    ([(0, Kind.STOP, 9, 0, 0), idle(1, 5), idle(1 + LONG, 5), (9, Kind.CONT, 9, 0, 0)], False),
    ([(0, Kind.STOP, 9, 0, 0), (1, Kind.CONT, 9, 0, 0), idle(3, 5), idle(3 + LONG, 5)], True),
    ([idle(0, 5), (1, Kind.KILL, 9, 0, Role.M), idle(1.5, 5), idle(LONG, 5)], False),
    ([(0, Kind.KILL, 9, 0, Role.M), idle(2, 5), idle(2 + LONG, 5)], True),
    ([(0, Kind.KILL, 9, 0, Role.ZYGOTE), idle(2, 5), idle(2 + LONG, 5)], False),
])
def test_work_beside_an_idle_p(steps, broken):
    assert samples(*steps) == ({"work_conserving"} if broken else set())


def test_before_there_is_an_m_all_wait():
    waits = [Record(int(second * SECOND), 0, 5, 1, Kind.SAMPLE, 1) for second in (0, LONG)]
    assert violations(waits) == []


@pytest.mark.parametrize("name", ["num_g", "large_blocks", "objects", "throws", "spinningthreads"])
def test_leaks_are_found(name):
    assert leaks(QUIET) == [] and leaks(QUIET | {name: 2}) == [f"{name} is 2"]


def test_a_p_that_stays_busy_is_a_leak():
    assert leaks(QUIET | {"idleprocs": 1}) == ["1 of 2 Ps are idle"]


def test_a_rescue_for_which_there_was_no_reason_is_a_lost_wake_up():
    assert lost_wake_ups(5, 2, 3) == [] and lost_wake_ups(6, 2, 3) == ["6 rescues, with 2 strikes"]


def test_a_history_is_what_all_processes_have_written(tmp_path):
    code = "import os, sys; from tests.chaos.history import *; Log(sys.argv[1]).write(Kind.START, 1); os.kill(os.getpid(), 9)"
    log = Log(tmp_path)
    log.write(Kind.SUBMIT, 1, 2, 3)
    child = subprocess.run([PYTHON, "-c", code, str(tmp_path)])
    log.write(Kind.END, 1)
    log.close()
    history = read(tmp_path)
    assert child.returncode == -9
    assert [record.kind for record in history] == [Kind.SUBMIT, Kind.START, Kind.END]
    assert history[0] == (history[0].ns, 1, 2, os.getpid(), Kind.SUBMIT, 3) and history[1].pid != os.getpid()


def test_a_runtime_that_retries_does_so_whatever_a_g_has_said(tmp_path, monkeypatch):
    class Nowhere:
        @staticmethod
        def spawn(*call, **terms):
            return None

    monkeypatch.setenv(workloads.FOLDER, str(tmp_path))
    monkeypatch.setattr(workloads, "_log", None)
    for least in "0", "200":
        monkeypatch.setenv(workloads.RETRIES, least)
        workloads.submit(abs, -1, expected=1, where=Nowhere, retries=2)
    workloads._log.close()
    assert [record.value for record in read(tmp_path) if record.kind == Kind.SUBMIT] == [2, 200]


def test_a_record_that_is_not_whole_is_left_out(tmp_path):
    log = Log(tmp_path)
    log.write(Kind.SUBMIT, 1)
    os.write(log.fd, b"x" * (RECORD.size - 1))
    log.close()
    assert len(read(tmp_path)) == 1
