"""What the look for a deadlock asks of the system."""

import math
import os
import signal
import subprocess
import sys

from dgmp.api import deadlock


def test_threads_of_a_process():
    code = "import threading; threading.Thread(target=input).start(); print(flush=True)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        assert deadlock.threads(child.pid) == 2
        child.communicate(b"\n")


def test_a_process_that_has_died_may_bring_anything():
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie
    assert deadlock.threads(child.pid) == math.inf
    child.wait()
    assert deadlock.threads(child.pid) == math.inf


def test_handlers_of_the_programs_own():
    before = signal.getsignal(signal.SIGUSR1)
    try:
        for handler, is_users in (signal.SIG_IGN, False), (signal.default_int_handler, False), (print, True):
            signal.signal(signal.SIGUSR1, handler)
            assert deadlock.is_users(signal.SIGUSR1) == is_users
    finally:
        signal.signal(signal.SIGUSR1, before)
