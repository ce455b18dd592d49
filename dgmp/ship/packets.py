"""Packets of the output channel: what Gs print and log, on its way from their Ms to the client.

    one byte         what it is: STDOUT, STDERR or RECORD, and flags: BINARY (bytes, where else is UTF-8 text), PART
    "<IIII" if PART  the sender's pid, the message's number there, which part of how many
    the text, the bytes, or a log record (ship.records)

The channel is a SOCK_SEQPACKET socketpair that all Ms write to, so a packet arrives whole or not at all.  A message that
is too long for one goes in parts.  Called by runtime.output in an M and api.output in the client.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Iterable, Iterator

STDOUT, STDERR, RECORD = 0, 1, 2
BINARY, PART = 4, 8
MOST = 32 << 10  # bytes of a message in one packet; the core reads packets of up to 64 KiB
_HEADS = [bytes([what]) for what in range(16)]
_PART = struct.Struct("<BIIII")
_numbers = itertools.count()


def split(what: int, data: bytes) -> Iterable[bytes]:
    """The packets of a message."""
    if len(data) <= MOST:
        return (_HEADS[what] + data,)
    return split_long(what, data)


def split_long(what: int, data: bytes) -> Iterator[bytes]:
    pid, number = os.getpid(), next(_numbers) & 0xFFFFFFFF
    n = (len(data) + MOST - 1) // MOST
    for i in range(n):
        yield _PART.pack(what | PART, pid, number, i, n) + data[i * MOST:(i + 1) * MOST]


def kind(packet: bytes) -> int:
    """What it is, or is a part of."""
    return packet[0] & ~PART


class Joiner:
    """Puts parts together again.  Those of a sender that died half-way never make a message; the same one twice is one."""

    def __init__(self) -> None:
        self.parts: dict[tuple[int, int], dict[int, bytes]] = {}

    def message(self, packet: bytes) -> bytes | None:
        """The message that ends with this packet, if one does; what is no packet of ours is none."""
        if not packet[0] & PART:
            return packet[1:]
        if len(packet) < _PART.size:
            return None
        _, pid, number, i, n = _PART.unpack_from(packet)
        parts = self.parts.setdefault((pid, number), {})
        parts[i] = packet[_PART.size:]
        if len(parts) < n:
            return None
        del self.parts[pid, number]
        return b"".join(parts.values())
