"""Which modules an M can import: what they define travels by reference, everything else by value.

An M can import what the import system finds under the module's name, if that is the same file.  It cannot import
`__main__`, a module that was made by hand or loaded from a file beside the path.  What is in a package goes with it.
Called by functions, dynamic and values.
"""

from __future__ import annotations

import os
import pickle
import sys
from types import MethodType, ModuleType
from typing import Any

MAIN = frozenset({"__main__", "__mp_main__"})  # the second: the same in a child of multiprocessing's
_known: dict[str, tuple[ModuleType | None, bool]] = {}  # of the first part of a module's name
_local: tuple[bytes, ...] = (b"__main__", b"__mp_main__")
_stamp: tuple[int, str] = (0, "")


def importable(name: str) -> bool:
    """Whether an M that imports `name` gets the module that this process has under it."""
    root = name.partition(".")[0]
    module = sys.modules.get(root)
    known = _known.get(root)
    if known is None or known[0] is not module:
        known = _known[root] = module, root not in MAIN and (root in sys.stdlib_module_names or _found(root, module))
    return known[1] and name in sys.modules


def by_reference(obj: Any) -> bool:
    """Whether a function or class is what an M gets that imports its module and looks for its qualified name there."""
    try:
        module, name = obj.__module__, obj.__qualname__
        if "<" in name or not importable(module):  # f.<locals>.g, <lambda>
            return False
        found = sys.modules[module]
        for part in name.split("."):
            found = getattr(found, part)
    except Exception:  # user code
        return False
    return found is obj


def is_global(obj: Any, name: str) -> bool:
    """Whether its module has it under that name, in an M too."""
    module = getattr(obj, "__module__", None)
    return isinstance(module, str) and importable(module) and getattr(sys.modules[module], name, None) is obj


def is_attribute(method: MethodType) -> bool:
    """Whether its object has it under its name."""
    try:
        return bool(getattr(method.__self__, method.__name__, None) == method)
    except Exception:  # user code
        return False


def stamp() -> tuple[int, str]:
    """Differs when a module was imported since."""
    return len(sys.modules), next(reversed(sys.modules))


def portable(data: bytes) -> bool:
    """Whether a stream of plain pickle means the same in an M: it refers to no module that only this process has."""
    return pickle.STACK_GLOBAL not in data or not any(name in data for name in local())


def local() -> tuple[bytes, ...]:
    """The names of modules that only this process has."""
    global _local, _stamp
    now = stamp()
    if now != _stamp:
        roots = {name.partition(".")[0] for name in list(sys.modules) if isinstance(name, str)}
        _local = tuple(x.encode("utf-8", "surrogatepass") for x in sorted(roots | MAIN) if x in MAIN or not importable(x))
        _stamp = now
    return _local


def _found(name: str, module: ModuleType | None) -> bool:
    """Whether the import system would find this module under its name."""
    file = getattr(module, "__file__", None)
    if isinstance(file, str) and getattr(module, "__spec__", None) is not None and _beside(file) in sys.path:
        return True
    spec = _find(name)
    if spec is None:
        return False
    origin = getattr(spec, "origin", None)
    return file is None and origin is None or _same_file(file, origin)


def _beside(file: str) -> str:
    """The entry of the path from which a module of that file was imported."""
    folder, name = os.path.split(file)
    return os.path.dirname(folder) if name.startswith("__init__.") else folder


def _find(name: str) -> Any:
    """Its spec, as `import` would find it if it were not imported yet."""
    for finder in list(sys.meta_path):
        try:
            spec = finder.find_spec(name, None)
        except Exception:  # user code
            continue
        if spec is not None:
            return spec
    return None


def _same_file(a: Any, b: Any) -> bool:
    return isinstance(a, str) and isinstance(b, str) and os.path.realpath(a) == os.path.realpath(b)
