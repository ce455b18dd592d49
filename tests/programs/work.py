"""A program with a runtime at work: prints its pid's tree size, then waits for Gs that take long."""

import sys
import time

import dgmp


def nap(seconds):
    time.sleep(seconds)


def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        dgmp.go(len, "abc").result()


if __name__ == "__main__":
    futures = [dgmp.go(spin, 60), dgmp.go(nap, 60), dgmp.go(nap, 60)]
    while dgmp.stats()["ms_made"] < 2:
        time.sleep(0.001)
    print("ready", flush=True)
    if sys.argv[1:] == ["raise"]:
        raise ValueError("on purpose")
    if sys.argv[1:] == ["return"]:
        sys.exit(3)
    try:
        dgmp.gather(*futures)
    except dgmp.CoordinatorDied as e:
        print("told:", e, flush=True)
        sys.exit(4)
