"""A bounded pipeline: read, work in several Gs (fan-out), merge (fan-in); and it stops early without leaving anybody behind.

    python examples/pipeline.py [how many results]
"""

import hashlib
import sys

import dgmp

WORKERS = 3
ROOM = 4  # so many items at most lie between two stages


def produce(jobs: dgmp.Chan[int], done: dgmp.Context) -> None:
    """All numbers, until the context is done."""
    i = 0
    while True:
        which, _, _ = dgmp.select(dgmp.send(jobs, i), dgmp.recv(done.done()))
        if which == 1:
            jobs.close()
            return
        i += 1


def work(jobs: dgmp.Chan[int], results: dgmp.Chan[tuple[int, str]], done: dgmp.Context) -> None:
    for i in jobs:
        digest = hashlib.sha256(str(i).encode()).hexdigest()
        which, _, _ = dgmp.select(dgmp.send(results, (i, digest)), dgmp.recv(done.done()))
        if which == 1:
            return


def first_with(prefix: str, n: int) -> list[int]:
    """n numbers whose digest begins with the prefix."""
    jobs, results = dgmp.Chan[int](ROOM), dgmp.Chan[tuple[int, str]](ROOM)
    found = []
    with dgmp.Context() as context, dgmp.Group() as group:
        group.go(produce, jobs, context)
        for _ in range(WORKERS):
            group.go(work, jobs, results, context)
        while len(found) < n:
            i, digest = results.recv()
            if digest.startswith(prefix):
                found.append(i)
        context.cancel()
    return sorted(found)


if __name__ == "__main__":
    numbers = first_with("00", int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    print(len(numbers), all(hashlib.sha256(str(i).encode()).hexdigest().startswith("00") for i in numbers))
