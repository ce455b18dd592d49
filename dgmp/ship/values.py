"""Values to bytes and back.

`pickle` protocol 5 first; `cloudpickle` (dynamic) when that fails or when the stream names `__main__` or another module
that an M cannot import.  A value of 64 KiB and more becomes a Large: the pickle stream, and beside it the buffers in it
(NumPy arrays, pandas frames, Arrow tables, memoryviews, arrays), not copied yet.  View.pack copies both once into a shared
block, and `loads` lets what it makes read them there, read-only, for as long as it wants.  Only what must own its memory
(bytes, bytearray, array.array) is copied out of the block.

The words of shared objects stand behind the stream, or in a buffer of their own, the last (travel).

Called by the other modules of ship, and by api and runtime for what goes into a block.
"""

from __future__ import annotations

import copyreg
import pickle
from array import array
from collections.abc import Callable
from types import CoroutineType, FunctionType
from typing import Any, TypeVar

from .._core import Block
from ..errors import EncodingError
from . import modules, travel

T = TypeVar("T")
LARGE = 1 << 16  # bytes, from which on a buffer or a stream is not copied more than once
# A frame of pickle's is at most about this long; a longer piece of a stream is one large bytes object, and names nothing.
LONGEST_FRAME = 3 * LARGE
SMALL_TYPES = frozenset({int, float, bool, complex, type(None), str})  # that hold no buffer


class Large:
    """What an encoder makes of a large value: pieces of a pickle stream, and the buffers that belong to it."""

    __slots__ = ("stream", "buffers", "size")

    def __init__(self, stream: list[Any], buffers: list[memoryview]) -> None:
        self.stream, self.buffers = stream, buffers
        self.size = sum(map(len, stream)) + sum(buffer.nbytes for buffer in buffers)


class Pieces(list[Any]):
    """A file for a pickler; large bytes objects are in it as they are."""

    write = list.append


def small(obj: Any) -> bytes | Large:
    """`obj`, which is made of SMALL_TYPES and needs no reason why it cannot be pickled, as bytes; as a Large if it is long."""
    data = pickle.dumps(obj, 5)
    return data if len(data) < LARGE else Large([data], [])


def encode(obj: Any, what: str, root: str = "result") -> bytes | Large:
    """`obj` as bytes, or as a Large if it is large; `what`, a result or a message, is named in the error."""
    return or_reason(lambda: pickled(obj, True), obj, what, root)


def dumps(obj: Any, what: str) -> bytes:
    """`obj` in one piece; `what` names it in the error."""
    return or_reason(lambda: in_one_piece(obj), obj, what)


def or_reason(encode: Callable[[], T], obj: Any, what: str, root: str = "result") -> T:
    """What `encode` returns, or an EncodingError that says what of `obj` is at fault."""
    try:
        return encode()
    except BaseException as e:
        from . import reason

        if reason.is_callers(e):
            raise
        raise EncodingError(reason.of_result(obj, what, e, root)) from e


def in_one_piece(obj: Any) -> bytes:
    try:
        data = pickle.dumps(obj, 5)
        if modules.portable(data):
            return data + travel.take() if travel.noted else data
    except (Exception, SystemExit, GeneratorExit):  # as in `pickled`
        pass
    from . import dynamic

    return dynamic.dumps(obj)


def pickled(obj: Any, result: bool = False) -> bytes | Large:
    """`obj` as `encode` gives it; raises what pickling it raises.  A result leaves the receiver's classes as they are."""
    try:
        data = encode_with(pickle.Pickler, obj)
        if portable(data):
            return data
    except (Exception, SystemExit, GeneratorExit):  # of a __reduce__ of the user's: cloudpickle's error is the one that counts
        pass
    return by_value(obj, result)


def by_value(obj: Any, result: bool = False) -> bytes | Large:
    """The same for what plain pickle cannot pickle for sure."""
    from . import dynamic  # cloudpickle, 20 ms: only for those who need it

    return encode_with(dynamic.ResultPickler if result else dynamic.Pickler, obj)


def encode_with(pickler: Callable[..., Any], obj: Any) -> bytes | Large:
    pieces = Pieces()
    buffers: list[memoryview] = []

    def in_band(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < LARGE:
            return True
        buffers.append(raw)
        return False

    writer = pickler(pieces, 5, buffer_callback=in_band)
    if pickler is pickle.Pickler:
        writer.dispatch_table = copyreg.dispatch_table | REDUCERS
    writer.dump(obj)
    if travel.noted and (end := travel.take()):
        if buffers or sum(map(len, pieces)) >= LARGE:
            buffers.append(memoryview(end))
        else:
            pieces[:] = [b"".join(pieces) + end]
    if len(pieces) == 1 and not buffers and type(pieces[0]) is bytes and len(pieces[0]) < LARGE:
        return pieces[0]
    return Large(pieces, buffers)


def portable(data: bytes | Large) -> bool:
    """Whether a stream of plain pickle means the same in an M."""
    if type(data) is bytes:
        return modules.portable(data)
    assert isinstance(data, Large)
    return all(modules.portable(x) for x in data.stream if type(x) is bytes and len(x) < LONGEST_FRAME)


def loads(data: bytes | Block) -> Any:
    """The value; what it has of buffers lies in the block, read-only."""
    if type(data) is bytes:
        return pickle.loads(data)
    assert isinstance(data, Block)
    stream, *buffers = data.parts()
    return pickle.loads(stream, buffers=buffers)


# ---------------------------------------------------------------- types that pickle does not know, or copies
def make_memoryview(buffer: Any, format: str, shape: tuple[int, ...]) -> memoryview:
    view = memoryview(buffer).toreadonly().cast("B")
    if len(shape) == 1:
        return view.cast(format)  # type: ignore[call-overload, no-any-return]
    return view.cast(format, shape)  # type: ignore[call-overload, no-any-return]


def reduce_memoryview(view: memoryview) -> tuple[Any, ...]:
    """Comes back as a memoryview that is read-only."""
    if view.ndim > 1 and not view.nbytes or view.format not in NATIVE_FORMATS:
        raise TypeError(f"a memoryview of format {view.format!r} and shape {view.shape} cannot be made again elsewhere; "
                        f"pass the object that it looks into")
    data = pickle.PickleBuffer(view) if view.c_contiguous else view.tobytes()
    return make_memoryview, (data, view.format, view.shape)


NATIVE_FORMATS = frozenset("cbB?hHiIlLqQnNfd")  # what memoryview.cast can make


def make_array(typecode: str, buffer: Any) -> array[Any]:
    made = array(typecode)
    made.frombytes(buffer)
    return made


def reduce_array(values: array[Any]) -> tuple[Any, ...] | str:
    if len(values) * values.itemsize < LARGE:
        return values.__reduce_ex__(5)
    return make_array, (values.typecode, pickle.PickleBuffer(values))


REDUCERS: dict[type, Callable[[Any], Any]] = {memoryview: reduce_memoryview, array: reduce_array}


def label(fn: Any) -> str:
    """A function's name with its module in front, for people; of another callable its class."""
    if isinstance(name := getattr(fn, "__qualname__", None), str) and name:
        return f"{getattr(fn, '__module__', None) or 'builtins'}.{name}"
    if isinstance(partial := getattr(fn, "func", None), FunctionType):
        return label(partial)
    return f"{type(fn).__module__}.{type(fn).__qualname__}"


def no_function(x: Any) -> str:
    """The message for what was given in a function's place."""
    advice = ": say go(fn, ...), not go(fn(...))" if isinstance(x, CoroutineType) else ""
    return f"a G needs a function, not {x!r}{advice}"


def describe(fn: Any) -> str:
    """A function's name for messages."""
    name = getattr(fn, "__qualname__", None)
    return name if isinstance(name, str) and name else repr(fn)
