"""Which task comes next, and what becomes of one: the queue, without processes."""

import pytest

from dgmp.jobs.protocol import JobSpec, ProtocolError, Select
from dgmp.jobs.queue import MOST_LOST, Queue
from dgmp.jobs.ranges import Ranges
from dgmp.jobs.store import Store


class Fake:
    """A queue whose keeper is the test."""

    def __init__(self, store=None, **totals):
        self.now = 1000.0
        self.store = store or Store(":memory:")
        self.totals = {"cpus": 2, "mem": 100, **totals}
        self.queue = Queue(self.store, self.totals, lambda: self.now)

    def submit(self, **spec):
        return self.queue.submit(JobSpec(argv=["x"], **spec))

    def choose(self):
        """What the keeper is told to start: [(job, task)]."""
        self.queue.choose()
        self.commit()
        return [(order[1].id, task) for order in self.orders if order[0] == "claim" for task, _ in order[2]]

    def commit(self):
        self.queue.put()
        self.store.commit()
        _, _, self.orders = self.queue.committed()

    def start(self, job, *tasks):
        for task in tasks:
            self.queue.starting(job, job.open[task], self.now)

    def end(self, job, *tasks, exit=0, reason="exit", seconds=1.0):
        for task in tasks:
            self.queue.ended(job, job.open[task], {"exit": exit, "reason": reason, "ended": self.now + seconds})

    def again(self):
        """The same, as the next daemon finds it."""
        self.commit()
        self.queue = Queue(self.store, self.totals, lambda: self.now)
        return self.queue


@pytest.fixture
def fake():
    return Fake()


def test_what_fits_is_claimed_in_order(fake):
    first, second = fake.submit(array=[[1, 3]]), fake.submit(array=[[7, 9]])
    assert fake.choose() == [(first.id, 1), (first.id, 2)]
    assert fake.choose() == []
    fake.start(first, 1, 2)
    fake.end(first, 1, 2)
    assert fake.choose() == [(first.id, 3), (second.id, 7)]


def test_short_tasks_are_claimed_ahead(fake):
    job = fake.submit(array=[[1, 1000]])
    fake.choose()
    fake.start(job, 1)
    fake.end(job, 1, seconds=0.001)
    assert len(fake.choose()) == 201  # 0.1 s of two cores' work, and the one that has become free
    assert fake.choose() == []


def test_a_wide_job_is_not_starved_by_narrow_ones_behind(fake):
    narrow = fake.submit(array=[[1, 2]])
    fake.choose()
    fake.start(narrow, 1, 2)
    wide = fake.submit(cpus=2)
    fake.submit(array=[[1, 100]])
    fake.end(narrow, 1)
    assert fake.choose() == []  # its core is kept for the wide one
    fake.end(narrow, 2)
    assert fake.choose() == [(wide.id, 0)]


def test_a_job_that_waits_for_a_resource_does_not_keep_others(fake):
    fake = Fake(gpu=1)
    gpus = fake.submit(array=[[1, 5]], resources={"gpu": 1})
    plain = fake.submit()
    assert fake.choose() == [(gpus.id, 1), (plain.id, 0)]


def test_memory_is_shared_out(fake):
    job = fake.submit(array=[[1, 5]], mem=60)
    assert fake.choose() == [(job.id, 1)]
    with pytest.raises(ProtocolError, match="mem=101"):
        fake.submit(mem=101)


def test_priority_is_before_age(fake):
    low, high = fake.submit(array=[[1, 5]]), fake.submit(array=[[1, 5]], priority=1)
    assert fake.choose() == [(high.id, 1), (high.id, 2)]
    assert low.state == "waiting"


def test_a_job_is_the_worst_of_its_tasks(fake):
    job = fake.submit(array=[[1, 2]])
    fake.choose()
    fake.start(job, 1, 2)
    assert job.state == "running"
    fake.end(job, 1, exit=1)
    fake.end(job, 2)
    assert (job.state, job.counts["failed"], job.counts["finished"]) == ("failed", 1, 1)
    assert fake.queue.job_counts["failed"] == 1 and not fake.queue.open


def test_a_long_chain_of_aborts(fake):
    jobs = [fake.submit()]
    for _ in range(5000):
        jobs.append(fake.submit(after_ok=[jobs[-1].id]))
    fake.queue.cancel(jobs[0], None)
    assert jobs[0].state == "cancelled" and {job.state for job in jobs[1:]} == {"aborted"}
    assert not fake.queue.open and fake.queue.job_counts["aborted"] == 5000


def test_retry_of_aborted_jobs_only_after_what_they_need_has_finished(fake):
    first = fake.submit()
    second = fake.submit(after_ok=[first.id])
    fake.choose()
    fake.start(first, 0)
    fake.end(first, 0, exit=1)
    fake.commit()
    assert second.state == "aborted" and fake.queue.retry(second, None, ["aborted"]) == 0
    assert fake.queue.retry(first, None, ["failed"]) == 1
    fake.choose()
    fake.start(first, 0)
    fake.end(first, 0)
    fake.commit()
    assert fake.queue.retry(second, None, ["aborted"]) == 1
    assert fake.choose() == [(second.id, 0)]


def test_lost_tasks_run_again_but_not_for_ever(fake):
    job = fake.submit()
    for _ in range(MOST_LOST):
        assert fake.choose() == [(job.id, 0)]
        fake.start(job, 0)
        fake.queue.lost(job, job.open[0])
    assert job.state == "failed"


def test_what_ended_is_told_once(fake):
    job = fake.submit(array=[[1, 2]], retries=1)
    fake.choose()
    fake.start(job, 1)
    fake.end(job, 1, exit=1)
    assert fake.queue.find(job.id, 1, 1) is None  # a record of the first attempt means nothing now
    fake.choose()
    assert fake.queue.find(job.id, 1, 2) is not None


def test_the_next_daemon_finds_it_all(fake):
    jobs = [fake.submit(array=[[1, 10, 3]], retries=3), fake.submit(), fake.submit()]
    jobs.append(fake.submit(after_ok=[jobs[2].id]))
    fake.choose()
    fake.start(jobs[0], 1, 4)
    fake.end(jobs[0], 1, exit=1)
    fake.queue.cancel(jobs[1], None)
    queue = fake.again()
    assert sorted(queue.open) == [jobs[0].id, jobs[2].id, jobs[3].id]
    job = queue.open[jobs[0].id]
    assert (job.counts["running"], job.counts["waiting"], job.state) == (1, 3, "running")
    assert [(t.task, t.state, t.attempt, t.tries) for t in job.open.values()] == [(1, "waiting", 1, 1), (4, "running", 1, 0)]
    assert queue.open[jobs[3].id].held == {jobs[2].id}
    assert fake.choose() == [(jobs[0].id, 1)]  # 4 still runs
    assert queue.job(jobs[1].id).state == "cancelled"


def test_cancel_of_what_the_keeper_has_is_remembered(fake):
    job = fake.submit(array=[[1, 3]])
    fake.choose()
    fake.start(job, 1)
    assert fake.queue.cancel(job, Ranges([(1, 2, 1)])) == (0, 2)
    queue = fake.again()
    job = queue.open[job.id]
    queue.lost(job, job.open[1])
    queue.unclaim(job, job.open[2])
    assert (job.counts["cancelled"], job.counts["waiting"]) == (2, 1)


def test_selections(fake):
    for _ in range(3):
        fake.submit()
    fake.commit()
    ids = [job.id for job, _ in fake.queue.chosen([Select((2, 2)), Select("last"), Select((1, 9)), Select("all")], "1")]
    assert ids == [2, 3, 1]
    with pytest.raises(ProtocolError, match="no job 9"):
        list(fake.queue.chosen([Select((9, 9))], "1"))
