/* poller.c: which M runs the async Gs, and the queue in which they go there.
 *
 * An async G is a coroutine, and one event loop has place for many: they all run on one M, the poller.  The first M that has
 * called a function and got a coroutine takes the role, by a CAS, and keeps it until it dies.  Another M that gets one has
 * only made it: no code of it has run.  It drops it, and the G goes, runnable again, onto a queue that only the poller takes
 * from.  Where it is meanwhile says the intent record, as for every other move.
 *
 * No wake-up is lost: who puts a G on the queue does so, fences, and reads who is the poller and whether that is parked; a
 * poller that parks says so, fences, and looks at the queue.  Without a poller, as it has died, what is on the queue goes to
 * the global one: repair forgets the poller first, so either it or who has put something there sees the other.
 */
#include "poller.h"

int be_poller(struct view *v) {
    uint32_t nobody = 0;
    return atomic_compare_exchange_strong(&v->seg->poller, &nobody, v->self + 1) || nobody == v->self + 1;
}

static uint64_t size(struct lring *r) {
    uint64_t h = atomic_load(&r->head), t = atomic_load(&r->tail);
    return t > h ? t - h : 0;
}

int async_work(struct view *v) { return atomic_load(&v->seg->poller) == v->self + 1 && size(&v->seg->asyncq); }

/* 0: it is full, of Gs that were cancelled. */
static int asyncq_put(struct view *v, uint64_t w) {
    struct lring *r = &v->seg->asyncq;
    lock(v, &r->lock);
    uint64_t t = load_rlx(&r->tail);
    int room = t - load_rlx(&r->head) < r->cap;
    if (room) {
        store_rlx(lring_cell(v, r, t), w);
        store_rel(&r->tail, t + 1);
    }
    unlock(&r->lock);
    return room;
}

static uint64_t take(struct view *v, au64 *announce) {
    struct lring *r = &v->seg->asyncq;
    uint64_t w = 0;
    lock(v, &r->lock);
    uint64_t h = load_rlx(&r->head);
    if (load_rlx(&r->tail) > h) {
        w = load_rlx(lring_cell(v, r, h));
        store_rel(announce, w);
        store_rel(&r->head, h + 1);
    }
    unlock(&r->lock);
    return w;
}

uint64_t asyncq_get(struct view *v) { return async_work(v) ? take(v, &self_m(v)->popping) : 0; }

static void announce(struct m *m, uint64_t w) {
    store_rlx(&m->intent_n, 0);
    store_rlx(&m->intent_extra, w);
    store_rel(&m->intent, INTENT_RANGE);
}

static void to_globrunq(struct view *v) {
    struct m *m = self_m(v);
    announce(m, 0);
    for (uint64_t w; (w = take(v, &m->intent_extra)) != 0;) globrunqput(v, w);
    store_rel(&m->intent, INTENT_NONE);
    wakep(v);
}

int ghand_over(struct view *v, uint64_t w) {
    struct g *g = &v->allgs[gword_index(w)];
    struct m *m = self_m(v);
    uint64_t s = atomic_load(&g->state);
    if (GSTATUS(s) != G_RUNNING || GM(s) != v->self || GGEN(s) != gword_gen(w)) return 0;
    announce(m, w);                                           /* this was no attempt: it begins there */
    if (!atomic_compare_exchange_strong(&g->state, &s, GSTATE(G_RUNNABLE, NO_M, GATTEMPT(s) - 1, GGEN(s)))) {
        store_rel(&m->intent, INTENT_NONE);
        return 0;
    }
    store_rel(&m->curg, 0);
    if (!asyncq_put(v, w)) globrunqput(v, w);
    store_rel(&m->intent, INTENT_NONE);
    fence_sc(&v->seg->asyncq.tail);
    uint32_t poller = atomic_load(&v->seg->poller);
    if (!poller) to_globrunq(v);
    else if (poller != v->self + 1 && MSTATE(atomic_load(&v->allm[poller - 1].note)) == M_IDLE) want_p(v, poller - 1);
    return 1;
}

void poller_died(struct view *v, uint32_t m) {
    uint32_t was = m + 1;
    if (!atomic_compare_exchange_strong(&v->seg->poller, &was, 0)) return;
    fence_sc(&v->seg->asyncq.tail);
    to_globrunq(v);
}
