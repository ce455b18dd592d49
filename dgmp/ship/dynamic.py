"""Functions and classes by value: those of `__main__`, of notebooks, of other functions, of modules an M cannot import.

cloudpickle, with ways of our own for functions, here, for classes (classes), and for what wraps functions (wrappers).  A
function is its code's bytes (code.dumps), its cells, and those globals that it refers to; functions of one stream share
globals and cells as they did here.  Called by values and others of ship.
"""

from __future__ import annotations

import builtins
import importlib
import io
import pickle
import threading
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

import cloudpickle

from . import classes, modules, travel, values, wrappers
from . import code as codes

FILENAME = 10  # which argument of CodeType (3.11 and newer) it is
GLOBALS = ("__name__", "__package__", "__path__", "__file__")  # for relative imports inside of the function
_reduce_code = cloudpickle.CloudPickler.dispatch_table[CodeType]


class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    """Pickles what cloudpickle does."""

    dump = pickle.Pickler.dump  # a RecursionError stays one

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is FunctionType:
            return NotImplemented if obj in OURS or modules.by_reference(obj) else self.reduce_function(obj)
        if obj is threading.Lock:  # `from threading import Lock`: an M has its own
            return lock_maker, ()
        if issubclass(type(obj), type):
            classes.by_value_with_its_module(obj)
            reduced = super().reducer_override(obj)
            return self.reduce_class(obj, *reduced) if isinstance(reduced, tuple) and len(reduced) == 6 else reduced
        if type(obj) is ModuleType:
            classes.by_value_with_its_module(obj)
        return NotImplemented

    def reduce_function(self, fn: FunctionType) -> tuple[Any, ...]:
        if wrappers.is_dispatcher(fn):
            return wrappers.reduce_dispatcher(fn)
        base = self.globals_ref.setdefault(id(fn.__globals__), {})
        if not base:
            base.update((name, fn.__globals__[name]) for name in GLOBALS if name in fn.__globals__)
        namespace = fn.__globals__
        facts = codes.facts(fn.__code__)
        used = {name: namespace[name] for name in facts.names if name in namespace}
        reached = [*used.values(), *cell_contents(fn)]
        submodules = [name for x in reached if type(x) is ModuleType for name in facts.submodules_of(x)]
        state = (used, fn.__name__, fn.__qualname__, fn.__module__, fn.__doc__, fn.__defaults__, fn.__kwdefaults__,
                 annotations_of(fn), fn.__dict__, submodules)
        return make_function, (code_part(fn.__code__), base, fn.__closure__), state, None, None, set_function

    def reduce_class(self, cls: type, make: Any, args: Any, state: Any, _: Any, __: Any, set_state: Any) -> tuple[Any, ...]:
        return classes.reduce_class(cls, make, args, state, set_state)


class ResultPickler(Pickler):
    """For results: a class that the receiver has already stays as it is there."""

    def reduce_class(self, cls: type, make: Any, args: Any, *rest: Any) -> tuple[Any, ...]:
        return classes.reduce_known_class(cls, args, dumps)


def annotations_of(fn: FunctionType) -> dict[str, Any]:
    try:
        return fn.__annotations__
    except Exception:  # 3.14 evaluates them now, and not all names need be there
        return {}


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


def reduce_cell(cell: CellType) -> tuple[Any, ...]:
    """The content after the cell, as it may refer to it."""
    try:
        return make_cell, (), (cell.cell_contents,), None, None, set_cell
    except ValueError:
        return make_cell, ()


def lock_maker() -> Any:
    return threading.Lock


def make_cell() -> CellType:
    return CellType()


def set_cell(cell: CellType, state: tuple[Any]) -> None:
    cell.cell_contents = state[0]


OURS: frozenset[Any] = frozenset({
    make_function, set_function, make_cell, set_cell, classes.make_class, classes.set_class, classes.find_class})
Pickler.dispatch_table = cloudpickle.CloudPickler.dispatch_table.new_child(
    {CodeType: reduce_code, CellType: reduce_cell, **values.REDUCERS, **classes.REDUCERS, **wrappers.REDUCERS})


def dumps(obj: Any) -> bytes:
    """In one piece."""
    file = io.BytesIO()
    Pickler(file, protocol=5).dump(obj)
    return file.getvalue() + travel.take() if travel.noted else file.getvalue()
