"""What an async G's task runs: its coroutine, which ends with the tasks that it has made.

A module of its own, as what these functions await is user code, and may be interrupted (runtime.signals).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any
from weakref import WeakSet


async def run(coro: Awaitable[Any], word: int, tasks: dict[int, WeakSet[asyncio.Task[Any]]]) -> Any:
    """Returns what coro does.  tasks: those that Gs have made, by their words; what is left of its own is cancelled."""
    try:
        return await coro
    finally:
        left = [task for task in tasks.pop(word, ()) if not task.done()]
        if left:
            await end(left)


async def end(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
