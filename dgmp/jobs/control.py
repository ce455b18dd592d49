"""The policy of `dgmp each` with all its options: what one option says is a class in a module beside this one.

Called by launcher, through policy.Policy; made by cli.each.
"""

from __future__ import annotations

import os
import time

from ..errors import DgmpError
from .halt import NONSENSE
from .policy import PLAIN, Policy, Setting

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

    from .command import Draft
    from .halt import Halt
    from .joblog import Done, JobLog
    from .limits import Delay, FreeMemory, Load, Timeout
    from .policy import Verdict
    from .process import Process
    from .progress import Progress, Style
    from .resources import Held, Need, Resources
    from .retry import Retries


class Control(Policy):
    """All options together.

    Args:
        say: tells people something, a line on stderr.
        halt, retries, timeout, delay, load, memfree, nice, joblog, progress: what the options of these names say; None:
            nothing.
        done: what had been done before (--resume).
        resources, need: what there is, and what each job needs of it; None: jobs need a slot alone.
        own: variables that people set themselves (--env): jobs are told nothing else by these.

    Raises:
        NeverFits: a job needs more than there is.
    """

    def __init__(self, say: Callable[[str], None], *, halt: Halt | None = None, retries: Retries | None = None,
                 timeout: Timeout | None = None, delay: Delay | None = None, load: Load | None = None,
                 memfree: FreeMemory | None = None, nice: int = 0, joblog: JobLog | None = None, done: Done | None = None,
                 progress: Style | None = None, resources: Resources | None = None, need: Need | None = None,
                 own: Collection[str] = (), now: float | None = None) -> None:
        super().__init__(halt)
        self.say = say
        self.nice = max(0, min(nice, 19) - os.nice(0))  # beyond ours; it is never less nice
        self.retries, self.timeout, self.delay, self.memfree = retries, timeout, delay, memfree
        self.joblog, self.done = joblog, done
        self.gates = [gate for gate in (delay, load, memfree) if gate is not None]
        self.watches = [watch for watch in (timeout, memfree) if watch is not None]
        self.failures: dict[int, int] = {}  # of jobs that are to be run again
        self.resources, self.need, self.own = resources, need, own
        if resources is not None and need is not None:
            resources.check(need)
        self.next: Held | None = None  # what the next job will hold
        self.held: dict[Any, Held] = {}
        self.setting = Setting(nice=self.nice) if self.nice else PLAIN
        self.progress: Progress | None = None
        if progress is not None:
            from .progress import Progress

            self.wants_total = True
            self.progress = Progress(progress, self.tally, 2, time.monotonic() if now is None else now)
        self.broken = False

    @property
    def blind(self) -> bool:
        return super().blind and not self.gates and self.retries is None and self.need is None

    def skip(self, draft: Draft) -> bool:
        try:
            if self.done is None or not self.done.has(draft):
                return False
        except DgmpError as e:
            self.give_up(e)
            return False
        self.tally.skipped += 1
        return True

    def may_start(self, now: float) -> bool | float:
        for gate in self.gates:
            answer = gate.may_start(now)
            if answer is not True:
                return answer
        if self.resources is not None and self.need is not None and self.next is None:
            self.next = self.resources.acquire(self.need)
            return self.next is not None
        return True

    def starting(self, slot: int) -> Setting:
        if self.next is None:
            return self.setting
        told = self.next.variables()
        for name in self.own:
            told.pop(name, None)
        return Setting(told, self.next.cores, self.nice)

    def started(self, process: Process) -> None:
        super().started(process)
        if self.next is not None:
            self.held[process], self.next = self.next, None
        if self.delay is not None:
            self.delay.started(process.begun)
        for watch in self.watches:
            watch.started(process)
        if self.progress is not None:
            self.progress.started()

    def look(self, now: float) -> tuple[list[Process], float | None]:
        late: list[Process] = []
        when: list[float] = []
        for watch in self.watches:
            found, again = watch.look(now)
            late += found
            if again is not None:
                when.append(again)
        if self.progress is not None:
            when.append(self.progress.look(now))
        return late, min(when, default=None)

    def ended(self, process: Process) -> Verdict:
        held = self.held.pop(process, None)
        if held is not None and self.resources is not None:
            self.resources.release(held)
        for_memory = self.memfree is not None and self.memfree.ended(process)
        well = not (process.exitval or process.signal)
        if self.timeout is not None and self.timeout.ended(process, process.seconds, well):
            process.exitval = process.exitval or -1  # as parallel says it of what it has ended
            well = False
            self.tell(f"this job was ended as its time was up: {process.command.text}")
        if self.delay is not None:
            self.delay.ended(well)
        if self.progress is not None:
            self.progress.ended()
        if not well and not self.stopping and self.again(process, for_memory):
            return "again"
        self.failures.pop(process.command.seq, None)
        return super().ended(process)

    def again(self, process: Process, for_memory: bool) -> bool:
        """Whether a job that failed is run again."""
        seq = process.command.seq
        if for_memory:
            self.tell(f"this job was ended as memory was short, and will be run again: {process.command.text}")
            return True
        failures = self.failures.get(seq, 0) + 1
        if self.retries is None or not self.retries.again(failures):
            return False
        self.failures[seq] = failures
        return True

    def line(self, process: Process) -> bytes:
        return b"" if self.joblog is None else self.joblog.line(process)

    def log(self, line: bytes) -> None:
        if self.joblog is not None and line and not self.broken:
            try:
                self.joblog.add(line)
            except DgmpError as e:
                self.give_up(e)

    def give_up(self, e: DgmpError) -> None:
        """The joblog cannot be used any more."""
        self.broken = True
        self.tell(str(e))
        self.stop()

    def tell(self, text: str) -> None:
        self.hide()
        self.say(text)

    def hide(self, line: bool = True) -> None:
        if self.progress is not None:
            self.progress.hide(line)

    def exit_status(self) -> int:
        return NONSENSE if self.broken else super().exit_status()

    def close(self) -> None:
        if self.progress is not None:
            self.progress.close(time.monotonic())
        if self.joblog is not None:
            self.joblog.close()
