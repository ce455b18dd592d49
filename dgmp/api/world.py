"""Telling Gs of a program what it looks like: sys.path, the working directory, the environment, warnings filters, and which
source files have been edited.

Before it spawns, a node has the core look whether something has changed (_core/world.c), and if so it is told here.  Made by
runtime.
"""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING

from .._core import View
from ..runtime.world import Worlds
from ..ship import world

if TYPE_CHECKING:
    from .edits import Edits

MOST_WORLDS = 16_384  # of the function table's 65,536 entries


class Teller:
    """Keeps the world that the Gs get which a process spawns.

    Args:
        view: the process's; its spawns look for changes from now on.
        worlds: in an M, what takes it from one to another.  It may still run what it has loaded of an edited module, so the
            world that it is in itself has other edits.
        base: where others have booted the node, their world then; else ours is that.
    """

    def __init__(self, view: View, worlds: Worlds | None = None, base: world.World | None = None) -> None:
        self.view = view
        self.worlds = worlds
        self.lock = threading.RLock()
        self.edits: Edits | None = None
        self.indices: dict[bytes, int] = {}  # in the function table, of the worlds that have been
        self.last = 0
        self.levels = 0  # function table entry with our logging levels, if they are not for the whole node
        view.world_look()
        self.base = world.capture() if base is None else base  # what the boot message says
        view.world_told(0)
        view.tell_changes(self.tell)

    def watch_files(self) -> None:
        """From now on edits of source files are noticed."""
        with self.lock:
            from .edits import Edits

            self.edits = Edits(self.view)
            self.tell("state")

    def tell(self, what: str) -> None:
        """`what` has changed, or may have: View.look_for_changes calls this."""
        with self.lock:
            if self.edits is None:
                return self.watch_files()
            if not self.edits.look() and what == "files":
                return
            self.view.world_look()  # first: what changes from here on has changed since
            changes = world.difference(world.capture(), self.base) | ({"levels": self.levels} if self.levels else {})
            if self.worlds is not None:
                self.worlds.become(self.index_of(changes, self.worlds.modules.edits, self.worlds.modules.places))
            self.view.world_told(self.index_of(changes, self.edits.since_boot, self.edits.places))

    def publish_levels(self, key: int) -> None:
        """Our Gs find these logging levels from now on: others of the node have theirs."""
        with self.lock:
            self.levels = key
            self.tell("state")

    def index_of(self, changes: world.World, edits: dict[str, int], places: dict[str, str]) -> int:
        whole = changes | {name: value for name, value in (("edits", edits), ("places", places)) if value}
        if not whole:
            return 0
        data = world.encode(whole)
        index = self.indices.get(data)
        if index is None and len(self.indices) < MOST_WORLDS:
            index = self.indices[data] = self.view.intern(data)
        if index is None:  # the table keeps what it has got for ever
            warnings.warn(f"environment, working directory or sys.path have had {MOST_WORLDS} different states: Gs see no more "
                          f"changes of them", RuntimeWarning, stacklevel=4)
            index = self.last
        self.last = index
        return index

    def close(self) -> None:
        if self.edits is not None:
            self.edits.close()
