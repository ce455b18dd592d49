"""What the coordinator does about Gs whose M has died, whose time is up or that are to be run again; without processes."""

import os

import pytest

from dgmp._core import KIND_CLIENT, KIND_M, RESULT_WORKER_DIED, View, create
from dgmp.coordinator.deaths import Deaths
from dgmp.coordinator.limits import AGAIN_NS, RARELY_NS, Limits
from dgmp.ship import death
from dgmp.ship.terms import AFTER_DEATH, AFTER_TIMEOUT, NO_GRACE, Terms
from tests.unit.test_coordinator import Spawned

S = 1_000_000_000
HOW = {"goid": 1, "m": 0, "pid": 100, "core": None, "how": "was killed by SIGKILL", "exitcode": -9}


def said(retries=0, crash_limit=0, after=AFTER_DEATH, grace=0, pauses=(), timeout=0):
    return Terms(retries, crash_limit, after, 0, grace, tuple(pauses), timeout)


class Node:
    """A segment, its client, an M that runs, and the coordinator's two records."""

    def __init__(self, policy="fail", grace=NO_GRACE):
        self.fd = create(1, 4, 2, 256, 1 << 20)
        self.client, self.view = View(self.fd, 4), View(self.fd, 5)
        self.client.attach(KIND_CLIENT, 1)
        self.view.attach(KIND_CLIENT, 2)
        self.client.start_m0()
        self.m = self.make_m()
        self.now = 0
        self.deaths = Deaths(self.view, policy, 3, lambda: self.now)
        self.limits = Limits(self.view, self.deaths, grace)

    def make_m(self):
        if not self.view.starting():
            self.client.wakep()
        m = View(self.fd, self.view.starting()[0])
        assert m.attach(KIND_M, 100 + m.id) and m.mstart()
        return m

    def spawn(self, terms=None):
        future = Spawned()
        future.spawned_at = "here"
        assert self.client.spawn(future, 0, b"args", 0, None, None, 0, "g", terms.pack() if terms else None)
        return future

    def run(self):
        word = self.m.globrunqget(1)
        return None if word is None else self.m.claim(word, False)

    def die(self):
        m = self.m.id
        self.view.repair(m)
        self.deaths.settle(m, HOW | {"m": m, "pid": 100 + m})
        self.m = self.make_m()

    def ended(self, future):
        written_to = self.client.drain([], 0)
        if written_to < 0:
            self.client.drain([], -written_to)
        return bool(future._state)


@pytest.fixture
def node():
    made = []

    def make(*args, **options):
        made.append(Node(*args, **options))
        return made[-1]

    yield make
    for node in made:
        os.close(node.fd)


def test_terms_there_and_back():
    terms = Terms(3, 2, AFTER_DEATH | AFTER_TIMEOUT, 77, NO_GRACE, (1, 2, 3), 5 * S)
    assert Terms.unpack(terms.pack()) == terms and Terms.unpack(said().pack()) == said()
    assert [terms.pause(n) for n in (1, 2, 3, 4, 100)] == [1, 2, 3, 3, 3] and said().pause(1) == 0
    assert terms.again_at(2, 10) == 12 and said().again_at(1, 10) == 0


def test_without_terms_it_ends(node):
    n = node()
    f = n.spawn()
    assert n.run()
    n.die()
    assert n.ended(f) and f._kind == RESULT_WORKER_DIED
    assert death.split(f._data)[1] == death.RUNNING and death.history(f._data) == [(100, "was killed by SIGKILL")]


def test_with_retries_it_is_run_again_as_often(node):
    n = node()
    f = n.spawn(said(retries=2))
    for attempt in (1, 2, 3):
        claimed = n.run()
        assert claimed and bytes(claimed[2]) == b"args" and n.m.terms(f.word)[1] == attempt
        assert not n.ended(f)
        n.die()
    assert n.ended(f) and len(death.history(f._data)) == 3 and n.run() is None


def test_strikes_end_it_before(node):
    n = node()
    f = n.spawn(said(retries=9, crash_limit=2))
    assert n.run()
    n.die()
    assert n.deaths.strikes and n.run()
    n.die()
    assert n.ended(f) and len(death.history(f._data)) == 2 and not n.deaths.strikes


def test_a_runtime_may_retry_what_has_no_terms(node):
    n = node("retry")
    f = n.spawn()
    for _ in range(3):
        assert not n.ended(f) and n.run()
        n.die()
    assert n.ended(f) and len(death.history(f._data)) == 3


def test_it_waits_for_its_pause(node):
    n = node()
    n.now = 10 * S
    f = n.spawn(said(retries=1, pauses=[5 * S]))
    assert n.run()
    n.die()
    n.limits.told(n.now)
    assert n.limits.next_look(n.now) == 5 * S and n.limits.look(14 * S) == [] and n.run() is None
    assert n.limits.look(15 * S) == [] and n.run() and n.limits.next_look(15 * S) is None and not n.ended(f)


def test_so_does_one_that_its_m_runs_again(node):
    n = node()
    f = n.spawn(said(retries=1, pauses=[5 * S]))
    assert n.run()
    n.m.complete(f.word, 0, 5 * S)
    n.limits.told(0)
    assert n.limits.next_look(0) == 5 * S and n.run() is None
    n.limits.look(5 * S)
    assert n.run() and n.m.terms(f.word)[1] == 2


def test_cancelled_while_it_waits(node):
    n = node()
    f = n.spawn(said(retries=1, pauses=[5 * S]))
    assert n.run()
    n.m.complete(f.word, 0, 5 * S)
    assert n.client.cancel(f.word) and n.ended(f)
    n.limits.told(0)
    n.limits.look(5 * S)
    assert n.run() is None


def test_one_that_runs_is_told_until_it_knows_then_its_m_is_killed(node):
    n = node(grace=2 * S)
    f = n.spawn()
    assert n.run() and n.client.ask(f.word)
    n.limits.told(0)
    assert n.limits.look(0) == [("preempt", 100)] and n.limits.next_look(0) == 2 * AGAIN_NS
    assert n.limits.look(AGAIN_NS) == [("preempt", 100)]
    assert n.m.told(f.word) and n.limits.look(2 * AGAIN_NS) == []
    assert n.limits.look(2 * S) == [("end", 0, 100, f.word, 1)]
    n.die()
    assert n.ended(f) and death.split(f._data)[1] == death.CANCELLED
    assert "did not end within 2 s" in death.describe(f._data, "f") and n.limits.look(3 * S) == []
    assert n.limits.next_look(3 * S) is None


def test_its_own_grace_counts(node):
    n = node(grace=2 * S)
    f, g = n.spawn(said(grace=1 * S)), n.spawn(said(grace=NO_GRACE))
    assert n.run() and n.client.ask(f.word)
    n.limits.told(0)
    assert n.limits.look(S) == [("end", 0, 100, f.word, 1)]
    n.die()
    assert n.run() and n.client.ask(g.word)
    n.limits.told(S)
    assert n.m.told(g.word) and n.limits.look(1000 * S) == []


def test_who_waits_in_its_cleanup_is_looked_at_rarely(node):
    n = node(grace=NO_GRACE)
    f = n.spawn()
    assert n.run() and n.client.ask(f.word) and n.m.told(f.word)
    n.m.gpark(f.word, 1)
    n.limits.told(0)
    now = 10 * S
    for _ in range(10):
        assert n.limits.look(now) == []
        now += n.limits.next_look(now)
    assert n.limits.next_look(now) == RARELY_NS


def test_who_waits_has_its_grace_twice(node):
    n = node(grace=2 * S)
    f = n.spawn()
    assert n.run() and n.client.ask(f.word)
    n.m.gpark(f.word, 1)
    n.limits.told(0)
    assert n.limits.look(10 * S) == []  # it has not been told yet
    assert n.m.told(f.word) and n.limits.look(11 * S) == []  # now it can be counted
    assert n.limits.look(15 * S - 1) == []
    assert n.limits.look(15 * S) == [("end", 0, 100, f.word, 1)]


def test_who_waits_beside_others_does_not_end_with_its_m(node):
    n = node(grace=2 * S)
    f, _ = n.spawn(), n.spawn()
    assert n.run() and n.client.ask(f.word) and n.m.told(f.word)
    n.m.gpark(f.word, 1)
    assert n.run()
    n.limits.told(0)
    assert n.limits.look(10 * S) == []


def test_whose_time_is_up(node):
    n = node(grace=1 * S)
    f = n.spawn(said(timeout=1))  # a nanosecond
    assert n.run()
    now = n.m.terms(f.word)[0] + 1
    assert n.limits.look(now) == [("preempt", 100)]
    assert n.limits.look(now + S) == [("end", 0, 100, f.word, 1)]
    n.die()
    assert n.ended(f) and death.split(f._data)[1] == death.LATE


def test_when_the_next_ones_is(node):
    n = node()
    f = n.spawn(said(timeout=3600 * S))
    assert n.run()
    ends = n.m.terms(f.word)[0]
    assert n.limits.look(0) == [] and n.limits.next_look(0) == ends


def test_a_timeout_that_may_be_retried(node):
    n = node(grace=1)
    f = n.spawn(said(timeout=1, retries=1, after=AFTER_TIMEOUT))
    assert n.run()
    now = n.m.terms(f.word)[0] + 1
    n.limits.look(now)
    assert n.limits.look(now + S) == [("end", 0, 100, f.word, 1)]
    n.die()
    assert not n.ended(f) and n.run() and not n.deaths.strikes
    n.die()
    assert n.ended(f)  # a death is no timeout


def test_who_was_asked_to_end_is_not_run_again(node):
    n = node()
    f = n.spawn(said(retries=9))
    assert n.run() and n.client.ask(f.word)
    n.die()
    assert n.ended(f) and death.split(f._data)[1] == death.CANCELLED


def test_asked_in_the_moment_in_which_it_is_to_be_run_again(node):
    n = node()
    f, late = n.spawn(said(retries=9)), n.spawn(said(retries=9))
    assert n.run() and n.client.ask(f.word)
    n.m.complete(f.word, 0, 0)  # its M had looked just before
    assert n.run() and n.m.be_late(late.word) is None
    n.m.complete(late.word, 0, 0)
    claimed = {x[4]: x[3] for x in (n.run(), n.run())}
    assert claimed == {f.word: 8 | 16, late.word: 8} and n.m.asked(f.word) & 1 and not n.m.asked(late.word)
