"""`dgmp each`: how jobs run, what becomes of their output, and that nothing outlives it."""

import contextlib
import os
import pty
import random
import re
import resource
import select
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers import NOT_OF_LIBC, descendants, eventually, processes

EACH = [sys.executable, "-m", "dgmp", "each"]


def each(*args, stdin="", **settings):
    return subprocess.run([*EACH, *args], input=stdin, capture_output=True, text=True, timeout=60, **settings)


def start(*args, **settings):
    settings = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | settings
    return subprocess.Popen([*EACH, *args], **settings)


def line(file):
    """The next line: an event to wait for."""
    text = b""
    while not text.endswith(b"\n"):
        assert select.select([file], [], [], 60)[0], f"no line has come: {text!r}"
        text += os.read(file.fileno(), 1)
    return text.decode()


class Sleeper:
    """A sleep that can be told from all others."""

    def __init__(self):
        self.seconds = f"{random.randrange(10**5, 10**6)}.{random.randrange(10**9)}"
        self.command = f"sleep {self.seconds}"

    def pids(self):
        return [pid for pid, (_, text) in processes().items() if self.seconds in text and "sleep" in text.split()[0]]


@pytest.fixture
def sleeper():
    made = Sleeper()
    yield made
    left = made.pids()
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left, "processes left"


def launcher_of(guardian):
    """The pid of its child, once that has a process group of its own."""
    found = []

    def there():
        found[:] = [pid for pid, (parent, _) in processes().items() if parent == guardian]
        return found and os.getpgid(found[0]) == found[0]

    assert eventually(there)
    return found[0]


# ------------------------------------------------------------------------------------------------ output
def test_a_jobs_output_is_whole_and_goes_where_it_was_written():
    done = each("-j4", "echo o{}; sleep 0.0{}; echo e{} >&2; echo O{}", ":::", "1", "2", "3", "4", "5")
    assert sorted(re.findall(r"o(\d)\nO\1\n", done.stdout)) == list("12345") and len(done.stdout) == 30
    assert sorted(done.stderr.split()) == ["e1", "e2", "e3", "e4", "e5"]


def test_output_is_bytes_and_gets_no_newline(tmp_path):
    data = bytes(range(256)) * 5000 + b"end"
    (tmp_path / "data").write_bytes(data)
    for option in ("--group", "--line-buffer", "--ungroup"):
        done = subprocess.run([*EACH, "-j1", option, "cat", ":::", str(tmp_path / "data"), str(tmp_path / "data")],
                              capture_output=True, timeout=60)
        assert (done.stdout == data + data, done.stderr) == (True, b"")


def test_lines_are_shown_as_they_come_and_whole():
    running = start("-j3", "--line-buffer", "--tag", "printf 'a\\nb'; sleep 0.2; echo c; exec sleep {}", ":::", "1000", "1001")
    try:
        seen = [line(running.stdout) for _ in range(4)]
        assert sorted(seen) == ["1000\ta\n", "1000\tbc\n", "1001\ta\n", "1001\tbc\n"]
    finally:
        running.terminate()
        running.communicate(timeout=60)


def test_order_is_kept_though_the_first_is_the_last(tmp_path):
    numbers = [str(i) for i in range(1, 151)]
    first = f"while [ ! -e {tmp_path}/150 ]; do sleep 0.01; done"
    for option in ("--group", "--line-buffer"):
        script = f"[ {{}} = 1 ] && {first}; : > {tmp_path}/{{}}; echo {{}}; seq {{}} | tail -n 2; echo e{{}} >&2"
        done = each("-j8", "-k", option, script, ":::", *numbers)
        expected = "".join("".join(f"{line}\n" for line in [i, *range(max(1, i - 1), i + 1)]) for i in range(1, 151))
        assert (done.stdout, done.returncode) == (expected, 0)
        assert done.stderr == "".join(f"e{i}\n" for i in range(1, 151))
        (tmp_path / "150").unlink()


def test_memory_is_bounded_whatever_jobs_print():
    for options in (["-k"], ["--line-buffer"], ["--line-buffer", "-k", "--tag"]):
        script = f"""
import resource, subprocess, sys
done = subprocess.run({[*EACH, "-j2", *options, "head -c 100000000 /dev/zero #", ":::", "1", "2"]!r}, stdout=subprocess.DEVNULL)
print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
        code, kib = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100).stdout.split()
        assert code == "0" and int(kib) < 60_000


def test_a_long_line_that_is_another_jobs_neighbour_is_whole():
    done = each("-j2", "--line-buffer", "head -c 3000000 /dev/zero | tr '\\0' {}; sleep 0.1; echo", ":::", "a", "b")
    assert sorted(len(found) for found in done.stdout.split()) == [3_000_000] * 2
    assert {text.strip(text[0]) for text in done.stdout.split()} == {""}


def test_a_reader_that_goes_away_ends_it():
    for option in ("--group", "--line-buffer", "--ungroup"):
        running = start(option, "-j2", "yes | head -n 50000; exit 0", ":::", *map(str, range(10_000)))
        assert line(running.stdout) == "y\n"
        running.stdout.close()
        assert running.wait(60) == -signal.SIGPIPE
        assert "Traceback" not in running.stderr.read()
        running.stderr.close()


@pytest.mark.parametrize("redirect", [">/dev/full", ">&-"])
def test_what_cannot_be_written_is_an_error(redirect):
    command = " ".join([*EACH, "echo", ":::", "1", redirect])
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 255
    assert re.fullmatch(r"dgmp: cannot write to stdout: (No space left on device|Bad file descriptor)\n", done.stderr)


def test_nothing_to_write_is_no_error_without_a_stdout():
    done = subprocess.run(["sh", "-c", " ".join([*EACH, "true", ":::", "1", ">&-", "2>&-", "<&-"])], timeout=60)
    assert done.returncode == 0


def test_a_slow_reader_does_not_keep_signals_away(sleeper):
    running = start("-j2", "[ {} = 1 ] && seq 1000000 || " + sleeper.command, ":::", "1", "2")
    assert line(running.stdout) == "1\n"
    assert eventually(sleeper.pids)
    running.send_signal(signal.SIGTERM)
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == -signal.SIGTERM
    running.communicate()


def on_a_small_disk(where, jobs):
    """What they say, where that is a file system of 100 KiB."""
    script = f"mount -t tmpfs -o size=100k none {where} && {jobs}"
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, timeout=60)
    if "dgmp" not in done.stderr:
        pytest.skip(f"no file system of our own here: {done.stderr}")
    return done


def test_the_disk_for_temporary_files_is_full(tmp_path):
    done = on_a_small_disk(tmp_path, f"TMPDIR={tmp_path} {' '.join(EACH)} -j1 'seq 100000; true' ::: 1 2 3")
    assert done.returncode == 255 and f"the disk of {tmp_path} is full, output is incomplete" in done.stderr
    assert "TMPDIR" in done.stderr


@pytest.mark.parametrize("more", ["", "--line-buffer"], ids=["grouped", "line-buffer"])
def test_the_disk_for_results_is_full(more, tmp_path):
    done = on_a_small_disk(tmp_path, f"{' '.join(EACH)} {more} -j1 --results {tmp_path}/r 'seq 100000; true' ::: 1 2 3")
    assert done.returncode == 255 and f"the disk of {tmp_path}/r/1/1 is full, output is incomplete" in done.stderr
    assert "TMPDIR" not in done.stderr


def test_a_folder_for_temporary_files_that_is_not_there():
    done = each("echo", ":::", "1", env={**os.environ, "TMPDIR": "/nowhere"})
    assert done.returncode == 255
    assert "temporary files in /nowhere: No such file" in done.stderr and "TMPDIR" in done.stderr


def test_no_temporary_file_is_left_whatever_ends_it(tmp_path, sleeper):
    running = start("-j2", f"echo {{}}; {sleeper.command}", ":::", "1", "2", env={**os.environ, "TMPDIR": str(tmp_path)})
    assert eventually(lambda: len(sleeper.pids()) == 2)
    assert os.listdir(tmp_path) == []
    running.kill()
    running.communicate()
    assert eventually(lambda: not sleeper.pids())


# ------------------------------------------------------------------------------------------------ how jobs run
def test_a_job_cannot_be_run():
    done = each("-j1", "no-such-command", ":::", "1", "2")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("not found") == 2


def test_a_job_starts_before_the_next_input_comes():
    running = start("-j2", "echo {}", stdin=subprocess.PIPE)
    for text in ("one", "two"):
        running.stdin.write(f"{text}\n")
        running.stdin.flush()
        assert line(running.stdout) == f"{text}\n"
    running.communicate(timeout=60)
    assert running.returncode == 0


def test_what_a_job_leaves_behind_goes_on_and_is_ended_with_all(sleeper):
    for background in (sleeper.command, f"setsid {sleeper.command}"):
        running = start("-j1", f"{background} & echo {{}}; [ {{}} = 1 ] || exec {sleeper.command}", ":::", "1", "2")
        assert line(running.stdout) == "1\n"
        assert eventually(lambda: len(sleeper.pids()) == 3)
        running.terminate()
        running.communicate(timeout=60)
        assert running.returncode == -signal.SIGTERM
        assert sleeper.pids() == []


def test_what_a_job_leaves_behind_cannot_write_into_anothers_output(tmp_path):
    for leave in ("", "setsid "):
        late = f"{leave}sh -c 'while [ ! -e {tmp_path}/now ]; do sleep 0.01; done; echo late; : > {tmp_path}/written' &"
        done = each("-j1", f"if [ {{}} = 1 ]; then {late} echo one; else : > {tmp_path}/now; "
                           f"while [ ! -e {tmp_path}/written ]; do sleep 0.01; done; echo two; fi", ":::", "1", "2")
        assert done.stdout == "one\ntwo\n"
        for name in ("now", "written"):
            (tmp_path / name).unlink()


def test_children_of_others_that_end_are_reaped(sleeper):
    many = "for i in 1 2 3 4 5 6 7 8 9; do (true &) ; done"
    running = start("-j1", "--line-buffer", f"{many}; echo; exec {sleeper.command}", ":::", "1")
    assert line(running.stdout) == "\n"
    launcher = launcher_of(running.pid)
    assert eventually(lambda: len(descendants(launcher)) == 1)
    running.terminate()
    running.communicate(timeout=60)


def test_more_slots_than_there_are_descriptors(tmp_path):
    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))

    job = f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; echo {{}}"
    running = start("-j100", "-k", job, ":::", *map(str, range(100)), preexec_fn=few)
    assert "cannot start a job now (Too many open files): trying again" in line(running.stderr)
    (tmp_path / "go").touch()
    out, _ = running.communicate(timeout=60)
    assert (running.returncode, out.split()) == (0, [str(i) for i in range(100)])


def test_a_thousand_at_once(tmp_path):
    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 4096:
        pytest.skip("too few descriptors")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    running = start("-j600", f"read x < {fifo}; ulimit -Sn #", ":::", *map(str, range(600)), preexec_fn=few)
    launcher = launcher_of(running.pid)
    assert eventually(lambda: len(descendants(launcher)) == 600, 60)
    lines = os.open(fifo, os.O_RDWR)
    os.write(lines, b"\n" * 600)  # one for each
    out, err = running.communicate(timeout=100)
    os.close(lines)
    assert (set(out.split()), len(out.split()), running.returncode, err) == ({"256"}, 600, 0, "")


def test_ignored_and_blocked_signals_are_not_passed_on_but_for_nohup():
    done = each("grep -E 'Sig(Blk|Ign)' /proc/self/status #", ":::", "1")
    assert [int(mask, 16) & NOT_OF_LIBC for mask in done.stdout.split()[1::2]] == [0, 0]
    command = " ".join([*EACH, "'grep SigIgn /proc/self/status #'", ":::", "1"])
    done = subprocess.run(["sh", "-c", f"trap '' HUP; {command}"], capture_output=True, text=True, timeout=60)
    assert int(done.stdout.split()[1], 16) & NOT_OF_LIBC == 1 << signal.SIGHUP - 1


# ------------------------------------------------------------------------------------------------ signals
def test_the_first_interrupt_waits_the_second_ends_the_third_kills(tmp_path, sleeper):
    script = f"trap 'echo T >> {tmp_path}/terms' TERM; echo {{}}; while :; do {sleeper.command} & wait; done"
    running = start("-j2", "--line-buffer", "--termseq", "TERM,100000,KILL,25", script, ":::", "1", "2", "3")
    assert sorted([line(running.stdout), line(running.stdout)]) == ["1\n", "2\n"]
    running.send_signal(signal.SIGINT)
    assert "no new jobs are started, waiting for 2 running jobs" in line(running.stderr)
    running.send_signal(signal.SIGINT)
    assert eventually(lambda: (tmp_path / "terms").exists() and (tmp_path / "terms").read_text() == "T\nT\n")
    assert running.poll() is None
    running.send_signal(signal.SIGINT)
    assert running.wait(60) == -signal.SIGINT
    out, _ = running.communicate()
    assert "3" not in out


def test_after_an_interrupt_what_runs_ends_well_and_nothing_more_starts(tmp_path):
    running = start("-j2", f": > {tmp_path}/{{}}; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; echo done {{}}", ":::",
                    "1", "2", "3")
    assert eventually(lambda: {"1", "2"} <= set(os.listdir(tmp_path)))
    running.send_signal(signal.SIGINT)
    line(running.stderr)
    (tmp_path / "go").touch()
    out, _ = running.communicate(timeout=60)
    assert (sorted(out.splitlines()), running.returncode) == (["done 1", "done 2"], -signal.SIGINT)
    assert "3" not in os.listdir(tmp_path)


def test_hup_waits_and_says_for_what(tmp_path):
    running = start("-j1", f": > {tmp_path}/{{}}; until [ -e {tmp_path}/go ]; do sleep 0.01; done; echo {{}}", ":::", "1", "2")
    assert eventually((tmp_path / "1").exists)
    running.send_signal(signal.SIGHUP)
    assert "SIGHUP received: no new jobs are started" in line(running.stderr)
    (tmp_path / "go").touch()
    out, _ = running.communicate(timeout=60)
    assert (out, running.returncode) == ("1\n", 0)


def test_term_ends_jobs_by_the_term_sequence(tmp_path, sleeper):
    for sequence, traps, said in [
            ("TERM,100000,KILL,25", f"trap 'echo TERM > {tmp_path}/said' TERM", "TERM\n"),
            ("TERM,20,INT,100000,KILL,25", f"trap '' TERM; trap 'echo INT > {tmp_path}/said' INT", "INT\n"),
            ("TERM,20,INT,20,KILL,25", f"trap '' TERM INT; : > {tmp_path}/said", "")]:
        running = start("-j1", "--termseq", sequence, f"{traps}; {sleeper.command}; : #", ":::", "1")
        assert eventually(sleeper.pids)
        running.terminate()
        running.communicate(timeout=60)
        assert running.returncode == -signal.SIGTERM
        assert (tmp_path / "said").read_text() == said


def test_usr1_lists_what_runs(sleeper):
    running = start("-j2", "--line-buffer", f"echo; exec {sleeper.command} #", ":::", "1", "2", "3")
    line(running.stdout), line(running.stdout)
    running.send_signal(signal.SIGUSR1)
    for number in (1, 2):
        assert re.match(rf"dgmp: \d+ \d+\.\ds .*{sleeper.command} # {number}\n", line(running.stderr))
    running.terminate()
    running.communicate(timeout=60)


def test_an_interrupt_for_others_in_the_background_is_not_for_us(sleeper, tmp_path):
    """In a script, what runs in the background has SIGINT ignored; one that is meant for us comes all the same."""
    command = " ".join([*EACH, "-j1", f"'exec {sleeper.command} #'", ":::", "1", "2"])
    shell = subprocess.Popen(["sh", "-c", f"{command} & echo $!; wait $!; echo code $?"], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
    pid = int(line(shell.stdout))
    assert eventually(sleeper.pids)
    os.kill(pid, signal.SIGINT)
    assert "interrupted" in line(shell.stderr)
    os.kill(pid, signal.SIGINT)
    assert line(shell.stdout) == "code 130\n"
    shell.communicate(timeout=60)


# ------------------------------------------------------------------------------------------------ nothing is left
@pytest.mark.parametrize("who", ["guardian", "launcher"])
def test_whichever_is_killed_everything_ends(who, sleeper):
    jobs = f"(setsid {sleeper.command} &); {sleeper.command} & {sleeper.command}"
    running = start("-j2", jobs + " #", ":::", "1", "2", "3")
    assert eventually(lambda: len(sleeper.pids()) == 6)
    launcher = launcher_of(running.pid)
    os.kill(running.pid if who == "guardian" else launcher, signal.SIGKILL)
    running.communicate(timeout=60)
    assert running.returncode == -signal.SIGKILL
    assert eventually(lambda: not sleeper.pids())
    assert eventually(lambda: launcher not in processes())


def test_killed_at_random_moments_nothing_is_left(sleeper):
    jobs = f"(setsid {sleeper.command} &); {sleeper.command} & [ $(({{}} % 3)) = 0 ] && exec {sleeper.command}; true"
    chance = random.Random(7)
    for turn in range(8):
        running = start("-j4", jobs, ":::", *map(str, range(1, 500)), stderr=subprocess.DEVNULL)
        launcher = launcher_of(running.pid)
        time.sleep(chance.random() * 0.3)
        os.kill(running.pid if turn % 2 else launcher, signal.SIGKILL)
        running.communicate(timeout=60)
        assert running.returncode == -signal.SIGKILL
        assert eventually(lambda: not sleeper.pids())


def test_a_signal_to_the_whole_group_comes_once(sleeper):
    running = start("-j1", f"exec {sleeper.command} #", ":::", "1", start_new_session=True)
    assert eventually(sleeper.pids)
    os.killpg(running.pid, signal.SIGINT)
    assert "waiting for 1 running job;" in line(running.stderr)
    assert eventually(sleeper.pids, 1)
    os.killpg(running.pid, signal.SIGINT)
    assert running.wait(60) == -signal.SIGINT
    running.communicate()


# ------------------------------------------------------------------------------------------------ under a terminal
class Terminal:
    """A shell under a pseudo-terminal."""

    def __init__(self, *argv):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["PS1"] = "$ "
            os.execvp(argv[0], argv)
        self.text = ""

    def type(self, text):
        os.write(self.fd, text.encode())

    def wait_for(self, pattern, seconds=60):
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text)):
            assert time.monotonic() < end, f"{pattern!r} has not come: {self.text!r}"
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    self.text += os.read(self.fd, 65536).decode(errors="replace")
                except OSError:
                    break
        assert (found := re.search(pattern, self.text)), f"{pattern!r} has not come: {self.text!r}"
        self.text = self.text[found.end():]
        return found

    def close(self):
        os.close(self.fd)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@pytest.fixture
def bash():
    made = Terminal("bash", "--norc", "--noprofile", "-i")
    yield made
    made.close()


def command(*args):
    return " ".join([*EACH, *args])


def test_ctrl_c_in_a_shell(bash, sleeper):
    bash.type(command("-j2", "--line-buffer", f"'echo {{}}; exec {sleeper.command}'", "::: a b c\n"))
    bash.wait_for(r"\r\n")
    assert eventually(lambda: len(sleeper.pids()) == 2)
    bash.type("\x03")
    bash.wait_for("no new jobs are started, waiting for 2 running jobs")
    assert len(sleeper.pids()) == 2
    bash.type("\x03")
    bash.wait_for(r"\$ ")
    bash.type("echo code=$?\n")
    bash.wait_for(r"code=130\r")
    assert eventually(lambda: not sleeper.pids())


def state(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def test_ctrl_z_stops_jobs_too_and_fg_goes_on(bash, sleeper):
    bash.type(command("-j2", f"'exec {sleeper.command} #'", "::: a b\n"))
    assert eventually(lambda: len(sleeper.pids()) == 2)
    jobs = sleeper.pids()
    bash.type("\x1a")
    bash.wait_for(r"Stopped")
    assert eventually(lambda: [state(pid) for pid in jobs] == ["T", "T"])
    bash.type("fg\n")
    assert eventually(lambda: [state(pid) for pid in jobs] == ["S", "S"])
    bash.type("\x03")
    bash.wait_for("waiting for 2")
    bash.type("\x03")
    bash.wait_for(r"\$ ")
    assert eventually(lambda: not sleeper.pids())


def test_inputs_are_typed(bash):
    bash.type(command("-j1", "echo got\n"))
    bash.type("one\n")
    bash.wait_for(r"got one\r")
    bash.type("two\n")
    bash.wait_for(r"got two\r")
    bash.type("\x04echo code=$?\n")
    bash.wait_for(r"code=0\r")


def test_a_job_that_reads_the_terminal_does_not_stop_it_all(bash):
    bash.type(command("-j1", "'cat < /dev/tty; echo code=$? #'", "::: a\n"))
    bash.wait_for(r"code=1\r")
    bash.wait_for(r"\$ ")


def test_the_terminal_goes_away(sleeper):
    terminal = Terminal(*EACH, "-j2", f"exec {sleeper.command} #", ":::", "1", "2", "3")
    try:
        assert eventually(lambda: len(sleeper.pids()) == 2)
    finally:
        os.kill(terminal.pid, signal.SIGTERM)
        terminal.close()
    assert eventually(lambda: not sleeper.pids())
