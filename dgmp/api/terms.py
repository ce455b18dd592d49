"""What the owner of a G says about how it may fail: the parameters of `spawn` that are no part of the call (ship.terms)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import WorkerDied
from ..runtime.numbers import at_least
from ..ship import values
from ..ship.terms import AFTER_DEATH, AFTER_TIMEOUT, MOST_RETRIES, NO_GRACE, Terms

if TYPE_CHECKING:
    from .node import Node

Errors = type[BaseException] | tuple[type[BaseException], ...]

BY_DEFAULT = 0  # of the runtime: in the place of a limit, and of a grace
LONGEST_PAUSE_NS = 60_000_000_000
MOST_PAUSES = 64


def terms(node: Node, retries: int = 0, retry_on: Errors = WorkerDied, backoff: float | Sequence[float] = 0.0,
          timeout: float | None = None, grace: float | None = None, crash_limit: int | None = None) -> bytes | None:
    """The bytes for View.spawn; None: nothing out of the common has been said.

    Raises:
        TypeError, ValueError: what has been said makes no sense.
        EncodingError: retry_on cannot be pickled.
    """
    said = retries, retry_on, tuple(backoff) if isinstance(backoff, (list, tuple)) else backoff, timeout, grace, crash_limit
    try:
        return node.terms[said]
    except (KeyError, TypeError):
        pass
    data = pack(node, retries, retry_on, backoff, timeout, grace, crash_limit)
    if len(node.terms) < 1000:
        node.terms[said] = data
    return data


def pack(node: Node, retries: int, retry_on: Errors, backoff: Any, timeout: Any, grace: Any, crash_limit: Any) -> bytes | None:
    retries = at_least("retries", retries, 0)
    if retries > MOST_RETRIES:
        raise ValueError(f"retries must be at most {MOST_RETRIES}, not {retries}")
    errors = retry_on if isinstance(retry_on, tuple) else (retry_on,)
    for error in errors:
        if not (isinstance(error, type) and issubclass(error, BaseException)):
            raise TypeError(f"retry_on must be an exception type, or a tuple of such, not {retry_on!r}")
    pauses = tuple(pauses_of(backoff))
    limit = None if timeout is None else seconds("timeout", timeout, more=True)
    if not retries and limit is None and grace is None and crash_limit is None:
        return None
    after = AFTER_DEATH * issubclass(WorkerDied, errors) | AFTER_TIMEOUT * issubclass(TimeoutError, errors)
    key = node.view.intern(values.in_one_piece(errors)) if retries and errors != (WorkerDied,) else 0
    said = Terms(retries, BY_DEFAULT if crash_limit is None else at_least("crash_limit", crash_limit, 1), after, key,
                 BY_DEFAULT if grace is None else grace_of(grace), pauses, limit or 0)
    return said.pack()


def seconds(name: str, value: Any, more: bool = False) -> int:
    """In ns; more: than none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}") from None
    except OverflowError:
        number = math.inf
    if math.isnan(number) or number < 0 or (more and number == 0):
        raise ValueError(f"{name} must be a number of seconds {'above' if more else 'of at least'} 0, not {value!r}")
    return max(1, int(min(number, 1e9) * 1e9)) if more else int(min(number, 1e9) * 1e9)


def grace_of(value: Any) -> int:
    """In ns: at least one, as 0 stands for the default; infinite: NO_GRACE is ever over."""
    ns = seconds("grace", value)
    return NO_GRACE if float(value) == math.inf else max(1, ns)


def pauses_of(backoff: Any) -> list[int]:
    """A number: so long before the first retry, and twice as long before each other; a sequence: as it stands."""
    if isinstance(backoff, (list, tuple)):
        if len(backoff) > MOST_PAUSES:
            raise ValueError(f"backoff must have at most {MOST_PAUSES} pauses, not {len(backoff)}")
        return [seconds("backoff", x) for x in backoff]
    pause = seconds("backoff", backoff)
    pauses = [pause] if pause else []
    while pauses and pauses[-1] < LONGEST_PAUSE_NS:
        pauses.append(min(2 * pauses[-1], LONGEST_PAUSE_NS))
    return pauses
