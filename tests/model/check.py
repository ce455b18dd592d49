"""make model: SPIN goes through every interleaving of the models beside this file, and must find the fault in each mutant.

A model follows the C code step by step (its head says which, what it checks and what it leaves out).  A mutant is the same
model with one fence, look or claim taken out, by a macro: SPIN must find how that goes wrong, else the model proves nothing.
Prints a line for each: which, how many states there are, the time, the result.  A model that fails leaves its folder in
build/model, and the way there is printed.

    python tests/model/check.py [--quick] [park | ring | chan | death ...]
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

HERE = os.path.dirname(os.path.abspath(__file__))
KEPT = os.path.join(HERE, "..", "..", "build", "model")
NEEDS = {"spin": "spin", "gcc": "gcc"}  # a program, and the package of Debian and Ubuntu
SECONDS = 600  # on a busy machine; alone each takes less than 30
DEPTH = 100_000
MEGABYTES = 1000


class Case(NamedTuple):
    """A model in one of its set-ups, or a mutant of that: what is taken out, and its macros."""

    model: str
    defines: str
    without: str = ""
    quick: bool = False

    @property
    def name(self) -> str:
        what = " ".join(self.defines.split()[:1 if self.without else None])
        return f"{self.model} {what}" + (f", without {self.without}" if self.without else "")


CASES = [
    Case("park", "FORK", quick=True),
    Case("park", "FORK NM=3 SPAWNS=1"),
    Case("park", "PARK SPAWNS=1", quick=True),
    Case("park", "PARK NM=3 SPAWNS=1"),
    Case("park", "BLOCK NP=1", quick=True),
    Case("park", "BLOCK"),
    Case("park", "FORK NO_SUBMIT_FENCE", "the fence between submitting and looking", True),
    Case("park", "FORK LOOK_FIRST", "the barriers between parking and looking"),
    Case("park", "FORK NO_LOOK NO_STOPM_LOOK", "looking once more", True),
    Case("park", "FORK NO_STOPM_LOOK", "looking once more when known to be parked", True),
    Case("park", "FORK NO_STARTM_LOOK", "looking once more when no M was to be had"),
    Case("park", "PARK SPAWNS=1 INBOX_FIRST", "the barrier between parking and looking into the inbox"),
    Case("park", "PARK SPAWNS=1 NO_TOKEN_WAKE", "a wake-up for a token"),
    Case("park", "BLOCK NP=1 NO_HANDOFF_LOOK", "looking once more when a P was handed off", True),
    Case("park", "DEATH SPAWNS=1"),
    Case("park", "DEATH SPAWNS=1 NO_FINISH", "finishing a dead one's wake-up"),
    Case("park", "DEATH SPAWNS=1 NO_BIT", "making a dead one's idle P known", True),
    Case("park", "DEATH SPAWNS=1 NO_LAST_LOOK", "looking for work after a repair"),
    Case("ring", "OVERFLOW"),
    Case("ring", "STEAL", quick=True),
    Case("ring", "INGLOBAL", quick=True),
    Case("ring", "OVERFLOW CLAIM_STORE", "the CAS of a claim", True),
    Case("ring", "OVERFLOW NO_POPPING", "the word being popped", True),
    Case("ring", "STEAL NO_STEAL_INTENT", "the intent of a steal", True),
    Case("ring", "OVERFLOW NO_OVERFLOW_INTENT", "the intent of an overflow"),
    Case("ring", "OVERFLOW NO_KICK_INTENT", "the intent of what leaves runnext"),
    Case("ring", "INGLOBAL NO_GLOBAL_INTENT", "the intent of what comes from the global queue", True),
    Case("ring", "STEAL CLEAR_FIRST", "the order of publishing and clearing an intent", True),
    Case("ring", "STEAL COPY_AFTER", "copying before the CAS of a steal", True),
    Case("ring", "INGLOBAL TAIL_FIRST", "the release of a ring's tail", True),
    Case("chan", "CROSS"),
    Case("chan", "LIMIT"),
    Case("chan", "LIMIT CAP1"),
    Case("chan", "CLOSE", quick=True),
    Case("chan", "CROSS LOCK_AS_GIVEN", "the order of locks", True),
    Case("chan", "CROSS FIRED_STORE", "the CAS of who ends a wait"),
    Case("chan", "LIMIT CANCEL_STORE", "the CAS of who gives up", True),
    Case("chan", "LIMIT DONE_FIRST", "the order of value and done", True),
    Case("chan", "CROSS WAKE_FIRST", "the order of done and wake-up", True),
    Case("chan", "CROSS NO_DEQUEUE", "taking sudogs out of the queues after a wait", True),
    Case("chan", "CROSS QUEUE_LATE", "queueing before the locks go", True),
    Case("death", "HANDOFF"),
    Case("death", "ROOM"),
    Case("death", "HANDOFF UNQUEUE_FIRST", "the order of firing and unqueueing"),
    Case("death", "HANDOFF NO_RETRY", "telling a waiter to try again", True),
    Case("death", "ROOM NO_MOVING", "the record of a message that moves"),
    Case("death", "ROOM NO_REFILL", "filling the room that a dead receiver made", True),
]


class Failed(Exception):
    """A model has a fault, a mutant has none, or SPIN did not get through."""


class Result(NamedTuple):
    states: int
    depth: int
    seconds: float
    errors: int
    fault: str


def missing() -> list[str]:
    return [package for program, package in NEEDS.items() if not shutil.which(program)]


def build(case: Case, folder: str) -> None:
    """pan, the program that goes through the states.  Unoptimized: gcc takes longer than what it would gain."""
    shutil.copy(os.path.join(HERE, case.model + ".pml"), folder)
    for command in (["spin", *("-D" + d for d in case.defines.split()), "-a", case.model + ".pml"],
                    ["gcc", "-w", "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={MEGABYTES}", "-o", "pan", "pan.c"]):
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise Failed(f"{shlex.join(command)}: {done.stdout}")


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else -1


def search(case: Case, folder: str) -> Result:
    begin = time.monotonic()
    try:
        done = subprocess.run(["./pan", "-E", f"-m{DEPTH}", "-w22"], cwd=folder, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise Failed(f"not through all states after {SECONDS} s") from None
    out = done.stdout
    errors, states = number(r"errors: (\d+)", out), number(r"(\d+) states, stored", out)
    fault = re.search(r"pan:\d+: (.*?) \(at depth", out)
    if errors < 0 or states < 0 or re.search("max search depth too small|out of memory|reached -DMEMLIM", out):
        raise Failed(f"SPIN did not get through all states: {out}")
    return Result(states, number(r"depth reached (\d+)", out), time.monotonic() - begin, errors, fault[1] if fault else "")


def verify(case: Case) -> Result:
    """Raises Failed unless the model is right, or the mutant wrong."""
    folder = tempfile.mkdtemp(prefix="dgmp-model-")
    try:
        build(case, folder)
        result = search(case, folder)
        if case.without and not result.errors:
            raise Failed("the mutant goes through all states without an error")
        if not case.without and result.errors:
            kept = os.path.join(KEPT, case.name.replace(" ", "_"))
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(folder, kept)
            defines = " ".join("-D" + d for d in case.defines.split())
            raise Failed(f"{result.fault}\n  the way there: cd {kept} && spin -t -p -g {defines} {case.model}.pml")
        if case.without and not os.path.exists(os.path.join(folder, case.model + ".pml.trail")):
            raise Failed("an error without a trail")
        return result
    finally:
        shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="park, ring, chan, death; all unless given")
    parser.add_argument("--quick", action="store_true", help="only what takes a second or two")
    args = parser.parse_args()
    if missing():
        print(f"make model needs {' and '.join(missing())}: install it "
              f"(Debian, Ubuntu: apt install {' '.join(missing())})", file=sys.stderr)
        return 2
    failed = 0
    for case in CASES:
        if args.quick and not case.quick or args.models and case.model not in args.models:
            continue
        try:
            result = verify(case)
        except Failed as e:
            failed += 1
            print(f"{case.name:76} FAILED: {e}", flush=True)
            continue
        said = "the fault is found" if case.without else "no error"
        print(f"{case.name:76} {result.states:>10,} states {result.seconds:6.1f} s  {said}", flush=True)
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
