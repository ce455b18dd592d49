"""What a G changes in its process is undone when it has ended: file mode mask, affinity, signals, descriptors 0 to 2, working
directory, environment, limits, tracing, and so on; the table is in docs/reliability.md.

Nothing is looked at as Gs end.  The functions of Python that make such a change are replaced in Ms by ones that note it, and
M.goexit has an empty set to look at when there was none.  A change belongs to the G that makes it; that of another thread,
and what a module does as it is imported, which it does once for all Gs, stays.  Where several Gs of an M have changed the
same, that of the one that came last holds.  What cannot be undone, as os.setuid, ends the M after its G, as Go ends the
thread of a goroutine that has ended while it was locked (proc.taint).

The descriptors through which an M is connected to the runtime are not there for os.close and its like.  Code in C that closes
those finds them: then the M ends (LOST_DESCRIPTORS, _core/idle.c).

install() is called by the zygote, Changes is made by workers.m.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import operator
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .imports import when_imported
from .preempt import importing

if TYPE_CHECKING:
    from .proc import G, M

LOOK_NS = 100_000_000  # how often an M that has nothing to do looks whether code in C has closed its stdio
# (module, what sets it, what tells it); the first ones are noted before they are set, as Python calls back from then on.
TRACERS = [(sys, "settrace", "gettrace"), (sys, "setprofile", "getprofile")]
SETTINGS = [
    (sys, "setrecursionlimit", "getrecursionlimit"), (sys, "setswitchinterval", "getswitchinterval"),
    (sys, "set_int_max_str_digits", "get_int_max_str_digits"), (sys, "setdlopenflags", "getdlopenflags"),
    (socket, "setdefaulttimeout", "getdefaulttimeout"),
]
FOR_EVER = ["chroot", "setuid", "seteuid", "setreuid", "setresuid", "setgid", "setegid", "setregid", "setresgid", "setgroups",
            "initgroups", "setsid", "setpgid", "setpgrp", "unshare", "setns", "sched_setscheduler", "sched_setparam"]
# In this order, and before all others: the rest needs a stack, and an alarm must not find its handler gone.
FIRST = [("setrecursionlimit",), *(("setitimer", timer) for timer in (0, 1, 2)), ("dump_traceback_later",)]


class Setting:
    """Something that Gs have changed.

    Args:
        before: what it was.
        put: sets it.
        made: who has set it, and to what, in order.
    """

    __slots__ = ("before", "put", "made")

    def __init__(self, before: Any, put: Callable[[Any], object], made: list[tuple[G, Any]]) -> None:
        self.before, self.put, self.made = before, put, made


class Changes:
    """What Gs have changed in the process of an M.

    Args:
        m: the M.
        ours: descriptors that user code must not close.
        stdio: copies of what descriptors 0 to 2 are as long as no G changes them; None: /dev/null.
    """

    def __init__(self, m: M, ours: list[int], stdio: tuple[int | None, int, int]) -> None:
        global changes
        changes = self
        self.m, self.stdio = m, stdio
        self.ours = sorted({fd for fd in (*ours, *stdio) if fd is not None})
        self.settings: dict[Any, Setting] = {}
        self.undoing = False
        self.next_look = 0
        m.changed, m.undo, m.look_around = self.changed, self.undo, self.look_around
        m.worlds.entered = self.world_entered

    # ------------------------------------------------------------------ noting
    def whose(self) -> G | None:
        """The G that is about to change something, and will have it undone."""
        m = self.m
        if self.undoing or m.curg is None or os.getpid() != m.pid:
            return None
        gp = m.running_g()
        return None if gp is None or importing(sys._getframe()) else gp

    def changed(self, key: Any, before: Any, after: Any, put: Callable[[Any], object]) -> None:
        """What `key` names was `before` and is `after`; put sets it."""
        gp = self.whose()
        setting = self.settings.get(key)
        if gp is None:
            if setting is not None and not self.undoing:
                setting.before = after
            return
        self.m.changers.add(gp)  # first: a signal handler may raise between any two of these
        if setting is None:
            setting = Setting(before, put, [(gp, after)])
        else:
            setting.made = [*(x for x in setting.made if x[0] is not gp), (gp, after)]
        self.settings[key] = setting

    def world_entered(self) -> None:
        """Directory and environment have all been set anew."""
        for key in [key for key in self.settings if key[0] in ("chdir", "putenv")]:
            del self.settings[key]

    # ------------------------------------------------------------------ undoing
    def undo(self, gp: G) -> None:
        """gp has ended.  Raises nothing."""
        self.undoing = True
        for key in (*FIRST, *list(self.settings)):
            setting = self.settings.get(key)
            if setting is None:
                continue
            last = setting.made[-1][0]
            left = [x for x in setting.made if x[0] is not gp]
            if last is gp and not (self.put(setting, left) or self.put(setting, left)):  # a tracer may have raised: once
                self.m.taint()
            setting.made = left
            if not left:
                del self.settings[key]
        self.undoing = False
        self.m.changers.discard(gp)

    @staticmethod
    def put(setting: Setting, left: list[tuple[G, Any]]) -> bool:
        try:
            setting.put(left[-1][1] if left else setting.before)
            return True
        except Exception:
            return False

    def look_around(self) -> None:
        """The M has nothing to do: descriptors 0 to 2 are there again, if somebody has closed them, as open(0).close() does."""
        now = time.monotonic_ns()
        if now < self.next_look:
            return
        self.next_look = now + LOOK_NS
        for fd in range(3):
            if ("fd", fd) not in self.settings:
                try:
                    os.get_inheritable(fd)
                except OSError:
                    self.restore_fd(fd)

    def restore_fd(self, fd: int) -> None:
        kept = self.stdio[fd]
        with contextlib.suppress(OSError):
            if kept is not None:
                raw_dup2(kept, fd)
            else:
                null = os.open(os.devnull, os.O_RDWR)
                raw_dup2(null, fd)
                if null != fd:
                    raw_close(null)

    def is_ours(self, fd: Any) -> bool:
        return fd in self.ours and os.getpid() == self.m.pid

    def fd_changed(self, fd: int) -> None:
        self.changed(("fd", fd), None, None, lambda _: self.restore_fd(fd))


changes: Changes | None = None  # of this process, if it is an M
raw_close, raw_dup2 = os.close, os.dup2
raw_putenv, raw_unsetenv = os.putenv, os.unsetenv


def keep(fd: int) -> None:
    """User code must not close that descriptor, from here on."""
    if changes is not None:
        changes.ours = sorted({*changes.ours, fd})


def keep_no_more(fd: int) -> None:
    if changes is not None:
        changes.ours = [x for x in changes.ours if x != fd]


def noted(*what: Any) -> None:
    if changes is not None:
        changes.changed(*what)


# ---------------------------------------------------------------------- what stands in for functions of Python
def replace(module: ModuleType, name: str, make: Callable[[Any], Any]) -> None:
    """module.name becomes make(the original), also in the module in C that it is from."""
    original = getattr(module, name, None)
    if original is None:  # this platform has none
        return
    stand_in = wraps(original)(make(original))
    for place in {module.__name__, original.__module__ or ""} & sys.modules.keys():
        if getattr(sys.modules[place], name, None) is original:
            setattr(sys.modules[place], name, stand_in)


def setter(name: str, get: Callable[[], Any], before_it: bool) -> Callable[[Any], Any]:
    """For a function that sets what get() tells.  before_it: it is noted before."""

    def make(original: Any) -> Any:
        def stand_in(*args: Any, **kwargs: Any) -> Any:
            if changes is None:
                return original(*args, **kwargs)
            before = get()
            if before_it and args:
                changes.changed((name,), before, args[0], original)
                return original(*args, **kwargs)
            try:
                return original(*args, **kwargs)
            finally:
                changes.changed((name,), before, get(), original)

        return stand_in

    return make


def noting(note: Callable[..., Callable[[Any], object] | None]) -> Callable[[Any], Any]:
    """note(original, *args), called before, returns what to call with the function's value after; or None."""

    def make(original: Any) -> Any:
        def stand_in(*args: Any, **kwargs: Any) -> Any:
            if changes is None:
                return original(*args, **kwargs)
            after = note(original, *args, **kwargs)
            value = original(*args, **kwargs)
            if after is not None:
                after(value)
            return value

        return stand_in

    return make


def umask(original: Any, mask: Any) -> Any:
    return lambda before: noted(("umask",), before, mask, original)


def affinity(original: Any, pid: Any, mask: Any) -> Any:
    if changes is None or pid not in (0, os.getpid()):
        return None
    m = changes.m
    if m.affinity is not None:
        m.affinity.let_loose()
    before, mask = os.sched_getaffinity(0), list(mask)

    def put(cores: Any) -> None:
        original(0, cores)
        m.view.set_bound(m.view.id, -1)  # the coordinator may have bound us meanwhile

    return lambda _: noted(("affinity",), before, mask, put)


def signal_mask(original: Any, how: Any, mask: Any) -> Any:
    put = lambda blocked: original(signal.SIG_SETMASK, blocked)  # noqa: E731
    return lambda before: noted(("pthread_sigmask",), before, original(signal.SIG_BLOCK, ()), put)


def timer(original: Any, which: Any, *args: Any, **kwargs: Any) -> Any:
    return lambda _: noted(("setitimer", int(which)), 0, 0, lambda _: original(which, 0))


def alarm(original: Any, seconds: Any) -> Any:
    return lambda _: noted(("setitimer", signal.ITIMER_REAL), 0, 0, lambda _: original(0))


def wakeup_fd(original: Any, fd: Any, **kwargs: Any) -> Any:
    return lambda before: noted(("set_wakeup_fd",), before, fd, original)


def later(original: Any, *args: Any, **kwargs: Any) -> Any:
    cancel = faulthandler.cancel_dump_traceback_later
    return lambda _: noted(("dump_traceback_later",), None, None, lambda _: cancel())


def priority(original: Any, *args: Any, **kwargs: Any) -> Any:
    """os.nice and os.setpriority, of whatever.  To go back takes a privilege; without it the M ends."""
    before = os.getpriority(os.PRIO_PROCESS, 0)

    def after(_: Any) -> None:
        now = os.getpriority(os.PRIO_PROCESS, 0)
        if now != before:
            noted(("priority",), before, now, lambda nice: raw_setpriority(os.PRIO_PROCESS, 0, nice))

    return after


def for_ever(original: Any, *args: Any, **kwargs: Any) -> None:
    """Noted before: after sys.addaudithook perhaps nothing works any more."""
    noted(("for ever",), None, None, cannot_be_undone)


def cannot_be_undone(_: Any) -> None:
    raise OSError


def directory(original: Any, *args: Any, **kwargs: Any) -> Any:
    return lambda _: noted(("chdir",), None, current_directory(), to_directory)


def current_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it has been removed
        return None


def to_directory(path: str | None) -> None:
    if path is not None:
        raw_chdir(path)
    elif changes is not None:
        worlds = changes.m.worlds
        worlds.change_directory(worlds.of(worlds.current)["cwd"])


def variable(original: Any, name: Any, *value: Any) -> Any:
    """os.environ calls these before it changes its own copy."""
    key = os.fsencode(name)
    before, after = os.environ._data.get(key), os.fsencode(value[0]) if value else None  # type: ignore[attr-defined]

    def put(value: bytes | None) -> None:
        if value is None:
            raw_unsetenv(key)
            os.environ._data.pop(key, None)  # type: ignore[attr-defined]
        else:
            raw_putenv(key, value)
            os.environ._data[key] = value  # type: ignore[attr-defined]

    return lambda _: noted(("putenv", key), before, after, put)


def close(original: Any) -> Any:
    def stand_in(fd: Any) -> None:
        if changes is not None and changes.is_ours(fd):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        original(fd)
        if changes is not None and 0 <= fd <= 2:
            changes.fd_changed(fd)

    return stand_in


def closerange(original: Any) -> Any:
    def stand_in(fd_low: Any, fd_high: Any, /) -> None:
        low, high = operator.index(fd_low), operator.index(fd_high)
        if changes is None or os.getpid() != changes.m.pid:
            original(low, high)
            return
        at = low
        for fd in [fd for fd in changes.ours if low <= fd < high]:
            original(at, fd)
            at = fd + 1
        original(at, high)
        for fd in range(max(low, 0), min(high, 3)):
            changes.fd_changed(fd)

    return stand_in


def dup2(original: Any) -> Any:
    def stand_in(fd: Any, fd2: Any, *args: Any, **kwargs: Any) -> Any:
        if changes is not None and changes.is_ours(fd2):
            raise OSError(errno.EBUSY, f"descriptor {fd2} is one through which dgmp works")
        new = original(fd, fd2, *args, **kwargs)
        if changes is not None and 0 <= new <= 2:
            changes.fd_changed(new)
        return new

    return stand_in


raw_setpriority, raw_chdir = os.setpriority, os.chdir


def install() -> None:
    """In the zygote, before anything of the user's is imported: its Ms have them."""
    for module, name, get in TRACERS + SETTINGS:
        replace(module, name, setter(name, getattr(module, get), (module, name, get) in TRACERS))
    notes: list[tuple[ModuleType, str, Callable[..., Callable[[Any], object] | None]]] = [
        (os, "umask", umask), (os, "sched_setaffinity", affinity), (os, "nice", priority), (os, "setpriority", priority),
        (signal, "pthread_sigmask", signal_mask), (signal, "set_wakeup_fd", wakeup_fd), (signal, "setitimer", timer),
        (signal, "alarm", alarm), (faulthandler, "dump_traceback_later", later), (sys, "addaudithook", for_ever),
        (os, "chdir", directory), (os, "fchdir", directory), (os, "putenv", variable), (os, "unsetenv", variable),
        *((os, name, for_ever) for name in FOR_EVER),
    ]
    for module, name, note in notes:
        replace(module, name, noting(note))
    replace(os, "close", close)
    replace(os, "closerange", closerange)
    replace(os, "dup2", dup2)
    when_imported("locale", watch_locale)
    when_imported("resource", watch_limits)


def watch_locale(module: Any) -> None:
    def note(original: Any, category: Any, locale: Any = None) -> Any:
        if locale is None:
            return None
        before = original(category)
        return lambda after: noted(
            ("setlocale", category), before, after, lambda name: original(category, name))

    replace(module, "setlocale", noting(note))


def watch_limits(module: Any) -> None:
    def note(original: Any, which: Any, limits: Any) -> Any:
        before = module.getrlimit(which)
        return lambda _: noted(
            ("setrlimit", which), before, module.getrlimit(which), lambda limits: original(which, limits))

    replace(module, "setrlimit", noting(note))
