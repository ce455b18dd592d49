"""dgmp.jobs.process: what a command gets, how it ends, what cannot be run, the signals that end it."""

import os
import signal
import time

import pytest

from dgmp.jobs.netpoll import wait
from dgmp.jobs.process import CannotRun, Environment, Process, term_sequence

READ = 1  # POLLIN


def ended(process):
    assert wait(process.pidfd, READ, 60)
    assert process.reap(time.monotonic())
    return process


def run(argv, environment=None, **settings):
    process = Process(None, 1)
    process.begun = time.monotonic()
    process.start(argv, environment or Environment(), **settings)
    return process


def output(argv, environment=None, **settings):
    read, write = os.pipe()
    try:
        process = run(argv, environment, stdout=write, **settings)
    finally:
        os.close(write)
    with os.fdopen(read, "rb") as file:
        text = file.read()
    return ended(process).exitval, text


def test_arguments_and_variables_are_bytes_as_they_came():
    odd = os.fsdecode(b"\xff 'quo\"te\n$(x)")
    environment = Environment({"PATH": os.environ["PATH"], "ODD": odd})
    code, text = output(["sh", "-c", 'printf "%s|%s|%s" "$1" "$ODD" "$MORE"', "sh", odd], environment,
                        variables=[b"MORE=\xfe"])
    assert (code, text) == (0, os.fsencode(odd) + b"|" + os.fsencode(odd) + b"|\xfe")


def test_it_runs_in_its_folder_and_group_with_its_niceness(tmp_path):
    code, text = output(["sh", "-c", "pwd; cat /proc/$$/stat"], cwd=str(tmp_path), nice=3)
    folder, stat = text.decode().split("\n", 1)
    fields = stat.split()
    assert (code, folder, fields[0]) == (0, str(tmp_path), fields[4])
    assert int(fields[18]) == min(19, os.nice(0) + 3)


def test_it_has_no_descriptors_of_ours():
    with open(os.devnull) as ours:
        assert ours.fileno() > 2
        _, text = output(["sh", "-c", f"ls /proc/$$/fd | grep -cx {ours.fileno()}"])
    assert text == b"0\n"


def test_how_it_ends():
    assert (ended(run(["sh", "-c", "exit 7"])).exitval, ended(run(["sh", "-c", "kill -KILL $$"])).signal) == (7, 9)
    process = ended(run(["sh", "-c", "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done"]))
    assert process.seconds > 0 and process.user_seconds > 0


def test_its_end_is_told_once_and_is_not_there_before():
    process = run(["sleep", "60"])
    assert not process.reap(time.monotonic())
    process.send(signal.SIGKILL)
    assert (ended(process).signal, process.pidfd) == (signal.SIGKILL, -1)
    process.send(signal.SIGKILL)  # to nobody


@pytest.mark.parametrize(("argv", "exitval", "says"), [
    (["no-such-command"], 127, "no-such-command: command not found"),
    (["/no/such/command"], 127, "/no/such/command: No such file or directory"),
    (["/etc/passwd"], 126, "/etc/passwd: Permission denied"),
    (["/etc"], 126, "/etc: Permission denied"),
    ([""], 127, ": command not found"),
    ([], 127, "an empty command: nothing to run"),
    (["true", "x" * 5_000_000], 126, "true: Argument list too long"),
    (["true", "a\0b"], 126, "true: a NUL is in its arguments or variables, which no command can be given"),
])
def test_what_cannot_be_run_ends_as_a_shell_would_end_it(argv, exitval, says):
    with pytest.raises(CannotRun) as caught:
        run(argv)
    assert (caught.value.exitval, str(caught.value)) == (exitval, says)


def test_a_folder_that_is_not_there():
    with pytest.raises(CannotRun, match="true: cannot go to its folder /nowhere: No such file"):
        run(["true"], cwd="/nowhere")


def test_a_script_without_an_interpreter_is_the_shells(tmp_path):
    (tmp_path / "script").write_text("echo $0 $1; exit 4\n")
    (tmp_path / "script").chmod(0o755)
    environment = Environment({"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert output(["script", "x"], environment) == (4, f"{tmp_path}/script x\n".encode())


def test_an_interpreter_that_is_missing(tmp_path):
    (tmp_path / "script").write_text("#!/no/such/interpreter\n")
    (tmp_path / "script").chmod(0o755)
    with pytest.raises(CannotRun, match="its interpreter is missing") as caught:
        run([str(tmp_path / "script")])
    assert caught.value.exitval == 126


def test_a_program_is_looked_for_again_when_it_has_moved(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        (folder / "it").write_text(f"#!/bin/sh\necho {folder.name}\n")
        (folder / "it").chmod(0o755)
    environment = Environment({"PATH": f"{first}:{second}"})
    assert output(["it"], environment)[1] == b"first\n"
    (first / "it").unlink()
    assert output(["it"], environment)[1] == b"second\n"


def test_a_file_that_is_no_program_is_passed_over(tmp_path):
    (tmp_path / "true").write_text("")
    assert output(["true"], Environment({"PATH": f"{tmp_path}:/usr/bin:/bin"}))[0] == 0
    with pytest.raises(CannotRun, match="Permission denied") as caught:
        run(["true"], Environment({"PATH": str(tmp_path)}))
    assert caught.value.exitval == 126


def test_the_term_sequence():
    assert term_sequence("TERM,200,KILL,25") == [(signal.SIGTERM, 0.2), (signal.SIGKILL, 0.025)]
    assert term_sequence("sigint,10, 9") == [(signal.SIGINT, 0.01), (signal.SIGKILL, 0.0)]
    for nonsense in ("", "NOPE,1", "TERM,x", "99", "TERM,-1"):
        with pytest.raises(ValueError, match="give signals and milliseconds"):
            term_sequence(nonsense)


def test_each_signal_is_sent_when_it_is_due():
    read, write = os.pipe()
    process = run(["sh", "-c", "trap 'echo T' TERM; echo; while :; do sleep 0.01; done"], stdout=write)
    os.close(write)
    with os.fdopen(read, "rb") as out:
        assert out.readline() == b"\n"
        sequence = term_sequence("TERM,200,KILL,25")
        assert process.end(sequence, now=1000.0) == 1000.2
        assert out.readline() == b"T\n"
        assert process.end(sequence, now=1000.1) == process.step(1000.1) == 1000.2  # no second one
        assert process.step(1000.2) is None
    assert ended(process).signal == signal.SIGKILL
