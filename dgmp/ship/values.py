"""Values to bytes and back.

`pickle` protocol 5 first; `cloudpickle` when that fails or when the stream names `__main__` or another module that an M
cannot import.  Called by the other modules of ship.
"""

from __future__ import annotations

import pickle
from typing import Any

from ..errors import EncodingError
from . import modules

loads = pickle.loads


def dumps(obj: Any, what: str, result: bool = False) -> bytes:
    """`obj` as bytes; `what` names it in the error; a result leaves the receiver's classes as they are."""
    try:
        data = pickle.dumps(obj, 5)
        if b"\x93" not in data or modules.portable(data):
            return data
    except Exception:  # whatever a __reduce__ of the user's raises: cloudpickle's error is the one that counts
        pass
    return dumps_dynamic(obj, what, result)


def dumps_dynamic(obj: Any, what: str, result: bool = False) -> bytes:
    from . import dynamic  # cloudpickle, 20 ms: only for those who need it

    try:
        return dynamic.dumps(obj, result)
    except Exception as e:
        raise EncodingError(f"{what} cannot be pickled: {type(e).__name__}: {e}") from e


def describe(fn: Any) -> str:
    """A function's name for messages."""
    name = getattr(fn, "__qualname__", None)
    return name if isinstance(name, str) and name else repr(fn)
