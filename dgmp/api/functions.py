"""The functions that users call, on the runtime of their process: the `go` statement, and what is in Go's package runtime."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from . import runtime
from .runtime import call, node, say

if TYPE_CHECKING:
    from typing import Unpack

    from .future import Future
    from .runtime import Terms
    from .snapshot import Snapshot

T = TypeVar("T")


def go(fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
    """Runs `fn(*args, **kwargs)` as a G, on some M, and returns a Future of its result (Go: the `go` statement).

    The first call boots the embedded runtime.  Futures among the arguments are replaced by their results before the G
    becomes runnable; if one of them fails, the G does not run and its Future ends with the same error.  For a Future of
    another Runtime go() itself waits.  Inside a G the new one is a child on the same runtime.

    Raises:
        EncodingError: the function or an argument cannot be pickled.
        TooManyGs: inside a G, when every slot is taken.
        RuntimeClosed: the program is ending.

    Example:
        >>> import dgmp
        >>> a = dgmp.go(divmod, 7, 2)
        >>> dgmp.go(sum, a).result()
        4
    """
    return node().go(fn, args, kwargs, None, 2)


def spawn(fn: Callable[..., T], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None, *,
          name: str | None = None, **terms: Unpack[Terms]) -> Future[T]:
    """The long form of `go`, with which one says how the G may fail (Go: none; a panic there ends the program).

    Args:
        fn: the function.
        args: its positional arguments, a tuple or list.
        kwargs: its keyword arguments.
        name: the G's in messages; the function's by default.
        retries: how often it may be run again after it has failed, at most 200; then, or by default at once, its Future ends
            with what it failed with.  It may have done some of its work before each failure.
        retry_on: after which errors: an exception type, or a tuple of such.  Default: WorkerDied, that is when its process
            dies as it runs or is parked there.  TimeoutError stands for its `timeout` too.
        backoff: seconds before it is run again: a number, which doubles with each retry up to a minute; or a list or tuple of
            numbers, for one retry after the other, the last for all that follow.
        timeout: seconds that it may run, each time, parked or not.  Then it raises `Cancelled`, as by Future.cancel, and its
            Future ends with TimeoutError.
        grace: seconds after which its process is killed if it runs on after it was cancelled or its timeout has passed; an
            infinite one: never.  Default: the Runtime's.
        crash_limit: it is not run again once so many processes have died while it ran.  Default: the Runtime's, 3.

    Raises:
        What `go` raises.
        TypeError, ValueError: one of these is of the wrong kind or out of range.

    Example:
        >>> import dgmp
        >>> dgmp.spawn(int, ("ff",), {"base": 16}, name="parse").result()
        255
        >>> dgmp.spawn(abs, (-1,), retries=2, retry_on=(dgmp.WorkerDied, OSError), backoff=0.1, timeout=60).result()
        1
    """
    at = node()
    return at.go(fn, *call(args, kwargs, name), 2, None, say(at, terms))


def map(fn: Callable[..., T], /, *iterables: Iterable[Any], chunksize: int | None = None,
        buffersize: int | None = None) -> Iterator[T]:
    """`builtins.map` on all Ms: the results of fn for the items of the iterables, in order, as an iterator (Go: none).

    Items are sent in chunks.  Work begins at the call; after that items are pulled, by whoever asks for results, as long as
    the next result has not come, so that an endless input is fine and one that fails half-way fails after the results of
    what it gave before.  An error of an item is raised in its place, and the iterator can be gone on with.  An iterator that
    is dropped drops the chunks that have not begun.  The function is sent as it is at the call; items that are Futures are
    not waited for.

    Args:
        fn: the function; it gets one item of each iterable.  The shortest iterable ends the map.
        chunksize: how many items make a chunk.  None: so many as take about a millisecond, as measured.
        buffersize: at most so many items are sent whose results have not been taken.  None: as many as keep all Ms at work
            beside a straggler, but few enough that results do not fill the memory.

    Raises:
        TypeError: fn is no function, an iterable is none or missing, or a size is no whole number.
        ValueError: a size is less than 1.
        EncodingError: the function cannot be pickled.
        RuntimeClosed: the program is ending.

    The iterator raises, in the place of the item:
        EncodingError: the item, or its result, cannot be pickled.
        WorkerDied: the process died that ran the chunk; no item is run twice.
        RuntimeClosed: the runtime was closed before.
        Exception: whatever the function raised, its remote traceback as `__cause__`.

    Example:
        >>> import dgmp
        >>> list(dgmp.map(pow, range(5), [2] * 5))
        [0, 1, 4, 9, 16]
        >>> import itertools
        >>> squares = dgmp.map(lambda x: x * x, itertools.count(1))
        >>> next(squares), next(squares)
        (1, 4)
    """
    from .map import start

    return start(node(), fn, iterables, chunksize, buffersize, 2)


def starmap(fn: Callable[..., T], iterable: Iterable[Iterable[Any]], /, chunksize: int | None = None,
            buffersize: int | None = None) -> Iterator[T]:
    """As `map`, with the arguments of each call in one item, as in `itertools.starmap`.

    Args:
        fn: the function.
        iterable: of tuples, or other iterables, of arguments.
        chunksize, buffersize: as for `map`.

    Raises:
        What `map` raises.

    Example:
        >>> import dgmp
        >>> list(dgmp.starmap(divmod, [(7, 2), (9, 4)]))
        [(3, 1), (2, 1)]
    """
    from .map import start

    return start(node(), fn, (iterable,), chunksize, buffersize, 2, starred=True)


def map_unordered(fn: Callable[..., T], /, *iterables: Iterable[Any], chunksize: int | None = None,
                  buffersize: int | None = None) -> Iterator[T]:
    """As `map`, but the results of each chunk come as soon as it has finished.

    Args:
        fn, iterables, chunksize, buffersize: as for `map`.

    Raises:
        What `map` raises.

    Example:
        >>> import dgmp
        >>> sorted(dgmp.map_unordered(abs, [-3, 1, -2]))
        [1, 2, 3]
    """
    from .map import start

    return start(node(), fn, iterables, chunksize, buffersize, 2, ordered=False)


@functools.cache
def future_type() -> type[Future[Any]]:
    from .future import Future

    return Future


def gather(*futures: Future[Any]) -> list[Any]:
    """Waits for all futures; their results in order (Go: a loop of receives).  The first error, in that order, is raised.

    Those after it run on; `Group` cancels them.

    Raises:
        TypeError: one of them is no Future.
        Whatever `Future.result` raises.

    Example:
        >>> import dgmp
        >>> dgmp.gather(*[dgmp.go(abs, -i) for i in range(3)])
        [0, 1, 2]
    """
    for future in futures:
        if not isinstance(future, future_type()):
            raise TypeError(f"gather(*futures) takes futures as its arguments, not {type(future).__name__}")
    return [future.result() for future in futures]


def stats() -> dict[str, Any]:
    """As `Runtime.stats`, of the runtime of this process (Go: package runtime/metrics).

    Returns:
        A dict of numbers, and of lists of numbers.

    Raises:
        RuntimeClosed: the program is ending.

    Example:
        >>> import dgmp
        >>> before = dgmp.stats()["spawned"]
        >>> dgmp.go(abs, -1).result()
        1
        >>> dgmp.stats()["spawned"] - before
        1
    """
    return node().stats()


def snapshot() -> Snapshot:
    """Every G, M and P of the runtime of this process, and what it is doing; nothing is stopped for it.

    From the program and inside Gs.  `str()` of it is a dump in the manner of Go's goroutine dump, `to_dict()` is for JSON.
    SIGQUIT (Ctrl-\\) to the program prints the dump, too, and then ends the program, as in Go.

    Returns:
        A Snapshot: gs, ms, ps, runqueue, clientqueue (Go: the dump of all goroutines, and GODEBUG=scheddetail=1).

    Raises:
        RuntimeClosed: the program is ending.

    Example:
        >>> import dgmp
        >>> f = dgmp.spawn(abs, (-1,), name="mine")
        >>> [g.name for g in dgmp.snapshot().gs if g.name == "mine"]
        ['mine']
        >>> f.result()
        1
    """
    from .snapshot import take

    return take(node().view)


def num_g() -> int:
    """How many Gs there are: queued, running, parked, or finished and not collected yet (Go: runtime.NumGoroutine).

    Example:
        >>> import dgmp
        >>> dgmp.go(dgmp.num_g).result() >= 1  # that one
        True
    """
    return int(node().stats()["num_g"])


def gomaxprocs(n: int | None = None) -> int:
    """How many Ps the runtime has, and how many it shall have (Go: runtime.GOMAXPROCS).

    The world is stopped for the change, which takes well under a millisecond: no P runs anything meanwhile, but Gs that are
    running run on.  With fewer Ps, the Gs that still run without one are stopped until there is one for them.

    Args:
        n: from now on, at least 1 and at most the runtime's max_ms; None or 0: as many as before.

    Returns:
        How many there were before.

    Raises:
        TypeError, ValueError: n is no whole number, or out of range.

    Example:
        >>> import dgmp
        >>> before = dgmp.gomaxprocs(3)
        >>> dgmp.gomaxprocs(before)
        3
    """
    return node().gomaxprocs(n)


def goid() -> int | None:
    """The id of the G that calls; None outside of Gs (Go: the number in its dump, which programs cannot ask for).

    Example:
        >>> import dgmp
        >>> dgmp.goid() is None, dgmp.go(dgmp.goid).result() > 0
        (True, True)
    """
    gp = None if runtime._member is None else runtime._member.m.running_g()
    return None if gp is None else gp.goid


def current() -> dict[str, Any] | None:
    """Where the caller runs; None outside of Gs (Go: getg, and what it points to).

    Returns:
        {"g": the G's id, "name": its function's, "m": the number of its M, "pid": that process, "p": the number of its P}.

    Example:
        >>> import dgmp
        >>> where = dgmp.go(dgmp.current).result()
        >>> where["name"], sorted(where)
        ('current', ['g', 'm', 'name', 'p', 'pid'])
    """
    gp = None if runtime._member is None else runtime._member.m.running_g()
    if runtime._member is None or gp is None:
        return None
    return {"g": gp.goid, "name": gp.name, "m": runtime._member.view.id, "pid": os.getpid(), "p": runtime._member.view.p}


def gosched() -> None:
    """Gives way to other Gs (Go: runtime.Gosched).  Outside of Gs it gives way to other threads.

    Raises:
        Cancelled: the calling G was asked to end.

    Example:
        >>> import dgmp
        >>> def polite():
        ...     for _ in range(3):
        ...         dgmp.gosched()
        ...     return "done"
        >>> dgmp.go(polite).result()
        'done'
    """
    if runtime._member is not None and runtime._member.m.in_g():
        runtime._member.gosched()
    else:
        time.sleep(0)


def cancelled() -> bool:
    """Whether the calling G has been asked to end (Go: ctx.Err() != nil, of a context of its own).

    For code that may not be interrupted, or goes on after dgmp.Cancelled was raised in it, which it knows as well.  False
    outside of Gs, and in other threads.

    Example:
        >>> import dgmp
        >>> def search():
        ...     while not dgmp.cancelled():
        ...         pass  # look on
        >>> f = dgmp.go(search)
        >>> f.cancel()
        True
        >>> f.exception() is None or f.cancelled()  # it was told, or had not begun
        True
    """
    gp = None if runtime._member is None else runtime._member.m.running_g()
    return gp is not None and runtime._member is not None and (bool(gp.stop) or runtime._member.view.asked(gp.word) != 0)
