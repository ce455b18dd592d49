"""`python -m dgmp.jobs.call module:function [args]`: what `dgmp submit --py` runs.

Each argument is read as JSON where it is JSON, else it is a string: 3, 2.5, true, null, [1, 2], {"a": 1}, "3", abc.  name=value
is a keyword argument, if name could be one; quote a string that has such an `=` (JSON: '"a=b"').  What the function returns is
printed, unless it is None; an exception prints its traceback and ends with exit code 1, SystemExit as usual.  A coroutine
function is run by asyncio.  The current folder is on sys.path.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
import traceback
from importlib import import_module
from typing import Any

USAGE = 2


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
    """The function that module:function names; it may lie deeper (module:Class.method).  ValueError says what is wrong."""
    module, colon, path = target.partition(":")
    if not colon or not module or not path:
        raise ValueError(f"{target!r} is no module:function")
    found = import_module(module)
    for name in path.split("."):
        if not hasattr(found, name):
            raise ValueError(f"{module} has no {path!r}")
        found = getattr(found, name)
    if not callable(found):
        raise ValueError(f"{target} cannot be called: it is {type(found).__name__}")
    return found


def main(words: list[str]) -> int:
    """Calls it; the exit code."""
    if not words:
        print("usage: python -m dgmp.jobs.call module:function [args]", file=sys.stderr)
        return USAGE
    try:
        function = find(words[0])
    except ValueError as e:
        print(f"dgmp: {e}", file=sys.stderr)
        return USAGE
    except ImportError as e:
        traceback.print_exc()
        print(f"dgmp: cannot import what {words[0]!r} names: {e}", file=sys.stderr)
        return USAGE
    args, named = arguments(words[1:])
    result = function(*args, **named)
    if inspect.iscoroutine(result):
        result = asyncio.run(result)
    if result is not None:
        print(result, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
