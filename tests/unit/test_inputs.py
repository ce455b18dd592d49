"""Inputs: lines, columns, CSV, ranges, how they are put together, and --pipe's blocks."""

import csv
import io
import itertools
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgmp.jobs import inputs, pipe
from dgmp.jobs.inputs import Layout
from dgmp.jobs.template import InputError, Template


def piped(*pieces):
    """A descriptor from which these come, a read each."""
    fds = os.memfd_create("test")
    os.write(fds, b"".join(pieces))
    os.lseek(fds, 0, os.SEEK_SET)
    return fds


@pytest.fixture
def small_reads(monkeypatch):
    """Reads give three bytes at most: all is cut everywhere."""
    read = os.read
    for module in inputs, pipe:
        monkeypatch.setattr(module, "read", lambda fd, n: read(fd, min(n, 3)))


def lines_of(data, delimiter=b"\n"):
    fd = piped(data)
    return [os.fsencode(line) for line in inputs.lines(fd, delimiter)]


@pytest.mark.usefixtures("small_reads")
@pytest.mark.parametrize("delimiter", [b"\n", b"\0", b"ab", b"aab", b"\xff"])
def test_lines(delimiter):
    @given(st.lists(st.binary(max_size=12).map(lambda line: line.replace(delimiter, b"")), max_size=5), st.booleans())
    def check(found, ended):
        data = delimiter.join(found) + (delimiter if ended else b"")
        expected = data.split(delimiter)
        assert lines_of(data, delimiter) == (expected if expected[-1] else expected[:-1])

    check()


def test_a_line_is_there_before_the_next_one_comes():
    fd, other = os.pipe()
    try:
        os.write(other, b"one\ntw")
        found = inputs.lines(fd, b"\n")
        assert next(found) == "one"
        os.write(other, b"o\nthree")
        assert next(found) == "two"
    finally:
        os.close(other)
    assert list(found) == ["three"]


def test_a_file_that_is_not_there():
    with pytest.raises(InputError, match="no/such"):
        inputs.from_file("no/such", Layout())
    with pytest.raises(InputError, match="Is a directory"):
        inputs.from_file("/", Layout())


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\r")), min_size=1, max_size=4), max_size=5))
def test_csv_is_read_as_it_was_written(rows):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    found = inputs.records(text.getvalue().split("\n")[:-1] if rows else [], Layout(csv=","))
    assert list(found) == [tuple(row) for row in rows]


def test_csv_of_spreadsheets():
    found = inputs.records(["\ufeffname;age\r", '"a;b";3\r', '"two', 'lines";"q""q"'], Layout(csv=";"))
    assert list(found) == [("name", "age"), ("a;b", "3"), ("two\nlines", 'q"q')]
    for wrong in ['"a', 'b"'], ['a"b",c', '"x"y']:
        with pytest.raises(InputError, match="no CSV"):
            list(inputs.records(wrong[:1] if wrong[0] == '"a' else wrong, Layout(csv=",")))


@pytest.mark.parametrize("spec,numbers", [
    ("1-5", [1, 2, 3, 4, 5]), ("0-10:5", [0, 5, 10]), ("7", [7]), ("1,5,7-9", [1, 5, 7, 8, 9]), ("1-1_0:4", [1, 5, 9]),
    ("-2-1", [-2, -1, 0, 1]),
])
def test_ranges(spec, numbers):
    assert list(inputs.from_range(spec)) == [(str(n),) for n in numbers]


@pytest.mark.parametrize("spec", ["", "a", "5-1", "1-5:0", "1-", "1..5", "1,,2"])
def test_no_ranges(spec):
    with pytest.raises(InputError, match="is no range"):
        list(inputs.from_range(spec))


def test_a_range_of_a_million_is_not_made_at_once():
    assert list(itertools.islice(inputs.from_range("1-1000000000000"), 2)) == [("1",), ("2",)]


def source(*values):
    return iter([(value,) for value in values])


def test_products_and_links():
    assert list(inputs.product([source("a", "b"), source("1", "2")])) == [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")]
    assert list(inputs.linked([source("a", "b", "c"), source("1", "2")])) == [("a", "1"), ("b", "2")]
    assert list(inputs.linked_around([source("a", "b", "c"), source("1", "2")])) == [("a", "1"), ("b", "2"), ("c", "1")]
    assert list(inputs.product([source("a"), source()])) == []


def test_the_first_source_of_a_product_may_be_endless():
    endless = ((str(n),) for n in itertools.count())
    assert list(itertools.islice(inputs.product([endless, source("x", "y")]), 3)) == [("0", "x"), ("0", "y"), ("1", "x")]


@given(st.lists(st.text("ab 'ü", max_size=9), max_size=30), st.integers(130, 200), st.integers(0, 5), st.integers(0, 4),
       st.sampled_from(["true {}", "true x{}y {}", "true {.}/{} a"]), st.booleans())
def test_batches_have_room_for_all(values, longest, most, spread, text, repeat):
    template = Template(text, repeat=repeat)
    found = list(inputs.batches(source(*values), most, template.size(), longest, template.grows, spread))
    assert [value for batch in found for record in batch for value in record] == values
    for batch in found:
        line = template.line(type("Draft", (), {"records": batch, "inputs": sum(batch, ()), "seq": 1})(), 1)
        assert len(os.fsencode(line)) < longest
        assert not most or len(batch) <= most


def test_no_room_for_one():
    template = Template("true {}")
    with pytest.raises(InputError, match="too long"):
        list(inputs.batches(source("x" * 100), 0, template.size(), 50, template.grows))


def test_the_last_ones_are_spread_over_the_slots():
    template = Template("true {}")
    sizes = [len(b) for b in inputs.batches(source(*"0123456789"), 0, template.size(), 1000, template.grows, spread=3)]
    assert sizes == [4, 4, 2]


@pytest.mark.parametrize("text,means", [
    (r"\n", "\n"), (r"\t,", "\t,"), (r"\0", "\0"), (r"\x41\101", "AA"), (r"\\n", r"\n"), ("", "")])
def test_escapes(text, means):
    assert inputs.unescaped(text) == means


# -- --pipe -----------------------------------------------------------------------------------------


def blocks_of(data, records, size, count=0, header=b""):
    fd = piped(data)
    try:
        return list(pipe.blocks(fd, records, size, count, header))
    finally:
        os.close(fd)


KINDS = [(None, None), (None, b";"), (b">", None), (b">", b"\n"), (b"", b""), (b"ab", b"ba"), (None, b"\n\n")]


@pytest.mark.usefixtures("small_reads")
@pytest.mark.parametrize("start,end", KINDS)
@pytest.mark.parametrize("regexp", [False, True])
def test_blocks_are_whole_records(start, end, regexp):
    records = pipe.Records(start, end, regexp=regexp)

    @given(st.lists(st.sampled_from([b"a", b"b", b"\n", b";", b">", b"xyz"]), max_size=40).map(b"".join), st.integers(1, 12),
           st.integers(0, 3))
    def check(data, size, count):
        found = blocks_of(data, records, size, count)
        assert b"".join(found) == data and all(found)
        for before, after in itertools.pairwise(found):
            assert before.endswith(records.end) and after.startswith(records.start)
        if count and not records.anywhere:
            for block in found[:-1]:
                ends = {m.end() for m in re.finditer(records.boundary.pattern, block + records.start, re.DOTALL)}
                assert len(ends - {0}) == count

    check()


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 7))
def test_so_many_lines_a_block(numbers, count):
    data = b"".join(b"%d\n" % n for n in numbers)
    found = blocks_of(data, pipe.Records(), 1 << 20, count)
    assert [block.count(b"\n") for block in found[:-1]] == [count] * (len(found) - 1)
    assert b"".join(found) == data and len(found) == -(-len(numbers) // count)


def test_a_header_before_each():
    for header in ":", "1", "h\n", "h.*\n":
        assert blocks_of(b"h\n1\n2\n3\n", pipe.Records(), 4, header=pipe.header_of(header)) == [b"h\n1\n2\n", b"h\n3\n"]
    assert blocks_of(b"h\n", pipe.Records(), 4, header=pipe.header_of("2")) == []
    assert blocks_of(b"h", pipe.Records(), 4, header=pipe.header_of(":")) == []
    assert blocks_of(b"a\nb\n", pipe.Records(), 4, header=pipe.header_of("x")) == [b"a\nb\n"]
    with pytest.raises(InputError):
        pipe.header_of("(")


def test_separators_taken_away():
    assert blocks_of(b"a;b;c", pipe.Records(None, b";", remove=True), 100, 2) == [b"ab", b"c"]


def test_a_record_longer_than_a_block_stays_whole():
    found = blocks_of(b"x" * 100 + b"\n" + b"y\n" * 100, pipe.Records(), 10)
    assert found[0].startswith(b"x" * 100 + b"\n") and len(found) > 1


def test_a_block_is_there_before_all_has_come():
    fd, other = os.pipe()
    try:
        os.write(other, b"1\n2\n3")
        found = pipe.blocks(fd, pipe.Records(), count=2)
        assert next(found) == b"1\n2\n"
        os.write(other, b"\n4\n")
        assert next(found) == b"3\n4\n"
    finally:
        os.close(fd)
        os.close(other)
