"""The queue that stays, beside HyperQueue and xargs: python -m bench.daemon [--tasks 10000] [--rounds 3]

One array of `true`, two at once, submitted and waited for, all told; each round runs the systems one after another.  HyperQueue
(pip install hyperqueue; its Python API, as its wheel has no `hq`) gets one job of program tasks and a last one that depends on all.
"""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec

from .cli import shell

MILLION = 1_000_000


class Daemon:
    """A dgmp daemon of its own."""

    def __enter__(self):
        from dgmp.jobs.boot import bring_up
        from dgmp.jobs.client import Client

        self.folder = tempfile.TemporaryDirectory(prefix="bench-")
        os.environ.update(DGMP_RUNTIME_DIR=f"{self.folder.name}/run", DGMP_STATE_DIR=f"{self.folder.name}/state")
        self.pid = bring_up(["--cpus=2"])
        self.client = Client()
        return self

    def __exit__(self, *exception):
        self.client.shutdown(now=True)
        self.client.close()
        self.folder.cleanup()

    def array(self, n):
        from dgmp.jobs.client import select

        begun = time.perf_counter()
        job = self.client.submit(["/bin/true"], array=[[1, n]])
        [ended] = self.client.wait([select(job)])
        assert ended["counts"]["finished"] == n, ended
        return time.perf_counter() - begun

    def submit_million(self):
        from dgmp.jobs.client import select

        begun = time.perf_counter()
        job = self.client.submit(["/bin/sleep", "3600"], array=[[1, MILLION]])
        submitted = time.perf_counter()
        self.client.jobs()
        listed = time.perf_counter()
        self.client.status()
        stated = time.perf_counter()
        self.client.cancel([select(job)])
        self.client.wait([select(job)])
        return submitted - begun, listed - submitted, stated - listed

    def idle(self, seconds=5):
        """How often daemon and keeper have run meanwhile, and their CPU seconds."""
        pids = self.pid, self.client.status()["keeper"]
        time.sleep(1)
        before = [schedstat(pid) for pid in pids]
        time.sleep(seconds)
        after = [schedstat(pid) for pid in pids]
        return [(b[2] - a[2], (b[0] - a[0]) / 1e9) for a, b in zip(before, after)]


def schedstat(pid):
    """Of all threads: ns on a core, ns waiting for one, times that it ran."""
    found = [open(f"/proc/{pid}/task/{tid}/schedstat").read().split() for tid in os.listdir(f"/proc/{pid}/task")]
    return [sum(int(f[i]) for f in found) for i in range(3)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    n = options.tasks
    seconds = {"dgmp daemon": [], "xargs -P2 -n1": []}
    if find_spec("hyperqueue"):
        seconds["HyperQueue"] = []
    with Daemon() as daemon:
        for _ in range(options.rounds):
            seconds["dgmp daemon"].append(daemon.array(n))
            seconds["xargs -P2 -n1"].append(shell(f"seq {n} | xargs -P2 -n1 /bin/true"))
            if "HyperQueue" in seconds:
                seconds["HyperQueue"].append(in_child(n))
            print({name: [round(s / n * 1e3, 3) for s in samples] for name, samples in seconds.items()}, "ms a task", file=sys.stderr)
        submitted, listed, stated = daemon.submit_million()
        idle = daemon.idle()
    print("| system | ms a task | tasks/s |\n|---|---|---|")
    for name, samples in seconds.items():
        median = statistics.median(samples) / n
        print(f"| {name} | {median * 1e3:.3f} | {1 / median:,.0f} |")
    print(f"\nsubmit of {MILLION:,} tasks: {submitted * 1e3:.1f} ms; then a listing {listed * 1e3:.1f} ms, a status {stated * 1e3:.1f} ms")
    print(f"idle, 5 s: daemon ran {idle[0][0]} times, {idle[0][1]} s; keeper {idle[1][0]} times, {idle[1][1]} s")


def in_child(n):
    """HyperQueue's cluster prints, and ends its own way."""
    done = subprocess.run([sys.executable, "-c", f"from bench.cli import hyperqueue; print('SECONDS', hyperqueue({n}, 2))"],
                          capture_output=True, text=True, check=True)
    return float(done.stdout.rpartition("SECONDS ")[2])


if __name__ == "__main__":
    main()
