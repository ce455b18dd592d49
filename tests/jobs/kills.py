"""Kills daemons and keepers in the middle of arrays, and counts what the tasks have done.

    python -m tests.jobs.kills --kills 100

Each task appends a line to a file, so what has happened is seen, not what the store believes.  A daemon that is killed changes
nothing: every task has run once.  After the death of a keeper, `rerun` has run every task at least once, and more than once
only those that say so; `fail` has run none twice, and those that did not finish have failed as lost.
"""

import argparse
import random
import sys
import time
from collections import Counter

from dgmp.jobs.client import select
from tests.helpers import eventually
from tests.jobs.harness import Node, kill

VICTIMS = ("daemon", "keeper", "both")


def storm(seed, victims, policy, tasks=300, kills=3, seconds=0.004):
    """One array, and so many kills in it; returns how many there were, or AssertionError."""
    rng = random.Random(seed)
    done = 0
    with Node() as node:
        daemon = node.up()
        client = node.client()
        job = node.submit(client, f'echo "$DGMP_TASK_ID $DGMP_ATTEMPT" >> effects; sleep {seconds}', array=[[1, tasks]],
                          on_lost=policy)
        client.close()
        for _ in range(kills):
            at = len(node.lines("effects"))
            more = rng.randrange(1, max(2, tasks // (kills + 1)))
            eventually(lambda: len(node.lines("effects")) >= min(tasks, at + more), 30)  # noqa: B023
            time.sleep(rng.random() * 0.01)
            victim = rng.choice(victims)
            keeper = node.processes("dgmp.jobs.keeper")
            if victim != "keeper":
                kill(daemon)
            if victim != "daemon":
                for pid in keeper:
                    kill(pid)
            done += 1
            if victim != "keeper":
                daemon = node.up()
        client = node.client()
        [ended] = client.wait([select(job)], timeout=60)
        assert ended["counts"]["waiting"] == ended["counts"]["running"] == 0, ended
        check(node, client, job, tasks, policy, ended, "daemon" in victims and len(victims) == 1)
    return done


def check(node, client, job, tasks, policy, ended, once):
    effects = Counter(int(line.split()[0]) for line in node.lines("effects"))
    rows = {row["task"]: row for row in client.tasks(job)["tasks"]}
    assert sorted(rows) == list(range(1, tasks + 1)), "tasks without a row"
    if once:
        assert ended["state"] == "finished" and set(effects.values()) == {1} and len(effects) == tasks, (ended, effects)
    for task, row in rows.items():
        if policy == "rerun":
            assert row["state"] == "finished" and 1 <= effects[task] <= row["attempt"], (task, row, effects[task])
        else:
            assert effects[task] <= 1 and row["attempt"] == 1, (task, row, effects[task])
            assert (row["state"], row["reason"]) in (("finished", "exit"), ("failed", "lost")), (task, row)
            assert row["state"] == "failed" or effects[task] == 1, (task, row)
    lines = Counter(node.lines("effects"))
    assert all(count == 1 for count in lines.values()), f"an attempt ran twice: {lines.most_common(3)}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    kills, seed = 0, options.seed
    while kills < options.kills:
        victims, policy = [(("daemon",), "rerun"), (("keeper",), "rerun"), (VICTIMS, "fail"), (VICTIMS, "rerun")][seed % 4]
        kills += storm(seed, victims, policy)
        print(f"seed {seed}: {'/'.join(victims)}, {policy}: right; {kills} kills", flush=True)
        seed += 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
