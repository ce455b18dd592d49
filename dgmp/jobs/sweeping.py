"""What is left of forgotten jobs is cleared away: their tasks' rows, their output, and the room in the store's file.

The daemon takes one step a turn, so that nobody waits for a million rows.  It begins as the daemon does and with each
`forget`, and what a killed daemon has left is in the store's table `forgotten` still.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from .log import say
from .store import Store

ROWS, FILES, PAGES = 5000, 500, 500  # a step
LOG_NAME = re.compile(r"([0-9]+)[-.]")  # of the output of a job: files.py


def sweeping(store: Store, logs: Path) -> Iterator[None]:
    """The steps; each is in the transaction of its turn."""
    while jobs := store.forgotten():
        for job in jobs:
            while store.drop_rows(job, ROWS) == ROWS:
                yield
            store.drop_entries(job)
            yield
        try:
            yield from remove_output(logs, set(jobs))
        except OSError as e:  # next time
            say("daemon", f"the output of forgotten jobs is not cleared away: {e.filename}: {e.strerror}")
            break
        store.swept(jobs)
        yield
    while store.give_back(PAGES):
        yield
    yield
    store.checkpoint()


def remove_output(logs: Path, jobs: set[int]) -> Iterator[None]:
    with os.scandir(logs) as entries:
        for number, entry in enumerate(entries, 1):
            found = LOG_NAME.match(entry.name)
            if found is not None and int(found[1]) in jobs:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)
            if number % FILES == 0:
                yield
