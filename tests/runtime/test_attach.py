"""Several programs share a node: attaching, leaving, and dying."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

import dgmp
from dgmp.coordinator import sessions
from tests import helpers
from tests.helpers import alive, eventually

ROOT = Path(__file__).parent.parent.parent
SECONDS = 20.0


@pytest.fixture
def path(tmp_path: Path) -> str:
    tmp_path.chmod(0o700)
    return str(tmp_path / "node.sock")


@pytest.fixture
def shared(path: str) -> Iterator[dgmp.Runtime]:
    """A node of this process to which others may attach."""
    with dgmp.Runtime(procs=2, listen=path, grace=0.5) as rt:
        yield rt


class Program:
    """Another program, which attaches as `rt` and runs some code."""

    def __init__(self, path: str, code: str, cwd: Path | str, environ: dict[str, str]) -> None:
        whole = f"import dgmp, os, sys, time\nrt = dgmp.Runtime(attach={path!r})\n{textwrap.dedent(code)}"
        found = os.pathsep.join([str(cwd), str(ROOT)])
        self.process = subprocess.Popen([sys.executable, "-u", "-c", whole], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, cwd=cwd,
                                        env={**os.environ, "PYTHONPATH": found, **environ})

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def end(self) -> str:
        """What it has still to say; it must end well."""
        out, err = self.process.communicate(timeout=60)
        assert (self.process.returncode, err) == (0, "")
        return out


@contextlib.contextmanager
def program(path: str, code: str, cwd: Path | str = ROOT, **environ: str) -> Iterator[Program]:
    running = Program(path, code, cwd, environ)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.communicate(timeout=SECONDS)


def is_clear(rt: dgmp.Runtime) -> bool:
    """Nothing is left of other clients in that node."""
    rt.node.collect()
    stats = rt.stats()
    return (rt.node.view.clients(), stats["num_g"], stats["large_blocks"], stats["objects"]) == (0, 0, 0, 0)


def receive(c):
    return c.recv()


def sockets_for_children():
    found = [fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}") and os.get_inheritable(int(fd))]
    return [fd for fd in found if os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")]


def pid_of_m() -> int:
    return os.getpid()


# ---------------------------------------------------------------------- working together
def test_two_programs_at_once(path, shared):
    code = """
        from tests.helpers import fib
        for i in range(20):
            fs = [rt.go(lambda x=x: x * me) for x in range(200)]
            assert [f.result() for f in fs] == [x * me for x in range(200)]
            assert list(rt.map(lambda x: x + me, range(500), chunksize=7)) == [x + me for x in range(500)]
        assert rt.go(fib, 12).result() == 144
        print("right")
    """
    with program(path, f"me = 3\n{textwrap.dedent(code)}") as a, program(path, f"me = 5\n{textwrap.dedent(code)}") as b:
        while a.process.poll() is None or b.process.poll() is None:
            assert helpers.still_fine(shared)
        assert a.end() == b.end() == "right\n"
    assert eventually(lambda: is_clear(shared))


def test_gs_of_each_find_its_own_surroundings(path, shared, tmp_path):
    """Directory, environment, modules by the same name, and where prints go; in Ms that both take turns in."""
    code = """
        import threading
        def look(x):
            import mine
            print("seen by", os.environ["ME"])
            return os.environ["ME"], os.path.basename(os.getcwd()), mine.NAME, mine.next()
        seen = [rt.go(look, x).result() for x in range(300)]
        assert {x[:3] for x in seen} == {(me := os.environ["ME"], me, me)}, set(seen)
        print("done")
    """
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(f"import itertools\nNAME = {name!r}\nnext = itertools.count().__next__\n")
    with program(path, code, tmp_path / "one", ME="one") as a, program(path, code, tmp_path / "two", ME="two") as b:
        assert a.end() == "seen by one\n" * 300 + "done\n"
        assert b.end() == "seen by two\n" * 300 + "done\n"


def test_a_file_edited_between_two_programs_is_loaded_anew(path, shared, tmp_path):
    (tmp_path / "mine.py").write_text("def f(): return 'before'\n")
    code = "import mine\nprint(*{f.result() for f in [rt.go(mine.f) for _ in range(20)]})"
    with program(path, code, tmp_path) as a:
        assert a.end() == "before\n"
    (tmp_path / "mine.py").write_text("def f(): return 'after it'\n")
    with program(path, code, tmp_path) as b:
        assert b.end() == "after it\n"


def test_each_has_its_own_logging_levels(path, shared):
    code = """
        import logging
        logging.basicConfig(level=sys.argv[0] or level, format="%(levelname)s %(message)s", stream=sys.stdout)
        def say(x):
            import logging
            logging.getLogger("mine").debug("fine")
            logging.getLogger("mine").error("bad")
        for x in range(100):
            rt.go(say, x).result()
    """.replace("sys.argv[0] or level", "LEVEL")
    with program(path, code.replace("LEVEL", "logging.DEBUG")) as a, program(path, code.replace("LEVEL", "logging.ERROR")) as b:
        assert a.end() == "DEBUG fine\nERROR bad\n" * 100
        assert b.end() == "ERROR bad\n" * 100


def test_coroutines_of_two_print_at_home(path, shared):
    code = """
        async def say(x):
            import asyncio
            await asyncio.sleep(0.001)
            print(me)
        for f in [rt.go(say, x) for x in range(50)]:
            f.result()
    """
    with program(path, f"me = 'a'\n{textwrap.dedent(code)}") as a, program(path, f"me = 'b'\n{textwrap.dedent(code)}") as b:
        assert (a.end(), b.end()) == ("a\n" * 50, "b\n" * 50)


def test_close_waits_for_its_own_gs_only(path, shared):
    never = shared.chan()
    waits = shared.go(lambda: never.recv())
    with dgmp.Runtime(attach=path) as rt:
        slow = rt.go(time.sleep, 0.05)
    assert slow.done() and slow.exception() is None and not waits.done()
    never.send(7)
    assert waits.result(SECONDS) == 7


def test_results_read_in_place_outlive_the_attachment(path, shared):
    numpy = pytest.importorskip("numpy")
    rt = dgmp.Runtime(attach=path)
    big = rt.go(numpy.arange, 100_000).result(SECONDS)
    rt.close()
    other = dgmp.Runtime(attach=path)
    for _ in range(20):
        assert other.go(numpy.zeros, 100_000).result(SECONDS).sum() == 0
    other.close()
    assert (big == numpy.arange(100_000)).all()
    assert shared.node.view.clients() == 0 and shared.stats()["large_blocks"] > 0
    del big, rt
    assert eventually(lambda: is_clear(shared))


def test_fifty_come_and_go(path, shared):
    helpers.still_fine(shared)
    with dgmp.Runtime(attach=path) as rt:
        assert helpers.still_fine(rt)

    def ms():
        return {pid for _, pid in shared.node.view.pids()}

    def descriptors():
        """Ours, and the coordinator's, who has some of each M, too."""
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in (os.getpid(), shared._pid)]

    at_first, (ours, its) = ms(), descriptors()
    for i in range(50):
        with dgmp.Runtime(attach=path) as rt:
            assert rt.go(helpers.add, i, 1).result(SECONDS) == i + 1
    assert eventually(lambda: is_clear(shared))
    assert eventually(lambda: descriptors()[0] == ours and descriptors()[1] < its + 10)
    assert at_first <= ms() and len(ms()) < 10


def test_as_many_as_there_is_room_for(path, shared):
    with contextlib.ExitStack() as close:
        rts = [close.enter_context(dgmp.Runtime(attach=path)) for _ in range(sessions.MOST_CLIENTS)]
        with pytest.raises(dgmp.CannotAttach, match="30 programs have attached already"):
            dgmp.Runtime(attach=path)
        assert dgmp.gather(*[rt.go(helpers.add, i) for i, rt in enumerate(rts)]) == list(range(len(rts)))
        assert rts[0].node.view.clients() == sessions.MOST_CLIENTS
        rts[0].node.throttle()
        assert 0 < rts[0].node.quota < rts[0].node.view.nslots // sessions.MOST_CLIENTS
    with dgmp.Runtime(attach=path) as rt:
        assert helpers.still_fine(rt)


def test_who_has_booted_the_node_prints_at_home_too(path, shared, capsys):
    with program(path, "for _ in range(100): rt.go(print, 'theirs').result()") as other:
        for _ in range(100):
            shared.go(print, "ours").result(SECONDS)
        assert other.end() == "theirs\n" * 100
    assert capsys.readouterr().out == "ours\n" * 100


# ---------------------------------------------------------------------- deaths
BUSY = """
    c = rt.chan()
    big = rt.go(bytearray, 1 << 20)
    def spawn_on():
        while True:
            dgmp.go(spin)
            dgmp.sleep(0.001)
    def spin():
        while True:
            pass
    def park(c):
        c.recv()
    fs = [rt.go(park, c) for _ in range(20)]
    while sum(g.wait_reason == "chan receive" for g in rt.snapshot().gs) < 21:
        time.sleep(0.001)
    fs += [rt.go(spin), rt.go(spawn_on)] + [rt.go(time.sleep, 3600) for _ in range(3)] + [rt.go(spin) for _ in range(500)]
    big.result()
    print("busy")
    time.sleep(3600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_programs_gs_end_and_the_others_go_on(path, shared, number):
    assert helpers.still_fine(shared)
    with dgmp.Runtime(attach=path) as other, program(path, BUSY) as busy:
        kept = other.chan()
        parked = other.go(receive, kept)
        assert busy.line() == "busy"
        assert other.stats()["num_g"] > 400
        busy.process.send_signal(number)
        busy.process.wait(SECONDS)
        assert other.go(helpers.add, 1, 2).result(SECONDS) == 3
        assert eventually(lambda: other.stats()["num_g"] == 1, SECONDS), other.stats()
        assert other.node.view.clients() == 1
        assert not parked.done()
        kept.send("kept")
        assert parked.result(SECONDS) == "kept"
        assert helpers.still_fine(other)
        del kept, parked
    assert eventually(lambda: is_clear(shared), SECONDS), shared.stats()
    assert shared.stats()["throws"] == 0


def test_c_code_that_never_ends_is_killed_with_its_program(path, shared):
    code = """
        def pause():
            import ctypes
            ctypes.PyDLL(None).pause()
        f = rt.go(pause)
        while not any(g.state == "running" and "pause" in g.name for g in rt.snapshot().gs):
            time.sleep(0.001)
        print("in C")
        time.sleep(3600)
    """
    with program(path, code) as other:
        assert other.line() == "in C", other.process.communicate()
        other.process.kill()
        assert eventually(lambda: is_clear(shared), SECONDS), str(shared.snapshot())
    assert helpers.still_fine(shared)


def test_programs_killed_at_any_moment_leave_nothing(path, shared):
    code = """
        import random
        def work(x):
            if x % 7 == 0:
                return dgmp.go(abs, x).result()
            if x % 5 == 0:
                print("x" * x)
            return bytes(x * 1000)
        c = rt.chan(4)
        print("go", flush=True)
        while True:
            fs = [rt.go(work, random.randrange(200)) for _ in range(100)]
            g = rt.go(lambda c: [c.send(x) for x in range(10)], c)
            list(rt.map(str, range(1000)))
            [c.recv() for _ in range(10)]
            for f in fs[::2]:
                f.result()
    """
    for i in range(12):
        with program(path, code) as other:
            assert other.line() == "go"
            end = time.monotonic() + 0.013 * i
            while time.monotonic() < end:
                assert helpers.still_fine(shared)
            other.process.kill()
        assert helpers.still_fine(shared)
    assert eventually(lambda: is_clear(shared), SECONDS), shared.stats()
    assert shared.stats()["throws"] == 0


def test_a_program_may_fork_and_die(path, shared):
    """Its child has a copy of the socket, which therefore stays open: the program's death is seen all the same."""
    code = """
        child = os.fork()
        if child == 0:
            os.close(0), os.close(1), os.close(2)
            time.sleep(3600)
        print(child)
        rt.go(time.sleep, 3600)
        time.sleep(3600)
    """
    with program(path, code) as other:
        child = int(other.line())
        try:
            other.process.kill()
            assert eventually(lambda: is_clear(shared), SECONDS)
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_stopped_program_keeps_nobody_from_working(path):
    code = """
        def say(x):
            print("x" * 50_000)
        fs = [rt.go(say, x) for x in range(200)]
        os.kill(os.getpid(), 19)
        for f in fs:
            f.result()
    """
    with dgmp.Runtime(procs=2, max_ms=4, listen=path) as shared, program(path, code) as other:
        assert eventually(lambda: sum(g.wait_reason == "IO wait" for g in shared.snapshot().gs) > 4)
        assert helpers.still_fine(shared)
        other.process.send_signal(signal.SIGCONT)
        assert other.end() == ("x" * 50_000 + "\n") * 200


def test_ms_of_a_new_zygote_work_for_all(path, shared):
    with dgmp.Runtime(attach=path) as rt, program(path, """
        print(1)
        sys.stdin.readline()
        def block(x):
            time.sleep(0.05)
            print("here")
        for f in [rt.go(block, x) for x in range(10)]:
            f.result()
    """) as other:
        assert other.line() == "1" and helpers.still_fine(rt)
        ms = dict(shared.node.view.pids())
        helpers.kill(helpers.zygote_of(shared._pid))
        for pid in ms.values():
            helpers.kill(pid)
        assert rt.go(helpers.add, 1, 2).result(SECONDS) == 3
        other.process.stdin.write("\n")
        other.process.stdin.flush()
        assert other.end() == "here\n" * 10


@pytest.mark.parametrize("how", ["coordinator", "program"])
def test_the_nodes_death_is_told_to_all(path, how):
    booter = subprocess.Popen([sys.executable, "-c", textwrap.dedent(f"""
        import dgmp, sys
        rt = dgmp.Runtime(procs=2, listen={path!r})
        print(rt._pid, flush=True)
        sys.stdin.read()
    """)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert booter.stdout is not None
        coordinator = int(booter.stdout.readline())
        a, b = dgmp.Runtime(attach=path), dgmp.Runtime(attach=path)
        m = a.go(pid_of_m).result(SECONDS)
        pending = [rt.go(time.sleep, 3600) for rt in (a, b) for _ in range(5)]
        waiting = threading.Thread(target=pending[0].exception)
        waiting.start()
        os.kill(coordinator if how == "coordinator" else booter.pid, signal.SIGKILL)
        for f in pending:
            assert type(f.exception(SECONDS)) is dgmp.CoordinatorDied
        waiting.join(SECONDS)
        assert not waiting.is_alive()
        assert eventually(lambda: not alive(m) and not alive(coordinator), SECONDS)
        for rt in (a, b):
            with pytest.raises(dgmp.CoordinatorDied):
                rt.go(abs, -1)
            rt.close()
    finally:
        booter.kill()
        booter.communicate(timeout=SECONDS)
    with pytest.raises(dgmp.CannotAttach):
        dgmp.Runtime(attach=path)
    with dgmp.Runtime(procs=1, listen=path), dgmp.Runtime(attach=path) as rt:  # in the place of the file that may be left
        assert helpers.still_fine(rt)


def test_a_socket_that_listens_already(path):
    with sessions.listening(path) as low:
        listener = socket.socket(fileno=fcntl.fcntl(low.fileno(), fcntl.F_DUPFD, 100))  # children inherit it
    with sessions.connect(path, SECONDS), dgmp.Runtime(procs=1, listen=listener), dgmp.Runtime(attach=path) as rt:
        assert listener.fileno() == -1  # it is the runtime's
        assert rt.go(sockets_for_children).result(SECONDS) == []
    os.unlink(path)  # which is not the runtime's


def test_the_node_is_closed(path):
    booter = dgmp.Runtime(procs=1, listen=path)
    rt = dgmp.Runtime(attach=path)
    pending = rt.go(time.sleep, 3600)
    booter.close(cancel=True)
    with pytest.raises(dgmp.CoordinatorDied, match="the node has ended"):
        pending.result(SECONDS)
    rt.close()
    assert not os.path.exists(path)


# ---------------------------------------------------------------------- who may attach
def test_there_is_no_node(tmp_path, path, monkeypatch):
    with pytest.raises(dgmp.CannotAttach, match=f"no node listens at {path}: `dgmp up` starts one"):
        dgmp.Runtime(attach=path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
        left.bind(path)
    with pytest.raises(dgmp.CannotAttach, match="no node listens"):
        dgmp.Runtime(attach=path)
    monkeypatch.setenv("DGMP_RUNTIME_DIR", str(tmp_path / "mine"))
    with pytest.raises(dgmp.CannotAttach, match=f"no node listens at {tmp_path}/mine/node.sock"):
        dgmp.Runtime(attach=True)


def test_the_default_place(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    monkeypatch.setenv("DGMP_RUNTIME_DIR", str(tmp_path))
    with dgmp.Runtime(procs=1, listen=tmp_path / "node.sock"), dgmp.Runtime(attach=True) as rt:
        assert helpers.still_fine(rt)


def test_a_path_too_long_for_a_socket(tmp_path):
    folder = tmp_path / ("long" * 40)
    folder.mkdir(mode=0o700)
    with dgmp.Runtime(procs=1, listen=folder / "node.sock"), dgmp.Runtime(attach=folder / "node.sock") as rt:
        assert helpers.still_fine(rt)
    assert not os.listdir(folder)


@pytest.mark.parametrize("options", [{"procs": 2}, {"grace": 1.0}, {"pin": False}, {"listen": "x"}])
def test_nothing_else_is_said_of_a_node(path, options):
    with pytest.raises(TypeError, match="as it is"):
        dgmp.Runtime(attach=path, **options)
    with pytest.raises(TypeError, match="attach must be True, or the path"):
        dgmp.Runtime(attach=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("name, value, text", [
    ("__version__", "9.9", r"dgmp \S+ there and 9\.9 here"), ("sys", None, "the Python installation .* there and /else here"),
])
def test_another_version_is_refused(path, shared, monkeypatch, name, value, text):
    if name == "sys":
        value = type(sys)("sys")
        value.implementation, value.prefix = sys.implementation, "/else"
    monkeypatch.setattr(sessions, name, value)
    with pytest.raises(dgmp.CannotAttach, match="does not take this program: it must run the same: " + text):
        dgmp.Runtime(attach=path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_another_user_is_refused(path, tmp_path, shared):
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    os.chmod(path, 0o666)
    code = f"""
        import os, socket, sys
        from dgmp.coordinator import sessions
        os.setgid(65534), os.setuid(65534)
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        raw.connect({path!r})
        print(raw.recv(1 << 16))
        try:
            sessions.connect({path!r}, 5.0)
        except PermissionError as e:
            print(e)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    first, second = run.stdout.splitlines()
    assert "it is a node of uid 0, and this program has 65534" in first, run
    assert "it is a node of uid 0, and this program has 65534" in second
    assert shared.node.view.clients() == 0 and helpers.still_fine(shared)


def test_where_a_node_may_listen(tmp_path, path):
    tmp_path.chmod(0o777)
    with pytest.raises(PermissionError, match="nobody else can put a file"):
        dgmp.Runtime(procs=1, listen=path)
    tmp_path.chmod(0o700)
    Path(path).write_text("mine")
    with pytest.raises(FileExistsError):
        dgmp.Runtime(procs=1, listen=path)
    os.unlink(path)
    with dgmp.Runtime(procs=1, listen=path):
        with pytest.raises(OSError, match="a node listens there already"):
            dgmp.Runtime(procs=1, listen=path)
        assert os.stat(path).st_mode & 0o777 == 0o600


def hello(path: str, message: object, fds: list[int], raw: bytes = b"") -> dict[str, object]:
    with sessions.connect(path, SECONDS) as connection:
        socket.send_fds(connection, [raw or msgpack.packb(message)], fds)
        answer, got = sessions.receive(connection, 8)
        for fd in got:
            os.close(fd)
        return answer


def test_what_is_no_hello_is_refused(path, shared):
    version = "it speaks version 1 of the protocol"
    for message in ({}, {"protocol": 2}, {"protocol": None, "attach": 1}, [], 7, "x" * 1000):
        assert hello(path, message, [0]) == {"refused": version}
    assert hello(path, None, [], b"\xc1\xff") == {"refused": version}
    assert hello(path, {"protocol": 1, "attach": sessions.identity()}, [0, 1])["refused"]
    assert hello(path, {"protocol": 1, "attach": sessions.identity()}, [])["refused"]
    for who in (None, 7, {}, {"dgmp": 1}):
        assert "must run the same" in str(hello(path, {"protocol": 1, "attach": who}, [0]))
    for client in (0, -1, 1 << 70 - 8, "x"):
        assert hello(path, {"protocol": 1, "output": client}, []) == {"refused": "that client has left"}
    idle = [sessions.connect(path, SECONDS) for _ in range(40)]  # who say nothing
    with dgmp.Runtime(attach=path) as rt:
        assert helpers.still_fine(rt)
    for connection in idle:
        connection.close()
    assert eventually(lambda: is_clear(shared)) and helpers.still_fine(shared)


def test_who_talks_nonsense_has_left(path, shared):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, sessions.connect(path, SECONDS) as connection:
        sessions.send(connection, {"protocol": 1, "attach": sessions.identity()}, [theirs.fileno()])
        answer, fds = sessions.receive(connection, 8)
        for fd in fds:
            os.close(fd)
        assert len(fds) == 4 and set(answer) == {"client", "slot", "pid"}
        assert shared.node.view.clients() == 1
        connection.send(b"\xc1 nonsense")
        assert connection.recv(1) == b""
    assert eventually(lambda: is_clear(shared))


def test_a_node_without_descriptors_turns_people_away(path, shared):
    import resource

    assert helpers.still_fine(shared)
    limit = resource.prlimit(shared._pid, resource.RLIMIT_NOFILE)
    resource.prlimit(shared._pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{shared._pid}/fd")), limit[1]))
    try:
        with pytest.raises(dgmp.CannotAttach):
            dgmp.Runtime(attach=path)
    finally:
        resource.prlimit(shared._pid, resource.RLIMIT_NOFILE, limit)
    with dgmp.Runtime(attach=path) as rt:
        assert helpers.still_fine(rt)


def test_a_runtime_of_its_own_beside(path, shared):
    with dgmp.Runtime(attach=path) as rt, dgmp.Runtime(procs=1) as own:
        f = rt.go(helpers.add, own.go(helpers.add, 1, 1), 1)
        assert f.result(SECONDS) == 3
        assert rt.node.view.runtime_id == shared.node.view.runtime_id != own.node.view.runtime_id


def test_an_attached_runtime_does_not_travel(path, shared):
    with dgmp.Runtime(attach=path) as rt, pytest.raises(Exception, match="pickle"):
        pickle.dumps(rt)
