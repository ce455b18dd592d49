"""Calls to bytes and back."""

import functools
import operator
import pickle
import threading

import msgpack
import pytest

import dgmp
from dgmp.ship import closure, death
from tests import helpers


def call(coder, fn, *args):
    encoder, decoder = coder
    key, data = encoder.encode(fn, args)
    fn, args, kwargs = decoder.decode_call(key, data, None)
    return fn(*args, **kwargs)


def test_importable_functions_go_by_reference(coder):
    assert coder[0].encode(helpers.add, (1, 2))[0] != closure.WHOLE
    assert call(coder, helpers.add, 1, 2) == 3
    assert call(coder, len, "abc") == 3
    assert call(coder, operator.mul, 6, 7) == 42


@pytest.mark.parametrize("fn,want", [
    (lambda x: x + 1, 6), (functools.partial(helpers.add, 10), 15), ([5, 1, 5].count, 2), (int, 5), ("{}".format, "5"),
])
def test_the_rest_goes_whole(coder, fn, want):
    assert call(coder, fn, 5) == want


def test_a_replaced_function_is_not_confused_with_the_old_one(coder, monkeypatch):
    old = helpers.add
    assert call(coder, old, 1, 1) == 2
    monkeypatch.setattr(helpers, "add", lambda a, b=0: "new")
    assert call(coder, helpers.add, 1, 1) == "new"
    assert call(coder, old, 1, 1) == 2


def test_a_captured_list_is_as_it_was_at_the_call(coder):
    box = [1]
    key, data = coder[0].encode(lambda: list(box), ())
    box.append(2)
    fn, args, kwargs = coder[1].decode_call(key, data, None)
    assert fn() == [1]


class Refuses:
    def __reduce__(self):
        raise ValueError("not me")


@pytest.mark.parametrize("fn,args,kwargs,text", [
    (helpers.add, (1, threading.Lock()), {}, r"argument 'b' of add\(\) cannot be pickled: it is a lock \(TypeError: "),
    (lambda: 1, (0, 1, Refuses()), {}, r"argument 3 of .*<lambda>\(\) cannot be pickled: .*Refuses \(ValueError: not me\)"),
    (helpers.add, (1,), {"b": Refuses()}, r"argument 'b' of add\(\) cannot"),
    (functools.partial(helpers.add, threading.Lock()), (1,), {}, r"^functools.partial\(.*\) .* partial.args\[0\] is a lock"),
])
def test_what_cannot_be_pickled_is_named(coder, fn, args, kwargs, text):
    with pytest.raises(dgmp.EncodingError, match=text):
        if kwargs:
            coder[0].encode_whole(fn, args, kwargs)
        else:
            coder[0].encode(fn, args)


def test_code_that_goes_whole_keeps_its_file_and_line(coder):
    def outer():
        def inner():
            raise ValueError("here")

        return inner

    data = coder[0].encode_whole(outer, (), {})
    for fn in (pickle.loads(data)[0], pickle.loads(data)[0]()):
        assert fn.__code__.co_filename == __file__ and fn.__code__ is not outer.__code__
    with pytest.raises(ValueError) as e:
        fn()
    assert str(e.traceback[-1].statement).strip() == 'raise ValueError("here")'


HOW = msgpack.packb({"goid": 3, "m": 1, "pid": 123, "core": None, "how": "was killed by SIGKILL; perhaps", "exitcode": -9})
BOUND = msgpack.packb({"goid": None, "m": 1, "pid": 123, "core": 4, "how": "ended with exit code 3", "exitcode": 3})


@pytest.mark.parametrize("goid", [2, 0x83, 1 << 40])
def test_a_death_in_words(goid):
    ran, parked = death.PREFIX.pack(goid, death.RUNNING), death.PREFIX.pack(goid, death.PARKED)
    who = f"G {goid} (f), spawned at x.py:1"
    for data, text, exitcode in [
        (ran + HOW, "did not finish: its M (m1, pid 123) was killed by SIGKILL; perhaps", -9),
        (ran + BOUND, "did not finish: its M (m1, pid 123, core 4) ended with exit code 3", 3),
        (parked + HOW, "was parked on an M (m1, pid 123) that was killed by SIGKILL while it ran G 3; "
                       "started Gs cannot leave their process", -9),
        (parked + BOUND, "was parked on an M (m1, pid 123, core 4) that ended with exit code 3; "
                         "started Gs cannot leave their process", 3),
    ]:
        assert death.describe(data, "f", ", spawned at x.py:1") == f"{who}, {text}"
        assert death.process(data) == (123, exitcode)
        data = death.of_dependent(7, "f\udc80", data)
        for i in (7, 8):
            assert death.describe(data, "g") == f"G {i} (g), did not run: G {goid} (f\udc80), which it waited for, {text}"
            assert death.process(data) == (123, exitcode)
            data = death.of_dependent(8, "g", data)
