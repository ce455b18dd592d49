/* idle.c: idle Ps, idle Ms, spinning Ms, and the fast half of wakep/startm (Go: pidleput, mput, wakep, startm).
 *
 * The protocol that loses no wake-up (GMP-SPEC 2.0):
 *   who submits:  publishes the work; fence; reads whether an M spins or a P is idle.
 *   who parks:    drops its spinning bit and its P (read-modify-writes); fence; looks at every queue once more.
 * Update, then check, on both sides, with a StoreLoad fence between: at least one of the two sees the other.  (Go drops
 * the P first.  Here the spinning bit is the P's, so it goes while the P is still ours; what counts is that both are gone
 * before the last look.)
 *
 * A wake-up hands over a P: the waker takes an idle P, chooses an idle M, makes it the owner and ends its sleep.  With no
 * idle M it reserves a free slot and wakes the coordinator, which has the zygote make the process (the slow half, newm).
 * Every step is one CAS against a word that changes when the other side dies; repair.c finishes for a waker that dies.
 */
#include "core.h"

#include <errno.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* From the first P at work to sysmon's first look; and from the first work that finds no idle P, so that the P of an M that
 * blocks is retaken for it. */
#define ALARM_NS 10000000
#define SOON_NS 2000000

static uint32_t words(uint32_t n) { return (n + 63) / 64; }
/* Of the first n bits: later ones may be left from when there were more Ps. */
static uint32_t popcount(au64 *mask, uint32_t n) {
    uint32_t sum = 0;
    for (uint32_t i = 0; i < words(n); i++) {
        uint64_t bits = atomic_load(&mask[i]);
        if (i == n / 64) bits &= (1ull << n % 64) - 1;
        sum += (uint32_t)__builtin_popcountll(bits);
    }
    return sum;
}
static void set_bit(au64 *mask, uint32_t i) { atomic_fetch_or(&mask[i / 64], 1ull << (i % 64)); }
static int clear_bit(au64 *mask, uint32_t i) {
    return (int)(atomic_fetch_and(&mask[i / 64], ~(1ull << (i % 64))) >> (i % 64) & 1);
}

uint32_t npidle(struct view *v) { return popcount(v->seg->sched.pidle, v->seg->nprocs); }
uint32_t nmspinning(struct view *v) { return popcount(v->seg->sched.spinning, v->seg->nprocs); }
uint32_t nmidle(struct view *v) { return popcount(v->seg->sched.midle, v->seg->max_ms); }

enum { LOST_DESCRIPTORS = 72 };                               /* an M's exit code, as in coordinator/state.py */

/* User code has closed our descriptors: an M that cannot have others made, nor sysmon look, would hang them. */
static void lost_descriptors(struct view *v) {
    if (v->self < v->seg->max_ms) _exit(LOST_DESCRIPTORS);
}

/* Whether fd is no file of user code that has taken the number of ours. */
static int is_anonymous(int fd) {
    struct stat st;
    return fstat(fd, &st) == 0 && (st.st_mode & S_IFMT) == 0;
}

void wake_coordinator(struct view *v) {
    uint64_t one = 1;
    int fd = v->coordinator_fd;
    if (fd < 0) return;
    if (!is_anonymous(fd) || (write(fd, &one, sizeof one) < 0 && errno != EAGAIN && errno != EINTR)) lost_descriptors(v);
}

static uint32_t index_of(struct view *v, struct p *p) { return (uint32_t)(p - v->allp); }

/* p is ours, and becomes another's, or idle.  Returns the word it has now. */
static uint64_t own_set(struct view *v, struct p *p, uint32_t state, uint32_t m) {
    uint64_t own = load_acq(&p->own), next = OWN(state, m, OWN_SEQ(own) + 1);
    if (OWN_STATE(own) != P_RUNNING || OWN_M(own) != v->self || !atomic_compare_exchange_strong(&p->own, &own, next))
        throw(v, "P %u is not ours", index_of(v, p));
    return next;
}

/* For the calling process, if the word is still as it was. */
static int own_take(struct view *v, struct p *p, uint64_t own) {
    return atomic_compare_exchange_strong(&p->own, &own, OWN(P_RUNNING, v->self, OWN_SEQ(own) + 1));
}

/* The caller owns p.  Its ring is empty, or there is no M for what lies there. */
void pidleput(struct view *v, struct p *p) {
    KILLPOINT(pidleput_before);
    own_set(v, p, P_IDLE, NONE);
    KILLPOINT(pidleput_after);
    set_bit(v->seg->sched.pidle, index_of(v, p));
}

/* Not woken at once: on a cold path every microsecond on a core counts. */
static void set_alarm(struct view *v, uint32_t from, uint32_t to, int64_t ns) {
    struct itimerspec alarm = {{0, 0}, {0, ns}};
    fence_sc(&v->seg->sched.pidle[0]);                        /* the other side: sysmon_sleep, sysmon_slow */
    if (atomic_load(&v->seg->sched.sysmonwait) == from &&
        atomic_compare_exchange_strong(&v->seg->sched.sysmonwait, &from, to) && v->sysmon_fd >= 0 &&
        timerfd_settime(v->sysmon_fd, 0, &alarm, NULL) < 0)
        lost_descriptors(v);
}

void sysmon_wake(struct view *v) { set_alarm(v, SYSMON_ASLEEP, SYSMON_SLOW, ALARM_NS); }

/* There is something that sysmon sees only while it looks. */
void sysmon_soon(struct view *v) {
    if (atomic_load(&v->seg->sched.sysmonwait) == SYSMON_SLOW) set_alarm(v, SYSMON_SLOW, SYSMON_AWAKE, SOON_NS);
}

struct p *pidletake(struct view *v, uint32_t i) {
    if (!clear_bit(v->seg->sched.pidle, i)) return NULL;
    KILLPOINT(pidletake_before);
    uint64_t own = atomic_load(&v->allp[i].own);
    if (OWN_STATE(own) != P_IDLE || !own_take(v, &v->allp[i], own)) return NULL;
    KILLPOINT(pidletake_after);
    sysmon_wake(v);
    return &v->allp[i];
}

/* Takes an idle P for the calling process.  A bit whose P is not idle is left from a repair, or from a stop of the world: it
 * goes, and we look on. */
struct p *pidleget(struct view *v) {
    for (uint32_t w = 0; w < words(v->seg->nprocs); w++)
        for (uint64_t bits; (bits = atomic_load(&v->seg->sched.pidle[w])) != 0;) {
            struct p *p = pidletake(v, w * 64 + (uint32_t)__builtin_ctzll(bits));
            if (p) return p;
        }
    return NULL;
}

void acquirep(struct view *v, struct p *p) {
    uint64_t own = atomic_load(&p->own);
    if (OWN_STATE(own) != P_RUNNING || OWN_M(own) != v->self) throw(v, "acquirep: P %u is not ours", index_of(v, p));
    if (load_rlx(&self_m(v)->p)) throw(v, "acquirep: already holding a P");
    store_rel(&self_m(v)->p, index_of(v, p) + 1);
}

struct p *releasep(struct view *v) {
    uint32_t p = load_rlx(&self_m(v)->p);
    if (!p) throw(v, "releasep: no P");
    if (is_spinning(v)) throw(v, "releasep: spinning");
    if (OWN_M(load_acq(&v->allp[p - 1].own)) != v->self) throw(v, "releasep: P %u is not ours", p - 1);
    store_rel(&self_m(v)->p, 0);
    return &v->allp[p - 1];
}

/* Publishes that this M is parked; the caller then looks at its inbox once more (munput if there is something). */
void mput(struct view *v) {
    KILLPOINT(mput_before);
    set_bit(v->seg->sched.midle, v->self);
    mput_locked(v);
}

/* The same, but it is not to be found: only who readies one of its Gs gives it a P. */
void mput_locked(struct view *v) {
    if (load_rlx(&self_m(v)->p)) throw(v, "stopm holding P %u", load_rlx(&self_m(v)->p) - 1);
    noteclear(v);
    KILLPOINT(mput_after);
    fence_sc(&self_m(v)->inbox.tail);
}

int munput(struct view *v) {
    uint32_t w = atomic_load(&self_m(v)->note);
    clear_bit(v->seg->sched.midle, v->self);
    return MSTATE(w) == M_IDLE &&
           atomic_compare_exchange_strong(&self_m(v)->note, &w, MWORD(M_RUNNING, 0, MLIFE(w)));
}

/* After notesleep, or as a new M: what was handed over. */
struct p *mtake(struct view *v) {
    uint32_t w = load_acq(&self_m(v)->note), p = MARG(w);
    if (MSTATE(w) != M_HANDED) throw(v, "M %u was not woken", v->self);
    atomic_store(&self_m(v)->note, MWORD(M_RUNNING, 0, MLIFE(w)));
    KILLPOINT(mtake_after);
    if (!p) return NULL;
    acquirep(v, &v->allp[p - 1]);
    return &v->allp[p - 1];
}

/* m is idle, and wanted by us from here on: its note; 0: it was not idle. */
static uint32_t mwant(struct view *v, uint32_t m) {
    uint32_t w = atomic_load(&v->allm[m].note), want = MWORD(M_WANTED, v->self, MLIFE(w));
    KILLPOINT(mwant_before);
    if (MSTATE(w) != M_IDLE || !atomic_compare_exchange_strong(&v->allm[m].note, &w, want)) return 0;
    KILLPOINT(mwant_after);
    clear_bit(v->seg->sched.midle, m);
    return want;
}

/* An idle M, one without started Gs if there is one: these can run nowhere else, fresh Gs can. */
static uint32_t mget(struct view *v, uint32_t *m) {
    for (int any = 0; any < 2; any++)
        for (uint32_t w = 0; w < words(v->seg->max_ms); w++)
            for (uint64_t bits = atomic_load(&v->seg->sched.midle[w]); bits; bits &= bits - 1) {
                *m = w * 64 + (uint32_t)__builtin_ctzll(bits);
                uint32_t note = any || !load_rlx(&v->allm[*m].parked) ? mwant(v, *m) : 0;
                if (note) return note;
            }
    return 0;
}

/* A bit may be set for one that is about to park, and has been stopped there. */
static int any_m_parked(struct view *v) {
    for (uint32_t w = 0; w < words(v->seg->max_ms); w++)
        for (uint64_t bits = atomic_load(&v->seg->sched.midle[w]); bits; bits &= bits - 1)
            if (MSTATE(atomic_load(&v->allm[w * 64 + (uint32_t)__builtin_ctzll(bits)].note)) == M_IDLE) return 1;
    return 0;
}

/* A free slot for a new M, reserved for us before anything else happens (golang/go#40368). */
static uint32_t mreserve(struct view *v, uint32_t *m) {
    for (*m = 0; *m < v->seg->max_ms; ++*m) {
        uint32_t w = load_rlx(&v->allm[*m].note), starting = MWORD(M_STARTING, v->self, MLIFE(w));
        KILLPOINT(mreserve_before);
        if (MSTATE(w) == M_FREE && atomic_compare_exchange_strong(&v->allm[*m].note, &w, starting)) return starting;
    }
    return 0;
}

/* One more M, that will be idle.  0: there can be none. */
int newm_ahead(struct view *v) {
    uint32_t m, note = mreserve(v, &m);
    return note && notewakeup(v, m, note, 0);
}

/* p, which is ours, becomes that of M m, whose note says that we want it.  0: m died meanwhile, and p is ours again. */
static int hand_over(struct view *v, struct p *p, uint32_t m, uint32_t note, int spinning) {
    uint32_t i = index_of(v, p);
    if (spinning) set_bit(v->seg->sched.spinning, i);
    KILLPOINT(hand_over_before);
    uint64_t own = own_set(v, p, P_RUNNING, m);
    KILLPOINT(hand_over_after);
    if (notewakeup(v, m, note, i + 1)) return 1;
    if (!own_take(v, p, own)) return 1;                       /* its repair was faster, and has given p on */
    clear_bit(v->seg->sched.spinning, i);
    return 0;
}

int startm_on(struct view *v, struct p *p, uint32_t m) {
    uint32_t note = mwant(v, m);
    return note && hand_over(v, p, m, note, 0);
}

int wakem(struct view *v, uint32_t m) {
    uint32_t note = mwant(v, m);
    return note && notewakeup(v, m, note, 0);
}

/* The caller owns p.  Every M at work and none left to make: p goes idle, the work waits for a running M. */
int startm(struct view *v, struct p *p, int spinning) {
    KILLPOINT(startm_before);
    for (uint32_t m, note;;) {
        if ((note = mget(v, &m)) != 0) {
            if (hand_over(v, p, m, note, spinning)) return 1;
        } else if ((note = mreserve(v, &m)) != 0) {
            KILLPOINT(mreserve_after);
            if (!hand_over(v, p, m, note, spinning)) continue;
            KILLPOINT(startm_reserved);
            wake_coordinator(v);
            return 1;
        } else {
            pidleput(v, p);
            fence_sc(&v->seg->sched.pidle[0]);                /* the other side: an M parks, and looks once more (stopm) */
            if (!any_m_parked(v) || !work_anywhere(v) || !(p = pidleget(v))) return 0;
        }
    }
}

/* One more M to look for work, unless one looks already or no P is idle.  The caller has published the work; whoever
 * fails to find an idle P while nobody spins leaves needspinning for the next M about to park (golang/go#45867). */
int wakep(struct view *v) {
    KILLPOINT(wakep_before);
    fence_sc(&v->seg->sched.spinning[0]);
    if (nmspinning(v)) return 0;
    struct p *p = pidleget(v);
    if (!p) {
        if (!atomic_load(&v->seg->sched.needspinning)) atomic_store(&v->seg->sched.needspinning, 1);
        set_alarm(v, SYSMON_SLOW, SYSMON_AWAKE, SOON_NS);
        return 0;
    }
    return startm(v, p, 1);
}

/* Parked M m has started Gs that are ready: it gets an idle P, or a token on the global queue says that it wants one. */
void want_p(struct view *v, uint32_t m) {
    KILLPOINT(want_p_before);
    struct p *p = pidleget(v);
    if (p) {
        if (startm_on(v, p, m)) return;
        pidleput(v, p);
        fence_sc(&v->seg->sched.pidle[0]);
        if (work_anywhere(v)) wakep(v);
    } else if (atomic_exchange(&v->allm[m].token_queued, 1) == 0) {
        KILLPOINT(want_p_after);
        globrunqput(v, token(m));
        wakep(v);
    }
}

void wake_self(struct view *v) {
    if (MSTATE(atomic_load(&self_m(v)->note)) == M_IDLE) want_p(v, v->self);
}

static uint32_t held(struct view *v) {
    uint32_t p = load_rlx(&self_m(v)->p);
    if (!p) throw(v, "M %u spins without a P", v->self);
    return p - 1;
}

void set_spinning(struct view *v) {
    set_bit(v->seg->sched.spinning, held(v));
    KILLPOINT(set_spinning_after);
    atomic_store(&v->seg->sched.needspinning, 0);
}

int is_spinning(struct view *v) {
    uint32_t p = load_rlx(&self_m(v)->p);
    return p && load_acq(&v->seg->sched.spinning[(p - 1) / 64]) >> ((p - 1) % 64) & 1;
}

/* At most half of the busy Ps have an M that spins. */
int become_spinning(struct view *v) {
    if (is_spinning(v)) return 1;
    if (!load_acq(&v->seg->sched.needspinning) && 2 * nmspinning(v) >= v->seg->nprocs - npidle(v)) return 0;
    set_spinning(v);
    return 1;
}

void reset_spinning(struct view *v) {
    uint32_t p = held(v);
    if (!clear_bit(v->seg->sched.spinning, p)) throw(v, "reset_spinning: not spinning");
    KILLPOINT(reset_spinning_after);
    fence_sc(&v->seg->sched.spinning[0]);
}

/* Anything an M without a P would want one for? */
int work_anywhere(struct view *v) {
    if (globrunqsize(v)) return 1;
    for (uint32_t i = 0; i < v->seg->nprocs; i++)
        if (!runqempty(&v->allp[i])) return 1;
    for (uint32_t i = MAX_PS; i < v->seg->nps; i++)
        if (!runqempty(&v->allp[i])) return 1;
    return 0;
}

void startm_failed(struct view *v, uint32_t m) {
    au32 *note = &v->allm[m].note, *pid = &v->allm[m].pid;
    uint32_t w = atomic_load(note), p = MARG(w), nobody = 0;
    if (MSTATE(w) != M_HANDED || !atomic_compare_exchange_strong(pid, &nobody, (uint32_t)getpid())) return;
    if (!p) {
        atomic_store(note, MWORD(M_FREE, 0, MLIFE(w) + 1));
        atomic_store(pid, 0);
        return;
    }
    uint64_t own = atomic_load(&v->allp[p - 1].own);
    atomic_store(note, MWORD(M_FREE, 0, MLIFE(w) + 1));
    if (OWN_M(own) != m || !own_take(v, &v->allp[p - 1], own)) throw(v, "P %u of unborn M %u changed hands", p - 1, m);
    atomic_store(pid, 0);
    clear_bit(v->seg->sched.spinning, p - 1);
    pidleput(v, &v->allp[p - 1]);
}

int stranded(struct view *v) { return npidle(v) && work_anywhere(v); }

/* One that is parked for its own Gs alone (mput_locked) is on no list. */
static int is_to_be_had(struct view *v, uint32_t m) {
    uint32_t state = MSTATE(atomic_load(&v->allm[m].note));
    return state == M_FREE || (state == M_IDLE && atomic_load(&v->seg->sched.midle[m / 64]) >> (m % 64) & 1);
}

int out_of_ms(struct view *v) {
    for (uint32_t i = 0; i < v->seg->max_ms; i++)
        if (is_to_be_had(v, i)) return 0;
    return 1;
}

/* Whether somebody spins, or has been handed a P and looks for work as soon as it wakes or, if it is being made, begins. */
static int anybody_coming(struct view *v) {
    if (nmspinning(v)) return 1;
    for (uint32_t i = 0; i < v->seg->max_ms; i++) {
        uint32_t w = load_acq(&v->allm[i].note);
        if (MSTATE(w) == M_HANDED && MARG(w)) return 1;
    }
    return 0;
}

/* sysmon looks every 10 ms or so.  Work beside an idle P, with nobody coming at two looks in a row: a process could not be
 * made, or a wake-up was lost.  With somebody coming all that time: it is stopped, slow, or about to be woken by such a one. */
int rescue(struct view *v, int looks) {
    if (!stranded(v) || out_of_ms(v)) return 0;
    int coming = anybody_coming(v);
    if (++looks < (coming ? 6 : 2)) return looks;
    if (!coming) atomic_fetch_add(&v->seg->sched.rescues, 1);
    struct p *p = pidleget(v);
    if (p) startm(v, p, 0);
    return 0;
}

/* All Ps are idle: does a G run all the same, in an M whose P was taken as it blocked? */
static int any_g_without_p(struct view *v) {
    for (uint32_t i = 0; i < v->seg->max_ms; i++)
        if (MSTATE(load_acq(&v->allm[i].note)) == M_RUNNING && load_acq(&v->allm[i].curg)) return 1;
    return 0;
}

int sysmon_sleep(struct view *v) {
    atomic_store(&v->seg->sched.sysmonwait, SYSMON_ASLEEP);
    fence_sc(&v->seg->sched.pidle[0]);
    if (npidle(v) == v->seg->nprocs && !work_anywhere(v) && !any_g_without_p(v)) return 1;
    uint32_t asleep = SYSMON_ASLEEP;
    atomic_compare_exchange_strong(&v->seg->sched.sysmonwait, &asleep, SYSMON_AWAKE);
    return 0;
}
