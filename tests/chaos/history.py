"""What happened in a run of chaos, and whether it may have.

Each process of a run appends records to a file of its own, every one with a single write, so what a process has written
stays when it is killed.  Their clock is the monotonic one, which all processes of a machine share.  `Log` writes them,
`read` puts those of a run in order, `violations` says what must not have happened: one rule a function, below.  Nothing in
here knows dgmp; test_history.py shows that each rule finds what it is for.

A G is named by the number that its owner (who submits it) gave it, an M by its pid.
"""

from __future__ import annotations

import itertools
import os
import struct
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import NamedTuple

RECORD = struct.Struct("<QQQIHH")  # ns, id, value, pid, kind, detail
SECOND = 1_000_000_000
IDLE_BOUND = 3 * SECOND  # so long may a P be idle beside a runnable G, on a machine that does much else
CRASH_LIMIT = 3  # a G is not run again once so many processes have died while it ran
SETTLING = SECOND  # after somebody was killed, or went on that was stopped,
BOOTING = 5 * SECOND  # or the zygote was killed: the next one has to be made first


class Kind(IntEnum):
    """What a record says.  id is a G's unless said otherwise."""

    SUBMIT = 1  # its owner is about to spawn it; value: its retries, detail: Flag
    ACCEPT = 2  # and has
    START = 3  # it begins to run, in the record's process; value: its goid
    FINISH = 4  # its function is about to end
    END = 5  # its owner has seen its end; detail: Outcome, value: the pid that WorkerDied names
    DROP = 6  # its owner does not wait for it any more
    CANCEL = 7  # its owner has asked it to end
    LISTEN = 8  # its owner has set a callback,
    CALLED = 9  # which has been called
    DIE = 10  # the process is about to end itself
    SENT = 11  # a message, id, is about to be sent;
    GOT = 12  # it has come
    LOCK = 13  # a mutex, id, has been acquired;
    UNLOCK = 14  # it is about to be released
    SAMPLE = 15  # value: the goid of the oldest runnable G, 0: none; detail: how many Ps are idle
    KILL = 16  # id: the pid that is about to be killed; detail: Role
    STOP = 17  # or stopped,
    CONT = 18  # or has been let go on
    LIVED = 19  # the client has come to its end by itself
    RAISED = 20  # its function is about to raise an error after which it may run again


class Outcome(IntEnum):
    RIGHT = 1
    WRONG = 2
    LOST = 3  # right, but for what a killed process took with it
    DIED = 4  # WorkerDied
    CANCELLED = 5
    FAILED = 6  # any other exception
    NODE_DIED = 7  # CoordinatorDied
    LATE = 8  # its time was up


class Role(IntEnum):
    M = 1
    ZYGOTE = 2
    COORDINATOR = 3
    CLIENT = 4


class Flag(IntFlag):
    """What may come over a G."""

    CANCELLABLE = 1  # it may be cancelled though its owner did not ask: with its Group
    TOGETHER = 2  # it may end by a death without having begun: with its chunk, or with one of its arguments
    TIMED = 4  # it has a timeout


class Record(NamedTuple):
    ns: int
    id: int
    value: int
    pid: int
    kind: int
    detail: int


class Log:
    """Appends records to a file of this process.

    Args:
        folder: where the files of the run are.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.pid = os.getpid()
        self.fd = os.open(Path(folder) / f"{self.pid}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, kind: Kind, id: int = 0, value: int = 0, detail: int = 0) -> None:
        os.write(self.fd, RECORD.pack(time.monotonic_ns(), id, value, self.pid, kind, detail))

    def close(self) -> None:
        os.close(self.fd)


def read(folder: str | os.PathLike[str]) -> list[Record]:
    """All records of a run, in order of time."""
    found = []
    for path in Path(folder).glob("*.log"):
        data = path.read_bytes()
        found += [Record._make(fields) for fields in RECORD.iter_unpack(data[:len(data) - len(data) % RECORD.size])]
    return sorted(found, key=lambda record: record.ns)


class History:
    """The records of a run by what they are about.

    Args:
        records: in order of time.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self.records = list(records)
        self.of_kind: defaultdict[int, list[Record]] = defaultdict(list)
        self.by_id: defaultdict[tuple[int, int], list[Record]] = defaultdict(list)
        self.last: dict[int, int] = {}  # when each process wrote its last record
        for record in self.records:
            self.of_kind[record.kind].append(record)
            self.by_id[record.kind, record.id].append(record)
            self.last[record.pid] = record.ns
        self.killed = {record.id for record in self.of_kind[Kind.KILL]}
        self.killed |= {record.pid for record in self.of_kind[Kind.DIE]}
        self.stopped = {record.id for record in self.of_kind[Kind.STOP]}  # who waits for it for long may kill it
        self.node_died = any(record.detail == Role.COORDINATOR for record in self.of_kind[Kind.KILL])
        self.clients = {record.pid for record in self.of_kind[Kind.LIVED]}

    def accepted(self) -> Iterator[Record]:
        """Of each G that was: its SUBMIT."""
        for submit in self.of_kind[Kind.SUBMIT]:
            if self.by_id[Kind.ACCEPT, submit.id]:
                yield submit

    def lived(self, pid: int) -> bool:
        """Whether a process surely was not killed before its work was done."""
        may_have_died = self.node_died or pid in self.killed or pid in self.stopped
        return pid in self.clients or (bool(self.clients) and not may_have_died)

    def mortal(self, pid: int) -> bool:
        """Whether there was a reason for it to die."""
        return pid in self.killed or pid in self.stopped

    @property
    def disturbed(self) -> bool:
        return bool(self.killed or self.stopped)


def when(ns: int, history: History) -> str:
    return f"{(ns - history.records[0].ns) / SECOND:.6f} s"


# ---------------------------------------------------------------------------------------------------- the rules
def ends_once(h: History) -> Iterator[str]:
    """Every accepted G ends exactly once at its owner, if that lives, and none at all if it has not been accepted."""
    for submit in h.accepted():
        ends, dropped = len(h.by_id[Kind.END, submit.id]), bool(h.by_id[Kind.DROP, submit.id])
        if ends > 1:
            yield f"G {submit.id:x} ended {ends} times at its owner"
        elif ends == 0 and not dropped and h.lived(submit.pid):
            yield f"G {submit.id:x} was accepted and never ended at its owner, pid {submit.pid}, which lived"
    for end in h.of_kind[Kind.END]:
        if not h.by_id[Kind.SUBMIT, end.id]:
            yield f"G {end.id:x} ended and was never submitted"
        elif h.by_id[Kind.SUBMIT, end.id][0].pid != end.pid:
            yield f"G {end.id:x} ended in pid {end.pid}, which is not its owner"


def told_once(h: History) -> Iterator[str]:
    """A callback is called exactly once."""
    for listen in h.of_kind[Kind.LISTEN]:
        called = len(h.by_id[Kind.CALLED, listen.id])
        if called > 1 or (called == 0 and h.lived(listen.pid)):
            yield f"the callback of G {listen.id:x} was called {called} times"


def runs_again_only_after_a_death(h: History) -> Iterator[str]:
    """It runs once, and once more for each retry; and only when it has raised what is retried, or the process in which it ran
    before is dead: that writes nothing any more."""
    for (kind, id), starts in h.by_id.items():
        if kind != Kind.START:
            continue
        submits = h.by_id.get((Kind.SUBMIT, id), [])
        if not submits:
            yield f"G {id:x} ran and was never submitted"
            continue
        if len(starts) > 1 + submits[0].value:
            yield f"G {id:x} ran {len(starts)} times, with {submits[0].value} retries"
        raised = h.by_id.get((Kind.RAISED, id), [])
        for before, after in itertools.pairwise(starts):
            if any(before.pid == record.pid and before.ns < record.ns < after.ns for record in raised):
                continue
            if before.pid == after.pid:
                yield f"G {id:x} ran twice in pid {before.pid}"
            elif h.last[before.pid] > after.ns:
                yield f"G {id:x} ran in pid {after.pid} while pid {before.pid}, in which it had begun, lived"


def no_start_after_the_end(h: History) -> Iterator[str]:
    """When its owner has seen its end a G does not begin; nor does one before it is submitted."""
    for (kind, id), starts in h.by_id.items():
        if kind != Kind.START:
            continue
        for end in h.by_id.get((Kind.END, id), []):
            if starts[-1].ns > end.ns:
                yield f"G {id:x} began at {when(starts[-1].ns, h)}, after its end at {when(end.ns, h)}"
        for submit in h.by_id.get((Kind.SUBMIT, id), []):
            if starts[0].ns < submit.ns:
                yield f"G {id:x} began before it was submitted"


def died_for_a_reason(h: History) -> Iterator[str]:
    """WorkerDied names a process that had a reason to die, and in which the G ran; it comes when no retries are left; and of
    the Gs that had not begun a process takes one with it at most: the one that it was about to run."""
    unstarted: Counter[int] = Counter()
    for end in h.of_kind[Kind.END]:
        if end.detail != Outcome.DIED:
            continue
        submits, starts = h.by_id.get((Kind.SUBMIT, end.id), []), h.by_id.get((Kind.START, end.id), [])
        if not h.mortal(end.value) and not h.node_died:
            yield f"G {end.id:x} ended by the death of pid {end.value}, which nobody killed"
        together = bool(submits and submits[0].detail & Flag.TOGETHER)
        retries = submits[0].value if submits else 0
        deaths = sum(len(h.of_kind[kind]) for kind in (Kind.KILL, Kind.STOP, Kind.DIE))
        if deaths <= min(retries, CRASH_LIMIT - 1):
            yield f"G {end.id:x} was given up with {retries} retries, and there were {deaths} deaths in all"
        if starts and not together and not retries and starts[-1].pid != end.value:
            yield f"G {end.id:x} ran in pid {starts[-1].pid} and ended by the death of pid {end.value}"
        if not starts and not together:
            unstarted[end.value] += 1
    for pid, n in unstarted.items():
        if n > 1:
            yield f"the death of pid {pid} ended {n} Gs that had not begun"


def cancelled_when_asked(h: History) -> Iterator[str]:
    """Nobody is cancelled who was not asked."""
    for end in h.of_kind[Kind.END]:
        if end.detail != Outcome.CANCELLED:
            continue
        submits = h.by_id.get((Kind.SUBMIT, end.id), [])
        asked = bool(h.by_id.get((Kind.CANCEL, end.id))) or bool(submits and submits[0].detail & Flag.CANCELLABLE)
        if not asked:
            yield f"G {end.id:x} was cancelled, and nobody had asked"


def results_are_right(h: History) -> Iterator[str]:
    """A result is right, and its function has returned it; it may be a part if somebody was killed."""
    for end in h.of_kind[Kind.END]:
        if end.detail == Outcome.WRONG:
            yield f"G {end.id:x} ended with a wrong result"
        elif end.detail == Outcome.FAILED:
            yield f"G {end.id:x} ended with an exception that nothing explains"
        elif end.detail == Outcome.LATE and not (h.by_id.get((Kind.SUBMIT, end.id)) or [end])[0].detail & Flag.TIMED:
            yield f"G {end.id:x} was late, and had no timeout"
        elif end.detail == Outcome.LOST and not h.disturbed:
            yield f"G {end.id:x} has lost something, and nobody was killed"
        elif end.detail == Outcome.NODE_DIED and not h.node_died:
            yield f"G {end.id:x} ended with the coordinator, which nobody killed"
        elif end.detail == Outcome.RIGHT and not h.by_id.get((Kind.FINISH, end.id)):
            yield f"G {end.id:x} has a result, and its function did not come to its end"


def delivered_once(h: History) -> Iterator[str]:
    """What comes out of a channel was sent, once; and all of it comes if nobody was killed."""
    for (kind, id), got in h.by_id.items():
        if kind == Kind.GOT and len(got) > 1:
            yield f"message {id:x} came {len(got)} times"
        if kind == Kind.GOT and not h.by_id.get((Kind.SENT, id)):
            yield f"message {id:x} came and was never sent"
        if kind == Kind.SENT and not h.disturbed and h.clients and not h.by_id.get((Kind.GOT, id)):
            yield f"message {id:x} was sent and never came, and nobody was killed"


def one_holder(h: History) -> Iterator[str]:
    """A mutex has one holder at a time; the next one comes when it is released, or its holder's process is dead."""
    holders: dict[int, Record] = {}
    for record in h.records:
        if record.kind == Kind.LOCK:
            holder = holders.get(record.id)
            if holder is not None and h.last[holder.pid] > record.ns:
                yield f"mutex {record.id:x} went to pid {record.pid} while pid {holder.pid} held it"
            holders[record.id] = record
        elif record.kind == Kind.UNLOCK and record.id in holders and holders[record.id].pid == record.pid:
            del holders[record.id]


def work_conserving(h: History, bound: int = IDLE_BOUND) -> Iterator[str]:
    """No P is idle beside the same runnable G, sample after sample, while everybody runs; once there are Ms."""
    since: Record | None = None
    stopped: set[int] = set()
    starts = h.of_kind[Kind.START]
    settled_at = starts[0].ns if starts else h.records[-1].ns
    for record in h.records:
        if record.kind == Kind.STOP:
            stopped.add(record.id)
        elif record.kind == Kind.CONT:
            stopped.discard(record.id)
        if record.kind in (Kind.STOP, Kind.CONT, Kind.KILL):
            settling = BOOTING if record.detail == Role.ZYGOTE else SETTLING
            settled_at, since = max(settled_at, record.ns + settling), None
        if record.kind != Kind.SAMPLE:
            continue
        if not record.value or not record.detail or stopped or record.ns < settled_at:
            since = None
        elif since is None or since.value != record.value:
            since = record
        elif record.ns - since.ns > bound:
            yield f"goid {record.value} was runnable beside an idle P from {when(since.ns, h)} to {when(record.ns, h)}"
            since = None


RULES: tuple[Callable[[History], Iterator[str]], ...] = (
    ends_once, told_once, runs_again_only_after_a_death, no_start_after_the_end, died_for_a_reason, cancelled_when_asked,
    results_are_right, delivered_once, one_holder, work_conserving)


def violations(records: Iterable[Record]) -> list[str]:
    """What must not have happened, in words."""
    history = History(records)
    return [f"{rule.__name__}: {text}" for rule in RULES for text in rule(history)]


def leaks(stats: dict[str, int]) -> list[str]:
    """What is left in a runtime in which nothing runs any more.

    Args:
        stats: Runtime.stats().
    """
    none = ("num_g", "large_blocks", "large_bytes", "objects", "runqueue", "spinningthreads", "throws")
    found = [f"{name} is {stats[name]}" for name in none if stats[name]]
    if stats["idleprocs"] != stats["gomaxprocs"]:
        found.append(f"{stats['idleprocs']} of {stats['gomaxprocs']} Ps are idle")
    return found


def lost_wake_ups(rescues: int, strikes: int, seconds: float) -> list[str]:
    """sysmon sees to work that lies beside an idle P, look after look.  It may have had to because somebody was killed or
    stopped who was about to wake an M, once for each, and because the system let that one wait, which a busy machine does now
    and then; otherwise wake-ups were lost."""
    return [f"{rescues} rescues, with {strikes} strikes"] if rescues > strikes + seconds else []
