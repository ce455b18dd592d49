"""Gs that compute, block, sleep, wait, lock their M and start others, all at once, while the number of Ps changes: none is
forgotten by an M that parks, or hands its P to another."""

from __future__ import annotations

import random
import subprocess
import time

import pytest

import dgmp

ROUNDS = 25


def compute(n):
    total = 0
    for i in range(n):  # in Python, so that it can be preempted
        total += i
    return total


def block(seconds):
    time.sleep(seconds)


def block_saying_so(seconds):
    with dgmp.blocking():
        time.sleep(seconds)


def start_a_program(_):
    return subprocess.run(["true"]).returncode


def tree(n):
    return sum(dgmp.gather(*[dgmp.go(tree, n - 1) for _ in range(3)])) if n else 1


def lock_the_m(seconds):
    dgmp.lock_os_thread()
    dgmp.sleep(seconds)
    dgmp.gosched()
    dgmp.unlock_os_thread()


@pytest.mark.parametrize("seed", range(3))
def test_a_mixture_of_everything(seed):
    chance = random.Random(seed)
    kinds = [(compute, lambda: chance.randrange(200_000)), (tree, lambda: 3)]
    kinds += [(fn, lambda: 0.02 * chance.random()) for fn in (block, block_saying_so, start_a_program, lock_the_m, dgmp.sleep)]
    with dgmp.Runtime(procs=2) as rt:
        for _ in range(ROUNDS):
            futures = []
            for _ in range(30):
                fn, argument = chance.choice(kinds)
                futures.append(rt.go(fn, argument()))
            rt.gomaxprocs(chance.randrange(1, 6))
            for future in futures:
                future.result(30)
        stats = rt.stats()
        assert (stats["num_g"], stats["throws"]) == (0, 0)
