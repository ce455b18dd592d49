"""Go's tests of the local queue, and the C ring beside a pure-Python one (GMP-SPEC 2.1 to 2.6)."""

import os
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgmp._core import KIND_M, View, create

CAP = 256


@pytest.fixture
def segment():
    fd = create(4, 8, 2, 4096, 1 << 20)
    yield fd
    os.close(fd)


def member(fd, m):
    """A view that holds a P, as an M would."""
    view = View(fd, m)
    view.attach(KIND_M, os.getpid() + m)
    assert view.pidleget()
    return view


def word(i):
    return 1 << 63 | i << 40


def get(view):
    got = view.runqget()
    return None if got is None else got[0]


def test_local_queue(segment):
    view = member(segment, 0)
    for n in range(CAP):
        assert get(view) is None
        for i in range(n):
            view.runqput(word(i), False)
        assert [get(view) for _ in range(n)] == [word(i) for i in range(n)]
        assert get(view) is None


def test_steal_half(segment):
    owner, thief = member(segment, 0), member(segment, 1)
    for n in range(CAP):
        for i in range(n):
            owner.runqput(word(i), False)
        first = thief.runqsteal(owner.p, False, 0)
        stolen = [] if first is None else [first]
        while (w := get(thief)) is not None:
            stolen.append(w)
        assert len(stolen) in (n // 2, n // 2 + 1)
        rest = [get(owner) for _ in range(n - len(stolen))]
        assert sorted(stolen + rest) == [word(i) for i in range(n)]
        assert get(owner) is None


def test_runnext_is_stolen_in_the_last_round_only(segment):
    owner, thief = member(segment, 0), member(segment, 1)
    owner.runqput(word(1), True)
    assert thief.runqsteal(owner.p, False, 0) is None
    assert thief.runqsteal(owner.p, True, 0) == word(1)
    assert get(owner) is None


def test_runnext_kicks_out_to_the_tail_and_inherits_time(segment):
    view = member(segment, 0)
    view.runqput(word(1), True)
    view.runqput(word(2), False)
    view.runqput(word(3), True)
    assert view.runqget() == (word(3), True)
    assert view.runqget() == (word(2), False)
    assert view.runqget() == (word(1), False)


def test_overflow_moves_the_older_half_and_the_new_one(segment):
    view = member(segment, 0)
    for i in range(CAP + 1):
        view.runqput(word(i), False)
    assert view.globrunqsize() == CAP // 2 + 1
    other = member(segment, 1)
    moved = []
    while (w := other.globrunqget(1)) is not None:
        moved.append(w)
    assert moved == [word(i) for i in range(CAP // 2)] + [word(CAP)]


def test_fair_share_of_the_global_queue(segment):
    view = member(segment, 0)
    for i in range(8):
        view.globrunqput(word(i))
    assert view.globrunqget(0) == word(0)  # 8 / 4 procs + 1 = 3 are taken
    assert view.globrunqsize() == 5
    assert [get(view), get(view), get(view)] == [word(1), word(2), None]
    assert view.globrunqget(1) == word(3)
    assert get(view) is None


class Reference:
    """What the ring and the global queue do, without atomics."""

    def __init__(self, procs):
        self.rings = [deque() for _ in range(2)]
        self.next = [None, None]
        self.glob = deque()
        self.procs = procs

    def put(self, p, w, next_):
        if next_:
            self.next[p], w = w, self.next[p]
            if w is None:
                return
        ring = self.rings[p]
        if len(ring) == CAP:
            self.glob.extend(ring.popleft() for _ in range(CAP // 2))
            self.glob.append(w)
        else:
            ring.append(w)

    def get(self, p):
        if self.next[p] is not None:
            w, self.next[p] = self.next[p], None
            return w
        return self.rings[p].popleft() if self.rings[p] else None

    def steal(self, p, last, most):
        ring = self.rings[1 - p]
        n = min(len(ring) - len(ring) // 2, most or CAP)
        if n == 0:
            w = None
            if last:
                w, self.next[1 - p] = self.next[1 - p], None
            return w
        got = [ring.popleft() for _ in range(n)]
        self.rings[p].extend(got[:-1])
        return got[-1]

    def take(self, p, most):
        size = len(self.glob)
        if not size:
            return None
        n = min(size, size // self.procs + 1, CAP // 2, most or CAP)
        first = self.glob.popleft()
        self.rings[p].extend(self.glob.popleft() for _ in range(n - 1))
        return first


operations = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 1), st.booleans(), st.integers(1, 200)),
    st.tuples(st.just("get"), st.integers(0, 1), st.just(False), st.integers(1, 100)),
    st.tuples(st.just("steal"), st.integers(0, 1), st.booleans(), st.integers(0, 130)),  # the last: at most so many
    st.tuples(st.just("take"), st.integers(0, 1), st.just(False), st.integers(0, 130)),
)


@settings(max_examples=150)
@given(st.lists(operations, max_size=60))
def test_ring_is_the_reference(script):
    fd = create(4, 8, 2, 4096, 1 << 20)
    try:
        views = [member(fd, 0), member(fd, 1)]
        reference = Reference(4)
        serial = 0
        for name, p, flag, many in script:
            for _ in range(many if name in ("put", "get") else 1):
                if name == "put":
                    serial += 1
                    views[p].runqput(word(serial), flag)
                    reference.put(p, word(serial), flag)
                elif name == "get":
                    assert get(views[p]) == reference.get(p)
                elif not reference.rings[p] and name == "steal":  # its precondition: the thief's ring is empty
                    assert views[p].runqsteal(views[1 - p].p, flag, many) == reference.steal(p, flag, many)
                elif not reference.rings[p]:
                    assert views[p].globrunqget(many) == reference.take(p, many)
        assert views[0].globrunqsize() == len(reference.glob)
    finally:
        os.close(fd)
