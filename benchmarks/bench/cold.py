"""The round trip of one no-op, hot and with everything parked.  python -m bench.cold"""
import statistics
import time

import dgmp

from . import tasks


def main():
    with dgmp.Runtime(procs=2) as rt:
        for name, pause, n in (("hot", 0, 3000), ("parked 1 ms", 0.001, 300), ("parked 5 ms", 0.005, 300), ("parked 50 ms", 0.05, 60)):
            spent = []
            for i in range(n):
                if pause:
                    time.sleep(pause)
                begun = time.perf_counter()
                assert rt.go(tasks.noop, i).result() == i
                spent.append((time.perf_counter() - begun) * 1e6)
            spent.sort()
            print(f"{name:13} median {statistics.median(spent):7.1f} us, p99 {spent[int(n * 0.99) - 1]:7.1f} us")


if __name__ == "__main__":
    main()
