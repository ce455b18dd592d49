/* repair.c: what a dead process leaves half-done is finished or discarded (GMP-SPEC 2.17).
 *
 * Only the coordinator calls this, and only once the death is certain.  Everything the dead one may have held is read
 * from its own record: its intent (words on their way between queues), the word it was popping, its P, its spinning bit,
 * an M it was about to wake, its slots.  Requeueing a word that another queue holds too is harmless: one state CAS wins.
 */
#include "core.h"

static void requeue(struct view *v, uint64_t w) {
    if (!(w & GWORD_FULL)) return;
    if (w & GWORD_TOKEN) {
        uint32_t m = (uint32_t)(w & 0xffffu);
        if (m < v->seg->max_ms && !inbox_empty(v, m)) globrunqput(v, w);
        return;
    }
    uint64_t s = atomic_load(&v->allgs[gword_index(w)].state);
    if (GSTATUS(s) == G_RUNNABLE && GGEN(s) == gword_gen(w)) globrunqput(v, w);
}

static void requeue_moves(struct view *v, struct m *m) {
    requeue(v, load_acq(&m->popping));
    if (load_acq(&m->intent) == INTENT_RANGE) {
        struct p *p = &v->allp[load_rlx(&m->intent_p)];
        for (uint64_t i = 0; i < load_rlx(&m->intent_n) && i < RUNQ_CAP; i++)
            requeue(v, load_rlx(&p->runq[(load_rlx(&m->intent_start) + i) % RUNQ_CAP]));
        requeue(v, load_rlx(&m->intent_extra));
    }
    store_rel(&m->popping, 0);
    store_rel(&m->intent, INTENT_NONE);
}

/* Ps it held, or had just taken or put; Ms it was about to wake. */
static void release_ps(struct view *v, uint32_t dead) {
    struct sched *s = &v->seg->sched;
    atomic_fetch_and(&s->mspinning[dead / 64], ~(1ull << (dead % 64)));
    atomic_fetch_and(&s->midle[dead / 64], ~(1ull << (dead % 64)));
    for (uint32_t i = 0; i < v->seg->max_ms; i++) {
        uint32_t state = atomic_load(&v->allm[i].state);
        if (MWAKER(state) != dead + 1 || atomic_load(&v->allm[i].note)) continue;
        if (MSTATE(state) == M_WANTED) notewakeup(v, &v->allm[i].note);      /* it comes without a P, and parks again */
        if (MSTATE(state) == M_STARTING) wake_coordinator(v);
    }
    for (uint32_t i = 0; i < v->seg->nprocs; i++) {
        uint64_t own = atomic_load(&v->allp[i].own);
        int idle_unlisted = OWN_STATE(own) == P_IDLE && !(atomic_load(&s->pidle[i / 64]) >> (i % 64) & 1);
        if (OWN_STATE(own) == P_RUNNING && OWN_M(own) == dead) {
            if (atomic_compare_exchange_strong(&v->allp[i].own, &own, OWN(P_RUNNING, v->self, OWN_SEQ(own) + 1))) {
                if (work_anywhere(v)) startm(v, &v->allp[i], 0);
                else pidleput(v, &v->allp[i]);
            }
        } else if (idle_unlisted && OWN_M(own) == NONE) {
            /* A live process may be between the two halves of pidleput or pidleget: look whether it stays so. */
            for (int64_t end = nanotime() + 2000000; nanotime() < end && atomic_load(&v->allp[i].own) == own;)
                procyield();
            if (atomic_load(&v->allp[i].own) == own) atomic_fetch_or(&s->pidle[i / 64], 1ull << (i % 64));
        }
    }
}

/* Gs that ran or were parked there end with `result`; Gs it owned and nobody awaits any more are dropped unless they
 * run; its dead slots go back.  Returns how many Gs were ended. */
static uint32_t settle_gs(struct view *v, uint32_t dead, const void *result, uint64_t len) {
    uint32_t ended = 0;
    uint64_t top = atomic_load(&v->seg->sched.g_next);
    if (top > v->seg->nslots) top = v->seg->nslots;
    for (uint32_t i = 0; i < top; i++) {
        struct g *g = &v->allgs[i];
        uint64_t s = atomic_load(&g->state);
        uint32_t status = GSTATUS(s);
        if (GM(s) == dead && (status == G_RUNNING || status == G_WAITING || status == G_COMPLETING)) {
            atomic_store(&g->state, GSTATE(G_COMPLETING, v->self, GATTEMPT(s), GGEN(s)));
            gset_result(v, g, RESULT_WORKER_DIED, result, len);
            atomic_store(&g->state, GSTATE(G_DONE, v->self, GATTEMPT(s), GGEN(s)));
            ended++;
            gfinish(v, i);
        } else if (GM(s) == dead && status == G_DONE) {
            gfinish(v, i);                                    /* perhaps it was not told yet; twice is harmless */
        } else if (atomic_load(&g->owner) == dead && (status == G_RUNNABLE || status == G_DEPS || status == G_ALLOCATED)) {
            if (atomic_compare_exchange_strong(&g->state, &s, GSTATE(G_COMPLETING, v->self, 0, GGEN(s))))
                atomic_store(&g->state, GSTATE(G_DONE, v->self, 0, GGEN(s)));
        }
    }
    return ended;
}

/* The dead owner's finished Gs are collected in its stead.  Returns the number of its slots that are still in use. */
uint32_t adopt(struct view *v, uint32_t dead) {
    uint32_t live = 0;
    uint64_t top = atomic_load(&v->seg->sched.g_next);
    if (top > v->seg->nslots) top = v->seg->nslots;
    while (inbox_pop_of(v, dead)) continue;                   /* the slots themselves say what is finished */
    for (uint32_t i = 0; i < top; i++) {
        struct g *g = &v->allgs[i];
        if (atomic_load(&g->owner) != dead) continue;
        uint32_t status = GSTATUS(atomic_load(&g->state));
        if (status == G_DONE) {
            store_rel(&g->owner, v->self);
            gdiscard(v, i);
        } else if (status == G_DEAD) {
            store_rel(&g->owner, v->self);
            gfput(v, i);
        } else {
            live++;
        }
    }
    return live;
}

uint32_t repair(struct view *v, uint32_t dead, const void *result, uint64_t len) {
    struct m *m = &v->allm[dead];
    atomic_store(&m->state, M_DEAD);
    requeue_moves(v, m);
    uint32_t ended = settle_gs(v, dead, result, len);
    atomic_store(&m->p, 0);
    atomic_store(&m->nextp, 0);
    atomic_store(&m->token_queued, 0);
    release_ps(v, dead);
    heap_sweep(v, dead);
    if (work_anywhere(v)) wakep(v);
    return ended;
}
