"""`dgmp each` as a shell user sees it: what GNU parallel does not have, or does otherwise."""

import os
import pty
import resource
import shutil
import subprocess
import sys

import pytest

from tests.helpers import eventually

EACH = [sys.executable, "-m", "dgmp", "each"]
BASH = shutil.which("bash") or "/bin/sh"


def each(*words, stdin="", **options):
    return subprocess.run([*EACH, "-k", *words], input=stdin, capture_output=True, text=True, timeout=60, **options)


def prints(*words, **options):
    done = each(*words, **options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# -- inputs ------------------------------------------------------------------------------------------


def test_columns_of_csv_by_name(tmp_path):
    (tmp_path / "people.csv").write_text('\ufeffname,address\n"Doe, Jane",j@x\n"two\nlines","q""q"\n')
    assert prints("--csv", "--header", ":", "printf '<%s>' {address} {name}", "::::", str(tmp_path / "people.csv")) == (
        '<j@x><Doe, Jane><q"q><two\nlines>')


def test_columns_of_tsv():
    assert prints("--tsv", "--header", ":", "echo {b}{a.}", stdin="a\tb\nx.y\t1\n z\t\n") == "1x\n z\n"


def test_ranges_and_other_sources():
    assert prints("--range", "1-5:2", "echo {1}{2}", ":::", "a", "b").split() == ["1a", "1b", "3a", "3b", "5a", "5b"]
    assert prints("--array", "1,4-5", "echo").split() == ["1", "4", "5"]


def test_inputs_hold_any_byte():
    values = [bytes([byte]) for byte in range(1, 256)] + [b"a\nb", b"", b" ", b"-n"]
    for command in "printf %s, {}", "printf %s, {} | cat":
        done = subprocess.run([*EACH, "-k", "-0", command], input=b"\0".join(values) + b"\0", capture_output=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, b"".join(value + b"," for value in values))


def test_an_input_with_a_newline_is_one():
    assert prints("printf '<%s>'", ":::", "a\nb", "c") == "<a\nb><c>"


def test_a_job_starts_before_the_next_input_comes():
    with subprocess.Popen([*EACH, "-j2", "echo"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          bufsize=1) as program:
        for n in range(3):
            program.stdin.write(f"{n}\n")
            assert program.stdout.readline() == f"{n}\n"
        program.stdin.close()
        assert program.wait(60) == 0


def test_jobs_end_while_no_input_comes(tmp_path):
    with subprocess.Popen([*EACH, "-j1", "echo {}; touch", str(tmp_path / "{}")], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True, bufsize=1) as program:
        program.stdin.write("a\nb\n")
        assert [program.stdout.readline() for _ in "ab"] == ["a\n", "b\n"]
        assert eventually((tmp_path / "b").exists)
        program.stdin.close()
        assert program.wait(60) == 0


def test_an_endless_producer():
    script = f"yes | {' '.join(EACH)} -k -j2 'echo {{}}{{#}}' | head -3"
    done = subprocess.run([BASH, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("y1\ny2\ny3\n", "")


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_several_endless_sources_are_read_as_they_go():
    script = f"{' '.join(EACH)} -k echo :::: <(yes a) ::::+ <(seq 1000000000) | head -2"
    done = subprocess.run([BASH, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "a 1\na 2\n"


@pytest.mark.parametrize("words,reads", [
    (["echo"], True), (["echo", "::::", "-"], True), (["--pipe", "cat"], True), (["echo", ":::", "a"], False),
    (["echo", "--range", "1", ":::", "a"], False), (["--range", "1", "echo"], False)])
def test_who_reads_the_terminal_is_told(words, reads):
    ours, theirs = pty.openpty()
    try:
        os.write(ours, b"typed\n\x04")
        done = subprocess.run([*EACH, *words], stdin=theirs, capture_output=True, text=True, timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 0
    assert ("typed" in done.stdout, "Ctrl-D" in done.stderr) == (reads, reads)


# -- commands ----------------------------------------------------------------------------------------


EVIL = ["$(touch evil)", "`touch evil`", "'; touch evil; '", '"; touch evil; "', "\n touch evil", "& touch evil", "-n", "\\"]


@pytest.mark.parametrize("command", [
    "printf '%s\\n' {}", 'printf "%s\\n" "{}"', "printf '%s\\n' '{}'", 'printf "%s\\n" "$(printf %s {})"',
    "sh -c \"printf '%s\\\\n' {}\"", "sh -c 'printf \"%s\\n\" \"{}\"'", "eval \"printf '%s\\\\n' {}\""])
def test_no_input_is_ever_a_command(tmp_path, command):
    assert prints(command, ":::", *EVIL, cwd=tmp_path) == "".join(f"{value}\n" for value in EVIL)
    assert os.listdir(tmp_path) == []


def test_without_shell_syntax_there_is_no_shell():
    """Its parent is the launcher."""
    parent = "import os; print(open(f'/proc/{os.getppid()}/comm').read())"
    script = [sys.executable, "-c", parent]
    plain = prints("-q", *script, ":::", "a").strip()
    assert plain not in ("sh", "bash", "dash")


def test_an_empty_command_line_of_inputs():
    assert prints(stdin="echo a\n\necho b | tr b c\n") == "a\nc\n"


def test_too_long_an_argument_is_the_jobs_failure():
    done = each("echo", stdin="x" * 200_000 + "\ny\n")
    assert (done.returncode, done.stdout) == (1, "y\n")
    assert "Argument list too long" in done.stderr


def test_jobs_read_nothing():
    assert prints("cat; echo {}", ":::", "a", stdin="x") == "a\n"


def test_pipe_parts_of_a_file(tmp_path):
    (tmp_path / "numbers").write_text("".join(f"{n}\n" for n in range(1000)))
    found = prints("--pipe-part", "-a", str(tmp_path / "numbers"), "--block", "500", "cat")
    assert found == (tmp_path / "numbers").read_text()


def test_a_block_larger_than_a_pipe():
    data = os.urandom(3_000_000)
    done = subprocess.run([*EACH, "-k", "--pipe", "--block", "3M", "--recend", "", "cat"], input=data, capture_output=True,
                          timeout=60)
    assert (done.returncode, done.stdout) == (0, data)


# -- the command line --------------------------------------------------------------------------------


def test_help_says_it_all():
    done = each("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("usage:", "examples:", "exit status:", "--pipe", "--keep-order", "{/.}", ":::+"):
        assert word in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 130


@pytest.mark.parametrize("words,says", [
    (["--nonsense", "true"], "--nonsense"),
    (["-j"], "-j needs a value: N"),
    (["--keep-order=yes", "true"], "takes no value"),
    (["-kZ", "true"], "no option -Z"),
    (["--re", "3", "true"], "--recend or"),
    (["-j", "x", "true", ":::", "1"], "'x' is no number"),
    (["-n", "-1", "true", ":::", "1"], "at least 0"),
    (["--cpus", "0", "true", ":::", "1"], "at least 1"),
    (["-n", "many", "true", ":::", "1"], "--max-args 'many'"),
    (["--colsep", "(", "true", ":::", "1"], "no regular expression"),
    (["--trim", "x", "true", ":::", "1"], "--trim"),
    (["--block", "x", "--pipe", "true"], "--block"),
    (["--pipe"], "needs a command"),
    (["--pipe", "true", ":::", "1"], "with --pipe"),
    (["--pipe-part", "true"], "-a FILE"),
    (["-S", "host", "true", ":::", "1"], "by ssh"),
    (["--cat", "--pipe", "cat"], "/dev/stdin"),
    (["echo {= $_++ =}", ":::", "1"], "perl"),
    (["true", "::::", "/no/such/file"], "/no/such/file"),
    (["true", "::::", "/"], "Is a directory"),
    (["--range", "5-1", "true"], "is no range"),
    (["--csv", "true", ":::", 'a"b'], "no CSV"),
    (["--results", "x.csv", "true", ":::", "1"], "give a folder"),
    (["-s", "10", "echo {}", ":::", "0123456789"], "too long"),
    (["cat <<E\n{}\nE", ":::", "1"], "here-document"),
    (["--termseq", "TERM,x", "true", ":::", "1"], "--termseq"),
    (["--header", "(", "--pipe", "cat"], "--header"),
    (["-d", "", "true"], "--delimiter"),
])
def test_what_is_wrong_is_said(words, says):
    done = each(*words)
    assert (done.returncode, done.stdout) == (255, "")
    assert says in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("jobs", ["99999999999999999999", "9999999999", "9" * 400 + "%", "+" + "9" * 20])
def test_more_slots_than_any_machine_has_processes_for(jobs):
    assert prints("-j", jobs, "echo", ":::", "1", "2") == "1\n2\n"


def test_nicer_than_any_process_is():
    assert prints("--nice", "9" * 20, "nice; true", ":::", "1") == "19\n"


def test_a_delay_longer_than_the_clock_goes():
    words = [*EACH, "--delay", "9" * 20, "echo", ":::", "1", "2"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as one:
        assert one.stdout is not None and one.stdout.readline() == b"1\n"
        with pytest.raises(subprocess.TimeoutExpired):
            one.wait(0.5)
        one.terminate()
        assert one.communicate()[1] == b""


@pytest.mark.parametrize("most", [30, 31, 32])
def test_files_kept_for_later_jobs_keep_none_from_starting(most):
    line = f'ulimit -n {most}; exec "$0" -m dgmp each -k -j100 --range 1-30 "sleep 0.05; echo {{}}"'
    done = subprocess.run([BASH, "-c", line, sys.executable], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, [str(n) for n in range(1, 31)])


def test_inputs_that_end_badly_let_the_jobs_before_them_run():
    done = each("--csv", "echo", stdin='a\nb\n"c\n')
    assert (done.returncode, done.stdout) == (255, "a\nb\n")
    assert "a quote is not closed" in done.stderr


@pytest.mark.parametrize("words", [["--will-cite"], ["--no-notice"], ["--plain"]])
def test_what_means_nothing_here_is_let_pass(words):
    assert prints(*words, "echo", ":::", "a") == "a\n"


def test_abbreviations_and_values_that_begin_with_a_dash():
    assert prints("--keep", "--tagstr", "-x-", "-j", "-1", "echo", ":::", "a") == "-x-\ta\n"


def test_more_slots_than_cores():
    assert prints("-j0", "echo", ":::", *map(str, range(50))).split() == [str(n) for n in range(50)]
    assert prints("-j300%", "echo {%}", ":::", "a") == "1\n"


def test_commands_are_shown():
    done = each("-t", "echo", ":::", "a b")
    assert (done.returncode, done.stdout, done.stderr) == (0, "a b\n", "echo 'a b'\n")
    assert prints("-v", "echo", ":::", "a b", "c") == "echo 'a b'\na b\necho c\nc\n"


def test_dry_run_into_a_closed_pipe():
    script = f"yes | {' '.join(EACH)} --dry-run echo | head -1"
    done = subprocess.run([BASH, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("echo y\n", "")


def test_results_stay_in_their_folder(tmp_path):
    tree = tmp_path / "below" / "results"
    done = each("--results", str(tree), "--header", ":", "echo", ":::", "..", ".", "..", "a/b")
    assert done.returncode == 0
    assert [*tmp_path.iterdir(), *(tmp_path / "below").iterdir()] == [tree.parent, tree]
    assert len(list(tree.rglob("stdout"))) == 3


def test_results_of_long_inputs_have_names_of_their_own(tmp_path):
    long = ["x" * 300 + end for end in "ab"]
    done = each("--results", str(tmp_path), "echo", ":::", *long)
    assert (done.returncode, done.stderr) == (0, "")
    kept = sorted(path.read_text() for path in tmp_path.glob("1/xxx*/stdout"))
    assert kept == [f"{value}\n" for value in long]


@pytest.mark.parametrize("more", [(), ("--line-buffer",)], ids=["grouped", "line-buffer"])
def test_a_job_whose_results_can_have_no_file_fails_alone(more, tmp_path):
    log = tmp_path / "log"
    done = each(*more, "--retries", "2", "--joblog", str(log), "--results", f"{tmp_path}/{{}}/", "echo", ":::", "a",
                "x" * 300, "b")
    assert done.returncode == 1
    assert done.stderr.count("File name too long") == 2
    assert ((tmp_path / "a/stdout").read_text(), (tmp_path / "b/stdout").read_text()) == ("a\n", "b\n")
    assert sorted(line.split("\t")[6] for line in log.read_text().splitlines()[1:]) == ["0", "0", "126"]


@pytest.mark.parametrize("files", [8, 16, 24])
def test_too_few_open_files_to_start_anything(files):
    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    done = each("echo", ":::", "1", preexec_fn=few)
    assert done.returncode == 255
    assert "ulimit -n" in done.stderr


def test_an_input_with_a_nul_hints_at_null():
    done = each("echo", stdin="a\0b\nc\n")
    assert (done.returncode, done.stdout) == (1, "c\n")
    assert "NUL" in done.stderr and "--null" in done.stderr


def test_inputs_in_random_order():
    numbers = [str(n) for n in range(100)]
    said = prints("--shuf", "echo", ":::", *numbers).split()
    assert said != numbers
    assert sorted(said, key=int) == numbers


def test_the_folder_we_are_in_has_been_removed(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f'rmdir {gone}; exec {sys.executable} -P -m dgmp each --joblog {tmp_path}/log -k echo ::: a b'
    done = subprocess.run(["/bin/sh", "-c", script], cwd=gone, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a\nb\n", "")
