"""The function table of a segment, as a process that spawns sees it: which callables travel as a key of it.

What is importable does, from its first use on: a reference, checked by one look into its module's namespace.  Functions
that travel by value do from their second use on, for as long as it is proven that encoding them again would give the same
bytes (proof).  Lambdas made anew at each turn of a loop are one function if they have the same code and look the same.
What changes between its uses is looked at less and less often; and as the table never shrinks, a process puts a bounded
number of functions into it.  Everything else travels whole, with its arguments.
Called by closure.
"""

from __future__ import annotations

import pickle
from types import FunctionType, MethodType
from typing import Any

from .._core import View
from . import code, proof, travel
from .snapshot import Snapshot

WHOLE = 0  # no key: the callable is among the arguments
MOST_FUNCTIONS = 2048  # by value, of one process
MOST_BYTES = 64 << 20


class Seen:
    """A function, or the code of functions, that was spawned."""

    __slots__ = ("misses", "prove_at", "proven")

    def __init__(self) -> None:
        self.misses = 1
        self.prove_at = 2
        self.proven: tuple[proof.Proof, int] | None = None  # and the key under which it stands in the table


class FunctionKeys:
    """Remembers the table keys of callables."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.keys: dict[Any, tuple[int, dict[str, Any], str]] = {}  # of what its module holds under its plain name
        self.paths: dict[Any, tuple[int, tuple[proof.Step, ...]]] = {}  # of what is in a class
        self.functions: code.ById[Seen] = code.ById()
        self.codes: code.ById[Seen] = code.ById()
        self.room = MOST_FUNCTIONS
        self.room_bytes = MOST_BYTES

    def key_of(self, fn: Any) -> int:
        """The table key of a callable as it is now, else WHOLE."""
        kind = type(fn)
        if kind not in proof.LOOKS:
            return self.snapshot(fn) if isinstance(fn, Snapshot) else self.reference(fn)
        seen = self.functions.get(fn)
        if seen is None and kind is FunctionType:
            seen = self.codes.get(fn.__code__)
        if seen is not None and seen.proven is not None and proof.holds(seen.proven[0], fn):
            return seen.proven[1]
        return self.reference(fn) or self.miss(fn, kind)

    def snapshot(self, fn: Snapshot) -> int:
        try:
            return fn.key_in(self.view)
        except MemoryError:  # the table is full: its bytes travel with each call
            return WHOLE

    # ------------------------------------------------------------------ by reference
    def reference(self, fn: Any) -> int:
        """The key of what its module holds under its qualified name, else WHOLE."""
        try:
            return self.find(fn)
        except RecursionError:
            raise
        except Exception:  # not picklable after all, unhashable, no room, or user code
            return WHOLE

    def find(self, fn: Any) -> int:
        method = type(fn) is MethodType
        if method or type(fn) is FunctionType:
            known = self.paths.get(fn)
            if known is not None and proof.same_path(known[1]):
                return known[0]
        steps = proof.class_method_path(fn) if method else proof.path(fn)
        if not steps:
            return WHOLE
        data = pickle.dumps(fn, 5)
        if not method and pickle.loads(data) is not fn:  # an instance with the names of a function travels by value
            return WHOLE
        key = self.view.intern(data)
        if len(steps) == 1:
            self.keys[fn] = key, steps[0][0], steps[0][1]  # type: ignore[assignment]
        else:
            self.paths[fn] = key, steps
        return key

    # ------------------------------------------------------------------ by value
    def miss(self, fn: Any, kind: type) -> int:
        """It was not seen yet, or has changed: it may be looked at anew, and get a key."""
        seen = self.functions.get(fn)
        if seen is not None:
            return self.again(fn, seen)
        if kind is FunctionType:
            twins = self.codes.get(fn.__code__)
            if twins is None:
                self.codes.set(fn.__code__, Seen())
            elif key := self.again(fn, twins):
                return key
        self.functions.set(fn, Seen())
        return WHOLE

    def again(self, fn: Any, seen: Seen) -> int:
        seen.misses += 1
        seen.proven = None
        if seen.misses < seen.prove_at:
            return WHOLE
        seen.prove_at = 2 * seen.misses
        seen.proven = self.prove(fn)
        return seen.proven[1] if seen.proven is not None else WHOLE

    def prove(self, fn: Any) -> tuple[proof.Proof, int] | None:
        proven = proof.prove(fn) if self.room > 0 else None
        if proven is None:
            return None
        from . import dynamic  # cloudpickle, 20 ms: only for those who need it

        try:
            data = dynamic.dumps((fn,))  # in a tuple: who decodes it looks at it again before each use
            if len(data) > self.room_bytes or travel.carries(data) or not proof.holds(proven, fn):
                return None
            key = self.view.intern(data)
        except MemoryError:
            self.room = 0
            return None
        except Exception:  # it says so when it is encoded with its arguments
            return None
        self.room -= 1
        self.room_bytes -= len(data)
        return proven, key
