/* pool.c: records of the segment that processes take and give back: slots of Gs (Go's sched.gFree), shared objects, sudogs.
 *
 * What nobody has lies in a ring under a robust mutex.  Under that mutex every record below `next` has an owner, or is in the
 * ring; one that is neither was lost by a process that died in between, and pool_sweep finds it.
 */
#include "pool.h"

#include <stdlib.h>

static au32 *owner_of(struct view *v, struct pool *p, uint32_t i) {
    return (au32 *)((char *)pool_at(v, p, i) + p->owner);
}

/* From the ring, else such as were never used. */
uint32_t pool_take(struct view *v, struct pool *p, uint32_t *is, uint32_t n) {
    struct lring *r = &p->ring;
    lock(v, &r->lock);
    uint64_t h = load_rlx(&r->head), size = load_rlx(&r->tail) - h, next = load_rlx(&p->next);
    if (size) {
        if (n > size) n = (uint32_t)size;
        for (uint32_t i = 0; i < n; i++) is[i] = (uint32_t)load_rlx(lring_cell(v, r, h + i));
        store_rel(&r->head, h + n);
    } else {
        if (n > p->n - next) n = (uint32_t)(p->n - next);
        for (uint32_t i = 0; i < n; i++) is[i] = (uint32_t)next + i;
        store_rel(&p->next, next + n);
    }
    KILLPOINT(pool_take_locked);
    for (uint32_t i = 0; i < n; i++) store_rel(owner_of(v, p, is[i]), v->self + 1);
    unlock(&r->lock);
    return n;
}

void pool_put(struct view *v, struct pool *p, const uint32_t *is, uint32_t n) {
    struct lring *r = &p->ring;
    lock(v, &r->lock);
    uint64_t t = load_rlx(&r->tail);
    if (t - load_rlx(&r->head) + n > r->cap) throw(v, "a pool overflowed");
    for (uint32_t i = 0; i < n; i++) {
        store_rel(owner_of(v, p, is[i]), 0);
        store_rlx(lring_cell(v, r, t + i), is[i]);
    }
    KILLPOINT(pool_put_locked);
    store_rel(&r->tail, t + n);
    unlock(&r->lock);
}

uint32_t pool_sweep(struct view *v, struct pool *p) {
    struct lring *r = &p->ring;
    uint32_t found = 0;
    lock(v, &r->lock);
    uint32_t top = (uint32_t)load_rlx(&p->next);
    unsigned char *in_ring = calloc(top + 1, 1);
    for (uint64_t i = load_rlx(&r->head); in_ring && i < load_rlx(&r->tail); i++) in_ring[load_rlx(lring_cell(v, r, i))] = 1;
    for (uint32_t i = 0; in_ring && i < top; i++) {
        if (in_ring[i] || load_acq(owner_of(v, p, i))) continue;
        store_rlx(lring_cell(v, r, load_rlx(&r->tail)), i);
        store_rel(&r->tail, load_rlx(&r->tail) + 1);
        found++;
    }
    unlock(&r->lock);
    free(in_ring);
    return found;
}
