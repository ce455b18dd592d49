"""Classes that travel by value: between the process that made them, Ms, and back."""

import typing

import pytest

from dgmp.ship import closure, values
from tests.unit.test_functions import SOMEBODY, Elsewhere, Notebook, coder  # noqa: F401

CLASSES = """
    import abc, collections, dataclasses, enum, typing
    from typing import Generic, NamedTuple, Protocol, TypeVar
    T = TypeVar("T")

    class Plain:
        count = 0
        def __init__(self, x=1): self.x = x
        def __eq__(self, other): return type(self) is type(other) and vars(self) == vars(other)
        __hash__ = None
    class Child(Plain):
        def double(self): return 2 * self.x
    class Slots:
        __slots__ = ("x", "__y", "__weakref__")
        def __init__(self, x=1): self.x, self.__y = x, 2
        def __eq__(self, other): return type(self) is type(other) and (self.x, self.__y) == (other.x, other.__y)
    class MoreSlots(Slots):
        __slots__ = "z"
    class OneSlot:
        __slots__ = "x"
        def __init__(self): self.x = 1
        def __eq__(self, other): return type(self) is type(other) and self.x == other.x
    @dataclasses.dataclass
    class Data:
        x: int = 1
        y: list = dataclasses.field(default_factory=list)
    @dataclasses.dataclass(frozen=True)
    class Frozen:
        x: int = 1
    @dataclasses.dataclass(slots=True)
    class Slotted:
        x: int = 1
    @dataclasses.dataclass(slots=True, frozen=True, kw_only=True, order=True)
    class Strict:
        x: int = 1
        y: tuple = ()
    Tuple = collections.namedtuple("Tuple", "a b", defaults=(1, 2))
    class Typed(NamedTuple):
        a: int = 1
        b: str = "x"
        def both(self): return self.a, self.b
    class Box(Generic[T]):
        def __init__(self, x=1): self.x = x
        def __eq__(self, other): return type(self) is type(other) and self.x == other.x
    class IntBox(Box[int]): pass
    class Abstract(abc.ABC):
        @abc.abstractmethod
        def m(self): ...
        def __eq__(self, other): return type(self) is type(other)
    class Concrete(Abstract):
        def m(self): return super().__init__() or 1
    class Meta(type):
        def __new__(meta, name, bases, namespace, **kw): return super().__new__(meta, name, bases, namespace)
        def __call__(cls, *args): return super().__call__(*args)
        def shout(cls): return cls.__name__.upper()
    class WithMeta(metaclass=Meta):
        def __eq__(self, other): return type(self) is type(other)
    class Outer:
        class Inner:
            def __eq__(self, other): return type(self) is type(other)
    class HasX(Protocol):
        x: int
    class Property:
        def __init__(self): self._x = 1
        @property
        def x(self): return self._x
        @x.setter
        def x(self, value): self._x = value
        @classmethod
        def make(cls): return cls()
        @staticmethod
        def one(): return 1
        def __eq__(self, other): return type(self) is type(other) and self.x == other.x
    class Error(Exception): pass
    class ErrorWithCode(Error):
        def __init__(self, text="x", *, code=7):
            super().__init__(text)
            self.code = code
        def __reduce__(self): return rebuild, (type(self), self.args, self.code)
        def __eq__(self, other): return type(self) is type(other) and (self.args, self.code) == (other.args, other.code)
    def rebuild(cls, args, code): return cls(*args, code=code)
    class List(list): pass
    class Dict(dict):
        def __missing__(self, key): return key
    class Str(str): pass
    class Color(enum.Enum):
        RED = 1
        GREEN = "g"
        def shout(self): return self.name + "!"
    class Flag(enum.Flag):
        A = enum.auto()
        B = enum.auto()
    class Number(enum.IntEnum):
        ONE = 1
        UNO = 1
    class Text(enum.StrEnum):
        A = enum.auto()
    def local():
        class Local:
            def __eq__(self, other): return type(self) is type(other)
        return Local()
    def make(name): return globals()[name]()
"""
MADE = ["Plain", "Child", "Slots", "OneSlot", "Data", "Frozen", "Slotted", "Strict", "Tuple", "Typed", "Box", "IntBox",
        "Concrete", "WithMeta", "Property", "ErrorWithCode", "List", "Dict", "Str"]
MEMBERS = ["Color.RED", "Color.GREEN", "Flag.A", "Flag.A | Flag.B", "Number.UNO", "Text.A"]


def back(coder, obj):  # noqa: F811
    """An object that went there as an argument and came back as a result."""
    return coder.call(lambda x: x, obj)


@pytest.mark.parametrize("source", [*(f"{name}()" for name in MADE), *MEMBERS, "Outer.Inner()", "local()"])
def test_instances_come_back_equal_and_of_the_owner_s_class(coder, source):  # noqa: F811
    notebook = Notebook(CLASSES)
    obj = eval(source, notebook.namespace)
    for _ in range(3):
        got = back(coder, obj)
        assert type(got) is type(obj) and got == obj
        got = back(coder, [obj, {"x": obj}])
        assert got == [obj, {"x": obj}] and got[0] is got[1]["x"]
    if source in MEMBERS:
        assert back(coder, obj) is obj


@pytest.mark.parametrize("name", [*MADE, "Color", "Flag", "Number", "Text", "Abstract", "Meta", "Outer", "HasX", "Error", "T"])
def test_classes_come_back_as_themselves(coder, name):  # noqa: F811
    cls = Notebook(CLASSES)[name]
    before = dict(vars(cls)) if isinstance(cls, type) else None
    for _ in range(2):
        assert back(coder, cls) is cls and back(coder, (cls, [cls])) == (cls, [cls])
    if before is not None:
        after = vars(cls)
        assert {k: v for k, v in after.items() if k in before} == before and all(after[k] is v for k, v in before.items())


@pytest.mark.parametrize("name", MADE)
def test_made_there(coder, name):  # noqa: F811
    """By a function of the notebook, which takes the class with it."""
    notebook = Notebook(CLASSES).run(f"def make_it(): return {name}()")
    for _ in range(3):
        got = coder.call(notebook["make_it"])
        assert type(got) is notebook[name] and got == notebook[name]()


def test_what_a_g_does_to_a_class_does_not_reach_its_owner(coder):  # noqa: F811
    notebook = Notebook(CLASSES).run("""
        def fn():
            Plain.count += 1
            Plain.new = 1
            return Plain(), Plain.count
    """)
    notebook["Plain"].count = 10
    method = notebook["Plain"].__init__
    for i in range(3):
        value, count = coder.call(notebook["fn"])
        assert type(value) is notebook["Plain"] and count == 11 + i and notebook["Plain"].count == 10 + i
        assert not hasattr(notebook["Plain"], "new") and notebook["Plain"].__init__ is method
        notebook.run("Plain.count += 1")


def test_a_change_of_the_owner_s_class_is_seen_there(coder):  # noqa: F811
    notebook = Notebook(CLASSES)
    there = "def fn(x): return x.count, getattr(x, 'added', None), x.double() if hasattr(x, 'double') else None"
    notebook.run(there)
    child = notebook["Child"]()
    assert coder.call(notebook["fn"], child) == (0, None, 2)
    notebook.run("Plain.count = 5\nPlain.added = 'new'")
    assert coder.call(notebook["fn"], child) == (5, "new", 2)
    notebook.run("Child.double = lambda self: 3 * self.x")
    assert coder.call(notebook["fn"], child) == (5, "new", 3)
    notebook.run("del Child.double, Plain.added")
    assert coder.call(notebook["fn"], child) == (5, None, None)


def test_a_class_that_is_defined_again_is_another_one(coder):  # noqa: F811
    notebook = Notebook("class Point: x = 1\ndef make(): return Point()")
    first = notebook["Point"]
    old = coder.call(notebook["make"])
    notebook.run("class Point: x = 2")
    new = coder.call(notebook["make"])
    assert type(old) is first and type(new) is notebook["Point"] is not first and (old.x, new.x) == (1, 2)
    assert type(back(coder, old)) is first


def test_a_class_made_in_a_g_comes_back_and_goes_there_again(coder):  # noqa: F811
    notebook = Notebook("""
        def make():
            class Local:
                n = 3
                def m(self): return self.n
            return Local
        def check(obj): return obj.m(), type(obj)
    """)
    cls = coder.call(notebook["make"])
    assert cls().m() == 3
    n, again = coder.call(notebook["check"], cls())
    assert n == 3 and again is cls


def test_a_class_goes_on_to_another_process_and_home(coder):  # noqa: F811
    """Client to M1 to M2, whose result goes to M1, and that one's to the client."""
    notebook = Notebook(CLASSES)
    m1, m2 = Elsewhere(), Elsewhere()
    data = values.pickled(notebook["Child"](4))
    with m1:
        one = values.loads(data)
        type(one).mark = "m1"
        data = values.pickled(one)
    with m2:
        two = values.loads(data)
        assert two.mark == "m1" and two.double() == 8
        type(two).mark = "m2"
        result = closure.encode_result(two, len, 1)
    with m1:
        value, _ = closure.decode_result(*result, SOMEBODY)
        assert type(value) is type(one) and value.mark == "m1"
        result = closure.encode_result(value, len, 1)
    value, _ = closure.decode_result(*result, SOMEBODY)
    assert type(value) is notebook["Child"] and not hasattr(value, "mark")


def test_a_class_that_comes_back_to_where_it_was_sent_from_is_left_alone():
    """A child G that runs on its parent's M."""
    notebook = Notebook("class A: xs = []")
    m = Elsewhere()
    data = values.pickled(notebook["A"]())
    with m:
        one = values.loads(data)
        type(one).xs = xs = [1]
        again = values.loads(values.pickled(one))
        assert type(again) is type(one) and again.xs is xs


def test_a_subclass_hook_runs_once_for_each_process(coder):  # noqa: F811
    notebook = Notebook("""
        class Base:
            known = []
            def __init_subclass__(cls): Base.known.append(cls.__name__)
        class A(Base): pass
        def fn(): return A()
    """)
    for _ in range(3):
        assert type(coder.call(notebook["fn"])) is notebook["A"]
    assert notebook["Base"].known == ["A"]


def test_except_catches_what_was_raised_there(coder):  # noqa: F811
    from dgmp.ship import failure

    notebook = Notebook(CLASSES).run("def fail(): raise ErrorWithCode('boo', code=3)")
    key, data = coder.encoder.encode(notebook["fail"], ())
    with coder.there:
        try:
            coder.decoder.decode_call(key, data, None)[0]()
        except Exception as e:
            kind, data = failure.encode_error(e)
    _, error = closure.decode_result(kind, data, SOMEBODY)
    assert type(error) is notebook["ErrorWithCode"] and error.code == 3
    with pytest.raises(notebook["Error"], match="boo"):
        raise error


def test_functions_and_methods_that_come_back(coder):  # noqa: F811
    notebook = Notebook(CLASSES).run("""
        k = 2
        def times(x): return k * x
        def both(): return times, Child(5).double, Property.make
    """)
    times, double, make = coder.call(notebook["both"])
    assert times(3) == 6 and double() == 10 and type(make()) is notebook["Property"]
    assert double.__func__ is notebook["Child"].double


KINDS = {
    "cached_property": ("""
        class A:
            @functools.cached_property
            def x(self): return 3
        def fn(): return A().x
    """, 3),
    "singledispatch": ("""
        @functools.singledispatch
        def f(x): return "any", f.__name__
        @f.register
        def _(x: int): return "int", f([])
        def fn(): return f(1)
    """, ("int", ("any", "f"))),
    "singledispatchmethod": ("""
        class A:
            @functools.singledispatchmethod
            def m(self, x): return "any"
            @m.register
            def _(self, x: int): return "int"
        def fn(): return A().m(1), A().m([])
    """, ("int", "any")),
    "lru_cache": ("""
        @functools.lru_cache
        def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
        def fn(): return fib(50)
    """, 12586269025),
    "lru_cache of a method": ("""
        class A:
            @functools.lru_cache
            def m(self, x): return x
        def fn(): return A().m(3)
    """, 3),
    "subclass hook with a keyword": ("""
        class B:
            def __init_subclass__(cls, *, key): cls.key = key
        class A(B, key=5): pass
        def fn(): return A.key, A.__bases__ == (B,), isinstance(A(), B)
    """, (5, True, True)),
    "subclass hook and slots": ("""
        class B:
            __slots__ = ()
            def __init_subclass__(cls, *, key): pass
        class A(B, key=5):
            __slots__ = "x"
        def fn(): return hasattr(A(), "__dict__"), A.__mro__ == (A, B, object)
    """, (False, True)),
    "subclass hook of an exception": ("""
        class B(Exception):
            def __init_subclass__(cls, *, key): pass
        class A(B, key=5): pass
        def fn(): return A.__mro__[1:4] == (B, Exception, BaseException)
    """, True),
    "subclass hook of a generic class": ("""
        T = typing.TypeVar("T")
        class B(typing.Generic[T]):
            def __init_subclass__(cls, **kw): pass
        class A(B[int]): pass
        def fn(): return A.__mro__[1:3] == (B, typing.Generic), A.__orig_bases__ == (B[int],)
    """, (True, True)),
    "metaclass with a keyword": ("""
        class M(type):
            def __new__(m, n, b, d, **kw): return super().__new__(m, n, b, d)
            def __init__(c, n, b, d, **kw): pass
        class A(metaclass=M, x=1): pass
        def fn(): return type(A) is M
    """, True),
    "descriptor with __set_name__": ("""
        class D:
            def __set_name__(self, o, n): self.n = n
            def __get__(self, i, o): return self.n
        class A: d = D()
        def fn(): return A().d
    """, "d"),
    "super": ("""
        class B:
            def m(self): return 1
        class A(B):
            def m(self): return super().m() + 1
        def fn(): return A().m()
    """, 2),
    "context manager": ("""
        @contextlib.contextmanager
        def cm(): yield 5
        def fn():
            with cm() as x: return x
    """, 5),
    "coroutine": ("""
        async def co(x): return x
        def fn(): return asyncio.run(co(3))
    """, 3),
    "TypedDict": ("""
        class A(typing.TypedDict):
            x: int
        def fn(): return A(x=1), sorted(A.__annotations__)
    """, ({"x": 1}, ["x"])),
    "NewType": ("""
        A = typing.NewType("A", int)
        def fn(x: A = 3) -> A: return A(x), A.__name__, A.__supertype__
    """, (3, "A", int)),
    "ParamSpec": ("""
        P = typing.ParamSpec("P")
        def fn(f: typing.Callable[P, int] = len): return P.__name__, P.__module__
    """, ("P", "__main__")),
    "TypeVarTuple": ("""
        T = typing.TypeVarTuple("T")
        class A(typing.Generic[typing.Unpack[T]]): pass
        def fn(): return T.__name__, A[int, str].__origin__ is A
    """, ("T", True)),
    "enum with __init__": ("""
        class E(enum.Enum):
            A = 1, 2
            def __init__(self, a, b): self.a, self.b = a, b
        def fn(): return E.A.a, E.A.b, E.A.value, E((1, 2)) is E.A
    """, (1, 2, (1, 2), True)),
    "enum with __new__": ("""
        class E(enum.Enum):
            A = 1, "x"
            def __new__(cls, v, label):
                o = object.__new__(cls)
                o._value_, o.label = v, label
                return o
            @classmethod
            def _missing_(cls, v): return cls.A
        def fn(): return E.A.label, E(1) is E.A, E(9) is E.A
    """, ("x", True, True)),
    "enum of a counting base": ("""
        class B(enum.Enum):
            def __new__(cls):
                o = object.__new__(cls)
                o._value_ = len(cls.__members__) + 1
                return o
        class E(B):
            A = ()
            C = ()
        def fn(): return [x.value for x in E]
    """, [1, 2]),
    "enum of bytes": ("""
        class E(bytes, enum.Enum):
            A = 1, "x"
            def __new__(cls, v, label):
                o = bytes.__new__(cls, [v])
                o._value_, o.label = v, label
                return o
        def fn(): return bytes(E.A), E.A.value, E.A.label
    """, (b"\x01", 1, "x")),
    "enum of tuples": ("""
        class E(tuple, enum.Enum):
            A = 1, 2
            def __init__(self, *a): self.n = len(a)
        def fn(): return tuple(E.A), E.A.value
    """, ((1, 2), (1, 2))),
    "enum with aliases": ("""
        class E(enum.IntEnum):
            A = 1
            B = 1
        def fn(): return E.B is E.A, E["B"] is E.A, list(E.__members__)
    """, (True, True, ["A", "B"])),
    "flag with a combination": ("""
        class F(enum.Flag):
            A = 1
            B = 2
            AB = 3
        def fn(): return F.AB is F.A | F.B, F["AB"].name, F(0).value
    """, (True, "AB", 0)),
    "enum with names as values": ("""
        class E(enum.Enum):
            def _generate_next_value_(name, *x): return name.lower()
            A = enum.auto()
        def fn(): return E.A.value
    """, "a"),
    "string enum": ("""
        class E(str, enum.Enum):
            A = "a"
            def shout(self): return self.upper()
        def fn(): return E.A.shout(), E("a") is E.A
    """, ("A", True)),
    "singleton": ("""
        class A:
            one = None
            def __new__(cls):
                if cls.one is None: cls.one = super().__new__(cls)
                return cls.one
        def fn(): return A() is A()
    """, True),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_classes_and_functions(coder, name):  # noqa: F811
    source, want = KINDS[name]
    notebook = Notebook("import asyncio, contextlib, enum, functools, typing").run(source)
    for _ in range(3):
        assert coder.call(notebook["fn"]) == want == notebook["fn"]()
    for x in list(notebook.namespace.values()):  # and come back as themselves
        if isinstance(x, type | typing.TypeVar | typing.ParamSpec | typing.TypeVarTuple | typing.NewType):
            assert back(coder, x) is x
            for member in getattr(x, "__members__", {}).values():
                assert back(coder, member) is member
