"""`dgmp each` beside xargs and GNU parallel, in turns.  python -m bench.launcher [rounds] [jobs]

Each round runs all of them once, one after the other, so that what else the machine does hits them alike; the ratios are of
a round, and their median is told.  Then: how long until the first command has begun, and how much memory many jobs take.
"""
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time

DGMP = [sys.executable, "-m", "dgmp", "each"]
PARALLEL = "GNU parallel -j2"
JOBS = 2000
ROUNDS = 7


def seconds(argv, text=b""):
    begun = time.perf_counter()
    subprocess.run(argv, input=text, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun


def spawn_loop(jobs):
    """The floor: posix_spawn and wait, two at once, no launcher."""
    begun = time.perf_counter()
    live = 0
    for i in range(jobs):
        if live == 2:
            os.wait()
            live -= 1
        os.posix_spawn("/bin/true", ["true", str(i)], os.environ)
        live += 1
    while live:
        os.wait()
        live -= 1
    return time.perf_counter() - begun


def cpu():
    """Seconds that our children, and theirs, have used; and we."""
    both = resource.getrusage(resource.RUSAGE_CHILDREN), resource.getrusage(resource.RUSAGE_SELF)
    return sum(used.ru_utime + used.ru_stime for used in both)


def throughput(rounds, jobs):
    text = b"".join(b"%d\n" % i for i in range(jobs))
    runs = {
        "dgmp each -j2": lambda: seconds([*DGMP, "-j2", "true"], text),
        "xargs -P2 -n1": lambda: seconds(["xargs", "-P2", "-n1", "true"], text),
        "posix_spawn, no launcher": lambda: spawn_loop(jobs),
    }
    share = 1.0
    if shutil.which("parallel"):
        few = text[: len(text) // 8]
        share = few.count(b"\n") / jobs
        runs[PARALLEL] = lambda: seconds(["parallel", "--will-cite", "-j2", "true"], few) / share
    found = {name: [] for name in runs}
    used = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            before = cpu()
            found[name].append(run())
            used[name].append((cpu() - before) / (jobs * (share if name == PARALLEL else 1)))
    ours = found["dgmp each -j2"]
    print(f"{jobs} x true, two at once, {rounds} rounds; median jobs a second, CPU time a job, and "
          "dgmp's rate by theirs (median, range)")
    for name, took in found.items():
        ratios = sorted(theirs / mine for theirs, mine in zip(took, ours))
        print(f"  {name:28} {jobs / statistics.median(took):6.0f}   {statistics.median(used[name]) * 1e3:5.2f} ms   {statistics.median(ratios):5.2f}   "
              f"{ratios[0]:.2f} to {ratios[-1]:.2f}")


def first_command(rounds):
    """From the shell's exec to that of the first command, and Python's own start beside it."""
    found, python = [], []
    for _ in range(rounds * 5):
        begun = time.time()
        stamp = subprocess.run([*DGMP, "date", ":::", "+%s.%N"], capture_output=True, text=True, check=True).stdout
        found.append(float(stamp) - begun)
        python.append(seconds([sys.executable, "-c", "pass"]))
    print(f"first command after {min(found) * 1e3:.0f} ms at best, {statistics.median(found) * 1e3:.0f} ms median; "
          f"python -c pass: {min(python) * 1e3:.0f} and {statistics.median(python) * 1e3:.0f} ms")


def memory(jobs):
    """The launcher's resident memory on the way through many jobs."""
    running = subprocess.Popen([*DGMP, "-j2", "--range", f"1-{jobs}", "true"], stdout=subprocess.DEVNULL)
    seen = []
    while running.poll() is None:
        time.sleep(1)
        try:
            with open(f"/proc/{running.pid}/task/{running.pid}/children") as file:
                launcher = file.read().split()[0]
            with open(f"/proc/{launcher}/status") as file:
                status = dict(line.split(":", 1) for line in file)
            seen.append(int(status["VmRSS"].split()[0]))
        except (OSError, IndexError, KeyError):
            continue
    print(f"{jobs} jobs: resident {seen[0]} KiB after a second, {max(seen)} KiB at most, {seen[-1]} KiB at the end")


def main():
    rounds = int(sys.argv[1]) if sys.argv[1:] else ROUNDS
    jobs = int(sys.argv[2]) if sys.argv[2:] else JOBS
    throughput(rounds, jobs)
    first_command(rounds)
    memory(50 * jobs)


if __name__ == "__main__":
    main()
