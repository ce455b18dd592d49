"""Amounts as people write them on a command line, in GNU parallel's way.  Used by the options of the launcher and the queue."""

from __future__ import annotations

import math
import re

SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([smhd]?)", re.IGNORECASE)
# Capitals are powers of 1024, small letters powers of 1000, and with an i both are powers of 1024.
BYTES = {"": 1, **{letter: 1024 ** n for n, letter in enumerate("KMGTPE", 1)},
         **{letter: 1000 ** n for n, letter in enumerate("kmgtpe", 1)},
         **{letter + "i": 1024 ** n for n, letter in [*enumerate("KMGTPE", 1), *enumerate("kmgtpe", 1)]}}
SIZE = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+) ?([kmgtpeKMGTPE]?i?)B?")
COUNT = re.compile(r"([+-]?)([0-9]+(?:\.[0-9]*)?)(%?)")


def duration(text: str) -> float:
    """Seconds: 90, 1.5, 30s, 2m, 1h30m, 1d.

    Raises:
        ValueError: it is none.
    """
    parts = PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text or any(not unit for _, unit in parts[:-1]):
        raise ValueError(f"{text!r} is no duration: give seconds, or such as 30s, 1.5m, 2h or 1d12h")
    seconds = sum(float(number) * SECONDS[unit.lower()] for number, unit in parts)
    if not math.isfinite(seconds):
        raise ValueError(f"{text!r} is too long a duration")
    return seconds


def size(text: str) -> int:
    """Bytes: 1000000, 512M, 1.5G (of 1024), 2g (of 1000), 4GiB.

    Raises:
        ValueError: it is none.
    """
    found = SIZE.fullmatch(text)
    if found is None or found[2] not in BYTES:
        raise ValueError(f"{text!r} is no size: give bytes, or such as 512M, 1.5G (powers of 1024) or 2g (powers of 1000)")
    number = float(found[1]) if "." in found[1] else int(found[1])
    bytes_ = int(number * BYTES[found[2]])
    if bytes_ >= 1 << 63:
        raise ValueError(f"{text!r} is more than any machine has")
    return bytes_


def of_cpus(text: str, cpus: int) -> float:
    """As --jobs and --load say how many: N, N% of the CPUs, +N more or -N fewer than there are.

    Raises:
        ValueError: it is none.
    """
    found = COUNT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no number: give N, N% of the CPUs, or +N or -N of them")
    number = float(found[2]) * (cpus / 100 if found[3] else 1)
    return cpus + number if found[1] == "+" else cpus - number if found[1] == "-" else number


def spoken(seconds: float) -> str:
    """A duration for people: 7s, 2m05s, 1h00m00s, 1d03h00m00s."""
    left, text = int(seconds), ""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        number, left = divmod(left, length)
        if number or text:
            text += f"{number:02d}{unit}" if text else f"{number}{unit}"
    return f"{text}{left:02d}s" if text else f"{left}s"


def spoken_size(bytes_: int) -> str:
    """A size for people: 512, 3.0K, 23.5G."""
    number, unit = float(bytes_), ""
    for unit in ("", *"KMGTP"):
        if number < 1024 or unit == "P":
            break
        number /= 1024
    return f"{number:.1f}{unit}" if unit else str(bytes_)
