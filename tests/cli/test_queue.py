"""The verbs of the queue as a shell user sees them, with a real daemon."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import dgmp as package
from dgmp.cli import main
from dgmp.cli.parsers import verbs
from dgmp.cli.reference import page
from dgmp.cli.talk import pinned
from dgmp.jobs.client import Client
from dgmp.jobs.protocol import Select
from dgmp.jobs.ranges import Ranges
from tests.helpers import eventually
from tests.jobs.harness import Node
from tests.terminal import Terminal

DGMP = [sys.executable, "-m", "dgmp"]


@pytest.fixture(scope="module")
def node():
    with Node() as node:
        assert dgmp(node, "up", "--cpus=2", "--resource-total=gpu=2").returncode == 0
        yield node


@pytest.fixture
def nobody():
    """Folders in which no daemon runs."""
    with Node() as node:
        yield node


def dgmp(node, *words, stdin=None, **env):
    return subprocess.run([*DGMP, *words], cwd=node.work, env={**os.environ, **node.env, **env}, input=stdin,
                          capture_output=True, text=True, timeout=60)


def shell(node, line):
    """A line of bash, in which `dgmp` is this one."""
    return subprocess.run(["bash", "-c", f"dgmp() {{ {sys.executable} -m dgmp \"$@\"; }}\n{line}"], cwd=node.work,
                          env={**os.environ, **node.env}, capture_output=True, text=True, timeout=60)


def submitted(node, *words, **env):
    """The id of a job."""
    done = dgmp(node, "submit", *words, **env)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert re.fullmatch(r"[0-9]+\n", done.stdout)
    return done.stdout.strip()


def ran(node, *words, **env):
    """The id of a job that has ended, well or not."""
    done = dgmp(node, "submit", "--wait", *words, **env)
    assert re.fullmatch(r"[0-9]+\n", done.stdout), done.stderr
    return done.stdout.strip()


def shown(node, job):
    return json.loads(dgmp(node, "show", "--json", job).stdout)["jobs"][0]


def out(node, job, *words):
    return dgmp(node, "logs", *words, job).stdout


# ---------------------------------------------------------------- submit
def test_submit_prints_an_id_and_the_command_runs_here(node):
    job = ran(node, "pwd")
    assert out(node, job) == f"{node.work}\n"
    assert int(submitted(node, "true")) == int(job) + 1


def test_the_command_is_passed_on_word_for_word(node):
    words = ["a  b", "$HOME", "*", "", "'", "--name", "--", "é\n", "-x"]
    job = ran(node, "--name", "x", "--", sys.executable, "-c", "import sys; print(sys.argv[1:])", *words)
    assert out(node, job) == f"{words}\n" and shown(node, job)["name"] == "x"


def test_words_behind_the_command_are_its_own(node):
    assert out(node, ran(node, "echo", "--name", "-n", "--", "--help")) == "--name -n -- --help\n"


def test_bytes_that_are_no_text_are_passed_on(node):
    done = subprocess.run([*DGMP, "submit", "printf", b"\xff\xfe%s", b"\x80"], cwd=node.work, capture_output=True,
                          env={**os.environ, **node.env, "RAW": os.fsdecode(b"\xe9")}, timeout=60)
    job = done.stdout.decode().strip()
    assert done.stderr == b"" and dgmp(node, "wait", job).returncode == 0
    raw = subprocess.run([*DGMP, "logs", job], env={**os.environ, **node.env}, capture_output=True, timeout=60)
    assert raw.stdout == b"\xff\xfe\x80"
    assert "\\xff\\xfe%s" in dgmp(node, "jobs", job).stdout


def test_a_line_of_shell(node):
    job = ran(node, "--array", "1-3", "echo task $DGMP_TASK_ID of $DGMP_JOB_ID | tr a-z A-Z; exit $((DGMP_TASK_ID - 1))")
    assert out(node, job) == "".join(f"TASK {n} OF {job}\n" for n in (1, 2, 3))
    assert shown(node, job)["counts"] == {"waiting": 0, "running": 0, "finished": 1, "failed": 2, "cancelled": 0, "aborted": 0}


def test_an_array_may_be_said_in_parts(node):
    job = ran(node, "--array", "5,1-2", "--array", "9", "echo $DGMP_TASK_ID")
    assert out(node, job) == "1\n2\n5\n9\n" and shown(node, job)["array"] == [[1, 2, 1], [5, 5, 1], [9, 9, 1]]


def test_environment_folder_and_umask(node):
    (node.work / "sub").mkdir(exist_ok=True)
    job = ran(node, "--env", "A=1=2", "--env", "B=", "--cwd", "sub", "echo $A,$B,$C; basename $PWD; umask", C="ours")
    assert out(node, job).splitlines() == ["1=2,,ours", "sub", f"{os.umask(umask := os.umask(0o22)) or umask:04o}"[-4:]]


def test_output_to_files(node):
    ran(node, "--array", "1,2", "--stdout", "out-{task}", "--stderr", "errors", "echo $DGMP_TASK_ID; echo e >&2")
    assert node.lines("out-1") == ["1"] and node.lines("out-2") == ["2"] and node.lines("errors") == ["e", "e"]


def test_dependencies(node):
    bad = submitted(node, "--name", "bad", "sleep 0.1; echo bad >> order; false")
    after = submitted(node, "--after", "last", "echo after >> order")
    never = submitted(node, "--after-ok", f"{bad},{after}", "echo never >> order")
    done = dgmp(node, "wait", f"{bad}-{never}")
    assert done.returncode == 1 and node.lines("order") == ["bad", "after"]
    assert done.stderr.splitlines() == [f"dgmp: job {bad} (bad) has failed; `dgmp show {bad}` says more",
                                        f"dgmp: job {never} (echo) was aborted; `dgmp show {never}` says more"]
    assert "after ok  " in dgmp(node, "show", never).stdout


def test_retries_and_timeout(node):
    job = ran(node, "--retries", "2", "echo $DGMP_ATTEMPT >> attempts; [ $DGMP_ATTEMPT = 3 ]")
    assert shown(node, job)["state"] == "finished" and node.lines("attempts") == ["1", "2", "3"]
    late = ran(node, "--timeout", "0.2s", "sleep", "100")
    assert "its time was up" in dgmp(node, "show", late).stdout


def test_resources_and_priority(node):
    job = ran(node, "--cpus", "2", "--mem", "1M", "--resource", "gpu=1", "--priority", "7",
              "echo $DGMP_CPUS $CUDA_VISIBLE_DEVICES")
    cpus, gpu = out(node, job).split()
    assert len(cpus.split(",")) == 2 and gpu in ("0", "1")
    fields = dgmp(node, "show", job).stdout
    assert re.search("^priority +7$", fields, re.M) and re.search("^mem +1.0M$", fields, re.M) and "gpu=1" in fields


def test_a_python_function(node):
    (node.work / "ours.py").write_text("def total(numbers, *words):\n    return sum(numbers), words\n")
    job = ran(node, "--py", "ours:total", "[1, 2, 3]", "word", PYTHONPATH=str(node.work))
    assert out(node, job) == "(6, ('word',))\n" and shown(node, job)["name"] == "ours:total"


def test_submit_and_wait(node):
    assert dgmp(node, "submit", "--wait", "true").returncode == 0
    failed = dgmp(node, "submit", "--wait", "--name", "f", "exit 9")
    job = failed.stdout.strip()
    assert (failed.returncode, failed.stderr) == (1, f"dgmp: job {job} (f) has failed; `dgmp show {job}` says more\n")
    first, second = map(json.loads, dgmp(node, "submit", "--wait", "--json", "--array", "1-9", "true").stdout.splitlines())
    assert first == {"schema": "dgmp.submit/1", "job": int(job) + 1, "tasks": 9}
    assert second["schema"] == "dgmp.jobs/1" and second["jobs"][0]["counts"]["finished"] == 9


@pytest.mark.parametrize("words,said", [
    ([], "there is no command"), (["--py"], "there is no function"), (["--py", "os"], "there is no function"),
    (["--array", "9-1", "true"], "9-1 is empty"),
    (["--priority", "9" * 20, "true"], "is too large"), (["--retries", "many", "true"], "is no whole number"),
    (["--timeout", "soon", "true"], "'soon' is no duration"), (["--mem", "lots", "true"], "'lots' is no size"),
    (["--resource", "gpu", "true"], "such as gpu=1"), (["--env", "A", "true"], "say NAME=VALUE"),
    (["--after", "x", "true"], "names no jobs"),
    (["--nam", "x", "true"], "--nam"), (["--retries", "-1", "true"], "retries"), (["--on-lost", "cry", "true"], "cry"),
    (["--cpus", "1000", "true"], "cpus"), (["--resource", "moon=1", "true"], "moon"), (["--priority", "high", "true"], "high"),
    (["--cpus", "0", "true"], "at least 1"), (["--resource", "cpus=1", "true"], "--cpus"),
    (["--resource", "gpu=0", "true"], "gpu=0"), (["--resource", "gpu=1G", "true"], "can never start"),
    (["--after", "last.3", "true"], "whole jobs"),
    (["--after", "1-9_000_000_000_000", "true"], "at most 10000 jobs"),
])
def test_what_cannot_be_submitted_is_said(node, words, said):
    done = dgmp(node, "submit", *words)
    assert (done.returncode, done.stdout) == (2, "") and said in done.stderr.splitlines()[-1]


def test_no_room_for_threads_is_said(node, nobody):
    limits = "ulimit -s 8000000 -v 4000000"  # a stack is larger than all memory
    for done in (shell(node, f"{limits}; dgmp jobs"), shell(nobody, f"{limits}; dgmp up")):
        assert (done.returncode, done.stdout) == (5, "") and "dgmp: no thread can be made" in done.stderr


def test_a_folder_that_is_not_there(node):
    done = dgmp(node, "submit", "--cwd", "nowhere", "true")
    assert (done.returncode, done.stderr) == (2, f"dgmp: there is no folder {node.work}/nowhere\n")


def test_a_folder_that_is_not_there_any_more(node):
    done = shell(node, "mkdir left; cd left; rmdir ../left; dgmp submit true")
    assert "is not there any more: say --cwd" in done.stderr


def test_a_command_that_is_not_there(node):
    job = ran(node, "no-such-command", "x")
    assert "could not be started" in dgmp(node, "show", job).stdout


def test_a_million_tasks(node):
    gate = submitted(node, "sleep", "1000")
    job = submitted(node, "--array", "1-1_000_000", "--after", gate, "true")
    assert eventually(lambda: shown(node, gate)["state"] == "running")
    assert "0/1000000" in dgmp(node, "jobs", job).stdout
    held = dgmp(node, "jobs", job).stdout.splitlines()[1]
    assert re.search(r"waiting \(after [0-9]+\)", held)
    assert dgmp(node, "cancel", f"{job}.5-1000000").stdout == "cancelled 999996 waiting tasks, ended 0 running ones\n"
    done = dgmp(node, "cancel", f"{gate},{job}")
    assert done.stdout == "cancelled 4 waiting tasks, ended 1 running one\n"
    assert dgmp(node, "wait", "-q", job).returncode == 1


# ---------------------------------------------------------------- jobs, show
def test_a_task_for_each_line(node):
    (node.work / "names").write_bytes(b"a  b\n\n$HOME;'\"*\n\xff\xe9")
    job = ran(node, "--each-line", "names", "--", sys.executable, "-c",
              "import os, sys; print(os.fsencode(sys.argv[1]), os.environ['DGMP_ENTRY'] == sys.argv[2])", "<{}>", "{}")
    assert out(node, job) == "b'<a  b>' True\nb'<>' True\nb'<$HOME;\\'\"*>' True\nb'<\\xff\\xe9>' True\n"
    assert shown(node, job)["array"] == [[1, 4, 1]]


def test_lines_of_standard_input_in_a_line_of_shell(node):
    done = dgmp(node, "submit", "--json", "--wait", "--each-line", "-", 'echo "<$DGMP_ENTRY>"; exit $((DGMP_TASK_ID == 2))',
                stdin="x\ny $z\n")
    submitted, jobs = (json.loads(line) for line in done.stdout.splitlines())
    job = str(submitted["job"])
    assert submitted["tasks"] == 2 and done.returncode == 1 and out(node, job) == "<x>\n<y $z>\n"
    assert shown(node, job)["failures"][0]["entry"] == "y $z" and "entry y $z" in dgmp(node, "show", job).stdout


def test_some_of_the_lines(node):
    (node.work / "digits").write_text("one\ntwo\nthree\nfour\n")
    assert out(node, ran(node, "--each-line", "digits", "--array", "2-3", "--", "echo", "{}")) == "two\nthree\n"


@pytest.mark.parametrize("words, stdin, said", [
    (["--", "echo", "{}"], "", "there are no lines in standard input"),
    (["--", "echo", "{}"], "a\nb\0c\n", "line 2 of standard input has a NUL"),
    (["--", "echo", "{}"], "a\n" + "x" * (1 << 17) + "\n", "line 2 of standard input is longer"),
    (["--array", "2-5", "--", "echo"], "a\nb\n", "from 1 to 2"),
    (["echo '{}'"], "a\n", '"$DGMP_ENTRY"'),
    (["--", "sh", "-c", "echo {}"], "a\n", '"$DGMP_ENTRY"'),
    (["--", "bash", "-euo", "pipefail", "-lc", "echo {}", "name"], "a\n", '"$DGMP_ENTRY"'),
    (["--", "env", "A=B", "/bin/sh", "-c", "-x", "--", "echo {}"], "a\n", '"$DGMP_ENTRY"'),
])
def test_lines_that_cannot_be_entries(node, words, stdin, said):
    done = dgmp(node, "submit", "--each-line", "-", *words, stdin=stdin)
    assert (done.returncode, done.stdout) == (2, "") and said in done.stderr


@pytest.mark.parametrize("words", [["sh", "-c", 'echo "$1"', "-c", "<{}>"], ["bash", "script", "-c", "<{}>"]])
def test_an_entry_may_be_an_argument_of_a_line_or_file_of_shell(node, words):
    (node.work / "script").write_text('echo "$2"\n')
    (node.work / "odd").write_text("$(id); x\n")
    assert out(node, ran(node, "--each-line", "odd", "--", *words)) == "<$(id); x>\n"


def test_lines_of_a_standard_input_that_is_closed(node):
    done = shell(node, "dgmp submit --each-line - -- true <&-")
    assert (done.returncode, done.stderr) == (2, "dgmp: cannot read standard input: it is closed\n")


def test_a_file_of_lines_that_is_not_there(node):
    done = dgmp(node, "submit", "--each-line", "none", "true")
    assert (done.returncode, done.stderr) == (2, "dgmp: cannot read none: No such file or directory\n")


@pytest.mark.parametrize("words, end", [([], b"\0\n"), (["--resource", "gpu=3"], b""), (["--array", "1-100000"], b"")])
def test_lines_go_with_the_job_that_is_refused(node, words, end):
    lines = b"".join(os.urandom(1000).hex().encode() + b"\n" for _ in range(2000))  # some messages
    (node.work / "refused").write_bytes(lines + end)
    assert dgmp(node, "submit", "--each-line", "refused", *words, "--", "true").returncode == 2
    assert eventually(lambda: sets_without_a_job(node) == 0)


def test_lines_go_with_the_command_that_is_interrupted(node):
    lines = b"".join(os.urandom(1000).hex().encode() + b"\n" for _ in range(2000))
    with subprocess.Popen([*DGMP, "submit", "--each-line", "-", "--", "true"], env={**os.environ, **node.env},
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) as command:
        command.stdin.write(lines)
        command.stdin.flush()
        assert eventually(lambda: sets_without_a_job(node) == 1)
        command.send_signal(signal.SIGINT)
        assert command.wait(60) == -signal.SIGINT and command.stdout.read() == b""
    assert eventually(lambda: sets_without_a_job(node) == 0)


def sets_without_a_job(node):
    db = sqlite3.connect(node.state / "jobs.sqlite")
    try:
        return db.execute("SELECT count(*) FROM entries WHERE job IS NULL").fetchone()[0]
    finally:
        db.close()


def test_a_long_line_is_cut_for_people_and_whole_in_json(node):
    line = "x" * 1000
    (node.work / "long").write_text(line)
    job = ran(node, "--each-line", "long", "--", "true")
    done = dgmp(node, "show", "--tasks", job)
    assert "entry xxx" in done.stdout and "…" in done.stdout and max(map(len, done.stdout.splitlines())) < 250
    assert json.loads(dgmp(node, "show", "--tasks", "--json", job).stdout)["jobs"][0]["tasks"][0]["entry"] == line


def test_a_million_lines(node):
    gate = submitted(node, "sleep", "1000")
    lines = "".join(f"data/sample-{n:07d}.fastq.gz\n" for n in range(1_000_000))
    before = sum(path.stat().st_size for path in node.state.glob("jobs.sqlite*"))
    done = dgmp(node, "submit", "--json", "--after", gate, "--each-line", "-", "--", "true", "{}", stdin=lines)
    assert json.loads(done.stdout)["tasks"] == 1_000_000
    assert sum(path.stat().st_size for path in node.state.glob("jobs.sqlite*")) - before < len(lines) / 2
    job = str(json.loads(done.stdout)["job"])
    dgmp(node, "cancel", f"{gate},{job}")
    dgmp(node, "wait", "-q", f"{gate},{job}")


def test_jobs_are_filtered(node):
    one, two = ran(node, "--name", "filter-a", "true"), ran(node, "--name", "filter-b", "false")
    assert ids(node, "--name", "filter-*") == [two, one]
    assert ids(node, "--name", "filter-*", "--state", "failed,aborted") == [two]
    assert ids(node, f"{one},last") == [two, one]
    assert ids(node, f"{one}-{two}", "--limit", "1") == [two]
    assert ids(node, "--state", "running", "--name", "filter-*") == []
    done = dgmp(node, "jobs", "--limit", "1")
    assert len(done.stdout.splitlines()) == 2 and "--all" in done.stderr
    assert len(ids(node, "--all")) == int(two)


def ids(node, *words):
    found = json.loads(dgmp(node, "jobs", "--json", *words).stdout)
    assert found["schema"] == "dgmp.jobs/1"
    return [str(job["id"]) for job in found["jobs"]]


def test_names_cannot_break_the_table(node):
    job = ran(node, "--name", "a\nb\x1b[2J", "true")
    lines = dgmp(node, "jobs", job).stdout.splitlines()
    assert len(lines) == 2 and "a\\nb\\x1b[2J" in lines[1]


@pytest.mark.parametrize("words", [(), ("--json",), ("--tasks",)])
def test_show_of_no_job(node, words):
    done = dgmp(node, "show", *words, "500000-600000")
    assert (done.returncode, done.stdout, done.stderr) == (4, "", "dgmp: there are no such jobs\n")


def test_show_tasks(node):
    job = ran(node, "--array", "1-5", "--name", "five", "kill -$DGMP_TASK_ID $$")
    text = dgmp(node, "show", job).stdout
    assert "tasks      5: " in text and "killed by SIGINT" in text
    states = [line.split()[:2] for line in dgmp(node, "show", f"{job}.2-4").stdout.split("NOTE\n")[1].splitlines()]
    assert states == [["2", "failed"], ["3", "failed"], ["4", "failed"]]
    found = json.loads(dgmp(node, "show", "--json", "--tasks", "--state", "failed", job).stdout)
    assert found["schema"] == "dgmp.show/1" and [t["exit"] for t in found["jobs"][0]["tasks"]] == [-1, -2, -3, -4, -5]


# ---------------------------------------------------------------- logs
def test_logs_keep_outputs_apart(node):
    job = ran(node, "--array", "1-2", "echo out $DGMP_TASK_ID; echo err $DGMP_TASK_ID >&2; printf end")
    done = dgmp(node, "logs", job)
    assert (done.stdout, done.stderr) == ("out 1\nendout 2\nend", "err 1\nerr 2\n")
    assert (out(node, job, "--stderr"), dgmp(node, "logs", "--stdout", job).stderr) == ("err 1\nerr 2\n", "")
    assert out(node, f"{job}.2") == "out 2\nend"
    assert out(node, job, "--tag") == f"{job}.1\tout 1\n{job}.1\tend\n{job}.2\tout 2\n{job}.2\tend\n"


def test_the_logs_of_many_tasks_take_few_questions(node, monkeypatch, capfdbinary):
    job = ran(node, "--array", "1-60", "echo $DGMP_TASK_ID; echo e >&2")
    asked = []
    send = Client.send
    monkeypatch.setattr(Client, "send", lambda *words: asked.append(words[1]) or send(*words))
    assert main(["logs", job]) == 0
    out, err = capfdbinary.readouterr()
    assert out.split() == [b"%d" % n for n in range(1, 61)] and err == b"e\n" * 60
    assert asked == ["show", "tasks"]


def test_much_output(node):
    job = ran(node, "seq 1000000")
    assert out(node, job) == "".join(f"{n}\n" for n in range(1, 1_000_001))


def test_following_prints_what_comes_and_ends_with_the_job(node):
    job = submitted(node, "echo begun; while [ ! -e go ]; do sleep 0.01; done; echo done; echo err >&2; exit 3")
    with subprocess.Popen([*DGMP, "logs", "-f", job], env={**os.environ, **node.env}, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as follower:
        assert follower.stdout.readline() == "begun\n"
        (node.work / "go").touch()
        assert follower.communicate(timeout=60) == ("done\n", "err\n") and follower.returncode == 0


def test_following_an_array_that_waits(node):
    first = submitted(node, "while [ ! -e start ]; do sleep 0.01; done")
    job = submitted(node, "--after", first, "--array", "1-20", "--retries", "1",
                    "echo $DGMP_TASK_ID.$DGMP_ATTEMPT; [ $DGMP_ATTEMPT = 2 ] || [ $DGMP_TASK_ID != 4 ]")
    with subprocess.Popen([*DGMP, "logs", "--follow", "--tag", job], env={**os.environ, **node.env}, stdout=subprocess.PIPE,
                          text=True) as follower:
        (node.work / "start").touch()
        lines = follower.communicate(timeout=60)[0].splitlines()
    expected = {f"{job}.{n}\t{n}.1" for n in range(1, 21)}
    assert {f"{job}.4\t4.2"} <= set(lines) and expected - {f"{job}.4\t4.1"} <= set(lines) <= expected | {f"{job}.4\t4.2"}
    assert len(lines) == len(set(lines))


def test_following_loses_nothing_of_what_ends_before_it_is_told(node):
    job = submitted(node, "--array", "1-300", "echo $DGMP_TASK_ID")
    done = dgmp(node, "logs", "-f", job)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(map(int, done.stdout.split())) == list(range(1, 301))


def test_following_one_that_has_ended(node):
    job = ran(node, "--array", "1-3", "echo $DGMP_TASK_ID")
    assert (out(node, job, "-f"), out(node, f"{job}.2", "-f")) == ("1\n2\n3\n", "2\n")


def test_a_closed_pipe_ends_it(node):
    job = ran(node, "seq 1000000")
    done = shell(node, f"dgmp logs {job} | head -1; echo ${{PIPESTATUS[0]}}")
    assert (done.stdout, done.stderr) == ("1\n141\n", "")


def test_a_full_disk_is_said(node):
    done = shell(node, "dgmp jobs > /dev/full; echo $?")
    assert done.stdout == "5\n" and "No space left" in done.stderr and "Traceback" not in done.stderr


# ---------------------------------------------------------------- wait, cancel, retry
def test_wait(node):
    good, bad = ran(node, "true"), ran(node, "--array", "1-5", "exit $((DGMP_TASK_ID == 3))")
    assert dgmp(node, "wait", good).returncode == 0
    assert dgmp(node, "wait", f"{bad}.1-2,{bad}.4").returncode == 0  # what the others have come to does not matter
    done = dgmp(node, "wait", f"{good},{bad}.2-3")
    assert (done.returncode, done.stderr) == (1, f"dgmp: tasks 3 of job {bad} have not finished\n")
    quiet = dgmp(node, "wait", "--quiet", "--json", f"{good}-{bad}")
    assert (quiet.returncode, quiet.stderr) == (1, "") and len(json.loads(quiet.stdout)["jobs"]) == 2


def test_wait_for_some_time(node):
    job = submitted(node, "sleep", "1000")
    assert eventually(lambda: shown(node, job)["state"] == "running")
    done = dgmp(node, "wait", "--timeout", "0.1", job)
    assert (done.returncode, done.stderr) == (124, "dgmp: they have not ended yet\n")
    assert dgmp(node, "cancel", "--json", job).stdout == '{"schema": "dgmp.cancel/1", "cancelled": 0, "ending": 1}\n'
    assert dgmp(node, "wait", "-q", job).returncode == 1 and shown(node, job)["state"] == "cancelled"
    assert dgmp(node, "cancel", job).stdout == "nothing to cancel: nothing of it waits or runs\n"


def test_retry(node):
    job = ran(node, "--array", "1-4", "[ -e fixed ] || [ $DGMP_TASK_ID = 1 ] && echo $DGMP_TASK_ID >> retried")
    (node.work / "fixed").touch()
    assert dgmp(node, "retry", f"{job}.2").stdout == "1 task to run again\n"
    assert dgmp(node, "wait", "-q", job).returncode == 1
    assert dgmp(node, "retry", "--failed", "--json", job).stdout == '{"schema": "dgmp.retry/1", "retried": 2}\n'
    assert dgmp(node, "wait", job).returncode == 0 and sorted(node.lines("retried")) == ["1", "2", "3", "4"]
    assert dgmp(node, "retry", job).stdout == "nothing to retry: no task is failed\n"
    unsaid = dgmp(node, "retry")
    assert unsaid.returncode == 2 and "dgmp retry --failed for all" in unsaid.stderr


def test_a_name_that_is_no_utf_8(node):
    job = ran(node, "--name", "odd\udcff\t", "true")
    listed = dgmp(node, "jobs", "--name", "odd\udcff*").stdout.splitlines()
    assert len(listed) == 2 and r"odd\xff\t" in listed[1]
    assert json.loads(dgmp(node, "jobs", "--json", job).stdout)["jobs"][0]["name"] == "odd\udcff\t"


# ---------------------------------------------------------------- forget
def test_forget(node):
    good, bad = ran(node, "--name", "old", "true"), ran(node, "--name", "old", "false")
    runs = submitted(node, "sleep", "1000")
    assert dgmp(node, "forget", "--older", "1h", f"{good}-{bad}").stdout == "nothing to forget: no such job has ended\n"
    assert dgmp(node, "forget", "--finished", "--json", f"{good}-{runs}").stdout == \
        f'{{"schema": "dgmp.forget/1", "forgotten": 1, "open": [[{runs}, {runs}, 1]]}}\n'
    assert dgmp(node, "forget", f"{bad}-{runs}").stdout == f"forgot 1 job\nkept what has not ended: {runs}\n"
    assert json.loads(dgmp(node, "jobs", "--json", "--name", "old").stdout)["jobs"] == []
    assert dgmp(node, "forget", bad).returncode == 4
    refused = dgmp(node, "forget", runs)
    assert (refused.returncode, refused.stdout) == (5, "") and f"job {runs} (sleep) is " in refused.stderr
    dgmp(node, "cancel", runs)


# ---------------------------------------------------------------- what is not there
@pytest.mark.parametrize("words,code,said", [
    (["show", "99999"], 4, "99999"), (["logs", "99999"], 4, "99999"), (["wait", "99999"], 4, "99999"),
    (["cancel", "99999"], 4, "99999"), (["retry", "99999"], 4, "99999"), (["attach", "99999"], 4, "99999"),
    (["submit", "--after", "99999", "true"], 4, "99999"), (["logs", "1.77"], 4, "77"), (["logs", "1,2"], 2, "several jobs"),
    (["show", "1.77"], 4, "job 1 has no task 77"), (["jobs", "1", "2"], 2, "unrecognized arguments: 2"),
    (["logs", "all"], 2, "several jobs"), (["wait", "99998-99999"], 4, "no such jobs"),
    (["attach", "99998-99999"], 4, "no such jobs"),
    (["show", "one"], 2, "names no jobs"), (["jobs", "--state", "dead"], 2, "'dead' is no state"),
    (["jobs", "-n", "0"], 2, "no number"), (["wait"], 2, "JOBS"),
    (["forget", "99999"], 4, "99999"), (["forget", "1.2-3"], 2, "name no tasks"), (["forget"], 2, "JOBS"),
])
def test_what_is_not_there_is_said(node, words, code, said):
    done = dgmp(node, *words)
    assert (done.returncode, done.stdout) == (code, "") and said in done.stderr.splitlines()[-1], done.stderr


@pytest.mark.parametrize("words", [
    ["submit", "true"], ["jobs"], ["show", "1"], ["logs", "1"], ["wait", "all"], ["cancel", "1"], ["retry", "1"], ["attach"],
    ["forget", "all"],
    ["down"], ["status"], ["jobs", "--json"],
])
def test_no_daemon(nobody, words):
    done = dgmp(nobody, *words)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "dgmp: no dgmp daemon for this user: start it with `dgmp up`\n"


def test_a_relative_folder_is_that_of_this_shell(nobody):
    for words in (["up"], ["status"], ["submit", "--wait", "true"], ["down"]):
        done = subprocess.run([*DGMP, *words], cwd=nobody.root, env={**os.environ, **nobody.env, "DGMP_RUNTIME_DIR": "run"},
                              capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, ""), words
    assert (nobody.runtime / "daemon.lock").exists()


def test_a_folder_that_is_open_to_others(nobody):
    nobody.runtime.mkdir(mode=0o755)
    nobody.runtime.chmod(0o755)
    done = dgmp(nobody, "jobs")
    assert done.returncode == 5 and "open to others" in done.stderr and "chmod 700" in done.stderr


# ---------------------------------------------------------------- up, down, status
def test_up_status_down(nobody):
    up = dgmp(nobody, "up", "--cpus", "2")
    pid = re.search(r"pid ([0-9]+)", up.stdout)[1]
    again = dgmp(nobody, "up")
    assert again.returncode == 5 and pid in again.stderr
    status = json.loads(dgmp(nobody, "status", "--json").stdout)
    assert (status["schema"], status["pid"], status["cpus"]["total"]) == ("dgmp.status/1", int(pid), 2)
    assert f"pid {pid}" in dgmp(nobody, "status").stdout
    job = submitted(nobody, "while [ ! -e go ]; do sleep 0.01; done")
    assert eventually(lambda: shown(nobody, job)["state"] == "running")
    assert re.search(rf"^{job}\.0 +[0-9]+ ", dgmp(nobody, "status").stdout, re.M)
    late = dgmp(nobody, "down", "--timeout", "0.1s")
    assert late.returncode == 124 and "waiting for 1 running task" in late.stderr
    assert "going down" in dgmp(nobody, "status").stdout
    assert dgmp(nobody, "submit", "true").returncode == 5
    (nobody.work / "go").touch()
    assert dgmp(nobody, "down").returncode in (0, 3)  # it may be down already
    assert dgmp(nobody, "up").returncode == 0 and shown(nobody, job)["state"] == "finished"
    assert dgmp(nobody, "down", "--now").stdout == "the dgmp daemon is down\n"
    assert eventually(lambda: not nobody.processes())


def waiting_for(seconds):
    """The same program, which waits so long for the next daemon."""
    code = f"import sys; from dgmp.cli import main, talk; talk.SUCCESSION_SECONDS = {seconds}; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", code]


def test_a_daemon_that_dies_while_it_is_waited_for(nobody):
    pid = int(re.search("pid ([0-9]+)", dgmp(nobody, "up").stdout)[1])
    job = submitted(nobody, "sleep", "1000")
    with subprocess.Popen([*waiting_for(0.1), "wait", job], env={**os.environ, **nobody.env}, stderr=subprocess.PIPE,
                          text=True) as waiter:
        assert eventually(lambda: connected(waiter.pid))
        os.kill(pid, signal.SIGKILL)
        assert "the dgmp daemon has ended before it answered" in waiter.communicate(timeout=60)[1] and waiter.returncode == 3


def test_waiting_goes_on_with_the_next_daemon(nobody):
    pid = int(re.search("pid ([0-9]+)", dgmp(nobody, "up").stdout)[1])
    job = submitted(nobody, "while [ ! -e go ]; do sleep 0.01; done; exit 1")
    with subprocess.Popen([*waiting_for(60), "wait", job], env={**os.environ, **nobody.env}, stderr=subprocess.PIPE,
                          text=True) as waiter:
        assert eventually(lambda: connected(waiter.pid))
        assert eventually(lambda: shown(nobody, job)["state"] == "running")
        os.kill(pid, signal.SIGKILL)
        assert dgmp(nobody, "up").returncode == 0
        (nobody.work / "go").touch()
        assert waiter.communicate(timeout=60)[1].startswith(f"dgmp: job {job} (while) has failed") and waiter.returncode == 1


def test_following_goes_on_with_the_next_daemon(nobody):
    pid = int(re.search("pid ([0-9]+)", dgmp(nobody, "up").stdout)[1])
    job = submitted(nobody, "echo begun; while [ ! -e go ]; do sleep 0.01; done; echo done; echo err >&2")
    with subprocess.Popen([*waiting_for(60), "logs", "-f", job], env={**os.environ, **nobody.env}, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as follower:
        assert follower.stdout.readline() == "begun\n"
        os.kill(pid, signal.SIGKILL)
        (nobody.work / "go").touch()
        assert dgmp(nobody, "up").returncode == 0
        assert follower.communicate(timeout=60) == ("done\n", "err\n") and follower.returncode == 0


@pytest.mark.parametrize("said,meant", [("last", (7, 7)), ("all", (1, 7)), ((3, 4), (3, 4))])
def test_what_is_waited_for_stays_the_same_for_the_next_daemon(said, meant):
    class Client:
        def jobs(self, limit):
            return {"jobs": [{"id": 7}]}

    assert pinned(Client(), Select(said, Ranges([(1, 2)]))) == Select(meant, Ranges([(1, 2)]))


def connected(pid):
    """Whether it has found the daemon, and watches it."""
    try:
        return any("pidfd" in os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))
    except FileNotFoundError:  # one was closed meanwhile
        return False


# ---------------------------------------------------------------- on a terminal
def on_terminal(node, *words, columns=100, program=DGMP, **env):
    return Terminal([*program, *words], env={**os.environ, **node.env, "TERM": "xterm", **env}, columns=columns, cwd=node.work)


def test_attach_shows_progress_and_the_exit_code(node):
    job = submitted(node, "--name", "bars", "--array", "1-4",
                    "while [ ! -e go-$DGMP_TASK_ID ]; do sleep 0.01; done; [ $DGMP_TASK_ID != 2 ]")
    with on_terminal(node, "attach", job) as terminal:
        terminal.until(rf"job {job} bars \[-+\] 0/4, 2 running")
        for task in (1, 2, 3):
            (node.work / f"go-{task}").touch()
        terminal.until(r"\[#{18}-{6}\] 3/4, .*1 failed")
        (node.work / "go-4").touch()
        assert terminal.end() == 1
    assert f"job {job} (bars) has failed: of 4 tasks" in terminal.text


def test_ctrl_c_detaches(node):
    job = submitted(node, "while [ ! -e gone ]; do sleep 0.01; done")
    with on_terminal(node, "attach", "last") as terminal:
        terminal.until("0/1, 1 running")
        terminal.type("\x03")
        assert terminal.end() == 130
    assert f"dgmp: detached; the jobs go on (`dgmp attach {job}` follows them again)" in terminal.text
    assert "Traceback" not in terminal.text and shown(node, job)["state"] == "running"
    (node.work / "gone").touch()
    with on_terminal(node, "attach", job) as terminal:
        assert terminal.end() == 0


def test_attach_goes_on_with_the_next_daemon(nobody):
    pid = int(re.search("pid ([0-9]+)", dgmp(nobody, "up").stdout)[1])
    job = submitted(nobody, "--array", "1-2", "while [ ! -e go-$DGMP_TASK_ID ]; do sleep 0.01; done")
    with on_terminal(nobody, "attach", program=waiting_for(60)) as terminal:
        terminal.until("0/2, 2 running")
        os.kill(pid, signal.SIGKILL)
        assert dgmp(nobody, "up").returncode == 0
        (nobody.work / "go-1").touch()
        terminal.until("1/2, ")
        (nobody.work / "go-2").touch()
        assert terminal.end() == 0
    assert terminal.text.count(f"job {job} (while) has finished") == 1


@pytest.mark.parametrize("words", [["wait"], ["logs", "-f"]])
def test_ctrl_c_ends_what_waits_and_not_the_job(node, words):
    job = submitted(node, "echo begun; sleep 1000")
    with on_terminal(node, *words, job) as terminal:
        assert eventually(lambda: connected(terminal.process.pid))
        terminal.type("\x03")
        assert terminal.end() == -signal.SIGINT and "Traceback" not in terminal.text
    assert dgmp(node, "cancel", job).stdout != "nothing to cancel: nothing of it waits or runs\n"


def test_attach_without_a_terminal_prints_lines(node):
    job = ran(node, "--name", "plain", "true")
    done = dgmp(node, "attach", job)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"job {job} (plain) has finished\n", "")


@pytest.mark.parametrize("columns", [60, 200])
def test_tables_on_a_terminal(node, columns):
    job = ran(node, "--name", "t", "true", *map(str, range(100)))
    with on_terminal(node, "jobs", job, columns=columns) as terminal:
        assert terminal.end() == 0
    lines = terminal.text.splitlines()
    assert len(lines) == 2 and all(len(line) <= columns for line in lines) and "…" in lines[1]


def test_tables_without_rich(node, tmp_path):
    (tmp_path / "rich.py").write_text("raise ImportError('not here')\n")
    job = ran(node, "--name", "t", "true", *map(str, range(100)))
    with on_terminal(node, "jobs", job, columns=80, PYTHONPATH=str(tmp_path)) as terminal:
        assert terminal.end() == 0
    lines = terminal.text.splitlines()
    assert lines[0].startswith("ID ") or lines[0].lstrip().startswith("ID ") and len(lines[1]) <= 80 and lines[1].endswith("…")
    assert "\x1b" not in terminal.raw


def test_rich_is_not_imported_for_a_pipe(node):
    code = "import sys; from dgmp.cli import main; main(['jobs']); print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **node.env}, capture_output=True, text=True,
                          timeout=60)
    assert done.stdout.splitlines()[-1] == "False"


# ---------------------------------------------------------------- what is documented
def test_the_page_of_the_command_line_is_current():
    path = Path(package.__file__).parent.parent / "docs" / "cli.md"
    assert path.read_text() == page(), "say python -m dgmp.cli.reference > docs/cli.md"


def documented(heading):
    """The fields of a table in docs/json.md."""
    text = (Path(package.__file__).parent.parent / "docs" / "json.md").read_text()
    table = text.split(f"\n## {heading}\n")[1].partition("\n## ")[0]
    return {field for row in re.findall(r"^\| (`.*?`) \|", table, re.M) for field in re.findall("`(.*?)`", row)}


def test_json_is_as_documented(node):
    job = ran(node, "--array", "1-3", "exit $((DGMP_TASK_ID == 2))")

    def printed(*words):
        document = json.loads(dgmp(node, *words, "--json").stdout)
        known = documented(document["schema"])
        assert set(document) <= known
        return document, known

    jobs, known = printed("jobs", job)
    assert set(jobs) == known and set(jobs["jobs"][0]) == documented("job")
    assert set(jobs["counts"]) | {"waiting"} <= {"waiting", "running", "finished", "failed", "cancelled", "aborted"}
    show, known = printed("show", "--tasks", job)
    assert set(show) == known and set(show["jobs"][0]) == documented("job") | documented("job, shown")
    tasks = show["jobs"][0]["tasks"] + show["jobs"][0]["failures"]
    assert {frozenset(task) for task in tasks} == {frozenset(documented("task"))}
    submit = json.loads(dgmp(node, "submit", "--json", "true").stdout)
    assert set(submit) == documented(submit["schema"])
    for words in (["cancel", job], ["retry", "--cancelled", job], ["status"], ["forget", "--aborted", job]):
        document, known = printed(*words)
        assert set(document) == known


def test_every_verb_has_examples_that_are_command_lines():
    for name, verb in verbs().items():
        assert re.search(rf"(^|\W)dgmp {name}\b", verb.examples), name
        lines = verb.examples.partition("\n\n")[0].removeprefix("examples:\n")
        assert subprocess.run(["bash", "-n", "-c", lines]).returncode == 0, name


def test_streams_that_are_closed_or_know_few_letters(node):
    job = ran(node, "--name", "é…", "true")
    assert shell(node, f"dgmp jobs {job} >&-; echo $?; dgmp jobs 999999 2>&-; echo $?").stdout == "0\n4\n"
    done = dgmp(node, "jobs", job, PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and "\\xe9\\u2026" in done.stdout
