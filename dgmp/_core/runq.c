/* runq.c: a P's local run queue: a ring of 256 words and runnext (Go: runqput, runqget, runqgrab, runqsteal).
 *
 * Single producer (the owner of the P), many consumers.  head moves only by CAS, by whoever takes; tail is written only
 * by the owner.  Indices are 64 bits wide and never wrap in practice, so a process that was stopped in the middle of a
 * steal cannot mistake a new lap for the old one.  A consumer copies first and takes by the CAS of head after: what it
 * copied is its own only if that CAS succeeds.
 */
#include "core.h"

/* How long a thief leaves a runnext alone: the owner has most likely just readied it and is about to run it.  Go waits
 * 3 us, about 50 channel operations; our ready-to-run is 2 to 3 us of Python, so two of those. */
#define RUNNEXT_GRACE_NS 5000

/* User code too: most often it ends at once, or parks, and its M goes on with the runnext. */
static int has_m(uint64_t own) { return OWN_STATE(own) == P_RUNNING || OWN_STATE(own) == P_SYSCALL; }

static void intent_begin(struct view *v, uint32_t p, uint64_t start, uint64_t n, uint64_t extra) {
    struct m *m = self_m(v);
    store_rlx(&m->intent_p, p);
    store_rlx(&m->intent_start, start);
    store_rlx(&m->intent_n, n);
    store_rlx(&m->intent_extra, extra);
    store_rel(&m->intent, INTENT_RANGE);      /* release: whoever reads the flag (after our death) sees the record */
}

static void intent_end(struct view *v) { store_rel(&self_m(v)->intent, INTENT_NONE); }

/* Half of the ring and g go to the global queue.  0: a thief made room meanwhile, the caller tries again. */
static int runqputslow(struct view *v, struct p *p, uint64_t g, uint64_t h, uint64_t t) {
    uint64_t batch[RUNQ_CAP / 2 + 1], n = (t - h) / 2;
    if (n != RUNQ_CAP / 2) throw(v, "runqputslow: queue is not full");
    for (uint64_t i = 0; i < n; i++) batch[i] = load_rlx(&p->runq[(h + i) % RUNQ_CAP]);
    intent_begin(v, (uint32_t)(p - v->allp), h, n, g);
    KILLPOINT(runqputslow_before);
    /* release: our reads of the slots stay before the CAS that gives thieves and us the right to reuse them */
    if (!atomic_compare_exchange_strong_explicit(&p->head, &h, h + n, memory_order_acq_rel, memory_order_acquire))
        return 0;
    KILLPOINT(runqputslow_after);
    batch[n] = g;
    globrunqputbatch(v, batch, (uint32_t)n + 1);
    KILLPOINT(runqputslow_put);
    return 1;
}

/* Owner only.  next: g is run next, and what was there goes to the ring's tail. */
void runqput(struct view *v, struct p *p, uint64_t g, int next) {
    if (next) {
        /* Not a plain store: a thief's CAS to 0 would be overwritten and its G run twice.  Not an exchange either:
         * what we kick out must be in the intent record before it is nowhere. */
        uint64_t old = load_acq(&p->runnext);
        do {
            intent_begin(v, (uint32_t)(p - v->allp), 0, 0, old);
            KILLPOINT(runqput_next_before);
        } while (!atomic_compare_exchange_weak(&p->runnext, &old, g));
        KILLPOINT(runqput_next_after);
        if (!old) {
            intent_end(v);
            return;
        }
        g = old;
    }
    for (;;) {
        uint64_t h = load_acq(&p->head);      /* acquire: thieves' reads of a slot are over before we reuse it */
        uint64_t t = load_rlx(&p->tail);
        if (t - h < RUNQ_CAP) {
            store_rlx(&p->runq[t % RUNQ_CAP], g);
            KILLPOINT(runqput_before);
            store_rel(&p->tail, t + 1);       /* release: makes the slot visible to consumers */
            KILLPOINT(runqput_after);
            break;
        }
        if (runqputslow(v, p, g, h, t)) break;
    }
    intent_end(v);
}

/* Owner only.  inherit: the G came from runnext and shares the time slice of the one before it. */
uint64_t runqget(struct view *v, struct p *p, int *inherit) {
    struct m *m = self_m(v);
    uint64_t next = load_acq(&p->runnext);
    if (next) {
        store_rel(&m->popping, next);
        KILLPOINT(runqget_next_before);
        if (atomic_compare_exchange_strong(&p->runnext, &next, 0)) {
            KILLPOINT(runqget_next_after);
            *inherit = 1;
            return next;
        }
    }                                         /* stolen: no retry, only we put one there */
    *inherit = 0;
    return runqget_ring(v, p);
}

uint64_t runqget_ring(struct view *v, struct p *p) {
    struct m *m = self_m(v);
    for (;;) {
        uint64_t h = load_acq(&p->head), t = load_rlx(&p->tail);
        if (t == h) return 0;
        uint64_t g = load_rlx(&p->runq[h % RUNQ_CAP]);
        store_rel(&m->popping, g);
        KILLPOINT(runqget_before);
        if (atomic_compare_exchange_strong_explicit(&p->head, &h, h + 1, memory_order_acq_rel, memory_order_acquire)) {
            KILLPOINT(runqget_after);
            return g;
        }
    }
}

/* Takes half of victim's ring (its larger half; at most max unless that is 0) to the slots beyond p's tail, which p's owner has not published. */
static uint32_t runqgrab(struct view *v, struct p *p, struct p *victim, int steal_runnext, uint32_t max) {
    uint64_t t0 = load_rlx(&p->tail), room = RUNQ_CAP - (t0 - load_acq(&p->head));
    if (room == 0) return 0;
    if (!max || max > room) max = (uint32_t)room;             /* a finalizer of user code may have put some there */
    for (;;) {
        uint64_t h = load_acq(&victim->head); /* head first: else n could come out too large */
        uint64_t t = load_acq(&victim->tail); /* acquire: pairs with the release in runqput */
        uint64_t n = t - h;
        n -= n / 2;
        if (n == 0) {
            uint64_t next = steal_runnext ? load_acq(&victim->runnext) : 0;
            if (!next) return 0;
            if (has_m(load_acq(&victim->own)))
                for (int64_t end = nanotime() + RUNNEXT_GRACE_NS; nanotime() < end;) {
                    procyield();
                    if (load_acq(&victim->runnext) != next) break;
                }
            store_rlx(&p->runq[t0 % RUNQ_CAP], next);
            intent_begin(v, (uint32_t)(p - v->allp), t0, 1, 0);
            KILLPOINT(runqsteal_next_before);
            if (!atomic_compare_exchange_strong(&victim->runnext, &next, 0)) continue;
            KILLPOINT(runqsteal_next_after);
            return 1;
        }
        if (n > RUNQ_CAP / 2) continue;       /* h and t do not belong together */
        if (n > max) n = max;
        for (uint64_t i = 0; i < n; i++)
            store_rlx(&p->runq[(t0 + i) % RUNQ_CAP], load_rlx(&victim->runq[(h + i) % RUNQ_CAP]));
        intent_begin(v, (uint32_t)(p - v->allp), t0, n, 0);
        KILLPOINT(runqsteal_before);
        if (atomic_compare_exchange_strong_explicit(&victim->head, &h, h + n, memory_order_acq_rel,
                                                    memory_order_acquire)) {
            KILLPOINT(runqsteal_after);
            return (uint32_t)n;
        }
    }
}

/* The owner of p, whose ring has room, steals from victim: one G is returned, the rest lies in p's ring. */
uint64_t runqsteal(struct view *v, struct p *p, struct p *victim, int steal_runnext, uint32_t max, uint32_t *count) {
    uint64_t t = load_rlx(&p->tail);
    uint32_t n = *count = runqgrab(v, p, victim, steal_runnext, max);
    if (n == 0) {
        intent_end(v);
        return 0;
    }
    uint64_t g = load_rlx(&p->runq[(t + n - 1) % RUNQ_CAP]);
    store_rel(&self_m(v)->popping, g);
    if (--n) {
        if (t - load_acq(&p->head) + n >= RUNQ_CAP) throw(v, "runqsteal: runq overflow");
        store_rel(&p->tail, t + n);
    }
    KILLPOINT(runqsteal_published);
    intent_end(v);
    return g;
}

/* Never calls a queue empty that is not: a G kicked from runnext to the ring between the reads shows in tail. */
int runqempty(struct p *p) {
    for (;;) {
        uint64_t h = load_acq(&p->head), t = load_acq(&p->tail), next = atomic_load(&p->runnext);
        if (t == atomic_load(&p->tail)) return h == t && next == 0;
    }
}

uint32_t runqsize(struct p *p) {
    uint64_t h = load_acq(&p->head), t = load_acq(&p->tail);
    return (t > h ? (uint32_t)(t - h) : 0) + (load_acq(&p->runnext) != 0);
}
