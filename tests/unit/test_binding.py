"""Which Ms are bound to which cores, look by look; and the real thing."""

import os
import subprocess

import pytest

import dgmp
from dgmp.coordinator.binding import LOOSE_NS, Binder, neighbours
from tests import helpers
from tests.helpers import PYTHON, eventually

MS = 1_000_000
TICK = 80 * MS


class Node:
    """Two Ms that hold Ps, and what was done to them."""

    nprocs = 2

    def __init__(self, forced=False):
        self.held = {0: 0, 1: 1}  # m -> p
        self.bound = {0: -1, 1: -1}
        self.mask = {100: None, 101: None}
        self.wait = {100: 0, 101: 0}
        self.lonely = True
        self.now = 0
        self.binder = Binder(self, [4, 6], forced, self.wait.__getitem__, lambda: self.lonely, self.mask.__setitem__)

    def holders(self):
        return [(m, 100 + m, p, self.bound[m]) for m, p in self.held.items()]

    def set_bound(self, m, p):
        self.bound[m] = p
        return p < 0 or self.held.get(m) == p

    def look(self, **waited):
        self.now += TICK
        for pid, share in waited.items():
            self.wait[int(pid[1:])] += int(share * TICK)
        self.binder.look(self.now)
        return self.mask[100], self.mask[101]


def test_bound_after_two_looks_at_the_same_p():
    node = Node()
    assert node.look() == (None, None)
    assert node.look() == ([4], [6])
    assert node.bound == {0: 0, 1: 1}


def test_not_bound_while_the_p_changes():
    node = Node()
    for i in range(4):
        node.held = {0: i % 2}
        assert node.look() == (None, None)


def test_one_that_waits_is_let_loose_for_a_second():
    node = Node()
    node.look(), node.look()
    assert node.look(_100=0.5) == ([4, 6], [6])
    begun = node.now
    while node.now + TICK < begun + LOOSE_NS:
        assert node.look() == ([4, 6], [6])
    node.look()
    assert node.look() == ([4], [6])


def test_not_bound_beside_another_runtime():
    node = Node()
    node.look(), node.look()
    node.lonely = False
    for _ in range(20):
        masks = node.look()
    assert masks == ([4, 6], [4, 6])
    node.lonely = True
    for _ in range(40):
        masks = node.look()
    assert masks == ([4], [6])


def test_forced_knows_no_reliefs():
    node = Node(forced=True)
    node.lonely = False
    node.look(), node.look(_100=0.9)
    assert node.look(_100=0.9, _101=0.9) == ([4], [6])


def test_a_late_bind_is_undone():
    node = Node()
    node.look()
    node.set_bound = lambda m, p: Node.set_bound(node, m, p) and p < 0
    assert node.look() == ([4, 6], [4, 6])
    assert node.bound == {0: -1, 1: -1}


def test_neighbours_are_counted_once():
    text = (b"Num RefCount Protocol Flags Type St Inode Path\n0: 2 0 1 1 1 5 @dgmp.runtime.7\n0: 2 0 1 1 1 6 /run/x\n"
            b"0: 2 0 1 1 1 7 @dgmp.runtime.8\n0: 3 0 1 1 3 8 @dgmp.runtime.8\n")
    assert neighbours(text) == 2 and neighbours(b"") == 0


# ---------------------------------------------------------------- the real thing
def mask():
    return sorted(os.sched_getaffinity(0)), dgmp.current()["p"]


def masks_of_children():
    """The mask of this M, and of processes that it starts in each way."""
    show = "import os; print(sorted(os.sched_getaffinity(0)))"
    seen = [subprocess.run([PYTHON, "-c", show], capture_output=True, text=True, check=True).stdout]
    with os.popen(f"{PYTHON} -c '{show}'") as pipe:
        seen.append(pipe.read())
    out, into = os.pipe()
    if os.fork() == 0:
        os.write(into, f"{sorted(os.sched_getaffinity(0))}\n".encode())
        os._exit(0)
    os.wait()
    seen.append(os.read(out, 100).decode())
    os.close(out), os.close(into)
    return seen


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")
def test_pin_binds_ms_and_not_their_children():
    cores = sorted(os.sched_getaffinity(0))
    with dgmp.Runtime(procs=2, pin=True) as rt:
        for m, p in dgmp.gather(*[rt.go(mask) for _ in range(8)]):
            assert m == [cores[p]]
        assert rt.go(masks_of_children).result(60) == [f"{cores}\n"] * 3
        # sysmon binds it again while it runs
        assert rt.go(eventually, BoundAgain(cores)).result(60)


class BoundAgain:
    def __init__(self, cores):
        self.cores = cores

    def __call__(self):
        helpers.busy(0.01)
        return len(os.sched_getaffinity(0)) == 1


def test_unpinned_keeps_the_whole_set():
    cores = sorted(os.sched_getaffinity(0))
    with dgmp.Runtime(procs=2, pin=False) as rt:
        dgmp.gather(*[rt.go(helpers.busy, 0.2) for _ in range(4)])
        assert all(m == cores for m, _ in dgmp.gather(*[rt.go(mask) for _ in range(4)]))
