"""Task: a function that is encoded once, when it is first used as a G, and not looked at again after that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from ..ship import values
from ..ship.snapshot import Snapshot
from .future import Future
from .runtime import node

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")


class Task(Snapshot, Generic[P, T]):
    """What `task` returns: callable here, and as a G with `go` (Go: none; functions need not travel there).

    It travels as it was when it was first used as a G: later changes of its globals, captured variables, defaults and
    attributes do not count, and all Gs of an M share one copy.  A Task that its module holds under its name travels by
    reference, as any importable function does.

    Args:
        fn, name: as for `task`.

    Raises:
        TypeError: fn is not callable, or name is no string.

    Example:
        >>> import dgmp
        >>> parse = dgmp.Task(int, name="parse")
        >>> parse("1"), parse.go("2").result()
        (1, 2)
    """

    def __init__(self, fn: Callable[P, T], *, name: str | None = None) -> None:
        if not callable(fn):
            raise TypeError(f"a task needs a function, not {fn!r}")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a string, not {type(name).__name__}")
        super().__init__(fn, name=name)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls the function here."""
        value: T = self._fn(*args, **kwargs)
        return value

    def go(self, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Runs the call as a G: as `dgmp.go(self, *args, **kwargs)`, and raises what that does."""
        return node().go(self, args, kwargs, self._options["name"], 2)

    @overload
    def __get__(self, instance: None, owner: type) -> Task[P, T]: ...
    @overload
    def __get__(self: Task[Concatenate[S, P], T], instance: S, owner: type) -> BoundTask[S, P, T]: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        bound: Any = BoundTask
        return self if instance is None else bound(self, instance)

    def __repr__(self) -> str:
        return f"<dgmp.Task of {self._fn!r}>"


class BoundTask(Generic[S, P, T]):
    """A Task that is a method, with its object.  The object travels with each call, as an argument does."""

    def __init__(self, task: Task[Concatenate[S, P], T], instance: S) -> None:
        self.__func__, self.__self__ = task, instance
        self.__qualname__: str = values.describe(task)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls the method here."""
        return self.__func__(self.__self__, *args, **kwargs)

    def go(self, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Runs the call as a G."""
        return node().go(self.__func__, (self.__self__, *args), kwargs, self.__func__._options["name"], 2)

    def __reduce__(self) -> Any:
        return BoundTask, (self.__func__, self.__self__)


@overload
def task(fn: Callable[P, T], /, *, name: str | None = None) -> Task[P, T]: ...
@overload
def task(*, name: str | None = None) -> Callable[[Callable[P, T]], Task[P, T]]: ...
def task(fn: Any = None, /, *, name: str | None = None) -> Any:
    """Makes a Task of a function, which is then encoded once; also as a decorator, with or without parentheses.

    For functions that refer to much, or to what may change: an undecorated one is looked at, and often encoded, at each
    `go`.  Calling the Task calls the function here.

    Args:
        fn: the function.
        name: its Gs' name in messages; the function's by default.

    Raises:
        TypeError: fn is not callable, or name is no string.

    Example:
        >>> import dgmp
        >>> factor = 10
        >>> @dgmp.task
        ... def scale(x):
        ...     return factor * x
        >>> scale.go(4).result(), scale(5)
        (40, 50)
    """
    if fn is None:
        return lambda fn: Task(fn, name=name)
    return Task(fn, name=name)
