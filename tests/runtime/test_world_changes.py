"""What the program changes after boot is what Gs spawned after that see, and no others."""

import os
import subprocess
import sys
import threading
import warnings

import pytest

import dgmp
from dgmp.api import world
from tests import helpers


@pytest.fixture
def restored(monkeypatch, tmp_path):
    """The program's world is as it was afterwards."""
    cwd, path = os.getcwd(), list(sys.path)
    with warnings.catch_warnings():
        yield tmp_path
    os.chdir(cwd)
    sys.path[:] = path


def look(name="DGMP_TEST"):
    return os.getcwd(), os.environ.get(name), sys.path[-1]


def test_each_change_is_seen(rt, restored, monkeypatch):
    for i in range(3):
        folder = restored / str(i)
        folder.mkdir()
        os.chdir(folder)
        assert rt.go(look).result(20)[0] == str(folder)
        monkeypatch.setenv("DGMP_TEST", str(i))
        assert rt.go(look).result(20)[1] == str(i)
        sys.path.append(f"/nowhere/{i}")
        assert rt.go(look).result(20) == (str(folder), str(i), f"/nowhere/{i}")
    monkeypatch.delenv("DGMP_TEST")
    assert rt.go(look).result(20)[1] is None


def test_every_g_has_the_world_of_its_go(rt, restored, monkeypatch):
    """Also those that wait in a queue while the program goes on changing."""
    futures = []
    folders = [restored / str(i) for i in range(5)]
    for folder in folders:
        folder.mkdir()
    for i in range(200):
        folder = folders[i % 5]
        os.chdir(folder)
        os.environ["DGMP_TEST"] = str(i % 7)
        futures.append((rt.go(look), str(folder), str(i % 7)))
    monkeypatch.delenv("DGMP_TEST")
    for future, folder, value in futures:
        assert future.result(20)[:2] == (folder, value)


def test_a_change_at_once_after_a_go(rt, restored):
    """However short the time between: nothing but the directory changes."""
    folders = [str(restored / x) for x in "ab"]
    for folder in folders:
        os.mkdir(folder)
    go, chdir, a, b = rt.go, os.chdir, *folders
    for _ in range(200):
        chdir(a)
        first = go(os.getcwd)
        chdir(b)
        second = go(os.getcwd)
        assert (first.result(20), second.result(20)) == (a, b)


def test_sys_path_replaced(rt, restored, monkeypatch):
    monkeypatch.setattr(sys, "path", ["/nowhere", *sys.path])
    assert rt.go(eval, "__import__('sys').path").result(20) == sys.path
    sys.path[0] = "/elsewhere"
    assert rt.go(eval, "__import__('sys').path").result(20) == sys.path


def test_warnings_filters_change(rt, restored):
    assert rt.go(warned).result(20) is False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rt.go(warned).result(20) is True
    assert rt.go(warned).result(20) is False


def warned():
    try:
        warnings.warn("text", UserWarning, stacklevel=1)
    except UserWarning:
        return True
    return False


def wait_for_child():
    """What a G sees before and after it has waited, and what its child sees."""
    before = look()
    child = dgmp.go(look)
    return before, child.result(20), look()


def test_a_parked_g_gets_its_world_back(restored, monkeypatch):
    with dgmp.Runtime(procs=1, max_ms=1) as rt:  # all Gs are on one M
        parked = []
        for i in range(4):
            folder = restored / str(i)
            folder.mkdir()
            os.chdir(folder)
            os.environ["DGMP_TEST"] = str(i)
            parked.append((rt.go(wait_for_child), (str(folder), str(i))))
        for future, expected in parked:
            before, child, after = future.result(20)
            assert before[:2] == child[:2] == after[:2] == expected
    monkeypatch.delenv("DGMP_TEST")


def test_a_directory_that_is_gone(restored):
    with dgmp.Runtime(procs=1) as rt:
        gate = rt.go(helpers.nap, 0.05)
        (restored / "gone").mkdir()
        os.chdir(restored / "gone")
        late = rt.go(os.getcwd)
        os.chdir(restored)
        os.rmdir(restored / "gone")
        assert gate.result(20) == 0.05
        error = late.exception(20)
        assert isinstance(error, FileNotFoundError) and error.filename == str(restored / "gone")
        assert "the working directory in which this G was spawned" in str(error)
        assert rt.go(os.getcwd).result(20) == str(restored)


def test_a_directory_made_anew(restored):
    """The same path, another directory."""
    with dgmp.Runtime(procs=1) as rt:
        for i in range(3):
            os.mkdir(restored / "again")
            os.chdir(restored / "again")
            (restored / "again" / "file").write_text(str(i))
            assert rt.go(read, "file").result(20) == str(i)
            os.chdir(restored)
            (restored / "again" / "file").unlink()
            os.rmdir(restored / "again")


def read(path):
    with open(path) as file:
        return file.read()


def test_a_program_whose_directory_is_removed(restored):
    """Its Ms are there too."""
    os.mkdir(restored / "gone")
    os.chdir(restored / "gone")
    with dgmp.Runtime(procs=1) as rt:
        assert rt.go(os.getcwd).result(20) == str(restored / "gone")
        os.rmdir(restored / "gone")
        assert rt.go(abs, -1).result(20) == 1
        os.environ["DGMP_TEST"] = "removed"
        try:
            assert rt.go(os.environ.get, "DGMP_TEST").result(20) == "removed"
        finally:
            del os.environ["DGMP_TEST"]


@pytest.mark.skipif(sys.version_info[:3] == (3, 13, 0), reason="there `import socket` itself fails in such a directory")
def test_boot_in_a_directory_that_is_removed(restored):
    os.mkdir(restored / "gone")
    os.chdir(restored / "gone")
    os.rmdir(restored / "gone")
    if subprocess.run([helpers.PYTHON, "-c", "import socket"], capture_output=True).returncode:
        pytest.skip("this version of Python cannot import socket there")
    with dgmp.Runtime(procs=1) as rt:
        assert isinstance(rt.go(os.getcwd).exception(20), FileNotFoundError)
        os.chdir(restored)
        assert rt.go(os.getcwd).result(20) == str(restored)


def test_odd_variables(rt, monkeypatch):
    for value in "", "é", "a=b", "line\nline", "\udcff", "x" * 200_000:
        monkeypatch.setenv("DGMP_TEST", value)
        assert rt.go(os.environ.get, "DGMP_TEST").result(20) == value


def test_a_change_by_another_thread(rt, restored):
    """Which says so, and is then believed."""
    ask, told = threading.Event(), threading.Event()
    folders = [str(restored / x) for x in "ab"]
    for folder in folders:
        os.mkdir(folder)

    def change():
        for i in range(50):
            ask.wait(20)
            ask.clear()
            os.chdir(folders[i % 2])
            told.set()

    thread = threading.Thread(target=change)
    thread.start()
    for i in range(50):
        ask.set()
        told.wait(20)
        told.clear()
        assert rt.go(os.getcwd).result(20) == folders[i % 2]
    thread.join()


def test_two_runtimes(restored, monkeypatch):
    with dgmp.Runtime(procs=1) as first:
        monkeypatch.setenv("DGMP_TEST", "1")
        with dgmp.Runtime(procs=1) as second:
            assert [x.go(os.environ.get, "DGMP_TEST").result(20) for x in (first, second)] == ["1", "1"]
            monkeypatch.setenv("DGMP_TEST", "2")
            assert [x.go(os.environ.get, "DGMP_TEST").result(20) for x in (first, second)] == ["2", "2"]


def test_a_map_sees_them_too(rt, tmp_path, monkeypatch):
    rt.go(int).result()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DGMP_TEST_MAP", "seen")
    assert list(rt.map(lambda i: (os.getcwd(), os.environ.get("DGMP_TEST_MAP")), range(3))) == [(str(tmp_path), "seen")] * 3


def test_too_many_worlds(rt, monkeypatch):
    """The function table is not filled with them."""
    rt.go(int).result()
    monkeypatch.setattr(world, "MOST_WORLDS", len(rt._teller.indices) + 3)
    for i in range(3):
        monkeypatch.setenv("DGMP_TEST", str(i))
        assert rt.go(os.getenv, "DGMP_TEST").result() == str(i)
    monkeypatch.setenv("DGMP_TEST", "3")
    with pytest.warns(RuntimeWarning, match="no more changes"):
        assert rt.go(os.getenv, "DGMP_TEST").result() == "2"
    monkeypatch.setenv("DGMP_TEST", "1")
    assert rt.go(os.getenv, "DGMP_TEST").result() == "1"
