"""The errors dgmp raises of its own.  Errors of user code travel as they are (dgmp.ship.closure)."""


class DgmpError(Exception):
    """Base class of the errors that dgmp itself raises."""


class WorkerDied(DgmpError):
    """The M of this G died: it was killed, it crashed, or a G ended the process.

    With an M end the G that ran there and the started Gs that were parked there, and Gs that wait for one of them as an
    argument do not run.  All others go on, those that nobody had started among them.

    Attributes:
        pid: the process.
        exitcode: how it ended, as subprocess.Popen.returncode says it: its exit code, or minus the signal's number; None
            if that is not known.
        history: (pid, how it died) of each M that died while it ran this G, the last one last; empty if it did not run.
        stderr: the last lines that the M had written to sys.stderr, or faulthandler there; also in the message.
    """

    pid = 0
    exitcode: int | None = None
    history: list[tuple[int, str]] = []
    stderr = ""


class Cancelled(BaseException):
    """Raised in a G that was asked to end (Future.cancel), where it waits or next waits; also what such a G ends with.

    No Exception, as asyncio.CancelledError is none: `except Exception` lets it pass.  The G cleans up in its `finally`
    blocks, in which it may wait again.  (Go has no such thing: there a goroutine must look at its context.)

    Example:
        >>> import dgmp
        >>> f = dgmp.go(dgmp.sleep, 3600)
        >>> f.cancel()
        True
        >>> try:
        ...     f.result()
        ... except dgmp.Cancelled:
        ...     print("cancelled")
        cancelled
    """


class HolderDied(DgmpError):
    """The process died that held what was to be acquired: a Mutex, the write lock of an RWMutex, units of a Semaphore.

    Said once for each death, to the next one that acquires it.  It has not been acquired, but what the dead one held is free:
    who goes on to acquire it should first see to what it guards, which may be half changed.  Also raised by WaitGroup.wait,
    when a process died that had added to the WaitGroup.
    """


class CoordinatorDied(DgmpError):
    """The runtime's coordinator is gone, and with it everything that was still to be done."""


class CannotAttach(DgmpError):
    """There is no node to attach to (Runtime(attach=...)), or it does not take this program; the text says why."""


class RuntimeClosed(DgmpError):
    """The runtime was closed before this G had finished."""


class Deadlock(DgmpError):
    """All goroutines are asleep: every G waits, and so does the program, and nothing can wake any of them.

    Raised in the wait of the program (of the main G, under `dgmp run`); its text has the dump of all Gs.  It is raised only
    when nothing else can come either: each M has one thread, the program has one Python thread, which sits in a wait of
    dgmp without a timeout, and nobody has installed signal handlers (Go: "fatal error: all goroutines are asleep").
    """


class TooManyGs(DgmpError):
    """A G tried to spawn when every slot of the runtime was taken; inside a G a spawn never waits."""


class ChanClosed(DgmpError):
    """A value was sent on a closed channel, or one was asked for when it had no more, or it was closed twice.

    In Go the first and the last are panics, and a receive gives a zero value.
    """


class EncodingError(DgmpError):
    """A function, an argument, a result or a message in a channel cannot be pickled, or not be unpickled where it arrived."""


class RemoteTraceback(Exception):
    """The traceback text of an exception raised in another process; stands as its `__cause__`."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class LargeCaptureWarning(UserWarning):
    """A function was encoded again and again with something large that it refers to."""
