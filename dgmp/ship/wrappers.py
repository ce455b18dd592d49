"""What wraps functions, and what pickle and cloudpickle cannot take or take apart: methods, caches, dispatchers, open files.

Called by dynamic.
"""

from __future__ import annotations

import functools
import io
import sys
from types import FunctionType, MethodType
from typing import Any

import cloudpickle

from . import modules

_reduce_file = cloudpickle.CloudPickler.dispatch_table[io.TextIOWrapper]
_dispatch = functools.singledispatch(len).__code__  # type: ignore[attr-defined]  # of all of them


def reduce_method(method: MethodType) -> tuple[Any, ...]:
    """As plain pickle does, if that leads to it: its function need not travel then."""
    if modules.is_attribute(method):
        return getattr, (method.__self__, method.__name__)
    return MethodType, (method.__func__, method.__self__)


# ------------------------------------------------------------------ functools.lru_cache: without what it has cached
def reduce_cached(fn: Any) -> Any:
    if modules.by_reference(fn):
        return fn.__reduce__()
    attributes = {k: x for k, x in vars(fn).items() if k not in ("__wrapped__", "cache_parameters")}
    return make_cached, (fn.__wrapped__, fn.cache_parameters()), attributes


def make_cached(fn: Any, parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(fn)


def reduce_cached_property(x: functools.cached_property[Any]) -> tuple[Any, ...]:
    """Without the lock that it has in 3.11."""
    return functools.cached_property, (x.func,), {k: y for k, y in vars(x).items() if k not in ("func", "lock")}


# ------------------------------------------------------------------ functools.singledispatch
def is_dispatcher(fn: FunctionType) -> bool:
    return fn.__code__ is _dispatch


def reduce_dispatcher(fn: Any) -> tuple[Any, ...]:
    registry = dict(fn.registry)
    default = registry.pop(object)
    return make_dispatcher, (default,), (registry, fn.__name__, fn.__qualname__, fn.__module__), None, None, set_dispatcher


def make_dispatcher(default: Any) -> Any:
    return functools.singledispatch(default)


def set_dispatcher(fn: Any, state: tuple[dict[Any, Any], str, str, str]) -> None:
    registry, fn.__name__, fn.__qualname__, fn.__module__ = state
    for cls, implementation in registry.items():
        fn.register(cls, implementation)


def reduce_dispatching_method(x: functools.singledispatchmethod[Any]) -> tuple[Any, ...]:
    return functools.singledispatchmethod, (x.func,), {"dispatcher": x.dispatcher}


# ------------------------------------------------------------------ files
def reduce_file(file: io.TextIOWrapper) -> Any:
    """An open file is refused like all others: it would arrive as a copy of its content."""
    if file is sys.stdout or file is sys.stderr:
        return _reduce_file(file)
    raise TypeError("cannot pickle '_io.TextIOWrapper' object")


REDUCERS: dict[type, Any] = {
    MethodType: reduce_method, type(functools.lru_cache(len)): reduce_cached,
    functools.cached_property: reduce_cached_property, functools.singledispatchmethod: reduce_dispatching_method,
    io.TextIOWrapper: reduce_file,
}
