"""cloudpickle, with some differences.

The file names are left in code: since 3.1.3 it says "<dynamic-code>", and tracebacks showed no line.  And an open text file
is refused like any other open file: it would arrive as a copy of its content.
"""

from __future__ import annotations

import io
import pickle
import sys
from types import CodeType
from typing import Any

import cloudpickle

from .values import REDUCERS

FILENAME = 10  # which argument of CodeType (3.11 and newer) it is
_reduce_code = cloudpickle.CloudPickler.dispatch_table[CodeType]
_reduce_file = cloudpickle.CloudPickler.dispatch_table[io.TextIOWrapper]


def reduce_code(code: CodeType) -> tuple[Any, ...]:
    make, args = _reduce_code(code)
    return make, (*args[:FILENAME], code.co_filename, *args[FILENAME + 1:])


def reduce_file(file: io.TextIOWrapper) -> Any:
    if file is sys.stdout or file is sys.stderr:
        return _reduce_file(file)
    raise TypeError("cannot pickle '_io.TextIOWrapper' object")


class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    dispatch_table = cloudpickle.CloudPickler.dispatch_table.new_child(
        {CodeType: reduce_code, io.TextIOWrapper: reduce_file, **REDUCERS})
    dump = pickle.Pickler.dump  # a RecursionError stays one


def dumps(obj: Any) -> bytes:
    file = io.BytesIO()
    Pickler(file, protocol=5).dump(obj)
    return file.getvalue()
