"""nopreempt: code that does not give way to other Gs of its M by itself."""

from __future__ import annotations

from . import runtime


class nopreempt:  # noqa: N801  # reads as a function
    """A `with` block in which the G is not preempted (Go: acquirem, releasem, which only its runtime has).

    A G that runs for more than 10 ms while other started Gs of its M can go on gives way to them, between any two bytecodes of
    its own Python code.  Locks of `threading` know Gs, so most code need not care.  What shares state with other Gs of the
    process without a lock, or counts on the thread to stay its own, does: C libraries with a state for each thread,
    `threading.local`.  The block still gives way where it waits, and other threads of the process run as ever.  Blocks may be
    nested.  Outside of Gs it does nothing.

    Example:
        >>> import dgmp
        >>> with dgmp.nopreempt():
        ...     sum(range(10))
        45
    """

    def __enter__(self) -> nopreempt:
        self.word = 0
        member = runtime._member
        if member is not None and member.m.in_g():
            m = member.m
            assert m.curg is not None
            self.word = word = m.curg.word
            m.nopreempt[word] = m.nopreempt.get(word, 0) + 1
        return self

    def __exit__(self, *error: object) -> None:
        member = runtime._member
        if member is None or not self.word:
            return
        m = member.m
        left = m.nopreempt.pop(self.word, 1) - 1
        if left:
            m.nopreempt[self.word] = left
        elif m.overdue is not None:
            m.settle_overdue()
