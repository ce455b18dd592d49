"""How long an M's death takes to become its G's error at the caller, and until its P works again; and the coordinator's death to
become CoordinatorDied.  python -m bench.deaths [n]

An M that runs a long G is killed; beside it is another that has nothing to do, or one that is as busy.  Both times begin just
before the kill.  The P works again when a G that was queued, and found no P, says at which time it began.
"""
import os
import signal
import statistics
import sys
import time

import dgmp


def spin(names):
    """A long G; says which process it is."""
    names.send(os.getpid())
    while True:
        pass


def now():
    return time.monotonic_ns()


def die(rt, names):
    """Kills the M of a new long G.  Returns ns: until its error is here, until a G that waits has begun."""
    long = rt.go(spin, names)
    pid = names.recv()
    waiting = rt.go(now)
    time.sleep(0.02)  # that it waits, if all Ps are busy; all has settled
    begun = time.monotonic_ns()
    os.kill(pid, signal.SIGKILL)
    try:
        long.result()
    except dgmp.WorkerDied:
        told = time.monotonic_ns()
    return told - begun, waiting.result() - begun


def measure(busy, n):
    """busy: the other Ms run long Gs, too, so that the only P that is ever free is the dead one's."""
    with dgmp.Runtime(procs=2) as rt:
        names = rt.chan()
        rt.main.result()
        others = [rt.go(spin, names)] if busy else []
        for _ in others:
            names.recv()
        found = [die(rt, names) for _ in range(n)]
        for other in others:
            other.cancel()
        rt.close(cancel=True)
    return found


def bereave():
    """Kills a coordinator under a thread that waits.  Returns ns until that is told, all processes being gone by then."""
    with dgmp.Runtime(procs=2) as rt:
        rt.main.result()
        pending = rt.go(dgmp.sleep, 3600)
        rt.go(now).result()
        begun = time.monotonic_ns()
        os.kill(rt._pid, signal.SIGKILL)
        try:
            pending.result()
        except dgmp.CoordinatorDied:
            return time.monotonic_ns() - begun


def line(name, spent):
    spent = sorted(x / 1e6 for x in spent)
    print(f"{name:52} median {statistics.median(spent):6.2f} ms, p90 {spent[int(len(spent) * 0.9)]:6.2f}, worst {spent[-1]:6.2f}")


def main():
    n = int(sys.argv[1]) if sys.argv[1:] else 100
    for name, busy in (("another M is idle", False), ("all others are busy", True)):
        found = measure(busy, n)
        line(f"{name}: from death to the error", [told for told, _ in found])
        if busy:  # else another P takes the G at once
            line(f"{name}: from death to its P at work again", [again for _, again in found])
    line("from the coordinator's death to CoordinatorDied", [bereave() for _ in range(n // 2)])


if __name__ == "__main__":
    main()
