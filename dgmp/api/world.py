"""Telling Gs of a program what it looks like: sys.path, the working directory, the environment, warnings filters, and which
source files have been edited.

Whoever spawns first asks the core whether something has changed (_core/world.c), and if so has it told here.  Called by
node.
"""

from __future__ import annotations

import threading

from .._core import View
from ..ship import world
from .edits import Edits


class Teller:
    """Keeps the world that the Gs get which a process spawns.

    Args:
        view: the process's; its spawns look for changes from now on.
    """

    def __init__(self, view: View) -> None:
        self.view = view
        self.lock = threading.RLock()
        self.edits: Edits | None = None
        view.world_look()
        self.base = world.capture()  # what the boot message says
        view.world_told(0)

    def watch_files(self) -> None:
        """From now on edits of source files are noticed."""
        self.edits = Edits(self.view)

    def tell(self, what: str) -> None:
        """`what` has changed (View.world_changed), or may have."""
        with self.lock:
            if self.edits is not None and not self.edits.look() and what == "files":
                return
            self.view.world_look()  # first: what changes from here on has changed since
            changes = world.difference(world.capture(), self.base)
            if self.edits is not None and self.edits.since_boot:
                changes["edits"] = self.edits.since_boot
            self.view.world_told(self.view.intern(world.encode(changes)) if changes else 0)

    def close(self) -> None:
        if self.edits is not None:
            self.edits.close()
