/* globrunq.c: the global run queue, and the global part of gFree: rings of words under a robust mutex.
 *
 * Put: write the cells, then tail.  Get: announce what is taken, then head.  Each is one store of publication, so a
 * holder may die anywhere and the next one finds a consistent ring.
 */
#include "core.h"

static void lring_lock(struct view *v, struct lring *r) {
    robust_lock(v, &r->lock, -1);
    store_rlx(&r->holder, v->self + 1);
}

static void lring_unlock(struct lring *r) {
    store_rlx(&r->holder, 0);
    pthread_mutex_unlock(&r->lock);
}

static au64 *cell(struct view *v, struct lring *r, uint64_t i) { return (au64 *)at(v, r->cells) + i % r->cap; }

uint32_t lring_put(struct view *v, struct lring *r, const uint64_t *ws, uint32_t n) {
    lring_lock(v, r);
    uint64_t t = load_rlx(&r->tail);
    if (t - load_rlx(&r->head) + n > r->cap) throw(v, "a global ring overflowed");
    for (uint32_t i = 0; i < n; i++) store_rlx(cell(v, r, t + i), ws[i]);
    store_rel(&r->tail, t + n);
    lring_unlock(r);
    return n;
}

uint32_t lring_get(struct view *v, struct lring *r, uint64_t *ws, uint32_t n) {
    if (atomic_load(&r->head) == atomic_load(&r->tail)) return 0;
    lring_lock(v, r);
    uint64_t h = load_rlx(&r->head), size = load_rlx(&r->tail) - h;
    if (n > size) n = (uint32_t)size;
    for (uint32_t i = 0; i < n; i++) ws[i] = load_rlx(cell(v, r, h + i));
    store_rel(&r->head, h + n);
    lring_unlock(r);
    return n;
}

void globrunqputbatch(struct view *v, const uint64_t *gs, uint32_t n) { lring_put(v, &v->seg->globrunq, gs, n); }

void globrunqput(struct view *v, uint64_t g) { globrunqputbatch(v, &g, 1); }

/* Both loads seq_cst: the recheck before parking reads this after its fence. */
uint64_t globrunqsize(struct view *v) {
    struct lring *r = &v->seg->globrunq;
    uint64_t h = atomic_load(&r->head), t = atomic_load(&r->tail);
    return t > h ? t - h : 0;
}

/* The owner of p takes a fair share: the first G is returned, the others go to p's ring, which must have room for them.
 * max: at most so many, 0 no bound. */
uint64_t globrunqget(struct view *v, struct p *p, uint32_t max, uint32_t *count) {
    struct lring *r = &v->seg->globrunq;
    struct m *m = self_m(v);
    *count = 0;
    if (globrunqsize(v) == 0) return 0;
    lring_lock(v, r);
    uint64_t h = load_rlx(&r->head), size = load_rlx(&r->tail) - h, n = size / v->seg->nprocs + 1;
    if (n > size) n = size;
    if (n > RUNQ_CAP / 2) n = RUNQ_CAP / 2;
    if (max && n > max) n = max;
    if (n == 0) {
        lring_unlock(r);
        return 0;
    }
    uint64_t t = load_rlx(&p->tail), g = load_rlx(cell(v, r, h));
    if (t - load_acq(&p->head) + n - 1 > RUNQ_CAP) throw(v, "globrunqget: no room in the local queue");
    for (uint64_t i = 1; i < n; i++) store_rlx(&p->runq[(t + i - 1) % RUNQ_CAP], load_rlx(cell(v, r, h + i)));
    store_rlx(&m->popping, g);
    store_rlx(&m->intent_p, (uint32_t)(p - v->allp));
    store_rlx(&m->intent_start, t);
    store_rlx(&m->intent_n, n - 1);
    store_rlx(&m->intent_extra, 0);
    store_rel(&m->intent, INTENT_RANGE);
    store_rel(&r->head, h + n);
    lring_unlock(r);
    if (n > 1) store_rel(&p->tail, t + n - 1);
    store_rel(&m->intent, INTENT_NONE);
    *count = (uint32_t)n;
    return g;
}
