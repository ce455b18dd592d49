"""Logging in an M whose client handles the records.

What the client's configuration says about levels holds here too (api.levels publishes it), so that a record nobody wants
costs as little as at home.  The others go to the client, whose handlers, filters and levels decide.  For that a handler
stands in the place of logging.lastResort, and in the root logger if the client has handlers, so that basicConfig(...) does
here what it would do there.  What else user code configures in a G works as usual.

Called by workers.m (Levels), and by proc (look).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgpack

from ..ship import records
from ..ship.packets import RECORD

if TYPE_CHECKING:
    from .proc import M

DEFAULT: dict[str, Any] = {"disable": 0, "root": logging.WARNING, "handlers": False, "levels": {}}


class Forwarder(logging.Handler):
    """Sends records to the client."""

    def __init__(self, send: Callable[[int, bytes], None]) -> None:
        super().__init__()
        self.send = send
        self.words = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.send(RECORD, records.encode(record, self.words))
        except Exception:
            self.handleError(record)


class Levels:
    """The client's levels in this process.

    Args:
        m: the M.
        send: sends a message (ship.packets) to the client.
    """

    def __init__(self, m: M, send: Callable[[int, bytes], None]) -> None:
        self.view = m.view
        self.forwarder = Forwarder(send)
        self.applied = DEFAULT
        self.to_come: dict[str, int] = {}  # of loggers that are not there yet: user code may want them of another class
        self.get_logger = logging.root.manager.getLogger
        logging.root.manager.getLogger = self.get_new_logger  # type: ignore[method-assign]
        logging.lastResort = self.forwarder
        self.basic_config = logging.basicConfig
        logging.basicConfig = self.configure_explicitly
        m.new_levels = self.look
        self.look()
        self.worlds = m.worlds
        m.worlds.new_levels = self.look_at_world
        if m.worlds.levels:
            self.look_at_world()

    def configure_explicitly(self, **options: Any) -> None:
        """logging.warning() and the like call it without options when the root logger has no handler: the client may have."""
        if options:
            self.basic_config(**options)

    def look(self) -> None:
        """Called between two Gs when the client has published others."""
        key = self.view.new_levels()
        if key:
            with contextlib.suppress(Exception):  # loggers may be of a class of the user's
                self.apply(self.view.function(key))

    def look_at_world(self) -> None:
        """This M works for another client, or that one's levels are others."""
        with contextlib.suppress(Exception):
            self.apply(self.view.function(self.worlds.levels) if self.worlds.levels else msgpack.packb(DEFAULT))

    def get_new_logger(self, name: str) -> logging.Logger:
        for known in list(self.to_come):
            if f"{name}.".startswith(f"{known}."):
                self.get_logger(known).setLevel(self.to_come.pop(known))
        return self.get_logger(name)

    def apply(self, data: bytes) -> None:
        """Only what has changed: the rest may have been set by user code here."""
        was, now = self.applied, msgpack.unpackb(data, unicode_errors="surrogatepass")
        self.applied = now
        if now["disable"] != was["disable"]:
            logging.disable(now["disable"])
        if now["root"] != was["root"]:
            logging.root.setLevel(now["root"])
        if now["handlers"] != was["handlers"]:
            (logging.root.addHandler if now["handlers"] else logging.root.removeHandler)(self.forwarder)
        for name in was["levels"].keys() | now["levels"].keys():
            level = now["levels"].get(name, logging.NOTSET)
            if level != was["levels"].get(name, logging.NOTSET):
                self.set_level(name, level)

    def set_level(self, name: str, level: int) -> None:
        if name in logging.root.manager.loggerDict:  # it, or others below it
            self.get_logger(name).setLevel(level)
        elif level:
            self.to_come[name] = level
        else:
            self.to_come.pop(name, None)
