"""What an async G's task runs: its coroutine, which ends with the tasks that it has made.

A module of its own, as what these functions await is user code, and may be interrupted (runtime.signals).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any
from weakref import WeakSet


class Steps:
    """Awaits a coroutine, and says all the time whether its code runs: for that its G is limited, and takes strikes.

    Args:
        coro: the coroutine.
        word: its G's.
        step: called with the word when the code of coro begins or goes on, with 0 when it waits or has ended.
    """

    __slots__ = ("coro", "word", "step")

    def __init__(self, coro: Coroutine[Any, Any, Any], word: int, step: Callable[[int], object]) -> None:
        self.coro, self.word, self.step = coro, word, step

    def __await__(self) -> Generator[Any, Any, Any]:
        """As `await coro` does it (PEP 380)."""
        coro, word, step = self.coro, self.word, self.step
        value: Any = None
        error: BaseException | None = None
        while True:
            step(word)
            try:
                waits = coro.send(value) if error is None else coro.throw(error)
            except StopIteration as e:
                return e.value
            finally:
                step(0)
            value = error = None
            try:
                value = yield waits
            except GeneratorExit:
                coro.close()
                raise
            except BaseException as e:
                error = e


async def run(coro: Steps, word: int, tasks: dict[int, WeakSet[asyncio.Task[Any]]]) -> Any:
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
