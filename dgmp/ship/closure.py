"""A call to bytes and back (DESIGN.md, Shipping closures).

An importable function travels by reference: its pickle goes into the segment's function table once, and a G carries the
table's key and its pickled arguments.  Everything else (lambdas, closures, `__main__`, methods, partials, calls with
keywords or with futures among their arguments) travels whole inside the G, encoded anew for every call, so that nothing
can be stale.

Called by api (Encoder, decode_result) and by runtime in an M (Decoder, encode_result).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from .._core import RESULT_ERROR, RESULT_NO_MEMORY, RESULT_NONE, RESULT_VALUE, RESULT_WORKER_DIED, View
from ..errors import EncodingError
from . import death
from .failure import argument_note, decode_error, unwrap, wrap
from .functions import WHOLE, FunctionKeys
from .values import describe, dumps

_dumps = pickle.dumps
_loads = pickle.loads


class Dependency:
    """Stands in the arguments for the result of the i-th G that this one waits for, and has its name."""

    __slots__ = ("i", "name")

    def __init__(self, i: int, name: str) -> None:
        self.i, self.name = i, name

    def __reduce__(self) -> tuple[Any, ...]:
        return Dependency, (self.i, self.name)


class DependencyFailed(Exception):
    """Raised by decode_call: a G that this one waits for failed.

    Args:
        kind, data: how that one ended.
        name: that one's.
        dependent: the name of the one that did not run.
    """

    def __init__(self, kind: int, data: bytes, name: str, dependent: str) -> None:
        super().__init__(name)
        self.kind, self.data, self.name, self.dependent = kind, data, name, dependent

    def result(self, goid: int) -> tuple[int, bytes]:
        """What the dependent ends with, as (kind, bytes)."""
        if self.kind == RESULT_WORKER_DIED:
            return self.kind, death.of_dependent(goid, self.name, self.data)
        if self.kind == RESULT_ERROR:
            error, notes = unwrap(self.data)
            return self.kind, wrap(error, [*notes[:1], argument_note(f"G {goid} ({self.dependent})", self.name)])
        return self.kind, self.data


def dumps_call(obj: Any, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """`obj`, which holds that call or its arguments, as bytes; the error names the first of its parts that is at fault."""
    name = describe(fn)
    try:
        return dumps(obj, f"{name} or an argument of it")
    except EncodingError as e:
        whole = e
    dumps(fn, name)
    for at, x in [*enumerate(args, 1), *((repr(key), x) for key, x in kwargs.items())]:
        dumps(x, f"argument {at} ({type(x).__name__}) of {name}()")
    raise whole


class Encoder:
    """Encodes the calls of one process for one runtime."""

    def __init__(self, view: View) -> None:
        self.functions = FunctionKeys(view)
        self.keys = self.functions.keys

    def encode(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> tuple[int, bytes]:
        """The hot path: a positional call without futures."""
        try:
            key, namespace, name = self.keys[fn]
            if namespace[name] is fn:
                data = _dumps(args, 5)
                if b"__main__" not in data:
                    return key, data
                return key, dumps_call(args, fn, args, {})
        except Exception:  # unhashable, not seen yet, replaced in its module, or not picklable as it is
            pass
        key = self.functions.key_of(fn)
        if key == WHOLE:
            return WHOLE, self.encode_whole(fn, args, {})
        return key, dumps_call(args, fn, args, {})

    def encode_whole(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        return dumps_call((fn, args, kwargs), fn, args, kwargs)


class Decoder:
    """Decodes calls in an M; loads a function of the table once."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.functions: dict[int, Callable[..., Any]] = {}

    def forget(self) -> None:
        """The modules of functions decoded so far have been dropped."""
        self.functions.clear()

    def decode_call(self, key: int, data: bytes, deps: list[tuple[int, bytes]] | None) -> tuple[
        Callable[..., Any], tuple[Any, ...], dict[str, Any]
    ]:
        if key != WHOLE:
            fn = self.functions.get(key)
            if fn is None:
                fn = self.functions[key] = _loads(self.view.function(key))
            return fn, _loads(data), {}
        fn, args, kwargs = _loads(data)
        if deps:
            names = {x.i: x.name for x in (*args, *kwargs.values()) if type(x) is Dependency}
            for i, (kind, result) in enumerate(deps):
                if kind not in (RESULT_VALUE, RESULT_NONE):
                    raise DependencyFailed(kind, result, names[i], describe(fn))
            values = [None if kind == RESULT_NONE else _loads(result) for kind, result in deps]
            args = tuple(values[x.i] if type(x) is Dependency else x for x in args)
            kwargs = {k: values[x.i] if type(x) is Dependency else x for k, x in kwargs.items()}
        return fn, args, kwargs


def encode_result(value: Any, fn: Any, goid: int) -> tuple[int, bytes]:
    """What the G of that id, a call of fn, returned, as (kind, bytes)."""
    if value is None:
        return RESULT_NONE, b""
    try:
        data = _dumps(value, 5)
        if b"__main__" not in data:
            return RESULT_VALUE, data
    except Exception:  # cloudpickle may know better, and has the better error
        pass
    return RESULT_VALUE, dumps(value, f"the result ({type(value).__name__}) of G {goid} ({describe(fn)})")


def decode_result(kind: int, data: bytes) -> tuple[Any, BaseException | None]:
    """(value, None) or (None, exception), the exception with its remote traceback as cause."""
    if kind == RESULT_NONE:
        return None, None
    try:
        if kind == RESULT_VALUE:
            return _loads(data), None
        if kind == RESULT_ERROR:
            return None, decode_error(data)
        if kind == RESULT_NO_MEMORY:
            return None, MemoryError("the runtime's shared memory has no room for the result")
    except (RecursionError, MemoryError):  # of this process, at this moment: it may work a little later
        raise
    except Exception as e:
        return None, EncodingError(f"the result cannot be unpickled here: {type(e).__name__}: {e}")
    return None, EncodingError(f"unknown kind of result: {kind}")
