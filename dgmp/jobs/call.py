"""What `dgmp submit --py module:function args…` runs: python -m dgmp.jobs.call module:function args…

An argument that is a literal of Python (a number, None, a quoted string, a list, dict or tuple of them …) is that; any other is
a string as it stands.  What the function returns is printed, unless it is None; a coroutine is run.  Exit code 0, or 1 and a
traceback if it raises, 2 if there is no such function.  Modules of the folder that the job runs in can be imported.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable
from typing import Any

FAILED, NOT_THERE = 1, 2


class NoFunction(Exception):
    """The target names none; the text says why."""


def main(words: list[str]) -> int:
    """Calls it; returns the exit code."""
    target, *args = words
    try:
        function = found(target)
    except NoFunction as e:
        print(f"dgmp: {e}", file=sys.stderr)
        return NOT_THERE
    try:
        result = function(*map(argument, args))
        if inspect.iscoroutine(result):
            import asyncio

            result = asyncio.run(result)
        if result is not None:
            print(result)
        sys.stdout.flush()
    except Exception as e:
        traceback.print_exception(e.with_traceback(e.__traceback__ and e.__traceback__.tb_next))
        return FAILED
    return 0


def found(target: str) -> Callable[..., Any]:
    """The function of module:function, or module:Class.method.

    Raises:
        NoFunction: there is none.
    """
    name, colon, path = target.partition(":")
    if not name or not path:
        raise NoFunction(f"{target!r} is no function: say module:function")
    try:
        value: Any = importlib.import_module(name)
    except ModuleNotFoundError as e:
        if not e.name or not f"{name}.".startswith(f"{e.name}."):
            raise  # of something that the module imports
        raise NoFunction(f"there is no module {e.name!r} on {sys.path}") from None
    for part in path.split("."):
        if not hasattr(value, part):
            raise NoFunction(f"there is no {part!r} in {value!r}")
        value = getattr(value, part)
    if not callable(value):
        raise NoFunction(f"{target} is no function, but {value!r}"[:1000])
    function: Callable[..., Any] = value
    return function


def argument(text: str) -> Any:
    """What a word of the command line stands for.

    Example:
        >>> [argument(t) for t in ("3", "[1, None]", "'3'", "word", "two words", "-1.5")]
        [3, [1, None], '3', 'word', 'two words', -1.5]
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
