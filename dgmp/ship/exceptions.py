"""What an exception consists of, and how one is made again from that, without its class's `__init__`.

Pickle makes an exception by calling its class with its `args`, which fails, or gives another one, wherever `__init__` takes
other arguments than it hands on.  But an exception is its class, its args, its `__dict__`, and its fields: what the
interpreter (OSError.errno, SystemExit.code, ...) or `__slots__` keep outside of `__dict__`.  Called by failure.
"""

from __future__ import annotations

import contextlib
import copyreg
import types
from collections.abc import Iterator, Sequence
from typing import Any

State = tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]  # args, attributes, fields

FIELD = types.MemberDescriptorType, types.GetSetDescriptorType
# What BaseException has travels by itself; the members of a group are there from its beginning; and the object that lacks an
# attribute does not travel, as it does not in pickle.
NOT_FIELDS = frozenset({*vars(BaseException), "__dict__", "__weakref__", "message", "exceptions", "obj"})
OWN_PICKLING = frozenset({"__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__"})

cause_of = BaseException.__dict__["__cause__"].__get__
context_of = BaseException.__dict__["__context__"].__get__


def pickles_itself(cls: type) -> bool:
    """Whether the class says how it is pickled: then that comes first."""
    if cls in copyreg.dispatch_table:
        return True
    return any(not OWN_PICKLING.isdisjoint(vars(base)) for base in cls.__mro__ if base.__module__ != "builtins")


def group_of(error: BaseException) -> tuple[str, tuple[BaseException, ...]] | None:
    """(message, members) of an exception group."""
    if not isinstance(error, BaseExceptionGroup):
        return None
    group = vars(BaseExceptionGroup)
    return group["message"].__get__(error), group["exceptions"].__get__(error)


def fields(cls: type) -> Iterator[tuple[str, Any]]:
    """(name, descriptor) of the fields of its instances."""
    for base in cls.__mro__:
        if base is BaseException:
            return
        for name, descriptor in vars(base).items():
            if isinstance(descriptor, FIELD) and name not in NOT_FIELDS:
                yield name, descriptor


def attributes_of(error: BaseException) -> dict[str, Any]:
    """Its __dict__, whatever its class says to that."""
    attributes: dict[str, Any] = object.__getattribute__(error, "__dict__")
    return attributes


def state_of(error: BaseException) -> State:
    """All but the notes, which travel as text."""
    attributes = {name: x for name, x in attributes_of(error).items() if name != "__notes__"}
    set_fields = {}
    for name, descriptor in fields(type(error)):
        with contextlib.suppress(AttributeError):  # not set
            x = descriptor.__get__(error)
            if x is not None:  # which is what a new one has, or takes for set
                set_fields[name] = x
    return BaseException.args.__get__(error), attributes, set_fields  # type: ignore[attr-defined]


def notes_of(error: BaseException) -> list[str]:
    notes = attributes_of(error).get("__notes__")
    return [note for note in notes if isinstance(note, str)] if isinstance(notes, (list, tuple)) else []


def new(cls: type[BaseException], group: tuple[str, Sequence[BaseException]] | None = None) -> BaseException:
    """An empty one, or a group; by the interpreter's `__new__`, not by one of the user's."""
    makers = (vars(base).get("__new__") for base in cls.__mro__)
    make = next(maker for maker in makers if isinstance(maker, types.BuiltinFunctionType))
    error = make(cls) if group is None else make(cls, group[0], list(group[1]))
    if not isinstance(error, BaseException):
        raise TypeError(f"{cls!r} is no class of exceptions")
    return error


def restore(error: BaseException, state: State) -> None:
    """Gives error, which is new, the state of another."""
    args, attributes, set_fields = state
    BaseException.args.__set__(error, args)  # type: ignore[attr-defined]
    attributes_of(error).update(attributes)
    for name, descriptor in fields(type(error)):
        if name in set_fields:
            with contextlib.suppress(AttributeError, TypeError):  # only to be read
                descriptor.__set__(error, set_fields[name])


def copy(error: BaseException) -> BaseException:
    """A copy, without traceback, cause and context."""
    if pickles_itself(type(error)):
        from copy import copy as by_its_own_means

        twin = by_its_own_means(error)
        if type(twin) is not type(error):
            raise TypeError(f"the copy of a {type(error).__qualname__} is a {type(twin).__qualname__}")
        return twin
    twin = new(type(error), group_of(error))
    restore(twin, state_of(error))
    return twin
