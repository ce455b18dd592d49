"""An M's side of binding to cores: it lets itself loose when it takes another P or starts a process.

Which M is bound, and to what, the coordinator decides (coordinator.binding); with pin=True an M binds itself as well, at
once.  A process that user code starts gets the mask the runtime was started with: everything through which Python starts
one is told beforehand.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from os import sched_setaffinity  # not what user code gets: runtime.undo notes that
from typing import Any

from .._core import View


class Affinity:
    """Which cores this M runs on.

    Args:
        view: the M's.
        cores: the whole set; P i belongs to cores[i % len(cores)].
        forced: pin=True.
    """

    def __init__(self, view: View, cores: list[int], forced: bool) -> None:
        self.view, self.cores, self.forced = view, cores, forced
        self.pid = os.getpid()

    def hold(self, p: int) -> None:
        """The M has P p now."""
        if self.view.bound != p:
            if self.forced:
                self.set([self.cores[p % len(self.cores)]], p)
            else:
                self.let_loose()

    def let_loose(self) -> None:
        if os.getpid() == self.pid and self.view.bound >= 0:  # not in a child that user code has forked: it is loose
            self.set(self.cores, -1)

    def set(self, cores: list[int], bound: int) -> None:
        with contextlib.suppress(OSError):  # the set has shrunk since: the kernel knows best
            sched_setaffinity(0, cores)
        self.view.set_bound(self.view.id, bound)

    def watch_process_starts(self) -> None:
        """subprocess and multiprocessing start theirs through _posixsubprocess.fork_exec."""
        import _posixsubprocess

        os.register_at_fork(before=self.let_loose)
        for module, name in ((_posixsubprocess, "fork_exec"), (os, "posix_spawn"), (os, "posix_spawnp"), (os, "system")):
            setattr(module, name, self.loose_before(getattr(module, name)))

    def loose_before(self, start: Callable[..., Any]) -> Callable[..., Any]:
        from functools import wraps

        @wraps(start)
        def loose(*args: Any, **kwargs: Any) -> Any:
            self.let_loose()
            return start(*args, **kwargs)

        return loose
