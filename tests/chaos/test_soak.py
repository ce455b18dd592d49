"""The soak (soak.py) finds what grows, and lets be what does not."""

import pytest

import dgmp
from tests.chaos.soak import MB, MEMORY, PARTS, RING_WORDS, Sample, table, take

FLAT = Sample(client=30 * MB, blocks=130_000, malloc=8 * MB, coordinator=7 * MB, m=12 * MB, segment=20 * MB, fds=40,
              fds_of_m=16, processes=9, objects=0, large_blocks=0, gs=0)


def grown(**more):
    """What is found when these figures grow steadily, by so much in all."""
    n = 10 * PARTS
    samples = [FLAT._replace(**{name: getattr(FLAT, name) + by * i / n for name, by in more.items()}) for i in range(n)]
    return [text.split()[0] for text in table(samples)[1]]


def test_flat():
    assert grown() == []


@pytest.mark.parametrize("name", ["client", "coordinator", "m", "segment"])
def test_memory(name):
    assert grown(**{name: 2 * MB}) == [] and grown(**{name: 10 * MB}) == [name]


@pytest.mark.parametrize("name,by", [("blocks", 3000), ("malloc", MB), ("fds", 20),
                                     ("fds_of_m", 2), ("processes", 8), ("objects", 3), ("large_blocks", 3)])
def test_counts(name, by):
    assert grown(**{name: by}) == [name]


def test_queues_come_round():
    gs = 10 * MB / 8 / RING_WORDS
    assert grown(segment=10 * MB, gs=gs) == [] and grown(segment=20 * MB, gs=gs) == ["segment"]


def test_what_warms_up_is_none():
    samples = [FLAT._replace(m=0)] * 10 + [FLAT] * 50
    assert table(samples)[1] == []


def test_all_is_measured():
    with dgmp.Runtime(procs=1) as rt:
        assert rt.go(abs, -1).result(30) == 1
        sample = take(rt)
    always = {*MEMORY, "blocks", "fds", "fds_of_m", "processes", "gs"} - {"malloc"}  # of which not every libc tells
    assert all(getattr(sample, name) > 0 for name in always), sample
