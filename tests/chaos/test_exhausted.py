"""No descriptors, processes, memory or room on a disk: an error that says so where it is asked for, and nothing worse."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess

import pytest

import dgmp
from tests.helpers import PYTHON

PATIENCE = 60


def python(code, *args, **options):
    return subprocess.run([PYTHON, "-c", code, *args], capture_output=True, text=True, timeout=PATIENCE, **options)


# ---------------------------------------------------------------------- descriptors
FEW_DESCRIPTORS = """
import errno, os, resource, dgmp
from tests.helpers import descendants
dgmp.Runtime(procs=1).close()  # what is imported meanwhile is there
before = len(os.listdir("/proc/self/fd"))
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
works = []
for limit in range(3, 30):
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        with dgmp.Runtime(procs=1) as rt:
            works.append(rt.go(abs, -1).result(20))
    except OSError as e:
        assert e.errno == errno.EMFILE and not works, e
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(os.listdir("/proc/self/fd")) == before and not descendants(os.getpid())
assert works
"""


def test_a_runtime_starts_or_says_that_it_has_no_descriptors():
    done = python(FEW_DESCRIPTORS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


NONE_LEFT = """
import contextlib, os, resource, time, dgmp
from tests.helpers import descendants, eventually
rt = dgmp.Runtime(procs=2)
chan = rt.chan()
list(rt.map(abs, [rt.go(abs, -1).result()]))  # what is imported meanwhile is there
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
taken = []
with contextlib.suppress(OSError):
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
assert rt.go(abs, -1).result() == 1
assert list(rt.map(abs, range(-9, 0))) == list(range(9, 0, -1))
rt.go(chan.send, b"x" * 100_000)
assert len(chan.recv()) == 100_000
rt.close()
for fd in taken:
    os.close(fd)
assert not descendants(os.getpid())
"""


def test_a_client_without_descriptors_works_and_closes():
    done = python(NONE_LEFT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


MANY_MS = """
import os, resource, signal, sys, time, dgmp
from tests.helpers import eventually
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (36, hard))
def block(name):
    while not os.path.exists(name):
        time.sleep(0.1)
def die():
    os.kill(os.getpid(), signal.SIGKILL)
with dgmp.Runtime(procs=2) as rt:
    blocked = [rt.go(block, sys.argv[1]) for _ in range(30)]
    assert eventually(lambda: rt.stats()["ms_made"] > 25, 40)
    open(sys.argv[1], "x").close()
    assert dgmp.gather(*blocked) == [None] * 30
    dying = [rt.go(die) for _ in range(10)]
    assert {type(f.exception()) for f in dying} == {dgmp.WorkerDied}
    assert rt.go(abs, -1).result() == 1
"""


def test_a_coordinator_without_descriptors_sees_to_its_ms_all_the_same(tmp_path):
    done = python(MANY_MS, str(tmp_path / "go_on"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def take_all():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        return taken


def holds_all(ready, go_on):
    taken = take_all()
    ready.send(os.getpid())
    go_on.recv()
    for fd in taken:
        os.close(fd)


def sleeps_and_prints():
    dgmp.sleep(0.001)
    print("printed")
    return os.getpid()


def asks_for_one():
    with open("/dev/null"):
        return os.getpid()


def test_an_m_without_descriptors_runs_its_gs(capsys):
    """A G's open fails, as in any process; what needs none goes on."""
    with dgmp.Runtime(procs=1) as rt:
        ready, go_on = rt.chan(1), rt.chan()
        rt.go(sleeps_and_prints).result(PATIENCE)  # what is imported meanwhile is there
        holder = rt.go(holds_all, ready, go_on)
        pid = ready.recv(timeout=PATIENCE)
        assert rt.go(sleeps_and_prints).result(PATIENCE) == pid
        with pytest.raises(OSError, match="Too many open files"):
            rt.go(asks_for_one).result(PATIENCE)
        go_on.send(None)
        holder.result(PATIENCE)
        assert rt.go(asks_for_one).result(PATIENCE) == pid
    assert capsys.readouterr().out == "printed\n" * 2


# ---------------------------------------------------------------------- processes
FEW_PROCESSES = """
import errno, os, resource, sys, time
import dgmp
from tests.helpers import descendants
import msgpack
answers = []
for limit in (1, 3, 4, 6):
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (limit, hard))
    try:
        with dgmp.Runtime(procs=2) as rt:
            answers.append(dgmp.gather(*[rt.go(time.sleep, 0.1) for _ in range(8)]) == [None] * 8)
    except OSError as e:
        answers.append(e.errno == errno.EAGAIN)
    except dgmp.CoordinatorDied as e:
        answers.append("Resource temporarily unavailable" in str(e))
    resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
    assert not descendants(os.getpid())
print(answers)
"""


def test_no_more_processes():
    """With none it is said; with few all is done by those there are."""
    done = as_another_user(FEW_PROCESSES)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "[True, True, True, True]\n"


NO_ZYGOTE = """
import os, resource, signal, time, dgmp
from tests.helpers import alive, descendants, eventually, kill, zygote_of
with dgmp.Runtime(procs=2) as rt:
    assert dgmp.gather(*[rt.go(time.sleep, 0.1) for _ in range(4)]) == [None] * 4
    zygote = zygote_of(rt._pid)
    before = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.prlimit(rt._pid, resource.RLIMIT_NPROC, (1, before[1]))
    os.kill(zygote, signal.SIGKILL)
    assert eventually(lambda: not alive(zygote))
    assert dgmp.gather(*[rt.go(abs, -1) for _ in range(100)]) == [1] * 100
    for pid in descendants(rt._pid):
        kill(pid)
    wanted = rt.go(abs, -1)
    assert not eventually(wanted.done, 0.2)
    resource.prlimit(rt._pid, resource.RLIMIT_NPROC, before)
    assert wanted.result(20) == 1
"""


def as_another_user(code):
    """Runs it where processes are counted."""
    if os.getuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("needs a user of its own, with counted processes")
    user, may = str(100_000 + os.getpid()), "-all,+dac_read_search"  # the last: our Python may be in a home
    become = ["setpriv", "--reuid", user, "--clear-groups", "--bounding-set", may, "--inh-caps", may, "--ambient-caps", may]
    return subprocess.run([*become, PYTHON, "-c", code], capture_output=True, text=True, timeout=PATIENCE)


def test_no_process_for_another_zygote():
    """What the Ms do goes on, and it is made as soon as it can be."""
    done = as_another_user(NO_ZYGOTE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ---------------------------------------------------------------------- memory
LITTLE = """
import errno, os, resource, sys, dgmp
from tests.helpers import descendants
dgmp.Runtime(procs=1).close()  # what is imported meanwhile is there
which = getattr(resource, sys.argv[1])
soft, hard = resource.getrlimit(which)
used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE") if sys.argv[1] == "RLIMIT_AS" else 0
said = []
for spare in (1 << 12, 1 << 20, 4 << 20, 1 << 28, 1 << 30):
    resource.setrlimit(which, (used + spare, hard))
    try:
        with dgmp.Runtime(procs=1) as rt:
            said.append(rt.go(abs, -1).result(30))
    except OSError as e:
        said.append(errno.errorcode[e.errno])
    resource.setrlimit(which, (soft, hard))
    assert not descendants(os.getpid())
print(*said)
"""


@pytest.mark.parametrize("limit,error", [("RLIMIT_AS", "ENOMEM"), ("RLIMIT_FSIZE", "EFBIG")])
def test_a_runtime_starts_or_says_that_it_has_no_memory(limit, error):
    """The segment is smaller where less is allowed."""
    done = python(LITTLE, limit)
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout.split()
    assert said == sorted(said, reverse=True) and {error, "1"} >= set(said) and said[0] == error and said[-1] == "1"


# ---------------------------------------------------------------------- disks
FULL_DISK = """
import dgmp, sys
assert dgmp.go(print, "from a G").result() is None
assert dgmp.go(lambda: print("error", file=sys.stderr)).result() is None
assert dgmp.go(abs, -1).result() == 1
sys.stdout = sys.stderr = None
"""


def test_a_full_disk_under_stdout():
    """What Gs print is lost where the program's own would be, and nothing else."""
    with open("/dev/full", "w") as full:
        done = subprocess.run([PYTHON, "-c", FULL_DISK], stdout=full, stderr=full, timeout=PATIENCE,
                              env=os.environ | {"DGMP_DEBUG": "schedtrace=1"})
    assert done.returncode in (0, 120)


def writes_to_a_full_disk():
    with open("/dev/full", "w") as file:
        file.write("x")


def test_a_g_that_writes_to_a_full_disk(rt):
    with pytest.raises(OSError, match="No space left"):
        rt.go(writes_to_a_full_disk).result(PATIENCE)


def test_dgmp_writes_no_files(tmp_path):
    """So no disk can be too full for it."""
    code = "import dgmp; assert dgmp.go(len, 'x' * 1_000_000).result() == 1_000_000"
    done = python(code, env=os.environ | {"TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}, cwd=tmp_path)
    assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (0, "", [])
