"""What a week leaves behind goes: jobs that have ended, their output, the store's room, the daemon's log."""

import io
import os
import signal
import sqlite3
import subprocess
import sys
import time
import zlib

import pytest

from dgmp.jobs import folders, log, sweeping
from dgmp.jobs.client import select
from dgmp.jobs.protocol import JobSpec, ProtocolError, Select
from dgmp.jobs.store import INCREMENTAL, MIGRATIONS, Store
from tests.helpers import eventually
from tests.jobs.harness import kill
from tests.jobs.test_queue import Fake

PRINTS = "echo small; [ $DGMP_TASK_ID != 2 ] || head -c 100000 /dev/zero"  # the latter has a file of its own
MANY = 10_000  # tasks, which are forgotten in several steps


def ran(here, client, script=PRINTS, **spec):
    job = here.submit(client, script, **spec)
    client.wait([select(job)], 60)
    return job


def logs(here):
    return sorted(path.name for path in (here.state / "logs").iterdir())


def rows(here, query):
    db = sqlite3.connect(here.state / folders.STORE)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def nothing_left(here):
    return rows(here, "SELECT * FROM forgotten") == [] and rows(here, "PRAGMA freelist_count") == [(0,)]


def test_an_ended_job_goes_with_its_output_and_others_stay(here, client):
    gone, stays = (ran(here, client, array=[[1, 3]]) for _ in range(2))
    assert client.forget_jobs([select(gone)]) == {"forgotten": 1, "open": []}
    with pytest.raises(ProtocolError, match=f"no job {gone}"):
        client.show([select(gone)])
    assert eventually(lambda: nothing_left(here))
    assert {name.split("-")[0].split(".")[0] for name in logs(here)} == {str(stays)}
    assert rows(here, "SELECT DISTINCT job FROM task") == [(stays,)]
    assert client.jobs()["counts"]["finished"] == 1 and client.show([select(stays)])[0]["state"] == "finished"
    assert ran(here, client) == stays + 1


def test_what_has_not_ended_is_refused_by_name_and_kept_in_a_range(here, client):
    done = ran(here, client)
    runs = here.submit(client, "sleep 300", name="long")
    waits = here.submit(client, "true", after=[runs])
    assert eventually(lambda: client.status()["running"])
    for job, state in ((runs, "running"), (waits, "waiting"), ("last", "waiting")):
        with pytest.raises(ProtocolError, match=rf"is {state}: it can be forgotten once it has ended") as e:
            client.forget_jobs([select(done), select(job)])
        assert e.value.code == "not_ended"
    assert client.show([select(done)])
    assert client.forget_jobs([Select("all")]) == {"forgotten": 1, "open": [[runs, waits, 1]]}
    client.cancel([Select("all")])
    client.wait([Select("all")], 60)
    assert client.forget_jobs([Select((1, 99))])["forgotten"] == 2
    assert client.jobs()["jobs"] == []


def test_by_state_and_age(here, client):
    good, bad = ran(here, client, "true"), ran(here, client, "false")
    assert client.forget_jobs([Select("all")], before=time.time() - 3600)["forgotten"] == 0
    assert client.forget_jobs([select(good)], states=["failed", "running"])["forgotten"] == 0
    assert client.forget_jobs([Select("all")], states=["failed"], before=time.time() + 1)["forgotten"] == 1
    assert [job["id"] for job in client.jobs()["jobs"]] == [good] and bad > good


@pytest.mark.parametrize("body, words", [
    ({"select": [["last", [[1, 2]]]]}, "name no tasks"), ({"select": [["all", None]], "before": "x"}, "must be a time"),
    ({}, "select must be"), ({"select": [["all", None]], "states": ["odd"]}, "states must be")])
def test_requests_that_make_no_sense(here, client, body, words):
    job = ran(here, client, "true")
    with pytest.raises(ProtocolError, match=words):
        client.call("forget_jobs", **body)
    assert client.show([select(job)])


def test_what_was_waited_for_may_be_forgotten_meanwhile(here, client):
    done = ran(here, client, "true")
    os.mkfifo(here.work / "go")
    runs = here.submit(client, "cat go")
    other = here.client()
    number = other.send("wait", {"select": [[[done, done], None], [[runs, runs], None]]})
    watching = client.subscribe()
    other.hello()  # the wait has been taken
    assert client.forget_jobs([select(done)])["forgotten"] == 1
    (here.work / "go").write_text("x")
    assert [job["id"] for job in other.reply(number, 60)["jobs"]] == [runs]
    assert client.forget_jobs([select(runs)])["forgotten"] == 1
    watching.close()
    assert client.hello()["pid"] == here.daemon


def test_who_waits_learns_of_an_end_though_it_is_forgotten_in_the_same_turn(here, client):
    runs = here.submit(client, "sleep 300")
    job = here.submit(client, "true", after=[runs])
    watching = client.subscribe([select(job)])
    number = client.send("wait", {"select": [select(job).message()]})
    client.hello()  # the wait has been taken
    other = here.client()
    other.hello()  # it is connected
    os.kill(here.daemon, signal.SIGSTOP)
    for verb in ("cancel", "forget_jobs"):
        other.send(verb, {"select": [select(job).message()]})
    other.socket.linger = 20_000
    other.close()  # both are there
    os.kill(here.daemon, signal.SIGCONT)
    assert [(found["id"], found["state"]) for found in client.reply(number, 60)["jobs"]] == [(job, "cancelled")]
    assert [found["state"] for found in watching.next(60)[1]["jobs"]] == ["cancelled"]
    assert eventually(lambda: not client.jobs([Select((job, job + 1))])["jobs"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_daemon_killed_meanwhile_leaves_it_to_the_next_one(here, client, number):
    jobs = [ran(here, client, array=[[1, 3]]) for _ in range(3)]
    kill(here.daemon, signal.SIGSTOP)
    number_sent = client.send("forget_jobs", {"select": [["all", None]]})
    kill(here.daemon, signal.SIGCONT)
    assert client.reply(number_sent, 60) == {"forgotten": len(jobs), "open": []}
    kill(here.daemon, number)
    assert eventually(lambda: here.daemon not in here.processes())
    here.up()
    client = here.client()
    assert client.jobs()["jobs"] == []
    assert eventually(lambda: nothing_left(here) and logs(here) == [])


def large(fake, tasks):
    """A job that has run so many."""
    job = fake.queue.submit(JobSpec(argv=["x"], array=[[1, tasks]], env={"A": os.urandom(100_000).hex()}))
    fake.choose()
    fake.start(job, *range(1, tasks + 1))
    fake.end(job, *range(1, tasks + 1))
    fake.commit()
    return job


def test_daemons_killed_while_they_sweep_leave_nothing(here):
    folders.make(here.state)
    folders.make(here.state / "logs")
    fake = Fake(Store(here.state / folders.STORE), cpus=MANY)
    jobs = [large(fake, MANY), large(fake, 5)]
    fake.store.close()
    for job in jobs:
        for n in range(1000):
            (here.state / "logs" / f"{job.id}-{n}-1.out").touch()
    daemon = here.up()
    assert here.client().forget_jobs([Select("all")])["forgotten"] == 2
    seen = []
    for _ in range(4):
        left = rows(here, "SELECT (SELECT count(*) FROM task) + (SELECT count(*) FROM forgotten)")[0][0] + len(logs(here))
        seen.append(left)
        kill(daemon)
        daemon = here.up()
        assert here.client().jobs()["jobs"] == []
    assert seen == sorted(seen, reverse=True)
    assert eventually(lambda: nothing_left(here) and logs(here) == [])
    assert rows(here, "SELECT count(*) FROM task") == [(0,)]


def test_the_store_shrinks(tmp_path):
    store = Store(tmp_path / "store")
    fake = Fake(store, cpus=MANY)
    job = large(fake, MANY)
    kept = fake.submit(array=[[1, 2]])
    fake.commit()
    pages = store.db.execute("PRAGMA page_count").fetchone()[0]
    assert fake.queue.forget([Select((job.id, job.id))], ["finished"], float("inf"))[0] == 1
    steps = 0
    for _ in sweeping.sweeping(store, tmp_path):
        store.commit()
        steps += 1
    assert MANY // sweeping.ROWS <= steps < 30
    assert (tmp_path / "store").stat().st_size < pages * 4096 / 10
    assert store.db.execute("SELECT count(*) FROM env").fetchone() == (1,) and store.job(kept.id)
    assert store.db.execute("SELECT count(*) FROM task").fetchone() == (0,)
    store.close()


def test_a_store_of_before_is_made_to_shrink(tmp_path):
    db = sqlite3.connect(tmp_path / "store")
    db.executescript(f"{MIGRATIONS[0]}; PRAGMA user_version = 1; INSERT INTO meta VALUES ('a', 'b')")
    db.close()
    store = Store(tmp_path / "store")
    assert store.db.execute("PRAGMA auto_vacuum").fetchone() == (INCREMENTAL,)
    assert store.db.execute("SELECT * FROM meta").fetchall() == [("a", "b")] and store.forgotten() == []
    store.close()


FULL = """
import resource, signal, sys
from dgmp.jobs.store import Store
from dgmp.jobs.sweeping import sweeping
from pathlib import Path

folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, ((folder / "store").stat().st_size // 4,) * 2)
store = Store(folder / "store")
print(store.meta(), store.forgotten(), store.db.execute("PRAGMA freelist_count").fetchone()[0] > 0)
print(sum(1 for _ in sweeping(store, folder)) < 10)
"""


def test_a_store_of_before_opens_though_the_disk_has_no_room_for_a_copy_of_it(tmp_path):
    db = sqlite3.connect(tmp_path / "store")
    db.executescript(f"{MIGRATIONS[0]}; PRAGMA user_version = 1")
    db.executemany("INSERT INTO env VALUES (?, ?)", [(str(n), os.urandom(10_000)) for n in range(200)])
    db.execute("DELETE FROM env WHERE digest LIKE '1%'")
    db.commit()
    db.close()
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, timeout=50)
    assert (done.stdout, done.stderr) == ("{} [] True\nTrue\n", "")
    store = Store(tmp_path / "store")  # when there is room
    assert store.db.execute("PRAGMA auto_vacuum").fetchone() == (INCREMENTAL,)
    store.close()


def test_what_cannot_be_cleared_away_does_not_keep_the_daemon_from_its_work(here, client):
    gone = ran(here, client)
    os.rename(here.state / "logs", here.state / "elsewhere")
    (here.state / "logs").touch()  # no folder can be made in its place
    assert client.forget_jobs([select(gone)])["forgotten"] == 1
    assert eventually(lambda: "not cleared away" in (here.state / folders.LOG).read_text())
    assert client.jobs()["jobs"] == []
    ran(here, client, "true")
    assert "trying again" not in (here.state / folders.LOG).read_text()
    os.unlink(here.state / "logs")
    os.rename(here.state / "elsewhere", here.state / "logs")
    client.forget_jobs([Select("all")])
    assert eventually(lambda: nothing_left(here) and logs(here) == [])


def test_aborted_jobs_can_be_retried_once_what_they_waited_for_is_forgotten():
    fake = Fake()
    gate = fake.submit()
    held = fake.submit(after_ok=[gate.id])
    fake.choose()
    fake.start(gate, 0)
    fake.end(gate, 0, exit=1)
    fake.commit()
    assert held.state == "aborted" and fake.queue.retry(held, None, ["aborted"]) == 0
    assert fake.queue.forget([Select((gate.id, gate.id))], ["failed"], float("inf"))[0] == 1
    assert fake.queue.retry(held, None, ["aborted"]) == 1 and held.state == "waiting"
    with pytest.raises(ProtocolError, match="no job"):
        fake.submit(after=[gate.id])


# ---------------------------------------------------------------------- daemon.log
def test_the_log_is_bounded_and_its_end_kept(here, client):
    path = here.state / folders.LOG
    with open(path, "ab") as file:
        file.write(b"x" * (log.MOST + 10) + b"the end\n")
    client.hello()
    assert eventually(lambda: path.stat().st_size < 1000)
    before = (here.state / f"{folders.LOG}.1").read_bytes()
    assert len(before) == log.MOST and before.endswith(b"xthe end\n")
    keeper = here.keeper(client)
    kill(keeper)
    assert eventually(lambda: "the keeper" in path.read_text())  # it is written to as before
    assert "\0" not in path.read_text()


def test_one_of_two_that_find_it_too_long_turns_it_over(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"x" * (log.MOST + 1))
    log.bound(path)
    path.write_text("new\n")
    log.turn_over(path)  # as one who has looked before
    assert path.read_text() == "new\n" and (tmp_path / "log.1").stat().st_size == log.MOST


# ---------------------------------------------------------------------- entries
def test_entries_go_with_their_job_and_those_without_one_as_the_next_daemon_starts(here, client):
    def sent():
        return client.entries(io.BytesIO(b"a\nb\n"))[0]

    gone, stays = (client.submit(["echo", "{}"], env=here.env, entries=sent()) for _ in range(2))
    for job in (gone, stays):
        client.wait([select(job)], 60)
    unused = sent()
    client.forget_jobs([select(gone)])
    assert eventually(lambda: nothing_left(here))
    assert rows(here, "SELECT job FROM entries ORDER BY id") == [(stays,), (None,)]
    assert rows(here, "SELECT count(*) FROM block") == [(2,)]
    kill(here.daemon)
    here.up()
    client = here.client()
    assert client.tasks(stays)["tasks"][1]["entry"] == "b"
    assert rows(here, "SELECT job FROM entries") == [(stays,)] and rows(here, "SELECT count(*) FROM block") == [(1,)]
    with pytest.raises(ProtocolError, match=f"no entries {unused}"):
        client.submit(["true"], entries=unused)
    with pytest.raises(ProtocolError, match="that wait for a job"):
        client.submit(["true"], entries=1)


def test_lines_of_many_blocks_reach_their_tasks_whatever_is_killed(here, client):
    lines = [b"%d-%s" % (n, b"x" * 30_000) for n in range(1, 41)]
    entries, count = client.entries(io.BytesIO(b"\n".join(lines)))
    script = 'echo "$DGMP_TASK_ID ${DGMP_ENTRY%%-*} ${#DGMP_ENTRY}" >> ran'
    job = here.submit(client, script, entries=entries, array=[[5, 39, 2]])
    assert count == 40 and eventually(lambda: len(here.lines("ran")) >= 3)
    for pid in (here.daemon, *here.processes("dgmp.jobs.keeper")):
        kill(pid)
    here.up()
    client = here.client()
    client.wait([select(job)], 60)
    assert set(here.lines("ran")) == {f"{n} {n} {len(lines[n - 1])}" for n in range(5, 40, 2)}


@pytest.mark.parametrize("block, words", [
    (b"", "whole lines"), (b"xyz", "not packed"), (zlib.compress(b"a"), "whole lines"), (zlib.compress(b"\0\n"), "whole lines"),
    (zlib.compress(b"\n" * (2 << 20)), "whole lines"), (zlib.compress(b"a\n")[:-1], "whole lines"), ("a\n", "list of bytes")])
def test_blocks_that_are_none(here, client, block, words):
    with pytest.raises(ProtocolError, match=words) as e:
        client.call("entries", blocks=[block])
    assert e.value.code == "bad_spec"
    assert client.call("entries", blocks=[zlib.compress(b"a\n\n")])["lines"] == 2
