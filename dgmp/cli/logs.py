"""`dgmp logs [-f] ID[.TASK]`: the output of tasks.

A task's output is in files on this machine, which the daemon names; they are read here.  With -f they are looked at ten
times a second while tasks run, and the daemon's events say which do.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from ..jobs.protocol import RUNNING, WAITING, NoDaemon, Select
from ..jobs.ranges import Ranges, ranges_of
from ..jobs.selectors import one_job
from . import talk

if TYPE_CHECKING:
    from ..jobs.client import Client

CHUNK = 1 << 20
LOOK_SECONDS = 0.1
DESCRIPTION = """
Prints the output of a job's tasks, one after the other: what they wrote to stdout on stdout, what they wrote to stderr on
stderr.  Of a task that was run again it is the last attempt's.  With -f, if the daemon ends meanwhile and another one is up
within five seconds, it goes on with that."""
EXAMPLES = """
dgmp logs last                      # what it has printed
dgmp logs -f 5                      # and what it prints until it ends
dgmp logs 5.17 --stderr             # the error output of one task
dgmp logs 5.1-10 --tag | sort       # of ten, each line with job and task before it
"""


def add_parser(verbs: Any) -> None:
    parser = talk.verb_parser(verbs, "logs", DESCRIPTION, EXAMPLES)
    parser.add_argument("-f", "--follow", action="store_true",
                        help="go on until the tasks have ended; the lines of several come as they are written")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--stdout", dest="only", action="store_const", const="stdout", help="only what they wrote to stdout")
    only.add_argument("--stderr", dest="only", action="store_const", const="stderr",
                      help="only what they wrote to stderr, on stdout")
    parser.add_argument("--tag", action="store_true", help="put ID.TASK and a tab before each line")
    parser.add_argument("selector", type=talk.argument(one_job), metavar="ID[.TASK]", help="such as 5, last, 5.17, 5.1-10")
    parser.set_defaults(act=act)


@talk.talks
def act(client: Client, options: Any) -> int:
    job = client.show([Select(options.selector.jobs)])[0]
    printer = Printer(client, job, options.selector.tasks, options.only, options.tag)
    if not options.follow:
        printer.print_all()
        return talk.OK
    with contextlib.ExitStack() as successors:
        while True:
            try:
                printer.follow()
                return talk.OK
            except NoDaemon as e:
                printer.client = successors.enter_context(talk.successor(e))


class Printer:
    """Prints the output of a job's tasks, all of them or the chosen ones."""

    def __init__(self, client: Client, job: dict[str, Any], chosen: Ranges | None, only: str | None, tag: bool) -> None:
        self.client, self.job, self.chosen, self.only, self.tag = client, job["id"], chosen, only, tag
        self.one_task = (job["total"] if chosen is None else len(chosen)) == 1
        self.following = False
        self.running: dict[int, Output] = {}
        self.printed: dict[int, int] = {}  # task -> the attempt that is

    def print_all(self) -> None:
        """What there is now."""
        for said in self.started():
            while not self.look(said):
                time.sleep(LOOK_SECONDS)
                said = self.ask(said["task"])
        for output in self.running.values():
            output.finish()

    def follow(self) -> None:
        """What there is, and what comes until all have ended; NoDaemon: go on with the client of the next one."""
        self.following = True
        events = self.client.subscribe([Select((self.job, self.job), self.chosen)], tasks=True)
        self.catch_up()
        while True:
            if not self.running and not self.more_to_come():
                self.catch_up()  # with those whose events are still to come
                return
            try:
                event, body = events.next(LOOK_SECONDS if self.running else None)
            except TimeoutError:
                event, body = "", {}
            if event == "tasks":
                self.look_again(task["task"] for task in body["tasks"])
            for output in self.running.values():
                output.copy()

    def catch_up(self) -> None:
        """All tasks that have started."""
        for said in self.started():
            self.look(said)

    def look_again(self, tasks: Iterable[int]) -> None:
        """Something has become of these."""
        changed = ranges_of(task for task in tasks if self.chosen is None or task in self.chosen)
        for said in self.pages(changed) if changed else ():
            self.look(said)

    def more_to_come(self) -> bool:
        left = self.client.tasks(self.job, self.chosen, [WAITING, RUNNING], limit=1)
        return bool(left["tasks"] or left["waiting"])

    def started(self) -> Iterator[dict[str, Any]]:
        """The tasks that may have written something, and where; one that is named alone is asked for in any case."""
        if self.chosen is not None and len(self.chosen) == 1:
            return iter([self.ask(next(iter(self.chosen)))])
        return self.pages(self.chosen)

    def ask(self, task: int) -> dict[str, Any]:
        return {"task": task, **self.client.logs(self.job, task)}

    def pages(self, tasks: Ranges | None) -> Iterator[dict[str, Any]]:
        """Those of them that have started."""
        after = None
        while True:
            page = self.client.tasks(self.job, tasks, after=after, output=True)
            yield from page["tasks"]
            if not page["more"]:
                return
            after = page["tasks"][-1]["task"]

    def look(self, said: dict[str, Any]) -> bool:
        """A task has started or ended, or may have: prints what is new.  False if a file of it has just gone elsewhere."""
        task = said["task"]
        output = self.running.pop(task, None)
        if output is None and (self.printed.get(task) == said["attempt"] or (self.following and said["state"] == WAITING)):
            return True
        if output is None or output.attempt != said["attempt"]:
            if output is not None:
                output.finish()
            output = Output(said["attempt"], f"{self.job}.{task}\t".encode() if self.tag else b"", self.only, self.one_task)
        output.pieces = [said[name] if self.only in (None, name) else None for name in ("stdout", "stderr")]
        there = output.copy()
        if said["state"] == RUNNING:
            self.running[task] = output
        else:
            output.finish()
            self.printed[task] = said["attempt"]
        return there


class Output:
    """What one attempt of a task writes, and how much of it is printed.

    Attributes:
        pieces: where its stdout and stderr lie; another place once it has ended, but the same bytes.
    """

    def __init__(self, attempt: int, label: bytes, only: str | None, one_task: bool) -> None:
        self.attempt = attempt
        self.pieces: list[dict[str, Any] | None] = [None, None]
        errors = sys.stdout if only == "stderr" else sys.stderr
        by_lines = bool(label) or not one_task
        self.streams = [Stream(to.buffer, label, by_lines) for to in (sys.stdout, errors)]

    def copy(self) -> bool:
        """What has come since the last time; False if a file is not there any more, as the task has ended meanwhile."""
        there = [stream.copy(piece) for piece, stream in zip(self.pieces, self.streams, strict=True)]
        return all(there)

    def finish(self) -> None:
        """The last lines, which may have no end."""
        for stream in self.streams:
            stream.finish()


class Stream:
    """How much of a file that a task writes is printed: whole lines if others print between."""

    def __init__(self, to: BinaryIO, label: bytes, by_lines: bool) -> None:
        self.to, self.label, self.by_lines = to, label, by_lines
        self.at = 0
        self.rest = b""  # of a line that has no end yet
        self.labelled = False  # that line, whose beginning is printed

    def copy(self, piece: dict[str, Any] | None) -> bool:
        from ..jobs.client import read

        try:
            while data := read(piece, self.at, CHUNK):
                self.at += len(data)
                self.put(data)
                self.to.flush()
        except FileNotFoundError:
            if piece is None or piece["length"] is not None:
                raise
            return False
        return True

    def put(self, data: bytes) -> None:
        if not self.by_lines:
            self.to.write(data)
            return
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self.write(line + b"\n")
            self.labelled = False
        if len(self.rest) > CHUNK:
            self.write(self.rest)
            self.rest = b""

    def write(self, line: bytes) -> None:
        self.to.write(line if self.labelled else self.label + line)
        self.labelled = True

    def finish(self) -> None:
        if self.rest:
            self.write(self.rest + b"\n" if self.label else self.rest)
            self.to.flush()
        self.rest = b""
