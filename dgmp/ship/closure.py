"""A call to bytes and back (DESIGN.md, Shipping closures).

A function that is importable, or that has been encoded and is provably the same, stands in the segment's function table,
and a G carries the table's key and its pickled arguments (functions).  Everything else travels whole inside the G, encoded
anew for every call, so that nothing can be stale.  Calls with keywords, or with futures among their arguments, are always
one pickle, in which the key may stand for the function.

Called by api (Encoder, decode_result) and by runtime in an M (Decoder, encode_result).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

from .._core import (
    RESULT_CANCELLED,
    RESULT_ERROR,
    RESULT_NO_MEMORY,
    RESULT_NONE,
    RESULT_VALUE,
    RESULT_WORKER_DIED,
    Block,
    View,
)
from ..errors import Cancelled, EncodingError
from . import modules, proof, snapshot, values
from .chunk import Chunk
from .functions import WHOLE, FunctionKeys
from .values import LARGE, SMALL_TYPES, Large, describe, loads
from .weight import Weights

_dumps = pickle.dumps


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
            from . import death

            return self.kind, death.of_dependent(goid, self.name, self.data)
        if self.kind in (RESULT_ERROR, RESULT_CANCELLED):
            from . import failure

            data = self.data or failure.encode_error(never_began(self.name))[1]
            note = failure.argument_note(f"G {goid} ({self.dependent})", self.name)
            return self.kind, failure.with_argument_note(data, note)
        return self.kind, self.data


def never_began(name: str) -> Cancelled:
    """What a G of that name ends with that was cancelled while it was queued."""
    return Cancelled(f"{name} was cancelled before it began")


def encode_call(obj: Any, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes | Large:
    """`obj`, which holds that call or its arguments, encoded; the error names the part that is at fault, and its place."""
    try:
        return values.by_value(obj) if obj is not args and beyond_pickle(obj[0]) else values.pickled(obj)
    except BaseException as e:
        raise cannot_pickle(fn, args, kwargs, e) from e


def snapshot_for_map(fn: Any, starred: bool) -> Chunk:
    """fn as it is now."""
    try:
        if beyond_pickle(fn) and not modules.by_reference(fn):
            from . import dynamic  # cloudpickle, 20 ms: only for those who need it

            data = dynamic.dumps(fn)
        else:
            data = values.in_one_piece(fn)
    except BaseException as e:
        raise cannot_pickle(fn, (), {}, e) from e
    return Chunk(data, describe(fn), starred)


def cannot_pickle(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], error: BaseException) -> EncodingError:
    """The error for a call; raises what is no matter of its parts."""
    from . import reason

    if reason.is_callers(error):
        raise error
    return EncodingError(reason.of_call(fn, args, kwargs, error))


def beyond_pickle(fn: Any) -> bool:
    """Whether a callable without a key needs more than plain pickle for sure, or would come out as another one."""
    return not modules.is_attribute(fn) if type(fn) is MethodType else type(fn) is FunctionType


class Encoder:
    """Encodes the calls of one process for one runtime."""

    def __init__(self, view: View) -> None:
        self.functions = FunctionKeys(view)
        self.keys = self.functions.keys
        self.weights = Weights()

    def encode(self, fn: Callable[..., Any], args: tuple[Any, ...], small: bool = False) -> tuple[int, bytes | Large]:
        """The hot path: a positional call without futures.  small: all arguments are of SMALL_TYPES."""
        try:
            key, namespace, name = self.keys[fn]
            known = namespace[name] is fn
        except Exception:  # unhashable, not met yet, or no longer in its module
            known = False
        if not known:
            key = self.functions.key_of(fn)
            if key == WHOLE:
                return WHOLE, self.encode_whole(fn, args, {}, WHOLE)
        if not small:
            return key, encode_call(args, fn, args, {})
        data = _dumps(args, 5)
        return key, data if len(data) < LARGE else Large([data], [])

    def encode_whole(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any],
                     key: int | None = None) -> bytes | Large:
        """A call with keywords or dependencies, or of a function that has no key."""
        if key is None:
            key = self.functions.key_of(fn)
        if key != WHOLE:
            return encode_call((key, args, kwargs), fn, args, kwargs)
        data = encode_call((fn, args, kwargs), fn, args, kwargs)
        self.weights.note(fn, len(data) if isinstance(data, bytes) else data.size)
        return data


class Decoder:
    """Decodes calls in an M; loads a function of the table once, and again when a G has changed it."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.functions: dict[int, Any] = {}
        self.closures: dict[int, tuple[Any, proof.Proof]] = {}
        self.retried: dict[int, tuple[type[BaseException], ...]] = {}

    def forget(self) -> None:
        """Loads all functions anew: modules that they came from, or refer to, have been dropped."""
        self.functions.clear()
        self.closures.clear()
        self.retried.clear()
        snapshot.forget()

    def function(self, key: int) -> Any:
        """The function of that key."""
        fn = self.functions.get(key)
        if fn is not None:
            return fn
        shared = self.closures.get(key)
        if shared is not None and proof.holds(shared[1], shared[0]):
            return shared[0]
        loaded = snapshot.load(self.view.function(key))
        if isinstance(loaded, snapshot.Snapshot):
            loaded._keys[self.view.runtime_id] = key
            loaded = loaded._fn
        if type(loaded) is tuple:  # by value
            fn = loaded[0]
            if (proven := proof.prove(fn)) is not None:
                self.closures[key] = fn, proven
        else:
            fn = self.functions[key] = loaded
        return fn

    def errors(self, key: int) -> tuple[type[BaseException], ...]:
        """The errors of that key, after which a G is to be run again; none if they cannot be loaded here."""
        if key not in self.retried:
            try:
                self.retried[key] = values.loads(self.view.function(key))
            except Exception:
                self.retried[key] = ()
        return self.retried[key]

    def decode_call(self, key: int, data: bytes | Block, deps: list[tuple[int, bytes | Block]] | None) -> tuple[
        Callable[..., Any], tuple[Any, ...], dict[str, Any]
    ]:
        fn: Any = None
        try:
            if key != WHOLE:
                fn = self.functions.get(key)
                if fn is None:
                    fn = self.function(key)
                return fn, pickle.loads(data) if isinstance(data, bytes) else loads(data), {}
            fn, args, kwargs = loads(data)
            if type(fn) is int:
                key, fn = fn, None
                fn = self.function(key)
            if isinstance(fn, snapshot.Snapshot):
                fn = fn._fn
        except BaseException as e:  # code of the user's: __setstate__ and the like
            what = "a function or its arguments" if fn is None else f"the arguments of {describe(fn)}()"
            raise cannot_unpickle(what, e) from e
        if deps:
            names = {x.i: x.name for x in (*args, *kwargs.values()) if type(x) is Dependency}
            for i, (kind, result) in enumerate(deps):
                if kind not in (RESULT_VALUE, RESULT_NONE):
                    raise DependencyFailed(kind, bytes(result), names[i], describe(fn))
            results = [load_argument(kind, result, names[i], fn) for i, (kind, result) in enumerate(deps)]
            args = tuple(results[x.i] if type(x) is Dependency else x for x in args)
            kwargs = {k: results[x.i] if type(x) is Dependency else x for k, x in kwargs.items()}
        return fn, args, kwargs


def load_argument(kind: int, result: bytes | Block, name: str, fn: Any) -> Any:
    """The result of the G of that name, which a call of fn has waited for."""
    try:
        return None if kind == RESULT_NONE else loads(result)
    except BaseException as e:
        raise cannot_unpickle(f"the result of {name}, an argument of {describe(fn)}(),", e) from e


def cannot_unpickle(what: str, error: BaseException) -> EncodingError:
    """The error for the G in question; raises what is no matter of `what`."""
    from . import reason

    if reason.is_callers(error):
        raise error
    return EncodingError(f"{what} cannot be unpickled: {reason.said(error)}")


def encode_result(value: Any, fn: Any, goid: int) -> tuple[int, bytes | Large]:
    """What the G of that id, a call of fn, returned, as (kind, bytes)."""
    if value is None:
        return RESULT_NONE, b""
    if type(value) in SMALL_TYPES:
        data = _dumps(value, 5)
        return RESULT_VALUE, data if len(data) < LARGE else Large([data], [])
    if type(fn) is Chunk:
        return RESULT_VALUE, fn.encode(value, goid)
    return RESULT_VALUE, values.encode(value, f"the result ({type(value).__name__}) of G {goid} ({describe(fn)})")


def decode_result(kind: int, data: bytes | Block, of: Any) -> tuple[Any, BaseException | None]:
    """(value, None) or (None, exception), the exception with its remote traceback as cause; `of.name` is that of the G."""
    if kind == RESULT_NONE:
        return None, None
    try:
        if kind == RESULT_VALUE:
            return pickle.loads(data) if isinstance(data, bytes) else loads(data), None
        if kind == RESULT_CANCELLED and not len(data):
            return None, never_began(of.name)
        if kind in (RESULT_ERROR, RESULT_CANCELLED):
            from . import failure

            return None, failure.decode_error(bytes(data))
        if kind == RESULT_NO_MEMORY:
            size = f" of {bytes(data).decode()} bytes" if data else ""
            return None, MemoryError(f"the runtime's shared memory had no room for the result{size} of {of.name}; it ran, and "
                                     "what it returned is lost")
    except BaseException as e:
        error = cannot_unpickle(f"the result of {of.name}", e)
        error.__cause__ = e
        return None, error
    return None, EncodingError(f"the result of {of.name} is of an unknown kind: {kind}")
