/* inbox.c: finished Gs for their owner and readied Gs for their home M: many producers, one consuming process.
 *
 * Push: CAS the free cell at tail to the word, then move tail.  A producer that dies between the two is finished by the
 * next one, or by the consumer.  A cell says at which lap it is free, so a producer that slept for a lap fails its CAS.
 * The ring has room for every slot twice, so it cannot fill.
 *
 * Waiting: the consumer publishes what it waits for (want, wake_at), counts itself as a waiter, fences, looks once more
 * and sleeps on seq.  A producer pushes, fences, and wakes it only for what it asked for.  A parked M is woken with a P;
 * if none is idle a token on the global queue tells the others to hand one over.
 */
#include "core.h"

#include <errno.h>

static au64 *cell(struct view *v, struct inbox *b, uint64_t i) { return (au64 *)at(v, b->cells) + i % v->seg->inbox_cap; }

/* An M at work looks at its inbox before it parks; if that takes long, sysmon preempts the G that keeps it from it. */
static void wake_m(struct view *v, uint32_t m) {
    if (MSTATE(atomic_load(&v->allm[m].note)) == M_IDLE) want_p(v, m);
    else if (load_rlx(&v->allm[m].curg)) sysmon_soon(v);
}

void inbox_push(struct view *v, uint32_t m, uint64_t w) {
    struct inbox *b = &v->allm[m].inbox;
    uint64_t t;
    for (;;) {
        t = atomic_load(&b->tail);
        uint64_t free = t / v->seg->inbox_cap;
        KILLPOINT(inbox_push_before);
        if (atomic_compare_exchange_strong(cell(v, b, t), &free, w)) break;
        if (free & GWORD_FULL) {
            /* signed: if we slept since we read tail, head may be beyond it */
            if ((int64_t)(t - load_acq(&b->head)) >= (int64_t)v->seg->inbox_cap) throw(v, "the inbox of M %u is full", m);
            uint64_t at_t = t;                                /* finish the move of whoever wrote the cell */
            atomic_compare_exchange_strong(&b->tail, &at_t, t + 1);
        }
    }
    KILLPOINT(inbox_push_after);
    uint64_t at_t = t;
    atomic_compare_exchange_strong(&b->tail, &at_t, t + 1);
    KILLPOINT(inbox_push_moved);
    fence_sc(&b->tail);
    if (atomic_load(&b->waiters)) {
        uint64_t want = atomic_load(&b->want);
        if (want == ANY_WORD || want == w || t + 1 >= atomic_load(&b->wake_at)) inbox_kick(v, m);
    }
    if (load_rlx(&v->allm[m].kind) == KIND_M) wake_m(v, m);     /* our own main thread may be parked, too */
}

/* Wakes every thread that sleeps on the inbox. */
void inbox_kick(struct view *v, uint32_t m) {
    struct inbox *b = &v->allm[m].inbox;
    atomic_fetch_add(&b->seq, 1);                             /* who is about to sleep finds seq changed */
    if (atomic_load(&b->waiters)) futex_wake(&b->seq, 1 << 30);
}

/* The consumer looks, deals with the word, and drops it after: if it dies between, whoever collects in its stead finds
 * the word once more.  head before the cell: one that dies between these leaves a word that comes again a lap later. */
uint64_t inbox_peek(struct view *v, uint32_t m) {
    struct inbox *b = &v->allm[m].inbox;
    uint64_t w = load_acq(cell(v, b, load_rlx(&b->head)));
    return w & GWORD_FULL ? w : 0;
}

void inbox_drop(struct view *v, uint32_t m) {
    struct inbox *b = &v->allm[m].inbox;
    uint64_t h = load_rlx(&b->head), at_h = h;
    if (atomic_load(&b->tail) == h) atomic_compare_exchange_strong(&b->tail, &at_h, h + 1);  /* its producer died */
    KILLPOINT(inbox_drop_before);
    store_rel(&b->head, h + 1);
    KILLPOINT(inbox_drop_after);
    store_rel(cell(v, b, h), h / v->seg->inbox_cap + 1);
}

int inbox_empty(struct view *v, uint32_t m) {
    struct inbox *b = &v->allm[m].inbox;
    return !(atomic_load(cell(v, b, load_acq(&b->head))) & GWORD_FULL);
}

/* Sleeps until want has been pushed, or `more` words have (0: any), or the inbox is kicked: seq is what it was before the
 * caller last looked at what it waits for, so that a kick since then counts.  Returns at once if there is anything to
 * drain.  0, ETIMEDOUT or EINTR. */
int inbox_wait(struct view *v, uint32_t seq, uint64_t want, uint64_t more, int64_t spin_ns, int64_t timeout_ns) {
    struct inbox *b = &self_m(v)->inbox;
    if (spin_ns > 0) {
        int64_t end = nanotime() + spin_ns;
        for (int i = 1; inbox_empty(v, v->self); i++) {
            procyield();
            if (i % 64 == 0 && nanotime() > end) break;
        }
    }
    int alone = atomic_fetch_add(&b->waiters, 1) == 0;
    atomic_store(&b->want, alone && want ? want : ANY_WORD);
    atomic_store(&b->wake_at, more ? load_acq(&b->head) + more : 0);
    if (alone && !want && more) atomic_store(&b->want, 0);
    fence_sc(&b->tail);
    if (atomic_load(&b->waiters) > 1) atomic_store(&b->want, ANY_WORD);   /* another came as we published our wish */
    int e = 0;
    if (inbox_empty(v, v->self)) e = futex_wait(&b->seq, seq, timeout_ns);
    atomic_fetch_sub(&b->waiters, 1);
    return e;
}
