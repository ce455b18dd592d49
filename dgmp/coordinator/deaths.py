"""What becomes of the Gs that were started on an M which has died.

They cannot go on.  One that may be run again, by its own terms or the runtime's, is; the others end, each with the history
of its deaths.  Only the G that ran takes a strike for it: those that were parked there are innocent.
Called by state, after the core's repair.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .._core import RESULT_WORKER_DIED, View
from ..ship.terms import AFTER_DEATH, AFTER_TIMEOUT, ASKED, CORE, LATE, Terms

MANY = 1000  # strikes on record: it is looked who has ended since
FAIL, RETRY, BREAK = "fail", "retry", "break"


class Deaths:
    """The record of strikes, and the decisions.

    Args:
        view: the coordinator's.
        policy: on_worker_death of the Runtime.
        crash_limit: after so many strikes a G ends in any case.
        clock: monotonic, in ns.
    """

    def __init__(self, view: View, policy: str = FAIL, crash_limit: int = 3,
                 clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.view, self.policy, self.crash_limit, self.clock = view, policy, crash_limit, clock
        self.strikes: dict[int, list[list[Any]]] = {}  # of a G, by its word: [pid, how it died] of each M
        self.killed: dict[int, tuple[bool, str]] = {}  # Gs for which limits has had their M killed: late, and what they did

    def settle(self, m: int, how: dict[str, Any]) -> bool:
        """M m has died so, and is repaired.  Whether that has struck any G."""
        from ..ship import death  # with msgpack, which nobody shall wait for at boot

        victims = self.view.victims(m)
        for word, goid, ran, attempt, flags, said, owned in victims:
            terms = Terms.unpack(said) if said else None
            strikes = self.strikes.get(word, [])
            if ran:
                strikes = [*strikes, [how["pid"], how["how"]]]
            ends = CORE.unpack_from(said)[2] if said else 0
            late, grace = self.killed.pop(word, (bool(flags & LATE or 0 < ends <= self.clock()), ""))
            if owned and self.may_again(terms, attempt, flags, late, len(strikes) if ran else 0):
                if ran and not late:
                    self.strikes[word] = strikes
                self.view.rerun_victim(m, word, terms.again_at(attempt, self.clock()) if terms else 0)
                continue
            self.strikes.pop(word, None)
            more = {"history": strikes} if len(strikes) > 1 else {}
            if grace:
                more["grace"] = grace
            role = death.CANCELLED if flags & ASKED else death.LATE if late else death.RUNNING if ran else death.PARKED
            self.view.end_victim(m, word, RESULT_WORKER_DIED, death.encode(goid, role, how | more))
        if len(self.strikes) > MANY:
            self.strikes = {word: strikes for word, strikes in self.strikes.items() if self.view.alive(word)}
        return bool(victims)

    def may_again(self, terms: Terms | None, attempt: int, flags: int, late: bool, strikes: int) -> bool:
        if flags & ASKED:
            return False
        if late:
            return terms is not None and attempt <= terms.retries and bool(terms.after & AFTER_TIMEOUT)
        if strikes >= (terms.crash_limit if terms is not None and terms.crash_limit else self.crash_limit):
            return False
        left = terms is not None and attempt <= terms.retries and bool(terms.after & AFTER_DEATH)
        return left or self.policy == RETRY
