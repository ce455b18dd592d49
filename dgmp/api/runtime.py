"""Runtime, and which one is this process's: the embedded one, which the first `go` boots, or inside an M the M's own.

A Runtime makes the segment, starts the coordinator's process with it, and is a client of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from .._core import View, alarm
from ..errors import CoordinatorDied, Deadlock, DgmpError, RuntimeClosed, WorkerDied
from ..runtime import boot, limits, nodes, numbers
from . import ending, interpreter
from .start import boot_message, interrupts_held, start_coordinator, stdio_taken

if TYPE_CHECKING:
    from typing import Unpack

    from ..runtime.proc import G
    from .chan import Chan
    from .client import Client
    from .future import Future
    from .member import Member
    from .node import Node
    from .output import Output
    from .snapshot import Snapshot
    from .world import Teller

T = TypeVar("T")
CLOSE_SECONDS = 1.0
MOST_CLIENTS = 30  # as in coordinator.sessions, which is imported where it is needed
LOOK_NS = 250_000_000  # how often close looks whether all Gs are asleep for ever
CLOSE_PAUSE_SECONDS, LONGEST_CLOSE_PAUSE_SECONDS = 0.001, 0.02


class Runtime:
    """A runtime of its own: Ps, Ms and a coordinator; ends with its `with` block or `close()`.

    Args:
        procs: how many Ps, that is how many Gs run at once (Go: GOMAXPROCS).  Default: DGMP_PROCS, else the cores this
            process may use (affinity and cgroup quota).
        max_ms: at most so many processes; default 64 + procs.
        pin: True binds each M to the core of the P it holds, False never does.  Default: they are bound when there is a P
            for every core, no CPU quota and no other runtime, and let loose while they have to wait for their core.
        max_tasks_per_child: an M that has run so many Gs ends, once it has no started G any more and all that it has spawned
            have ended, and another is made when work needs one.  A chunk of a map is one G.  Default:
            DGMP_MAX_TASKS_PER_CHILD, else no limit.
        memory_limit: how much memory an M may take of its own, beside what it shares with others: an M found above it ends
            between two Gs, as above; one that takes half as much again is killed, and the G that it runs ends with WorkerDied.
            A number of bytes, a text such as "2GB" or "512 MiB", a fraction of the memory that there is, or both limits:
            (soft, hard).  Default: DGMP_MEMORY_LIMIT, else no limit.
        on_worker_death: what becomes of a G whose process dies.  "fail": it ends with WorkerDied, unless it was spawned with
            `retries`.  "retry": it is run again, up to crash_limit.  "break": the runtime ends, and all Gs with WorkerDied, as
            concurrent.futures does it.
        crash_limit: a G is not run again once so many processes have died while it ran.
        grace: seconds after which a G's process is killed if it runs on after it was cancelled or its timeout has passed; an
            infinite one: never.
        executable: the Python that its processes run, of this program's version.  Default: DGMP_PYTHON, else
            sys.executable.
        attach: True joins the node that `dgmp up` has started, a path that which listens there: its Ps, Ms and limits are used
            together with other programs, which nothing else is said of.  Gs find what is around this program, but they run in
            processes that may run others' between them, and what these write to descriptors 1 and 2 is the node's.  close(), or
            this program's death, cancels its Gs; the node stays.
        listen: the path of a socket at which other programs of this user may attach, as long as this one has the runtime open.
            Its folder must be this user's, and others must not write to it.  Or a socket that listens at such a path, which
            from then on is the runtime's.
        main, path: for `dgmp run`: the main G's call, and sys.path in Ms.

    Raises:
        TypeError, ValueError: procs, max_ms, pin or a limit is of the wrong kind or out of range.
        CannotAttach: there is no node, or it is another user's, or runs another Python or version of dgmp.
        OSError: no memory, descriptors or processes for it.
        RuntimeError: executable, or the default for it, is empty, not there or not such a Python.
        RuntimeClosed: the program is ending.

    Example:
        >>> import dgmp
        >>> with dgmp.Runtime(procs=2) as rt:
        ...     rt.go(sum, [1, 2, 3]).result()
        6
    """

    def __init__(self, procs: int | None = None, *, max_ms: int | None = None, pin: bool | None = None,
                 max_tasks_per_child: int | None = None,
                 memory_limit: int | float | str | tuple[int | float | str, int | float | str] | None = None,
                 executable: str | os.PathLike[str] | None = None, on_worker_death: str = "fail", crash_limit: int = 3,
                 grace: float = 5.0, attach: bool | str | os.PathLike[str] = False,
                 listen: str | os.PathLike[str] | socket.socket | None = None,
                 main: tuple[Callable[..., Any], tuple[Any, ...]] | None = None, path: list[str] | None = None) -> None:
        refuse_member("start a Runtime")
        if ending.ended:
            raise RuntimeClosed("the program is ending")
        self._closed = False
        self._closing = threading.RLock()
        self._stopping = threading.RLock()
        self._hearing = threading.RLock()
        self._last_words: bytes | None = None  # of the coordinator; b"": it had none
        self._owner = os.getpid()
        self._socket: socket.socket | None = None
        self._pid = 0
        self._teller: Teller | None = None
        self._listens: tuple[str, int] | None = None
        if attach is not False:
            said = (procs, max_ms, pin, max_tasks_per_child, memory_limit, executable, listen, main, path)
            if any(x is not None for x in said) or (on_worker_death, crash_limit, grace) != ("fail", 3, 5.0):
                raise TypeError("Runtime(attach=...) joins a node as it is: nothing else can be said of it")
            return self._join(attach)
        procs = None if procs is None else numbers.whole("procs", procs)
        max_ms = None if max_ms is None else numbers.whole("max_ms", max_ms)
        if pin not in (None, True, False):
            raise TypeError(f"pin must be True, False or None, not {pin!r}")
        max_tasks, memory = limits.max_tasks(max_tasks_per_child), limits.memory(memory_limit)
        if on_worker_death not in ("fail", "retry", "break"):
            raise ValueError(f'on_worker_death must be "fail", "retry" or "break", not {on_worker_death!r}')
        from .terms import grace_of

        failing = {"on_worker_death": on_worker_death, "crash_limit": numbers.at_least("crash_limit", crash_limit, 1),
                   "grace_ns": grace_of(grace)}
        self._executable = interpreter.find(executable)
        ncpu = boot.osinit()
        with contextlib.ExitStack() as undo, stdio_taken():
            self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            undo.callback(os.close, self._event)
            self._alarm = alarm()
            undo.callback(os.close, self._alarm)
            listener = self._listen(listen, undo) if listen is not None else None
            segment, view = boot.schedinit(ncpu, procs, max_ms, self._event, self._alarm, MOST_CLIENTS if listener else 0)
            try:
                undo.callback(view.close, RuntimeClosed("this runtime did not boot"))
                undo.callback(self._stop_coordinator)
                options = {"foreground": main is not None, "max_ms": view.max_ms,
                           "max_tasks": max_tasks, "memory": memory,
                           "binding": boot.binding(pin, ncpu, view.nprocs),
                           "listen": self._listens,
                           "schedtrace_ns": boot.schedtrace_ms() * 1_000_000} | failing | ({"path": path} if path else {})
                output = self._start_processes(view, segment, options, listener, undo)
            finally:
                os.close(segment)
            undo.callback(output.close)
            from . import quit
            from .client import Client  # what takes long to import is imported while the others start, too

            self.node: Client = Client(view, self._alive, self._stop_coordinator, output if main is None else None)
            self._procs = view.nprocs
            self.main: Future[Any] = self._newproc(main)
            if main is not None:
                self.node.main_word = self.main.word
            self._mstart(view)
            quit.install(view)
            _runtimes.add(self)
            undo.pop_all()

    # ------------------------------------------------------------------ attaching
    def _join(self, attach: object) -> None:
        """Becomes a client of a node that others have booted."""
        from . import quit
        from .attach import join, place_of
        from .client import Client
        from .output import Output
        from .world import Teller

        where = place_of(attach)
        with contextlib.ExitStack() as undo, stdio_taken():
            output = Output()
            undo.callback(output.close)
            at = join(where, output.theirs.fileno())
            self._socket, self._event, self._alarm = at.connection, at.event, at.alarm
            undo.callback(self._close_descriptors)
            undo.callback(self._leave, at.connection)
            undo.callback(at.view.close, RuntimeClosed("this program did not attach"))
            self._teller = Teller(at.view, base=at.base)
            self._teller.watch_files()
            output.start()
            self.node = Client(at.view, self._alive, self._stop_coordinator, output, self._teller)
            self._procs = at.view.nprocs
            quit.install(at.view)
            _runtimes.add(self)
            undo.pop_all()

    def _listen(self, path: str | os.PathLike[str] | socket.socket, undo: contextlib.ExitStack) -> socket.socket:
        """The socket at which others may attach."""
        if isinstance(path, socket.socket):
            undo.callback(path.close)
            path.set_inheritable(False)
            self._listens = path.getsockname(), 0  # whoever has made the file removes it: no file has that inode
            return path
        from ..coordinator.sessions import listening

        where = os.path.abspath(os.fsdecode(path))
        listener = listening(where)
        undo.callback(listener.close)
        self._listens = where, os.lstat(where).st_ino
        undo.callback(self._listen_no_more)
        return listener

    def _listen_no_more(self) -> None:
        if self._listens is not None:
            from ..coordinator.sessions import remove

            remove(*self._listens)

    # ------------------------------------------------------------------ boot
    def _start_processes(self, view: View, segment: int, options: dict[str, Any],
                         listener: socket.socket | None, undo: contextlib.ExitStack) -> Output:
        """Starts the coordinator, which makes the zygote.  Returns our end of what the Ms will print."""
        from .output import Output, streams  # what only clients need: Ms start sooner without
        from .world import Teller

        self._teller = Teller(view)
        undo.callback(self._teller.close)
        output = Output()
        base = {"base": self._teller.base} if listener is not None else {}
        message = boot_message(self._teller.base, options | {"streams": streams()} | base)
        try:
            self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._socket.setblocking(False)
            channel = [output.theirs.fileno(), *([output.ours.fileno()] if options["foreground"] else [])]
            channel += [listener.fileno()] if listener is not None else []
            with theirs, interrupts_held():
                descriptors = [segment, self._event, theirs.fileno(), self._alarm, message, *channel]
                self._pid = start_coordinator(self._executable, descriptors)
            if options["foreground"]:
                output.give_away()
            else:
                output.start()
        except BaseException:
            output.close()
            raise
        finally:
            os.close(message)
            if listener is not None:
                listener.close()
        self._teller.watch_files()
        return output

    def _newproc(self, main: tuple[Callable[..., Any], tuple[Any, ...]] | None) -> Future[Any]:
        """The main G: on the queue before anything runs, so m0 runs it first."""
        from .node import MAIN_G

        fn, args = main or (boot.main, ())
        future = self.node.go(fn, args, {}, "main", 2, MAIN_G)
        boot.trace(f"newproc: main G ({fn.__module__}.{fn.__name__})")
        return future

    @staticmethod
    def _mstart(view: View) -> None:
        """Has the coordinator start m0 with allp[0]."""
        view.start_m0()

    def _send(self, message: dict[str, Any]) -> None:
        """To the coordinator, if it is there."""
        if self._socket is not None:
            import msgpack

            with contextlib.suppress(OSError):
                self._socket.send(msgpack.packb(message))

    def _close_descriptors(self) -> None:
        os.close(self._event)
        os.close(self._alarm)
        self._listen_no_more()
        if self._teller is not None:
            self._teller.close()

    def _alive(self) -> bool:
        """Whether the coordinator is there; its last words, if it had any, are what the pending Futures end with."""
        channel = self._socket
        if channel is None:
            return False
        died = self.node.view.coordinator_died()  # first: if it has, its last words have been said
        with self._hearing:  # they come once, and whichever thread notices is to know them
            heard = self._last_words if self._last_words is not None else hear(channel)
            if heard is None:
                return not died
            self._last_words = heard
        if heard:
            import msgpack

            message = msgpack.unpackb(heard)
            self.node.end(broken(message["broken"]) if "broken" in message else CoordinatorDied(message["fatal"]))
        return False

    # ------------------------------------------------------------------ use
    def go(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Runs `fn(*args, **kwargs)` as a G of this runtime (Go: the go statement)."""
        return self.node.go(fn, args, kwargs, None, 2)

    def spawn(self, fn: Callable[..., T], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None, *,
              name: str | None = None, **terms: Unpack[Terms]) -> Future[T]:
        """As `dgmp.spawn`, on this runtime."""
        return self.node.go(fn, *call(args, kwargs, name), 2, None, say(self.node, terms))

    def map(self, fn: Callable[..., T], /, *iterables: Iterable[Any], chunksize: int | None = None,
            buffersize: int | None = None) -> Iterator[T]:
        """As `dgmp.map`, on this runtime."""
        from .map import start

        return start(self.node, fn, iterables, chunksize, buffersize, 2)

    def starmap(self, fn: Callable[..., T], iterable: Iterable[Iterable[Any]], /, chunksize: int | None = None,
                buffersize: int | None = None) -> Iterator[T]:
        """As `dgmp.starmap`, on this runtime."""
        from .map import start

        return start(self.node, fn, (iterable,), chunksize, buffersize, 2, starred=True)

    def map_unordered(self, fn: Callable[..., T], /, *iterables: Iterable[Any], chunksize: int | None = None,
                      buffersize: int | None = None) -> Iterator[T]:
        """As `dgmp.map_unordered`, on this runtime."""
        from .map import start

        return start(self.node, fn, iterables, chunksize, buffersize, 2, ordered=False)

    def chan(self, capacity: int = 0) -> Chan[Any]:
        """A `dgmp.Chan` of this runtime."""
        from .chan import Chan

        return Chan(capacity, runtime=self)

    def stats(self) -> dict[str, Any]:
        """Counters and queue lengths of the scheduler, as a dict.

        gs (executed), spawned, num_g (not yet collected), steals, stolen, parks, globals (taken from the global queue),
        ms_made; gomaxprocs, idleprocs, threads, idlethreads, spinningthreads, needspinning, runqueue, runq; large_blocks and
        large_bytes (in shared memory: arguments and results of 64 KiB and more, until nobody reads them any more); objects
        (channels and the like: one that has travelled is counted for a moment after nobody refers to it any more).
        """
        if self.node.gone is not None:
            raise self.node.ended()
        return self.node.stats()

    def gomaxprocs(self, n: int | None = None) -> int:
        """As `dgmp.gomaxprocs`, of this runtime."""
        return self.node.gomaxprocs(n)

    def snapshot(self) -> Snapshot:
        """As `dgmp.snapshot`, of this runtime."""
        from .snapshot import take

        if self.node.gone is not None:
            raise self.node.ended()
        return take(self.node.view)

    def send_signal(self, number: int) -> None:
        """Sends a signal to m0, for the script of `dgmp run`."""
        self._send({"signal": int(number)})

    def close(self, cancel: bool = False) -> None:
        """Ends the runtime; then nothing is left behind.  May be called from several threads, and more than once.

        Waits for all Gs, also for those that Gs have spawned.  What threads still wait for ends with RuntimeClosed.

        Args:
            cancel: drop the Gs that have not finished instead.

        Raises:
            Deadlock: all of them wait, for nothing that can come; the runtime is closed all the same.
        """
        if self._owner != os.getpid():
            return
        try:
            if not cancel:
                self._wait_for_all()
        finally:
            with self._closing:
                if not self._closed:
                    self._closed = True
                    self._end()

    def _wait_for_all(self) -> None:
        """For the Gs of this program by waiting, for those of Gs by looking again and again."""
        pause = CLOSE_PAUSE_SECONDS
        looked = time.monotonic_ns()
        while self.node.gone is None:
            try:
                for future in self.node.view.pending():
                    self._wait_for(future)
                if not self.node.view.unfinished():
                    return
                if time.monotonic_ns() - looked > LOOK_NS:
                    looked = time.monotonic_ns()
                    self.node.look(True)
            except Deadlock:
                raise
            except DgmpError:  # closed by another thread, or its coordinator died
                return
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_CLOSE_PAUSE_SECONDS)

    @staticmethod
    def _wait_for(future: Any) -> None:
        try:
            future.exception()
        except Deadlock:
            raise
        except Exception:
            pass

    def _end(self) -> None:
        from . import quit

        _runtimes.discard(self)
        quit.remove(self.node.view)
        try:
            with contextlib.suppress(DgmpError):
                self.node.collect()
            self.node.end(RuntimeClosed("the program is ending" if ending.ended else "the runtime was closed"))
            self._stop_coordinator()  # if another thread has begun to, until it has
            if self.node.output is not None:  # all that Ms have sent lies in it: they are dead
                self.node.output.close()
        finally:
            with contextlib.suppress(OSError):  # os.closerange in the program
                self._close_descriptors()

    def _stop_coordinator(self) -> None:
        """Everything of the node ends with it; it does when it is told to, or when our end of the socket is closed."""
        with self._stopping:
            if self._socket is None:
                return
            if self._pid:
                with self._socket:
                    self._send({"close": True})
                    if not self._reap(CLOSE_SECONDS):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(self._pid, signal.SIGKILL)
                        self._reap(CLOSE_SECONDS)
            elif not hasattr(self, "node"):  # it could not be made
                self._socket.close()
            elif self.node.view.keep(self._socket.fileno()):
                self._send({"close": True})
                self._socket.detach()  # closed with the mapping, in which results are read
            else:
                self._leave(self._socket)
            self._socket = None

    def _leave(self, connection: socket.socket) -> None:
        """The node's, which closes its end when nothing of ours is left there."""
        with connection, contextlib.suppress(OSError):
            self._send({"close": False})
            connection.settimeout(CLOSE_SECONDS)
            while connection.recv(1 << 16):
                pass

    def _reap(self, seconds: float) -> bool:
        """Waits for the coordinator's end; then what Gs have started is ended too, if it was killed and could not do that."""
        deadline = time.monotonic() + seconds
        try:
            while not os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if time.monotonic() > deadline:
                    return False
                self._wait_for_end(deadline)
            with contextlib.suppress(OSError):  # before its pid, which names the group, is given free
                os.killpg(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        except ChildProcessError:  # the program waits for all its children, or ignores SIGCHLD
            pass
        return True

    def _wait_for_end(self, deadline: float) -> None:
        """Until the coordinator has ended, or for a moment if there is no descriptor to wait with."""
        import select

        try:
            fd = os.pidfd_open(self._pid)
        except OSError:
            time.sleep(CLOSE_PAUSE_SECONDS)
            return
        try:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll(max(0, deadline - time.monotonic()) * 1000)
        finally:
            os.close(fd)

    def __repr__(self) -> str:
        procs = self._procs if self.node.gone is not None else self.node.view.nprocs
        return f"<dgmp.Runtime procs={procs} {'open' if self.node.gone is None else 'closed'}>"

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, kind: object, error: object, tb: object) -> None:
        self.close(cancel=kind is not None)


def call(args: Any, kwargs: Any, name: Any) -> tuple[tuple[Any, ...], dict[str, Any], str | None]:
    """The parameters of `spawn`, if they are such as it takes."""
    if not isinstance(args, (tuple, list)):
        raise TypeError(f"args must be a tuple or list, not {type(args).__name__}")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError(f"kwargs must be a dict, not {type(kwargs).__name__}")
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a string, not {type(name).__name__}")
    return tuple(args), dict(kwargs or {}), name


class Terms(TypedDict, total=False):
    """The further parameters of `spawn`."""

    retries: int
    retry_on: type[BaseException] | tuple[type[BaseException], ...]
    backoff: float | Sequence[float]
    timeout: float | None
    grace: float | None
    crash_limit: int | None


def broken(how: dict[str, Any]) -> WorkerDied:
    """For all that a runtime ends with that does not outlive the death of an M."""
    from ..ship.death import last_lines

    error = WorkerDied(f"an M of this runtime (m{how['m']}, pid {how['pid']}) {how['how']}, and with it the runtime "
                       f'(on_worker_death="break"){last_lines(how)}')
    error.stderr = how.get("stderr", "")
    error.pid, error.exitcode = how["pid"], how["exitcode"]
    return error


def say(at: Node, said: Terms) -> bytes | None:
    """These, for the core."""
    if not said:
        return None
    for name in said.keys() - Terms.__annotations__.keys():
        raise TypeError(f"spawn() got an unexpected keyword argument {name!r}")
    from .terms import terms

    return terms(at, **said)


_runtimes: set[Runtime] = set()
_lock = threading.Lock()
_default: Runtime | None = None
_member: Member | None = None


def become_member(member: Member) -> None:
    """This process is an M: the module-level functions work on its runtime."""
    global _member
    _member = member


def refuse_member(what: str) -> None:
    if _member is not None and os.getpid() == _member.m.pid:
        raise RuntimeError(f"cannot {what} inside a G: dgmp.go() there uses the runtime that runs it")


@ending.at_end
def _close_all() -> None:
    for runtime in list(_runtimes):
        runtime.close(cancel=True)


def node() -> Node:
    """The runtime of this process; the embedded one is booted by the first who asks, and anew when it has died."""
    if _member is not None:
        return _member
    runtime = _default
    if runtime is None or not runtime.node.view.works():
        runtime = _boot_default()
    return runtime.node


def node_in(runtime: Runtime | None) -> Node:
    """That of the runtime which the caller of a public function has named, or of this process."""
    if runtime is None:
        return node()
    if not isinstance(runtime, Runtime):
        raise TypeError(f"runtime must be a dgmp.Runtime, not {type(runtime).__name__}")
    return runtime.node


def hear(channel: socket.socket) -> bytes | None:
    """What has come; b"" is the end, None nothing yet."""
    try:
        try:
            return channel.recv(1 << 16)
        except ConnectionResetError:  # something of ours was not read: that is said first, once
            return channel.recv(1 << 16)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _boot_default() -> Runtime:
    global _default
    with _lock:
        runtime = _default
        if runtime is None or runtime.node.died():
            if runtime is not None:
                with contextlib.suppress(DgmpError):
                    runtime.node.look()  # so that what is pending ends with CoordinatorDied
                runtime.close(cancel=True)  # what its coordinator has left
            runtime = _default = Runtime()
        elif runtime._owner != os.getpid():
            raise RuntimeError("this process was forked from a dgmp process and is no member of its runtime; start one "
                               "of its own with dgmp.Runtime()")
    return runtime


def node_of(runtime_id: int) -> Node | None:
    """This process's access to the runtime of that id, if it is a member or a client of it."""
    at: Node | None = nodes.get(runtime_id)
    return at if at is not None and at.gone is None else None


def current_g() -> G | None:
    """The G that calls; None outside of Gs."""
    return _member.m.curg if _member is not None and _member.m.in_g() else None
