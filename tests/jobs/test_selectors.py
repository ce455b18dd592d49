"""Jobs and tasks as users name them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgmp.jobs.protocol import Select, selects
from dgmp.jobs.ranges import Ranges
from dgmp.jobs.selectors import one_job, selection, task_ids, written


@pytest.mark.parametrize("text,expected", [
    ("3", [((3, 3), None)]),
    ("1-3,last,all", [((1, 3), None), ("last", None), ("all", None)]),
    ("1-10:4", [((1, 1), None), ((5, 5), None), ((9, 9), None)]),
    ("5.1-10", [((5, 5), [(1, 10, 1)])]),
    ("5.1-10:3,last.0", [((5, 5), [(1, 10, 3)]), ("last", [(0, 0, 1)])]),
    ("1-3.7", [((1, 3), [(7, 7, 1)])]),
    ("1_000-1_002", [((1000, 1002), None)]),
    (" 1 , 2 ", [((1, 1), None), ((2, 2), None)]),
])
def test_selectors(text, expected):
    chosen = selection(text)
    assert chosen == [Select(jobs, None if tasks is None else Ranges(tasks)) for jobs, tasks in expected]
    assert selects([s.message() for s in chosen]) == chosen  # the daemon takes them


@pytest.mark.parametrize("text,said", [
    ("", "nothing is there"), ("1,", "nothing is there"), ("x", "'x' is no number"), ("3-1", "3-1 is empty"),
    ("0", "begin at 1"),
    ("1-5:0", "no step"), ("-3", "'-3' is no number"), ("5.", "nothing is there"), ("5.x", "'x' is no number"),
    ("first", "'first'"),
    ("last-3", "'last-3'"), ("٣", "no number"), ("9" * 30, "too large"), ("1-99999999:2", "more than 10000 jobs"),
    ("1.2.3", "'2.3'"), ("All", "'All'"),
])
def test_what_is_no_selector_is_said(text, said):
    with pytest.raises(ValueError, match=said):
        selection(text)


@pytest.mark.parametrize("text,ids", [
    ("1-1000000", range(1, 1_000_001)), ("1-100:5", range(1, 101, 5)), ("1,3,7", [1, 3, 7]), ("0", [0]), ("3,1-2,2", [1, 2, 3]),
    ("0-1_000:500", [0, 500, 1000]),
])
def test_arrays(text, ids):
    assert list(task_ids(text)) == list(ids)


def test_large_arrays_that_overlap():
    assert task_ids("0-99999998:2,1-99999999:2").pack() == [[0, 99_999_999, 1]]
    assert task_ids("1-90000000,5-80000000:3").pack() == [[1, 90_000_000, 1]]


def test_every_other_one_of_a_large_array_is_taken_out_of_it_at_once():
    ids = task_ids("1-100000000")
    assert ids.remove(task_ids("2-90000000:2")).pack() == [[2, 90_000_000, 2]]
    assert ids.pack() == [[1, 1, 1], [3, 89_999_999, 2], [90_000_001, 100_000_000, 1]] and len(ids) == 55_000_000
    ids.add(task_ids("2-90000000:2"))
    assert len(ids) == 100_000_000 and len(ids.ranges) < 5


@pytest.mark.parametrize("text", ["", "1-", "a", "5-1", "1-10:0", "0-31:4%8", "1..5", "0-99999999:2,1-99999999:3"])
def test_what_is_no_array_is_said(text):
    with pytest.raises(ValueError, match="is no array.*such as 1-1000"):
        task_ids(text)


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 60), st.integers(1, 9)), min_size=1, max_size=6))
def test_arrays_are_read_as_they_are_written(triples):
    ids = Ranges((first, first + more, step) for first, more, step in triples)
    again = task_ids(written(ids))
    assert list(again) == list(ids) and written(again.pack()) == written(again)


@pytest.mark.parametrize("text", ["1,2", "all", "1-2", "1-2.3"])
def test_one_job_is_one(text):
    with pytest.raises(ValueError, match="several jobs"):
        one_job(text)
    assert one_job("5.1-3").jobs == (5, 5) and one_job("2-2").jobs == (2, 2) and one_job("last.4").jobs == "last"
