"""Lost wake-ups: spawn and park again and again with random pauses; a lost one is a hang, which the time-out finds."""

import os
import random
import time

import dgmp
from tests import helpers

CYCLES = 1_000_000 if os.environ.get("DGMP_SOAK") else 40_000


def parks(n, seed):
    rng = random.Random(seed)
    for i in range(n):
        if dgmp.go(helpers.identity, i).result() != i:
            return False
        if rng.random() < 0.02:
            end = time.perf_counter() + rng.random() * 2e-4
            while time.perf_counter() < end:
                pass
    return True


def test_spawn_park_cycles_inside_gs():
    with dgmp.Runtime(procs=2) as rt:
        assert all(dgmp.gather(*[rt.go(parks, CYCLES // 4, i) for i in range(4)]))


def test_spawn_wait_cycles_from_the_client():
    rng = random.Random(1)
    with dgmp.Runtime(procs=2) as rt:
        for i in range(CYCLES // 10):
            assert rt.go(helpers.identity, i).result(60) == i
            if rng.random() < 0.05:
                end = time.perf_counter() + rng.random() * 3e-4  # around the spin times: parked, or about to
                while time.perf_counter() < end:
                    pass
