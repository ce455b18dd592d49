"""The warning when every M blocks: what it says, and when."""

import os
from types import SimpleNamespace

import pytest

from dgmp._core import KIND_CLIENT, KIND_M, View, create
from dgmp.coordinator.blocked import warning
from dgmp.coordinator.state import BLOCKED_NS, Coordinator


def test_it_names_the_calls():
    text = warning([(3, "a.read", 1.04), (4, "b.wait", 2.5), (9, "a.read", 3.0), (11, "", 0.0)], 4)
    assert text == ("dgmp: warning: Gs are waiting, but all 4 Ms (max_ms) block, in a.read (2: G 9 for 3.0 s, G 3 for 1.0 s), "
                    "b.wait (1: G 4 for 2.5 s), functions without a name (1: G 11 for 0.0 s); a larger max_ms, or calls that "
                    "park instead of blocking, would let them run")


def test_it_stays_short():
    text = warning([(i, f"f{i % 30}", i) for i in range(3000)], 3000)
    assert text.count("f") < 40 and "f29 (100: G 2999 for 2999.0 s, G 2969 for 2969.0 s, G 2939 for 2939.0 s ...)" in text
    assert "2500 others; " in text


@pytest.fixture
def coordinator():
    """With a view that says what the test wants."""
    c = Coordinator(SimpleNamespace(max_ms=2))
    c.says = []
    c.view.all_blocked = lambda: c.says
    return c


def looks(c, says, at):
    c.says = says
    return c.warn_of_blocking(at)


def test_it_is_said_once_in_a_stretch(coordinator):
    c, blocked, s = coordinator, [(1, "f", 1.0), (2, "g", 1.0)], BLOCKED_NS
    assert looks(c, blocked, 0) == [] and looks(c, blocked, s - 1) == []
    assert looks(c, [], s) == [] and looks(c, blocked, s + 1) == [] and looks(c, blocked, 2 * s) == []  # one had moved
    [(kind, line)] = looks(c, blocked, 2 * s + 1)
    assert kind == "print" and "all 2 Ms (max_ms) block, in f (1: G 1 for 1.0 s), g (1" in line
    for i in range(3, 30):  # there is still more work than Ms: the same stretch, though some move
        assert looks(c, blocked if i % 5 else [], i * s) == []
    assert looks(c, None, 30 * s) == [] and looks(c, blocked, 31 * s) == []
    assert len(looks(c, blocked, 32 * s)) == 1


class Spawned:
    word = _kind = _state = _then = _data = None
    spawned_at, _label = "file.py:1", "busy.one"


def test_when_every_m_blocks():
    fd = create(1, 1, 2, 4096, 1 << 20)
    try:
        client, c, m = View(fd, 1), View(fd, 2), View(fd, 0)
        client.attach(KIND_CLIENT, 1)
        c.attach(KIND_CLIENT, 2)
        client.start_m0()
        c.m_started(0, 100)
        assert m.attach(KIND_M, 100) and m.mstart()
        code = compile("x", "file.py", "exec")
        client.spawn(Spawned(), 0, b"x", 3, None, code, 0, "busy.one", None)
        assert c.all_blocked() == []  # work waits, and that M is about to take it
        assert m.claim(m.globrunqget(1), False) and c.all_blocked() is None  # no work waits
        client.spawn(Spawned(), 0, b"x", 3, None)
        assert c.all_blocked() == []  # it runs
        for seq in range(100):
            c.retake(0, 3 << 56 | seq)
        [(goid, name, seconds)] = c.all_blocked()
        assert goid == 1 and "busy.one" in name and 0 <= seconds < 60
    finally:
        os.close(fd)
