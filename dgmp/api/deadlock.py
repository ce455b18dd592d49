"""Deadlock detection (Go: checkdead): when every G waits and nothing can wake any, who waits for them learns that.

The thread of the program that sits in a wait without a limit wakes up four times a second anyway, to see whether the
runtime is still there.  So it is the one that looks, and an idle runtime has nobody more who does.  The segment says
whether all are asleep (_core/checkdead.c); what else could bring something is looked for here:
  - another Python thread of the program, but for ours unless they run its code (callbacks, streams, logging handlers), or a
    handler that the program has installed for a signal;
  - another runtime of the program that has work, whose end may call something back;
  - a second thread of an M, which a G has left there;
and all that twice, at least 100 ms apart, with nothing done between.  False alarms are worse than misses: a C library's
thread in an M counts too (OpenBLAS makes some where OMP_NUM_THREADS says so), and what cannot be read counts as able to come.

Called by node (Client.checkdead).
"""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from .._core import View
from ..errors import Deadlock
from . import runtime
from .node import Node
from .output import Output
from .snapshot import take

if TYPE_CHECKING:
    from .client import Client

APART_NS = 100_000_000
RETRY_NS = 2_000_000_000  # when something outside may come, which is dearer to find out
MOST = 100  # Gs in the text of the error
IDLE = {Node.collect_for_ever.__code__, Output.show_for_ever.__code__}  # in these our threads wait, in others they work
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
    if something_may_come(client.view):
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


def something_may_come(view: View) -> bool:
    return other_threads() or other_runtimes(view) or any(map(is_users, signal.valid_signals())) or ms_have_threads(view)


def other_threads() -> bool:
    """Whether the program has another Python thread than the calling one, but for ours while they wait for something to do."""
    frames = sys._current_frames()
    if any(thread.ident not in frames for thread in threading.enumerate()):  # it begins, or is a library's that comes and goes
        return True
    del frames[threading.get_ident()]
    return any(frame.f_code not in IDLE for frame in frames.values())


def other_runtimes(view: View) -> bool:
    return any(other.node.view is not view and other.node.view.outstanding for other in list(runtime._runtimes))


def is_users(number: int) -> bool:
    """Whether the program has installed a handler for that signal."""
    handler: Any = signal.getsignal(number)
    if not callable(handler) or handler is signal.default_int_handler:
        return False
    return not str(getattr(handler, "__module__", "")).startswith("dgmp.")


def ms_have_threads(view: View) -> bool:
    """Whether an M has threads beside the main one and ours; or has died, and what it ran is still to be ended."""
    return any(threads(pid) > 1 + own for _, pid, _, _, _, _, own in view.ms())


def threads(pid: int) -> float:
    """How many threads a process has; infinity if it has died, or cannot be looked at."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return math.inf if fields[0] in b"ZX" else int(fields[17])
    except (OSError, IndexError, ValueError):
        return math.inf
