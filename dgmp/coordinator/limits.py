"""Gs whose time is up, or that have been asked to end, and Gs that wait to be run again.

A G that runs is told by SIGURG, and raises Cancelled between two bytecodes (runtime.preempt).  If it runs on after its grace,
in C code or as it catches that, its M is killed, and another takes its place.  Whose time is up is seen in the words of the
Ms: who begins a G with less time than anybody else has wakes us (_core/bind_sched.c, limited).
Called by state.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any

from .._core import View
from ..ship.terms import NO_GRACE, Terms
from .deaths import LATE, Deaths

TO_RAISE = 2  # flag of a G
AGAIN_NS = 10_000_000  # a G that was told, and has not raised, is in C code, or in the runtime's
Action = tuple[Any, ...]


class Limits:
    """What the coordinator knows of them.

    Args:
        view: the coordinator's.
        deaths: is told for which G an M is killed.
        grace_ns: how long a G may take to end once it was told, if its terms do not say; NO_GRACE: for ever.
    """

    def __init__(self, view: View, deaths: Deaths, grace_ns: int) -> None:
        self.view, self.deaths, self.grace_ns = view, deaths, grace_ns
        self.again: list[tuple[int, int]] = []  # heap: when, and the word of the G that is to be run again
        self.ending: dict[int, tuple[int, bool]] = {}  # by their words: since when, and whether as their time is up
        self.next = 0  # when the next running G's time is up, 0 none

    def told(self, now: int) -> None:
        """Somebody has told us of Gs."""
        for word, at in self.view.told_of():
            if at:
                heappush(self.again, (at, word))
            else:
                self.ending.setdefault(word, (now, False))

    def next_look(self, now: int) -> int | None:
        """In how many ns there is something to do."""
        times = [self.again[0][0]] if self.again else []
        times += [self.next] if self.next else []
        times += [now + AGAIN_NS] if self.ending else []
        return max(0, min(times) - now) if times else None

    def look(self, now: int) -> list[Action]:
        while self.again and self.again[0][0] <= now:
            self.view.due(heappop(self.again)[1])
        late, self.next = self.view.late(now)
        for _, word in late:
            self.ending.setdefault(word, (now, True))
        return [action for word in list(self.ending) for action in self.press(word, now)]

    def press(self, word: int, now: int) -> list[Action]:
        """A G that is to end: it is told, or its M killed."""
        seen = self.view.started(word)
        if seen is None:
            del self.ending[word]
            return []
        m, pid, runs, flags, _, said = seen
        if not runs:  # it waits, and has raised there, or will
            return []
        since, late = self.ending[word]
        terms = Terms.unpack(said) if said else None
        grace = terms.grace_ns if terms is not None and terms.grace_ns else self.grace_ns
        if grace != NO_GRACE and now - since >= grace:
            self.deaths.killed[word] = late, f"did not end within {grace / 1e9:g} s"
            return [("end", m, pid, word)]
        return [("preempt", pid)] if flags & TO_RAISE or (late and not flags & LATE) else []
