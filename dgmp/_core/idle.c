/* idle.c: idle Ps, idle Ms, spinning Ms, and the fast half of wakep/startm (Go: pidleput, mput, wakep, startm).
 *
 * The protocol that loses no wake-up (GMP-SPEC 2.0):
 *   who submits:  publishes the work; fence; reads whether an M spins or a P is idle.
 *   who parks:    drops its spinning bit and its P (read-modify-writes); fence; looks at every queue once more.
 * Update, then check, on both sides, with a StoreLoad fence between: at least one of the two sees the other.
 *
 * A wake-up hands over a P: the waker takes an idle P and an idle M, writes the P to m.nextp and wakes the M's note.
 * With no idle M it reserves a free slot (M_STARTING) and wakes the coordinator, which has the zygote make the process
 * (the slow half, newm).
 */
#include "core.h"

#include <unistd.h>

static uint32_t words(uint32_t n) { return (n + 63) / 64; }
static uint32_t popcount(au64 *mask, uint32_t n) {
    uint32_t sum = 0;
    for (uint32_t i = 0; i < words(n); i++) sum += (uint32_t)__builtin_popcountll(atomic_load(&mask[i]));
    return sum;
}
static void set_bit(au64 *mask, uint32_t i) { atomic_fetch_or(&mask[i / 64], 1ull << (i % 64)); }
static int clear_bit(au64 *mask, uint32_t i) {
    return (int)(atomic_fetch_and(&mask[i / 64], ~(1ull << (i % 64))) >> (i % 64) & 1);
}

uint32_t npidle(struct view *v) { return popcount(v->seg->sched.pidle, v->seg->nprocs); }
uint32_t nmspinning(struct view *v) { return popcount(v->seg->sched.mspinning, v->seg->max_ms); }
uint32_t nmidle(struct view *v) { return popcount(v->seg->sched.midle, v->seg->max_ms); }

void wake_coordinator(struct view *v) {
    uint64_t one = 1;
    if (v->coordinator_fd >= 0 && write(v->coordinator_fd, &one, sizeof one) < 0) return; /* EAGAIN: it is awake */
}

static void own_set(struct view *v, struct p *p, uint32_t state, uint32_t m) {
    uint64_t own = load_acq(&p->own);
    if (!atomic_compare_exchange_strong(&p->own, &own, OWN(state, m, OWN_SEQ(own) + 1)))
        throw(v, "P %u changed hands while it was held", (unsigned)(p - v->allp));
}

/* The caller owns p, whose queue it has seen empty. */
void pidleput(struct view *v, struct p *p) {
    own_set(v, p, P_IDLE, NONE);
    set_bit(v->seg->sched.pidle, (uint32_t)(p - v->allp));
}

/* Takes an idle P for the calling process. */
struct p *pidleget(struct view *v) {
    for (uint32_t w = 0; w < words(v->seg->nprocs); w++)
        for (uint64_t bits; (bits = atomic_load(&v->seg->sched.pidle[w])) != 0;) {
            uint32_t i = w * 64 + (uint32_t)__builtin_ctzll(bits);
            if (!clear_bit(v->seg->sched.pidle, i)) continue;
            own_set(v, &v->allp[i], P_RUNNING, v->self);
            return &v->allp[i];
        }
    return NULL;
}

void acquirep(struct view *v, struct p *p) {
    uint64_t own = atomic_load(&p->own);
    if (OWN_STATE(own) != P_RUNNING || OWN_M(own) != v->self) throw(v, "acquirep: P %d is not ours", (int)(p - v->allp));
    if (load_rlx(&self_m(v)->p)) throw(v, "acquirep: already holding a P");
    store_rel(&self_m(v)->p, (uint32_t)(p - v->allp) + 1);
}

struct p *releasep(struct view *v) {
    uint32_t p = load_rlx(&self_m(v)->p);
    if (!p) throw(v, "releasep: no P");
    if (OWN_M(load_acq(&v->allp[p - 1].own)) != v->self) throw(v, "releasep: P %u is not ours", p - 1);
    store_rel(&self_m(v)->p, 0);
    return &v->allp[p - 1];
}

/* Publishes that this M is parked; the caller then fences and rechecks its inbox (munput if there is something). */
void mput(struct view *v) {
    struct m *m = self_m(v);
    if (load_rlx(&m->p)) throw(v, "stopm holding P %u", load_rlx(&m->p) - 1);
    if (is_spinning(v)) throw(v, "stopm spinning");
    noteclear(&m->note);
    atomic_store(&m->state, M_IDLE);
    set_bit(v->seg->sched.midle, v->self);
    fence_sc(&m->inbox.tail);
}

int munput(struct view *v) {
    uint32_t idle = M_IDLE;
    clear_bit(v->seg->sched.midle, v->self);
    return atomic_compare_exchange_strong(&self_m(v)->state, &idle, M_RUNNING);
}

static int mwant(struct view *v, uint32_t m) {
    uint32_t idle = M_IDLE;
    if (!atomic_compare_exchange_strong(&v->allm[m].state, &idle, M_WANTED | (v->self + 1) << 8)) return 0;
    clear_bit(v->seg->sched.midle, m);
    return 1;
}

/* An idle M, now wanted by us; nms: none. */
static uint32_t mget(struct view *v) {
    for (uint32_t w = 0; w < words(v->seg->max_ms); w++)
        for (uint64_t bits = atomic_load(&v->seg->sched.midle[w]); bits; bits &= bits - 1) {
            uint32_t m = w * 64 + (uint32_t)__builtin_ctzll(bits);
            if (mwant(v, m)) return m;
        }
    return v->seg->nms;
}

/* A free slot for a new M, reserved for us before anything else happens (golang/go#40368). */
static uint32_t mreserve(struct view *v) {
    for (uint32_t m = 0; m < v->seg->max_ms; m++) {
        uint32_t was = M_FREE;
        if (load_rlx(&v->allm[m].state) == M_FREE &&
            atomic_compare_exchange_strong(&v->allm[m].state, &was, M_STARTING | (v->self + 1) << 8))
            return m;
    }
    return v->seg->nms;
}

static void hand_over(struct view *v, struct p *p, uint32_t m, int spinning) {
    if (spinning) set_bit(v->seg->sched.mspinning, m);
    own_set(v, p, P_RUNNING, m);
    atomic_store(&v->allm[m].nextp, (uint32_t)(p - v->allp) + 1);
    notewakeup(v, &v->allm[m].note);
}

int startm_on(struct view *v, struct p *p, uint32_t m) {
    if (!mwant(v, m)) return 0;
    hand_over(v, p, m, 0);
    return 1;
}

/* The caller owns p.  Every M at work and none left to make: p goes idle, the work waits for a running M. */
int startm(struct view *v, struct p *p, int spinning) {
    uint32_t m = mget(v);
    if (m < v->seg->nms) {
        hand_over(v, p, m, spinning);
        return 1;
    }
    m = mreserve(v);
    if (m < v->seg->nms) {
        noteclear(&v->allm[m].note);
        hand_over(v, p, m, spinning);
        wake_coordinator(v);
        return 1;
    }
    pidleput(v, p);
    return 0;
}

/* One more M to look for work, unless one looks already or no P is idle.  The caller has published the work; whoever
 * fails to find an idle P while nobody spins leaves needspinning for the next M about to park (golang/go#45867). */
int wakep(struct view *v) {
#ifndef MUTANT_NO_PUT_FENCE
    fence_sc(&v->seg->sched.mspinning[0]);
#endif
    if (nmspinning(v)) return 0;
    struct p *p = pidleget(v);
    if (!p) {
        atomic_store(&v->seg->sched.needspinning, 1);
        return 0;
    }
    return startm(v, p, 1);
}

void set_spinning(struct view *v) {
    set_bit(v->seg->sched.mspinning, v->self);
    atomic_store(&v->seg->sched.needspinning, 0);
}

int is_spinning(struct view *v) {
    return (int)(load_acq(&v->seg->sched.mspinning[v->self / 64]) >> (v->self % 64) & 1);
}

/* At most half of the busy Ps have an M that spins. */
int become_spinning(struct view *v) {
    if (is_spinning(v)) return 1;
    if (!load_acq(&v->seg->sched.needspinning) && 2 * nmspinning(v) >= v->seg->nprocs - npidle(v)) return 0;
    set_spinning(v);
    return 1;
}

void reset_spinning(struct view *v) {
#ifdef MUTANT_PLAIN_PARK
    au64 *word = &v->seg->sched.mspinning[v->self / 64];
    store_rlx(word, load_rlx(word) & ~(1ull << (v->self % 64)));
#else
    if (!clear_bit(v->seg->sched.mspinning, v->self)) throw(v, "reset_spinning: not spinning");
    fence_sc(&v->seg->sched.mspinning[0]);
#endif
}

/* Anything an M without a P would want one for? */
int work_anywhere(struct view *v) {
    if (globrunqsize(v)) return 1;
    for (uint32_t i = 0; i < v->seg->nps; i++)
        if (!runqempty(&v->allp[i])) return 1;
    return 0;
}
