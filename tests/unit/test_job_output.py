"""dgmp.jobs: output that waits on disk, tags, whom output goes to, and inputs that park."""

import os
import random
import select

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgmp.jobs import spill
from dgmp.jobs.netpoll import Inputs, Netpoll, read
from dgmp.jobs.output import Order, tagged
from dgmp.jobs.sink import CannotWrite, Closed, Sink


@given(st.lists(st.binary(min_size=1, max_size=20)), st.binary(max_size=3).filter(lambda tag: b"\n" not in tag))
def test_each_line_has_its_tag_however_it_comes(parts, tag):
    lines = b"".join(parts).split(b"\n")
    expected = b"\n".join(tag + line for line in lines[:-1]) + (b"\n" if len(lines) > 1 else b"")
    expected += tag + lines[-1] if lines[-1] else b""
    assert b"".join(tagged(parts, tag)) == expected


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_what_waits_for_its_turn_holds_neither_memory_nor_many_descriptors(monkeypatch):
    monkeypatch.setattr(spill, "SEGMENT", 10_000)
    shown = []
    order = Order(lambda told: shown.append((b"".join(told[0]), b"".join(told[1]), told[2])))
    numbers = list(range(2, 1001))
    random.Random(1).shuffle(numbers)
    before = descriptors()

    def put(seq):
        order.put(seq, ([b"%d" % seq, b"x" * (seq % 100)], [b"e"] * (seq % 2), b"log %d" % seq))

    for seq in numbers:
        put(seq)
    assert shown == []
    assert descriptors() - before < 10
    put(1)
    assert shown == [(b"%d" % seq + b"x" * (seq % 100), b"e" * (seq % 2), b"log %d" % seq) for seq in range(1, 1001)]
    assert descriptors() - before <= 2
    order.rest()
    assert descriptors() == before


def test_what_is_left_at_the_end_is_shown_in_order():
    shown = []
    order = Order(lambda told: shown.append(b"".join(told[0])))
    for seq in (7, 3, 5):
        order.put(seq, ([b"%d" % seq], [], b""))
    order.rest()
    assert shown == [b"3", b"5", b"7"]


def test_a_segment_is_used_again_when_all_in_it_have_been_shown(monkeypatch):
    monkeypatch.setattr(spill, "SEGMENT", 1000)
    order = Order(lambda told: [b"".join(part) for part in told[:2]])
    for seq in range(1, 2000, 2):  # each second one waits for the first
        order.put(seq + 1, ([b"x" * 400], [], b""))
        order.put(seq, ([], [], b""))
    assert len(order.spill.segments) == 1 and order.spill.size == 0
    order.rest()


def test_a_reader_that_has_gone_and_a_disk_that_is_full():
    ours, theirs = os.pipe()
    os.close(ours)
    with pytest.raises(Closed):
        Sink(theirs, "stdout").write(b"x")
    assert Sink(theirs, "stdout").gone()
    os.close(theirs)
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(CannotWrite, match="cannot write to stdout: No space left on device"):
        Sink(full, "stdout").write(b"x")
    os.close(full)


def test_what_comes_while_a_reader_is_slow_is_heard():
    ours, theirs = os.pipe()
    come, bell = os.pipe()
    heard = []

    class Enough(Exception):
        pass

    def act():
        heard.append(os.read(come, 1))
        raise Enough

    sink = Sink(theirs, "stdout")
    sink.interrupt, sink.act = come, act
    os.write(bell, b"!")
    with pytest.raises(Enough):
        while True:  # until the pipe is full, or before
            sink.write(b"x" * 10_000)
    assert heard == [b"!"]
    for fd in (ours, theirs, come, bell):
        os.close(fd)


class Words:
    """A source of words from a descriptor."""

    def __init__(self, fd):
        self.fd = fd
        self.words = self.all()

    def all(self):
        while data := read(self.fd, 100):
            yield from data.split()

    def __next__(self):
        return next(self.words)


def test_inputs_park_while_there_are_none():
    ours, theirs = os.pipe()
    netpoll = Netpoll()
    inputs = Inputs(Words(ours), netpoll, parks=True)
    assert inputs.peek() is None and inputs.parked
    netpoll.poll(0)
    assert inputs.peek() is None and not inputs.over
    os.write(theirs, b"one two")
    netpoll.poll(10)
    assert (inputs.peek(), inputs.take(), inputs.peek(), inputs.take()) == (b"one", b"one", b"two", b"two")
    assert inputs.peek() is None and inputs.parked
    os.close(theirs)
    netpoll.poll(10)
    assert inputs.peek() is None and inputs.over
    netpoll.close()
    os.close(ours)


def test_inputs_that_others_made_non_blocking_are_waited_for():
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    os.write(theirs, b"one")
    inputs = Inputs(Words(ours), Netpoll(), parks=False)
    assert inputs.peek() == b"one"
    inputs.netpoll.close()
    os.close(theirs)
    os.close(ours)


def test_a_descriptor_that_goes_in_the_same_round_is_not_called():
    netpoll = Netpoll()
    pipes = [os.pipe() for _ in range(2)]
    seen = []

    def act(about):
        seen.append(about)
        for ours, _ in pipes:
            netpoll.remove(ours)

    for ours, theirs in pipes:
        os.write(theirs, b"x")
        netpoll.add(ours, act, ours)
    assert len(select.select([ours for ours, _ in pipes], [], [], 10)[0]) == 2
    netpoll.poll(10)
    assert len(seen) == 1
    netpoll.close()
    for pair in pipes:
        for fd in pair:
            os.close(fd)
