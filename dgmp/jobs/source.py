"""The drafts of `dgmp each`, one after the other: inputs put into a template.  Made by cli.each, read by launcher."""

from __future__ import annotations

from ..errors import DgmpError
from .command import Draft, Job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .template import Record

    Batches = Iterator[tuple[Record, ...]] | Iterator[bytes] | Iterator[tuple[Record, ...] | bytes]


class Source:
    """An iterator of drafts.

    Args:
        job: what they have in common.
        batches: the records of each; or, with --pipe, what each reads.
        names: those of the columns, if they have any.
        parks: whether what it reads may be long in coming.

    Attributes:
        error: why it has ended before its time.
    """

    def __init__(self, job: Job, batches: Batches, names: tuple[str, ...] = (), parks: bool = True) -> None:
        self.job, self.batches, self.names, self.parks = job, batches, names, parks
        self.seq = 0
        self.error = ""

    def __iter__(self) -> Source:
        return self

    def __next__(self) -> Draft:
        batch = self.batch()
        self.seq += 1
        if isinstance(batch, bytes):
            return Draft(self.job, self.seq, ((),), batch)
        return Draft(self.job, self.seq, batch)

    def batch(self) -> tuple[Record, ...] | bytes:
        """StopIteration: there are no more."""
        try:
            return next(self.batches)
        except DgmpError as e:
            self.error = str(e)
        except OSError as e:
            self.error = f"cannot read the inputs: {e.strerror}"
        raise StopIteration

    def count(self) -> int:
        """Reads and keeps all that will come; returns how many there are."""
        kept: list[tuple[Record, ...] | bytes] = []
        try:
            while True:
                kept.append(self.batch())
        except StopIteration:
            self.batches = iter(kept)
        return self.seq + len(kept)


class Drafts(Source):
    """Drafts that are made already."""

    def __init__(self, job: Job, drafts: list[Draft]) -> None:
        super().__init__(job, iter(()), parks=False)
        self.drafts, self.length = iter(drafts), len(drafts)

    def __next__(self) -> Draft:
        return next(self.drafts)

    def count(self) -> int:
        return self.length
