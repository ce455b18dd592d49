"""Warns of functions that take much along and are encoded again and again.  Called by closure."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import Any

from ..errors import LargeCaptureWarning
from . import code, modules
from .values import describe

MUCH = 1_000_000  # bytes
TIMES = 3


class Weights:
    """Counts, for one process, how often which function was encoded to how much."""

    def __init__(self) -> None:
        self.times: code.ById[int] = code.ById()

    def note(self, fn: Any, size: int) -> None:
        """fn was encoded, with its arguments, to so many bytes.  Warns once: at the third time, if most is the function's."""
        if size < MUCH:
            return
        key = getattr(getattr(fn, "__func__", fn), "__code__", fn)  # a lambda made anew is the same function
        try:
            times = self.times.set(key, (self.times.get(key) or 0) + 1)
        except TypeError:  # no weak references to it
            return
        if times == TIMES and (part := heaviest(fn)) is not None:
            name, value, weight = part
            warnings.warn(
                f"{describe(fn)} has been encoded {times} times, each time with {name} ({type(value).__name__}, "
                f"{weight / 1e6:.1f} MB).  If that does not change, decorate the function with @dgmp.task: then it is encoded "
                "once.  Otherwise give the function only what it needs, as an argument.",
                LargeCaptureWarning, stacklevel=outside())


def heaviest(fn: Any) -> tuple[str, Any, int] | None:
    """The name, value and size of the largest thing that a function takes along, if that is much."""
    from . import dynamic

    found = None
    for name, value in parts(fn, set()):
        try:
            size = len(dynamic.dumps(value))
        except Exception:  # not picklable by itself
            continue
        if size >= MUCH and (found is None or size > found[2]):
            found = name, value, size
    return found


def parts(fn: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """What a function takes along, and the functions that it takes along do, by name."""
    if id(fn) in seen:
        return
    seen.add(id(fn))
    if isinstance(fn, functools.partial):
        found = [(f"argument {i} of its partial", x) for i, x in enumerate(fn.args, 1)]
        found += [(f"argument {name!r} of its partial", x) for name, x in fn.keywords.items()]
        yield from parts(fn.func, seen)
    elif isinstance(fn, MethodType):
        found = [("the object of the method", fn.__self__)]
    elif isinstance(fn, FunctionType) and not modules.by_reference(fn):
        found = function_parts(fn)
    else:
        found = [] if modules.by_reference(fn) else [("the callable object", fn)]
    for name, value in found:
        if isinstance(value, FunctionType):
            yield from parts(value, seen)
        else:
            yield name, value


def function_parts(fn: FunctionType) -> list[tuple[str, Any]]:
    found = [(f"the global variable {name!r}", fn.__globals__[name])
             for name in code.facts(fn.__code__).names if name in fn.__globals__]
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            found.append((f"the captured variable {name!r}", cell.cell_contents))
        except ValueError:  # an empty cell
            continue
    found += [("a default value", x) for x in (*(fn.__defaults__ or ()), *(fn.__kwdefaults__ or {}).values())]
    found += [(f"its attribute {name!r}", x) for name, x in fn.__dict__.items()]
    return found


def outside() -> int:
    """The stacklevel, for who calls warnings.warn, of the first frame outside of dgmp."""
    package = __name__.partition(".")[0]
    frame: Any = sys._getframe(1)
    level = 1
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame, level = frame.f_back, level + 1
    return level
