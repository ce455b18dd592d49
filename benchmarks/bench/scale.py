"""Does a queued task cost more when many are queued?  python -m bench.scale

Submits n no-ops, then collects them, for n = 1,000, 10,000 and 100,000 in turn; medians of the cost of one, and their ratio
to the first.
"""
import statistics
import time

import dgmp

from . import tasks


def main():
    sizes, cost = (1_000, 10_000, 100_000), {}
    with dgmp.Runtime(procs=2) as rt:
        for repeat in range(6):
            for n in sizes:
                for _ in range(max(1, 20_000 // n)):
                    begun = time.perf_counter()
                    futures = [rt.go(tasks.noop, i) for i in range(n)]
                    assert [f.result() for f in futures] == list(range(n))
                    spent = time.perf_counter() - begun
                    del futures
                    if repeat:
                        cost.setdefault(n, []).append(spent / n * 1e6)
    first = statistics.median(cost[sizes[0]])
    for n in sizes:
        each = statistics.median(cost[n])
        print(f"{n:8,} queued: {each:.2f} us each, {each / first:.2f} of the first")


if __name__ == "__main__":
    main()
