"""A chunk of a map: what an M runs for it, and how its results come back.

All chunks of one map call run the same Chunk object, which the function table keeps; its function is pickled in it, as it was
at the call, and is unpickled once in each M for each call.  A chunk's arguments are the call's serial number and one
list for each parameter of the function.  Its result is (ns, results, failed): how long it took, the results in order, with a
Failed in the place of each item that has none, and whether there are any of these.

Called by closure in an M, made and read by api.map.
"""

from __future__ import annotations

import builtins
import itertools
import pickle
import time
from collections.abc import Iterator
from typing import Any

from . import travel, values
from .snapshot import Snapshot


class Failed:
    """Stands in the place of a result: how the item ended instead."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        travel.again(self.data)
        return Failed, (self.data,)


def failed(error: BaseException) -> Failed:
    from . import failure

    return Failed(failure.encode_error(error)[1])


class Chunk:
    """The function of a map, to be called with a chunk's arguments.

    Args:
        pickled: the function.
        name: the function's, for messages.
        starred: an item is a tuple of arguments, not the only one.
    """

    def __init__(self, pickled: bytes, name: str, starred: bool) -> None:
        self.pickled, self.__qualname__, self.starred = pickled, name, starred
        self.loaded: tuple[int, Any] = (0, None)

    def __reduce__(self) -> tuple[Any, ...]:
        travel.again(self.pickled)
        return Chunk, (self.pickled, self.__qualname__, self.starred)

    def function(self, serial: int) -> Any:
        """As it was at the call of that number, whatever it did to itself in earlier ones."""
        of, fn = self.loaded
        if of != serial:
            fn = pickle.loads(self.pickled)
            if isinstance(fn, Snapshot):
                fn = fn._fn
            self.loaded = serial, fn
        return fn

    def __call__(self, serial: int, *columns: list[Any]) -> tuple[int, list[Any], bool]:
        fn = self.function(serial)
        begun = time.monotonic_ns()
        calls = itertools.starmap(fn, *columns) if self.starred else builtins.map(fn, *columns)
        results: list[Any] = []
        all_well = run(calls, len(columns[0]), results, self.__qualname__)
        return time.monotonic_ns() - begun, results, not all_well

    def encode(self, result: tuple[int, list[Any], bool], goid: int) -> bytes | values.Large:
        """What __call__ has returned; results that cannot be pickled become Failed."""
        try:
            return values.pickled(result, True)
        except BaseException:  # noqa: B036 - user code: __reduce__
            pass
        ns, results, _ = result
        for i, x in enumerate(results):
            try:
                values.encode(x, f"the result ({type(x).__name__}) of G {goid} ({self.__qualname__})")
            except BaseException as e:
                results[i] = failed(e)
        return values.pickled((ns, results, True), True)


def run(calls: Iterator[Any], n: int, results: list[Any], name: str) -> bool:
    """Makes the n calls.  Whether all of them returned: one that raises costs its own result only."""
    all_well = True
    while len(results) < n:
        try:
            results.extend(calls)  # keeps what came before an exception, and `calls` can be gone on with
            if len(results) < n:
                raise RuntimeError(f"{name} raised StopIteration")  # as in a generator: it must not end the map
        except BaseException as e:
            all_well = False
            results.append(failed(e))
    return all_well
