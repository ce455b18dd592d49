"""Shared objects (channels and the like) inside payloads: which of them a payload holds stands at its end.

An object that is pickled notes its word here (`note`, from its __reduce__); whoever has made a payload puts the words that
were noted meanwhile behind the stream, where no unpickler reads (`attach`).  The core keeps the objects of a payload that is
on its way alive by that.  Bytes that are pickled once and travel inside of other payloads again and again, such as those of
a task, note their words anew each time (`again`).

Called by values, dynamic, snapshot, chunk and failure; by api.chan, whose objects these are; and by runtime.
"""

from __future__ import annotations

import contextlib
import struct
from threading import get_ident
from typing import Any

from .._core import OBJECTS_MAGIC, View

END = struct.Struct("=QQ")
MAGIC = struct.pack("=Q", OBJECTS_MAGIC)

noted: dict[int, list[int]] = {}  # of a thread: words; mostly empty, so that a look at it is all there is to do
latest: dict[int, bytes] = {}  # of a thread: the words of what it encoded last


def note(word: int) -> None:
    """The object of that word is being pickled by this thread."""
    noted.setdefault(get_ident(), []).append(word)


def again(data: bytes) -> None:
    """data, a payload of its own, is being pickled."""
    if carries(data):
        noted.setdefault(get_ident(), []).extend(words(data))


def end(data: bytes) -> int:
    """Where in a payload that carries objects their words begin.  One that cannot have so many has none."""
    place = len(data) - END.size
    n, _ = END.unpack_from(data, place)
    return place - 8 * int(n) if n <= place // 8 else place


def words(data: bytes) -> tuple[int, ...]:
    """Of the objects in a payload that carries some."""
    begin = end(data)
    return struct.unpack_from(f"={(len(data) - END.size - begin) // 8}Q", data, begin)


def take() -> bytes:
    """What stands behind a stream for what this thread has noted; nothing is noted any more."""
    me = get_ident()
    mine = set(noted.pop(me, ()))
    if not mine:
        return b""
    latest[me] = stands = struct.pack(f"={len(mine)}Q", *mine) + END.pack(len(mine), OBJECTS_MAGIC)
    return stands


def hold(view: View) -> Any:
    """The objects of what this thread has encoded last: they stay as long as the caller keeps this."""
    data = latest.pop(get_ident(), None)
    if data is None:
        return None
    with contextlib.suppress(LookupError):  # of another runtime
        return [view.handle(word) for word in words(data)]


def carries(data: object) -> bool:
    """Whether there are objects in a payload."""
    return isinstance(data, bytes) and len(data) >= END.size and data.endswith(MAGIC)
