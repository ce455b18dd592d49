"""The crash matrix: at each stage of a G each way to fail, or to die, and exactly what becomes of it; what waits for the dead,
and the others, who are unharmed.  (After loky's test_reusable_executor.)"""

import os
import queue
import re
import subprocess
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


def still_fine(rt):
    return dgmp.gather(*[rt.go(helpers.identity, i) for i in range(20)]) == list(range(20))


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
    assert still_fine(rt) and pids <= set(rt.node.view.pids())  # and no M


@by_name("submit", SUBMIT, **names)
@by_name("act", DIES, **names)
@by_name("stage", IN_M)
def test_a_death_ends_its_g_alone_and_says_which_and_how(rt, stage, act, submit):
    (kind, text, pid, exitcode), place = submit(rt, stage, act)
    how, code = DIES[act]
    assert (kind, exitcode) == ("WorkerDied", code)
    assert re.match(rf"G \d+ \({IN_M[stage][0].__name__}\), spawned at {re.escape(place)}, ", text)
    assert re.search(rf"m\d+, pid {pid}\b.*{how}", text) and not helpers.alive(pid)
    assert still_fine(rt)


@by_name("act", DIES, **names)
def test_a_parent_that_is_parked_on_the_dead_m_is_told_so(node, act):
    """With one P the child runs in its parent's process."""
    with dgmp.Runtime(procs=1) as rt:
        f = rt.go(dying.try_on_this_m, "run", act)
        error = f.exception(20)
        how, code = DIES[act]
        assert type(error) is dgmp.WorkerDied and error.exitcode == code and not helpers.alive(error.pid)
        assert re.match(rf"G \d+ \(try_on_this_m\), spawned at {re.escape(f.spawned_at)}, was parked on", str(error))
        assert re.search(rf"pid {error.pid}\b.* {how} while it ran G \d+", str(error))
        assert still_fine(rt)


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
    assert still_fine(node)


@by_name("act", DIES, **names)
@by_name("stage", IN_CLIENT, **names)
def test_a_parent_that_dies_at_a_stage_of_its_child(rt, stage, act):
    f = rt.go(stage, act)
    error = f.exception(20)
    how, code = DIES[act]
    assert type(error) is dgmp.WorkerDied and error.exitcode == code
    assert f"({stage.__name__}), spawned at {f.spawned_at}, " in str(error)
    assert re.search(rf"pid {error.pid}\b.*{how}", str(error))
    assert still_fine(rt)


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
    program.communicate("go on\n", timeout=30)
    assert program.returncode == DIES[act][1]
    assert gone(family)
