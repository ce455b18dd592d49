"""`dgmp run` as a shell user sees it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest

import dgmp
from tests.helpers import descendants, eventually

DGMP = [sys.executable, "-m", "dgmp"]


def run(tmp_path, code, *args, options=(), stdin="", env=None):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(code))
    return subprocess.run([*DGMP, "run", *options, str(script), *args], input=stdin, capture_output=True, text=True,
                          timeout=60, env={**os.environ, **(env or {})})


def test_script_is_main_on_m0(tmp_path):
    done = run(tmp_path, """
        import sys, dgmp
        def square(x):
            return x * x
        if __name__ == "__main__":
            here = dgmp.current()
            print(here["m"], sys.argv[1:], input(), sum(dgmp.gather(*[dgmp.go(square, i) for i in range(10)])))
            sys.exit(7)
        """, "a", "-b", stdin="line\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, "0 ['a', '-b'] line 285\n", "")


MEET = """
import os, pathlib, time
def meet(folder, n):
    "Returns this M's pid once Gs on so many Ms have come here."
    (pathlib.Path(folder) / f"at.{os.getpid()}").touch()
    while len(list(pathlib.Path(folder).glob("at.*"))) < n:
        time.sleep(0.01)
    return os.getpid()
"""


def test_gs_on_every_m_import_what_lies_beside_the_script(tmp_path):
    (tmp_path / "beside.py").write_text(MEET)
    done = run(tmp_path, """
        import sys, beside, dgmp
        print(len(set(dgmp.gather(*[dgmp.go(beside.meet, sys.argv[1], 3) for _ in range(12)]))))
        """, str(tmp_path), options=("--procs", "3"))
    assert (int(done.stdout) >= 3, done.stderr) == (True, "")  # more, when their Ps were retaken


def test_gs_on_every_m_print_and_log_as_the_script_says(tmp_path):
    (tmp_path / "beside.py").write_text(MEET)
    done = run(tmp_path, """
        import logging, sys, beside, dgmp
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stdout)
        folder = sys.argv[1]
        def say(i):
            beside.meet(folder, 2)
            print(f"print {i}")
            logging.getLogger("there").info("log %d", i)
            return dgmp.current()["m"]
        ms = set()
        for i in range(4):
            for at, m in enumerate(dgmp.gather(*[dgmp.go(say, at) for at in range(4)])):
                ms.add(m)
        print("gathered", len(ms) > 1)
        logging.getLogger("there").setLevel(logging.WARNING)
        print(len(list(dgmp.map(say, range(4)))))
        """, str(tmp_path), options=("--procs", "2"))
    lines = done.stdout.splitlines()
    said = sorted(4 * [f"print {i}" for i in range(4)] + 4 * [f"there: log {i}" for i in range(4)])
    assert (sorted(lines[:32]), lines[32], done.stderr) == (said, "gathered True", "")
    assert (sorted(lines[33:-1]), lines[-1]) == ([f"print {i}" for i in range(4)], "4")


def test_long_lines_of_gs_stay_whole(tmp_path):
    done = run(tmp_path, """
        import sys, dgmp
        def say(i):
            sys.stdout.write(str(i) * 200_000 + "\\n")
        list(dgmp.map(say, [i % 8 for i in range(64)], chunksize=1))
        """, options=("--procs", "3"))
    assert sorted(done.stdout.split()) == sorted(8 * [str(i) * 200_000 for i in range(8)])


def test_nobody_waits_for_a_reader_that_has_gone(tmp_path):
    """The script has closed the descriptor to which others send what they print."""
    done = run(tmp_path, """
        import ctypes, dgmp
        from dgmp.runtime import script
        def say(i):
            for _ in range(5000):
                print(i, "x" * 100)
            return dgmp.current()["m"]
        ctypes.CDLL(None).close(script.show_output.__self__.ours.fileno())
        print(len(dgmp.gather(*[dgmp.go(say, i) for i in range(8)])))
        """, options=("--procs", "2"))
    assert (done.returncode, done.stdout.splitlines()[-1], done.stderr) == (0, "8", "")


def test_module(tmp_path):
    (tmp_path / "mod.py").write_text("import dgmp, helper\nprint(__name__, dgmp.go(helper.f, 2).result())\n")
    (tmp_path / "helper.py").write_text("def f(x):\n    return x + 1\n")
    done = subprocess.run([*DGMP, "run", "-m", "mod"], cwd=tmp_path, capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout) == (0, "__main__ 3\n"), done.stderr


@pytest.mark.parametrize("code,exit_code,err", [
    ("raise ValueError('no')", 1, "ValueError: no"),
    ("import sys; sys.exit('bye')", 1, "bye"),
    ("def f(:", 1, "SyntaxError"),
])
def test_failures(tmp_path, code, exit_code, err):
    done = run(tmp_path, code)
    assert done.returncode == exit_code and err in done.stderr
    assert "dgmp/runtime" not in done.stderr


def as_python(tmp_path, code, *args, **options):
    """What the script does under dgmp run: the same as under python, as far as others can see."""
    done = run(tmp_path, code, *args, **options)
    plain = subprocess.run([sys.executable, str(tmp_path / "script.py"), *args], input=options.get("stdin", ""),
                           capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, addresses(done.stderr)) == (plain.returncode, plain.stdout, addresses(plain.stderr))
    return done


def addresses(text):
    return re.sub("0x[0-9a-f]+", "0x", text)


def test_it_ends_as_python_does(tmp_path):
    """Threads are joined, then atexit handlers run, then what __main__ holds goes: files left open have their text."""
    done = as_python(tmp_path, """
        import atexit, sys, threading
        class Last:
            def __del__(self):
                print("main is dropped", file=sys.stderr)
        last = Last()
        left = open(sys.argv[1], "w")
        left.write("text")
        ended = threading.Event()
        def work():
            threading.main_thread().join()
            print("thread", file=sys.stderr)
        def handler(name):
            print(name, file=sys.stderr)
        atexit.register(handler, "atexit")
        def failing():
            int("no number")
        atexit.register(failing)
        threading.Thread(target=work).start()
        sys.stdout.write("no newline")
        sys.exit(3)
        """, str(tmp_path / "left"))
    assert (done.returncode, done.stdout) == (3, "no newline")
    lines = done.stderr.splitlines()
    assert [lines[0], *lines[-2:]] == ["thread", "atexit", "main is dropped"] and "ValueError" in done.stderr
    assert (tmp_path / "left").read_text() == "text"


def test_atexit_handlers_can_use_the_runtime(tmp_path):
    done = run(tmp_path, """
        import atexit, dgmp
        atexit.register(lambda: print(dgmp.go(pow, 2, 5).result()))
        """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "32\n", "")


@pytest.mark.parametrize("code", [
    "import sys; print('out'); sys.stdout.close()",
    "import sys; sys.stdout = None",
    "import sys; sys.stdout = sys.stderr = None; sys.exit('nowhere')",
    "import sys; sys.stdout.close(); raise ValueError('no')",
    "import sys; sys.exit(-1)",
    "import sys; sys.exit(2 ** 31 + 3)",
    "import sys; sys.excepthook = lambda kind, error, tb: print('hook', kind, tb.tb_frame.f_code.co_name); 1 / 0",
    "def f(x: int): pass\nprint(f.__annotations__, __name__, __spec__, __package__, __doc__)",
    "try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise ValueError('again')",
])
def test_small_things_are_as_under_python(tmp_path, code):
    as_python(tmp_path, code)


def test_module_that_closes_stdout():
    done = subprocess.run([*DGMP, "run", "-m", "json.tool"], input='{"a": 1}', capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, '{\n    "a": 1\n}\n', "")


@pytest.mark.parametrize("code", ["import os; os._exit(4)", "import os; os.kill(os.getpid(), 15)"])
def test_a_script_that_ends_its_process(tmp_path, code):
    done = run(tmp_path, code)
    assert done.returncode == (4 if "_exit" in code else -signal.SIGTERM) and "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_script_that_crashes(tmp_path, number):
    done = run(tmp_path, f"import os; print(os.getpid(), flush=True); os.kill(os.getpid(), {int(number)})")
    assert done.returncode == -number
    assert done.stderr == f"dgmp: the script's process (pid {int(done.stdout)}) was killed by {number.name}\n"


def dgmp_run(*args, **options):
    options = {"capture_output": True, "text": True, "timeout": 60, **options}
    done = subprocess.run([*DGMP, "run", *map(str, args)], **options)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def app(tmp_path):
    """A program with a helper beside it."""
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "helper.py").write_text("def f(x):\n    return x + 1\n")
    (folder / "__main__.py").write_text(
        "import sys, dgmp, helper\n"
        "print(__name__, __file__, __package__ or None, sys.argv, sys.path[0], dgmp.go(helper.f, 2).result())\n")
    return folder


def test_folder_and_archive(app):
    expected = "__main__ {0}/__main__.py None ['{0}', 'a'] {0} 3\n"
    assert dgmp_run(app, "a") == (0, expected.format(app), "")
    archive = shutil.make_archive(str(app), "zip", app)
    assert dgmp_run(archive, "a") == (0, expected.format(archive), "")


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_program_from_stdin(name):
    assert dgmp_run(name, "a", input="import sys; print(__name__, sys.argv)") == (0, f"__main__ ['{name}', 'a']\n", "")


def test_nothing_to_run(tmp_path):
    """One line each."""
    assert dgmp_run(tmp_path) == (1, "", f"dgmp: can't find '__main__' module in '{tmp_path}'\n")
    assert dgmp_run("-m", "nopkg") == (1, "", "dgmp: No module named nopkg\n")
    assert dgmp_run("-m", "email") == (
        1, "", "dgmp: No module named email.__main__; 'email' is a package and cannot be directly executed\n")
    none = tmp_path / "none.py"
    assert dgmp_run(none) == (2, "", f"dgmp: cannot run '{none}': No such file or directory\n")
    assert dgmp_run(none / "x") == (2, "", f"dgmp: cannot run '{none / 'x'}': No such file or directory\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(tmp_path):
    script = tmp_path / "script.py"
    script.touch(0)
    assert dgmp_run(script) == (2, "", f"dgmp: cannot run '{script}': Permission denied\n")


def test_no_frames_of_ours(tmp_path):
    (tmp_path / "broken.py").write_text("import nowhere\n")
    code, _, err = dgmp_run("-m", "broken", cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert code == 1 and err.count("File ") == 1 and f"{tmp_path}/broken.py" in err


def test_bad_usage(tmp_path):
    assert run(tmp_path, "", options=("--procs", "0")).stderr == "dgmp: procs must be between 1 and 1024, not 0\n"
    code, _, err = dgmp_run()
    assert code == 2 and err.endswith("the following arguments are required: script.py|module\n")
    for text in "0", "-5", "9" * 30:
        done = run(tmp_path, "", env={"DGMP_DEBUG": f"schedtrace={text}"})
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and text in done.stderr
    done = run(tmp_path, "", options=("--schedtrace", "0"))
    assert done.returncode == 2 and done.stderr.startswith("dgmp: schedtrace must be")


def test_schedtrace_has_gos_format(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("input()")
    with subprocess.Popen([*DGMP, "run", "--schedtrace", "20", "--procs", "2", str(script)], stdin=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as program:
        lines = [program.stderr.readline() for _ in range(2)]
        program.communicate("\n", timeout=60)
    assert program.returncode == 0
    assert all(re.match(r"SCHED [0-9]+ms: gomaxprocs=2 idleprocs=.*\]\n$", line) for line in lines), lines


def test_boot_steps_are_printed(tmp_path):
    done = run(tmp_path, "pass", env={"DGMP_DEBUG": "boot"})
    steps = [line.split(": ")[2] for line in done.stderr.splitlines() if line.startswith("dgmp: boot")]
    assert steps[:5] == ["osinit", "schedinit", "newproc", "mstart", "runtime.main"]


def test_ctrl_c(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import time; print('ready', flush=True); time.sleep(60)")
    program = subprocess.Popen([*DGMP, "run", str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert program.stdout.readline() == "ready\n"
    family = descendants(program.pid)
    program.send_signal(signal.SIGINT)
    _, err = program.communicate(timeout=60)
    assert program.returncode == 130
    assert err.count("Traceback") == 1 and err.endswith("KeyboardInterrupt\n") and "proc.py" not in err
    assert eventually(lambda: not family & descendants(1))


@pytest.mark.parametrize("verb", ["version", "--version"])
def test_version(verb):
    done = subprocess.run([*DGMP, verb], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"dgmp {dgmp.__version__}\n")
