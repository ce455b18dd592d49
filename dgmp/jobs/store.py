"""The jobs on disk: SQLite in WAL mode, in the user's state folder, read and written by the daemon alone.

A job is one row, however many tasks it has: those that never started are ranges in it.  A task has a row once it was given
to a keeper.  The daemon changes its jobs in memory, puts what changed here, and commits once a turn, with all that it puts
together or nothing; only then does it say anything of it to anybody.  Environments are kept once each.

Of a job that is forgotten the row goes at once, and its id is noted with the same commit; what else there is of it goes a
piece at a time (sweeping.py), whatever daemons are killed on the way.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import Any

from ..errors import DgmpError
from .protocol import ABORTED, CANCELLED, ENDED, MAX_TASKS, STATES, WAITING, JobSpec, bad
from .ranges import Ranges, packed
from .wire import pack, unpack

LONGEST_WAL = 16 << 20
INCREMENTAL = 2  # of SQLite's kinds of auto_vacuum
MOST_TERMS = 400  # of an expression of SQLite's, which has at most 1,000
FREE, CLAIMED, CANCELLING = 0, 1, 2  # what a task that has not ended is to the keeper

# Each brings a store from the version that is its index to the next one.
MIGRATIONS = ["""
    CREATE TABLE env (digest BLOB PRIMARY KEY, env BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE job (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, state TEXT NOT NULL, spec BLOB NOT NULL,
        env BLOB NOT NULL REFERENCES env, total INTEGER NOT NULL, ranges BLOB NOT NULL, counts BLOB NOT NULL,
        submitted REAL NOT NULL, started REAL, ended REAL);
    CREATE INDEX job_state ON job (state, id);
    CREATE TABLE task (job INTEGER NOT NULL, task INTEGER NOT NULL, state TEXT NOT NULL, claimed INTEGER NOT NULL,
        attempt INTEGER NOT NULL, tries INTEGER NOT NULL, lost INTEGER NOT NULL, started REAL, ended REAL, exit INTEGER,
        reason TEXT, text TEXT, pid INTEGER, born INTEGER, cpu REAL, maxrss INTEGER, stdout BLOB, stderr BLOB,
        PRIMARY KEY (job, task)) WITHOUT ROWID;
    CREATE INDEX task_open ON task (job, task) WHERE state IN ('waiting', 'running');
    CREATE INDEX task_bad ON task (job, task) WHERE state = 'failed';
    CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
""", """
    CREATE TABLE forgotten (job INTEGER PRIMARY KEY);
""", """
    CREATE TABLE entries (id INTEGER PRIMARY KEY AUTOINCREMENT, total INTEGER NOT NULL, job INTEGER);
    CREATE INDEX entries_job ON entries (job);
    CREATE TABLE block (entries INTEGER NOT NULL, first INTEGER NOT NULL, lines BLOB NOT NULL, PRIMARY KEY (entries, first));
"""]
TASK_COLUMNS = ("job", "task", "state", "claimed", "attempt", "tries", "lost", "started", "ended", "exit", "reason", "text",
                "pid", "born", "cpu", "maxrss", "stdout", "stderr")
PUT_TASK = f"INSERT OR REPLACE INTO task VALUES ({', '.join('?' * len(TASK_COLUMNS))})"


class StoreError(DgmpError):
    """The store cannot be read or written."""


class Task:
    """A task that has a row.

    Attributes:
        claimed: FREE, or the keeper has it, or it has it and is told to end it.
        attempt: the number of the one that runs, or ran last, from 1.
        tries: how many have failed since it was submitted or retried by hand.
        lost: how many were lost.
        born: the start time of its process, in the kernel's ticks, so that a pid is not taken for another's.
        stdout, stderr: (file under the logs folder, offset, length) of its output.
    """

    __slots__ = TASK_COLUMNS

    def __init__(self, job: int, task: int) -> None:
        self.job, self.task = job, task
        self.state = WAITING
        self.claimed = FREE
        self.attempt = self.tries = self.lost = 0
        self.clear()

    def clear(self) -> None:
        """Nothing is known of the attempt that comes."""
        self.started: float | None = None
        self.ended: float | None = None
        self.exit: int | None = None
        self.reason: str | None = None
        self.text: str | None = None
        self.pid: int | None = None
        self.born: int | None = None
        self.cpu: float | None = None
        self.maxrss: int | None = None
        self.stdout: list[Any] | None = None
        self.stderr: list[Any] | None = None

    def row(self) -> tuple[Any, ...]:
        return (self.job, self.task, self.state, self.claimed, self.attempt, self.tries, self.lost, self.started, self.ended,
                self.exit, self.reason, self.text and text(self.text), self.pid, self.born, self.cpu, self.maxrss,
                self.stdout and pack(self.stdout), self.stderr and pack(self.stderr))

    def message(self) -> dict[str, Any]:
        """For clients."""
        return {name: getattr(self, name) for name in
                ("task", "state", "attempt", "started", "ended", "exit", "reason", "text", "pid", "cpu", "maxrss")}


def task_of(row: tuple[Any, ...]) -> Task:
    task = Task(row[0], row[1])
    for name, value in zip(TASK_COLUMNS[2:-2], row[2:-2], strict=True):
        setattr(task, name, value)
    task.stdout, task.stderr = (None if piece is None else unpack(piece) for piece in row[-2:])
    return task


class Job:
    """A job and those of its tasks that have not ended.

    Attributes:
        env: the digest of its environment.
        total: how many tasks it has.
        never: state -> the ids of tasks without a row: waiting ones, and those cancelled or aborted before they started.
        counts: state -> how many tasks, with or without a row.
        open: task id -> the tasks that have a row and have not ended.
        held: ids of the jobs that must end before it starts.
    """

    __slots__ = ("counts", "ended", "env", "held", "id", "name", "never", "open", "spec", "started", "state", "submitted",
                 "total")

    def __init__(self, id: int, spec: JobSpec, env: bytes, submitted: float) -> None:
        self.id, self.spec, self.env, self.submitted = id, spec, env, submitted
        self.name = named(spec)
        waiting = spec.tasks()
        self.total = len(waiting)
        self.never = {WAITING: waiting, CANCELLED: Ranges(), ABORTED: Ranges()}
        self.counts = {**dict.fromkeys(STATES, 0), WAITING: self.total}
        self.state = WAITING
        self.started: float | None = None
        self.ended: float | None = None
        self.open: dict[int, Task] = {}
        self.held: set[int] = set()

    @property
    def order(self) -> tuple[int, int]:
        """Whose turn it is: the smaller one's."""
        return (-self.spec.priority, self.id)

    def message(self) -> dict[str, Any]:
        """For clients."""
        return {"id": self.id, "name": self.name, "command": self.spec.command, "state": self.state, "total": self.total,
                "counts": dict(self.counts), "submitted": self.submitted, "started": self.started, "ended": self.ended,
                "priority": self.spec.priority, "held": sorted(self.held)}


def named(spec: JobSpec) -> str:
    """What a job is called: after its program, if nothing is said."""
    return spec.name or os.path.basename(spec.argv[0])


def text(said: str) -> str:
    """As a column takes it: bytes that are no UTF-8 (surrogates, in a str) become escapes."""
    return said.encode(errors="backslashreplace").decode()


class Store:
    """The database.

    Args:
        path: the file; it is made if it is not there.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = path
        if str(path) != ":memory:":
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # its mode is that of -wal and -shm too
        try:
            self.db = sqlite3.connect(path, isolation_level=None, timeout=10)
            self.db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before the first table
            self.db.execute("PRAGMA journal_mode = WAL")
            self.db.execute(f"PRAGMA journal_size_limit = {LONGEST_WAL}")
            self.db.execute("PRAGMA synchronous = FULL")
            self.migrate()
        except sqlite3.Error as e:
            raise StoreError(f"cannot open the store {path}: {e}") from e

    def migrate(self) -> None:
        version = self.db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise StoreError(f"the store {self.path} is of a newer dgmp (version {version}; this one knows {len(MIGRATIONS)})")
        for number, script in enumerate(MIGRATIONS[version:], version + 1):
            self.db.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT")
        if self.db.execute("PRAGMA auto_vacuum").fetchone() != (INCREMENTAL,):  # it was made without
            with contextlib.suppress(sqlite3.OperationalError):  # no room for a copy of it: next time
                self.db.execute("VACUUM")

    def close(self) -> None:
        self.db.close()

    # ------------------------------------------------------------------ writing
    def begin(self) -> None:
        """Unless it has begun."""
        if not self.db.in_transaction:
            self.db.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Makes durable what was put; StoreError, and then none of it is there."""
        if self.db.in_transaction:
            try:
                self.db.execute("COMMIT")
            except sqlite3.Error as e:
                self.rollback()
                raise StoreError(f"the store {self.path} cannot be written: {e}") from None

    def rollback(self) -> None:
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")

    def add_job(self, spec: JobSpec, now: float) -> Job:
        self.begin()
        env = pack(dict(sorted(spec.env.items())))
        digest = hashlib.blake2b(env, digest_size=16).digest()
        self.db.execute("INSERT OR IGNORE INTO env VALUES (?, ?)", (digest, env))
        spec.env = {}
        job = Job(0, spec, digest, now)
        cursor = self.db.execute(
            "INSERT INTO job (name, state, spec, env, total, ranges, counts, submitted) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (text(job.name), job.state, pack(spec.message()), digest, job.total, b"", b"", now))
        job.id = cursor.lastrowid or 0
        return job

    def put_jobs(self, jobs: Iterable[Job]) -> None:
        self.begin()
        self.db.executemany(
            "UPDATE job SET state = ?, ranges = ?, counts = ?, started = ?, ended = ? WHERE id = ?",
            [(job.state, pack({state: never.pack() for state, never in job.never.items() if never}), pack(job.counts),
              job.started, job.ended, job.id) for job in jobs])

    def put_tasks(self, tasks: Iterable[Task]) -> None:
        self.begin()
        self.db.executemany(PUT_TASK, [task.row() for task in tasks])

    def put_meta(self, **values: Any) -> None:
        self.begin()
        self.db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(k, pack(v)) for k, v in values.items()])

    # ------------------------------------------------------------------ entries (entries.py)
    def add_entries(self, entries: int | None, blocks: list[tuple[bytes, int]]) -> tuple[int, int]:
        """Blocks, and how many lines each has, for a job to come; the set's id, a new one for None, and its lines' number."""
        self.begin()
        if entries is None:
            entries = self.db.execute("INSERT INTO entries (total) VALUES (0)").lastrowid or 0
        total = self.waiting_entries(entries)
        if total + sum(lines for _, lines in blocks) > MAX_TASKS:
            raise bad(f"a job has at most {MAX_TASKS} tasks")
        for block, lines in blocks:
            self.db.execute("INSERT INTO block VALUES (?, ?, ?)", (entries, total + 1, block))
            total += lines
        self.db.execute("UPDATE entries SET total = ? WHERE id = ?", (total, entries))
        return entries, total

    def waiting_entries(self, entries: int) -> int:
        """How many lines there are in a set that is no job's yet; ProtocolError."""
        row = self.db.execute("SELECT total FROM entries WHERE id = ? AND job IS NULL", (entries,)).fetchone()
        if row is None:
            raise bad(f"there are no entries {entries} that wait for a job")
        total: int = row[0]
        return total

    def give_entries(self, entries: int, job: int) -> None:
        self.begin()
        self.db.execute("UPDATE entries SET job = ? WHERE id = ?", (job, entries))

    def drop_entries(self, job: int | None) -> None:
        """Those of that job, or those that were sent for jobs that never came."""
        self.drop_sets(self.db.execute("SELECT id FROM entries WHERE job IS ?", (job,)).fetchall())

    def drop_waiting(self, entries: int) -> None:
        """A set, unless it is a job's."""
        self.drop_sets(self.db.execute("SELECT id FROM entries WHERE id = ? AND job IS NULL", (entries,)).fetchall())

    def drop_sets(self, sets: list[tuple[int]]) -> None:
        if sets:
            self.begin()
            self.db.executemany("DELETE FROM block WHERE entries = ?", sets)
            self.db.executemany("DELETE FROM entries WHERE id = ?", sets)

    def block(self, entries: int, task: int) -> tuple[int, bytes]:
        """The block that has the task's line, and the first task of it."""
        found: tuple[int, bytes] = self.db.execute(
            "SELECT first, lines FROM block WHERE entries = ? AND first <= ? ORDER BY first DESC LIMIT 1",
            (entries, task)).fetchone()
        return found

    # ------------------------------------------------------------------ forgetting
    def forget(self, ranges: list[tuple[int, int]], states: list[str], before: float) -> list[int]:
        """Deletes jobs in these states that ended before that; their ids.  The rest of them is to be swept."""
        self.begin()
        where, values = within(ranges)
        ids = [id for id, in self.db.execute(
            f"DELETE FROM job WHERE state IN ({marks(states)}) AND ended < ? AND {where} RETURNING id",
            (*states, before, *values))]
        self.db.executemany("INSERT INTO forgotten VALUES (?)", [(id,) for id in ids])
        return ids

    def forgotten(self) -> list[int]:
        """Jobs that are to be swept."""
        return [job for job, in self.db.execute("SELECT job FROM forgotten")]

    def drop_rows(self, job: int, most: int) -> int:
        """Deletes so many rows of a forgotten job; how many there were."""
        self.begin()
        return self.db.execute("DELETE FROM task WHERE job = ?1 AND task IN (SELECT task FROM task WHERE job = ?1 LIMIT ?2)",
                               (job, most)).rowcount

    def swept(self, jobs: Iterable[int]) -> None:
        """Nothing is left of them, nor of environments that were theirs alone."""
        self.begin()
        self.db.executemany("DELETE FROM forgotten WHERE job = ?", [(job,) for job in jobs])
        self.db.execute("DELETE FROM env WHERE digest NOT IN (SELECT env FROM job)")

    def give_back(self, pages: int) -> bool:
        """So many free pages to the file system; False if no more go."""
        self.begin()
        before = self.free_pages()
        for _ in range(pages):  # of more, Python's module would let it do one
            self.db.execute("PRAGMA incremental_vacuum(1)")
        return 0 < self.free_pages() < before

    def free_pages(self) -> int:
        free: int = self.db.execute("PRAGMA freelist_count").fetchone()[0]
        return free

    def checkpoint(self) -> None:
        """Has the store's file shrink now, and not with some later commit; nothing is lost if that cannot be."""
        if not self.db.in_transaction:
            self.db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    # ------------------------------------------------------------------ reading
    def meta(self) -> dict[str, Any]:
        return {key: unpack(value) for key, value in self.db.execute("SELECT key, value FROM meta")}

    def environment(self, digest: bytes) -> dict[str, str]:
        found: dict[str, str] = unpack(self.db.execute("SELECT env FROM env WHERE digest = ?", (digest,)).fetchone()[0])
        return found

    def open_jobs(self) -> dict[int, Job]:
        """All that have not ended, with their open tasks."""
        jobs = {job.id: job for job in self.select(f"state NOT IN {ENDED}", (), "id")}
        for row in self.db.execute("SELECT * FROM task WHERE state IN ('waiting', 'running')"):
            jobs[row[0]].open[row[1]] = task_of(row)
        return jobs

    def select(self, where: str, values: Iterable[Any], order: str, limit: int = -1) -> Iterator[Job]:
        for row in self.db.execute(
                "SELECT id, state, spec, env, total, ranges, counts, submitted, started, ended FROM job "
                f"WHERE {where} ORDER BY {order} LIMIT {limit}", tuple(values)):
            yield job_of(row)

    def ids(self, first: int, last: int, where: str) -> list[int]:
        """Of the jobs between these for which that holds."""
        rows = self.db.execute(f"SELECT id FROM job WHERE id BETWEEN ? AND ? AND {where} ORDER BY id", (first, last))
        return [id for id, in rows]

    def between(self, first: int, last: int, states: list[str]) -> Iterator[Job]:
        """Those with such ids, in these states."""
        if set(states) == set(STATES):
            return self.select("id BETWEEN ? AND ?", (first, last), "id")
        return self.select(f"state IN ({marks(states)}) AND id BETWEEN ? AND ?", (*states, first, last), "id")

    def job(self, id: int) -> Job | None:
        return next(self.select("id = ?", (id,), "id"), None)

    def last(self) -> int | None:
        found: int | None = self.db.execute("SELECT max(id) FROM job").fetchone()[0]
        return found

    def job_counts(self) -> Counter[str]:
        return Counter(dict(self.db.execute("SELECT state, count(*) FROM job GROUP BY state")))

    def page(self, ranges: list[tuple[int, int]] | None, states: list[str], name: str | None, before: int | None,
             limit: int) -> tuple[list[Job], bool]:
        """The newest jobs before that id, and whether there are more."""
        where: list[str] = ["1"]
        values: list[Any] = []
        if set(states) != set(STATES):  # else it would go by that index, and sort
            where, values = [f"state IN ({marks(states)})"], [*states]
        if ranges is not None:
            condition, more = within(ranges)
            where.append(condition)
            values += more
        if before is not None:
            where.append("id < ?")
            values.append(before)
        if name is not None:
            self.db.create_function("named", 1, lambda found: fnmatch.fnmatchcase(found, text(name)), deterministic=True)
            where.append("named(name)")
        jobs = list(self.select(" AND ".join(where), values, "id DESC", limit + 1))
        return jobs[:limit], len(jobs) > limit

    def tasks(self, job: int, tasks: Ranges | None, states: Iterable[str], after: int, limit: int) -> list[Task]:
        """The rows of that job's tasks in these states, by id, after that one."""
        states = tuple(states)
        wanted = [(after + 1, 1 << 62)]
        if tasks is not None:
            wanted = [(max(r[0], after + 1), r[1]) for r in tasks.ranges if r[1] > after]
        found: list[Task] = []
        for first, last in wanted:
            for row in self.db.execute(
                    f"SELECT * FROM task WHERE job = ? AND task BETWEEN ? AND ? AND state IN ({marks(states)}) "
                    "ORDER BY task", (job, first, last, *states)):
                if tasks is None or row[1] in tasks:
                    found.append(task_of(row))
                    if len(found) == limit:
                        return found
        return found


def marks(values: Sized) -> str:
    """For as many values in a list of SQL's."""
    return ", ".join("?" * len(values))


def within(ranges: list[tuple[int, int]]) -> tuple[str, list[Any]]:
    """The condition that a job's id is in one of them, and its values."""
    if len(ranges) > MOST_TERMS:
        return "EXISTS (SELECT 1 FROM json_each(?) WHERE job.id BETWEEN value->>0 AND value->>1)", [json.dumps(ranges)]
    return "(" + (" OR ".join(["id BETWEEN ? AND ?"] * len(ranges)) or "0") + ")", [n for r in ranges for n in r]


def job_of(row: tuple[Any, ...]) -> Job:
    id, state, spec, env, total, ranges, counts, submitted, started, ended = row
    job = Job.__new__(Job)
    job.id, job.state, job.spec, job.env, job.total = id, state, JobSpec(**unpack(spec)), env, total
    job.name = named(job.spec)
    found = unpack(ranges)
    job.never = {s: packed(found.get(s, [])) for s in (WAITING, CANCELLED, ABORTED)}
    job.counts = unpack(counts)
    job.submitted, job.started, job.ended = submitted, started, ended
    job.open, job.held = {}, set()
    return job
