"""What is said when every M blocks: which functions they are in.  Called by state.

Their names are read from the pickles in the function table without running any of it: what is importable is named there.
"""

from __future__ import annotations

import pickletools
from collections import Counter
from collections.abc import Callable

MOST = 5  # names


def name_of(pickled: bytes) -> str | None:
    """The importable callable that a pickle refers to; None: it travels by value."""
    strings: list[str] = []
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "STACK_GLOBAL" and len(strings) >= 2:
            module, name = strings[-2:]
            return None if module.startswith("cloudpickle") else f"{module}.{name}"
        if isinstance(argument, str):
            strings.append(argument)
    return None


def warning(calls: list[tuple[int, int]], function: Callable[[int], bytes]) -> str:
    """The line for the client's user.

    Args:
        calls: of each M: the goid of what it runs, and the function table entry of that, 0 none.
        function: gives the pickle in an entry.
    """
    known = Counter(name for _, key in calls if key and (name := name_of(function(key))))
    named = [f"{name} ({n})" for name, n in known.most_common(MOST)]
    rest = len(calls) - sum(n for _, n in known.most_common(MOST))
    if rest:
        named.append(f"{rest} other{'s' if rest > 1 else ''}")
    return (f"dgmp: warning: Gs are waiting, but all {len(calls)} Ms (max_ms) block, in {', '.join(named)}; a larger max_ms, "
            "or calls that park instead of blocking, would let them run")
