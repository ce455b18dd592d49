"""What the launcher's options decide: when a job may start, whether it is run again, and when the whole is to stop.

The launcher (launcher.py) tells what happens and does as it is told; nothing here waits, starts or kills.  Times are of
time.monotonic(), in seconds, and passed in.  In the order in which the launcher calls:

    total            set once it is known how many jobs there are; where needs_total, before the first one starts; where
                     wants_total, inputs are read ahead for it
    blind            whether the next jobs may be started without asking (spawners.py); fixed
    skip(draft)      as it comes from the inputs: it is not to be run (--resume); halting says if that cannot be known
    may_start(now)   a slot is free and a job is there; then
    starting(slot)   what the new process gets, and started(process) as it runs
    look(now)        before each wait: which processes are to be ended, and when to look again
    ended(process)   the verdict: it is done, or is to be run again before any other
    line(process)    it is done: what is to be logged of it, by log(line), as its output has been handed on
    halting          after each of these: None, "soon" (nothing more starts) or "now" (running jobs are ended; neither
                     these nor those ended for a signal to the launcher are told of any more, so that --resume runs them again)
    stop()           the launcher was asked to start no more (Ctrl-C)
    hide(line)       before anything is written on a terminal; line: it will end one
    exit_status()    as nothing runs any more
    close()

A policy may change a process's exitval once that has ended.
"""

from __future__ import annotations

from .halt import Halt, Tally

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    from .command import Draft
    from .halt import When
    from .process import Process

    Verdict = Literal["done", "again"]
NOTHING: Mapping[str, str] = {}


class Setting:
    """What a process gets beside its command.

    Args:
        variables: of its environment.
        cores: to which it is bound; empty: it is not bound.
        nice: added to ours.
    """

    __slots__ = ("variables", "cores", "nice")

    def __init__(self, variables: Mapping[str, str] = NOTHING, cores: tuple[int, ...] = (), nice: int = 0) -> None:
        self.variables, self.cores, self.nice = variables, cores, nice


PLAIN = Setting()


class Policy:
    """Starts all, runs nothing again, stops for --halt alone.  The one that `dgmp each` has without options.

    Args:
        halt: what --halt says (halt.parse).
    """

    def __init__(self, halt: Halt | None = None) -> None:
        self.tally = Tally(halt)
        self.stopping = False

    wants_total = False  # shows how far it has come

    @property
    def blind(self) -> bool:
        """Whether may_start() is always true, starting() always the same, nothing is run again, and no end stops others."""
        return self.tally.halt is None

    @property
    def needs_total(self) -> bool:
        """Whether `total` must be set before the first job starts."""
        return self.tally.needs_total

    @property
    def total(self) -> int | None:
        return self.tally.total

    @total.setter
    def total(self, jobs: int) -> None:
        self.tally.total = jobs

    @property
    def halting(self) -> When | None:
        return self.tally.halting or ("soon" if self.stopping else None)

    @property
    def halted_by(self) -> str:
        """The --halt that has stopped it; empty: none has."""
        return str(self.tally.halt) if self.tally.halting else ""

    def stop(self) -> None:
        """Nothing more is to start, nor to be run again."""
        self.stopping = True

    def hide(self, line: bool = True) -> None:
        """Something is about to be written to stdout or stderr; line: it ends one."""

    def skip(self, draft: Draft) -> bool:
        """Whether this job is not to be run."""
        return False

    def may_start(self, now: float) -> bool | float:
        """Whether a job may start now; False: not before one has ended; a time: ask again then."""
        return True

    def starting(self, slot: int) -> Setting:
        """A job starts: what it gets."""
        return PLAIN

    def started(self, process: Process) -> None:
        """It runs."""
        if process.attempt == 1:
            self.tally.started += 1

    def look(self, now: float) -> tuple[list[Process], float | None]:
        """The processes that are to be ended, and when to look again (None: not for the sake of time)."""
        return [], None

    def ended(self, process: Process) -> Verdict:
        """It has ended, all by itself or not."""
        self.tally.ended(process.exitval, process.signal)
        return "done"

    def line(self, process: Process) -> bytes:
        """A job is done: what is to be logged of it."""
        return b""

    def log(self, line: bytes) -> None:
        """Its output has been handed on."""

    def exit_status(self) -> int:
        """Of the launcher, as nothing runs any more."""
        return self.tally.exit_status()

    def close(self) -> None:
        """Nothing runs any more."""
