"""The function table of a segment, as a process that spawns sees it: which functions travel as a key of it.

An importable function does: its pickle, a reference, goes into the table once.  Called by closure.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any

from .._core import View

WHOLE = 0  # no key: the callable is among the arguments


class FunctionKeys:
    """Remembers the table keys of importable functions."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.keys: dict[Any, tuple[int, dict[str, Any], str]] = {}

    def key_of(self, fn: Any) -> int:
        """The table key of a function that its module holds under its plain name, else WHOLE."""
        module, name = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
        if not module or module == "__main__" or not name or "." in name:
            return WHOLE
        namespace = getattr(sys.modules.get(module), "__dict__", {})
        if namespace.get(name) is not fn or getattr(fn, "__self__", None) is not None and not _is_builtin(fn):
            return WHOLE
        try:
            blob = pickle.dumps(fn, 5)
            key = self.view.intern(blob)
            self.keys[fn] = key, namespace, name
            return key
        except (pickle.PicklingError, AttributeError, TypeError, MemoryError):
            return WHOLE


def _is_builtin(fn: Any) -> bool:
    return bool(getattr(fn.__self__, "__name__", None) == fn.__module__)
