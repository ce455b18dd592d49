"""asyncio loops that Gs run themselves, with `asyncio.run`: waiting for events they park, as all else in a G does.

Else they would block their M, and with it Gs that they may wait for, the async ones if it is the poller.  What the program
makes with a selector or a loop class of its own blocks as everywhere.

Called by workers.m (park_loops).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .._core import WHY_IO
from .imports import when_imported
from .netpoll import Wait

if TYPE_CHECKING:
    from .proc import M


def park_loops(m: M, park: Callable[[Wait, int | None, int], bool]) -> None:
    """From the first import of asyncio on, new loops of Gs of m park, by Member.park."""

    def imported(unix_events: ModuleType) -> None:
        import selectors

        class Selector(selectors.EpollSelector):
            def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
                if not m.in_g() or os.getpid() != m.pid:  # a child that user code has forked
                    return super().select(timeout)
                events = super().select(0)
                if events or (timeout is not None and timeout <= 0):
                    return events
                deadline = None if timeout is None else time.monotonic_ns() + int(timeout * 1e9)
                wait = Wait(m, self.fileno(), False)
                try:
                    park(wait, deadline, WHY_IO)
                finally:
                    wait.end()
                return super().select(0)

        def new_loop() -> Any:
            return unix_events.SelectorEventLoop(Selector())

        unix_events.DefaultEventLoopPolicy._loop_factory = staticmethod(new_loop)

    when_imported("asyncio.unix_events", imported)
