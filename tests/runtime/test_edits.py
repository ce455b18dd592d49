"""A module that is edited while the program runs is not run stale."""

import importlib
import os
import subprocess
import sys
import uuid

import pytest

import dgmp
from dgmp.api import edits
from tests.helpers import PYTHON


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of modules, which are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(tmp_path) in str(getattr(module, "__spec__", None)):
            del sys.modules[name]


@pytest.fixture
def name():
    """A module's, that no other test has used."""
    return f"edited_{uuid.uuid4().hex}"


@pytest.fixture
def rt():
    with dgmp.Runtime(procs=1, max_ms=1) as runtime:  # all Gs are on one M, which has loaded what was
        yield runtime


def write(folder, name, value):
    (folder / f"{name}.py").write_text(f"import os\ndef f():\n    return {value!r}\ndef pid():\n    return os.getpid()\n")


@pytest.fixture(params=["events", "stamps"])
def way(request, monkeypatch):
    """How edits are noticed."""
    if request.param == "stamps":
        monkeypatch.setattr(edits, "inotify", refuse)
        monkeypatch.setattr(edits, "OFTEN", 0)
    return request.param


def refuse():
    raise OSError(24, "Too many open files")


def test_each_edit_is_noticed(folder, name, rt, way):
    """Within milliseconds, and of the same size: a .pyc would not know."""
    write(folder, name, 0)
    module = importlib.import_module(name)
    pid = rt.go(module.pid).result(20)
    for i in range(1, 50 if way == "events" else 2):
        write(folder, name, i % 10)
        assert rt.go(module.f).result(20) == i % 10
    assert rt.go(module.pid).result(20) == pid


def test_with_reload(folder, name, rt):
    write(folder, name, 0)
    module = importlib.import_module(name)
    for i in range(1, 10):
        write(folder, name, f"longer and longer {'x' * i}")
        importlib.reload(module)
        assert rt.go(module.f).result(20) == module.f() == f"longer and longer {'x' * i}"


def test_a_helper_that_the_module_imports(folder, name, rt):
    (folder / f"{name}_helper.py").write_text("VALUE = 0\n")
    (folder / f"{name}.py").write_text(f"from {name}_helper import VALUE\ndef f():\n    return VALUE\n")
    module = importlib.import_module(name)
    assert rt.go(module.f).result(20) == 0
    (folder / f"{name}_helper.py").write_text("VALUE = 1\n")
    assert (rt.go(module.f).result(20), module.f()) == (1, 0)


def test_a_module_that_only_gs_import(folder, name, rt):
    for i in range(5):
        write(folder, name, i)
        assert rt.go(call, name, "f").result(20) == i


def call(module, function):
    return getattr(importlib.import_module(module), function)()


def test_a_package(folder, name, rt):
    package = folder / name
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "deep" / "__init__.py").write_text("from .part import f\n")
    write(package / "deep", "part", 0)
    module = importlib.import_module(f"{name}.deep")
    assert rt.go(module.f).result(20) == 0
    for i in range(1, 5):
        write(package / "deep", "part", i)
        assert rt.go(module.f).result(20) == i


def test_a_package_that_only_gs_import(folder, name, rt):
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text("")
    for i in range(5):
        write(folder / name, "part", i)
        assert rt.go(call, f"{name}.part", "f").result(20) == i


def test_a_namespace_package(folder, name, rt):
    (folder / name).mkdir()
    write(folder / name, "part", 0)
    module = importlib.import_module(f"{name}.part")
    assert rt.go(from_import, name, "part").result(20) == 0
    write(folder / name, "part", 1)
    assert rt.go(from_import, name, "part").result(20) == 1
    assert rt.go(module.f).result(20) == 1


def from_import(package, module):
    scope = {}
    exec(f"from {package} import {module}", scope)
    return scope[module].f()


def test_a_folder_replaced(folder, name, rt):
    for i in range(3):
        new = folder / f"new_{i}"
        new.mkdir()
        (new / "__init__.py").write_text("")
        write(new, "part", i)
        if i:
            os.rename(folder / name, folder / f"old_{i}")
        os.rename(new, folder / name)
        assert rt.go(call, f"{name}.part", "f").result(20) == i
    write(folder / name, "part", "edited")
    assert rt.go(call, f"{name}.part", "f").result(20) == "edited"


def test_a_file_replaced(folder, name, rt):
    write(folder, name, 0)
    module = importlib.import_module(name)
    assert rt.go(module.f).result(20) == 0
    write(folder, "other", 1)
    os.replace(folder / "other.py", folder / f"{name}.py")
    assert rt.go(module.f).result(20) == 1


def test_a_link(folder, name, rt, tmp_path_factory):
    target = tmp_path_factory.mktemp("target")
    write(target, "real", 0)
    (folder / f"{name}.py").symlink_to(target / "real.py")
    module = importlib.import_module(name)
    assert rt.go(module.f).result(20) == 0
    write(target, "real", 1)
    assert rt.go(module.f).result(20) == 1


def test_an_edit_by_another_process(folder, name, rt, way):
    write(folder, name, 0)
    module = importlib.import_module(name)
    assert rt.go(module.f).result(20) == 0
    subprocess.run(["sed", "-i", "s/return 0/return 1/", str(folder / f"{name}.py")], check=True)
    assert rt.go(module.f).result(20) == 1


def test_broken_and_repaired(folder, name, rt):
    write(folder, name, 0)
    module = importlib.import_module(name)
    assert rt.go(module.f).result(20) == 0
    (folder / f"{name}.py").write_text("def f(:\n")
    assert "SyntaxError" in str(rt.go(module.f).exception(20))
    write(folder, name, 2)
    assert rt.go(module.f).result(20) == 2
    (folder / f"{name}.py").unlink()
    assert "ModuleNotFoundError" in str(rt.go(module.f).exception(20))
    write(folder, name, 3)
    assert rt.go(module.f).result(20) == 3


def test_other_modules_come_anew_and_installed_ones_stay(folder, name, rt):
    """What imports something of an edited module may be any module of the user's."""
    write(folder, name, 0)
    (folder / f"{name}_state.py").write_text("COUNT = []\ndef count():\n    COUNT.append(1)\n    return len(COUNT)\n")
    module, state = importlib.import_module(name), importlib.import_module(f"{name}_state")
    assert rt.go(module.f).result(20) == 0
    assert [rt.go(state.count).result(20) for _ in range(2)] == [1, 2]
    kept = rt.go(ids, ["json", "msgpack"]).result(20)
    (folder / "unrelated.py").write_text("")
    (folder / "unrelated.txt").write_text("")
    assert rt.go(state.count).result(20) == 3
    write(folder, name, 1)
    assert rt.go(state.count).result(20) == 1
    assert rt.go(ids, ["json", "msgpack"]).result(20) == kept


def ids(names):
    return [id(importlib.import_module(name)) for name in names]


def test_dgmp_stays_even_if_not_installed(folder, name, rt):
    """What it imports late are none of the user's modules, wherever they lie."""
    class Local:
        pass

    write(folder, name, 0)
    module = importlib.import_module(name)
    for i in range(1, 3):
        assert type(rt.go(lambda: (Local(), module.f())[0]).result(20)) is Local
        write(folder, name, i)
        assert rt.go(module.f).result(20) == i


def test_a_started_g_keeps_its_code(folder, name, rt):
    (folder / f"{name}.py").write_text(
        "import dgmp\n"
        "def version():\n    return 0\n"
        "def f(child):\n"
        "    value = version()\n"
        "    seen = dgmp.go(child).result()\n"
        "    import sys\n"
        "    return value, seen, version(), sys.modules[__name__].version()\n")
    module = importlib.import_module(name)
    assert rt.go(module.f, os.getpid).result(20)[::2] == (0, 0)
    gate = folder / "gate"
    os.mkfifo(gate)
    parked = rt.go(module.f, Opened(str(gate)))
    (folder / f"{name}.py").write_text("def version():\n    return 1\n")
    late = rt.go(module.version)
    with open(gate, "w") as file:
        file.write("on")
    assert parked.result(20) == (0, "on", 0, 0)
    assert late.result(20) == 1


class Opened:
    """Called: what comes out of a pipe."""

    def __init__(self, path):
        self.path = path

    def __call__(self):
        with open(self.path) as file:
            return file.read()


def test_new_modules_are_found(folder, name, rt):
    """Also in a folder that the M has listed in the same tick of the file system's clock."""
    for i in range(30):
        write(folder, f"{name}_{i}", i)
        module = importlib.import_module(f"{name}_{i}")
        assert rt.go(module.f).result(20) == i


def test_many_edits(folder, name, rt, monkeypatch):
    monkeypatch.setattr(edits, "MOST_EDITS", 3)
    write(folder, name, 0)
    module = importlib.import_module(name)
    assert rt.go(module.f).result(20) == 0
    for i in range(1, 9):
        write(folder, f"other_{i}", i)
        write(folder, name, i)
        assert rt.go(module.f).result(20) == i


def test_lost_events(folder, name, rt, monkeypatch):
    """The kernel's queue was full."""
    write(folder, name, 0)
    module = importlib.import_module(name)
    assert rt.go(module.f).result(20) == 0
    monkeypatch.setattr(edits.Edits, "events", lambda self: [(-1, edits.OVERFLOW, "")] if os.read(self.fd, 1 << 16) else [])
    write(folder, name, "edited")
    assert rt.go(module.f).result(20) == "edited"


def test_no_more_watches(folder, name, monkeypatch):
    def refuse(fd, path, mask):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(edits, "inotify_watch", refuse)
    write(folder, name, 0)
    module = importlib.import_module(name)
    with dgmp.Runtime(procs=1) as rt:
        assert rt.go(module.f).result(20) == 0
        write(folder, name, "edited")
        assert rt.go(module.f).result(20) == "edited"


def test_a_descriptor_that_the_program_has_closed(folder, name, rt):
    write(folder, name, 0)
    module = importlib.import_module(name)
    assert rt.go(module.f).result(20) == 0
    os.close(rt._teller.edits.fd)
    for i in range(1, 3):
        write(folder, name, f"edited {i}")
        assert rt.go(module.f).result(20) == f"edited {i}"


def test_what_the_program_opens_after_it_has_closed_all_is_not_read(folder, name, rt):
    write(folder, name, 0)
    module = importlib.import_module(name)
    assert rt.go(module.f).result(20) == 0
    os.close(rt._teller.edits.fd)
    pipes = [os.pipe() for _ in range(50)]
    for _, end in pipes:
        os.write(end, b"for the program")
    write(folder, name, "edited")
    assert rt.go(module.f).result(20) == "edited"
    for begin, end in pipes:
        assert os.read(begin, 100) == b"for the program"
        os.close(begin)
        os.close(end)


def test_many_files(folder, name, monkeypatch):
    """With stamps alone it would cost too much to look."""
    monkeypatch.setattr(edits, "YOUNG_NS", -1 << 60)
    monkeypatch.setattr(edits, "MANY_FILES", edits.MOST_FILES)
    with dgmp.Runtime(procs=1) as rt:
        assert rt._teller.edits.fd < 0
    monkeypatch.setattr(edits, "MANY_FILES", 1)
    with dgmp.Runtime(procs=1) as rt:
        assert rt._teller.edits.fd >= 0


PROGRAM = """
import sys, pathlib, dgmp
import helper

def f():
    return helper.VALUE

for i in range(10):
    pathlib.Path("helper.py").write_text(f"VALUE = {i}")
    print(dgmp.go(f).result(), dgmp.go(helper.g).result() if i == 99 else "", dgmp.go(lambda: helper.VALUE).result())
"""


def test_a_program_that_edits_what_lies_beside_it(tmp_path):
    """Functions of `__main__`, which travel whole, use modules by reference."""
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "helper.py").write_text("VALUE = -1")
    done = subprocess.run([PYTHON, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("".join(f"{i}  {i}\n" for i in range(10)), "")
