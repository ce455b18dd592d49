"""The daemon: this user's queue of jobs, at the other end of docs/protocol.md.

One process, one thread, one loop.  A turn of it takes what clients ask and what the keeper tells, lets the queue decide
(queue.py), commits all of it to the store at once, and only then answers, sends events, and gives the keeper its orders.
When the commit fails, nothing of the turn has happened: its requests are answered with the error, and the queue is read again
from the store.  That is also how the daemon starts; there is no other way.

It polls nothing and sleeps until there is something to do.  SIGTERM, SIGINT and SIGHUP end the daemon alone: the keeper goes
on with what it has, and the next daemon with the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sqlite3
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import zmq

from .. import __version__
from ..errors import DgmpError
from . import folders
from .boot import add_arguments, resources_of
from .context import new_context
from .entries import unpacked
from .keeping import Keeping
from .log import bound, say
from .node import NodeHost
from .protocol import (
    BAD_MESSAGE,
    BAD_VERSION,
    CLOSING,
    ENDED,
    FINISHED,
    INTERNAL,
    MAX_MESSAGE,
    NO_SUCH_JOB,
    PAGE,
    RUNNING,
    STATES,
    STORE,
    VERSION,
    ProtocolError,
    bad,
    check_fields,
    decode,
    encode,
    job_spec,
    number,
    selects,
    states_of,
    string,
    task_ranges,
)
from .queue import Queue
from .ranges import Ranges
from .resources import Resources
from .store import Job, Store, StoreError, Task
from .sweeping import sweeping

EVENT_SECONDS = 0.1  # between two events of a subscription, unless a job has ended
STORE_SECONDS = 1.0  # until a store that could not be written is tried again
MOST_REQUESTS = 1000  # in a turn
FOR_EVER = float("inf")
SWEPT = object()
MOST_WAITING = 10_000  # replies and subscriptions that are due
MOST_UNTOLD = 100_000  # tasks, to a subscriber that does not read


class Client:
    """Where a reply goes: the peer, and the id of its request, if it has one."""

    __slots__ = ("number", "peer")

    def __init__(self, peer: bytes, number: int | None = None) -> None:
        self.peer, self.number = peer, number

    def key(self) -> tuple[bytes, int | None]:
        return self.peer, self.number


class Wait:
    """A `wait` that has not been answered.

    Attributes:
        spans, states: the jobs that the answer has: with ids in there, and in these states.
        pending: those that are still waited for, and which of their tasks.
    """

    def __init__(self, client: Client, spans: list[tuple[int, int]], states: list[str]) -> None:
        self.client, self.spans, self.states = client, spans, states
        self.pending: dict[int, list[Ranges | None]] = {}


class Subscriber:
    """A `subscribe`."""

    def __init__(self, client: Client, jobs: list[str | tuple[int, int]] | None, tasks: bool) -> None:
        self.client, self.jobs, self.wants_tasks = client, jobs, tasks
        self.changed: set[int] = set()
        self.tasks: dict[tuple[int, int], dict[str, Any]] = {}
        self.next = 0.0

    def wants(self, job: int) -> bool:
        return self.jobs is None or any(s == "all" or (not isinstance(s, str) and s[0] <= job <= s[1]) for s in self.jobs)


class Daemon:
    """This user's daemon.

    Args:
        runtime, state: its folders.
        resources: what its tasks share.
        arguments: the same, for a keeper.
    """

    def __init__(self, runtime: Path, state: Path, resources: Resources, arguments: list[str]) -> None:
        self.runtime, self.state = folders.make(runtime), folders.make(state)
        self.lock = folders.lock(self.runtime, self.state)
        self.store = Store(self.state / folders.STORE)
        self.totals = {"cpus": resources.most_cores, "mem": resources.most_mem,
                       **{name: units if isinstance(units, int) else len(units) for name, units in resources.totals.items()}}
        self.queue = Queue(self.store, self.totals, time.time)
        self.keeping = Keeping(self.runtime, self.state, arguments)
        self.sweeper: Iterator[None] | None = None
        self.sweep()
        self.node = NodeHost(self.state / folders.LOG)
        self.started = time.time()
        self.outbox: list[tuple[Client, dict[str, Any]]] = []  # goes out after the commit
        self.unread: dict[bytes, deque[bytes]] = {}  # peer -> what goes out once it reads again
        self.waits: list[Wait] = []
        self.subscribers: dict[tuple[bytes, int | None], Subscriber] = {}
        self.closing: str | None = None
        self.stopping: tuple[int, str | None] = (0, None)  # which keeper has been told, and what
        self.closers: list[Client] = []
        self.done = False
        self.broken_until = 0.0  # the store could not be written: nothing new before
        self.context = new_context()
        self.router = self.listen()
        self.wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def listen(self) -> Any:
        router = self.context.socket(zmq.ROUTER)
        router.linger = 1000
        router.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        router.setsockopt(zmq.SNDTIMEO, 0)
        router.setsockopt(zmq.IPC_FILTER_UID, os.getuid())
        path = folders.socket_path(self.runtime, folders.SOCKET)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # of one that was killed: we have the lock
        router.bind(f"ipc://{path}")
        os.chmod(path, 0o600)
        return router

    # ------------------------------------------------------------------ the loop
    def run(self) -> None:
        signal.set_wakeup_fd(self.wakeup[1], warn_on_full_buffer=False)
        for number_ in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number_, lambda number_, frame: None)
        self.attempt(self.begin)
        while not self.done:
            ready = self.poll()
            self.attempt(lambda: self.turn(ready))  # noqa: B023
        self.close()

    def begin(self) -> None:
        self.store.drop_entries(None)
        self.keeping.begin(self.queue, self.store)

    def poll(self) -> dict[Any, int]:
        poller = zmq.Poller()
        poller.register(self.router, zmq.POLLIN)
        poller.register(self.wakeup[0], zmq.POLLIN)
        poller.register(self.node.waiting, zmq.POLLIN)
        if self.keeping.socket is not None:
            poller.register(self.keeping.socket, zmq.POLLIN | (zmq.POLLOUT if self.keeping.output else 0))
        if self.keeping.pidfd >= 0:
            poller.register(self.keeping.pidfd, zmq.POLLIN)
        until = [s.next for s in self.subscribers.values() if self.is_due(s)]
        if self.unread:
            until.append(time.monotonic() + EVENT_SECONDS)
        if self.broken_until:
            until.append(self.broken_until)
        elif self.sweeper is not None:
            until.append(0.0)
        return dict(poller.poll(int(max(0.0, min(until) - time.monotonic()) * 1000) + 1 if until else None))

    def attempt(self, turn: Callable[[], None]) -> None:
        """A turn and its commit; if that fails, nothing of it has happened."""
        try:
            turn()
            self.commit()
        except (StoreError, sqlite3.Error, OSError) as e:  # OSError: no keeper can be started now
            self.undo(e)
            return
        self.settled()

    def commit(self) -> None:
        self.queue.put()
        if self.store.db.in_transaction:
            self.keeping.put(self.store)
        self.store.commit()

    def undo(self, e: Exception) -> None:
        """The queue is again as it was last committed, and the keeper's journal is read again in a while."""
        why = f"the store cannot be written: {e}" if isinstance(e, sqlite3.Error) else said(e)
        log(f"trying again: {why}")
        self.store.rollback()
        for client, message in self.outbox:
            if "ok" in message:
                self.send(client, error(client, STORE, why))
            else:
                self.send(client, message)
        self.outbox.clear()
        self.queue = Queue(self.store, self.totals, time.time)
        self.sweep()
        self.keeping.disconnect()
        self.broken_until = time.monotonic() + STORE_SECONDS

    def turn(self, ready: dict[Any, int]) -> None:
        if self.wakeup[0] in ready and self.signalled():
            self.done = True
        if self.broken_until:
            if time.monotonic() >= self.broken_until:
                self.broken_until = 0.0
                self.keeping.begin(self.queue, self.store)
        elif self.keeping.pidfd in ready and self.keeping.ended():
            log(f"the keeper (pid {self.keeping.pid}) has ended")
            if not (self.closing and self.closed()):
                self.keeping.disconnect()
                self.keeping.replace(self.queue, self.store)
        if self.sweeper is not None and not self.broken_until and next(self.sweeper, SWEPT) is SWEPT:
            self.sweeper = None
        if self.keeping.socket is not None and self.keeping.socket.fileno() in ready:
            self.keeping.flush()
            self.keeping.receive(self.queue, self.store)
        if self.node.waiting in ready:
            self.node.turn()
        if self.router in ready:
            self.take_requests()
        if self.closing is None and self.keeping.known:
            self.queue.choose()

    def sweep(self) -> None:
        """What is left of forgotten jobs, from now on."""
        self.sweeper = sweeping(self.store, self.keeping.logs.folder)

    def signalled(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            return any(number_ != signal.SIGCHLD for number_ in os.read(self.wakeup[0], 4096))
        return False

    def settled(self) -> None:
        """What was decided is durable: say so."""
        jobs, tasks, orders = self.queue.committed()
        self.keeping.order(orders, self.store)
        self.keeping.sweep()
        for peer in list(self.unread):
            self.post(peer)
        outbox, self.outbox = self.outbox, []
        for client, message in outbox:
            self.send(client, message)
        if jobs or tasks:
            self.answer_waits(jobs)
            for subscriber in list(self.subscribers.values()):
                self.note(subscriber, jobs, tasks)
        for subscriber in list(self.subscribers.values()):
            self.tell(subscriber, any(jobs[id].state in ENDED for id in subscriber.changed if id in jobs))
        if self.closing is not None:
            self.close_on()
        bound(self.state / folders.LOG)

    def close(self) -> None:
        self.node.close()
        self.router.close()
        gone = (folders.SOCKET, folders.KEEPER_SOCKET) if self.closing else (folders.SOCKET,)  # else the keeper is to be found
        for name in gone:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.runtime / name)
        self.context.term()
        self.keeping.disconnect()
        self.store.close()
        signal.set_wakeup_fd(-1)

    # ------------------------------------------------------------------ going down
    def close_on(self) -> None:
        """Once nothing runs, the keeper ends, and then we."""
        if self.keeping.known and self.stopping != (self.keeping.pid, self.closing):
            self.stopping = self.keeping.pid, self.closing
            self.keeping.send(["stop", self.closing])
        if self.keeping.known and self.closed():
            self.keeping.send(["exit"])
            self.keeping.known = False
        if self.keeping.ended() and self.closed():
            for client in self.closers:
                self.send(client, ok(client, {}))
            self.done = True

    def closed(self) -> bool:
        return not self.queue.claimed()

    # ------------------------------------------------------------------ requests
    def take_requests(self) -> None:
        for _ in range(MOST_REQUESTS):
            try:
                frames = self.router.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if len(frames) == 2:
                self.take(*frames)

    def take(self, peer: bytes, data: bytes) -> None:
        client = Client(peer)
        try:
            message = decode(data)
            found = message.get("id")
            if isinstance(found, bool) or not isinstance(found, int):
                return
            client.number = found
            if message.get("v") != VERSION:
                raise ProtocolError(BAD_VERSION, f"this daemon is dgmp {__version__} and speaks version {VERSION} of the "
                                    f"protocol; the client speaks version {str(message.get('v'))[:20]}: use the same dgmp "
                                    "for both")
            verb, body = message.get("verb"), message.get("body", {})
            handler = VERBS.get(verb) if isinstance(verb, str) else None
            if handler is None:
                raise ProtocolError(BAD_MESSAGE, f"no such verb: {str(verb)[:40]!r}")
            if not isinstance(body, dict) or not all(isinstance(name, str) for name in body):
                raise ProtocolError(BAD_MESSAGE, "the body is no map with strings for keys")
            if verb not in BLIND:
                self.queue.put()
            answer = handler(self, client, body)
            if answer is not None:
                self.outbox.append((client, ok(client, answer)))
        except ProtocolError as e:
            if client.number is not None:
                self.outbox.append((client, error(client, e.code, str(e))))
        except (StoreError, sqlite3.Error):
            self.outbox.append((client, ok(client, {})))  # undo() tells
            raise
        except Exception as e:
            log(traceback.format_exc())
            self.outbox.append((client, error(client, INTERNAL, f"{type(e).__name__}: {e}")))

    def send(self, client: Client, message: dict[str, Any]) -> None:
        """Now, or once its peer has read what was before."""
        self.unread.setdefault(client.peer, deque()).append(encode(message))
        self.post(client.peer)

    def post(self, peer: bytes) -> None:
        unread = self.unread[peer]
        try:
            while unread:
                self.router.send_multipart([peer, unread[0]])
                unread.popleft()
        except zmq.Again:
            if len(unread) <= MOST_WAITING:
                return
            self.forget_peer(peer)
        except zmq.ZMQError:  # it is gone
            self.forget_peer(peer)
        del self.unread[peer]

    def forget_peer(self, peer: bytes) -> None:
        self.waits = [wait for wait in self.waits if wait.client.peer != peer]
        for key in [key for key in self.subscribers if key[0] == peer]:
            del self.subscribers[key]

    # ------------------------------------------------------------------ verbs
    def hello(self, client: Client, body: dict[str, Any]) -> dict[str, Any]:
        return {"version": VERSION, "versions": [VERSION], "dgmp": __version__, "pid": os.getpid(), "started": self.started,
                "state": str(self.state)}

    def submit(self, client: Client, body: dict[str, Any]) -> dict[str, Any]:
        if self.closing is not None:
            raise ProtocolError(CLOSING, "the daemon is going down and takes no new jobs")
        job = self.queue.submit(job_spec(body))
        return {"job": job.id, "tasks": job.total}

    def add_entries(self, client: Client, body: dict[str, Any]) -> dict[str, Any]:
        check_fields(body, "entries", "blocks")
        blocks = body.get("blocks")
        if not isinstance(blocks, list) or not all(isinstance(block, bytes) for block in blocks):
            raise bad("blocks must be a list of bytes")
        entries = number(body["entries"], "entries", 1, 1 << 53) if body.get("entries") is not None else None
        entries, lines = self.store.add_entries(entries, [(block, len(unpacked(block))) for block in blocks])
        return {"entries": entries, "lines": lines}

    def drop_entries(self, client: Client, body: dict[str, Any]) -> dict[str, Any]:
        check_fields(body, "entries")
        self.store.drop_waiting(number(body.get("entries"), "entries", 1, 1 << 53))
        self.sweep()
        return {}

    def page(self, client: Client, body: dict[str, Any]) -> dict[str, Any]:
        check_fields(body, "select", "states", "name", "limit", "before")
        wanted = None
        if body.get("select") is not None:
            there = self.store.last() is not None
            wanted = self.queue.spans(s for s in selects(body["select"]) if there or s.jobs != "last")
        name = string(body["name"], "name") if body.get("name") is not None else None
        before = number(body["before"], "before", 0, 1 << 53) if body.get("before") is not None else None
        jobs, more = self.store.page(wanted, states_of(body.get("states"), STATES), name, before,
                                     number(body.get("limit", 100), "limit", 1, PAGE))
        return {"jobs": [self.queue.get(job).message() for job in jobs], "more": more,
                "counts": {state: self.queue.job_counts[state] for state in STATES}}

    def show(self, client: Client, body: dict[str, Any]) -> dict[str, Any]:
        check_fields(body, "select")
        return {"jobs": [self.show_one(job) for job in self.chosen(body)]}

    def show_one(self, job: Job) -> dict[str, Any]:
        spec = {name: getattr(job.spec, name) for name in type(job.spec).__slots__ if name not in ("env", "entries")}
        failures = [self.task_message(job, task) for task in self.store.tasks(job.id, None, ["failed"], -1, 10)]
        return {**spec, **job.message(), "env": sorted(self.store.environment(job.env)), "failures": failures}

    def task_message(self, job: Job, task: Task) -> dict[str, Any]:
        entries = job.spec.entries
        entry = None if entries is None else os.fsdecode(self.keeping.entries.find(self.store, entries, task.task))
        return {**task.message(), "entry": entry}

    def tasks(self, client: Client, body: dict[str, Any]) -> dict[str, Any]:
        check_fields(body, "job", "tasks", "states", "after", "limit", "output")
        job = self.job(body)
        tasks = Ranges(task_ranges(body["tasks"])) if body.get("tasks") is not None else None
        states = states_of(body.get("states"), STATES)
        after = number(body.get("after", -1), "after", -1, 1 << 53)
        limit = number(body.get("limit", PAGE), "limit", 1, PAGE)
        rows = self.store.tasks(job.id, tasks, states, after, limit + 1)
        found = [self.task_message(job, task) for task in rows[:limit]]
        if body.get("output") is True:
            found = [{**message, **self.pieces(job, task)} for message, task in zip(found, rows, strict=False)]
        return {"tasks": found, "more": len(rows) > limit,
                **{state: job.never[state].pack() if state in states else [] for state in job.never}}

    def logs(self, client: Client, body: dict[str, Any]) -> dict[str, Any]:
        check_fields(body, "job", "task")
        job, id = self.job(body), number(body.get("task", 0), "task", 0, 1 << 53)
        self.queue.check_task(job, id)
        task = job.open.get(id) or next(iter(self.store.tasks(job.id, Ranges([(id, id, 1)]), STATES, -1, 1)), None)
        if task is None:
            state = next(state for state, never in job.never.items() if id in never)
            return {"state": state, "attempt": 0, "stdout": None, "stderr": None}
        return {"state": task.state, "attempt": task.attempt, **self.pieces(job, task)}

    def pieces(self, job: Job, task: Task) -> dict[str, Any]:
        return {stream: self.piece(job, task, stream) for stream in ("stdout", "stderr")}

    def piece(self, job: Job, task: Task, stream: str) -> dict[str, Any] | None:
        said, found = getattr(job.spec, stream), getattr(task, stream)
        if said is not None:
            path = said.replace("{job}", str(job.id)).replace("{task}", str(task.task)).replace("{attempt}", str(task.attempt))
            size = None if task.state == RUNNING else os.path.getsize(path) if os.path.exists(path) else 0
            return {"path": path, "offset": 0, "length": size}
        return None if found is None else {"path": str(self.state / found[0]), "offset": found[1], "length": found[2]}

    def wait(self, client: Client, body: dict[str, Any]) -> dict[str, Any] | None:
        check_fields(body, "select", "states")
        chosen = selects(body.get("select"))
        wait = Wait(client, self.queue.spans(chosen), states_of(body.get("states"), STATES))
        for select, (first, last) in zip(chosen, wait.spans, strict=True):
            if select.single and select.tasks is not None and len(select.tasks) == 1:
                self.queue.check_task(self.queue.job(first), next(iter(select.tasks)))
            for id in [first] if select.single else self.queue.open:
                if first <= id <= last:
                    wait.pending.setdefault(id, []).append(select.tasks)
        if len(self.waits) >= MOST_WAITING:
            raise bad(f"{MOST_WAITING} clients wait already")
        if self.over(wait, list(wait.pending)):
            return self.waited(wait)
        self.waits.append(wait)
        return None

    def over(self, wait: Wait, changed: Iterable[int]) -> bool:
        """Whether it waits for nothing any more, after a change of these jobs."""
        for id in changed:
            if id in wait.pending and all(self.queue.at_rest(id, tasks) for tasks in wait.pending[id]):
                del wait.pending[id]
        return not wait.pending

    def waited(self, wait: Wait) -> dict[str, Any]:
        jobs: dict[int, Job] = {}
        for span in dict.fromkeys(wait.spans):
            jobs.update((job.id, self.queue.get(job)) for job in self.store.between(*span, wait.states))
        return {"jobs": [job.message() for job in jobs.values()]}

    def answer_waits(self, jobs: dict[int, Job]) -> None:
        answered = [wait for wait in self.waits if self.over(wait, jobs)]
        if answered:
            self.waits = [wait for wait in self.waits if wait.pending]
        for wait in answered:
            self.send(wait.client, ok(wait.client, self.waited(wait)))

    def forget_jobs(self, client: Client, body: dict[str, Any]) -> dict[str, Any]:
        check_fields(body, "select", "states", "before")
        before = body.get("before", FOR_EVER)
        if isinstance(before, bool) or not isinstance(before, (int, float)):
            raise bad(f"before must be a time, not {str(before)[:100]!r}")
        self.commit()
        self.settled()  # first of all, who waits for what has just ended
        forgotten, kept = self.queue.forget(selects(body.get("select")), states_of(body.get("states"), ENDED), float(before))
        if forgotten:
            self.sweep()
        return {"forgotten": forgotten, "open": kept.pack()}

    def forget(self, client: Client, body: dict[str, Any]) -> dict[str, Any]:
        check_fields(body, "id")
        key = client.peer, number(body.get("id"), "id", 0, 1 << 62)
        self.subscribers.pop(key, None)
        self.waits = [wait for wait in self.waits if wait.client.key() != key]
        return {}

    def cancel(self, client: Client, body: dict[str, Any]) -> dict[str, Any]:
        check_fields(body, "select")
        cancelled = ending = 0
        for job, tasks in list(self.queue.chosen(selects(body.get("select")), f"state NOT IN {ENDED}")):
            dropped, told = self.queue.cancel(job, tasks)
            cancelled, ending = cancelled + dropped, ending + told
        return {"cancelled": cancelled, "ending": ending}

    def retry(self, client: Client, body: dict[str, Any]) -> dict[str, Any]:
        check_fields(body, "select", "states")
        if self.closing is not None:
            raise ProtocolError(CLOSING, "the daemon is going down")
        states = states_of(body.get("states"), ["failed"])
        where = "1" if FINISHED in states else f"state != '{FINISHED}'"
        chosen = list(self.queue.chosen(selects(body.get("select")), where))
        return {"retried": sum(self.queue.retry(job, tasks, states) for job, tasks in chosen)}

    def subscribe(self, client: Client, body: dict[str, Any]) -> dict[str, Any]:
        check_fields(body, "select", "tasks")
        if len(self.subscribers) >= MOST_WAITING:
            raise bad(f"there are {MOST_WAITING} subscriptions already")
        jobs: list[str | tuple[int, int]] | None = None
        chosen: list[Job] = list(self.queue.open.values())
        if body.get("select") is not None:
            found = selects(body["select"])
            jobs = [((self.store.last() or 0,) * 2 if s.jobs == "last" else s.jobs) for s in found]
            chosen = [job for job, _ in self.queue.chosen(found, "1")]
        self.subscribers[client.key()] = Subscriber(client, jobs, body.get("tasks") is True)
        return {"jobs": [job.message() for job in chosen[:PAGE]]}

    def note(self, subscriber: Subscriber, jobs: dict[int, Job], tasks: dict[tuple[int, int], Task]) -> None:
        subscriber.changed.update(id for id in jobs if subscriber.wants(id))
        if subscriber.wants_tasks:
            subscriber.tasks.update((key, {"job": key[0], **task.message()}) for key, task in tasks.items()
                                    if subscriber.wants(key[0]))
            if len(subscriber.tasks) > MOST_UNTOLD:
                self.forget_peer(subscriber.client.peer)

    def is_due(self, subscriber: Subscriber) -> bool:
        """Whether it is to be told something, and reads."""
        return bool(subscriber.changed or subscriber.tasks) and subscriber.client.peer not in self.unread

    def tell(self, subscriber: Subscriber, at_once: bool) -> None:
        now = time.monotonic()
        if not self.is_due(subscriber) or (now < subscriber.next and not at_once):
            return
        subscriber.next = now + EVENT_SECONDS
        changed, tasks = sorted(subscriber.changed), list(subscriber.tasks.values())
        subscriber.changed, subscriber.tasks = set(), {}
        client = subscriber.client
        for at in range(0, len(tasks), PAGE):
            self.send(client, event(client, "tasks", {"tasks": tasks[at:at + PAGE]}))
        for at in range(0, len(changed), PAGE):
            jobs = [self.queue.open.get(id) or self.store.job(id) for id in changed[at:at + PAGE]]
            self.send(client, event(client, "jobs", {"jobs": [job.message() for job in jobs if job is not None]}))

    def status(self, client: Client, body: dict[str, Any]) -> dict[str, Any]:
        check_fields(body)
        running = [(job, task) for job, task in self.queue.claimed() if task.state == RUNNING]
        used = sum(1 if job.spec.cpus is None else job.spec.cpus for job, _ in running)
        return {"pid": os.getpid(), "keeper": self.keeping.pid, "dgmp": __version__, "started": self.started,
                "runtime": str(self.runtime), "state": str(self.state),
                "jobs": {state: self.queue.job_counts[state] for state in STATES}, "tasks": self.queue.task_counts(),
                "running": [{"job": job.id, "task": task.task, "pid": task.pid, "started": task.started}
                            for job, task in running[:100]],
                "cpus": {"total": self.totals["cpus"], "used": used}, "resources": self.totals,
                "closing": self.closing is not None}

    def shutdown(self, client: Client, body: dict[str, Any]) -> None:
        check_fields(body, "now")
        how = "end" if body.get("now") is True else "drain"
        if self.closing != "end":
            self.closing = how
        self.closers.append(client)

    def job(self, body: dict[str, Any]) -> Job:
        return self.queue.job(number(body.get("job"), "job", 1, 1 << 53))

    def chosen(self, body: dict[str, Any]) -> list[Job]:
        jobs = {job.id: job for job, _ in self.queue.chosen(selects(body.get("select")), "1")}
        if len(jobs) > PAGE:
            raise ProtocolError(NO_SUCH_JOB, f"that would be {len(jobs)} jobs: at most {PAGE} at once")
        return list(jobs.values())


VERBS: dict[str, Callable[[Daemon, Client, dict[str, Any]], dict[str, Any] | None]] = {
    "hello": Daemon.hello, "entries": Daemon.add_entries, "drop_entries": Daemon.drop_entries, "submit": Daemon.submit,
    "list": Daemon.page, "show": Daemon.show,
    "tasks": Daemon.tasks, "logs": Daemon.logs, "wait": Daemon.wait, "forget": Daemon.forget, "cancel": Daemon.cancel,
    "retry": Daemon.retry, "forget_jobs": Daemon.forget_jobs, "subscribe": Daemon.subscribe, "status": Daemon.status,
    "shutdown": Daemon.shutdown,
}
BLIND = ("hello", "status", "forget", "shutdown")  # they do not look into the store


def ok(client: Client, body: dict[str, Any]) -> dict[str, Any]:
    return {"v": VERSION, "id": client.number, "ok": body}


def error(client: Client, code: str, text: str) -> dict[str, Any]:
    return {"v": VERSION, "id": client.number, "error": {"code": code, "text": text}}


def event(client: Client, name: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"v": VERSION, "id": client.number, "event": name, "body": body}


def log(text: str) -> None:
    say("daemon", text)


def main(argv: list[str] | None = None) -> int:
    """The process that `dgmp up` starts.  On the pipe --ready goes "ok", or why there is no daemon."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    parser.add_argument("--ready", type=int, default=-1)
    options = parser.parse_args(argv)
    os.umask(0o077)
    try:
        daemon = Daemon(folders.runtime_folder(), folders.state_folder(), *resources_of(options))
    except (DgmpError, ValueError, OSError, sqlite3.Error, zmq.ZMQError) as e:
        tell(options.ready, said(e))
        return 2
    log(f"up: pid {os.getpid()}, dgmp {__version__}, {daemon.totals['cpus']} cpus, sockets in {daemon.runtime}, "
        f"state in {daemon.state}")
    tell(options.ready, "ok")
    daemon.run()
    log("down")
    return 0


def said(e: Exception) -> str:
    """As people are told."""
    if isinstance(e, OSError):
        return f"{e.filename}: {e.strerror}" if e.filename else e.strerror or str(e)
    if isinstance(e, sqlite3.Error):
        return (f"the store {folders.state_folder() / folders.STORE} cannot be read: {e}; move it away to "
                "begin with none, or put a copy of it in its place")
    return str(e)


def tell(fd: int, text: str) -> None:
    if fd >= 0:
        with contextlib.suppress(OSError):
            os.write(fd, text.encode())
        os.close(fd)
    elif text != "ok":
        print(f"dgmp: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
