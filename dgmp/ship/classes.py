"""Classes by value.  A class belongs to the process that made it: wherever an instance comes back to, its class is left alone.

What cloudpickle makes of a class is wrapped.  A call takes the class along as it is now, and the receiver's copy becomes so,
unless the class is the receiver's own, or was sent from there.  A result names the class and has its definition only for who
does not know it.  Left out by cloudpickle, and added here: slots, aliases and attributes of enum members; and a base class's
`__init_subclass__` does not run again.  TypeVars' relatives are told apart by an id too.
Called by dynamic.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import threading
import typing
import uuid
import weakref
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

import cloudpickle

from . import code, modules

_known: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()  # by their id: ours, and those that came
_ids: code.ById[str] = code.ById()
_came: code.ById[set[str]] = code.ById()  # those that came, and the names of what came with them
_definitions: code.ById[bytes] = code.ById()  # as they go into results
_here = os.urandom(8)  # this process's name
_lock = threading.Lock()

Parts = tuple[Any, tuple[Any, ...], tuple[dict[str, Any], dict[str, Any]]]  # what makes the class, of what, and its state


def by_value_with_its_module(obj: Any) -> None:
    """Tells cloudpickle about a module that an M cannot import."""
    name = getattr(obj, "__name__" if type(obj) is ModuleType else "__module__", None)
    if isinstance(name, str) and name != "__main__" and not modules.importable(name):
        module = sys.modules.get(name)
        if isinstance(module, ModuleType) and module.__name__ == name:
            cloudpickle.register_pickle_by_value(module)


def id_of(obj: Any, new: str) -> str:
    """The id of a class; `new` if it has none yet."""
    known = _ids.get(obj) or _ids.set(obj, new)
    _known.setdefault(known, obj)
    return known


# ------------------------------------------------------------------ in calls
def reduce_class(cls: type, make: Any, args: tuple[Any, ...], state: Any, set_state: Any) -> tuple[Any, ...]:
    """The class as it is now."""
    tracker = id_of(cls, args[-2])
    make, args, state = (enum_parts if len(args) == 7 else class_parts)(cls, make, args, state)
    return make_class, (tracker, make, args), (_here, set_state, state), None, None, set_class


def class_parts(cls: type, make: Any, args: tuple[Any, ...], state: Any) -> Parts:
    """With its slots: the state of instances that have no __dict__ does not fit others."""
    slots = cls.__dict__.get("__slots__")
    if isinstance(slots, (str, tuple, list, dict)) and not issubclass(cls, tuple):  # a named tuple has them anyway
        meta, name, bases, namespace, *rest = args
        args = meta, name, bases, {**namespace, "__slots__": slots}, *rest
    return make_quietly, (make, *args), state


def make_class(tracker: str, make: Any, args: tuple[Any, ...]) -> type:
    cls: type | None = _known.get(tracker)
    if cls is None:
        cls = came(tracker, make(*args))
        if _came.get(cls) is None:
            _came.set(cls, set())
    return cls


def came(tracker: str, made: Any) -> Any:
    """What stands here for that id: `made`, unless another thread was faster."""
    with _lock:
        known = _known.setdefault(tracker, made)
        _ids.set(known, tracker)
    return known


class Quiet:
    """A base class that keeps those after it from hearing of a new subclass."""

    def __init_subclass__(cls, **options: Any) -> None:
        pass


class Slim:
    """The same, for classes whose instances have no __dict__."""

    __slots__ = ()
    __init_subclass__ = Quiet.__dict__["__init_subclass__"]


def make_quietly(make: Any, meta: Any, name: str, bases: tuple[Any, ...], namespace: dict[str, Any], *rest: Any) -> Any:
    """A class without attributes.  What `__init_subclass__` did to it, and where it was made, comes with the states."""
    if any(map(has_hook, bases)):
        for quiet in (Quiet, Slim):
            with contextlib.suppress(TypeError):  # its instances are laid out in another way
                cls = make(meta, name, (quiet, *bases), namespace, None, None)
                cls.__bases__ = tuple(base for base in cls.__bases__ if base is not quiet)
                return cls
    return make(meta, name, bases, namespace, None, None)


def has_hook(base: Any) -> bool:
    mro = getattr(getattr(base, "__origin__", base), "__mro__", ())
    return any("__init_subclass__" in vars(cls) for cls in mro if cls.__module__ not in ("builtins", "typing"))


def set_class(cls: type, sent: tuple[bytes, Any, tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """Makes the class what it was where it was pickled, unless it is ours."""
    origin, set_state, state = sent
    had = _came.get(cls)
    if had is None or had and origin == _here:
        return
    set_state(cls, state)
    for name in had.difference(state[0]):  # deleted there, or now the base class's own object
        with contextlib.suppress(AttributeError, TypeError):  # __module__ stays
            delattr(cls, name)
    for name, attributes in state[1].items():
        cls.__members__[name].__dict__.update(attributes)  # type: ignore[attr-defined]
    had.clear()
    had.update(state[0])
    _definitions.drop(cls)


# ------------------------------------------------------------------ in results
def reduce_known_class(cls: type, args: tuple[Any, ...], dumps: Callable[[Any], bytes]) -> tuple[Any, ...]:
    return find_class, (id_of(cls, args[-2]), definition(cls, dumps))


def definition(cls: type, dumps: Callable[[Any], bytes]) -> bytes:
    """What a receiver makes the class of if it has none; as it was when it first went into a result."""
    known = _definitions.get(cls)
    if known is None:
        try:
            known = dumps(cls)
        except Exception:
            if _came.get(cls) is None:
                raise
            known = b""  # it came from elsewhere, and cannot go there any more: somebody has set an attribute
        _definitions.set(cls, known)
    return known


def find_class(tracker: str, data: bytes) -> type:
    cls: type | None = _known.get(tracker)
    if cls is None:
        cls = pickle.loads(data)
    return cls


# ------------------------------------------------------------------ enums
# What a member has of the class that it mixes in, without calling methods of the user's.
CONTENT: dict[type, Callable[[Any], Any]] = {
    object: lambda member: None, int: int.__int__, float: float.__float__, str: str.__str__,
    bytes: lambda member: bytes.__getitem__(member, slice(None)), tuple: lambda member: tuple.__getitem__(member, slice(None)),
}


def enum_parts(cls: Any, make: Any, args: tuple[Any, ...], state: Any) -> Parts:
    """With its aliases, and with what `__init__` or `__new__` gave to its members."""
    bases, name, qualname, _, module, *rest = args
    members: dict[str, Any] = dict(cls.__members__)
    namespace = {k: x for k, x in state[0].items() if k not in members}
    attributes = {k: extra for k, x in members.items() if (extra := attributes_of(x))}
    if made_by_users(cls) and cls._member_type_ in CONTENT:
        content = CONTENT[cls._member_type_]
        whole = [(k, content(x), x.value) for k, x in members.items()]
        return make_enum, (type(cls), bases, name, qualname, whole, module, *rest), (namespace, attributes)
    values = {k: x.value for k, x in members.items()}
    return make, (bases, name, qualname, values, module, *rest), (namespace, attributes)


def attributes_of(member: Any) -> dict[str, Any]:
    """Without those of the enum module: _value_, _name_, ..."""
    return {k: x for k, x in vars(member).items() if not (k.startswith("_") and k.endswith("_"))}


def made_by_users(cls: Any) -> bool:
    """Whether a `__new__` or `__init__` of the user's makes the members, maybe of something else than their values."""
    makers = [cls._new_member_, *(vars(base).get("__init__") for base in cls.__mro__)]
    return any(type(x) is FunctionType and x.__module__ != "enum" for x in makers)


def make_enum(meta: Any, bases: tuple[type, ...], name: str, qualname: str, members: list[tuple[str, Any, Any]], module: str,
              *rest: Any) -> Any:
    """An enum whose members are made of their content and value."""
    namespace = meta.__prepare__(name, bases)

    def new(cls: Any, *args: Any) -> Any:
        at = args[0][0] if isinstance(args[0], tuple) else args[0]  # as mixed with tuple
        _, content, value = members[at]
        kind = cls._member_type_
        member = kind.__new__(cls) if kind is object else kind.__new__(cls, content)
        member._value_ = value
        return member

    namespace["__new__"], namespace["__init__"] = new, lambda self, *args: None
    for at, (member, _, _) in enumerate(members):
        namespace[member] = (at,)
    cls = meta.__new__(meta, name, bases, namespace)
    del cls.__init__  # its own comes with the state
    cls.__module__, cls.__qualname__ = module, qualname
    return cls


# ------------------------------------------------------------------ TypeVar's relatives
def reduce_parameter(obj: Any) -> Any:
    """ParamSpec, TypeVarTuple and NewType."""
    name = obj.__name__
    if modules.is_global(obj, name):
        return name
    args: tuple[Any, ...] = (name, obj.__supertype__) if isinstance(obj, typing.NewType) else (name,)
    options = {}
    if isinstance(obj, typing.ParamSpec):
        options = {"bound": obj.__bound__, "covariant": obj.__covariant__, "contravariant": obj.__contravariant__}
    return make_parameter, (id_of(obj, uuid.uuid4().hex), type(obj), args, options, obj.__module__)


def make_parameter(tracker: str, kind: Any, args: tuple[Any, ...], options: dict[str, Any], module: str) -> Any:
    made: Any = _known.get(tracker)
    if made is None:
        made = kind(*args, **options)
        made.__module__ = module
        made = came(tracker, made)
    return made


REDUCERS = {typing.NewType: reduce_parameter, typing.ParamSpec: reduce_parameter, typing.TypeVarTuple: reduce_parameter}


def renew() -> None:
    global _here
    _here = os.urandom(8)


os.register_at_fork(after_in_child=renew)
