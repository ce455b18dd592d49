"""`make kills`: clients and coordinators are killed at random moments, and what is left of them is counted.

A client is a program of its own (tests/programs/mixed.py), killed at any moment between its start and its third runtime.  A
coordinator is killed under a client that boots, works and closes, round after round, in one process (tests/programs/bereft.py)
which says what it found.  All processes of a round are known by a variable in their environment, whoever their parent is by
then; a round has its own folder for temporary files.

    python -m tests.chaos.kills [--clients 1000] [--coordinators 200] [--seed 1] [--jobs 2]

Prints the counts, and each violation with its seed; ends with 1 if there was one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.helpers import PYTHON, eventually

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = ROOT / "tests" / "programs"
MARK = "DGMP_KILLS"
LONGEST_LIFE = 1.2  # seconds: about two runtimes, on a machine that has little to do
PATIENCE = 2.0
ROUNDS = 20  # coordinators of one client


def family(mark: str) -> list[int]:
    """Everything of that round, whoever its parent is; not what has ended and is only waited for."""
    wanted = f"{MARK}={mark}\0".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in (folder / "environ").read_bytes():  # of a zombie it is empty
                    found.append(int(folder.name))
    return found


def sockets(pids: list[int]) -> set[str]:
    """The inodes of the sockets that they have open."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    target = os.readlink(fd)
                    if target.startswith("socket:["):
                        found.add(target[8:-1])
    return found


def unix_sockets() -> set[str]:
    return {line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines()[1:]}


def left(mark: str, folder: str, held: set[str], patience: float) -> list[str]:
    """What a round has left after so many seconds, in words."""
    out = []
    if not eventually(lambda: not family(mark), patience):
        for pid in family(mark):
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                out.append(f"process {pid}: {line}")
                os.kill(pid, signal.SIGKILL)
    if not eventually(lambda: not held & unix_sockets(), patience):
        out.append("sockets")
    out += [f"file {path}" for path in Path(folder).rglob("*")]
    out += [f"/dev/shm/{name}" for name in os.listdir("/dev/shm") if "dgmp" in name]
    return out


def start(program: str, mark: str, folder: str, *args: str) -> subprocess.Popen[str]:
    env = os.environ | {MARK: mark, "TMPDIR": folder, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen([PYTHON, str(PROGRAMS / program), *args], cwd=folder, env=env, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_a_client(seed: int, patience: float = PATIENCE) -> list[str]:
    """One round; what was wrong with it."""
    life = random.Random(seed).uniform(0, LONGEST_LIFE)
    mark = f"client-{os.getpid()}-{seed}"
    with tempfile.TemporaryDirectory() as folder:
        client = start("mixed.py", mark, folder)
        with contextlib.suppress(subprocess.TimeoutExpired):
            client.wait(life)
        held = sockets(family(mark))
        client.kill()
        try:
            _, err = client.communicate(timeout=patience + 5)  # ends when nobody has its stderr any more
        except subprocess.TimeoutExpired:
            err = "its stderr is still open"
        wrong = left(mark, folder, held, patience)
    if client.returncode != -signal.SIGKILL or err:
        wrong.append(f"it ended with {client.returncode} and said {err!r}")
    return wrong


def kill_coordinators(seed: int, rounds: int, patience: float = PATIENCE) -> list[str]:
    """Several, under one client; what was wrong."""
    mark = f"coordinator-{os.getpid()}-{seed}"
    with tempfile.TemporaryDirectory() as folder:
        client = start("bereft.py", mark, folder, str(seed), str(rounds), str(1 + patience))
        try:
            out, err = client.communicate(timeout=30 * rounds)
        except subprocess.TimeoutExpired:
            client.send_signal(signal.SIGABRT)  # faulthandler shows where it hangs
            out, err = client.communicate()
            err = f"it hangs\n{err}"
        wrong = left(mark, folder, set(), patience)
    wrong += json.loads(out)["wrong"] if out else []
    if client.returncode or err:
        wrong.append(f"it ended with {client.returncode} and said {err}")
    return wrong


def run(name: str, jobs: list[tuple[object, ...]], parallel: int, kills: int) -> int:
    """Returns how many were not as they should be."""
    begun = time.monotonic()
    bad = 0
    with ThreadPoolExecutor(parallel) as pool:
        for (function, seed, *rest), wrong in zip(jobs, pool.map(lambda job: job[0](*job[1:]), jobs), strict=True):  # type: ignore[operator]
            if wrong:
                bad += 1
                print(f"{function.__name__}({', '.join(map(str, (seed, *rest)))}):", *wrong, sep="\n    ", flush=True)  # type: ignore[attr-defined]
    print(f"{name}: {kills} kills in {time.monotonic() - begun:.0f} s, "
          f"{'nothing left behind' if not bad else f'{bad} runs with something wrong'}", flush=True)
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--coordinators", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    clients = [(kill_a_client, options.seed + i) for i in range(options.clients)]
    rounds = [min(ROUNDS, options.coordinators - i) for i in range(0, options.coordinators, ROUNDS)]
    coordinators = [(kill_coordinators, options.seed + i, n) for i, n in enumerate(rounds)]
    bad = run("clients", clients, options.jobs, options.clients)  # type: ignore[arg-type]
    bad += run("coordinators", coordinators, options.jobs, options.coordinators)  # type: ignore[arg-type]
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
