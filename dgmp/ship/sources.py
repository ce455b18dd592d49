"""Which modules are the user's own source, and may be edited while the program runs.

Those from a .py file outside of the standard library and of what was installed (site-packages), and namespace packages
there.  Called by api.edits in the program and runtime.modules in an M.
"""

from __future__ import annotations

import functools
import os
import sys
from types import ModuleType

_LIBRARY = os.path.realpath(os.path.dirname(os.__file__)) + os.sep
_INSTALLED = {"site-packages", "dist-packages"}


@functools.lru_cache(4096)
def is_local_folder(folder: str) -> bool:
    """Whether modules in it are the user's."""
    return not is_library(folder) and not is_library(os.path.realpath(folder))


def is_library(folder: str) -> bool:
    return (folder + os.sep).startswith(_LIBRARY) or not _INSTALLED.isdisjoint(folder.split(os.sep))


def is_local(path: str) -> bool:
    """Whether that source file is the user's."""
    return is_local_folder(os.path.dirname(path))


def file_of(module: ModuleType) -> str | None:
    """The source of a module of the user's; None if it is none."""
    path = getattr(module, "__file__", None)
    return path if isinstance(path, str) and path.endswith(".py") and is_local(path) else None


def is_namespace(module: ModuleType) -> bool:
    """Whether it is a namespace package of the user's: it has no source, but its modules are attributes of it."""
    if getattr(module, "__file__", None) is not None:
        return False
    try:
        paths = list(module.__path__)
    except (AttributeError, TypeError):
        return False
    return bool(paths) and all(map(is_local_folder, paths))


def names_of(path: str) -> set[str]:
    """What an edit of that file may be called: by its folder's real path, and if it is a link by its own."""
    folder, name = os.path.split(path)
    return {os.path.join(os.path.realpath(folder), name), os.path.realpath(path)}


def is_found(name: str, path: str) -> bool:
    """Whether others find a module of this process by its name in sys.path, or in its package."""
    package, _, child = name.rpartition(".")
    where = getattr(sys.modules.get(package), "__path__", ()) if package else sys.path
    folder, file = os.path.split(os.path.abspath(path))
    if file == "__init__.py":
        folder, file = os.path.split(folder)
        file += ".py"
    return file == f"{child}.py" and any(os.path.abspath(x) == folder for x in where if isinstance(x, str))
