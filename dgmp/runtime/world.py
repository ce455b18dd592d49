"""What an M looks like: sys.path, working directory, environment, warnings filters and the user's modules, as the G that
runs must find them.

A G's slot names the world in which it was spawned (ship.world).  proc compares that with the one its M is in whenever a G
starts or goes on, and has the M enter it if it is another.  What Gs themselves change in their M lasts until then, or until
they end (runtime.undo).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from .._core import View
from ..ship import world
from .modules import Modules

UNKNOWN = 0xffffffff  # between two
HOME = "home"


class Worlds:
    """Takes an M from world to world.

    Args:
        view: the M's.
        filters: its warnings filters at boot, as the boot message has them.
    """

    def __init__(self, view: View, filters: list[world.Filter]) -> None:
        self.view = view
        self.current = 0
        self.base: world.World = {"path": list(sys.path), "cwd": HOME, "environ": {}, "filters": filters,
                                  "edits": {}, "places": {}}
        self.environ = dict(os.environ)  # at boot
        self.filters = filters  # those that are set
        self.modules = Modules()
        self.parked: Callable[[], list[int]] = list  # the worlds of Gs that are parked here
        self.entered: Callable[[], None] = lambda: None  # runtime.undo forgets what Gs have changed of it
        try:
            self.home = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            self.home = -1

    def enter(self, index: int) -> None:
        """Makes this process look like that world.

        Raises:
            OSError: its working directory cannot be entered; the M is in no world then.
        """
        self.become(UNKNOWN)
        new = self.of(index)
        self.set_environ(new["environ"])
        if sys.path != new["path"]:
            sys.path[:] = new["path"]
        if self.filters != new["filters"]:
            world.set_filters(new["filters"])
            self.filters = new["filters"]
        self.change_directory(new["cwd"])
        self.modules.find_at(new["places"])
        if new["edits"] != self.modules.edits:
            self.modules.enter(new["edits"], lambda: [self.of(x)["edits"] for x in self.parked()])
        self.entered()
        self.become(index)

    def become(self, index: int) -> None:
        """This process looks like that world."""
        self.current = index
        self.view.world_entered(index)

    def of(self, index: int) -> world.World:
        return self.base | (world.decode(self.view.function(index)) if index else {})

    def set_environ(self, changes: dict[str, str | None]) -> None:
        """As at boot but for `changes`: see world.difference."""
        new = {name: value for name, value in (self.environ | changes).items() if value is not None}
        for name in os.environ.keys() - new.keys():
            del os.environ[name]
        for name, value in new.items():
            if os.environ.get(name) != value:
                os.environ[name] = value

    def change_directory(self, to: tuple[str, int, int] | str | None) -> None:
        """HOME: to where we were at boot, even if that has been removed since.  So may be where we are."""
        try:
            if to == HOME:
                os.fchdir(self.home)
            elif to is None or world.identity() != to[1:]:
                os.chdir(to[0] if to else "")
        except OSError as e:
            text = f"{e.strerror}: the working directory in which this G was spawned"
            raise type(e)(e.errno, text, to[0] if to and to != HOME else None) from None
        for path in [x for x in sys.path_importer_cache if not os.path.isabs(x)]:
            sys.path_importer_cache.pop(path, None)
