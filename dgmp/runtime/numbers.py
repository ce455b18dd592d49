"""Whole numbers that people give: as parameters, and in environment variables.  Called by api and by what boots a runtime."""

from __future__ import annotations

import operator
from typing import Any


def whole(name: str, value: Any) -> int:
    """value, which is the parameter of that name.

    Raises:
        TypeError: it is no whole number.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {value!r}") from None


def whole_or_none(name: str, value: Any) -> int | None:
    """The same of a parameter that need not be given."""
    try:
        return None if value is None else operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number or None, not {value!r}") from None


def at_least(name: str, value: Any, least: int) -> int:
    """The same of one that has a least value.

    Raises:
        TypeError, ValueError: it is no whole number; it is less.
    """
    number = whole(name, value)
    if number < least:
        raise ValueError(f"{name} must be at least {least}, not {number}")
    return number


def in_text(text: str) -> int | None:
    """The number that a variable of the environment says, or None."""
    try:
        return int(text)
    except ValueError:
        return None
