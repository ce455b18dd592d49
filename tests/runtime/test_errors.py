"""Errors of user code, and objects that will not be pickled or unpickled: each costs one G, and says which."""

import asyncio
import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import traceback

import pytest

import dgmp
from tests import helpers


@pytest.fixture(scope="module")
def node():
    with dgmp.Runtime(procs=2) as runtime:
        yield runtime


@pytest.fixture
def rt(node):
    """One for all: each test leaves it as it was."""
    return node


def raise_it(error):
    raise error


def raise_in_the_m(name, *args):
    raise __builtins__[name](*args)


# ---------------------------------------------------------------------- what ends programs ends a G
ENDINGS = [SystemExit(), SystemExit(0), SystemExit(3), SystemExit("text"), KeyboardInterrupt(), GeneratorExit("x"),
           StopIteration(5), StopAsyncIteration(), asyncio.CancelledError("x"), BaseException("bare")]


@pytest.mark.parametrize("ending", ENDINGS, ids=repr)
def test_what_ends_programs_is_the_result_of_its_g_alone(rt, ending):
    others = [rt.go(helpers.identity, i) for i in range(10)]
    f = rt.go(raise_it, ending)
    others += [rt.go(helpers.identity, i) for i in range(10, 20)]
    seen, came = [], threading.Event()

    def callback(f):
        seen.append(f.exception())
        came.set()

    f.add_done_callback(callback)
    with pytest.raises(type(ending)) as e:
        f.result(20)
    assert type(e.value) is type(ending) and e.value.args == ending.args
    assert getattr(e.value, "code", None) == getattr(ending, "code", None)
    assert f.exception() is e.value and came.wait(20) and seen == [e.value]
    with pytest.raises(type(ending)):
        dgmp.gather(rt.go(abs, 1), f, rt.go(abs, 2))
    with pytest.raises(type(ending)):
        rt.go(helpers.add, f, 1).result(20)
    assert dgmp.gather(*others) == list(range(20))


def exits(code):
    sys.exit(code)


def catch_a_childs(name, *args):
    try:
        dgmp.go(raise_in_the_m, name, *args).result()
    except BaseException as e:
        return type(e).__name__, e.args


def pass_on_a_childs(name, *args):
    dgmp.go(raise_in_the_m, name, *args).result()


@pytest.mark.parametrize("name,args", [("SystemExit", (3,)), ("KeyboardInterrupt", ()), ("GeneratorExit", ("x",)),
                                       ("StopIteration", (5,)), ("MemoryError", ("x",)), ("RecursionError", ("x",))])
def test_nested_gs_see_it(rt, name, args):
    assert rt.go(catch_a_childs, name, *args).result(20) == (name, args)
    error = rt.go(pass_on_a_childs, name, *args).exception(20)
    assert type(error).__name__ == name and error.args == args
    assert helpers.still_fine(rt)


def test_sys_exit_leaves_the_m_alone(node):
    with dgmp.Runtime(procs=1) as rt:
        pid = rt.go(os.getpid).result(20)
        for code in range(50):
            with pytest.raises(SystemExit) as e:
                rt.go(exits, code).result(20)
            assert e.value.code == code
        assert rt.go(os.getpid).result(20) == pid


# ---------------------------------------------------------------------- on the way in
class OnLoad:
    """Does what it is told to when it is unpickled."""

    def __init__(self, act, *args):
        self.act, self.args = act, args

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.act(*self.args)


class OnDump:
    """Does what it is told to when it is pickled in an M; then it is a string."""

    def __init__(self, act, *args):
        self.act, self.args, self.home = act, args, os.getpid()

    def __reduce__(self):
        if os.getpid() == self.home:
            return make_on_dump, (self.act, self.args, self.home)
        return str, (self.act(*self.args),)


def make_on_dump(act, args, home):
    made = OnDump(act, *args)
    made.home = home
    return made


def recurse():
    recurse()


def too_much():
    raise MemoryError("as if")


def go_and_wait(*args):
    return dgmp.go(helpers.add, *args).result()


def interrupt():
    raise KeyboardInterrupt


def fails_here(act, *args):
    """A G returns it to its owner, where it is unpickled."""
    return OnLoad(act, *args)


@pytest.mark.parametrize("act,args,cause", [
    (helpers.fail, ("broken",), "ValueError: broken"), (exits, (3,), "SystemExit: 3"), (interrupt, (), "KeyboardInterrupt: "),
    (recurse, (), "RecursionError: "),
])
def test_arguments_that_fail_to_load(rt, act, args, cause):
    for f in (rt.go(helpers.identity, OnLoad(act, *args)), rt.go(helpers.add, 1, b=[OnLoad(act, *args)])):
        with pytest.raises(dgmp.EncodingError) as e:
            f.result(20)
        what = r"(the arguments of identity\(\)|a function or its arguments)"
        assert re.match(f"{what} cannot be unpickled: {cause}", str(e.value))
        assert type(e.value.__cause__).__name__ == cause.partition(":")[0]
        assert re.fullmatch(r"the G was spawned at .*test_errors.py:\d+", e.value.__notes__[0])
    assert helpers.still_fine(rt)


def test_arguments_that_take_all_memory(rt):
    assert type(rt.go(helpers.identity, OnLoad(too_much)).exception(20)) is MemoryError
    assert helpers.still_fine(rt)


@pytest.mark.parametrize("act,args", [(os._exit, (7,)), (helpers.kill_self, ())])
def test_arguments_that_kill_their_m(rt, act, args):
    with pytest.raises(dgmp.WorkerDied):
        rt.go(helpers.identity, OnLoad(act, *args)).result(20)
    assert helpers.still_fine(rt)


def test_arguments_that_spawn_and_wait(rt):
    assert rt.go(type, OnLoad(go_and_wait, 1, 2)).result(20) is OnLoad
    assert rt.go(helpers.identity, OnDump(go_and_wait, "a", "b")).result(20) == "ab"
    assert helpers.still_fine(rt)


def wait_for_byte(path):
    with open(path, "rb", buffering=0) as pipe:
        return pipe.read(1).decode()


@pytest.fixture
def pipe():
    r, w = os.pipe()
    yield f"/proc/{os.getpid()}/fd/{r}", w
    os.close(r)
    os.close(w)


@pytest.mark.parametrize("spawn", [
    lambda rt, path: rt.go(type, OnLoad(wait_for_byte, path)),
    lambda rt, path: rt.go(helpers.identity, OnDump(wait_for_byte, path)),
], ids=["loading", "dumping"])
def test_one_that_hangs_holds_up_nobody_else(rt, pipe, spawn):
    path, w = pipe
    f = spawn(rt, path)
    with pytest.raises(TimeoutError):
        f.result(0.05)
    assert helpers.still_fine(rt) and not f.done()
    os.write(w, b"x")
    f.result(20)
    assert helpers.still_fine(rt)


# ---------------------------------------------------------------------- on the way out
@pytest.mark.parametrize("act,args,cause", [
    (helpers.fail, ("broken",), "ValueError: broken"), (exits, (3,), "SystemExit: 3"), (interrupt, (), "KeyboardInterrupt: "),
    (recurse, (), "RecursionError: "), (threading.Lock, (), "TypeError: cannot pickle '_thread.lock' object"),
])
def test_results_that_cannot_be_pickled(rt, act, args, cause):
    with pytest.raises(dgmp.EncodingError) as e:
        rt.spawn(helpers.identity, ([OnDump(act, *args)],), name="mine").result(20)
    text = str(e.value)
    assert re.match(r"the result \(list\) of G \d+ \(identity\) cannot be pickled: ", text)
    assert cause in text and "where part is in what pickling makes of result[0]" in text or f"result[0] is a {__name__}" in text
    assert re.fullmatch(r"the G was spawned at .*test_errors.py:\d+", e.value.__notes__[0])
    assert helpers.still_fine(rt)


class Garbage:
    def __reduce__(self):
        return 3


def give_garbage():
    return {"x": Garbage()}


def give_generator():
    return (x for x in "abc")


async def a_coroutine():
    return 1


def give_coroutines():
    return [a_coroutine()]


def test_results_of_kinds_that_do_not_travel(rt):
    for fn, text in (
        (give_garbage, "result['x'] is a tests.runtime.test_errors.Garbage (PicklingError: "),
        (give_generator, "it is a generator (TypeError: cannot pickle 'generator' object); return a list of its items"),
        (give_coroutines, "result[0] is a coroutine (TypeError: cannot pickle 'coroutine' object); run it inside the G, with "),
    ):
        with pytest.raises(dgmp.EncodingError, match=re.escape(text)):
            rt.go(fn).result(20)


def test_results_that_kill_their_m(rt):
    for act in (os._exit, helpers.kill_self):
        with pytest.raises(dgmp.WorkerDied):
            rt.go(helpers.identity, OnDump(act, 9)).result(20)
    assert helpers.still_fine(rt)


@pytest.mark.parametrize("act,args,cause", [
    (helpers.fail, ("broken",), "ValueError: broken"), (exits, (3,), "SystemExit: 3"), (interrupt, (), "KeyboardInterrupt: "),
    (recurse, (), "RecursionError: "),
])
def test_results_that_fail_to_load_here(rt, act, args, cause):
    f = rt.spawn(fails_here, (act, *args), name="mine")
    for _ in range(2):
        with pytest.raises(dgmp.EncodingError, match=re.escape(f"the result of mine cannot be unpickled: {cause}")) as e:
            f.result(20)
        assert type(e.value.__cause__).__name__ == cause.partition(":")[0]
    assert re.fullmatch(r"the G was spawned at .*test_errors.py:\d+", e.value.__notes__[0])
    dependent = rt.go(helpers.identity, rt.go(after, 0.02, fails_here, act, *args))  # pending when go() looks
    with pytest.raises(dgmp.EncodingError, match=re.escape("the result of after, an argument of identity(), cannot be unp")):
        dependent.result(20)
    assert helpers.still_fine(rt)


def after(seconds, fn, *args):
    helpers.nap(seconds)
    return fn(*args)


def test_a_result_that_spawns_and_waits_while_it_loads(rt):
    f = rt.go(fails_here, here_or_there, rt.go(os.getpid).result(20))
    assert type(f.result(20)) is OnLoad
    assert helpers.still_fine(rt)


def here_or_there(pid):
    if os.getpid() != pid:
        with dgmp.Runtime(procs=1) as rt:
            assert rt.go(helpers.add, 1, 2).result(20) == 3


def test_ctrl_c_while_a_result_loads_loses_nothing(rt):
    f = rt.go(fails_here, press_ctrl_c_once, os.getpid())
    press_ctrl_c_once.pressed = False
    with pytest.raises(KeyboardInterrupt):
        f.result(20)
    assert type(f.result(20)) is OnLoad


def press_ctrl_c_once(pid):
    if os.getpid() == pid and not press_ctrl_c_once.pressed:
        press_ctrl_c_once.pressed = True
        signal.raise_signal(signal.SIGINT)
        helpers.nap(0)


# ---------------------------------------------------------------------- exceptions
class Odd(Exception):
    def __init__(self, *, lock):
        super().__init__("odd", lock)
        self.lock = lock

    def __reduce__(self):
        self.lock()
        raise AssertionError


class Needs(Exception):
    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code


def raise_odd(act, *args):
    raise Odd(lock=lambda: act(*args))


@pytest.mark.parametrize("act,args", [(helpers.fail, ("broken",)), (exits, (3,)), (interrupt, ()), (recurse, ()),
                                      (go_and_wait, (1, 2))])
def test_exceptions_that_will_not_be_pickled(rt, act, args):
    error = rt.go(raise_odd, act, *args).exception(20)
    assert type(error) is Odd and error.args[0] == "odd" and "in raise_odd" in str(error.__cause__)
    assert helpers.still_fine(rt)


def raise_with_attribute(x):
    error = ValueError("it")
    error.x = x
    raise error


def test_exceptions_whose_attributes_do_not_load_here(rt):
    for act, args in ((exits, (3,)), (helpers.fail, ("x",)), (recurse, ())):
        f = rt.go(raise_with_loader, os.getpid(), act, *args)
        error = f.exception(20)
        assert type(error) is ValueError and error.args == ("it",) and "cannot be unpickled here" in error.__notes__[0]
    assert helpers.still_fine(rt)


def raise_with_loader(pid, act, *args):
    raise_with_attribute(OnLoad(if_here, pid, act, args))


def if_here(pid, act, args):
    if os.getpid() == pid:
        act(*args)


def fail_in_depth():
    try:
        try:
            raise KeyError("first")
        except KeyError:
            raise OSError(2, "second", "/x")  # noqa: B904
    except OSError as e:
        error = Needs(code=3)
        error.add_note("a note")
        raise error from e


def fail_as_group():
    errors = []
    for fn in (fail_in_depth, lambda: helpers.fail("b")):
        try:
            fn()
        except Exception as e:
            errors.append(e)
    raise ExceptionGroup("all", [errors[0], ExceptionGroup("some", errors[1:])])


def test_cause_context_and_notes(rt):
    error = rt.go(fail_in_depth).exception(20)
    assert type(error) is Needs and error.code == 3 and error.__notes__ == ["a note"]
    assert type(error.__cause__) is FileNotFoundError and error.__cause__.filename == "/x"
    assert error.__context__ is error.__cause__ and error.__cause__.__context__.args == ("first",)
    assert type(error.__cause__.__cause__) is dgmp.RemoteTraceback
    text = "".join(traceback.format_exception(error))
    assert text.count("in fail_in_depth") == 3 and text.count("a note") == 2 and "dgmp/runtime" not in text


def test_groups(rt):
    f = rt.go(fail_as_group)
    try:
        f.result(20)
    except* Needs as caught:
        assert caught.exceptions[0].__cause__.errno == 2
    except* ValueError as caught:
        assert caught.exceptions[0].exceptions[0].args == ("b",)
    assert "Exception Group Traceback" in str(f.exception().__cause__) and "in fail_as_group" in str(f.exception().__cause__)


def test_classes_of_main_and_of_functions(rt):
    class Local(Needs):
        pass

    def raise_local():
        raise Local(code=4)

    error = rt.go(raise_local).exception(20)
    assert type(error).__name__ == "Local" and error.code == 4


def through_a_parent():
    try:
        dgmp.go(helpers.fail, "child").result()
    except ValueError as e:
        raise Needs(code=1) from e


def test_the_tracebacks_of_all_gs_on_the_way_are_there_once(rt):
    with pytest.raises(Needs) as e:
        rt.go(through_a_parent).result(20)
    assert [type(x) for x in chain(e.value)] == [Needs, ValueError, dgmp.RemoteTraceback]
    text = "".join(traceback.format_exception(e.value))
    assert text.count("in fail\n") == 1 and text.count("in through_a_parent\n    dgmp.go") == 1
    assert text.count("in through_a_parent\n    raise Needs") == 1


def chain(error):
    while error is not None:
        yield error
        error = error.__cause__


def test_the_traceback_begins_in_user_code(rt):
    text = str(rt.go(helpers.fail, "x").exception(20).__cause__)
    assert re.match(r'\n"""\nTraceback \(most recent call last\):\n  File ".*helpers.py", line \d+, in fail\n', text)


def test_raised_again_it_is_the_same_with_a_new_traceback(rt):
    f = rt.go(fail_in_depth)
    seen, lengths = set(), set()
    for _ in range(5):
        try:
            try:
                raise LookupError("of the client")
            except LookupError:
                f.result(20)
        except Needs as e:
            seen.add(id(e))
            lengths.add(len(traceback.extract_tb(e.__traceback__)))
            assert type(e.__context__) is FileNotFoundError
    assert len(seen) == 1 and len(lengths) == 1


def test_a_failed_future_is_freed(rt):
    import gc
    import weakref

    gc.collect()
    gc.disable()
    try:
        f = rt.go(helpers.fail, "x")
        with contextlib.suppress(ValueError):
            f.result(20)
        gone = weakref.ref(f)
        del f
        assert gone() is None
    finally:
        gc.enable()


def test_post_mortem(node, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import dgmp, pdb, sys\ndef fail(x):\n    return 1 / x\ntry:\n    dgmp.go(fail, 0).result()\n"
                      "except ZeroDivisionError as e:\n    sys.last_exc = sys.last_value = e\n"
                      "    sys.last_type, sys.last_traceback = type(e), e.__traceback__\npdb.pm()\n")
    done = subprocess.run([sys.executable, str(script)], input="up\nup\nquit\n", capture_output=True, text=True, timeout=60)
    assert "dgmp.go(fail, 0).result()" in done.stdout, done


def test_an_uncaught_one_is_readable(node, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import dgmp\ndef fail(x):\n    return 1 / x  # here\n\ndgmp.go(fail, 0).result()  # there\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("return 1 / x  # here") == 1 and done.stderr.count("dgmp.go(fail, 0).result()  # there") == 1
    assert done.stderr.rstrip().endswith("ZeroDivisionError: division by zero")


def test_lines_of_a_program_without_a_file_are_its_own_or_missing(node):
    code = "import dgmp\n\ndef fail(x):\n    return 1 / x  # here\nprint(dgmp.go(fail, 0).exception().__cause__)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    lines = "    return 1 / x  # here\n( +~~\\^~~\n)?" if sys.version_info >= (3, 13) else ""
    assert re.search(f'File "<string>", line 4, in fail\n{lines}ZeroDivisionError', done.stdout), done


def test_callbacks_that_ask_for_what_fails_to_load_are_logged(rt, caplog):
    f = rt.go(fails_here, exits, 3)
    came = threading.Event()

    def callback(f):
        came.set()
        f.result()

    with caplog.at_level(logging.ERROR, "dgmp"):
        f.add_done_callback(callback)
        assert came.wait(20)
        assert helpers.eventually(lambda: "a callback of" in caplog.text)
    assert helpers.still_fine(rt)


def test_a_callback_may_ask_for_what_ends_programs(rt, caplog):
    for name in ("KeyboardInterrupt", "SystemExit"):
        f = rt.go(raise_in_the_m, name)
        f.exception(20)
        caplog.clear()
        f.add_done_callback(lambda f: f.result())  # at once, in the main thread
        assert f"{name}" in caplog.text and "a callback of" in caplog.text
    press_ctrl_c_once.pressed = False
    with pytest.raises(KeyboardInterrupt):
        f.add_done_callback(lambda f: press_ctrl_c_once(os.getpid()))


def test_spawning_what_exits_when_pickled_does_not_end_the_program(rt):
    class Exits:
        def __reduce__(self):
            sys.exit(3)

    for call in (lambda: rt.go(helpers.identity, Exits()), lambda: rt.go(helpers.add, 1, b=[Exits()])):
        with pytest.raises(dgmp.EncodingError, match=r"SystemExit: 3"):
            call()
    assert helpers.still_fine(rt)
