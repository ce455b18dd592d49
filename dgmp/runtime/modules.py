"""The user's modules in an M, when their source has been edited since the program booted.

A G finds the modules as they are in the world that its go() saw (runtime.world).  If a loaded one was edited, this M drops
all of the user's, as any of them may hold something of it, and they are imported anew; but for C extensions, which cannot
be.  Gs that are parked here keep theirs: these are put aside, and are back when one of those Gs goes on.

A .pyc tells its source by size and second, so two edits in one second may look alike to it: what was edited is always
compiled from its source.

Where several programs share a node, each has its own: another may have other modules by the same names, and nobody has watched
what was edited before it came.  Those of the last few are put aside too, as they may take turns here.

Some of the program's modules are not to be found by their names in sys.path, as somebody has made them from files: pytest,
for one.  An M finds these where the world says that they are.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from types import CodeType, ModuleType

from ..ship import sources

ANY = "*"  # as in api.edits
CLIENT = ""  # in the edits of a client that has attached: its number
MOST_CLIENTS = 4  # whose modules are put aside
Edits = dict[str, int]


class Modules:
    """Takes an M from one state of the user's source files to another."""

    def __init__(self) -> None:
        self.of_dgmp = set(sys.modules)  # at boot there are no others; more of its own may come
        self.edits: Edits = {}
        self.aside: list[tuple[Edits, dict[str, ModuleType]]] = []
        self.places: dict[str, str] = {}  # files of modules that sys.path does not lead to
        self.finder: Finder | None = None
        self.forget: Callable[[], None] = lambda: None  # decoded functions: they belong to modules

    def enter(self, edits: Edits, needed: Callable[[], list[Edits]]) -> None:
        """The next G's world has these edits.  needed: those of Gs that are parked here."""
        old, self.edits = self.edits, edits
        self.need_finder()
        importlib.invalidate_caches()  # there may be new files in folders whose time says nothing
        mine = self.loaded()
        if any(self.is_edited(module, old, edits) for module in mine.values()):
            for name in mine:
                del sys.modules[name]
            self.aside.append((old, mine))
            self.forget()
        for known, modules in self.aside:
            if known == edits:
                sys.modules.update(modules)
        kept = needed()
        others = [x for x in self.aside if x[0].get(CLIENT) != edits.get(CLIENT)][-MOST_CLIENTS:]
        self.aside = [x for x in self.aside if x[0] != edits and (x[0] in kept or any(x is y for y in others))]

    def find_at(self, places: dict[str, str]) -> None:
        self.places = places
        if places:
            self.need_finder()

    def need_finder(self) -> None:
        if self.finder is None:
            self.finder = Finder(self)
            sys.meta_path.insert(0, self.finder)

    def loaded(self) -> dict[str, ModuleType]:
        return {name: module for name, module in list(sys.modules.items()) if name not in self.of_dgmp
                and name.partition(".")[0] not in ("dgmp", "__main__") and isinstance(module, ModuleType)
                and (sources.file_of(module) is not None or sources.is_namespace(module))}

    @staticmethod
    def is_edited(module: ModuleType, old: Edits, new: Edits) -> bool:
        path = sources.file_of(module)
        return path is not None and any(old.get(x) != new.get(x) for x in (CLIENT, ANY, *sources.names_of(path)))


class Finder:
    """Lets others find modules, but for those with a place, and has edited ones compiled from their source."""

    def __init__(self, modules: Modules) -> None:
        self.modules = modules

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        place = self.modules.places.get(name)
        spec = spec_from_file_location(name, place) if place is not None else self.found_by_others(name, path, target)
        if spec is None:
            return self.parent(name)
        if type(spec.loader) is SourceFileLoader and sources.is_local(spec.loader.path):
            spec.loader = Loader(spec.loader.name, spec.loader.path, self.modules.edits)
        return spec

    def found_by_others(self, name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        for finder in list(sys.meta_path):
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find and find(name, path, target)
            if spec is not None:
                return spec
        return None

    def parent(self, name: str) -> ModuleSpec | None:
        """An empty package, if modules with a place have it in their names."""
        if not any(x.startswith(name + ".") for x in self.modules.places):
            return None
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = []
        return spec


class Loader(SourceFileLoader):
    """As its base, but neither reads nor writes the .pyc of a file that has been edited."""

    def __init__(self, name: str, path: str, edits: Edits) -> None:
        super().__init__(name, path)
        self.edited = ANY in edits or not sources.names_of(path).isdisjoint(edits)

    def get_code(self, fullname: str) -> CodeType | None:
        if not self.edited:
            return super().get_code(fullname)
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        bind_children(module, sys.modules.items())


def bind_children(package: ModuleType, modules: Iterable[tuple[str, ModuleType]]) -> None:
    """Modules of it that were not dropped are attributes of it again."""
    for name, module in list(modules):
        parent, _, child = name.rpartition(".")
        if parent == package.__name__ and not hasattr(package, child):
            setattr(package, child, module)
