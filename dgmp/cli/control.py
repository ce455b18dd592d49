"""The options of `dgmp each` that control jobs, and the policy that they make.  Called by cli.each."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ..jobs.policy import Policy

if TYPE_CHECKING:
    from ..jobs.joblog import Failed, Origin
    from ..jobs.resources import Need, Resources


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of control, the environment, and resources."""
    add = parser.add_argument_group("control").add_argument
    add("--retries", type=whole, metavar="N", help="run a job that fails again, N attempts in all (0: until it succeeds)")
    add("--timeout", metavar="TIME",
        help="end a job that takes longer: seconds, 30s, 5m, 1h, or a percentage of the median run time of those that have "
             "succeeded, such as 300%%")
    add("--halt", "--halt-on-error", metavar="WHEN,WHY",
        help="when to stop before all have run: never, or now or soon and fail=N, success=N or done=N (N or N%%); now ends the "
             "running jobs, soon waits for them")
    add("--delay", metavar="TIME",
        help="wait so long between two starts; 1sauto: longer after failures, shorter after successes")
    add("--memfree", metavar="SIZE",
        help="start nothing while less memory is free; below half of it the youngest job is ended, and run again later")
    add("--load", metavar="MAX", help="start nothing while so many processes run on the machine: N, or N%% of the CPUs")
    add("--nice", type=int, metavar="N", help="run jobs at this niceness")
    add("--joblog", metavar="FILE", help="log each job that has ended, in GNU parallel's columns; +FILE appends")
    add("--resume", action="store_true", help="do not run what the joblog has")
    add("--resume-failed", action="store_true", help="do not run what the joblog says has succeeded")
    add("--retry-failed", action="store_true", help="run what the joblog says has failed; the command line is ignored")
    add("--bar", action="store_true", help="show a bar on stderr")
    add("--eta", action="store_true", help="show on stderr how long it may take yet")
    add("--progress", action="store_true", help="show on stderr how many jobs run and are done")
    add = parser.add_argument_group("environment and resources").add_argument
    add("--env", action="append", default=[], metavar="NAME=VALUE",
        help="set a variable for jobs (they have all of ours anyway)")
    add("--wd", "--workdir", metavar="DIR",
        help="run jobs there: made if it is not there, may have replacement strings; ... is a new one for each job")
    add("--cpus", type=whole, metavar="N", help="each job holds N cores, and is bound to them")
    add("--mem", metavar="SIZE", help="each job takes so much memory: start no more than fit")
    add("--resource", action="append", default=[], metavar="NAME=N", help="each job holds N units of it, such as gpu=1")
    add("--resource-total", action="append", default=[], metavar="NAME=N",
        help="how many units there are, or which: gpu=2, gpu=[0,3] (default: DGMP_RESOURCES)")


def whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def given(options: argparse.Namespace) -> bool:
    """Whether there is anything to control but --halt."""
    return any(value not in (None, False, []) for name, value in vars(options).items() if name in CONTROLLED)


CONTROLLED = frozenset(("retries", "timeout", "delay", "memfree", "load", "nice", "joblog", "resume", "resume_failed",
                        "retry_failed", "bar", "eta", "progress", "cpus", "mem", "resource", "resource_total"))


def failed(options: argparse.Namespace) -> list[Failed]:
    """The jobs of --retry-failed.

    Raises:
        ValueError: there is no --joblog.
        DgmpError: the joblog cannot be used.
    """
    from ..jobs.joblog import JobLogError, failed

    check(options)
    found = failed(options.joblog.removeprefix("+"))
    for job in found:
        if job.folder not in ("", os.getcwd()):
            raise JobLogError(f"the failed jobs of {options.joblog} ran in {job.folder}: go there to run them again")
    return found


def check(options: argparse.Namespace) -> None:
    """Whether --joblog is there, where it must be."""
    if (options.resume or options.resume_failed or options.retry_failed) and options.joblog is None:
        raise ValueError("--resume, --resume-failed and --retry-failed need --joblog FILE")


def policy(options: argparse.Namespace, origin: Origin | None, say: Callable[[str], None],
           again: Sequence[Failed] = ()) -> Policy:
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

    halting = halt.parse(options.halt) if options.halt is not None else None
    if not given(options):
        return Policy(halting)
    from ..jobs import limits
    from ..jobs.control import Control
    from ..jobs.joblog import Done, JobLog
    from ..jobs.retry import Retries

    check(options)
    have, need = resources(options)
    made = Control(
        say, halt=halting, nice=options.nice or 0, resources=have, need=need,
        retries=Retries(options.retries) if options.retries is not None else None,
        timeout=limits.Timeout.parse(options.timeout) if options.timeout is not None else None,
        delay=limits.Delay.parse(options.delay) if options.delay is not None else None,
        load=limits.Load.parse(options.load, cpus()) if options.load is not None else None,
        memfree=limits.FreeMemory.parse(options.memfree) if options.memfree is not None else None,
        progress="bar" if options.bar else "eta" if options.eta else "progress" if options.progress else None,
    )
    if options.joblog is not None and not getattr(options, "dry_run", False):
        path = options.joblog.removeprefix("+")
        if (options.resume or options.resume_failed) and origin is not None:
            made.done = Done(path, origin, options.resume_failed)
        going_on, added = options.resume or options.resume_failed or options.retry_failed, path != options.joblog
        made.joblog = JobLog(path, going_on or added, origin, alone=going_on or not added,
                             origins={job.key: job.origin for job in again if job.key})
    return made


def resources(options: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> tuple[Resources | None, Need | None]:
    """What there is, and what each job needs of it; None: a slot alone."""
    if options.cpus is None and options.mem is None and not options.resource:
        return None, None
    from ..jobs import resources as kept
    from ..runtime.limits import memory_size

    need = kept.need(options.cpus, options.mem, options.resource)
    return kept.Resources(os.sched_getaffinity(0), memory_size(), kept.declared(options.resource_total, environ)), need


def cpus() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))
