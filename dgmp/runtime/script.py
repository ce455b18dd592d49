"""The main G of `dgmp run`: the script is `__main__` of m0, and begins and ends as it would under `python` (pymain_run_python,
Py_FinalizeEx): its threads are joined, atexit handlers run, standard output is flushed, and `__main__` is dropped, so that
files left open get their text.  Only then the launcher gets the exit code.  m0 lives on for whoever else is at work there.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import runpy
import signal
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from . import boot, report

show_output: Callable[[], Any] = int  # writes what Gs have printed; workers.m sets it
LOST_OUTPUT = 120  # the interpreter's exit code when standard output could not be flushed


def main_script(kind: str, target: str, argv: list[str]) -> int:
    """Runs the script to its very end; returns its exit code."""
    boot.trace(f"runtime.main: running {target}")
    pid = os.getpid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv[:] = [target, *argv]
    code = run(kind, target)
    kept = end()
    if os.getpid() != pid:  # of a child that the script has forked
        os._exit(code if kept else LOST_OUTPUT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code if kept else LOST_OUTPUT


def run(kind: str, target: str) -> int:
    try:
        start(kind, target)
    except SystemExit as e:
        return exit_code(e.code)
    except BaseException as e:
        report.uncaught(e)
        return 128 + signal.SIGINT if isinstance(e, KeyboardInterrupt) else 1
    return 0


def start(kind: str, target: str) -> None:
    """As `python -m target`, `python -`, `python folder`, `python archive` or `python script`."""
    if kind == "module":
        run_module(target)
    elif target == "-":
        run_source(sys.stdin.buffer.read(), "<stdin>")
    elif has_modules(target):
        run_module(None)
    else:
        run_file(target)


def search_path(kind: str, target: str) -> list[str]:
    """sys.path for such a target, in m0 and every other M.  Called in the launcher, whose first entry is its own folder."""
    if kind == "module":
        first = os.getcwd()
    elif target == "-":
        first = ""
    elif has_modules(target):
        first = target
    else:
        first = os.path.dirname(os.path.realpath(target))
    if sys.flags.safe_path:
        return [target, *sys.path] if first == target else sys.path
    return [first, *sys.path[1:]]


def run_module(name: str | None) -> None:
    """Runs a module as `__main__`; None: the `__main__` of what stands first in the path."""
    fail: Any = runpy._Error  # type: ignore[attr-defined]
    try:
        if name is None:
            _, spec, code = runpy._get_main_module_details(fail)  # type: ignore[attr-defined]
        else:
            _, spec, code = runpy._get_module_details(name, fail)  # type: ignore[attr-defined]
            sys.argv[0] = spec.origin
    except fail as e:
        raise SystemExit(f"dgmp: {e}") from None
    main = sys.modules["__main__"].__dict__
    main.update(__file__=spec.origin, __cached__=spec.cached, __loader__=spec.loader, __package__=spec.parent, __spec__=spec,
                __builtins__=__builtins__)
    exec(code, main)


def has_modules(path: str) -> bool:
    """Whether it is a folder or an archive: something that can stand in sys.path."""
    for hook in sys.path_hooks:
        with contextlib.suppress(ImportError):
            hook(path)
            return True
    return False


def run_file(path: str) -> None:
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as e:
        report.say(f"dgmp: cannot run {path!r}: {e.strerror}\n", sys.stderr)
        raise SystemExit(2) from None
    sys.modules["__main__"].__dict__["__file__"] = path
    run_source(source, path)


def run_source(source: bytes, path: str) -> None:
    """Runs it in the real `__main__` module, so that what it defines stays there for its Gs."""
    main = sys.modules["__main__"].__dict__
    main["__builtins__"] = __builtins__
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
    show_output()
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
