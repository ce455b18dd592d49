"""How a G may fail, as its owner has said at the spawn: the bytes of its `struct terms` (_core/core.h).

    "<QQQQ"   the size of it all; timeout in ns, 0 none; two words of the core's
    "<IIIIq"  retries; crash_limit; AFTER bits; the function table entry of the errors of `retry_on`, 0 none; grace in ns
    n * "<q"  pauses in ns: before it is run again for the first time, the second, and so on; the last from then on

Written by api.terms, read by the M that runs the G (proc) and by the coordinator (deaths, limits).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

CORE, POLICY = struct.Struct("<QQQQ"), struct.Struct("<IIIIq")
AFTER_DEATH, AFTER_TIMEOUT = 1, 2  # it may be run again after these, which its M may not live to see
MOST_RETRIES = 200  # the core counts attempts in 8 bits
NO_GRACE = -1
ASKED, ASKED_TO_RAISE, LATE = 1, 2, 32  # flags of a G (_core/core.h), as View.asked and the coordinator see them


class Terms(NamedTuple):
    """What has been said."""

    retries: int
    crash_limit: int
    after: int
    retry_on: int
    grace_ns: int
    pauses: tuple[int, ...]
    timeout_ns: int = 0

    def pack(self) -> bytes:
        policy = POLICY.pack(*self[:5]) + struct.pack(f"<{len(self.pauses)}q", *self.pauses)
        return CORE.pack(CORE.size + len(policy), self.timeout_ns, 0, 0) + policy

    @classmethod
    def unpack(cls, data: bytes) -> Terms:
        _, timeout, _, _ = CORE.unpack_from(data)
        n = (len(data) - CORE.size - POLICY.size) // 8
        return cls(*POLICY.unpack_from(data, CORE.size), struct.unpack_from(f"<{n}q", data, CORE.size + POLICY.size), timeout)

    def pause(self, attempt: int) -> int:
        """How many ns to wait after that run, the first being 1."""
        return self.pauses[min(attempt, len(self.pauses)) - 1] if self.pauses else 0

    def again_at(self, attempt: int, now: int) -> int:
        """When it is to be run again after that run has failed; 0: at once."""
        pause = self.pause(attempt)
        return now + pause if pause else 0
