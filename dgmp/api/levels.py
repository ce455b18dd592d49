"""The client's logging levels, for Ms (runtime.logs), so that they make no records that nobody wants and all that somebody
does.

They are published in the function table when a G is spawned and they are new.  To see that costs next to nothing: every
change empties the cache of the root logger, so whether a mark of ours is in it tells the core (View.watch); and before
logging has been imported there is nothing to tell.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import msgpack

from .._core import View

MARK = "dgmp"
MOST = 64  # different ones in the function table, which forgets none; then only the lowest level is told


class Levels:
    """Keeps the Ms of one runtime informed.

    Args:
        view: the client's.
        tell: takes their key in the function table; None: for all Gs of the node.
    """

    def __init__(self, view: View, tell: Callable[[int], object] | None = None) -> None:
        self.view = view
        self.tell = tell or view.publish_levels
        self.lock = threading.RLock()  # a signal handler may spawn too
        self.keys: dict[bytes, int] = {}
        view.watch(sys.modules, "logging", True, self.publish)

    def publish(self) -> None:
        """Called when a G is about to be spawned."""
        logging: Any = sys.modules["logging"]
        if not hasattr(logging, "root"):  # another thread imports it; or it is a module of the user's own
            return
        with self.lock:
            cache = getattr(logging.root, "_cache", {})
            cache[MARK] = True  # first: what is changed meanwhile is told the next time
            self.view.watch(cache, MARK, False, self.publish)
            try:
                data = self.encode(snapshot(logging))
                if data not in self.keys:
                    self.keys[data] = self.view.intern(data)
            except (AttributeError, TypeError, ValueError, MemoryError):  # levels of a class of the user's own
                return
            self.tell(self.keys[data])

    def encode(self, levels: dict[str, Any]) -> bytes:
        if len(self.keys) > MOST:
            levels |= {"root": min([levels["root"], *levels["levels"].values()]), "levels": {}}
        return bytes(msgpack.packb(levels, unicode_errors="surrogatepass"))


def snapshot(logging: Any) -> dict[str, Any]:
    """What of the configuration decides whether a record is made."""
    root, manager = logging.root, logging.root.manager
    loggers = {name: logger for name, logger in list(manager.loggerDict.items()) if isinstance(logger, logging.Logger)}
    levels = {str(name): int(logger.level) for name, logger in loggers.items() if logger.level}
    handlers = any(not isinstance(handler, logging.NullHandler) for logger in (root, *loggers.values())
                   for handler in logger.handlers)
    return {"disable": int(manager.disable), "root": int(root.level), "handlers": handlers, "levels": levels}
