"""Exceptions to bytes and back: how a G ended that raised.

A RESULT_ERROR is a msgpack list:
    text     its traceback
    errors   the exception; after it whatever others are reached from it: causes, contexts, members of groups, those among
             attributes and arguments; each a list
        made      pickle of its class; of itself, if its class has pickling of its own; empty: it cannot be pickled
        state     pickle of its args, attributes and fields; empty: it has come with `made`
        names     module and name of its class, and of the bases of that, as far as they are exceptions
        message   its text
        notes
        cause, context, suppress   the numbers of these two, or -1; and its __suppress_context__
        group     (message, numbers of the members), or None
    notes    more of them for the first, which need not be unpickled to get them (with_argument_note)

So its type's name, message, notes and traceback arrive in any case.  Everything is tried where the exception was raised, and
what cannot travel is left out step by step: an attribute, the arguments, the class.  In pickles the exceptions stand as
persistent ids, their numbers, so that cycles are no matter.

Called by closure, runtime in an M (encode_error) and api (copy_with_note).
"""

from __future__ import annotations

import copyreg
import functools
import io
import os
import pickle
import re
import sys
from collections import ChainMap
from collections.abc import Callable
from types import TracebackType
from typing import Any

import msgpack

from .._core import RESULT_ERROR
from ..errors import EncodingError, RemoteTraceback
from . import exceptions, reason, travel, values

OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep
MOST = 10_000  # exceptions that travel with one
LONGEST_TEXT = 200_000  # characters of a traceback
LONGEST_MESSAGE = 10_000
LONGEST_REPR = 500
UNKNOWN = -1
# A place in a traceback, maybe in the frame that is drawn for a group, after which no line of code stands.
LINE_MISSING = re.compile(
    r'^(?P<indent> *(?:\| +)?)File "(?P<file>[^"\n]+)", line (?P<number>\d{1,9}), in [^\n]*\n(?!(?P=indent)  )', re.MULTILINE)


def argument_note(dependent: str, name: str) -> str:
    return f"argument of {dependent}, which did not run: the result of {name}"


# ---------------------------------------------------------------------- to bytes
def encode_error(error: BaseException) -> tuple[int, bytes]:
    """As (kind, bytes), whatever it takes."""
    try:
        return RESULT_ERROR, pack(traceback_text(error), Writer().write(error), [])
    except BaseException as again:  # recursion at its limit, memory, user code: say at least what it was
        return RESULT_ERROR, plain_error(error, again)


def pack(text: str, errors: list[Any], notes: list[str]) -> bytes:
    data = bytes(msgpack.packb([text, errors, notes], unicode_errors="surrogatepass"))
    return data + travel.take() if travel.noted else data


def with_argument_note(data: bytes, note: str) -> bytes:
    """A RESULT_ERROR for a G that did not run because of that of another; of a row of such, the first and last are told."""
    text, errors, notes = unpack(data)
    travel.again(data)
    return pack(text, errors, [*notes[:1], note])


def plain_error(error: BaseException, again: BaseException) -> bytes:
    """The last resort when an exception cannot be encoded at all, at the limit of the stack or of memory."""
    name = type(error).__qualname__
    message = f"{name} was raised, and encoding it failed with {type(again).__qualname__}"
    return pack(name, [[b"", b"", names_of(type(error)), message, [], UNKNOWN, UNKNOWN, False, None]], [])


def names_of(cls: type) -> list[tuple[str, str]]:
    return [(str(base.__module__), base.__qualname__) for base in cls.__mro__ if issubclass(base, BaseException)]


def traceback_text(error: BaseException) -> str:
    """Without the frames of ours that called the G's function; cut if it is monstrous."""
    import traceback  # a few ms: only for those who need it

    tb = users(error.__traceback__)
    try:
        text = "".join(traceback.format_exception(type(error), error, tb))
    except reason.USER_ERRORS as e:  # code of the user's: properties, __notes__
        text = f"{''.join(traceback.format_tb(tb))}{reason.said(error)}\n(formatting it failed: {reason.said(e)})\n"
    if len(text) > LONGEST_TEXT:
        half = LONGEST_TEXT // 2
        text = f"{text[:half]}\n... ({len(text) - 2 * half} characters left out) ...\n{text[-half:]}"
    return text


def users(tb: TracebackType | None) -> TracebackType | None:
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(OURS):
        tb = tb.tb_next
    return tb


class Numbering:
    """Mixed into a pickler: exceptions stand as their numbers, but for the one that pickles itself."""

    number: Callable[[BaseException], int]
    whole: BaseException | None = None

    def persistent_id(self, obj: Any) -> int | None:
        if not issubclass(type(obj), BaseException) or obj is self.whole:
            return None
        number = self.number(obj)
        return None if number == UNKNOWN else number


class PlainPickler(Numbering, pickle.Pickler):
    dispatch_table: Any = ChainMap({}, values.REDUCERS, copyreg.dispatch_table)


@functools.cache
def dynamic_pickler() -> type[Any]:
    from . import dynamic  # cloudpickle, 20 ms: only for those who need it

    return type("DynamicPickler", (Numbering, dynamic.ResultPickler), {})


class Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, error: Callable[[int], BaseException]) -> None:
        super().__init__(io.BytesIO(data))
        self.error = error

    def persistent_load(self, number: Any) -> BaseException:
        return self.error(number)


class Writer:
    """Encodes an exception with all that are reached from it."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.numbers: dict[int, int] = {}

    def write(self, error: BaseException) -> list[Any]:
        self.number(error)
        return [self.encode(e) for e in self.errors]  # which grows meanwhile

    def number(self, error: BaseException | None) -> int:
        if error is None:
            return UNKNOWN
        known = self.numbers.get(id(error))
        if known is None:
            known = len(self.errors)
            if known == MOST:
                return UNKNOWN
            self.errors.append(error)
            self.numbers[id(error)] = known
        return known

    def encode(self, error: BaseException) -> list[Any]:
        notes = exceptions.notes_of(error)
        made, state = self.own_pickle(error), b""
        if not made:
            made = self.pickle_if_it_travels(type(error), lambda cls: exceptions.new(cls, exceptions.group_of(error)))
            state = self.pickle_state(error, notes)
        cause = exceptions.cause_of(error)
        return [
            made, state, names_of(type(error)), reason.message(error, LONGEST_MESSAGE), notes,
            UNKNOWN if type(cause) is RemoteTraceback else self.number(cause),  # it stands in the text
            self.number(exceptions.context_of(error)), bool(error.__suppress_context__), self.group(error),
        ]

    def group(self, error: BaseException) -> tuple[str, list[int]] | None:
        group = exceptions.group_of(error)
        if group is None:
            return None
        return str(group[0]), [number for number in map(self.number, group[1]) if number != UNKNOWN]

    def own_pickle(self, error: BaseException) -> bytes:
        if not exceptions.pickles_itself(type(error)):
            return b""

        def check(loaded: Any) -> None:
            if type(loaded) is not type(error):
                raise TypeError

        return self.pickle_if_it_travels(error, check, error)

    def pickle_if_it_travels(self, obj: Any, check: Callable[[Any], object], whole: BaseException | None = None) -> bytes:
        try:
            data = self.dumps(obj, whole)
            check(self.loads(data))
            return data
        except BaseException as e:
            if reason.is_callers(e):
                raise
            return b""

    def pickle_state(self, error: BaseException, notes: list[str]) -> bytes:
        """What of it cannot travel is replaced by its repr, and a note says so."""
        args, attributes, fields = state = exceptions.state_of(error)
        data = self.pickle_if_it_travels(state, len)
        if data:
            return data
        args = tuple(self.portable(x, f"args[{i}]", notes) for i, x in enumerate(args))
        attributes, fields = (
            {name: self.portable(x, f"attribute {name!r}", notes) for name, x in part.items()} for part in (attributes, fields))
        return self.pickle_if_it_travels((args, attributes, fields), len)

    def portable(self, x: Any, place: str, notes: list[str]) -> Any:
        try:
            self.loads(self.dumps(x))
            return x
        except BaseException as e:
            if reason.is_callers(e):
                raise
            notes.append(f"{place} is a repr: the {type(x).__qualname__} cannot travel ({reason.said(e)})")
            return short_repr(x)

    def dumps(self, obj: Any, whole: BaseException | None = None) -> bytes:
        try:
            data = self.dumps_with(PlainPickler, obj, whole)
            if values.portable(data):
                return data
        except reason.USER_ERRORS:  # cloudpickle may know better
            pass
        return self.dumps_with(dynamic_pickler(), obj, whole)

    def dumps_with(self, pickler: type[Any], obj: Any, whole: BaseException | None) -> bytes:
        file = io.BytesIO()
        writer = pickler(file, 5)
        writer.number, writer.whole = self.number, whole
        writer.dump(obj)
        return file.getvalue()

    def loads(self, data: bytes) -> Any:
        return Unpickler(data, self.errors.__getitem__).load()


def short_repr(x: Any) -> str:
    try:
        text = repr(x)
    except reason.USER_ERRORS:
        text = f"<{type(x).__qualname__}>"
    return text if len(text) <= LONGEST_REPR else f"{text[:LONGEST_REPR]}... ({len(text)} characters)"


# ---------------------------------------------------------------------- and back
def decode_error(data: bytes) -> BaseException:
    """The exception.  Its remote traceback is its cause, or the last of its chain of causes."""
    text, errors, notes = unpack(data)
    error = Reader(errors).read()
    for note in notes:
        error.add_note(note)
    last, seen = error, {id(error)}
    while (cause := exceptions.cause_of(last)) is not None and id(cause) not in seen:
        last = cause
        seen.add(id(last))
    set_cause(last, RemoteTraceback(with_lines(text)))
    return error


def with_lines(text: str) -> str:
    """The traceback text, with lines that only this process has: of a notebook's cells, a prompt, `python -c`."""
    if LINE_MISSING.search(text) is None:
        return text
    import linecache  # with what it imports a few ms: only for those who need it

    def add_line(at: re.Match[str]) -> str:
        line = linecache.getline(at["file"], int(at["number"])).strip()
        return f"{at[0]}{at['indent']}  {line}\n" if line else at[0]

    return LINE_MISSING.sub(add_line, text)


def unpack(data: bytes) -> tuple[str, list[Any], list[str]]:
    """(text, errors, notes); EncodingError: it is none."""
    try:
        if travel.carries(data):
            data = data[:travel.end(data)]
        text, errors, notes = msgpack.unpackb(data, unicode_errors="surrogatepass")
        if not (errors and all(is_sound(error, len(errors)) for error in errors) and are(str, [text, *notes])):
            raise ValueError
        return text, errors, notes
    except (ValueError, TypeError, LookupError, msgpack.UnpackException) as e:
        raise EncodingError("the bytes of an exception are damaged") from e


def is_sound(error: Any, n: int) -> bool:
    """Whether it is one of n exceptions."""
    made, state, names, message, notes, cause, context, suppress, group = error
    title, members = group or ("", [])
    return (are(bytes, [made, state]) and are(str, [message, *notes, title]) and type(suppress) is bool
            and are(list, [names, notes, members, *names]) and all(are(str, name) and len(name) == 2 for name in names)
            and are(int, [cause, context, *members]) and all(-1 <= i < n for i in (cause, context))
            and all(0 <= i < n for i in members))


def are(kind: type, things: list[Any]) -> bool:
    return all(type(x) is kind for x in things)


def set_cause(error: BaseException, cause: BaseException | None) -> None:
    suppress = error.__suppress_context__
    error.__cause__ = cause
    error.__suppress_context__ = suppress


class Reader:
    """Makes the exceptions of a RESULT_ERROR again."""

    def __init__(self, errors: list[Any]) -> None:
        self.errors = errors
        self.made: list[BaseException | None] = [None] * len(errors)
        self.begun: set[int] = set()
        self.whole: set[int] = set()  # those that need no state, as they have come with it, or are stand-ins

    def read(self) -> BaseException:
        for i in reversed(range(len(self.errors))):  # those that are in others come after them
            self.error(i)
        for i in range(len(self.errors)):
            if i not in self.whole:
                self.restore(i)
        for i, (_, _, _, _, notes, cause, context, suppress, _) in enumerate(self.errors):
            error = self.error(i)
            if notes:
                attributes = exceptions.attributes_of(error)
                attributes["__notes__"] = [*notes, *(x for x in exceptions.notes_of(error) if x not in notes)]
            error.__cause__, error.__context__ = self.link(cause), self.link(context)
            error.__suppress_context__ = bool(suppress)
        return self.error(0)

    def link(self, i: int) -> BaseException | None:
        return None if i == UNKNOWN else self.error(i)

    def error(self, i: int) -> BaseException:
        error = self.made[i]
        if error is None:
            if i in self.begun:
                raise EncodingError("an exception that pickles itself is in what it is pickled as")
            self.begun.add(i)
            try:
                error = self.made[i] = self.make(i)
            finally:
                self.begun.discard(i)
        return error

    def make(self, i: int) -> BaseException:
        made, state, _, _, _, _, _, _, group = self.errors[i]
        try:
            loaded = Unpickler(made, self.error).load()
            if not state:
                self.whole.add(i)
            if isinstance(loaded, BaseException):
                return loaded
            return exceptions.new(loaded, self.group(group))
        except BaseException as e:
            if reason.is_callers(e):
                raise
            return self.stand_in(i, e if made else None)

    def group(self, group: Any) -> tuple[str, list[BaseException]] | None:
        return None if group is None else (group[0], [self.error(i) for i in group[1]])

    def restore(self, i: int) -> None:
        try:
            exceptions.restore(self.error(i), Unpickler(self.errors[i][1], self.error).load())
        except BaseException as e:
            if reason.is_callers(e):
                raise
            self.made[i] = self.stand_in(i, e)

    def stand_in(self, i: int, why: BaseException | None) -> BaseException:
        """For one that cannot be made here: of the nearest class that can, with its message."""
        _, _, names, message, notes, _, _, _, group = self.errors[i]
        self.whole.add(i)
        name = ".".join(part for part in names[0] if part not in ("builtins", "__main__")) if names else "an exception"
        remark = "it cannot be pickled" if why is None else f"it cannot be unpickled here: {reason.said(why)}"
        for module, qualname in names:
            if (module, qualname) not in (("builtins", "Exception"), ("builtins", "BaseException")):
                try:
                    error = exceptions.new(find_class(module, qualname), self.group(group))
                    if group is None:
                        exceptions.restore(error, ((message,), {}, {}))
                    if message in str(error):
                        notes.append(f"stands for a {name} ({remark})")
                        return error
                except reason.USER_ERRORS:  # not known here either, or it cannot live without its attributes
                    pass
        return EncodingError(f"{name}: {message} ({remark})")


def find_class(module: str, qualname: str) -> Any:
    __import__(module)
    return functools.reduce(getattr, qualname.split("."), sys.modules[module])


# ---------------------------------------------------------------------- copies
def copy_with_note(error: BaseException, note: str) -> BaseException:
    """A copy with a note more; error itself if it cannot be copied."""
    try:
        twin = exceptions.copy(error)
        exceptions.attributes_of(twin)["__notes__"] = [*exceptions.notes_of(error), note]
    except reason.USER_ERRORS:  # code of the user's: __reduce__, __init__
        return error
    twin.__cause__, twin.__context__ = exceptions.cause_of(error), exceptions.context_of(error)
    twin.__suppress_context__ = error.__suppress_context__
    return twin
