"""Exceptions to bytes and back: how a G ended that raised.

A RESULT_ERROR is the pickle of (exception, traceback text), or that with notes around it (wrap).
Called by closure, runtime in an M (encode_error, plain_error) and api (with_note).
"""

from __future__ import annotations

import pickle

import msgpack

from .._core import RESULT_ERROR
from ..errors import EncodingError, RemoteTraceback
from . import values


def argument_note(dependent: str, name: str) -> str:
    return f"argument of {dependent}, which did not run: the result of {name}"


def wrap(error: bytes, notes: list[str]) -> bytes:
    """A RESULT_ERROR with notes for the exception, which need not be unpickled to get them."""
    return bytes(msgpack.packb([error, notes], unicode_errors="surrogatepass"))


def unwrap(data: bytes) -> tuple[bytes, list[str]]:
    """(the pickled error, its notes)"""
    if data[:1] == pickle.PROTO:
        return data, []
    error, notes = msgpack.unpackb(data, unicode_errors="surrogatepass")
    return error, notes


def encode_error(error: BaseException, skip: int = 1) -> tuple[int, bytes]:
    """An exception with its traceback text.  One that cannot travel becomes an EncodingError that quotes it."""
    import traceback  # a few ms: only for those who need it

    tb = error.__traceback__
    for _ in range(skip):
        tb = tb.tb_next if tb is not None else None
    text = "".join(traceback.format_exception(type(error), error, tb))
    try:
        data = values.dumps((error, text), "an exception", True)
        values.loads(data)  # one whose unpickling fails would fail at the client
    except BaseException as e:  # noqa: B036 - user code: __reduce__, __setstate__
        stand_in = EncodingError(f"{type(error).__qualname__}: {error} (the exception itself cannot travel: {e})")
        data = pickle.dumps((stand_in, text), 5)
    return RESULT_ERROR, data


def decode_error(data: bytes) -> BaseException:
    """The exception, with its remote traceback as cause."""
    pickled, notes = unwrap(data)
    error: BaseException
    error, text = values.loads(pickled)
    error.__cause__ = RemoteTraceback(text)
    for note in notes:
        error.add_note(note)
    return error


def with_note(error: BaseException, note: str) -> BaseException:
    """A copy with a note more; error itself if it cannot be copied."""
    import copy

    try:
        twin: BaseException = copy.copy(error)
        twin.__notes__ = [*getattr(error, "__notes__", ()), note]
    except Exception:  # user code: __reduce__, __init__
        return error
    twin.__cause__ = error.__cause__
    return twin


def plain_error(error: BaseException, again: BaseException) -> bytes:
    """The last resort when an exception cannot be encoded at all."""
    name = type(error).__qualname__
    return pickle.dumps((EncodingError(f"{name} was raised, and encoding it failed with {type(again).__qualname__}"), name), 5)
