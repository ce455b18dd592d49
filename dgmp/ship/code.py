"""Code objects: which globals they refer to, what they change, and their bytes.

`marshal`, as all processes of a node run the same interpreter: several times faster than a pickle of their eighteen parts.
A code object that came as bytes goes on as the same ones, so that all processes have one blob for one function.
Called by functions and dynamic.
"""

from __future__ import annotations

import marshal
import sys
import weakref
from collections.abc import Iterator
from types import CodeType, ModuleType
from typing import Any, Generic, TypeVar

from . import modules

T = TypeVar("T")
MOST_CODES = 4096
LOADS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
OF_CLASSES = frozenset({"__annotations__", "__conditional_annotations__"})  # a class body's own, though its module has one too
STORES = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL"})
CELL_STORES = frozenset({"STORE_DEREF", "DELETE_DEREF"})
ATTRIBUTE_STORES = frozenset({"STORE_ATTR", "DELETE_ATTR"})
# Whoever names one of these may change globals or functions without an instruction that says so.
SUSPICIOUS = frozenset({
    "__annotations__", "__closure__", "__code__", "__defaults__", "__delattr__", "__dict__", "__globals__",
    "__kwdefaults__", "__setattr__", "_getframe", "currentframe", "delattr", "eval", "exec", "globals", "setattr", "vars",
})


class ById(Generic[T]):
    """Values for objects that live, by their identity: a weak dict that calls no __hash__ and no __eq__."""

    def __init__(self) -> None:
        self.items: dict[int, tuple[weakref.ref[Any], T]] = {}

    def get(self, obj: Any) -> T | None:
        item = self.items.get(id(obj))
        return item[1] if item is not None else None

    def drop(self, obj: Any) -> None:
        self.items.pop(id(obj), None)

    def set(self, obj: Any, value: T) -> T:
        i, items = id(obj), self.items

        def gone(ref: weakref.ref[Any]) -> None:
            if i in items and items[i][0] is ref:
                del items[i]

        items[i] = weakref.ref(obj, gone), value
        return value


class Facts:
    """What the instructions of a code object, and of those within it, say."""

    __slots__ = ("names", "attributes", "changes", "sets_attributes", "submodules")

    def __init__(self, code: CodeType) -> None:
        import dis  # only for those who need it

        self.names: dict[str, None] = {}  # of globals, in order
        self.attributes: set[str] = set()  # all other names too
        self.changes = False  # a global, a variable of the function around it, or who knows
        self.sets_attributes = False
        self.submodules: dict[str, tuple[tuple[int, str], tuple[str, ...]]] = {}
        for inner in nested(code):
            self.attributes.update(inner.co_names)
            for x in dis.get_instructions(inner):
                of_class = x.opname == "LOAD_NAME" and x.argval in OF_CLASSES
                if x.opname in LOADS | STORES and not of_class:
                    self.names[x.argval] = None
                if x.opname in STORES or x.opname in CELL_STORES and x.argval in code.co_freevars:
                    self.changes = True
                if x.opcode in dis.hasname and x.argval in SUSPICIOUS and not of_class:
                    self.changes = True
                if x.opname in ATTRIBUTE_STORES:
                    self.sets_attributes = True

    def submodules_of(self, package: ModuleType) -> tuple[str, ...]:
        """Modules of the package that are imported here, and that the code reaches through it: `xml.dom` for xml."""
        now = modules.stamp()
        known = self.submodules.get(package.__name__)
        if known is None or known[0] != now:
            prefix = package.__name__ + "."
            names = [name for name in list(sys.modules) if isinstance(name, str) and name.startswith(prefix)]
            found = tuple(x for x in names if self.attributes.issuperset(x[len(prefix):].split(".")))
            known = self.submodules[package.__name__] = now, found
        return known[1]


def nested(code: CodeType) -> Iterator[CodeType]:
    """The code, and the code of all functions and classes within it."""
    todo = [code]
    while todo:
        yield (code := todo.pop(0))
        todo += [x for x in code.co_consts if isinstance(x, CodeType)]


_facts: ById[Facts] = ById()
_bytes: ById[bytes] = ById()
_codes: dict[bytes, CodeType] = {}


def facts(code: CodeType) -> Facts:
    return _facts.get(code) or _facts.set(code, Facts(code))


def dumps(code: CodeType) -> bytes:
    """Raises ValueError for a code object with constants that no compiler makes."""
    return _bytes.get(code) or _bytes.set(code, marshal.dumps(code))


def loads(data: bytes) -> CodeType:
    """One object for the same bytes: a code object cannot change."""
    code = _codes.get(data)
    if code is None:
        code = marshal.loads(data)
        if not isinstance(code, CodeType):
            raise ValueError("these bytes are no code object")
        if len(_codes) >= MOST_CODES:
            _codes.clear()
        _codes[data] = code
        _bytes.set(code, data)
    return code
