"""What Gs print and log, as the client sees it."""

import contextlib
import io
import logging
import os
import re
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings

import pytest

import dgmp
from tests import helpers
from tests.helpers import PYTHON


def python(tmp_path, code, *args, **options):
    """A program that prints, run to its end."""
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(code))
    options = {"capture_output": True, "text": True, "timeout": 60, **options}
    return subprocess.run([PYTHON, str(script), *args], **options)


def start(tmp_path, code, **options):
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(code))
    return subprocess.Popen([PYTHON, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def say(*texts, **options):
    for text in texts:
        print(text, **options)


def say_error(text):
    print(text, file=sys.stderr)


# ---------------------------------------------------------------------- where it goes
def test_capsys(rt, capsys):
    rt.go(say, "one", "two").result(20)
    assert capsys.readouterr() == ("one\ntwo\n", "")
    rt.go(say_error, "wrong").result(20)
    assert capsys.readouterr() == ("", "wrong\n")


def test_capfd(rt, capfd):
    rt.go(say, "one").result(20)
    rt.go(say_error, "wrong").result(20)
    assert capfd.readouterr() == ("one\n", "wrong\n")


def test_redirect_stdout(rt, capsys):
    rt.go(say, "before").result(20)
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.redirect_stderr(io.StringIO()) as errors:
        rt.go(say, "inside").result(20)
        rt.go(say_error, "wrong").result(20)
    rt.go(say, "after").result(20)
    assert (text.getvalue(), errors.getvalue()) == ("inside\n", "wrong\n")
    assert capsys.readouterr() == ("before\nafter\n", "")


class OnlyWrite:
    """As an object that stands for stdout may be: no flush, no encoding, no descriptor."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text


class Notebook(io.TextIOBase):
    """As ipykernel's."""

    encoding = "UTF-8"

    def __init__(self):
        self.texts, self.flushes = [], 0

    def writable(self):
        return True

    def write(self, text):
        self.texts.append(text)
        return len(text)

    def flush(self):
        self.flushes += 1

    def text(self):
        return "".join(self.texts)


@pytest.mark.parametrize("kind", [OnlyWrite, Notebook])
def test_stdout_replaced_by_an_object_without_a_descriptor(rt, monkeypatch, kind):
    stream = kind()
    monkeypatch.setattr(sys, "stdout", stream)
    rt.go(say, "one", "é☃").result(20)
    rt.go(write_bytes, b"bytes\n").result(20)
    rt.go(say, "open", end="").result(20)
    monkeypatch.undo()
    text = stream.text if kind is OnlyWrite else stream.text()
    assert text == "one\né☃\nbytes\nopen"
    assert kind is OnlyWrite or stream.flushes == 1  # for what is not a whole line


def write_bytes(data):
    assert sys.stdout.buffer.write(data) == len(data)


def test_no_stdout(rt, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    rt.go(say, "nowhere").result(20)
    rt.go(say_error, "nowhere").result(20)
    monkeypatch.undo()
    rt.go(say, "here").result(20)
    assert capsys.readouterr() == ("here\n", "")


class Raises:
    def __init__(self, error):
        self.error = error

    def write(self, text):
        raise self.error

    flush = write


@pytest.mark.parametrize("error", [OSError("no room"), ValueError("closed"), RuntimeError(), RecursionError()])
def test_what_stdout_raises_is_ignored(rt, monkeypatch, capsys, error):
    monkeypatch.setattr(sys, "stdout", Raises(error))
    f = rt.go(say, "lost")
    if isinstance(error, RecursionError):
        with pytest.raises(RecursionError):
            f.result(20)
        monkeypatch.undo()
    assert f.result(20) is None
    monkeypatch.undo()
    rt.go(say, "here").result(20)
    out, err = capsys.readouterr()
    assert out == ("lost\nhere\n" if isinstance(error, RecursionError) else "here\n") and err == ""


def test_closed_stdout(rt, monkeypatch, capsys):
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    assert rt.go(say, "lost").result(20) is None
    monkeypatch.undo()
    assert capsys.readouterr() == ("", "")


class Asks(OnlyWrite):
    """Its write() itself uses the runtime, with a G that prints more than the channel holds."""

    def __init__(self, rt):
        super().__init__()
        self.rt, self.answers = rt, []

    def write(self, text):
        if not self.answers:
            self.answers.append(None)
            self.answers[0] = self.rt.go(say_much, 2000).result(20)
        super().write(text)


def say_much(n):
    for i in range(n):
        print("number", i)
    return n


def test_a_stream_that_uses_the_runtime_itself(rt, monkeypatch):
    stream = Asks(rt)
    monkeypatch.setattr(sys, "stdout", stream)
    rt.go(say, "first").result(20)
    rt.go(say, "last").result(20)
    lines = ["first", *(f"number {i}" for i in range(2000)), "last"]
    assert helpers.eventually(lambda: stream.text.count("\n") == len(lines))  # another thread may be in that write()
    monkeypatch.undo()
    assert stream.answers == [2000] and sorted(stream.text.splitlines()) == sorted(lines)
    assert [line for line in stream.text.splitlines() if "number" in line] == lines[1:-1]


# ---------------------------------------------------------------------- when it comes
def test_it_is_there_when_the_result_is(capsys):
    with dgmp.Runtime(procs=2) as rt:
        for i in range(500):
            assert rt.go(say, i).result(20) is None
            assert capsys.readouterr().out == f"{i}\n"


def test_it_is_there_when_done_says_so_or_a_callback_runs(rt, capsys):
    f = rt.go(say, "one")
    while not f.done():
        pass
    assert capsys.readouterr().out == "one\n"
    seen, called = [], threading.Event()

    def callback(future):
        seen.append(capsys.readouterr().out)
        called.set()

    rt.go(say, "two").add_done_callback(callback)
    assert called.wait(20) and seen == ["two\n"]


def test_it_is_there_when_one_of_many_waiting_threads_has_its_result(capsys):
    """Whichever of them has collected it."""
    lines = Notebook()
    with dgmp.Runtime(procs=2) as rt, contextlib.redirect_stdout(lines):
        missing = []

        def wait(n):
            for i in range(100):
                rt.go(say, f"thread {n} line {i}").result(20)
                if f"thread {n} line {i}\n" not in lines.text():
                    missing.append((n, i))

        threads = [threading.Thread(target=wait, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert missing == []


def test_it_comes_before_the_error_of_a_g_whose_m_died(capsys):
    with dgmp.Runtime(procs=2) as rt:
        for i in range(10):
            with pytest.raises(dgmp.WorkerDied):
                rt.go(say_and_die, i).result(20)
            assert capsys.readouterr().out == f"{i}\n"


def say_and_die(i):
    print(i)
    print("unfinished", end="")
    helpers.kill_self()


def test_it_appears_while_the_client_sleeps(tmp_path):
    program = start(tmp_path, """
        import sys, time, dgmp
        def work():
            print("working")
            print("  10%", end="\\r")
            print("20%", end=" ", flush=True)
            time.sleep(60)
        f = dgmp.go(work)
        time.sleep(60)
        """)
    said = b""
    while not said.endswith(b"20% "):
        said += os.read(program.stdout.fileno(), 1)
    program.kill()
    program.communicate()
    assert said == b"working\n  10%\r20% "


def test_nothing_is_lost_at_exit(tmp_path):
    done = python(tmp_path, """
        import dgmp
        def work(i):
            print("G", i)
            print("more of", i, end="\\n" if i % 2 else "")
        fs = [dgmp.go(work, i) for i in range(300)]
        dgmp.gather(*fs)
        print("main")
        """)
    assert done.returncode == 0 and done.stderr == ""
    for i in range(300):
        assert f"G {i}\n" in done.stdout and f"more of {i}" in done.stdout
    assert done.stdout.endswith("main\n")


def test_what_a_dropped_g_had_printed_is_not_lost(tmp_path):
    """The program ends while it runs."""
    done = python(tmp_path, """
        import sys, time, dgmp
        def work(path):
            print("said")
            open(path, "w").close()
            time.sleep(60)
        dgmp.go(work, sys.argv[1])
        import os
        while not os.path.exists(sys.argv[1]):
            time.sleep(0.001)
        """, str(tmp_path / "said"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "said\n", "")


# ---------------------------------------------------------------------- lines
def say_lines(who, n):
    for i in range(n):
        print(who, i, sep=" of ", end="\n")
        if i % 10 == 0:
            dgmp.gosched()


def test_whole_lines_in_order_per_g(tmp_path):
    done = python(tmp_path, """
        import dgmp
        from tests.runtime.test_output import say_lines
        with dgmp.Runtime(procs=4) as rt:
            dgmp.gather(*[rt.go(say_lines, who, 2000) for who in "abcd"])
        """, env={**os.environ, "PYTHONPATH": os.getcwd()})
    lines = done.stdout.splitlines()
    assert done.stderr == "" and len(lines) == 8000
    for who in "abcd":
        assert [line for line in lines if line[0] == who] == [f"{who} of {i}" for i in range(2000)]


def say_parked(name):
    print(name, end=" begins")
    dgmp.go(helpers.identity, 1).result()
    dgmp.gosched()
    print(" and ends", name)


def test_a_g_that_parks_within_a_line(capsys):
    with dgmp.Runtime(procs=1) as rt:
        dgmp.gather(*[rt.go(say_parked, name) for name in "abcdef"])
    assert sorted(capsys.readouterr().out.splitlines()) == [f"{x} begins and ends {x}" for x in "abcdef"]


def test_the_end_of_a_g_ends_its_line_before_its_result(rt, capsys):
    rt.go(say, "no newline", end="").result(20)
    assert capsys.readouterr().out == "no newline"
    rt.go(say, "one", "two", end="").result(20)
    assert capsys.readouterr().out == "onetwo"


def say_to_both():
    print("out", end="")
    print("err", end="", file=sys.stderr)
    print("put")
    print("or", file=sys.stderr)


def test_stdout_and_stderr_have_lines_of_their_own(rt, capsys):
    rt.go(say_to_both).result(20)
    assert capsys.readouterr() == ("output\n", "error\n")


def test_long_lines_stay_whole(capsys):
    with dgmp.Runtime(procs=4) as rt:
        dgmp.gather(*[rt.go(say, *[c * 300_000] * 3) for c in "abcd"])
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(c * 300_000 for c in "abcd" for _ in range(3))


def say_in_bits(n):
    for _ in range(n):
        print(".", end="")
    print()


def test_a_line_of_many_bits(rt, capsys):
    rt.go(say_in_bits, 100_000).result(20)
    assert capsys.readouterr().out == "." * 100_000 + "\n"


def test_bytes(rt, capfdbinary):
    data = bytes(range(256)) * 300
    rt.go(write_bytes, data).result(20)
    rt.go(write_bytes, memoryview(b"view\n")).result(20)
    assert capfdbinary.readouterr().out == data + b"view\n"


def write_text_and_bytes():
    print("text", end=" ")
    sys.stdout.buffer.write(b"bytes ")
    print("text")
    sys.stdout.buffer.writelines([b"one ", b"two\n"])


def test_bytes_amid_text(rt, capfdbinary):
    rt.go(write_text_and_bytes).result(20)
    assert capfdbinary.readouterr().out == b"text bytes text\none two\n"


def test_unicode(rt, capsys):
    text = "é ☃ 🐍 \0 \x85 \u2028 end"
    rt.go(say, text).result(20)
    assert capsys.readouterr().out == text + "\n"


def test_surrogates(rt, capsys):
    """A print in a G never fails for its text; where it can be kept it is."""
    with contextlib.redirect_stdout(io.StringIO()) as kept:
        rt.go(say, "\ud800 \udcff").result(20)
    assert kept.getvalue() == "\ud800 \udcff\n"
    rt.go(say, "\ud800 é").result(20)
    assert capsys.readouterr().out == "\\ud800 é\n"


def test_a_client_whose_encoding_has_not_all(tmp_path):
    done = python(tmp_path, """
        import sys, dgmp
        def work():
            print(sys.stdout.encoding, sys.stdout.errors, sys.stdout.isatty(), "é ☃")
            sys.stdout.buffer.write("é\\n".encode(sys.stdout.encoding))
        dgmp.go(work).result()
        """, env={**os.environ, "PYTHONIOENCODING": "latin-1:replace"}, text=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == "iso8859-1 replace False é ?\né\n".encode("latin-1").replace(
        b"iso8859-1", done.stdout.split()[0])


# ---------------------------------------------------------------------- the streams in a G
def use_stream():
    out = sys.stdout
    assert out is sys.__stdout__ and out.fileno() == 1 and sys.stderr.fileno() == 2
    assert out.write("né") == 2 and out.writable() and not out.readable() and not out.seekable() and not out.closed
    assert out.buffer.fileno() == 1 and not out.isatty() and out.name == "<stdout>" and out.mode == "w"
    out.writelines(["w", "\n"])
    for bad in (b"bytes", None, 1):
        with pytest.raises(TypeError):
            out.write(bad)
    for bad in ("text", None, 1):
        with pytest.raises(TypeError):
            out.buffer.write(bad)
    out.flush()


def test_streams_behave(rt, capsys):
    rt.go(use_stream).result(20)
    assert capsys.readouterr() == ("néw\n", "")


def use_subprocess():
    subprocess.run(["sh", "-c", "echo child; echo wrong >&2"], stdout=sys.stdout, stderr=sys.stderr, check=True)
    os.write(1, b"descriptor\n")


def test_descriptors_are_the_clients(tmp_path):
    done = python(tmp_path, """
        import dgmp
        from tests.runtime.test_output import use_subprocess
        dgmp.go(use_subprocess).result()
        """, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert (done.stdout, done.stderr) == ("child\ndescriptor\n", "wrong\n")


def replace_stdout():
    sys.stdout = io.StringIO()
    print("nowhere")


def close_streams():
    print("closing")
    sys.stdout.close()
    sys.stderr.close()
    with pytest.raises(ValueError):
        print("closed")


def detach_stdout():
    sys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding="utf-8", line_buffering=True)
    print("detached é")


def only_detach():
    sys.stdout.detach()


def drop_a_wrapper():
    io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8").write("wrapped\n")


def delete_stdout():
    del sys.stdout


def reconfigure():
    sys.stdout.reconfigure(encoding="latin-1", errors="replace")
    assert sys.stdout.encoding == "latin-1"
    print("é☃")


@pytest.mark.parametrize("harm,said", [
    (replace_stdout, b""), (close_streams, b"closing\n"), (detach_stdout, "detached é\n".encode()), (only_detach, b""),
    (drop_a_wrapper, b"wrapped\n"), (delete_stdout, b""), (reconfigure, b"\xe9?\n")])
def test_what_a_g_does_to_its_streams_is_its_own(capfdbinary, harm, said):
    with dgmp.Runtime(procs=1) as rt:
        for _ in range(3):
            rt.go(harm).result(20)
            if harm is not reconfigure:
                rt.go(say, "next").result(20)
                rt.go(say_error, "wrong").result(20)
                assert capfdbinary.readouterr() == (said + b"next\n", b"wrong\n")
            else:
                assert capfdbinary.readouterr() == (said, b"")


def redirect_here(child):
    with contextlib.redirect_stdout(io.StringIO()) as text:
        print("mine")
        dgmp.go(child, "the child's").result()
        dgmp.gosched()
        print("mine")
    print("after")
    return text.getvalue()


def test_a_redirection_in_a_g_is_for_that_g_alone(capsys):
    with dgmp.Runtime(procs=1) as rt:
        assert rt.go(redirect_here, say).result(20) == "mine\nmine\n"
    assert capsys.readouterr().out == "the child's\nafter\n"


def say_nested(depth):
    print("down", depth)
    if depth:
        dgmp.go(say_nested, depth - 1).result()
    print("up", depth)


def test_nested_gs(capsys):
    with dgmp.Runtime(procs=2) as rt:
        rt.go(say_nested, 10).result(20)
    assert capsys.readouterr().out == "".join(
        [f"down {i}\n" for i in range(10, -1, -1)] + [f"up {i}\n" for i in range(11)])


def say_in_threads():
    def say_some(n):
        for i in range(200):
            sys.stdout.write(f"thread {n} ")
            sys.stdout.write(f"line {i}\n")
        print("unfinished", end=" ")

    threads = [threading.Thread(target=say_some, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_threads_of_a_g():
    with dgmp.Runtime(procs=1) as rt, contextlib.redirect_stdout(Notebook()) as said:
        rt.go(say_in_threads).result(20)
        assert helpers.eventually(lambda: said.text().count("unfinished") == 3)  # once the M has nothing else to do
    lines = [line for line in said.text().replace("unfinished ", "").splitlines() if line]
    for n in range(3):
        assert [x for x in lines if x.startswith(f"thread {n}")] == [f"thread {n} line {i}" for i in range(200)]


def callback_thread():
    called = threading.Event()

    def callback(future):
        print("called")
        called.set()

    dgmp.go(helpers.identity, 1).add_done_callback(callback)
    while not called.wait(0):
        dgmp.gosched()


def test_callbacks_in_an_m(rt, capsys):
    rt.go(callback_thread).result(20)
    assert capsys.readouterr().out == "called\n"


def fork_and_say():
    print("parent", end=" ")
    sys.stdout.flush()
    print("kept", end="")
    pid = os.fork()
    if pid == 0:
        print("child")
        os._exit(0)
    os.waitpid(pid, 0)
    print()


def test_a_child_that_a_g_forked(rt, capsys):
    rt.go(fork_and_say).result(20)
    assert capsys.readouterr().out == "parent child\nkept\n"


# ---------------------------------------------------------------------- trouble
def test_a_pipe_that_nobody_reads_ends_quietly(tmp_path):
    program = start(tmp_path, """
        import dgmp
        def work(i):
            print("line", i)
        dgmp.go(work, 0).result()
        input()
        dgmp.gather(*[dgmp.go(work, i) for i in range(2000)])
        """, stdin=subprocess.PIPE)
    assert program.stdout.readline() == "line 0\n"
    program.stdout.close()
    program.stdin.write("go on\n")
    program.stdin.close()
    assert program.stderr.read() == ""
    assert program.wait(20) == 0
    program.stderr.close()


def test_ctrl_c_during_heavy_printing(tmp_path):
    program = start(tmp_path, """
        import dgmp
        def work():
            i = 0
            while True:
                print("line", i, "." * 50)
                i += 1
        dgmp.gather(dgmp.go(work), dgmp.go(work))
        """, process_group=0)
    said = [program.stdout.readline() for _ in range(3000)]
    program.send_signal(signal.SIGINT)
    said += program.stdout.readlines()
    err = program.stderr.read()
    assert program.wait(20) == -signal.SIGINT and err.count("Traceback") == 1 and err.endswith("KeyboardInterrupt\n")
    assert [line for line in said if not re.fullmatch(r"line \d+ \.{50}\n", line)] == []
    program.stdout.close()
    program.stderr.close()


def test_a_handler_that_waits_for_a_printing_g_while_the_client_writes(tmp_path):
    done = python(tmp_path, """
        import signal, dgmp
        def work(i):
            print("from G", i)
            return i
        seen = []
        def handler(number, frame):
            seen.append(dgmp.go(work, -1).result(20))
        dgmp.go(work, 0).result(20)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
        n = 0
        while len(seen) < 100:
            n += 1
            dgmp.go(work, n).result(20)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print("seen", len(seen), n, flush=True)
        """)
    *lines, last = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    _, seen, n = last.split()
    assert lines.count("from G -1") == int(seen) and len(lines) == int(seen) + int(n) + 1


def say_for_ever():
    i = 0
    while True:
        print("line", i, "x" * 100)
        i += 1


def test_killed_ms_leave_whole_lines():
    with dgmp.Runtime(procs=2) as rt:
        for _ in range(5):
            with contextlib.redirect_stdout(Notebook()) as said:
                f = rt.go(say_for_ever)
                assert helpers.eventually(lambda: len(said.texts) > 20)  # noqa: B023
                for _, pid in rt.node.view.pids():
                    helpers.kill(pid)
                with pytest.raises(dgmp.WorkerDied):
                    f.result(20)
            text = said.text()
            assert text == "".join(f"line {i} {'x' * 100}\n" for i in range(text.count("\n")))


def test_a_g_that_prints_for_ever_hides_no_result(capsys):
    with dgmp.Runtime(procs=2) as rt:
        rt.go(say_for_ever)
        for i in range(50):
            assert rt.go(helpers.identity, i).result(20) == i
        rt.close(cancel=True)


def test_a_client_that_forks(tmp_path):
    done = python(tmp_path, """
        import os, sys, warnings, dgmp
        def work(x):
            print("G", x)
        dgmp.go(work, 1).result()
        sys.stdout.flush()
        warnings.simplefilter("ignore", DeprecationWarning)  # of 3.12: there is a thread
        pid = os.fork()
        if pid == 0:
            with dgmp.Runtime(procs=1) as rt:
                rt.go(work, 2).result()
            sys.exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
        dgmp.go(work, 3).result()
        """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "G 1\nG 2\nG 3\n", "")


class Slow(OnlyWrite):
    def __init__(self):
        super().__init__()
        self.begun, self.go_on, self.writing = threading.Event(), threading.Event(), False

    def write(self, text):
        self.writing = True
        self.begun.set()
        self.go_on.wait(20)
        super().write(text)
        self.writing = False


def test_a_client_forks_when_nobody_writes(rt, monkeypatch):
    """Its child has no half of a text in its own buffer of stdout."""
    stream = Slow()
    monkeypatch.setattr(sys, "stdout", stream)
    f = rt.go(say, "text")
    assert stream.begun.wait(20)
    threading.Timer(0.1, stream.go_on.set).start()
    pid = os.fork()
    if pid == 0:
        os._exit(3 if stream.writing else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    f.result(20)
    assert stream.text == "text\n"


def test_descriptors_closed_by_the_program(tmp_path):
    done = python(tmp_path, """
        import os, dgmp
        dgmp.go(print, "before").result()
        os.closerange(3, 200)
        """)
    assert (done.returncode, done.stdout) == (0, "before\n")


# ---------------------------------------------------------------------- logging
def log(level, *args, name="tests.output", **options):
    logging.getLogger(name).log(level, *args, **options)


def log_all(name="tests.output"):
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        log(level, "at %d", level, name=name)


def test_caplog(rt, caplog):
    rt.go(log_all).result(20)
    assert [r.getMessage() for r in caplog.records] == ["at 30", "at 40"]
    record = caplog.records[0]
    assert record.name == "tests.output" and record.levelname == "WARNING" and record.funcName == "log"
    assert record.pathname == __file__ and record.process in [pid for _, pid in rt.node.view.pids()]


def test_levels_that_change(rt, caplog):
    """Each counts for the Gs that are spawned after."""
    def seen():
        caplog.clear()
        rt.go(log_all).result(20)
        return [r.levelno for r in caplog.records]

    assert seen() == [30, 40]
    with caplog.at_level(logging.DEBUG):
        assert seen() == [10, 20, 30, 40]
        with caplog.at_level(logging.ERROR, "tests"):
            assert seen() == [40]
        logging.disable(logging.WARNING)
        try:
            assert seen() == [40]
        finally:
            logging.disable(logging.NOTSET)
        assert seen() == [10, 20, 30, 40]
    assert seen() == [30, 40]
    with caplog.at_level(logging.INFO, "tests.output"):
        assert seen() == [20, 30, 40]


def test_many_different_levels(rt, caplog):
    loggers = [logging.getLogger(f"tests.many.{i}") for i in range(100)]
    try:
        for i, logger in enumerate(loggers):
            logger.setLevel(logging.DEBUG)
            caplog.clear()
            rt.go(log_all, logger.name).result(20)
            assert [r.levelno for r in caplog.records] == [10, 20, 30, 40], i
        caplog.clear()
        rt.go(log_all, "tests.other").result(20)
        assert [r.levelno for r in caplog.records] == [30, 40]
    finally:
        for logger in loggers:
            logger.setLevel(logging.NOTSET)


def is_enabled(*levels):
    return [logging.getLogger("tests.output").isEnabledFor(level) for level in levels]


def test_a_g_makes_no_records_that_nobody_wants(rt, caplog):
    assert rt.go(is_enabled, 10, 20, 30).result(20) == [False, False, True]
    with caplog.at_level(logging.INFO):
        assert rt.go(is_enabled, 10, 20, 30).result(20) == [False, True, True]
    assert rt.go(is_enabled, 10, 20, 30).result(20) == [False, False, True]


class Unpicklable:
    def __reduce__(self):
        raise TypeError("stays here")

    def __str__(self):
        return "worded there"


class CustomError(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


def log_odd():
    log(30, "with %s", Unpicklable(), extra={"number": 7, "bad": Unpicklable()})
    log(30, Unpicklable())
    log(30, "%(a)s", {"a": 1})
    try:
        int("no number")
    except ValueError:
        logging.getLogger("tests.output").exception("failed %d", 1)
    try:
        raise CustomError(1, 2)
    except CustomError as e:
        log(40, "custom", exc_info=e)
    log(30, "x" * 200_000)
    log(30, "stack", stack_info=True)


def test_records_that_are_hard_to_send(rt, caplog):
    rt.go(log_odd).result(20)
    odd, obj, mapping, failed, custom, long, stack = caplog.records
    assert odd.getMessage() == "with worded there" and odd.number == 7 and not hasattr(odd, "bad")
    assert obj.getMessage() == "worded there" and mapping.getMessage() == "1"
    assert failed.getMessage() == "failed 1" and failed.exc_info[0] is ValueError
    assert caplog.text.count('int("no number")') == 1 and "ValueError: invalid literal" in failed.exc_text
    assert "CustomError: 1 and 2" in custom.exc_text
    assert long.getMessage() == "x" * 200_000 and "log_odd" in stack.stack_info


def log_badly():
    log(30, "%d", "no number")
    log(30, "next")


def test_a_record_that_cannot_be_worded(rt, caplog, capsys):
    rt.go(log_badly).result(20)
    assert [r.getMessage() for r in caplog.records] == ["next"]
    assert "--- Logging error ---" in capsys.readouterr().err


def test_the_clients_configuration_decides(rt, caplog):
    logger = logging.getLogger("tests.output")
    own = io.StringIO()
    handler = logging.StreamHandler(own)
    handler.setLevel(logging.ERROR)
    handler.setFormatter(logging.Formatter("%(levelname)s/%(message)s"))
    logger.addHandler(handler)
    logger.propagate = False
    refuse = lambda record: "20" not in record.getMessage()  # noqa: E731
    try:
        rt.go(log_all).result(20)
        assert own.getvalue() == "ERROR/at 40\n" and caplog.records == []
        logger.propagate = True
        logger.addFilter(refuse)
        logger.setLevel(logging.INFO)
        rt.go(log_all).result(20)
        assert [r.levelno for r in caplog.records] == [30, 40]
    finally:
        logger.setLevel(logging.NOTSET)
        logger.removeFilter(refuse)
        logger.removeHandler(handler)


def fail_to_filter(record):
    raise ZeroDivisionError


def test_a_filter_that_fails_harms_nobody(rt, caplog):
    logger = logging.getLogger("tests.output")
    logger.addFilter(fail_to_filter)
    try:
        assert rt.go(log_all).result(20) is None
    finally:
        logger.removeFilter(fail_to_filter)
    rt.go(log_all).result(20)
    assert [r.levelno for r in caplog.records] == [30, 40]


def log_to_file(path):
    handler = logging.FileHandler(path)
    logger = logging.getLogger("tests.file")
    logger.addHandler(handler)
    logger.warning("in both")
    logger.removeHandler(handler)
    handler.close()


def test_handlers_of_a_g(rt, caplog, tmp_path):
    rt.go(log_to_file, tmp_path / "log").result(20)
    assert (tmp_path / "log").read_text() == "in both\n"
    assert [r.getMessage() for r in caplog.records] == ["in both"]


def test_logging_configured_after_boot(tmp_path):
    done = python(tmp_path, """
        import dgmp
        def work():
            import logging
            logging.info("info")
            logging.getLogger("a.b").debug("debug")
            logging.warning("warning")
        dgmp.go(work).result()
        import logging, sys
        logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(name)s %(levelname)s %(message)s")
        dgmp.go(work).result()
        logging.getLogger("a").setLevel(logging.DEBUG)
        dgmp.go(work).result()
        """)
    assert done.returncode == 0
    assert done.stderr == "warning\n"
    assert done.stdout == ("root INFO info\nroot WARNING warning\n"
                           "root INFO info\na.b DEBUG debug\nroot WARNING warning\n")


def test_only_a_logger_of_a_library_has_a_handler(tmp_path):
    (tmp_path / "library.py").write_text("import logging\nlogger = logging.getLogger('library')\n"
                                         "logger.addHandler(logging.NullHandler())\n"
                                         "def work():\n    logger.info('info')\n    logging.error('error')\n")
    done = python(tmp_path, """
        import logging, sys, dgmp, library
        library.logger.addHandler(logging.StreamHandler(sys.stdout))
        library.logger.setLevel(logging.INFO)
        dgmp.go(library.work).result()
        """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "info\n", "error\n")


def configure_here():
    logging.basicConfig(level=logging.INFO, format="configured in the G: %(message)s", force=False)
    logging.info("info")


def test_logging_configured_in_a_g_of_a_client_that_has_not(tmp_path):
    done = python(tmp_path, """
        import dgmp
        from tests.runtime.test_output import configure_here
        dgmp.go(configure_here).result()
        """, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "configured in the G: info\n")


def test_a_module_called_logging(tmp_path):
    (tmp_path / "logging.py").write_text("def hello():\n    print('not the one')\n")
    (tmp_path / "work.py").write_text("def work():\n    import logging\n    logging.hello()\n")
    done = python(tmp_path, """
        import dgmp, work
        dgmp.go(work.work).result()
        """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "not the one\n", "")


def warn():
    warnings.warn("careful", stacklevel=1)


def test_warnings(rt, capsys):
    rt.go(warn).result(20)
    assert "UserWarning: careful" in capsys.readouterr().err


# ---------------------------------------------------------------------- dgmp run
def test_dgmp_run_writes_directly(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent("""
        import logging, sys, dgmp
        def work(i):
            print("G", i)
            logging.warning("log %d", i)
        if __name__ == "__main__":
            logging.basicConfig(format="main: %(message)s")
            print("main")
            for i in range(3):
                dgmp.go(work, i).result()
        """))
    done = subprocess.run([PYTHON, "-m", "dgmp", "run", "--procs", "1", str(script)], capture_output=True, text=True,
                          timeout=60)
    assert (done.returncode, done.stdout) == (0, "main\nG 0\nG 1\nG 2\n")
    assert done.stderr.count("log 0") == 1


def test_idle_output_uses_no_cpu(rt):
    rt.go(say, "").result(20)
    assert helpers.eventually(lambda: rt.stats()["idleprocs"] == 2)

    def is_quiet():
        before = time.process_time()
        select.select([], [], [], 0.5)
        return time.process_time() - before < 0.01

    assert helpers.eventually(is_quiet)
