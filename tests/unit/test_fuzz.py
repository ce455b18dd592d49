"""Hostile bytes: what decodes says so, in errors of its own; it does not crash, hang, or take all memory.

The messages are pickles of plain data, and ours; while they are mutated, an unpickler finds only such classes as do nothing.
"""

import gc
import io
import mmap
import os
import pickle
import pickletools
import random
import re
import resource
import struct

import hypothesis
import hypothesis.strategies as st
import msgpack
import pytest

import dgmp
from dgmp._core import (
    OBJECTS_MAGIC,
    RESULT_ERROR,
    RESULT_NO_MEMORY,
    RESULT_NONE,
    RESULT_VALUE,
    RESULT_WORKER_DIED,
    View,
    create,
)
from dgmp.ship import closure, death, failure, packets, terms, travel, values
from tests import helpers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pickletools
ROUNDS = 2500
SPARE_BYTES = 256 << 20
MOST_MEMO = 1 << 20
HARMLESS = {"builtins", "datetime", "collections", "dgmp.ship.closure", "dgmp.errors", "tests.helpers", "copyreg"}
HARMFUL = {"eval", "exec", "open", "input", "breakpoint", "exit", "quit", "print", "help", "getattr", "__import__", "compile"}
PLAIN = [
    None, 1 << 70, -1.5, "text \udc80", b"bytes", [1, [2, (3, {4: 5})]], {"a": {"b": [None, True]}}, {1, 2}, frozenset({3, 4}),
    bytearray(b"x" * 300), "x" * 300, tuple(range(300)), complex(1, 2), ...,
]


class Named:
    name = "a G"


def refuse_to_fill_memory(data):
    """CPython's unpickler fills a table as long as the highest number in a PUT or LONG_BINPUT, which could be 32 GB."""
    place = 0
    try:
        for opcode, argument, place in pickletools.genops(data):  # noqa: B007
            if opcode.name in ("PUT", "LONG_BINPUT") and argument > MOST_MEMO:
                raise MemoryError
    except ValueError:  # what comes after might be read by the unpickler all the same
        numbers = re.findall(rb"(?s)(?=r(....))", data[place:])
        if any(int.from_bytes(number, "little") > MOST_MEMO for number in numbers) or re.search(rb"p\d{6}", data[place:]):
            raise MemoryError from None


def find_harmless(unpickler, module, name):
    if module not in HARMLESS or name.partition(".")[0] in HARMFUL:
        raise pickle.UnpicklingError(f"not in a fuzz: {module}.{name}")
    return pickle.Unpickler.find_class(unpickler, module, name)


class Guarded(pickle.Unpickler):
    find_class = find_harmless


class GuardedWithReferences(failure.Unpickler):
    find_class = find_harmless

    def __init__(self, data, error):
        refuse_to_fill_memory(data)
        super().__init__(data, error)


def guarded_loads(data, *, buffers=None):
    refuse_to_fill_memory(data)
    return Guarded(io.BytesIO(data), buffers=buffers).load()


def find_harmless_class(module, name):
    return find_harmless(Guarded(io.BytesIO()), module, name)


@pytest.fixture(autouse=True)
def guard(monkeypatch):
    """No code that a mutation may name, and no more memory than a little."""
    monkeypatch.setattr(pickle, "loads", guarded_loads)
    monkeypatch.setattr(failure, "Unpickler", GuardedWithReferences)
    monkeypatch.setattr(failure, "find_class", find_harmless_class)
    gc.collect()  # mappings of earlier tests, whose end would give room
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE_BYTES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def hostile(valid, seed):
    """Bytes that are nearly valid, and some that are nothing."""
    rand = random.Random(seed)
    for data in valid:
        yield data
        yield from (data[:n] for n in range(0, len(data), 1 + len(data) // 50))
        for at in range(min(len(data), 40)):  # lengths are at the front: make them huge
            yield data[:at] + b"\xff" * 4 + data[at + 4:]
            yield data[:at] + b"\xff" * 8 + data[at + 8:]
    for _ in range(ROUNDS):
        data = bytearray(rand.choice(valid))
        for _ in range(rand.randint(1, 6)):
            if not data:
                break
            at = rand.randrange(len(data))
            act = rand.randrange(5)
            if act == 0:
                data[at] = rand.randrange(256)
            elif act == 1:
                data[at] ^= 1 << rand.randrange(8)
            elif act == 2:
                del data[at:at + rand.randint(1, 8)]
            elif act == 3:
                data[at:at] = rand.randbytes(rand.randint(1, 8))
            else:
                other = rand.choice(valid)
                data[at:] = other[rand.randrange(len(other) + 1):]
        yield bytes(data)
    for n in range(200):
        yield rand.randbytes(n)
    for first in range(256):
        yield bytes([first])
        yield bytes([0x80, 5, first]) + b"\xff" * 8


def check(valid, decode, *errors):
    """What is valid decodes; what is hostile does, or raises one of errors.  How much there was of either."""
    for data in valid:
        decode(data)
    done = refused = 0
    for data in hostile(valid, seed=len(valid)):
        try:
            decode(data)
            done += 1
        except errors:
            refused += 1
    assert done and refused


def test_the_guard_is_everywhere(coder):
    harmful = pickle.dumps((os.abort, (), {}))
    with pytest.raises(dgmp.EncodingError, match="not in a fuzz"):
        call_whole(coder[1], harmful)
    with pytest.raises(pickle.UnpicklingError, match="not in a fuzz"):
        values.loads(harmful)
    assert "not in a fuzz" in str(closure.decode_result(RESULT_VALUE, harmful, Named)[1])
    message = failure.encode_error(ValueError("x", os.abort))[1]
    assert "not in a fuzz" in failure.decode_error(message).__notes__[0]
    with pytest.raises(MemoryError):
        values.loads(b"\x80\x05Nr\xff\xff\xff\x00.")
    with pytest.raises(MemoryError):
        bytearray(4 * SPARE_BYTES)


def test_calls(coder):
    """In an M: whatever it is, it is the G's error."""
    encoder, decoder = coder
    key, _ = encoder.encode(helpers.add, (1, 2))
    valid = [encoder.encode(helpers.add, (x, x))[1] for x in PLAIN]
    check(valid, lambda data: decoder.decode_call(key, data, None), dgmp.EncodingError, MemoryError)
    assert decoder.decode_call(key, valid[0], None)[0] is helpers.add
    valid = [pickle.dumps((helpers.add, (x,), {"b": x})) for x in PLAIN]
    check(valid, lambda data: call_whole(decoder, data), dgmp.EncodingError, MemoryError)


def call_whole(decoder, data):
    return decoder.decode_call(closure.WHOLE, data, None)


def test_dependencies(coder):
    decoder = coder[1]
    call = pickle.dumps((helpers.add, (closure.Dependency(0, "first"),), {"b": closure.Dependency(1, "second")}))

    def decode(data, kind):
        decoder.decode_call(closure.WHOLE, call, [(RESULT_NONE, b""), (kind, data)])

    check([pickle.dumps(x) for x in PLAIN], lambda data: decode(data, RESULT_VALUE), dgmp.EncodingError, MemoryError)
    for kind in (RESULT_ERROR, RESULT_WORKER_DIED, 17):
        with pytest.raises(closure.DependencyFailed):
            decode(b"\xff", kind)


def test_results():
    for kind in (RESULT_VALUE, RESULT_ERROR, RESULT_NONE, 77):
        valid = [pickle.dumps(x) for x in PLAIN]
        if kind == RESULT_ERROR:
            valid = errors()
        refused = 0
        for data in hostile(valid, seed=kind):
            try:
                value, error = closure.decode_result(kind, data, Named)
            except MemoryError:  # it may be asked again
                continue
            assert error is None or isinstance(error, BaseException) and value is None
            refused += type(error) is dgmp.EncodingError
        assert refused or kind == RESULT_NONE
    for data in (b"", b"12", b"x", b"\xff"):
        value, error = closure.decode_result(RESULT_NO_MEMORY, data, Named)
        assert isinstance(error, MemoryError if data in (b"", b"12", b"x") else (MemoryError, dgmp.EncodingError))


def errors():
    a, b = ValueError("a", [1]), KeyError((1, 2))
    a.__cause__, a.__context__, a.x = b, b, {"y": b}
    b.__context__ = a
    a.add_note("note")
    group = ExceptionGroup("g", [OSError(2, "x", "/y"), ExceptionGroup("h", [ValueError(2)])])
    group.exceptions[0].__cause__ = group
    data = [failure.encode_error(e)[1] for e in (a, b, group, dgmp.EncodingError("x"))]
    return [*data, failure.with_argument_note(data[0], "also"), failure.plain_error(a, b)]


def test_exceptions():
    def decode(data):
        error = failure.decode_error(data)
        assert isinstance(error, BaseException)
        str(error)

    assert [type(failure.decode_error(data)) for data in errors()] == [
        ValueError, KeyError, ExceptionGroup, dgmp.EncodingError, ValueError, ValueError]
    check(errors(), decode, dgmp.EncodingError, MemoryError)
    check(errors(), lambda data: failure.with_argument_note(data, "x"), dgmp.EncodingError)


def test_exceptions_whose_parts_are_exchanged():
    """The envelope is sound, and what is in it is not."""
    rand = random.Random(1)
    pieces = [x for data in errors() for one in failure.unpack(data)[1] for x in one]
    pieces += [pickle.dumps(x) for x in PLAIN]
    pieces += [0, 1, -1, b"", "", None, [], ["g", [0]], ["g", []], [["builtins", "ValueError"]]]
    done = refused = 0
    valid = errors()[:3]
    for _ in range(3 * ROUNDS):
        text, members, notes = failure.unpack(rand.choice(valid))
        for _ in range(rand.randint(1, 3)):
            rand.choice(members)[rand.randrange(9)] = rand.choice(pieces)
        try:
            error = failure.decode_error(failure.pack(text, members, notes))
            done += isinstance(error, BaseException)
        except dgmp.EncodingError:
            refused += 1
    assert done and refused


def test_deaths():
    how = {"goid": 3, "m": 1, "pid": 123, "core": None, "how": "was killed by SIGKILL; perhaps", "exitcode": -9}
    of_m = [death.PREFIX.pack(2, role) + msgpack.packb(how) for role in (death.RUNNING, death.PARKED)]
    valid = [*of_m, death.of_dependent(7, "f", of_m[0]), death.of_dependent(8, "g", death.of_dependent(7, "f", of_m[1]))]
    more = {"history": [[1, "x"], [123, "y"]], "grace": "did not end", "stderr": "one\ntwo"}
    valid += [death.encode(2, role, how | more) for role in (death.RUNNING, death.CANCELLED, death.LATE)]
    uses = (death.split, death.process, death.of_m, death.history, lambda data: death.describe(data, "f"),
            lambda data: death.error(data, "f", ", at x"), lambda data: death.of_dependent(9, "h", data))
    for use in uses:
        check(valid, use, dgmp.EncodingError)


def test_deep_and_long_envelopes():
    deep = b"\x91" * 100_000 + b"\xc0"
    huge = [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xffxx"]
    for data in (deep, *huge, *(struct.pack("<QQ", 1, role) + x for role in range(4) for x in (deep, *huge))):
        for decode in (failure.decode_error, death.split, death.process):
            with pytest.raises(dgmp.EncodingError):
                decode(data)


def test_values():
    check([pickle.dumps(x, 5) for x in PLAIN], values.loads, Exception)


def test_a_block_that_says_more_than_it_is():
    """Its head is another process's: lengths in it are not believed."""
    fd = create(nprocs=1, max_ms=2, nclients=1, nslots=64, heap_size=1 << 20)
    view = View(fd, 2)
    marker = os.urandom(40)
    block = view.pack([marker], [b"x" * 100])
    with mmap.mmap(fd, 0) as memory:
        head = memory.find(marker) - 64
        good = memory[head:head + 24]
        assert struct.unpack("<QQQ", good) == (2, len(marker), 100)
        for bad in [(1 << 61, 40, 100), (4, 40, 100), (2, 41 << 20, 100), (2, 40, (1 << 64) - 1), (2, (1 << 64) - 64, 100)]:
            memory[head:head + 24] = struct.pack("<QQQ", *bad)
            try:
                parts = block.parts()
            except ValueError as e:
                assert "block of" in str(e)
            else:
                assert bad[0] == 4 and sum(map(len, parts)) <= len(block)
        memory[head:head + 24] = good
    assert [bytes(part) for part in block.parts()] == [marker, b"x" * 100]
    del parts, block
    view.unmap()
    os.close(fd)


@hypothesis.settings(max_examples=300)
@hypothesis.given(st.lists(st.binary(min_size=1, max_size=40) | st.builds(
    lambda head, numbers, rest: bytes([head | packets.PART]) + struct.pack("<IIII", *numbers) + rest,
    st.integers(0, 15), st.lists(st.integers(0, 5), min_size=4, max_size=4), st.binary(max_size=9)), max_size=12))
def test_packets(all_packets):
    """A part that is no part is a message of its own, or nothing; nothing is kept for more of them than came."""
    joiner = packets.Joiner()
    for packet in all_packets:
        message = joiner.message(packet)
        assert message is None or sum(map(len, all_packets)) >= len(message)
    assert sum(map(len, joiner.parts.values())) <= len(all_packets)


@hypothesis.settings(max_examples=300)
@hypothesis.given(st.binary(max_size=60), st.integers(0, 9) | st.integers(0, (1 << 64) - 1))
def test_the_ends_of_payloads(data, n):
    """What a payload says it carries."""
    hostile = data + struct.pack("=QQ", n, OBJECTS_MAGIC)
    assert travel.carries(hostile) and not travel.carries(hostile[-15:])
    carried = n if n <= len(data) // 8 else 0
    assert len(travel.words(hostile)) == carried and travel.end(hostile) == len(data) - 8 * carried


@hypothesis.settings(max_examples=300)
@hypothesis.given(st.binary(max_size=120))
def test_terms(data):
    try:
        said = terms.Terms.unpack(data)
    except struct.error:
        return
    assert len(said.pauses) <= len(data) // 8 and isinstance(said.pause(200), int)
