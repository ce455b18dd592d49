"""The keeper's journal, whole and torn."""

import resource
import subprocess
import sys
import textwrap

from hypothesis import given
from hypothesis import strategies as st

from dgmp.jobs import journal
from dgmp.jobs.journal import Reader, Writer, frame, unframe
from dgmp.jobs.ranges import Ranges, ranges_of


def test_what_is_written_is_read_from_where_one_was(tmp_path):
    writer, reader = Writer(tmp_path, "k"), Reader(tmp_path, "k")
    assert writer.write([["a", 1], ["b"]]) and reader.read() == [["a", 1], ["b"]] and reader.read() == []
    writer.write([["c"]])
    assert Reader(tmp_path, "k", reader.segment, reader.offset).read() == [["c"]]
    assert Reader(tmp_path, "none").read() == []
    writer.close()


def test_segments_follow_each_other_and_are_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "SEGMENT", 1000)
    writer, reader, seen = Writer(tmp_path, "k"), Reader(tmp_path, "k"), []
    for n in range(500):
        assert writer.write([["x", n, "y" * 20]])
        if n % 7 == 0:
            seen += reader.read()
            reader.sweep()
    seen += reader.read()
    assert [record[1] for record in seen] == list(range(500))
    reader.sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k.1", f"k.{reader.segment}"] and reader.segment > 10
    assert (tmp_path / "k.1").stat().st_size == 0 and reader.locked()
    writer.close()


@given(st.lists(st.lists(st.integers(0, 1 << 60), max_size=4), max_size=6), st.integers(0, 200), st.binary(max_size=30))
def test_a_torn_end_is_not_read(records, cut, noise):
    whole = b"".join(frame(record) for record in records)
    found, used = unframe(whole[:cut])
    assert found == records[:len(found)] and used == len(b"".join(frame(r) for r in found))
    found, used = unframe(whole + bytes(20) + noise)
    assert found[:len(records)] == records


def test_a_lock_says_whether_the_keeper_lives(tmp_path):
    writer = Writer(tmp_path, "k")
    assert Reader(tmp_path, "k").locked()
    writer.close()
    assert not Reader(tmp_path, "k").locked() and not Reader(tmp_path, "none").locked()


def test_a_full_disk_loses_no_record(tmp_path):
    code = f"""
        import resource, signal
        from pathlib import Path
        from dgmp.jobs.journal import Reader, Writer
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        writer, reader = Writer(Path({str(tmp_path)!r}), "k"), Reader(Path({str(tmp_path)!r}), "k")
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, {resource.getrlimit(resource.RLIMIT_FSIZE)[1]}))
        told = [writer.write([["x", n, "y" * 20]]) for n in range(10)]
        assert told[0] and not told[-1], told
        before = reader.read()
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, {resource.getrlimit(resource.RLIMIT_FSIZE)[1]}))
        assert 0 < len(before) < 10 and writer.write([])
        assert [r[1] for r in before + reader.read()] == list(range(10))
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)


one_range = st.tuples(st.integers(0, 60), st.integers(0, 20), st.integers(1, 7)).map(lambda t: (t[0], t[0] + t[1], t[2]))
ranges = st.lists(one_range, max_size=5)


@given(ranges, ranges, st.integers(0, 30))
def test_ranges_are_sets(a, b, n):
    one, two = numbers(a), numbers(b)
    r = Ranges(a)
    assert (sorted(r), len(r)) == (sorted(one), len(one)) and all((k in r) == (k in one) for k in range(100))
    assert r.take(n) == sorted(one)[:n] and sorted(r) == sorted(one)[n:] and len(r) == max(0, len(one) - n)
    left = set(sorted(one)[n:])
    both = r.remove(Ranges(b))
    assert (set(both), len(both), set(r), len(r)) == (left & two, len(left & two), left - two, len(left - two))
    r.add(Ranges(b))
    assert (list(r), len(r)) == (sorted((left - two) | two), len((left - two) | two))
    assert list(Ranges(r.pack())) == list(r) and set(ranges_of(one)) == one


def numbers(ranges):
    return {k for first, last, step in ranges for k in range(first, last + 1, step)}
