"""The keeper: the process that is the parent of the daemon's tasks, and outlives the daemon.

The daemon starts it, in a session of its own, with a listening socket; the next daemon finds it by that socket's path.  It
runs what it is given in slots, and writes what happens to its journal (journal.py), which is all that the daemon learns of
tasks: the socket only says that there is news.  Without a daemon it goes on with what it has; when there is nothing left, and
no daemon, it ends.  It dies of nothing but a kill; then its tasks run on, and the next keeper is told to await their end.

On the socket go msgpack lists.  From the daemon:

    ["hello", cpus, mem, named…]              it takes the place of the daemon before, and these are to be shared out; before it
                                              comes nothing but what is to be adopted
    ["job", id, order, spec, env]             before the first claim of a job
    ["claim", id, [[task, attempt]…], [entry…]]   to be run; entries only if the job has any
    ["adopt", id, task, attempt, pid, born, stdout, stderr]   of a keeper that is dead: to be awaited
    ["cancel", id, [task…]]                   what has not started is dropped, what runs is ended
    ["over", id]                              no more of this job
    ["stop", how]                             "end": ends what runs, drops the rest; "drain": drops what has not started
    ["exit"]                                  once nothing runs

and back: ["hello", VERSION, pid, [[job, task, attempt]… it has]], ["news"].  VERSION is of these messages and the journal: a
keeper of another one is given nothing more, and replaced when what it has has ended.
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import heapq
import itertools
import os
import re
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from . import folders
from .entries import VARIABLE, filled
from .files import Logs, Spool
from .journal import Writer
from .log import bound, say
from .programs import Failed, end_of, start
from .protocol import JobSpec
from .resources import Held, Need, Resources, declared
from .wire import pack, stream

T = TypeVar("T")
VERSION = 2
NEWS_SECONDS = 0.02  # the daemon is told so late at most, as long as there is more to do
RETRY_SECONDS = 0.5  # until what failed for want of something (descriptors, disk) is tried again
TERM_SEQUENCE = ((signal.SIGTERM, 0.2), (signal.SIGTERM, 0.1), (signal.SIGTERM, 0.05), (signal.SIGKILL, 1.0))
SHORT_OF = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT)
MOST_STALE = 1000  # timers of what has ended
ANOTHERS = (b"DGMP_ENTRY=", b"DGMP_MEM=", b"DGMP_RESOURCE_")  # what a task that submits a job was told itself


class KeptJob:
    """What the keeper knows of a job."""

    def __init__(self, id: int, order: list[int], spec: dict[str, Any], env: dict[str, str]) -> None:
        self.id, self.order = id, (order[0], order[1])
        self.spec = JobSpec(**spec)
        self.env = [os.fsencode(f"{k}={v}") for k, v in env.items()]
        self.told: tuple[str, ...] = ()  # names of variables that its tasks have of us: in env they are another one's
        self.path = env.get("PATH", os.defpath)
        self.bound = self.spec.cpus is not None
        self.need = Need(1 if self.spec.cpus is None else self.spec.cpus, self.spec.mem, self.spec.resources)
        self.queue: deque[tuple[int, int]] = deque()  # (task, attempt)
        self.entries: dict[int, bytes] = {}  # of tasks that have not started
        self.over = False

    def tell(self, names: tuple[str, ...]) -> None:
        """Each of its tasks is told these, which are the same for all."""
        if names != self.told:
            others = tuple(os.fsencode(f"{name}=") for name in names) + ANOTHERS
            self.env = [item for item in self.env if not item.startswith(others)]
            self.told = names


class Run:
    """A task that runs.  One of a dead keeper's has a pidfd that is no child's, and perhaps no slot."""

    def __init__(self, job: KeptJob, task: int, attempt: int) -> None:
        self.job, self.task, self.attempt = job, task, attempt
        self.slot = 0
        self.held = Held()
        self.spool: Spool | None = None
        self.pid, self.pidfd = 0, -1
        self.child = True
        self.started = 0.0
        self.reason: str | None = None  # why it was ended, if it was
        self.signals = iter(TERM_SEQUENCE)


class Slots:
    """The numbers of what runs, from 1."""

    def __init__(self) -> None:
        self.free: list[int] = []
        self.most = 0

    def take(self) -> int:
        """The smallest that is free."""
        if not self.free:
            self.most += 1
            return self.most
        return heapq.heappop(self.free)

    def take_again(self, said: str) -> int:
        """This one, of a process that has it already; 0 if somebody else has, or it is none."""
        slot = int(said) if re.fullmatch("[0-9]{1,5}", said) else 0
        self.free += range(self.most + 1, slot + 1)
        self.most = max(self.most, slot)
        if slot not in self.free:
            return 0
        self.free = sorted(free for free in self.free if free != slot)
        return slot

    def give(self, slot: int) -> None:
        heapq.heappush(self.free, slot)


class Keeper:
    """The keeper's process.

    Args:
        state: the state folder.
        name: of its journal.
        listening: the socket.
        resources: what it shares out.
    """

    def __init__(self, state: Path, name: str, listening: socket.socket, resources: Resources) -> None:
        self.state, self.name, self.listening, self.resources = state, name, listening, resources
        self.journal = Writer(folders.make(state / "journal"), name)
        self.logs = Logs(folders.make(state / "logs"), name)
        self.spools = folders.make(state / "spool")
        self.jobs: dict[int, KeptJob] = {}
        self.ready: list[tuple[tuple[int, int], int]] = []  # the order of jobs with a queue
        self.runs: dict[tuple[int, int], Run] = {}
        self.by_fd: dict[int, Run] = {}
        self.slots = Slots()
        self.records: list[list[Any]] = []  # for the journal
        self.timers: list[tuple[float, int, Any, Run | None]] = []
        self.timer_numbers = itertools.count()
        self.stale = 0  # timers whose run has ended
        self.poll = select.epoll()
        self.poll.register(listening, select.EPOLLIN)
        self.daemon: socket.socket | None = None
        self.unpacker = stream()
        self.output = b""
        self.news_at: float | None = None
        self.stopped_until = 0.0  # nothing starts before
        self.exiting = False

    # ------------------------------------------------------------------ the loop
    def run(self) -> None:
        self.accept()  # the daemon that has started us
        while self.daemon is not None or self.runs or self.ready or self.journal.left:
            if self.exiting and not self.runs and not self.journal.left:
                return
            for fd, _ in self.poll.poll(self.wait_seconds()):
                self.on(fd)
            self.fire(time.monotonic())
            self.schedule()
            self.write()

    def wait_seconds(self) -> float:
        until = [self.timers[0][0]] if self.timers else []
        if self.news_at is not None:
            until.append(self.news_at)
        return max(0.0, min(until) - time.monotonic()) if until else -1

    def on(self, fd: int) -> None:
        if fd in self.by_fd:
            self.over(self.by_fd[fd])
        elif fd == self.listening.fileno():
            self.accept()
        elif self.daemon is not None and fd == self.daemon.fileno():
            self.read()

    def at(self, seconds: float, action: Callable[[], None], run: Run | None = None) -> None:
        """Does it then, unless that run has ended."""
        heapq.heappush(self.timers, (time.monotonic() + seconds, next(self.timer_numbers), action, run))

    def fire(self, now: float) -> None:
        while self.timers and self.timers[0][0] <= now:
            _, _, action, run = heapq.heappop(self.timers)
            if run is None or self.runs.get((run.job.id, run.task)) is run:
                action()

    def forget_timers(self, run: Run) -> None:
        """It has ended.  A timer of days is not kept for each of a million short tasks."""
        self.stale += run.job.spec.timeout is not None
        if self.stale > MOST_STALE:
            self.stale = 0
            self.timers = [t for t in self.timers if t[3] is None or self.runs.get((t[3].job.id, t[3].task)) is t[3]]
            heapq.heapify(self.timers)

    def write(self) -> None:
        """The journal, and word to the daemon that there is news: soon, or at once if we have nothing else to do."""
        if self.records or self.journal.left:
            records, self.records = self.records, []
            if not self.journal.write(records):
                self.at(RETRY_SECONDS, lambda: None)
            if records and self.news_at is None:
                self.news_at = time.monotonic() + NEWS_SECONDS
        if self.news_at is not None and (not self.ready or time.monotonic() >= self.news_at):
            self.news_at = None
            self.tell(["news"])

    # ------------------------------------------------------------------ the daemon
    def accept(self) -> None:
        try:
            connection, _ = self.listening.accept()
        except OSError:  # it is gone already
            return
        _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
        if uid != os.getuid():
            connection.close()
            return
        self.disconnect()
        connection.setblocking(False)
        self.daemon, self.unpacker, self.output = connection, stream(), b""
        self.poll.register(connection, select.EPOLLIN)

    def disconnect(self) -> None:
        if self.daemon is not None:
            self.poll.unregister(self.daemon)
            self.daemon.close()
            self.daemon = None

    def read(self) -> None:
        assert self.daemon is not None
        try:
            data = self.daemon.recv(1 << 20)
        except BlockingIOError:
            data = None
        except OSError:
            data = b""
        if data == b"":
            self.disconnect()
            return
        self.tell()
        self.unpacker.feed(data or b"")
        for message in self.unpacker:
            getattr(self, f"do_{message[0]}")(*message[1:])

    def tell(self, *messages: list[Any]) -> None:
        """To the daemon, if there is one."""
        if self.daemon is None:
            return
        self.output += b"".join(pack(message) for message in messages)
        with contextlib.suppress(OSError):  # that it is gone, reading tells
            while self.output:
                self.output = self.output[self.daemon.send(self.output):]
        self.poll.modify(self.daemon, select.EPOLLIN | (select.EPOLLOUT if self.output else 0))

    def do_hello(self, *totals: str) -> None:
        self.write()
        self.resources = shared_out(totals)
        for run in self.runs.values():
            run.held = take(self.resources, run.held)
        has = [[job.id, task, attempt] for job in self.jobs.values() for task, attempt in job.queue]
        has += [[job, task, run.attempt] for (job, task), run in self.runs.items()]
        self.tell(["hello", VERSION, os.getpid(), has])

    def do_job(self, id: int, order: list[int], spec: dict[str, Any], env: dict[str, str]) -> None:
        if id in self.jobs:
            self.jobs[id].over = False
        else:
            self.jobs[id] = KeptJob(id, order, spec, env)

    def do_claim(self, id: int, tasks: list[list[int]], entries: list[bytes]) -> None:
        job = self.jobs[id]
        if not job.queue:
            bisect.insort(self.ready, (job.order, id))
        job.queue.extend((task, attempt) for task, attempt in tasks)
        job.entries.update((task, entry) for (task, _), entry in zip(tasks, entries, strict=False))

    def do_adopt(self, id: int, task: int, attempt: int, pid: int, born: int, stdout: Any, stderr: Any) -> None:
        run = Run(self.jobs[id], task, attempt)
        run.child, run.pid = False, pid
        run.started = time.time()
        run.spool = Spool.found(self.spools, stdout, stderr)
        told = told_to(pid)
        run.held = self.resources.acquire_again(run.job.need, told)
        run.slot = self.slots.take_again(told.get("DGMP_SLOT", ""))
        self.runs[id, task] = run
        try:
            run.pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self.over(run)
            return
        if birth(pid) != born:
            self.over(run)
            return
        self.watch(run)
        self.watch_time(run)

    def do_cancel(self, id: int, tasks: list[int]) -> None:
        wanted = set(tasks)
        if id in self.jobs:
            self.drop(self.jobs[id], lambda task: task in wanted)
        for task in tasks:
            if (id, task) in self.runs:
                self.end(self.runs[id, task], "cancelled")

    def do_over(self, id: int) -> None:
        job = self.jobs.get(id)
        if job is not None and not job.queue:
            job.over = True
            self.forget(job)

    def do_stop(self, how: str) -> None:
        for job in list(self.jobs.values()):
            self.drop(job, lambda task: True)
        if how == "end":
            for run in list(self.runs.values()):
                self.end(run, "shutdown")

    def do_exit(self) -> None:
        self.exiting = True

    def drop(self, job: KeptJob, which: Any) -> None:
        """Tasks that have not started."""
        if not job.queue:
            return
        left: deque[tuple[int, int]] = deque()
        for task, attempt in job.queue:
            if which(task):
                self.records.append(["dropped", job.id, task, attempt])
                job.entries.pop(task, None)
            else:
                left.append((task, attempt))
        job.queue = left
        if not left:
            self.ready.remove((job.order, job.id))

    def forget(self, job: KeptJob) -> None:
        """It is over, and nothing of it runs."""
        if job.over and not any(run.job is job for run in self.runs.values()):
            self.jobs.pop(job.id, None)
            self.logs.close(job.id)

    # ------------------------------------------------------------------ starting
    def schedule(self) -> None:
        """Starts what fits, in order."""
        if self.exiting or not self.ready or time.monotonic() < self.stopped_until:
            return
        if not self.journal.write([]):  # what is left of before cannot be written: disk full, say
            self.pause()
            return
        runs = []
        for entry in list(self.ready):
            job = self.jobs[entry[1]]
            while job.queue and (self.resources.cores or not job.need.cpus):
                held = self.resources.acquire(job.need)
                if held is None:
                    break
                run = Run(job, *job.queue.popleft())
                run.held = held
                run.slot = self.slots.take()
                runs.append(run)
            if not job.queue:
                self.ready.remove(entry)
        if runs:
            self.start_all(runs)

    def start_all(self, runs: list[Run]) -> None:
        now = time.time()
        self.records.append(["starting", now, [[run.job.id, run.task, run.attempt] for run in runs]])
        records, self.records = self.records, []
        if not self.journal.write(records):  # it must be there before they are
            self.give_back(runs)
            return
        self.news_at = self.news_at or time.monotonic() + NEWS_SECONDS
        for number, run in enumerate(runs):
            run.started = now
            try:
                self.start(run)
            except OSError as e:
                if run.spool is not None:
                    run.spool.remove()
                if isinstance(e, Failed) or e.errno not in SHORT_OF:  # a stdout= that cannot be opened, say
                    self.failed(run, e)
                    continue
                say("keeper", f"cannot start tasks now, trying again: {e}")
                bound(self.state / folders.LOG)
                self.give_back(runs[number:])
                return

    def give_back(self, runs: list[Run]) -> None:
        """Nothing of them has started: they are the first ones of their jobs again, in a while."""
        for run in reversed(runs):
            self.resources.release(run.held)
            self.slots.give(run.slot)
            if not run.job.queue:
                bisect.insort(self.ready, (run.job.order, run.job.id))
            run.job.queue.appendleft((run.task, run.attempt))
        self.pause()

    def pause(self) -> None:
        self.stopped_until = time.monotonic() + RETRY_SECONDS
        self.at(RETRY_SECONDS, lambda: None)

    def start(self, run: Run) -> None:
        job, spec = run.job, run.job.spec
        run.spool = Spool(self.spools, f"{self.name}-{run.slot}-{run.task}-{run.attempt}", spec, job.id, run.task, run.attempt)
        held = run.held if job.bound else run.held._replace(cores=())
        told = {"DGMP_CPUS": "", **held.variables()}
        told.update(DGMP_JOB_ID=str(job.id), DGMP_TASK_ID=str(run.task), DGMP_ATTEMPT=str(run.attempt),
                    DGMP_SLOT=str(run.slot), DGMP_KEEPER=self.name)
        argv = spec.argv
        if spec.entries is not None:
            told[VARIABLE] = os.fsdecode(job.entries[run.task])
            argv = filled(argv, job.entries[run.task])
        job.tell(tuple(told))
        more = [os.fsencode(f"{k}={v}") for k, v in told.items()]
        os.umask(spec.umask)
        try:
            run.pid, run.pidfd = start(argv, job.path, job.env, more, spec.cwd, run.spool.stdout, run.spool.stderr,
                                       held.cores)
        finally:
            os.umask(0o077)
        run.spool.close()
        job.entries.pop(run.task, None)
        self.runs[job.id, run.task] = run
        self.records.append(["running", job.id, run.task, run.attempt, run.pid, birth(run.pid), *run.spool.pieces()])
        self.watch(run)
        self.watch_time(run)

    def failed(self, run: Run, e: OSError) -> None:
        """It cannot be started."""
        name = e.filename or run.job.spec.argv[0]
        self.release(run)
        run.job.entries.pop(run.task, None)
        self.records.append(["ended", run.job.id, run.task, run.attempt, {
            "ended": time.time(), "exit": 127 if e.errno == errno.ENOENT else 126, "reason": "spawn",
            "text": f"cannot start {name!r}: {e.strerror}"}])

    def watch(self, run: Run) -> None:
        self.by_fd[run.pidfd] = run
        self.poll.register(run.pidfd, select.EPOLLIN)

    # ------------------------------------------------------------------ ending
    def over(self, run: Run) -> None:
        """Its process has ended."""
        if run.pidfd in self.by_fd:
            self.poll.unregister(run.pidfd)
            del self.by_fd[run.pidfd]
        end: dict[str, Any] = {"ended": time.time(), "exit": None, "reason": "lost"}
        if run.child:
            end["exit"], end["cpu"], end["maxrss"] = end_of(run.pidfd)
            end["reason"] = run.reason or ("exit" if end["exit"] >= 0 else "signal")
        else:
            end["reason"] = run.reason or "lost"
            if run.pidfd >= 0:
                os.close(run.pidfd)
        if run.reason == "timeout":
            end["text"] = f"it took longer than {run.job.spec.timeout:g} s"
        if run.spool is not None:
            try:
                end["stdout"], end["stderr"] = self.logs.take(run.job.id, run.task, run.attempt, run.spool)
            except OSError as e:  # it stays where it is
                end["stdout"], end["stderr"] = run.spool.pieces()
                end["text"] = f"its output could not be put away: {e.strerror}"
        del self.runs[run.job.id, run.task]
        self.forget_timers(run)
        self.release(run)
        self.records.append(["ended", run.job.id, run.task, run.attempt, end])

    def release(self, run: Run) -> None:
        self.resources.release(run.held)
        if run.slot:
            self.slots.give(run.slot)
        if run.job.over:
            self.forget(run.job)

    def watch_time(self, run: Run) -> None:
        if run.job.spec.timeout is not None:
            self.at(run.job.spec.timeout, lambda: self.end(run, "timeout"), run)

    def end(self, run: Run, reason: str) -> None:
        """With the term sequence, to its process group."""
        if run.reason is None:
            run.reason = reason
            self.signal(run)

    def signal(self, run: Run) -> None:
        number, seconds = next(run.signals, (signal.SIGKILL, 1.0))
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(run.pid, number)
        self.at(seconds, lambda: self.signal(run), run)


def shared_out(totals: Sequence[str]) -> Resources:
    """What the daemon says there is."""
    cpus, mem, *named = totals
    return Resources([int(c) for c in cpus.split(",")], int(mem), declared(named, {}))


def take(there: Resources, held: Held) -> Held:
    """What runs has it already; of what there is no more it has nothing."""
    there.mem -= held.mem
    named: dict[str, tuple[str, ...] | int] = {}
    for name, units in held.named.items():
        free = there.named.get(name)
        if isinstance(free, list) and not isinstance(units, int):
            named[name] = tuple(out_of(free, units))
        elif isinstance(free, int) and isinstance(units, int):
            there.named[name], named[name] = free - units, units
    return Held(tuple(out_of(there.cores, held.cores)), held.mem, named)


def out_of(free: list[T], wanted: Iterable[T]) -> Iterator[T]:
    """Takes those out of the list that are in it."""
    for item in wanted:
        if item in free:
            free.remove(item)
            yield item


def told_to(pid: int) -> dict[str, str]:
    """The variables of ours that a process was started with; none if that cannot be known."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            items = os.fsdecode(file.read()).split("\0")
    except OSError:
        return {}
    return dict(item.split("=", 1) for item in items if item.startswith("DGMP_") and "=" in item)


def birth(pid: int) -> int:
    """When the process was started, in the kernel's ticks since boot; 0 if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return int(file.read(4096).rpartition(b")")[2].split()[19])
    except OSError:
        return 0


def main(arguments: list[str]) -> None:
    listening, state, name, *totals = arguments
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):  # it ends with its tasks, or when it is told to
        signal.signal(number, lambda number, frame: None)  # tasks do not inherit that, as they would SIG_IGN
    os.umask(0o077)
    os.set_inheritable(int(listening), False)
    Keeper(Path(state), name, socket.socket(fileno=int(listening)), shared_out(totals)).run()


if __name__ == "__main__":
    main(sys.argv[1:])
