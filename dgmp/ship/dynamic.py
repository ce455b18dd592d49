"""Functions and classes by value: those of `__main__`, of notebooks, of other functions, of modules an M cannot import.

cloudpickle, with some things of our own.  A function is its code's bytes (code.dumps), its cells, and those globals that
it refers to; functions of one stream share globals and cells as they did here.  A class belongs to the process that made it:
wherever an instance comes back to, its class there is left alone.  And what `functools.lru_cache` returns travels too, but
no open text file: it would arrive as a copy of its content.
Called by values.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import importlib
import io
import os
import pickle
import sys
import weakref
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import cloudpickle

from . import code as codes
from . import modules
from .values import REDUCERS

FILENAME = 10  # which argument of CodeType (3.11 and newer) it is
GLOBALS = ("__name__", "__package__", "__path__", "__file__")  # for relative imports inside of the function
CACHED = type(functools.lru_cache(len))
_reduce_code = cloudpickle.CloudPickler.dispatch_table[CodeType]
_reduce_file = cloudpickle.CloudPickler.dispatch_table[io.TextIOWrapper]
_classes: weakref.WeakValueDictionary[str, type] = weakref.WeakValueDictionary()  # by cloudpickle's id: ours, and what came
_came: codes.ById[set[str]] = codes.ById()  # those that came, and the names of what came with them
_definitions: codes.ById[bytes] = codes.ById()  # as they go into results
_here = os.urandom(8)  # this process's name


class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    """Pickles what cloudpickle does."""

    dump = pickle.Pickler.dump  # a RecursionError stays one

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is FunctionType:
            return NotImplemented if modules.by_reference(obj) else self.reduce_function(obj)
        if issubclass(type(obj), type):
            by_value_with_its_module(obj)
            reduced = super().reducer_override(obj)
            return self.reduce_class(obj, *reduced) if isinstance(reduced, tuple) and len(reduced) == 6 else reduced
        if type(obj) is ModuleType:
            by_value_with_its_module(obj)
        return NotImplemented

    def reduce_function(self, fn: FunctionType) -> tuple[Any, ...]:
        base = self.globals_ref.setdefault(id(fn.__globals__), {})
        if not base:
            base.update((name, fn.__globals__[name]) for name in GLOBALS if name in fn.__globals__)
        facts = codes.facts(fn.__code__)
        used = {name: fn.__globals__[name] for name in facts.names if name in fn.__globals__}
        reached = [*used.values(), *cell_contents(fn)]
        submodules = [name for x in reached if isinstance(x, ModuleType) for name in facts.submodules_of(x)]
        state = (used, fn.__name__, fn.__qualname__, fn.__module__, fn.__doc__, fn.__defaults__, fn.__kwdefaults__,
                 fn.__annotations__, fn.__dict__, submodules)
        return make_function, (code_part(fn.__code__), base, fn.__closure__), state, None, None, set_function

    def reduce_class(self, cls: type, make: Any, args: tuple[Any, ...], state: Any, _: None, __: None, set_state: Any) -> tuple[
        Any, ...
    ]:
        """The class as it is now; where it came from, and where it came from here, nothing of it changes."""
        tracker = class_id(cls, args)
        return make_class, (tracker, make, with_slots(cls, args)), (_here, set_state, state), None, None, set_class


class ResultPickler(Pickler):
    """For results: a class that the receiver has already stays as it is there."""

    def reduce_class(self, cls: type, make: Any, args: tuple[Any, ...], *rest: Any) -> tuple[Any, ...]:
        return find_class, (class_id(cls, args), definition(cls))


def code_part(code: CodeType) -> bytes | CodeType:
    try:
        return codes.dumps(code)
    except ValueError:
        return code


def cell_contents(fn: FunctionType) -> list[Any]:
    """Those of the cells that are not empty."""
    contents = []
    for cell in fn.__closure__ or ():
        try:
            contents.append(cell.cell_contents)
        except ValueError:
            continue
    return contents


def make_function(code: bytes | CodeType, namespace: dict[str, Any], closure: tuple[CellType, ...] | None) -> FunctionType:
    namespace.setdefault("__builtins__", builtins)
    return FunctionType(codes.loads(code) if isinstance(code, bytes) else code, namespace, None, None, closure)


def set_function(fn: FunctionType, state: tuple[Any, ...]) -> None:
    (used, fn.__name__, fn.__qualname__, fn.__module__, fn.__doc__, fn.__defaults__, kwdefaults, annotations, attributes,
     submodules) = state
    fn.__globals__.update(used)
    if kwdefaults:
        fn.__kwdefaults__ = kwdefaults
    if annotations:
        fn.__annotations__ = annotations
    if attributes:
        fn.__dict__.update(attributes)
    for name in submodules:
        importlib.import_module(name)


def reduce_code(code: CodeType) -> tuple[Any, ...]:
    try:
        return codes.loads, (codes.dumps(code),)
    except ValueError:  # cloudpickle's way, but it replaces the file name
        make, args = _reduce_code(code)
        return make, (*args[:FILENAME], code.co_filename, *args[FILENAME + 1:])


def reduce_file(file: io.TextIOWrapper) -> Any:
    if file is sys.stdout or file is sys.stderr:
        return _reduce_file(file)
    raise TypeError("cannot pickle '_io.TextIOWrapper' object")


def reduce_cell(cell: CellType) -> tuple[Any, ...]:
    """The content after the cell, as it may refer to it."""
    try:
        return make_cell, (), (cell.cell_contents,), None, None, set_cell
    except ValueError:
        return make_cell, ()


def make_cell() -> CellType:
    return CellType()


def set_cell(cell: CellType, state: tuple[Any]) -> None:
    cell.cell_contents = state[0]


def by_value_with_its_module(obj: Any) -> None:
    """Tells cloudpickle about a module that an M cannot import."""
    name = getattr(obj, "__name__" if type(obj) is ModuleType else "__module__", None)
    if isinstance(name, str) and name != "__main__" and not modules.importable(name):
        module = sys.modules.get(name)
        if isinstance(module, ModuleType) and module.__name__ == name:
            cloudpickle.register_pickle_by_value(module)


def class_id(cls: type, args: tuple[Any, ...]) -> str:
    """cloudpickle's id of the class, from what it makes the class of."""
    tracker: str = args[-2]
    _classes.setdefault(tracker, cls)
    return tracker


def with_slots(cls: type, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """cloudpickle leaves out that instances have no __dict__; then their state does not fit."""
    slots = cls.__dict__.get("__slots__")
    if not isinstance(slots, (str, tuple, list, dict)) or len(args) != 6 or issubclass(cls, tuple):
        return args  # an enum, or a named tuple, which has them anyway
    meta, name, bases, namespace, *rest = args
    return meta, name, bases, {**namespace, "__slots__": slots}, *rest


def make_class(tracker: str, make: Any, args: tuple[Any, ...]) -> type:
    cls: type | None = _classes.get(tracker)
    if cls is None:
        cls = make(*args)
        if _classes.setdefault(tracker, cls) is cls:
            _came.set(cls, set())
    return cls


def set_class(cls: type, came: tuple[bytes, Any, tuple[dict[str, Any], Any]]) -> None:
    """Makes the class what it was where it was pickled, unless it is ours."""
    origin, set_state, state = came
    had = _came.get(cls)
    if had is None or had and origin == _here:
        return
    set_state(cls, state)
    for name in had.difference(state[0]):  # deleted there, or now the base class's own object
        with contextlib.suppress(AttributeError, TypeError):  # __module__ stays
            delattr(cls, name)
    had.clear()
    had.update(state[0])


def definition(cls: type) -> bytes:
    """What a receiver makes the class of if it has none; as it was first seen."""
    known = _definitions.get(cls)
    if known is None:
        try:
            known = dumps(cls)
        except Exception:
            if _came.get(cls) is None:
                raise
            known = b""  # it came from elsewhere, and cannot any more: somebody has set an attribute
        _definitions.set(cls, known)
    return known


def find_class(tracker: str, data: bytes) -> type:
    cls: type | None = _classes.get(tracker)
    if cls is None:
        cls = pickle.loads(data)
    return cls


def renew() -> None:
    global _here
    _here = os.urandom(8)


os.register_at_fork(after_in_child=renew)


def reduce_method(method: MethodType) -> tuple[Any, ...]:
    """As plain pickle does, if that leads to it: its function need not travel then."""
    if modules.is_attribute(method):
        return getattr, (method.__self__, method.__name__)
    return MethodType, (method.__func__, method.__self__)


def reduce_cached(fn: Any) -> tuple[Any, ...]:
    if modules.by_reference(fn):
        return fn.__reduce__()  # type: ignore[no-any-return]
    attributes = {k: v for k, v in vars(fn).items() if k not in ("__wrapped__", "cache_parameters")}
    return make_cached, (fn.__wrapped__, fn.cache_parameters()), attributes


def make_cached(fn: Any, parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(fn)


Pickler.dispatch_table = cloudpickle.CloudPickler.dispatch_table.new_child({
    CodeType: reduce_code, CellType: reduce_cell, MethodType: reduce_method, CACHED: reduce_cached,
    io.TextIOWrapper: reduce_file, **REDUCERS})


def dumps(obj: Any) -> bytes:
    """In one piece."""
    file = io.BytesIO()
    Pickler(file, protocol=5).dump(obj)
    return file.getvalue()
