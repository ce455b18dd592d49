"""Replacement strings, and how values are written for a shell: what a real one makes of them."""

import os
import shutil
import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dgmp.jobs import shell
from dgmp.jobs.command import Draft, Job
from dgmp.jobs.template import Template

SHELLS = sorted({os.path.realpath(path) for path in map(shutil.which, ("sh", "bash", "dash", "zsh", "ksh")) if path})
values = st.text(st.characters(codec="utf-8", exclude_characters="\0")
                 | st.sampled_from("'\"\\$`\n !#*~{}()-=;&|<>\udc80\udcff"))

# Where a value stands, and what is done to it there.
PLACES = [
    ("printf '%s\\0' {}", ""),
    ("printf '%s\\0' a{}b", "ab"),
    ('printf "%s\\0" "a{}b"', "ab"),
    ("printf '%s\\0' 'a{}b'", "ab"),
    ("printf '%s\\0' 'it'\\''s '{}", "it's +"),
    ("printf '%s\\0' \"$(printf %s {}; echo .)\"", "."),
    ("printf '%s\\0' \"$(printf %s \"x{}y\")\"", "xy"),
    ("printf '%s\\0' \"`printf %s {}; echo .`\"", "."),
    ("printf '%s\\0' `printf '%s\\n' {} | wc -l`", "lines"),
    ("sh -c \"printf '%s\\\\0' {}\"", ""),
    ("sh -c 'printf \"%s\\0\" {}'", ""),
    ("sh -c 'printf \"%s\\0\" \"a{}b\"'", "ab"),
    ("sh -c \"printf '%s\\\\0' 'a{}b'\"", "ab"),
    ("sh -ec \"printf '%s\\\\0' \\\"a{}b\\\"\"", "ab"),
    ("eval \"printf '%s\\\\0' {}\"", ""),
    (": # don't\nprintf '%s\\0' {}", ""),
    (": $# ${#} \\' \\\" \"it's\"; printf '%s\\0' \"a{}b\"", "ab"),
    ("(printf '%s\\0' {})", ""),
]


IN_NO_WAY = ["cat <<EOF\n{}\nEOF\n", "cat <<-'E'; echo\na {}\n\tE\n", "cat << \\E >x\nb\n{}", "sh -c 'cat <<X\n{}\nX'"]
AFTER_ALL = ["cat <<EOF\nit's\nEOF\nprintf '%s\\0' {}", "cat <<< x >/dev/null; printf '%s\\0' {}",
             ": $((1<<2)) ; printf '%s\\0' {}", ": '<<E'\n printf '%s\\0' {}", "cat <<A <<'B'\n'\nA\n\"\nB\nprintf '%s\\0' {}"]


def draft(template, *values, seq=1):
    return Draft(Job(template, "/"), seq, (values,))


def expected(value, how):
    if how == "lines":
        return str(value.count("\n") + 1)
    if how == ".":
        return value + "."
    if how.endswith("+"):
        return how[:-1] + value
    return how[:1] + value + how[1:]


@pytest.mark.parametrize("path", SHELLS)
def test_a_value_arrives_wherever_it_stands(path):
    @given(values)
    @example("")
    @example("-n")
    @example("'")
    @example("\\")
    @example("$(exit 1)`exit 1`$HOME")
    @example("a\n")
    def check(value):
        lines = [Template(place).line(draft(None, value), 1) for place, _ in PLACES]
        done = subprocess.run([path, "-c", os.fsencode("\n".join(lines))], capture_output=True, timeout=60)
        assert done.stderr == b""
        assert done.stdout.split(b"\0")[:-1] == [os.fsencode(expected(value, how)) for _, how in PLACES]

    check()


@pytest.mark.parametrize("text", IN_NO_WAY)
def test_no_value_can_stand_in_a_here_document(text):
    with pytest.raises(shell.Unquotable):
        Template(text)


@pytest.mark.parametrize("text", AFTER_ALL)
def test_what_comes_after_a_here_document(text):
    line = Template(text).line(draft(None, "$(a) 'b"), 1)
    done = subprocess.run([shutil.which("bash") or "sh", "-c", line], capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n")[-1] == "$(a) 'b\0" and done.stderr == ""


@given(values, values)
def test_words_are_what_the_line_is_to_a_shell(one, other):
    """With and without a shell a program gets the same."""
    for text in ("printf %s\\0 {} x{1}y {2}", "printf %s\\0 {.} {/} {//}", "printf %s\\0 {}{} {3} z"):
        template = Template(text.replace("\\0", "@"))
        it = draft(template, one, other)
        argv = template.argv(it, 1)
        assert argv[0] == "printf"
        done = subprocess.run(["sh", "-c", os.fsencode(f"p() {{ printf '%s\\0' \"$@\"; }}\np {template.line(it, 1)}")],
                              capture_output=True, timeout=60)
        assert done.stdout.split(b"\0")[:-1] == list(map(os.fsencode, argv))


@pytest.mark.parametrize("text,needs", [
    ("true {}", False), ("/bin/true {} a=b x%y", False), ("true  {}  {} ", False), ("{}", False),
    ("true {} | cat", True), ("true '{}'", True), ("cd {}", True), ("A=1 true {}", True), ("true $HOME {}", True),
    ("true *.c {}", True), ("true ~ {}", True), ("true {}\ntrue", True), ("no_such_command {}", True), ("true {} #", True),
    ("true {a,b}", True), ("if true", True), ("time true", True), ("true {} &", True), ("! true", True),
])
def test_when_a_shell_is_needed(text, needs):
    argv = Template(text).argv(draft(None, "true"), 1)
    assert (argv[1:2] == ["-c"]) is needs


def test_what_a_program_says_of_itself_the_shell_does_not():
    assert Template("echo {}").argv(draft(None, "--help"), 1)[1] == "-c"
    assert Template("echo {}").argv(draft(None, "--helpful"), 1) == ["echo", "--helpful"]


def test_exported_functions_of_bash_are_its_own(monkeypatch):
    monkeypatch.setenv("BASH_FUNC_true%%", "() { echo; }")
    shell.is_program.cache_clear()
    try:
        assert Template("true {}").argv(draft(None, "a"), 1)[1] == "-c"
    finally:
        shell.is_program.cache_clear()


@pytest.mark.parametrize("value,without,base,folder,both", [
    ("a/b.c", "a/b", "b.c", "a", "b"), ("a.b/c", "a.b/c", "c", "a.b", "c"), (".x", "", ".x", ".", ""),
    ("/x.tar.gz", "/x.tar", "x.tar.gz", "/", "x.tar"), ("", "", "", ".", ""), ("a/", "a/", "", ".", ""),
    ("/", "/", "", "/", ""), ("a\nb.c\nd", "a\nb", "a\nb.c\nd", ".", "a\nb"),
])
def test_parts_of_paths(value, without, base, folder, both):
    template = Template("true {.} {/} {//} {/.}")
    assert template.argv(draft(template, value), 1) == ["true", without, base, folder, both]


def test_names_of_columns():
    template = Template("true {name} {2020/} {n/a.} {} {nothing}", ["name", "2020", "n/a"], quoted=False)
    line = template.line(draft(template, "x y", "a/b", "c.d"), 1)
    assert line == "true 'x y' b c 'x y' a/b c.d {nothing}"


def test_the_slot_is_known_last():
    template = Template("true {%} {#}")
    it = draft(template, "a", seq=7)
    assert it.text == "true {%} 7"
    assert it.command(3).argv == ["true", "3", "7"] and it.command(3).text == "true 3 7"


def test_the_key_is_of_template_inputs_and_folder():
    def key(text="true {}", folder="/", seq=1, inputs=("a", "b")):
        return Draft(Job(Template(text), folder), seq, (inputs,)).key

    assert key() == key(seq=2)
    assert len({key(), key(text="true  {}"), key(folder="/tmp"), key(inputs=("ab",)), key(inputs=("a", "b", ""))}) == 5


def test_quoted_words_are_passed_on_as_they_are():
    template = Template(["printf", "$x", "a  b", "p{}q"], quoted=True)
    assert template.argv(draft(template, "c d"), 1) == ["printf", "$x", "a  b", "pc dq"]
    assert template.line(draft(template, "c d"), 1) == "printf '$x' 'a  b' 'pc dq'"


def test_words_are_repeated_for_each_record():
    template = Template("true x{1}-{2} {#} {}", repeat=True)
    it = Draft(Job(template, "/"), 5, (("a", "b"), ("c", "d")))
    assert template.argv(it, 1) == ["true", "xa-b", "xc-d", "5", "a", "b", "c", "d"]


@pytest.mark.parametrize("environ,found", [
    ({"PARALLEL_SHELL": "/some/shell"}, "/some/shell"),
    ({"SHELL": "/bin/sh"}, None),
    ({"SHELL": "/usr/bin/fish"}, None),
])
def test_which_shell(monkeypatch, environ, found):
    for name in ("SHELL", "PARALLEL_SHELL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    shell.shell.cache_clear()
    try:
        path = shell.shell()
        assert path == found if found else os.path.basename(path) in shell.SHELLS
    finally:
        shell.shell.cache_clear()
