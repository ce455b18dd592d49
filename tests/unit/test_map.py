"""The sizes of a map's chunks, without processes: simulated Ms, and what is remembered of functions."""

import functools
import gc
import heapq
import random

import pytest

import dgmp
from dgmp.api import pace as pacing
from dgmp.api.pace import MOST_BYTES, MOST_CHUNKS, MOST_ITEMS, TARGET_NS, Cost, Pace, cost_of

PROCS = 2
CHUNK_NS = 25_000  # what a chunk costs an M beside its items
SEND_NS = 10_000  # and the sender


def simulate(times, pace=None, sized=True, size=8):
    """Runs a map over items that take so many ns each; results are taken at once.  Returns (chunk sizes, efficiency)."""
    pace = pace or Pace(Cost(), PROCS, len(times) if sized else None, None, None)
    now, at, sizes = 0, 0, []
    free = [0] * PROCS  # when each M is
    running = []  # (end, serial, items, ns)
    head, ended = 0, set()
    while at < len(times) or running:
        n = pace.size()
        come = running and running[0][0] <= now
        if not come and at < len(times) and not pace.waits() and pace.has_room(n):
            now += SEND_NS
            items = times[at:at + n]
            begin = max(now, heapq.heappop(free))
            end = begin + CHUNK_NS + sum(items)
            heapq.heappush(free, end)
            heapq.heappush(running, (end, len(sizes), len(items), sum(items)))
            pace.sent(len(items), size * len(items))
            sizes.append(len(items))
            at += len(items)
            continue
        end, serial, items, ns = heapq.heappop(running)
        now = max(now, end)
        pace.done(items, ns, size * items)
        ended.add(serial)
        while head in ended:  # in order
            pace.given(sizes[head], size * sizes[head])
            head += 1
    return sizes, max(sum(times) / PROCS, max(times)) / max(free)


def test_trivial_items_go_in_few_large_chunks():
    sizes, efficiency = simulate([50] * 1_000_000)
    assert sizes[:2 * PROCS] == [1] * (2 * PROCS)
    assert len(sizes) < 200 and max(sizes) * 50 <= TARGET_NS and efficiency > 0.9


def test_heavy_tailed_items_are_not_held_up():
    rng = random.Random(7)
    for n in (100, 2000):
        times = [int(min(rng.paretovariate(1.2), 400.0) * 400_000) for _ in range(n)]
        sizes, efficiency = simulate(times)
        assert efficiency > 0.93, n
        assert sum(sizes) == n


def test_long_items_are_chunks_of_their_own():
    sizes, efficiency = simulate([10_000_000] * 100)
    assert set(sizes) == {1} and efficiency > 0.95


def test_sizes_grow_by_a_factor_at_most():
    sizes, _ = simulate([10] * 1_000_000, sized=False)
    for i in range(1, len(sizes)):
        assert sizes[i] <= pacing.GROWTH * max(sizes[:i])


def test_sizes_shrink_when_items_turn_out_slow():
    times = [100] * 100_000 + [3_000_000] * 350_000
    sizes, _ = simulate(times, sized=False)
    assert sizes[-10_000:] == [1] * 10_000


def test_the_end_of_an_input_of_known_length_is_cut_small():
    cost = Cost()
    for rest in (8, 100, 1000):
        pace = Pace(cost, PROCS, rest, None, None)
        pace.done(100, 100, 100)  # 1 ns each
        assert pace.size() <= max(1, rest // (4 * PROCS) + 100 // 32)


def test_a_first_guess_is_checked_before_it_is_trusted():
    cost = Cost()
    cost.add(1_000_000, 50_000_000, 0)  # 50 ns each: 20,000 in 1 ms
    pace = Pace(cost, PROCS, None, None, None)
    assert not pace.waits() and pace.size() == 20_000 // pacing.GROWTH
    pace.sent(2_500, 0)
    assert pace.size() == 2_500  # nothing has come back
    pace.done(2_500, 2_500 * 50, 0)
    assert pace.size() == 20_000


def test_no_more_than_a_megabyte_in_a_chunk():
    pace = Pace(Cost(), PROCS, None, None, None)
    pace.done(1000, 1000, 1000 * 10_000)
    assert pace.size() == MOST_BYTES // 10_000
    pace.done(1, 1, 5 * MOST_BYTES)
    assert pace.size() < 250


def test_chunksize_is_what_was_asked_for():
    pace = Pace(Cost(), PROCS, 10, 7, None)
    for _ in range(3):
        assert pace.size() == 7 and not pace.waits()
        pace.sent(7, 100)
        pace.done(7, 10**12, 10**9)


@pytest.mark.parametrize("buffersize", [1, 3, 10, 1000])
def test_buffersize_bounds_the_items_on_their_way(buffersize):
    rng = random.Random(buffersize)
    for chunksize in (None, 1, 4, 5000):
        pace = Pace(Cost(), PROCS, None, chunksize, buffersize)
        out = []
        for _ in range(2000):
            n = pace.size()
            if not pace.waits() and pace.has_room(n):
                pace.sent(n, n)
                out.append(n)
                assert sum(out) <= buffersize
            else:
                n = out.pop(rng.randrange(len(out)))
                pace.done(n, n * 100, n)
                pace.given(n, n)


def test_the_window_is_bounded_in_chunks_items_and_bytes():
    for items, size, most in ((1, 1, MOST_CHUNKS), (MOST_ITEMS // 10, 1, 10), (1, pacing.MOST_WINDOW_BYTES // 8, 8)):
        pace = Pace(Cost(), PROCS, None, items, None)
        n = 0
        while pace.has_room(items):
            pace.sent(items, size)
            n += 1
        assert n == most
        pace.given(items, size)
        assert pace.has_room(items)


def test_results_that_are_large_count_too():
    pace = Pace(Cost(), PROCS, None, 1, None)
    pace.done(1, 1, pacing.MOST_WINDOW_BYTES // 16)
    n = 0
    while pace.has_room(1):
        pace.sent(1, 1)
        n += 1
    assert n == 16


def test_items_larger_than_the_window_still_occupy_all_ms():
    pace = Pace(Cost(), PROCS, None, 1, None)
    for _ in range(2 * PROCS):
        assert pace.has_room(1)
        pace.sent(1, 10 * pacing.MOST_WINDOW_BYTES)
    assert not pace.has_room(1)


class Callable:
    def __call__(self, x):
        return x

    def method(self, x):
        return x


class HashlessType(type):
    __hash__ = None


class Hashless(metaclass=HashlessType):
    pass


def make(i):
    return lambda x: x + i


def test_what_is_known_of_a_function():
    assert cost_of(abs) is cost_of(abs) is not cost_of(min)
    assert cost_of(make(1)) is cost_of(make(2))
    one = Callable()
    assert cost_of(one.method) is cost_of(Callable().method) is cost_of(Callable.method)
    assert cost_of(one) is cost_of(Callable())
    assert cost_of(functools.partial(functools.partial(pow, 2), 3)) is cost_of(pow)
    assert cost_of(dgmp.task(make)) is cost_of(make)
    assert cost_of(Callable) is cost_of(Callable) is not cost_of(int)
    assert cost_of(Hashless) is not cost_of(Hashless)


def test_what_is_known_goes_with_the_function():
    before = len(pacing._known)
    made = eval("lambda x: 'of its own'")
    cost_of(made)
    assert len(pacing._known) == before + 1
    del made
    gc.collect()
    assert len(pacing._known) == before


def test_what_is_known_is_bounded():
    kept = [eval(f"lambda x: {i} + x") for i in range(pacing.MOST_KNOWN + 50)]
    first = cost_of(kept[0])
    for fn in kept:
        cost_of(fn)
    assert len(pacing._known) <= pacing.MOST_KNOWN
    assert cost_of(kept[-1]) is cost_of(kept[-1]) and cost_of(kept[0]) is not first
