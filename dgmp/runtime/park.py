"""park_token, gopark, goready, gosched: for those who build their own primitives (Go: proc.go).

A token names a G.  goready leaves a permit with the G, a bit in its slot, and then readies it; gopark returns as soon as there
is a permit, and takes it.  The permit is what Go's unlockf and its lock are for: whoever readies a G that is still on its way
to park loses nothing.

dgmp.api registers its nodes with the package, so that this module imports nothing from above.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from .._core import WHY_CHAN_RECV, WHY_CHAN_SEND, WHY_IO, WHY_LOCK, WHY_OTHER, WHY_SELECT, WHY_SEMA, WHY_SLEEP, View
from . import nodes

REASONS = {"other": WHY_OTHER, "chan receive": WHY_CHAN_RECV, "chan send": WHY_CHAN_SEND, "select": WHY_SELECT,
           "semacquire": WHY_SEMA, "sleep": WHY_SLEEP, "IO wait": WHY_IO, "lock": WHY_LOCK}


class ParkToken:
    """Names a G, for goready; may be passed to any process of the node (Go: *g).

    Example:
        See `gopark`.
    """

    __slots__ = ("runtime", "word")

    def __init__(self, runtime: int, word: int) -> None:
        self.runtime, self.word = runtime, word

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ParkToken) and (self.runtime, self.word) == (other.runtime, other.word)

    def __hash__(self) -> int:
        return hash((self.runtime, self.word))

    def __repr__(self) -> str:
        return f"<dgmp.runtime.ParkToken {self.word:#x}>"

    def __reduce__(self) -> Any:
        return ParkToken, (self.runtime, self.word)


class Permit:
    """What a G is parked on: its permit."""

    __slots__ = ("view", "word")

    def __init__(self, view: View, word: int) -> None:
        self.view, self.word = view, word

    @property
    def _state(self) -> bool:
        return self.view.permitted(self.word)

    @property
    def _then(self) -> list[Any]:  # goready knows the word
        return []


def member() -> Any:
    """The node of this process, if the caller is a G."""
    for node in list(nodes.values()):
        m = getattr(node, "m", None)
        if m is not None and m.in_g():
            return node
    return None


def park_token() -> ParkToken:
    """The calling G's token, always the same one (Go: getg).

    Raises:
        RuntimeError: the caller is not in a G.

    Example:
        >>> import dgmp
        >>> from dgmp import runtime
        >>> dgmp.go(lambda: runtime.park_token() == runtime.park_token()).result()
        True
    """
    node = member()
    if node is None:
        raise RuntimeError("only a G can park; other threads wait with what threading has")
    return ParkToken(node.view.runtime_id, node.m.curg.word)


def gopark(token: ParkToken, reason: str = "other", timeout: float | None = None) -> bool:
    """Parks the calling G until somebody calls goready with its token; its M runs others meanwhile (Go: gopark).

    Go's warnings hold.  These are the scheduler's own bricks: for ordinary synchronization use channels, `Mutex` and
    the others.  A G that nobody readies stays parked for ever.  Publish the token first, then look once more whether what you
    wait for has come, then park: whoever makes it come must do that first and call goready after.  A goready before gopark
    is not lost, as the permit it leaves makes the next gopark return at once; but permits do not add up, and one may be left
    over from a wait that was given up.  So gopark tells only that somebody called: loop, and look at what you wait for.  What
    you wait for lies with you, so if the process that was to call goready is killed, nobody calls.

    Args:
        token: the calling G's own, of park_token.
        reason: why, for people and for the detection of deadlocks: "other", "chan receive", "chan send", "select",
            "semacquire", "lock"; "sleep" and "IO wait" for what an event from outside ends.
        timeout: seconds to wait at most; None: for ever.

    Returns:
        True after a goready; False: the time is up.

    Raises:
        Cancelled: the G was asked to end.
        RuntimeError: the caller is not the G that the token names.
        TypeError, ValueError: no such reason, or timeout is no number.

    Example:
        >>> import dgmp
        >>> from dgmp import runtime
        >>> class Event:
        ...     "One-shot, for the Gs of a process."
        ...     def __init__(self):
        ...         self.happened, self.waiters = False, []
        ...     def wait(self):
        ...         token = runtime.park_token()
        ...         self.waiters.append(token)
        ...         while not self.happened:
        ...             runtime.gopark(token)
        ...     def set(self):
        ...         self.happened = True
        ...         for token in self.waiters:
        ...             runtime.goready(token)
        >>> def main():
        ...     event, out = Event(), []
        ...     def late():
        ...         dgmp.sleep(0.01)
        ...         event.set()
        ...     import threading
        ...     thread = threading.Thread(target=late)
        ...     thread.start()
        ...     event.wait()
        ...     thread.join()
        ...     return event.happened
        >>> dgmp.go(main).result()
        True
    """
    if reason not in REASONS:
        raise ValueError(f"reason must be one of {', '.join(REASONS)}, not {reason!r}")
    node = member()
    if node is None or token != ParkToken(node.view.runtime_id, node.m.curg.word):
        raise RuntimeError("a G can only park itself: the token is another's")
    ready: bool = node.park(Permit(node.view, token.word), node.deadline(timeout), REASONS[reason])
    if ready:
        node.view.take_permit(token.word)
    return ready


def goready(token: ParkToken) -> bool:
    """Readies the G of the token: its gopark, this one or the next, returns (Go: goready).

    From any G, thread and process of the node.  What the G waits for must have been published before.  It runs soon, on its
    home M, not at once; the caller goes on.

    Args:
        token: of park_token.

    Returns:
        False: that G has ended.

    Raises:
        LookupError: no runtime of this process is the token's.

    Example:
        >>> import dgmp
        >>> from dgmp import runtime
        >>> def main():
        ...     token = runtime.park_token()
        ...     dgmp.go(runtime.goready, token)  # from another G, in whatever process
        ...     return runtime.gopark(token, timeout=60)
        >>> dgmp.go(main).result()
        True
    """
    node = nodes.get(token.runtime)
    if node is None:
        raise LookupError("the token's runtime is not one of this process, or it was closed")
    return bool(node.view.grant(token.word))


def gosched() -> None:
    """Gives way to other Gs, as `dgmp.gosched` (Go: runtime.Gosched).  Outside of Gs it gives way to other threads.

    The G stays runnable: it goes behind the other work of its M.  It is no way to wait for something: that would keep a core
    busy; park instead.

    Raises:
        Cancelled: the calling G was asked to end.

    Example:
        >>> import dgmp
        >>> from dgmp import runtime
        >>> dgmp.go(runtime.gosched).result()
    """
    node = member()
    if node is None or node.m.thread != threading.get_ident():
        time.sleep(0)
        return
    node.gosched()
