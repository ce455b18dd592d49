"""The keeper by itself."""

import errno
import os
import socket

import pytest

from dgmp.jobs import folders
from dgmp.jobs import keeper as keeping
from dgmp.jobs.files import Logs, Spool
from dgmp.jobs.keeper import Keeper, KeptJob, Run, Slots, birth, take
from dgmp.jobs.protocol import JobSpec
from dgmp.jobs.resources import Held, Need, Resources


@pytest.fixture
def keeper(tmp_path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "k.sock"))
        listening.listen()
        keeper = Keeper(tmp_path, "k", listening, Resources([0, 1], 100, {"gpu": ("a", "b")}))
        yield keeper
        keeper.poll.close()
        keeper.journal.close()


def test_timers_of_what_has_ended_are_not_kept(keeper):
    job = KeptJob(1, [0, 1], {"argv": ["true"], "timeout": 86400.0}, {})
    kept = Run(job, 0, 1)
    keeper.runs[1, 0] = kept
    keeper.watch_time(kept)
    for task in range(1, 5 * keeping.MOST_STALE):
        run = Run(job, task, 1)
        keeper.runs[1, task] = run
        keeper.watch_time(run)
        del keeper.runs[1, task]
        keeper.forget_timers(run)
        assert len(keeper.timers) <= keeping.MOST_STALE + 2
    assert kept in [timer[3] for timer in keeper.timers]


def test_what_runs_keeps_what_it_has_when_there_is_more_or_less(keeper):
    held = keeper.resources.acquire(Need(1, 30, {"gpu": 1}))
    more = Resources([0, 1, 2], 200, {"gpu": ("b", "a", "c"), "disk": 5000})
    assert take(more, held) == held
    assert (more.cores, more.mem, more.named) == ([1, 2], 170, {"gpu": ["b", "c"], "disk": 5000})
    less = Resources([1], 10, {})
    assert take(less, held) == Held((), 30, {})
    assert (less.cores, less.mem) == ([1], -20)
    less.release(take(Resources([1], 10, {}), held))
    assert less.mem == 10


def test_slots_of_processes_that_have_one_are_nobody_else_s():
    slots = Slots()
    assert [slots.take_again(n) for n in ("3", "1", "3", "0", "", "9" * 9)] == [3, 1, 0, 0, 0, 0]
    assert [slots.take() for _ in range(3)] == [2, 4, 5]
    slots.give(3)
    slots.give(1)
    assert [slots.take() for _ in range(3)] == [1, 3, 6]


def test_births_tell_processes_apart():
    assert birth(os.getpid()) == birth(os.getpid()) > birth(1) or birth(1) == 0
    assert birth(1 << 22) == 0


def test_output_that_cannot_be_added_to_a_log_is_kept_as_it_is(tmp_path, monkeypatch):
    def full(fd, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    spool = Spool(folders.make(tmp_path / "spool"), "k", JobSpec(["true"]), 1, 2, 3)
    os.write(spool.stdout, b"said")
    logs = Logs(folders.make(tmp_path / "logs"), "k")
    with monkeypatch.context() as context:
        context.setattr(os, "write", full)
        pieces = logs.take(1, 2, 3, spool)
    logs.close(1)
    spool.close()
    assert pieces == [["logs/1-2-3.out", 0, 4], None] and (tmp_path / "logs/1-2-3.out").read_bytes() == b"said"
    assert list((tmp_path / "spool").iterdir()) == []
