"""What the verbs of the queue have in common: how they talk to the daemon, and what their exit codes say.

A verb's `act` is `@talks`: it gets a connected client, and what goes wrong becomes a line on stderr and one of EXITS.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import DgmpError
from ..jobs.protocol import BAD_SPEC, FINISHED, MAX_RANGES, NO_SUCH_JOB, NO_SUCH_TASK, NoDaemon, ProtocolError, Select

if TYPE_CHECKING:
    from ..jobs.client import Client

T = TypeVar("T")

EXAMPLES = "examples:"
OK, UNSUCCESSFUL, MISUSED, NO_DAEMON, NOT_FOUND, REFUSED, TIME_UP = 0, 1, 2, 3, 4, 5, 124
EXITS = {
    OK: "done; of jobs that were waited for: all of them finished",
    UNSUCCESSFUL: "of jobs that were waited for, one has failed, or was cancelled or aborted",
    MISUSED: "the command line is wrong, or the daemon does not take such a job",
    NO_DAEMON: "no daemon runs for this user, or it ended before it answered",
    NOT_FOUND: "there is no such job or task",
    REFUSED: "the daemon could not do it, or what it gave could not be written; the message says why",
    TIME_UP: "the time of --timeout was up",
    130: "interrupted (Ctrl-C); what was submitted goes on",
    141: "whoever read the output closed it (SIGPIPE)",
}
EXITS_SHORT = """exit codes: 0 done, and what was waited for finished; 1 not all of that finished; 2 the command line is wrong;
3 no daemon runs; 4 no such job; 5 the daemon could not do it; 124 the time was up (docs/cli.md)"""
SUCCESSION_SECONDS = 5.0
REFUSALS = {BAD_SPEC: MISUSED, NO_SUCH_JOB: NOT_FOUND, NO_SUCH_TASK: NOT_FOUND}


class VerbFormatter(argparse.HelpFormatter):
    """Fills paragraphs, but leaves the examples as they stand."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(EXAMPLES) else super()._fill_text(text, width, indent)


def verb_parser(verbs: Any, name: str, description: str, examples: str) -> argparse.ArgumentParser:
    """The parser of a verb, whose help ends with these examples."""
    from . import VERBS

    shown = "\n".join(f"  {line}" for line in examples.strip().splitlines())
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=VERBS[name], description=description, epilog=f"{EXAMPLES}\n{shown}\n\n{EXITS_SHORT}",
        formatter_class=VerbFormatter, allow_abbrev=False)
    return parser


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON (docs/json.md) instead")


def argument(read: Callable[[str], T]) -> Callable[[str], T]:
    """A type for argparse whose ValueError is what the user is told."""
    @functools.wraps(read)
    def reading(text: str) -> T:
        try:
            return read(text)
        except ValueError as e:
            raise argparse.ArgumentTypeError(str(e)) from None
    return reading


def talks(act: Callable[[Client, Any], int]) -> Callable[[Any], int]:
    """Makes `act(client, options)` a verb's `act(options)`."""
    @functools.wraps(act)
    def talking(options: Any) -> int:
        def connected() -> int:
            from ..jobs.client import Client

            with Client() as client:
                return act(client, options)
        return exit_code(connected)
    return talking


def exit_code(act: Callable[[], int]) -> int:
    """What act() returns, or what its exception means; a closed pipe and Ctrl-C end this process as they end others."""
    from ..jobs.guardian import die

    prepare_output()
    try:
        code = act()
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        drop_output()
        die(signal.SIGINT)
    except BrokenPipeError:
        drop_output()
        die(signal.SIGPIPE)
    except ProtocolError as e:
        return complain(str(e), REFUSALS.get(e.code, REFUSED))
    except NoDaemon as e:
        return complain(str(e), NO_DAEMON)
    except TimeoutError as e:
        return complain(str(e), TIME_UP)
    except DgmpError as e:
        return complain(str(e), REFUSED)
    except OSError as e:
        drop_output()
        return complain(f"{e.filename}: {e.strerror}" if e.filename else e.strerror or str(e), REFUSED)


def complain(text: str, code: int) -> int:
    """Says it on stderr; returns the exit code."""
    print(f"dgmp: {text}", file=sys.stderr)
    return code


def prepare_output() -> None:
    """Characters that the terminal does not have are escapes; a closed stdout or stderr takes what nobody reads."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))
        elif stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def drop_output() -> None:
    """What is still in stdout's buffer is not wanted, or cannot be written: Python must not try at its exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def print_json(schema: str, **fields: Any) -> None:
    """One document, on a line, of a schema that docs/json.md has."""
    print(json.dumps({"schema": schema, **fields}), flush=True)


def verdict(jobs: Iterable[dict[str, Any]], quiet: bool = False) -> int:
    """The exit code for jobs that have ended; says on stderr which did not finish."""
    code = OK
    for job in jobs:
        if job["state"] != FINISHED:
            code = UNSUCCESSFUL
            if not quiet:
                print(f"dgmp: {job_outcome(job)}; `dgmp show {job['id']}` says more", file=sys.stderr)
    return code


def job_outcome(job: dict[str, Any]) -> str:
    """Such as: job 5 (align) has failed: of 100 tasks 3 failed, 97 finished."""
    from .tables import visible

    outcome = PAST.get(job["state"], f"is {job['state']}")
    tasks = f": of {job['total']} tasks {in_words(job['counts'])}" if job["total"] > 1 and job["state"] != FINISHED else ""
    return f"job {job['id']} ({visible(job['name'])}) {outcome}{tasks}"


PAST = {"finished": "has finished", "failed": "has failed", "cancelled": "was cancelled", "aborted": "was aborted"}


def plural(number: int, what: str) -> str:
    """Such as: 1 task, 2 tasks."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def in_words(counts: dict[str, int], none: str = "none") -> str:
    """Such as: 3 running, 7 waiting."""
    return ", ".join(f"{n} {state}" for state, n in counts.items() if n) or none


def job_ids(client: Client, given: Iterable[Sequence[Select]]) -> list[int]:
    """The ids of the jobs that selectors name, which may be `last` or `all`."""
    ids: list[int] = []
    for select in itertools.chain(*given):
        if isinstance(select.jobs, str):
            ids += [job["id"] for job in all_jobs(client, [select])]
        else:
            first, last = select.jobs
            ids += range(first, min(last, first + MAX_RANGES) + 1)  # more than that the daemon refuses
    return ids


def all_jobs(client: Client, select: Sequence[Select] | None = None, **filters: Any) -> Iterable[dict[str, Any]]:
    """Every job that is chosen, newest first, a page at a time."""
    before = None
    while True:
        page = client.jobs(select, limit=1000, before=before, **filters)
        yield from page["jobs"]
        if not page["more"]:
            return
        before = page["jobs"][-1]["id"]


def pinned(client: Client, select: Select) -> Select:
    """What `last` and `all` are now: they would be others for the next daemon's clients."""
    newest = client.jobs(limit=1)["jobs"] if isinstance(select.jobs, str) else []
    if not newest:
        return select
    return Select((1 if select.jobs == "all" else newest[0]["id"], newest[0]["id"]), select.tasks)


def successor(lost: NoDaemon) -> Client:
    """A client of the daemon that takes the place of the one that has ended, if it comes soon."""
    from ..jobs.client import Client

    until = time.monotonic() + SUCCESSION_SECONDS
    while time.monotonic() < until:
        try:
            return Client()
        except NoDaemon:
            time.sleep(0.1)
    raise lost
