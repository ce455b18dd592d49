"""A call to bytes and back (DESIGN.md, Shipping closures).

An importable function travels by reference: its pickle goes into the segment's function table once, and a G carries the
table's key and its pickled arguments.  Everything else (lambdas, closures, `__main__`, methods, partials, calls with
keywords or with futures among their arguments) travels whole inside the G, encoded anew for every call, so that nothing
can be stale.  `pickle` first; `cloudpickle` when that fails or when the stream names `__main__`, which means another
module in an M.

Called by api (encode_call, decode_result) and by runtime in an M (decode_call, encode_result, encode_error).
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from typing import Any

import msgpack

from .._core import RESULT_ERROR, RESULT_NO_MEMORY, RESULT_NONE, RESULT_VALUE, RESULT_WORKER_DIED, View
from ..errors import EncodingError, RemoteTraceback
from . import death

_dumps = pickle.dumps
_loads = pickle.loads
WHOLE = 0  # function key: the callable is among the arguments


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


def argument_note(dependent: str, name: str) -> str:
    return f"argument of {dependent}, which did not run: the result of {name}"


def wrap(error: bytes, notes: list[str]) -> bytes:
    """A RESULT_ERROR with notes for the exception, which need not be unpickled to get them."""
    return bytes(msgpack.packb([error, notes], unicode_errors="surrogatepass"))


def unwrap(data: bytes) -> tuple[bytes, list[str]]:
    """(the pickled error, its notes)"""
    if data[:1] == pickle.PROTO:
        return data, []
    error, notes = msgpack.unpackb(data, unicode_errors="surrogatepass")
    return error, notes


def dumps(obj: Any, what: str) -> bytes:
    """`obj` as bytes; `what` names it in the error."""
    try:
        data = _dumps(obj, 5)
        if b"__main__" not in data:
            return data
    except Exception:  # whatever a __reduce__ of the user's raises: cloudpickle's error is the one that counts
        pass
    from . import dynamic  # cloudpickle, 20 ms: only for those who need it

    try:
        return dynamic.dumps(obj)
    except Exception as e:
        raise EncodingError(f"{what} cannot be pickled: {type(e).__name__}: {e}") from e


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
    """Encodes the calls of one process for one runtime; remembers the table keys of importable functions."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.keys: dict[Any, tuple[int, dict[str, Any], str]] = {}

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
        key = self._key(fn)
        if key == WHOLE:
            return WHOLE, self.encode_whole(fn, args, {})
        return key, dumps_call(args, fn, args, {})

    def encode_whole(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        return dumps_call((fn, args, kwargs), fn, args, kwargs)

    def _key(self, fn: Any) -> int:
        """The table key of a function that its module holds under its plain name, else WHOLE."""
        module, name = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
        if not module or module == "__main__" or not name or "." in name:
            return WHOLE
        namespace = getattr(sys.modules.get(module), "__dict__", {})
        if namespace.get(name) is not fn or getattr(fn, "__self__", None) is not None and not _is_builtin(fn):
            return WHOLE
        try:
            blob = _dumps(fn, 5)
            key = self.view.intern(blob)
            self.keys[fn] = key, namespace, name
            return key
        except (pickle.PicklingError, AttributeError, TypeError, MemoryError):
            return WHOLE


def _is_builtin(fn: Any) -> bool:
    return bool(getattr(fn.__self__, "__name__", None) == fn.__module__)


class Decoder:
    """Decodes calls in an M; loads a function of the table once."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.functions: dict[int, Callable[..., Any]] = {}

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


def encode_error(error: BaseException, skip: int = 1) -> tuple[int, bytes]:
    """An exception with its traceback text.  One that cannot travel becomes an EncodingError that quotes it."""
    import traceback  # a few ms: only for those who need it

    tb = error.__traceback__
    for _ in range(skip):
        tb = tb.tb_next if tb is not None else None
    text = "".join(traceback.format_exception(type(error), error, tb))
    try:
        data = dumps((error, text), "an exception")
        _loads(data)  # one whose unpickling fails would fail at the client
    except BaseException as e:  # noqa: B036 - user code: __reduce__, __setstate__
        stand_in = EncodingError(f"{type(error).__qualname__}: {error} (the exception itself cannot travel: {e})")
        data = _dumps((stand_in, text), 5)
    return RESULT_ERROR, data


def with_note(error: BaseException, note: str) -> BaseException:
    """A copy with a note more; error itself if it cannot be copied."""
    import copy

    try:
        twin: BaseException = copy.copy(error)
        twin.__notes__ = [*getattr(error, "__notes__", ()), note]
    except Exception:  # user code: __reduce__, __init__
        return error
    twin.__cause__ = error.__cause__
    return twin


def decode_result(kind: int, data: bytes) -> tuple[Any, BaseException | None]:
    """(value, None) or (None, exception), the exception with its remote traceback as cause."""
    if kind == RESULT_NONE:
        return None, None
    try:
        if kind == RESULT_VALUE:
            return _loads(data), None
        if kind == RESULT_ERROR:
            pickled, notes = unwrap(data)
            error, text = _loads(pickled)
            error.__cause__ = RemoteTraceback(text)
            for note in notes:
                error.add_note(note)
            return None, error
        if kind == RESULT_NO_MEMORY:
            return None, MemoryError("the runtime's shared memory has no room for the result")
    except (RecursionError, MemoryError):  # of this process, at this moment: it may work a little later
        raise
    except Exception as e:
        return None, EncodingError(f"the result cannot be unpickled here: {type(e).__name__}: {e}")
    return None, EncodingError(f"unknown kind of result: {kind}")


def describe(fn: Any) -> str:
    """A function's name for messages."""
    name = getattr(fn, "__qualname__", None)
    return name if isinstance(name, str) and name else repr(fn)


def plain_error(error: BaseException, again: BaseException) -> bytes:
    """The last resort when an exception cannot be encoded at all."""
    name = type(error).__qualname__
    return _dumps((EncodingError(f"{name} was raised, and encoding it failed with {type(again).__qualname__}"), name), 5)
