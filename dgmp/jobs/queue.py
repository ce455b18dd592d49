"""What the daemon decides: which task comes next, and what becomes of one that has ended.  Event in, decision out.

The jobs that have not ended are in memory, as the store has them; everything here changes them and notes what it changed
(touch), for the daemon to commit, and what the keeper is to be told (`orders`), for the daemon to send after that.
After a commit that failed the whole queue is read again from the store, so nothing here undoes anything.

Who may start is decided by a picture of the machine in which jobs are poured in, in order (priority, then id), until it is
full.  What fits is claimed for the keeper, and a little more (prefetch), so that the keeper need not wait for a commit
between two tasks; the shorter tasks are, the more.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .protocol import (
    ABORTED,
    BAD_SPEC,
    CANCELLED,
    ENDED,
    FAILED,
    FINISHED,
    NO_SUCH_JOB,
    NO_SUCH_TASK,
    NOT_ENDED,
    RUNNING,
    STATES,
    WAITING,
    JobSpec,
    ProtocolError,
    Select,
)
from .ranges import Ranges, ranges_of
from .store import CANCELLING, CLAIMED, FREE, Job, Store, Task

MOST_LOST = 5  # a task that was lost so often fails: it may be what kills keepers
PREFETCH_SECONDS = 0.1
MOST_PREFETCHED = 256
MOST_LOOKED = 1000  # jobs that are tried in a turn
UNBOUND = 256  # tasks that need no resource at all, at once
SEVERITY = (ABORTED, FAILED, CANCELLED)  # of a job's tasks, the worst first


class Queue:
    """All jobs of a daemon.

    Args:
        store: where they stay.
        totals: resource -> how much there is; "cpus" and "mem" among them.
        clock: the time of day.
    """

    def __init__(self, store: Store, totals: dict[str, int], clock: Callable[[], float]) -> None:
        self.store, self.totals, self.clock = store, totals, clock
        self.open = store.open_jobs()
        self.job_counts = store.job_counts()
        self.ready: list[tuple[int, int]] = []  # order of the jobs that have something to start
        self.busy: set[tuple[int, int]] = set()  # and of those that have tasks with a row that have not ended
        self.looking: deque[Job] = deque()
        self.again: dict[int, deque[int]] = defaultdict(deque)  # job -> tasks with a row that wait
        self.dependents: dict[int, set[int]] = defaultdict(set)
        self.seconds = 0.0  # that a task takes; 0 is unknown
        self.jobs: dict[int, Job] = {}
        self.tasks: dict[tuple[int, int], Task] = {}
        self.new_jobs: dict[int, Job] = {}  # those that put() has not put yet
        self.new_tasks: dict[tuple[int, int], Task] = {}
        self.orders: list[tuple[Any, ...]] = []
        for job in self.open.values():
            self.hold(job)
            if job.open:
                self.busy.add(job.order)
            self.again[job.id].extend(n for n, task in sorted(job.open.items()) if task.state == WAITING and not task.claimed)
            self.look(job)

    # ------------------------------------------------------------------ what has changed
    def touch(self, job: Job, task: Task | None = None) -> None:
        """It has changed, and perhaps this task of it."""
        self.jobs[job.id] = self.new_jobs[job.id] = job
        if task is not None:
            self.tasks[job.id, task.task] = self.new_tasks[job.id, task.task] = task

    def put(self) -> None:
        """What has changed since the last time into the store, for its next commit; whoever reads there sees it from now on."""
        if self.new_jobs:
            self.store.put_jobs(self.new_jobs.values())
            self.new_jobs = {}
        if self.new_tasks:
            self.store.put_tasks(self.new_tasks.values())
            self.new_tasks = {}

    def committed(self) -> tuple[dict[int, Job], dict[tuple[int, int], Task], list[tuple[Any, ...]]]:
        """What has changed since the last time, and the orders for the keeper."""
        found = self.jobs, self.tasks, self.orders
        self.jobs, self.tasks, self.orders = {}, {}, []
        return found

    def turn(self, job: Job, task: Task, state: str) -> None:
        job.counts[task.state] -= 1
        job.counts[state] += 1
        task.state = state
        if state in ENDED:
            task.claimed = FREE
            job.open.pop(task.task, None)
        self.touch(job, task)

    def look(self, job: Job) -> None:
        """Brings its state, and whether it is ready, up to date; and, if it has ended, jobs that come after it."""
        if self.looking:  # we are called from below
            self.looking.append(job)
            return
        self.looking.append(job)
        while self.looking:
            self.look_at(self.looking[0])
            self.looking.popleft()

    def look_at(self, job: Job) -> None:
        open = job.counts[WAITING] + job.counts[RUNNING]
        state = RUNNING if job.started is not None else WAITING
        if not open:
            state = next((s for s in SEVERITY if job.counts[s]), FINISHED)
        if state != job.state:
            self.job_counts[job.state] -= 1
            self.job_counts[state] += 1
            job.state = state
            self.touch(job)
        at = bisect.bisect_left(self.ready, job.order)
        there = at < len(self.ready) and self.ready[at] == job.order
        wanted = bool(open and not job.held and (job.never[WAITING] or self.again[job.id]))
        if wanted and not there:
            self.ready.insert(at, job.order)
        elif there and not wanted:
            del self.ready[at]
        if not job.open:
            self.busy.discard(job.order)
        if not open and self.open.pop(job.id, None) is not None:
            job.ended = self.clock()
            self.touch(job)
            self.again.pop(job.id, None)
            self.orders.append(("over", job.id))
            for dependent in self.dependents.pop(job.id, ()):
                if dependent in self.open:
                    self.released(self.open[dependent], job)

    # ------------------------------------------------------------------ jobs
    def submit(self, spec: JobSpec) -> Job:
        """A new job."""
        self.check_fits(spec)
        for id in (*spec.after, *spec.after_ok):
            if id not in self.open and self.store.job(id) is None:
                raise ProtocolError(NO_SUCH_JOB, f"there is no job {id} to come after")
        if spec.entries is not None:
            self.check_entries(spec, self.store.waiting_entries(spec.entries))
        job = self.store.add_job(spec, self.clock())
        if spec.entries is not None:
            self.store.give_entries(spec.entries, job.id)
        self.job_counts[job.state] += 1
        self.open[job.id] = job
        self.touch(job)
        self.hold(job)
        if self.broken(job):
            self.abort(job)
        self.look(job)
        return job

    def check_fits(self, spec: JobSpec) -> None:
        for name, amount in needs(spec).items():
            if amount > self.totals.get(name, 0):
                has = f"has {self.totals[name]}" if name in self.totals else "knows no such resource"
                raise ProtocolError(BAD_SPEC, f"the job needs {name}={amount} and can never start: this daemon {has}")

    def check_entries(self, spec: JobSpec, lines: int) -> None:
        """Its tasks are lines that there are."""
        if not spec.array:
            spec.array = [[1, lines, 1]]
        if spec.array[0][0] < 1 or max(last for _, last, _ in spec.array) > lines:
            raise ProtocolError(BAD_SPEC, f"there are {lines} lines: the tasks' ids go from 1 to {lines}")

    def hold(self, job: Job) -> None:
        """Until what it comes after has ended."""
        job.held = {id for id in (*job.spec.after, *job.spec.after_ok) if id in self.open and id != job.id}
        for id in job.held:
            self.dependents[id].add(job.id)

    def broken(self, job: Job) -> bool:
        """Something that should have finished has not, and has ended."""
        ended = (self.jobs.get(id) or self.store.job(id) for id in job.spec.after_ok if id not in self.open)
        return any(other is not None and other.state != FINISHED for other in ended)  # None: it is forgotten

    def released(self, job: Job, other: Job) -> None:
        """The other one, which it comes after, has ended."""
        job.held.discard(other.id)
        if other.id in job.spec.after_ok and other.state != FINISHED:
            self.abort(job)
        self.look(job)

    def abort(self, job: Job) -> None:
        job.never[ABORTED].add(job.never[WAITING])
        job.counts[ABORTED] += len(job.never[WAITING])
        job.counts[WAITING] -= len(job.never[WAITING])
        job.never[WAITING] = Ranges()
        while self.again[job.id]:
            self.turn(job, job.open[self.again[job.id].popleft()], ABORTED)
        self.touch(job)

    # ------------------------------------------------------------------ selections
    def chosen(self, selects: Iterable[Select], where: str) -> Iterator[tuple[Job, Ranges | None]]:
        """The jobs, those in ranges and "all" as far as the condition holds; ProtocolError if a single one is not there.

        A job is there once as a whole, however often it is named.
        """
        whole: set[int] = set()
        for select in selects:
            first, last = self.range(select)
            for id in [first] if first == last else self.store.ids(first, last, where):
                if id in whole and select.tasks is None:
                    continue
                job = self.job(id)
                if select.tasks is None:
                    whole.add(id)
                elif first == last and len(select.tasks) == 1:
                    self.check_task(job, next(iter(select.tasks)))
                yield job, select.tasks

    def range(self, select: Select) -> tuple[int, int]:
        """The first and last id that may be meant."""
        if not isinstance(select.jobs, str):
            return select.jobs
        if select.jobs == "all":
            return 0, self.store.last() or -1
        return (self.last(),) * 2

    def get(self, job: Job) -> Job:
        return self.open.get(job.id) or self.jobs.get(job.id) or job

    def job(self, id: int) -> Job:
        """ProtocolError if there is no such job."""
        found = self.open.get(id) or self.jobs.get(id) or self.store.job(id)
        if found is None:
            raise ProtocolError(NO_SUCH_JOB, f"there is no job {id}")
        return found

    def last(self) -> int:
        """The id of the newest job; ProtocolError if there is none."""
        last = self.store.last()
        if last is None:
            raise ProtocolError(NO_SUCH_JOB, "there are no jobs yet")
        return last

    def spans(self, selects: Iterable[Select]) -> list[tuple[int, int]]:
        """The ids that are meant of those there are now; ProtocolError if a single one is not there."""
        spans = []
        newest = self.store.last() or 0
        for select in selects:
            if isinstance(select.jobs, str):
                spans.append((1, newest) if select.jobs == "all" else (self.last(),) * 2)
                continue
            first, last = select.jobs
            if select.single:
                self.job(first)
            spans.append((first, min(last, newest)))
        return spans

    def check_task(self, job: Job, task: int) -> None:
        if task not in job.spec.tasks():
            raise ProtocolError(NO_SUCH_TASK, f"job {job.id} has no task {task}")

    def at_rest(self, id: int, tasks: Ranges | None) -> bool:
        """These tasks of the job, or all, have ended."""
        if id not in self.open:
            return True
        job = self.open[id]
        return tasks is not None and not any(n in tasks for n in job.open) and not overlap(job.never[WAITING], tasks)

    # ------------------------------------------------------------------ cancel and retry
    def cancel(self, job: Job, tasks: Ranges | None) -> tuple[int, int]:
        """How many will not start, and how many the keeper is told to end."""
        if job.id not in self.open:
            return 0, 0
        waiting = job.never[WAITING].remove(tasks if tasks is not None else job.spec.tasks())
        job.never[CANCELLED].add(waiting)
        job.counts[WAITING] -= len(waiting)
        job.counts[CANCELLED] += len(waiting)
        self.touch(job)
        dropped, ending = len(waiting), []
        for task in [t for t in job.open.values() if tasks is None or t.task in tasks]:
            if task.claimed == FREE:
                self.turn(job, task, CANCELLED)
                dropped += 1
            else:
                task.claimed = CANCELLING
                self.touch(job, task)
                ending.append(task.task)
        self.again[job.id] = deque(n for n in self.again[job.id] if n in job.open)
        if ending:
            self.orders.append(("cancel", job.id, ending))
        self.look(job)
        return dropped, len(ending)

    def retry(self, job: Job, tasks: Ranges | None, states: Iterable[str]) -> int:
        """Lets tasks that ended in one of these states wait again; returns how many."""
        states = [s for s in states if s in ENDED]
        if ABORTED in states and self.broken(job):
            states = [s for s in states if s != ABORTED]
        never = Ranges()
        for state in (CANCELLED, ABORTED):
            if state in states:
                taken = job.never[state].remove(tasks if tasks is not None else job.spec.tasks())
                job.counts[state] -= len(taken)
                never.add(taken)
        rows = self.store.tasks(job.id, tasks, states, -1, -1)
        if not never and not rows:
            return 0
        if job.id not in self.open:
            self.open[job.id] = job
            job.ended = None
            self.hold(job)
        job.never[WAITING].add(never)
        job.counts[WAITING] += len(never)
        for task in rows:
            task.tries = task.lost = 0
            self.wait_again(job, task)
        self.touch(job)
        self.look(job)
        return len(never) + len(rows)

    def wait_again(self, job: Job, task: Task) -> None:
        job.open[task.task] = task
        self.busy.add(job.order)
        task.claimed = FREE
        self.turn(job, task, WAITING)
        self.again[job.id].append(task.task)

    # ------------------------------------------------------------------ forget
    def forget(self, selects: list[Select], states: Iterable[str], before: float) -> tuple[int, Ranges]:
        """Ended jobs in these states: how many are forgotten, and the ids of those that have not ended.

        ProtocolError: one that is named alone has not ended, or tasks are named.
        """
        if any(select.tasks is not None for select in selects):
            raise ProtocolError(BAD_SPEC, "jobs are forgotten as a whole: name no tasks")
        spans = self.spans(selects)
        for select, (first, _) in zip(selects, spans, strict=True):
            if select.single and first in self.open:
                job = self.open[first]
                raise ProtocolError(NOT_ENDED, f"job {job.id} ({job.name}) is {job.state}: it can be forgotten once it has "
                                    "ended")
        ids = self.store.forget(spans, [state for state in states if state in ENDED], before)
        for id in ids:
            self.jobs.pop(id, None)
        self.job_counts = self.store.job_counts()
        return len(ids), ranges_of(id for id in self.open if any(first <= id <= last for first, last in spans))

    # ------------------------------------------------------------------ which is next
    def choose(self) -> None:
        """Claims tasks for the keeper; they are in the orders."""
        free = dict(self.totals)
        prefetch = self.prefetch()
        for job in list(itertools.islice(self.ready_or_running(), MOST_LOOKED)):
            need = needs(job.spec)
            if prefetch <= 0 and free["cpus"] <= 0 and "cpus" in need:
                continue
            has = sum(1 for task in job.open.values() if task.claimed)
            waiting = len(job.never[WAITING]) + len(self.again[job.id]) if not job.held else 0
            room = min((free[name] // amount for name, amount in need.items()), default=UNBOUND)
            fits = min(room, waiting + has)
            for name, amount in need.items():
                free[name] -= fits * amount
            if not fits and waiting:
                self.reserve(need, free)
            ahead = max(0, has - fits)  # what the keeper has of it beyond what can run
            more = min(waiting, max(0, fits - has))
            extra = min(waiting - more, max(0, prefetch - ahead))
            prefetch -= ahead + extra
            if more + extra:
                self.claim(job, more + extra)

    def reserve(self, need: dict[str, int], free: dict[str, int]) -> None:
        """Of what a job lacks those behind it get nothing, or it would wait for ever.  Cores only if it lacks nothing else."""
        lacking = [name for name, amount in need.items() if free[name] < amount]
        for name in [name for name in lacking if name != "cpus"] or lacking:
            free[name] = 0

    def prefetch(self) -> int:
        """How many tasks the keeper has beyond what runs: none if they are long, as a better one may come meanwhile."""
        return min(MOST_PREFETCHED, int(self.totals["cpus"] * PREFETCH_SECONDS / self.seconds)) if self.seconds else 0

    def ready_or_running(self) -> Iterator[Job]:
        """In order; a job that has nothing to start but runs takes up room."""
        for _, id in merged(self.ready, sorted(self.busy)):
            yield self.open[id]

    def claim(self, job: Job, count: int) -> None:
        claimed: list[Task] = []
        again = self.again[job.id]
        while again and len(claimed) < count:
            task = job.open[again.popleft()]
            claimed.append(task)
        for n in job.never[WAITING].take(count - len(claimed)):
            task = job.open[n] = Task(job.id, n)
            claimed.append(task)
        for task in claimed:
            task.claimed = CLAIMED
            task.attempt += 1
            task.clear()
            self.touch(job, task)
        self.touch(job)
        self.busy.add(job.order)
        self.orders.append(("claim", job, [(task.task, task.attempt) for task in claimed]))
        self.look(job)

    # ------------------------------------------------------------------ what the keeper tells
    def find(self, job: int, task: int, attempt: int) -> tuple[Job, Task] | None:
        """The open task, if this attempt is the one it is at."""
        found = self.open.get(job)
        if found is None or task not in found.open or found.open[task].attempt != attempt or not found.open[task].claimed:
            return None
        return found, found.open[task]

    def starting(self, job: Job, task: Task, at: float) -> None:
        """It may run from now on."""
        task.started = at
        if job.started is None:
            job.started = at
        self.turn(job, task, RUNNING)
        self.look(job)

    def running(self, job: Job, task: Task, pid: int, born: int, stdout: Any, stderr: Any) -> None:
        task.pid, task.born, task.stdout, task.stderr = pid, born, stdout, stderr
        self.touch(job, task)

    def ended(self, job: Job, task: Task, end: dict[str, Any]) -> None:
        """It has, as the journal tells."""
        for name in ("ended", "exit", "reason", "text", "cpu", "maxrss", "stdout", "stderr"):
            setattr(task, name, end.get(name))
        self.measure(task)
        if task.reason == "lost":
            self.lost(job, task)
        elif task.claimed == CANCELLING:
            self.turn(job, task, FINISHED if task.exit == 0 else CANCELLED)
        elif task.reason == "shutdown":
            self.wait_again(job, task)
        elif task.exit == 0 and task.reason == "exit":
            self.turn(job, task, FINISHED)
        else:
            task.tries += 1
            if task.tries <= job.spec.retries:
                self.wait_again(job, task)
            else:
                self.turn(job, task, FAILED)
        self.look(job)

    def measure(self, task: Task) -> None:
        if task.started is not None and task.ended is not None:
            seconds = max(1e-4, task.ended - task.started)
            self.seconds += (seconds - self.seconds) * (0.1 if self.seconds else 1)

    def lost(self, job: Job, task: Task) -> None:
        """It may have run, and nobody knows how it ended."""
        task.reason, task.ended = "lost", task.ended or self.clock()
        task.lost += 1
        if task.claimed == CANCELLING:
            self.turn(job, task, CANCELLED)
        elif job.spec.on_lost == "rerun" and task.lost < MOST_LOST:
            self.wait_again(job, task)
        else:
            task.text = task.text or "its keeper was killed, and nobody saw it end"
            self.turn(job, task, FAILED)
        self.look(job)

    def unclaim(self, job: Job, task: Task) -> None:
        """The keeper has not started it, and does not have it any more."""
        if task.claimed == CANCELLING:
            self.turn(job, task, CANCELLED)
        else:
            task.attempt -= 1
            self.wait_again(job, task)
        self.look(job)

    def claimed(self) -> list[tuple[Job, Task]]:
        """Those that a keeper has, or had."""
        return [(job, task) for job in self.open.values() for task in job.open.values() if task.claimed]

    def task_counts(self) -> dict[str, int]:
        """Of the open jobs."""
        return {state: sum(job.counts[state] for job in self.open.values()) for state in STATES}


def needs(spec: JobSpec) -> dict[str, int]:
    """What a task of it holds while it runs."""
    cpus = 1 if spec.cpus is None else spec.cpus
    return {name: amount for name, amount in (("cpus", cpus), ("mem", spec.mem), *spec.resources.items()) if amount}


def overlap(a: Ranges, b: Ranges) -> bool:
    copy = Ranges()
    copy.ranges, copy.count = list(a.ranges), a.count
    return len(copy.remove(b)) > 0


def merged(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Both in order, what is in both once."""
    last = None
    for item in heapq.merge(a, b):
        if item != last:
            yield item
        last = item
