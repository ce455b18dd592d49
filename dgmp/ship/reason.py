"""Why an object cannot be pickled, and how it is reached: what EncodingErrors say.

`trace` pickles once more, with Python's own pickler, one object at a time and in pickle's order: nothing recurses, and when
an object refuses, the objects that it was reached through are at hand.  `Path` then looks for each in the one before it, and
names the step.  Called by values and closure after pickling has failed, so it may cost, but never raises.
"""

from __future__ import annotations

import contextlib
import functools
import pickle
import reprlib
import signal
import sys
import threading
import time
import types
from collections import deque
from collections.abc import Iterator
from typing import Any

from ..errors import Cancelled
from .values import describe, pickled

SECONDS = 2.0  # how long to look for it
DEEPEST = 100_000  # steps: more is an object that makes new ones for ever
LONGEST, MOST_REMARKS = 200, 6  # characters of a path, and how often it may begin anew

ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented)})
MADE = (tuple, list, dict, types.CellType)
USER_ERRORS = (Exception, SystemExit, GeneratorExit)  # what code of the user's may raise; for KeyboardInterrupt see is_callers

MAKE = "create it inside the G, or pass what it is made from", "return plain values instead"
OPEN = "open it inside the G, or pass its path or what is in it", "return its path or what is in it"
CONNECT = "connect inside the G, or pass what was read", "return what was read"
ITEMS = "pass a list of its items, or the function that makes it", "return a list of its items"
AWAIT = ("pass the function that makes it, and run that inside the G, with asyncio.run()",
         "run it inside the G, with asyncio.run()")
TEXT = "pass its text, as the traceback module formats it", "return its text, as the traceback module formats it"
ITSELF = "pass what it refers to", "return what it refers to"
START = "start it inside the G, or pass its pid", "wait for it inside the G, and return how it ended"

# The type's full name: (what it is; "" for that name itself, advice).  The first on the way that is here is named.
KINDS: dict[str, tuple[str, tuple[str, str]]] = {
    "_thread.lock": ("a lock", MAKE), "_thread.RLock": ("a lock", MAKE), "threading._RLock": ("a lock", MAKE),
    "threading.Condition": ("", MAKE), "threading.Event": ("", MAKE), "threading.Semaphore": ("", MAKE),
    "threading.Barrier": ("", MAKE), "threading.Thread": ("a thread", MAKE),
    "_thread._local": ("a threading.local", MAKE), "_thread._localdummy": ("a threading.local", MAKE),
    "_thread._ThreadHandle": ("a thread", MAKE),
    "queue.Queue": ("", MAKE), "_queue.SimpleQueue": ("a queue.SimpleQueue", MAKE),
    "concurrent.futures._base.Executor": ("an executor", MAKE), "concurrent.futures._base.Future": ("a future", ITSELF),
    "_asyncio.Future": ("an asyncio future", AWAIT), "_asyncio.Task": ("an asyncio task", AWAIT),
    "asyncio.events.AbstractEventLoop": ("an event loop", MAKE), "logging.Handler": ("a logging handler", MAKE),
    "multiprocessing.synchronize.SemLock": ("a multiprocessing lock", MAKE),
    "multiprocessing.queues.Queue": ("a multiprocessing queue", MAKE), "multiprocessing.pool.Pool": ("a pool", MAKE),
    "generator": ("a generator", ITEMS), "async_generator": ("an async generator", ITEMS), "coroutine": ("a coroutine", AWAIT),
    "_io._IOBase": ("an open file", OPEN), "tempfile._TemporaryFileWrapper": ("an open file", OPEN),
    "posix.ScandirIterator": ("an open folder", OPEN), "mmap.mmap": ("a memory map", OPEN),
    "socket.socket": ("a socket", CONNECT), "_socket.socket": ("a socket", CONNECT), "ssl.SSLContext": ("", MAKE),
    "_ssl._SSLContext": ("an ssl.SSLContext", MAKE),
    "sqlite3.Connection": ("an sqlite3.Connection", CONNECT), "sqlite3.Cursor": ("an sqlite3.Cursor", CONNECT),
    "subprocess.Popen": ("", START), "multiprocessing.process.BaseProcess": ("a process", START),
    "frame": ("a stack frame", TEXT), "traceback": ("a traceback", TEXT),
    "weakref": ("a weak reference", ITSELF), "weakref.ReferenceType": ("a weak reference", ITSELF),
    "weakref.ProxyType": ("a weak reference", ITSELF), "weakref.CallableProxyType": ("a weak reference", ITSELF),
    "_weakref.ReferenceType": ("a weak reference", ITSELF),
    "weakref.WeakValueDictionary": ("", ITSELF), "weakref.WeakKeyDictionary": ("", ITSELF),
    "dgmp.api.future.Future": ("a dgmp.Future", ("", "return its result()")),
    "dgmp.api.runtime.Runtime": ("a dgmp.Runtime", ("use dgmp.go() inside the G", "")),
}


def of_call(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], error: BaseException) -> str:
    """The message for a call that cannot be pickled; `error` is what pickling raised."""
    deadline = time.monotonic() + SECONDS
    name = describe(fn)
    for what, root, part in parts(name, fn, args, kwargs):
        found = trace(part, deadline)
        if found is not None:
            return f"{what} cannot be pickled: {words(*found, root, 0)}"
    for what, _, part in parts(name, fn, args, kwargs):
        try:
            pickled(part)
        except USER_ERRORS as e:
            return f"{what} cannot be pickled: {without_place(e)}"
    return f"{name} or an argument of it cannot be pickled: {without_place(error)}"


def parts(name: str, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(what it is, its name in a path, the object) of each part of a call."""
    plain = getattr(fn, "__name__", None)
    yield name, plain if isinstance(plain, str) else type(fn).__name__, fn
    names = parameters(fn)
    for i, x in enumerate(args):
        known = i < len(names)
        yield f"argument {repr(names[i]) if known else i + 1} of {name}()", names[i] if known else f"args[{i}]", x
    for key, x in kwargs.items():
        yield f"argument {key!r} of {name}()", key, x


def of_result(obj: Any, what: str, error: BaseException, root: str = "result") -> str:
    """The message for a result, or a message in a channel, that cannot be pickled; `error` is what pickling raised."""
    found = trace(obj, time.monotonic() + SECONDS)
    outward = int(root == "result")
    return f"{what} cannot be pickled: {words(*found, root, outward) if found is not None else without_place(error)}"


def without_place(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return f"it is nested too deep ({said(error)})"
    return said(error)


def said(error: BaseException) -> str:
    """Its type and message."""
    return f"{type(error).__qualname__}: {message(error)}"


def message(error: BaseException, longest: int = 1000) -> str:
    """str(error), whatever that does."""
    try:
        text = str(error)
        return text if len(text) <= longest else f"{text[:longest]}... ({len(text)} characters)"
    except USER_ERRORS as e:
        return f"<its text cannot be had: {type(e).__qualname__}>"


def parameters(fn: Any) -> tuple[str, ...]:
    """The names of the positional parameters, as far as they can be had without running code of the user's."""
    skip = 0
    if isinstance(fn, type):
        fn, skip = vars(fn).get("__init__"), 1
    elif type(fn) is types.MethodType:
        fn, skip = fn.__func__, 1
    if type(fn) is not types.FunctionType:
        return ()
    return fn.__code__.co_varnames[skip:fn.__code__.co_argcount]


def is_callers(error: BaseException) -> bool:
    """Whether it is rather the caller's matter than that of the object, and the same may work a little later: memory is
    short, or the stack was deep before, or somebody has pressed Ctrl-C or cancelled the G."""
    if isinstance(error, RecursionError):
        return depth() > sys.getrecursionlimit() // 2
    return isinstance(error, (MemoryError, Cancelled)) or isinstance(error, KeyboardInterrupt) and is_ctrl_c(error)


def depth() -> int:
    """How many frames the stack has."""
    frame, n = sys._getframe(), 1
    while (back := frame.f_back) is not None:
        frame, n = back, n + 1
    return n


def is_ctrl_c(error: KeyboardInterrupt) -> bool:
    """Whether it comes from a signal, and is not raised by code of the object: Python's own handler has no frame, and the
    signal's comes between two instructions, not from one that raises."""
    if threading.current_thread() is not threading.main_thread():
        return False
    handler: Any = signal.getsignal(signal.SIGINT)
    code = getattr(handler, "__code__", None)
    if code is None and callable(handler) and handler is not signal.default_int_handler:
        return True  # an object: in doubt
    from opcode import opmap  # only for those who need it

    instruction = -1
    tb = error.__traceback__
    while tb is not None:
        if tb.tb_frame.f_code is code:
            return True
        instruction = tb.tb_frame.f_code.co_code[tb.tb_lasti]
        tb = tb.tb_next
    return instruction != opmap["RAISE_VARARGS"]


# ---------------------------------------------------------------------- finding it
class Nowhere:
    """A file for a pickle that nobody wants."""

    def write(self, data: Any) -> None:
        pass


class Expander(pickle._Pickler):
    """Tells what pickle would pickle next after an object: the parts of that object, as pickle sees them."""

    def __init__(self) -> None:
        from . import dynamic  # cloudpickle: it was here before us

        super().__init__(Nowhere(), 5, buffer_callback=lambda buffer: None)
        self.dynamic = dynamic.Pickler(Nowhere(), 5)
        self.dispatch_table = self.dynamic.dispatch_table
        self.children: list[Any] = []

    def reducer_override(self, obj: Any) -> Any:
        return self.dynamic.reducer_override(obj)

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if type(obj) not in ATOMS:
            self.children.append(obj)

    def expand(self, obj: Any) -> list[Any]:
        """The parts of obj, in order; none if it was here before.  Raises what pickling it would raise."""
        self.children = []
        super().save(obj)  # type: ignore[misc]
        return self.children


def trace(obj: Any, deadline: float) -> tuple[list[Any], BaseException] | None:
    """(what the object that cannot be pickled is reached through, from obj to itself; what pickling it raises), or None."""
    try:
        expander = Expander()
        way: list[Any] = []
        todo: list[list[Any]] = [[obj]]  # for each of the way, and one more: what is still to be looked at, in reverse
        while todo and len(way) < DEEPEST and time.monotonic() < deadline:
            if not todo[-1]:
                todo.pop()
                if way:
                    way.pop()
                continue
            way.append(todo[-1].pop())
            try:
                children = expander.expand(way[-1])
            except BaseException as e:
                if is_callers(e):
                    raise
                return way, e
            children.reverse()
            todo.append(children)
    except Exception:  # memory, recursion: there is not always a reason to be had
        pass
    return None


# ---------------------------------------------------------------------- saying it
def words(way: list[Any], error: BaseException, root: str, outward: int) -> str:
    """What it is that cannot be pickled, where, why, and what to do about it."""
    try:
        way, kind, advice = known(way, outward)
        if not kind:
            kind = article(type_name(type(way[-1])).lstrip("_"))
            if isinstance(error, TypeError) and "cannot pickle" in message(error):
                advice = MAKE[outward]
        path = Path(root, way)
        return f"{path.text} is {kind} ({said(error)}){path.where()}" + (f"; {advice}" if advice else "")
    except USER_ERRORS:  # code of the user's, if it gets its hands into this
        return said(error)


def known(way: list[Any], outward: int) -> tuple[list[Any], str, str]:
    """(the way to the first object of a known kind, what that is, advice); the whole way and nothing if there is none."""
    for i, x in enumerate(way):
        for cls in type(x).__mro__:
            found = KINDS.get(type_name(cls))
            if found is not None:
                return way[:i + 1], found[0] or article(type_name(cls)), found[1][outward]
    return way, "", ""


def type_name(cls: type) -> str:
    """Its full name, without builtins and __main__."""
    module, name = cls.__module__, cls.__qualname__
    return f"{module}.{name}" if isinstance(module, str) and module not in ("builtins", "__main__") else name


def article(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


class Path:
    """How the last object of a way is reached from the first, which is called `root`.

    Between two objects that a program knows there may be some that only pickling makes: tuples of arguments, states.
    """

    def __init__(self, root: str, way: list[Any]) -> None:
        self.text = root if len(way) > 1 else "it"
        self.remarks: list[str] = []  # what the name is, with which a path begins anew
        owner = way[0]  # the last object that the path names
        for before, x in zip(way, way[1:], strict=False):
            if self.step(owner, x) or before is not owner and self.step_of_state(owner, before, x):
                owner = x
            elif type(x) not in MADE:
                if self.text != "part":
                    self.begin("part", "in what pickling makes of")
                owner = x
        if len(self.text) > LONGEST:
            self.text = f"{self.text[:LONGEST // 2]} ... {self.text[-LONGEST // 2:]}"

    def where(self) -> str:
        shown = self.remarks[::-1]
        if len(shown) > MOST_REMARKS:
            shown[MOST_REMARKS - 1:-1] = ["..."]
        return "".join(f", where {x}" for x in shown)

    def begin(self, name: str, what: str) -> bool:
        self.remarks.append(f"{name} is {what} {self.text}")
        self.text = name
        return True

    def go(self, suffix: str | None) -> bool:
        if suffix is None:
            return False
        self.text += suffix
        return True

    def step(self, owner: Any, x: Any) -> bool:
        """Whether owner holds x, as far as a program can see; then the path leads there."""
        kind = type(owner)
        if issubclass(kind, types.FunctionType):
            return any(self.begin(name, what) for what, name, y in variables(owner) if y is x)
        if x is kind:
            return self.begin(x.__qualname__, "the class of")
        if issubclass(kind, type) and any(x is base for base in owner.__bases__):
            return self.begin(x.__qualname__, "a base class of")
        if issubclass(kind, (set, frozenset)) and is_in(x, owner):
            return self.begin("element", "an element of")
        if issubclass(kind, dict) and is_in(x, dict.keys(owner)):
            return self.begin("key", "a key of")
        return self.go(in_container(owner, x)) or self.go(in_attributes(owner, x))

    def step_of_state(self, owner: Any, state: Any, x: Any) -> bool:
        """The same for what its own __getstate__ gives under a name."""
        if type(state) is not dict or isinstance(owner, (types.FunctionType, type)):
            return False
        return any(self.go(f".{name}") for name, y in state.items() if y is x and isinstance(name, str))


def is_in(x: Any, things: Any) -> bool:
    return any(x is y for y in things)


def variables(fn: types.FunctionType) -> Iterator[tuple[str, str, Any]]:
    """(what it is, its name, its value) of what a function holds on to."""
    code = fn.__code__
    for name, cell in zip(code.co_freevars, fn.__closure__ or (), strict=False):
        with contextlib.suppress(ValueError):  # not bound yet
            yield "a variable captured by", name, cell.cell_contents
    given = fn.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(given):]
    for name, y in (*zip(names, given, strict=False), *(fn.__kwdefaults__ or {}).items()):
        yield "the default of a parameter of", name, y
    for name in global_names(code):
        if name in fn.__globals__:
            yield "a global variable used by", name, fn.__globals__[name]


def global_names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for x in code.co_consts:
        if isinstance(x, types.CodeType):
            yield from global_names(x)


def in_container(owner: Any, x: Any) -> str | None:
    kind = type(owner)
    if issubclass(kind, dict):
        return next((f"[{name_of_key(key)}]" for key, y in dict.items(owner) if y is x), None)
    for base in (list, tuple, deque):
        if issubclass(kind, base):
            i = next((i for i, y in enumerate(base.__iter__(owner)) if y is x), None)
            fields = getattr(kind, "_fields", ())
            return None if i is None else f".{fields[i]}" if i < len(fields) else f"[{i}]"
    return None


def name_of_key(key: Any) -> str:
    """As in a program, if that runs no code of the user's."""
    if type(key) in ATOMS or type(key) is tuple and all(type(x) in ATOMS for x in key):
        return reprlib.repr(key)
    return f"<{type_name(type(key))}>"


def in_attributes(owner: Any, x: Any) -> str | None:
    """The attribute that is x, or a container of the interpreter's that holds it; "" for what a program does not see."""
    for name, y in attributes(owner):
        if y is x:
            return f".{name}" if name else ""
    if isinstance(owner, functools.partial):
        for name, part in (("args", owner.args), ("keywords", owner.keywords)):
            at = in_container(part, x)
            if at:
                return f".{name}{at}"
    if isinstance(owner, BaseException):
        at = in_container(owner.args, x)
        return f".args{at}" if at else None
    return None


def attributes(owner: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(owner, types.MethodType):
        yield "__self__", owner.__self__
        yield "", owner.__func__
    elif isinstance(owner, (classmethod, staticmethod)):
        yield "", owner.__func__
    elif isinstance(owner, property):
        yield from (("", accessor) for accessor in (owner.fget, owner.fset, owner.fdel))
    elif isinstance(owner, functools.partial):
        yield "func", owner.func
    with contextlib.suppress(AttributeError):
        names = vars(owner) if isinstance(owner, type) else object.__getattribute__(owner, "__dict__")
        yield from ((name, y) for name, y in names.items() if isinstance(name, str))
    for cls in type(owner).__mro__:
        for name, descriptor in vars(cls).items():
            if type(descriptor) is types.MemberDescriptorType:
                with contextlib.suppress(AttributeError):  # not set
                    yield name, descriptor.__get__(owner)
