"""Async Gs: coroutines, all on one M, the poller (_core/poller.c), as tasks of one asyncio loop.

An async G has a slot like any other and is parked (G_WAITING) from when its coroutine becomes a task until it ends; it needs
no greenlet.  The loop has one, and no slot of its own: it runs under the word of one of its Gs, the host, and when the host
ends under another's.  Where other loops block in their selector, this one parks: it waits for its epoll descriptor as any G
waits for one (runtime.netpoll), so that the M runs other Gs meanwhile, or gives its P away.

Which G's code runs says a context variable, so it is known in the tasks and callbacks, too, that a coroutine has made.  Tasks
that a G leaves behind are cancelled as it ends, as asyncio.run does.

Called by proc: start and readied; the rest goes on in the loop.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import time
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from greenlet import getcurrent

from .._core import WHY_IO, stack_address
from ..ship import closure, travel
from . import report, scope
from .netpoll import Wait
from .proc import P_TAKEN
from .signals import call

if TYPE_CHECKING:
    from .proc import G, M

CO_COROUTINE = 0x80  # of inspect, which takes long to import
running: ContextVar[G | None] = ContextVar("dgmp_g", default=None)


def is_coroutine_function(fn: Any) -> bool:
    """Whether calling fn makes a coroutine and does nothing else, so that it may be called once more elsewhere."""
    for _ in range(16):
        if hasattr(fn, "func") and hasattr(fn, "keywords"):
            fn = fn.func
        elif hasattr(fn, "__func__"):
            fn = fn.__func__
        elif "_fn" in getattr(fn, "__dict__", ()):
            fn = fn._fn  # a Task
        else:
            break
    code = getattr(fn, "__code__", None) or getattr(type(fn).__call__, "__code__", None)
    return code is not None and bool(code.co_flags & CO_COROUTINE)


class Selector(selectors.EpollSelector):
    """Parks where others block."""

    def __init__(self, asyncs: Asyncs) -> None:
        super().__init__()
        self.asyncs = asyncs

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if os.getpid() != self.asyncs.m.pid:  # what is left there to be done needs no event
            return []
        events = super().select(0)
        wait = not events and (timeout is None or timeout > 0)
        if self.asyncs.give_way(wait, timeout):
            events += super().select(0)
        return events


class Asyncs:
    """The async Gs of an M."""

    def __init__(self, m: M, g: G, make_greenlet: Any) -> None:
        self.m = m
        self.g = g  # the loop, as the scheduler sees it; its word is the host's
        self.make_greenlet = make_greenlet
        self.live: dict[int, tuple[G, asyncio.Task[Any]]] = {}  # by their words
        # Ended, and no other is left to be the host: its result, and the objects in that.
        self.last: tuple[G, int, Any, Any] | None = None
        self.selector = Selector(self)
        self.loop = asyncio.SelectorEventLoop(self.selector)
        self.loop.set_task_factory(self.make_task)
        self.tasks: dict[int, WeakSet[asyncio.Task[Any]]] = {}  # that the Gs have made, by their words
        self.began = False  # a task, since the loop last looked
        self.waits: G | None = None  # whose code keeps all of them waiting, in a call of dgmp
        os.register_at_fork(after_in_child=self.leave_to_parent)

    def leave_to_parent(self) -> None:
        """In a child that an async G has forked: it runs to the end of that G, and nothing of the others."""
        for handle in (*self.loop._ready, *self.loop._scheduled):  # type: ignore[attr-defined]
            handle.cancel()

    # ------------------------------------------------------------------ on g0 or a runner
    def start(self, gp: G, coro: Coroutine[Any, Any, Any]) -> None:
        """The coroutine of gp, which runs, becomes a task; gp is parked from here on."""
        m = self.m
        context = Context()
        context.run(running.set, gp)
        task = self.loop.create_task(scope.run(m.view.steps(coro, gp.word), gp.word, self.tasks), context=context)
        gp.world = m.worlds.current
        m.lost = bool(m.view.gpark(gp.word, WHY_IO) & P_TAKEN)
        m.curg = None
        self.live[gp.word] = gp, task
        if gp.ends:
            timer = self.loop.call_at(gp.ends / 1e9, self.late, gp, context=context)
            task.add_done_callback(lambda task: timer.cancel(), context=context)
        task.add_done_callback(partial(self.ended, gp, coro), context=context)
        self.began = True
        g = self.g
        if g.word:
            m.goready(g.word)
        else:
            if g.greenlet is None:
                g.greenlet = self.make_greenlet(self.serve)
            self.host(gp)
            m.ready.append(g)

    def readied(self, word: int) -> None:
        """The async G of that word was readied by somebody: it has been asked to end."""
        if word in self.live and self.m.view.told(word):
            gp, task = self.live[word]
            if gp is self.waits:
                gp.asked = True
            else:
                task.cancel()
            self.began = True
            self.m.goready(self.g.word)

    def late(self, gp: G) -> None:
        """gp's time is up."""
        if gp.word in self.live and gp.ends:
            gp.ends = 0
            self.m.view.be_late(gp.word)
            self.readied(gp.word)

    def running_g(self) -> G:
        return running.get() or self.g

    def wait(self, park: Callable[[], bool]) -> bool:
        """The code of one of them waits, and the loop with it, until park returns: it raises what it is to raise there."""
        self.waits = gp = self.running_g()
        try:
            return park()
        finally:
            self.waits = None
            if gp.asked and gp.word in self.live:  # what it waited for came first
                self.live[gp.word][1].cancel()
            gp.asked = False

    def host(self, gp: G) -> None:
        self.g.word, self.g.goid, self.g.fn, self.g.world = gp.word, gp.goid, gp.fn, self.m.worlds.current

    # ------------------------------------------------------------------ in the loop
    def serve(self) -> None:
        """What the loop's greenlet does."""
        m = self.m
        getcurrent().mark = stack_address()
        while True:
            while self.live or self.last:
                try:
                    call(self.loop.run_forever, (), {})
                except (SystemExit, KeyboardInterrupt):  # of a task: it is its result, too
                    pass
                except BaseException as e:  # of a signal handler, as the loop waited
                    report.unraisable(e, self.loop.run_forever)
                self.finish_last()
            m.curg, self.g.word = None, 0
            m.g0.switch()

    def finish_last(self) -> None:
        if self.last is None:
            return
        (gp, kind, out, objects), self.last = self.last, None
        if self.live:
            self.finish_host(gp, kind, out)
        else:
            self.m.lost = not self.m.view.complete(gp.word, kind, out)
        del objects

    def finish_host(self, gp: G, kind: int, out: Any) -> None:
        """gp is done, under whose word we run: from here on under another's."""
        other = next(iter(self.live.values()))[0]
        self.m.view.finish(gp.word, kind, out, other.word)
        self.host(other)

    def make_task(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=loop, **options)
        gp = running.get()
        if gp is not None and gp.word in self.live:
            self.tasks.setdefault(gp.word, WeakSet()).add(task)
        return task

    def ended(self, gp: G, coro: Coroutine[Any, Any, Any], task: asyncio.Task[Any]) -> None:
        """gp's task is done: its result is gp's.  The host's slot is another's to run under, before it is told."""
        m = self.m
        coro.close()  # one that was cancelled before its first step would be warned of, as nobody has awaited it
        if os.getpid() != m.pid:
            m.end_child(None if task.cancelled() else task.exception())
        kind, out = self.outcome(gp, task)
        objects = travel.hold(m.view) if travel.latest else None  # in the result: kept until that does it
        del self.live[gp.word]
        self.tasks.pop(gp.word, None)
        if m.output is not None and (m.output.out_lines or m.output.err_lines):
            m.output.settle(gp)
        if gp in m.changers:
            m.undo(gp)
        if gp.word != self.g.word:
            m.view.finish(gp.word, kind, out, 0)
        elif self.live:
            self.finish_host(gp, kind, out)
        else:
            self.last = gp, kind, out, objects
            self.loop.stop()

    def outcome(self, gp: G, task: asyncio.Task[Any]) -> tuple[int, Any]:
        """The result, encoded: user code."""
        m = self.m
        try:
            if task.cancelled() and m.view.asked(gp.word):
                raise m.cancellation(gp)
            kind, result = closure.encode_result(task.result(), gp.fn, gp.goid)
            return (kind, result) if isinstance(result, bytes) else m.pack(kind, result)
        except BaseException as e:
            error = e
        return m.failed(gp, error)  # not while it is handled, as in M.goexit

    def give_way(self, wait: bool, timeout: float | None) -> bool:
        """Called in each round of the loop: other Gs of the M run, if they can, and the loop parks if it is to wait.

        Returns:
            Whether it did: there may be events.
        """
        m = self.m
        m.view.steps_end()
        m.collect()
        if m.pending:
            m.run_handlers()
        g = self.g
        if g.asked:
            g.asked = False
            self.readied(g.word)
        if self.began or not wait:
            self.began = False
            if not (m.ready or m.yielded or m.view.async_work()):
                return False
            m.gosched()
            return True
        deadline = None if timeout is None else time.monotonic_ns() + int(timeout * 1e9)
        parked = Wait(m, self.selector.fileno(), False)
        try:
            m.gopark(parked, deadline, WHY_IO)
        finally:
            parked.end()
        return True
