"""How a G ended whose M died: the bytes of a RESULT_WORKER_DIED, and the same in words.

    "<QQ"          the G's own goid; its ROLE: parked there or about to run, running, or not run as it waited for such a G; or
                   running, and it was to end: it was cancelled, or its time was up
    a msgpack map  of a dead M (by the coordinator): m, pid, core (None: not bound), how, exitcode, goid (of the G that ran)
                   perhaps "history", [pid, how] of each M that it ran on as that died, this one the last,
                   and "grace", what it did so that its M was killed,
                   and "stderr", the last lines that the M had written there
                   nothing: the shared memory had no room for that
                   or, if it did not run (by the M that found out): "name" of the G that it waited for, "of": that one's bytes

Written by coordinator.deaths and, in an M, closure; read by api.future.
"""

from __future__ import annotations

import struct
import textwrap
from typing import Any

import msgpack

from ..errors import Cancelled, EncodingError, WorkerDied

PREFIX = struct.Struct("<QQ")
PARKED, RUNNING, DEPENDENT, CANCELLED, LATE = 0, 1, 2, 3, 4
OF_M = {"m": int, "pid": int, "core": int | None, "how": str, "exitcode": int | None, "goid": int | None}
UNKNOWN = {"m": -1, "pid": 0, "core": None, "exitcode": None, "goid": None,
           "how": "died; there was no room in the runtime's shared memory to say how"}
OF_DEPENDENT = {"name": str, "of": bytes}
History = list[tuple[int, str]]


def encode(goid: int, role: int, how: dict[str, Any]) -> bytes:
    """For G `goid`, which was started on a dead M."""
    return PREFIX.pack(goid, role) + bytes(msgpack.packb(how))


def split(data: bytes) -> tuple[int, int, dict[str, Any]]:
    """(goid, role, the map); EncodingError: it is none."""
    try:
        goid, role = PREFIX.unpack_from(data)
        if len(data) == PREFIX.size and role <= LATE and role != DEPENDENT:
            return goid, role, dict(UNKNOWN)
        how = msgpack.unpackb(data[PREFIX.size:], unicode_errors="surrogatepass")
        if not all(isinstance(how[key], kind) for key, kind in (OF_DEPENDENT if role == DEPENDENT else OF_M).items()):
            raise ValueError
        if role > LATE or not all(isinstance(pid, int) and isinstance(how, str) for pid, how in how.get("history", [])):
            raise ValueError
        if not all(isinstance(how.get(key, ""), str) for key in ("grace", "stderr")):
            raise ValueError
        return goid, role, how
    except (struct.error, ValueError, TypeError, LookupError, msgpack.UnpackException) as e:
        raise EncodingError("the bytes that say how a G's M ended are damaged") from e


def of_dependent(goid: int, name: str, data: bytes) -> bytes:
    """For G `goid`, which waited for the G of that name, which ended with `data`; for a chain of them its first is told."""
    if split(data)[1] == DEPENDENT:
        return PREFIX.pack(goid, DEPENDENT) + data[PREFIX.size:]
    return PREFIX.pack(goid, DEPENDENT) + bytes(msgpack.packb({"name": name, "of": data}, unicode_errors="surrogatepass"))


def process(data: bytes) -> tuple[int, int | None]:
    """(pid, exit code) of the M; the code negative for a signal, None if it is not known."""
    _, role, how = split(data)
    return process(how["of"]) if role == DEPENDENT else (how["pid"], how["exitcode"])


def of_m(data: bytes) -> dict[str, Any]:
    """What is known of the M."""
    _, role, how = split(data)
    return of_m(how["of"]) if role == DEPENDENT else how


def last_lines(how: dict[str, Any]) -> str:
    """What a message ends with, of an M."""
    said = how.get("stderr", "")
    return "\nThe last lines of its stderr:\n" + textwrap.indent(said, "    ") if said else ""


def history(data: bytes) -> History:
    """Process and how it died, of each M on which the G ran as that died."""
    _, role, how = split(data)
    if role in (DEPENDENT, PARKED):
        return []
    return [(pid, said) for pid, said in how.get("history", [[how["pid"], how["how"]]])]


def error(data: bytes, name: str, place: str) -> WorkerDied | Cancelled | TimeoutError:
    """What the Future of the G ends with; name and place are those of the G."""
    text, role = describe(data, name, place), split(data)[1]
    if role == CANCELLED:
        return Cancelled(text)
    if role == LATE:
        return TimeoutError(text)
    how = of_m(data)
    error = WorkerDied(f"{text}.  What runs on other Ms goes on; spawn it again, or with retries, if it may run twice."
                       f"{last_lines(how)}")
    error.stderr = how.get("stderr", "")
    error.pid, error.exitcode = process(data)
    error.history = history(data)
    return error


def describe(data: bytes, name: str, place: str = "") -> str:
    """In words: whose result it is, and what happened; name and place are those of the G."""
    goid, role, how = split(data)
    return f"G {goid} ({name}){place}, {what(role, how)}"


def what(role: int, how: dict[str, Any]) -> str:
    if role == DEPENDENT:
        return f"did not run: {describe(how['of'], how['name'], ', which it waited for')}"
    core = "" if how["core"] is None else f", core {how['core']}"
    m = f"(m{how['m']}, pid {how['pid']}{core})" if how["m"] >= 0 else "(not known)"
    if role in (CANCELLED, LATE):
        why = "was cancelled" if role == CANCELLED else "ran longer than its timeout"
        then = f" and {how['grace']}" if "grace" in how else ""
        return f"{why}{then}: its M {m} {how['how'].partition(';')[0]}"
    if role == RUNNING:
        before = how.get("history", [])[:-1]
        deaths = "".join(f", pid {pid} {said.partition(';')[0]}" for pid, said in before)
        again = f"; before that{deaths[1:]}" if before else ""
        return f"did not finish: its M {m} {how['how']}{again}"
    ran = f" while it ran G {how['goid']}" if how["goid"] else ""
    end = how["how"].partition(";")[0]
    return f"was parked on an M {m} that {end}{ran}; started Gs cannot leave their process"
