"""`dgmp completion bash|zsh|fish`: a script that lets the shell complete dgmp's verbs, options and jobs.

It is generated from the parsers, and knows them without starting dgmp.  Only for ids of jobs it asks: `dgmp completion jobs`.
"""

from __future__ import annotations

import shlex
from typing import Any

from . import VERBS, parsers, talk
from .parsers import COMMAND, FILE, FOLDER, JOBS, WORDS, Argument
from .tables import visible

DESCRIPTION = """
Prints a script for a shell that completes verbs, options, files and ids of jobs.  Those come from the daemon: they are what
`dgmp completion jobs` prints."""
EXAMPLES = """
eval "$(dgmp completion bash)"                                # in ~/.bashrc
dgmp completion zsh > ~/.zfunc/_dgmp                          # with fpath+=~/.zfunc in ~/.zshrc, before compinit
dgmp completion fish > ~/.config/fish/completions/dgmp.fish
"""


def add_parser(verbs: Any) -> None:
    parser = talk.verb_parser(verbs, "completion", DESCRIPTION, EXAMPLES)
    parser.add_argument("shell", choices=("bash", "zsh", "fish", "jobs"), help="for which shell")
    parser.set_defaults(act=act)


def act(options: Any) -> int:
    if options.shell == "jobs":
        print_jobs(options)
        return talk.OK
    return talk.exit_code(lambda: print_script(options.shell))


def print_script(shell: str) -> int:
    make = {"bash": bash, "zsh": zsh, "fish": fish}[shell]
    print(make({name: verb.arguments for name, verb in parsers.verbs().items()}), end="")
    return talk.OK


def print_jobs(options: Any) -> None:
    """Ids of the last jobs, with name and state behind a tab; nothing if there is no daemon."""
    from ..errors import DgmpError
    from ..jobs.client import Client

    try:
        with Client() as client:
            for job in client.jobs()["jobs"]:
                print(f"{job['id']}\t{visible(job['name'])} ({job['state']})")
    except DgmpError:
        pass


def valued(found: list[Argument]) -> dict[str, Argument]:
    """The names of options that take a value."""
    return {name: option for option in found if option.value for name in option.names}


def positional(found: list[Argument]) -> Argument | None:
    return next((argument for argument in found if not argument.names), None)


# ---------------------------------------------------------------- bash
BASH = r"""# Completes dgmp in bash: eval "$(dgmp completion bash)"
_dgmp_words() { COMPREPLY=($(compgen -W "$1" -- "$cur")); }
_dgmp_files() { compopt -o default; }
_dgmp_folders() { compopt -o dirnames; }
_dgmp_jobs() {  # behind the last comma
    local before=${cur%"${cur##*,}"} jobs=$(dgmp completion jobs 2> /dev/null | cut -f 1)
    COMPREPLY=($(compgen -P "$before" -W "last all $jobs" -- "${cur##*,}"))
}
_dgmp_command() {  # the command begins at word $1
    if ((COMP_CWORD == $1)); then
        COMPREPLY=($(compgen -c -- "$cur"))
        compopt -o default
    elif declare -F _command_offset > /dev/null; then
        _command_offset "$1"
    else
        compopt -o default
    fi
}
_dgmp() {
    local cur=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]} options valued at
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        _dgmp_words "@VERBS@ --help --version"
        return
    fi
    case $verb in
@OPTIONS@
        *) return;;
    esac
    for ((at = 2; at < COMP_CWORD; at++)); do  # over the options, to what comes behind them
        case ${COMP_WORDS[at]} in
            --) ((at++)); break;;
            -*)
                if [[ ${COMP_WORDS[at+1]} == = ]]; then
                    ((at += 2))
                elif [[ $valued == *" ${COMP_WORDS[at]} "* ]]; then
                    ((at++))
                fi;;
            *) break;;
        esac
    done
    [[ $cur == = ]] && cur=
    [[ $option == = ]] && option=${COMP_WORDS[COMP_CWORD-2]}
    if ((at > COMP_CWORD)) || [[ ${COMP_WORDS[COMP_CWORD-1]} == = || ${COMP_WORDS[COMP_CWORD]} == = ]]; then
        case $verb$option in
@VALUES@
        esac
        return
    fi
    if [[ $cur == -* && $at -ge $COMP_CWORD && ${COMP_WORDS[at-1]} != -- ]]; then
        _dgmp_words "$options --help"
        return
    fi
    case $verb in
@POSITIONALS@
    esac
}
complete -F _dgmp dgmp
"""


def bash(verbs: dict[str, list[Argument]]) -> str:
    """The script for bash."""
    options, values, positionals = [], [], []
    for verb, found in verbs.items():
        names = " ".join(name for option in found for name in option.names)
        taking = f" {' '.join(valued(found))} "
        options.append(f"        {verb}) options={shlex.quote(names)} valued={shlex.quote(taking)};;")
        values += [f"            {verb}{name}) {act};;" for name, option in valued(found).items() if (act := bash_act(option))]
        first = positional(found)
        if first is not None and (act := bash_act(first)):
            positionals.append(f"        {verb}) {act};;")
    return (BASH.replace("@VERBS@", " ".join(VERBS)).replace("@OPTIONS@", "\n".join(options))
            .replace("@VALUES@", "\n".join(values)).replace("@POSITIONALS@", "\n".join(positionals)))


def bash_act(argument: Argument) -> str | None:
    if argument.kind == WORDS:
        return f"_dgmp_words {shlex.quote(' '.join(argument.words))}"
    return {FILE: "_dgmp_files", FOLDER: "_dgmp_folders", JOBS: "_dgmp_jobs", COMMAND: '_dgmp_command "$at"'}.get(argument.kind)


# ---------------------------------------------------------------- zsh
ZSH = r"""#compdef dgmp
# Completes dgmp in zsh: a file _dgmp in a folder of $fpath, or source <(dgmp completion zsh) behind compinit
_dgmp_jobs() {
    local -a jobs=(last:'the one submitted last' all:'all jobs' ${${(f)"$(dgmp completion jobs 2> /dev/null)"}/$'\t'/:})
    compset -P '*,'
    _describe -t jobs job jobs
}
_dgmp() {
    local -a verbs=(@VERBS@)
    if ((CURRENT == 2)); then
        if [[ $PREFIX == -* ]]; then compadd -- --help --version; else _describe -t verbs verb verbs; fi
        return
    fi
    shift words
    ((CURRENT--))
    case $words[1] in
@CASES@
    esac
}
if [[ $funcstack[1] == _dgmp ]]; then _dgmp "$@"; else compdef _dgmp dgmp; fi
"""


def zsh(verbs: dict[str, list[Argument]]) -> str:
    """The script for zsh."""
    described = " ".join(shlex.quote(f"{verb}:{what}") for verb, what in VERBS.items())
    cases = [f"        {verb}) _arguments {' '.join(map(zsh_spec, found))} '(- *)--help[show help]';;"
             for verb, found in verbs.items()]
    return ZSH.replace("@VERBS@", described).replace("@CASES@", "\n".join(cases))


def zsh_spec(argument: Argument) -> str:
    if not argument.names:
        if argument.kind == COMMAND:
            return "'*:::command:_normal'"
        return shlex.quote(f"{'*' if argument.several else ''}:{zsh_text(argument.value)}:{zsh_act(argument)}")
    value = f":{zsh_text(argument.value)}:{zsh_act(argument)}" if argument.value else ""
    star = "*" if argument.several else ""
    said = shlex.quote(f"[{zsh_text(argument.help)}]{value}")
    if len(argument.names) == 1:
        return f"'{star}{argument.names[0]}'{said}"
    return f"'{star or '(' + ' '.join(argument.names) + ')'}'{{{','.join(argument.names)}}}{said}"


def zsh_text(text: str) -> str:
    """As part of a specification of _arguments."""
    for special in "\\:[]":
        text = text.replace(special, f"\\{special}")
    return text


def zsh_act(argument: Argument) -> str:
    if argument.kind == WORDS:
        return f"({' '.join(argument.words)})"
    return {FILE: "_files", FOLDER: "_files -/", JOBS: "_dgmp_jobs"}.get(argument.kind, " ")


# ---------------------------------------------------------------- fish
FISH = r"""# Completes dgmp in fish: a file ~/.config/fish/completions/dgmp.fish, or dgmp completion fish | source
function __dgmp_verb
    set -l words (commandline -opc)
    test (count $words) -gt 1; and contains -- $words[2] $argv
end
function __dgmp_jobs
    printf 'last\tthe one submitted last\nall\tall jobs\n'
    dgmp completion jobs 2> /dev/null
end
function __dgmp_command --description 'completes a command behind options, of which these take a value'
    set -l words (commandline -opc) (commandline -ct)
    set -l at 3
    while test $at -lt (count $words)
        switch $words[$at]
            case --
                set at (math $at + 1)
                break
            case '-*'
                contains -- $words[$at] $argv; and set at (math $at + 1)
            case '*'
                break
        end
        set at (math $at + 1)
    end
    string match -q -- '-*' $words[$at]; or complete -C "$words[$at..-1]"
end
complete -c dgmp -f
complete -c dgmp -n 'test (count (commandline -opc)) -eq 1' -l version -d 'print the version'
complete -c dgmp -s h -l help -d 'show help'
"""


def fish(verbs: dict[str, list[Argument]]) -> str:
    """The script for fish."""
    lines = [f"complete -c dgmp -n 'test (count (commandline -opc)) -eq 1' -a {verb} -d {fish_quote(what)}"
             for verb, what in VERBS.items()]
    for verb, found in verbs.items():
        command = f"-a '(__dgmp_command {' '.join(valued(found))})'"
        lines += [f"complete -c dgmp -n '__dgmp_verb {verb}' {fish_option(argument, command)}" for argument in found]
    return FISH + "\n".join(lines) + "\n"


def fish_option(argument: Argument, command: str) -> str:
    kinds = [("s" if len(name) == 2 else "l" if name.startswith("--") else "o", name.lstrip("-")) for name in argument.names]
    names = " ".join(f"-{kind} {name}" for kind, name in kinds)
    values = {FILE: "-r -F", FOLDER: "-x -a '(__fish_complete_directories)'", JOBS: "-x -a '(__dgmp_jobs)'",
              WORDS: f"-x -a {fish_quote(' '.join(argument.words))}", COMMAND: command}
    value = values.get(argument.kind, "-x" if argument.names else "") if argument.value else ""
    if not argument.names:
        return value.replace("-x ", "").replace("-r ", "")
    return " ".join(part for part in (names, value, f"-d {fish_quote(argument.help)}") if part)


def fish_quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
