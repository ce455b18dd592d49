/* lock.c: robust, process-shared mutexes.  What they protect is consistent after every single store, so the death of a
 * holder needs no more than saying so.
 *
 * Nobody may hang on a holder that somebody stopped (SIGSTOP): who waits looks at the holder every 100 ms.  A stopped M is
 * killed, which frees the mutex; if the client is stopped too the whole job is (Ctrl-Z), and we wait on.
 */
#include "core.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define PATIENCE_NS 100000000
#define SPINS 100                     /* what is done under a lock takes less, and sleeping takes far more */

int lock_init(struct lock *l) {
    pthread_mutexattr_t a;
    int e = pthread_mutexattr_init(&a);
    if (!e) e = pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
    if (!e) e = pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
    if (!e) e = pthread_mutex_init(&l->mutex, &a);
    return e;
}

static int is_stopped(uint32_t pid) {
    char path[40], text[512];
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    FILE *file = fopen(path, "re");
    if (!file) return 0;
    size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[n] = 0;
    const char *end = strrchr(text, ')');                     /* the name before it may hold anything */
    return end && end[1] == ' ' && end[2] == 'T';
}

static void look_at_holder(struct view *v, struct lock *l) {
    uint32_t m = load_acq(&l->holder) - 1, max_ms = v->seg->max_ms;
    if (m >= max_ms || is_stopped(load_acq(&v->allm[max_ms].pid))) return;
    uint32_t pid = load_acq(&v->allm[m].pid);
    if (pid && is_stopped(pid)) kill((pid_t)pid, SIGKILL);
}

static int lock_patiently(struct view *v, struct lock *l) {
    for (;;) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        t.tv_nsec += PATIENCE_NS;
        t.tv_sec += t.tv_nsec / 1000000000;
        t.tv_nsec %= 1000000000;
        int e = pthread_mutex_timedlock(&l->mutex, &t);
        if (e != ETIMEDOUT) return e;
        look_at_holder(v, l);
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

/* 1: the one that was to live has died; -1: it has not begun to live.  A mutex that is given back as its last holder left it is of
 * no use to anybody, for ever: who looks later learns the same. */
int has_died(struct lock *l) {
    int e = pthread_mutex_trylock(&l->mutex);
    if (e == 0 || e == EOWNERDEAD) pthread_mutex_unlock(&l->mutex);
    return e == 0 ? -1 : e == EOWNERDEAD || e == ENOTRECOVERABLE;
}
