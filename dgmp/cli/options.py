"""The options of `dgmp each`: their table, what --help says, and how they are read.

They are read as Perl's Getopt::Long reads GNU parallel's: up to the first word that is none, values may begin with a dash,
short ones may be joined (-kj4) and long ones shortened.  argparse does some of that otherwise, and starts 10 ms later.

Called by cli.each; the table is read by cli.parsers, for completion and the reference, too.
"""

from __future__ import annotations

import os

from ..errors import DgmpError

USAGE = """\
usage: dgmp each [options] COMMAND [ARGUMENTS] ::: INPUT ...
       dgmp each [options] COMMAND [ARGUMENTS] :::: FILE ...
       ... | dgmp each [options] COMMAND [ARGUMENTS]
       ... | dgmp each --pipe [options] COMMAND [ARGUMENTS]"""
ABOUT = """
Runs the command once for each input, several at a time.  Inputs are what follows `:::`, the lines of the files that follow
`::::` (- is standard input), or else the lines of standard input, which is read as the jobs go on.  Of several sources all
combinations are made; `:::+` and `::::+` link one to the source before it.  Without a command, each input is one.

In the command these stand for the input; without any of them it is put at the end:
  {}    the input                        {#}   the job's number, from 1
  {.}   without its extension            {%}   the number of its slot, from 1 to --jobs
  {/}   without its folder               {2}, {2.}, {-1/}, ...      of the second, the last source or column
  {//}  its folder                       {name}, {name.}, ...       of the column of that name (--header :)
  {/.}  without folder and extension
Values are quoted for the shell.  A command without shell syntax is started without a shell.
"""
EXAMPLES = """
examples:
  dgmp each gzip -9 ::: *.log
  dgmp each -j4 'convert {} -resize 50% {.}_small.png' ::: *.jpg
  find . -name '*.c' -print0 | dgmp each -0 -X wc -l
  dgmp each --csv --header : 'mail -s "Hello {name}" {address} < letter' :::: people.csv
  dgmp each --joblog log --resume --retries 3 --timeout 2h ./simulate --seed {1} --size {2} ::: 1 2 3 ::: small large
  dgmp each --range 1-1000 './task {}'
  cat big | dgmp each --pipe --block 10M --keep-order grep -c needle

exit status: 0 all jobs succeeded; 1-100 so many failed; 101 more than 100 did; 255 the command line is wrong or nothing could
be run.  With --halt now: that of the job which failed.  130 after Ctrl-C, 143 after TERM.
"""


class Option:
    """One of the options below: its names, what its value is called ("": it has none), and what --help says."""

    def __init__(self, names: str, value: str = "", about: str = "", many: bool = False) -> None:
        self.names, self.value, self.about, self.many = names.split(), value, about, many

    @property
    def key(self) -> str:
        return self.names[-1].lstrip("-").replace("-", "_")


# A heading, or an option: the last of its names is the one by which the code knows it.
OPTIONS: tuple[str | Option, ...] = (
    "inputs",
    Option("-a --arg-file", "FILE", "a source of inputs, as :::: FILE", many=True),
    Option("--array --range", "RANGE", "a source of inputs: whole numbers, such as 1-1000, 0-10:2 or 1,5,7-9", many=True),
    Option("-0 --null", "", "inputs end with NUL, not with a newline"),
    Option("-d --delimiter", "TEXT", "inputs end with this; \\n, \\t, \\0, \\x2c are understood"),
    Option("-C --colsep", "REGEXP", "a line has columns, for {1}, {2}, ..., between which this matches"),
    Option("--csv", "", "a line is CSV: columns, perhaps in double quotes, with commas (or --colsep) between them"),
    Option("--tsv", "", "the columns of a line are separated by tabs"),
    Option("--header", ":", "the first line has the names of the columns, for {name}; with --pipe it is put before each block, "
                            "as are N lines with --header N, or what a regular expression matches"),
    Option("--trim", "n|l|r|lr", "take blanks off inputs: not (default; lr with --colsep), left, right, both"),
    Option("-E --eof", "TEXT", "this input is the end"),
    Option("--xapply --link", "", "link all sources: the first with the first; shorter ones begin again"),
    Option("-r --no-run-if-empty", "", "run nothing if the inputs are but blanks"),
    Option("--shuf", "", "take the inputs in random order; all are read first"),
    "what a job gets",
    Option("-n --max-args", "N", "so many inputs a job"),
    Option("-N --max-replace-args", "N", "so many inputs a job, {1} to {N}; with --pipe so many records"),
    Option("-L --max-lines", "N", "so many lines a job"),
    Option("-X --xargs-context", "", "as many inputs as a command line takes; words with {} are repeated for each"),
    Option("-m --xargs", "", "the same, but only the input itself is repeated"),
    Option("-s --max-chars", "N", "no command line longer than this (default and most: 131071)"),
    Option("-I --replace", "TEXT", "use this instead of {}"),
    Option("--plus", "", "more replacement strings: {..} {...} {/..} {/...} without two or three extensions, {+/} the folder "
                         "or nothing, {+.} {+..} {+...} the extension, or two, or three"),
    Option("-q --quote", "", "pass the words of the command on as they are: nothing in them means anything to a shell"),
    "standard input cut into pieces",
    Option("--spreadstdin --pipe", "", "each job gets a block of standard input on its own"),
    Option("--pipepart --pipe-part", "", "the same, of the file that -a names"),
    Option("--block-size --block", "SIZE", "how long a block is at most (default 1M); it holds whole records"),
    Option("--recstart", "TEXT", "a record begins with this"),
    Option("--recend", "TEXT", "a record ends with this (default: newline)"),
    Option("--regexp", "", "these two are regular expressions"),
    Option("--rrs --remove-rec-sep", "", "they are not passed on"),
    "output",
    Option("--group", "", "print what a job writes once it has ended (default)"),
    Option("--lb --linebuffer --line-buffer", "", "print each line as it comes"),
    Option("-u --ungroup", "", "jobs write themselves; their output may mix"),
    Option("-k --keep-order", "", "print in the order of the inputs"),
    Option("--tag", "", "begin each line with the input and a tab"),
    Option("--tag-string --tagstring", "TEXT", "begin each line with this and a tab; {} and the like are replaced"),
    Option("--res --results", "DIR", "keep what each job writes in files below this folder instead of printing it"),
    Option("-v", "", "print the command before its output"),
    Option("-t --verbose", "", "print the command on standard error as it starts"),
    Option("--dryrun --dry-run", "", "print the commands instead of running them"),
    "how they run",
    Option("-P --max-procs -j --jobs", "N", "so many at once: N, N%, +N or -N of the cores, 0: as many as possible "
                                            "(default: the cores)"),
    Option("--retries", "N", "try a job so many times"),
    Option("--timeout", "TIME", "end a job that runs longer: 30, 2m, 1h30m, or 200% of the median of those that succeeded"),
    Option("--halt-on-error --halt", "WHEN", "never, or now|soon,fail|success|done=N|N%: when to stop"),
    Option("--term-seq --termseq", "SEQ", "how a job is ended (default TERM,200,TERM,100,TERM,50,KILL,25)"),
    Option("--delay", "TIME", "so long between two starts"),
    Option("--memfree", "SIZE", "start nothing with less memory free; end the youngest job below half of it"),
    Option("--load", "N", "start nothing while the load is above N, N% of the cores"),
    Option("--nice", "N", "the jobs' niceness"),
    Option("--env", "NAME", "NAME=VALUE sets a variable; a mere NAME does nothing, as jobs have all of them", many=True),
    Option("--workdir --wd", "DIR", "run the jobs in this folder"),
    Option("--joblog", "FILE", "write a line for each job that has ended"),
    Option("--resume", "", "leave out what the joblog has"),
    Option("--resume-failed", "", "leave out what the joblog has as succeeded"),
    Option("--retry-failed", "", "run what failed according to the joblog; no command or inputs are needed"),
    Option("--bar", "", "show a bar of the progress"),
    Option("--eta", "", "show when all will be done"),
    Option("--progress", "", "show the progress"),
    "resources",
    Option("--cpus", "N", "a job holds N cores, and is bound to them"),
    Option("--mem", "SIZE", "a job needs so much memory"),
    Option("--resource", "NAME=N", "a job needs N units of this", many=True),
    Option("--resource-total", "NAME=N", "there are so many units of it", many=True),
    "",
    Option("-h --help", "", "say this"),
)
KNOWN = {name: option for option in OPTIONS if isinstance(option, Option) for name in option.names}
IGNORED = ("--will-cite", "--no-notice", "--bibtex", "--citation", "--plain", "-x", "--exit")
REMOTE, SEMAPHORE, QUEUE = "run dgmp on each machine, by ssh", "flock(1) is one", "dgmp submit keeps jobs in a queue"
PROFILE = "a function or alias of the shell can hold options"
AS_A_FILE = "a job of --pipe can open its block as /dev/stdin"
FOREIGN = {  # and what to do instead
    "-S": REMOTE, "--sshlogin": REMOTE, "--sshloginfile": REMOTE, "--slf": REMOTE, "--transferfile": REMOTE, "--return": REMOTE,
    "--cleanup": REMOTE, "--trc": REMOTE, "--transfer": REMOTE, "--basefile": REMOTE, "--onall": REMOTE, "--nonall": REMOTE,
    "--semaphore": SEMAPHORE, "--sem": SEMAPHORE, "--sqlmaster": QUEUE, "--sqlworker": QUEUE, "--sql": QUEUE,
    "--cat": AS_A_FILE, "--fifo": AS_A_FILE, "--round-robin": "with --pipe each block is a job's", "--tee": "tee(1) does it",
    "--memsuspend": "--memfree ends the youngest job instead", "--limit": "there are --load and --memfree",
    "--rpl": "let the command's shell compute it", "--tmux": "--line-buffer --tag shows what runs",
    "--interactive": "--dry-run shows what would run", "-p": "--dry-run shows what would run",
    "--files": "--results DIR keeps the output in files", "--shebang": "start dgmp each in a script",
    "--hgrp": REMOTE, "--filter": "let the command's shell decide", "--profile": PROFILE, "-J": PROFILE}


class Usage(DgmpError):
    """The command line is wrong."""


class Options:
    """What was said: an option's value (a list, if it may be given several times), True, or None."""

    def __init__(self) -> None:
        self.given: dict[str, str | bool | list[str]] = {}
        self.sources: list[tuple[str, str]] = []  # (-a or --range, its value), in their order

    def flag(self, key: str) -> bool:
        return key in self.given

    def text(self, key: str) -> str | None:
        value = self.given.get(key)
        return value if isinstance(value, str) else None

    def list(self, key: str) -> list[str]:
        value = self.given.get(key)
        return value if isinstance(value, list) else []

    def number(self, key: str, least: int) -> int | None:
        text = self.text(key)
        if text is None:
            return None
        if not text.isdecimal() or int(text) < least:
            raise Usage(f"--{key.replace('_', '-')} {text!r}: give a whole number of at least {least}")
        return int(text)

    def folder(self) -> str:
        """That of the jobs, by which the joblog knows them; if it has been removed, as the shell knew it."""
        try:
            here = os.getcwd()
        except FileNotFoundError:
            here = os.environ.get("PWD", "")
        return os.path.normpath(os.path.join(here, self.text("wd") or ""))


def parse(words: list[str]) -> tuple[Options, list[str]]:
    """The options, and the words from the command on.

    Raises:
        Usage: there is no such option, or it needs a value.
    """
    options, rest = Options(), list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            take(options, long_name(name), value if equals else None, rest)
            continue
        while word != "-":  # -kj4
            name, word = word[:2], "-" + word[2:]
            if take(options, name, word[1:] or None, rest):
                break
    return options, rest


def take(options: Options, name: str, value: str | None, rest: list[str]) -> bool:
    """Notes an option; whether it has taken a value: the one that stands with it, or the next word.

    Raises:
        Usage: there is no such option, or it needs a value, or takes none.
    """
    if name in FOREIGN:
        raise Usage(f"{name} is GNU parallel's alone" + (f"; {FOREIGN[name]}" if FOREIGN[name] else ""))
    if name in IGNORED:
        return False
    option = KNOWN.get(name)
    if option is None:
        raise Usage(f"there is no option {name}")
    if not option.value:
        if value is not None and name.startswith("--"):
            raise Usage(f"{name} takes no value")
        options.given[option.key] = True
        return False
    if value is None:
        if not rest:
            raise Usage(f"{name} needs a value: {option.value}")
        value = rest.pop(0)
    if option.key in ("arg_file", "range"):
        options.sources.append((option.key, value))
    if option.many:
        options.given.setdefault(option.key, []).append(value)  # type: ignore[union-attr]
    else:
        options.given[option.key] = value
    return True


def long_name(name: str) -> str:
    """What it is short for.

    Raises:
        Usage: it is short for several options.
    """
    if name in KNOWN or name in FOREIGN or name in IGNORED:
        return name
    meant = [one for one in (*KNOWN, *FOREIGN, *IGNORED) if one.startswith(name)]
    if len({KNOWN[one].key if one in KNOWN else one for one in meant}) > 1:
        raise Usage(f"{name} could be {' or '.join(meant)}")
    return meant[0] if meant else name


def help_text() -> str:
    import textwrap

    parts = [USAGE, "\n", ABOUT]
    for option in OPTIONS:
        if isinstance(option, str):
            parts.append(f"\n{option}{':' if option else ''}\n" if option else "\n")
            continue
        names = ", ".join(sorted(option.names, key=lambda n: (n.startswith("--"), n != option.names[-1])))
        head = f"  {names}{' ' if option.value else ''}{option.value}"
        if len(head) > 31:
            parts.append(head + "\n")
            head = ""
        text = textwrap.wrap(option.about, 95)
        parts.append(f"{head:<32}{text[0]}\n" + "".join(f"{'':<32}{line}\n" for line in text[1:]))
    return "".join([*parts, EXAMPLES])
