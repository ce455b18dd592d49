"""Whatever pickles travels equal, both ways: as arguments into Gs, and as their results back."""

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import math
import os
import pathlib
import sys
import types
import typing
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dgmp
from dgmp._core import View, create
from dgmp.ship import closure, values
from tests import helpers

CODEC = settings(max_examples=300, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
LIVE = settings(CODEC, max_examples=25)
INLINE, LARGE = 104, values.LARGE
AROUND = (*range(-3, 4), *range(-40, 41, 8))
EDGES = sorted({n + d for n in (0, INLINE, 512, 4096, LARGE) for d in AROUND if n + d >= 0})


class Color(enum.Enum):
    RED = 1
    GREEN = "g"


class Bits(enum.IntFlag):
    A = 1
    B = 2


Point = collections.namedtuple("Point", "x y")


class Typed(typing.NamedTuple):
    a: object
    b: object = None


@dataclasses.dataclass
class Record:
    a: object
    b: object = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    a: object
    b: object = None


@dataclasses.dataclass(slots=True)
class Slotted:
    a: object
    b: object = None


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenSlots:
    a: object
    b: object = None


class Plain:
    def __init__(self, a, b=None):
        self.a, self.b = a, b

    def __eq__(self, other):
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = None


class ListOfMine(list):
    """With attributes."""


def by_value():
    """Classes that no other process can import."""
    namespace = types.ModuleType("__main__").__dict__
    exec("import dataclasses, enum\n"
         "class Plain:\n    def __init__(self, a, b=None): self.a, self.b = a, b\n"
         "@dataclasses.dataclass\nclass Record:\n    a: object\n    b: object = None\n"
         "@dataclasses.dataclass(frozen=True)\nclass Frozen:\n    a: object\n    b: object = None\n"
         "class Color(enum.Enum):\n    RED = 1\n    GREEN = 'g'\n", namespace)
    return types.SimpleNamespace(**namespace)


MAIN = by_value()

text = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)  # lone surrogates too
atoms = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(1 << 4000), 1 << 4000), st.floats(), st.complex_numbers(), text,
    st.binary(max_size=40), st.sampled_from([..., NotImplemented, sys.maxsize, -sys.maxsize - 1, 2**63, 2**64 - 1, 0.0, -0.0]),
    st.datetimes(), st.dates(), st.times(), st.timedeltas(), st.datetimes(timezones=st.just(datetime.UTC)),
    st.decimals(), st.fractions(), st.uuids(), st.sampled_from(list(Color)), st.sampled_from(list(Bits)),
    st.builds(pathlib.PurePosixPath, text.filter(lambda s: "\0" not in s)),
    st.builds(range, st.integers(-99, 99), st.integers(-99, 99), st.integers(1, 9)),
    st.sampled_from([int, dict, type(None), Color, Record, Point, OSError, len, math.sin, helpers.add, str.join,
                     collections.OrderedDict, datetime.datetime.now, typing.Any, list[int], slice(1, None, 2)]),
)
hashable = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), text, st.binary(max_size=20), st.uuids(), st.sampled_from(list(Color)),
              st.floats(allow_nan=False)),
    lambda inner: st.one_of(
        st.tuples(inner, inner), st.frozensets(inner, max_size=3), st.builds(Frozen, inner), st.builds(Point, inner, inner)),
    max_leaves=6)


def namespace(a, b):
    return types.SimpleNamespace(a=a, b=b)


def twice(x):
    """Shared within itself."""
    return [x, (x,), {"again": x}]


def within_itself(x):
    cycle = [x, {}]
    cycle[1]["me"] = (cycle,)
    return cycle


def object_within_itself(x):
    it = Plain(x)
    it.b = {"me": it}
    return it


PAIRS = (Point, Typed, Record, Frozen, Slotted, FrozenSlots, Plain, ValueError, namespace, MAIN.Plain, MAIN.Record, MAIN.Frozen)


def containers(inner):
    some = st.lists(inner, max_size=4)
    mapping = st.dictionaries(hashable, inner, max_size=4)
    elements = st.lists(hashable, max_size=4)
    return st.one_of(
        some, some.map(tuple), some.map(collections.deque), some.map(ListOfMine), mapping,
        mapping.map(collections.OrderedDict), mapping.map(lambda d: collections.defaultdict(list, d)),
        elements.map(set), elements.map(frozenset), elements.map(collections.Counter),
        inner.map(twice), inner.map(within_itself), inner.map(object_within_itself),
        st.tuples(st.sampled_from(PAIRS), inner, inner).map(lambda of: of[0](of[1], of[2])),
    )


anything = st.recursive(atoms, containers, max_leaves=12)


class Same:
    """Whether two values are equal in all parts: types, order, signs and NaNs, and what is the same object twice."""

    def __init__(self):
        self.twins = {}
        self.kept = []

    def __call__(self, a, b):
        if type(a) is not type(b):
            return False
        if isinstance(a, (float, complex, decimal.Decimal)):
            return repr(a) == repr(b)
        parts = self.parts(a)
        if parts is None:
            return a == b
        if id(a) in self.twins:
            return self.twins[id(a)] == id(b)
        self.kept += [a, b]
        if a != ():
            self.twins[id(a)] = id(b)
        others = self.parts(b)
        return len(parts) == len(others) and all(map(self, parts, others))

    def parts(self, x):
        """What it consists of, in order; None: it is one."""
        parts = []
        if isinstance(x, dict):
            parts = [*x.keys(), *x.values(), getattr(x, "default_factory", None)]
        elif isinstance(x, (list, tuple, collections.deque)):
            parts = list(x)
        elif isinstance(x, BaseException):
            parts = list(x.args)
        elif isinstance(x, type) or not (hasattr(x, "__dict__") or dataclasses.is_dataclass(x)) or callable(x):
            return None
        elif isinstance(x, (enum.Enum, pathlib.PurePath, fractions.Fraction, uuid.UUID)):
            return None
        if dataclasses.is_dataclass(x):
            return [getattr(x, field.name) for field in dataclasses.fields(x)]
        return [*parts, *(y for item in getattr(x, "__dict__", {}).items() for y in item)]


@pytest.fixture(scope="module")
def coder():
    fd = create(1, 1, 2, 4096, 1 << 26)
    view = View(fd, 1)
    yield Coder(view)
    os.close(fd)


class Coder:
    """Both ends of both ways, without a runtime."""

    def __init__(self, view):
        self.view = view
        self.encoder, self.decoder = closure.Encoder(view), closure.Decoder(view)

    def packed(self, data):
        return data if isinstance(data, bytes) else self.view.pack(data.stream, data.buffers)

    def into_a_g(self, value):
        key, data = self.encoder.encode(helpers.identity, (value,))
        _, args, _ = self.decoder.decode_call(key, self.packed(data), None)
        data = self.packed(self.encoder.encode_whole(helpers.identity, (), {"x": value}))
        _, _, kwargs = self.decoder.decode_call(closure.WHOLE, data, None)
        return args[0], kwargs["x"]

    def out_of_a_g(self, value):
        kind, data = closure.encode_result(value, helpers.identity, 1)
        result, error = closure.decode_result(kind, self.packed(data), None)
        assert error is None
        return result


def test_same_tells_apart():
    x = []
    for a, b in ((1, 1.0), (True, 1), (0.0, -0.0), ([1], (1,)), ([x, x], [[], []]), ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
                 (Plain(1), Plain(2)), (Slotted(1), Slotted(2)), (ValueError(1), ValueError(2)), (MAIN.Plain(1), MAIN.Plain(2)),
                 (within_itself(1), within_itself(2)), ({1}, {2}), (Color.RED, Color.GREEN), (int, float)):
        assert not Same()(a, b) and Same()(a, a)
    assert Same()(float("nan"), float("nan")) and Same()(within_itself(1), within_itself(1))


@CODEC
@given(value=anything)
def test_values_are_encoded_and_decoded(coder, value):
    for twin in (*coder.into_a_g(value), coder.out_of_a_g(value)):
        assert Same()(value, twin)


def edge_values():
    for n in EDGES:
        data = bytes(i * 7 & 255 for i in range(n))
        yield from (data, bytearray(data), data.hex(), "\u20ac" * n, [data, data], {"a": memoryview(data)})
        yield array.array("b", data)


def equal_views(a, b):
    """As `==`, but that a memoryview comes back as one that is read-only."""
    return a == b and type(a) is type(b) and (not isinstance(b, dict) or b["a"].readonly)


def test_sizes_at_the_edges(coder):
    for value in edge_values():
        for twin in (*coder.into_a_g(value), coder.out_of_a_g(value)):
            assert equal_views(value, twin)


@pytest.fixture(scope="module")
def node():
    with dgmp.Runtime(procs=2) as runtime:
        yield runtime


@LIVE
@given(some=st.lists(anything, min_size=1, max_size=20))
def test_values_go_into_gs_and_come_back(node, some):
    together = node.go(helpers.identity, some)
    futures = [node.go(helpers.identity, value) for value in some]
    by_keyword = [node.go(helpers.identity, x=value) for value in some[:3]]
    through_another = [node.go(helpers.identity, future) for future in futures[:3]]
    assert Same()(some, together.result(60))
    for value, twin in zip(some + some[:3] + some[:3], dgmp.gather(*futures, *by_keyword, *through_another), strict=True):
        assert Same()(value, twin)


def test_sizes_at_the_edges_go_and_come_back(node):
    some = list(edge_values())
    for value, future in [(value, node.go(helpers.identity, value)) for value in some]:
        assert equal_views(value, future.result(60))
