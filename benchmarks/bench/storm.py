"""100,000 Gs with retries, and an M killed every 50 ms as they run: what that costs.  python -m bench.storm [n]"""
import contextlib
import os
import signal
import sys
import threading
import time

import dgmp

EVERY = 0.05


def work(i):
    for _ in range(2000):
        pass
    return i * i


def run(n, kill):
    """Seconds, and how many were killed."""
    with dgmp.Runtime(procs=2) as rt:
        rt.main.result()
        done, kills = threading.Event(), 0

        def strike():
            nonlocal kills
            while not done.wait(EVERY):
                ms = rt.node.view.pids()
                with contextlib.suppress(ProcessLookupError, IndexError, ZeroDivisionError):
                    os.kill(ms[kills % len(ms)][1], signal.SIGKILL)
                    kills += 1

        striker = threading.Thread(target=strike)
        if kill:
            striker.start()
        begun = time.perf_counter()
        futures = [rt.spawn(work, (i,), retries=100, crash_limit=100) for i in range(n)]
        results = [f.result() for f in futures]
        seconds = time.perf_counter() - begun
        done.set()
        if kill:
            striker.join()
        assert results == [i * i for i in range(n)], "wrong results"
        return seconds, kills


def main():
    n = int(sys.argv[1]) if sys.argv[1:] else 100_000
    for _ in range(3):
        quiet, _ = run(n, False)
        struck, kills = run(n, True)
        print(f"{n:,} Gs: {quiet:.2f} s undisturbed, {struck:.2f} s with {kills} kills: {quiet / struck:.2f} of the throughput",
              flush=True)


if __name__ == "__main__":
    main()
