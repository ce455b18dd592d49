"""A program that does a little of everything, again and again, until somebody kills it (tests/chaos/kills.py): boots a runtime,
forks and joins, maps, sends, sleeps, carries large arguments, starts a process, cancels, closes."""

import os
import subprocess
import sys

import dgmp

LARGE = b"x" * 200_000


def fib(n):
    return n if n < 2 else sum(dgmp.gather(dgmp.go(fib, n - 1), dgmp.go(fib, n - 2)))


def pass_on(chan, out):
    for value in chan:
        out.send(value)
    out.close()


def waits_for_a_child():
    return subprocess.run(["sleep", "60"]).returncode


def work(rt):
    """One round.  Returns what is still pending: Gs that end by nothing but a cancel, or the end of the runtime."""
    first, second = rt.chan(1), rt.chan()
    endless = [rt.go(pass_on, first, second), rt.go(dgmp.sleep, 60), rt.go(waits_for_a_child)]
    assert rt.go(fib, 6).result() == 8
    assert sum(rt.map(abs, range(-100, 0))) == 5050
    for i in range(5):
        first.send(i)
        assert second.recv() == i
    assert all(f.result() == len(LARGE) for f in [rt.go(len, LARGE) for _ in range(4)])
    cancelled = rt.go(dgmp.sleep, 60)
    cancelled.cancel()
    return endless


def main():
    print(os.getpid(), flush=True)
    while True:
        rt = dgmp.Runtime(procs=2)
        for _ in range(2):
            work(rt)
        rt.close(cancel=True)


if __name__ == "__main__":
    sys.exit(main())
