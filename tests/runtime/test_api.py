"""The API from a client and from inside Gs."""

import os
import re
import signal
import subprocess
import sys
import threading

import pytest

import dgmp
from tests import helpers


def test_results_in_order(rt):
    futures = [rt.go(helpers.identity, i) for i in range(2000)]
    assert dgmp.gather(*futures) == list(range(2000))
    assert rt.stats()["num_g"] == 0


def test_who_waits_for_nothing_sees_all_end(rt):
    futures = [rt.go(helpers.identity, i) for i in range(10)]
    assert helpers.eventually(lambda: rt.stats()["num_g"] == 0) and all(f.done() for f in futures)


def test_lambda_closure_kwargs_and_name(rt):
    k = 3
    assert rt.go(lambda x: x * k, 5).result() == 15
    assert rt.go(helpers.add, 1, b=2).result() == 3
    f = rt.spawn(helpers.add, (1,), {"b": 5}, name="sum")
    assert f.result() == 6 and f.name == "sum"


def test_large_arguments_and_results(rt):
    blob = os.urandom(3_000_000)
    futures = [rt.go(helpers.identity, blob) for _ in range(20)]
    assert all(f.result() == blob for f in futures)


def test_remote_exception_keeps_type_and_traceback(rt):
    f = rt.go(helpers.fail, "broken")
    with pytest.raises(ValueError, match="broken") as e:
        f.result()
    assert isinstance(e.value.__cause__, dgmp.RemoteTraceback)
    assert "in fail" in str(e.value.__cause__) and "helpers.py" in str(e.value.__cause__)
    assert isinstance(f.exception(), ValueError)


def test_the_traceback_of_a_script_shows_its_lines(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import dgmp\ndef fail(x):\n    return 1 / x  # here\nprint(dgmp.go(fail, 0).exception().__cause__)\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert f'File "{script}", line 3, in fail\n    return 1 / x  # here' in done.stdout and done.stderr == ""


def test_system_exit_in_a_g_is_its_result(rt):
    with pytest.raises(SystemExit) as e:
        rt.go(sys.exit, 5).result()
    assert e.value.code == 5
    assert rt.go(helpers.identity, 1).result() == 1


def test_result_that_cannot_be_pickled(rt):
    f = rt.go(threading.Lock)
    with pytest.raises(dgmp.EncodingError, match=r"the result \(lock\) of G \d+ \(\w+\) cannot be pickled") as e:
        f.result()
    assert re.fullmatch(r"the G was spawned at .*test_api.py:\d+", e.value.__notes__[0])


@pytest.mark.parametrize("error,text,use", [
    (TypeError, "a G needs a function, not 3", lambda rt, f: rt.go(3)),
    (TypeError, "a G needs a function, not 3", lambda rt, f: rt.spawn(3)),
    (TypeError, "args must be a tuple or list, not int", lambda rt, f: rt.spawn(abs, 3)),
    (TypeError, "args must be a tuple or list, not str", lambda rt, f: dgmp.spawn(abs, "ab")),
    (TypeError, "args must be a tuple or list, not Future", lambda rt, f: rt.spawn(abs, f)),
    (TypeError, "kwargs must be a dict, not list", lambda rt, f: rt.spawn(abs, (), [1])),
    (TypeError, "name must be a string, not int", lambda rt, f: rt.spawn(abs, (1,), name=5)),
    (TypeError, "a callback must be callable, not 3", lambda rt, f: f.add_done_callback(3)),
    (TypeError, r"gather\(\*futures\) takes futures .* not list", lambda rt, f: dgmp.gather([f])),
    (TypeError, r"gather\(\*futures\) takes futures .* not generator", lambda rt, f: dgmp.gather(f for f in [f])),
    (TypeError, "procs must be a whole number, not '2'", lambda rt, f: dgmp.Runtime("2")),
    (TypeError, "procs must be a whole number, not 1.5", lambda rt, f: dgmp.Runtime(1.5)),
    (TypeError, "max_ms must be a whole number, not 'x'", lambda rt, f: dgmp.Runtime(max_ms="x")),
    (ValueError, r"max_ms must be between procs \(2\) and 4092, not 1000000000", lambda rt, f: dgmp.Runtime(2, max_ms=10**9)),
    (ValueError, r"max_ms must be between procs \(2\) and 4092, not -1", lambda rt, f: dgmp.Runtime(2, max_ms=-1)),
    (TypeError, "pin must be True, False or None, not 'x'", lambda rt, f: dgmp.Runtime(pin="x")),
    (dgmp.EncodingError, r"argument 1 of sum\(\) .* args\[0\]\[0\] is a dgmp.Future .* pass it directly as an argument of "
                         r"go\(\), not inside a container", lambda rt, f: rt.go(sum, [f])),
])
def test_wrong_parameters(rt, error, text, use):
    f = rt.go(abs, 1)
    with pytest.raises(error, match=text):
        use(rt, f)
    assert f.result(20) == 1


def test_repr():
    with dgmp.Runtime(procs=1) as rt:
        assert repr(rt) == "<dgmp.Runtime procs=1 open>"
    assert repr(rt) == "<dgmp.Runtime procs=1 closed>"


def test_timeout_and_done(rt):
    r, w = os.pipe()
    path = f"/proc/{os.getpid()}/fd/{r}"
    f = rt.go(_read_one, path)
    with pytest.raises(TimeoutError):
        f.result(0.05)
    assert not f.done()
    os.write(w, b"x")
    assert f.result(20) == b"x" and f.done()
    os.close(r)
    os.close(w)


def _read_one(path):
    with open(path, "rb", buffering=0) as file:
        return file.read(1)


def test_callbacks(rt):
    seen, came = [], threading.Event()

    def callback(f):
        seen.append(f.result())
        came.set()

    f = rt.go(helpers.nap, 0.05)
    f.add_done_callback(callback)
    assert came.wait(20) and seen == [0.05]
    f.add_done_callback(lambda f: seen.append("at once"))
    assert seen == [0.05, "at once"]


def test_gather_raises_the_first_error(rt):
    with pytest.raises(ValueError, match="one"):
        dgmp.gather(rt.go(helpers.identity, 0), rt.go(helpers.fail, "one"), rt.go(helpers.fail, "two"))


@pytest.mark.parametrize("procs", [1, 2, 4])
def test_nested_fork_join(procs):
    with dgmp.Runtime(procs=procs) as rt:
        assert rt.go(helpers.fib, 15).result(60) == 610


def deep(n):
    return 0 if n == 0 else 1 + dgmp.go(deep, n - 1).result()


def test_recursion_of_waiting_gs_deeper_than_there_are_processes():
    with dgmp.Runtime(procs=1) as rt:
        assert rt.go(deep, 2000).result(60) == 2000


def test_futures_as_arguments(rt):
    slow = rt.go(helpers.nap, 0.05)
    total = rt.go(helpers.add, slow, b=rt.go(helpers.add, slow, 1))
    assert total.result(20) == pytest.approx(1.1)


def test_a_chain_of_futures(rt):
    f = rt.go(helpers.identity, 0)
    for _ in range(300):
        f = rt.go(helpers.add, f, 1)
    assert f.result(20) == 300


def test_failed_dependency_fails_the_dependent(rt):
    with pytest.raises(ValueError, match="upstream"):
        rt.go(helpers.add, rt.go(_slow_fail, "upstream"), 1).result(20)


def test_a_remote_error_says_through_whom_it_came(rt):
    f = rt.go(_slow_fail, "upstream")
    dependents = [rt.spawn(helpers.add, (f, 1), name="first")]
    for _ in range(3):
        dependents.append(rt.go(helpers.add, 1, b=dependents[-1]))
    for at, dependent in enumerate(dependents):
        error = dependent.exception(20)
        assert type(error) is ValueError and str(error) == "upstream" and "in _slow_fail" in str(error.__cause__)
        first, last = error.__notes__[0], error.__notes__[-1]
        assert len(error.__notes__) == min(at + 1, 2)
        assert re.fullmatch(r"argument of G \d+ \(add\), which did not run: the result of _slow_fail", first)
        assert at == 0 or last.endswith("the result of " + ("first" if at == 1 else "add"))
    assert not hasattr(f.exception(), "__notes__")


def test_go_with_a_future_that_has_failed(rt):
    f = rt.go(helpers.fail, "early")
    assert isinstance(f.exception(20), ValueError)
    for dependent in (rt.go(helpers.add, f), rt.go(helpers.add, 1, b=f), rt.spawn(helpers.add, (1, f), name="third")):
        error = dependent.exception()
        assert dependent.done() and type(error) is ValueError and error.args == ("early",)
        assert isinstance(error.__cause__, dgmp.RemoteTraceback)
        assert re.fullmatch(r"argument of (add|third), spawned at .*test_api.py:\d+, which did not run: the result of fail",
                            error.__notes__[-1])
    assert not hasattr(f.exception(), "__notes__")


class CannotBeCopied(Exception):
    def __init__(self, a, b):
        super().__init__(a)

    def __reduce__(self):
        return CannotBeCopied, self.args * 2

    def __copy__(self):
        raise OSError


def _fail_oddly():
    raise CannotBeCopied(1, 2)


def test_go_with_a_failed_future_whose_error_cannot_be_copied(rt):
    f = rt.go(_fail_oddly)
    error = f.exception(20)
    assert error.args == (1,) and rt.go(helpers.add, f).exception() is error


def test_go_with_a_future_of_another_runtime(rt):
    other = dgmp.Runtime(procs=1)
    slow, never = other.go(helpers.nap, 0.05), other.go(helpers.nap, 30)
    assert rt.go(helpers.add, slow, 1).result(20) == 1.05
    other.close(cancel=True)
    with pytest.raises(dgmp.RuntimeClosed):
        rt.go(helpers.add, never).result(20)


def _slow_fail(text):
    helpers.nap(0.05)
    raise ValueError(text)


def test_current_goid_and_counts(rt):
    here = rt.go(helpers.who).result()
    assert here["pid"] != os.getpid() and here["p"] in (0, 1) and here["name"] == "who"
    assert dgmp.current() is None and dgmp.goid() is None


def _threads_in_a_g():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        return sum(pool.map(lambda i: dgmp.go(helpers.identity, i).result(), range(40)))


@pytest.mark.parametrize("procs", [2, 3])
def test_threads_of_a_g_are_clients(procs):
    with dgmp.Runtime(procs=procs) as rt:
        assert rt.go(_threads_in_a_g).result(30) == sum(range(40))


def test_many_client_threads(rt):
    failures = []

    def work(k):
        for i in range(100):
            if rt.go(helpers.add, k, i).result(30) != k + i:
                failures.append((k, i))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures


def test_dead_m_costs_one_g(rt):
    futures = [rt.go(helpers.identity, i) for i in range(50)]
    victim = rt.spawn(helpers.kill_self, name="victim")
    futures += [rt.go(helpers.identity, i) for i in range(50, 100)]
    with pytest.raises(dgmp.WorkerDied, match=r"victim.*test_api.py:\d+.*SIGKILL") as e:
        victim.result(20)
    assert e.value.exitcode == -signal.SIGKILL and e.value.pid > 1
    assert dgmp.gather(*futures) == list(range(100))
    assert rt.go(helpers.identity, 1).result(20) == 1


def _nap_and_die():
    helpers.nap(0.05)
    helpers.kill_self()


def test_a_g_whose_argument_died_says_so(rt):
    culprit = rt.spawn(_nap_and_die, name="culprit")
    f = rt.spawn(helpers.add, (culprit,), name="dependent")
    for name, at in (("dependent", f), ("add", rt.go(helpers.add, f))):
        with pytest.raises(dgmp.WorkerDied) as e:
            at.result(20)
        assert re.match(rf"G \d+ \({name}\), spawned at .*test_api.py:\d+, did not run: G \d+ \(culprit\), which it waited "
                        r"for, did not finish: its M \(m\d, pid \d+.*\) was killed by SIGKILL", str(e.value))


def _be_killed_by_my_child():
    dgmp.spawn(helpers.kill_self, name="culprit").result()


def test_worker_died_says_who_is_who():
    with dgmp.Runtime(procs=1, pin=True) as rt:
        error = rt.spawn(_be_killed_by_my_child, name="parent").exception(20)
        at = rf"\(m\d, pid {error.pid}, core {min(os.sched_getaffinity(0))}\)"
        assert re.match(rf"G 2 \(parent\), spawned at .*test_api.py:\d+, was parked on an M {at} that was killed by SIGKILL "
                        r"while it ran G \d+; started Gs cannot leave their process\.", str(error))
        error = rt.spawn(helpers.kill_self, (signal.SIGTERM,), name="culprit").exception(20)
        assert re.match(rf"G 3 \(culprit\), spawned at .*test_api.py:\d+, did not finish: its M \(m\d, pid {error.pid}.*\) was "
                        r"killed by SIGTERM\.", str(error))


def _parent_of_victim():
    try:
        dgmp.go(helpers.kill_self).result()
    except dgmp.WorkerDied:
        return "told"


def test_a_parked_parent_learns_of_its_childs_death():
    # The child may be run by its parent's own M: then both are gone, and the client is told of the parent.
    with dgmp.Runtime(procs=2) as rt:
        try:
            assert rt.go(_parent_of_victim).result(20) == "told"
        except dgmp.WorkerDied:
            pass
        assert rt.go(helpers.identity, 1).result(20) == 1


def _fork_in_g():
    pid = os.fork()
    if pid == 0:
        try:
            dgmp.go(helpers.identity, 1)
        except RuntimeError:
            return "in the child"  # the runner ends it here
        os._exit(9)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_fork_inside_a_g(rt):
    assert rt.go(_fork_in_g).result(20) == 0
    assert rt.go(helpers.identity, 1).result(20) == 1


def test_forked_child_of_the_client_gets_a_clear_error(rt):
    f = rt.go(helpers.nap, 0.2)
    pid = os.fork()
    if pid == 0:
        left = [lambda: rt.go(helpers.identity, 1), f.result, f.done, lambda: f.add_done_callback(print)]
        try:
            while left:
                with pytest.raises(RuntimeError, match="forked"):
                    left[0]()
                del left[0]
        finally:
            os._exit(len(left))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert rt.go(helpers.identity, 1).result(20) == 1


def test_a_runtime_inside_a_g_is_refused(rt):
    with pytest.raises(RuntimeError, match="inside a G"):
        rt.go(dgmp.Runtime).result(20)


def test_close_waits_or_cancels():
    rt = dgmp.Runtime(procs=2)
    f = rt.go(helpers.nap, 0.1)
    rt.close()
    assert f.result() == 0.1
    rt = dgmp.Runtime(procs=1)
    futures = [rt.go(helpers.nap, 30) for _ in range(3)]
    rt.close(cancel=True)
    for f in futures:
        with pytest.raises(dgmp.RuntimeClosed):
            f.result()
    with pytest.raises(dgmp.RuntimeClosed):
        rt.go(helpers.identity, 1)


def leave_a_child(path, seconds):
    dgmp.go(append_later, path, seconds)


def append_later(path, seconds):
    helpers.nap(seconds)
    with open(path, "a") as file:
        file.write("x")


def test_close_waits_for_gs_that_gs_spawned(tmp_path):
    path = tmp_path / "written"
    with dgmp.Runtime(procs=2) as rt:
        for _ in range(3):
            rt.go(leave_a_child, str(path), 0.1)
    assert path.read_text() == "xxx"


def test_close_from_several_threads():
    """Each returns when it is closed, and who waits meanwhile is told so."""
    rt = dgmp.Runtime(procs=1)
    f = rt.go(helpers.nap, 30)
    errors, closed = [], []

    def wait():
        try:
            f.result()
        except Exception as e:
            errors.append(e)

    def close(cancel):
        rt.close(cancel=cancel)
        closed.append(not helpers.alive(rt._pid))

    waiting = [threading.Thread(target=wait) for _ in range(3)] + [threading.Thread(target=close, args=(False,))]
    for t in waiting:
        t.start()
    assert helpers.eventually(lambda: rt.node.sleepers == 4)
    closing = [threading.Thread(target=close, args=(True,)) for _ in range(4)]
    for t in closing:
        t.start()
    for t in waiting + closing:
        t.join(20)
    assert closed == [True] * 5
    assert [type(e) for e in errors] == [dgmp.RuntimeClosed] * 3
    for use in (lambda: rt.go(abs, 1), rt.stats, f.result, rt.node.view.stats):
        with pytest.raises(dgmp.RuntimeClosed, match="the runtime was closed"):
            use()
    rt.close()


def go_until_closed(rt, going, errors):
    try:
        going.wait()
        while True:
            rt.go(helpers.identity, 1).result(20)
    except BaseException as error:
        errors.append(error)


@pytest.mark.parametrize("round_", range(5))
def test_nobody_sees_anything_else_than_runtime_closed_while_it_closes(round_):
    rt = dgmp.Runtime(procs=1)
    errors, going = [], threading.Barrier(4)
    threads = [threading.Thread(target=go_until_closed, args=(rt, going, errors)) for _ in range(3)]
    for t in threads:
        t.start()
    going.wait()
    rt.go(helpers.identity, 1).result(20)
    rt.close(cancel=True)
    for t in threads:
        t.join(20)
    assert [type(e) for e in errors] == [dgmp.RuntimeClosed] * 3


def test_recursion_limit_in_go_and_result(rt):
    def down():
        try:
            down()
        except RecursionError:
            pass
        return rt.go(helpers.identity, 1).result()

    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(200)
        for _ in range(3):
            try:
                down()
            except RecursionError:
                pass
    finally:
        sys.setrecursionlimit(limit)
    assert rt.go(helpers.identity, 2).result(20) == 2


def test_keyboard_interrupt_at_random_moments(rt):
    for delay in (0.0, 0.0002, 0.001, 0.003, 0.01):
        timer = threading.Timer(delay, _interrupt)
        try:
            timer.start()
            for i in range(2000):
                rt.go(helpers.identity, i)
            helpers.nap(5)
        except KeyboardInterrupt:
            pass
        timer.join()
    assert rt.go(helpers.identity, 3).result(20) == 3


def _interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_no_import_of_zmq_or_cloudpickle_for_plain_calls():
    code = ("import sys, dgmp\nassert dgmp.go(len, 'abc').result() == 3\n"
            "assert not {'zmq', 'cloudpickle'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
