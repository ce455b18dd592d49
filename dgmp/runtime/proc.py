"""The scheduler of one M: schedule, findrunnable, execute, goexit, gopark, goready (Go: proc.go).

The goal is Go's: enough running Ms to use all cores, no more, none spinning for nothing.  Three things were rejected
there and are here: one central queue (does not scale), waking an M for every readied G (a storm of parking and waking),
and handing a G straight to an M (destroys locality).  The chosen rule: who submits work wakes one M if there is an idle
P and nobody spins; a spinning M that finds work wakes the next before it runs it; an M that stops spinning looks at
every queue once more after it has given its P away.  The barriers on both sides are in _core/idle.c.

Every change of ownership is one call of the core (`view`); what stands here are decisions.  User code is a syscall: it
begins in View.claim and View.gresume, ends in View.complete and View.gpark, and the P may be gone then (_core/retake.c).
Two deviations from Go:
a *started* G has a Python stack (a greenlet) and stays on its home M, so it is readied through that M's inbox, never a
queue; and a fresh G is bytes, so any M may take it.  g0 is the M's main greenlet.  A runner greenlet takes fresh G after
fresh G until one parks; g0 then schedules on.

Called by workers.m (mstart) and, from inside Gs, by api (gopark, gosched).
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from math import gcd
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, greenlet

from .._core import (
    RESULT_CANCELLED,
    RESULT_NO_MEMORY,
    WHY_FUTURE,
    WHY_GOSCHED,
    WHY_PREEMPTED,
    Block,
    View,
    stack_address,
)
from ..errors import Cancelled, Deadlock
from ..ship import closure, functions, travel, values
from ..ship.terms import ASKED, LATE, Terms
from ..ship.values import Large
from .affinity import Affinity
from .signals import call
from .timers import Timers
from .world import Worlds

if TYPE_CHECKING:
    from .aio import Asyncs
    from .output import Output

# Every 61st G the global queue comes first (Go's prime), but at the latest after 10 ms: our Gs are long, and 61 of them
# would be half a second of starvation at 10 ms each.
GLOBAL_TICK = 61
GLOBAL_NS = 10_000_000
# How long an M looks for work before it parks: about twice what waking a parked M on another core costs (25 us), so that
# a wrong guess costs at most as much again.
SPIN_NS = 50_000
STEAL_ROUNDS = 4
# What an M takes at once from a queue that no M runs (the global one, a client's ring): about so much work.  Half of a
# hundred 5 ms tasks would wait behind each other for a quarter of a second, out of order, beside an M without work.
SHARE_NS = 1_000_000
MOST_SHARE = 128
# Pooled greenlets, of 16 KB each, as making one takes 10 us.  An M that had a hundred thousand parked Gs gives the others'
# memory back.
MOST_RUNNERS = 1024
# Ready started Gs that may run in a row before a fresh one gets its turn.
READY_BOUND = 16

_TOKEN = 1 << 62
NEW_LEVELS, OTHER_WORLD, HAS_TERMS, WAS_ASKED = 2, 4, 8, 16  # flags of View.claim
TO_RAISE, P_TAKEN, READIED = 1, 2, 4  # flags of View.gpark


NO_CALL = 0, 0, b"", 0, 0


class G:
    """A G as its M sees it: the word that names its slot, and once started the greenlet that holds its stack."""

    __slots__ = ("word", "goid", "fn", "greenlet", "world", "locks", "asked", "stop", "ends")

    def __init__(self, claimed: tuple[int, int, bytes | Block, int, int] | None = None) -> None:
        self.fn: Any = claimed  # what View.claim says; later the function
        _, self.goid, _, _, self.word = claimed or NO_CALL
        self.greenlet: Any = None
        self.world = 0  # in which it was when it parked
        self.locks = 0  # how often it has locked its M
        self.asked = False  # to raise Cancelled, as it went on
        self.stop: set[Any] | None = None  # for whom it is to raise Cancelled, too (api.group)
        self.ends: int | None = None  # when its time is up, 0 never; None: it has no terms

    @property
    def name(self) -> str:
        return values.describe(self.fn)


class Runner(greenlet):  # type: ignore[misc]
    """Holds the stack of one G after the other."""

    __slots__ = ("mark",)  # where its C stack begins, for runtime.asyncpreempt


def steal_order(n: int) -> list[int]:
    """The steps coprime with n: stepping by one of them from anywhere visits 0..n-1 once each (Go: randomOrder)."""
    return [i for i in range(1, n + 1) if gcd(i, n) == 1]


def clear_frames(error: MemoryError) -> None:
    """What the frames hold that it went through may be what there is too much of, and telling of it needs some."""
    tb = error.__traceback__
    while tb is not None:
        with contextlib.suppress(RuntimeError):  # one of ours, which still runs
            tb.tb_frame.clear()
        tb = tb.tb_next


class M:
    """One M: an operating-system process that runs Gs while it holds a P."""

    def __init__(self, view: View, worlds: Worlds, affinity: Affinity | None = None) -> None:
        self.view = view
        self.worlds = worlds
        self.affinity = affinity
        self.decoder = closure.Decoder(view)
        worlds.modules.forget = self.decoder.forget
        worlds.parked = self.parked_worlds
        self.world: Callable[[], int] | None = None  # finds out in which world we are, where a G's own changes count
        self.g0: Any = getcurrent()
        self.curg: G | None = None
        self.parked: dict[int, G] = {}  # started Gs that wait, by their word
        self.timers = Timers(view.next_timer)  # of parked Gs that wait no longer than until then
        self.asyncs: Asyncs | None = None  # those of its Gs that are coroutines
        self.async_keys: set[int] = set()  # of functions that make them
        self.polled = 0  # how many of its Gs wait for descriptors
        self.deadlocks: dict[int, str] = {}  # what parked Gs are to raise, by their word
        self.ready: deque[G] = deque()  # started Gs that can go on
        self.yielded: deque[G] = deque()  # started Gs that gave way: behind the other work
        self.runners: list[Any] = []  # pooled greenlets without a G
        self.next: G | None = None  # for the runner that is switched to, or the G a runner hands to g0
        self.got: Any = None  # in its place: what View.next_local says
        self.victims = 0  # for how many the coprimes are
        self.coprimes: list[int] = []
        self.seed = os.getpid() ^ time.monotonic_ns()
        self.others: deque[Callable[[], int | None]] = deque(
            [lambda: view.globrunqget(1), self.from_clients, view.runqget_ring])
        self.ready_run = 0
        self.share_size = 1
        self.shared_at = time.monotonic_ns()
        self.shared_tick = 0
        self.spinning = False
        self.lost = False  # our P was taken as user code ran
        self.lockedg: G | None = None  # the only G that this M runs
        self.tainted = False  # such a G has ended: this M ends when nothing needs it any more
        self.retired = False  # it has run its share of Gs, or has grown too large: so does this one, with what it has left
        self.locked = False  # any of these
        self.has_timers: Callable[[], bool] = bool  # whether calls are still to be made from here (api.node sets it)
        self.thread = threading.get_ident()
        view.main_is_here()
        self.stdout: Any = sys.stdout  # ours: user code may put others there
        self.stderr: Any = sys.stderr
        self.stdin: Any = sys.stdin
        self.output: Output | None = None  # what has made them, if the client writes what Gs print
        self.new_levels: Callable[[], object] = view.new_levels  # runtime.logs applies them
        self.pid = os.getpid()
        self.pending: deque[Any] = deque()  # signals whose handlers are still to run (runtime.signals)
        self.run_orphans: Callable[[], None] = self.pending.clear  # runtime.signals runs them
        self.run_handlers: Callable[[], None] = self.pending.clear
        self.changers: set[G] = set()  # who has changed something in this process that runtime.undo undoes when they end
        self.changed: Callable[[Any, Any, Any, Callable[[Any], object]], object] = lambda key, before, after, put: None
        self.undo: Callable[[G], object] = lambda gp: None
        self.look_around: Callable[[], object] = lambda: None
        self.untold: list[Any] = []  # Futures that have ended, and whose waiters have not been told
        self.tell: Callable[[], None] = self.untold.clear  # api.node tells them,
        self.kick_sleepers: Callable[[], None] = self.untold.clear  # and other threads of this process that wait
        self.overdue: G | None = None  # it was to be preempted, and could not be where it was
        self.nopreempt: dict[int, int] = {}  # words of Gs that must not be, and how many times over
        self.running_loop: Callable[[], Any] | None = None  # runtime.loops sets these three once asyncio is imported
        self.leave_loop: Callable[[], Any] = self.untold.clear
        self.enter_loop: Callable[[Any], None] = self.untold.remove
        view.watch_ready(self.ready, self.yielded)
        view.turns(GLOBAL_TICK, GLOBAL_NS)

    # ------------------------------------------------------------------ the loop
    def mstart(self) -> None:
        """Begins with the P that the maker of this M left for it; never returns."""
        if self.view.mstart():
            self.spinning = self.view.is_spinning()
            self.pinned()
        else:
            self.stopm()
        while True:
            gp = self.next
            if gp is None:
                gp = self.schedule()
            self.next = None
            self.execute(gp)

    def pinned(self) -> None:
        if self.affinity is not None:
            self.affinity.hold(self.view.p)

    def schedule(self) -> G:
        """One round of the scheduler: the next G to run, claimed.  The M holds a P."""
        view = self.view
        if self.locked:
            return self.stoplockedm()
        if self.lost:
            self.exitsyscall0()
        while True:
            if view.retiring and self.may_retire():
                return self.retire()
            if self.pending:
                self.run_orphans()
            gp = self.next_of_poller() if self.asyncs is not None else None
            if gp is None:
                gp = self.other_turn()
            if gp is None:
                self.collect()
                ready = self.ready
                if ready and self.ready_run < READY_BOUND:
                    self.ready_run += 1
                    gp = ready.popleft()
                else:
                    self.ready_run = 0
                    got = view.runqget()
                    if got is not None:
                        gp = self.claim(got[0], got[1])
                        if gp is None:
                            continue
                    elif ready:
                        continue
                    else:
                        gp = self.findrunnable()
            if self.spinning:
                self.resetspinning()
            return gp

    def next_local(self) -> G | None:
        """The common way through schedule, in one call: the next G of our P, when there is nothing else to look at."""
        if self.lost or self.locked or self.asyncs is not None or self.pending or self.spinning:
            return None
        got = self.view.next_local(self.untold)
        return None if got is None else self.taken(got)

    def taken(self, got: Any) -> G | None:
        """What View.next_local has given us."""
        self.ready_run = 0
        return self.claim(got, False) if isinstance(got, int) else G(got)

    def next_of_poller(self) -> G | None:
        """schedule where the async Gs run, as long as there are any: it takes no other fresh ones, and gives its P away when it
        has nothing to do.  None: there are none, or no other M is to be had for the others."""
        view, asyncs = self.view, self.asyncs
        assert asyncs is not None
        while True:
            word = view.asyncq_get()
            if word is not None:
                gp = self.claim(word, False)
                if gp is not None:
                    return gp
                continue
            if not asyncs.live:
                return None
            self.collect()
            if self.ready:
                return self.ready.popleft()
            if self.yielded:
                return self.yielded.popleft()
            if self.polled and view.netpoll():
                continue
            if self.spinning:
                self.spinning = False
                view.reset_spinning()
            if view.spin(SPIN_NS) and not view.inbox_empty():
                continue
            if not view.handoffp(-1) and view.pidleget():
                self.pinned()
                return None
            self.stopm()

    def other_turn(self) -> G | None:
        """Every 61st tick, and after a bounded time, those go first whom fresh local work could starve: Gs that gave way, and
        one from the global queue, the clients' rings or, past runnext, our own ring, in turn: a G that readies another for
        ever inherits its time slice for ever."""
        if not self.view.turn():
            return None
        if self.yielded:
            self.ready.append(self.yielded.popleft())
        self.others.rotate()
        for other in self.others:
            word = other()
            if word is not None:
                return self.claim(word, False)
        return None

    def from_clients(self) -> int | None:
        for p in range(self.view.max_ps, self.view.nps):
            word = self.view.runqsteal(p, True, 1)
            if word is not None:
                return word
        return None

    def findrunnable(self) -> G:
        """Finds a G, stealing it if it must; parks the M while there is none.  In the order of proc.go."""
        view = self.view
        while True:
            self.collect()
            if self.ready:
                return self.ready.popleft()
            word = view.asyncq_get() if self.asyncs is not None else None
            if word is not None:
                gp = self.claim(word, False)
                if gp is not None:
                    return gp
                continue
            got = view.runqget()
            if got is not None:
                gp = self.claim(got[0], got[1])
                if gp is not None:
                    return gp
                continue
            word = view.globrunqget(self.share())
            if word is not None:
                gp = self.claim(word, False)
                if gp is not None:
                    return gp
                continue
            if self.polled and view.netpoll():
                continue
            if view.become_spinning():
                self.spinning = True
                gp = self.stealwork()
                if gp is not None:
                    return gp
            if self.yielded:  # after stealing: no M runs what lies in the client's ring
                return self.yielded.popleft()
            if self.spinning and view.spin(SPIN_NS):
                self.check_closing()
                gp = self.stealwork() if view.inbox_empty() else None  # most often a client's or another M's
                if gp is not None:
                    return gp
                continue
            # About to park, still holding the P: somebody may have found work and no idle P (golang/go#45867).
            if view.globrunqsize():
                continue
            if not self.spinning and view.needspinning():
                view.set_spinning()
                self.spinning = True
                continue
            # The delicate dance: the spinning bit and the P go, then (fence) every queue is looked at once more.
            if self.spinning:
                self.spinning = False
                view.reset_spinning()
            view.releasep()
            if view.work_anywhere() and view.pidleget():
                self.pinned()
                view.set_spinning()
                self.spinning = True
                continue
            self.stopm()

    def share(self) -> int:
        """How many Gs to take at once from a queue that no M runs, by how long the last ones took; for a start one."""
        now = time.monotonic_ns()
        tick = self.view.tick
        ran = tick - self.shared_tick
        if ran > 0:  # else it looked for work meanwhile
            each = (now - self.shared_at) // ran + 1
            self.share_size = max(1, min(SHARE_NS // each, 4 * self.share_size, MOST_SHARE))
        self.shared_at, self.shared_tick = now, tick
        return self.share_size

    def stealwork(self) -> G | None:
        """Four rounds over all Ps in random coprime order; a runnext only in the last."""
        view = self.view
        if not view.work_anywhere():  # one look in C before 4n calls
            return None
        n = view.nprocs + view.nps - view.max_ps
        if n != self.victims:
            self.victims, self.coprimes = n, steal_order(n)
        for round_ in range(STEAL_ROUNDS):
            # Knuth's linear congruence; its upper bits choose where to begin and by which step to go.
            self.seed = (self.seed * 6364136223846793005 + 1442695040888963407) & (1 << 64) - 1
            begin, step = (self.seed >> 32) % n, self.coprimes[(self.seed >> 48) % len(self.coprimes)]
            word = view.steal_round(begin, step, round_ == STEAL_ROUNDS - 1, self.share_size)
            if word is not None:
                return self.claim(word, False)
        return None

    def resetspinning(self) -> None:
        """A spinning M has found a started G, or a token: if there is more work, another looks on.  For a fresh G View.claim
        does that."""
        self.spinning = False
        self.view.reset_spinning()
        if self.view.work_anywhere():
            self.view.wakep()

    # ------------------------------------------------------------------ a G that has its M for itself
    def lock_os_thread(self) -> None:
        """The calling G gets this M for itself, until it has unlocked as often, or ends."""
        gp = self.curg
        assert gp is not None
        gp.locks += 1
        self.lockedg = gp
        self.locked = True

    def unlock_os_thread(self) -> None:
        gp = self.curg
        assert gp is not None
        if gp.locks:
            gp.locks -= 1
            if not gp.locks:
                self.lockedg = None
                self.locked = self.tainted or self.retired

    def taint(self) -> None:
        """User code has changed what cannot be undone: as if it had ended in a locked G."""
        self.tainted = self.locked = True

    def stoplockedm(self) -> G:
        """The P goes to others, and this M waits until its own G can go on.  Who readies that gives us a P (Go: stoplockedm,
        startlockedm).  Other started Gs of this M wait until it is unlocked, as they cannot go anywhere else.

        If its G has ended while it was locked, nobody else shall find what it has left here: then those others are run, as
        they must be, and the M ends when it has none, and owns no G (Go: the thread ends)."""
        view = self.view
        self.collect()
        if not self.lost and self.lockedg in self.ready:
            return self.take_ready()
        self.ready.extend(self.yielded)
        self.yielded.clear()
        if not self.lost:
            view.handoffp(-1)
        self.lost = False
        while True:
            self.check_closing()
            self.collect()
            if self.pending:
                self.run_orphans()
            mine = self.lockedg in self.ready if self.lockedg is not None else bool(self.ready)
            if self.lockedg is None and not self.has_gs():
                return self.end()
            if view.stopm((0,) if mine else (), self.until_timer(), True):
                if mine:
                    self.pinned()
                    return self.take_ready()
                view.handoffp(-1)

    # ------------------------------------------------------------------ an M that has done its share
    def may_retire(self) -> bool:
        """This M is to end between two Gs (_core/retire.c): whether it takes no fresh ones from here on.  While it has some of
        its own, or runs the async ones, it may have to."""
        self.collect()
        if self.has_gs():
            return self.asyncs is None and self.view.retire_wait()
        return not self.is_needed()

    def has_gs(self) -> bool:
        """Whether there are Gs that only this M can run, or that it has spawned and nobody else can collect."""
        return bool(self.ready or self.yielded or self.parked or self.view.outstanding)

    def is_needed(self) -> bool:
        """Whether its end would be felt, though it has no Gs: who has acquired something here may release it elsewhere."""
        return self.view.semas_held() or self.has_timers()

    def retire(self) -> G:
        """The P goes to others.  Its own started Gs are run to their ends, then this M ends; when work needs another, that is
        made."""
        if self.spinning:
            self.resetspinning()
        self.retired = self.locked = True
        return self.stoplockedm()

    def end(self) -> G:
        """This M, which has no Gs any more and no P, ends; or it goes on as any other, if it is needed after all."""
        if self.tainted or not self.is_needed():
            self.flush()
            raise SystemExit
        self.retired = self.locked = False
        self.stopm()
        return self.schedule()

    def take_ready(self) -> G:
        if self.lockedg is None:
            return self.ready.popleft()
        self.ready.remove(self.lockedg)
        return self.lockedg

    def until_timer(self) -> int:
        return self.timers.wait(time.monotonic_ns())

    # ------------------------------------------------------------------ parking the M
    def exitsyscall0(self) -> None:
        """Our P was taken while user code ran, which has ended or parked: this M is idle, unless it has Gs that can go on."""
        self.lost = False
        self.stopm()

    def stopm(self) -> None:
        """Parks this M until it is handed a P, which it asks for if it has Gs that can go on.  It never ends for want of work,
        as in Go: an idle process is cheap.  One that is to retire does."""
        self.flush()
        self.look_around()
        self.ready.extend(self.yielded)
        self.yielded.clear()
        while True:
            self.check_closing()
            self.collect()
            if self.pending:
                self.run_orphans()
            if self.view.retiring and not self.has_gs() and not self.is_needed():
                raise SystemExit
            if self.view.stopm(self.ready, self.until_timer(), False):
                self.spinning = self.view.is_spinning()
                self.pinned()
                return

    def flush(self) -> None:
        if self.output is not None:
            self.output.flush_threads()
            return
        with contextlib.suppress(OSError, ValueError):  # a broken pipe, or closed by user code
            self.stdout.flush()

    def check_closing(self) -> None:
        if self.view.closing():
            raise SystemExit

    def claim(self, word: int, inherit_time: bool) -> G | None:
        """Wins the popped G for this M, or finds that there is nothing to win; a token's M gets our P."""
        if word & _TOKEN:
            m = self.view.take_token(word)
            if m != self.view.id:
                if self.spinning:
                    self.resetspinning()
                if self.view.handoffp(m):
                    self.stopm()
            return None
        claimed = self.view.claim(word, inherit_time)
        if claimed is None:
            return None
        self.spinning = False
        return G(claimed)

    # ------------------------------------------------------------------ running a G
    def execute(self, gp: G) -> None:
        """On g0: runs gp until it is done, parks or gives way."""
        if gp.greenlet is not None:
            self.resume(gp)
            return
        runner = self.runners.pop() if self.runners else Runner(self.run, self.g0)
        self.next = gp
        runner.switch()

    def run(self) -> None:
        """A runner: fresh G after fresh G, until one must go on elsewhere; then back into the pool, or, if that is full, g0
        goes on with that one."""
        me = getcurrent()
        me.mark = stack_address()
        while True:
            gp = self.handed()
            while gp.greenlet is None:
                gp.greenlet = me
                self.curg = gp
                self.goexit(gp)
                gp.greenlet = None
                if me.gr_context is not None:  # its context variables end with a G
                    me.gr_context = None
                gp = self.next_local() or self.schedule()
            if len(self.runners) >= MOST_RUNNERS:
                self.next = gp
                return
            self.runners.append(me)
            self.resume(gp)

    def handed(self) -> G:
        """What whoever switched to this runner has left for it."""
        got, self.got = self.got, None
        if got is None:
            gp, self.next = self.next, None
        else:
            gp = self.taken(got)
        return gp or self.schedule()

    def resume(self, gp: G) -> None:
        """From g0, or a runner whose G is done, to a started G, in its world; if that cannot be, it learns why."""
        gp.asked = self.view.gresume(gp.word)
        self.curg = gp
        if gp.world != self.worlds.current:
            try:
                self.worlds.enter(gp.world)
            except Exception as e:
                gp.greenlet.throw(e)
                return
        gp.greenlet.switch()

    def goexit(self, gp: G) -> None:
        """Calls the G's function and completes it.  User code, as far as exceptions go: decoding and encoding too."""
        key, _, data, flags, _ = gp.fn
        args: Any = None
        kwargs: Any = None
        result: bytes | Large
        out: bytes | Block | int
        objects: Any = None  # in the result: kept until that does it
        error: BaseException | None = None
        gp.fn = None
        if self.async_keys and key in self.async_keys and not self.runs_asyncs():
            return self.hand_over(gp)
        try:
            deps = self.before(gp, flags) if flags else None
            gp.fn, args, kwargs = self.decoder.decode_call(key, data, deps)
            if self.pending:  # a signal's handler waits for another G: that goes first
                self.gosched()
            value = call(gp.fn, args, kwargs)
            if type(value) is CoroutineType:
                return self.start_async(gp, value, key)
            kind, result = closure.encode_result(value, gp.fn, gp.goid)
            kind, out = (kind, result) if isinstance(result, bytes) else self.pack(kind, result)
        except closure.DependencyFailed as e:
            kind, out = e.result(gp.goid)
        except BaseException as e:  # SystemExit and KeyboardInterrupt of user code are results too
            error = e
        if error is not None:  # not while it is handled: all that is raised meanwhile would go through its whole chain
            kind, out = self.failed(gp, error)
            error = None
        if travel.latest:
            objects = travel.hold(self.view)
        result = b""
        args = kwargs = value = deps = data = gp.fn = None  # while it is a G that runs: a finalizer of theirs may wait
        output = self.output
        if output is not None:
            try:
                changed = (output.out_lines or output.err_lines
                           or sys.stdout is not self.stdout or sys.stderr is not self.stderr or sys.stdin is not self.stdin)
            except AttributeError:  # user code has deleted one
                changed = True
            if changed:
                output.settle(gp)
        if self.changers and gp in self.changers:
            try:
                self.undo(gp)
            except BaseException:  # of a function that traces what is called; Python has dropped that now
                self.undo(gp)
        try:
            self.lost = not self.view.complete(gp.word, kind, out)
            self.curg = None
            if gp is self.lockedg:
                self.lockedg = None
                self.tainted = True
            objects = None  # noqa: F841
        except RuntimeError:
            if os.getpid() != self.pid:  # user code forked, and its child came back here: it is no M
                os._exit(0)
            raise

    def cancellation(self, gp: G) -> Cancelled:
        """What gp is to raise, which was asked to end."""
        late = self.view.asked(gp.word) & (ASKED | LATE) == LATE
        why = "had run for its timeout" if late else "was cancelled"
        return Cancelled(f"G {gp.goid} ({gp.name}) {why}")

    def is_late(self, gp: G) -> bool:
        """Whether gp's time is up, which runs; if so, it is asked to end for that."""
        if not gp.ends or time.monotonic_ns() < gp.ends:
            return False
        gp.ends = 0
        self.view.be_late(gp.word)
        return True

    def failed(self, gp: G, error: BaseException) -> tuple[int, bytes | int]:
        """What gp ends with, whose call has raised that: kind and bytes for View.complete; or when it is to be run again."""
        if os.getpid() != self.pid:
            self.end_child(error)
        if isinstance(error, MemoryError):
            clear_frames(error)
            if gp in self.changers:
                self.undo(gp)  # a limit of its own, perhaps
        from ..ship import failure  # with what it needs, 3 ms

        asked = self.view.asked(gp.word)
        if isinstance(error, Cancelled) and asked & ASKED:
            return RESULT_CANCELLED, failure.encode_error(error)[1]
        if isinstance(error, Cancelled) and asked & LATE:
            late = TimeoutError(f"G {gp.goid} ({gp.name}) ran longer than its timeout")
            late.__cause__ = error
            error = late
        if gp.ends is not None:
            _, attempt, said = self.view.terms(gp.word)
            terms = Terms.unpack(said)
            if terms.retry_on and attempt <= terms.retries and isinstance(error, self.decoder.errors(terms.retry_on)):
                return 0, terms.again_at(attempt, time.monotonic_ns())
        return failure.encode_error(error)

    @staticmethod
    def end_child(error: BaseException | None) -> None:
        """In a child that user code has forked, which is no M: it ends as a program that has raised that, or nothing."""
        from . import report, script

        code = 0
        if isinstance(error, SystemExit):
            code = script.exit_code(error.code)
        elif error is not None:
            report.uncaught(error)
            code = 1
        os._exit(code)

    def start_async(self, gp: G, coro: CoroutineType[Any, Any, Any], key: int) -> None:
        """gp's function has made a coroutine: it runs here, or the G goes to the M where they run, to make it there."""
        from .aio import is_coroutine_function

        if not self.runs_asyncs() and is_coroutine_function(gp.fn):
            coro.close()
            if key != functions.WHOLE:
                self.async_keys.add(key)
            self.hand_over(gp)
        else:
            self.loop_of_asyncs().start(gp, coro)

    def runs_asyncs(self) -> bool:
        """Whether this M runs the async Gs: from here on, if no other does."""
        ours = self.view.be_poller()
        if ours:
            self.loop_of_asyncs()
        return ours

    def loop_of_asyncs(self) -> Asyncs:
        if self.asyncs is None:
            from .aio import Asyncs

            self.asyncs = Asyncs(self, G(), lambda run: Runner(run, self.g0))
        return self.asyncs

    def hand_over(self, gp: G) -> None:
        self.lost = not self.view.hand_over(gp.word)
        self.curg = None

    def pack(self, kind: int, result: Large) -> tuple[int, bytes | Block]:
        """A copy of it in the segment."""
        try:
            return kind, self.view.pack(result.stream, result.buffers)
        except MemoryError:
            return RESULT_NO_MEMORY, b"%d" % result.size

    def before(self, gp: G, flags: int) -> list[tuple[int, bytes | Block]]:
        """What is out of the common before gp can run; returns the results that it has waited for."""
        if flags & WAS_ASKED:
            raise self.cancellation(gp)
        if flags & HAS_TERMS:
            gp.ends = self.view.terms(gp.word)[0]
        if flags & NEW_LEVELS:
            self.new_levels()
        if flags & OTHER_WORLD:
            self.worlds.enter(self.view.world_of(gp.word))
        return self.view.dep_results(gp.word)

    # ------------------------------------------------------------------ parking
    def in_g(self) -> bool:
        """Whether the caller is a G of this M (and not another thread of the process)."""
        gp = self.curg
        return gp is not None and gp.greenlet is getcurrent()

    # A frame of a G that is near the recursion limit fails at its first call or not at all, as all its calls are equally
    # deep: so what parks a G stands in one frame each, its first call changes nothing if it fails, and nothing is undone.
    def gopark(self, future: Any, deadline: int | None = None, reason: int = WHY_FUTURE, cancellable: bool = False) -> None:
        """The calling G waits until goready, or the deadline (monotonic, ns); its M runs others meanwhile.  It may come back
        early: the caller looks at what it waits for.

        Args:
            future: what it waits for: has a true _state when that has come, looked at after the G is known to be parked; and
                a list _then, into which its word is put, or None if who waits is known otherwise.  Whoever makes it come
                calls goready, here or through the core.
            reason: a WHY_ constant of the core, for people.
            cancellable: it comes back, too, while the G is still to raise Cancelled (Member.park does).

        Raises:
            Deadlock: it is the main G of `dgmp run`, and nothing will ever ready it.
        """
        gp = self.curg
        assert gp is not None
        if future._state or gp.greenlet is not getcurrent():  # both fail here if they would further down
            return
        word = gp.word
        world = self.worlds.current if self.world is None else self.world()
        timer = None if deadline is None else self.timers.add(deadline, word)
        streams = self.put_streams_away() if sys.stdout is not self.stdout or sys.stderr is not self.stderr else None
        loop = None if self.running_loop is None or self.running_loop() is None else self.leave_loop()
        self.overdue = None
        told = self.view.gpark(word, reason)
        self.lost = bool(told & P_TAKEN)
        readied = self.view.readied() if told & READIED else None
        self.curg = None
        gp.world = world
        if readied is not None:
            for other in readied:
                self.goready(other)
        self.parked[word] = gp
        if future._then is not None and word not in future._then:  # it may have come back early
            future._then.append(word)
        to_raise = cancellable and bool(told & TO_RAISE or gp.stop)
        if (future._state or self.pending or to_raise) and self.parked.pop(word, None):  # it came too early to ready us
            self.ready.append(gp)
        if (readied is not None and not self.lost and not self.locked and self.ready_run < READY_BOUND and self.ready
                and self.ready[0].world == self.worlds.current and not self.pending):
            self.ready_run += 1  # straight to the next one: most often the one that we have just readied
            self.curg = following = self.ready.popleft()
            following.asked = self.view.gresume(following.word)
            following.greenlet.switch()
        elif (self.runners and not self.ready and not self.lost and not self.locked and self.asyncs is None
                and not self.pending and (got := self.view.next_local(self.untold)) is not None):
            self.got = got  # straight to the next fresh one
            self.runners.pop().switch()
        else:
            self.g0.switch()
        if streams is not None:
            sys.stdout, sys.stderr = streams
        if loop is not None:
            self.enter_loop(loop)
        if timer is not None:
            self.timers.stop(timer)
        if self.deadlocks and word in self.deadlocks:
            raise Deadlock(self.deadlocks.pop(word))

    def gosched(self, reason: int = WHY_GOSCHED) -> None:
        """The calling G gives way: it goes behind the other work of its home M."""
        gp = self.curg
        assert gp is not None
        world = self.worlds.current if self.world is None else self.world()
        streams = self.put_streams_away() if sys.stdout is not self.stdout or sys.stderr is not self.stderr else None
        loop = None if self.running_loop is None or self.running_loop() is None else self.leave_loop()
        self.overdue = None
        self.lost = bool(self.view.gpark(gp.word, reason) & P_TAKEN)
        self.curg = None
        gp.world = world
        self.yielded.append(gp)
        self.g0.switch()
        if streams is not None:
            sys.stdout, sys.stderr = streams
        if loop is not None:
            self.enter_loop(loop)

    def settle_overdue(self) -> None:
        """Called at the end of runtime calls, if a G is overdue: here it can give way."""
        overdue, self.overdue = self.overdue, None
        if overdue is self.curg and self.in_g() and overdue is not None and overdue.word not in self.nopreempt:
            self.gosched(WHY_PREEMPTED)

    def put_streams_away(self) -> tuple[Any, Any]:
        """What the calling G has made of sys.stdout and sys.stderr is its own: the next G finds ours."""
        streams = sys.stdout, sys.stderr
        if self.output is not None:
            self.output.restore()
        else:
            sys.stdout, sys.stderr = self.stdout, self.stderr
        return streams

    def goready(self, word: int) -> None:
        """The parked G of that word, if it still is, can go on.  From any thread of its home M."""
        gp = self.parked.pop(word, None)
        if gp is not None:
            self.ready.append(gp)
            if threading.get_ident() != self.thread:
                self.view.wake_self()
            if self.curg is not None:
                self.view.publish_ready()
        elif self.asyncs is not None:
            self.asyncs.readied(word)

    def running_g(self) -> G | None:
        """The G whose code calls; None outside of Gs.  In the loop of the async Gs that is not curg, which is its host."""
        if not self.in_g():
            return None
        return self.curg if self.asyncs is None or self.curg is not self.asyncs.g else self.asyncs.running_g()

    def parked_worlds(self) -> list[int]:
        return [gp.world for gp in (*self.parked.values(), *self.ready, *self.yielded)]

    def collect(self) -> None:
        """Takes finished children out of the inbox; the Gs that wait for them, or whose time is up, become ready."""
        if self.view.drain(self.untold, 0) or self.untold:
            self.tell()
            self.kick_sleepers()
        if self.timers.heap:
            for word in self.timers.expire(time.monotonic_ns()):
                self.goready(word)
