"""An M's access to its runtime.  A G that waits parks; other threads of the M are clients.  Made by workers.m.

All that blocks in a G goes through `Member.park`.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._core import WHY_FUTURE, WHY_IO, WHY_OTHER, View
from ..errors import Cancelled, TooManyGs
from ..ship.terms import ASKED_TO_RAISE
from .future import PENDING, AnyOf, Future, Listener, Quick, deadline_of
from .node import BATCH_NS, GLOBAL_QUEUE, LOCAL_TAIL, NO_TIME, RUNNEXT, Node
from .world import Teller

if TYPE_CHECKING:
    from .._core import Wait
    from ..runtime import proc
    from ..runtime.signals import Signals
    from .output import Output


class Member(Node):
    """Inside an M: a G that waits parks; other threads of the M are clients."""

    where = RUNNEXT

    def __init__(self, view: View, m: proc.M, signals: Signals) -> None:
        super().__init__(view)
        self.m = m
        m.untold, m.tell, m.kick_sleepers = self.untold, self.tell_all, self.kick_sleepers
        self.pending, self.run_handlers = m.pending, signals.run
        m.has_timers = self.has_timers
        self.callbacks: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.caller: threading.Thread | None = None
        self.output: Output | None = None
        self.shown = 0

    def be_the_client(self, output: Output) -> None:
        """This is the M of a program's main G (`dgmp run`): the other Ms print and log here."""
        from .levels import Levels

        self.output = output
        Levels(self.view)

    def show(self) -> None:
        """What Gs have printed is written, before anybody here has their results."""
        outputs = self.view.outputs
        if self.output is not None and outputs != self.shown and self.output.show():
            self.shown = outputs

    def tell_of_changes(self) -> None:
        """This is the M of a program's main G (`dgmp run`): what that changes is told as a client's changes are."""
        Teller(self.view, self.m.worlds)

        def world() -> int:
            self.view.look_for_changes()
            return self.m.worlds.current

        self.m.world = world

    def go(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], name: str | None, depth: int,
           where: int | None = None, terms: bytes | None = None) -> Future[Any]:
        if where is None and threading.get_ident() != self.m.thread:
            where = GLOBAL_QUEUE
        try:
            return super().go(fn, args, kwargs, name, depth + 1, where, terms)
        finally:
            if self.pending:
                self.run_handlers()
            if self.m.overdue is not None:
                self.m.settle_overdue()

    def wait(self, future: Future[Any] | AnyOf | Listener, timeout: float | None) -> None:
        m = self.m
        gp = m.curg
        if gp is None or not m.in_g():
            self.refuse_scheduler()
            super().wait(future, timeout)
            return self.show()
        try:
            self.park_until(future, timeout)
        finally:
            self.show()
            if self.pending:
                self.run_handlers()

    def await_(self, wait: Wait, deadline: int | None, reason: int) -> None:
        m = self.m
        if not m.in_g():
            self.refuse_scheduler()
            return super().await_(wait, deadline, reason)
        until = wait.until
        if until < NO_TIME:
            deadline = until if deadline is None else min(deadline, until)
        self.park(wait, deadline, reason, wait.give_up)

    def refuse_scheduler(self) -> None:
        if threading.get_ident() == self.m.thread:
            raise RuntimeError("a signal handler whose G has ended runs on the scheduler and cannot wait")

    def park_until(self, future: Future[Any] | AnyOf | Listener, timeout: float | None) -> None:
        self.m.collect()
        if future._state != PENDING:
            return
        future.listen()
        if not self.park(future, deadline_of(timeout), WHY_FUTURE):
            raise TimeoutError(f"{future.name} has not finished within {timeout} s")

    def park(self, waits: Any, deadline: int | None = None, reason: int = WHY_OTHER,
             give_up: Callable[[], bool] = lambda: True) -> bool:
        """The calling G waits; what every blocking call in a G goes through.  Signal handlers of user code run meanwhile.

        Args:
            waits, deadline, reason: as for M.gopark, which says who readies the G.
            give_up: withdraws what it waits for, called before the call ends without it.  False: it has come in this moment,
                so that it does not end so.

        Returns:
            True: it has come.  False: the deadline has, and it has been given up.

        Raises:
            Cancelled: the G was asked to end, before or while it waited; once for each time that it was asked.
            Whatever a signal handler raises: give_up has been called, and what it says is lost.
        """
        m, gp = self.m, self.m.curg
        assert gp is not None
        if gp.ends and (deadline is None or gp.ends < deadline):
            deadline = gp.ends
        gp.asked = m.is_late(gp) or self.view.asked(gp.word) & ASKED_TO_RAISE != 0
        if (gp.asked or gp.stop) and not waits._state and give_up():
            self.raise_cancelled()
        while not waits._state:
            if deadline is not None and time.monotonic_ns() >= deadline:
                if not give_up():
                    return True
                if m.is_late(gp):
                    gp.asked = True
                    self.raise_cancelled()
                return False
            try:
                m.gopark(waits, deadline, reason, True)
                if self.pending:
                    self.run_handlers()
            except BaseException:
                give_up()
                raise
            if (gp.asked or gp.stop) and not waits._state and give_up():
                self.raise_cancelled()
        return True

    def gosched(self) -> None:
        """The calling G gives way."""
        gp = self.m.curg
        self.m.gosched()
        if self.pending:
            self.run_handlers()
        if gp is not None and (gp.asked or gp.stop):
            self.raise_cancelled()

    def raise_cancelled(self) -> None:
        gp = self.m.curg
        if gp is None or not self.m.in_g():
            return super().raise_cancelled()
        if gp.asked or not gp.stop:
            error = self.m.cancellation(gp)
        else:
            error = Cancelled("the Group was cancelled")
            for group in gp.stop:
                group.raised = error
        if gp.stop:
            gp.stop.clear()
        gp.asked = False
        self.view.told(gp.word)
        try:
            raise error
        finally:
            del error  # which has this frame in its traceback: a cycle keeps alive what the frames that it left hold

    def wait_fd(self, fd: int, write: bool, deadline: int | None) -> bool:
        """The calling G waits until fd is ready, or the deadline; whether it is."""
        from ..runtime.netpoll import Wait

        wait = Wait(self.m, fd, write)
        try:
            self.park(wait, deadline, WHY_IO)
        finally:
            ready = wait.end()
        return ready

    def collect(self, ours: int = 0) -> None:
        if threading.get_ident() == self.m.thread:
            self.m.collect()
            self.show()
            if self.pending:
                self.run_handlers()
        else:
            super().collect(ours)
            self.show()

    @staticmethod
    def has_timers() -> bool:
        """Whether this process is still to make calls that after_func was asked for."""
        timers = sys.modules.get("dgmp.api.timers")
        return timers is not None and timers.any_armed()

    def behind(self) -> int:
        return LOCAL_TAIL if threading.get_ident() == self.m.thread else GLOBAL_QUEUE

    def collects_for(self, loop: Any) -> bool:
        return self.m.asyncs is not None and self.m.asyncs.loop is loop

    def ready(self, word: int) -> None:
        if self.output is not None and (text := self.view.told_deadlock(word)):
            self.m.deadlocks[word] = self.view.function(text).decode(errors="replace")
        self.m.goready(word)

    def call(self, future: Future[Any], then: Any) -> None:
        """A parked G is readied; a callback runs on a thread of its own, as the scheduler must not wait for it."""
        if type(then) is int:
            self.m.goready(then)
        elif isinstance(then, Listener):
            then.ended(future)
        elif threading.get_ident() != self.m.thread or isinstance(then, Quick):
            future.run_callback(then)
        else:
            if self.caller is None:
                self.caller = threading.Thread(target=self.call_for_ever, name="dgmp-callbacks", daemon=True)
                self.caller.start()
            self.callbacks.put((future, then))

    def call_for_ever(self) -> None:
        while True:
            future, then = self.callbacks.get()
            future.run_callback(then)

    def full(self) -> None:
        seq = self.view.inbox_seq()
        self.collect()
        if threading.get_ident() != self.m.thread:
            self.view.wait(seq, 0, 0, 0, BATCH_NS)
            return
        raise TooManyGs(f"all {self.view.nslots} slots of the runtime are taken; wait for some Gs before spawning more")
