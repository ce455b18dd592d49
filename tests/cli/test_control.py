"""The options of `dgmp each` that control jobs, as a shell user sees them; where GNU parallel is installed, beside it."""

import contextlib
import fcntl
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.helpers import alive, descendants, eventually

EACH = [sys.executable, "-m", "dgmp", "each"]
PARALLEL = shutil.which("parallel")
CORES = sorted(os.sched_getaffinity(0))
COLUMNS = ["Seq", "Host", "Starttime", "JobRuntime", "Send", "Receive", "Exitval", "Signal", "Command"]

needs_parallel = pytest.mark.skipif(PARALLEL is None, reason="GNU parallel is not installed")


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """parallel keeps things in the home folder; neither finds what the other tests leave."""
    home = tmp_path / "home"
    (home / ".parallel").mkdir(parents=True)
    (home / ".parallel" / "will-cite").touch()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PARALLEL_SHELL", "/bin/sh")
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")


def run(*words, program=None, stdin=None, **more):
    return subprocess.run([*(program or EACH), *words], input=stdin, capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL if stdin is None else None, **more)


@contextlib.contextmanager
def running(*words, **more):
    """It runs meanwhile, and is killed with all it has started if the test fails."""
    with subprocess.Popen([*EACH, *words], stdin=subprocess.DEVNULL, **more) as process:
        try:
            yield process
        finally:
            for pid in [process.pid, *descendants(process.pid)] if process.poll() is None else []:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def log(path="log"):
    """The lines of a joblog, as dictionaries."""
    header, *lines = Path(path).read_text().splitlines()
    assert header.split("\t") == COLUMNS
    return [dict(zip(COLUMNS, line.split("\t"), strict=True)) for line in lines]


def columns(entries, *names):
    return sorted(tuple(entry[name] for name in names) for entry in entries)


def mark(path, text="{}"):
    return f"echo {text} >> {path}"


def marks(path):
    return Path(path).read_text().split() if Path(path).exists() else []


# -- beside GNU parallel

HALTS = [
    ("never", "0 7 3"), ("soon,fail=1", "0 7 3"), ("soon,fail=2", "0 7 3"), ("now,fail=1", "0 7 3"), ("now,fail=1", "255 1"),
    ("now,fail=30%", "0 7 3"), ("now,fail=1%", "0 7 3"), ("soon,fail=50%", "0 7 3 0 0 0"), ("soon,success=1", "2 7 0 0"),
    ("soon,success=3", "2 7 0 0"), ("now,success=50%", "2 7 0 0"), ("soon,success=90%", "2 7 0 0"), ("soon,done=2", "2 7 0 0"),
    ("now,done=1", "2 7 0 0"), ("soon,done=50%", "2 7 0 0"), ("soon,done=50%", "9 7"), ("soon,fail=3", "2 7 0 0"),
    ("0", "1 0"), ("1", "2 7 0 0"), ("2", "2 7 0 0"), ("-1", "2 7 0 0"), ("-2", "0 7"), ("50%", "2 7 0 0"),
    ("x", "0"), ("soon", "0"), ("soon,fail", "0"), ("soon,fail=x", "0"), ("now,lost=1", "0"),
]


@needs_parallel
@pytest.mark.parametrize("halt, ends", HALTS)
def test_halt_as_parallel_does(halt, ends):
    words = ["-j1", "--halt", halt, "echo {#}; exit {}", ":::", *ends.split()]
    with ThreadPoolExecutor(2) as both:
        ours, theirs = both.map(lambda program: run(*words, program=program), (None, [PARALLEL]))
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)


LOGGED = [
    ["echo {}; exit {}", ":::", "0", "1", "2"],
    ["--timeout", "2", "sleep {}", ":::", "0", "30"],
    ["--retries", "3", "echo {}; exit {}", ":::", "0", "1"],
    ["kill -{} $$; echo not here", ":::", "TERM", "KILL"],
    ["printf '%s' {}", ":::", "a b", "it's", "", "$HOME"],
    ["printf %s {1}-{2}", ":::", "a", "b", ":::", "1", "2"],
    ["no-such-program-here {}", ":::", "a"],
    ["-k", "sleep {}; echo {}", ":::", "0.3", "0.1"],
    ["--timeout", "2", "--termseq", "TERM,60000,KILL,25", "trap 'exit 3' TERM; sleep {} & wait", ":::", "30"],
    ["-N2", "echo {1} {2}", ":::", "a", "b", "c", "d"],
]


@needs_parallel
@pytest.mark.parametrize("words", LOGGED, ids=lambda words: " ".join(words))
def test_joblog_as_parallel_writes_it(words):
    with ThreadPoolExecutor(2) as both:
        done = list(both.map(lambda name, program: run("-j2", "--joblog", name, *words, program=program).returncode,
                             ("ours", "theirs"), (None, [PARALLEL])))
    assert done[0] == done[1]
    names = ("Seq", "Host", "Send", "Receive", "Exitval", "Signal")
    assert columns(log("ours"), *names) == columns(log("theirs"), *names)
    import shlex

    assert [shlex.split(command) for (command,) in columns(log("ours"), "Command")] == [
        shlex.split(command) for (command,) in columns(log("theirs"), "Command")]
    if "-k" in words:
        assert [entry["Seq"] for entry in log("ours")] == [entry["Seq"] for entry in log("theirs")]
    for ours, theirs in zip(*(Path(name).read_text().splitlines()[1:] for name in ("ours", "theirs")), strict=True):
        assert [re.sub("[0-9]", "0", field) for field in ours.split("\t")[2:3]] == [
            re.sub("[0-9]", "0", field) for field in theirs.split("\t")[2:3]]
        assert len(ours.split("\t")[3]) == len(theirs.split("\t")[3]) == 10


@needs_parallel
def test_each_goes_on_with_the_other_s_joblog():
    words = ["--joblog", "log", "--resume-failed", "-j1", "echo {}; exit {}", ":::", "0", "1", "0"]
    assert run(*words[:2], *words[3:], program=[PARALLEL]).returncode == 1
    assert run(*words, "2").stdout.split() == ["1", "2"]
    theirs = run(*words, "2", "3", program=[PARALLEL])  # the keys beside it do not disturb
    assert theirs.stdout.split() == ["1", "2", "3"]
    assert run(*words, "2", "3", "4").stdout.split() == ["1", "2", "3", "4"]


# -- retries, timeouts, delays

def test_a_failed_job_is_run_again_with_its_number():
    job = (f"{mark('ran', '{}-$PARALLEL_SEQ-$DGMP_ATTEMPT')}; echo $DGMP_ATTEMPT;"
           "[ {} = good ] || [ $DGMP_ATTEMPT = 2 -a {} = late ]")
    done = run("-j1", "--retries", "3", "--joblog", "log", job, ":::", "good", "late", "bad")
    assert done.returncode == 1 and done.stdout.split() == ["1", "2", "3"]  # only the last attempt is printed
    assert marks("ran") == ["good-1-1", "late-2-1", "late-2-2", "bad-3-1", "bad-3-2", "bad-3-3"]
    assert columns(log(), "Seq", "Exitval") == [("1", "0"), ("2", "0"), ("3", "1")]


def test_a_job_that_takes_too_long_is_ended_with_its_children():
    done = run("-j2", "--timeout", "2", "--joblog", "log", "sleep {} & sleep {}; wait", ":::", "0", "61.5")
    assert done.returncode == 1 and "time was up: sleep 61.5" in done.stderr
    assert columns(log(), "Seq", "Exitval", "Signal") == [("1", "0", "0"), ("2", "-1", "15")]


def test_one_that_ignores_it_is_killed():
    done = run("--timeout", "2", "--termseq", "TERM,100,KILL", "--joblog", "log",
               "trap '' TERM; while :; do sleep 0.05; done; : {}", ":::", "1")
    assert done.returncode == 1 and columns(log(), "Exitval", "Signal") == [("-1", "9")]


def test_a_timeout_is_tried_again():
    job = mark("ran", "$DGMP_ATTEMPT") + "; [ $DGMP_ATTEMPT = 2 ] || sleep 60"
    done = run("--timeout", "2", "--retries", "2", job, ":::", "1")
    assert done.returncode == 0 and marks("ran") == ["1", "2"]


def test_a_timeout_of_the_median():
    done = run("-j1", "--timeout", "3000%", "--joblog", "log", "sleep {}", ":::", "0.05", "0.05", "0.05", "60")
    assert done.returncode == 1
    assert columns(log(), "Seq", "Exitval", "Signal") == [("1", "0", "0"), ("2", "0", "0"), ("3", "0", "0"), ("4", "-1", "15")]
    *short, late = [float(entry["JobRuntime"]) for entry in log()]
    assert late > 29.9 * sorted(short)[1]


def test_delay():
    assert run("-j4", "--delay", "0.25", "--joblog", "log", "true", ":::", "1", "2", "3").returncode == 0
    begun = sorted(float(entry["Starttime"]) for entry in log())
    assert all(later - earlier > 0.24 for earlier, later in zip(begun, begun[1:], strict=False))


@pytest.mark.parametrize("options", [("--bar",), ("--halt", "soon,fail=99%"), ("--retries", "2")])
def test_all_run_though_none_runs_at_times(options):
    done = run("-j1", "--delay", "0.1", *options, "echo {}; [ $DGMP_ATTEMPT = 2 -o {} = 1 ]", ":::", "1", "2", "3")
    assert done.stdout.split() == ["1", "2", "3"]


def test_nice():
    assert run("--nice", "7", "nice; true", ":::", "1").stdout.strip() == str(max(7, os.nice(0)))


MEMORY = """
import sys
from dgmp.cli import each
from dgmp.jobs import limits
limits.FreeMemory.parse = classmethod(lambda cls, text: cls(100, lambda: int(open("free").read())))
limits.MEMORY_SECONDS = 0.05
sys.exit(each.main(sys.argv[1:]))
"""


def now_free(text):
    """At once: it may be read at any time."""
    Path("free.new").write_text(str(text))
    os.rename("free.new", "free")


def test_the_youngest_job_is_ended_when_memory_is_short_and_run_again():
    now_free(1000)
    job = f"{mark('ran', '{}-$DGMP_ATTEMPT')}; until [ -e go ]; do sleep 0.05; done"
    with subprocess.Popen([sys.executable, "-c", MEMORY, "-j2", "--memfree", "1", "--joblog", "log", job, ":::", "a", "b"],
                          stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert eventually(lambda: sorted(marks("ran")) == ["a-1", "b-1"])
        now_free(49)
        assert "memory was short" in process.stderr.readline()
        Path("go").touch()
        assert eventually(lambda: len(log()) == 1)  # nothing starts yet
        assert process.poll() is None and len(marks("ran")) == 2
        now_free(100)
        assert process.wait(60) == 0
    again = "a-2" if "a-2" in marks("ran") else "b-2"
    assert len(marks("ran")) == 3 and again in marks("ran")
    assert columns(log(), "Exitval", "Signal") == [("0", "0")] * 2


# -- the environment, and what jobs hold

def test_variables(monkeypatch):
    monkeypatch.setenv("PARALLEL_SEQ", "99")  # of an outer launcher
    monkeypatch.setenv("OURS", "here")
    job = "echo $PARALLEL_SEQ $DGMP_JOB_SEQ $PARALLEL_JOBSLOT $DGMP_SLOT $DGMP_ATTEMPT $OURS $NEW; kill -0 $PARALLEL_PID # {}"
    done = run("-j1", "--env", "OURS", "--env", "NEW=x  y", job, ":::", "a", "b")
    assert done.returncode == 0 and done.stdout.splitlines() == ["1 1 1 1 1 here x y", "2 2 1 1 1 here x y"]


def test_folders(tmp_path, monkeypatch):
    assert run("--wd", str(tmp_path), "pwd; true {}", ":::", "1").stdout.strip() == str(tmp_path)
    done = run("-k", "--wd", "out/{/.}", "pwd; echo {} > here", ":::", "x/a.c", "b.c")
    assert done.stdout.splitlines() == [f"{os.getcwd()}/out/a", f"{os.getcwd()}/out/b"]
    assert Path("out/a/here").read_text() == "x/a.c\n"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    one, two = run("-k", "--wd", "...", "pwd; true {}", ":::", "1", "2").stdout.splitlines()
    assert one != two and one.startswith(f"{tmp_path}/cache/dgmp/wd/")


def test_a_job_is_bound_to_the_cores_it_holds():
    job = (f"{sys.executable} -c 'import os; print(os.environ[\"DGMP_CPUS\"], *os.sched_getaffinity(0), "
           "os.environ[\"OMP_NUM_THREADS\"])'")
    done = run("-j8", "--cpus", "1", job, ":::", *"12345678")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(lines) == 8
    assert all(told == has and n == "1" and int(told) in CORES for told, has, n in lines)
    done = run("--cpus", str(len(CORES)), job, ":::", "1")
    told, *has, n = done.stdout.split()
    assert told == ",".join(map(str, CORES)) and sorted(map(int, has)) == CORES and int(n) == len(CORES)


def test_what_people_set_themselves_stays():
    job = "echo $OMP_NUM_THREADS $MKL_NUM_THREADS $DGMP_CPUS; env | grep -c ^OMP_NUM_THREADS= # {}"
    done = run("--cpus", "1", "--env", "OMP_NUM_THREADS=7", job, ":::", "1", env={**os.environ, "OMP_NUM_THREADS": "9"})
    assert done.stdout.split() == ["7", "1", str(CORES[0]), "1"]


ALONE = "mkdir held.{0} && {{ sleep 0.02; rmdir held.{0}; }}"  # fails where two have it at once


def test_jobs_hold_units():
    done = run("-j4", "--resource", "gpu=1", "--resource-total", "gpu=2", "--joblog", "log",
               ALONE.format("$CUDA_VISIBLE_DEVICES") + "; echo $DGMP_RESOURCE_GPU {}", ":::", *map(str, range(12)))
    assert done.returncode == 0 and done.stderr == ""
    assert {line.split()[0] for line in done.stdout.splitlines()} == {"0", "1"}


def test_units_by_name(monkeypatch):
    monkeypatch.setenv("DGMP_RESOURCES", "gpu=[3,7] scratch=10G")
    done = run("-j4", "--resource", "gpu=2", "--resource", "scratch=4G",
               "echo $CUDA_VISIBLE_DEVICES $DGMP_RESOURCE_SCRATCH {}; " + ALONE.format("all"), ":::", "1", "2", "3")
    assert done.returncode == 0 and {line[:-2] for line in done.stdout.splitlines()} == {f"3,7 {4 << 30}"}


def test_declared_memory_admits(tmp_path):
    from dgmp.runtime.limits import memory_size

    done = run("-j4", "--mem", str(memory_size() // 2 + 1), ALONE.format("memory") + " # {}", ":::", *"123456")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words, said", [
    (["--cpus", "100000"], "needs 100000 cpus"), (["--mem", "1000P"], "of memory"),
    (["--resource", "tape=1"], "--resource-total tape"),
    (["--resource", "gpu=3", "--resource-total", "gpu=2"], "there are 2"), (["--memfree", "1000P"], "could ever start"),
    (["--resume"], "--resume needs --joblog"), (["--retry-failed"], "--retry-failed needs --joblog"),
    (["--timeout", "x"], "--timeout x"), (["--halt", "sometimes"], "--halt sometimes"), (["--delay", "-1"], "--delay -1"),
    (["--joblog", "no/log"], "no/log: No such file"), (["--joblog", "/dev/full"], "No space left"),
    (["--load", "x"], "--load x"),
    (["--retries", "-1"], "--retries"), (["--nice", "x"], "--nice x"), (["--env", "=1"], "--env"),
])
def test_what_cannot_be_is_said_before_anything_starts(words, said):
    done = run(*words, mark("ran"), ":::", "1")
    assert done.returncode == 255 and said in done.stderr and "Traceback" not in done.stderr and marks("ran") == []


# -- the joblog

def test_resuming():
    words = ["--joblog", "log", mark("ran") + "; exit {}", ":::", "0", "1"]
    assert run(*words).returncode == 1
    assert run("--resume", *words, "2").returncode == 1 and sorted(marks("ran")) == ["0", "1", "2"]
    assert run("--resume-failed", *words, "2", "3").returncode == 3
    assert sorted(marks("ran")) == ["0", "1", "1", "2", "2", "3"]
    Path("ran").unlink()
    assert run("--resume", "--joblog", "log", mark("ran") + "; exit {}", ":::", "9", "3", "2", "1", "0").returncode == 1
    assert marks("ran") == ["9"]  # inputs may be added and sorted: a job is no number
    Path("ran").unlink()
    assert run("--retry-failed", "--joblog", "log").returncode == 4 and sorted(marks("ran")) == ["1", "2", "3", "9"]
    assert run("--retry-failed", "--joblog", "log", "some", "command", ":::", "x").returncode == 4


def test_nothing_is_mixed_up(tmp_path):
    words = ["--joblog", f"{os.getcwd()}/log", "--resume"]
    assert run(*words, "echo {}", ":::", "a", "b").returncode == 0
    before = Path("log").read_bytes(), Path("log.keys").read_bytes()
    for command, cwd, said in (("echo X {}", None, "'echo {}', not of 'echo X {}'"), ("echo {}", tmp_path, "not in")):
        done = run(*words, command, ":::", "a", "b", "c", cwd=cwd)
        assert (done.returncode, done.stdout) == (255, "") and said in done.stderr and "take another --joblog" in done.stderr
    assert (Path("log").read_bytes(), Path("log.keys").read_bytes()) == before
    Path("log.keys").unlink()
    done = run(*words, "echo X {}", ":::", "a", "b", "c")
    assert (done.returncode, done.stdout) == (255, "") and "number 1 it has 'echo a'" in done.stderr
    assert run(*words, "echo {}", ":::", "a", "b", "c").stdout == "c\n"


def test_how_jobs_are_made_of_inputs_is_part_of_the_command_line():
    inputs = ["echo {}", ":::", "a", "b", "c"]
    assert run("--joblog", "log", "-k", "-N2", *inputs).stdout.splitlines() == ["a b", "c"]
    done = run("--joblog", "log", "--resume", "-N1", *inputs)
    assert done.returncode == 255 and "max-replace-args=2 echo {}" in done.stderr
    assert run("--joblog", "log", "--resume", "-j1", "-k", "-N2", *inputs, "d").stdout == "c d\n"


def test_a_job_whose_command_has_its_number_is_another_with_another():
    words = ["-j1", "--joblog", "log", "--resume", "echo {} {#}"]
    assert run(*words, ":::", "a", "b").stdout.splitlines() == ["a 1", "b 2"]
    assert run(*words, ":::", "a", "x", "b").stdout.splitlines() == ["x 2", "b 3"]


def test_appending():
    run("--joblog", "log", "echo {}", ":::", "a")
    run("--joblog", "+log", "true {}", ":::", "b")
    assert columns(log(), "Seq", "Command") == [("1", "echo a"), ("1", "true b")]
    run("--joblog", "log", "echo {}", ":::", "c")
    assert columns(log(), "Command") == [("echo c",)]


def test_duplicated_inputs_are_jobs_of_their_own():
    words = ["-j1", "--joblog", "log", "--resume", "echo {}", ":::", "a", "a"]
    assert run(*words).stdout.split() == ["a", "a"]
    assert run(*words, "b", "a").stdout.split() == ["b", "a"]
    assert run(*words, "b", "a").stdout == ""


def test_a_joblog_for_two_at_once():
    with running("--joblog", "log", "until [ -e go ]; do sleep 0.05; done; true {}", ":::", "1") as first:
        assert eventually(lambda: Path("log").exists() and Path("log").stat().st_size > 0)
        done = run("--joblog", "log", "--resume", "echo {}", ":::", "1")
        assert done.returncode == 255 and "another dgmp" in done.stderr
        Path("go").touch()
        assert first.wait(60) == 0


def test_dry_run_leaves_the_log_alone():
    run("--joblog", "log", "echo {}", ":::", "a")
    before = Path("log").read_bytes()
    assert run("--dry-run", "--joblog", "log", "echo {}", ":::", "b").stdout == "echo b\n"
    assert Path("log").read_bytes() == before


@pytest.mark.parametrize("options", [(), ("-k",), ("--line-buffer",), ("-u",)], ids=str)
def test_a_kill_loses_at_most_what_was_running(options):
    """Each job that is in the log has run once, and its output is there; the others are run by --resume."""
    inputs = [str(n) for n in range(300)]
    job = mark("ran") + "; echo {}"
    words = ["-j2", *options, "--joblog", "log", "--resume", job, ":::", *inputs]
    with open("out", "w") as out, running(*words, stdout=out) as process:
        assert eventually(lambda: len(marks("out")) > 30)
        family = descendants(process.pid)  # the launcher among them, which may go on for a moment
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert eventually(lambda: not any(map(alive, family)))
    logged = [entry["Command"].rpartition(" ")[2] for entry in log()]
    assert len(set(logged)) == len(logged) and set(logged) <= set(marks("out"))
    if options != ("-k",):  # with it they are logged as they are printed
        assert len(marks("ran")) - len(logged) <= 2
    done = run(*words)
    assert done.returncode == 0 and sorted(done.stdout.split() + logged) == sorted(inputs)
    assert sorted(entry["Command"].rpartition(" ")[2] for entry in log()) == sorted(inputs)
    assert run(*words).stdout == ""


@pytest.mark.parametrize("times, logged", [(1, ["1", "2"]), (2, [])])
def test_what_is_ended_for_ctrl_c_is_run_by_resume(times, logged):
    job = mark("ran") + "; until [ -e go ]; do sleep 0.05; done"
    words = ["-j2", "--retries", "2", "--joblog", "log", "--resume", job, ":::", "1", "2", "3"]
    with running(*words, stderr=subprocess.PIPE, text=True) as process:
        assert eventually(lambda: len(marks("ran")) == 2)
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            if times == 2:
                assert "no new jobs" in process.stderr.readline() or times
        if times == 1:
            assert "no new jobs" in process.stderr.readline()
            Path("go").touch()
        assert process.wait(60) in (130, -signal.SIGINT)
    assert sorted(entry["Seq"] for entry in log()) == logged
    Path("go").touch()
    assert run(*words).returncode == 0
    assert sorted(marks("ran")) == (["1", "2", "3"] if logged else ["1", "1", "2", "2", "3"])


def test_a_log_on_a_full_disk():
    """More than the file may grow to."""
    import resource

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))

    done = run("-j1", "--joblog", "log", "echo {}", ":::", *map(str, range(50)), preexec_fn=limit)
    assert done.returncode == 255 and "cannot write the joblog log: File too large" in done.stderr
    assert 1 < len(done.stdout.split()) < 50


# -- progress

class Terminal:
    """A command under a pseudo-terminal."""

    def __init__(self, *words, columns=80, shell=None):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            self.resize(columns, 0)
            program = [*EACH, *words] if shell is None else ["/bin/sh", "-c", shell]
            os.execvp(program[0], program)
        self.text = ""

    def resize(self, columns, fd=None):
        fcntl.ioctl(self.fd if fd is None else fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def until(self, pattern):
        """Reads until that has come; or to the end (None)."""
        while pattern is None or not re.search(pattern, self.text):
            try:
                data = os.read(self.fd, 1 << 16)
            except OSError:  # it has ended
                data = b""
            if not data:
                assert pattern is None, f"{pattern} has not come: {self.text!r}"
                break
            self.text += data.decode()
        return self.text

    def close(self):
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def screen(self):
        """What is to be seen in the end, one line an entry."""
        lines, line = [], ""
        for piece in re.split("(\r\n|\r|\x1b\\[K)", self.text):
            if piece == "\r\n":
                lines.append(line)
                line, at = "", 0
            elif piece == "\r":
                at = 0
            elif piece == "\x1b[K":
                line = line[:at]
            else:
                at = len(line) if not line else at
                line = line[:at] + piece + line[at + len(piece):]
                at += len(piece)
        return [*lines, *([line] if line else [])]


JOB = "until [ -e go.{} ]; do sleep 0.02; done; echo out {}"


def test_a_bar_on_a_terminal():
    terminal = Terminal("-j1", "--bar", JOB, ":::", "1", "2", columns=60)
    terminal.until(r" 0% \[ +\] 0/2 done")
    Path("go.1").touch()
    terminal.until(r" 50% \[#+ +\] 1/2 done, ETA")
    terminal.resize(40)
    terminal.until(r"\r(?=[^\r]*1/2 done)[^\r\x1b]{,39}\x1b\[K")
    Path("go.2").touch()
    terminal.until(None)
    assert terminal.close() == 0
    lines = terminal.screen()
    assert "out 2" in lines and lines[-1].startswith("100% [####") and "2/2 done" in lines[-1]


def test_output_and_the_bar_do_not_mix():
    terminal = Terminal("-j2", "--bar", "echo out {}; echo err {} >&2", ":::", *map(str, range(40)))
    terminal.until(None)
    assert terminal.close() == 0
    lines = terminal.screen()
    assert sorted(lines[:-1]) == sorted(f"{word} {n}" for word in ("out", "err") for n in range(40))
    assert "40/40 done" in lines[-1]


def test_output_that_ends_no_line_is_not_drawn_over():
    terminal = Terminal("-j1", "--bar", "printf part{}", ":::", "1", "2")
    terminal.until(None)
    assert terminal.close() == 0
    lines = terminal.screen()
    assert "part2" in lines[-2] and lines[-1].startswith("100%")


def test_how_many_there_are_while_inputs_come():
    inputs = "(echo 1; until [ -e more ]; do sleep 0.02; done; echo 2)"
    terminal = Terminal(shell=f"{inputs} | {' '.join(EACH)} --eta -j1 'echo {{}}'")
    terminal.until(r"\r1 done, 0 running, [0-9.]+s a job, \d+s\x1b")
    Path("more").touch()
    terminal.until(r"2/2 done, 0 running")
    terminal.until(None)
    assert terminal.close() == 0


def test_it_is_counted_ahead_of_the_jobs():
    terminal = Terminal(shell=f"seq 7 | {' '.join(EACH)} --progress -j1 '{JOB}'")
    terminal.until(r"0/7 done, 1 running")
    for n in range(1, 8):
        Path(f"go.{n}").touch()
    terminal.until(None)
    assert terminal.close() == 0


def test_elsewhere_it_is_whole_lines():
    done = run("--bar", "-j2", "exit {}", ":::", "0", "1")
    assert done.returncode == 1 and re.fullmatch(r"dgmp: 2/2 done, 1 failed, ETA 0s\n", done.stderr)
    assert run("--progress", "true", ":::", "1", stderr=None).stdout == ""


def test_halting_on_a_percentage_of_what_comes_slowly():
    line = f"(echo 1; sleep 0.3; echo 2; echo 0; echo 0) | {' '.join(EACH)} -j1 --halt soon,fail=50% 'echo {{}}; exit {{}}'"
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (50, "1\n2\n")


def test_what_happens_to_the_running_jobs_when_it_halts():
    job = "echo {}; [ {} = 1 ] && { until [ -e began ]; do sleep 0.02; done; exit 9; }; touch began; sleep 60"
    done = run("-j2", "--halt", "now,fail=1", "--joblog", "log", job, ":::", "1", "2", "3")
    assert done.returncode == 9 and done.stdout == "1\n" and columns(log(), "Seq") == [("1",)]
    assert "stopping after this job, ending 1 running job" in done.stderr
