"""The joblog: what is written, what is read of it, and what a crash may have left of it."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from dgmp.jobs import joblog
from dgmp.jobs.control import Control
from dgmp.jobs.joblog import Done, JobLog, JobLogError, Origin, failed
from tests.unit.test_control import Job

HERE = Origin("gzip {}", "/data")


def key_of(text, origin=HERE):
    import hashlib

    return hashlib.md5(f"{origin}{text}".encode()).hexdigest()


def job(seq, text, exitval=0, signal=0, origin=HERE, seconds=0.5):
    made = Job(seq, float(seq), text).end(exitval, signal, seconds)
    made.command.key = key_of(text, origin)
    return made


def draft(seq, text, origin=HERE):
    return SimpleNamespace(seq=seq, text=text, key=key_of(text, origin))


def write(path, *jobs, append=False, origin=HERE):
    log = JobLog(str(path), append, origin).begin()
    for one in jobs:
        log.add(log.line(one))
    log.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log"


def test_the_nine_columns(path):
    one = job(1, "gzip a", 3, 0, seconds=12.3456)
    one.sent, one.received = 7, 8
    write(path, one, job(2, "printf 'a\nb'", -1, 15))
    assert path.read_bytes() == (
        b"Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n"
        b"1\t:\t1000000001.000\t    12.346\t7\t8\t3\t0\tgzip a\n"
        b"2\t:\t1000000002.000\t     0.500\t0\t0\t-1\t15\tprintf 'a\0b'\n")
    assert [(e.seq, e.exitval, e.signal, e.command) for e in joblog.lines(str(path))] == [
        (1, 3, 0, "gzip a"), (2, -1, 15, "printf 'a\nb'")]


def test_what_has_been_done_is_not_run_again(path):
    write(path, job(1, "gzip a"), job(3, "gzip c", 1), job(4, "gzip d"))
    done = Done(str(path), HERE)
    assert [done.has(draft(n, f"gzip {x}")) for n, x in enumerate("abcde", 1)] == [True, False, True, True, False]
    done = Done(str(path), HERE, failed_again=True)
    assert [done.has(draft(n, f"gzip {x}")) for n, x in enumerate("abcde", 1)] == [True, False, False, True, False]


def test_a_job_is_known_by_its_key_not_by_its_number(path):
    write(path, job(1, "gzip a"), job(2, "gzip b"), job(3, "gzip b"), job(4, "gzip c"))
    done = Done(str(path), HERE)
    texts = ["new", "b", "a", "b", "b", "other", "c"]
    assert [done.has(draft(n, f"gzip {x}")) for n, x in enumerate(texts, 1)] == [False, True, True, True, False, False, True]


def test_the_latest_line_of_a_job_counts(path):
    write(path, job(1, "gzip a", 1), job(2, "gzip b"), job(1, "gzip a", 0))
    assert Done(str(path), HERE, failed_again=True).has(draft(1, "gzip a"))
    assert failed(str(path)) == []
    write(path, job(1, "gzip a", 0, 9), append=True)
    assert not Done(str(path), HERE, failed_again=True).has(draft(1, "gzip a"))
    assert [(x.seq, x.command, x.key) for x in failed(str(path))] == [(1, "gzip a", key_of("gzip a"))]


@pytest.mark.parametrize("other, said", [(Origin("gzip -9 {}", "/data"), "'gzip {}', not of 'gzip -9 {}'"),
                                         (Origin("gzip {}", "/elsewhere"), "/data, not in /elsewhere")])
def test_another_command_line_is_refused(path, other, said):
    write(path, job(1, "gzip a"))
    with pytest.raises(JobLogError, match="of") as e:
        Done(str(path), other)
    assert said in str(e.value) and "another --joblog" in str(e.value)


def test_a_log_of_several_command_lines_knows_which_is_whose(path):
    other = Origin("rm {}", "/data")
    write(path, job(1, "gzip a"))
    write(path, job(1, "rm x", origin=other), append=True, origin=other)
    assert Done(str(path), HERE).has(draft(1, "gzip a")) and Done(str(path), other).has(draft(1, "rm x", other))
    with pytest.raises(JobLogError):
        Done(str(path), Origin("mv {}", "/data"))


def test_a_log_without_keys_is_compared_by_number_and_command(path):
    write(path, job(1, "gzip 'a b'"), job(2, "gzip b", 1), job(3, "gzip c"))
    os.unlink(f"{path}.keys")
    done = Done(str(path), HERE, failed_again=True)
    assert done.has(draft(1, "gzip a\\ b")) and not done.has(draft(2, "gzip b")) and done.has(draft(3, "gzip c"))
    assert not done.has(draft(4, "gzip d"))
    done = Done(str(path), HERE)
    with pytest.raises(JobLogError, match="number 1 it has \"gzip 'a b'\", and this command line makes that 'rm a b'"):
        done.has(draft(1, "rm a b"))


def test_a_log_of_parallel_is_gone_on_with(path):
    write(path, job(1, "gzip a"), job(2, "gzip b", 1))
    os.unlink(f"{path}.keys")
    write(path, job(2, "gzip b"), job(3, "gzip c"), append=True)
    done = Done(str(path), HERE, failed_again=True)
    assert [done.has(draft(n, f"gzip {x}")) for n, x in enumerate("abcd", 1)] == [True, True, True, False]


def test_a_line_cut_by_a_crash(path):
    write(path, job(1, "gzip a"), job(2, "gzip b"))
    whole, keys = path.read_bytes(), path.with_suffix(".keys").read_bytes()
    second = whole.index(b"\n2\t") + 1
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        path.with_suffix(".keys").write_bytes(keys)
        done = Done(str(path), HERE)
        assert done.has(draft(1, "gzip a")) == (end >= second)
        assert done.has(draft(2, "gzip b")) == (end == len(whole))
        write(path, job(3, "gzip c"), append=True)
        lines = path.read_bytes().split(b"\n")
        assert lines[0] + b"\n" == joblog.HEADER and lines[-1] == b""
        assert [line.split(b"\t")[0] for line in lines[1:-1]] == [b"1", b"2", b"3"][(end < second) + (end < len(whole)):] or \
            [line[:1] for line in lines[1:-1]] == [b"1", b"3"]


def test_keys_cut_by_a_crash(path):
    write(path, job(1, "gzip a"), job(2, "gzip b"))
    beside = path.with_suffix(".keys")
    whole = beside.read_bytes()
    for end in range(len(whole)):
        beside.write_bytes(whole[:end])
        done = Done(str(path), HERE)
        assert done.has(draft(1, "gzip a")) and done.has(draft(2, "gzip b"))  # then by number and command
        write(path, append=True)
        assert b"\n\n" not in beside.read_bytes()


def test_a_block_that_was_never_written(path):
    write(path, job(1, "gzip a"))
    with open(path, "ab") as file:
        file.write(b"\0" * 4096)
    assert Done(str(path), HERE).has(draft(1, "gzip a"))
    write(path, job(2, "gzip b"), append=True)
    assert [e.seq for e in joblog.lines(str(path))] == [1, 2]


def test_what_is_no_joblog(path, tmp_path):
    path.write_bytes(b"Seq\tx\nsome text\nmore\n")
    with pytest.raises(JobLogError, match="no joblog: it has the line 'some text'"):
        Done(str(path), HERE)
    path.write_bytes(b"some text\n")
    with pytest.raises(JobLogError, match="no joblog"):
        Done(str(path), HERE)
    with pytest.raises(JobLogError, match="Is a directory"):
        Done(str(tmp_path), HERE)
    with pytest.raises(JobLogError, match="cannot write"):
        JobLog(str(tmp_path / "no" / "log"))
    with pytest.raises(JobLogError, match="no joblog"):
        failed(str(tmp_path / "nothing"))
    assert not Done(str(tmp_path / "nothing"), HERE).has(draft(1, "gzip a"))


def test_a_log_is_emptied_unless_it_is_gone_on_with(path):
    write(path, job(1, "gzip a"))
    write(path, job(1, "gzip b"))
    assert [e.command for e in joblog.lines(str(path))] == ["gzip b"]
    assert Done(str(path), HERE).has(draft(1, "gzip b"))


def test_two_do_not_write_the_same_log(path, monkeypatch):
    monkeypatch.setattr(joblog, "PATIENCE_SECONDS", 0.1)
    log = JobLog(str(path), origin=HERE).begin()
    with pytest.raises(JobLogError, match="another dgmp"):
        JobLog(str(path), append=True, origin=HERE)
    log.close()
    one, other = (JobLog(str(path), append=True, origin=HERE, alone=False).begin() for _ in range(2))  # --joblog +FILE
    other.add(other.line(job(1, "gzip a")))
    one.add(one.line(job(2, "gzip b")))
    one.close()
    other.close()
    done = Done(str(path), HERE)
    assert done.has(draft(1, "gzip a")) and done.has(draft(2, "gzip b"))


def test_a_log_that_cannot_be_written_any_more_stops_it_all():
    said = []
    policy = Control(said.append, joblog=None)
    with pytest.raises(JobLogError, match="No space"):
        JobLog("/dev/full").begin()
    policy.joblog = SimpleNamespace(add=lambda line: (_ for _ in ()).throw(JobLogError("cannot write the joblog x")),
                                    close=lambda: None)
    policy.ended(job(1, "a"))
    policy.log(b"a")
    policy.log(b"b")
    assert policy.halting == "soon" and policy.exit_status() == 255 and said == ["cannot write the joblog x"]


def test_what_is_no_file_is_written_to(tmp_path):
    read, write_ = os.pipe()
    log = JobLog(f"/dev/fd/{write_}", origin=HERE).begin()
    log.add(log.line(job(1, "gzip a")))
    log.close()
    os.close(write_)
    assert os.read(read, 1000).startswith(joblog.HEADER + b"1\t:")
    os.close(read)
    JobLog("/dev/null", origin=HERE).begin().close()
    assert not os.path.exists("/dev/null.keys")


def test_what_is_open_already_is_not_emptied(path):
    path.write_text("before\n")
    fd = os.open(path, os.O_RDWR | os.O_APPEND)
    JobLog(f"/dev/fd/{fd}", origin=HERE).begin().close()
    os.close(fd)
    assert path.read_bytes() == b"before\n" + joblog.HEADER and not os.path.exists(f"/dev/fd/{fd}.keys")


def test_a_kill_loses_no_whole_line(path):
    code = (f"import sys\nsys.path.insert(0, {os.getcwd()!r})\nfrom tests.unit.test_joblog import *\n"
            f"log = JobLog({str(path)!r}, origin=HERE).begin()\nn = 0\n"
            "while True:\n    n += 1\n    log.add(log.line(job(n, 'gzip a')))\n    print(n, flush=True)\n")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as writer:
        for _ in range(50):
            last = int(writer.stdout.readline())
        writer.kill()
        last = int((writer.stdout.read().splitlines() or [last])[-1])
    entries = list(joblog.lines(str(path)))
    assert len(entries) in (last, last + 1) and path.read_bytes().endswith(b"\n")
    done = Done(str(path), HERE)
    assert all(done.has(draft(n, "gzip a")) for n in range(1, last + 1))


def test_skipped_jobs_count_as_done(path):
    from dgmp.jobs import halt

    write(path, job(1, "gzip a"), job(2, "gzip b"))
    policy = Control(print, done=Done(str(path), HERE), halt=halt.parse("soon,done=3"))
    assert policy.skip(draft(1, "gzip a")) and policy.skip(draft(2, "gzip b")) and not policy.skip(draft(3, "gzip c"))
    policy.ended(job(3, "gzip c"))
    assert policy.halting == "soon" and policy.exit_status() == 0


def test_the_slot_is_not_compared(path):
    write(path, job(1, "echo 7 x"))
    os.unlink(f"{path}.keys")
    assert Done(str(path), HERE).has(draft(1, "echo {%} x"))
    with pytest.raises(JobLogError):
        Done(str(path), HERE).has(draft(1, "echo {%} y"))


def test_blocks_of_pipe_are_not_in_the_log(path):
    one = job(1, "wc", 1)
    one.sent = 100
    write(path, one)
    with pytest.raises(JobLogError, match="--resume-failed"):
        failed(str(path))
