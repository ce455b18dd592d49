"""msgpack, as messages, records and the store use it: a string may stand for bytes that are no UTF-8, as in os.environ."""

from __future__ import annotations

from typing import Any

import msgpack

LOSSLESS = "surrogateescape"


def pack(value: Any) -> bytes:
    """The value as bytes."""
    packed: bytes = msgpack.packb(value, unicode_errors=LOSSLESS)
    return packed


def unpack(data: bytes) -> Any:
    """The value that pack() was given; ValueError."""
    return msgpack.unpackb(data, strict_map_key=False, unicode_errors=LOSSLESS)


def stream() -> msgpack.Unpacker:
    """Takes values out of what comes through a socket: feed() it, and iterate."""
    return msgpack.Unpacker(strict_map_key=False, unicode_errors=LOSSLESS)
