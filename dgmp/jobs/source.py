"""The drafts of `dgmp each`, one after the other: inputs put into a template.

`next(source)` waits for the next one.  Who has other things to do asks `source.ready()` first: if it is False, nothing has come
yet, and source.fd says what to poll for.  Made by cli.each, read by launcher.
"""

from __future__ import annotations

from .command import Draft, Job
from .inputs import Waiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .template import Record

    Batches = Iterator[tuple[Record, ...] | bytes | None]  # bytes: a block of --pipe


class Source:
    """An iterator of drafts.

    Args:
        job: what they have in common.
        batches: the records of each, or what it reads; None where the next one has not come yet.
        waiting: what for.
        names: those of the columns, if they have any.

    Attributes:
        total: how many there are, once that is known.
    """

    def __init__(self, job: Job, batches: Batches, waiting: Waiting, names: tuple[str, ...] = ()) -> None:
        self.job, self.batches, self.waiting, self.names = job, batches, waiting, names
        self.seq = 0
        self.total: int | None = None
        self.next: Draft | None = None
        self.ended = False

    @property
    def fd(self) -> int:
        """The descriptor it waits for, after ready() has said False."""
        return self.waiting.fd

    def ready(self) -> bool:
        """Whether next() would answer at once."""
        if self.next is not None or self.ended:
            return True
        for batch in self.batches:
            if batch is None:
                return False
            self.next = self.draft(batch)
            return True
        self.ended = True
        self.total = self.seq
        return True

    def draft(self, batch: tuple[Record, ...] | bytes) -> Draft:
        self.seq += 1
        if isinstance(batch, bytes):
            return Draft(self.job, self.seq, ((),), batch)
        return Draft(self.job, self.seq, batch)

    def __iter__(self) -> Source:
        return self

    def __next__(self) -> Draft:
        while not self.ready():
            self.waiting.wait()
        draft, self.next = self.next, None
        if draft is None:
            raise StopIteration
        return draft

    def count(self) -> int:
        """Reads and keeps all that will come; returns how many there are."""
        kept: list[tuple[Record, ...] | bytes] = []
        for batch in self.batches:
            if batch is None:
                self.waiting.wait()
            else:
                kept.append(batch)
        self.batches = iter(kept)
        self.total = self.seq + len(kept)
        return self.total
