"""The main G of `dgmp run`: the script is `__main__` of m0, and begins and ends as it would under `python` (pymain_run_python,
Py_FinalizeEx): its threads are joined, atexit handlers run, standard output is flushed, and `__main__` is dropped, so that
files left open get their text.  Only then the launcher gets the exit code.  m0 lives on for whoever else is at work there.
"""

from __future__ import annotations

import atexit
import gc
import os
import runpy
import signal
import sys
import threading
import types

from . import boot, report

LOST_OUTPUT = 120  # the interpreter's exit code when standard output could not be flushed


def main_script(kind: str, target: str, argv: list[str]) -> int:
    """Runs the script to its very end; returns its exit code."""
    boot.trace(f"runtime.main: running {target}")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv[:] = [target, *argv]
    code = run(kind, target)
    kept = end()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code if kept else LOST_OUTPUT


def run(kind: str, target: str) -> int:
    try:
        if kind == "module":
            sys.path.insert(0, os.getcwd())
            runpy.run_module(target, run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, os.path.dirname(os.path.realpath(target)))
            run_as_main(target)
    except SystemExit as e:
        return exit_code(e.code)
    except BaseException as e:
        report.uncaught(e)
        return 128 + signal.SIGINT if isinstance(e, KeyboardInterrupt) else 1
    return 0


def run_as_main(path: str) -> None:
    """Runs the script in the real `__main__` module, so that what it defines stays there for its Gs."""
    main = sys.modules["__main__"].__dict__
    main.update(__file__=path, __builtins__=__builtins__)
    with open(path, "rb") as file:
        source = file.read()
    exec(compile(source, path, "exec", dont_inherit=True), main)


def exit_code(code: object) -> int:
    """What the argument of sys.exit() means."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF if code.bit_length() < 64 else 0xFF
    report.say(f"{code}\n", sys.stderr or sys.__stderr__)
    return 1


def end() -> bool:
    """The interpreter's end, as far as the script can tell; False if output was lost."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
    except BaseException as e:
        report.unraisable(e, threading)
    atexit._run_exitfuncs()
    kept = flush_output()
    drop_main()
    return flush_output() and kept


def flush_output() -> bool:
    error = report.flush(sys.stdout)
    if error is not None:
        report.unraisable(error, sys.stdout)
    return error is None and report.flush(sys.stderr) is None


def drop_main() -> None:
    """What only `__main__` refers to goes with it."""
    sys.modules["__main__"] = types.ModuleType("__main__")
    gc.collect()
