"""The ways in which Python runs a program: functions of each travel, and none needs `if __name__ == "__main__"`."""

import os
import pty
import subprocess
import textwrap
import zipapp

import pytest

from tests.helpers import PYTHON

CODE = """
import dgmp

def square(x):
    return x * x

class Point:
    def __init__(self, x):
        self.x = x

    def double(self):
        return Point(2 * self.x)

total = 100
print(sum(dgmp.gather(*[dgmp.go(square, i) for i in range(5)])), dgmp.go(lambda: total + 1).result(),
      dgmp.go(Point(4).double).result().x, isinstance(dgmp.go(Point(1).double).result(), Point))
"""
OUT = "30 101 8 True\n"


def run(*args, stdin=None, cwd=None, env=None):
    done = subprocess.run([*map(str, args)], input=stdin, cwd=cwd, capture_output=True, text=True, timeout=60,
                          env={**os.environ, **(env or {})})
    return done.returncode, done.stdout, done.stderr


def test_command():
    assert run(PYTHON, "-c", CODE) == (0, OUT, "")


@pytest.mark.parametrize("args", [[], ["-"], ["/dev/stdin"]])
def test_stdin(args):
    assert run(PYTHON, *args, stdin=CODE) == (0, OUT, "")


def test_script(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(CODE)
    assert run(PYTHON, script, cwd="/") == (0, OUT, "")
    assert run(PYTHON, "-I", script, cwd="/") == (0, OUT, "")


def test_script_that_imports_what_lies_beside_it(tmp_path):
    (tmp_path / "beside.py").write_text("import os\ndef f(x):\n    return x + 1\n")
    (tmp_path / "script.py").write_text(
        "import dgmp, beside\n"
        "def g(x):\n    import beside\n    return beside.f(x)\n"
        "print(dgmp.go(beside.f, 1).result(), dgmp.go(g, 2).result(), dgmp.go(lambda: beside.f(3)).result())\n")
    assert run(PYTHON, tmp_path / "script.py", cwd="/") == (0, "2 3 4\n", "")
    os.symlink(tmp_path / "script.py", tmp_path / "link.py")
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "script.py", tmp_path / "elsewhere" / "link.py")
    assert run(PYTHON, tmp_path / "elsewhere" / "link.py", cwd="/") == (0, "2 3 4\n", "")


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "pkg" / "sub"
    folder.mkdir(parents=True)
    (tmp_path / "pkg" / "__init__.py").write_text("")
    (folder / "__init__.py").write_text("")
    (tmp_path / "pkg" / "sibling.py").write_text("def f(x):\n    return x + 1\n")
    code = """
        import dgmp
        from ..sibling import f
        from .. import sibling

        def inside(x):
            from ..sibling import f
            from .. import sibling
            return f(x) + sibling.f(x)

        class Local:
            value = 5

        def uses():
            return Local.value, __name__, __package__

        print(dgmp.go(f, 1).result(), dgmp.go(inside, 2).result(), dgmp.go(lambda: sibling.f(3)).result())
        print(dgmp.go(uses).result(), isinstance(dgmp.go(Local).result(), Local))
        """
    for name in "prog", "__main__":
        (folder / f"{name}.py").write_text(textwrap.dedent(code))
    return tmp_path


@pytest.mark.parametrize("name", ["pkg.sub.prog", "pkg.sub"])
@pytest.mark.parametrize("start", [[PYTHON], [PYTHON, "-m", "dgmp", "run"]])
def test_module_with_relative_imports(package, name, start):
    expected = (0, "2 6 4\n(5, '__main__', 'pkg.sub') True\n", "")
    assert run(*start, "-m", name, cwd=package) == expected
    assert run(*start, "-m", name, cwd="/", env={"PYTHONPATH": str(package)}) == expected


def test_zipapp(tmp_path):
    app = tmp_path / "app"
    app.mkdir()
    (app / "helper.py").write_text("def f(x):\n    return x + 1\n")
    (app / "__main__.py").write_text("import dgmp, helper\nprint(dgmp.go(helper.f, 1).result())\n" + CODE)
    zipapp.create_archive(app, tmp_path / "app.pyz")
    for target in app, tmp_path / "app.pyz":
        assert run(PYTHON, target, cwd="/") == (0, "2\n" + OUT, "")


def test_runpy_and_exec(tmp_path):
    """As debuggers, profilers and notebooks start a program."""
    (tmp_path / "script.py").write_text(CODE)
    code = f"import runpy; runpy.run_path({str(tmp_path / 'script.py')!r}, run_name='__main__')"
    assert run(PYTHON, "-c", code) == (0, OUT, "")
    cell = f"""
import linecache
source = {CODE!r}
linecache.cache["<cell 1>"] = len(source), None, source.splitlines(True), "<cell 1>"
exec(compile(source, "<cell 1>", "exec"), globals())
def fails(x):
    return 1 // x
exec(compile("def fails(x):\\n    return 1 // x\\n", "<cell 2>", "exec"), globals())
try:
    dgmp.go(fails, 0).result()
except ZeroDivisionError as e:
    print('File "<cell 2>", line 2, in fails' in str(e.__cause__))
"""
    assert run(PYTHON, "-c", cell) == (0, OUT + "True\n", "")


CELLS = """
def f():
    return 1

print(dgmp.go(f).result())
def f():
    return 2

print(dgmp.go(f).result(), dgmp.go(lambda: f()).result())
values = [1]
def g():
    return values

values.append(2)
print(dgmp.go(g).result())
"""


def test_interactive_console():
    program = ("import code, dgmp\nconsole = code.InteractiveConsole({'dgmp': dgmp, '__name__': '__main__'})\n"
               f"for line in {CELLS.splitlines()!r}: console.push(line)")
    code, out, err = run(PYTHON, "-c", program)
    assert (code, out) == (0, "1\n2 2\n[1, 2]\n"), err


def test_repl_without_a_terminal():
    code, out, err = run(PYTHON, "-i", "-q", stdin="import dgmp\n" + CELLS)
    assert (code, out) == (0, "1\n2 2\n[1, 2]\n"), err


def test_repl_on_a_terminal(tmp_path):
    """A helper edited between two lines, with and without importlib.reload."""
    (tmp_path / "helper.py").write_text("def f():\n    return 'first'\n")
    lines = ["import dgmp, helper, importlib, pathlib", "dgmp.go(helper.f).result()",
             "_ = pathlib.Path('helper.py').write_text('def f():\\n    return \"again\"\\n')", "dgmp.go(helper.f).result()",
             "importlib.reload(helper).f()", "dgmp.go(helper.f).result()", "dgmp.go(lambda: helper.f() + '!').result()",
             "exit()"]
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "r+b", buffering=0) as terminal:
        program = subprocess.Popen([PYTHON, "-q"], stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path,
                                   env={**os.environ, "TERM": "dumb", "PYTHON_BASIC_REPL": "1"})
        os.close(theirs)
        terminal.write("".join(line + "\n" for line in lines).encode())
        said = b""
        try:
            while more := os.read(ours, 1 << 16):
                said += more
        except OSError:  # the terminal's other end is closed
            pass
        assert program.wait(60) == 0
    results = [line for line in said.decode().splitlines() if line.startswith("'")]
    assert results == ["'first'", "'again'", "'again'", "'again'", "'again!'"], said


def test_ipython(tmp_path):
    pytest.importorskip("IPython")
    (tmp_path / "helper.py").write_text("def f():\n    return 'first'\n")
    cells = ["%load_ext autoreload\n%autoreload 2", "import dgmp, helper, os",
             "def f(x):\n    return x + 1", "print(dgmp.go(f, 1).result(), dgmp.go(helper.f).result())",
             "def f(x):\n    return x + 2", "print(dgmp.go(f, 1).result())",
             "%%writefile helper.py\ndef f():\n    return 'again'\n", "print(dgmp.go(helper.f).result())",
             "print(helper.f(), dgmp.go(helper.f).result())",
             "%cd -q elsewhere", "print(dgmp.go(os.getcwd).result())",
             "%env DGMP_TEST=set", "print(dgmp.go(os.environ.get, 'DGMP_TEST').result())",
             "print(dgmp.go(lambda: 1 // 0).exception())"]
    (tmp_path / "elsewhere").mkdir()
    code = ("from IPython.core.interactiveshell import InteractiveShell\nshell = InteractiveShell.instance()\n"
            f"for cell in {cells!r}:\n    shell.run_cell(cell, store_history=True)\n")
    code, out, err = run(PYTHON, "-c", code, cwd=tmp_path, env={"IPYTHONDIR": str(tmp_path / "ipython")})
    lines = [line for line in out.splitlines() if not line.startswith(("Overwriting", "env:"))]
    assert lines == ["2 first", "3", "again", "again again", str(tmp_path / "elsewhere"), "set",
                     "integer division or modulo by zero"], (out, err)


TEST_FILE = """
import os, sys
import dgmp
import beside

def square(x):
    return x * x

class Point:
    x = 3

def test_module_functions():
    assert dgmp.gather(*[dgmp.go(square, i) for i in range(3)]) == [0, 1, 4]

def test_closures(tmp_path):
    assert dgmp.go(lambda: square(5) + beside.f(1)).result() == 27
    assert type(dgmp.go(Point).result()) is Point

def test_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DGMP_TEST", "1")
    assert dgmp.go(lambda: (os.getcwd(), os.environ.get("DGMP_TEST"))).result() == (str(tmp_path), "1")

def test_they_are_back():
    assert dgmp.go(os.getcwd).result() == os.getcwd() and dgmp.go(os.environ.get, "DGMP_TEST").result() is None
"""


@pytest.mark.parametrize("packages, options", [
    (False, []), (False, ["--import-mode=importlib"]), (False, ["--import-mode=append"]),
    (False, ["-s", "-p", "no:faulthandler"]),
    (True, []), (True, ["--import-mode=importlib"]), (True, ["--import-mode=append"])])
def test_pytest(tmp_path, options, packages):
    folder = tmp_path / "checks"  # `tests` may be ours: an editable install has it on sys.path
    folder.mkdir()
    if packages:
        (folder / "__init__.py").write_text("")
    (tmp_path / "conftest.py").write_text(f"import sys\nsys.path.insert(0, {str(tmp_path / 'lib')!r})\n")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "beside.py").write_text("def f(x):\n    return x + 1\n")
    (folder / "test_it.py").write_text(TEST_FILE)
    code, out, err = run(PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", f"--rootdir={tmp_path}",
                         *options, folder, cwd="/")
    assert code == 0 and "4 passed" in out, out + err


def test_dgmp_run_follows_the_script(tmp_path):
    """The main G is the program: what it changes is seen by the Gs it spawns, and by none that were spawned before."""
    (tmp_path / "script.py").write_text(textwrap.dedent("""
        import importlib, os, pathlib, sys, dgmp

        def look():
            return os.getcwd(), os.environ.get("DGMP_TEST"), sys.path[-1]

        here = os.getcwd()
        os.mkdir("below")
        early = [dgmp.go(look) for _ in range(20)]
        os.environ["DGMP_TEST"] = "1"
        os.chdir("below")
        sys.path.append("/nowhere")
        late = [dgmp.go(look) for _ in range(20)]
        assert {x.result()[:2] for x in early} == {(here, None)}
        assert {x.result() for x in late} == {(os.path.join(here, "below"), "1", "/nowhere")} == {look()}
        os.chdir(here)
        assert dgmp.go(look).result()[0] == here

        helper = pathlib.Path("helper.py")
        helper.write_text("VALUE = -1")
        import helper as module
        for i in range(10):
            helper.write_text(f"VALUE = {i}")
            assert {x.result() for x in [dgmp.go(lambda: module.VALUE) for _ in range(4)]} == {i}
            assert module.VALUE == -1 and sys.modules["helper"] is module
        assert importlib.reload(module).VALUE == 9
        print("done")
        """))
    for procs in "1", "3":
        assert run(PYTHON, "-m", "dgmp", "run", "--procs", procs, "script.py", cwd=tmp_path) == (0, "done\n", ""), procs
        os.rmdir(tmp_path / "below")
        os.unlink(tmp_path / "helper.py")


