"""`dgmp submit [options] -- cmd…`: gives the daemon a job, and prints its id."""

from __future__ import annotations

import argparse
import os
import re
import sys
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..jobs.amounts import duration, size
from ..jobs.protocol import ProtocolError, Select, bad
from ..jobs.ranges import Ranges
from ..jobs.selectors import selection, task_ids
from . import talk

if TYPE_CHECKING:
    from ..jobs.client import Client

SHELLS = ("sh", "ash", "bash", "csh", "dash", "fish", "ksh", "mksh", "rbash", "tcsh", "zsh")
TAKES_VALUE = re.compile(r"[-+][A-Za-z]*[oO]|--rcfile|--init-file")  # of a shell's options
RUNS_A_LINE = re.compile(r"-[A-Za-z]*c[A-Za-z]*")
SHELL_SYNTAX = re.compile(r"""[\s$`"'\\|&;<>()*?\[\]#~=%!{}]""")
DESCRIPTION = """
Gives the daemon a job and prints its id.  The command runs in this folder with this environment, without a shell; a command
that is one word with shell syntax in it (quotes, spaces, $, |, *) is a line for sh.  Each task has DGMP_JOB_ID, DGMP_TASK_ID,
DGMP_ATTEMPT, DGMP_SLOT and DGMP_CPUS in its environment."""
EXAMPLES = """
dgmp submit -- make -C /src test                               # prints the job's id
dgmp submit 'sort big.txt | uniq -c > counts.txt'              # a line of shell, in quotes
dgmp submit --array 1-1000 'render --frame $DGMP_TASK_ID'      # a thousand tasks
dgmp submit --each-line files.txt -- gzip -9 {}                # a task for each line
dgmp submit --name report --after-ok 5,6 -- ./report.sh        # if jobs 5 and 6 have finished
dgmp submit --cpus 4 --mem 2G --timeout 1h --retries 2 -- ./train --fast
dgmp submit --py statistics:mean '[1, 2, 3]'                   # a Python function
dgmp submit --wait -- ./check.sh && echo good                  # waits for its end
"""


def whole(text: str) -> int:
    """The number of an option; one that no message can hold is refused here."""
    try:
        value = int(text)
    except ValueError:
        raise ValueError(f"{text!r} is no whole number") from None
    if abs(value) >= 1 << 63:
        raise ValueError(f"{text!r} is too large")
    return value


def whole_jobs(text: str) -> list[Select]:
    """What --after says."""
    chosen = selection(text)
    if any(select.tasks is not None for select in chosen):
        raise ValueError(f"{text!r} names tasks: a job comes after whole jobs")
    return chosen


def add_parser(verbs: Any) -> None:
    """The options, for the help, docs/cli.md and completion; main() reads the command line."""
    parser = talk.verb_parser(verbs, "submit", DESCRIPTION, EXAMPLES)
    parser.usage = "dgmp submit [options] [--] cmd …\n       dgmp submit [options] --py module:function [args …]"
    add = parser.add_argument
    add("--name", help="the job's name in lists (default: the command's)")
    add("--array", metavar="IDS", type=talk.argument(task_ids), action="append",
        help="a task for each of these numbers: 1-1000, 0-100:5, 1,3,7")
    add("--each-line", metavar="FILE",
        help="a task for each line of this file (- is standard input), which has it in DGMP_ENTRY and for {} in the command")
    add("--after", metavar="JOBS", type=talk.argument(whole_jobs), action="append", default=[],
        help="start once these jobs have ended, however; ids, or last")
    add("--after-ok", metavar="JOBS", type=talk.argument(whole_jobs), action="append", default=[],
        help="start once these jobs have finished; if one does not, this one is aborted")
    add("--retries", metavar="N", type=talk.argument(whole), help="run a task that failed again, up to N times")
    add("--timeout", metavar="TIME", type=talk.argument(duration),
        help="end a task that runs longer: 90, 10m, 1h30m; it has failed")
    add("--cpus", metavar="N", type=talk.argument(cpus),
        help="cores that a task holds, and is bound to (without: one, not bound)")
    add("--mem", metavar="SIZE", type=talk.argument(size), help="memory that a task holds: 512M, 2G")
    add("--resource", metavar="NAME=N", type=talk.argument(resource), action="append", default=[],
        help="a named resource that a task holds, such as gpu=1")
    add("--priority", metavar="N", type=talk.argument(whole),
        help="higher ones start first (default 0); of equal ones the earlier job")
    add("--on-lost", choices=("rerun", "fail"),
        help="a task whose end nobody saw, as after a power failure, is run again (default), or fails")
    add("--env", metavar="NAME=VALUE", type=talk.argument(variable), action="append", default=[],
        help="a variable for the command, besides those of this shell")
    add("--cwd", metavar="DIR", help="the folder to run in (default: this one)")
    add("--stdout", metavar="FILE",
        help="append the output to this file; {job}, {task} and {attempt} in its name are replaced")
    add("--stderr", metavar="FILE", help="the same for the error output")
    add("--py", action="store_true",
        help="run a Python function; its arguments are JSON, or else strings; name=value is one by name")
    add("--wait", action="store_true", help="wait until it has ended; the exit code is that of `dgmp wait`")
    talk.add_json(parser)
    parser.add_argument("command", nargs="*", metavar="cmd", help="the command and its arguments")


def main(words: list[str]) -> int:
    """Reads the options, up to the first word that is none; the rest is the command, as it stands."""
    verbs = argparse.ArgumentParser(prog="dgmp").add_subparsers()
    add_parser(verbs)
    parser = verbs.choices["submit"]
    end = end_of_options(parser, words)
    options = parser.parse_args(words[:end])
    options.command = words[end + 1:] if words[end:end + 1] == ["--"] else words[end:]
    if options.py and ":" not in (options.command or [""])[0]:
        parser.error("there is no function: say dgmp submit --py module:function")
    if not options.command:
        parser.error("there is no command")
    options.array = Ranges(chain(*(ids.ranges for ids in options.array))) if options.array else None
    code: int = act(options)
    return code


def end_of_options(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Where the command begins: at `--`, or the first word that is neither an option nor an option's value."""
    takes_value = {name for action in parser._actions for name in action.option_strings if action.nargs is None}
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] not in ("-", "--"):
        at += 2 if words[at] in takes_value else 1
    return min(at, len(words))


@talk.talks
def act(client: Client, options: Any) -> int:
    fields = spec(client, options)
    tasks = len(options.array or [0])
    if options.each_line is not None:
        check_places(command(options.command))
        fields["entries"], lines = entries(client, options.each_line)
        tasks = tasks if options.array else lines
    try:
        job = submit(client, options, fields)
    except (ProtocolError, KeyboardInterrupt):
        if "entries" in fields:
            client.drop_entries(fields["entries"])
        raise
    if options.json:
        talk.print_json("dgmp.submit/1", job=job, tasks=tasks)
    else:
        print(job, flush=True)
    return waited(client, job, options.json) if options.wait else talk.OK


def submit(client: Client, options: Any, fields: dict[str, Any]) -> int:
    """The job's id."""
    if options.py:
        target, *args = options.command
        return client.submit_function(target, args, **fields)
    return client.submit(command(options.command), **fields)


def entries(client: Client, path: str) -> tuple[int, int]:
    """The lines of a file, as the daemon has them now: their id, and how many they are."""
    if path == "-":
        if sys.stdin is None:
            raise bad("cannot read standard input: it is closed")
        return client.entries(sys.stdin.buffer, "standard input")
    try:
        with open(path, "rb") as file:
            return client.entries(file, path)
    except OSError as e:
        raise bad(f"cannot read {path}: {e.strerror}") from None


def check_places(words: list[str]) -> None:
    """An entry is never written into a line of shell; it may be one of the words that follow it."""
    for at, word in enumerate(words):
        if os.path.basename(word) in SHELLS and "{}" in line_of_shell(words[at + 1:]):
            raise bad('an entry is not written into a line of shell, where it might be taken for more than data: say '
                      '"$DGMP_ENTRY" there instead of {}')


def line_of_shell(words: list[str]) -> str:
    """What a shell with these arguments runs as a line; of a file of them, or none, it is empty.

    Example:
        >>> line_of_shell(["-eo", "pipefail", "-c", "rm $1", "_", "{}"]), line_of_shell(["script", "-c", "{}"])
        ('rm $1', '')
    """
    runs_one, rest = False, iter(words)
    for word in rest:
        if not word.startswith(("-", "+")) or word in ("-", "--"):
            line = next(rest, "") if word in ("-", "--") else word
            return line if runs_one else ""
        runs_one = runs_one or RUNS_A_LINE.fullmatch(word) is not None
        if TAKES_VALUE.fullmatch(word):
            next(rest, "")
    return ""


def waited(client: Client, job: int, as_json: bool) -> int:
    from ..jobs.client import select

    jobs = client.wait([select(job)])
    if as_json:
        talk.print_json("dgmp.jobs/1", jobs=jobs)
    return talk.verdict(jobs)


def command(words: list[str]) -> list[str]:
    """What to execute: these words, or a shell with the one word that is a line for it.

    Example:
        >>> command(["sort", "a b"]), command(["sort a | uniq"])
        (['sort', 'a b'], ['/bin/sh', '-c', 'sort a | uniq'])
    """
    if len(words) == 1 and SHELL_SYNTAX.search(words[0]) and not os.path.isfile(words[0]):
        return ["/bin/sh", "-c", words[0]]
    return words


def spec(client: Client, options: Any) -> dict[str, Any]:
    """The fields of protocol.JobSpec that the options say."""
    try:
        cwd = os.path.abspath(options.cwd or os.getcwd())
    except FileNotFoundError:
        raise bad("the folder that this shell is in is not there any more: say --cwd") from None
    if not os.path.isdir(cwd):
        raise bad(f"there is no folder {cwd}")
    fields = {
        "name": options.name or (first_word(options.command[0]) if not options.py else None),
        "array": None if options.array is None else options.array.pack(), "after": talk.job_ids(client, options.after),
        "after_ok": talk.job_ids(client, options.after_ok),
        "retries": options.retries, "timeout": options.timeout, "cpus": options.cpus, "mem": options.mem,
        "resources": dict(options.resource), "priority": options.priority, "on_lost": options.on_lost,
        "cwd": cwd, "env": {**os.environ, **dict(options.env)}, "umask": umask(),
        "stdout": output(options.stdout, cwd), "stderr": output(options.stderr, cwd),
    }
    return {name: value for name, value in fields.items() if value not in (None, [], {})}


def first_word(text: str) -> str:
    """What a job is called after: the command's own name."""
    words = text.split()
    return os.path.basename(words[0]) if words else text


def output(path: str | None, cwd: str) -> str | None:
    return None if path is None else os.path.join(cwd, path)


def umask() -> int:
    """This process's; reading it is setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def resource(text: str) -> tuple[str, int]:
    """What --resource says."""
    from ..jobs.resources import amount

    name, _, number = text.partition("=")
    units = amount("--resource", text, name, number)
    if units < 1:
        raise ValueError(f"{text!r} is nothing: leave it out")
    return name, units


def cpus(text: str) -> int:
    """What --cpus says."""
    if (number := whole(text)) < 1:
        raise ValueError(f"{text!r}: give a whole number of at least 1")
    return number


def variable(text: str) -> tuple[str, str]:
    """What --env says."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError(f"{text!r} is no variable: say NAME=VALUE")
    return name, value
