"""The coordinator's process: its I/O, around the state machine in state.py.

Started by the client (api.start) with six descriptors: the segment, an eventfd that wakes it, a socketpair to the client,
sysmon's alarm, a memfd with the boot message, a marshalled dict, and the end of the output channel that it keeps for its Ms
(api.output); for `dgmp run` also the other end, which is m0's, or else for a node to which others may attach the socket on
which it listens (sessions).  On the socket go msgpack messages: {"signal": number}, which
is for m0, and {"close": true}; back: {"fatal": text}, or {"broken": how an M died}; end of file means the other is gone.
It watches the client by that socket and a pidfd, its Ms by pidfds, the zygote by its socket.
Being a subreaper it becomes the parent of the Ms that the zygote double-forks, and of what their Gs started when they
die: these it reaps, and ends with the node unless they have made a session of their own.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import struct
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from .._core import KIND_CLIENT, View, become_subreaper, when_parent_dies
from .binding import NAME, Binder, alone, set_affinity, waited
from .memory import Watch, own, resident
from .state import FAILED, LOST_DESCRIPTORS, Action, Coordinator
from .words import Words

if TYPE_CHECKING:
    from .sessions import Sessions

# Where the client puts them; 14 has been read.
SEGMENT_FD, EVENT_FD, CLIENT_FD, ALARM_FD, OUTPUT_FD, SHOWER_FD = 10, 11, 12, 13, 15, 16
LISTEN_FD = SHOWER_FD
STOP_SECONDS = 0.2  # longer takes only a process in the middle of a system call that nothing interrupts
MOST_ASKED = 1000  # Gs of an M at once, while it is stopped
SPARE_FDS = 8  # that sysmon and a new zygote can count on
TO_ZYGOTE, FROM_ZYGOTE = struct.Struct("i"), struct.Struct("ii")  # M number; and pid or -errno
BLAS_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
                  "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS")

# What exit codes of ours say; those of user code may be the same.
REASONS = {FAILED: " (perhaps user code has changed Python's own modules: see its stderr)",
           LOST_DESCRIPTORS: " (perhaps user code in C has closed the runtime's descriptors)"}
SAY_MS = 20  # what a message is worth, where the client's stderr is full


class Server:
    """One node's coordinator process.

    Args:
        boot: the boot message (api.start).
    """

    def __init__(self, boot: dict[str, Any]) -> None:
        self.client = socket.socket(fileno=CLIENT_FD)
        self.boot = boot
        last = (SHOWER_FD,) if boot["foreground"] or boot["listen"] else ()
        for fd in (SEGMENT_FD, EVENT_FD, CLIENT_FD, ALARM_FD, OUTPUT_FD, *last):
            os.set_inheritable(fd, False)  # nothing that Gs start has them
        self.pid = os.getpid()
        self.stdio = self.take_stdio()
        self.view = View(SEGMENT_FD, self.boot["max_ms"] + 1, EVENT_FD, ALARM_FD)
        self.view.attach(KIND_CLIENT, self.pid)
        self.view.be_coordinator()
        self.state = Coordinator(self.view, self.boot["schedtrace_ns"], time.monotonic_ns(), self.boot["cores"],
                                 self.boot["on_worker_death"], self.boot["crash_limit"], self.boot["grace_ns"])
        if boot["memory"]:
            self.state.memory = Watch(self.view, *boot["memory"], resident, own)
        self.state.foreground = 0 if boot["foreground"] else -1
        self.binder: Binder | None = None
        if self.boot["binding"] != "never":
            self.binder = Binder(self.view, self.boot["cores"], self.boot["binding"] == "forced", waited, alone, set_affinity)
        self.words = Words()
        boot["crashes"] = self.words.fd
        self.poll = select.epoll()
        self.handlers: dict[int, Any] = {}
        self.zygote: socket.socket | None = None
        self.zygote_pid = 0
        self.most_watched = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FDS  # numbers of pidfds are below it
        self.unwatched: dict[int, int] = {}  # pid -> m, of whom SIGCHLD alone tells
        self.has_shower = boot["foreground"]
        self.sessions: Sessions | None = None
        self.last_words: dict[str, Any] | None = None  # to the client
        self.done = False

    @staticmethod
    def take_stdio() -> tuple[int, int, int]:
        """Our own stdio becomes /dev/null; the client's, where it is not closed, is kept for the Ms."""
        import fcntl

        while (null := os.open(os.devnull, os.O_RDWR)) <= 2:  # it takes the place of one that is closed
            os.set_inheritable(null, True)
        kept = tuple(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20) for fd in (0, 1, 2))
        for fd in (0, 1):
            os.dup2(null, fd)
        os.close(null)
        return kept  # type: ignore[return-value]

    def watch(self, fd: int, handler: Any) -> None:
        self.handlers[fd] = handler
        self.poll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        del self.handlers[fd]
        self.poll.unregister(fd)

    def run(self) -> None:
        for name in BLAS_VARIABLES:
            os.environ.setdefault(name, "1")
        self.watch(CLIENT_FD, self.on_client)
        self.watch(EVENT_FD, self.on_event)
        self.watch(ALARM_FD, self.on_alarm)
        self.watch_orphans()
        if self.boot["listen"]:
            self.listen()
        self.name = socket.socket(socket.AF_UNIX)  # so that others see that there is a runtime
        with contextlib.suppress(OSError):
            self.name.bind(f"\0{NAME}{self.view.runtime_id:x}")
        try:
            client = os.pidfd_open(self.boot["client"])
            self.watch(client, lambda: self.act([("client_gone",)]))
        except ProcessLookupError:
            return
        self.new_zygote()
        import msgpack  # noqa: F401  # for later: now, as the zygote starts, nobody waits for it

        while not self.done:
            now = time.monotonic_ns()
            tick = self.state.next_tick(now)
            looked = self.view.sysmon_wait(self.poll.fileno(), -1 if tick is None else max(1_000_000, tick))
            if looked is not None:
                self.act([("looked", *looked)])
            for fd, _ in self.poll.poll(0):
                if fd in self.handlers and not self.done:
                    self.handlers[fd]()
            if tick is not None and not self.done and (looked is None or time.monotonic_ns() - now >= tick):
                self.act([("tick", time.monotonic_ns())])
        self.end()

    def listen(self) -> None:
        from .sessions import Sessions

        self.sessions = Sessions(socket.socket(fileno=LISTEN_FD), self.view, self.boot.pop("base"),
                                 [SEGMENT_FD, EVENT_FD, ALARM_FD], self.watch, self.unwatch, self.act,
                                 self.state.dead.__contains__)

    # ------------------------------------------------------------------ events
    def act(self, events: list[tuple[Any, ...]]) -> None:
        for event in events:
            for action in self.state.handle(event):
                self.take(action)

    def on_client(self) -> None:
        try:
            data = self.client.recv(1 << 20, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        import msgpack

        message = msgpack.unpackb(data) if data else {}
        self.act([("signal", message["signal"]) if "signal" in message else ("close",) if message else ("client_gone",)])

    def on_event(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(EVENT_FD, 8)
        self.act([("wake",)])

    def on_alarm(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(ALARM_FD, 8)
            self.act([("alarm", time.monotonic_ns())])

    def watch_orphans(self) -> None:
        ours, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
        self.watch(ours, lambda: self.on_child(ours))

    def on_child(self, fd: int) -> None:
        """Some child has ended.  The zygote and Ms are seen to elsewhere; all others are what a G has left."""
        with contextlib.suppress(BlockingIOError):
            os.read(fd, 4096)
        self.on_zygote()  # first the pids of new Ms, which may have died already
        self.reap_orphans()

    def reap_orphans(self) -> None:
        while not self.done:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            m = self.unwatched.pop(ended.si_pid, None)
            if m is not None:
                self.m_ended(m, ended.si_pid)
            elif ended.si_pid == self.zygote_pid or ended.si_pid in self.state.ms.values():
                return
            else:
                os.waitpid(ended.si_pid, 0)

    def on_zygote(self) -> None:
        """All that it has sent; this event's message may have been read with another's."""
        if self.zygote is None:
            return
        while True:
            try:
                data = self.zygote.recv(4096, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                break
            if not data:
                break
            m, pid = FROM_ZYGOTE.unpack(data)
            self.act([("m_started", m, pid) if m >= 0 else ("zygote_ready",)])
        self.unwatch(self.zygote.fileno())
        self.zygote.close()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.zygote_pid, signal.SIGKILL)
            os.waitpid(self.zygote_pid, 0)
        self.zygote, self.zygote_pid = None, 0
        self.act([("zygote_died",)])
        self.reap_orphans()  # perhaps this one hid another

    def on_m_died(self, m: int, pid: int, pidfd: int) -> None:
        self.unwatch(pidfd)
        os.close(pidfd)
        self.m_ended(m, pid)
        self.reap_orphans()  # perhaps this one hid another

    def m_ended(self, m: int, pid: int) -> None:
        try:
            _, status = os.waitpid(pid, 0)
            how, exitcode = describe_status(status), os.waitstatus_to_exitcode(status)
        except ChildProcessError:
            how, exitcode = "ended", None
        crash = self.words.take(m)
        self.say(crash)
        self.act([("m_died", m, pid, how, exitcode, crash)])

    # ------------------------------------------------------------------ actions
    def take(self, action: Action) -> None:
        kind = action[0]
        if kind == "newm":
            if self.zygote is None:  # and there is no other now
                return
            with contextlib.suppress(OSError):  # it has died: its socket tells, and what it was asked for comes again
                self.zygote.send(TO_ZYGOTE.pack(action[1]))
        elif kind == "watch":
            _, m, pid = action
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                self.act([("m_died", m, pid, "ended")])
                return
            if pidfd < self.most_watched:
                self.watch(pidfd, lambda: self.on_m_died(m, pid, pidfd))
            else:
                os.close(pidfd)
                self.unwatched[pid] = m
                self.reap_orphans()  # it may have ended already
            if m == 0:
                self.give_shower()
        elif kind == "zygote":
            self.new_zygote()
        elif kind == "print":
            self.say((action[1] + "\n").encode())
        elif kind == "preempt":
            with contextlib.suppress(ProcessLookupError):
                os.kill(action[1], signal.SIGURG)
        elif kind == "signal":
            with contextlib.suppress(ProcessLookupError):
                os.kill(action[1], action[2])
        elif kind == "bind":
            if self.binder is not None:
                self.binder.look(time.monotonic_ns())
        elif kind == "end":
            self.end_m(*action[1:])
        elif kind == "ask":
            self.ask(*action[2:])
        elif kind == "exit":
            self.last_words = {"fatal": action[1]} if action[1] is not None else None
            self.done = True
        elif kind == "broken":
            self.last_words = {"broken": action[1]}
            self.done = True

    def end_m(self, m: int, pid: int, word: int, attempt: int) -> None:
        """Kills M m, stopped first: else it might be done with that G by now, and at another, or at the same one again."""
        with contextlib.suppress(ProcessLookupError):
            stop(pid)
            os.kill(pid, signal.SIGKILL if self.runs(m, word, attempt) else signal.SIGCONT)

    def runs(self, m: int, word: int, attempt: int) -> bool:
        """Whether M m runs that G, for that time, or has no other that is started."""
        seen, runs = self.view.started(word), self.view.running_word(m)
        if seen is not None and seen[4] != attempt:
            return False
        return runs == word or (not runs and [victim[0] for victim in self.view.victims(m)] == [word])

    def ask(self, pid: int, words: list[int]) -> None:
        """Gs of an M that are to end learn it, stopped: it cannot end them meanwhile, and their slots not become others'."""
        asked: list[int] = []
        with contextlib.suppress(ProcessLookupError):
            if stop(pid):
                asked = [word for word in words[:MOST_ASKED] if self.view.ask_started(word)]
            os.kill(pid, signal.SIGCONT)
        self.act([("asked", asked)])

    def say(self, text: bytes) -> None:
        """To the client's stderr, as far as that takes it: nobody may read there, and we have better things to do than wait."""
        ready = select.poll()
        ready.register(self.stdio[2], select.POLLOUT)
        with contextlib.suppress(OSError):
            while text and ready.poll(SAY_MS):
                text = text[os.write(self.stdio[2], text[:select.PIPE_BUF]):]

    def give_shower(self) -> None:
        """m0 has it: once that closes it, no M waits for somebody to read."""
        if self.has_shower:
            self.has_shower = False
            os.close(SHOWER_FD)

    def new_zygote(self) -> None:
        """Forked from this process's main thread, which has no others: a clean parent for every M."""
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            pid = os.fork()
        except OSError as e:
            self.act([("zygote_not_made", e.errno or 1)])
            return
        if pid == 0:
            try:
                ours.close()
                self.poll.close()
                self.client.close()
                for fd in self.sessions.descriptors_of_ours() if self.sessions is not None else ():
                    os.close(fd)
                self.view.unmap()  # each M maps it anew, and the address space may be limited
                from dgmp.workers.zygote import zygote_main

                zygote_main(theirs, self.pid, self.stdio, self.boot)
            except BaseException as e:
                with contextlib.suppress(OSError):
                    os.write(self.stdio[2], f"dgmp: the zygote cannot start: {type(e).__name__}: {e}\n".encode())
            finally:
                os._exit(1)
        theirs.close()
        self.zygote, self.zygote_pid = ours, pid
        self.watch(ours.fileno(), self.on_zygote)

    def end(self) -> None:
        """Everything of the node ends, and is gone when we are."""
        if self.last_words is not None:
            import msgpack

            with contextlib.suppress(OSError):
                self.client.send(msgpack.packb(self.last_words))
        if self.sessions is not None:
            from .sessions import remove

            self.sessions.end(self.last_words or {"fatal": "the node has ended that this program was attached to"})
            remove(*self.boot["listen"])
        self.view.closing(1)
        pids = {pid for _, pid in self.view.pids()} | set(self.state.ms.values())
        for pid in pids:
            kill(pid)
        for pid in pids:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        end_children({self.zygote_pid})  # processes that Gs started, ours since their M is gone
        end_children()  # the zygote last, as it ends the others if we are killed meanwhile; and an M that it has made since


def end_children(spared: Collection[int] = ()) -> None:
    """Ends what this process is, or has become, the parent of; half a second at most.  What has made a session of its own is
    left alone."""
    deadline = time.monotonic() + 0.5
    while reap() and time.monotonic() < deadline:
        left = [pid for pid in children() if pid not in spared and session(pid) == session(0)]
        for pid in left:
            kill(pid)
        if not left:
            return
        time.sleep(0.001)


def reap() -> bool:
    """Whether there are children that have not ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return True
    return False


def stop(pid: int) -> bool:
    """Stops a process, and waits a moment for it; whether it has stopped."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + STOP_SECONDS
    while not stopped(pid) and time.monotonic() < deadline:
        time.sleep(0.0002)
    return stopped(pid)


def stopped(pid: int) -> bool:
    """Whether the process is stopped, or gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t", b"Z", b"X")
    except OSError:
        return True


def children() -> list[int]:
    """The children of this process.  One that ends meanwhile may hide another."""
    found = []
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/children") as file:
            found += [int(pid) for pid in file.read().split()]
    return found


def session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return -1


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def describe_status(status: int) -> str:
    """A wait status in words."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        oom = "; perhaps the system ran out of memory" if number == signal.SIGKILL else ""
        return f"was killed by {name}{oom}"
    return f"ended with exit code {os.WEXITSTATUS(status)}{REASONS.get(os.WEXITSTATUS(status), '')}"


def main(boot: dict[str, Any]) -> None:
    """Entry of the process (`python -c` from api.start)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    become_subreaper()
    when_parent_dies(signal.SIGCONT)  # if we are stopped then we have to end all the same
    Server(boot).run()
    os._exit(0)  # nothing is left to be done, and nobody to be told of sockets that are not closed
