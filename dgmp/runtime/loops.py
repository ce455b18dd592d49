"""asyncio among Gs of one M: `asyncio.run` in one G, while another that is inside it is parked.

asyncio keeps by thread which loop runs, and the interpreter which hooks asynchronous generators have; the Gs of an M share
its thread.  So a G that parks inside a running loop takes both with it, and brings them back when it goes on.

Called by workers.m (keep_apart), and by proc when Gs park.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .imports import when_imported

if TYPE_CHECKING:
    from .proc import M


def keep_apart(m: M) -> None:
    """From the first import of asyncio on, each G of m has its own running loop."""

    def imported(events: ModuleType) -> None:
        get_loop, set_loop = events._get_running_loop, events._set_running_loop

        def leave() -> Any:
            kept = get_loop(), *sys.get_asyncgen_hooks()
            sys.set_asyncgen_hooks(None, None)
            set_loop(None)
            return kept

        def enter(kept: Any) -> None:
            loop, firstiter, finalizer = kept
            set_loop(loop)
            sys.set_asyncgen_hooks(firstiter, finalizer)

        m.leave_loop, m.enter_loop, m.running_loop = leave, enter, get_loop

    when_imported("asyncio.events", imported)
