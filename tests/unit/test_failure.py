"""Exceptions to bytes and back."""

import asyncio
import copyreg
import importlib
import io
import linecache
import pdb
import pickle
import re
import subprocess
import sys
import threading
import traceback

import pytest

import dgmp
from dgmp._core import RESULT_ERROR
from dgmp.ship import failure

LOCK = threading.Lock()


def raised(error):
    try:
        raise error
    except BaseException as e:
        return e


def travel(error):
    kind, data = failure.encode_error(error)
    assert kind == RESULT_ERROR and type(data) is bytes
    return failure.decode_error(data)


class Plain(Exception):
    pass


class NeedsKeywords(Exception):
    def __init__(self, *, code, text="none"):
        super().__init__(f"{code}: {text}")
        self.code, self.text = code, text


class OtherArity(ValueError):
    def __init__(self, a, b):
        super().__init__(a + b)


class ChangesArgs(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.args = (1, 2, 3)


class CallsNobody(Exception):
    def __init__(self, value):
        self.value = value


class CountsItsMakings(Exception):
    made = 0

    def __init__(self, n):
        super().__init__(n * 2)
        CountsItsMakings.made += 1


class WithNew(Exception):
    def __new__(cls, a, b):
        self = super().__new__(cls, a)
        self.b = b
        return self

    def __init__(self, a, b):
        super().__init__(a)


class Slotted(Exception):
    __slots__ = ("code", "__hidden", "unset")

    def __init__(self, code):
        super().__init__()
        self.code, self.__hidden = code, code + 1

    def hidden(self):
        return self.__hidden


class OwnReduce(Exception):
    def __init__(self, a, b):
        super().__init__(a, b)
        self.made_by = "init"

    def __reduce__(self):
        return make_own_reduce, self.args


def make_own_reduce(a, b):
    error = OwnReduce(a, b)
    error.made_by = "reduce"
    return error


class OwnState(Exception):
    def __getstate__(self):
        return {"x": 1}

    def __setstate__(self, state):
        self.state = state


class InCopyreg(Exception):
    def __init__(self, *, a):
        super().__init__(a)


copyreg.pickle(InCopyreg, lambda e: (make_in_copyreg, e.args))


def make_in_copyreg(a):
    error = InCopyreg(a=a)
    error.by = "copyreg"
    return error


class MyOSError(OSError):
    def __init__(self, path, *, mode):
        super().__init__(2, "No such thing", path)
        self.mode = mode


class MyExit(SystemExit):
    def __init__(self, *, why):
        super().__init__(7)
        self.why = why


class HalfMade(UnicodeDecodeError):
    def __init__(self, text):
        self.text = text


class Hidden(Exception):
    """Its attributes are none of anybody's business."""

    def __getattribute__(self, name):
        if name in ("__dict__", "args", "__cause__", "__notes__"):
            raise RuntimeError(name)
        return super().__getattribute__(name)


class FailingReduce(Exception):
    def __reduce__(self):
        raise ValueError("no")


class ExitingReduce(KeyError):
    def __reduce__(self):
        sys.exit(1)


class RecursingReduce(Exception):
    def __reduce__(self):
        return self.__reduce__()


class GarbageReduce(Exception):
    def __reduce__(self):
        return 3


class ReduceToOther(Exception):
    def __reduce__(self):
        return ValueError, self.args


class FailingLoad(Exception):
    def __reduce__(self):
        return sys.exit, (3,)


class Speechless(Exception):
    def __str__(self):
        raise SystemExit("no text")

    __repr__ = __str__


class RefusesToLoad:
    def __reduce__(self):
        return int, ("x",)


class Unpicklable(Exception):
    def __init__(self, lock, n):
        super().__init__("locked", lock, n)
        self.lock, self.n = lock, n


def same(a, b):
    """Whether b is a copy of a, as far as one can see."""
    return (type(b) is type(a) and BaseException.args.__get__(b) == BaseException.args.__get__(a) and str(a) == str(b)
            and object.__getattribute__(a, "__dict__") == object.__getattribute__(b, "__dict__"))


EQUAL = [
    ValueError("x"), ValueError(), ValueError(1, [2], {"a": b"b"}), KeyError((1, "a")), KeyError(KeyError), Plain("x"),
    NeedsKeywords(code=3), OtherArity("a", "b"), ChangesArgs("x"), CallsNobody({1: 2}), WithNew(1, 2),
    OSError(2, "No such file", "/x"), OSError(18, "cross", "/a", None, "/b"), OSError(), OSError("only text"),
    OSError(1, 2, 3, 4, 5, 6), PermissionError(13, "no", b"/x"), MyOSError("/p", mode="r"), BlockingIOError(11, "later", 5),
    ConnectionResetError(104, "reset"),
    UnicodeDecodeError("utf-8", b"abc\xff", 3, 4, "bad"), UnicodeEncodeError("ascii", "\udc80", 0, 1, "bad"),
    UnicodeTranslateError("x", 0, 1, "bad"), HalfMade("x"),
    SystemExit(), SystemExit(0), SystemExit(3), SystemExit("text"), SystemExit(1, 2), MyExit(why="x"),
    KeyboardInterrupt(), KeyboardInterrupt("x"), GeneratorExit("x"), StopIteration(5), StopAsyncIteration(5),
    asyncio.CancelledError("x"), SyntaxError("bad", ("f.py", 1, 2, "x = (", 1, 3)), ImportError("no", name="x", path="y"),
    ModuleNotFoundError("no", name="x"), NameError("no", name="x"), subprocess.CalledProcessError(3, ["a", "b"], b"out"),
    subprocess.TimeoutExpired("x", 3.5), dgmp.EncodingError("x"), Hidden(1),
    FailingReduce(1, 2), ExitingReduce("k"), RecursingReduce(1), GarbageReduce(1), ReduceToOther(1), FailingLoad("x", 3),
]


@pytest.mark.parametrize("error", EQUAL, ids=lambda e: type(e).__name__)
def test_type_args_and_attributes(error):
    twin = travel(raised(error))
    assert same(error, twin) and twin is not error
    assert "test_failure.py" in str(BaseException.__dict__["__cause__"].__get__(twin))


@pytest.mark.parametrize("error", EQUAL, ids=lambda e: type(e).__name__)
def test_fields(error):
    twin = travel(error)
    for name in ("errno", "strerror", "filename", "filename2", "characters_written", "code", "value", "encoding", "object",
                 "start", "end", "reason", "name", "path", "msg", "lineno", "offset", "text", "end_lineno", "end_offset",
                 "print_file_and_line"):
        assert getattr(twin, name, None) == getattr(error, name, None), name


def test_fields_that_were_set_later():
    for error, name, value in ((SystemExit(3), "code", 5), (OSError(1, "a"), "filename", "late"), (StopIteration(), "value", 7),
                               (ImportError("x"), "name", "late"), (SyntaxError("x"), "lineno", 12)):
        setattr(error, name, value)
        assert getattr(travel(error), name) == value


def test_slots():
    twin = travel(Slotted(4))
    assert twin.code == 4 and twin.hidden() == 5 and not hasattr(twin, "unset")


def test_init_is_not_called_again():
    before = CountsItsMakings(2)
    made = CountsItsMakings.made
    assert travel(before).args == (4,) and CountsItsMakings.made == made


def test_own_pickling_comes_first():
    assert travel(OwnReduce(1, 2)).made_by == "reduce"
    assert travel(InCopyreg(a=1)).by == "copyreg"
    error = OwnState("x")
    error.y = 2
    assert travel(error).args == ("x",)


def test_notes():
    error = ValueError("x")
    error.add_note("one")
    error.add_note("two \udc80")
    assert travel(error).__notes__ == ["one", "two \udc80"]
    error.__notes__ = "not a list"
    travel(error)
    error = OwnReduce(1, 2)
    error.add_note("kept though its __reduce__ does not know of it")
    assert travel(error).__notes__ == error.__notes__


def chain(*errors):
    for error, cause in zip(errors, errors[1:], strict=False):
        error.__cause__ = cause
    return errors[0]


def causes(error):
    out = []
    while error is not None:
        out.append(error)
        error = error.__cause__
    return out


def test_without_a_cause_the_remote_traceback_is_it():
    twin = travel(raised(ValueError("x")))
    assert [type(e) for e in causes(twin)] == [ValueError, dgmp.RemoteTraceback]
    assert twin.__context__ is None and twin.__suppress_context__ is False


def test_causes_are_kept_and_the_remote_traceback_ends_them():
    twin = travel(raised(chain(ValueError("a"), NeedsKeywords(code=1), OSError(2, "c"))))
    assert [type(e) for e in causes(twin)] == [ValueError, NeedsKeywords, FileNotFoundError, dgmp.RemoteTraceback]
    assert twin.__cause__.code == 1 and twin.__cause__.__cause__.errno == 2


def in_except(suppress):
    try:
        try:
            raise KeyError("first")
        except KeyError:
            if suppress:
                raise ValueError("second") from None
            raise ValueError("second")  # noqa: B904
    except ValueError as e:
        return e


@pytest.mark.parametrize("suppress", [False, True])
def test_context(suppress):
    twin = travel(in_except(suppress))
    assert type(twin.__context__) is KeyError and twin.__context__.args == ("first",)
    assert twin.__suppress_context__ is suppress
    assert type(twin.__cause__) is dgmp.RemoteTraceback


def test_context_of_a_cause():
    error = chain(ValueError("a"), in_except(False))
    error.__context__ = error.__cause__
    twin = travel(error)
    assert twin.__context__ is twin.__cause__ and type(twin.__cause__.__context__) is KeyError


@pytest.mark.parametrize("link", ["__cause__", "__context__"])
def test_cycles(link):
    a, b, c = ValueError("a"), KeyError("b"), TypeError("c")
    setattr(a, link, b)
    setattr(b, link, c)
    setattr(c, link, b)
    twin = travel(a)
    assert "ValueError: a" in "".join(traceback.format_exception(twin))
    assert type(getattr(getattr(twin, link), link)) is TypeError
    remote = [e for e in causes(twin) if type(e) is dgmp.RemoteTraceback]
    assert len(remote) == 1 and "ValueError: a" in remote[0].text
    if link == "__context__":
        assert twin.__context__.__context__.__context__ is twin.__context__


def test_cycles_through_attributes_and_args():
    error, other = Plain("x"), NeedsKeywords(code=1)
    error.self, error.args, error.other = error, (error, [other]), other
    error.__cause__ = other
    other.back = [error]
    twin = travel(error)
    assert twin.self is twin and twin.args[0] is twin and twin.args[1][0] is twin.other is twin.__cause__
    assert twin.other.back[0] is twin and twin.other.code == 1


def test_long_chains():
    error = None
    for i in range(3000):
        before, error = error, ValueError(i)
        error.__context__ = before
    twin = travel(error)
    for i in reversed(range(3000)):
        assert twin.args == (i,)
        twin = twin.__context__


class Group(ExceptionGroup):
    def __new__(cls, message, members, code):
        self = super().__new__(cls, message, members)
        self.code = code
        return self

    def __init__(self, message, members, code):
        super().__init__(message, members, code)

    def derive(self, members):
        return Group(self.message, members, self.code)


def test_groups():
    inner = Group("inner", [chain(raised(KeyError("k")), OSError(2, "c")), NeedsKeywords(code=2)], 5)
    inner.exceptions[1].add_note("a note")
    error = raised(BaseExceptionGroup("outer", [inner, SystemExit(3)]))
    error.x = inner.exceptions[0]
    twin = travel(error)
    assert type(twin) is BaseExceptionGroup and twin.message == "outer" and str(twin) == str(error)
    assert type(twin.exceptions[0]) is Group and twin.exceptions[0].code == 5 and twin.exceptions[1].code == 3
    key, needs = twin.exceptions[0].exceptions
    assert twin.x is key and key.__cause__.errno == 2 and needs.code == 2 and needs.__notes__ == ["a note"]
    assert twin.exceptions[0].args == ("inner", [key, needs], 5)
    assert twin.split(KeyError)[0].exceptions[0].exceptions == (key,)
    text = str(twin.__cause__)
    assert text.count("in raised") == 2 and text.count("KeyError: 'k'") == 1 and "a note" in text
    assert type(travel(ExceptionGroup("x", [ValueError(1)]))) is ExceptionGroup


def test_what_cannot_travel_is_left_out_piece_by_piece():
    error = raised(Unpicklable(LOCK, 5))
    error.also, error.code = RefusesToLoad(), 7
    error.__cause__ = NeedsKeywords(code=LOCK)
    twin = travel(error)
    assert type(twin) is Unpicklable and twin.args == ("locked", repr(LOCK), 5) and twin.n == 5 and twin.code == 7
    assert twin.lock == repr(LOCK) and "RefusesToLoad object" in twin.also
    assert twin.__notes__ == [
        "args[1] is a repr: the lock cannot travel (TypeError: cannot pickle '_thread.lock' object)",
        "attribute 'lock' is a repr: the lock cannot travel (TypeError: cannot pickle '_thread.lock' object)",
        "attribute 'also' is a repr: the RefusesToLoad cannot travel (ValueError: invalid literal for int() with base 10: 'x')"]
    assert type(twin.__cause__) is NeedsKeywords and not hasattr(error, "__notes__")
    assert twin.__cause__.code == repr(LOCK) and type(twin.__cause__.__cause__) is dgmp.RemoteTraceback


def dynamic_class(name, bases=(Exception,), **body):
    """A class of a module that nobody can import: it travels whole."""
    return type(name, bases, {"__module__": "__main__", **body})


def test_classes_that_travel_whole():
    cls = dynamic_class("Dynamic", (OSError,), __init__=lambda self, *, path: OSError.__init__(self, 2, "no", path))
    twin = travel(raised(cls(path="/x")))
    assert type(twin).__name__ == "Dynamic" and twin.filename == "/x" and isinstance(twin, FileNotFoundError) is False

    class Local(ValueError):
        pass

    assert type(travel(Local(1))).__name__ == "Local" and travel(Local(1)).args == (1,)


def test_a_class_that_cannot_travel():
    cls = dynamic_class("Stuck", (LookupError,), lock=LOCK)
    twin = travel(raised(cls("lost")))
    assert type(twin) is LookupError and str(twin) == "lost"
    assert twin.__notes__ == ["stands for a Stuck (it cannot be pickled)"]
    assert "Stuck: lost" in str(twin.__cause__) and "in raised" in str(twin.__cause__)
    twin = travel(dynamic_class("Stuck", lock=LOCK)("lost"))
    assert type(twin) is dgmp.EncodingError and str(twin) == "Stuck: lost (it cannot be pickled)"
    twin = travel(dynamic_class("StuckGroup", (ExceptionGroup,), lock=LOCK)("lost", [KeyError(1)]))
    assert type(twin) is ExceptionGroup and twin.message == "lost" and same(twin.exceptions[0], KeyError(1))


@pytest.fixture
def plugin(monkeypatch, tmp_path):
    """A module that one process can import and another cannot."""
    (tmp_path / "plugin_of_the_m.py").write_text(
        "class Value:\n    def __eq__(self, other): return True\n"
        "class Bare(Exception): pass\nclass Error(Bare, OSError): pass\n"
        "class Picky(Exception):\n    def __str__(self): return self.text")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    module = importlib.import_module("plugin_of_the_m")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    yield module
    sys.modules.pop(module.__name__, None)


def forget(monkeypatch, plugin):
    monkeypatch.setattr(sys, "path", sys.path[1:])
    monkeypatch.delitem(sys.modules, plugin.__name__)


def test_a_class_that_the_client_does_not_know(monkeypatch, plugin):
    error = raised(chain(ValueError("mine"), plugin.Error(2, "no", "/x"), plugin.Bare("b")))
    error.__context__ = error.__cause__
    data = failure.encode_error(error)[1]
    assert type(failure.decode_error(data).__cause__) is plugin.Error
    forget(monkeypatch, plugin)
    a, b, c, end = causes(failure.decode_error(data))
    assert type(a) is ValueError and a.args == ("mine",) and a.__context__ is b
    assert type(b) is OSError and str(b) == "[Errno 2] no: '/x'"
    assert b.__notes__ == ["stands for a plugin_of_the_m.Error (it cannot be unpickled here: ModuleNotFoundError: No module "
                           "named 'plugin_of_the_m')"]
    assert type(c) is dgmp.EncodingError and str(c).startswith("plugin_of_the_m.Bare: b (it cannot be unpickled here: ")
    assert "plugin_of_the_m.Error: [Errno 2] no: '/x'" in end.text


def test_attributes_that_the_client_does_not_know(monkeypatch, plugin):
    error = NeedsKeywords(code=1)
    error.value = plugin.Value()
    data = failure.encode_error(error)[1]
    forget(monkeypatch, plugin)
    twin = failure.decode_error(data)
    assert type(twin) is NeedsKeywords and twin.args == ("1: none",)
    assert "ModuleNotFoundError" in twin.__notes__[0]


def test_a_group_of_members_that_the_client_does_not_know(monkeypatch, plugin):
    data = failure.encode_error(ExceptionGroup("g", [plugin.Bare("b"), KeyError("k")]))[1]
    forget(monkeypatch, plugin)
    twin = failure.decode_error(data)
    assert type(twin) is ExceptionGroup and [type(e) for e in twin.exceptions] == [dgmp.EncodingError, KeyError]


def test_a_speechless_exception():
    error = raised(Speechless(1))
    error.lock = LOCK
    twin = travel(error)
    assert type(twin) is Speechless and twin.args == (1,) and twin.lock == repr(LOCK)
    assert "<exception str() failed>" in str(twin.__cause__)
    twin = travel(dynamic_class("Mute", (Speechless,), lock=LOCK)(1))
    assert type(twin) is dgmp.EncodingError and "Mute: <its text cannot be had: SystemExit>" in str(twin)


def test_text_stays_bounded():
    twin = travel(raised(ValueError("x" * 10_000_000)))
    assert len(twin.args[0]) == 10_000_000
    text = twin.__cause__.text
    assert len(text) < failure.LONGEST_TEXT + 100 and "characters left out" in text and "in raised" in text

    def down():
        down()

    try:
        down()
    except RecursionError as e:
        text = travel(e).__cause__.text
    assert "Previous line repeated" in text and len(text) < 10_000
    twin = travel(dynamic_class("Stuck", lock=LOCK)("x" * 1_000_000))
    assert len(str(twin)) < 11_000


def test_printed_at_the_client_each_traceback_is_there_once():
    error = travel(raised(chain(ValueError("outer"), raised(KeyError("inner")))))
    twin = raised(travel(raised(error)))  # by another G, that has waited for the first
    assert [type(e) for e in causes(twin)] == [ValueError, KeyError, dgmp.RemoteTraceback]
    text = "".join(traceback.format_exception(twin))
    assert text.count('"""') == 4  # the text of the first within that of the second
    assert text.count("in raised") == 2 + 1 + 1  # both there, the second, and here
    assert text.index("KeyError: 'inner'") < text.index("ValueError: outer")


def test_post_mortem(monkeypatch):
    try:
        raise travel(raised(Plain("x")))
    except Plain as e:
        error = e
    out = io.StringIO()
    traceback.print_exception(error, file=out)
    assert "in raised" in out.getvalue() and "The above exception was the direct cause" in out.getvalue()
    shell = pdb.Pdb(stdin=io.StringIO("where\np error\nquit\n"), stdout=out, readrc=False)
    shell.reset()
    shell.interaction(None, error.__traceback__)
    assert "test_post_mortem" in out.getvalue()
    traceback.TracebackException.from_exception(error, capture_locals=True)


def test_lines_that_only_the_client_has(monkeypatch):
    """Of a notebook's cell, say."""
    namespace = {}
    exec(compile("def f(x):\n    return 1 / x  # here\n", "<cell 1>", "exec"), namespace)

    def group():
        try:
            namespace["f"](0)
        except ZeroDivisionError as e:
            raise ExceptionGroup("g", [e]) from e

    for fn in (lambda: namespace["f"](0), group):
        try:
            fn()
        except Exception as e:
            data = failure.encode_error(e)[1]
        assert "# here" not in causes(failure.decode_error(data))[-1].text
        with monkeypatch.context() as patch:
            patch.setitem(linecache.cache, "<cell 1>", (1, None, ["def f(x):\n", "    return 1 / x  # here\n"], "<cell 1>"))
            text = causes(failure.decode_error(data))[-1].text
        places = re.findall(r'( *(?:\| +)?)File "<cell 1>", line 2, in f\n( *(?:\| +)?)return 1 / x  # here\n', text)
        assert len(places) == text.count("<cell 1>") > 0 and all(line == place + "  " for place, line in places)


def test_frames_of_ours_are_left_out():
    def g(f):
        f()

    scope = {"f": lambda: raised_by(ValueError("x"))}

    def raised_by(error):
        raise error

    code = compile("def call(f):\n    f()\n", failure.OURS + "runtime/proc.py", "exec")
    exec(code, scope)
    try:
        scope["call"](scope["f"])
    except ValueError as e:
        error = e.with_traceback(e.__traceback__.tb_next)
    text = failure.traceback_text(error)
    assert "proc.py" not in text and "in raised_by" in text


def test_a_note_for_who_did_not_run():
    error = ValueError("x")
    error.add_note("own")
    data = failure.encode_error(error)[1]
    for name in "abc":
        data = failure.with_argument_note(data, name)
    assert failure.decode_error(data).__notes__ == ["own", "a", "c"]


def test_the_last_resort():
    twin = failure.decode_error(failure.plain_error(RecursionError("x"), MemoryError()))
    assert type(twin) is RecursionError and str(twin) == "RecursionError was raised, and encoding it failed with MemoryError"
    twin = failure.decode_error(failure.plain_error(Plain("x"), MemoryError()))
    assert type(twin) is Plain and str(twin) == "Plain was raised, and encoding it failed with MemoryError"
    cls = dynamic_class("Nameless")
    twin = failure.decode_error(failure.plain_error(cls("x"), MemoryError()))
    assert type(twin) is dgmp.EncodingError and "Nameless was raised" in str(twin)


def test_copies():
    for error in (NeedsKeywords(code=1), OSError(2, "a", "b"), ExceptionGroup("g", [ValueError(1)]), OwnReduce(1, 2)):
        error.add_note("first")
        error.__cause__, error.__context__, error.__suppress_context__ = KeyError(1), KeyError(2), False
        twin = failure.copy_with_note(error, "second")
        assert twin is not error and type(twin) is type(error) and twin.args == error.args and str(twin) == str(error)
        assert twin.__notes__ == ["first", "second"] and error.__notes__ == ["first"]
        assert twin.__cause__ is error.__cause__ and twin.__context__ is error.__context__ and not twin.__suppress_context__
    for error in (FailingReduce(1), ReduceToOther(1)):
        assert failure.copy_with_note(error, "x") is error


def test_pickled_with_the_client_by_hand():
    """What result() raises can itself be pickled, as by another pool around it."""
    twin = travel(raised(ValueError("x")))
    assert str(pickle.loads(pickle.dumps(twin.__cause__))) == str(twin.__cause__)
