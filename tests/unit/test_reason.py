"""Why an object cannot be pickled, and how it is reached."""

import asyncio
import collections
import concurrent.futures
import contextlib
import contextvars
import dataclasses
import functools
import io
import mmap
import os
import queue
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import weakref

import pytest

import dgmp
from dgmp.ship import closure, reason, values

LOCK = threading.Lock()
NESTED = {"db": {"x": [LOCK]}}


class Connection:
    def __init__(self):
        self._lock = LOCK

    def query(self):
        return self


class Slots:
    __slots__ = ("conn", "unset")

    def __init__(self):
        self.conn = Connection()


class ChoosesState:
    def __getstate__(self):
        return {"inner": {"lock": threading.Lock()}}


class ChoosesArguments:
    def __reduce__(self):
        return ChoosesArguments, ([threading.Lock()],)


class Raises:
    def __reduce__(self):
        raise ValueError("not me")


class Exits:
    def __reduce__(self):
        sys.exit(3)


class Interrupts:
    def __reduce__(self):
        raise KeyboardInterrupt


class ReducesToGarbage:
    def __reduce__(self):
        return 3


class Recurses:
    def __reduce__(self):
        return self.__reduce__()


class Endless:
    def __reduce__(self):
        return Endless, (Endless(),)


class CannotSpeak(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class RaisesOddly:
    def __reduce__(self):
        raise CannotSpeak


class Lies:
    """Its attributes are what it likes."""

    def __init__(self):
        object.__setattr__(self, "lock", LOCK)

    def __getattribute__(self, name):
        if name.startswith(("__reduce", "__class")):
            return object.__getattribute__(self, name)
        raise SystemExit(name)


class UnhappyKey:
    def __repr__(self):
        raise ValueError("no repr")


Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class Config:
    db: object


def cycle():
    x = []
    x += [{"again": x}, LOCK]
    return x


def deep(n, x):
    for _ in range(n):
        x = [x]
    return x


def with_class_attribute():
    class Local:
        shared = LOCK

    return Local


def captures(x):
    return lambda: x


def by_default(x=LOCK, *, y=None):
    pass


def dynamic(source, **names):
    """The function f of a module that nobody can import."""
    names["__name__"] = "__main__"
    exec(source, names)
    return names["f"]


def train(cfg, *rest, k=None):
    pass


def said(obj):
    with pytest.raises(dgmp.EncodingError) as e:
        closure.encode_call((train, (obj,), {}), train, (obj,), {})
    assert e.value.__cause__ is not None
    return str(e.value)


@pytest.mark.parametrize("make,text", [
    (lambda: LOCK, "it is a lock (TypeError: cannot pickle '_thread.lock' object); create it inside the G, or pass what it is "
                   "made from"),
    (lambda: {"db": Config(Connection())}, "cfg['db'].db._lock is a lock (TypeError"),
    (Slots, "cfg.conn._lock is a lock ("),
    (ChoosesState, "cfg.inner['lock'] is a lock ("),
    (ChoosesArguments, "part is a lock (TypeError: cannot pickle '_thread.lock' object), where part is in what pickling makes "
                       "of cfg; create"),
    (lambda: Point(1, [LOCK]), "cfg.y[0] is a lock ("),
    (lambda: (1, LOCK), "cfg[1] is a lock ("),
    (lambda: {(1, "a"): LOCK}, "cfg[(1, 'a')] is a lock ("),
    (lambda: {UnhappyKey(): LOCK}, "cfg[<tests.unit.test_reason.UnhappyKey>] is a lock ("),
    (lambda: {LOCK: 1}, "key is a lock (TypeError: cannot pickle '_thread.lock' object), where key is a key of cfg;"),
    (lambda: {LOCK}, "element is a lock (TypeError: cannot pickle '_thread.lock' object), where element is an element of cfg;"),
    (lambda: frozenset([(LOCK,)]), "element[0] is a lock (TypeError: cannot pickle '_thread.lock' object), where element is "),
    (lambda: collections.deque([1, LOCK]), "cfg[1] is a lock ("),
    (lambda: collections.OrderedDict(a=LOCK), "cfg['a'] is a lock ("),
    (lambda: ValueError(1, LOCK), "cfg.args[1] is a lock ("),
    (lambda: functools.partial(train, 1, cfg=LOCK), "cfg.keywords['cfg'] is a lock ("),
    (lambda: functools.partial(train, {"a": LOCK}), "cfg.args[0]['a'] is a lock ("),
    (lambda: functools.partial(Connection().query), "cfg.func.__self__._lock is a lock ("),
    (lambda: Connection().query, "cfg.__self__._lock is a lock ("),
    (lambda: captures(Connection()), "x._lock is a lock (TypeError: cannot pickle '_thread.lock' object), where x is a "
                                     "variable captured by cfg; create"),
    (lambda: captures(captures(LOCK)), "), where x is a variable captured by x, where x is a variable captured by cfg; create"),
    (lambda: dynamic("def f(): return [g() for _ in G]", G=NESTED),
     "G['db']['x'][0] is a lock (TypeError: cannot pickle '_thread.lock' object), where G is a global variable used by cfg;"),
    (lambda: dynamic("def f(x=L): return L", L=LOCK), "where x is the default of a parameter of cfg;"),
    (lambda: dynamic("def f(*, y=L): return L", L=LOCK), "where y is the default of a parameter of cfg;"),
    (lambda: dynamic("def f(): return lambda: L", L=LOCK), "where L is a global variable used by cfg;"),
    (with_class_attribute, "cfg.shared is a lock ("),
    (lambda: with_class_attribute()(), "Local.shared is a lock (TypeError: cannot pickle '_thread.lock' object), where "
                                       "with_class_attribute.<locals>.Local is the class of cfg;"),
    (cycle, "cfg[1] is a lock ("),
    (lambda: [0] * 100_000 + [LOCK], "cfg[100000] is a lock ("),
    (lambda: deep(100, LOCK), "cfg[0][0][0]"),
    (Lies, "Lies (SystemExit: __"),
    (Raises, "it is a tests.unit.test_reason.Raises (ValueError: not me)"),
    (lambda: [Exits()], "cfg[0] is a tests.unit.test_reason.Exits (SystemExit: 3)"),
    (lambda: [Interrupts()], "cfg[0] is a tests.unit.test_reason.Interrupts (KeyboardInterrupt: )"),
    (RaisesOddly, "RaisesOddly (CannotSpeak: <its text cannot be had: RuntimeError>)"),
    (ReducesToGarbage, "ReducesToGarbage (PicklingError: "),
    (lambda: [Recurses()], "cfg[0] is a tests.unit.test_reason.Recurses (RecursionError: "),
    (lambda: deep(50_000, 1), "it is nested too deep (RecursionError: maximum recursion depth exceeded while pickling"),
    (Endless, "it is nested too deep (RecursionError: "),
])
def test_the_way_to_what_is_at_fault(make, text):
    obj = make()
    message = said(obj)
    assert message.startswith("argument 'cfg' of train() cannot be pickled: ") and text in message.replace(
        "with_class_attribute.<locals>.Local.shared", "Local.shared")
    if isinstance(obj, list) and len(obj) == 1 and isinstance(obj[0], list):  # as deep as it can go
        del obj[0]


async def a_coroutine():
    pass


async def an_async_generator():
    yield 1


def a_socket():
    left, right = socket.socketpair()
    right.close()
    return left


@pytest.mark.parametrize("make,kind,advice", [
    (threading.RLock, "a lock", "create it inside the G"),
    (threading.Event, "a threading.Event", "create"),
    (threading.Condition, "a threading.Condition", "create"),
    (lambda: threading.BoundedSemaphore(2), "a threading.Semaphore", "create"),
    (lambda: threading.Barrier(2), "a threading.Barrier", "create"),
    (lambda: threading.Timer(1, print), "a thread", "create"),
    (threading.local, "a threading.local", "create"),
    (queue.Queue, "a queue.Queue", "create"),
    (queue.SimpleQueue, "a queue.SimpleQueue", "create"),
    (lambda: (x for x in "abc"), "a generator", "pass a list of its items, or the function that makes it"),
    (a_coroutine, "a coroutine", "pass the function that makes it, and run that inside the G, with asyncio.run()"),
    (an_async_generator, "an async generator", "pass a list of its items"),
    (lambda: open(__file__), "an open file", "open it inside the G, or pass its path or what is in it"),
    (lambda: open(__file__, "rb"), "an open file", "open it"),
    (lambda: open(__file__, "rb", buffering=0), "an open file", "open it"),
    (tempfile.NamedTemporaryFile, "an open file", "open it"),
    (lambda: os.scandir("/"), "an open folder", "open it"),
    (lambda: mmap.mmap(-1, 100), "a memory map", "open it"),
    (a_socket, "a socket", "connect inside the G"),
    (lambda: sqlite3.connect(":memory:"), "an sqlite3.Connection", "connect inside the G, or pass what was read"),
    (lambda: sqlite3.connect(":memory:").cursor(), "an sqlite3.Cursor", "connect inside the G"),
    (lambda: subprocess.Popen(["true"]), "a subprocess.Popen", "start it inside the G"),
    (sys._getframe, "a stack frame", "pass its text"),
    (lambda: the_error().__traceback__, "a traceback", "pass its text"),
    (lambda: weakref.ref(Connection), "a weak reference", "pass what it refers to"),
    (lambda: weakref.proxy(Connection), "a weak reference", "pass what it refers to"),
    (weakref.WeakValueDictionary, "a weakref.WeakValueDictionary", "pass what it refers to"),
    (concurrent.futures.ThreadPoolExecutor, "an executor", "create"),
    (asyncio.new_event_loop, "an event loop", "create"),
    (lambda: contextvars.ContextVar("x"), "a contextvars.ContextVar", "create"),
    (lambda: re.match("a", "a"), "a re.Match", "create"),
])
def test_what_it_is_and_what_to_do(make, kind, advice):
    obj = make()
    message = said([obj])
    assert f"cfg[0] is {kind} (" in message and f"; {advice}" in message
    if isinstance(obj, subprocess.Popen):
        obj.wait(10)
    with contextlib.suppress(AttributeError):
        obj.close()


def the_error():
    try:
        raise ValueError
    except ValueError as e:
        return e


@pytest.mark.parametrize("make", [
    lambda: {1: 2}.keys(), lambda: {1: 2}.items(), lambda: sys.stdout, lambda: io.StringIO("x"), lambda: os,
    lambda: memoryview(b"x"),
])
def test_what_travels(make):
    if make() is not sys.stdout or type(sys.stdout) is io.TextIOWrapper:
        closure.encode_call((train, (make(),), {}), train, (make(),), {})


class Method:
    def run(self, cfg, limit=None):
        pass


@pytest.mark.parametrize("fn,args,kwargs,text", [
    (train, (1, 2, LOCK), {}, "argument 3 of train() cannot be pickled: it is a lock ("),
    (train, (1, 2, [LOCK]), {}, "argument 3 of train() cannot be pickled: args[2][0] is a lock ("),
    (train, (1,), {"k": {"a": LOCK}}, "argument 'k' of train() cannot be pickled: k['a'] is a lock ("),
    (max, ([LOCK],), {}, "argument 1 of max() cannot be pickled: args[0][0] is a lock ("),
    (Method().run, (1, [LOCK]), {}, "argument 'limit' of Method.run() cannot be pickled: limit[0] is a lock ("),
    (Config, ([LOCK],), {}, "argument 'db' of Config() cannot be pickled: db[0] is a lock ("),
    (Connection().query, (), {}, "Connection.query cannot be pickled: query.__self__._lock is a lock ("),
    (captures(LOCK), (LOCK,), {}, "<lambda> cannot be pickled: x is a lock ("),
])
def test_the_part_of_a_call(fn, args, kwargs, text):
    with pytest.raises(dgmp.EncodingError) as e:
        closure.encode_call((fn, args, kwargs), fn, args, kwargs)
    assert text in str(e.value)


def test_a_result():
    with pytest.raises(dgmp.EncodingError) as e:
        closure.encode_result({"rows": [1, LOCK]}, train, 7)
    assert str(e.value) == ("the result (dict) of G 7 (train) cannot be pickled: result['rows'][1] is a lock (TypeError: "
                            "cannot pickle '_thread.lock' object); return plain values instead")


def test_long_paths_are_cut():
    x = LOCK
    for i in range(100):
        x = {f"a rather long key {i}": x}
    message = said(x)
    assert "cfg['a rather long key 99']" in message and "['a rather long key 0'] is a lock" in message and len(message) < 500


def test_the_search_ends(monkeypatch):
    monkeypatch.setattr(reason, "SECONDS", 0)
    assert said([LOCK]) == "argument 'cfg' of train() cannot be pickled: TypeError: cannot pickle '_thread.lock' object"


class Counts:
    times = 0

    def __reduce__(self):
        Counts.times += 1
        return Counts, ()


def test_code_of_the_users_is_called_once_more_only():
    with pytest.raises(dgmp.EncodingError):
        values.encode([Counts(), LOCK], "it")
    assert Counts.times == 3  # pickle, cloudpickle, reason


def test_where_the_stack_is_nearly_used_up():
    seen = []

    def down():
        try:
            down()
        finally:
            with contextlib.suppress(RecursionError):
                said([1])
            try:
                said([LOCK])
            except BaseException as e:
                seen.append(type(e))

    def said(obj):
        closure.encode_call((train, (obj,), {}), train, (obj,), {})

    with pytest.raises(RecursionError):
        down()
    assert set(seen) == {RecursionError, dgmp.EncodingError} and seen[0] is RecursionError


class PressesCtrlC:
    def __reduce__(self):
        signal.raise_signal(signal.SIGINT)
        time.sleep(0)
        return PressesCtrlC, ()


@pytest.mark.parametrize("encode", [lambda x: values.encode(x, "it"), lambda x: closure.encode_call(x, train, x, {})])
def test_ctrl_c_is_not_taken_for_the_objects_own(encode):
    with pytest.raises(KeyboardInterrupt):
        encode((PressesCtrlC(), LOCK))
