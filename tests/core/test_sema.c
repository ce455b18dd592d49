/* Semaphores: in order of arrival, waiting until none is held, several threads, killed processes. */
#include "check.h"
#include "sema.h"

#include <errno.h>

enum { MS = 6, CLIENT = MS, COORDINATOR = MS + 1 };
static struct view main_view, other, coordinator;
static int fd;

static void fresh(void) {
    fd = new_segment_of(2, MS, 4096);
    attach(&main_view, fd, 0, KIND_M), attach(&other, fd, 1, KIND_M), attach(&coordinator, fd, COORDINATOR, KIND_CLIENT);
}
static void done(void) {
    segment_unmap(&main_view), segment_unmap(&other), segment_unmap(&coordinator);
    close(fd);
}
static struct sema *make(uint64_t n, uint64_t tell_at) {
    struct sema *s = sema_make(&main_view, n, tell_at);
    CHECK(s);
    object_escape(&main_view, s->body.word);
    return s;
}
/* The same semaphore in another thread's or process's mapping. */
static struct sema *in(struct view *v, struct sema *s) {
    return (struct sema *)((char *)v->seg + ((char *)s - (char *)main_view.seg));
}
static int try(struct view *v, struct sema *s, uint32_t units) { return sema_acquire(v, in(v, s), units, 0, 0, NULL); }
static int release(struct view *v, struct sema *s, uint64_t units) { return sema_release(v, in(v, s), units); }

/* A wait of v's, queued. */
static uint32_t queued(struct view *v, struct sema *s, uint32_t units) {
    uint32_t is;
    CHECK(sema_acquire(v, in(v, s), units, 0, 1, &is) == SEMA_WAITS);
    return is;
}
static int how(struct view *v, struct sema *s, uint32_t is) { return sema_wait_end(v, in(v, s), is, 0); }
static int give_up(struct view *v, struct sema *s, uint32_t is) { return sema_wait_end(v, in(v, s), is, 1); }

static int ended(struct view *v, struct sema *s, uint32_t is, int64_t end) {
    for (int e;;) {
        if ((e = sema_wait_end(v, s, is, nanotime() >= end)) != SEMA_WAITS) return e;
        int64_t left = end - nanotime();
        futex_wait(&sudog_at(v, is)->done, WAIT_PENDING, left > 0 ? left : 100000);
    }
}
static int acquire_until(struct view *v, struct sema *s, uint32_t units, int64_t end) {
    for (int e;;) {
        uint32_t is;
        if ((e = sema_acquire(v, s, units, 0, 1, &is)) == SEMA_WAITS) e = ended(v, s, is, end);
        if (e != SEMA_BLOCKS || nanotime() >= end) return e;
    }
}
#define FOR_EVER (nanotime() + 1000000000000)

/* ---------------------------------------------------------------- one process at a time */
static void test_units(void) {
    fresh();
    struct sema *s = make(3, 1);
    CHECK(try(&main_view, s, 2) == SEMA_DONE && try(&other, s, 2) == SEMA_BLOCKS && try(&other, s, 1) == SEMA_DONE);
    CHECK(sema_used(&main_view, s) == 3 && try(&main_view, s, 4) == SEMA_BLOCKS);
    CHECK(!release(&main_view, s, 4) && sema_used(&main_view, s) == 3);
    CHECK(release(&other, s, 3));                             /* its own, and two of another's */
    CHECK(sema_used(&main_view, s) == 0 && s->held[0] == 0 && s->held[1] == 0 && !release(&main_view, s, 1));
    CHECK(try(&main_view, s, 3) == SEMA_DONE);
    done();
}

static void test_order_of_arrival(void) {
    fresh();
    struct sema *s = make(3, 1);
    CHECK(try(&main_view, s, 2) == SEMA_DONE);
    uint32_t large = queued(&other, s, 3), small = queued(&other, s, 1);
    CHECK(try(&main_view, s, 1) == SEMA_BLOCKS);              /* the large one is not overtaken */
    CHECK(how(&other, s, small) == SEMA_WAITS && release(&main_view, s, 2));
    CHECK(how(&other, s, large) == SEMA_DONE && s->held[1] == 3 && how(&other, s, small) == SEMA_WAITS);
    CHECK(release(&other, s, 3) && how(&other, s, small) == SEMA_DONE && sema_used(&main_view, s) == 1);
    /* who gives up lets those behind it pass */
    large = queued(&other, s, 3), small = queued(&main_view, s, 1);
    CHECK(give_up(&other, s, large) == SEMA_BLOCKS && how(&main_view, s, small) == SEMA_DONE);
    large = queued(&other, s, 3), small = queued(&main_view, s, 1);
    CHECK(wait_cancel(&other, large) && try(&main_view, s, 1) == SEMA_BLOCKS && s->queue.first == 0);
    CHECK(how(&main_view, s, small) == SEMA_DONE);
    done();
}

static void test_until_none_is_held(void) {
    fresh();
    struct sema *s = make(SEMA_NO_LIMIT, 1);
    uint32_t a, b;
    CHECK(sema_wait_zero(&main_view, s, 0, 0, NULL) == SEMA_DONE);
    CHECK(try(&main_view, s, 1000) == SEMA_DONE && sema_wait_zero(&main_view, s, 0, 0, NULL) == SEMA_BLOCKS);
    CHECK(sema_wait_zero(&main_view, s, 0, 1, &a) == SEMA_WAITS && sema_wait_zero(&other, in(&other, s), 0, 1, &b) == SEMA_WAITS);
    CHECK(release(&other, s, 999) && how(&main_view, s, a) == SEMA_WAITS && release(&other, s, 1));
    CHECK(how(&main_view, s, a) == SEMA_DONE && how(&other, s, b) == SEMA_DONE && !release(&main_view, s, 1));
    done();
}

static void test_the_next_one_is_told(void) {
    fresh();
    struct sema *s = make(1, 1);
    CHECK(try(&other, s, 1) == SEMA_DONE);
    buried(&coordinator, 1);
    CHECK(try(&main_view, s, 1) == SEMA_DIED && try(&main_view, s, 1) == SEMA_DONE && !release(&main_view, s, 2));
    /* a waiter is told, the one behind it gets the unit, and a dead one behind which they stood is gone */
    struct view third;
    attach(&third, fd, 2, KIND_M), attach(&other, fd, 1, KIND_M);
    CHECK(release(&main_view, s, 1) && try(&other, s, 1) == SEMA_DONE);
    uint32_t dies = queued(&other, s, 1), a = queued(&third, s, 1), b = queued(&main_view, s, 1);
    buried(&coordinator, 1);
    CHECK(how(&third, s, a) == SEMA_DIED && how(&main_view, s, b) == SEMA_DONE && sudog_at(&main_view, dies)->owner == 0);
    /* a reader's death is nobody's business, a writer's is; and who waits for none to be held learns of it */
    struct sema *rw = make(100, 100), *group = make(SEMA_NO_LIMIT, 1);
    attach(&other, fd, 1, KIND_M);
    CHECK(try(&other, rw, 1) == SEMA_DONE && try(&other, group, 2) == SEMA_DONE && try(&main_view, group, 1) == SEMA_DONE);
    CHECK(sema_wait_zero(&main_view, group, 0, 1, &a) == SEMA_WAITS);
    buried(&coordinator, 1);
    CHECK(try(&main_view, rw, 100) == SEMA_DONE && how(&main_view, group, a) == SEMA_DIED);
    CHECK(release(&main_view, group, 2) && release(&main_view, group, 1) && !release(&main_view, group, 1));
    CHECK(sema_wait_zero(&main_view, group, 0, 0, NULL) == SEMA_DONE);
    segment_unmap(&third);
    done();
}

/* ---------------------------------------------------------------- threads */
struct job { struct sema *s; uint32_t self; int n; };
static _Atomic int inside;

static void *run(void *arg) {
    struct job *job = arg;
    struct view v;
    unsigned seed = job->self;
    attach(&v, fd, job->self, KIND_M);
    struct sema *s = in(&v, job->s);
    for (int i = 0; i < job->n; i++) {
        uint32_t units = (uint32_t)rand_r(&seed) % 3 + 1;
        int64_t end = rand_r(&seed) % 8 ? FOR_EVER : nanotime() + rand_r(&seed) % 100000;
        int e = acquire_until(&v, s, units, end);
        CHECK(e == SEMA_DONE || (e == SEMA_BLOCKS && end <= nanotime()));
        if (e != SEMA_DONE) continue;
        CHECK(atomic_fetch_add(&inside, (int)units) + (int)units <= 3);
        pause_up_to(&seed, 50);
        atomic_fetch_sub(&inside, (int)units);
        CHECK(sema_release(&v, s, units));
    }
    sudogs_flush(&v);
    segment_unmap(&v);
    return NULL;
}

static void test_threads(void) {
    fresh();
    struct sema *s = make(3, 1);
    pthread_t t[4];
    struct job jobs[4];
    for (uint32_t i = 0; i < 4; i++) {
        jobs[i] = (struct job){s, i + 2, 3000};
        CHECK(pthread_create(&t[i], NULL, run, &jobs[i]) == 0);
    }
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    CHECK(sema_used(&main_view, s) == 0 && s->queue.first == 0 && s->queue.last == 0);
    done();
}

/* ---------------------------------------------------------------- killed processes */
__attribute__((unused)) static void child_runs(struct sema *s, uint32_t self) {
    struct view v;
    unsigned seed = self + (unsigned)nanotime();
    attach(&v, fd, self, KIND_M);
    for (;;) {
        uint32_t units = (uint32_t)rand_r(&seed) % 2 + 1;
        int e = acquire_until(&v, in(&v, s), units, rand_r(&seed) % 4 ? FOR_EVER : nanotime() + 50000);
        if (e == SEMA_DONE) {
            pause_up_to(&seed, 200);
            CHECK(sema_release(&v, in(&v, s), units));
        }
    }
}

__attribute__((unused)) static void test_kills(void) {
    fresh();
    struct sema *s = make(2, 1);
    unsigned seed = 1;
    pid_t child[3] = {0};
    for (int round = 0; round < 300; round++) {
        for (int i = 0; i < 3; i++)
            if (!child[i] && (child[i] = fork_child()) == 0) child_runs(s, (uint32_t)i + 2);
        struct timespec t = {0, rand_r(&seed) % 1000000};
        nanosleep(&t, NULL);
        int i = rand_r(&seed) % 3;
        kill_child(child[i]), child[i] = 0;
        buried(&coordinator, (uint32_t)i + 2);
        mfree(&coordinator, (uint32_t)i + 2);
        int e = acquire_until(&main_view, s, 2, FOR_EVER);    /* whatever was held, it comes */
        CHECK(e == SEMA_DONE || e == SEMA_DIED);
        if (e == SEMA_DONE) CHECK(sema_release(&main_view, s, 2));
    }
    for (int i = 0; i < 3; i++)
        if (child[i]) kill_child(child[i]), buried(&coordinator, (uint32_t)i + 2);
    CHECK(sema_used(&main_view, s) == 0 && s->queue.first == 0 && s->queue.last == 0);
    done();
}

/* ---------------------------------------------------------------- killed after each instruction
 * As in test_kill: M 2 runs an operation in a child that is single-stepped, and after every instruction a copy of the segment
 * is repaired as if the child had just been killed. */
enum { CHILD = 2, SMALL = 64, HEAP_COPIED = 64 << 10 };
static struct view child_view, to_main, to_other, to_coordinator;
static struct sema *stepped;
static uint32_t is_main, is_other, is_child;
static int main_waits, other_waits;

static void copy_segment(pid_t child) {
    struct segment *from = main_view.seg, *to = to_main.seg;
    char *a = (char *)from, *b = (char *)to;
    memcpy(b, a, from->fns);
    memcpy(b + from->globrunq.cells, a + from->globrunq.cells, from->heap.base + HEAP_COPIED - from->globrunq.cells);
    struct lock *locks[] = {&to->globrunq.lock, &to->gfree.ring.lock, &to->heap.lock, &to->objects.ring.lock,
                            &to->sudogs.ring.lock, (struct lock *)(b + ((char *)&stepped->body.lock - a))};
    for (size_t i = 0; i < sizeof locks / sizeof *locks; i++)
        if ((locks[i]->mutex.__data.__lock & 0x3fffffff) == child) locks[i]->mutex.__data.__lock = 0x40000000;
}

/* The wait goes on to its end: whoever is told, or is to try anew, tries until it has all units; then they are given back.
 * Returns whether it has ended; it may still have to wait for another. */
static int goes_on(struct view *v, struct sema *s, uint32_t is, int *waits) {
    int e = *waits == 1 ? sema_wait_end(v, s, is, 0) : SEMA_BLOCKS;
    if (e == SEMA_WAITS) return 0;
    *waits = 0;
    for (int told = 0; e != SEMA_DONE; told++) {
        CHECK(told < 3);
        e = sema_acquire(v, s, 1, 0, 0, NULL);
        if (e == SEMA_BLOCKS) {
            *waits = 2;
            return 0;
        }
    }
    return 1;
}

static void check_killed_here(pid_t child) {
    copy_segment(child);
    struct view *vs[] = {&to_main, &to_other, &to_coordinator};
    for (int i = 0; i < 3; i++) vs[i]->nfree_sudogs = 0, memset(vs[i]->ncached, 0, sizeof vs[i]->ncached);
    buried(&to_coordinator, CHILD);
    struct sema *s = (struct sema *)((char *)to_main.seg + ((char *)stepped - (char *)main_view.seg));
    struct sema *s1 = (struct sema *)((char *)to_other.seg + ((char *)stepped - (char *)main_view.seg));
    uint64_t sum = 0;
    for (uint32_t m = 0; m < to_main.seg->nms; m++) sum += s->held[m];
    CHECK(s->held[CHILD] == 0 && sum == s->used && s->used <= s->n && !s->granting && !s->releasing);
    for (uint32_t i = s->queue.first; i; i = sudog_at(&to_main, i - 1)->next) CHECK(sudog_at(&to_main, i - 1)->owner != CHILD + 1);
    int a = main_waits, b = other_waits;
    for (int round = 0; a || b; round++) {
        CHECK(round < 6);
        if (a && goes_on(&to_main, s, is_main, &a)) CHECK(sema_release(&to_main, s, s->held[0]));
        if (b && goes_on(&to_other, s1, is_other, &b)) CHECK(sema_release(&to_other, s1, s1->held[1]));
    }
    CHECK(s->queue.first == 0 && (s->used == 0 || sema_release(&to_main, s, s->used)));
}

static void main_queued(uint32_t units) { is_main = queued(&main_view, stepped, units), main_waits = 1; }
static void other_queued(uint32_t units) { is_other = queued(&other, stepped, units), other_waits = 1; }
static void child_has(uint32_t units) { CHECK(try(&child_view, stepped, units) == SEMA_DONE); }

static void acquires(void) { try(&child_view, stepped, 2); }
static void before_waits(void) { CHECK(try(&main_view, stepped, 2) == SEMA_DONE); }
static void waits(void) { is_child = queued(&child_view, stepped, 3); }
static void before_hands_over(void) { child_has(3), main_queued(1), other_queued(2); }
static void releases(void) { release(&child_view, stepped, 3); }
static void before_releases_anothers(void) {
    CHECK(try(&main_view, stepped, 1) == SEMA_DONE && try(&other, stepped, 1) == SEMA_DONE);
    child_has(1), main_queued(1), other_queued(1);
}
static void before_gives_up(void) { before_waits(), waits(), other_queued(1); }
static void gives_up(void) { sema_wait_end(&child_view, in(&child_view, stepped), is_child, 1); }
static void before_ends(void) {
    before_waits(), waits();
    CHECK(release(&main_view, stepped, 2));
}
static void ends(void) { CHECK(how(&child_view, stepped, is_child) == SEMA_DONE && release(&child_view, stepped, 3)); }

static struct step { void (*before)(void), (*act)(void); } steps[] = {
    {NULL, acquires}, {before_waits, waits}, {before_hands_over, releases}, {before_releases_anothers, releases},
    {before_gives_up, gives_up}, {before_ends, ends}};

static void step_through(struct step *op) {
    fd = new_segment_of(2, MS, SMALL);
    attach(&main_view, fd, 0, KIND_M), attach(&other, fd, 1, KIND_M), attach(&coordinator, fd, COORDINATOR, KIND_CLIENT);
    attach(&child_view, fd, CHILD, KIND_M);
    stepped = make(3, 1);
    main_waits = other_waits = 0;
    if (op->before) op->before();
    pid_t child = stopped_before(op->act);
    do check_killed_here(child);
    while (step(child));
    kill_child(child);
    check_killed_here(child);
    segment_unmap(&child_view);
    done();
}

__attribute__((unused)) static void test_each_instruction(void) {
    pid_t probe = fork_child();
    if (probe == 0) _exit(ptrace(PTRACE_TRACEME, 0, NULL, NULL) ? 1 : 0);
    int status, to_fd = new_segment_of(2, MS, SMALL);
    const char *why;
    waitpid(probe, &status, 0);
    if (status) return;                                       /* ptrace is not allowed here */
    CHECK(segment_map(to_fd, &to_main, 0, &why) == 0 && segment_map(to_fd, &to_other, 1, &why) == 0);
    CHECK(segment_map(to_fd, &to_coordinator, COORDINATOR, &why) == 0);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) step_through(&steps[i]);
}

int main(void) {
    test_units();
    test_order_of_arrival();
    test_until_none_is_held();
    test_the_next_one_is_told();
    test_threads();
#ifndef __SANITIZE_THREAD__
    test_kills();
    test_each_instruction();
#endif
    DONE("sema");
}
