"""Nothing outlives the launcher: no job, no child of one, however either process of ours ends.

The process that the shell knows becomes the guardian, and its child is the launcher.  Both are subreapers: whatever jobs leave
behind, in sessions of its own or not, becomes a child of the launcher, and when that is killed, of the guardian.  Whichever of
the two dies, the other ends all that is below it: the guardian is told by SIGCHLD, the launcher by PARENT_DIED.  (If somebody
kills both at one moment, jobs still die of their PR_SET_PDEATHSIG; only what they have started themselves may live.)

To the shell the guardian is the launcher: it passes on the signals that it gets, stops when the launcher stops, and ends as
that does.  The launcher has a process group of its own, so that a signal to the whole group, which is what terminals send,
comes once.  But if it reads the terminal it must be in the foreground, and so in the guardian's group: then what the terminal
sends is not passed on.

A fork costs a millisecond.  It comes as late as it can, when what is needed has been imported.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time

from .._core import become_subreaper, when_parent_dies

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import NoReturn

PARENT_DIED = signal.SIGRTMIN + 5
FORWARDED = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGUSR1, signal.SIGUSR2,
             signal.SIGWINCH)
NONSENSE = 255
GRACE_SECONDS = 0.3  # for what jobs have left behind, between TERM and KILL
LONGEST_SECONDS = 5.0  # for what is killed: it may hang in the kernel


def heeded(*, by_terminal: bool = True) -> list[int]:
    """The signals that somebody wants us to heed: those that were not ignored as we were started.

    A shell without job control has what it starts in the background ignore what the terminal sends.  INT and QUIT that come
    from elsewhere are meant for us all the same.

    Args:
        by_terminal: those of its signals, too.
    """
    meant = () if by_terminal else (signal.SIGINT, signal.SIGQUIT)
    return [number for number in FORWARDED if number in meant or signal.getsignal(number) is not signal.SIG_IGN]


def guarded(run: Callable[[], int], reads_terminal: bool = False) -> int:
    """Runs it in a child, and returns what it returned; or dies of the signal that it died of.

    Args:
        run: the launcher; returns the exit status, or the negative number of a signal of which we are to die.
        reads_terminal: whether it reads inputs from the terminal.
    """
    open_standard()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # somebody may have had it ignored
    become_subreaper()
    known = children()  # of a program that has become us by exec
    signal.pthread_sigmask(signal.SIG_BLOCK, (*heeded(by_terminal=False), signal.SIGCHLD, PARENT_DIED))
    guardian = os.getpid()
    flush()
    launcher = os.fork()
    if launcher == 0:
        launch(run, guardian, reads_terminal)
    if not reads_terminal:
        with contextlib.suppress(OSError):  # it has done so itself, and may be gone
            os.setpgid(launcher, launcher)
    status = watch(launcher, reads_terminal)
    end_descendants(known, at_once=True)
    if status == -signal.SIGKILL:
        say("the launcher was killed: all jobs are ended")
    if status < 0:
        die(-status)
    return status


def launch(run: Callable[[], int], guardian: int, reads_terminal: bool) -> NoReturn:
    """The launcher's process."""
    status = NONSENSE
    try:
        if not reads_terminal:
            os.setpgid(0, 0)
        become_subreaper()
        when_parent_dies(PARENT_DIED)
        if os.getppid() == guardian:
            status = run()
            end_descendants()
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else NONSENSE
    except BaseException:
        import traceback

        traceback.print_exc()
        end_descendants(at_once=True)
    finally:
        flush()
        if status < 0:
            die(-status)
        os._exit(status)


def watch(launcher: int, reads_terminal: bool) -> int:
    """Until it ends; returns its exit status, or the negative number of the signal that killed it."""
    ignored = set(heeded(by_terminal=False)) - set(heeded())
    waited = {*heeded(by_terminal=False), signal.SIGCHLD}
    while True:
        info = signal.sigwaitinfo(waited)
        if info.si_signo != signal.SIGCHLD:
            if info.si_code != SI_KERNEL or not (reads_terminal or info.si_signo in ignored):
                os.kill(launcher, info.si_signo)
            continue
        while (found := os.waitid(os.P_PID, launcher, os.WEXITED | os.WSTOPPED | os.WNOHANG)) is not None:
            if found.si_code == os.CLD_EXITED:
                return found.si_status
            if found.si_code != os.CLD_STOPPED:
                return -found.si_status
            os.kill(os.getpid(), signal.SIGSTOP)  # until somebody continues us
            os.kill(launcher, signal.SIGCONT)


SI_KERNEL = 0x80


def end_descendants(spared: Collection[int] = (), at_once: bool = False) -> None:
    """Ends all processes below us.

    Args:
        spared: children that are to live.
        at_once: KILL alone; else TERM comes first.
    """
    begun = time.monotonic()
    asked: set[int] = set()
    while (left := [pid for pid in children() if pid not in spared and not reaped(pid)]):
        seconds = time.monotonic() - begun
        if seconds > LONGEST_SECONDS:
            say(f"processes that jobs have left behind cannot be ended: {' '.join(map(str, left))}")
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if at_once or seconds > GRACE_SECONDS:
                    os.kill(pid, signal.SIGKILL)
                elif pid not in asked:
                    asked.add(pid)
                    os.kill(pid, signal.SIGTERM)
                    os.kill(pid, signal.SIGCONT)
        time.sleep(0.001)


def reaped(pid: int) -> bool:
    """Whether that child has ended."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def children() -> list[int]:
    """Of this process."""
    with contextlib.suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]
    found = []  # a kernel without it
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            if int(file.read().rpartition(b")")[2].split()[1]) == os.getpid():
                found.append(int(name))
    return found


def open_standard() -> None:
    """Whatever of 0, 1 and 2 is closed still fails when it is used, but no file of ours gets its number."""
    for fd, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)


def flush() -> None:
    for file in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            file.flush()


def say(text: str) -> None:
    """On stderr, if that is there."""
    with contextlib.suppress(OSError):
        os.write(2, f"dgmp: {text}\n".encode(errors="surrogateescape"))


def die(number: int) -> NoReturn:
    """By this signal, as shells, `timeout` and service managers want to see it; and without a core of our own."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with contextlib.suppress(OSError):  # KILL has no handler to take away
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
    os._exit(128 + number)
