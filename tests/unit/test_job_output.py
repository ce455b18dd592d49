"""dgmp.jobs: output that waits on disk, tags, whom output goes to, and inputs that park."""

import os
import random

from hypothesis import given
from hypothesis import strategies as st

from dgmp.jobs import spill
from dgmp.jobs.output import Order, tagged


@given(st.lists(st.binary(min_size=1, max_size=20)), st.binary(max_size=3).filter(lambda tag: b"\n" not in tag))
def test_each_line_has_its_tag_however_it_comes(parts, tag):
    lines = b"".join(parts).split(b"\n")
    expected = b"\n".join(tag + line for line in lines[:-1]) + (b"\n" if len(lines) > 1 else b"")
    expected += tag + lines[-1] if lines[-1] else b""
    assert b"".join(tagged(parts, tag)) == expected


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_what_waits_for_its_turn_holds_neither_descriptors_nor_disk_for_ever(monkeypatch):
    monkeypatch.setattr(spill, "SEGMENT", 10_000)
    shown = []
    order = Order(lambda told: shown.append((b"".join(told[0]), b"".join(told[1]), told[2])))
    numbers = list(range(1, 1001))
    random.Random(1).shuffle(numbers)
    numbers.remove(1)
    before = descriptors()
    for seq in numbers:
        put(order, seq, [b"%d" % seq, b"x" * (seq % 100)], [b"e"] * (seq % 2))
    assert shown == []
    held = descriptors() - before
    assert held < 10
    put(order, 1, [b"1"], [])
    assert [out[: len(str(seq))] for seq, (out, *_) in enumerate(shown, 1)] == [b"%d" % seq for seq in range(1, 1001)]
    assert [err for _, err, _ in shown[1:]] == [b"e" * (seq % 2) for seq in range(2, 1001)]
    assert [note for *_, note in shown] == [b"line %d" % seq for seq in range(1, 1001)]
    assert descriptors() - before <= 2
    order.rest()
    assert descriptors() == before


def put(order, seq, out, err):
    order.put(seq, (out, err, b"line %d" % seq))
