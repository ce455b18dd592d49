"""`dgmp run script.py|-m module [args]`: the script is the main G, on m0 (Go: runtime.main).

To its caller this process, the launcher, is the script: it ends with its exit code, or by the signal that killed it, and
passes on the signals it gets.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from ..jobs.guardian import die

GRACE_SECONDS = 0.6
# What a script may want to handle, and otherwise dies of.  SIGINT comes as KeyboardInterrupt.
FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "run",
        description="Runs a script (or, with -m, a module) as the main G on m0.  Its stdin, stdout and exit code are "
                    "those of this command; dgmp.go() inside it uses this runtime.",
        epilog="example: dgmp run --procs 4 --schedtrace 1000 script.py input.txt",
    )
    parser.add_argument("--procs", type=int, metavar="N", help="how many Gs run at once (default: DGMP_PROCS, else the cores)")
    parser.add_argument("--schedtrace", type=int, metavar="MS", help="print a line about the scheduler every MS milliseconds")
    parser.add_argument("-m", dest="module", action="store_true", help="the target is a module's name, as for python -m")
    parser.add_argument("target", metavar="script.py|module", help="a script, a folder or archive with a __main__.py, - for "
                                                                    "stdin, or after -m a module's name")
    parser.add_argument("args", nargs=argparse.REMAINDER, help="the script's own arguments").required = False
    parser.set_defaults(act=act, parser=parser)


def act(options: argparse.Namespace) -> int:
    if not options.module and options.target != "-":
        try:
            check(options.target)
        except OSError as e:
            return fail(f"cannot run {options.target!r}: {e.strerror}")
    if options.schedtrace is not None:
        os.environ["DGMP_DEBUG"] = f"schedtrace={options.schedtrace},{os.environ.get('DGMP_DEBUG', '')}"
    return Launcher().run(options.procs, "module" if options.module else "script", options.target, options.args)


def check(path: str) -> None:
    """OSError: it is not there, or not for us to read."""
    os.stat(path)
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


class Launcher:
    """This process, while the script runs."""

    def __init__(self) -> None:
        self.runtime: Any = None
        self.forwarded: set[int] = set()
        self.children: list[int] = []  # of the program that has become this one by exec

    def run(self, procs: int | None, kind: str, target: str, args: list[str]) -> int:
        """Runs the script; returns the exit code, or dies as it did."""
        from dgmp._core import become_subreaper
        from dgmp.api.runtime import Runtime
        from dgmp.coordinator.server import children, end_children
        from dgmp.errors import CoordinatorDied, DgmpError, WorkerDied
        from dgmp.runtime.script import main_script, search_path

        self.children = children()
        become_subreaper()  # of what the script has started, once the coordinator is not any more
        try:
            for number in FORWARDED:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, self.forward)
            with held(signal.SIGINT, *FORWARDED):  # the script may run before we have the runtime to tell it
                self.runtime = Runtime(procs, main=(main_script, (kind, target, args)), path=search_path(kind, target))
            code: int = self.runtime.main.result()
            self.close()
            return code
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            return self.interrupted()
        except WorkerDied as e:
            self.close()
            return self.died(e.pid, e.exitcode)
        except CoordinatorDied as e:
            self.close()
            end_children(self.children)
            return fail(str(e))
        except (DgmpError, RuntimeError, ValueError, OSError) as e:
            self.close()
            return fail(str(e))

    def forward(self, number: int, frame: FrameType | None) -> None:
        """A signal for the script.  Until that has begun it has no handler, and would die of it."""
        if not self.begun():
            die(number)
        self.forwarded.add(number)
        self.runtime.send_signal(number)

    def begun(self) -> bool:
        return self.runtime is not None and self.runtime.node.view.executed(0) > 0

    def interrupted(self) -> int:
        """The script gets its KeyboardInterrupt and a moment to clean up; then everything ends."""
        code = 128 + signal.SIGINT
        if self.begun():
            self.runtime.send_signal(signal.SIGINT)
            with contextlib.suppress(Exception):
                code = self.runtime.main.result(timeout=GRACE_SECONDS)
        self.close()
        return code

    def died(self, pid: int, exitcode: int | None) -> int:
        """m0 is gone, and with it the script: to the caller it was this process."""
        if exitcode is None:
            return fail(f"the script's process (pid {pid}) ended")
        if exitcode < 0:
            if -exitcode not in self.forwarded:
                fail(f"the script's process (pid {pid}) was killed by {signal_name(-exitcode)}")
            die(-exitcode)
        return exitcode

    def close(self) -> None:
        """The script has ended: nobody is left who wants signals."""
        for number in (signal.SIGINT, *FORWARDED):
            signal.signal(number, signal.SIG_IGN)
        if self.runtime is not None:
            self.runtime.close(cancel=True)


@contextlib.contextmanager
def held(*numbers: int) -> Iterator[None]:
    """These signals come after the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def fail(text: str) -> int:
    print(f"dgmp: {text}", file=sys.stderr)
    return 2
