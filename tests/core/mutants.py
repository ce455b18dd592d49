"""Every concurrency test must fail when what it guards is taken out: builds the core with each mutant and expects that.

A mutant is an edit of the sources: the text on the left, found exactly once, becomes the text on the right.  One that
is indistinguishable on this machine is not here: on x86-64 every read-modify-write is a full barrier, so the fence after
one cannot be missed; that is why the parking side's mutant replaces the read-modify-write itself.  Where what is taken
out leaves a gap of some nanoseconds, the mutant sleeps in it, else a busy machine may never let another come between.
"""

import glob
import os
import re
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CORE = os.path.join(HERE, "..", "..", "dgmp", "_core")
TRIES = 8  # a race shows itself in most runs, not in each
LONGEST = 600.0  # seconds that a test takes without a mutant, on however busy a machine
MUTANTS = [  # (what it takes out, the test that kills it, file, edits)
    ("runnext by a plain store", "test_runq", "runq.c",
     {"} while (!atomic_compare_exchange_weak(&p->runnext, &old, g));": "store_rlx(&p->runnext, g); } while (0);"}),
    ("a thief copies after its CAS", "test_runq", "runq.c",
     {"for (uint64_t i = 0; i < n; i++)\n            store_rlx(&p->runq[(t0 + i)":
      "if (!atomic_compare_exchange_strong(&victim->head, &h, h + n)) continue;\n"
      "for (uint64_t i = 0; i < n; i++)\n            store_rlx(&p->runq[(t0 + i)",
      "if (atomic_compare_exchange_strong_explicit(&victim->head, &h, h + n, memory_order_acq_rel,\n"
      "                                                    memory_order_acquire)) {\n": "{\n"}),
    ("the fence between submitting and looking", "test_idle", "idle.c",
     {"    fence_sc(&v->seg->sched.spinning[0]);\n    if (nmspinning(v)) return 0;": "    if (nmspinning(v)) return 0;"}),
    ("the barrier between parking and looking", "test_idle", "idle.c",
     {'    if (!clear_bit(v->seg->sched.spinning, p)) throw(v, "reset_spinning: not spinning");\n'
      "    fence_sc(&v->seg->sched.spinning[0]);":
      "    au64 *word = &v->seg->sched.spinning[p / 64];\n"
      "    store_rlx(word, load_rlx(word) & ~(1ull << (p % 64)));"}),
    ("needspinning", "test_idle", "idle.c",
     {"        if (!atomic_load(&v->seg->sched.needspinning)) atomic_store(&v->seg->sched.needspinning, 1);\n": ""}),
    ("the recheck before sleeping", "test_inbox", "inbox.c",
     {"    if (inbox_empty(v, v->self)) e = futex_wait": "    e = futex_wait"}),
    ("recheck first, publish after", "test_inbox", "inbox.c",
     {"    int alone = atomic_fetch_add": "    int empty = inbox_empty(v, v->self);\n    int alone = atomic_fetch_add",
      "    if (inbox_empty(v, v->self)) e = futex_wait": "    if (empty) e = futex_wait"}),
    ("a wake-up by a plain store", "test_note", "note.c",
     {"if (!atomic_compare_exchange_strong(note, &word, MWORD(M_HANDED, arg, MLIFE(word)))) return 0;":
      "atomic_store(note, MWORD(M_HANDED, arg, MLIFE(word)));"}),
    ("a claim by a plain store", "test_gslab", "gslab.c",
     {"              atomic_compare_exchange_strong(&g->state, &s, GSTATE(G_RUNNING, v->self, GATTEMPT(s) + 1, GGEN(s)));":
      "              (atomic_store(&g->state, GSTATE(G_RUNNING, v->self, GATTEMPT(s) + 1, GGEN(s))), 1);"}),
    ("a cancel by a plain store", "test_gslab", "gslab.c",
     {"    } while (!atomic_compare_exchange_strong(&g->state, &s, GSTATE(G_COMPLETING, v->self, GATTEMPT(s), GGEN(s))));\n":
      "    } while (0);\n    usleep(20);\n"
      "    atomic_store(&g->state, GSTATE(G_COMPLETING, v->self, GATTEMPT(s), GGEN(s)));\n"}),
    ("the intent of a steal", "test_kill", "runq.c", {"        intent_begin(v, (uint32_t)(p - v->allp), t0, n, 0);\n": ""}),
    ("the intent of an overflow", "test_kill", "runq.c", {"    intent_begin(v, (uint32_t)(p - v->allp), h, n, g);\n": ""}),
    ("the word being popped", "test_kill", "runq.c",
     {"        store_rel(&m->popping, g);\n        if (atomic_compare": "        if (atomic_compare"}),
    ("the word that is to be run again", "test_kill", "gslab.c",
     {"    store_rel(&m->popping, w);\n    atomic_fetch_and(&g->flags,": "    atomic_fetch_and(&g->flags,"}),
    ("finishing a dead one's wake-up", "test_kill", "repair.c", {"finish_wakeup(v, dead, i);": "(void)finish_wakeup;"}),
    ("keeping what a slot refers to", "test_kill", "repair.c",
     {"if (ran || owned) keep_blocks(v, g, dead);": "(void)keep_blocks;"}),
    ("telling again", "test_kill", "repair.c", {"tell_again(v, i, s);": "(void)tell_again;"}),
    ("tokens of the dead", "test_kill", "repair.c", {"    requeue_tokens(v);\n": "    (void)requeue_tokens;\n"}),
    ("collecting before dropping", "test_kill", "test_kill.c",
     {"        int ours = gcollect(&m0, g);\n        inbox_drop(&m0, 0);":
      "        inbox_drop(&m0, 0);\n        int ours = gcollect(&m0, g);"}),
    ("looking once more at who reads", "test_readers", "readers.c",
     {"    keep(b);\n    return reclaim(v, b, BWORD(B_HELD, v->self));": "    keep(b);\n    return 0;"}),
    ("the CAS of the last reader", "test_readers", "readers.c",
     {"!has_readers(v, b) && atomic_compare_exchange_strong(&b->state, &kept, to);":
      "!has_readers(v, b) && (usleep(20), atomic_store(&b->state, to), 1);"}),
    ("a reader looks before it leaves", "test_readers", "readers.c",
     {"    atomic_fetch_and(&masks(b)[v->self / 64], ~(1ull << (v->self % 64)));\n"
      "    if (reclaim":
      "    uint32_t state = atomic_load(&b->state);\n"
      "    atomic_fetch_and(&masks(b)[v->self / 64], ~(1ull << (v->self % 64)));\n    if (BSTATE(state) == B_KEPT && reclaim"}),
    ("how often a block has been kept", "test_readers", "readers.c", {"++b->kept": "b->kept"}),
    ("what the dead read", "test_kill", "heap.c",
     {"    if (load_rlx(&b->shared)) return reader_forget(v, b, m);": "    if (load_rlx(&b->shared)) return 0;"}),
    ("reading a G until it stands still", "test_checkdead", "checkdead.c",
     {"        if (load_acq(&g->state) == out->state && load_rlx(&g->wait_since) == out->wait_since) return;":
      "        return;"}),
    ("the look at a header", "test_hostile", "segment.c", {"else if (!is_sound(s)) ": "else if (0) "}),
    ("the bounds of a text", "test_hostile", "place.c", {" || !is_sound(t)) return NULL;": ") return NULL;"}),
    ("the sweep of gFree", "test_kill", "repair.c", {"    gfree_sweep(v);\n": ""}),
]


def build(folder, test):
    """The program of a test from the sources in folder."""
    program = os.path.join(folder, test)
    sources = [f for f in sorted(glob.glob(os.path.join(folder, "*.c")))
               if not os.path.basename(f).startswith(("test_", "module", "bind_"))]
    subprocess.run([os.environ.get("CC", "cc"), "-std=gnu11", "-O2", "-w", "-pthread", f"-I{folder}",
                    os.path.join(folder, test + ".c"), *sources, "-o", program], check=True)
    return program


def copy_sources(folder):
    """Without the kill points, which an ordinary build does not have either."""
    for path in glob.glob(os.path.join(CORE, "*.[ch]")) + glob.glob(os.path.join(HERE, "*.[ch]")):
        with open(path) as source, open(os.path.join(folder, os.path.basename(path)), "w") as copy:
            copy.write(re.sub(r"^ *KILLPOINT\(\w+\);\n", "", source.read(), flags=re.MULTILINE))


def fails(program, seconds):
    try:
        return subprocess.run([program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=seconds).returncode != 0
    except subprocess.TimeoutExpired:  # a hang is how a lost wake-up looks
        return True


def mutate(folder, file, edits):
    path = os.path.join(folder, file)
    with open(path) as source:
        text = source.read()
    for old, new in edits.items():
        if text.count(old) != 1:
            sys.exit(f"{file} does not hold exactly once: {old}")
        text = text.replace(old, new)
    with open(path, "w") as source:
        source.write(text)


def main():
    survivors = 0
    patience = {}  # seconds, of each test
    for test in sorted({m[1] for m in MUTANTS}):
        with tempfile.TemporaryDirectory() as folder:
            copy_sources(folder)
            program = build(folder, test)
            begun = time.monotonic()
            if fails(program, LONGEST):
                sys.exit(f"{test} fails without a mutant")
            patience[test] = 30 + 4 * (time.monotonic() - begun)
    for what, test, file, edits in MUTANTS:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            copy_sources(folder)
            mutate(folder, file, edits)
            program = build(folder, test)
            killed = any(fails(program, patience[test]) for _ in range(TRIES))
        survivors += not killed
        print(f"{'killed' if killed else 'SURVIVED':9} {what:45} by {test} ({time.monotonic() - begun:.1f} s)", flush=True)
    return survivors


if __name__ == "__main__":
    sys.exit(main())
