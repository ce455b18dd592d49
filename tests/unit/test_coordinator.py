"""The coordinator's state machine: events in, actions out, no process."""

import errno
import os
import socket
import time
from types import SimpleNamespace

import pytest

from dgmp._core import KIND_CLIENT, KIND_M, RESULT_CANCELLED, RESULT_WORKER_DIED, View, create
from dgmp.coordinator import server
from dgmp.coordinator.limits import Limits
from dgmp.coordinator.state import NO_FORKS, NO_ROOM, STILLBORN, TRIM_NS, Coordinator
from dgmp.ship import death
from dgmp.ship.terms import ASKED, ASKED_TO_RAISE

NOWAKE = 3


class Spawned:
    """What the core needs of a Future."""

    def __init__(self):
        self.word = 0
        self._kind = self._state = self._then = None
        self._data = b""


@pytest.fixture
def node():
    fd = create(2, 4, 2, 4096, 1 << 20)
    client = View(fd, 4)
    client.attach(KIND_CLIENT, 1)
    client.start_m0()
    view = View(fd, 5)
    view.attach(KIND_CLIENT, 2)
    yield fd, client, Coordinator(view)
    os.close(fd)


def start(fd, coordinator, m, pid):
    coordinator.handle(("m_started", m, pid))
    view = View(fd, m)
    assert view.attach(KIND_M, pid)
    view.mstart()
    return view


def test_the_grace_of_a_g_begins_as_it_can_hear_that_it_is_to_end():
    seen = {"runs": False, "flags": ASKED | ASKED_TO_RAISE}
    view = SimpleNamespace(started=lambda word: (0, 100, seen["runs"], seen["flags"], 1, b""), victims=lambda m: [],
                           late=lambda now: ([], 0))
    limits = Limits(view, SimpleNamespace(killed={}), 10)
    limits.end(7, 0, False)
    assert limits.look(5) == limits.look(50) == [] and limits.next_look(50) > 0  # its M is busy with another
    seen["runs"] = True
    assert limits.look(51) == [("preempt", 100)]
    seen["flags"] = ASKED  # it has raised, and cleans up
    assert limits.look(60) == [] and limits.look(61) == [("end", 0, 100, 7, 1)]


def test_m0_is_made_once(node):
    _, _, c = node
    assert c.handle(("wake",)) == [("newm", 0)]
    assert c.handle(("wake",)) == []
    assert c.handle(("m_started", 0, 100)) == [("watch", 0, 100)]
    assert c.handle(("wake",)) == []


def test_a_dead_m_costs_the_g_it_ran(node):
    fd, client, c = node
    c.handle(("wake",))
    m0 = start(fd, c, 0, 100)
    futures = [Spawned(), Spawned()]
    assert all(client.spawn(f, 0, b"x", NOWAKE, None) for f in futures)
    assert m0.claim(m0.globrunqget(1), False) is not None
    c.handle(("m_died", 0, 100, "was killed by SIGKILL"))
    written_to = -client.drain([], 0)  # what the dead M had printed comes first
    assert written_to == 1 and client.drain([], written_to) == 1 and client.outstanding == 1
    assert futures[0]._state and futures[0]._kind == RESULT_WORKER_DIED and not futures[1]._state
    assert death.split(futures[0]._data)[2]["how"] == "was killed by SIGKILL"
    # its P was given to a new M, reserved at once, which finds the other G
    assert c.view.starting() == [] and 0 in c.starting | c.ms.keys() or c.starting
    m = next(iter(c.starting))
    again = start(fd, c, m, 101)
    word = again.globrunqget(1)
    assert word == futures[1].word and again.claim(word, False) is not None


def test_popped_but_not_claimed_is_found(node):
    fd, client, c = node
    c.handle(("wake",))
    m0 = start(fd, c, 0, 100)
    future = Spawned()
    client.spawn(future, 0, b"x", NOWAKE, None)
    assert m0.globrunqget(1) == future.word  # popped ...
    c.handle(("m_died", 0, 100, "was killed"))  # ... and dead before the claim
    assert client.drain([], 0) == 0
    assert c.view.globrunqsize() == 1


def test_stolen_range_is_found(node):
    fd, client, c = node
    c.handle(("wake",))
    m0 = start(fd, c, 0, 100)
    futures = [Spawned() for _ in range(9)]
    assert all(client.spawn(f, 0, b"x", NOWAKE, None) for f in futures)
    words = {f.word for f in futures}
    first = m0.globrunqget(0)  # some in its ring, one popped
    assert first in words
    c.handle(("m_died", 0, 100, "was killed"))
    m = next(iter(c.starting))
    other = start(fd, c, m, 101)
    found = set()
    while True:
        word = other.globrunqget(1) or (other.runqget() or [None])[0]
        if word is None:
            break
        assert other.claim(word, False) is not None
        found.add(word)
    assert found == words


def test_spinning_bit_of_the_dead_is_cleared(node):
    fd, _, c = node
    c.handle(("wake",))
    m0 = start(fd, c, 0, 100)
    m0.set_spinning()
    assert c.view.stats()["spinningthreads"] == 1
    c.handle(("m_died", 0, 100, "was killed"))
    assert c.view.stats()["spinningthreads"] == 0
    assert c.view.stats()["idleprocs"] == 2


def test_children_of_a_dead_m_are_dropped_and_its_slot_returns(node):
    fd, _, c = node
    c.handle(("wake",))
    m0 = start(fd, c, 0, 100)
    m0.spawn(Spawned(), 0, b"x", 1, None)
    c.handle(("m_died", 0, 100, "was killed"))
    assert c.dead == set()
    assert c.view.stats()["num_g"] == 0


def test_zygote_death_asks_again(node):
    _, _, c = node
    assert c.handle(("wake",)) == [("newm", 0)]
    assert c.handle(("zygote_died",)) == [("zygote",), ("newm", 0)]


def test_a_zygote_that_cannot_be_made_is_tried_again_when_an_m_is_wanted(node):
    fd, client, c = node
    c.handle(("wake",))
    start(fd, c, 0, 100)
    assert c.handle(("zygote_died",)) == [("zygote",)]
    assert c.handle(("zygote_not_made", errno.EAGAIN)) == []
    assert ("zygote",) not in c.handle(("tick", 1))  # nobody is wanted
    client.spawn(Spawned(), 0, b"x", 0, None)
    assert c.handle(("wake",)) == [("zygote",), ("newm", 1)]
    assert c.handle(("zygote_not_made", errno.EAGAIN)) == []
    assert c.next_tick(2) is not None
    assert c.handle(("tick", 3))[-2:] == [("zygote",), ("newm", 1)]


def test_no_zygote_at_boot_ends_the_node(node):
    c = node[2]
    assert c.handle(("zygote_not_made", errno.EAGAIN)) == [
        ("exit", "no process can be made for the zygote: Resource temporarily unavailable")]


def test_m_made_but_its_answer_lost_with_the_zygote(node):
    fd, _, c = node
    c.handle(("wake",))
    View(fd, 0).attach(KIND_M, 100)
    assert c.handle(("zygote_died",)) == [("zygote",), ("watch", 0, 100)]


def test_ms_that_never_live_end_the_node(node):
    _, client, c = node
    c.handle(("wake",))
    actions = []
    for i in range(STILLBORN):
        m = next(iter(c.starting))
        c.handle(("m_started", m, 100 + i))
        actions = c.handle(("m_died", m, 100 + i, "ended with exit code 70"))
        client.spawn(Spawned(), 0, b"x", 0, None)
        c.handle(("wake",))
    assert actions and actions[0][0] == "exit" and "ended before they ran anything" in actions[0][1]


def test_no_room_for_the_segment_is_said_in_words(node):
    _, client, c = node
    c.handle(("wake",))
    for i in range(STILLBORN):
        c.handle(("m_started", next(iter(c.starting)), 100 + i))
        actions = c.handle(("m_died", next(iter(c.ms)), 100 + i, f"ended with exit code {NO_ROOM}", NO_ROOM))
        client.spawn(Spawned(), 0, b"x", 0, None)
        c.handle(("wake",))
    assert actions[0][0] == "exit" and "pid 104, could not map the runtime's shared memory" in actions[0][1]


def test_ms_killed_from_outside_do_not_count_as_stillborn(node):
    _, client, c = node
    c.handle(("wake",))
    for i in range(3 * STILLBORN):
        m = next(iter(c.starting))
        c.handle(("m_started", m, 100 + i))
        assert all(a[0] != "exit" for a in c.handle(("m_died", m, 100 + i, "was killed by SIGKILL")))
        client.spawn(Spawned(), 0, b"x", 0, None)
        c.handle(("wake",))


def test_no_room_for_a_process_is_tried_again_by_sysmon(node):
    _, client, c = node
    c.handle(("wake",))
    client.spawn(Spawned(), 0, b"x", NOWAKE, None)
    assert c.handle(("m_started", 0, -11)) == []
    stats = c.view.stats()
    assert stats["idleprocs"] == 2 and stats["threads"] == 0 and stats["runqueue"] == 1
    assert c.next_tick(2) is not None
    c.handle(("tick", 1))  # the first look
    assert ("newm", 0) in c.handle(("tick", 2))
    assert c.handle(("m_started", 0, 100)) == [("watch", 0, 100)] and c.no_forks == 0


def test_no_room_for_any_process_ends_the_node(node):
    _, client, c = node
    c.handle(("wake",))
    client.spawn(Spawned(), 0, b"x", NOWAKE, None)
    actions = []
    for i in range(4 * NO_FORKS):
        if c.starting:
            actions = c.handle(("m_started", next(iter(c.starting)), -11))
        if actions:
            break
        c.handle(("tick", i))
    assert actions == [("exit", "no process can be made for an M: Resource temporarily unavailable")]


def test_the_m_that_has_the_slot_is_watched(node):
    fd, _, c = node
    c.handle(("wake",))
    View(fd, 0).attach(KIND_M, 100)
    assert c.handle(("m_started", 0, 101)) == [("watch", 0, 100)]


def test_sysmon_sleeps_when_all_is_idle(node):
    fd, client, c = node
    c.handle(("wake",))
    m0 = start(fd, c, 0, 100)
    assert c.handle(("alarm", 0)) == [("bind",)]
    pace = c.next_tick(2)
    c.handle(("tick", 1))
    assert c.next_tick(2) == 2 * pace
    m0.releasep()
    assert c.handle(("tick", 2)) == [] and c.next_tick(2) == TRIM_NS
    assert c.handle(("tick", 2 + TRIM_NS)) == [] and c.next_tick(2) is None  # there is nothing to give back


def test_sysmon_looks_after_a_death(node):
    """The dead one may have taken a P, and not yet set the alarm; nobody else sets it until all has been idle again."""
    fd, client, c = node
    c.handle(("wake",))
    start(fd, c, 0, 100)
    assert c.next_tick(2) is None
    c.handle(("m_died", 0, 100, "was killed by SIGKILL"))
    c.handle(("wake",))
    assert c.next_tick(2) is not None


def test_warm_memory_goes_back_once_all_is_idle(node):
    fd, client, c = node
    c.handle(("wake",))
    m0 = start(fd, c, 0, 100)
    c.handle(("alarm", 0))
    block = client.pack([bytes(200_000)], [])
    before = os.fstat(fd).st_blocks
    del block
    m0.releasep()
    c.handle(("tick", 1))
    c.handle(("tick", TRIM_NS))
    assert os.fstat(fd).st_blocks == before
    c.handle(("alarm", TRIM_NS))  # somebody has been at work again
    assert c.next_tick(TRIM_NS) == TRIM_NS
    c.handle(("tick", 2 * TRIM_NS))
    assert os.fstat(fd).st_blocks < before - 200_000 // 512 + 16
    assert c.next_tick(2 * TRIM_NS) is None


def test_a_lost_wakeup_would_be_seen_to(node):
    fd, client, c = node
    c.handle(("wake",))
    m0 = start(fd, c, 0, 100)
    client.spawn(Spawned(), 0, b"x", NOWAKE, None)  # nobody was woken for it, and P 1 is idle
    c.handle(("alarm", 0))
    assert c.view.stats()["rescues"] == 0  # perhaps somebody is on the way
    assert any(a[0] == "newm" for a in c.handle(("tick", 1)))
    assert c.view.stats()["rescues"] == 1 and m0.p == 0


def test_the_main_g_waits_for_m0(node):
    """It may take long to be made, beside an idle P."""
    fd, client, c = node
    c.foreground = 0
    assert c.handle(("wake",)) == [("newm", 0)]
    assert client.spawn(Spawned(), 0, b"x", NOWAKE, None)
    c.handle(("alarm", 0))
    for _ in range(5):
        assert c.handle(("tick", 0)) == [("bind",)]
    m0 = start(fd, c, 0, 100)
    for _ in range(5):
        assert c.handle(("tick", 0)) == [("bind",)]
    assert c.view.stats()["rescues"] == 0 and m0.claim(m0.globrunqget(1), False) is not None
    assert client.spawn(Spawned(), 0, b"x", NOWAKE, None)
    assert ("newm", 1) in c.handle(("tick", 0)) + c.handle(("tick", 0))


def test_a_spinner_that_was_stopped_keeps_nobody_from_being_woken(node):
    fd, client, c = node
    c.handle(("wake",))
    m0 = start(fd, c, 0, 100)
    m0.set_spinning()  # and is stopped
    client.spawn(Spawned(), 0, b"x", NOWAKE, None)
    assert c.handle(("alarm", 0)) == [("bind",)]
    assert any(a[0] == "newm" for n in range(10) for a in c.handle(("tick", n)))


def test_an_m_that_takes_long_to_be_made_is_no_lost_wakeup(node):
    """It finds the work itself, once it is there; but nobody waits for it for ever."""
    fd, client, c = node
    assert c.handle(("wake",)) == [("newm", 0)]
    client.spawn(Spawned(), 0, b"x", NOWAKE, None)
    assert [c.handle((event, 0)) for event in ("alarm", "tick", "tick")] == [[("bind",)]] * 3
    assert any(a[0] == "newm" for n in range(10) for a in c.handle(("tick", n)))
    assert c.view.stats()["rescues"] == 0


def test_an_m_that_comes_after_its_slot_was_given_up_is_turned_away(node):
    fd, client, c = node
    (newm,) = c.handle(("wake",))
    c.handle(("m_started", newm[1], -11))
    assert not View(fd, newm[1]).attach(KIND_M, 100)
    assert c.view.pids() == [] and c.view.npidle == 2


def test_client_gone_ends_the_node(node):
    _, _, c = node
    assert c.handle(("client_gone",)) == [("exit", None)]
    assert c.handle(("wake",)) == []


def test_the_zygote_is_the_last_to_be_ended(monkeypatch):
    """It ends what is left if the coordinator is killed meanwhile."""
    living, done = [7, 8, 9], []

    def kill(pid):
        living.remove(pid)
        done.append(pid)

    monkeypatch.setattr(server, "kill", kill)
    monkeypatch.setattr(server, "children", lambda: list(living))
    monkeypatch.setattr(server, "session", lambda pid: 1)
    monkeypatch.setattr(server, "reap", lambda: bool(living))
    monkeypatch.setattr(os, "waitpid", lambda pid, options: (pid, 0))
    node = SimpleNamespace(last_words=None, sessions=None, zygote_pid=8, state=SimpleNamespace(ms={}),
                           view=SimpleNamespace(closing=int, pids=lambda: [(0, 9)]))
    server.Server.end(node)
    assert done == [9, 7, 8]


def test_what_died_behind_the_zygote_is_reaped_with_it(monkeypatch):
    """An M that it has just forked has its socket too: so we hear of children that have ended before we hear of the zygote."""
    ended = [8, 9]  # the zygote, and the process between it and the M
    monkeypatch.setattr(os, "waitid", lambda *args: SimpleNamespace(si_pid=ended[0]) if ended else None)
    monkeypatch.setattr(os, "waitpid", lambda pid, options: (ended.remove(pid), 0))
    monkeypatch.setattr(os, "kill", lambda pid, number: None)
    node = object.__new__(server.Server)
    node.zygote, of_the_m = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    signalled, signals = os.pipe()
    node.zygote_pid, node.done, node.unwatched, node.unwatch = 8, False, {}, lambda fd: None
    node.state = SimpleNamespace(ms={}, handle=lambda event: [])
    with of_the_m:
        os.write(signals, b"x")
        node.on_child(signalled)
        assert ended == [8, 9] and node.zygote is not None
    node.on_zygote()
    assert ended == []
    os.close(signalled)
    os.close(signals)


def test_the_gs_of_a_client_that_leaves_end():
    """One that waits, one that runs, and what that has spawned: begun elsewhere, and not begun."""
    fd = create(2, 4, 4, 4096, 1 << 20)
    number, slot = 7 << 8 | 2, 4 + 2
    client, view, attached = View(fd, 4), View(fd, 5), View(fd, slot)
    client.attach(KIND_CLIENT, 1)
    client.start_m0()
    view.attach(KIND_CLIENT, 2)
    c = Coordinator(view)
    c.handle(("wake",))
    m0 = start(fd, c, 0, 100)
    view.admit(slot, 77, number)
    assert attached.attach(KIND_CLIENT, 77, number) and client.clients() == 1
    runs, waits, begun, fresh, other = [Spawned() for _ in range(5)]
    assert attached.spawn(runs, 0, b"x", NOWAKE, None) and attached.spawn(waits, 0, b"x", NOWAKE, None)
    assert client.spawn(other, 0, b"x", NOWAKE, None)
    claimed = m0.claim(m0.globrunqget(1), False)
    assert claimed is not None and claimed[3] & 4 and m0.world_of(runs.word) == number << 32
    m0.world_entered(number << 32)
    assert m0.spawn(begun, 0, b"x", NOWAKE, None) and m0.spawn(fresh, 0, b"x", NOWAKE, None)
    assert client.wakep()
    m1 = start(fd, c, 1, 101)
    assert m1.claim(begun.word, False) is not None
    assert view.unfinished(number) == attached.unfinished() == 4 and client.unfinished() == 1

    told = c.handle(("client_left", number, slot))
    assert ("preempt", 100) in told and ("ask", 1, 101, [begun.word]) in told and c.leaving == {number}
    assert view.clients() == 0 and view.ask_started(begun.word)
    assert ("preempt", 101) in c.handle(("asked", [begun.word]))
    assert m0.claim(waits.word, False) is None
    m1.complete(begun.word, RESULT_CANCELLED, b"")
    claimed = m1.claim(fresh.word, False)
    assert claimed is not None and claimed[3] & 16 and m1.asked(fresh.word) & 1
    m1.complete(fresh.word, RESULT_CANCELLED, b"")
    assert slot in c.dead
    m0.complete(runs.word, RESULT_CANCELLED, b"")
    c.handle(("tick", time.monotonic_ns()))
    assert not c.leaving and slot not in c.dead and view.unfinished(number) == 0 and client.unfinished() == 1
    claimed = m1.claim(other.word, False)
    assert claimed is not None and not claimed[3] & 16
    view.admit(slot, 78, 8 << 8 | 2)
    assert View(fd, slot).attach(KIND_CLIENT, 78, 8 << 8 | 2)
    os.close(fd)


def test_a_client_may_attach_before_m0_is_started():
    fd = create(1, 4, 4, 4096, 1 << 20)
    client, view, attached = View(fd, 4), View(fd, 5), View(fd, 6)
    client.attach(KIND_CLIENT, 1)
    view.attach(KIND_CLIENT, 2)
    view.admit(6, 77, 1 << 8 | 2)
    assert attached.attach(KIND_CLIENT, 77, 1 << 8 | 2)
    assert attached.spawn(Spawned(), 0, b"x", 1, None) and not client.npidle
    assert client.spawn(Spawned(), 0, b"x", NOWAKE, None)
    client.start_m0()
    c = Coordinator(view)
    assert c.handle(("wake",)) == [("newm", 0)]
    m0 = start(fd, c, 0, 100)
    assert m0.globrunqget(1) is not None
    os.close(fd)


def test_schedtrace_line_on_the_tick(node):
    fd, client, _ = node
    view = View(fd, 5)
    c = Coordinator(view, schedtrace_ns=1000, now=0)
    assert c.next_tick(2) == 1000
    (kind, line), = [a for a in c.handle(("tick", 2000)) if a[0] == "print"]
    assert line.startswith("SCHED 0ms: gomaxprocs=2 idleprocs=1 threads=1 spinningthreads=0 needspinning=0 ")


def test_idle_means_no_tick(node):
    assert node[2].next_tick(2) is None


def test_a_signal_reaches_m0_as_soon_as_it_has_attached(node):
    fd, _, c = node
    c.handle(("wake",))
    assert c.handle(("signal", 15)) == []
    m0 = View(fd, 0)
    assert m0.attach(KIND_M, 100)
    assert c.handle(("signal", 15)) == [("signal", 100, 15)]
    c.handle(("m_started", 0, 100))
    assert c.handle(("signal", 1)) == [("signal", 100, 1)]
    c.handle(("m_died", 0, 100, "was killed by SIGTERM", -15))
    assert c.handle(("signal", 15)) == []


def in_user_code(fd, c, client):
    """M 0 has claimed a G."""
    c.handle(("wake",))
    m0 = start(fd, c, 0, os.getpid())
    future = Spawned()
    client.spawn(future, 0, b"x", NOWAKE, None)
    assert m0.claim(m0.globrunqget(1), False) is not None
    return m0, future


def test_a_blocked_p_goes_to_others_or_is_idle(node):
    fd, client, c = node
    m0, future = in_user_code(fd, c, client)
    assert m0.p == 0 and client.npidle == 1
    assert c.handle(("looked", [(0, 1)], [(0, 77)])) == [("preempt", 77)]  # a look that came too late takes nothing
    assert m0.p == 0
    for seq in range(100):
        c.handle(("looked", [(0, 3 << 56 | seq)], []))
    assert m0.p == -1 and client.npidle == 2
    assert m0.complete(future.word, 0, b"") is False  # it completes without, and is to wait for one
    with pytest.raises(RuntimeError, match="holds no P"):
        m0.runqget()


def test_work_gets_the_p_of_one_that_blocks(node):
    fd, client, c = node
    in_user_code(fd, c, client)
    assert all(client.spawn(Spawned(), 0, b"x", 1, None) for _ in range(3))  # the first wakes an M for P 1
    c.handle(("wake",))
    made = set(c.starting)
    for seq in range(100):
        c.handle(("looked", [(0, 3 << 56 | seq)], []))
    assert len(c.starting - made) == 1 and client.npidle == 0


def test_sysmon_does_not_sleep_beside_a_g_without_a_p(node):
    fd, client, c = node
    m0, future = in_user_code(fd, c, client)
    assert m0.entersyscallblock()
    assert client.npidle == 2 and not c.view.sysmon_sleep()
    m0.complete(future.word, 0, b"")
    assert c.view.sysmon_sleep()
