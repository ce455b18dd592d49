"""What a Runtime's limits mean: max_tasks_per_child and memory_limit, as given or in the environment.

Called by api.runtime.  Each M counts its own Gs (runtime.proc); the coordinator watches what memory they take
(coordinator.memory).
"""

from __future__ import annotations

import math
import os
import re
from typing import Any

from . import numbers
from .boot import read

# What an M may take for a while before it is killed, in terms of what it may take between two Gs.
HARD = 1.5
MOST_TASKS = 1 << 62
LEAST = 32 << 20  # a process has 10 MB or so before it runs anything
UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4, "KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30, "TI": 1 << 40}
AMOUNT = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([KMGT]?I?)B?\s*", re.IGNORECASE)


def max_tasks(value: Any) -> int:
    """How many Gs an M runs; 0: no limit.  None: DGMP_MAX_TASKS_PER_CHILD, if that is set."""
    if value is None:
        text = os.environ.get("DGMP_MAX_TASKS_PER_CHILD", "")
        n = numbers.in_text(text) if text else 0
        if n is None or (text and n < 1):
            raise ValueError(f"DGMP_MAX_TASKS_PER_CHILD must be a whole number of at least 1, not {text[:40]!r}")
        return n
    if isinstance(value, bool):
        raise TypeError(f"max_tasks_per_child must be a whole number or None, not {value!r}")
    return min(numbers.at_least("max_tasks_per_child", value, 1), MOST_TASKS)


def memory(value: Any) -> tuple[int, int] | None:
    """(soft, hard) in bytes; None: no limit.  None given: DGMP_MEMORY_LIMIT, if that is set."""
    name = "memory_limit"
    if value is None:
        name, value = "DGMP_MEMORY_LIMIT", os.environ.get("DGMP_MEMORY_LIMIT", "")
        if not value:
            return None
    if isinstance(value, tuple):
        if len(value) != 2:
            raise ValueError(f"{name} must be one amount of memory, or two: (soft, hard), not {value!r}")
        soft, hard = (amount(name, x) for x in value)
    else:
        soft = amount(name, value)
        hard = int(HARD * soft)
    if soft < LEAST:
        raise ValueError(f"{name} must be at least {LEAST >> 20} MiB, not {value!r}: a process takes a third of that before it "
                         "runs anything")
    if hard < soft:
        raise ValueError(f"{name}: the hard limit is below the soft one: {value!r}")
    return soft, hard


def amount(name: str, value: Any) -> int:
    """Bytes: a number of them, a text such as "2GB" or "512 MiB", or a fraction of the memory that there is."""
    if isinstance(value, str):
        found = AMOUNT.fullmatch(value)
        if found is None:
            raise ValueError(f'{name} must be an amount of memory such as "2GB", "512 MiB" or 2000000000, not {value[:40]!r}')
        number, unit = float(found[1]), UNITS.get(found[2].upper())
        if unit is None or not 1 <= number * unit < 1 << 62:
            raise ValueError(f"{name} is no amount of memory: {value[:40]!r}")
        return int(number * unit)
    if isinstance(value, bool) or not isinstance(value, (int, float)) and not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a number of bytes, a text or a fraction, not {value!r}")
    if isinstance(value, float) and 0 < value <= 1:
        return int(value * memory_size())
    if isinstance(value, float) and not math.isfinite(value) or not 1 <= value < 1 << 62:
        raise ValueError(f"{name} must be a number of bytes, or a fraction between 0 and 1, not {value!r}")
    return int(value)


def memory_size(root: str = "/sys/fs/cgroup", self_file: str = "/proc/self/cgroup") -> int:
    """How much memory this process and its children may take: the machine's, or its cgroup's if that is less."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    try:
        lines = read(self_file).splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if controllers and "memory" not in controllers.split(","):
            continue
        base, name = (os.path.join(root, "memory"), "memory.limit_in_bytes") if controllers else (root, "memory.max")
        parts = [part for part in path.split("/") if part]
        for depth in range(len(parts) + 1):
            try:
                sizes.append(int(read(os.path.join(base, *parts[:depth], name))))
            except (OSError, ValueError):  # there is none, or "max"
                pass
    return min(sizes)
