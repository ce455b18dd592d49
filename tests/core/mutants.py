"""Every concurrency test must fail when what it guards is taken out: compiles the core with each mutant and expects that.

A mutant that is indistinguishable on this machine is not here: on x86-64 every read-modify-write is a full barrier, so
the fence after one cannot be missed; that is why the parking side's mutant replaces the read-modify-write itself.
"""

import glob
import os
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CORE = os.path.join(HERE, "..", "..", "dgmp", "_core")
MUTANTS = [  # (macro, what it takes out, the test that kills it)
    ("MUTANT_PLAIN_RUNNEXT", "runnext by a plain store", "test_runq"),
    ("MUTANT_COPY_AFTER_CAS", "a thief copies after its CAS", "test_runq"),
    ("MUTANT_NO_PUT_FENCE", "the fence between submitting and looking", "test_idle"),
    ("MUTANT_PLAIN_PARK", "the barrier between parking and looking", "test_idle"),
    ("MUTANT_NO_RECHECK", "the recheck before sleeping", "test_inbox"),
    ("MUTANT_SWAPPED_CHECK", "recheck first, publish after", "test_inbox"),
]


def run(folder, test, macro):
    program = os.path.join(folder, f"{test}-{macro}")
    sources = [f for f in sorted(glob.glob(os.path.join(CORE, "*.c"))) if not f.endswith("module.c")]
    subprocess.run([os.environ.get("CC", "cc"), "-std=gnu11", "-O2", "-w", "-pthread", f"-I{CORE}", f"-D{macro}",
                    os.path.join(HERE, test + ".c"), *sources, "-o", program], check=True)
    for _ in range(5):  # a race shows itself in most runs, not in each
        try:
            if subprocess.run([program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20).returncode:
                return True
        except subprocess.TimeoutExpired:  # a hang is how a lost wake-up looks
            return True
    return False


def main():
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        for test in sorted({m[2] for m in MUTANTS}):
            if run(folder, test, "MUTANT_NONE"):
                sys.exit(f"{test} fails without a mutant")
        for macro, what, test in MUTANTS:
            begun = time.monotonic()
            killed = run(folder, test, macro)
            survivors += not killed
            print(f"{'killed' if killed else 'SURVIVED':9} {what:45} by {test} ({time.monotonic() - begun:.1f} s)", flush=True)
    return survivors


if __name__ == "__main__":
    sys.exit(main())
