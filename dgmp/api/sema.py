"""A process's handle of a counting semaphore in the segment (_core/sema.c), of which api.sync makes Go's package sync.

It is served in order of arrival and knows how much each process holds.  A G that has to wait parks; a thread sleeps on a
futex.  What a killed process held is free again, and the next one learns it (HolderDied).

How an operation went is written by the core into a list of ours, in the call that did it: an exception that strikes at
any moment after finds it there and undoes it (Sema.undo).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from .._core import SEMA_BLOCKS, SEMA_DIED, SEMA_DONE, WHY_SEMA
from ..errors import HolderDied
from ..ship import travel
from . import runtime as api
from .future import deadline_of
from .node import LOOK_NS, Node

if TYPE_CHECKING:
    from .member import Member

MOMENT_NS = 1_000_000  # to wait for one who is handing over


class Wait:
    """What a G parks for: a wait at a semaphore.

    Args:
        to: where the core has put the wait, and will put how it ended.
    """

    __slots__ = ("sema", "to", "_then")

    def __init__(self, sema: Sema, to: list[int]) -> None:
        self.sema, self.to = sema, to
        self._then: list[Any] = []

    @property
    def _state(self) -> bool:
        return self.to[0] >= 0 or not self.sema.node.view.sema_pending(self.to[0])

    def give_up(self) -> bool:
        self.sema.give_up(self.to)
        return self.to[0] == SEMA_BLOCKS


class Sema:
    """One process's handle of a counting semaphore.

    Args:
        node: the runtime.
        n: how many units it has; 0: no limit, it only counts.
        tell_at: the death of a process that held so many is told to the next one.
    """

    __slots__ = ("node", "handle", "word")

    def __init__(self, node: Node, n: int, tell_at: int) -> None:
        self.node = node
        self.handle = node.view.sema_new(n, tell_at)
        self.word = self.handle.word

    def acquire(self, units: int, timeout: float | None, what: str) -> None:
        """Waits until units are free, and takes them."""
        view, word = self.node.view, self.word
        self.wait(lambda waiter, wait, to: view.sema_acquire(word, units, waiter, wait, to), units, timeout, what)

    def wait_zero(self, timeout: float | None, what: str) -> None:
        """Waits until no unit is held."""
        view, word = self.node.view, self.word
        self.wait(lambda waiter, wait, to: view.sema_wait_zero(word, waiter, wait, to), 0, timeout, what)

    def try_acquire(self, units: int) -> bool:
        """Takes the units if they are free and nobody waits."""
        to = [SEMA_BLOCKS]
        try:
            gp = api.current_g()
            self.node.view.sema_acquire(self.word, units, 0 if gp is None else gp.word, False, to)
            self.run_handlers()
        except BaseException:
            self.undo(to, units)
            raise
        if to[0] == SEMA_DIED:
            raise self.holder_died()
        return to[0] == SEMA_DONE

    def release(self, units: int) -> bool:
        """False: so many are not held."""
        done = self.node.view.sema_release(self.word, units)
        self.run_handlers()
        return done

    def wait(self, operation: Callable[[int, bool, list[int]], None], units: int, timeout: float | None, what: str) -> None:
        deadline = deadline_of(timeout)
        gp = api.current_g()
        waiter = 0 if gp is None else gp.word
        to = [SEMA_BLOCKS]
        try:
            operation(waiter, deadline is None or time.monotonic_ns() < deadline, to)
            while to[0] < 0:
                if gp is not None:
                    self.park(to, deadline)
                else:
                    self.sleep(to, deadline)
                if to[0] == SEMA_BLOCKS and (deadline is None or time.monotonic_ns() < deadline):
                    operation(waiter, True, to)  # who was about to hand over died
            self.run_handlers()
        except BaseException:
            self.undo(to, units)
            raise
        if to[0] == SEMA_DIED:
            raise self.holder_died()
        if to[0] == SEMA_BLOCKS:
            raise TimeoutError(f"{what} within {timeout} s")

    def park(self, to: list[int], deadline: int | None) -> None:
        """The calling G waits until that has ended."""
        waits = Wait(self, to)
        cast("Member", self.node).park(waits, deadline, WHY_SEMA, waits.give_up)
        if to[0] < 0:
            self.node.view.sema_wait_end(self.word, False, to)

    def sleep(self, to: list[int], deadline: int | None) -> None:
        """The calling thread does."""
        node, view = self.node, self.node.view
        node.refuse_scheduler()
        while view.sema_pending(to[0]):
            if node.stops and node.is_told():
                self.give_up(to)
                return node.raise_cancelled() if to[0] == SEMA_BLOCKS else None
            left = LOOK_NS if deadline is None else min(LOOK_NS, deadline - time.monotonic_ns())
            if left <= 0:
                return self.give_up(to)
            view.sema_sleep(to[0], left)
            if left == LOOK_NS and view.sema_pending(to[0]):
                node.collect()
                node.look(deadline is None)
        view.sema_wait_end(self.word, False, to)

    def give_up(self, to: list[int]) -> None:
        """Ends the wait, if it goes on: what it waits for comes in this moment, or not any more."""
        view = self.node.view
        while to[0] < 0:
            view.sema_wait_end(self.word, True, to)
            if to[0] < 0:
                view.sema_sleep(to[0], MOMENT_NS)

    def undo(self, to: list[int], units: int) -> None:
        """As if it had not been begun; quietly if the runtime is gone."""
        with contextlib.suppress(Exception):
            self.give_up(to)
            if to[0] == SEMA_DONE:
                self.node.view.sema_release(self.word, units)

    def run_handlers(self) -> None:
        """Those of signals that came meanwhile: this module counts as the scheduler (runtime.signals)."""
        if self.node.pending:
            self.node.run_handlers()

    def holder_died(self) -> HolderDied:
        goid = self.node.view.sema_state(self.word)[3]
        who = f"G {goid}" if goid else "a thread"
        return HolderDied(f"the process died in which {who} held it; it is free again")

    def used(self) -> int:
        return self.node.view.sema_state(self.word)[0]

    def __reduce__(self) -> Any:
        self.handle.escape()
        travel.note(self.word)
        return arrived, (self.node.view.runtime_id, self.word)


def arrived(runtime_id: int, word: int) -> Sema:
    """One that has travelled."""
    node = api.node_of(runtime_id)
    if node is None:
        raise LookupError("it belongs to a runtime of which this process is no member")
    sema = Sema.__new__(Sema)
    try:
        sema.node, sema.handle, sema.word = node, node.view.handle(word), word
    except LookupError:
        raise LookupError("it has ended: nobody referred to it any more") from None
    return sema
