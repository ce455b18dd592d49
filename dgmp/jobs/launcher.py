"""The launcher: a GMP scheduler of its own, in one light process.  A command is a G, a slot is a P.  Called by cli.each.

schedule() takes the next command while a slot is idle and the policy lets it start; where that need not be asked, spawners
start what is prepared as another one ends (spawners.py).  netpoll() waits for whatever comes: a process has ended (its pidfd),
a signal (a signalfd), a line of output, an input, a time that somebody has asked for.  What a command is to be comes from
drafts (command.py), what is done about its end from a policy (policy.py), where its output goes from an output (output.py).

Signals are blocked and read, so that none comes between two lines of this:
    INT    first: nothing more starts, what runs is waited for; second: it is ended by the term sequence; third: killed
    TERM   what runs is ended by the term sequence; second: killed
    HUP    nothing more starts, what runs is waited for
    USR1   what runs is listed on stderr
    TSTP   jobs are stopped, and so are we, until somebody continues us

Jobs have process groups of their own, and die with us (PR_SET_PDEATHSIG).  What they leave behind becomes our child, as we are
a subreaper, and is ended as we end (guardian.py).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import time
from collections import deque

from .._core import read_signal, signal_fd
from ..errors import DgmpError
from .guardian import PARENT_DIED, heeded, say
from .netpoll import Inputs, Netpoll
from .output import Output
from .policy import Policy
from .process import TERM_SEQUENCE, CannotRun, Environment, Process, term_sequence
from .sink import CannotWrite, Closed
from .spawners import Ahead
from .spill import DiskFull, folder, reserve, temporary_file, write_all

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .command import Command, Draft
    from .source import Source

PASSING = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)  # a little later it may work
NONSENSE = 255  # GNU parallel's exit status for errors of its own
PIPE_BYTES = 1 << 16  # that a pipe holds by itself
LATER_SECONDS = 0.1  # until we try again to make a process
WARN_SECONDS = 10.0
NAP_SECONDS = 0.008  # while spawners have what to start: several ends together are seen to at half the cost
BUSY_SECONDS = 0.1  # less between two jobs' ends is much
OTHERS = 64  # ends of jobs, between two looks at what else has ended
SLICE = 256  # drafts, between two looks at what else has come
OWN = 0x20000000  # __WNOTHREAD: those of the thread that waits, to which what jobs leave behind comes, too
MOST_AHEAD = 100_000  # drafts that are read only to know how many there are


class Ended(Exception):
    """It is over at once: what runs is killed."""


class Ending(Exception):
    """What runs is being ended, and its output is not wanted any more."""


class Launcher:
    """Runs commands, so many at once.

    Args:
        drafts: of the commands, in their order (source.Source); reads by netpoll.read().
        slots: how many run at once.
        output: where what they print goes.
        policy: what the options decide.
        environment: of all commands.
        own_environment: (command, attempt) -> more variables of this one, b"NAME=value".
        of_slot: of more of its variables, b"NAME=", whose value is its slot.
        folder: command -> the folder in which it runs; None: ours.
        stdin: of the first command; the others have /dev/null.
        term_sequence: how commands are ended.
        parks: whether drafts may have to wait for what they read.
    """

    def __init__(self, drafts: Source, slots: int, output: Output, policy: Policy, *,
                 environment: Environment | None = None,
                 own_environment: Callable[[Command, int], Sequence[bytes]] | None = None, of_slot: Sequence[bytes] = (),
                 folder: Callable[[Command], str | None] | None = None, stdin: int = -1,
                 term_sequence: Sequence[tuple[int, float]] = term_sequence(TERM_SEQUENCE), parks: bool = True) -> None:
        self.netpoll = Netpoll()
        self.drafts = Inputs(drafts, self.netpoll, parks)
        self.output, self.policy = output, policy
        self.environment = environment or Environment()
        self.own_environment, self.of_slot, self.folder = own_environment, of_slot, folder
        self.term_sequence = term_sequence
        self.stdin = stdin
        self.idle = list(range(slots, 0, -1))  # the lowest last: it is the next
        self.slots = slots
        self.running: dict[int, Process] = {}  # by pid
        self.wanted: Draft | None = None  # is not to be skipped
        self.more_ahead = False  # drafts that can be counted now
        self.rerun: deque[tuple[Draft, int]] = deque()  # and which attempt it will be
        self.ending: dict[Process, float] = {}  # and when the next signal is due
        self.stopping = False  # nothing more starts
        self.ends = 0
        self.dropping = False  # what ends as we have told it to is forgotten
        self.interrupts = self.terms = 0
        self.fatal = 0  # the signal that has ended us
        self.error = ""
        self.later = 0.0  # no process can be made before
        self.warned = -WARN_SECONDS
        self.ask_at: float | None = None  # the policy, whether one may start
        self.null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.terminal = has_terminal()
        self.nofile = raise_nofile()
        self.heeded = {*heeded(), signal.SIGCHLD, PARENT_DIED}
        self.ahead = Ahead(self)

    # ------------------------------------------------------------------------------------------------ the loop
    def run(self) -> int:
        """Runs them all; returns the exit status, or the negative number of a signal of which we are to die."""
        self.children = Children()  # of the process that runs, which may have been forked from the one that made us
        numbers = (*heeded(by_terminal=False), PARENT_DIED)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (*numbers, signal.SIGCHLD, signal.SIGTTOU))
        self.signals = signals = signal_fd(-1, numbers)
        self.numbers = numbers
        try:
            self.netpoll.add(signals, self.signalled, signals)
            self.output.attach(self.netpoll, self.alone, self.policy)
            for sink in (self.output.out, self.output.err):
                if self.policy.wants_total and os.isatty(sink.fd):
                    sink.before = self.policy.hide
                sink.interrupt, sink.act = signals, lambda: self.signalled_while_writing(signals)
            status = self._run()
        finally:
            self.ahead.close()
            os.close(signals)
            self.netpoll.close()
            self.policy.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return status

    def _run(self) -> int:
        try:
            while self.schedule():
                self.wait()
                self.step()
            self.output.close()
        except Ended:
            self.kill_all()
        except Ending:
            self.wind_down()
        except Closed:
            self.fatal = signal.SIGPIPE
            self.wind_down()
        except (CannotWrite, DiskFull) as e:
            self.error = str(e)
            self.wind_down()
        except OSError as e:  # the reserve of descriptors was not enough
            self.error = f"cannot go on: {e}"
            self.wind_down()
        if self.error:
            self.say(self.error)
            return NONSENSE
        return -self.fatal if self.fatal else self.policy.exit_status()

    def schedule(self) -> bool:
        """Starts what can be started now; whether there is more to come."""
        self.finish()
        policy = self.policy
        if policy.total is None and not self.stopping:
            self.count()
            if policy.needs_total and policy.total is None:
                return True
        while self.idle and not self.stopping and not self.ahead.ended:
            if self.ahead.start():
                continue
            found = self.findrunnable()
            if found is None:
                break
            if not self.execute(*found):
                self.rerun.appendleft(found)
                break
        self.ahead.prepare()
        if self.running or self.ahead.ended:
            return True
        return not self.stopping and bool(self.rerun or self.drafts.ahead or not self.drafts.over)

    def count(self) -> None:
        """How many there are in all, if they can be read before their turn, and all have come."""
        drafts, policy = self.drafts, self.policy
        self.more_ahead = False
        if policy.needs_total or policy.wants_total and len(drafts.ahead) < MOST_AHEAD and not self.piped():
            self.more_ahead = drafts.read_ahead(SLICE)
        if drafts.over:
            policy.total = drafts.count

    def piped(self) -> bool:
        """Whether drafts have data of their own, which are not held in memory."""
        draft = self.drafts.peek()
        return draft is not None and getattr(draft, "stdin", None) is not None

    def findrunnable(self) -> tuple[Draft, int] | None:
        """The next command, if one may start now, and which attempt it is."""
        self.ask_at = None
        if not self.rerun and self.next_draft() is None:
            return None
        now = time.monotonic()
        if now < self.later:
            self.ask_at = self.later
            return None
        may = self.policy.may_start(now)
        if may is not True:
            self.ask_at = may or None
            return None
        return self.rerun.popleft() if self.rerun else (self.drafts.take(), 1)

    def next_draft(self) -> Draft | None:
        """The first that has not been done before."""
        for _ in range(SLICE):
            draft: Draft | None = self.drafts.peek()
            if draft is None or draft is self.wanted:
                return draft
            if not self.policy.skip(draft):
                if self.policy.halting is not None:  # what has been done cannot be known
                    self.start_no_more()
                    return None
                self.wanted = draft
                return draft
            self.output.skipped(self.drafts.take().seq)
        self.ask_at = time.monotonic()  # first, what else has come
        return None

    def execute(self, draft: Draft, attempt: int) -> bool:
        """Starts it in an idle slot; False: it has to wait."""
        slot = self.idle[-1]
        try:
            process = Process(draft.command(slot), slot, attempt)
            process.draft = draft
            reserve.fill()
            self.start(process)
        except DgmpError as e:
            self.give_up(str(e))
            return False
        except OSError as e:
            if e.errno not in PASSING:
                self.give_up(why(e))
            else:
                self.cannot_start(e)
            return False
        if process.pidfd < 0:  # it could not be run: that is its end
            self.policy.started(process)
            self.goexit(process)
            return True
        self.idle.pop()
        self.runs(process)
        return True

    def runs(self, process: Process) -> None:
        self.running[process.pid] = process
        self.policy.started(process)

    def leave(self, process: Process) -> None:
        """It has ended: its slot is idle."""
        del self.running[process.pid]
        self.ahead.elsewhere -= process.elsewhere
        self.idle.append(process.slot)

    def start(self, process: Process) -> None:
        """OSError: not just now."""
        command = process.command
        setting = self.policy.starting(process.slot)
        process.started, process.begun = time.time(), time.monotonic()
        try:
            out, err = self.output.open(process)
        except CannotRun as e:
            process.exitval = e.exitval
            self.say(str(e))
            return
        stdin = -1
        try:
            variables = [*self.variables(process), *(name + b"%d" % process.slot for name in self.of_slot)]
            variables += [os.fsencode(f"{k}={v}") for k, v in setting.variables.items()]
            stdin = self.stdin_of(process)
            process.started, process.begun = time.time(), time.monotonic()
            try:
                process.start(command.argv, self.environment, variables=variables,
                              cwd=self.folder(command) if self.folder else None, stdin=stdin, stdout=out, stderr=err,
                              cores=setting.cores, nice=setting.nice, death_signal=signal.SIGKILL,
                              ignore_terminal=self.terminal, nofile=self.nofile)
                self.netpoll.add(process.pidfd, self.exited, process)
            except CannotRun as e:
                process.exitval = e.exitval
                hint = "; inputs that end with NUL are read with --null" if "\0" in "".join(command.argv) else ""
                self.output.say(process, f"{e}{hint}")
            self.output.begun(process)
        except OSError:
            if process.pidfd >= 0:  # it could not be waited for
                self.kill(process)
            self.output.again(process)
            raise
        finally:
            if stdin not in (-1, self.null, self.stdin):
                os.close(stdin)
        if stdin == self.stdin:
            self.stdin = self.null

    def variables(self, process: Process) -> Sequence[bytes]:
        """Its own, but for what depends on its slot."""
        return self.own_environment(process.command, process.attempt) if self.own_environment else ()

    def stdin_of(self, process: Process) -> int:
        """A descriptor; that of a command with data of its own is to be closed."""
        data = process.command.stdin
        if data is None:
            return self.stdin if self.stdin >= 0 else self.null
        process.sent = len(data)
        fd = filled_pipe(data)
        if fd < 0:  # it is longer than a pipe is
            fd = temporary_file()
            write_all(fd, data)
            os.lseek(fd, 0, os.SEEK_SET)
        return fd

    def cannot_start(self, e: OSError) -> None:
        """There are too many processes or files, or no memory: a little later, or when one has ended."""
        self.output.spare()
        if not self.running:
            self.ahead.spare()
        if e.errno == errno.EMFILE and self.later and not self.running and not self.children.count():
            self.give_up(f"no job can be started with so few open files ({limit_of_files()} are allowed): raise `ulimit -n`")
            return
        now = time.monotonic()
        self.later = now + LATER_SECONDS
        self.ask_at = self.later
        if now - self.warned >= WARN_SECONDS:
            self.warned = now
            self.say(f"cannot start a job now ({e.strerror}): trying again, with {len(self.running)} running")

    def give_up(self, error: str) -> None:
        """Nothing more can be started; what runs is waited for."""
        self.error = error
        self.stop()

    def exited(self, process: Process) -> None:
        """Its pidfd says so."""
        self.netpoll.remove(process.pidfd)
        if process.reap(time.monotonic()):
            self.leave(process)
            self.goexit(process)
        else:
            self.netpoll.add(process.pidfd, self.exited, process)

    def finish(self) -> None:
        """What has ended while others were started for us."""
        while self.ahead.ended:
            self.goexit(self.ahead.ended.popleft())

    def goexit(self, process: Process) -> None:
        """It has ended: how, and what is to be done about it."""
        self.later = 0.0
        self.ends += 1
        if self.ends % OTHERS == 0:
            self.children.reap(self.running)
        self.ending.pop(process, None)
        if self.dropping and process.ending is not None:
            self.output.again(process)
            return
        policy = self.policy
        if policy.ended(process) == "again":
            self.output.again(process)
            self.rerun.append((process.draft, process.attempt + 1))
        else:
            self.output.ended(process)
            if (process.signal or process.exitval) and not self.output.grouped and self.output.out.gone():
                raise Closed("stdout")
        if policy.halting is not None and not self.stopping:
            self.halt(process)

    def halt(self, process: Process) -> None:
        """Enough have ended, by --halt; or the policy cannot go on."""
        self.start_no_more()
        at_once = self.policy.halting == "now"
        if self.policy.halted_by:
            left = f", {'ending' if at_once else 'waiting for'} {jobs(len(self.running))}" if self.running else ""
            self.say(f"{self.policy.halted_by}: stopping after this job{left}: {process.command.text}")
        if at_once:
            self.end_all(self.term_sequence)

    # ------------------------------------------------------------------------------------------------ times
    def wait(self) -> None:
        """For whatever comes.  That a child which is no job has ended, too, but only when little happens: each job's end
        would tell of itself twice."""
        seconds = self.patience()
        if self.ahead.prepared and (seconds is None or seconds > NAP_SECONDS):
            time.sleep(NAP_SECONDS)
        if seconds is not None and seconds <= BUSY_SECONDS:
            self.netpoll.poll(seconds)
        elif not self.netpoll.poll(BUSY_SECONDS):
            signal_fd(self.signals, (*self.numbers, signal.SIGCHLD))
            self.children.reap(self.running)
            self.netpoll.poll(None if seconds is None else seconds - BUSY_SECONDS)
            signal_fd(self.signals, self.numbers)

    def patience(self) -> float | None:
        """How long there is nothing to do, in seconds; None: until something comes."""
        if self.more_ahead or self.ahead.ended:
            return 0.0
        now = time.monotonic()
        late, look_at = self.policy.look(now)
        for process in late:
            self.end(process, now)
        dues = [due for due in (look_at, self.ask_at, *self.ending.values()) if due is not None]
        return max(0.0, min(dues) - now) if dues else None

    def step(self) -> None:
        """The signals that are due."""
        if not self.ending:
            return
        now = time.monotonic()
        for process in list(self.ending):
            self._due(process, process.step(now))

    def end(self, process: Any, now: float) -> None:
        self._due(process, process.end(self.term_sequence, now))

    def _due(self, process: Process, due: float | None) -> None:
        if due is None:
            self.ending.pop(process, None)
        else:
            self.ending[process] = due

    def end_all(self, sequence: Sequence[tuple[int, float]]) -> None:
        """They are neither printed nor logged any more, so that --resume runs them again."""
        self.dropping = True
        now = time.monotonic()
        for process in self.running.values():
            self._due(process, process.end(sequence, now))

    def wind_down(self) -> None:
        """Ends what runs, without its output."""
        self.output.mute()
        self.stop()
        try:
            self.end_all(self.term_sequence)
            while self.ahead.ended:
                self.output.again(self.ahead.ended.popleft())
            while self.running:
                self.wait()
                self.step()
                self.finish()
        except Ended:
            self.kill_all()

    def kill_all(self) -> None:
        """And waits until they are dead.  What had ended before is told of, if that needs no waiting."""
        self.ahead.take_back()
        for process in self.running.values():
            process.send(signal.SIGKILL)
        for process in self.running.values():
            self.kill(process)
        self.running.clear()
        if not self.output.out.muted:
            self.output.hurry()
            with contextlib.suppress(Closed, CannotWrite, DiskFull):
                self.finish()

    def kill(self, process: Process) -> None:
        """And waits until it is dead."""
        process.send(signal.SIGKILL)
        while not process.reap(time.monotonic()):
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    # ------------------------------------------------------------------------------------------------ signals
    def signalled(self, fd: int) -> None:
        """Signals have come."""
        while (found := read_signal(fd)) is not None:
            number, _, by_terminal = found
            if by_terminal and number not in self.heeded:
                continue
            if number == signal.SIGCHLD:
                self.children.reap(self.running)
            elif number == signal.SIGINT:
                self.interrupted()
            elif number in (signal.SIGTERM, signal.SIGQUIT):
                self.terminated(number)
            elif number == signal.SIGHUP:
                self.hung_up()
            elif number == signal.SIGUSR1:
                self.list_running()
            elif number == signal.SIGTSTP:
                self.suspend()
            elif number == PARENT_DIED:
                self.orphaned()

    def signalled_while_writing(self, fd: int) -> None:
        """Signals have come while our stdout or stderr takes no more."""
        try:
            self.signalled(fd)
        except Ended:
            self.output.mute()  # what is being written stays a part
            raise
        if self.dropping:
            raise Ending

    def stop(self) -> None:
        """Nothing more is to start, nor to be run again."""
        self.start_no_more()
        self.policy.stop()

    def start_no_more(self) -> None:
        self.stopping = True
        self.ahead.take_back()

    def interrupted(self) -> None:
        self.interrupts += 1
        self.fatal = signal.SIGINT
        self.stop()
        if self.interrupts == 1 and self.running:
            self.say(f"interrupted: no new jobs are started, waiting for {jobs(len(self.running))}; "
                "Ctrl-C again ends them, a third time kills them")
        elif self.interrupts == 2:
            self.end_all(self.term_sequence)
        elif self.interrupts >= 3:
            raise Ended

    def terminated(self, number: int) -> None:
        self.terms += 1
        self.fatal = number
        self.stop()
        if self.terms >= 2:
            raise Ended
        self.end_all(self.term_sequence)

    def hung_up(self) -> None:
        self.stop()
        self.say(f"SIGHUP received: no new jobs are started, waiting for {jobs(len(self.running))}; send SIGTERM to end them")

    def say(self, text: str) -> None:
        self.policy.hide()
        say(text)

    def list_running(self) -> None:
        self.ahead.note()
        now = time.monotonic()
        for process in sorted(self.running.values(), key=lambda process: process.begun):
            self.say(f"{process.pid} {now - process.begun:.1f}s {process.command.text}")

    def suspend(self) -> None:
        """Ctrl-Z."""
        self.ahead.take_back()
        for process in self.running.values():
            process.send(signal.SIGTSTP)
        os.kill(os.getpid(), signal.SIGSTOP)
        for process in self.running.values():
            process.send(signal.SIGCONT)

    def orphaned(self) -> None:
        """Who was to end it all if we were killed has been killed (guardian.py)."""
        self.error = "the process that watches over this one was killed: all jobs are ended"
        raise Ended

    def alone(self, process: Process) -> bool:
        """Whether a job that has ended has left nobody behind, who might write to its files."""
        if process.pid == 0:
            return True
        try:
            os.killpg(process.pid, 0)
            return False
        except ProcessLookupError:
            return self.children.count() <= len(self.running) - self.ahead.elsewhere
        except PermissionError:
            return False


class Children:
    """Of this process: jobs, and what jobs have left behind, as we are a subreaper."""

    def __init__(self) -> None:
        try:
            self.fd = os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # a kernel without it
            self.fd = -1

    def count(self) -> int:
        """How many this thread has; too many where that cannot be known."""
        if self.fd < 0:
            return 1 << 30
        count = offset = 0
        while data := os.pread(self.fd, 1 << 12, offset):
            count += data.count(b" ")
            offset += len(data)
        return count

    def reap(self, running: dict[int, Process]) -> None:
        """Those of others' that have ended."""
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | OWN)
            except ChildProcessError:
                return
            if found is None or found.si_pid in running:
                return
            os.waitpid(found.si_pid, 0)


def filled_pipe(data: bytes) -> int:
    """What reads this; -1: no pipe has room for it."""
    fd, other = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if len(data) > PIPE_BYTES:
            fcntl.fcntl(other, fcntl.F_SETPIPE_SZ, len(data))
        if os.write(other, data) == len(data):
            os.set_blocking(fd, True)
            return fd
    except OSError:  # the user has too many large pipes; or it is larger than they may be
        pass
    finally:
        os.close(other)
    os.close(fd)
    return -1


def has_terminal() -> bool:
    """Whether jobs could reach a terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
        return True
    except OSError:
        return False


def raise_nofile() -> int:
    """Lets us have as many descriptors as we may; returns the limit before, which jobs keep."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return 0
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft


def why(e: OSError) -> str:
    """Nothing can be started."""
    if e.filename is None:
        return str(e)
    if e.filename == folder():
        return f"cannot make temporary files in {e.filename}: {e.strerror}; name another folder in TMPDIR"
    return f"{os.fsdecode(e.filename)}: {e.strerror}"


def limit_of_files() -> int:
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def jobs(n: int) -> str:
    return "1 running job" if n == 1 else f"{n} running jobs"
