/* sysmon.c: looking for Ms that block in user code, and for those that run it without a P (Go: sysmon, retake).
 *
 * An M blocks if its main thread sleeps (state S or D), or is stopped (T or t), at two looks and the process has used no CPU time between, all in one
 * stretch of user code: the P's word is still the same.  The CPU clock alone is not enough, as the kernel brings it up to date
 * only at its ticks; the state alone is not, as a thread may sleep again and again, or wait for one that works.  The clock is
 * asked first, for it costs 0.3 us and the state 10.  A function that was once seen to block is looked at twice as often, and
 * its state at the first look already; so is the one that kept work waiting while nobody looked.
 * An M without a P, in user code, whose clock moves and whose main thread runs is one that has come back from a blocking call.
 *
 * A G that runs for 10 ms while started Gs of its M can go on, words for them may lie in its inbox, or their time to sleep is
 * up, is asked to give way (Go: preemptone); again and again, as it may be where it cannot.  Both kinds of M get the same
 * signal, and know what to do.
 *
 * While there is no work that waits for a P, no such G, and no more Ms without one than idle Ps, nobody need look: after a tenth of a
 * second of that sysmon sleeps until somebody finds no idle P (wakep), or until the coordinator has something else to do.
 */
#include "sysmon.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "process.h"
#include "retake.h"

#define LOOK_NS 2000000
#define PATIENT_NS 5000000            /* while no work waits: only for Ms without a P */
#define HASTY_NS 1000000              /* while a function runs that was seen to block */
#define QUIET_LOOKS 50
#define TELL_AGAIN_NS 10000000        /* an M that was told to stop and has not is in C code, or in the runtime's */
#define SLICE_NS 10000000             /* how long a G may keep others waiting (Go: forcePreemptNS) */
#define WHOLE 0                       /* no function: each call brings its own (ship.functions) */

int sysmon_init(struct view *v, struct sysmon *s) {
    s->ps = calloc(MAX_PS, sizeof *s->ps);
    s->blocked = calloc(MAX_PS, sizeof *s->blocked);
    s->ms = calloc(v->seg->max_ms, sizeof *s->ms);
    s->loose = calloc(v->seg->max_ms, sizeof *s->loose);
    s->blocks = calloc((v->seg->nfns + 63) / 64, sizeof *s->blocks);
    return s->ps && s->blocked && s->ms && s->loose && s->blocks;
}

void sysmon_free(struct sysmon *s) {
    free(s->ps), free(s->blocked), free(s->ms), free(s->loose), free(s->blocks);
    memset(s, 0, sizeof *s);
}

/* Or is stopped, by whomever. */
static int sleeps(uint32_t pid) {
    char state = process_state(pid);
    return state == 'S' || state == 'D' || state == 'T' || state == 't';
}

/* The function of the G that M m runs; WHOLE: not known. */
static uint32_t function_of(struct view *v, uint32_t m) {
    uint64_t w = load_acq(&v->allm[m].curg);
    return w ? v->allgs[gword_index(w)].fn : WHOLE;
}

static int known_to_block(struct view *v, struct sysmon *s, uint32_t fn) {
    return fn != WHOLE && fn < v->seg->nfns && s->blocks[fn / 64] >> (fn % 64) & 1;
}

void sysmon_blocked(struct view *v, struct sysmon *s, uint32_t p) {
    uint32_t fn = function_of(v, OWN_M(s->ps[p].own));
    if (fn != WHOLE && fn < v->seg->nfns) s->blocks[fn / 64] |= 1ull << (fn % 64);
}

/* Whether the M that runs user code with P i blocks. */
static int look_at_p(struct view *v, struct sysmon *s, uint32_t i) {
    struct p_seen *seen = &s->ps[i];
    uint64_t own = atomic_load(&v->allp[i].own);
    uint32_t m = OWN_M(own), pid = OWN_STATE(own) == P_SYSCALL && m < v->seg->max_ms ? load_acq(&v->allm[m].pid) : 0;
    if (!pid) {
        seen->own = 0;
        return 0;
    }
    int64_t cpu = process_cpu(pid);
    if (own != seen->own || cpu != seen->cpu) {
        int first = own != seen->own;
        seen->own = own, seen->cpu = cpu;
        seen->asleep = first && (s->eager || known_to_block(v, s, function_of(v, m))) && sleeps(pid);
        return 0;
    }
    int slept = seen->asleep;
    seen->asleep = sleeps(pid);
    return slept && seen->asleep;
}

static int is_loose(struct view *v, uint32_t m) {
    return MSTATE(load_acq(&v->allm[m].note)) == M_RUNNING && load_acq(&v->allm[m].curg) && !holds_p(v, m);
}

/* Whether an M runs on in user code, without a P, and is to be told so. */
static int look_at_m(struct view *v, struct sysmon *s, uint32_t m, int64_t now) {
    struct m_seen *seen = &s->ms[m];
    uint32_t pid = load_acq(&v->allm[m].pid);
    uint64_t curg = load_acq(&v->allm[m].curg);
    int64_t cpu = process_cpu(pid), was = seen->cpu;
    int same = curg == seen->curg;
    seen->curg = curg, seen->cpu = cpu;
    if (!same) seen->told = 0;
    if (!same || cpu == was || (seen->told && now - seen->told < TELL_AGAIN_NS) || process_state(pid) != 'R') return 0;
    seen->told = now;
    return 1;
}

static int is_due(struct m *m) {
    int64_t timer = (int64_t)load_acq(&m->next_timer);
    return timer && timer <= nanotime();
}

/* Whether started Gs of an M that holds a P wait, or may, while another G runs there. */
static int keeps_waiting(struct view *v, uint32_t m) {
    struct m *mp = &v->allm[m];
    return load_acq(&mp->curg) && (load_acq(&mp->ready) || load_acq(&mp->readied) || !inbox_empty(v, m) || is_due(mp)) &&
           holds_p(v, m);
}

/* When the next of those that sleep is to go on, where another G runs. */
static int64_t next_due(struct view *v) {
    int64_t due = INT64_MAX;
    for (uint32_t i = 0; i < v->seg->max_ms; i++) {
        int64_t timer = (int64_t)load_acq(&v->allm[i].next_timer);
        if (timer && timer < due && load_acq(&v->allm[i].curg)) due = timer;
    }
    return due;
}

/* Whether the G that runs there has had its time, and is to be asked. */
static int look_at_g(struct view *v, struct sysmon *s, uint32_t m, int64_t now) {
    struct m_seen *seen = &s->ms[m];
    struct m *mp = &v->allm[m];
    uint64_t g = load_acq(&mp->curg), switches = load_rlx(&mp->n_parks) + load_rlx(&mp->n_executed);
    if (now - (int64_t)load_rlx(&mp->since) < SLICE_NS) return 0;
    if (g == seen->g && switches == seen->switches && now - seen->asked < SLICE_NS) return 0;
    if (process_state(load_acq(&mp->pid)) != 'R') return 0;
    seen->g = g, seen->switches = switches, seen->asked = now;
    return 1;
}

static int any_keeps_waiting(struct view *v) {
    for (uint32_t i = 0; i < v->seg->max_ms; i++)
        if (keeps_waiting(v, i)) return 1;
    return 0;
}

uint32_t ms_without_p(struct view *v) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < v->seg->max_ms; i++) n += is_loose(v, i);
    return n;
}

/* Whether anybody would gain by a look. */
static int has_reason(struct view *v, uint32_t loose) {
    return work_anywhere(v) || loose > npidle(v) || any_keeps_waiting(v);
}

uint32_t sysmon_look(struct view *v, struct sysmon *s, int64_t now) {
    uint32_t loose = 0;
    s->nblocked = s->nloose = 0;
    for (uint32_t i = 0; i < v->seg->max_ms; i++) {
        if (!is_loose(v, i)) {
            s->ms[i].curg = 0;
            if (keeps_waiting(v, i) && look_at_g(v, s, i, now)) s->loose[s->nloose++] = i;
            continue;
        }
        loose++;
        if (look_at_m(v, s, i, now)) s->loose[s->nloose++] = i;
    }
    int work = work_anywhere(v);
    for (uint32_t i = 0; work && i < v->seg->nprocs; i++)
        if (look_at_p(v, s, i)) s->blocked[s->nblocked++] = i;
    s->quiet = has_reason(v, loose) ? 0 : s->quiet + 1;
    return s->nblocked + s->nloose;
}

/* Who finds no idle P for its work sets the alarm from here on; 0: there is a reason to look after all. */
static int sysmon_slow(struct view *v) {
    uint32_t awake = SYSMON_AWAKE, slow = SYSMON_SLOW;
    atomic_compare_exchange_strong(&v->seg->sched.sysmonwait, &awake, SYSMON_SLOW);
    fence_sc(&v->seg->sched.pidle[0]);
    if (!has_reason(v, ms_without_p(v))) return 1;
    atomic_compare_exchange_strong(&v->seg->sched.sysmonwait, &slow, SYSMON_AWAKE);
    return 0;
}

static int64_t pause_ns(struct view *v, struct sysmon *s) {
    if (!work_anywhere(v)) return any_keeps_waiting(v) ? LOOK_NS : PATIENT_NS;
    for (uint32_t i = 0; i < v->seg->nprocs; i++) {
        uint64_t own = load_acq(&v->allp[i].own);
        if (OWN_STATE(own) == P_SYSCALL && OWN_M(own) < v->seg->max_ms && known_to_block(v, s, function_of(v, OWN_M(own))))
            return HASTY_NS;
    }
    return LOOK_NS;
}

/* Looks again and again.  In C, as each pass of the coordinator's own loop costs what fifty looks do. */
int sysmon_wait(struct view *v, struct sysmon *s, int fd, int64_t timeout_ns) {
    int64_t end = timeout_ns < 0 ? INT64_MAX : nanotime() + timeout_ns;
    for (;;) {
        struct pollfd ready = {fd, POLLIN, 0};
        int slow = s->quiet >= QUIET_LOOKS && sysmon_slow(v);
        int64_t now = nanotime(), pause = pause_ns(v, s);
        if (s->quiet >= QUIET_LOOKS && !slow) {
            s->eager = 1;
            uint32_t found = sysmon_look(v, s, now);
            s->eager = 0;
            if (found) return 1;
        }
        int64_t until = slow ? next_due(v) : end;
        if (until > end) until = end;
        if (slow || pause > until - now) pause = until - now;
        if (pause < 0) pause = 0;
        struct timespec t = {pause / 1000000000, pause % 1000000000};
        int n = ppoll(&ready, 1, until == INT64_MAX && slow ? NULL : &t, NULL);
        if (n != 0) return 0;                                 /* or a signal: Python has its handler */
        now = nanotime();
        if (!slow && sysmon_look(v, s, now)) return 1;
        if (now >= end) return 0;
    }
}
