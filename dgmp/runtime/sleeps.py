"""`time.sleep` of a G: it parks where started Gs of its M would have to wait as long, since they cannot leave their process.

Where nobody would, it blocks, as all other calls of the system do, and its P goes to other Ms (_core/retake.c).  So it does in
a G that has been asked to end, which is killed if it sleeps on, in dgmp.nopreempt(), and in a coroutine.

Called by workers.m (park_sleepers).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING

from .._core import WHY_SLEEP
from .proc import Runner
from .signals import call
from .timers import PAUSE

if TYPE_CHECKING:
    from .proc import G, M

LONGEST = 1e8  # seconds; what is longer, or no time at all, is time.sleep's affair


def park_sleepers(m: M, park: Callable[..., bool]) -> None:
    """From here on the Gs of m park in time.sleep, by Member.park."""
    block = time.sleep

    def keeps_others_waiting(gp: G) -> bool:
        return bool((m.parked or m.ready or m.yielded) and os.getpid() == m.pid and type(gp.greenlet) is Runner
                    and gp is not m.lockedg and gp.word not in m.nopreempt and not m.view.asked(gp.word))

    @wraps(block)
    def sleep(seconds: float, /) -> None:
        gp = m.curg
        if type(seconds) in (int, float) and 0 < seconds < LONGEST and gp is not None and m.in_g() and keeps_others_waiting(gp):
            park(PAUSE, time.monotonic_ns() + int(seconds * 1e9), WHY_SLEEP)
        else:
            call(block, (seconds,), {})

    time.sleep = sleep  # type: ignore[assignment]
