"""Gs that wait for something that does not come by itself, for tests; importable, so that they travel by reference."""

import threading
import time

import dgmp
from dgmp._core import WHY_CHAN_RECV
from dgmp.api import runtime

parked = []  # in an M: what its Gs wait for, and their words
early = []  # or that they need not wait, as release came first


class Event:
    """What gopark takes."""

    def __init__(self):
        self._state = 0
        self._then = []


def park(deadline=None):
    """Waits for release, in this M; or until the deadline, on the monotonic clock in ns."""
    if early:
        return early.pop()
    m = runtime._member.m
    event = Event()
    parked.append((event, m.curg.word))
    while not event._state:
        m.gopark(event, deadline, WHY_CHAN_RECV)
        runtime._member.run_handlers()
        if deadline is not None and time.monotonic_ns() >= deadline:
            return "late"
    return "released"


def release():
    """Ends all waits of this M, or the next one; from any of its threads."""
    if not parked:
        early.append("released")
    while parked:
        event, word = parked.pop()
        event._state = 1
        runtime._member.m.goready(word)


def park_and_leave_a_thread(seconds):
    threading.Timer(seconds, release).start()
    return park()


def wait_for_a_child():
    return dgmp.go(park).result()
