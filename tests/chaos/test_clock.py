"""The wall clock jumps, by a day at each look at it: no deadline, sleep or wait notices."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers import PYTHON

ROOT = Path(__file__).parent.parent.parent

JUMPY = """
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long jumps;

static void jump(time_t *seconds) { *seconds += (__atomic_fetch_add(&jumps, 1, __ATOMIC_RELAXED) % 2 ? -1 : 1) * 86400; }

int clock_gettime(clockid_t clock, struct timespec *t) {
    int e = (int)syscall(SYS_clock_gettime, clock, t);
    if (!e && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) jump(&t->tv_sec);
    return e;
}

int gettimeofday(struct timeval *t, void *zone) {
    (void)zone;
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec, t->tv_usec = now.tv_nsec / 1000;
    jump(&t->tv_sec);
    return 0;
}

time_t time(time_t *t) {
    struct timeval now;
    gettimeofday(&now, 0);
    return t ? *t = now.tv_sec : now.tv_sec;
}
"""

PROGRAM = """
import asyncio, os, signal, time, dgmp

def timed(least, most, act, *args, **kwargs):
    begun = time.monotonic()
    try:
        act(*args, **kwargs)
    except TimeoutError:
        pass
    spent = time.monotonic() - begun
    assert least <= spent < most, (act, spent)

assert abs(time.time() - time.time()) > 80_000  # it does jump
rt = dgmp.Runtime(procs=2)
LONG = 20  # for a machine that has other things to do; a day is longer
pending = rt.go(dgmp.sleep, 3600)
lock = dgmp.Mutex(runtime=rt)
lock.lock()
timed(0.05, LONG, pending.result, timeout=0.05)
timed(0.05, LONG, rt.chan().recv, timeout=0.05)
timed(0.05, LONG, lock.lock, timeout=0.05)
timed(0.05, LONG, lambda: rt.go(dgmp.sleep, 0.05).result())
timed(0.05, LONG, lambda: rt.go(time.sleep, 0.05).result())
timed(0.05, LONG, lambda: dgmp.after(0.05, runtime=rt).recv())
timed(0.05, LONG, lambda: rt.go(lambda: dgmp.after(0.05).recv()).result())
timed(0.05, LONG, lambda: rt.go(asyncio.sleep, 0.05).result())
pid = rt.go(dgmp.current).result()["pid"]
dying = rt.go(os.kill, pid, signal.SIGKILL)
timed(0, LONG, dying.exception)
timed(0, LONG, rt.close, cancel=True)
print("fine")
"""


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_jumps_of_the_wall_clock_do_not_matter(tmp_path):
    source, library = tmp_path / "jumpy.c", tmp_path / "jumpy.so"
    source.write_text(JUMPY)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    done = subprocess.run([PYTHON, "-c", PROGRAM], capture_output=True, text=True, timeout=60,
                          env=os.environ | {"LD_PRELOAD": str(library)})
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


WALL = re.compile(r"CLOCK_REALTIME|gettimeofday|\btime\.time(?:_ns)?\(|pthread_(?:mutex|cond)_timed|sem_timedwait|\btime\(NULL")

JOBS = {f"dgmp/{name}.py" for name in ("cli/forget", "cli/tables", "jobs/daemon", "jobs/keeper", "jobs/launcher",
                                       "jobs/process")}


def test_the_wall_clock_is_read_for_people_and_files_only():
    """In a channel of `after` or `tick`, which says what time it is; beside the times of source files; and when a
    job began and ended, also one that a spawner has started."""
    files = [path for folder in ("dgmp", "workers") for end in ("*.py", "*.[ch]") for path in (ROOT / folder).rglob(end)]
    found = {str(path.relative_to(ROOT)) for path in files if WALL.search(path.read_text())}
    assert len(files) > 100 and found == {
        "dgmp/_core/bind_chan.c", "dgmp/_core/spawners.c", "dgmp/api/chan.py", "dgmp/api/edits.py", *JOBS}
