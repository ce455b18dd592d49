"""Gs whose time is up, or that have been asked to end, and Gs that wait to be run again.

A G that runs is told by SIGURG, and raises Cancelled between two bytecodes (runtime.preempt).  If it runs on after its grace,
in C code or as it catches that, its M is killed, and another takes its place.  Whose time is up is seen in the words of the
Ms: who begins a G with less time than anybody else has wakes us (_core/bind_sched.c, limited).
Called by state.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple

from .._core import View
from ..ship.terms import ASKED, ASKED_TO_RAISE, LATE, NO_GRACE, Terms
from .deaths import MANY, Deaths

AGAIN_NS = 10_000_000  # a G that was told, and has not raised, is in C code, or in the runtime's
OFTEN_NS = 80_000_000  # it is told less and less often, too
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
        self.many = MANY  # of these, as it was last looked which of them are still there
        self.pace = AGAIN_NS
        self.next = 0  # when the next running G's time is up, 0 none

    def told(self, now: int) -> None:
        """Somebody has told us of Gs."""
        for word, at in self.view.told_of():
            if at:
                heappush(self.again, (at, word))
            else:
                self.end(word, now, False)
        if len(self.again) > 2 * self.many:  # some may have been cancelled since
            self.again = [x for x in self.again if self.view.alive(x[1])]
            heapify(self.again)
            self.many = max(MANY, len(self.again))

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
        self.pace = min(2 * self.pace, OFTEN_NS if actions else RARELY_NS)
        return actions

    def end(self, word: int, now: int, late: bool) -> None:
        """That G is to end, from now on if it was not before."""
        seen = self.view.started(word)
        if seen is None or not (late or seen[3] & (ASKED | LATE)):  # it was, and has been run again since
            return
        ending = self.ending.get(word)
        if ending is None or ending.attempt != seen[4]:
            terms = Terms.unpack(seen[5]) if seen[5] else None
            grace = terms.grace_ns if terms is not None and terms.grace_ns else self.grace_ns
            until = NEVER_NS if grace == NO_GRACE else now + grace
            self.ending[word] = Ending(seen[4], late or not seen[3] & ASKED, until, grace)
            self.pace = AGAIN_NS

    def press(self, word: int, now: int) -> list[Action]:
        """A G that is to end: it is told, or its M killed.  One that waits raises there.  If it catches that, and waits on, it
        has its grace twice, and as long as its M has other Gs that are started."""
        seen, ending = self.view.started(word), self.ending[word]
        if seen is None or seen[4] != ending.attempt:
            del self.ending[word]
            self.deaths.killed.pop(word, None)
            return []
        m, pid, runs, flags, _, _ = seen
        unheard = bool(flags & ASKED_TO_RAISE or (ending.late and not flags & LATE))
        if not runs and unheard:  # its M is at something else: its grace begins when it can hear
            self.ending[word] = ending._replace(until=NEVER_NS)
            return []
        if ending.until == NEVER_NS and ending.grace != NO_GRACE:
            ending = self.ending[word] = ending._replace(until=now + ending.grace)
        if not runs and (now < ending.until + ending.grace or len(self.view.victims(m)) > 1):
            return []
        if now >= ending.until:
            self.deaths.killed[word] = ending.late, f"did not end within {ending.grace / 1e9:g} s"
            self.ending[word] = ending._replace(until=now + RARELY_NS)  # if it cannot be killed now
            return [("end", m, pid, word, ending.attempt)]
        return [("preempt", pid)] if unheard else []
