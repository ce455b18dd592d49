"""A node to which mixture.py attaches, and dies at the kill point that is the argument: who has booted the node and another
client work on, and nothing of the dead one is left.  Prints how mixture.py has ended."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import dgmp
from tests.helpers import eventually, still_fine


def is_clear(rt):
    rt.node.collect()
    stats = rt.stats()
    return (stats["num_g"], stats["large_blocks"], stats["objects"], rt.node.view.clients()) == (0, 0, 0, 1)


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "node.sock")
        with dgmp.Runtime(procs=2, listen=path, grace=0.5) as node, dgmp.Runtime(attach=path) as other:
            dying = subprocess.Popen([sys.executable, str(Path(__file__).parent / "mixture.py"), f"attach={path}"],
                                     env={**os.environ, "DGMP_KILLPOINT": sys.argv[1]})
            while dying.poll() is None:
                assert still_fine(other)
            assert still_fine(node) and eventually(lambda: is_clear(node), 30), f"{node.stats()}\n{node.snapshot()}"
            assert not node.stats()["throws"]
    print(dying.returncode)


if __name__ == "__main__":
    main()
