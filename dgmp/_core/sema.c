/* sema.c: counting semaphores that processes share (Go: sema.go), from which Mutex, RWMutex, WaitGroup and Once are made.
 *
 * Who acquires takes the units if they are free and nobody waits; else it waits in `queue`, which is served in order of
 * arrival: a large request at its head is not overtaken, and who releases hands over.  Others may wait until no unit is held.
 *
 * What is held is counted for each process, so that the units of a dead one are free again (sema_forget), which the next one
 * to acquire, or the first that waits, is told once.  Units may be released by a process other than the one that took them;
 * they are then taken off any other's count, as one cannot know better.
 *
 * Death.  held[] is what counts, `used` follows from it.  To hand over takes two stores, held[] of the waiter's process and
 * the waiter's `done`; `granting` says what both are about.  To take units off several counts takes several; `releasing` says
 * where that ends.  Who gets the lock after a death finishes both (sema_fix), and repair has that done at once.
 */
#include "sema.h"

enum { QUEUE = 1, ZEROQ };

struct sema *sema_make(struct view *v, uint64_t n, uint64_t tell_at) {
    uint64_t word, size = sizeof(struct sema) + v->seg->nms * sizeof(au64);
    struct sema *s = (void *)object_make(v, TYPE_SEMA, size, size, &word);
    if (!s) return NULL;
    s->n = n, s->tell_at = tell_at;
    object_publish(v, word);
    return s;
}

/* ---------------------------------------------------------------- under the lock */
static void set_held(struct sema *s, uint32_t m, uint64_t units) {
    s->used += units - load_rlx(&s->held[m]);
    store_rel(&s->held[m], units);
}

static void note_holder(struct view *v, struct sema *s, uint64_t waiter) {
    store_rlx(&s->goid, waiter ? v->allgs[gword_index(waiter)].goid : 0);
}

static int has_room(struct sema *s, uint64_t units) { return s->n == SEMA_NO_LIMIT || (units <= s->n && s->used <= s->n - units); }

/* The wait of a sudog in q ends here, if nobody was faster; it leaves q. */
static int win(struct view *v, struct waitq *q, struct sudog *w) {
    uint32_t nobody = 0;
    int won = atomic_compare_exchange_strong(&leader_of(v, w)->fired, &nobody, FIRED(w->which, v->self));
    waitq_remove(v, q, w);
    return won;
}

static void finish(struct view *v, struct sudog *w, uint32_t how) {
    uint32_t leader = w->leader;
    uint64_t waiter = leader_of(v, w)->waiter;
    wait_finish(v, w, how);
    wait_wake(v, leader, waiter);
}

static void hand_over(struct view *v, struct sema *s, struct sudog *w) {
    uint32_t m = load_rlx(&w->owner) - 1;
    note_holder(v, s, leader_of(v, w)->waiter);
    s->granting_m = m, s->granting_ticket = w->ticket, s->granting_held = load_rlx(&s->held[m]) + w->wanted;
    store_rel(&s->granting, sudog_index(v, w) + 1);
    KILLPOINT(sema_grant_locked);
    set_held(s, m, s->granting_held);
    finish(v, w, WAIT_DONE);
    store_rel(&s->granting, 0);
}

static struct sudog *first(struct view *v, struct waitq *q) {
    uint32_t i = load_rlx(&q->first);
    return i ? sudog_at(v, i - 1) : NULL;
}

/* Its repair has begun: it is passed over, or the next one would be told of a death that concerns nobody. */
static int is_dead(struct view *v, struct sudog *w) {
    return MSTATE(atomic_load(&v->allm[load_rlx(&w->owner) - 1].note)) == M_DEAD;
}

/* Who waits gets what there is, in order. */
static void serve(struct view *v, struct sema *s) {
    for (struct sudog *w; (w = first(v, &s->queue)) != NULL;) {
        if (is_dead(v, w)) {
            win(v, &s->queue, w);
        } else if (load_rlx(&s->died)) {
            if (!win(v, &s->queue, w)) continue;
            finish(v, w, WAIT_CLOSED);
            store_rlx(&s->died, 0);
        } else if (has_room(s, w->wanted)) {
            if (win(v, &s->queue, w)) hand_over(v, s, w);
        } else {
            uint32_t fired = load_acq(&leader_of(v, w)->fired);
            if (!fired) return;
            waitq_remove(v, &s->queue, w);
        }
    }
    int died = (int)load_rlx(&s->died);
    for (struct sudog *w; (died || !s->used) && (w = first(v, &s->zeroq)) != NULL;)
        if (win(v, &s->zeroq, w)) {
            finish(v, w, died ? WAIT_CLOSED : WAIT_DONE);
            store_rlx(&s->died, 0);
        }
}

static void take_off(struct sema *s, uint32_t m, uint64_t to) {
    uint64_t held = load_rlx(&s->held[m]), most = s->used - to;
    set_held(s, m, held > most ? held - most : 0);
}

/* Our own first. */
static void release_to(struct view *v, struct sema *s, uint64_t to) {
    store_rel(&s->releasing, to + 1);
    take_off(s, v->self, to);
    for (uint32_t m = 0; m < v->seg->nms && s->used > to; m++) take_off(s, m, to);
    store_rel(&s->releasing, 0);
}

/* ---------------------------------------------------------------- the type */
static int still_waits(struct view *v, struct sema *s, struct sudog *w) {
    return w->object == s->body.word && w->ticket == s->granting_ticket && load_acq(&leader_of(v, w)->done) == WAIT_PENDING;
}

static void sema_fix(struct view *v, struct body *b) {
    struct sema *s = (struct sema *)b;
    uint32_t granting = load_rlx(&s->granting);
    waitq_rebuild(v, &s->queue, QUEUE, b);
    waitq_rebuild(v, &s->zeroq, ZEROQ, b);
    if (granting && still_waits(v, s, sudog_at(v, granting - 1))) {
        store_rel(&s->held[s->granting_m], s->granting_held);
        finish(v, sudog_at(v, granting - 1), WAIT_DONE);
    }
    store_rel(&s->granting, 0);
    s->used = 0;
    for (uint32_t m = 0; m < v->seg->nms; m++) s->used += load_rlx(&s->held[m]);
    if (load_rlx(&s->releasing)) release_to(v, s, load_rlx(&s->releasing) - 1);
    serve(v, s);
}

/* Also when it held nothing: it may have been at the head of the queue. */
static void sema_forget(struct view *v, struct body *b, uint32_t dead) {
    struct sema *s = (struct sema *)b;
    uint64_t held = load_rlx(&s->held[dead]);
    if (s->n == SEMA_NO_LIMIT) s->lost += held;
    if (s->tell_at && held >= s->tell_at) {
        store_rlx(&s->died_goid, load_rlx(&s->goid));
        store_rlx(&s->died, 1);
    }
    set_held(s, dead, 0);
    serve(v, s);
}

static struct waitq *sema_queue(struct body *b, uint32_t queue) {
    struct sema *s = (struct sema *)b;
    return queue == QUEUE ? &s->queue : &s->zeroq;
}

const struct object_type sema_type = {.fix = sema_fix, .forget = sema_forget, .queue = sema_queue};

/* ---------------------------------------------------------------- the operations */
static int told(struct sema *s) {
    if (!load_rlx(&s->died)) return 0;
    store_rlx(&s->died, 0);
    return 1;
}

static int enqueue(struct view *v, struct sema *s, uint32_t queue, uint32_t units, uint64_t waiter, uint32_t *is) {
    if (!wait_begin(v, waiter, is, 1)) return SEMA_NO_ROOM;
    struct sudog *w = sudog_at(v, *is);
    w->wanted = units;
    waitq_put(v, sema_queue(&s->body, queue), queue, &s->body, ++s->ticket, w);
    return SEMA_WAITS;
}

int sema_acquire(struct view *v, struct sema *s, uint32_t units, uint64_t waiter, int wait, uint32_t *is) {
    int how = SEMA_BLOCKS;
    object_lock(v, &s->body);
    KILLPOINT(sema_locked);
    if (first(v, &s->queue)) serve(v, s);                     /* who has given up may stand there still */
    if (!first(v, &s->queue)) {
        if (s->n != SEMA_NO_LIMIT && told(s)) {
            how = SEMA_DIED;
        } else if (has_room(s, units)) {
            note_holder(v, s, waiter);
            set_held(s, v->self, load_rlx(&s->held[v->self]) + units);
            how = SEMA_DONE;
        }
    }
    if (how == SEMA_BLOCKS && wait) how = enqueue(v, s, QUEUE, units, waiter, is);
    object_unlock(&s->body);
    return how;
}

int sema_wait_zero(struct view *v, struct sema *s, uint64_t waiter, int wait, uint32_t *is) {
    object_lock(v, &s->body);
    int how = told(s) ? SEMA_DIED : !s->used ? SEMA_DONE : SEMA_BLOCKS;
    if (how == SEMA_BLOCKS && wait) how = enqueue(v, s, ZEROQ, 0, waiter, is);
    object_unlock(&s->body);
    return how;
}

int sema_wait_end(struct view *v, struct sema *s, uint32_t is, int give_up) {
    struct sudog *w = sudog_at(v, is);
    uint32_t done = atomic_load(&w->done);
    if (done == WAIT_PENDING && !(give_up && wait_cancel(v, is))) return SEMA_WAITS;
    if (done == WAIT_PENDING || done == WAIT_RETRY) {
        object_lock(v, &s->body);
        uint32_t queue = load_rlx(&w->queued);
        if (queue) waitq_remove(v, sema_queue(&s->body, queue), w);
        serve(v, s);                                          /* it may have kept others */
        object_unlock(&s->body);
    }
    wait_end(v, &is, 1);
    return done == WAIT_DONE ? SEMA_DONE : done == WAIT_CLOSED ? SEMA_DIED : SEMA_BLOCKS;
}

int sema_release(struct view *v, struct sema *s, uint64_t units) {
    object_lock(v, &s->body);
    uint64_t late = units > s->used ? units - s->used : 0;
    if (late > s->lost) {
        object_unlock(&s->body);
        return 0;
    }
    KILLPOINT(sema_release_locked);
    s->lost -= late, units -= late;
    uint64_t own = load_rlx(&s->held[v->self]);
    if (own >= units) set_held(s, v->self, own - units);
    else release_to(v, s, s->used - units);
    serve(v, s);
    object_unlock(&s->body);
    return 1;
}

uint64_t sema_used(struct view *v, struct sema *s) {
    object_lock(v, &s->body);
    uint64_t used = s->used;
    object_unlock(&s->body);
    return used;
}

/* Looks without locks: what is ours nobody else takes from us but by releasing it. */
int semas_held(struct view *v) {
    for (uint32_t i = 0; i < load_acq(&v->seg->objects.next); i++) {
        struct object *o = pool_at(v, &v->seg->objects, i);
        uint64_t s = atomic_load(&o->state);
        if (OPHASE(s) != O_LIVE || OTYPE(s) != TYPE_SEMA) continue;
        struct sema *sema = (void *)object_body(v, gword(i, GGEN(s)));
        if (sema && load_acq(&sema->held[v->self]) && atomic_load(&o->state) == s) return 1;
    }
    return 0;
}
