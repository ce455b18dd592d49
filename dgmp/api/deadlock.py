"""Deadlock detection (Go: checkdead): when every G waits and nothing can wake any, who waits for them learns that.

The thread of the program that sits in a wait without a limit wakes up four times a second anyway, to see whether the
runtime is still there.  So it is the one that looks, and an idle runtime has nobody more who does.  The segment says
whether all are asleep (_core/checkdead.c); what else could bring something is looked for here:
  - another Python thread of the program, but for ours unless they run its code (callbacks, streams, logging handlers), or a
    handler that the program has installed for a signal;
  - a second thread of an M, which a G has left there;
and all that twice, at least 100 ms apart, with nothing done between.  False alarms are worse than misses: a C library's
thread in an M counts too (OpenBLAS makes some where OMP_NUM_THREADS says so), and what cannot be read counts as able to come.

Called by node (Client.checkdead).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from .._core import View
from ..errors import Deadlock
from .snapshot import take

if TYPE_CHECKING:
    from .node import Client

APART_NS = 100_000_000
RETRY_NS = 2_000_000_000  # when something outside may come, which is dearer to find out
MOST = 100  # Gs in the text of the error
HEAD = "all goroutines are asleep - deadlock!"


def check(client: Client, done: int) -> None:
    """A thread of the client waits without limit, and by the segment all are asleep.

    Args:
        done: what View.checkdead has returned.

    Raises:
        Deadlock: for the second time, and nothing has happened since the first.
    """
    now = time.monotonic_ns()
    if now < client.look_again:
        return
    if something_may_come(client):
        client.asleep = None
        client.look_again = now + RETRY_NS
        return
    if client.asleep is None or client.asleep[0] != done:
        client.asleep = done, now
        return
    if now - client.asleep[1] < APART_NS or client.view.checkdead() != done:
        return
    client.asleep = None
    text = f"{HEAD}\n\n{take(client.view).dump(MOST)}"
    if not client.main_word:
        raise Deadlock(text)
    client.view.deadlocked(client.main_word, client.view.intern(text.encode("utf-8", "backslashreplace")))


def something_may_come(client: Client) -> bool:
    return (other_threads(client) or ours_run_user_code(client) or any(map(is_users, signal.valid_signals()))
            or ms_have_threads(client.view))


def other_threads(client: Client) -> bool:
    """Whether the program has another Python thread than the calling one."""
    ours = {threading.get_ident()}
    if client.collector is not None:
        ours.add(client.collector.ident or 0)
    if client.output is not None:
        ours.add(client.output.thread or 0)
    return not {*sys._current_frames(), *(thread.ident for thread in threading.enumerate())} <= ours


def ours_run_user_code(client: Client) -> bool:
    """Whether a callback is being called, or what Gs have printed or logged is being written."""
    if client.untold:
        return True
    if client.output is None:
        return False
    if not client.output.lock.acquire(blocking=False):
        return True
    client.output.lock.release()
    return False


def is_users(number: int) -> bool:
    """Whether the program has installed a handler for that signal."""
    handler: Any = signal.getsignal(number)
    if not callable(handler) or handler is signal.default_int_handler:
        return False
    return not str(getattr(handler, "__module__", "")).startswith("dgmp.")


def ms_have_threads(view: View) -> bool:
    """Whether an M has threads beside the main one and ours."""
    try:
        return any(len(os.listdir(f"/proc/{pid}/task")) > 1 + own for _, pid, _, _, _, _, own in view.ms())
    except OSError:  # one has just died
        return True
