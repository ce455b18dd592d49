"""`dgmp up`: how a daemon is started, in the background or here, and with what to share out among its tasks.

Everything that is slow to import is imported by the daemon's own process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from ..errors import DgmpError
from . import folders

if TYPE_CHECKING:
    from pathlib import Path

    from .resources import Resources

OK = b"ok"


class NotUp(DgmpError):
    """The daemon has not come up; the text says why."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What there is to share out."""
    parser.add_argument("--cpus", type=int, metavar="N", help="run tasks on so many cores (default: all that this may use)")
    parser.add_argument("--mem", metavar="SIZE",
                        help="the memory that tasks share out by --mem (default: the machine's, or its cgroup's)")
    parser.add_argument("--resource-total", action="append", default=[], metavar="NAME=N",
                        help="how much there is of a named resource, for tasks that ask with --resource (repeatable)")


def resources_of(options: argparse.Namespace) -> tuple[Resources, list[str]]:
    """What there is to share out, and the same as a keeper's arguments; ValueError."""
    from ..runtime.limits import memory_size
    from .amounts import size
    from .resources import Resources, declared

    cores = sorted(os.sched_getaffinity(0))
    if options.cpus is not None:
        if options.cpus < 1:
            raise ValueError(f"--cpus {options.cpus}: give a whole number of at least 1")
        cores = [cores[i % len(cores)] for i in range(options.cpus)]
    try:
        mem = size(options.mem) if options.mem is not None else memory_size()
    except ValueError as e:
        raise ValueError(f"--mem {options.mem}: {e}") from None
    named = declared(options.resource_total, os.environ)
    told = [f"{name}={units}" if isinstance(units, int) else f"{name}=[{','.join(units)}]" for name, units in named.items()]
    return Resources(cores, mem, named), [",".join(map(str, cores)), str(mem), *told]


def words(options: argparse.Namespace) -> list[str]:
    """The same options, as they were given."""
    given = [f"--cpus={options.cpus}"] if options.cpus is not None else []
    given += [f"--mem={options.mem}"] if options.mem is not None else []
    return given + [f"--resource-total={total}" for total in options.resource_total]


def environment(state: Path) -> dict[str, str]:
    """Of the daemon, whose folder is another one: its folders are those that are meant here."""
    return {**os.environ, "DGMP_RUNTIME_DIR": str(folders.runtime_folder()), "DGMP_STATE_DIR": str(state)}


def bring_up(arguments: list[str]) -> int:
    """Starts this user's daemon in a session of its own; returns its pid when it answers.

    Raises:
        NotUp: it does not; or there is one already.
    """
    state = folders.make(folders.state_folder())
    ours, theirs = os.pipe()
    with open(ours, "rb") as ready:
        try:
            log = os.open(state / folders.LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            daemon = subprocess.Popen(
                [sys.executable, "-m", "dgmp.jobs.daemon", f"--ready={theirs}", *arguments], cwd="/", env=environment(state),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, pass_fds=(theirs,))
            os.close(log)
        finally:
            os.close(theirs)
        said = ready.read()
    if said != OK:
        daemon.wait()
        raise NotUp(said.decode(errors="replace") or f"the daemon has died as it started: see {state / folders.LOG}")
    pid = daemon.pid
    daemon.returncode = 0  # it is nobody's child soon: no warning that it runs
    return pid
