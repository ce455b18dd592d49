"""What the launcher's options decide; without processes, with a clock that the tests turn."""

import os
import pty
import random
import statistics
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgmp.jobs import amounts, environment, halt, limits, resources, retry
from dgmp.jobs.control import Control
from dgmp.jobs.halt import Tally
from dgmp.jobs.policy import Policy
from dgmp.jobs.progress import Progress


class Job:
    """A process, as the policy sees it."""

    def __init__(self, seq=1, begun=0.0, text="true", attempt=1):
        self.command = SimpleNamespace(seq=seq, text=text, key=f"{seq:032x}")
        self.slot, self.attempt, self.begun, self.started = 1, attempt, begun, 1e9 + begun
        self.exitval = self.signal = self.sent = self.received = 0
        self.seconds = 0.0

    def end(self, exitval=0, signal=0, seconds=0.0):
        self.exitval, self.signal, self.seconds = exitval, signal, seconds
        return self


def control(**options):
    said = []
    made = Control(said.append, **options)
    made.said = said
    return made


@pytest.mark.parametrize("text, seconds", [
    ("5", 5), ("0", 0), ("1.5", 1.5), (".5", 0.5), ("30s", 30), ("2m", 120), ("1.5h", 5400), ("1d", 86400), ("1h30m", 5400),
    ("1d12h30m5s", 131405), ("2M", 120), ("1m30s", 90), ("1m30", 90),
])
def test_durations(text, seconds):
    assert amounts.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "abc", "-1", "1x", "1 s", "s", "1.5.5", "nan", "inf", "1e3", "1..2", "٣", "9" * 400])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="duration"):
        amounts.duration(text)


@pytest.mark.parametrize("text, bytes_", [
    ("0", 0), ("1000", 1000), ("1K", 1024), ("1k", 1000), ("1Ki", 1024), ("1ki", 1024), ("1.5G", 3 << 29), ("2g", 2 * 10**9),
    ("1T", 1 << 40), ("1P", 1 << 50), ("4GiB", 4 << 30), ("3 MB", 3 << 20),
])
def test_sizes(text, bytes_):
    assert amounts.size(text) == bytes_


@pytest.mark.parametrize("text", ["", "x", "-1", "1i", "1Q", "i", "1e6", "1KK", "9E", "99999999P"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError):
        amounts.size(text)


@pytest.mark.parametrize("text, n", [("3", 3), ("50%", 4), ("100%", 8), ("+2", 10), ("-2", 6), ("1.5", 1.5), ("+50%", 12)])
def test_numbers_of_cpus(text, n):
    assert amounts.of_cpus(text, 8) == n


@pytest.mark.parametrize("seconds, text", [(0, "0s"), (59.9, "59s"), (65, "1m05s"), (3600, "1h00m00s"), (97203, "1d03h00m03s")])
def test_spoken_durations(seconds, text):
    assert amounts.spoken(seconds) == text


# --halt; the statuses are what GNU parallel 20221122 ended with

STATUSES = [
    ("never", [0, 7, 3], 3, 2, 3), ("soon,fail=1", [0, 7, 3], 3, 7, 2), ("soon,fail=2", [0, 7, 3], 3, 2, 3),
    ("now,fail=30%", [0, 7, 3], 3, 34, 2), ("now,fail=1%", [0, 7, 3], 3, 34, 2),
    ("now,fail=50%", [0, 7, 3, 0, 0, 0], 6, 34, 6),
    ("soon,success=1", [2, 7, 0, 0], 4, 0, 3), ("soon,success=3", [2, 7, 0, 0], 4, 2, 4),
    ("soon,success=50%", [2, 7, 0, 0], 4, 0, 4),
    ("soon,success=90%", [2, 7, 0, 0], 4, 50, 4), ("soon,done=2", [2, 7, 0, 0], 4, 2, 2),
    ("soon,done=1", [2, 7, 0, 0], 4, 2, 1),
    ("soon,done=50%", [2, 7, 0, 0], 4, 50, 2), ("soon,fail=3", [2, 7, 0, 0], 4, 2, 4), ("1", [2, 7], 2, 2, 1),
    ("-1", [2, 7, 0, 0], 4, 0, 3), ("50%", [2, 7, 0, 0], 4, 50, 2), ("soon,done=50%", [9, 7], 2, 9, 1),
    ("7%", [1] * 7, 100, 7, 7), ("now,fail=1", [-9], 3, 137, 1), ("0", [1] * 150, 150, 101, 150),
    ("now,fail=1", [255, 1], 2, 255, 1),
]


@pytest.mark.parametrize("text, ends, total, status, ran", STATUSES)
def test_halt(text, ends, total, status, ran):
    said = halt.parse(text)
    tally = Tally(said)
    tally.total = total
    for end in ends:
        tally.started += 1
        if tally.ended(max(end, 0), max(-end, 0)):
            break
    assert (tally.exit_status(), tally.done) == (status, ran)
    assert tally.halting in (None, said and said.when)


def test_the_status_is_of_the_moment_it_halted():
    tally = Tally(halt.parse("soon,fail=1"))
    tally.started = 3
    assert tally.ended(3, 0) == "soon" and tally.ended(5, 0) == "soon" and tally.ended(0, 0) == "soon"
    assert tally.exit_status() == 3


def test_a_percentage_needs_the_number_of_jobs():
    assert Tally(halt.parse("now,done=5%")).needs_total and not Tally(halt.parse("now,done=5")).needs_total
    assert not Tally(halt.parse("never")).needs_total


@pytest.mark.parametrize("text", ["", "x", "soon", "soon,fail", "soon,fail=", "now,fail=x", "never,fail=1", "3", "-3", "1.5%",
                                  "now,fail=1,2", "later,fail=1", "now,lost=1", "now,fail=-1", "now,fail=٣", "%"])
def test_what_is_no_halt(text):
    with pytest.raises(ValueError, match="--halt"):
        halt.parse(text)


# --retries

def test_a_failed_job_is_run_again_until_its_attempts_are_spent():
    policy = control(retries=retry.Retries(3))
    verdicts = [policy.ended(Job(attempt=n).end(1)) for n in (1, 2, 3)]
    assert verdicts == ["again", "again", "done"] and policy.exit_status() == 1 and policy.tally.done == 1


def test_a_job_that_succeeds_at_last_has_not_failed():
    policy = control(retries=retry.Retries(0))  # for ever
    assert [policy.ended(Job(attempt=n).end(signal=9)) for n in range(1, 50)] == ["again"] * 49
    assert policy.ended(Job(attempt=50).end()) == "done" and policy.exit_status() == 0 and not policy.failures


def test_nothing_is_run_again_once_it_is_to_stop():
    policy = control(retries=retry.Retries(3))
    policy.stop()
    assert policy.ended(Job().end(1)) == "done" and policy.halting == "soon"


# --timeout

def test_each_job_has_its_time():
    policy = control(timeout=limits.Timeout.parse("10"))
    first, second = Job(1, 0.0, "sleep 99"), Job(2, 4.0)
    policy.started(first)
    policy.started(second)
    assert policy.look(9.9) == ([], 10.0)
    assert policy.look(10.0) == ([first], 14.0)
    assert policy.look(11.0) == ([], 14.0)  # told once
    assert policy.ended(first.end(signal=15, seconds=10.1)) == "done"
    assert (first.exitval, first.signal) == (-1, 15) and "time was up: sleep 99" in policy.said[0]
    assert policy.ended(second.end(seconds=8)) == "done" and policy.look(14.5) == ([], None)
    assert policy.exit_status() == 1


def test_a_job_that_is_told_to_end_and_does_so_well_has_failed_all_the_same():
    policy = control(timeout=limits.Timeout.parse("1"), retries=retry.Retries(2))
    job = Job()
    policy.started(job)
    assert policy.look(1.0)[0] == [job]
    assert policy.ended(job.end(0, 0, 1.5)) == "again" and job.exitval == -1


def test_its_own_exit_code_is_kept():
    policy = control(timeout=limits.Timeout.parse("1"))
    job = Job()
    policy.started(job)
    policy.look(1.0)
    policy.ended(job.end(3, 0, 1.5))
    assert job.exitval == 3


def test_a_percentage_is_of_the_median_of_the_successes():
    timeout = limits.Timeout.parse("200%")
    running = Job(9, 0.0)
    timeout.started(running)
    assert timeout.look(1e6) == ([], None)  # nobody knows yet how long one takes
    for seq, (seconds, well) in enumerate([(1.0, True), (50.0, False), (3.0, True), (2.0, True)], 1):
        job = Job(seq)
        timeout.started(job)
        timeout.ended(job, seconds, well)
    assert timeout.look(3.9) == ([], 4.0) and timeout.look(4.0) == ([running], None)
    timeout.ended(running, 400.0, True)
    assert timeout.seconds() == 4.0  # what was ended tells nothing


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.integers(1, 20))
def test_the_median_is_of_the_latest(numbers, window):
    before, limits.LATEST = limits.LATEST, window
    try:
        median = limits.Median()
        for number in numbers:
            median.add(number)
        assert median.get() == statistics.median_low(numbers[-window:])
    finally:
        limits.LATEST = before


@pytest.mark.parametrize("text", ["abc", "", "-1", "%", "x%", "0%", "-5%", "nan%", "inf%"])
def test_what_is_no_timeout(text):
    with pytest.raises(ValueError, match="--timeout"):
        limits.Timeout.parse(text)


def test_zero_is_no_limit():
    assert limits.Timeout.parse("0") is limits.Delay.parse("0s") is limits.FreeMemory.parse("0") is None


# --delay, --load, --memfree

def test_delay():
    policy = control(delay=limits.Delay.parse("2"))
    assert policy.may_start(0.0) is True
    policy.started(Job(begun=0.5))
    assert policy.may_start(0.6) == 2.5 and policy.may_start(2.5) is True


def test_a_delay_finds_its_length():
    delay = limits.Delay.parse("1sauto")
    delay.ended(False)
    assert delay.seconds == pytest.approx(1.3)
    for _ in range(100):
        delay.ended(True)
    assert delay.seconds == limits.LEAST_DELAY


def test_nothing_starts_under_load():
    running = iter([2, 5, 1.9])
    load = limits.Load(2, lambda: next(running))
    assert load.may_start(1.0) > 1.0 and load.may_start(1.0) > 1.0 and load.may_start(1.0) is True
    assert limits.Load.parse("100%", 4).most == 4 and limits.Load.parse("0", 4).most == 0.01
    assert limits.running_processes() >= 0


def test_memory():
    free = 100
    memory = limits.FreeMemory(80, lambda: free)
    policy = control(memfree=memory)
    assert policy.may_start(0.0) is True
    old, young = Job(1), Job(2, 0.1, "eat")
    policy.started(old)
    assert policy.look(0.1) == ([], None)  # one alone is left alone
    policy.started(young)
    free = 79
    assert policy.may_start(1.0) > 1.0
    ended, again = policy.look(1.0)
    assert ended == [] and again > 1.0
    free = 39
    assert policy.look(again) == ([young], None)
    assert policy.look(again + 9) == ([], None)  # its end makes room; until then no other
    assert policy.ended(young.end(signal=15)) == "again" and "memory" in policy.said[0]
    assert policy.failures == {}  # it was not its fault
    assert policy.ended(old.end()) == "done" and policy.exit_status() == 0


def test_more_free_memory_than_there_is_is_refused():
    with pytest.raises(ValueError, match="could ever start"):
        limits.FreeMemory.parse("1000P")


def test_free_memory_is_what_the_cgroup_leaves(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemFree: 1 kB\nMemAvailable:     50 kB\n")
    assert limits.free_memory(str(tmp_path / "meminfo"), lambda: None) == 50 << 10
    assert limits.free_memory(str(tmp_path / "meminfo"), lambda: 7) == 7
    (tmp_path / "self").write_text("0::/user/me\n")
    folder = tmp_path / "user" / "me"
    folder.mkdir(parents=True)
    assert limits.cgroup_memory(str(tmp_path), str(tmp_path / "self")) is None
    (folder / "memory.max").write_text("1000\n")
    (folder / "memory.current").write_text("900\n")
    (folder / "memory.stat").write_text("anon 300\ninactive_file 500\n")
    assert limits.cgroup_memory(str(tmp_path), str(tmp_path / "self")) == 600
    (folder.parent / "memory.max").write_text("max\n")
    assert limits.cgroup_memory(str(tmp_path), str(tmp_path / "self")) == 600
    assert limits.free_memory() > 0


# resources

GPUS = {"gpu": ("0", "1"), "scratch": 5000}


def test_a_job_holds_cores_and_units():
    have = resources.Resources([4, 2], 1000, GPUS)
    held = have.acquire(resources.need(1, "600", ["gpu=1", "scratch=4000"]))
    assert held.cores == (2,) and held.named == {"gpu": ("0",), "scratch": 4000}
    told = held.variables()
    assert told["DGMP_CPUS"] == "2" and told["OMP_NUM_THREADS"] == "1" and told["DGMP_RESOURCE_SCRATCH"] == "4000"
    assert told["DGMP_RESOURCE_GPU"] == told["CUDA_VISIBLE_DEVICES"] == "0" and told["DGMP_MEM"] == "600"
    assert have.acquire(resources.need(1, "401", [])) is None
    assert have.acquire(resources.need(2, None, [])) is None
    assert have.acquire(resources.need(None, None, ["scratch=1001"])) is None
    second = have.acquire(resources.need(1, "400", ["gpu=1"]))
    assert second.variables()["CUDA_VISIBLE_DEVICES"] == "1" and second.cores == (4,)
    have.release(held)
    have.release(second)
    assert have.acquire(resources.need(2, "1000", ["gpu=2"])).variables()["DGMP_RESOURCE_GPU"] == "0,1"


@pytest.mark.parametrize("need, what", [((3, None, []), "3 cpus"), ((None, "2K", []), "memory"),
                                        ((None, None, ["gpu=3"]), "gpu=3"),
                                        ((None, None, ["licence=1"]), "--resource-total licence"),
                                        ((None, None, ["scratch=5001"]), "5000")])
def test_what_never_fits_is_an_error_at_once(need, what):
    have = resources.Resources([0, 1], 1000, GPUS)
    with pytest.raises(resources.NeverFits, match=what):
        have.check(resources.need(*need))
    with pytest.raises(resources.NeverFits):
        control(resources=have, need=resources.need(*need))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 3), st.integers(0, 9)), max_size=40),
       st.randoms(use_true_random=False))
def test_nothing_is_held_twice_or_lost(needs, dice):
    have = resources.Resources(range(3), 9, {"gpu": ("a", "b", "c"), "sum": 9})
    held = []
    for cpus, mem, gpus, total in needs:
        got = have.acquire(resources.Need(cpus, mem, {"gpu": gpus, "sum": total}))
        if got is not None:
            held.append(got)
        cores = [core for h in held for core in h.cores]
        units = [unit for h in held for unit in h.named["gpu"]]
        assert len(set(cores)) == len(cores) and len(set(units)) == len(units)
        assert sum(h.mem for h in held) <= 9 and sum(h.named["sum"] for h in held) <= 9
        if held and dice.random() < 0.5:
            have.release(held.pop(dice.randrange(len(held))))
    random.Random(1).shuffle(held)
    for h in held:
        have.release(h)
    assert have.cores == [0, 1, 2] and have.mem == 9 and have.named == {"gpu": ["a", "b", "c"], "sum": 9}


def test_totals_are_declared():
    declared = resources.declared
    assert declared(["gpu=2"], {})["gpu"] == ("0", "1")
    assert declared(["gpu=2"], {"CUDA_VISIBLE_DEVICES": "2,3,5"})["gpu"] == ("2", "3")
    assert declared([], {"CUDA_VISIBLE_DEVICES": "GPU-1, GPU-2"})["gpu"] == ("GPU-1", "GPU-2")
    assert declared(["gpu=[0,7]"], {"CUDA_VISIBLE_DEVICES": "2,3"})["gpu"] == ("0", "7")
    assert declared(["x=3"], {"DGMP_RESOURCES": "x=2 licence=1 scratch=2G"}) == {
        "x": ("0", "1", "2"), "licence": ("0",), "scratch": 2 << 30, **declared([], {})}


@pytest.mark.parametrize("text", ["gpu", "=1", "gpu=", "gpu=x", "gpu=-1", "g u=1", "1=1"])
def test_what_is_no_resource(text):
    with pytest.raises(ValueError, match="--resource"):
        resources.need(None, None, [text])
    with pytest.raises(ValueError, match="--resource-total"):
        resources.totals([text], {})


def test_a_unit_is_listed_once():
    with pytest.raises(ValueError, match="twice"):
        resources.totals(["gpu=[1,1]"], {})


def test_a_job_waits_for_what_it_needs():
    have = resources.Resources([0, 1], 1000)
    policy = control(resources=have, need=resources.Need(cpus=2))
    assert policy.may_start(0.0) is True and policy.may_start(0.0) is True  # and holds it once
    assert policy.starting(1).cores == (0, 1) and policy.starting(1).variables["OMP_NUM_THREADS"] == "2"
    job = Job()
    policy.started(job)
    assert policy.may_start(0.0) is False
    policy.ended(job.end())
    assert policy.may_start(0.0) is True


# the environment

def test_the_environment_of_a_job():
    outer = {"A": "1", "DGMP_SLOT": "9", "PARALLEL_SEQ": "8", "CUDA_VISIBLE_DEVICES": "7"}
    assert environment.common(outer, ["B=x=y", "A", "C="], ["CUDA_VISIBLE_DEVICES"]) == {"A": "1", "B": "x=y", "C": ""}
    assert dict(entry.split(b"=", 1) for entry in environment.of_job(5, 3, 77)) == {
        b"PARALLEL_SEQ": b"5", b"DGMP_JOB_SEQ": b"5", b"DGMP_ATTEMPT": b"3", b"PARALLEL_PID": b"77"}
    assert environment.OF_SLOT == (b"PARALLEL_JOBSLOT=", b"DGMP_SLOT=")
    with pytest.raises(ValueError, match="--env"):
        environment.common({}, ["=x"])


def test_the_folder_of_a_job(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert environment.folder(str(tmp_path / "a" / "b"), 1) == str(tmp_path / "a" / "b") and (tmp_path / "a" / "b").is_dir()
    one, two = environment.folder("...", 1), environment.folder("...", 2)
    assert one != two and one.startswith(str(tmp_path / "cache")) and os.path.isdir(one)


# progress

@pytest.fixture
def terminal():
    us, them = pty.openpty()
    os.set_blocking(us, False)
    yield us, them
    os.close(us)
    os.close(them)


def resize(fd, columns):
    import fcntl
    import struct
    import termios

    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


def shown(us):
    try:
        return os.read(us, 1 << 16).decode()
    except BlockingIOError:
        return ""


def test_a_bar_is_drawn_and_taken_away(terminal):
    us, them = terminal
    resize(us, 60)
    tally = Tally()
    tally.total = 4
    bar = Progress("bar", tally, them, 0.0)
    again = bar.look(0.0)
    assert shown(us) == "\r  0% [" + " " * 36 + "] 0/4 done, ETA ?\x1b[K" and again == 1.0
    bar.started()
    assert bar.look(0.05) == pytest.approx(0.1) and shown(us) == ""  # ten times a second at most
    bar.look(0.1)
    assert "0/4" in shown(us)
    bar.ended()
    tally.started, tally.done = 2, 1
    bar.look(2.0)
    assert " 25% [#######" in (text := shown(us)) and "1/4 done, ETA 6s" in text
    bar.hide()
    assert shown(us) == "\r\x1b[K"
    bar.hide()
    assert shown(us) == ""  # it was gone
    resize(us, 20)
    bar.look(3.0)
    text = shown(us).removeprefix("\r").removesuffix("\x1b[K")
    assert len(text) == 19 and text.startswith(" 25% 1/4 done")
    tally.done, tally.failed = 4, 1
    bar.close(4.0)
    assert shown(us).endswith("\r\n")


def test_elsewhere_it_is_a_line_now_and_then():
    read, write = os.pipe()
    os.set_blocking(read, False)
    tally = Tally()
    eta = Progress("eta", tally, write, 0.0)
    eta.started()
    assert eta.look(4.9) == 5.0 and shown(read) == ""
    assert eta.look(5.0) == 10.0 and shown(read) == "dgmp: 0 done, 1 running, 5s\n"  # how many there are is not known yet
    tally.total, tally.done, tally.failed, tally.skipped = 10, 2, 1, 3
    eta.look(10.0)
    assert shown(read) == "dgmp: 5/10 done, 1 running, 1 failed, 5.00s a job, ETA 25s\n"
    eta.hide()
    eta.ended()
    eta.close(12.0)
    assert shown(read).startswith("dgmp: 5/10 done, 0 running") and not eta.drawn
    os.close(read)
    eta.close(13.0)  # nobody reads it: no harm
    os.close(write)


def test_progress_counts_what_runs(terminal):
    policy = control(progress="progress", now=0.0)
    policy.progress.terminal = False
    job = Job()
    policy.started(job)
    assert policy.progress.text(1.0, None) == "0 done, 1 running, 1s"
    policy.total = 1
    policy.ended(job.end(1))
    assert policy.progress.text(1.0, None) == "1/1 done, 0 running, 1 failed"
    assert policy.look(1.0)[1] is not None


def test_without_options_nothing_is_looked_at():
    policy = Policy()
    assert policy.may_start(0.0) is True and policy.look(0.0) == ([], None) and policy.skip(None) is False
    policy.started(Job())
    assert policy.ended(Job().end(2)) == "done" and policy.exit_status() == 1
