/* The inbox: each word once, laps, producers that die half-way or are killed anywhere, no lost wake-up of who waits. */
#include "check.h"

#include <errno.h>

enum { PRODUCERS = 3, EACH = 30000, KILLS = 60 };
static struct view views[PRODUCERS + 1];
static int fd;

static uint64_t word(long k, long i) { return GWORD_FULL | (uint64_t)k << 32 | (uint64_t)i; }

static void push_for_ever(struct view *v, long k, long n) {
    struct inbox *b = &v->allm[0].inbox;
    unsigned seed = (unsigned)k;
    long room = (long)v->seg->inbox_cap - 8;            /* the core's inboxes cannot fill: twice as large as allgs */
    for (long i = 0; i < n; i++) {
        while ((long)(atomic_load(&b->tail) - atomic_load(&b->head)) > room) usleep(10);
        inbox_push(v, 0, word(k, i));
        if (rand_r(&seed) % 64 == 0) pause_up_to(&seed, 2000);
    }
}

static void *producer(void *arg) {
    push_for_ever(&views[(long)arg], (long)arg, EACH);
    return NULL;
}

/* Many producers; the consumer sleeps whenever there is nothing. */
static void stress(uint32_t nslots) {
    fd = new_segment_of(1, PRODUCERS + 1, nslots);
    for (uint32_t i = 0; i <= PRODUCERS; i++) attach(&views[i], fd, i, KIND_CLIENT);
    struct view *v = &views[0];
    long next[PRODUCERS + 1] = {0};
    pthread_t t[PRODUCERS];
    for (long k = 0; k < PRODUCERS; k++) pthread_create(&t[k], NULL, producer, (void *)(k + 1));
    for (long got = 0; got < PRODUCERS * EACH;) {
        uint64_t w = inbox_pop(v);
        if (!w) {
            int e = inbox_wait(v, atomic_load(&self_m(v)->inbox.seq), 0, 0, 0, 2000000000);
            CHECK(e == 0 || inbox_empty(v, 0));         /* slept 2 s beside a full inbox: a lost wake-up */
            CHECK(e == 0 || got > 0);
            continue;
        }
        long k = (long)(w >> 32 & 0xff), i = (long)(w & 0xffffffff);
        CHECK(k >= 1 && k <= PRODUCERS && next[k] == i);     /* each producer's words in its order */
        next[k]++, got++;
    }
    for (int k = 0; k < PRODUCERS; k++) pthread_join(t[k], NULL);
    CHECK(inbox_empty(v, 0) && v->allm[0].inbox.tail == PRODUCERS * EACH && v->allm[0].inbox.head == PRODUCERS * EACH);
    for (int k = 0; k <= PRODUCERS; k++) segment_unmap(&views[k]);
    close(fd);
}

/* By hand: a producer that died between its cell and tail is finished by the next one, or by the consumer; at each lap. */
static void died_half_way(void) {
    fd = new_segment_of(1, 2, 64);
    for (uint32_t i = 0; i <= 1; i++) attach(&views[i], fd, i, KIND_CLIENT);
    struct view *v = &views[0];
    struct inbox *b = &v->allm[0].inbox;
    au64 *cells = at(v, b->cells);
    uint64_t cap = v->seg->inbox_cap;
    CHECK(cap == 128);
    for (uint64_t i = 0; i < 5 * cap; i += 3) {
        CHECK(atomic_load(&cells[i % cap]) == i / cap);
        atomic_store(&cells[i % cap], word(1, 11));
        inbox_push(&views[1], 0, word(1, 12));
        CHECK(b->tail == i + 2);
        CHECK(inbox_pop(v) == word(1, 11) && inbox_pop(v) == word(1, 12) && inbox_pop(v) == 0);
        atomic_store(&cells[(i + 2) % cap], word(1, 13));
        CHECK(!inbox_empty(v, 0) && inbox_pop(v) == word(1, 13) && inbox_empty(v, 0));
        CHECK(b->tail == i + 3 && b->head == i + 3);
    }
    /* a producer that slept for a lap compares with the old lap's number: its CAS fails */
    uint64_t old = 0;
    CHECK(!atomic_compare_exchange_strong(&cells[0], &old, word(1, 14)) && old >= 4);
    /* what was asked for: nothing to wait for when something is there; time out when not */
    CHECK(inbox_wait(v, atomic_load(&self_m(v)->inbox.seq), word(1, 1), 1, 0, 1000000) != 0);
    inbox_push(&views[1], 0, word(1, 15));
    CHECK(inbox_wait(v, atomic_load(&self_m(v)->inbox.seq), word(1, 1), 1, 0, -1) == 0 && inbox_pop(v) == word(1, 15) && b->waiters == 0);
    segment_unmap(&views[0]), segment_unmap(&views[1]);
    close(fd);
}

/* Processes that push for ever, killed anywhere: what each pushed comes in order and without a gap, and it goes on. */
static void killed(void) {
    fd = new_segment_of(1, PRODUCERS + 1, 64);
    for (uint32_t i = 0; i <= PRODUCERS; i++) attach(&views[i], fd, i, KIND_CLIENT);
    struct view *v = &views[0];
    pid_t pids[PRODUCERS + 1] = {0};
    long next[PRODUCERS + 1] = {0};
    unsigned seed = 1;
    for (int n = 0; n < KILLS; n++) {
        for (long k = 1; k <= PRODUCERS; k++)
            if (!pids[k] && (pids[k] = fork_child()) == 0) push_for_ever(&views[k], k, 1l << 31);
        long victim = 1 + rand_r(&seed) % PRODUCERS;
        int64_t end = nanotime() + rand_r(&seed) % 2000000;
        int all = n % 4 == 0, dead = 0;                 /* all at once, or one, while the others go on for a while */
        for (;;) {
            uint64_t w = inbox_pop(v);
            if (w) {
                CHECK((w >> 32 & 0xff) - 1 < PRODUCERS && next[w >> 32 & 0xff]++ == (long)(w & 0xffffffff));
            } else if (dead && !pids[1] && !pids[2] && !pids[3]) {
                break;                                  /* all are dead, and nothing is left */
            }
            if (nanotime() < end) continue;
            for (long k = 1; k <= PRODUCERS; k++)
                if (pids[k] && (dead || all || k == victim)) kill_child(pids[k]), pids[k] = 0;
            if (!dead) dead = 1, end += 1000000;
        }
        CHECK(inbox_empty(v, 0) && v->allm[0].inbox.tail == v->allm[0].inbox.head);
        memset(next, 0, sizeof next);
    }
    for (int k = 0; k <= PRODUCERS; k++) segment_unmap(&views[k]);
    close(fd);
}

/* A producer stopped anywhere; meanwhile others fill the ring a lap on, as far as it may be filled; it goes on. */
static void slept_a_lap(void) {
    fd = new_segment_of(1, 2, 64);
    for (uint32_t i = 0; i <= 1; i++) attach(&views[i], fd, i, KIND_CLIENT);
    struct view *v = &views[0];
    struct inbox *b = &v->allm[0].inbox;
    unsigned seed = 1;
    pid_t child = fork_child();
    if (child == 0) for (long i = 0;; i++) {
        while (atomic_load(&b->tail) - atomic_load(&b->head) > 100) procyield();
        inbox_push(&views[1], 0, word(1, i));
    }
    for (int n = 0; n < 2000; n++) {
        int status;
        for (int64_t end = nanotime() + rand_r(&seed) % 200000; nanotime() < end;) inbox_pop(v);
        kill(child, SIGSTOP);
        CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
        while (inbox_pop(v)) continue;
        for (int i = 0; i < 128; i++) {
            inbox_push(v, 0, word(2, i));
            CHECK(inbox_pop(v));
        }
        for (int i = 0; i < 120; i++) inbox_push(v, 0, word(2, i));         /* 120 of 128: not full */
        kill(child, SIGCONT);
        usleep(200);
        CHECK(waitpid(child, &status, WNOHANG) == 0);                       /* it threw */
        while (inbox_pop(v)) continue;
    }
    kill_child(child);
    segment_unmap(&views[0]), segment_unmap(&views[1]);
    close(fd);
}

/* One word a round, pushed at the very moment at which the consumer goes to sleep. */
#ifdef __SANITIZE_THREAD__
enum { MEETINGS = 5000 };
#else
enum { MEETINGS = 300000 };
#endif
static _Atomic long *met;

static void *push_at_meetings(void *arg) {
    for (long r = 1; r <= MEETINGS; r++) {
        meet(met, 2 * r - 1);
        for (long i = r % 200; i; i--) __asm__ volatile("" ::: "memory");
        inbox_push(&views[1], 0, word(1, r));
        meet(met, 2 * r);
    }
    return arg;
}

static void no_lost_wakeup(void) {
    fd = new_segment_of(1, 2, 64);
    for (uint32_t i = 0; i <= 1; i++) attach(&views[i], fd, i, KIND_CLIENT);
    struct view *v = &views[0];
    met = at(v, v->seg->heap.base);
#ifdef __SANITIZE_THREAD__
    pthread_t t;
    pthread_create(&t, NULL, push_at_meetings, NULL);
#else
    pid_t child = fork_child();
    if (child == 0) {
        push_at_meetings(NULL);
        _exit(0);
    }
#endif
    for (long r = 1; r <= MEETINGS; r++) {
        meet(met, 2 * r - 1);
        for (uint64_t w; (w = inbox_pop(v)) != word(1, r);) {
            CHECK(w == 0);
            CHECK(inbox_wait(v, atomic_load(&self_m(v)->inbox.seq), 0, 0, 0, 2000000000) != ETIMEDOUT);
        }
        meet(met, 2 * r);
    }
#ifdef __SANITIZE_THREAD__
    pthread_join(t, NULL);
#else
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
#endif
    segment_unmap(&views[0]), segment_unmap(&views[1]);
    close(fd);
}

int main(void) {
    died_half_way();
    no_lost_wakeup();
#ifndef __SANITIZE_THREAD__
    killed();
    slept_a_lap();
#else
    (void)killed, (void)slept_a_lap;
#endif
    stress(4096);                                       /* 11 laps */
    stress(64);                                         /* 700 laps */
    DONE("inbox");
}
