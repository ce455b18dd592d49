"""`python -m dgmp.jobs.call module:function [args]`: what `dgmp submit --py` runs.

Each argument is read as JSON where it is JSON, else it is a string: 3, 2.5, true, null, [1, 2], {"a": 1}, "3", abc.  name=value
is a keyword argument, if name could be one; quote a string that has such an `=` (JSON: '"a=b"').  What the function returns is
printed, unless it is None; an exception prints its traceback, from the user's code on, and ends with exit code 1, SystemExit as
usual.  A function that is not there, or does not take these arguments, is exit code 2.  A coroutine function is run by asyncio.
The current folder is on sys.path.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import sys
import traceback
from typing import Any

FAILED, USAGE = 1, 2


class Refused(ValueError):
    """There is no such function, or it does not take that."""


def value(text: str) -> Any:
    """What an argument says.

    Example:
        >>> value("3"), value("abc"), value("[1, null]"), value('"3"')
        (3, 'abc', [1, None], '3')
    """
    try:
        return json.loads(text)
    except ValueError:
        return text


def arguments(texts: list[str]) -> tuple[list[Any], dict[str, Any]]:
    """The positional and the keyword arguments.

    Example:
        >>> arguments(["1", "scale=2", "a b=3"])
        ([1, 'a b=3'], {'scale': 2})
    """
    args, named = [], {}
    for text in texts:
        name, equals, rest = text.partition("=")
        if equals and name.isidentifier():
            named[name] = value(rest)
        else:
            args.append(value(text))
    return args, named


def find(target: str) -> Any:
    """The function that module:function names; it may lie deeper (module:Class.method).  Refused says what is wrong."""
    module, colon, path = target.partition(":")
    if not colon or not path or not all(name.isidentifier() for name in module.split(".")):
        raise Refused(f"{target!r} is no module:function")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name and f"{module}.".startswith(f"{e.name}."):  # and not one that it imports
            raise Refused(f"there is no module {module!r}: {e}") from None
        raise
    for name in path.split("."):
        if not hasattr(found, name):
            raise Refused(f"{module} has no {path!r}")
        found = getattr(found, name)
    if not callable(found):
        raise Refused(f"{target} cannot be called: it is {type(found).__name__}")
    return found


def main(words: list[str]) -> int:
    """Calls it; the exit code."""
    if not words:
        print("usage: python -m dgmp.jobs.call module:function [args]", file=sys.stderr)
        return USAGE
    args, named = arguments(words[1:])
    try:
        function = find(words[0])
        fitting(function, words[0], args, named)
    except Refused as e:
        print(f"dgmp: {e}", file=sys.stderr)
        return USAGE
    except Exception as e:
        print_error(e)
        print(f"dgmp: cannot import what {words[0]!r} names: {e}", file=sys.stderr)
        return USAGE if isinstance(e, ImportError) else FAILED
    try:
        result = function(*args, **named)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
        if result is not None:
            print(result, flush=True)
    except Exception as e:
        print_error(e)
        return FAILED
    return 0


def fitting(function: Any, target: str, args: list[Any], named: dict[str, Any]) -> None:
    """Whether it takes these, as far as it can be known; Refused says why not."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a builtin one that does not say
        return
    try:
        signature.bind(*args, **named)
    except TypeError as e:
        raise Refused(f"{target} takes {signature}: {e}") from None


def print_error(error: Exception) -> None:
    """Its traceback, but for what of it is ours or import's."""
    frames = error.__traceback__
    while frames is not None and is_ours(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    traceback.print_exception(type(error), error, frames)


def is_ours(file: str) -> bool:
    return file in (__file__, importlib.__file__) or file.startswith("<frozen importlib")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
