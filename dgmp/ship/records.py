"""Log records to bytes and back (logging.handlers.QueueHandler.prepare does the like).

A record is the pickle of its attributes: the message with its arguments merged in, the traceback as text.  Its exception
travels as that of a G does.  What else user code has put into it is kept if it can be pickled.
Called by runtime.logs in an M and api.output in the client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import EncodingError
from . import failure, values

if TYPE_CHECKING:
    from logging import Formatter, LogRecord


def encode(record: LogRecord, formatter: Formatter) -> bytes:
    """formatter: words the traceback."""
    attributes = {**record.__dict__, "msg": record.getMessage(), "args": None}
    if record.exc_info:
        attributes["exc_text"] = record.exc_text or formatter.formatException(record.exc_info)
        error = record.exc_info[1]
        attributes["exc_info"] = failure.encode_error(error)[1] if error is not None else None
    try:
        return values.dumps(attributes, "a log record")
    except EncodingError:
        return values.dumps({name: value for name, value in attributes.items() if travels(value)}, "a log record")


def travels(value: Any) -> bool:
    try:
        values.dumps(value, "")
    except EncodingError:
        return False
    return True


def decode(data: bytes) -> LogRecord:
    import logging

    attributes = values.loads(data)
    if attributes.get("exc_info"):
        error = failure.decode_error(attributes["exc_info"])
        attributes["exc_info"] = type(error), error, None
    return logging.makeLogRecord(attributes)
