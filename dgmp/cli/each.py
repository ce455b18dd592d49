"""`dgmp each COMMAND ::: INPUTS`: a command for each input, as GNU parallel runs them and with its options' names.

The options are in options.py; here jobs are made of them: where inputs come from, what is run, where output goes.
"""

from __future__ import annotations

import os
import sys

from ..errors import DgmpError
from ..jobs.template import InputError
from .options import USAGE, Options, Usage, help_text, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from ..jobs.command import Command
    from ..jobs.inputs import Layout, Records
    from ..jobs.joblog import Failed, Origin
    from ..jobs.launcher import Launcher
    from ..jobs.output import Output
    from ..jobs.policy import Policy
    from ..jobs.process import Process
    from ..jobs.source import Source
    from ..jobs.template import Template

ERROR = 255
SIGPIPE = 13
MOST_SLOTS = 32_000
# How GNU parallel writes inputs in the names of files.
IN_A_NAME = str.maketrans({"/": "\\_", "\\": "\\\\", "\t": "\\t", "\0": "\\0"})
LONGEST_NAME = 255  # bytes
SHAPING = ("colsep", "csv", "tsv", "header", "trim", "link", "max_args", "max_replace_args", "max_lines", "xargs_context",
           "xargs", "max_chars", "replace", "plus", "quote", "pipe", "pipe_part", "block", "recstart", "recend", "regexp",
           "remove_rec_sep")
TERMINALS = ("-", "/dev/stdin", "/dev/tty")
SOURCES = (":::", "::::", ":::+", "::::+")


def main(words: list[str]) -> int:
    """Entry of `dgmp each`; returns its exit code."""
    try:
        options, rest = parse(words)
        if options.flag("help"):
            print(help_text(), end="")
            return 0
        return run(options, rest)
    except Usage as e:
        print(f"{USAGE}\ndgmp each: {e}; `dgmp each --help` says more", file=sys.stderr)
    except (DgmpError, ValueError, OSError) as e:
        print(f"dgmp each: {e}", file=sys.stderr)
    return ERROR


def split(words: list[str]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The command, and the sources that follow it: (":::", its inputs) and so on."""
    command: list[str] = []
    sources: list[tuple[str, list[str]]] = []
    into = command
    for word in words:
        if word in SOURCES:
            into = []
            sources.append((word, into))
        else:
            into.append(word)
    return command, sources


# -- the jobs --------------------------------------------------------------------------------------


def run(options: Options, words: list[str]) -> int:
    """Runs the jobs; returns the exit status."""
    from ..jobs.guardian import guarded, open_standard, say
    from . import control

    open_standard()
    command, given = split(words)
    slots = slots_of(options.text("jobs"))
    if options.flag("retry_failed"):
        again = control.failed(options)
        source, origin = retried(options, again), None
    else:
        again = []
        source = source_of(options, command, given, slots)
        origin = origin_of(options, source) if options.flag("joblog") else None
    if options.flag("dry_run"):
        return show(source)
    policy = control.policy(options, origin, say, again)
    launcher = launcher_of(options, source, slots, policy)

    def launch() -> int:
        status = launcher.run()
        if source.error:
            say(f"each: {source.error}")
        return ERROR if source.error and status >= 0 else status

    reads_terminal = not options.flag("retry_failed") and reads_stdin(options, given) and os.isatty(0)
    if reads_terminal:
        say("reading from the terminal: end with Ctrl-D")
    return guarded(launch, reads_terminal=reads_terminal)


def paths_of(options: Options, given: list[tuple[str, list[str]]]) -> list[str]:
    """The files of inputs that are named."""
    return [*(value for key, value in options.sources if key == "arg_file"),
            *(path for how, words in given if how.startswith("::::") for path in words)]


def reads_stdin(options: Options, given: list[tuple[str, list[str]]]) -> bool:
    """Whether standard input has inputs, or what --pipe cuts."""
    return not (given or options.sources) or any(path in TERMINALS for path in paths_of(options, given))


def origin_of(options: Options, source: Source) -> Origin:
    """Whose jobs they are, for the joblog: the command, and what else says how jobs are made of inputs."""
    from ..jobs.joblog import Origin

    said = [f"--{key.replace('_', '-')}" + ("" if options.given[key] is True else f"={options.given[key]}")
            for key in SHAPING if key in options.given]
    return Origin(" ".join([*said, source.job.template.text]), source.job.folder)


def launcher_of(options: Options, source: Source, slots: int, policy: Policy) -> Launcher:
    from ..jobs import environment
    from ..jobs.launcher import Launcher
    from ..jobs.process import TERM_SEQUENCE, Environment, term_sequence

    variables = environment.common(os.environ, options.list("env"), told(policy))
    pid = os.getpid()
    return Launcher(
        source, slots or most_slots(), output_of(options, source), policy, environment=Environment(variables),
        own_environment=lambda command, attempt: environment.of_job(command.seq, attempt, pid), of_slot=environment.OF_SLOT,
        folder=folder_of(options, source), term_sequence=term_sequence(options.text("termseq") or TERM_SEQUENCE),
        parks=source.parks)


def told(policy: Policy) -> Iterable[str]:
    """The variables that each job is given of its own, for what it holds."""
    need = getattr(policy, "need", None)
    if not need:
        return ()
    from ..jobs.resources import Held

    return Held((0,) * need.cpus, need.mem, dict.fromkeys(need.named, 0)).variables()


def most_slots() -> int:
    """For --jobs 0: as many processes as there may be descriptors for, three a job."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return max(1, min(MOST_SLOTS, (hard - 50) // 4))


def folder_of(options: Options, source: Source) -> Callable[[Command], str | None] | None:
    """--wd: where a job runs."""
    given = options.text("wd")
    if given is None:
        return None
    from ..jobs.environment import folder
    from ..jobs.process import CannotRun
    from ..jobs.template import Field, Template

    template = Template(given, source.names, append=False, literal=True)
    if given != "..." and not any(isinstance(piece, Field) for token in template.tokens for piece in token):
        try:
            made = folder(given, 0)
        except CannotRun as e:
            raise DgmpError(str(e)) from None
        return lambda command: made
    return lambda command: folder(template.line(command.draft, command.slot), command.seq)


def output_of(options: Options, source: Source) -> Output:
    from ..jobs import output

    results = options.text("results")
    made = (output.LineBuffered if options.flag("line_buffer") else output.Output if options.flag("ungroup") and results is None
            else output.Grouped)
    if options.flag("v") or options.flag("verbose"):
        made = announcing(made, first=options.flag("v"))
    return made(tag=source.job.tag is not None, keep_order=options.flag("keep_order"),
                results=None if results is None else results_of(results, source))


def announcing(made: type[Output], first: bool) -> type[Output]:
    """Each command is shown: before its output, or on stderr as it starts."""
    from ..jobs.spill import write_all

    class Announcing(made):  # type: ignore[misc, valid-type]
        early = False

        def open(self, process: Process) -> tuple[int, int]:
            out, err = super().open(process)
            text = os.fsencode(process.command.text) + b"\n"
            if not first:
                self.err.write(text)
            elif out < 0:
                self.out.write(text)
            else:
                write_all(out, text)
            return out, err

    return Announcing


def results_of(where: str, source: Source) -> Callable[[Command], tuple[str, str, str]]:
    """--results: the files for what a job prints."""
    from ..jobs.template import Field, Template

    template, names = Template(where, source.names, append=False, literal=True), source.names
    if any(isinstance(piece, Field) for token in template.tokens for piece in token):
        def named(command: Command) -> tuple[str, str, str]:
            path = template.line(command.draft, command.slot)
            return in_folder(path) if path.endswith("/") else (path, path + ".err", path + ".seq")

        return named
    if where.endswith((".csv", ".tsv", ".json")):
        raise Usage(f"--results {where}: there is no table of results here; give a folder")

    def in_tree(command: Command) -> tuple[str, str, str]:
        if command.stdin is not None:
            return in_folder(os.path.join(where, str(command.seq)))
        columns = [(names[i] if i < len(names) else str(i + 1), value) for i, value in enumerate(command.inputs)]
        if names:
            columns.sort()
        return in_folder(os.path.join(where, *(as_name(part) for column in columns for part in column)))

    return in_tree


def as_name(part: str) -> str:
    """Of a file; never of the folder it is in, or the one above.  A long one is cut, and ends with a hash of it all."""
    name = "\\" + part if part in (".", "..") else part.translate(IN_A_NAME)
    data = os.fsencode(name)
    if len(data) <= LONGEST_NAME:
        return name
    from _blake2 import blake2b

    end = "-" + blake2b(data, digest_size=8).hexdigest()
    return os.fsdecode(data[:LONGEST_NAME - len(end)]) + end


def in_folder(path: str) -> tuple[str, str, str]:
    return os.path.join(path, "stdout"), os.path.join(path, "stderr"), os.path.join(path, "seq")


def retried(options: Options, again: Sequence[Failed]) -> Source:
    """The jobs of --retry-failed."""
    from ..jobs.command import Job, Logged
    from ..jobs.source import Drafts
    from ..jobs.template import Template

    job = Job(Template("", literal=True), options.folder(), tag_of(options))
    return Drafts(job, [Logged(job, one.seq, one.command, one.key) for one in again])


def slots_of(text: str | None) -> int:
    """How many jobs run at once; 0: as many as possible."""
    cores = len(os.sched_getaffinity(0))
    if text is None:
        return cores
    if text.isdecimal() and len(text) < 10:
        return min(MOST_SLOTS, int(text))
    from ..jobs.amounts import of_cpus

    try:
        return int(max(1, min(MOST_SLOTS, of_cpus(text, cores))))
    except ValueError as e:
        raise Usage(f"--jobs: {e}") from None


def source_of(options: Options, command: list[str], given: list[tuple[str, list[str]]], slots: int) -> Source:
    """The drafts that the command line asks for."""
    from ..jobs.command import Job
    from ..jobs.source import Source

    folder = options.folder()
    if options.flag("pipe") or options.flag("pipe_part"):
        template, tag = templates(options, command, ())
        return Source(Job(template, folder, tag), blocks_of(options, command, given))
    layout = layout_of(options)
    found, names = records_of(options, given, layout)
    parks = reads_stdin(options, given) or bool(paths_of(options, given))
    template, tag = templates(options, command, names)
    return Source(Job(template, folder, tag), batches_of(options, found, template, slots), names, parks)


def templates(options: Options, command: list[str], names: tuple[str, ...]) -> tuple[Template, Template | None]:
    """Of the command, and of the tag."""
    from ..jobs.template import Template

    strings = strings_of(options)
    if options.text("replace") is not None:
        strings = {options.text("replace") or "": "", **{text: of for text, of in strings.items() if of}}
        if "" in strings:
            raise Usage("-I: give a text that stands for the input")
    if any("{=" in word and "=}" in word for word in command):
        raise Usage("{= perl expressions =} are GNU parallel's alone; let the command's shell compute it")
    piped = options.flag("pipe") or options.flag("pipe_part")
    quoted = options.flag("quote") and bool(command)
    counted = options.flag("max_replace_args") or options.flag("max_lines")
    template = Template(
        command if quoted else " ".join(command), names, strings=strings, append=not piped, quoted=quoted,
        repeat=options.flag("xargs_context") or counted, whole=counted, literal=not command)
    return template, tag_of(options, names)


def strings_of(options: Options) -> Mapping[str, str]:
    """The replacement strings that there are."""
    from ..jobs.template import PLUS_STRINGS, STRINGS

    return {**STRINGS, **PLUS_STRINGS} if options.flag("plus") else STRINGS


def tag_of(options: Options, names: tuple[str, ...] = ()) -> Template | None:
    """--tag and --tagstring."""
    from ..jobs.inputs import unescaped
    from ..jobs.template import Template

    text = options.text("tagstring")
    if text is None:
        return Template("{}", append=False, literal=True) if options.flag("tag") else None
    return Template(unescaped(text), names, strings=strings_of(options), append=False, literal=True)


def layout_of(options: Options) -> Layout:
    from ..jobs.inputs import Layout, unescaped

    columns, csv = options.text("colsep"), None
    if options.flag("csv"):
        csv, columns = unescaped(columns or ","), None
        if len(csv) != 1:
            raise Usage(f"--csv has one character between the columns, not {csv!r}")
    elif options.flag("tsv"):
        columns = r"\t"
    delimiter = b"\n"
    if options.flag("null"):
        delimiter = b"\0"
    elif options.text("delimiter") is not None:
        delimiter = os.fsencode(unescaped(options.text("delimiter") or ""))
        if not delimiter:
            raise Usage("--delimiter: give a text that ends inputs")
    trim = options.text("trim") or ("n" if options.flag("tsv") else None)
    return Layout(delimiter, columns, csv, trim, options.text("eof"))


def records_of(options: Options, given: list[tuple[str, list[str]]], layout: Layout
               ) -> tuple[Records, tuple[str, ...]]:
    """All sources put together, and the names of the columns."""
    from ..jobs import inputs

    groups: list[list[Records]] = [[one] for one in before_the_command(options, layout)]
    for how, words in given:
        if options.flag("delimiter") and how in (":::", ":::+"):
            words = inputs.delimited(words, layout.delimiter)
        ones = ([inputs.records(words, layout)] if how in (":::", ":::+")
                else [inputs.from_file(path, layout) for path in words])
        for one in ones:
            if how.endswith("+") and groups:
                groups[-1].append(one)
            else:
                groups.append([one])
    if not groups:
        groups.append([inputs.from_file("-", layout)])
    names: tuple[str, ...] = ()
    if options.text("header") is not None:
        names = tuple(name for group in groups for one in group for name in heading(one))
    if options.flag("link"):
        found = inputs.linked_around([one for group in groups for one in group])
    else:
        found = inputs.product([inputs.linked(group) for group in groups])
    if options.flag("shuf"):
        found = inputs.shuffled(found)
    if options.flag("no_run_if_empty"):
        found = inputs.without_blanks(found)
    return found, names


def before_the_command(options: Options, layout: Layout) -> Iterator[Records]:
    from ..jobs import inputs

    for key, value in options.sources:
        yield inputs.from_file(value, layout) if key == "arg_file" else inputs.from_range(value)


def heading(records: Records) -> tuple[str, ...]:
    """The first record: names."""
    return next(records, ())


def batches_of(options: Options, found: Records, template: Template,
               slots: int) -> Iterator[tuple[tuple[str, ...], ...]]:
    """The records of each job."""
    from ..jobs.inputs import batches, one_by_one, without_values
    from ..jobs.template import LONGEST_LINE

    given = [n for key in ("max_replace_args", "max_args", "max_lines") if (n := options.number(key, 0)) is not None]
    most = given[0] if given else None
    if most == 0:
        return without_values(found)
    xargs = options.flag("xargs") or options.flag("xargs_context")
    longest = min(options.number("max_chars", 1) or LONGEST_LINE, LONGEST_LINE)
    if most is None and not xargs:
        if not options.flag("max_chars"):
            return one_by_one(found)
        most = 1
    return batches(found, most or 0, template.size(), longest, template.grows, spread=max(1, slots) if xargs else 0)


def blocks_of(options: Options, command: list[str], given: list[tuple[str, list[str]]],
              ) -> Iterator[bytes]:
    """What each job reads with --pipe."""
    from ..jobs.amounts import size
    from ..jobs.inputs import opened, unescaped
    from ..jobs.pipe import BLOCK, Records, blocks, header_of

    if not command:
        raise Usage("--pipe needs a command to pipe into, such as cat")
    paths = [value for key, value in options.sources if key == "arg_file"]
    paths += [path for how, words in given if how == "::::" for path in words]
    if len(paths) > 1 or any(how != "::::" for how, _ in given) or options.list("range"):
        raise Usage("with --pipe the only input is standard input, or one file (-a FILE)")
    if options.flag("pipe_part") and not paths:
        raise Usage("--pipe-part needs a file: -a FILE")

    def text(key: str) -> bytes | None:
        value = options.text(key)
        return None if value is None else os.fsencode(value if options.flag("regexp") else unescaped(value))

    records = Records(text("recstart"), text("recend"), regexp=options.flag("regexp"), remove=options.flag("remove_rec_sep"))
    block = options.text("block")
    count = options.number("max_replace_args", 1) or options.number("max_args", 1) or options.number("max_lines", 1)
    header = options.text("header")
    try:
        longest = BLOCK if block is None else size(block)
    except ValueError as e:
        raise Usage(f"--block: {e}") from None
    if longest < 1:
        raise Usage("--block: give at least 1 byte")
    head = b"" if header is None else header_of(header)
    return blocks(opened(paths[0] if paths else "-"), records, longest, count or 0, head)


def show(source: Source) -> int:
    """--dry-run: the commands, one a line."""
    out = sys.stdout.buffer
    try:
        for draft in source:
            command = draft.command(1)
            tag = "" if source.job.tag is None else command.tag + "\t"
            out.write(os.fsencode(f"{tag}{command.text}\n"))
            out.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + SIGPIPE
    if source.error:
        raise InputError(source.error)
    return 0
