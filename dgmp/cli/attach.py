"""`dgmp attach JOBS`: their progress until they have ended; Ctrl-C detaches, and they go on.

The line is drawn on stderr: again and again on a terminal, as a line every five seconds elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from ..jobs.amounts import spoken
from ..jobs.protocol import ENDED, FINISHED, RUNNING, WAITING, NoDaemon
from ..jobs.selectors import selection
from . import talk
from .tables import visible

if TYPE_CHECKING:
    from ..jobs.client import Client

BAR = 24
REDRAW_SECONDS, REPORT_SECONDS = 0.5, 5.0
DETACHED = 130
DESCRIPTION = """
Shows the progress of jobs until they have ended, on stderr.  Ctrl-C detaches: the jobs go on.  Each job that ends is a line
on stdout."""
EXAMPLES = """
dgmp attach                         # the job submitted last
dgmp attach 5-7
dgmp attach all && echo all of them finished
"""


def add_parser(verbs: Any) -> None:
    parser = talk.verb_parser(verbs, "attach", DESCRIPTION, EXAMPLES)
    parser.add_argument("selector", nargs="?", default="last", type=talk.argument(selection), metavar="JOBS",
                        help="such as 5, 1-3, all (default: last)")
    parser.set_defaults(act=act)


@talk.talks
def act(client: Client, options: Any) -> int:
    chosen = [talk.pinned(client, select) for select in options.selector]
    progress = Progress(client.subscribe(chosen))
    if not progress.jobs and any(not isinstance(select.jobs, str) for select in chosen):
        return talk.complain("there are no such jobs", talk.NOT_FOUND)
    try:
        with contextlib.ExitStack() as successors:
            while not progress.over():
                try:
                    progress.follow()
                except NoDaemon as e:
                    progress.go_on(successors.enter_context(talk.successor(e)).subscribe(chosen))
    except KeyboardInterrupt:
        progress.line.clear()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # one is enough
        return talk.complain(f"detached; the jobs go on (`dgmp attach {progress.ids()}` follows them again)", DETACHED)
    finally:
        progress.line.clear()
    return talk.verdict(progress.jobs.values(), quiet=True)


class Progress:
    """Jobs as they go on."""

    def __init__(self, events: Any) -> None:
        self.events = events
        self.jobs = {job["id"]: job for job in events.jobs}
        self.line = Line()
        self.began = time.monotonic()
        self.done_before = self.done()
        self.told: set[int] = set()

    def go_on(self, events: Any) -> None:
        """With another daemon."""
        self.events = events
        self.jobs.update((job["id"], job) for job in events.jobs if job["id"] in self.jobs)

    def over(self) -> bool:
        """Whether all have ended, and that is said."""
        self.tell()
        return len(self.told) == len(self.jobs)

    def follow(self) -> None:
        """Until all have ended."""
        wait = REDRAW_SECONDS if self.line.terminal else REPORT_SECONDS
        while not self.over():
            self.line.draw(self.text())
            with contextlib.suppress(TimeoutError):
                _, body = self.events.next(wait)
                self.jobs.update((job["id"], job) for job in body["jobs"] if job["id"] in self.jobs)

    def tell(self) -> None:
        """A line for each job that has ended since the last time."""
        for number, job in self.jobs.items():
            if job["state"] in ENDED and number not in self.told:
                self.told.add(number)
                self.line.clear()
                print(talk.job_outcome(job), flush=True)

    def done(self) -> int:
        return sum(job["total"] - job["counts"].get(WAITING, 0) - job["counts"].get(RUNNING, 0) for job in self.jobs.values())

    def text(self) -> str:
        """Such as: job 5 align [######------] 512/1000, 3 failed, 2 running, 1m02s, eta 58s."""
        total, done = sum(job["total"] for job in self.jobs.values()), self.done()
        filled = BAR * done // total if total else 0
        parts = [f"{self.title()} [{'#' * filled}{'-' * (BAR - filled)}] {done}/{total}"]
        counts: dict[str, int] = {}
        for job in self.jobs.values():
            for state, number in job["counts"].items():
                counts[state] = counts.get(state, 0) + number
        parts += [f"{number} {state}" for state, number in counts.items() if number and state not in (FINISHED, WAITING)]
        gone = time.monotonic() - self.began
        parts.append(spoken(gone))
        if done > self.done_before and done < total:
            parts.append(f"eta {spoken(gone * (total - done) / (done - self.done_before))}")
        return ", ".join(parts)

    def title(self) -> str:
        if len(self.jobs) != 1:
            return talk.plural(len(self.jobs), "job")
        job = next(iter(self.jobs.values()))
        return f"job {job['id']} {visible(job['name'])[:30]}"

    def ids(self) -> str:
        """For the command line that attaches again."""
        left = [str(number) for number in sorted(self.jobs) if number not in self.told]
        return ",".join(left) if len(left) <= 10 else f"{left[0]}-{left[-1]}"


class Line:
    """The last line of stderr, drawn again and again on a terminal."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.drawn = False
        self.next_report = 0.0

    def draw(self, text: str) -> None:
        if self.terminal:
            width = os.get_terminal_size(sys.stderr.fileno()).columns or 80
            self.put(f"\r\x1b[K{text[:width - 1]}")
            self.drawn = True
        elif time.monotonic() >= self.next_report:
            self.put(text + "\n")
            self.next_report = time.monotonic() + REPORT_SECONDS

    def clear(self) -> None:
        if self.drawn:
            self.put("\r\x1b[K")
            self.drawn = False

    def put(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
