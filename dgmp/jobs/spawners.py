"""Commands that are prepared ahead, and started by threads as others end (_core/spawners.c).  Called by launcher alone.

Where commands are short most of the time goes between an end and the next start.  So once a few have ended, and where nothing
has to be asked or seen before the next one may start (Policy.blind, Output.early, Draft.early), the launcher prepares some
more than it has slots for, and spawners start them in its place, in the slots of those that end.  It is told later: by note()
what has started is running, and what has ended is not, and waits in `ended` for the launcher to see to it.

What a spawner could not start comes back, and the launcher starts it itself, and says what is wrong.  Whoever wants nothing to
start any more, or all that runs, calls take_back().
"""

from __future__ import annotations

import os
import signal
from collections import deque

from .._core import Spawners
from ..errors import DgmpError
from .process import CannotRun, Process
from .spill import reserve

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from .command import Draft
    from .launcher import Launcher

SOON = 8  # ends, before threads are made for the others
A_THREAD, MOST = 16, 256  # prepared for each, which lasts while the launcher naps, and for all, as they have descriptors
AGAIN = 64  # ends, before spawners are tried again


class Ahead:
    """What is prepared, and who starts it.

    Attributes:
        ended: not seen to yet.
        prepared: how many have not started, as far as we know.
        elsewhere: how many run that are children of another thread.
    """

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        self.threads = min(launcher.slots, len(os.sched_getaffinity(0)))
        self.most = min(A_THREAD * self.threads, MOST)
        self.spawners: Spawners | None = None
        self.ended: deque[Process] = deque()
        self.prepared = self.elsewhere = 0
        wanted = launcher.slots > 1 and launcher.policy.blind and launcher.output.early and launcher.folder is None
        self.not_before: float = SOON if wanted else float("inf")  # so many ends

    def prepare(self) -> None:
        """As many as are missing."""
        launcher = self.launcher
        while self.prepared < self.most and launcher.ends >= self.not_before and not (launcher.stopping or launcher.rerun):
            found = launcher.findrunnable()
            if found is None:
                return
            if not self.put(*found):
                launcher.rerun.appendleft(found)
                self.not_before = launcher.ends + AGAIN

    def put(self, draft: Draft, attempt: int) -> bool:
        """For spawners to start; False: it is for the launcher, who can tell what is wrong with it."""
        if not draft.early:
            return False
        launcher = self.launcher
        process = Process(draft.command(0), 0, attempt)
        process.draft = draft
        try:
            spawners = self.spawners = self.spawners or self.open()
            reserve.fill()
            out, err = launcher.output.open(process)
            try:
                argv = process.command.argv
                spawners.put(process, launcher.environment.program(argv[0]), argv, launcher.variables(process), None,
                             launcher.null, out, err)
            except BaseException:
                launcher.output.again(process)
                raise
        except (CannotRun, DgmpError, LookupError, OSError, ValueError):
            return False
        self.prepared += 1
        return True

    def open(self) -> Spawners:
        launcher = self.launcher
        spawners = Spawners(self.threads, launcher.slots, tuple(launcher.environment.block), tuple(launcher.of_slot),
                            launcher.policy.starting(0).nice, signal.SIGKILL, launcher.terminal, launcher.nofile)
        launcher.netpoll.add(spawners.fileno(), lambda _: self.note())
        return spawners

    def start(self) -> bool:
        """In an idle slot, here; False: none is prepared, or it has come back."""
        self.prepare()
        if self.spawners is None or not self.prepared:
            return False
        if self.spawners.start(self.launcher.idle[-1]):
            self.note()
            return True
        self.take_back()
        self.not_before = self.launcher.ends + AGAIN
        return False

    def note(self) -> None:
        """What has started, and what has ended."""
        launcher = self.launcher
        for process, slot, pid, pidfd, started, begun, elsewhere, ended in self.spawners.reports() if self.spawners else ():
            if pid:
                self.prepared -= 1
                self.elsewhere += elsewhere
                process.slot = process.command.slot = slot
                process.pid, process.pidfd, process.elsewhere = pid, pidfd, elsewhere
                process.started, process.begun = started, begun
                launcher.idle.remove(slot)
                launcher.runs(process)
            if ended:
                if process.reap(ended):
                    launcher.leave(process)
                    self.ended.append(process)
                else:
                    launcher.netpoll.add(process.pidfd, launcher.exited, process)

    def take_back(self) -> None:
        """What has not started is the launcher's again, and nothing is started by spawners until it prepares more."""
        if self.spawners is None:
            return
        back = self.spawners.take_back()
        self.note()
        self.prepared = 0
        for process in reversed(back):
            self.launcher.output.again(process)
            self.launcher.rerun.appendleft((process.draft, process.attempt))

    def spare(self) -> None:
        """Nothing runs, and no process can be made: our threads, which count as such, may be in the way."""
        if self.spawners is not None:
            self.launcher.netpoll.remove(self.spawners.fileno())
            self.close()
            self.spawners, self.not_before = None, float("inf")

    def close(self) -> None:
        """Nothing runs any more."""
        if self.spawners is not None:
            self.spawners.close()
