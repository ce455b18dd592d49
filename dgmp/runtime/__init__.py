"""GMP policy on the M's side: boot (osinit, schedinit, newproc, mstart), proc (the schedule loop) and what it calls.

Public are the low-level calls of `park`: park_token, gopark, goready and gosched, for those who build their own primitives.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from .park import ParkToken, gopark, goready, gosched, park_token

__all__ = ["ParkToken", "gopark", "goready", "gosched", "park_token"]

# What api registers, as imports go downwards only: the nodes of this process, by the ids of their runtimes.
nodes: WeakValueDictionary[int, Any] = WeakValueDictionary()


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"{__name__}.park"), name)
    return value
