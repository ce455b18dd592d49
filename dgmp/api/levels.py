"""The client's logging levels, for Ms (runtime.logs), so that they make no records that nobody wants and all that somebody
does.

They are published in the function table when a G is spawned and they are new.  To see that costs next to nothing: every
change empties the cache of the root logger, so a mark of ours in it tells that there was none; and before logging has been
imported there is nothing to tell.
"""

from __future__ import annotations

import sys
from typing import Any

import msgpack

from .._core import View

MARK = "dgmp"
MOST = 64  # different ones in the function table, which forgets none; then only the lowest level is told


class Levels:
    """What Ms know of them, and whether it is still true."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.keys: dict[bytes, int] = {}
        self.cache: dict[Any, Any] | None = None

    def watched(self) -> tuple[Any, dict[Any, Any], bool]:
        """(key, dict, bool): there is something new if the key's being in the dict is the bool."""
        return ("logging", sys.modules, True) if self.cache is None else (MARK, self.cache, False)

    def publish(self) -> None:
        """Tells the Ms."""
        logging = sys.modules.get("logging")
        if logging is None:
            return
        self.cache = getattr(getattr(logging, "root", None), "_cache", {})
        self.cache[MARK] = True  # first: what is changed meanwhile is told the next time
        try:
            data = self.encode(snapshot(logging))
        except (AttributeError, TypeError, ValueError):  # a module of that name, or levels, of the user's own
            return
        key = self.keys.get(data)
        if key is None:
            key = self.keys[data] = self.view.intern(data)
        self.view.publish_levels(key)

    def encode(self, levels: dict[str, Any]) -> bytes:
        if len(self.keys) > MOST:
            levels |= {"root": min([levels["root"], *levels["levels"].values()]), "levels": {}}
        return bytes(msgpack.packb(levels, unicode_errors="surrogatepass"))


def snapshot(logging: Any) -> dict[str, Any]:
    """What of the configuration decides whether a record is made."""
    manager = logging.root.manager
    levels = {str(name): int(logger.level) for name, logger in list(manager.loggerDict.items())
              if isinstance(logger, logging.Logger) and logger.level}
    return {"disable": int(manager.disable), "root": int(logging.root.level), "handlers": bool(logging.root.handlers),
            "levels": levels}
