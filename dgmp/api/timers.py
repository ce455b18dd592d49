"""sleep, after_func and Timer (Go: time.Sleep, time.AfterFunc).

A G that sleeps is parked, with a timer in its M's heap (runtime.timers).  What after_func is to call is encoded at once, as
in `go`, and kept by the process that asked; a thread there, which lives while there is something to wait for, spawns the Gs.
So a timer does not keep a runtime from closing, and dies with its process.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._core import WHY_SLEEP
from ..errors import DgmpError
from ..runtime.timers import PAUSE, Timers
from ..ship import values
from . import runtime
from .future import Future, deadline_of

if TYPE_CHECKING:
    from .._core import Block
    from .node import Node

LONGEST_NS = 1 << 50  # a fortnight: what every kind of wait can take at once
FULL_NS = 1_000_000  # when to try again, where there is no slot for a G


def deadline_in(seconds: float, what: str) -> int | None:
    if seconds is None:
        raise TypeError(f"{what} needs a number of seconds, not None")
    return deadline_of(seconds)


def sleep(seconds: float) -> None:
    """The caller goes on after that time; in a G its M runs others meanwhile (Go: time.Sleep).

    A sleeping G takes no core and no process, only memory: ten thousand of them are nothing.  Outside of Gs the calling
    thread sleeps, as in `time.sleep`.

    Args:
        seconds: how long at least; 0 and less return at once, infinity never.

    Raises:
        TypeError, ValueError: seconds is no number, or NaN.
        Cancelled: the G was asked to end.

    Example:
        >>> import dgmp, time
        >>> began = time.monotonic()
        >>> dgmp.gather(*[dgmp.go(dgmp.sleep, 0.05) for _ in range(100)]).count(None)
        100
        >>> time.monotonic() - began < 2.5  # not 100 times 0.05 s
        True
    """
    deadline = deadline_in(seconds, "sleep")
    member = runtime._member
    if member is not None and member.m.in_g():
        member.park(PAUSE, deadline, WHY_SLEEP)
        return
    while (left := LONGEST_NS if deadline is None else deadline - time.monotonic_ns()) > 0:
        time.sleep(min(left, LONGEST_NS) / 1e9)


class Timer:
    """What after_func returns: a call that is made at a certain time (Go: time.Timer).

    Example:
        >>> import dgmp
        >>> timer = dgmp.after_func(3600, print, "too late")
        >>> timer.stop(), timer.stop()
        (True, False)
    """

    def __init__(self, node: Node, key: int, call: bytes | Block, name: str) -> None:
        self._node = node
        self._key = key
        self._call = call
        self._name = name
        self._timer: list[int] | None = None

    def stop(self) -> bool:
        """The call is not made, if it is still to be made.

        Returns:
            Whether that was so: False if its G has been started already, or it was stopped before.  It does not wait for
            the G's end.
        """
        with _alarms.lock:
            return _alarms.stop(self)

    def reset(self, seconds: float) -> bool:
        """The call is made so long from now on: later, sooner or once more.

        Args:
            seconds: as for `after_func`.

        Returns:
            What `stop` would have returned: whether the call was still to be made.

        Raises:
            TypeError, ValueError: seconds is no number, or NaN.
        """
        deadline = deadline_in(seconds, "reset")
        with _alarms.lock:
            active = _alarms.stop(self)
            _alarms.start(self, deadline)
        return active

    def __repr__(self) -> str:
        return f"<dgmp.Timer of {self._name} {'stopped' if self._timer is None else 'active'}>"

    def __reduce__(self) -> Any:
        raise TypeError("a dgmp.Timer stays in its process; send the process a message if another is to stop it")

    def _fire(self) -> bool:
        """Spawns the G; whether there was room for it."""
        try:
            return self._node.send(Future(self._node, call_late, self._name), self._key, self._call)
        except DgmpError:  # the runtime is gone, and its timers with it
            return True


def call_late(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """In the G: nobody asks for its result, so an error is logged where it happens."""
    try:
        fn(*args, **kwargs)
    except Exception:
        import logging

        logging.getLogger("dgmp").exception("%s, called by a timer, failed", values.describe(fn))


class Alarms:
    """The timers of this process, and the thread that waits for the first of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.timers = Timers()
        self.waiting: dict[int, Timer] = {}
        self.serial = 0
        self.thread: threading.Thread | None = None

    def start(self, timer: Timer, deadline: int | None) -> None:
        """With the lock held."""
        self.serial += 1
        timer._timer = self.timers.add(deadline if deadline is not None else 1 << 62, self.serial)
        self.waiting[self.serial] = timer
        if self.thread is None:
            self.thread = threading.Thread(target=self.run, name="dgmp-timers", daemon=True)
            self.thread.start()
        self.changed.notify()

    def stop(self, timer: Timer) -> bool:
        """With the lock held."""
        if timer._timer is None:
            return False
        del self.waiting[timer._timer[2]]
        self.timers.stop(timer._timer)
        timer._timer = None
        self.changed.notify()
        return True

    def run(self) -> None:
        with self.lock:
            while self.waiting:
                now = time.monotonic_ns()
                for serial in self.timers.expire(now):
                    self.fire(self.waiting.pop(serial))
                if self.waiting:
                    self.changed.wait(min(self.timers.wait(now), LONGEST_NS) / 1e9)
            self.thread = None

    def fire(self, timer: Timer) -> None:
        timer._timer = None
        if not timer._fire():
            self.start(timer, time.monotonic_ns() + FULL_NS)


_alarms = Alarms()


def any_armed() -> bool:
    """Whether a call is still to be made from this process."""
    return bool(_alarms.waiting)


def _forget() -> None:
    """In a forked child: the timers are its parent's."""
    global _alarms
    _alarms = Alarms()


os.register_at_fork(after_in_child=_forget)


def after_func(seconds: float, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Timer:
    """Runs `fn(*args, **kwargs)` as a G after that time, unless it is stopped before (Go: time.AfterFunc).

    The call is encoded now: what the arguments become later is not seen.  What fn raises is logged by the logger `dgmp`.  A
    timer keeps no runtime open: those that have not fired when it closes never do, nor do those of a process that has ended.

    Args:
        seconds: how long from now; 0 and less: at once.
        fn: the function.
        args, kwargs: its arguments, no Futures among them.

    Returns:
        The Timer, which can be stopped and reset.

    Raises:
        TypeError, ValueError: seconds is no number, or NaN; fn is no function.
        EncodingError: the function or an argument cannot be pickled.
        RuntimeClosed: the program is ending.

    Example:
        >>> import dgmp, os
        >>> r, w = os.pipe()
        >>> os.set_inheritable(w, True)
        >>> timer = dgmp.after_func(60, print)
        >>> timer.reset(3600)
        True
        >>> timer.stop()
        True
        >>> os.close(r), os.close(w)
        (None, None)
    """
    deadline = deadline_in(seconds, "after_func")
    if not callable(fn):
        raise TypeError(values.no_function(fn))
    node = runtime.node()
    if node.gone is not None:
        raise node.ended()
    timer = Timer(node, *node.encode(call_late, (fn, args, kwargs)), values.describe(fn))
    with _alarms.lock:
        _alarms.start(timer, deadline)
    return timer
