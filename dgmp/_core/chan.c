/* chan.c: channels (Go: chan.go, select.go): send, receive, close, select, on sudogs in the segment.
 *
 * Who sends finds a waiting receiver and hands it the message; else puts it into the buffer; else waits in sendq.  Who
 * receives takes the buffer's first message, and moves the first waiting sender's into the room; else takes the waiting
 * sender's own; else waits in recvq.  Queues are served in order of arrival.  A channel that is closed wakes everybody.
 * select locks all its channels in the order of their addresses, takes a random one of the cases that can go, else
 * queues a sudog at each of them before it unlocks; so no wake-up is lost.
 *
 * Timers are lazy: nobody runs them.  A receiver finds the message there once it is due, and who waits does so no longer than
 * until then (`until`); so nothing is queued at a timer channel.  One that closes at a given time is closed by whoever
 * looks first, and waiters look then.
 *
 * Death.  A message counts as sent with one store: the receiver's `done`, or `tail`.  Its block is held by the sender before
 * and in use after; a receiver holds it, and then advances `head` or stores `done`.  When a message moves from a waiting
 * sender into the buffer there are two such stores, so `moving` says of which message.  Who gets the lock after a death
 * mends what was half done (fix), and repair has that done at once.
 */
#include "chan.h"

#include <stdlib.h>
#include <string.h>

enum { RECVQ = 1, SENDQ };
struct wake { uint32_t leader; int any; uint64_t waiter; };

static struct elem *slot(struct chan *c, uint64_t i) { return &c->buf[i % c->cap]; }
static uint64_t head(struct chan *c) { return load_rlx(&c->head); }
static uint64_t tail(struct chan *c) { return load_rlx(&c->tail); }
static int is_timer(struct chan *c) { return c->due != 0; }

static void copy(struct elem *to, const struct elem *from) {
    to->len = from->len, to->kind = from->kind;
    if (!from->off) memcpy(to->bytes, from->bytes, from->len);
    to->off = from->off;
}

/* Into a place where others find it; its block is held by us. */
static void put(struct view *v, struct elem *to, const struct elem *from) {
    copy(to, from);
    if (to->off) heap_use(v, to->off);
    if (to->kind & ELEM_OBJECTS) elem_travels(v, to);
}

/* Out of such a place, which still names the block: the caller commits, then clears that. */
static void take(struct view *v, struct elem *to, const struct elem *from) {
    copy(to, from);
    if (to->kind & ELEM_OBJECTS) elem_hold(v, to);
    if (to->off) heap_hold(v, to->off);
}

static struct wake wake_of(struct view *v, struct sudog *s) {
    return (struct wake){s->leader, 1, leader_of(v, s)->waiter};
}

struct chan *chan_make(struct view *v, uint64_t cap, int64_t due, int64_t period, int64_t closes_at) {
    uint64_t word, most = v->seg->heap.size / sizeof(struct elem);
    struct chan *c = NULL;
    if (cap < most) c = (void *)object_make(v, TYPE_CHAN, sizeof *c + cap * sizeof(struct elem), sizeof *c, &word);
    if (!c) return NULL;
    if (cap) c->buf[0].off = 0;
    c->cap = cap, c->due = due, c->period = period, c->closes_at = closes_at;
    object_publish(v, word);
    return c;
}

/* ---------------------------------------------------------------- under the lock */
static void wake_all(struct view *v, struct waitq *q) {
    for (struct sudog *s; (s = waitq_fire(v, q)) != NULL;) {
        struct wake w = wake_of(v, s);
        wait_finish(v, s, WAIT_CLOSED);
        wait_wake(v, w.leader, w.waiter);
    }
}

static void close_locked(struct view *v, struct chan *c) {
    store_rel(&c->closed, 1);
    KILLPOINT(chan_close_locked);
    wake_all(v, &c->recvq);
    wake_all(v, &c->sendq);
}

static int is_closed(struct view *v, struct chan *c) {
    if (!load_rlx(&c->closed) && c->closes_at != NO_TIME && nanotime() >= c->closes_at) close_locked(v, c);
    return (int)load_rlx(&c->closed);
}

/* The message at tail counts from here on.  The next place names no block, also if it was never used. */
static void advance(struct chan *c) {
    uint64_t next = tail(c) + 1;
    if (next < c->cap) slot(c, next)->off = 0;
    store_rel(&c->tail, next);
}

static int send_locked(struct view *v, struct chan *c, struct elem *e, struct wake *w) {
    if (is_timer(c)) return SELECT_TIMER;
    if (is_closed(v, c)) return SELECT_CLOSED;
    struct sudog *s = waitq_fire(v, &c->recvq);
    if (s) {
        *w = wake_of(v, s);
        put(v, &s->elem, e);
        wait_finish(v, s, WAIT_DONE);
    } else if (tail(c) - head(c) < c->cap) {
        put(v, slot(c, tail(c)), e);
        KILLPOINT(chan_send_locked);
        advance(c);
    } else {
        return SELECT_BLOCKS;
    }
    e->off = 0;
    return SELECT_DONE;
}

/* There is room: a waiting sender's message goes into it. */
static void refill(struct view *v, struct chan *c, struct wake *w) {
    struct sudog *s = waitq_fire(v, &c->sendq);
    if (!s) return;
    *w = wake_of(v, s);
    c->moving_tail = tail(c), c->moving_ticket = s->ticket;
    store_rel(&c->moving, sudog_index(v, s) + 1);
    copy(slot(c, tail(c)), &s->elem);
    KILLPOINT(chan_refill_locked);
    advance(c);
    wait_finish(v, s, WAIT_DONE);
    store_rel(&c->moving, 0);
}

/* As Go's tickers do: a receiver that is late finds one tick, and the next one is in step. */
static int take_tick(struct chan *c, struct elem *to) {
    int64_t now = nanotime(), due = c->due;
    if (now < due) return SELECT_BLOCKS;
    c->due = c->period ? due + c->period * ((now - due) / c->period + 1) : NO_TIME;
    to->off = 0, to->kind = ELEM_TIME, to->len = sizeof due;
    memcpy(to->bytes, &due, sizeof due);
    return SELECT_DONE;
}

static int recv_locked(struct view *v, struct chan *c, struct elem *to, struct wake *w) {
    if (is_timer(c)) return take_tick(c, to);
    int closed = is_closed(v, c);
    struct sudog *s;
    if (tail(c) != head(c)) {
        struct elem *from = slot(c, head(c));
        take(v, to, from);
        KILLPOINT(chan_recv_locked);
        store_rel(&c->head, head(c) + 1);
        from->off = 0;
        refill(v, c, w);
    } else if (!closed && (s = waitq_fire(v, &c->sendq)) != NULL) {
        *w = wake_of(v, s);
        take(v, to, &s->elem);
        wait_finish(v, s, WAIT_DONE);
    } else {
        return closed ? SELECT_CLOSED : SELECT_BLOCKS;
    }
    return SELECT_DONE;
}

/* ---------------------------------------------------------------- the type */
/* Whether the sender that was being served still waits to hear of it: its sudog may serve another wait by now. */
static int still_waits(struct view *v, struct chan *c, struct sudog *s) {
    return s->object == c->body.word && s->ticket == c->moving_ticket && load_acq(&leader_of(v, s)->done) == WAIT_PENDING;
}

static void finish_move(struct view *v, struct chan *c) {
    uint32_t moving = load_rlx(&c->moving);
    if (!moving) return;
    struct sudog *s = sudog_at(v, moving - 1);
    if (tail(c) == c->moving_tail) {
        slot(c, c->moving_tail)->off = 0;                     /* the message is still the sender's */
    } else if (still_waits(v, c, s)) {
        struct wake w = wake_of(v, s);
        wait_finish(v, s, WAIT_DONE);
        wait_wake(v, w.leader, w.waiter);
    }
    store_rel(&c->moving, 0);
}

/* A place outside of [head, tail) which somebody was filling, or emptying. */
static void clean(struct view *v, struct elem *e) {
    if (e->off && BSTATE(load_acq(&block_of(v, e->off)->state)) == B_USED) elem_drop(v, e);
    e->off = 0;                                               /* what the dead one held is swept */
}

static void chan_fix(struct view *v, struct body *b) {
    struct chan *c = (struct chan *)b;
    waitq_rebuild(v, &c->recvq, RECVQ, b);
    waitq_rebuild(v, &c->sendq, SENDQ, b);
    finish_move(v, c);
    for (uint64_t i = head(c); i != tail(c); i++) {
        uint64_t off = slot(c, i)->off;
        if (off && BSTATE(load_acq(&block_of(v, off)->state)) == B_HELD) heap_use(v, off);
    }
    if (c->cap && tail(c) - head(c) < c->cap) {
        clean(v, slot(c, tail(c)));
        if (head(c)) clean(v, slot(c, head(c) - 1));
    }
    if (load_rlx(&c->closed)) close_locked(v, c);
    if (tail(c) - head(c) < c->cap) {                         /* the dead one may have made the room, and told nobody */
        struct wake w = {0, 0, 0};
        refill(v, c, &w);
        if (w.any) wait_wake(v, w.leader, w.waiter);
    }
}

/* Each message that has gone is behind head, so that who goes on after a death does not meet it again. */
static void chan_end(struct view *v, struct body *b) {
    struct chan *c = (struct chan *)b;
    for (; head(c) != tail(c); store_rel(&c->head, head(c) + 1)) {
        if (slot(c, head(c))->kind & ELEM_OBJECTS) object_orphaned(v);
        clean(v, slot(c, head(c)));
    }
}

static struct waitq *chan_queue(struct body *b, uint32_t queue) {
    struct chan *c = (struct chan *)b;
    return queue == RECVQ ? &c->recvq : &c->sendq;
}

static void chan_contents(struct view *v, struct body *b, void *to) {
    struct chan *c = (struct chan *)b;
    for (uint64_t i = head(c); i != tail(c); i++) elem_seen(v, to, slot(c, i));
}

const struct object_type chan_type = {.fix = chan_fix, .end = chan_end, .queue = chan_queue, .contents = chan_contents};

/* ---------------------------------------------------------------- the operations */
int chan_close(struct view *v, struct chan *c) {
    if (is_timer(c)) return -1;
    object_lock(v, &c->body);
    int closed = is_closed(v, c);
    if (!closed) close_locked(v, c);
    object_unlock(&c->body);
    return !closed;
}

/* One word to look at, and maybe the clock. */
int chan_closed(struct view *v, struct chan *c) {
    if (load_acq(&c->closed)) return 1;
    if (c->closes_at == NO_TIME || nanotime() < c->closes_at) return 0;
    object_lock(v, &c->body);
    int closed = is_closed(v, c);
    object_unlock(&c->body);
    return closed;
}

uint64_t chan_len(struct chan *c) {
    uint64_t h = load_acq(&c->head), t = load_acq(&c->tail);
    return t > h ? t - h : 0;
}

uint64_t chan_peek(struct view *v, struct chan *c, void *to, uint64_t most, uint32_t *kind) {
    uint64_t len = 0;
    object_lock(v, &c->body);
    *kind = NO_KIND;
    if (head(c) != tail(c)) {
        struct elem *e = slot(c, head(c));
        len = e->len;
        if (len <= most || !to) *kind = e->kind;
        if (to && len <= most) memcpy(to, e->off ? at(v, e->off) : e->bytes, len);
    }
    object_unlock(&c->body);
    return len;
}

static uint32_t random_below(struct view *v, uint32_t n) {
    if (!v->seed) v->seed = (uint64_t)nanotime() ^ (uint64_t)v->self << 32 ^ 0x9e3779b97f4a7c15ull;
    v->seed ^= v->seed << 13, v->seed ^= v->seed >> 7, v->seed ^= v->seed << 17;
    return (uint32_t)((v->seed >> 32) * n >> 32);
}

/* The cases in random order (Go: pollorder), and in that of their channels' addresses (lockorder). */
struct order { uint32_t *poll, *lock, few[16]; };

static void sift(const struct scase *cases, uint32_t *a, uint32_t i, uint32_t n) {
    for (uint32_t kid; (kid = 2 * i + 1) < n; i = kid) {
        if (kid + 1 < n && cases[a[kid]].c < cases[a[kid + 1]].c) kid++;
        if (cases[a[i]].c >= cases[a[kid]].c) return;
        uint32_t x = a[i];
        a[i] = a[kid], a[kid] = x;
    }
}

/* Heapsort, as in Go: no recursion and no memory. */
static void sort_for_locking(const struct scase *cases, uint32_t *a, uint32_t n) {
    for (uint32_t i = n / 2; i--;) sift(cases, a, i, n);
    for (uint32_t end = n; end-- > 1;) {
        uint32_t x = a[0];
        a[0] = a[end], a[end] = x;
        sift(cases, a, 0, end);
    }
}

static int make_order(struct view *v, struct order *o, const struct scase *cases, uint32_t n) {
    o->poll = n <= 8 ? o->few : malloc(2 * n * sizeof *o->poll);
    if (!o->poll) return 0;
    o->lock = o->poll + n;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t j = n > 1 ? random_below(v, i + 1) : 0;
        o->poll[i] = o->poll[j], o->poll[j] = i, o->lock[i] = i;
    }
    sort_for_locking(cases, o->lock, n);
    return 1;
}

static void free_order(struct order *o) {
    if (o->poll != o->few) free(o->poll);
}

static void lock_all(struct view *v, const struct scase *cases, uint32_t n, const uint32_t *order) {
    for (uint32_t i = 0; i < n; i++)
        if (!i || cases[order[i]].c != cases[order[i - 1]].c) object_lock(v, &cases[order[i]].c->body);
}

static void unlock_all(const struct scase *cases, uint32_t n, const uint32_t *order) {
    for (uint32_t i = n; i--;)
        if (!i || cases[order[i]].c != cases[order[i - 1]].c) object_unlock(&cases[order[i]].c->body);
}

static int try_all(struct view *v, struct scase *cases, uint32_t n, const uint32_t *poll, uint32_t *which, struct wake *w) {
    int how = SELECT_BLOCKS;
    for (uint32_t i = 0; i < n && how == SELECT_BLOCKS; i++) {
        struct scase *k = &cases[*which = poll[i]];
        how = k->send ? send_locked(v, k->c, &k->elem, w) : recv_locked(v, k->c, &k->elem, w);
    }
    return how;
}

static void sooner(int64_t *until, int64_t when) {
    if (when < *until) *until = when;
}

static void queue_all(struct view *v, struct scase *cases, uint32_t n, const uint32_t *order, const uint32_t *is,
                      int64_t *until) {
    *until = NO_TIME;
    for (uint32_t j = 0; j < n; j++) {
        struct scase *k = &cases[order[j]];
        struct sudog *s = sudog_at(v, is[order[j]]);
        if (is_timer(k->c)) {
            sooner(until, k->c->due);
            continue;
        }
        sooner(until, k->c->closes_at);
        s->sends = k->send;
        if (k->send) put(v, &s->elem, &k->elem);
        waitq_put(v, k->send ? &k->c->sendq : &k->c->recvq, k->send ? SENDQ : RECVQ, &k->c->body, ++k->c->ticket, s);
    }
}

int chan_select(struct view *v, struct scase *cases, uint32_t n, uint64_t waiter, uint32_t *is, uint32_t *which,
                int64_t *until) {
    struct order o;
    struct wake w = {0, 0, 0};
    int waits = waiter != NO_WAITER;
    if (!make_order(v, &o, cases, n)) return SELECT_NO_ROOM;
    if (waits && !wait_begin(v, waiter, is, n ? n : 1)) {
        free_order(&o);
        return SELECT_NO_ROOM;
    }
    lock_all(v, cases, n, o.lock);
    KILLPOINT(chan_locked);
    int how = try_all(v, cases, n, o.poll, which, &w);
    if (how == SELECT_BLOCKS && waits) {
        queue_all(v, cases, n, o.lock, is, until);
        how = SELECT_WAITS;
    }
    unlock_all(cases, n, o.lock);
    KILLPOINT(chan_unlocked);
    if (w.any) wait_wake(v, w.leader, w.waiter);
    if (waits && how != SELECT_WAITS) wait_end(v, is, n ? n : 1);
    free_order(&o);
    return how;
}

/* None of the sudogs is in a queue any more, and what was not sent is held by us again. */
static void take_back(struct view *v, struct scase *cases, uint32_t n, const uint32_t *is, uint32_t sent) {
    for (uint32_t i = 0; i < n; i++) {
        struct sudog *s = sudog_at(v, is[i]);
        if (!s->sends) continue;
        if (i == sent) cases[i].elem.off = 0;
        else if (s->elem.off) heap_hold(v, s->elem.off);
        s->elem.off = 0;
    }
}

int chan_wait_end(struct view *v, struct scase *cases, uint32_t n, const uint32_t *is, int give_up, uint32_t *which) {
    struct sudog *leader = sudog_at(v, is[0]);
    uint32_t done = atomic_load(&leader->done);
    if (done == WAIT_PENDING && !(give_up && wait_cancel(v, is[0]))) return SELECT_WAITS;
    struct order o;
    if (!make_order(v, &o, cases, n)) throw(v, "out of memory");
    uint32_t fired = *which = FIRED_CASE(load_acq(&leader->fired));
    if (n > 1 || done == WAIT_PENDING || done == WAIT_RETRY) {
        lock_all(v, cases, n, o.lock);
        for (uint32_t i = 0; i < n; i++)
            waitq_remove(v, cases[i].send ? &cases[i].c->sendq : &cases[i].c->recvq, sudog_at(v, is[i]));
        unlock_all(cases, n, o.lock);
    }
    free_order(&o);
    take_back(v, cases, n, is, done == WAIT_DONE ? fired : n);
    if (done == WAIT_DONE && !cases[fired].send) {
        struct sudog *s = sudog_at(v, is[fired]);
        take(v, &cases[fired].elem, &s->elem);
        s->elem.off = 0;
    }
    wait_end(v, is, n ? n : 1);
    return done == WAIT_DONE ? SELECT_DONE : done == WAIT_CLOSED ? SELECT_CLOSED : SELECT_BLOCKS;
}
