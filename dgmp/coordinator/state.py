"""The coordinator's decisions, without I/O: `handle(event)` returns the actions to take.

It keeps what the shared segment cannot say by itself: which process is which M, who has died, what is being started.
Waking is done in shared memory by whoever submits (_core/idle.c); the coordinator does the slow half of startm (newm),
notices deaths, and repairs.  sysmon is its tick.  It runs and unpickles no user code.

Events (tuples):            Actions (tuples):
  ("wake",)                   ("newm", m)             have the zygote make M m
  ("m_started", m, pid)       ("watch", m, pid)       tell me when it dies; pid < 0: -errno, it could not be made
  ("m_died", m, pid, how, exitcode, what faulthandler said)
  ("zygote_ready",)           ("zygote",)             make a new zygote
  ("zygote_not_made", errno)
  ("zygote_died",)            ("exit", text or None)  end the node; text goes to the client,
                              ("broken", death)       or how an M died, and with it this runtime
  ("client_gone",)            ("print", line)         to the client's stderr
  ("close",)
  ("signal", number)          ("signal", pid, number) a signal for m0 of `dgmp run`
  ("client_quits", client)    ("ask", m, pid, words)  these Gs, started on that M, shall end: stop it meanwhile
  ("client_left", client, slot)
  ("asked", words)
  ("alarm", ns)               ("bind",)               look which Ms to bind to their cores
  ("tick", ns)                ("preempt", pid)        SIGURG: this M has something to learn (runtime.preempt)
  ("looked", blocked, loose)  ("end", m, pid, word, attempt)  kill this M if that G is still on it, and for that time
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from .._core import View
from ..observe.schedtrace import schedtrace_line
from ..ship.terms import NO_GRACE
from . import words
from .deaths import BREAK, FAIL, Deaths
from .limits import Limits
from .memory import Watch

Event = tuple[Any, ...]
Action = tuple[Any, ...]

BURY_NS = 1_000_000_000  # the slowest pace at which a dead M's last slots are waited for
TICK_NS = 10_000_000  # sysmon's pace when there is something to see to
SLOW_TICK_NS = 80_000_000  # when there is work and nothing to see to: it doubles up to this
TRIM_NS = 10_000_000_000  # so long after all has fallen idle, free memory goes back to the system,
TRIM_BYTES = 64 << 20  # so much at once,
TRIM_PACE_NS = 1_000_000  # and then the next
MANY_ORPHANS = 4096  # shared objects that may have ended: so many, or after so long, it is looked which have
TRACE_NS = 1_000_000_000
STILLBORN = 5  # Ms, or zygotes, in a row that died before they did anything: something is wrong with every one
FAILED = 70  # exit code of an M whose scheduler has failed: user code has changed what it needs, or a bug
LOST_DESCRIPTORS = 72  # of one that cannot reach the others any more (_core/idle.c)
NO_ROOM = 71  # exit code of an M that cannot map the segment
BLOCKED_NS = 1_000_000_000  # so long may all Ms block beside work
AHEAD = 4  # Ms that are made before anybody asks for them, while Ms block and work waits
NO_FORKS = 100  # that often a process could not be made, while there was no M at all


class Coordinator:
    """The state of a node.

    Args:
        view: the coordinator's view of the segment.
        schedtrace_ns: print a line so often; 0: never.
        now: the clock at boot, in ns.
        cores: P i belongs to cores[i % len(cores)].
        policy, crash_limit: see Deaths.
        grace_ns: see Limits.
    """

    def __init__(self, view: View, schedtrace_ns: int = 0, now: int = 0, cores: list[int] | None = None, policy: str = FAIL,
                 crash_limit: int = 3, grace_ns: int = NO_GRACE) -> None:
        self.view = view
        self.deaths = Deaths(view, policy, crash_limit)
        self.limits = Limits(view, self.deaths, grace_ns)
        self.cores = cores or []
        self.memory: Watch | None = None  # of what the Ms take, if there is a limit
        self.foreground = -1  # the M that is the program itself (`dgmp run`): it is not replaced
        self.killed: dict[int, str] = {}  # pid -> why we have killed it
        self.schedtrace_ns = schedtrace_ns
        self.booted = now
        self.last_trace = now
        self.awake = False  # sysmon: somebody runs
        self.pace = TICK_NS
        self.trim_at: int | None = None  # when free memory goes back to the system
        self.blocked_since: int | None = None  # when all Ms that there may be were first seen to block
        self.warned = False  # whether that has been said
        self.traced = now  # when it was looked which shared objects have ended
        self.stranded = 0  # looks in a row that found work beside an idle P
        self.no_forks = 0
        self.ms: dict[int, int] = {}  # m -> pid, alive as far as we know
        self.executed: dict[int, int] = {}  # m -> how many Gs that slot had run when this M began
        self.starting: set[int] = set()  # asked of the zygote, no answer yet
        self.dead: set[int] = set()  # dead, but some of their slots are still in use
        self.leaving: set[int] = set()  # clients that have left, and for which Gs still work
        self.bury_pace = TICK_NS  # it doubles: a G that such an M had spawned may run for long
        self.stillborn = 0
        self.zygotes = 0  # in a row that died before they were ready
        self.no_zygote = False  # none could be made: when an M is wanted it is tried again
        self.made = False  # an M has been
        self.closing = False

    def handle(self, event: Event) -> list[Action]:
        """Takes an event, returns what to do."""
        if self.closing and event[0] != "m_started":
            return []
        actions: list[Action] = getattr(self, "on_" + event[0])(*event[1:])
        return actions

    def next_tick(self, now: int) -> int | None:
        """How many ns until sysmon wants a tick; None: it sleeps until something happens."""
        wanted = [self.pace] if self.awake or self.no_forks else []
        wanted += [max(0, self.memory.next_look - now)] if self.awake and self.memory is not None else []
        wanted += [self.bury_pace] if self.dead or self.leaving else []
        wanted += [max(0, self.trim_at - now)] if self.trim_at is not None else []
        wanted += [self.schedtrace_ns] if self.schedtrace_ns else []
        limit = self.limits.next_look(now)
        wanted += [limit] if limit is not None else []
        return min(wanted, default=None)

    def on_wake(self) -> list[Action]:
        """Somebody reserved an M, in startm, or tells us of a G.  When many Ms block, the next will be wanted soon."""
        now = time.monotonic_ns()
        self.limits.told(now)
        self.view.newm_ahead(AHEAD)
        return self.newm() + self.limits.look(now)

    def newm(self) -> list[Action]:
        actions: list[Action] = []
        if self.no_zygote:
            if not self.view.starting():
                return []
            self.no_zygote = False
            actions.append(("zygote",))
        for m in self.view.starting():
            if m not in self.starting and m not in self.ms:
                self.starting.add(m)
                actions.append(("newm", m))
        return actions

    def on_m_started(self, m: int, pid: int) -> list[Action]:
        self.starting.discard(m)
        if pid < 0:
            return self.not_made(m, -pid)
        self.no_forks = 0
        self.made = True
        if self.view.m_started(m, pid):
            self.ms[m] = pid
        else:  # another process has the slot, made by a zygote that died since: this one finds that out and leaves
            attached = dict(self.view.pids()).get(m)
            if attached is None or m in self.ms:
                return []
            self.ms[m] = pid = attached
        self.executed[m] = self.view.executed(m)
        return [("watch", m, pid)]

    def not_made(self, m: int, errno: int) -> list[Action]:
        """No process could be made: the P goes back, and sysmon tries again while there is work."""
        self.view.unstart(m)
        self.no_forks += 1
        if self.no_forks < NO_FORKS or self.ms:
            return []
        self.closing = True
        return [("exit", f"no process can be made for an M: {os.strerror(errno)}")]

    def on_m_died(self, m: int, pid: int, how: str, exitcode: int | None = None, crash: bytes = b"") -> list[Action]:
        if self.ms.get(m) != pid:
            return []
        del self.ms[m]
        lived = self.view.executed(m) > self.executed.pop(m)
        self.stillborn = 0 if lived or "SIGKILL" in how else self.stillborn + 1
        how = self.killed.pop(pid, how)
        if self.stillborn >= STILLBORN:
            self.closing = True
            if exitcode == NO_ROOM:
                how = "could not map the runtime's shared memory; perhaps its address space is limited (ulimit -v)"
            return [("exit", f"no M can run: {STILLBORN} in a row ended before they ran anything; the last, pid {pid}, {how}")]
        death = {"goid": self.view.running(m), "m": m, "pid": pid, "core": self.core(m), "how": how, "exitcode": exitcode}
        if stderr := words.last(self.view.last_said(m), crash):
            death["stderr"] = stderr
        self.view.repair(m)
        self.limits.told(time.monotonic_ns())
        if (self.deaths.settle(m, death) or exitcode) and self.deaths.policy == BREAK:  # else it has ended of itself
            self.closing = True
            return [("broken", death)]
        self.dead.add(m)
        self.bury_pace = TICK_NS
        self.awake = True  # it may have been about to set our alarm
        return self.bury() + self.newm()

    def core(self, m: int) -> int | None:
        """The one to which M m is bound."""
        bound = {m: p for m, _, _, p in self.view.holders()}.get(m, -1)
        return self.cores[bound % len(self.cores)] if bound >= 0 and self.cores else None

    def bury(self) -> list[Action]:
        """Dead Ms whose last slot is settled become free to be made again."""
        waits = len(self.dead)
        self.dead = {m for m in self.dead if self.view.adopt(m)}
        if len(self.dead) < waits and self.view.work_anywhere():  # there may have been no room for an M that it wants
            self.view.wakep()
        self.bury_pace = min(2 * self.bury_pace, BURY_NS)
        return [action for client in list(self.leaving) for action in self.cancel(client)]

    def on_zygote_ready(self) -> list[Action]:
        self.zygotes = 0
        return []

    def on_zygote_not_made(self, errno: int) -> list[Action]:
        """What the Ms do goes on without; only at boot, or if no M is left and none can be made for long, the node ends."""
        self.no_zygote = True
        self.starting.clear()
        self.no_forks += 1
        if self.ms or (self.made and self.no_forks < NO_FORKS):
            return []
        self.closing = True
        return [("exit", f"no process can be made for the zygote: {os.strerror(errno)}")]

    def on_zygote_died(self) -> list[Action]:
        """It is replaced without harm to the Ms; what it was asked for may or may not have been made."""
        self.zygotes += 1
        if self.zygotes >= STILLBORN:
            self.closing = True
            return [("exit", f"{STILLBORN} zygotes in a row died before they were ready")]
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

    # ------------------------------------------------------------------ clients that have attached
    def on_client_quits(self, client: int) -> list[Action]:
        """It wants nothing more to run, but reads results in place still."""
        self.view.dismiss(client)
        self.leaving.add(client)
        self.bury_pace = TICK_NS
        return self.cancel(client) + self.newm()

    def on_client_left(self, client: int, slot: int) -> list[Action]:
        """It is dead, or keeps nothing of ours any more.  What Gs have spawned for it belongs to their Ms: that ends as it is
        begun, or here."""
        actions = self.on_client_quits(client)
        self.view.repair(slot)
        self.deaths.settle(slot, {"goid": None, "m": slot, "pid": 0, "core": None, "how": "has left", "exitcode": None})
        self.dead.add(slot)
        self.awake = True
        return actions + self.bury() + self.newm()

    def cancel(self, client: int) -> list[Action]:
        """Started Gs that work for it are asked to end."""
        if not self.view.unfinished(client):
            self.leaving.discard(client)
            return []
        actions: list[Action] = []
        others: dict[tuple[int, int], list[int]] = {}
        for word, m, pid, own in self.view.started_for(client):
            if not own:
                others.setdefault((m, pid), []).append(word)
            elif self.view.ask_started(word):
                actions += self.on_asked([word])
        return actions + [("ask", m, pid, words) for (m, pid), words in others.items()]

    def on_asked(self, words: list[int]) -> list[Action]:
        now = time.monotonic_ns()
        for word in words:
            self.limits.end(word, now, False)
        return self.limits.look(now)

    def on_signal(self, number: int) -> list[Action]:
        """m0 may have attached, and begun the script, before we heard that it has started."""
        attached = {} if 0 in self.dead else dict(self.view.pids())
        pid = self.ms.get(0, attached.get(0))
        return [] if pid is None else [("signal", pid, number)]

    # ------------------------------------------------------------------ sysmon
    def on_looked(self, blocked: list[tuple[int, int]], loose: list[tuple[int, int]]) -> list[Action]:
        """What a look of the core has found (Go: retake).  The P of an M that blocks goes to another, or becomes idle."""
        for p, own in blocked:
            self.view.retake(p, own)
        return [("preempt", pid) for _, pid in loose] + self.newm()

    def on_alarm(self, now: int) -> list[Action]:
        """Somebody has been at work for a tick."""
        self.awake = True
        self.trim_at = None
        self.pace = TICK_NS
        return self.on_tick(now)

    def on_tick(self, now: int) -> list[Action]:
        actions = self.bury() + self.limits.look(now)
        if self.awake and self.memory is not None and now >= self.memory.next_look:
            actions += self.look_at_memory(self.memory, now)
        if self.awake or self.no_forks:
            actions += self.sysmon(now)
        elif self.trim_at is not None and now >= self.trim_at:
            self.trim_at = now + TRIM_PACE_NS if self.trim() else None
        if self.schedtrace_ns and now - self.last_trace >= self.schedtrace_ns:
            self.last_trace = now
            actions.append(("print", schedtrace_line(self.view.stats(), (now - self.booted) // 1_000_000)))
        return actions + self.newm()

    def trace(self, now: int) -> None:
        """Shared objects to which nobody refers end."""
        self.traced = now
        self.view.trace()

    def trim(self) -> bool:
        """Gives some of the free memory back.  Whether there is more."""
        given = 0
        while given < TRIM_BYTES:
            n = self.view.trim()
            if not n:
                return False
            given += n
        return True

    def sysmon(self, now: int) -> list[Action]:
        """One look (Go: sysmon).  Work beside an idle P, look after look, is seen to; that happens when no process could be
        made, when somebody who was about to wake an M was stopped, and would when a wake-up was lost."""
        actions: list[Action] = []
        orphans = self.view.orphans()
        if orphans > MANY_ORPHANS or (orphans and now - self.traced > TRACE_NS):
            self.trace(now)
        if self.view.sysmon_sleep():
            self.awake = False
            if self.memory is not None:  # what the last ones have left
                actions = self.look_at_memory(self.memory, now)
            if self.view.orphans():
                self.trace(now)
            self.trim_at = now + TRIM_NS
            self.no_forks = self.stranded = 0
            return actions
        self.stranded = 0 if self.main_g_waits() else self.view.rescue(self.stranded)
        self.pace = TICK_NS if self.stranded else min(2 * self.pace, SLOW_TICK_NS)
        return [("bind",), *self.warn_of_blocking(now)]

    def main_g_waits(self) -> bool:
        """The program's main G is for the M that is being made, and for no other."""
        m0 = self.foreground
        return (m0 in self.starting or m0 in self.ms) and not self.view.executed(m0)

    def look_at_memory(self, memory: Watch, now: int) -> list[Action]:
        """Those that have run nothing yet are left alone: they would be made again and again.  So is the program's own M."""
        ms = {m: pid for m, pid in self.ms.items() if self.view.executed(m) > self.executed[m] and m != self.foreground}
        actions: list[Action] = []
        for m, why in memory.look(now, ms):
            self.killed[ms[m]] = why
            actions.append(("signal", ms[m], signal.SIGKILL))
        return actions

    def warn_of_blocking(self, now: int) -> list[Action]:
        """Work waits, and every M that there may be blocks: after a while the client's user is told by what; once, until there
        is an M for all work again."""
        calls = self.view.all_blocked()
        if calls is None:
            self.blocked_since, self.warned = None, False
            return []
        if not calls:
            self.blocked_since = None
            return []
        if self.blocked_since is None:
            self.blocked_since = now
        if self.warned or now - self.blocked_since < BLOCKED_NS:
            return []
        self.warned = True
        from .blocked import warning

        return [("print", warning(calls, self.view.max_ms))]
