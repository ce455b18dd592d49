/* sudog.c: who waits at shared objects: waits and their sudogs (Go: sudog, acquireSudog, waitq).
 *
 * A *wait* is one blocking operation of a G or a thread, on one object or (select) several.  It has a sudog for each case,
 * each in a queue of its case's object; the first is the leader.  Whoever can end the wait does so under the lock of the
 * object at which it found the sudog:
 *   wins `fired` by CAS;  takes the sudog out of the queue;  moves the value;  stores `done`;  unlocks;  wakes the waiter.
 * Others who find a sudog whose leader has been fired drop it and look on.  The waiter gives up by winning `fired` itself;
 * if it does not, `done` comes.  Before the waiter uses its sudogs again it takes each out of its queue, under the lock; so
 * a leader that is reached through a queue, under the lock, is that of a wait which goes on.
 *
 * Death.  A waiter's: repair takes its sudogs out of the queues.  A waker's: `fired` says who it was.  If it had not stored
 * `done`, nothing has been handed over and the waiter tries again (WAIT_RETRY); if it had, repair wakes once more.  Links
 * may be half-made then; what counts is `queued` in each sudog, from which the queue is made anew (waitq_rebuild).
 */
#include "sudog.h"

#include <stdlib.h>

#define CHUNK 32                      /* sudogs that move between a process and the pool at once */

static uint32_t in_use(struct view *v) { return (uint32_t)load_acq(&v->seg->sudogs.next); }

static int take_one(struct view *v, uint32_t *i) {
    if (!v->nfree_sudogs) v->nfree_sudogs = pool_take(v, &v->seg->sudogs, v->free_sudogs, CHUNK);
    if (!v->nfree_sudogs) return 0;
    *i = v->free_sudogs[--v->nfree_sudogs];
    return 1;
}

static void give_one(struct view *v, uint32_t i) {
    if (v->nfree_sudogs == SUDOGS_KEPT) {
        v->nfree_sudogs -= CHUNK;
        pool_put(v, &v->seg->sudogs, &v->free_sudogs[v->nfree_sudogs], CHUNK);
    }
    v->free_sudogs[v->nfree_sudogs++] = i;
}

void sudogs_flush(struct view *v) {
    pool_put(v, &v->seg->sudogs, v->free_sudogs, v->nfree_sudogs);
    v->nfree_sudogs = 0;
}

int wait_begin(struct view *v, uint64_t waiter, uint32_t *is, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        if (!take_one(v, &is[i])) {
            while (i) give_one(v, is[--i]);
            return 0;
        }
        struct sudog *s = sudog_at(v, is[i]);
        s->leader = is[0], s->which = i;
        s->object = 0, s->sends = s->wanted = 0;
        s->elem.off = 0, s->elem.kind = 0;
    }
    struct sudog *leader = sudog_at(v, is[0]);
    leader->waiter = waiter;
    store_rel(&leader->done, WAIT_PENDING);
    return 1;
}

/* Their values have been taken over, or were not sent: what is left of these goes. */
void wait_end(struct view *v, const uint32_t *is, uint32_t n) {
    for (uint32_t i = n; i--;) {
        struct sudog *s = sudog_at(v, is[i]);
        elem_drop(v, &s->elem);
        s->object = 0, s->elem.kind = 0;
        store_rel(&s->fired, 0);
        give_one(v, is[i]);
    }
}

int wait_cancel(struct view *v, uint32_t leader) {
    uint32_t nobody = 0;
    int won = atomic_compare_exchange_strong(&sudog_at(v, leader)->fired, &nobody, FIRED(CANCELLED, v->self));
    KILLPOINT(wait_cancel_after);
    return won;
}

/* queued before the links: it is what counts. */
void waitq_put(struct view *v, struct waitq *q, uint32_t queue, struct body *b, uint64_t ticket, struct sudog *s) {
    uint32_t i = sudog_index(v, s) + 1, last = load_rlx(&q->last);
    s->object = b->word, s->ticket = ticket;
    store_rel(&s->queued, queue);
    store_rlx(&s->next, 0);
    store_rlx(&s->prev, last);
    if (last) store_rlx(&sudog_at(v, last - 1)->next, i);
    else store_rlx(&q->first, i);
    store_rlx(&q->last, i);
}

void waitq_remove(struct view *v, struct waitq *q, struct sudog *s) {
    if (!load_rlx(&s->queued)) return;
    uint32_t next = load_rlx(&s->next), prev = load_rlx(&s->prev);
    store_rel(&s->queued, 0);
    store_rlx(next ? &sudog_at(v, next - 1)->prev : &q->last, prev);
    store_rlx(prev ? &sudog_at(v, prev - 1)->next : &q->first, next);
}

/* fired before it leaves the queue: one that is in no queue and not fired would wait for ever. */
struct sudog *waitq_fire(struct view *v, struct waitq *q) {
    for (uint32_t i; (i = load_rlx(&q->first)) != 0;) {
        struct sudog *s = sudog_at(v, i - 1);
        uint32_t nobody = 0;
        int won = atomic_compare_exchange_strong(&leader_of(v, s)->fired, &nobody, FIRED(s->which, v->self));
        KILLPOINT(wait_fired_locked);
        waitq_remove(v, q, s);
        if (won) return s;
    }
    return NULL;
}

static int by_ticket(const void *a, const void *b) {
    const struct sudog *x = *(struct sudog *const *)a, *y = *(struct sudog *const *)b;
    return (x->ticket > y->ticket) - (x->ticket < y->ticket);
}

void waitq_rebuild(struct view *v, struct waitq *q, uint32_t queue, struct body *b) {
    uint32_t n = 0, top = in_use(v);
    struct sudog **found = malloc((top + 1) * sizeof *found);
    if (!found) throw(v, "out of memory");
    for (uint32_t i = 0; i < top; i++) {
        struct sudog *s = sudog_at(v, i);
        if (load_acq(&s->queued) == queue && s->object == b->word) found[n++] = s;
    }
    qsort(found, n, sizeof *found, by_ticket);
    store_rlx(&q->first, 0);
    store_rlx(&q->last, 0);
    for (uint32_t i = 0; i < n; i++) waitq_put(v, q, queue, b, found[i]->ticket, found[i]);
    free(found);
}

void wait_finish(struct view *v, struct sudog *s, uint32_t how) {
    KILLPOINT(wait_finish_before);
    atomic_store(&leader_of(v, s)->done, how);
    KILLPOINT(wait_finish_after);
}

/* A G of our own M, readied by another of its Gs, need not go through the inbox. */
static int readied_here(struct view *v, uint64_t w) {
    uint64_t s = atomic_load(&v->allgs[gword_index(w)].state);
    if (!v->on_main || v->nreadied == READIED_KEPT || GM(s) != v->self || GGEN(s) != gword_gen(w)) return 0;
    v->readied[v->nreadied++] = w;
    store_rel(&self_m(v)->readied, v->nreadied);              /* for sysmon, which looks who keeps Gs waiting */
    return 1;
}

void wait_wake(struct view *v, uint32_t leader, uint64_t waiter) {
    if (!waiter) {
        futex_wake(&sudog_at(v, leader)->done, 1 << 30);
    } else if (!readied_here(v, waiter)) {
        gready(v, waiter);
    }
}

void elem_drop(struct view *v, struct elem *e) {
    uint64_t off = e->off;
    if (!off) return;
    heap_hold(v, off);
    e->off = 0;
    heap_free(v, off);
}

/* Whether the dead one had won this wait and not ended it: then nobody but us touches it.  fired is read twice, as the sudog
 * may serve another wait by the time done is read. */
static int was_ending(struct sudog *leader, uint32_t dead) {
    uint32_t fired = atomic_load(&leader->fired);
    return fired && FIRED_BY(fired) == dead && FIRED_CASE(fired) != CANCELLED &&
           atomic_load(&leader->done) == WAIT_PENDING && atomic_load(&leader->fired) == fired;
}

/* The waits that the dead one was ending.  What it was handing over, or taking, stays with the sudog. */
static void finish_waits(struct view *v, uint32_t dead) {
    for (uint32_t i = 0; i < in_use(v); i++) {
        struct sudog *s = sudog_at(v, i), *leader = leader_of(v, s);
        if (s->elem.off && was_ending(leader, dead) && FIRED_CASE(load_acq(&leader->fired)) == s->which)
            heap_keep(v, s->elem.off, dead);
    }
    for (uint32_t i = 0; i < in_use(v); i++) {
        struct sudog *s = sudog_at(v, i);
        uint32_t fired = atomic_load(&s->fired);
        if (!fired || FIRED_BY(fired) != dead) continue;
        if (was_ending(s, dead)) atomic_store(&s->done, WAIT_RETRY);
        wait_wake(v, i, s->waiter);                           /* perhaps only this was missing */
    }
}

static void unqueue(struct view *v, struct sudog *s) {
    struct body *b = s->object ? object_body(v, s->object) : NULL;
    if (!b) return;
    object_lock(v, b);
    uint32_t queue = load_rlx(&s->queued);
    if (queue) waitq_remove(v, object_type_of(v, s->object)->queue(b, queue), s);
    object_unlock(b);
}

/* Whether its value has become another's: then its block is not ours to free. */
static int was_sent(struct view *v, struct sudog *s) {
    struct sudog *leader = leader_of(v, s);
    return s->sends && load_acq(&leader->done) == WAIT_DONE && FIRED_CASE(load_acq(&leader->fired)) == s->which;
}

void sudogs_repair(struct view *v, uint32_t dead) {
    uint32_t top = in_use(v);
    finish_waits(v, dead);
    for (uint32_t i = 0; i < top; i++)
        if (load_acq(&sudog_at(v, i)->owner) == dead + 1) unqueue(v, sudog_at(v, i));
    for (uint32_t i = 0; i < top; i++) {
        struct sudog *s = sudog_at(v, i);
        if (load_acq(&s->owner) != dead + 1 || !s->elem.off) continue;
        if (!was_sent(v, s) && BSTATE(load_acq(&block_of(v, s->elem.off)->state)) == B_USED) elem_drop(v, &s->elem);
        s->elem.off = 0;                                      /* what it held is swept */
    }
    for (uint32_t i = 0; i < top; i++) {
        struct sudog *s = sudog_at(v, i);
        if (load_acq(&s->owner) != dead + 1) continue;
        s->object = 0, s->elem.kind = 0;
        store_rel(&s->fired, 0);
        store_rel(&s->queued, 0);
        pool_put(v, &v->seg->sudogs, &i, 1);
    }
    pool_sweep(v, &v->seg->sudogs);
}
