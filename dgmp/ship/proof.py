"""Whether a function that was encoded would be encoded to the same bytes again, and decoded copies of it may be shared.

A Proof holds what the encoding of a function depends on: its code, defaults, attributes, the contents of its cells, the
globals that it refers to, and the same of every function among these.  There is one only if all of that is immutable or
travels by reference, and if the function itself changes none of it.  Then a look whether everything is still the same
object, a microsecond, stands for encoding it.  Others' functions are held weakly, immutable values strongly: ids of the
dead are used again.
Called by functions at a spawner, and by closure in an M before a decoded function is used once more.
"""

from __future__ import annotations

import functools
import re
import sys
import typing
import weakref
from collections.abc import Iterable, Mapping
from types import FunctionType, ModuleType
from typing import Any

from . import code, modules
from .snapshot import Snapshot

MISSING: Any = object()
ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented), range})
TYPE_FORMS = frozenset({typing.TypeVar, typing.ParamSpec, typing.ForwardRef, type(typing.Union), type(typing.ClassVar)})
CONTEXT = ("__name__", "__package__", "__path__", "__file__")  # globals that travel with every function
Step = tuple[Mapping[str, Any], str, Any]  # a namespace, a name, and what it must lead to


class Unprovable(Exception):
    """What the function refers to may change without anybody noticing."""


def immutable(x: Any) -> bool:
    kind = type(x)
    return kind in ATOMS or (kind is tuple or kind is frozenset) and all(map(immutable, x))


def path(obj: Any) -> tuple[Step, ...] | None:
    """How its module leads to what travels by reference: whoever finds the same again would encode it so again."""
    module, qualname = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str) or "<" in qualname or not modules.importable(module):
        return None
    steps: list[Step] = []
    found: Any = sys.modules[module]
    for name in qualname.split("."):
        namespace = getattr(found, "__dict__", {})
        found = namespace.get(name, MISSING)
        steps.append((namespace, name, found))
    if type(found) is staticmethod:
        found = found.__func__
    return tuple(steps) if found is obj else None


def class_method_path(method: Any) -> tuple[Step, ...] | None:
    """The same for a class method, bound to a class that travels by reference."""
    cls, fn = method.__self__, method.__func__
    steps = path(cls) if isinstance(cls, type) else None
    if steps is None:
        return None
    name = fn.__name__
    for base in cls.__mro__:
        found = vars(base).get(name, MISSING)
        steps = *steps, (vars(base), name, found)
        if found is not MISSING:
            return steps if type(found) is classmethod and found.__func__ is fn else None
    return None


def same_path(steps: Iterable[Step]) -> bool:
    for namespace, name, obj in steps:
        if namespace.get(name, MISSING) is not obj:
            return False
    return True


def same_items(now: Mapping[str, Any], then: Mapping[str, Any]) -> bool:
    """Whether a mapping has the same objects, in which `then` names functions by a weak reference."""
    if len(now) != len(then):
        return False
    for name, value in then.items():
        found = now.get(name, MISSING)
        if found is not value and (type(value) is not weakref.ref or value() is not found):
            return False
    return True


class FunctionLook:
    """All of one function that its encoding depends on, but for the insides of other functions."""

    __slots__ = ("code", "defaults", "kwdefaults", "name", "qualname", "module", "doc", "attributes", "annotations", "cells",
                 "globals")

    def __init__(self, fn: FunctionType, prover: Prover) -> None:
        facts = code.facts(fn.__code__)
        if facts.changes:
            raise Unprovable
        value = prover.value
        self.code = fn.__code__
        self.defaults = value(fn.__defaults__)
        self.kwdefaults = {k: value(x) for k, x in fn.__kwdefaults__.items()} if fn.__kwdefaults__ else None
        self.name, self.qualname, self.module, self.doc = fn.__name__, fn.__qualname__, fn.__module__, fn.__doc__
        if not all(map(immutable, (self.name, self.qualname, self.module, self.doc))):
            raise Unprovable
        self.attributes = {k: value(x) for k, x in fn.__dict__.items()}
        self.annotations = {k: prover.annotation(x) for k, x in fn.__annotations__.items()}
        try:
            self.cells = tuple([value(cell.cell_contents) for cell in fn.__closure__ or ()])
        except ValueError:  # a cell that is empty
            raise Unprovable from None
        namespace = fn.__globals__
        names = dict.fromkeys((*CONTEXT, *facts.names))
        self.globals = tuple([(k, value(namespace[k]) if k in namespace else MISSING) for k in names])
        for x in (*(namespace.get(k) for k in facts.names), *(cell.cell_contents for cell in fn.__closure__ or ())):
            if type(x) is ModuleType and hasattr(x, "__path__"):
                prover.stamp = modules.stamp()
        if facts.sets_attributes and any(type(x) is weakref.ref for x in (*self.cells, *(x for _, x in self.globals))):
            raise Unprovable  # it may be a function whose attribute it sets

    def same(self, fn: Any) -> bool:
        if not (fn.__code__ is self.code and fn.__defaults__ is self.defaults and fn.__name__ is self.name
                and fn.__qualname__ is self.qualname and fn.__module__ is self.module and fn.__doc__ is self.doc):
            return False
        kwdefaults = fn.__kwdefaults__
        if (kwdefaults or self.kwdefaults) and not same_items(kwdefaults or {}, self.kwdefaults or {}):
            return False
        attributes, annotations = fn.__dict__, fn.__annotations__
        if (attributes or self.attributes) and not same_items(attributes, self.attributes):
            return False
        if (annotations or self.annotations) and not same_items(annotations, self.annotations):
            return False
        if self.cells:
            for cell, value in zip(fn.__closure__ or (), self.cells, strict=True):
                found = cell.cell_contents
                if found is not value and (type(value) is not weakref.ref or value() is not found):
                    return False
        get = fn.__globals__.get
        for name, value in self.globals:
            found = get(name, MISSING)
            if found is not value and (type(value) is not weakref.ref or value() is not found):
                return False
        return True


class PartialLook:
    """The same of a functools.partial."""

    __slots__ = ("func", "args", "keywords")

    def __init__(self, fn: functools.partial[Any], prover: Prover) -> None:
        if fn.__dict__:
            raise Unprovable
        self.func = prover.value(fn.func)
        self.args = prover.value(fn.args)
        self.keywords = {k: prover.value(x) for k, x in fn.keywords.items()}

    def same(self, fn: Any) -> bool:
        func = self.func
        return (fn.args is self.args and not fn.__dict__ and same_items(fn.keywords, self.keywords)
                and (fn.func is func or type(func) is weakref.ref and func() is fn.func))


LOOKS: dict[type, Any] = {FunctionType: FunctionLook, functools.partial: PartialLook}


class Prover:
    """Walks through all that one callable refers to."""

    def __init__(self) -> None:
        self.looks: dict[int, tuple[Any, Any]] = {}  # by the id of a callable: it and its look
        self.steps: list[Step] = []
        self.stamp: tuple[int, str] | None = None
        self.todo: list[Any] = []

    def value(self, x: Any) -> Any:
        """How to recognise it: itself, or a weak reference to a callable whose look is taken too."""
        kind = type(x)
        if kind in ATOMS or immutable(x):
            return x
        if kind in LOOKS:
            steps = path(x) if kind is FunctionType else None
            if steps is None:
                self.todo.append(x)
                return weakref.ref(x)
            self.steps += steps
            return x
        if kind is ModuleType and modules.importable(x.__name__) and sys.modules.get(x.__name__) is x:
            return x
        if kind is re.Pattern or isinstance(x, Snapshot) or is_logger(x):
            return x
        return self.reference(x)

    def reference(self, x: Any) -> Any:
        """A class, a builtin function, or something else that pickle takes for a name."""
        steps = path(x)
        if steps is None or not (isinstance(x, type) or isinstance(x.__reduce_ex__(5), str)):
            raise Unprovable
        self.steps += steps
        return x

    def annotation(self, x: Any) -> Any:
        """Also what stands for a type: `list[int]`, `int | None`, `Sequence[T]`."""
        if x is type(None) or type(x) in TYPE_FORMS:
            return x
        if type(x).__module__ in ("types", "typing") and hasattr(x, "__args__"):
            for part in (getattr(x, "__origin__", None), *x.__args__, *getattr(x, "__metadata__", ())):
                self.annotation(part)
            return x
        return self.value(x)

    def take(self, fn: Any) -> None:
        """The looks of it and of everything it leads to."""
        self.todo.append(fn)
        while self.todo:
            fn = self.todo.pop()
            if id(fn) not in self.looks:
                self.looks[id(fn)] = fn, None
                self.looks[id(fn)] = fn, LOOKS[type(fn)](fn, self)


def is_logger(x: Any) -> bool:
    """Whether it travels as its name."""
    logging: Any = sys.modules.get("logging")
    return logging is not None and type(x) is logging.Logger and x.manager.loggerDict.get(x.name) is x


class Proof:
    """What one callable looked like, and all that it leads to."""

    __slots__ = ("look", "others", "steps", "stamp")

    def __init__(self, fn: Any) -> None:
        """Raises Unprovable, and what user code raises."""
        prover = Prover()
        prover.take(fn)
        self.look = prover.looks.pop(id(fn))[1]
        self.others = tuple([(weakref.ref(other), look) for other, look in prover.looks.values()])
        self.steps = tuple(prover.steps)
        self.stamp = prover.stamp

    def holds(self, fn: Any) -> bool:
        """Whether everything is as it was.  Raises what accessing changed things may raise: then it is not."""
        if not self.look.same(fn):
            return False
        for ref, look in self.others:
            other = ref()
            if other is None or not look.same(other):
                return False
        return same_path(self.steps) and (self.stamp is None or self.stamp == modules.stamp())


def prove(fn: Any) -> Proof | None:
    if type(fn) not in LOOKS:
        return None
    try:
        return Proof(fn)
    except Exception:  # Unprovable, or user code: annotations that are evaluated now
        return None


def holds(proof: Proof, fn: Any) -> bool:
    try:
        return proof.holds(fn)
    except Exception:  # a cell that is empty now, something that has another type now
        return False
