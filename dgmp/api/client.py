"""A program's access to a runtime.  It gets less room than Gs do, notices when the coordinator dies, and shows what Gs print.

Made by api.runtime.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from .._core import Block, View
from ..errors import CoordinatorDied, Deadlock
from ..ship.values import Large
from .node import BATCH_NS, LOOK_NS, MANY, Node, nothing

if TYPE_CHECKING:
    from .output import Output
    from .world import Teller

ROOM_NS = 1_000_000_000
STUCK_NS = 5_000_000_000  # after so long without room, and no G ending, the program is told why it waits
FEW_BYTES = 32 << 20  # of large arguments in flight: about what stays in a cache
MOST_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 8
PATIENCE_NS = 10_000_000


class Client(Node):
    """A process that runs no Gs: the user's program."""

    idle_look_ns = LOOK_NS

    def __init__(self, view: View, alive: Callable[[], bool], stop: Callable[[], object], output: Output | None,
                 teller: Teller | None = None) -> None:
        super().__init__(view)
        self.alive = alive
        self.stop = stop
        self.output = output
        if output is not None:
            output.ended_by_others = self.look
        self.asleep: tuple[int, int] | None = None  # all were, with so much done in all, when deadlock.check looked first
        self.look_again = 0  # not before, at what may come from outside
        self.warned = False
        # Since when there has been no room, when we looked last, and how many Gs there were.
        self.stuck: tuple[int, int, int] | None = None
        self.main_word = 0  # of the main G of `dgmp run`, for which we wait: a deadlock is its affair
        self.shares = teller is not None  # the node with other clients
        from .levels import Levels

        Levels(view, teller.publish_levels if teller is not None else None)

    def throttle(self) -> None:
        """A quarter of the slots is for what Gs spawn, clients share the rest; but if none ends, they may wait for what this
        thread has still to do."""
        self.collect()
        if self.shares:
            self.quota = (self.view.nslots - self.view.nslots // 4) // (1 + self.view.clients())
        try:
            while self.view.outstanding > self.quota and not self.warned:
                self.full()
        except Deadlock:
            self.quota = self.view.nslots
            self.shares = False

    def full(self, more: int = MANY) -> None:
        self.sleepers += 1
        try:
            self.view.wait(self.view.inbox_seq(), 0, more, 0, BATCH_NS)
        finally:
            self.sleepers -= 1
        self.collect()
        now = time.monotonic_ns()
        since, last, outstanding = self.stuck or (now, now, 0)
        if now - last > LOOK_NS or self.view.outstanding != outstanding:
            since = now
        self.stuck = since, now, self.view.outstanding
        if now - since < LOOK_NS or now - self.looked < LOOK_NS:
            return self.look()
        self.looked = now
        if now - since > STUCK_NS:
            self.warn_of_no_room(now - since)
        try:
            self.look(True)
        except Deadlock as e:
            e.add_note(f"the program waited for room for one more G or its arguments: {self.view.outstanding} of its Gs have "
                       f"not ended, and there are {self.view.nslots} slots")
            raise

    def warn_of_no_room(self, ns: int) -> None:
        """Once in a runtime: nothing else tells why a program stands still that goes on spawning Gs."""
        if not self.warned:
            self.warned = True
            view = self.view
            warnings.warn(f"a call of dgmp has waited {ns / 1e9:.0f} s for room for one more G or its arguments, and no G has "
                          f"ended meanwhile: {view.outstanding} of this program's have not (there are {view.nslots} slots, and "
                          f"{view.heap_size} bytes of shared memory); do they wait for what it was about to do?",
                          RuntimeWarning, stacklevel=2)

    def wait_for_room(self) -> bool:
        """Until a G of ours has ended, or a second is over, as others may have given some back."""
        outstanding, until = self.view.outstanding, time.monotonic_ns() + ROOM_NS
        while self.view.outstanding >= outstanding > 0 and time.monotonic_ns() < until:
            self.full(1)
        return outstanding > 0

    def pack(self, large: Large) -> Block:
        """Waits while too much is on its way already."""
        outstanding, since = self.view.outstanding, time.monotonic_ns()
        while self.crowded(since):
            self.full(max(1, min(outstanding // 4, MANY)))
            if self.view.outstanding < outstanding:
                outstanding, since = self.view.outstanding, time.monotonic_ns()
        while True:
            try:
                return super().pack(large)
            except MemoryError:
                if not self.view.bytes_out:
                    raise
            self.full(1)

    def crowded(self, since: int) -> bool:
        """Whether one more large argument had better wait; since: when a G has last ended, or we began.

        Blocks that are used again at once are warm.  But Gs that take long are not waited for, as this thread has better
        things to do, until they have an eighth of the machine's memory."""
        view = self.view
        if view.bytes_out < FEW_BYTES or view.blocks_out <= 2 * view.nprocs:
            return False
        return view.bytes_out > MOST_BYTES or time.monotonic_ns() - since < PATIENCE_NS

    def catch_up(self, written_to: int) -> None:
        """What Gs have printed is written."""
        outputs = self.view.outputs
        if self.output is None or self.output.show():
            self.view.shown(outputs)
        self.view.drain(self.untold, written_to)

    def look(self, for_ever: bool = False) -> None:
        if self.output is not None and self.output.is_ours():
            self.output.make_room()
        if self.gone is None and not self.alive():
            self.end(CoordinatorDied("the runtime's coordinator died; what was pending is lost"))
        if self.gone is not None:
            raise self.ended()
        if for_ever:
            self.checkdead()

    def checkdead(self) -> None:
        self.collect()
        done = self.view.checkdead()
        if not done:
            self.asleep = None
            return
        with contextlib.suppress(OSError):  # there is no descriptor to look with: another time
            from . import deadlock

            deadlock.check(self, done)

    def died(self) -> bool:
        """Whether the coordinator has, though perhaps nobody has noticed."""
        if self.gone is not None:
            return True
        died = self.view.coordinator_died()
        return not self.alive() if died is None else died

    def end(self, error: BaseException) -> None:
        """No more work: the processes of the runtime end, and then every pending Future does, with error: whoever is told of it
        can do it all anew, as nothing of it runs any more."""
        if self.output is not None:
            self.output.show()
        with self.lock:
            if self.gone is not None:
                return
            self.gone = error
        pending = self.view.close(error)
        try:
            self.stop()
        finally:
            for future in pending:
                future.fail(error)  # type: ignore[attr-defined]
            self.all_ended.set()
            self.forget_runtime()

    def forget_runtime(self) -> None:
        """No cycle with it: the segment goes with the last that refers to it."""
        self.alive = self.stop = nothing
        if self.output is not None:
            self.output.ended_by_others = nothing
