"""What Ms take over from the program beside its calls: its world.

What its start-up options have led to is in the boot message (`start_up`, `install`).  The rest may change as long as the
program runs: sys.path, the working directory, the environment, warnings filters.  A *world* says how these differ from
what they were at boot; its bytes lie in the function table, and a G's slot has their index, 0 when nothing differs.
The spawner describes (`capture`, `encode`; api.world), an M makes itself so (runtime.world).  All is made of what marshal
knows, as it may have to be read before anything can be imported, and any string survives that.
"""

from __future__ import annotations

import builtins
import contextlib
import faulthandler
import marshal
import os
import re
import sys
import warnings
from collections.abc import Iterable
from typing import Any

World = dict[str, Any]
FORMAT = 2  # of marshal: the last one whose bytes depend on nothing but the value


def strings(values: Iterable[Any]) -> list[str]:
    """Those that are strings, as plain ones."""
    return [str.__str__(x) for x in values if isinstance(x, str)]


# ---------------------------------------------------------------- what may change
def capture() -> World:
    """This process's, whole."""
    return {"path": strings(sys.path), "cwd": working_directory(), "environ": dict(os.environ),
            "filters": encode_filters(warnings.filters)}


def working_directory() -> tuple[str, int, int] | None:
    """Its path, "" if it has been removed, and identity; None: nobody knows."""
    here = identity()
    path = ""
    with contextlib.suppress(OSError):
        path = os.getcwd()
    return here and (path, *here)


def identity() -> tuple[int, int] | None:
    """Which directory this process is in, whatever it is called."""
    try:
        at = os.stat(".")
    except OSError:
        return None
    return at.st_dev, at.st_ino


def difference(now: World, base: World) -> World:
    """How they differ; of the environment only the variables that do, None for one that is gone."""
    changes = {name: now[name] for name in ("path", "filters") if now[name] != base[name]}
    if now["cwd"] is None or base["cwd"] is None or now["cwd"][1:] != base["cwd"][1:]:
        changes["cwd"] = now["cwd"]
    before, after = base["environ"], now["environ"]
    environ = {name: value for name, value in after.items() if before.get(name) != value}
    environ.update(dict.fromkeys(before.keys() - after.keys()))
    if environ:
        changes["environ"] = dict(sorted(environ.items()))
    return changes


def encode(changes: World) -> bytes:
    return marshal.dumps(changes, FORMAT)


def decode(data: bytes) -> World:
    changes: World = marshal.loads(data)
    return changes


# ---------------------------------------------------------------- what start-up options have led to
def start_up() -> dict[str, Any]:
    """Of this process, for the boot message: what its start-up options have led to, and what it has changed of that since."""
    return {
        "warnoptions": [str(x) for x in sys.warnoptions], "xoptions": dict(sys._xoptions),
        "faulthandler": faulthandler.is_enabled(),
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
