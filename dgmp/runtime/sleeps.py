"""`time.sleep` of a G: it blocks, as all calls of the system do, but parks once a started G of its M can go on.

Started Gs cannot leave their process, so whoever sleeps there would make their timers, timeouts and groups late.  So where some
are parked the M wakes every 10 ms, or when the first of their waits is over, and looks whether one can go on.  Not in a G that
has been asked to end, which is killed if it sleeps on, nor in dgmp.nopreempt().  A coroutine's loop sleeps with it.

Called by workers.m (park_sleepers).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING

from .._core import WHY_SLEEP
from .signals import call
from .timers import PAUSE

if TYPE_CHECKING:
    from .proc import G, M

LONGEST = 1e8  # seconds; what is longer, or no time at all, is time.sleep's affair
LOOK_NS = 10_000_000


def park_sleepers(m: M, park: Callable[..., bool]) -> None:
    """From here on the Gs of m give way to others in time.sleep, by Member.park."""
    block = time.sleep

    def may_park(gp: G) -> bool:
        return bool((m.parked or m.ready or m.yielded) and os.getpid() == m.pid and gp is not m.lockedg
                    and gp.word not in m.nopreempt and not m.view.asked(gp.word))

    def keeps_others_waiting(now: int) -> bool:
        m.collect()
        return bool(m.ready or m.yielded) or m.timers.wait(now) == 0 or m.view.async_work()

    def sleep_beside_others(until: int) -> None:
        while (now := time.monotonic_ns()) < until:
            if keeps_others_waiting(now):
                park(PAUSE, until, WHY_SLEEP)
                return
            due = m.timers.wait(now)
            call(block, (min(until - now, LOOK_NS, due if due >= 0 else LOOK_NS) / 1e9,), {})

    @wraps(block)
    def sleep(seconds: float, /) -> None:
        gp = m.curg
        if type(seconds) in (int, float) and 0 < seconds < LONGEST and gp is not None and m.in_g() and may_park(gp):
            sleep_beside_others(time.monotonic_ns() + int(seconds * 1e9))
        else:
            call(block, (seconds,), {})

    time.sleep = sleep  # type: ignore[assignment]
