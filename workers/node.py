"""A node that stays: `python -m dgmp.workers.node PATH [PROCS]` boots one to which programs attach at that path.

It says "ready" when they can, and lasts as long as its stdin is open, so that it ends with whoever has started it, however that
ends; programs that are still attached learn of it (CoordinatorDied).  The daemon starts it (`start`).
"""

from __future__ import annotations

import signal
import subprocess
import sys

import dgmp

READY = "ready"


def start(path: str, procs: int | None = None) -> subprocess.Popen[str]:
    """Starts a node that listens there.  Closing the process's stdin ends it; wait for it then.

    Args:
        path: of the socket; its folder must be this user's, and others must not write to it.
        procs: as for Runtime.

    Raises:
        OSError: it did not boot; why stands on stderr.
    """
    command = [sys.executable, "-m", "dgmp.workers.node", path, *([str(procs)] if procs is not None else [])]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    with process.stdout:
        if process.stdout.readline().strip() != READY:
            raise OSError(f"no node could be started at {path}: it ended with exit code {process.wait()}")
    return process


def main(path: str, procs: str = "") -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    runtime = dgmp.Runtime(int(procs) if procs else None, listen=path)
    try:
        print(READY, flush=True)
        sys.stdin.read()
    finally:
        runtime.close(cancel=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
