/* The global queue: order, fair shares, many processes' worth of threads, and a holder that is killed with the lock. */
#include "check.h"

enum { TAKERS = 3, N = 60000 };
static struct view views[TAKERS + 1];
static struct p *ps[TAKERS + 1];
static _Atomic int taken[N + 1];
static _Atomic long left = N;

static void took(uint64_t w) {
    CHECK(atomic_fetch_add(&taken[w & 0xffffffff], 1) == 0);
    atomic_fetch_sub(&left, 1);
}

static void *taker(void *arg) {
    long k = (long)arg;
    while (atomic_load(&left) > 0) {
        uint32_t n;
        int inherit;
        uint64_t w = globrunqget(&views[k], ps[k], 0, &n);
        if (w) took(w);
        while ((w = runqget(&views[k], ps[k], &inherit)) != 0) took(w);
    }
    return NULL;
}

/* Words of Gs that were cancelled make room for others; what can still be run stays, in its order, and tokens too. */
static void full_of_stale_words(void) {
    int fd = new_segment_of(1, 1, 64);
    struct view v;
    attach(&v, fd, 0, KIND_M);
    struct p *p = with_p(&v);
    uint32_t index, n;
    struct lring *r = &v.seg->globrunq;
    for (int i = 0; i < 70; i++) {                              /* not from the first cell on */
        globrunqput(&v, gword(1, 7));
        CHECK(globrunqget(&v, p, 1, &n) == gword(1, 7));
    }
    struct g *g = gfget(&v, &index);
    uint64_t w = gword(index, GGEN(load_rlx(&g->state)));
    atomic_store(&g->state, GSTATE(G_RUNNABLE, NO_M, 0, gword_gen(w)));
    globrunqput(&v, gword(1, 7)), globrunqput(&v, w), globrunqput(&v, token(0));
    while (globrunqsize(&v) < r->cap) globrunqput(&v, gword(index, gword_gen(w) + 1));
    globrunqput(&v, gword(2, 7));
    CHECK(globrunqsize(&v) == 3 && globrunqget(&v, p, 1, &n) == w && globrunqget(&v, p, 1, &n) == token(0));
    CHECK(globrunqget(&v, p, 1, &n) == gword(2, 7) && globrunqsize(&v) == 0);
    /* without room for a batch */
    while (globrunqsize(&v) < r->cap - 1) globrunqput(&v, gword(2, 7));
    globrunqputbatch(&v, (uint64_t[]){w, w}, 2);
    CHECK(globrunqsize(&v) == 2 && globrunqget(&v, p, 1, &n) == w && globrunqget(&v, p, 1, &n) == w);
    CHECK(load_rlx(&v.allm[0].popping) == w && load_rlx(&g->state) == GSTATE(G_RUNNABLE, NO_M, 0, gword_gen(w)));
    segment_unmap(&v);
}

int main(void) {
    full_of_stale_words();
    int fd = new_segment(TAKERS + 1, 8), inherit;
    uint32_t n;
    for (uint32_t i = 0; i <= TAKERS; i++) attach(&views[i], fd, i, KIND_M), ps[i] = with_p(&views[i]);
    for (uint64_t i = 1; i <= 9; i++) globrunqput(&views[0], GWORD_FULL | i);
    CHECK(globrunqget(&views[0], ps[0], 0, &n) == (GWORD_FULL | 1) && n == 3);           /* 9 / 4 + 1 */
    CHECK(runqget(&views[0], ps[0], &inherit) == (GWORD_FULL | 2) && runqget(&views[0], ps[0], &inherit) == (GWORD_FULL | 3));
    CHECK(globrunqget(&views[0], ps[0], 1, &n) == (GWORD_FULL | 4) && n == 1 && globrunqsize(&views[0]) == 5);
    while (globrunqget(&views[0], ps[0], 1, &n)) continue;
#ifndef __SANITIZE_THREAD__
    /* killed while it holds the lock: the next one goes on */
    pid_t child = fork_child();
    if (child == 0) {
        lock(&views[0], &views[0].seg->globrunq.lock);
        kill(getpid(), SIGKILL);
    }
    waitpid(child, NULL, 0);
    globrunqput(&views[0], GWORD_FULL | 5);
    CHECK(globrunqget(&views[0], ps[0], 1, &n) == (GWORD_FULL | 5));
    /* stopped while it holds the lock: the coordinator kills an M; but not if the client is stopped too (Ctrl-Z) */
    pid_t stopped = fork_child();
    if (stopped == 0) {
        lock(&views[0], &views[0].seg->globrunq.lock);
        raise(SIGSTOP);
        unlock(&views[0].seg->globrunq.lock);
        _exit(7);
    }
    int status;
    CHECK(waitpid(stopped, &status, WUNTRACED) == stopped && WIFSTOPPED(status));
    struct m *m = views[0].allm;
    atomic_store(&m[0].pid, (uint32_t)stopped), atomic_store(&m[8].pid, (uint32_t)stopped);
    child = fork_child();                                       /* "fg", after a while */
    if (child == 0) {
        usleep(250000);
        kill(stopped, SIGCONT);
        _exit(0);
    }
    globrunqput(&views[1], GWORD_FULL | 6);
    CHECK(waitpid(stopped, &status, 0) == stopped && WIFEXITED(status) && WEXITSTATUS(status) == 7);
    waitpid(child, NULL, 0);
    stopped = fork_child();
    if (stopped == 0) {
        lock(&views[0], &views[0].seg->globrunq.lock);
        raise(SIGSTOP);
        _exit(7);
    }
    CHECK(waitpid(stopped, &status, WUNTRACED) == stopped && WIFSTOPPED(status));
    atomic_store(&m[0].pid, (uint32_t)stopped), atomic_store(&m[8].pid, (uint32_t)getpid());
    globrunqput(&views[1], GWORD_FULL | 7);
    CHECK(waitpid(stopped, &status, 0) == stopped && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    while (globrunqget(&views[0], ps[0], 1, &n)) continue;
#endif
    pthread_t t[TAKERS];
    for (long k = 0; k < TAKERS; k++) pthread_create(&t[k], NULL, taker, (void *)(k + 1));
    for (uint64_t i = 1; i <= N; i += 3) {
        uint64_t batch[3] = {GWORD_FULL | i, GWORD_FULL | (i + 1), GWORD_FULL | (i + 2)};
        while (globrunqsize(&views[0]) > 8000) usleep(10);
        globrunqputbatch(&views[0], batch, 3);
    }
    for (int k = 0; k < TAKERS; k++) pthread_join(t[k], NULL);
    for (int i = 1; i <= N; i++) CHECK(taken[i] == 1);
    DONE("globrunq");
}
