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

from .._core import RESULT_ERROR, RESULT_NO_MEMORY, RESULT_NONE, RESULT_VALUE, View
from ..errors import EncodingError, RemoteTraceback

_dumps = pickle.dumps
_loads = pickle.loads
WHOLE = 0  # function key: the callable is among the arguments


class Dependency:
    """Stands in the arguments for the result of the i-th G that this one waits for."""

    __slots__ = ("i",)

    def __init__(self, i: int) -> None:
        self.i = i

    def __reduce__(self) -> tuple[Any, ...]:
        return Dependency, (self.i,)


class DependencyFailed(Exception):
    """Raised by decode_call: a G that this one waits for failed; carries its result as it was."""

    def __init__(self, kind: int, data: bytes) -> None:
        super().__init__(kind)
        self.kind, self.data = kind, data


def dumps(obj: Any, what: str) -> bytes:
    """`obj` as bytes; `what` names it in the error."""
    try:
        data = _dumps(obj, 5)
        if b"__main__" not in data:
            return data
    except Exception:  # whatever a __reduce__ of the user's raises: cloudpickle's error is the one that counts
        pass
    import cloudpickle  # 20 ms: only for those who need it

    try:
        return bytes(cloudpickle.dumps(obj, protocol=5))
    except Exception as e:
        raise EncodingError(f"{what} cannot be pickled: {type(e).__name__}: {e}") from e


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
                return key, dumps(args, f"an argument of {name}()")
        except Exception:  # unhashable, not seen yet, replaced in its module, or not picklable as it is
            pass
        key = self._key(fn)
        if key == WHOLE:
            return WHOLE, self.encode_whole(fn, args, {})
        return key, dumps(args, f"an argument of {describe(fn)}()")

    def encode_whole(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        return dumps((fn, args, kwargs), f"{describe(fn)} or an argument of it")

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
            for kind, result in deps:
                if kind not in (RESULT_VALUE, RESULT_NONE):
                    raise DependencyFailed(kind, result)
            values = [None if kind == RESULT_NONE else _loads(result) for kind, result in deps]
            args = tuple(values[x.i] if type(x) is Dependency else x for x in args)
            kwargs = {k: values[x.i] if type(x) is Dependency else x for k, x in kwargs.items()}
        return fn, args, kwargs


def encode_result(value: Any, fn: Any) -> tuple[int, bytes]:
    """What a G returned, as (kind, bytes)."""
    if value is None:
        return RESULT_NONE, b""
    try:
        data = _dumps(value, 5)
        if b"__main__" not in data:
            return RESULT_VALUE, data
    except Exception:  # cloudpickle may know better, and has the better error
        pass
    return RESULT_VALUE, dumps(value, f"the result of {describe(fn)}()")


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


def decode_result(kind: int, data: bytes) -> tuple[Any, BaseException | None]:
    """(value, None) or (None, exception), the exception with its remote traceback as cause."""
    if kind == RESULT_NONE:
        return None, None
    try:
        if kind == RESULT_VALUE:
            return _loads(data), None
        if kind == RESULT_ERROR:
            error, text = _loads(data)
            error.__cause__ = RemoteTraceback(text)
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
    return getattr(fn, "__qualname__", None) or repr(fn)


def plain_error(error: BaseException, again: BaseException) -> bytes:
    """The last resort when an exception cannot be encoded at all."""
    name = type(error).__qualname__
    return _dumps((EncodingError(f"{name} was raised, and encoding it failed with {type(again).__qualname__}"), name), 5)
