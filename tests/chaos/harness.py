"""Chaos: processes are killed and stopped at random, and the history of what happened is checked.

    python -m tests.chaos.harness [--seed N] [--seeds K] [--seconds S] [--points]        (make chaos SEED= SEEDS= SECONDS=)

For each seed one client program (client.py) works for so many seconds, in this process's family: we are its subreaper, so
whatever it leaves is ours to see.  What strikes whom, and when, is drawn from the seed before it begins, and so is what the
client does; only how the system interleaves them is not, so a seed that fails may have to be run more than once.  What a
strike hits is looked up when it is due: the n-th of the Ms that live then.  A seed that fails says how to replay it, and
keeps its folder: history, output and complaints.

With --points half of the seeds also have processes die, or be late, between any two steps of the core; it takes the one that
`make killpoints` builds (dgmp/_core/killpoints.c).
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dgmp._core import become_subreaper
from tests.helpers import alive, descendants

from .client import NODE_DIED
from .history import Kind, Log, Outcome, Record, Role, lost_wake_ups, read, violations
from .workloads import FOLDER

ROOT = Path(__file__).parent.parent.parent
KILLPOINTS = ROOT / "build" / "killpoints"
ENDS = 180.0  # seconds that a client may need beyond its time: machines that do much else are slow
GONE = 5.0  # and until nothing is left of it
MOST_ZYGOTES = 3  # five in a row that die before they are ready end the node, as they should


class Strike(NamedTuple):
    at: float  # seconds since the client began
    role: Role
    which: int  # of several
    stop: float  # seconds, or 0: it is killed


def plan(seed: int, seconds: float) -> list[Strike]:
    """What strikes whom in this run, in order."""
    chance = random.Random(f"strikes {seed}")
    pace = chance.choice([0.02, 0.1, 0.3, 1.0])
    strikes, zygotes, at = [], 0, 0.2
    while (at := at + chance.expovariate(1 / pace)) < seconds:
        role = chance.choices([Role.M, Role.ZYGOTE, Role.COORDINATOR, Role.CLIENT], [80, 6, 7, 7])[0]
        kills = role == Role.M and chance.random() < 0.6 or role == Role.ZYGOTE and zygotes < MOST_ZYGOTES
        zygotes += kills and role == Role.ZYGOTE
        strikes.append(Strike(at, role, chance.randrange(1000), 0 if kills else min(0.5, pace * chance.choice([0.1, 1, 5]))))
    last = chance.random()
    if last < 0.35:
        role = Role.CLIENT if last < 0.2 else Role.COORDINATOR
        strikes.append(Strike((0.3 + 0.7 * chance.random()) * seconds, role, 0, 0))
    return sorted(strikes)


class Points(NamedTuple):
    """How kill points strike in a run: each passage with a probability of 1/n."""

    role: Role
    n: int
    how: str

    def environment(self, seed: int, folder: Path) -> dict[str, str]:
        path = os.pathsep.join(filter(None, [str(KILLPOINTS), os.environ.get("PYTHONPATH", "")]))
        said = {"": f"{self.role.name.lower()}/*:{self.n}:{self.how}", "_SEED": str(seed), "_TIMES": "0",
                "_LOG": str(folder / "killpoints")}
        return {"PYTHONPATH": path} | {"DGMP_KILLPOINT" + name: value for name, value in said.items()}


def points(seed: int) -> Points | None:
    """What a seed draws of them; None: nothing.  Ms that die in another way than by SIGKILL before they have run anything are
    taken for broken, so that is rare."""
    chance = random.Random(f"points {seed}")
    if chance.random() < 0.5:
        return None
    role = chance.choices([Role.M, Role.COORDINATOR, Role.CLIENT], [85, 10, 5])[0]
    how = chance.choices(["KILL", "LATE", "EXIT", "SEGV"], [70, 20, 5, 5])[0]
    often = {"KILL": [300, 3_000, 30_000], "LATE": [30, 300], "EXIT": [30_000], "SEGV": [30_000]}[how]
    return Points(role, chance.choice(often), how)


def children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            found += map(int, path.read_text().split())
    return found


class Run:
    """One seed."""

    def __init__(self, seed: int, seconds: float, points: Points | None = None, only: Sequence[str] = ()) -> None:
        self.seed, self.seconds, self.points, self.only = seed, seconds, points, only
        self.folder = Path(tempfile.mkdtemp(prefix=f"dgmp-chaos-{seed}-"))
        self.log = Log(self.folder)
        self.counts: Counter[str] = Counter()
        self.killed: set[Role] = set()

    def command(self) -> list[str]:
        return [sys.executable, "-m", "tests.chaos.client", str(self.seed), str(self.seconds), *self.only]

    def go(self) -> list[str]:
        """Runs it; what went wrong."""
        environment = {**os.environ, FOLDER: str(self.folder)}
        if self.points is not None:
            environment |= self.points.environment(self.seed, self.folder)
        with open(self.folder / "output", "wb") as output:
            self.client = subprocess.Popen(self.command(), cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
                                           stdout=output, stderr=subprocess.STDOUT)
        wrong = []
        try:
            if not self.strike_all():
                wrong.append(f"hang: the client had not ended {ENDS} s after its time")
                self.dump()
        finally:
            self.client.kill()
            self.client.wait()
        wrong += self.remains()
        self.tell_of_points()
        self.log.close()
        records = read(self.folder)
        self.counts.update(Outcome(record.detail).name for record in records if record.kind == Kind.END)
        self.counts["gs"] = sum(record.kind == Kind.ACCEPT for record in records)
        return wrong + self.code() + self.left(records) + violations(records)

    # ------------------------------------------------------------------ strikes
    def strike_all(self) -> bool:
        """Until the client has ended; False if it does not."""
        begun = time.monotonic()
        due = [(strike.at, i, strike, 0) for i, strike in enumerate(plan(self.seed, self.seconds))]
        deadline = self.seconds + ENDS
        while self.client.poll() is None:
            now = time.monotonic() - begun
            if now > deadline:
                for _, _, _, pid in due:
                    self.go_on(pid)
                return False
            if not due or due[0][0] > now:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.client.wait(min(due[0][0] - now if due else 0.1, 0.1))
                continue
            at, i, strike, stopped = heapq.heappop(due)
            if stopped:
                self.go_on(stopped)
            elif (pid := self.victim(strike)) and strike.stop:
                self.hit(pid, strike.role, Kind.STOP, signal.SIGSTOP)
                heapq.heappush(due, (now + strike.stop, i, strike, pid))
            elif pid:
                self.hit(pid, strike.role, Kind.KILL, signal.SIGKILL)
        for _, _, _, pid in due:
            self.go_on(pid)
        return True

    def victim(self, strike: Strike) -> int:
        """0: there is none now."""
        if strike.role == Role.CLIENT:
            return self.client.pid
        coordinator = next(iter(children(self.client.pid)), 0)
        if strike.role == Role.COORDINATOR or not coordinator:
            return coordinator
        ms: set[int] = set()
        with contextlib.suppress(OSError, ValueError):
            ms = set(map(int, (self.folder / "ms").read_text().split()))
        if not ms:
            return 0
        found = sorted(pid for pid in children(coordinator) if (pid in ms) == (strike.role == Role.M))
        return found[strike.which % len(found)] if found else 0

    def hit(self, pid: int, role: Role, kind: Kind, number: signal.Signals) -> None:
        if kind == Kind.KILL:
            self.killed.add(role)
        self.counts[f"{role.name} {kind.name}"] += 1
        self.log.write(kind, pid, 0, role)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def go_on(self, pid: int) -> None:
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            self.log.write(Kind.CONT, pid)

    # ------------------------------------------------------------------ afterwards
    def tell_of_points(self) -> None:
        """Who died at a kill point, for the history."""
        if self.points is None or self.points.how == "LATE":
            return
        with contextlib.suppress(OSError):
            for line in (self.folder / "killpoints").read_text().splitlines():
                name, _, _, pid = line.split()
                self.counts[f"{self.points.role.name} KILL POINT"] += 1
                self.killed.add(self.points.role)
                self.log.write(Kind.KILL, int(pid), 0, self.points.role)

    def dump(self) -> None:
        """Where the client's threads and its Gs are, in its output."""
        for number in (signal.SIGUSR1, signal.SIGQUIT):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.client.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.client.wait(2)

    def remains(self) -> list[str]:
        """Processes; they are ended, too."""
        end = time.monotonic() + GONE
        while True:
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            left = [pid for pid in descendants(os.getpid()) if alive(pid)]
            if not left or time.monotonic() > end:
                break
            time.sleep(0.01)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return [f"left: {len(left)} processes"] if left else []

    def code(self) -> list[str]:
        code = self.client.returncode
        expected = {0, 1}  # 1: something is left
        if Role.COORDINATOR in self.killed:
            expected.add(NODE_DIED)
        if Role.CLIENT in self.killed:
            expected |= {-signal.SIGKILL, 1} if self.points is None else {-signal.SIGKILL, -signal.SIGSEGV, 1}
        return [] if code in expected else [f"the client ended with {code}"]

    def left(self, records: Sequence[Record]) -> list[str]:
        found: list[str] = []
        with contextlib.suppress(OSError):
            found = [f"left: {line}" for line in (self.folder / "left").read_text().splitlines() if line]
        if self.points is None or self.points.how != "LATE":
            with contextlib.suppress(OSError, IndexError):
                seconds = (records[-1].ns - records[0].ns) / 1e9
                strikes = sum(n for name, n in self.counts.items() if "KILL" in name or "STOP" in name)
                found += lost_wake_ups(int((self.folder / "rescues").read_text()), strikes, seconds)
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--points", action="store_true")
    parser.add_argument("--only", action="append", default=[], help="a workload, to see which one it takes")
    options = parser.parse_args()
    become_subreaper()
    begun, counts, failed = time.monotonic(), Counter[str](), []
    for seed in range(options.seed, options.seed + options.seeds):
        run = Run(seed, options.seconds, points(seed) if options.points else None, options.only)
        wrong = run.go()
        counts.update(run.counts)
        print(f"seed {seed}: {run.counts['gs']} Gs, {run.points or ''} "
              f"{'ok' if not wrong else f'{len(wrong)} violations'}", flush=True)
        if not wrong:
            shutil.rmtree(run.folder)
            continue
        failed.append(seed)
        print("".join(f"  {text}\n" for text in wrong[:20]) + f"  its history, output and complaints: {run.folder}\n"
              f"  replay: make chaos SEED={seed} SECONDS={options.seconds:g}", flush=True)
    print(f"{options.seeds} seeds in {(time.monotonic() - begun) / 60:.1f} minutes, {len(failed)} failed {failed or ''}")
    print(", ".join(f"{name} {n}" for name, n in sorted(counts.items())))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
