"""A callable that is encoded once: as it is when it is first used as a G, or first travels inside of something else.

What it refers to may change after that; whoever wants to see the changes makes another.  In each process one object stands
for one encoding, so that an M spawns it on under the same key, and its recursive calls too.
Called by functions and closure; api.task is the public face.
"""

from __future__ import annotations

import functools
import pickle
import weakref
from typing import Any

from .._core import View
from ..errors import EncodingError
from . import modules, travel


class Snapshot:
    """Args: fn: any callable; options: what the constructor of a subclass takes besides."""

    __qualname__: str

    def __init__(self, fn: Any, **options: Any) -> None:
        functools.update_wrapper(self, fn)  # type: ignore[arg-type]
        self._fn = fn
        self._options = options
        self._data: bytes | None = None
        self._keys: dict[int, int] = {}  # in the function tables of runtimes, by the runtime's id
        self._encoding = False

    def key_in(self, view: View) -> int:
        """Its key in the function table.  Raises EncodingError, and MemoryError if the table is full."""
        key = self._keys.get(view.runtime_id)
        if key is None:
            data = pickle.dumps(self, 5) if modules.by_reference(self) else self.encode()
            key = self._keys[view.runtime_id] = view.intern(data)
        return key

    def encode(self) -> bytes:
        """Its bytes, once and for all."""
        if self._data is None:
            self._encoding = True  # it may refer to itself
            try:
                data = self.pickle()
            finally:
                self._encoding = False
            if self._data is None:
                self._data = data
                _here.setdefault(data, self)
        return self._data

    def pickle(self) -> bytes:
        from . import dynamic  # cloudpickle, 20 ms: only for those who need it

        try:
            return dynamic.dumps(self)
        except BaseException as e:
            from . import reason

            if reason.is_callers(e):
                raise
            raise EncodingError(reason.of_call(self._fn, (), {}, e)) from e

    def arrived(self, data: bytes) -> Snapshot:
        """The object that stands here for those bytes, of which this one was made."""
        here = _here.setdefault(data, self)
        here._data = data
        return here

    def __reduce__(self) -> Any:
        if modules.by_reference(self):
            return self.__qualname__
        if self._encoding:
            return _make, (type(self),), (self._fn, self._options), None, None, _set
        data = self.encode()
        travel.again(data)
        return restore, (data,)


_here: weakref.WeakValueDictionary[bytes, Snapshot] = weakref.WeakValueDictionary()


def forget() -> None:
    """What is loaded from here on is made anew."""
    _here.clear()


def restore(data: bytes) -> Snapshot:
    known = _here.get(data)
    if known is None:
        known = load(data)
    return known


def load(data: bytes) -> Any:
    """What was encoded: also other things than a Snapshot."""
    loaded = pickle.loads(data)
    return loaded.arrived(data) if isinstance(loaded, Snapshot) and not modules.by_reference(loaded) else loaded


def _make(kind: type) -> Any:
    return object.__new__(kind)


def _set(snapshot: Snapshot, state: tuple[Any, dict[str, Any]]) -> None:
    fn, options = state
    snapshot.__init__(fn, **options)  # type: ignore[misc]
