"""cloudpickle, with the file names left in code: since 3.1.3 it says "<dynamic-code>", and tracebacks showed no line."""

from __future__ import annotations

import io
from types import CodeType
from typing import Any

import cloudpickle

from .values import REDUCERS

FILENAME = 10  # which argument of CodeType (3.11 and newer) it is
_reduce_code = cloudpickle.CloudPickler.dispatch_table[CodeType]


def reduce_code(code: CodeType) -> tuple[Any, ...]:
    make, args = _reduce_code(code)
    return make, (*args[:FILENAME], code.co_filename, *args[FILENAME + 1:])


class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    dispatch_table = cloudpickle.CloudPickler.dispatch_table.new_child({CodeType: reduce_code, **REDUCERS})


def dumps(obj: Any) -> bytes:
    file = io.BytesIO()
    Pickler(file, protocol=5).dump(obj)
    return file.getvalue()
