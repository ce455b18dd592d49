"""To which program an M sends what Gs print and log, where several share a node.

That of the client for which the G works that runs: the one that has booted the node, whose channel every M has from its
beginning, or one that has attached, whose channel is asked of the coordinator when it is first needed (coordinator.sessions).
What is sent to one that has left goes nowhere.  A G whose client does not read parks until that does: else one client that is
stopped would keep from the others every M in which something is printed for it.  Called by workers.m.
"""

from __future__ import annotations

import fcntl
import os
import socket
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from . import undo

if TYPE_CHECKING:
    from .proc import M

SECONDS = 2.0  # longer the coordinator is not waited for
HIGH = 500  # a descriptor from there on is in nobody's way
MOST = 32  # channels are kept: as many as there can be clients


class Channels:
    """The channels that an M knows.

    Args:
        m: the M.
        first: that of the client which has booted the node.
        path: where the node listens.
        wait: parks the calling G until a descriptor is writable.
    """

    def __init__(self, m: M, first: socket.socket, path: str, wait: Callable[[int], object]) -> None:
        self.m, self.path, self.wait = m, path, wait
        self.known: dict[int, socket.socket | None] = {0: first}  # None: it has left

    def send(self, packets: Iterable[bytes]) -> None:
        """To the client of the G that runs.

        Raises:
            OSError: it has just left.
            Cancelled: the G is to end, which waited for its client.
        """
        channel = self.current()
        if channel is None:
            return
        parks = self.m.in_g() and threading.get_ident() == self.m.thread
        flags = socket.MSG_NOSIGNAL | (socket.MSG_DONTWAIT if parks else 0)
        for packet in packets:
            while True:
                try:
                    channel.send(packet, flags)
                    break
                except BlockingIOError:
                    self.wait(channel.fileno())

    def current(self) -> socket.socket | None:
        """Of the G that runs; None: its client has left.

        Raises:
            OSError: it cannot be had now.
        """
        client = self.client()
        if client not in self.known:
            channel = self.ask(client)
            if len(self.known) > MOST:
                self.forget()
            self.known[client] = channel
        return self.known[client]

    def client(self) -> int:
        m = self.m
        if m.asyncs is not None and m.curg is m.asyncs.g:  # one loop runs those of all clients
            return m.asyncs.running_g().world >> 32
        return m.worlds.client()

    def ask(self, client: int) -> socket.socket | None:
        from ..coordinator import sessions

        with sessions.connect(self.path, SECONDS) as connection:
            sessions.send(connection, {"protocol": sessions.PROTOCOL, "output": client}, [])
            _, fds = sessions.receive(connection, 1)
        if not fds:
            return None
        try:
            high = fcntl.fcntl(fds[0], fcntl.F_DUPFD_CLOEXEC, HIGH)
        finally:
            os.close(fds[0])
        undo.keep(high)
        return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, high)

    def forget(self) -> None:
        """Most of them have left; who has not is asked for again."""
        for client in [client for client in self.known if client]:
            channel = self.known.pop(client)
            if channel is not None:
                undo.keep_no_more(channel.fileno())
                channel.close()
