"""What an M says on stderr in the interpreter's place, in its words, without the frames of dgmp itself."""

from __future__ import annotations

import contextlib
import os
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traceback import TracebackException

OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep
RUNPY = "<frozen runpy>"


def flush(stream: Any) -> BaseException | None:
    """What came between, if anything did; a stream that was closed, or set to None, has nothing to flush."""
    try:
        if stream is not None and not getattr(stream, "closed", False):
            stream.flush()
    except BaseException as e:
        return e
    return None


def uncaught(error: BaseException) -> None:
    """The script ended with it."""
    flush(sys.stdout)
    if sys.excepthook is sys.__excepthook__:
        say(traceback_text(error), sys.stderr)
        return
    tb = error.__traceback__
    while tb is not None and is_ours(tb.tb_frame.f_code.co_filename):
        tb = tb.tb_next
    try:
        sys.excepthook(type(error), error, tb)
    except BaseException as again:
        say(f"Error in sys.excepthook:\n{traceback_text(again)}\nOriginal exception was:\n{traceback_text(error)}", sys.stderr)


def unraisable(error: BaseException, where: Any) -> None:
    """It was raised in `where`, and nobody can catch it."""
    hook: Any = sys.unraisablehook
    if hook is sys.__unraisablehook__:  # takes only what the interpreter itself makes
        say(f"Exception ignored in: {where!r}\n{traceback_text(error)}", sys.stderr)
        return
    try:
        hook(SimpleNamespace(exc_type=type(error), exc_value=error, exc_traceback=error.__traceback__, err_msg=None,
                             object=where))
    except BaseException as again:
        say(f"Exception ignored in sys.unraisablehook: {hook!r}\n{traceback_text(again)}", sys.stderr)


def say(text: str, stream: Any) -> None:
    """If it can be said."""
    if stream is not None:
        with contextlib.suppress(Exception):
            print(text, end="", file=stream, flush=True)


def traceback_text(error: BaseException) -> str:
    import traceback

    text = traceback.TracebackException.from_exception(error)
    strip(text)
    return "".join(text.format())


def strip(text: TracebackException | None) -> None:
    """Takes our frames out of it, and out of what it came from."""
    import traceback

    while text is not None:
        text.stack = traceback.StackSummary.from_list([frame for frame in text.stack if not is_ours(frame.filename)])
        strip(text.__cause__)
        text = text.__context__


def is_ours(filename: str) -> bool:
    return filename.startswith(OURS) or filename == RUNPY
