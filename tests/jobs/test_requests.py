"""Requests that the daemon refuses: one daemon for all of them, as nothing comes of any."""

import pytest

from dgmp.jobs.protocol import VERSION, encode
from tests.jobs.harness import Node, Raw


@pytest.fixture(scope="module")
def node():
    with Node() as node:
        node.up()
        yield node


@pytest.fixture
def raw(node):
    raw = Raw(node)
    yield raw
    raw.close()


def test_another_version_is_told_which_both_speak(raw):
    answer = raw.ask(encode({"v": 99, "id": 5, "verb": "status", "body": {}}))
    assert answer["id"] == 5 and answer["error"]["code"] == "bad_version"
    assert "version 1 " in answer["error"]["text"] and "version 99" in answer["error"]["text"]


@pytest.mark.parametrize("verb, body, code", [
    ("explode", {}, "bad_message"), (["submit"], {}, "bad_message"), ("submit", [], "bad_message"), (None, None, "bad_message"),
    ("submit", {}, "bad_spec"),
    ("submit", {"argv": []}, "bad_spec"),
    ("submit", {"argv": [1]}, "bad_spec"),
    ("submit", {"argv": ["a\0b"]}, "bad_spec"),
    ("submit", {"argv": ["x"], "nonsense": 1}, "bad_spec"),
    ("submit", {"argv": ["x"], "array": [[1, 10 ** 15]]}, "bad_spec"),
    ("submit", {"argv": ["x"], "array": [[5, 1]]}, "bad_spec"),
    ("submit", {"argv": ["x"], "array": [["a", "b"]]}, "bad_spec"),
    ("submit", {"argv": ["x"], "array": [[0, 99_999_999, 2], [1, 99_999_999, 3]]}, "bad_spec"),
    ("submit", {"argv": ["x"], "cwd": "here"}, "bad_spec"),
    ("submit", {"argv": ["x"], "env": {"a=b": "c"}}, "bad_spec"),
    ("submit", {"argv": ["x"], "timeout": float("nan")}, "bad_spec"),
    ("submit", {"argv": ["x"], "retries": True}, "bad_spec"),
    ("submit", {"argv": ["x"], "cpus": 10 ** 4}, "bad_spec"),
    ("submit", {"argv": ["x"], "after": [77]}, "no_such_job"),
    ("submit", {"argv": ["x"], "resources": {"gpu": -1}}, "bad_spec"),
    ("submit", {"argv": ["x"], "resources": {"cpus": 1}}, "bad_spec"),
    ("submit", {"argv": ["x"], "resources": {"mem": 1}}, "bad_spec"),
    ("status", {5: 6}, "bad_message"),
    ("list", {"limit": 0}, "bad_spec"),
    ("list", {"states": ["odd"]}, "bad_spec"),
    ("list", {"select": [[[1], None]]}, "bad_spec"),
    ("list", {"select": [[{}, None]]}, "bad_spec"),
    ("list", {"before": 1 << 63}, "bad_spec"),
    ("wait", {}, "bad_spec"),
    ("wait", {"select": 5}, "bad_spec"),
    ("logs", {"job": "1"}, "bad_spec"),
    ("forget", {"id": "x"}, "bad_spec"),
    ("show", {"select": [["last", None]]}, "no_such_job"),
])
def test_requests_that_make_no_sense_are_refused(raw, verb, body, code):
    for number in (3, 0, -1):
        answer = raw.ask(encode({"v": VERSION, "id": number, "verb": verb, "body": body}))
        assert (answer["id"], answer["error"]["code"]) == (number, code), answer
