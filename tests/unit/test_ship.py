"""Calls to bytes and back."""

import functools
import operator
import os
import threading

import pytest

import dgmp
from dgmp._core import View, create
from dgmp.ship import closure
from tests import helpers


@pytest.fixture
def coder():
    fd = create(1, 1, 2, 4096, 1 << 20)
    view = View(fd, 1)
    yield closure.Encoder(view), closure.Decoder(view)
    os.close(fd)


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


def test_what_cannot_be_pickled_is_named(coder):
    with pytest.raises(dgmp.EncodingError, match="an argument of add"):
        coder[0].encode(helpers.add, (threading.Lock(),))
