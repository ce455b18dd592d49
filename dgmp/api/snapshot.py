"""What every G, M and P is doing: `dgmp.snapshot()`, and its text in the manner of Go's goroutine dump.

Nothing is stopped for it.  Each G is read from its slot between two equal readings of its state (_core/checkdead.c), so what
is said about one G belongs together; two Gs may be some microseconds apart.  Any process of the runtime can make one, a
signal handler too: no lock is taken.

Called by runtime, and by quit and deadlock for the dump.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from .._core import View

# Go's words, in the order of the core's numbers.
G_STATES = ("dead", "idle", "waiting", "runnable", "running", "waiting", "running", "dead", "dead")
REASONS = ("", "yield", "wait for result", "chan receive", "chan send", "select", "semacquire", "sleep", "IO wait", "lock",
           "preempted", "wait", "wait for arguments", "wait to be run again")
M_STATES = ("free", "starting", "running", "idle", "idle", "waking", "dead")
UNKNOWN = "an unknown place"


@dataclass(slots=True)
class GSnapshot:
    """One G.

    Attributes:
        goid: its id (`dgmp.goid()` inside it).
        name: as given to `spawn`, else its function's, with the module; "" if the table of names is full.
        state: in Go's words: "runnable", "running", "waiting", "dead" (it has finished, and its result has not been
            collected).
        wait_reason: why it waits, in Go's words where there is one ("chan receive", "select", "sleep", "semacquire",
            "IO wait", "wait for result", "wait for arguments" if it has not begun, "wait to be run again" if it has
            failed); "" if it does not.
        waited: seconds since it began to wait; None if it does not, or before it runs.
        spawned_at: file and line; "" if that is not known.
        owner: the process that awaits its result: "client", "m3"; "client2" and so on are programs that have attached.
        m: the M on which it runs or ran, to which it is bound once started; None before.
        pid: that M's process; None before.
        started: whether it has begun to run.
    """

    goid: int
    name: str
    state: str
    wait_reason: str
    waited: float | None
    spawned_at: str
    owner: str
    m: int | None
    pid: int | None
    started: bool

    def __str__(self) -> str:
        what = self.wait_reason or self.state
        if self.waited is not None and self.waited >= 60:
            minutes = int(self.waited // 60)
            what += f", {minutes} minute{'s' if minutes > 1 else ''}"
        where = f", m{self.m} pid {self.pid}" if self.m is not None else ""
        return f"G {self.goid} [{what}]: {self.name or 'unknown'}{where}\n\tspawned at {self.spawned_at or UNKNOWN}"


@dataclass(slots=True)
class MSnapshot:
    """One M.

    Attributes:
        m: its number.
        pid: its process.
        state: "starting", "running" (with a P, or in a blocking call without), "idle" (parked), "waking".
        p: the P it holds; None without.
        g: the id of the G that it runs; None without.
        core: the core to which it is bound; None if it is not.
    """

    m: int
    pid: int
    state: str
    p: int | None
    g: int | None
    core: int | None

    def __str__(self) -> str:
        core = "" if self.core is None else f" core={self.core}"
        return f"M{self.m}: {self.state} pid={self.pid} p={word(self.p)} g={word(self.g)}{core}"


@dataclass(slots=True)
class PSnapshot:
    """One P.

    Attributes:
        p: its number.
        state: "idle", "running": its M is in the scheduler, "syscall": its M is in user code, and it may be retaken,
            "gcstop": the world is stopped.
        m: the M that holds it; None if it is idle.
        runqsize: how many Gs are in its run queue.
        runnext: the id of the G that runs next; None without.
        schedtick: counts the time slices that Gs have had on it.
    """

    p: int
    state: str
    m: int | None
    runqsize: int
    runnext: int | None
    schedtick: int

    def __str__(self) -> str:
        return (f"P{self.p}: {self.state} m={word(self.m)} runqsize={self.runqsize} runnext={word(self.runnext)} "
                f"schedtick={self.schedtick}")


@dataclass(slots=True)
class Snapshot:
    """What `dgmp.snapshot()` returns; its `str()` is the dump.

    Attributes:
        gs: all Gs that have not been collected, in order of their ids.
        ms: the Ms that have a process.
        ps: the Ps.
        runqueue: how many Gs are in the global queue.
        clientqueue: and in the queues of clients, which every M may steal from.
    """

    gs: list[GSnapshot]
    ms: list[MSnapshot]
    ps: list[PSnapshot]
    runqueue: int
    clientqueue: int

    def to_dict(self) -> dict[str, Any]:
        """The same in dicts and lists, for JSON.

        Example:
            >>> import dgmp, json
            >>> f = dgmp.go(abs, -1)
            >>> sorted(json.loads(json.dumps(dgmp.snapshot().to_dict())))
            ['clientqueue', 'gs', 'ms', 'ps', 'runqueue']
        """
        rows = {name: list(map(plain, getattr(self, name))) for name in ("gs", "ms", "ps")}
        return {**rows, "runqueue": self.runqueue, "clientqueue": self.clientqueue}

    def dump(self, most: int | None = None) -> str:
        """The Gs that have not ended, in the manner of Go's goroutine dump, then the Ms and Ps.

        Args:
            most: so many Gs are shown at most; None: all.
        """
        gs = [g for g in self.gs if g.state != "dead"]
        shown = gs if most is None else gs[:most]
        text = [f"{g}\n" for g in shown]
        if len(gs) > len(shown):
            text.append(f"... and {len(gs) - len(shown)} more Gs\n")
        ended = len(self.gs) - len(gs)
        rest = f"runqueue={self.runqueue} clientqueue={self.clientqueue} uncollected={ended}"
        return "\n".join([*text, *map(str, self.ms), *map(str, self.ps), rest]) + "\n"

    def __str__(self) -> str:
        return self.dump()


def plain(row: GSnapshot | MSnapshot | PSnapshot) -> dict[str, Any]:
    """A tenth of what dataclasses.asdict takes."""
    return {name: getattr(row, name) for name in row.__slots__}


def word(x: int | None) -> str:
    return "none" if x is None else str(x)


def take(view: View) -> Snapshot:
    """The state of the runtime that `view` sees."""
    attached = range(2, view.nps - view.max_ps)
    owners = (*(f"m{i}" for i in range(view.max_ms)), "client", "coordinator", *(f"client{i}" for i in attached))
    gs = [GSnapshot(*fields) for fields in view.gs(G_STATES, REASONS, owners)]
    gs.sort(key=lambda g: g.goid)
    ms = [MSnapshot(m, pid, M_STATES[state], number(p), g or None, core(pid) if bound >= 0 else None)
          for m, pid, state, p, g, bound, _ in view.ms()]
    ps, clientqueue = [], 0
    for p, state, m, size, runnext, schedtick in view.ps():
        if state == "client":
            clientqueue += size + bool(runnext)
        else:
            ps.append(PSnapshot(p, state, number(m), size, runnext or None, schedtick))
    return Snapshot(gs, ms, ps, view.globrunqsize(), clientqueue)


def number(x: int) -> int | None:
    """-1 is the core's word for none."""
    return None if x < 0 else x


def core(pid: int) -> int | None:
    """The only core that a process may use."""
    try:
        cores = os.sched_getaffinity(pid)
    except OSError:  # it has died
        return None
    return min(cores) if len(cores) == 1 else None
