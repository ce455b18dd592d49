"""Which functions travel as a key of the table, and every way in which such an encoding could be stale."""

import collections
import functools
import gc
import inspect
import itertools
import json
import math
import os
import pathlib
import pickle
import re
import sys
import textwrap
import threading
import types
import weakref

import cloudpickle
import pytest

import dgmp
from dgmp._core import View, create
from dgmp.ship import classes, closure, code, dynamic, functions, modules, proof, snapshot
from dgmp.ship.snapshot import Snapshot
from tests import helpers

SOMEBODY = types.SimpleNamespace(name="somebody")


class Elsewhere:
    """In here we are another process, always the same one, as far as classes and snapshots are concerned."""

    def __init__(self):
        self.state = [
            (snapshot, "_here", weakref.WeakValueDictionary()), (classes, "_known", weakref.WeakValueDictionary()),
            (classes, "_ids", code.ById()), (classes, "_came", code.ById()), (classes, "_definitions", code.ById()),
            (classes, "_here", os.urandom(8)),
            (cloudpickle.cloudpickle, "_DYNAMIC_CLASS_TRACKER_BY_CLASS", weakref.WeakKeyDictionary()),
            (cloudpickle.cloudpickle, "_DYNAMIC_CLASS_TRACKER_BY_ID", weakref.WeakValueDictionary()),
        ]

    def __enter__(self):
        for i, (module, name, value) in enumerate(self.state):
            self.state[i] = module, name, getattr(module, name)
            setattr(module, name, value)

    def __exit__(self, *error):
        self.__enter__()


class Coder:
    """A spawner and an M in one process: what the M decodes are other objects than the spawner's."""

    def __init__(self, view):
        self.view = view
        self.encoder, self.decoder = closure.Encoder(view), closure.Decoder(view)
        self.there = Elsewhere()

    def key(self, fn, *args):
        return self.encoder.encode(fn, args)[0]

    def call(self, fn, *args):
        key, data = self.encoder.encode(fn, args)
        with self.there:
            fn, args, kwargs = self.decoder.decode_call(key, data, None)
            kind, data = closure.encode_result(fn(*args, **kwargs), fn, 1)
        value, error = closure.decode_result(kind, data, SOMEBODY)
        assert error is None
        return value

    def known(self, fn, *args):
        """Calls it until it travels by its key; what it returns."""
        for _ in range(2):
            self.call(fn, *args)
        assert self.key(fn, *args) != closure.WHOLE
        return self.call(fn, *args)


@pytest.fixture
def coder():
    fd = create(1, 1, 2, 4096, 1 << 26)
    yield Coder(View(fd, 1))
    os.close(fd)


class Notebook:
    """Cells that are run in one namespace, which is `__main__`'s for those who look."""

    def __init__(self, source=""):
        self.namespace = {"__name__": "__main__"}
        self.run(source)

    def run(self, source):
        exec(compile(textwrap.dedent(source), "<cell>", "exec"), self.namespace)
        return self

    def __getitem__(self, name):
        return self.namespace[name]


# ------------------------------------------------------------------ what is provable
PROVABLE = """
    import functools, json, logging, math, os.path, re, typing
    import numpy as np
    from numpy import mean, sort
    from pathlib import Path
    T1 = typing.TypeVar("T1")
    K, T, N, WORD, log = 5, (1, (2.5, b"x", frozenset({"a"}))), None, re.compile("[a-z]+"), logging.getLogger("x")
    def plain(x): return x + 1
    def constant(x): return x * K
    def deep(x): return T, N, x
    def helper(x): return plain(x) + constant(x)
    def helpers_helper(x): return helper(x) - 1
    def recursive(x): return x if x < 1 else recursive(x - 1)
    def even(x): return x == 0 or odd(x - 1)
    def odd(x): return x != 0 and even(x - 1)
    def annotated(x: int, y: "list[int] | None" = None, *, z: list[int] | None = None) -> dict[str, int]: return {"x": x}
    def library(x): return math.sqrt(x), json.dumps(x), os.path.join("a", str(x)), Path("/x").name
    def builtin(x): return len([x]) + abs(-x) + sum(range(x))
    def arrays(x): return np.add(x, 1), mean([x]), sort([x])
    def generic(x: typing.Optional[typing.List[int]], y: typing.Callable[[int], T1] = None) -> typing.Literal["a"]: return x
    def with_class(x):
        class A:
            y: int = x
        return A.y
    version: str = "1"
    def pattern(x): return WORD.findall("ab 1"), log.name
    def local(x):
        n = 0
        def count():
            nonlocal n
            n += x
            return n
        count()
        return count(), [i * K for i in range(x)]
    def with_default(x, y=(1, 2), *, z=3): return x, y, z
    def documented(x):
        "says so"
        return x
    def attribute(x):
        class Empty: pass
        obj = Empty()
        obj.x = x
        return obj.x
    anonymous = lambda x: x + K
    def factory(n): return lambda x: x + n
    closed = factory(3)
    def decorate(fn):
        @functools.wraps(fn)
        def wrapper(*args): return fn(*args)
        return wrapper
    @decorate
    def decorated(x): return x + K
    part = functools.partial(plain, 4)
    part_keyword = functools.partial(with_default, z=5)
    part_library = functools.partial(math.pow, 2)
    nested_part = functools.partial(functools.partial(with_default, 1), 2)
    def undefined(x): return x if x else nobody_knows
"""


def names_of(source):
    return [name for name, x in Notebook(source).namespace.items()
            if not name.startswith("_") and isinstance(x, types.FunctionType | functools.partial)]


@pytest.mark.parametrize("name", names_of(PROVABLE))
def test_what_is_provably_the_same_goes_by_its_key_from_the_second_use_on(coder, name):
    fn = Notebook(PROVABLE)[name]
    args = (5,) if not name.endswith("part") else ()
    first, (key, data) = coder.key(fn, *args), coder.encoder.encode(fn, args)
    assert first == closure.WHOLE and key != closure.WHOLE
    assert key == coder.key(fn, *args)
    if name not in ("factory", "decorate"):
        assert coder.call(fn, *args) == fn(*args) == coder.call(fn, *args)
    decoded = [coder.decoder.decode_call(key, data, None)[0] for _ in range(2)]
    assert decoded[0] is decoded[1] and decoded[0] is not fn


UNPROVABLE = """
    import collections, functools, types, typing
    L, D, S, A, total = [1], {}, {1}, bytearray(b"x"), 0
    class Point: x = 1
    point, names = Point(), types.SimpleNamespace(a=1)
    def captured_list(): return L
    def captured_dict(): return D
    def captured_set(): return S
    def captured_bytearray(): return A
    def captured_object(): return point
    def captured_namespace(): return names.a
    def captured_class(): return Point.x
    def through_a_tuple(box=(L,)): return box
    def mutable_default(x=[]): return x
    def mutable_keyword(*, x={}): return x
    def sets_a_global():
        global total
        total += 1
        return total
    def deletes_a_global():
        global total
        del total
    def sets_its_attribute():
        sets_its_attribute.calls = getattr(sets_its_attribute, "calls", 0) + 1
    def by_name(): globals()["total"] = 1
    def by_setattr(): setattr(by_setattr, "x", 1)
    def by_exec(): exec("total = 1", globals())
    def helper(): return captured_list()
    def counter():
        n = 0
        def count():
            nonlocal n
            n += 1
            return n
        return count
    count = counter()
    def with_dict(): return 1
    with_dict.cache = {}
    def annotated(x: Point): pass
    def deeply(x: typing.Optional[typing.List[Point]]): pass
    def with_metadata(x: typing.Annotated[int, L]): pass
    part_list = functools.partial(len, [1])
    part_keyword = functools.partial(int, **{"base": L})
    @functools.lru_cache
    def cached(x=1): return x
"""


@pytest.mark.parametrize("name", [*names_of(UNPROVABLE), "cached"])
def test_what_may_change_travels_whole(coder, name):
    if name == "counter":
        return
    fn = Notebook(UNPROVABLE)[name]
    assert [coder.key(fn) for _ in range(9)] == [closure.WHOLE] * 9


# ------------------------------------------------------------------ every way to be stale
@pytest.mark.parametrize("source,change,before,after", [
    pytest.param(source, change, before, after, id=name) for name, source, change, before, after in [
        ("captured list mutated", "box = [1]\nfn = lambda: list(box)", "box.append(2)", [1], [1, 2]),
        ("captured object's attribute set", "class A: pass\na = A(); a.x = 1\nfn = lambda: a.x", "a.x = 2", 1, 2),
        ("global rebound", "x = 1\ndef fn(): return x", "x = 2", 1, 2),
        ("global rebound to an equal value of another type", "x = 1\ndef fn(): return repr(x)", "x = True", "1", "True"),
        ("global rebound to something mutable", "x = 1\ndef fn(): return x", "x = [2]", 1, [2]),
        ("global list mutated", "xs = [1]\ndef fn(): return sum(xs)", "xs.append(2)", 1, 3),
        ("list in a global tuple mutated", "xs = ([1],)\ndef fn(): return sum(xs[0])", "xs[0].append(2)", 1, 3),
        ("global defined later", "def fn():\n try: return x\n except NameError: return 0", "x = 2", 0, 2),
        ("global deleted", "x = 2\ndef fn():\n try: return x\n except NameError: return 0", "del x", 2, 0),
        ("builtin shadowed", "def fn(): return len('abc')", "def len(x): return 9", 3, 9),
        ("builtin no longer shadowed", "def len(x): return 9\ndef fn(): return len('abc')", "del len", 9, 3),
        ("default changed", "def fn(x=1): return x", "fn.__defaults__ = (2,)", 1, 2),
        ("default removed", "def fn(x=1, *y): return x, y", "fn.__defaults__ = (3,)", (1, ()), (3, ())),
        ("mutable default mutated", "xs = []\ndef fn(x=xs): return list(x)", "xs.append(1)", [], [1]),
        ("kwdefaults replaced", "def fn(*, x=1): return x", "fn.__kwdefaults__ = {'x': 2}", 1, 2),
        ("kwdefaults mutated", "def fn(*, x=1): return x", "fn.__kwdefaults__['x'] = 2", 1, 2),
        ("kwdefaults added", "def fn(*, x=1, y=1): return x", "fn.__kwdefaults__ = {'x': 2, 'y': 1}", 1, 2),
        ("cell changed", "def make():\n n = 1\n def get(): return n\n def put(x):\n  nonlocal n\n  n = x\n return get, put\n"
         "fn, put = make()", "put(2)", 1, 2),
        ("cell's content set", "def make(n): return lambda: n\nfn = make(1)", "fn.__closure__[0].cell_contents = 2", 1, 2),
        ("cell emptied", "def make(n):\n def f():\n  try: return n\n  except NameError: return 0\n return f\nfn = make(1)",
         "del fn.__closure__[0].cell_contents", 1, 0),
        ("class attribute set", "class A: x = 1\ndef fn(): return A.x", "A.x = 2", 1, 2),
        ("class attribute deleted", "class A: x = 1\ndef fn(): return hasattr(A, 'x')", "del A.x", True, False),
        ("class attribute mutated", "class A: x = [1]\ndef fn(): return A.x", "A.x.append(2)", [1], [1, 2]),
        ("method replaced", "class A:\n def m(self): return 1\ndef fn(): return A().m()", "A.m = lambda self: 2", 1, 2),
        ("base class's method replaced", "class B:\n def m(self): return 1\nclass A(B): pass\ndef fn(): return A().m()",
         "B.m = lambda self: 2", 1, 2),
        ("class defined again", "class A: x = 1\ndef fn(): return A.x", "class A: x = 2", 1, 2),
        ("function defined again", "def fn(): return 1", "def fn(): return 2", 1, 2),
        ("helper defined again", "def helper(): return 1\ndef fn(): return helper()", "def helper(): return 2", 1, 2),
        ("helper's helper defined again", "def deep(): return 1\ndef helper(): return deep()\ndef fn(): return helper()",
         "def deep(): return 2", 1, 2),
        ("helper's global rebound", "x = 1\ndef helper(): return x\ndef fn(): return helper()", "x = 2", 1, 2),
        ("helper's code replaced", "def helper(): return 1\ndef fn(): return helper()",
         "helper.__code__ = (lambda: 2).__code__", 1, 2),
        ("helper's default changed", "def helper(x=1): return x\ndef fn(): return helper()", "helper.__defaults__ = (2,)",
         1, 2),
        ("helper in a cell changed", "def make(f): return lambda: f()\ndef helper(x=1): return x\nfn = make(helper)",
         "helper.__defaults__ = (2,)", 1, 2),
        ("function in a default changed", "def helper(x=1): return x\ndef fn(f=helper): return f()",
         "helper.__defaults__ = (2,)", 1, 2),
        ("code replaced", "def fn(): return 1", "fn.__code__ = (lambda: 2).__code__", 1, 2),
        ("code replaced by equal code at another line", "def fn(): return fn.__code__.co_firstlineno",
         "fn.__code__ = fn.__code__.replace(co_firstlineno=7)", 1, 7),
        ("attribute set", "def fn(): return getattr(fn, 'x', 1)", "fn.x = 2", 1, 2),
        ("attribute changed", "def fn(): return fn.x\nfn.x = 1", "fn.x = 2", 1, 2),
        ("attribute deleted", "def fn(): return hasattr(fn, 'x')\nfn.x = 1", "del fn.x", True, False),
        ("attribute's list mutated", "def fn(): return fn.x\nfn.x = [1]", "fn.x.append(2)", [1], [1, 2]),
        ("wrapped function changed", "import functools\ndef deco(f):\n @functools.wraps(f)\n def g(): return g.__wrapped__()\n"
         " return g\ndef inner(): return 1\nfn = deco(inner)", "inner.__code__ = (lambda: 2).__code__", 1, 2),
        ("name changed", "def fn(): return fn.__name__", "fn.__name__ = 'g'", "fn", "g"),
        ("qualified name changed", "def fn(): return fn.__qualname__", "fn.__qualname__ = 'A.g'", "fn", "A.g"),
        ("module's name changed", "def fn(): return fn.__module__", "fn.__module__ = 'elsewhere'", "__main__", "elsewhere"),
        ("doc changed", "def fn():\n 'a'\n return fn.__doc__", "fn.__doc__ = 'b'", "a", "b"),
        ("annotations changed", "def fn(x: int = 1): return fn.__annotations__['x']",
         "fn.__annotations__['x'] = str", int, str),
        ("annotations replaced", "def fn(x: int = 1): return len(fn.__annotations__)", "fn.__annotations__ = {}", 1, 0),
        ("global of a lambda within", "x = 1\ndef fn(): return (lambda: x)()", "x = 2", 1, 2),
        ("global of a comprehension within", "x = 1\ndef fn(): return [x for _ in 'a']", "x = 2", [1], [2]),
        ("global of a class body within", "x = 1\ndef fn():\n class A: y = x\n return A.y", "x = 2", 1, 2),
        ("global of a generator", "x = 1\ndef gen(): yield x\ndef fn(): return list(gen())", "x = 2", [1], [2]),
        ("partial's function changed", "import functools\ndef f(x, y=1): return x, y\nfn = functools.partial(f, 0)",
         "f.__defaults__ = (2,)", (0, 1), (0, 2)),
        ("partial's argument mutated", "import functools\nxs = [1]\nfn = functools.partial(sum, xs)", "xs.append(2)", 1, 3),
        ("partial's keyword changed", "import functools\nfn = functools.partial(int, '11', base=2)",
         "fn.keywords['base'] = 3", 3, 4),
        ("partial's state set", "import functools\nfn = functools.partial(int, '11')",
         "fn.__setstate__((int, ('12',), {}, {}))", 11, 12),
        ("partial in a global changed", "import functools\np = functools.partial(int, '11', base=2)\ndef fn(): return p()",
         "p.keywords['base'] = 3", 3, 4),
        ("callable instance's attribute set", "class A:\n x = 1\n def __call__(self): return self.x\nfn = A()", "fn.x = 2",
         1, 2),
        ("bound method's object changed", "class A:\n x = 1\n def m(self): return self.x\na = A()\nfn = a.m", "a.x = 2", 1, 2),
        ("class method's class changed", "class A:\n x = 1\n @classmethod\n def m(cls): return cls.x\nfn = A.m", "A.x = 2",
         1, 2),
        ("static method's global", "x = 1\nclass A:\n @staticmethod\n def m(): return x\nfn = A.m", "x = 2", 1, 2),
        ("lru_cache's function's global", "import functools\nx = 1\n@functools.lru_cache\ndef fn(): return x", "x = 2", 1, 2),
        ("pattern replaced", "import re\nx = re.compile('a')\ndef fn(): return x.pattern", "x = re.compile('b')", "a", "b"),
        ("module replaced by another", "import math as m\ndef fn(): return m.__name__", "import cmath as m", "math", "cmath"),
        ("imported function replaced by another", "from math import floor as f\ndef fn(): return f(1.5)",
         "from math import ceil as f", 1, 2),
        ("value of the module's name", "def fn(): return __name__", "__name__ = 'other'", "__main__", "other"),
        ("keyword argument's name for a global", "def fn(): return dict(x=1)", "x = 5", {"x": 1}, {"x": 1}),
    ]
])
def test_never_stale(coder, source, change, before, after):
    notebook = Notebook(source)
    for _ in range(5):
        assert coder.call(notebook["fn"]) == before
    notebook.run(change)
    for _ in range(5):
        assert coder.call(notebook["fn"]) == after


def test_what_is_changed_back_is_found_again(coder):
    notebook = Notebook("x = 1\ndef fn(): return x")
    for x in (1, 2, 1, 1, 3, 3, 1):
        notebook.run(f"x = {x}")
        assert coder.call(notebook["fn"]) == x


def test_a_function_whose_global_changes_each_time_fills_no_table(coder):
    notebook = Notebook("def fn(): return x")
    for x in range(1000, 2000):
        notebook.run(f"x = {x}")
        assert coder.call(notebook["fn"]) == x
    assert functions.MOST_FUNCTIONS - coder.encoder.functions.room <= 12


def test_a_helper_of_an_importable_module_is_the_m_s_own(coder, monkeypatch):
    notebook = Notebook("from tests import helpers\ndef fn(): return helpers.add(1, 2)")
    assert coder.known(notebook["fn"]) == 3
    monkeypatch.setattr(helpers, "add", lambda a, b: "replaced")  # by reference: here the M shares our module
    assert coder.key(notebook["fn"]) != closure.WHOLE
    assert coder.call(notebook["fn"]) == "replaced"


def test_an_importable_function_that_its_module_no_longer_holds_travels_as_it_was(coder, monkeypatch):
    notebook = Notebook("from tests.helpers import add\ndef fn(): return add(1, 2)")
    assert coder.known(notebook["fn"]) == 3
    monkeypatch.setattr(helpers, "add", lambda a, b: "replaced")
    assert coder.call(notebook["fn"]) == 3


def test_a_submodule_that_was_imported_later_is_imported_there_too(coder, tmp_path, monkeypatch):
    (tmp_path / "pack_for_test").mkdir()
    (tmp_path / "pack_for_test/__init__.py").write_text("")
    (tmp_path / "pack_for_test/sub.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        notebook = Notebook("import pack_for_test as p\ndef fn():\n try: return p.sub.x\n except AttributeError: return 0")
        assert coder.known(notebook["fn"]) == 0
        before = coder.key(notebook["fn"])
        notebook.run("import pack_for_test.sub")
        assert coder.key(notebook["fn"]) != before
        del sys.modules["pack_for_test.sub"], sys.modules["pack_for_test"]
        assert coder.call(notebook["fn"]) == 1
    finally:
        for name in ("pack_for_test.sub", "pack_for_test"):
            sys.modules.pop(name, None)


def test_the_id_of_a_dead_function_means_nothing(coder):
    ids = set()
    for i in range(200):
        fn = Notebook(f"def fn(): return {i}")["fn"]
        ids.add(id(fn))
        assert [coder.call(fn) for _ in range(3)] == [i] * 3
        del fn
        gc.collect(0)
    assert len(ids) < 200  # some were used again
    gc.collect()
    assert not coder.encoder.functions.functions.items


def test_closures_made_in_a_loop(coder):
    def make(i):
        return lambda x: (x, i)

    fns = [lambda x, i=i: (x, i) for i in range(20)] + [make(i) for i in range(20)]
    for _ in range(4):
        assert [coder.call(fn, 0) for fn in fns] == [(0, i) for i in [*range(20), *range(20)]]
    assert all(coder.key(fn, 0) for fn in fns)


def test_a_lambda_written_in_a_loop_is_one_function(coder):
    keys = [coder.key(lambda x: x + 1, i) for i in range(10)]
    assert keys[0] == closure.WHOLE and keys[1] != closure.WHOLE and set(keys[1:]) == {keys[1]}
    assert not coder.encoder.functions.functions.items or len(coder.encoder.functions.functions.items) == 1


def test_a_lambda_in_a_loop_that_captures_what_changes(coder):
    for i in range(50):
        assert coder.call(lambda x, y=[i]: (x, i, y), 1) == (1, i, [i])  # noqa: B023
        assert coder.call(lambda x: (x, i), 1) == (1, i)  # noqa: B023


def test_many_different_closures_do_not_fill_the_table(coder):
    blobs = [bytes([i % 256]) * 1000 + str(i).encode() for i in range(3000)]
    for blob in blobs:
        assert coder.call((lambda b: lambda: b)(blob)) == blob
    assert functions.MOST_FUNCTIONS - coder.encoder.functions.room < 20


def test_a_process_puts_a_bounded_number_of_functions_into_the_table(coder, monkeypatch):
    coder.encoder.functions.room = 3
    fns = [Notebook(f"def fn(): return {i}")["fn"] for i in range(6)]
    for _ in range(4):
        assert [coder.call(fn) for fn in fns] == list(range(6))
    assert sum(coder.key(fn) != closure.WHOLE for fn in fns) == 3
    coder.encoder.functions.room, coder.encoder.functions.room_bytes = 99, 100
    fn = Notebook("def fn(x='%s'): return x" % ("a" * 200))["fn"]
    assert [coder.call(fn) for _ in range(4)] == ["a" * 200] * 4 and coder.key(fn) == closure.WHOLE


def test_a_table_without_room_is_no_error(monkeypatch):
    fd = create(1, 1, 2, 4096, 1 << 16)
    coder = Coder(View(fd, 1))
    for i in range(5):
        fn = Notebook(f"def fn(x={'a' * 20_000!r}): return {i}")["fn"]
        assert [coder.call(fn) for _ in range(4)] == [i] * 4
    assert coder.encoder.functions.room == 0
    os.close(fd)


# ------------------------------------------------------------------ shared copies in an M
@pytest.mark.parametrize("source", [
    "total = 0\ndef fn():\n global total\n total += 1\n return total",
    "def fn():\n fn.calls = getattr(fn, 'calls', 0) + 1\n return fn.calls",
    "def make():\n n = 0\n def fn():\n  nonlocal n\n  n += 1\n  return n\n return fn\nfn = make()",
    "def fn(x=[0]):\n x[0] += 1\n return x[0]",
    "class A: n = 0\ndef fn():\n A.n += 1\n return A.n",
    "d = {}\ndef fn():\n d[len(d)] = 1\n return len(d)",
    "from tests.unit.test_functions import count\ndef helper(): pass\ndef fn(): return count(helper)",
    "from functools import update_wrapper as u\ndef helper(): pass\ndef fn():\n u(helper, len)\n return helper.__name__ and 1",
    "def helper(): pass\ndef fn():\n n = helper.__defaults__\n helper.__defaults__ = (1,)\n return 1 if n is None else 2",
])
def test_what_one_g_changes_in_its_function_the_next_does_not_see(coder, source):
    fn = Notebook(source)["fn"]
    assert [coder.call(fn) for _ in range(5)] == [1] * 5


def count(fn):
    """Changes a function that it is given: no instruction of the function that calls it says so."""
    fn.calls = getattr(fn, "calls", 0) + 1
    return fn.calls


def test_the_spawner_s_function_is_not_touched(coder):
    notebook = Notebook("total = 0\ndef fn():\n global total\n total += 1\n fn.x = 1\n return total")
    assert coder.call(notebook["fn"]) == 1 and notebook["total"] == 0 and not notebook["fn"].__dict__


def test_forget_loads_functions_anew(coder):
    fn = Notebook("def fn(): return 1")["fn"]
    coder.known(fn)
    coder.call(helpers.add, 1)
    key, data = coder.encoder.encode(fn, ())
    before = coder.decoder.decode_call(key, data, None)[0]
    coder.decoder.forget()
    assert not coder.decoder.functions
    assert coder.decoder.decode_call(key, data, None)[0] is not before


# ------------------------------------------------------------------ by reference
class Klass:
    @staticmethod
    def static(x):
        return "static", x

    @classmethod
    def of_class(cls, x):
        return cls.__name__, x

    def method(self, x):
        return type(self).__name__, x

    class Inner:
        def __init__(self, x):
            self.x = x


class Derived(Klass):
    pass


class Wrapped:
    """An instance that looks like a function of its module."""

    def __init__(self, fn):
        functools.update_wrapper(self, fn)
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return self.calls


@Wrapped
def wrapped():
    pass


@pytest.mark.parametrize("fn,args,want", [
    (Klass.static, (1,), ("static", 1)), (Klass.of_class, (1,), ("Klass", 1)), (Derived.of_class, (1,), ("Derived", 1)),
    (Klass.method, (Derived(), 1), ("Derived", 1)), (math.sqrt, (4,), 2.0), (len, ("abc",), 3), (int, ("5",), 5),
    (pathlib.PurePath.joinpath, (pathlib.PurePath("a"), "b"), pathlib.PurePath("a/b")), (dict.fromkeys, ("a",), {"a": None}),
    (collections.Counter, ("aa",), {"a": 2}), (json.dumps, ([1],), "[1]"),
])
def test_what_is_importable_goes_by_its_key_from_its_first_use_on(coder, fn, args, want):
    if fn != dict.fromkeys:
        assert coder.key(fn, *args) != closure.WHOLE
    assert [coder.call(fn, *args) for _ in range(3)] == [want] * 3


def test_a_replaced_method_is_not_confused_with_the_old_one(coder, monkeypatch):
    static, of_class, derived = Klass.static, Klass.of_class, Derived.of_class
    assert coder.call(static, 1) == ("static", 1) and coder.call(derived, 1) == ("Derived", 1)
    monkeypatch.setattr(Klass, "static", staticmethod(lambda x: "new"))
    monkeypatch.setattr(Derived, "of_class", classmethod(lambda cls, x: "new"), raising=False)
    assert coder.call(Klass.static, 1) == "new" and coder.call(Derived.of_class, 1) == "new"
    assert coder.call(static, 1) == ("static", 1) and coder.call(of_class, 1) == ("Klass", 1)
    monkeypatch.setattr(sys.modules[__name__], "Klass", int)
    assert coder.call(static, 1) == ("static", 1)


def test_an_instance_with_the_names_of_a_function_keeps_its_state(coder):
    assert [coder.call(wrapped) for _ in range(3)] == [1] * 3 and wrapped.calls == 0
    wrapped.calls = 5
    assert coder.call(wrapped) == 6


class TestModules:
    @pytest.mark.parametrize("name", ["json", "os.path", "math", "dgmp.ship.closure", "tests.helpers", "pytest", "numpy"])
    def test_importable(self, name):
        __import__(name)
        assert modules.importable(name)

    @pytest.mark.parametrize("name", ["__main__", "__mp_main__", "no_such_module", "json.no_such_module"])
    def test_not_importable(self, name):
        assert not modules.importable(name)

    @pytest.fixture
    def made(self):
        module = types.ModuleType("made_by_hand")
        exec(textwrap.dedent("""
            class Point:
                def __init__(self, x): self.x = x
                def __eq__(self, other): return self.x == other.x
            def double(x): return helper(x)
            def helper(x): return 2 * x
            def make(x): return Point(x)
        """), module.__dict__)
        sys.modules["made_by_hand"] = module
        yield module
        del sys.modules["made_by_hand"]

    def test_a_module_made_by_hand_goes_by_value(self, coder, made):
        assert not modules.importable("made_by_hand")
        cases = [(made.double, (2,), 4), (lambda x: made.double(x), (3,), 6), (helpers.identity, (made.double,), 0)]
        for fn, args, want in cases:
            for _ in range(3):
                key, data = coder.encoder.encode(fn, args)
                sys.modules.pop("made_by_hand")  # as in an M
                decoded, args_, _ = coder.decoder.decode_call(key, data, None)
                assert decoded(*args_) == want if want else decoded(*args_)(5) == 10
                sys.modules["made_by_hand"] = made

    def test_so_do_instances_of_its_classes(self, made):
        kind, data = closure.encode_result([made.Point(3)], len, 1)
        del sys.modules["made_by_hand"]
        value, error = closure.decode_result(kind, data, SOMEBODY)
        sys.modules["made_by_hand"] = made
        assert error is None and value[0].x == 3

    def test_a_file_beside_the_path(self, coder, tmp_path):
        import importlib.util

        path = tmp_path / "beside_the_path.py"
        path.write_text("def f(x): return x + 1\n")
        spec = importlib.util.spec_from_file_location("beside_the_path", path)
        module = sys.modules["beside_the_path"] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
            assert not modules.importable("beside_the_path")
            key, data = coder.encoder.encode(module.f, (1,))
            assert key == closure.WHOLE and b"co_filename" not in data
            del sys.modules["beside_the_path"]
            fn, args, _ = coder.decoder.decode_call(key, data, None)
            assert fn(*args) == 2 and fn.__code__.co_filename == str(path)
        finally:
            sys.modules.pop("beside_the_path", None)

    def test_a_module_that_hides_one_of_the_path(self, tmp_path, monkeypatch):
        (tmp_path / "hidden_one.py").write_text("")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(sys.modules, "hidden_one", types.ModuleType("hidden_one"))
        assert not modules.importable("hidden_one")
        monkeypatch.delitem(sys.modules, "hidden_one")
        import hidden_one  # noqa: F401

        assert modules.importable("hidden_one")


# ------------------------------------------------------------------ how functions travel
def through(obj):
    return pickle.loads(dynamic.dumps(obj))


@pytest.mark.parametrize("source", [
    "def fn(a, b=2, /, c=3, *d, e, f=6, **g) -> int:\n 'doc'\n return a, b, c, d, e, f, g",
    "fn = lambda: (yield)", "async def fn(): pass", "def fn(x: list[int] = 1): return x", "def fn(): return fn",
    "def fn():\n try:\n  raise ValueError\n except* ValueError:\n  pass",
])
def test_everything_of_a_function_arrives(source):
    fn = Notebook(source)["fn"]
    fn.attribute = ["x"]
    got = through(fn)
    for name in ("__code__", "__defaults__", "__kwdefaults__", "__name__", "__qualname__", "__module__", "__doc__",
                 "__annotations__", "__dict__"):
        assert getattr(got, name) == getattr(fn, name), name
    assert inspect.signature(got) == inspect.signature(fn)
    assert got.__code__.co_filename == "<cell>" and list(got.__code__.co_lines()) == list(fn.__code__.co_lines())
    assert got.__globals__["__builtins__"] is not None and got is not fn


def test_functions_of_one_pickle_share_globals_and_cells():
    notebook = Notebook("""
        state = []
        def put(x): state.append(x)
        def get(): return state
        def make():
            n = 0
            def up():
                nonlocal n
                n += 1
            return up, lambda: n
    """)
    put, get = through((notebook["put"], notebook["get"]))
    put(1)
    assert get() == [1] and notebook["state"] == [] and put.__globals__ is get.__globals__
    up, n = through(notebook["make"]())
    up()
    up()
    assert n() == 2


def test_closures_that_refer_to_themselves():
    def make():
        def even(x):
            return x == 0 or odd(x - 1)

        def odd(x):
            return x != 0 and even(x - 1)

        return even

    even = through(make())
    assert even(4) and not even(5)
    assert even.__closure__[0].cell_contents.__closure__[0].cell_contents is even


def test_an_empty_cell_and_one_with_none():
    def make():
        def f():
            return a, b
        a = None
        return f
        b = 1

    f = through(make())
    assert f.__closure__[0].cell_contents is None
    with pytest.raises(ValueError):
        f.__closure__[1].cell_contents  # noqa: B018


def test_a_function_with_a_constant_that_marshal_does_not_know():
    def f():
        return "x"

    odd = object
    f.__code__ = f.__code__.replace(co_consts=tuple(odd if c == "x" else c for c in f.__code__.co_consts))
    assert f() is object and through(f)() is object and through(f.__code__).co_filename == __file__


def test_code_has_the_same_bytes_wherever_it_has_been(coder):
    fn = Notebook(PROVABLE)["local"]
    assert code.dumps(through(fn).__code__) == code.dumps(fn.__code__)
    assert dynamic.dumps((through(through(fn)),)) == dynamic.dumps((through(fn),))


def test_a_cached_function_keeps_its_parameters():
    notebook = Notebook("import functools\n@functools.lru_cache(maxsize=7, typed=True)\ndef fn(x): return x * k\nk = 3")
    got = through(notebook["fn"])
    assert got(2) == 6 and got.cache_parameters() == {"maxsize": 7, "typed": True} and got.__name__ == "fn"
    assert through(json.loads) is json.loads and through(re._compile_template if hasattr(re, "_compile_template") else len)


# ------------------------------------------------------------------ snapshots
def test_a_snapshot_is_encoded_once(coder):
    notebook = Notebook("xs = [1]\ndef fn(): return list(xs)")
    task = Snapshot(notebook["fn"])
    assert coder.call(task) == [1]
    notebook.run("xs.append(2)\ndef fn(): return 0")
    assert coder.call(task) == [1] and coder.key(task) != closure.WHOLE
    assert coder.call(Snapshot(Notebook("def fn(): return 7")["fn"])) == 7


def test_a_snapshot_is_one_object_in_each_process(coder):
    task = Snapshot(Notebook("def fn(): return 1")["fn"])
    assert pickle.loads(pickle.dumps(task)) is task and through([task, task]) == [task, task]
    data = task.encode()
    ref = weakref.ref(task)
    del task
    gc.collect()
    assert ref() is None
    other = pickle.loads(data).arrived(data)
    assert other._fn() == 1 and pickle.loads(pickle.dumps(other)) is other


def test_a_snapshot_spawned_where_it_has_come_to_has_the_same_key(coder):
    task = Snapshot(Notebook("def fn(): return 1")["fn"])
    key, data = coder.encoder.encode(task, ())
    blob, keys = task._data, dict(task._keys)
    del task
    gc.collect()
    coder.decoder.decode_call(key, data, None)
    arrived = pickle.loads(coder.view.function(key)).arrived(blob)
    assert arrived.key_in(coder.view) == key and keys == arrived._keys


def test_a_snapshot_of_an_importable_function_and_one_that_cannot_travel(coder):
    assert coder.call(Snapshot(helpers.add), 1, 2) == 3
    lock = threading.Lock()
    with pytest.raises(dgmp.EncodingError, match="<lambda> cannot be pickled"):
        coder.call(Snapshot(lambda: lock))


def test_snapshots_in_closures_are_provable(coder):
    task = Snapshot(Notebook("xs = [1]\ndef fn(): return list(xs)")["fn"])
    fn = (lambda t: lambda: t._fn())(task)
    assert coder.known(fn) == [1]
    task._fn.__globals__["xs"].append(2)
    assert coder.call(fn) == [1]


def test_combinations_of_changes(coder):
    """Whatever is changed in whatever order: the next call sees it."""
    changes = ["x = 2", "def h(): return x + 1", "fn.__defaults__ = (9,)", "ys.append(1)", "del fn.__globals__['ys'][:]"]
    for order in itertools.permutations(changes, 3):
        notebook = Notebook("x, ys = 1, []\ndef h(): return x\ndef fn(d=0): return x, h(), d, list(ys)")
        for change in ("", *order):
            notebook.run(change)
            for _ in range(3):
                assert coder.call(notebook["fn"]) == notebook["fn"]()


def test_proofs_hold_no_function(coder):
    notebook = Notebook("def helper(): return fn\ndef fn(): return helper() is fn")
    assert coder.known(notebook["fn"])
    refs = [weakref.ref(notebook[name]) for name in ("fn", "helper")]
    del notebook
    gc.collect()
    assert [ref() for ref in refs] == [None, None]
    assert proof.prove(lambda: 1) and proof.prove(3) is None


def test_calls_with_keywords_carry_the_key_too(coder):
    fn = Notebook("def fn(x, *, y): return x, y")["fn"]
    for i in range(3):
        data = coder.encoder.encode_whole(fn, (i,), {"y": fn})
        got, args, kwargs = coder.decoder.decode_call(closure.WHOLE, data, None)
        assert got(*args, y=0) == (i, 0) and kwargs["y"].__name__ == "fn"
    small = coder.encoder.encode_whole(fn, (1,), {"y": 2})
    assert len(small) < 50 and coder.decoder.decode_call(closure.WHOLE, small, None)[1:] == ((1,), {"y": 2})
