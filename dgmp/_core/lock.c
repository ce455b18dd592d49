/* lock.c: robust, process-shared mutexes.  What they protect is consistent after every single store, so the death of a
 * holder needs no more than saying so.
 *
 * Nobody may hang on a holder that somebody stopped (SIGSTOP): who waits looks at the holder every 100 ms.  A stopped M is
 * killed, which frees the mutex; if the client is stopped too the whole job is (Ctrl-Z), and we wait on.  So is one that has
 * been found asleep for three seconds.  One that a debugger has stopped is not, and neither are client and coordinator ever:
 * who stops these stops the node, and lets it go on.
 */
#include "process.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#define PATIENCE_NS 100000000
#define STUCK_LOOKS 30                /* in a row, PATIENCE_NS apart, that have found it asleep */
#define DEAD UINT32_MAX               /* in the place of the holder */
#ifdef __SANITIZE_THREAD__              /* gcc's does not know this way to lock */
#include <sanitizer/tsan_interface.h>
static int clocklock(pthread_mutex_t *mutex, clockid_t clock, const struct timespec *t) {
    __tsan_mutex_pre_lock(mutex, __tsan_mutex_try_lock);
    int e = pthread_mutex_clocklock(mutex, clock, t);
    __tsan_mutex_post_lock(mutex, __tsan_mutex_try_lock | (e ? __tsan_mutex_try_lock_failed : 0), 0);
    return e;
}
#define pthread_mutex_clocklock clocklock
#endif

#define SPINS 100                     /* what is done under a lock takes less, and sleeping takes far more */

int lock_init(struct lock *l) {
    pthread_mutexattr_t a;
    int e = pthread_mutexattr_init(&a);
    if (!e) e = pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
    if (!e) e = pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
    if (!e) e = pthread_mutex_init(&l->mutex, &a);
    return e;
}

struct suspect {                      /* who has been found to hold it, all the time asleep */
    uint32_t m;
    int64_t cpu;
    int looks;
};

static int is_stopped(uint32_t pid) { return process_state(pid) == 'T'; }

/* Whether a process stands still that others may have to wait for as long as it likes. */
static int stands_still(uint32_t pid) {
    char state = process_state(pid);
    return state == 'T' || state == 't';
}

/* Under a lock nobody sleeps for long, unless for another lock, and that has an end where client and coordinator go on. */
static int is_stuck(struct view *v, struct suspect *s, uint32_t m, uint32_t pid) {
    struct m *client = &v->allm[v->seg->max_ms];
    int64_t cpu = process_cpu(pid);
    int same = s->m == m && s->cpu == cpu && process_sleeps(pid);
    for (struct m *c = client; same && c < v->allm + v->seg->nms; c++) same = !load_acq(&c->pid) || !stands_still(load_acq(&c->pid));
    s->m = m, s->cpu = cpu;
    s->looks = same ? s->looks + 1 : 0;
    return s->looks >= STUCK_LOOKS;
}

static void look_at_holder(struct view *v, struct lock *l, struct suspect *s) {
    uint32_t m = load_acq(&l->holder) - 1, max_ms = v->seg->max_ms;
    if (m >= max_ms || is_stopped(load_acq(&v->allm[max_ms].pid))) return;
    uint32_t pid = load_acq(&v->allm[m].pid);
    if (pid && (is_stopped(pid) || is_stuck(v, s, m, pid))) kill((pid_t)pid, SIGKILL);
}

static int lock_patiently(struct view *v, struct lock *l) {
    for (struct suspect s = {NONE, 0, 0};;) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        t.tv_nsec += PATIENCE_NS;
        t.tv_sec += t.tv_nsec / 1000000000;
        t.tv_nsec %= 1000000000;
        int e = pthread_mutex_clocklock(&l->mutex, CLOCK_MONOTONIC, &t);
        if (e != ETIMEDOUT) return e;
        look_at_holder(v, l, &s);
    }
}

/* 1: who held it died; what it protects may be as that one left it. */
int lock_robust(struct view *v, struct lock *l) {
    int e = pthread_mutex_trylock(&l->mutex), died;
    for (int i = 0; e == EBUSY && i < SPINS; i++) {
        procyield();
        e = pthread_mutex_trylock(&l->mutex);
    }
    if (e == EBUSY) e = lock_patiently(v, l);
    died = e == EOWNERDEAD;
    if (died) e = pthread_mutex_consistent(&l->mutex);
    if (e) throw(v, "a mutex of the segment failed: %s", strerror(e));
    store_rlx(&l->holder, v->self + 1);
    return died;
}

void lock(struct view *v, struct lock *l) { lock_robust(v, l); }

void unlock(struct lock *l) {
    store_rlx(&l->holder, 0);
    pthread_mutex_unlock(&l->mutex);
}

/* The calling thread holds it as long as it lives, and the kernel tells others when it does not any more. */
void live(struct view *v, struct lock *l) { lock(v, l); }

/* 1: the one that was to live has died, for ever; -1: it has not begun to live. */
int has_died(struct lock *l) {
    if (load_acq(&l->holder) == DEAD) return 1;
    int e = pthread_mutex_trylock(&l->mutex);
    if (e == EBUSY) return 0;
    if (e == EOWNERDEAD) {
        store_rel(&l->holder, DEAD);
        pthread_mutex_consistent(&l->mutex);
    }
    pthread_mutex_unlock(&l->mutex);
    return e == EOWNERDEAD ? 1 : -1;
}
