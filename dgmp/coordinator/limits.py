"""Gs whose time is up, or that have been asked to end, and Gs that wait to be run again.

A G that runs is told by SIGURG, and raises Cancelled between two bytecodes (runtime.preempt).  If it runs on after its grace,
in C code or as it catches that, its M is killed, and another takes its place.  Whose time is up is seen in the words of the
Ms: who begins a G with less time than anybody else has wakes us (_core/bind_sched.c, limited).
Called by state.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any, NamedTuple

from .._core import View
from ..ship.terms import NO_GRACE, Terms
from .deaths import LATE, Deaths

TO_RAISE = 2  # flag of a G
AGAIN_NS = 10_000_000  # a G that was told, and has not raised, is in C code, or in the runtime's
RARELY_NS = 1_000_000_000  # while those that are to end wait: it is looked less and less often
NEVER_NS = 1 << 62
Action = tuple[Any, ...]


class Ending(NamedTuple):
    """A G that is to end."""

    attempt: int  # of the G, which may be run again
    late: bool  # as its time is up
    until: int  # then its M is killed
    grace: int


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
        self.ending: dict[int, Ending] = {}  # those that are to end, by their words
        self.pace = AGAIN_NS
        self.next = 0  # when the next running G's time is up, 0 none

    def told(self, now: int) -> None:
        """Somebody has told us of Gs."""
        for word, at in self.view.told_of():
            if at:
                heappush(self.again, (at, word))
            else:
                self.end(word, now, False)

    def next_look(self, now: int) -> int | None:
        """In how many ns there is something to do."""
        times = [self.again[0][0]] if self.again else []
        times += [self.next] if self.next else []
        if self.ending:
            times += [now + self.pace, *[ending.until for ending in self.ending.values() if ending.until > now]]
        return max(0, min(times) - now) if times else None

    def look(self, now: int) -> list[Action]:
        while self.again and self.again[0][0] <= now:
            self.view.due(heappop(self.again)[1])
        late, self.next = self.view.late(now)
        for _, word in late:
            self.end(word, now, True)
        actions = [action for word in list(self.ending) for action in self.press(word, now)]
        self.pace = AGAIN_NS if actions else min(2 * self.pace, RARELY_NS)
        return actions

    def end(self, word: int, now: int, late: bool) -> None:
        """That G is to end, from now on if it was not before."""
        self.pace = AGAIN_NS
        seen = None if word in self.ending else self.view.started(word)
        if seen is not None:
            terms = Terms.unpack(seen[5]) if seen[5] else None
            grace = terms.grace_ns if terms is not None and terms.grace_ns else self.grace_ns
            self.ending[word] = Ending(seen[4], late, NEVER_NS if grace == NO_GRACE else now + grace, grace)

    def press(self, word: int, now: int) -> list[Action]:
        """A G that is to end: it is told, or its M killed."""
        seen, ending = self.view.started(word), self.ending[word]
        if seen is None or seen[4] != ending.attempt:
            del self.ending[word]
            return []
        m, pid, runs, flags, _, _ = seen
        if not runs:  # it waits, and has raised there, or will
            return []
        if now >= ending.until:
            self.deaths.killed[word] = ending.late, f"did not end within {ending.grace / 1e9:g} s"
            return [("end", m, pid, word)]
        return [("preempt", pid)] if flags & TO_RAISE or (ending.late and not flags & LATE) else []
