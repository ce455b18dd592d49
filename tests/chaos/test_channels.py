"""Ms are killed under Gs that send, receive and select: nothing comes twice, and nobody waits for ever."""

from __future__ import annotations

import contextlib
import os
import random
import signal

import pytest

import dgmp

ROUNDS = 8


def send_all(chan, tag, n):
    for i in range(n):
        chan.send((tag, i))


def pass_on(chan, out):
    for value in chan:
        out.send(value)


def take_either(a, b, stop):
    taken = 0
    while True:
        which, _, ok = dgmp.select(dgmp.recv(a), dgmp.recv(b), dgmp.recv(stop))
        if which == 2:
            return taken
        taken += ok
        if not ok:
            dgmp.gosched()


def receive(chan):
    """What there is, or None."""
    with contextlib.suppress(TimeoutError, dgmp.ChanClosed):
        return chan.recv(timeout=0.005)


@pytest.mark.parametrize("seed", range(3))
def test_ms_are_killed_under_channels(seed):
    chance = random.Random(seed)
    with dgmp.Runtime(procs=2) as rt:
        for _ in range(ROUNDS):
            first, second, stop = rt.chan(chance.choice([0, 1, 8])), rt.chan(chance.choice([0, 3])), rt.chan()
            futures = [rt.go(send_all, first, tag, 30) for tag in range(6)]
            futures += [rt.go(pass_on, first, second) for _ in range(3)]
            futures += [rt.go(take_either, first, second, stop) for _ in range(2)]
            got = []
            for _ in range(chance.randrange(2, 8)):
                got += [x for x in (receive(second) for _ in range(5)) if x is not None]
                pids = [m.pid for m in rt.snapshot().ms if m.pid]
                if pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(chance.choice(pids), signal.SIGKILL)
            assert len(set(got)) == len(got)
            stop.close()
            first.close()
            while not all(f.done() for f in futures):  # the test's time limit ends it otherwise
                receive(second)
            assert {type(f.exception()) for f in futures} <= {type(None), dgmp.WorkerDied, dgmp.ChanClosed}
        stats = rt.stats()
        assert (stats["num_g"], stats["throws"], stats["rescues"]) == (0, 0, 0)
