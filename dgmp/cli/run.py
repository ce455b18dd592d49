"""`dgmp run script.py|-m module [args]`: the script is the main G, on m0 (Go: runtime.main)."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

GRACE_SECONDS = 0.6


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "run", help="run a Python script as the main G",
        description="Runs a script (or, with -m, a module) as the main G on m0.  Its stdin, stdout and exit code are "
                    "those of this command; dgmp.go() inside it uses this runtime.",
        epilog="example: dgmp run --procs 4 --schedtrace 1000 script.py input.txt",
    )
    parser.add_argument("--procs", type=int, metavar="N", help="how many Gs run at once (default: DGMP_PROCS, else the cores)")
    parser.add_argument("--schedtrace", type=int, metavar="MS", help="print a line about the scheduler every MS milliseconds")
    parser.add_argument("-m", dest="module", action="store_true", help="the target is a module's name, as for python -m")
    parser.add_argument("target", metavar="script.py|module")
    parser.add_argument("args", nargs=argparse.REMAINDER, help="the script's own arguments")
    parser.set_defaults(act=act, parser=parser)


def act(options: argparse.Namespace) -> int:
    parser: argparse.ArgumentParser = options.parser
    if not options.module and not Path(options.target).is_file():
        return fail(f"cannot run {options.target!r}: there is no such file")
    if options.schedtrace is not None:
        if options.schedtrace <= 0:
            parser.error("--schedtrace wants a positive number of milliseconds")
        debug = os.environ.get("DGMP_DEBUG", "")
        os.environ["DGMP_DEBUG"] = ",".join(filter(None, [debug, f"schedtrace={options.schedtrace}"]))
    from dgmp.api.runtime import Runtime
    from dgmp.errors import DgmpError
    from dgmp.runtime.script import main_script

    runtime = None
    try:
        kind = "module" if options.module else "script"
        runtime = Runtime(options.procs, main=(main_script, (kind, options.target, options.args)))
        code: int = runtime.main.result()
        runtime.close(cancel=True)
        return code
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return interrupted(runtime)
    except (DgmpError, ValueError, OSError) as e:
        if runtime is not None:
            runtime.close(cancel=True)
        return fail(str(e))


def interrupted(runtime: Any) -> int:
    """The script gets its KeyboardInterrupt and a moment to clean up; then everything ends."""
    code = 128 + signal.SIGINT
    if runtime is not None:
        runtime.interrupt()
        with contextlib.suppress(Exception):
            code = runtime.main.result(timeout=GRACE_SECONDS)
        runtime.close(cancel=True)
    return code


def fail(text: str) -> int:
    print(f"dgmp: {text}", file=sys.stderr)
    return 2
