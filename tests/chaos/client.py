"""The client of a run of chaos: `python -m tests.chaos.client SEED SECONDS [WORKLOAD ...]`.

Works for so long, waits for the end of everything, looks whether something has leaked, and closes its runtime.  It ends
with 0 if nothing is left, with 4 if its coordinator died; what it has to say goes to the folder of the history.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import dgmp

from . import workloads
from .history import Kind, leaks

NODE_DIED = 4
MOST_AT_ONCE = 5  # workloads
SAMPLES = 0.05  # seconds from one look at the scheduler to the next
MOST_RETRIES = 200  # of a Runtime that retries
SETTLES = 20.0  # seconds until nothing is left of what has ended


def descriptors() -> int:
    """Without that of the kill points, which stays open."""
    return sum(not os.readlink(path).endswith("/killpoints") for path in Path("/proc/self/fd").iterdir() if path.is_symlink())


class Sampler(threading.Thread):
    """Looks at the scheduler again and again; for the harness it also keeps the pids of the Ms in a file."""

    def __init__(self, runtime: dgmp.Runtime, folder: Path) -> None:
        super().__init__(daemon=True, name="sampler")
        self.runtime = runtime
        self.pids = folder / "ms"
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(SAMPLES):
            try:
                snapshot = self.runtime.snapshot()
            except dgmp.DgmpError:  # the node has died
                return
            self.pids.write_text(" ".join(str(m.pid) for m in snapshot.ms))
            fresh = [g.goid for g in snapshot.gs if g.state == "runnable" and not g.started]
            workloads.log(Kind.SAMPLE, 0, min(fresh, default=0), sum(p.state == "idle" for p in snapshot.ps))


def work(seed: int, seconds: float, folder: Path, names: list[str]) -> int:
    chance = random.Random(f"client {seed}")
    options = {"on_worker_death": chance.choice(["fail", "fail", "fail", "retry"]),
               "max_tasks_per_child": chance.choice([None, None, 10])}
    every = [workload for workload in workloads.ALL if workload.__name__ in names or not names]
    if options["on_worker_death"] == "retry":
        every = [workload for workload in every if workload not in workloads.ONCE]
        os.environ[workloads.RETRIES] = str(MOST_RETRIES)
    with dgmp.Runtime(procs=chance.randrange(1, 5), **options) as runtime:
        workloads.runtime = runtime
        sampler = Sampler(runtime, folder)
        sampler.start()
        end = time.monotonic() + seconds
        for i in range(1_000_000):
            chosen = chance.sample(every, min(len(every), chance.randrange(1, MOST_AT_ONCE + 1)))
            workloads.round_of_work(f"{seed}:{i}", runtime, tuple(chosen))
            if time.monotonic() > end or runtime.node.gone is not None:
                break
        sampler.over.set()
        sampler.join()
        left = what_is_left(runtime, folder)
        (folder / "left").write_text("\n".join(left))
        workloads.runtime = None
        return NODE_DIED if runtime.node.gone is not None else 1 if left else 0


def what_is_left(runtime: dgmp.Runtime, folder: Path) -> list[str]:
    """Once it has had time to settle."""
    end = time.monotonic() + SETTLES
    while True:
        gc.collect()
        try:
            stats = runtime.stats()
        except dgmp.CoordinatorDied:
            return []
        left = leaks(stats)
        if not left or time.monotonic() > end:
            (folder / "rescues").write_text(str(stats["rescues"]))
            return left
        time.sleep(0.02)


def main() -> int:
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    seed, seconds = int(sys.argv[1]), float(sys.argv[2])
    folder = Path(os.environ[workloads.FOLDER])
    workloads.log(Kind.SAMPLE)  # its file is there before its descriptors are counted
    before = descriptors()
    code = work(seed, seconds, folder, sys.argv[3:])
    after = descriptors()
    if after > before:
        with open(folder / "left", "a") as file:
            file.write(f"\n{after - before} descriptors of the client")
        code = code or 1
    workloads.log(Kind.LIVED)
    return code


if __name__ == "__main__":
    sys.exit(main())
