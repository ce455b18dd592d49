"""The end of the program: what is to be done then, at the place among atexit's handlers that `import dgmp` took.

The public names are imported when they are first used; a handler that the program has registered before that must still
run while its runtimes are there.  Called by api.runtime.
"""

from __future__ import annotations

import atexit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ended = False  # the interpreter shuts down: nothing is booted any more
_actions: list[Callable[[], None]] = []


def at_end(action: Callable[[], None]) -> Callable[[], None]:
    _actions.append(action)
    return action


@atexit.register
def end() -> None:
    global ended
    ended = True
    for action in _actions:
        action()
