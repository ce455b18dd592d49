"""What an M looks like: sys.path, working directory, environment, warnings filters and the user's modules, as the G that
runs must find them.

A G's slot names the world in which it was spawned (ship.world), and the client that it works for, if that has attached to the
node.  Both together are the number of a world here.  proc compares it with that of the world its M is in whenever a G starts or
goes on, and has the M enter the other.  What Gs themselves change in their M lasts until then, or until they end
(runtime.undo).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from .._core import View
from ..ship import world
from .modules import CLIENT, Modules

UNKNOWN = 0xffffffff  # between two
INDEX = 0xffffffff  # of a number: the rest is the client's
HOME = "home"
MOST_KNOWN = 64  # worlds that are kept decoded


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
                                  "edits": {}, "places": {}, "levels": 0}
        self.known: dict[int, world.World] = {}
        self.environ = dict(os.environ)  # at boot
        self.filters = filters  # those that are set
        self.modules = Modules()
        self.parked: Callable[[], list[int]] = list  # the worlds of Gs that are parked here
        self.entered: Callable[[], None] = lambda: None  # runtime.undo forgets what Gs have changed of it
        self.levels = 0  # function table entry with logging levels, of a client that has attached
        self.new_levels: Callable[[], None] = lambda: None  # runtime.logs applies them
        try:
            self.home = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            self.home = -1

    def enter(self, number: int) -> None:
        """Makes this process look like that world.

        Raises:
            OSError: its working directory cannot be entered; the M is in no world then.
        """
        self.become(UNKNOWN)
        new = self.of(number)
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
        self.become(number)
        if self.levels != new["levels"]:
            self.levels = new["levels"]
            self.new_levels()

    def become(self, number: int) -> None:
        """This process looks like that world."""
        self.current = number
        self.view.world_entered(number)

    def of(self, number: int) -> world.World:
        new = self.known.get(number)
        if new is None:
            if len(self.known) >= MOST_KNOWN:
                self.known.clear()
            index, client = number & INDEX, number >> 32
            new = self.base | (world.decode(self.view.function(index)) if index else {})
            if client:
                new["edits"] = new["edits"] | {CLIENT: client}
            self.known[number] = new
        return new

    def client(self) -> int:
        """For whom the world is that we are in: 0 is who has booted the node."""
        return self.current >> 32

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
