"""--retries N: N attempts in all, as GNU parallel counts them; 0: until it succeeds.  Called by control."""

from __future__ import annotations


class Retries:
    """Decides whether a failed job is run again.

    Args:
        attempts: in all; 0: no limit.
    """

    def __init__(self, attempts: int) -> None:
        self.attempts = attempts

    def again(self, failures: int) -> bool:
        """Whether a job that has failed so often is to be run again."""
        return self.attempts == 0 or failures < self.attempts
