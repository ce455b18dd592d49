"""What Ms take over from the program that is no call: its start-up options and warnings filters.

The boot message carries it (api.start), so it is made of what marshal knows.  An M installs it before anything else of the
user's runs (workers.m).
"""

from __future__ import annotations

import builtins
import faulthandler
import re
import sys
import warnings
from typing import Any


def start_up() -> dict[str, Any]:
    """Of this process, for the boot message: what its start-up options have led to, and what it has changed of that since."""
    return {
        "warnoptions": [str(x) for x in sys.warnoptions], "xoptions": dict(sys._xoptions),
        "filters": encode_filters(warnings.filters), "faulthandler": faulthandler.is_enabled(),
        "dont_write_bytecode": bool(sys.dont_write_bytecode), "pycache_prefix": sys.pycache_prefix,
        "int_max_str_digits": sys.get_int_max_str_digits(),
    }


def install(boot: dict[str, Any]) -> None:
    """Makes this process as the one that has sent the boot message."""
    sys.path[:] = boot["path"]
    sys.argv[:] = boot["argv"] or [""]
    sys.warnoptions[:] = boot["warnoptions"]
    sys._xoptions.clear()
    sys._xoptions.update(boot["xoptions"])
    sys.dont_write_bytecode = boot["dont_write_bytecode"]
    sys.pycache_prefix = boot["pycache_prefix"]
    sys.set_int_max_str_digits(boot["int_max_str_digits"])
    set_filters(boot["filters"])
    if boot["faulthandler"]:
        faulthandler.enable(2)
    else:
        faulthandler.disable()


# ---------------------------------------------------------------- warnings filters
Filter = tuple[Any, ...]  # as in warnings.filters: (action, message, category, module, line)


class Named(type):
    """The class of stand-ins for warning categories, which match by name: no M need import what it may never meet."""

    names: tuple[str, str]

    def __subclasscheck__(cls, other: type) -> bool:
        return any((base.__module__, base.__qualname__) == cls.names for base in other.__mro__)


def encode_filters(filters: Any) -> list[Filter]:
    """Without those that no M could understand."""
    out = []
    for action, message, category, module, line in filters:
        patterns = [encode_pattern(x) for x in (message, module)]
        if isinstance(category, type) and False not in patterns:
            out.append((str(action), patterns[0], (category.__module__, category.__qualname__), patterns[1], int(line)))
    return out


def encode_pattern(pattern: Any) -> Any:
    """None, or a plain text (which must be equal), or a regular expression; False if it is something else."""
    if isinstance(pattern, re.Pattern):
        return pattern.pattern, pattern.flags
    return pattern if pattern is None or isinstance(pattern, str) else False


def set_filters(filters: list[Filter]) -> None:
    warnings.resetwarnings()  # also what has been shown once may be shown again
    warnings.filters[:] = [  # type: ignore[index]
        (action, decode_pattern(message), decode_category(*category), decode_pattern(module), line)
        for action, message, category, module, line in filters
    ]


def decode_pattern(pattern: Any) -> Any:
    return re.compile(*pattern) if isinstance(pattern, tuple) else pattern


def decode_category(module: str, name: str) -> type:
    if module == "builtins":
        known: type = getattr(builtins, name, Warning)
        return known
    return Named(name, (Warning,), {"__module__": module, "names": (module, name)})
