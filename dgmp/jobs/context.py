"""ZeroMQ's context: where that could not make its threads, and would abort the process, there is an error.

Called by client and daemon.
"""

from __future__ import annotations

import threading

import zmq

from ..errors import DgmpError

THREADS = 2  # of a context: one reads and writes, one closes


class NoThreads(DgmpError):
    """There is no room for another thread."""


def new_context() -> zmq.Context[zmq.Socket[bytes]]:
    """A context, if it can have its threads now."""
    end = threading.Event()
    tried = [threading.Thread(target=end.wait) for _ in range(THREADS)]
    try:
        for thread in tried:
            thread.start()
    except RuntimeError:
        raise NoThreads("no thread can be made: this user has as many processes as ulimit -u allows, or this one as much "
                        "memory as ulimit -v allows") from None
    finally:
        end.set()
        for thread in tried:
            if thread.ident is not None:
                thread.join()
    return zmq.Context(io_threads=1)
