"""Something to be done as soon as a module has been imported, which it may never be."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec


def when_imported(name: str, act: Callable[[ModuleType], None]) -> None:
    """Calls act(module) now, or when user code imports it."""
    if name in sys.builtin_module_names:  # of some builds, where its loader is everybody's
        import_module(name)
    module = sys.modules.get(name)
    if module is not None:
        act(module)
    else:
        sys.meta_path.insert(0, Watch(name, act))


class Watch:
    """Stands in sys.meta_path until the module is asked for."""

    def __init__(self, name: str, act: Callable[[ModuleType], None]) -> None:
        self.name, self.act = name, act

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        from importlib.machinery import PathFinder

        with contextlib.suppress(ValueError):  # another thread was faster
            sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                self.act(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
