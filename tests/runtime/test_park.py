"""The low-level calls for those who build their own primitives: a one-shot event between processes, and its hazards."""

import math
import mmap
import pickle
import threading

import pytest

import dgmp
from dgmp import runtime
from tests.helpers import eventually


@pytest.fixture(scope="module")
def node():
    """The embedded runtime, for all tests that need none of their own."""
    from dgmp.api import runtime as api

    dgmp.go(int).result()
    yield api._default
    api._default.close(cancel=True)


class Event:
    """One-shot, for one waiting G, whose token lies in a mapped file: a byte, and the length and the bytes of a pickle."""

    def __init__(self, path):
        self.path = path
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 256)

    def __reduce__(self):
        return Event, (self.path,)

    def wait(self):
        data = pickle.dumps(runtime.park_token())
        self.memory[2:2 + len(data)] = data
        self.memory[1] = len(data)
        while not self.memory[0]:
            runtime.gopark(runtime.park_token())
        return self.memory[0]

    def set(self):
        self.memory[0] = 1
        if self.memory[1]:
            runtime.goready(pickle.loads(self.memory[2:]))

    def waited_for(self):
        return self.memory[1] != 0


@pytest.fixture
def event(node, tmp_path):
    path = tmp_path / "event"
    path.write_bytes(bytes(256))
    return Event(str(path))


def test_an_event_set_by_the_client(event):
    f = dgmp.go(Event.wait, event)
    assert eventually(event.waited_for)
    event.set()
    assert f.result(20) == 1


def test_an_event_set_by_another_g(event):
    f = dgmp.go(Event.wait, event)
    assert eventually(event.waited_for)
    dgmp.go(Event.set, event).result(20)
    assert f.result(20) == 1


def race(n):
    """Another thread readies a G that is about to park, over and over: no wake-up is lost."""
    token, go, rounds = runtime.park_token(), [0], []

    def other():
        for i in range(1, n + 1):
            while len(rounds) < i:
                pass
            go[0] = i
            runtime.goready(token)

    thread = threading.Thread(target=other)
    thread.start()
    for i in range(1, n + 1):
        rounds.append(i)
        while go[0] < i:
            runtime.gopark(token)
    thread.join()
    return go[0]


def test_no_wake_up_is_lost(node):
    assert dgmp.go(race, 200).result(60) == 200


def permit_before():
    token = runtime.park_token()
    assert runtime.goready(token) and runtime.goready(token)
    dgmp.sleep(0.001)  # other waits take no permit, and go on waiting
    assert runtime.gopark(token, "semacquire", 20)
    return runtime.gopark(token, timeout=0.01)  # permits do not add up


def test_a_goready_before_gopark_is_not_lost(node):
    assert dgmp.go(permit_before).result(20) is False


def misuse(foreign):
    token = runtime.park_token()
    assert token == pickle.loads(pickle.dumps(token)) and len({token, runtime.park_token()}) == 1
    assert "ParkToken" in repr(token) and token != "token"
    with pytest.raises(RuntimeError, match="another's"):
        runtime.gopark(foreign)
    with pytest.raises(ValueError, match="reason"):
        runtime.gopark(token, "boredom")
    with pytest.raises(ValueError, match="NaN"):
        runtime.gopark(token, timeout=math.nan)
    runtime.gosched()
    return token


def test_misuse(node):
    token = dgmp.go(misuse, runtime.ParkToken(0, 0)).result(20)
    with pytest.raises(RuntimeError, match="only a G"):
        runtime.park_token()
    with pytest.raises(RuntimeError):
        runtime.gopark(token)
    assert runtime.goready(token) is False  # it has ended
    with pytest.raises(LookupError):
        runtime.goready(runtime.ParkToken(1, token.word))
    with pytest.raises(ValueError):
        runtime.goready(runtime.ParkToken(token.runtime, (1 << 64) - 1))
    runtime.gosched()
    with pytest.raises(AttributeError):
        _ = runtime.nothing


def parked_for_ever():
    runtime.gopark(runtime.park_token())


def test_a_parked_g_is_cancelled(node):
    parks = dgmp.stats()["parks"]
    f = dgmp.go(parked_for_ever)
    assert eventually(lambda: dgmp.stats()["parks"] > parks)
    assert f.cancel()
    with pytest.raises(dgmp.Cancelled):
        f.result(20)
