/* globrunq.c: the global run queue: a ring of words under a robust mutex.
 *
 * Put: write the cells, then tail.  Get: announce what is taken, then head.  Each is one store of publication, so a
 * holder may die anywhere and the next one finds a consistent ring.
 */
#include "core.h"

/* Under the lock.  Words of Gs that were cancelled meanwhile leave the ring.  The others move up, the last one first: who dies
 * here leaves some twice, which is harmless. */
static void drop_stale(struct view *v, struct lring *r) {
    uint64_t h = load_rlx(&r->head), to = load_rlx(&r->tail);
    for (uint64_t i = to; i-- > h;) {
        uint64_t w = load_rlx(lring_cell(v, r, i)), s = load_acq(&v->allgs[gword_index(w)].state);
        if (w & GWORD_TOKEN || (GSTATUS(s) == G_RUNNABLE && GGEN(s) == gword_gen(w))) store_rel(lring_cell(v, r, --to), w);
    }
    store_rel(&r->head, to);
}

void globrunqputbatch(struct view *v, const uint64_t *gs, uint32_t n) {
    struct lring *r = &v->seg->globrunq;
    lock(v, &r->lock);
    uint64_t t = load_rlx(&r->tail);
    if (t - load_rlx(&r->head) + n > r->cap) drop_stale(v, r);
    if (t - load_rlx(&r->head) + n > r->cap) throw(v, "the global queue overflowed");
    for (uint32_t i = 0; i < n; i++) store_rlx(lring_cell(v, r, t + i), gs[i]);
    KILLPOINT(globrunqput_locked);
    store_rel(&r->tail, t + n);
    KILLPOINT(globrunqput_after);
    unlock(&r->lock);
}

/* Before all others, in order.  The cells first, as in a put. */
void globrunqputhead(struct view *v, const uint64_t *gs, uint32_t n) {
    struct lring *r = &v->seg->globrunq;
    lock(v, &r->lock);
    if (load_rlx(&r->tail) - load_rlx(&r->head) + n > r->cap) drop_stale(v, r);
    uint64_t h = load_rlx(&r->head) - n;
    if (load_rlx(&r->tail) - h > r->cap) throw(v, "the global queue overflowed");
    for (uint32_t i = 0; i < n; i++) store_rlx(lring_cell(v, r, h + i), gs[i]);
    KILLPOINT(globrunqputhead_locked);
    store_rel(&r->head, h);
    unlock(&r->lock);
}

void globrunqput(struct view *v, uint64_t g) { globrunqputbatch(v, &g, 1); }

/* Both loads seq_cst: the recheck before parking reads this after its fence. */
uint64_t globrunqsize(struct view *v) {
    struct lring *r = &v->seg->globrunq;
    uint64_t h = atomic_load(&r->head), t = atomic_load(&r->tail);
    return t > h ? t - h : 0;
}

/* The owner of p takes a fair share: the first G is returned, the others go to p's ring, as far as there is room.
 * max: at most so many, 0 no bound. */
uint64_t globrunqget(struct view *v, struct p *p, uint32_t max, uint32_t *count) {
    struct lring *r = &v->seg->globrunq;
    struct m *m = self_m(v);
    *count = 0;
    if (globrunqsize(v) == 0) return 0;
    lock(v, &r->lock);
    uint64_t t = load_rlx(&p->tail), room = RUNQ_CAP - (t - load_acq(&p->head)) + 1;
    uint64_t h = load_rlx(&r->head), size = load_rlx(&r->tail) - h, n = size / v->seg->nprocs + 1;
    if (n > size) n = size;
    if (n > RUNQ_CAP / 2) n = RUNQ_CAP / 2;
    if (max && n > max) n = max;
    if (n > room) n = room;
    if (n == 0) {
        unlock(&r->lock);
        return 0;
    }
    uint64_t g = load_rlx(lring_cell(v, r, h));
    for (uint64_t i = 1; i < n; i++) store_rlx(&p->runq[(t + i - 1) % RUNQ_CAP], load_rlx(lring_cell(v, r, h + i)));
    store_rlx(&m->popping, g);
    store_rlx(&m->intent_p, (uint32_t)(p - v->allp));
    store_rlx(&m->intent_start, t);
    store_rlx(&m->intent_n, n - 1);
    store_rlx(&m->intent_extra, 0);
    store_rel(&m->intent, INTENT_RANGE);
    KILLPOINT(globrunqget_locked);
    store_rel(&r->head, h + n);
    KILLPOINT(globrunqget_after);
    unlock(&r->lock);
    if (n > 1) store_rel(&p->tail, t + n - 1);
    KILLPOINT(globrunqget_published);
    store_rel(&m->intent, INTENT_NONE);
    *count = (uint32_t)n;
    return g;
}
