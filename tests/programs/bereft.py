"""A program whose coordinators are killed at random moments, from boot to close, one after the other (tests/chaos/kills.py).

    bereft.py SEED ROUNDS SECONDS

Prints {"wrong": [...]}: what was not as it should be, of exceptions, what took longer than SECONDS, and what was left.
"""

import contextlib
import faulthandler
import gc
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import dgmp
from tests.helpers import descendants, eventually, processes
from tests.programs.mixed import work

LONGEST_LIFE = 0.5


class Killer(threading.Thread):
    """Kills the coordinator that this process starts next, after a while."""

    def __init__(self, chance):
        super().__init__(daemon=True)
        self.life = chance.uniform(0, LONGEST_LIFE)
        self.number = chance.choice([signal.SIGKILL, signal.SIGSEGV])
        self.killed_at = None
        self.given_up = threading.Event()
        self.start()

    def run(self):
        while not (pid := coordinator()):
            if self.given_up.wait(0.0005):
                return
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        time.sleep(self.life)
        self.killed_at = time.monotonic()  # before: once it is dead this thread may come last
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, self.number)
        os.close(pidfd)


def coordinator():
    """This process's child of that kind."""
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            for pid in (task / "children").read_text().split():
                if b"dgmp.coordinator" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return int(pid)
    return None


def bereave(chance, within):
    """One round; what was wrong."""
    wrong = []
    killer = Killer(chance)
    pending, rt = [], None
    try:
        rt = dgmp.Runtime(procs=2)
        while True:
            pending += work(rt)
            if chance.random() < 0.3:
                rt.close(cancel=True)
                pending = []
                rt = None
                break
    except dgmp.CoordinatorDied:
        told = time.monotonic()
        if killer.killed_at is None or told - killer.killed_at > within:
            wrong.append(f"told {told - (killer.killed_at or told):.2f} s after the death")
        for future in pending:
            try:
                future.result(within)
                wrong.append(f"{future!r} has a result")
            except dgmp.CoordinatorDied:
                pass
            except BaseException as e:
                wrong.append(f"{future!r} ended with {e!r}")
    if rt is not None:
        gone = eventually(lambda: not others(), within)
        if not gone:
            wrong += [f"not gone while the runtime is open: {processes().get(pid)}" for pid in others()]
        rt.close()
    killer.given_up.set()
    killer.join()
    return wrong


def others():
    return descendants(os.getpid())


def held():
    """What this process holds: descriptors, threads, maps of segments."""
    gc.collect()  # an exception that was caught has the frame in its traceback, and with it the Future
    return {"descriptors": len(os.listdir("/proc/self/fd")), "threads": threading.active_count(),
            "segments": Path("/proc/self/maps").read_text().count("memfd:dgmp")}


def main(seed, rounds, within):
    faulthandler.enable()
    before = held()
    wrong = []
    for i in range(rounds):
        chance = random.Random(f"{seed} {i}")
        wrong += [f"round {i}: {text}" for text in bereave(chance, within)]
        if not eventually(lambda: not others(), within):
            wrong += [f"round {i}: left: {processes().get(pid)}" for pid in others()]
            subprocess.run(["kill", "-9", *map(str, others())])
        if not eventually(lambda: held() == before, within):  # noqa: B023
            wrong.append(f"round {i}: held before: {before}, after: {held()}")
            before = held()
    print(json.dumps({"wrong": wrong}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
