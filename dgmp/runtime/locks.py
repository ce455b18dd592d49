"""The locks of `threading` in an M: G-aware ones (_core/bind_lock.c), which user code finds in the place of CPython's.

Gs of one M share a thread, and `threading` cannot tell them apart.  So before user code runs, the zygote puts locks that can
into threading, and with them into all that is built on it: Condition, Event, Semaphore, Barrier, queue.Queue, logging, pools.
A G that must wait for one parks, whoever holds it, and its M runs other Gs; other threads, and the scheduler, wait as ever.
So does a G that joins a thread, which may want the lock of another G of this M.
The import system's locks tell by thread who imports what: it gets a number for each G instead, so that a G never finds a
module half made that another G of its M imports.  `_thread.allocate_lock` and `_thread.RLock` stay what they are.

What cannot be told apart: `threading.local`, `threading.get_ident` and `_thread`'s own locks are by thread.  Locks of C code
(io's buffers, `queue.SimpleQueue`) block the thread; no G is parked while it holds one of io's, as preemption stays away.

Called by workers.zygote (install) and workers.m (park_gs).
"""

from __future__ import annotations

import _thread
import importlib._bootstrap
import sys
import threading
import time
import types
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from .._core import WHY_LOCK, Lock, RLock, allocate_lock, lock_owner

if TYPE_CHECKING:
    from .proc import M

# CPython's, and what stands in for it: up to 3.12 threading.Lock is a function, from 3.13 on a class.
NEW_LOCK: Any = Lock if isinstance(threading.Lock, type) else allocate_lock
PLAIN_LOCK, PLAIN_RLOCK = type(_thread.allocate_lock()), _thread.RLock
MAKERS: dict[Any, Any] = {_thread.allocate_lock: NEW_LOCK, threading.Lock: NEW_LOCK, PLAIN_RLOCK: RLock}


def install() -> None:
    """In a process with one thread, before it runs user code: the locks that modules hold, and those they will make."""
    for module in list(sys.modules.values()):
        if type(module) is types.ModuleType and module.__name__ not in ("_thread", __name__):
            replace(vars(module))
    bootstrap: Any = importlib._bootstrap
    bootstrap._thread = types.SimpleNamespace(get_ident=lock_owner, allocate_lock=NEW_LOCK, RLock=RLock)
    if "logging" in sys.modules:  # somebody's site did that
        for ref in sys.modules["logging"]._handlerList:
            if (handler := ref()) is not None and handler.lock is not None:
                handler.lock = RLock()


def replace(names: dict[str, Any]) -> None:
    """The locks among a module's globals, which nobody holds now, and the functions that make them."""
    for name, value in list(names.items()):
        kind = type(value)
        if kind is PLAIN_LOCK:
            names[name] = Lock()
        elif kind is PLAIN_RLOCK:
            names[name] = RLock()
        elif (kind is types.BuiltinFunctionType or kind is type) and value in MAKERS:
            names[name] = MAKERS[value]


def park_gs(m: M, park: Callable[..., bool]) -> None:
    """From here on the Gs of m park when they wait for a lock; they can be cancelled there.

    Args:
        m: the M.
        park: Member.park, in which every blocking call of a G waits.
    """

    def park_waiter(waiter: Any, deadline: int | None) -> bool:
        if not m.in_g():
            return False
        park(waiter, deadline, WHY_LOCK, lambda: not waiter._state)
        return True

    m.view.park_waiters(park_waiter)
    watch_thread_ends(m)


def watch_thread_ends(m: M) -> None:
    """A G of m that joins a thread parks until that has ended, but for what the interpreter tidies up then."""
    join, delete = threading.Thread.join, threading.Thread._delete  # type: ignore[attr-defined]
    joiners: dict[int, list[Lock]] = {}  # by the id of the thread's object

    def wait(thread: threading.Thread, timeout: float | None) -> None:
        ended = Lock()
        ended.acquire()
        waiting = joiners.setdefault(id(thread), [])
        waiting.append(ended)
        try:
            if threading._active.get(thread.ident) is thread:  # type: ignore[attr-defined]
                ended.acquire(timeout=-1 if timeout is None else min(max(timeout, 0), threading.TIMEOUT_MAX))
        finally:
            waiting.remove(ended)
            if not waiting:
                joiners.pop(id(thread), None)

    @wraps(join)
    def join_parked(self: threading.Thread, timeout: float | None = None) -> None:
        begun = time.monotonic()
        if m.in_g() and self.ident is not None and self is not threading.current_thread():
            wait(self, timeout)
        join(self, None if timeout is None else max(0, begun + timeout - time.monotonic()))

    @wraps(delete)
    def delete_and_tell(self: threading.Thread) -> None:
        delete(self)
        for ended in list(joiners.get(id(self), ())):
            ended.release()

    threading.Thread.join = join_parked  # type: ignore[method-assign]
    threading.Thread._delete = delete_and_tell  # type: ignore[attr-defined]
