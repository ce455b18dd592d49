"""The coordinator's decisions, without I/O: `handle(event)` returns the actions to take.

It keeps what the shared segment cannot say by itself: which process is which M, who has died, what is being started.
Waking is done in shared memory by whoever submits (_core/idle.c); the coordinator does the slow half of startm (newm),
notices deaths, and repairs.  sysmon is its tick.  It runs and unpickles no user code.

Events (tuples):            Actions (tuples):
  ("wake",)                   ("newm", m)             have the zygote make M m
  ("m_started", m, pid)       ("watch", m, pid)       tell me when it dies
  ("m_died", m, pid, how)     ("zygote",)             make a new zygote
  ("zygote_died",)            ("exit", text or None)  end the node; text goes to the client
  ("client_gone",)            ("print", line)         to the client's stderr
  ("close",)
  ("tick", ns)
"""

from __future__ import annotations

from typing import Any

import msgpack

from .._core import View
from ..observe.schedtrace import schedtrace_line

Event = tuple[Any, ...]
Action = tuple[Any, ...]

TICK_NS = 10_000_000  # sysmon's slowest pace (Go: 10 ms)
STILLBORN = 5  # Ms in a row that died before they ran anything: something is wrong with every M


class Coordinator:
    """The state of a node.

    Args:
        view: the coordinator's view of the segment.
        schedtrace_ns: print a line so often; 0: never.
        now: the clock at boot, in ns.
    """

    def __init__(self, view: View, schedtrace_ns: int = 0, now: int = 0) -> None:
        self.view = view
        self.schedtrace_ns = schedtrace_ns
        self.booted = now
        self.last_trace = now
        self.ms: dict[int, int] = {}  # m -> pid, alive as far as we know
        self.starting: set[int] = set()  # asked of the zygote, no answer yet
        self.dead: set[int] = set()  # dead, but some of their slots are still in use
        self.stillborn = 0
        self.closing = False

    def handle(self, event: Event) -> list[Action]:
        """Takes an event, returns what to do."""
        if self.closing and event[0] != "m_started":
            return []
        actions: list[Action] = getattr(self, "on_" + event[0])(*event[1:])
        return actions

    def next_tick(self) -> int | None:
        """How many ns until sysmon wants a tick; None: it sleeps until something happens."""
        if self.schedtrace_ns:
            return min(self.schedtrace_ns, TICK_NS) if self.dead else self.schedtrace_ns
        return TICK_NS if self.dead else None

    def on_wake(self) -> list[Action]:
        """Somebody reserved an M, in startm."""
        return self.newm()

    def newm(self) -> list[Action]:
        actions: list[Action] = []
        for m in self.view.starting():
            if m not in self.starting and m not in self.ms:
                self.starting.add(m)
                actions.append(("newm", m))
        return actions

    def on_m_started(self, m: int, pid: int) -> list[Action]:
        self.starting.discard(m)
        if not self.view.m_started(m, pid):
            return []  # another process has the slot: this one finds that out and leaves
        self.ms[m] = pid
        return [("watch", m, pid)]

    def on_m_died(self, m: int, pid: int, how: str) -> list[Action]:
        if self.ms.get(m) != pid:
            return []
        del self.ms[m]
        goid = self.view.running(m)
        self.stillborn = 0 if goid is not None else self.stillborn + 1
        if self.stillborn >= STILLBORN:
            self.closing = True
            return [("exit", f"{STILLBORN} Ms in a row died before they ran anything; the last, pid {pid}, {how}")]
        self.view.repair(m, msgpack.packb({"goid": goid, "pid": pid, "how": how}))
        self.dead.add(m)
        return self.bury() + self.newm()

    def bury(self) -> list[Action]:
        """Dead Ms whose last slot is settled become free to be made again."""
        self.dead = {m for m in self.dead if self.view.adopt(m)}
        return []

    def on_zygote_died(self) -> list[Action]:
        """It is replaced without harm to the Ms; what it was asked for may or may not have been made."""
        found: list[Action] = [("zygote",)]
        for m, pid in self.view.pids():
            if m not in self.ms:
                found += self.on_m_started(m, pid)
        self.starting.clear()
        return found + self.newm()

    def on_client_gone(self) -> list[Action]:
        self.closing = True
        return [("exit", None)]

    on_close = on_client_gone

    def on_tick(self, now: int) -> list[Action]:
        """sysmon."""
        actions = self.bury()
        if self.schedtrace_ns and now - self.last_trace >= self.schedtrace_ns:
            self.last_trace = now
            actions.append(("print", schedtrace_line(self.view.stats(), (now - self.booted) // 1_000_000)))
        return actions + self.newm()
