"""The same command lines through GNU parallel and through `dgmp each`: what they print, in which order, and how they end.

P stands for the program.  Where the two differ on purpose is said in docs/jobs.md, and tested in test_each.
"""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

DGMP = f"{sys.executable} -m dgmp each"
BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(not (shutil.which("parallel") and BASH), reason="GNU parallel and bash are not installed")

FILES = {
    "numbers": "".join(f"{n}\n" for n in range(1, 31)),
    "table.tsv": "n\ta\nx y\t3\nz\t\n",
    "fasta": ">a\nxx\nyy\n>b\nzz\n>c\n>d\nq",
    "semicolons": "a;b;c;d;e",
    "two": "1\n2\n",
}

# What would be run.
COMMANDS = r"""
P echo ::: 'a b' "it's" '' '$x' -n ü a=b '~' x%y a,b @ + : ^ a/b.c '"q"' '\' '`x`' '#' '*' '!' '[a]' '{}' '(' ';' '&' '|' '<'
P echo {2} ::: a
P echo {#} ::: a b
P -j1 echo {%} ::: a b
P echo {1} {2} {1/.} {-1} {2.} ::: a/b.c ::: d e
P echo {-2} {-1} ::: a ::: b ::: c
P echo {1//} {1/} {1.} {1/.} ::: a/b.c
P echo '{.} {/} {//} {/.}' ::: /a/b.c/d a.b.c .x a/ / ../x.y '' a. dir.d/f /x.y a/b/ ///
P echo {} {} ::: a
P echo '{1}{2}' ::: a :::+ b
P echo '{0} {a} {}' ::: x
P echo {1..3} ::: a
P echo é{}ü ::: ö
P echo ::: a b ::: c d
P echo ::: a b ::: c d ::: e f
P echo ::: a b c :::+ 1 2
P echo ::: 1 2 3 :::+ 4 5 :::+ a b c
P echo ::: a b ::: 1 2 :::+ x y
P --link echo ::: a b c ::: 1 2
P --xapply echo ::: a b c ::: 1 2 ::: x
P -n2 echo ::: a b c
P -n 1 echo ::: a b
P -N2 echo {1}-{2} ::: a b c
P -N2 echo ::: a b c
P -n2 echo x{}y ::: a b c
P -n2 'echo {}; echo {1} {2}' ::: 'a b' c d
P -N2 --colsep ' ' echo {1} {2} {3} {4} ::: 'a b' 'c d'
P --max-args=2 echo ::: a b c
P --max-replace-args 2 echo {2}{1} ::: a b c
P -N0 echo hi ::: a b
P -n0 echo hi ::: a b
P -N0 echo x{}y {1} ::: a b
P -N2 echo x{}y {#}-{} ::: a b c
P -N2 echo x{}y {1} {3}{} ::: a b c ::: d e
P -N2 echo {}-{1} {.}{2} x{1}-{2}y ::: a b c
P -N2 -m echo x{}y{#} ::: a b c
P -N2 -X echo {1} ::: a b c
P -L2 echo x{}y ::: a b c
P -q -N2 echo x{}y ::: a 'b c' d
P -N2 'f() { echo $#; }; f x{}y' ::: 'a b' c d
P -X echo x{}y ::: a b ::: d e
P -I @@ echo @@ {2} {} {2.} ::: a b ::: c.d
P -d : echo [{}] ::: a:b:c d: :e ::: 1:2
P --plus echo {+/} {+.} {+..} {+...} {..} {...} {/..} {/...} ::: a/b.c.d.e.f b.c /b .x .x.y a/ '' .. 'a b.c d.e'
P --plus echo {1..} {2+/} {1/...} {..} ::: a/b.c.d ::: e/f
P --plus -I @ echo @ {..} {+/} ::: a/b.c.d
P --plus --tagstring {+.} echo ::: a.b
P --tag echo ::: a 'b c'
P -j2 -X echo x{}y/{.} ::: a.b b.c c.d d e
P -j1 -X echo x{}y/{.} ::: a.b b.c c.d d e
P -j1 -m echo x{}y/{.} ::: a.b b.c c.d d e
P -j2 -m echo ::: a b c d e
P -j2 -m echo {#} {} ::: a b c d e f g
seq 10 | P -j3 -X echo
seq 10 | P -j3 -X -s 20 echo
seq 10 | P -j1 -X -s 20 echo
seq 10 | P -j1 -m -s 20 echo
seq 10 | P -j2 -X -n3 echo
seq 7 | P -j2 -m -n3 echo
P echo < /dev/null
P -r echo a < /dev/null
echo | P echo a
printf ' \n' | P -r echo a
printf ' \n\nx\n' | P -r echo a
printf 'x\n\ny' | P echo a
printf 'echo a\necho b; echo c\n' | P
P ::: 'echo a' 'echo b|cat'
P ::: 'echo a' 'echo b|cat' ::: x y
P --header : --colsep '\t' echo {n} {a} {n.} {/n} {n/} {} :::: table.tsv
P --header : echo {f} {g} ::: f 1 2 ::: g x
P --header : echo ::: f 1 2 ::: g x
P --header : echo {f} {g} {1} ::: f 1 2 :::+ g x y
P --colsep ' ' echo {2}-{1} ::: 'a b' c 'd e f'
P --colsep ' ' echo ::: 'a b' c 'd  e f'
P --colsep '[,;]' --trim lr echo {1}:{2} ::: ' a , b;c'
P --colsep '[,;]' --trim n echo {1}:{2} ::: ' a , b;c'
P --colsep , echo {1}:{2} ::: ' a , b'
P -C , echo {1}:{2} ::: ' a , b'
P --trim lr echo ::: ' a '
P --trim l echo ::: ' a '
P --trim r echo ::: ' a '
P -E stop echo ::: a stop b
seq 5 | P -L2 echo
P -I ,, echo ,, {} ::: a
P -I ,, echo ,,/ {} ::: a/b
P -I{} echo {}{} ::: a/b
P -q echo 'a  b' '$x' {} 'p{}q' ::: 'c d'
P -q perl -e 'print "{}\n"' ::: 'c d'
P -q -n2 echo 'p{}q' {} ::: 'c d' e f
P -q -N2 echo 'p{1}q' {2} ::: 'c d' e f
printf 'a,b,c\n' | P -d , echo
printf 'a\tb\tc' | P -d '\t' echo
printf 'a\0b\nc\0' | P -0 echo
printf 'a\0b' | P --null echo
printf '1ab2ab3' | P -d ab echo
printf 'a;b;c' | P --delimiter ';' echo
seq 3 4 | P echo {2} {1} :::: two -
P -a two echo {2} {1} ::: x
P -a two -a numbers echo
P echo ::: 1 2 ::::+ two ::: x
P echo :::: two numbers
P echo ::::+ two numbers
P 'echo {}; echo {}' ::: 'a b'
P 'echo "{}"' ::: a.b
P "echo '{}'" ::: a.b
P echo '{}' '>' out/{.}.txt ::: a.x b.x
P 'echo {} | tr a-z A-Z; echo {#}' ::: a b
P 'echo `echo {}`; echo $(echo {})' ::: 'a b'
P -kj4 echo ::: a b
P --jobs=4 --keep-order echo ::: a b
P -- echo -n {} ::: a
P echo -- {} ::: a
P echo 'a  b   {}' ::: a
P '  echo  {}  ' ::: a
seq 3 | P --pipe -N1 cat
"""

# What is run.
RUNS = r"""
P echo ::: a b c
P echo ::: 'a b' "it's" '' '$x' -n --help --version ü '\' '*' '"' 'a\nb'
P 'echo {}; echo x {}' ::: 'a b' "it's" '' '$x' '`id`' '*' '"' '\'
P "printf '%s\n' {}" ::: 'a b' "x'y" '$z'
P printf '%s\\n' ::: a b
P --tag echo ::: a b ::: 'c d'
P --tagstring '{1}-{#}:' echo ::: a b ::: c
P --tag 'echo a; echo b; printf c' ::: x
P -v echo ::: a
P 'exit {}' ::: 0 1 2
P false ::: a b c
P false ::: $(seq 100)
P false ::: $(seq 105)
P 'kill -9 $$; echo {}' ::: a
P nonexistent_command ::: a b
P ::: 'echo a' false 'exit 3'
P 'echo {} >&2; echo out' ::: a b
P 'cd / ; pwd # {}' ::: a
P cd ::: /tmp
P "pwd | grep -c ." ::: a
P true ::: --help
P 'if true; then echo {}; fi' ::: a
f() { echo "f $1"; }; export -f f; P f ::: a 'b c'
P 'echo $PARALLEL_SEQ {}' ::: a b
P -j1 'echo $PARALLEL_SEQ $PARALLEL_JOBSLOT {}' ::: a b
seq 5 | P -j3 'sleep 0.$((6-{})); echo {}'
seq 3 | P 'cat; echo {}'
P cat ::: two < two
P --joblog log 'echo {}; exit {}' ::: 0 1 5; cut -f1,2,5-9 log
P -j1 --joblog log 'kill -{} $$' ::: 9 15 0; cut -f1,2,5-9 log
P --joblog log 'echo {#}; exit {}' ::: 0 1; P --joblog log --resume 'echo {#}; exit {}' ::: 0 1 3; cut -f1,2,5-9 log
P --joblog log 'echo {#}; exit {}' ::: 0 1; P --joblog log --resume-failed 'echo {#}; exit {}' ::: 0 1 3; cut -f1,2,5-9 log
P --joblog log 'echo {#}; exit {}' ::: 0 1; P --joblog log --retry-failed; cut -f1,2,5-9 log
P --joblog log echo ::: a; P --joblog +log echo ::: b; cut -f1,2,5-9 log
P --halt now,fail=1 -j1 'echo {}; exit {}' ::: 0 3 4
P --halt soon,fail=1 -j1 'echo {}; exit {}' ::: 0 3 4
P --halt now,success=1 -j1 'echo {}; exit {}' ::: 4 0 3
P --halt now,done=2 -j1 'echo {}; exit {}' ::: 4 0 3
P --halt soon,fail=50% -j1 'echo {}; exit {}' ::: 0 3 4 5
P --retries 3 'echo {}; exit 1' ::: a
P --retries 3 'echo x >> tries; test $(wc -l < tries) = 3; exit $?' ::: a; wc -l < tries
P --timeout 2 'echo a; sleep {}' ::: 0 30
P --wd / 'pwd; echo {}' ::: a
P --pipe --block 10 'echo "[{#}]"; cat' < numbers
P --pipe --block 20 'echo "[{#}]"; cat' < numbers
P --pipe -N4 'echo "[{#}]"; cat' < numbers
P --pipe -n4 'echo "[{#}]"; cat' < numbers
P --pipe -N4 --block 5 'echo "[{#}]"; cat' < numbers
P --pipe -N1 --recstart '>' 'echo "[{#}]"; cat; echo' < fasta
P --pipe -N2 --recstart '>' 'echo "[{#}]"; cat; echo' < fasta
P --pipe --block 8 --recstart '>' 'echo "[{#}]"; cat; echo' < fasta
P --pipe --block 8 --recend '\n' --recstart '>' 'echo "[{#}]"; cat; echo' < fasta
P --pipe -N2 --recend ';' 'echo "[{#}]"; cat; echo' < semicolons
P --pipe -N2 --recend ';' --rrs 'echo "[{#}]"; cat; echo' < semicolons
P --pipe --block 3 --recend ';' 'echo "[{#}]"; cat; echo' < semicolons
P --pipe -N3 --header : 'echo "[{#}]"; cat' < numbers
P --pipe -N3 --header 2 'echo "[{#}]"; cat' < numbers
P --pipe -N3 --regexp --recend '[05]\n' 'echo "[{#}]"; cat' < numbers
P --pipe --block 10 --recend '' 'echo "[{#}]"; cat' < numbers
P --pipe --block 10 --recstart 2 'echo "[{#}]"; cat' < numbers
P --pipe -N10 --tag cat < numbers
P --pipe --block 10 wc -c < <(head -c 100 /dev/zero)
P --pipe --block 1k wc -c < /dev/null
P --pipe wc < <(seq 300000)
P --pipe --block 100k wc -c < <(seq 100000)
P --pipe -N7 wc -l < <(seq 100)
P --pipe cat < numbers
P --results R echo ::: a/b 'c d'; find R | sort; cat R/1/a*/stdout R/1/c*/seq
P -u --results R echo ::: a; find R | sort; cat R/1/a/stdout
P --results 'R/{}/' echo ::: a b; find R | sort; cat R/a/stdout R/b/seq
P --results 'R/{}.txt' echo ::: a b; find R | sort; cat R/a.txt R/b.txt.seq
P --header : --results R echo ::: h a b ::: g c; find R | sort
P --lb 'echo {}; echo x' ::: a
P -u -j1 echo ::: a b c
P -N2 --tag echo ::: a b c
P -n3 echo {3} {1} ::: a b c d
P --colsep , -n2 echo ::: a,b c,d
P --colsep , -n2 echo {3} ::: a,b c,d
P --colsep , echo {-1} ::: a,b c
P -0 echo :::: <(printf 'a\0b c\0')
P --header : echo {x}-{y} :::: <(printf 'x\n1\n2\n') ::::+ <(printf 'y\n3\n4\n')
P --max-lines=2 echo ::: a b c
P echo '{}.{}' ::: a b ::: c
P echo {}{} ::: a b ::: c
P -X -j1 echo {}-{} ::: a b
P -X -j1 echo {#}{} ::: a b
P -m -j1 echo {}-{} ::: a b
P 'echo {} # {}' ::: a
P "echo \$(( {} + 1 ))" ::: 1 2
P 'for i in 1 2; do echo $i {}; done' ::: a
P 'cat <(echo {})' ::: a
P '[[ {} == a ]] && echo yes || echo no' ::: a b
P 'x={}; echo "$x"' ::: 'a b' 'c'
P 'echo ${HOME:+x}{}' ::: a
P "awk 'BEGIN{print \"{}\"}'" ::: a b
P 'echo a\ b{}' ::: c
P 'echo {} \; echo' ::: c
P echo 'a;' echo ::: b
P echo '"a' 'b"' ::: c
P echo "'a" "b'" {} ::: c
P echo {}\\ ::: c
P --trim rl echo ::: '  x '
P --tagstring 'job {#} {}' echo ::: a b
P --tagstring '\033[1m{}' echo ::: a
P -j 2 -j 1 echo {%} ::: a b
P echo {.}.x ::: a.b 'c d.e'
P echo {/.}_{//} ::: 'x y/z w.txt'
P cp -n {} {.}.bak ::: two; ls two*
seq 3 | P echo {} :::: - ::: a b
seq 3 | P -N2 'echo {1} and {2}'
seq 3 | P -n1 -r echo
seq 3 | P --link echo :::: - ::: a
seq 4 | P -n2 --link echo :::: - ::: a b
printf 'a b\tc\n' | P --colsep '\t' echo {1} {2}
printf 'a b\tc\n' | P --colsep '\s' echo {3} {2} {1}
printf 'a::b\n' | P --colsep : 'echo {1} {2} {3}'
printf 'a|b\n' | P --colsep '\|' 'echo {2}'
printf ' a \n' | P echo
printf 'a\r\nb\r\n' | P echo | od -c
printf '\xff\xfe\n' | P echo | od -c
printf 'x y\nz\n' | P 'echo {}'
printf 'x  y\n' | P echo a
printf '#c\n' | P echo
printf 'echo $((1+2))\necho "a  b"\n' | P
printf 'exit 3\n' | P
P 'echo {} {2}' ::: a b ::: c
P 'exit 256' ::: a
P 'exit 255' ::: a
P --halt 1 -j1 'echo {}; exit {}' ::: 0 7 0
P --halt now,fail=2 -j1 'echo {}; exit {}' ::: 0 7 6 0
P --halt now,fail=1 -j1 'kill -9 $$' ::: 0 7 6 0
P -N1 --pipe 'read x; echo $x {#}' < <(seq 3)
P --pipe -L 1 -N2 cat < <(seq 3)
P --pipe --recend '\n\n' -N1 'echo "<$(cat)>"' < <(printf 'a\nb\n\nc\n\nd')
P --pipe --recstart 'B\n' --recend 'E\n' -N1 'echo "<$(cat)>"' < <(printf 'B\n1\nE\nB\n2\nE\n')
P --pipe --block 1k --header '.*\n' wc -l < <(seq 1000)
P --pipe --recstart '' --block 100 wc -c < <(seq 100)
P --pipe -N1 --recend '\0' 'tr "\0" x' < <(printf 'a\0b\0c')
P --pipe --block 1 cat < <(seq 3)
P --line-buffer --tag 'echo {}; echo x' ::: a
yes | head -1000 | P -j2 'echo {} {#}' | head -3
"""

# What both refuse.
MISTAKES = r"""
P --no-such-option echo ::: a
P -j abc echo ::: a
P --halt sometimes echo ::: a
P echo :::: no_such_file
P -a no_such_file echo
P --pipe ::: a
P --resume echo ::: a
"""


def lines(table):
    return table.strip().splitlines()


def both(line, tmp_path, *options):
    """What the two do in folders that are alike, at the same time: exit status and output."""
    def run(name, program):
        folder = tmp_path / name
        folder.mkdir()
        for name, text in FILES.items():
            (folder / name).write_text(text)
        environment = {**os.environ, "SHELL": BASH, "PARALLEL": "--will-cite", "LC_ALL": "C.UTF-8"}
        function = f'p() {{ {program} -k {" ".join(options)} "$@"; }}\n'
        done = subprocess.run([BASH, "-c", function + re.sub(r"\bP(?= |$)", "p", line)], cwd=folder, env=environment,
                              capture_output=True, timeout=60)
        return done.returncode, done.stdout

    with ThreadPoolExecutor(2) as both:
        return list(both.map(run, ("theirs", "ours"), ("parallel", DGMP)))


@pytest.mark.parametrize("line", lines(COMMANDS))
def test_the_same_commands(line, tmp_path):
    theirs, ours = both(line, tmp_path, "--dry-run")
    assert ours == theirs


@pytest.mark.parametrize("line", lines(RUNS))
def test_the_same_runs(line, tmp_path):
    theirs, ours = both(line, tmp_path)
    assert ours == theirs


@pytest.mark.parametrize("line", lines(MISTAKES))
def test_the_same_mistakes(line, tmp_path):
    theirs, ours = both(line, tmp_path)
    assert ours[0] == theirs[0]
    assert ours[1] == b""


def test_a_long_list_of_arguments_is_cut_into_as_few_commands(tmp_path):
    """parallel leaves half of the room unused."""
    theirs, ours = both("seq 60000 | P -j1 -m echo", tmp_path)
    assert ours[0] == theirs[0] == 0
    assert ours[1].split() == theirs[1].split()
    assert 1 < len(ours[1].splitlines()) <= len(theirs[1].splitlines())
