"""--halt: when to stop before all jobs have run, and what the launcher's exit status is then (both as GNU parallel's).

The grammar: never | WHEN,WHAT=N | WHEN,WHAT=N%, with WHEN now (running jobs are ended) or soon (they are waited for), and WHAT
fail, success or done; and of old 0 (never), 1 and 2 (soon and now,fail=1), -1 and -2 (soon and now,success=1), and N%
(soon,fail=N%).  A percentage is one of all jobs, so their number must be known before the first one ends.

The exit status: 0 all succeeded; 1 to 100 that many failed; 101 more did.  With N% it is the percentage that failed.  Where
one failed or done job was to halt it all, it is that job's own; and where the wanted successes came, 0.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Literal

    When = Literal["now", "soon"]

MOST = 101  # failed jobs that an exit status tells
NONSENSE = 255  # any other error
OF_OLD = {"0": "never", "1": "soon,fail=1", "2": "now,fail=1", "-1": "soon,success=1", "-2": "now,success=1"}


class Halt:
    """What --halt says.

    Args:
        when: now or soon.
        what: fail, success or done.
        number: of these.
        percent: it is one of all jobs.
    """

    __slots__ = ("when", "what", "number", "percent")

    def __init__(self, when: When, what: str, number: int, percent: bool = False) -> None:
        self.when, self.what, self.number, self.percent = when, what, number, percent

    def __str__(self) -> str:
        return f"--halt {self.when},{self.what}={self.number}{'%' if self.percent else ''}"


def parse(text: str) -> Halt | None:
    """What a --halt says; None: never.

    Raises:
        ValueError: it says nothing.
    """
    full = OF_OLD.get(text, text)
    if full[:-1].isdecimal() and full.endswith("%"):
        full = "soon,fail=" + full
    when, _, why = full.partition(",")
    what, _, number = why.partition("=")
    if full == "never":
        return None
    digits = number.removesuffix("%")
    if when not in ("now", "soon") or what not in ("fail", "success", "done") or not (digits.isascii() and digits.isdecimal()):
        raise ValueError(f"--halt {text}: give never, or now or soon and fail=N, success=N or done=N (N may be a percentage): "
                         "--halt now,fail=1 or --halt soon,fail=10%")
    return Halt("now" if when == "now" else "soon", what, int(digits), number.endswith("%"))


def own_status(exitval: int, signal: int) -> int:
    """A job's as a shell tells it."""
    return exitval & 0xff if exitval else 128 + signal if signal else 0


class Tally:
    """Counts how jobs end.

    Args:
        halt: what --halt says.

    Attributes:
        total: how many jobs there are; None: not known (yet).  To be set before the first one ends if --halt has a percentage.
        halting: whether, and how, it is to stop.
    """

    def __init__(self, halt: Halt | None = None) -> None:
        self.halt = halt
        self.total: int | None = None
        self.started = self.done = self.failed = self.skipped = 0  # skipped: had been done before (--resume)
        self.halting: When | None = None
        self.status: int | None = None  # fixed as it halts

    @property
    def needs_total(self) -> bool:
        return self.halt is not None and self.halt.percent

    def ended(self, exitval: int, signal: int) -> When | None:
        """A job has ended, for good."""
        self.done += 1
        failed = bool(exitval or signal)
        self.failed += failed
        halt = self.halt
        if halt is None or halt.what == ("success" if failed else "fail"):
            return self.halting
        done = self.done + self.skipped
        reached = {"fail": self.failed, "success": done - self.failed, "done": done}[halt.what]
        wanted, scale = (halt.number * self.jobs(), 100) if halt.percent else (halt.number, 1)
        if scale * reached >= wanted:
            self.halting = halt.when
            if self.status is None:
                self.status = 0 if halt.what == "success" else \
                    own_status(exitval, signal) if wanted == scale else self.count()
        return self.halting

    def jobs(self) -> int:
        return self.total or self.started

    def count(self) -> int:
        """Of the failed ones, or their percentage, rounded up."""
        return -(-100 * self.failed // (self.jobs() or 1)) if self.needs_total else min(self.failed, MOST)

    def exit_status(self) -> int:
        """As all has ended."""
        return self.count() if self.status is None else self.status
