"""One running command: how it is started, signalled, and how it ended.  Used by the launcher, and by the keeper.

start() starts a program in a process group of its own.  As with shells, a command that cannot be run ends with 127 (there is
none) or 126 (it is no program, or not for us); CannotRun says so.  An OSError is raised only where no process can be made just
now: there are too many, or no memory is left.  Then nothing has run, and it is to be tried again.

A program is found on PATH once; it is looked for again when it has gone from there.
"""

from __future__ import annotations

import contextlib
import os
import signal

from .._core import execute, reap

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

NO_COMMAND, NO_PROGRAM = 127, 126
DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
TERM_SEQUENCE = "TERM,200,TERM,100,TERM,50,KILL,25"  # GNU parallel's


class CannotRun(Exception):
    """A command that cannot be run.

    Attributes:
        exitval: what a shell would say.
    """

    def __init__(self, exitval: int, text: str) -> None:
        super().__init__(text)
        self.exitval = exitval


class Environment:
    """The variables of commands, as the kernel wants them, and where programs are found by them.

    Args:
        variables: names and values.
    """

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        found = {os.fsencode(k): os.fsencode(v) for k, v in variables.items()} if variables is not None else os.environb
        self.block = [name + b"=" + value for name, value in found.items()]
        self.folders = os.fsdecode(found.get(b"PATH", os.fsencode(DEFAULT_PATH))).split(":")
        self.programs: dict[tuple[str, str | None], str] = {}

    def program(self, name: str, cwd: str | None = None) -> str:
        """The path of a command's program.

        Raises:
            CannotRun: there is none.
        """
        if "/" in name:
            return name
        found = self.programs.get((name, cwd))
        if found is None:
            found = self.programs[name, cwd] = self._search(name, cwd)
        return found

    def _search(self, name: str, cwd: str | None) -> str:
        forbidden = False
        for folder in self.folders if name else ():
            path = os.path.join(folder or ".", name)
            there = os.path.join(cwd or "", path)
            if os.path.isfile(there):
                if os.access(there, os.X_OK):
                    return path
                forbidden = True
        if forbidden:
            raise CannotRun(NO_PROGRAM, f"{name}: Permission denied")
        raise CannotRun(NO_COMMAND, f"{name}: command not found")


class Process:
    """A command that runs, or has run.

    Attributes:
        command: what it was made of, whatever that is to the caller.
        slot: in which it runs.
        attempt: 1 is the first.
        elsewhere: 1 if another thread of ours has started it (spawners.py); else 0.
        pid, pidfd: 0 and -1 where it could not be run; the pid is also that of its group.
        begun, started: when, by time.monotonic() and by time.time().
        seconds: how long it took.
        exitval, signal: how it ended: its exit code, or the signal that killed it; the other is 0.
        user_seconds, system_seconds: the CPU time of it and of those of its children that it has waited for.
        max_rss: the most memory that one of these had, in KiB (at least that of the process that has started it).
        sent, received: bytes of its stdin and stdout.
    """

    __slots__ = ("command", "draft", "slot", "attempt", "pid", "pidfd", "begun", "started", "seconds", "exitval", "signal",
                 "user_seconds", "system_seconds", "max_rss", "sent", "received", "ending", "out", "err", "elsewhere")

    def __init__(self, command: Any, slot: int, attempt: int = 1) -> None:
        self.command, self.slot, self.attempt = command, slot, attempt
        self.draft: Any = None
        self.pid, self.pidfd = 0, -1
        self.begun = self.started = self.seconds = self.user_seconds = self.system_seconds = 0.0
        self.exitval = self.signal = self.max_rss = self.sent = self.received = self.elsewhere = 0
        self.ending: Ending | None = None
        self.out: Any = None
        self.err: Any = None

    def start(self, argv: Sequence[str], environment: Environment, *, variables: Sequence[bytes] = (),
              cwd: str | None = None, stdin: int = -1, stdout: int = -1, stderr: int = -1,
              cores: Collection[int] | None = None, nice: int = 0, death_signal: int = 0, ignore_terminal: bool = False,
              nofile: int = 0) -> None:
        """Starts it.

        Args:
            argv: the program, with or without a path, and its arguments.
            variables: more of the environment, b"NAME=value".
            stdin, stdout, stderr: descriptors that become its 0, 1 and 2; -1: ours.
            cores: to which it is bound.
            nice: is added to ours.
            death_signal: it gets this when the thread that starts it ends.
            ignore_terminal: to read the terminal fails, where it would stop the command.
            nofile: its soft limit of descriptors.

        Raises:
            CannotRun: it cannot be run.
            OSError: no process can be made just now.
        """
        if not argv:
            raise CannotRun(NO_COMMAND, "an empty command: nothing to run")
        settings = (cwd, stdin, stdout, stderr, cores or None, nice, death_signal, ignore_terminal, nofile)
        path = environment.program(argv[0], cwd)
        try:
            try:
                self.pid, self.pidfd = execute(path, argv, environment.block, variables, *settings)
                return
            except FileNotFoundError as e:
                if "/" in argv[0] or e.filename != path:
                    raise
            environment.programs.clear()
            path = environment.program(argv[0], cwd)
            self.pid, self.pidfd = execute(path, argv, environment.block, variables, *settings)
        except OSError as e:
            if e.filename is None:
                raise
            if e.errno == NOEXEC and e.filename == path:  # a script without #!, which shells run
                self._start_script(path, argv, environment, variables, settings)
                return
            raise why_not(e, argv[0], path, cwd) from None
        except ValueError as e:
            what = "a NUL is in its arguments or variables, which no command can be given" if "null" in str(e) else str(e)
            raise CannotRun(NO_PROGRAM, f"{argv[0]}: {what}") from None

    def _start_script(self, path: str, argv: Sequence[str], environment: Environment, variables: Sequence[bytes],
                      settings: tuple[Any, ...]) -> None:
        script = path if "/" in path else f"./{path}"
        try:
            self.pid, self.pidfd = execute("/bin/sh", ["/bin/sh", script, *argv[1:]], environment.block, variables, *settings)
        except OSError as e:
            if e.filename is None:
                raise
            raise why_not(e, argv[0], path, settings[0]) from None

    def reap(self, now: float) -> bool:
        """Whether it has ended; then how is known, and its pidfd is closed."""
        ended = reap(self.pidfd)
        if ended is None:
            return False
        self.exitval, self.signal, self.user_seconds, self.system_seconds, self.max_rss = ended
        self.seconds = now - self.begun
        self.pidfd = -1
        return True

    def send(self, number: int) -> None:
        """A signal to its whole group.  While it has not been reaped its pid names nobody else."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def end(self, sequence: Sequence[tuple[int, float]], now: float) -> float | None:
        """Begins to end it; returns when the next step() is due."""
        if self.ending is None:
            self.ending = Ending(sequence)
            self.ending.due = now
        return self.step(now)

    def step(self, now: float) -> float | None:
        """The signal that is due; returns when the next one is."""
        ending = self.ending
        while ending is not None and ending.left and now >= ending.due:
            number, seconds = ending.left.pop(0)
            self.send(number)
            if number != signal.SIGKILL:
                self.send(signal.SIGCONT)  # one that is stopped would not see it
            ending.due = now + seconds
        return ending.due if ending is not None and ending.left else None


class Ending:
    """The signals that a process has yet to get, and when."""

    __slots__ = ("left", "due")

    def __init__(self, sequence: Sequence[tuple[int, float]]) -> None:
        self.left = list(sequence)
        self.due = 0.0


NOEXEC = 8  # errno.ENOEXEC


def why_not(e: OSError, name: str, path: str, cwd: str | None) -> CannotRun:
    """As a shell says it."""
    if e.filename == path:
        gone = isinstance(e, FileNotFoundError)
        missing = gone and not os.path.exists(os.path.join(cwd or "", path))
        text = f"{name}: {'its interpreter is missing' if gone and not missing else e.strerror}"
        return CannotRun(NO_COMMAND if missing else NO_PROGRAM, text)
    if cwd is not None and e.filename == cwd:
        return CannotRun(NO_PROGRAM, f"{name}: cannot go to its folder {cwd}: {e.strerror}")
    return CannotRun(NO_PROGRAM, f"{name}: cannot be started: {e.strerror}")


def term_sequence(text: str) -> list[tuple[int, float]]:
    """What --termseq says, as signals and the seconds after each.

    Raises:
        ValueError: it says something else.
    """
    sequence: list[tuple[int, float]] = []
    words = text.split(",")
    for number, pause in zip(words[::2], [*words[1::2], "0"], strict=False):
        name = number.strip().upper().removeprefix("SIG")
        try:
            known = int(name) if name.isdecimal() else signal.Signals[f"SIG{name}"]
            if not 0 < known < signal.NSIG or not pause.strip().isdecimal():
                raise ValueError(text)
        except (KeyError, ValueError):
            raise ValueError(f"--termseq {text}: give signals and milliseconds in turn, such as {TERM_SEQUENCE}") from None
        sequence.append((known, int(pause) / 1000))
    return sequence
