"""The policy that the options of `dgmp each` make: control and resources.  Called by cli.each."""

from __future__ import annotations

import os

from ..jobs.policy import Policy

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..jobs.control import Control
    from ..jobs.joblog import Failed, Origin
    from ..jobs.progress import Style
    from ..jobs.resources import Need, Resources
    from .options import Options

OURS = ("retries", "timeout", "delay", "memfree", "load", "nice", "joblog", "resume", "resume_failed", "retry_failed", "bar",
        "eta", "progress", "cpus", "mem", "resource", "resource_total")  # --halt needs less
GOING_ON = ("resume", "resume_failed", "retry_failed")


def policy(options: Options, origin: Origin | None, say: Callable[[str], None], again: Sequence[Failed] = ()) -> Policy:
    """What the options say.

    Args:
        origin: whose jobs they are, for the joblog; None: those of --retry-failed, which are then given.
        say: tells people something.
        again: the jobs of --retry-failed.

    Raises:
        ValueError: they say nothing, or contradict each other.
        DgmpError: the joblog cannot be used, or a job needs more than there is.
    """
    from ..jobs import halt

    text = options.text("halt")
    halting = halt.parse(text) if text is not None else None
    if not any(options.flag(name) for name in OURS):
        return Policy(halting)
    from ..jobs.control import Control
    from ..jobs.limits import Delay, FreeMemory, Load, Timeout
    from ..jobs.retry import Retries

    check(options)
    have, need = resources(options)
    attempts = options.number("retries", 0)
    made = Control(
        say, halt=halting, retries=Retries(attempts) if attempts is not None else None,
        timeout=Timeout.parse(text) if (text := options.text("timeout")) is not None else None,
        delay=Delay.parse(text) if (text := options.text("delay")) is not None else None,
        load=Load.parse(text, len(os.sched_getaffinity(0))) if (text := options.text("load")) is not None else None,
        memfree=FreeMemory.parse(text) if (text := options.text("memfree")) is not None else None,
        nice=niceness(options.text("nice")), progress=style(options), resources=have, need=need,
        own={name for name, equals, _ in (text.partition("=") for text in options.list("env")) if equals})
    open_joblog(made, options, origin, again)
    return made


def open_joblog(made: Control, options: Options, origin: Origin | None, again: Sequence[Failed]) -> None:
    """--joblog and what reads it.  Last, as it empties the file."""
    given = options.text("joblog")
    if given is None or options.flag("dry_run"):
        return
    from ..jobs.joblog import Done, JobLog

    path = given.removeprefix("+")
    going_on, added = any(map(options.flag, GOING_ON)), path != given
    log = JobLog(path, going_on or added, origin, alone=going_on or not added,
                 origins={job.key: job.origin for job in again if job.key})
    if origin is not None and (options.flag("resume") or options.flag("resume_failed")):
        made.done = Done(path, origin, options.flag("resume_failed"))
    made.joblog = log.begin()


def failed(options: Options) -> list[Failed]:
    """The jobs of --retry-failed.

    Raises:
        ValueError: there is no --joblog.
        DgmpError: the joblog cannot be used.
    """
    from ..jobs.joblog import JobLogError, failed

    check(options)
    path = (options.text("joblog") or "").removeprefix("+")
    found, here = failed(path), options.folder()
    for job in found:
        if job.folder not in ("", here):
            raise JobLogError(f"the failed jobs of the joblog {path} ran in {job.folder}: go there to run them again")
    return found


def check(options: Options) -> None:
    """ValueError: there is no --joblog where it must be."""
    for name in GOING_ON:
        if options.flag(name) and options.text("joblog") is None:
            raise ValueError(f"--{name.replace('_', '-')} needs --joblog FILE: that says what has been done")


def niceness(text: str | None) -> int:
    try:
        return int(text) if text is not None else 0
    except ValueError:
        raise ValueError(f"--nice {text}: give a whole number, at most 19") from None


def style(options: Options) -> Style | None:
    return "bar" if options.flag("bar") else "eta" if options.flag("eta") else "progress" if options.flag("progress") else None


def resources(options: Options, environ: Mapping[str, str] = os.environ) -> tuple[Resources | None, Need | None]:
    """What there is, and what each job needs of it; None: a slot alone."""
    cpus, mem, named = options.number("cpus", 1), options.text("mem"), options.list("resource")
    if cpus is None and mem is None and not named:
        return None, None
    from ..jobs.resources import Resources, declared, need

    most = 0
    if mem is not None:
        from ..runtime.limits import memory_size

        most = memory_size()
    totals = declared(options.list("resource_total"), environ) if named else {}
    return Resources(os.sched_getaffinity(0), most, totals), need(cpus, mem, named)
