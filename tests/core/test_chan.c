/* Channels and select: Go's semantics, several threads, killed processes. */
#include "check.h"
#include "chan.h"

enum { MS = 6, CLIENT = MS, COORDINATOR = MS + 1 };
static struct view main_view, coordinator;
static int fd;

static void fresh(void) {
    fd = new_segment_of(2, MS, 8192);
    attach(&main_view, fd, 0, KIND_M), attach(&coordinator, fd, COORDINATOR, KIND_CLIENT);
}
static void done(void) {
    segment_unmap(&main_view), segment_unmap(&coordinator);
    close(fd);
}
static struct chan *make(uint64_t cap) {
    struct chan *c = chan_make(&main_view, cap, 0, 0, NO_TIME);
    CHECK(c);
    object_escape(&main_view, c->body.word);
    return c;
}
/* The same channel in another thread's or process's mapping. */
static struct chan *in(struct view *v, struct chan *c) {
    return (struct chan *)((char *)v->seg + ((char *)c - (char *)main_view.seg));
}

/* A message of that number; of len bytes in a block if len > 0. */
static struct elem message(struct view *v, uint64_t x, uint32_t len) {
    struct elem e = {0, len ? len : 8, 1, ""};
    if (len) CHECK((e.off = heap_alloc(v, len)) != 0);
    memcpy(len ? at(v, e.off) : e.bytes, &x, 8);
    return e;
}
static uint64_t opened(struct view *v, struct elem *e) {
    uint64_t x;
    memcpy(&x, e->off ? at(v, e->off) : e->bytes, 8);
    if (e->off) heap_free(v, e->off);
    return x;
}

static int select_until(struct view *v, struct scase *ks, uint32_t n, uint32_t *which, int64_t end) {
    uint32_t is[64];
    for (;;) {
        int64_t until;
        int how = chan_select(v, ks, n, 0, is, which, &until);
        if (how != SELECT_WAITS) return how;
        au32 *word = &sudog_at(v, is[0])->done;
        int64_t stop = until < end ? until : end;
        while ((how = chan_wait_end(v, ks, n, is, nanotime() >= stop, which)) == SELECT_WAITS) {
            int64_t left = stop - nanotime();
            futex_wait(word, WAIT_PENDING, stop == NO_TIME ? -1 : left > 0 ? left : 100000);
        }
        if (how != SELECT_BLOCKS || nanotime() >= end) return how;
    }
}
static int select_(struct view *v, struct scase *ks, uint32_t n, uint32_t *which) {
    return select_until(v, ks, n, which, NO_TIME);
}
static int send(struct view *v, struct chan *c, uint64_t x, uint32_t len) {
    uint32_t which;
    struct scase k = {c, 1, message(v, x, len)};
    int how = select_(v, &k, 1, &which);
    if (k.elem.off) heap_free(v, k.elem.off);
    return how == SELECT_DONE;
}
static int recv(struct view *v, struct chan *c, uint64_t *x) {
    uint32_t which;
    struct scase k = {c, 0, {0}};
    if (select_(v, &k, 1, &which) != SELECT_DONE) return 0;
    *x = opened(v, &k.elem);
    return 1;
}
static int try_send(struct view *v, struct chan *c, uint64_t x) {
    uint32_t which;
    int64_t until;
    struct scase k = {c, 1, message(v, x, 0)};
    return chan_select(v, &k, 1, NO_WAITER, NULL, &which, &until);
}
static int try_recv(struct view *v, struct chan *c, uint64_t *x) {
    uint32_t which;
    int64_t until;
    struct scase k = {c, 0, {0}};
    int how = chan_select(v, &k, 1, NO_WAITER, NULL, &which, &until);
    if (how == SELECT_DONE) *x = opened(v, &k.elem);
    return how;
}

static uint32_t used_blocks(struct view *v) {
    uint32_t n = 0;
    for (uint64_t off = v->seg->heap.base; off < v->seg->heap.bump;) {
        struct block *b = at(v, off);
        n += b->state == B_USED;
        off += 512ull << b->class;
    }
    return n;
}

struct job { struct chan *c, *d; uint32_t self; long n; uint64_t sum; void (*run)(struct view *v, struct job *job); };
static void *run_job(void *arg) {
    struct job *job = arg;
    struct view v;
    attach(&v, fd, job->self, KIND_M);
    job->run(&v, job);
    sudogs_flush(&v);
    segment_unmap(&v);
    return NULL;
}
static void start(pthread_t *t, struct job *job) { CHECK(pthread_create(t, NULL, run_job, job) == 0); }

/* ---------------------------------------------------------------- one process */
static void test_a_buffer(void) {
    fresh();
    struct chan *c = make(3);
    uint64_t x;
    for (int lap = 0; lap < 5; lap++) {
        for (uint64_t i = 0; i < 3; i++) CHECK(try_send(&main_view, c, i) == SELECT_DONE && chan_len(c) == i + 1);
        CHECK(try_send(&main_view, c, 9) == SELECT_BLOCKS);
        for (uint64_t i = 0; i < 3; i++) CHECK(try_recv(&main_view, c, &x) == SELECT_DONE && x == i);
        CHECK(try_recv(&main_view, c, &x) == SELECT_BLOCKS);
    }
    try_send(&main_view, c, 7);
    CHECK(chan_close(&main_view, c) == 1 && chan_close(&main_view, c) == 0);
    CHECK(try_send(&main_view, c, 8) == SELECT_CLOSED);
    CHECK(try_recv(&main_view, c, &x) == SELECT_DONE && x == 7);
    CHECK(try_recv(&main_view, c, &x) == SELECT_CLOSED && try_recv(&main_view, c, &x) == SELECT_CLOSED);
    done();
}

static void test_blocks_go_with_messages(void) {
    fresh();
    struct chan *c = make(4);
    uint64_t x, w = c->body.word;
    for (uint64_t i = 0; i < 4; i++) CHECK(send(&main_view, c, i, 3000));
    CHECK(used_blocks(&main_view) == 5);
    CHECK(recv(&main_view, c, &x) && x == 0 && used_blocks(&main_view) == 4);
    object_drop(&main_view, w);
    CHECK(object_trace(&coordinator) == 1 && used_blocks(&main_view) == 0);   /* and what was in it */
    done();
}

static void test_timers(void) {
    fresh();
    int64_t now = nanotime() + 10000000, due;                 /* all begins a little later */
    struct chan *once = chan_make(&main_view, 0, now + 2000000, 0, NO_TIME);
    struct chan *often = chan_make(&main_view, 0, now + 1000000, 1000000, NO_TIME);
    struct chan *closes = chan_make(&main_view, 0, 0, 0, now + 2000000), *never = make(0);
    uint64_t x;
    uint32_t which;
    CHECK(nanotime() > now || try_recv(&main_view, once, &x) == SELECT_BLOCKS);
    CHECK(try_send(&main_view, once, 1) == SELECT_TIMER);
    CHECK(chan_close(&main_view, once) == -1);
    struct scase ks[] = {{once, 0, {0}}, {never, 0, {0}}};
    CHECK(select_(&main_view, ks, 2, &which) == SELECT_DONE && which == 0 && nanotime() >= now + 2000000);
    memcpy(&due, ks[0].elem.bytes, 8);
    CHECK(due == now + 2000000 && ks[0].elem.kind == ELEM_TIME);
    ks[1].c = closes;
    CHECK(select_(&main_view, ks, 2, &which) == SELECT_CLOSED && which == 1 && nanotime() >= now + 2000000);
    CHECK(chan_closed(&main_view, closes) && try_recv(&main_view, once, &x) == SELECT_BLOCKS);
    CHECK(try_recv(&main_view, often, &x) == SELECT_DONE);    /* late: the ticks between are dropped, the next is in step */
    CHECK((often->due - now) % 1000000 == 0 && often->due > now + 2000000);
    CHECK(select_until(&main_view, ks, 1, &which, nanotime() + 1000000) == SELECT_BLOCKS);   /* nothing comes any more */
    done();
}

static void test_a_wait_that_is_given_up_leaves_nothing(void) {
    fresh();
    struct chan *c = make(0), *d = make(1);
    uint32_t which;
    CHECK(try_send(&main_view, d, 1) == SELECT_DONE);
    struct scase ks[] = {{c, 0, {0}}, {c, 1, message(&main_view, 2, 3000)}, {d, 1, message(&main_view, 3, 0)}, {c, 0, {0}}};
    CHECK(select_until(&main_view, ks, 4, &which, nanotime() + 1000000) == SELECT_BLOCKS);
    CHECK(ks[1].elem.off && !c->recvq.first && !c->sendq.last && !d->sendq.first && !d->sendq.last);
    heap_free(&main_view, ks[1].elem.off);
    CHECK(select_until(&main_view, NULL, 0, &which, nanotime() + 1000000) == SELECT_BLOCKS);
    done();
}

static void test_select_takes_any_that_is_ready(void) {
    fresh();
    struct chan *cs[3] = {make(4000), make(4000), make(4000)};
    int taken[3] = {0}, left[3] = {3000, 3000, 3000};
    for (int i = 0; i < 9000; i++) CHECK(try_send(&main_view, cs[i % 3], 1) == SELECT_DONE);
    for (int i = 0; i < 3000; i++) {
        struct scase ks[] = {{cs[0], 0, {0}}, {cs[1], 0, {0}}, {cs[2], 0, {0}}};
        uint32_t which;
        CHECK(select_(&main_view, ks, 3, &which) == SELECT_DONE);
        taken[which]++, left[which]--;
    }
    for (int i = 0; i < 3; i++) CHECK(taken[i] > 800 && taken[i] < 1200);     /* 8 standard deviations */
    done();
}

/* ---------------------------------------------------------------- several threads */
static void send_n(struct view *v, struct job *job) {
    struct chan *c = in(v, job->c);
    for (long i = 0; i < job->n; i++) CHECK(send(v, c, (uint64_t)job->self << 32 | (uint64_t)i, i % 7 ? 0 : 600));
}
static void recv_all(struct view *v, struct job *job) {
    uint64_t x, last[MS] = {0};
    for (job->n = 0; recv(v, in(v, job->c), &x); job->n++) {
        job->sum += x;
        CHECK(x >> 32 < MS && (uint32_t)x + 1 > last[x >> 32]);               /* in the order in which each was sending */
        last[x >> 32] = (uint32_t)x + 1;
    }
}
static void test_many_senders_and_receivers(uint64_t cap, long n) {
    fresh();
    struct chan *c = make(cap);
    struct job jobs[5] = {{0}};
    pthread_t t[5];
    uint64_t sum = 0;
    for (uint32_t i = 0; i < 5; i++) {
        jobs[i] = (struct job){c, NULL, i + 1, i < 3 ? n : 0, 0, i < 3 ? send_n : recv_all};
        start(&t[i], &jobs[i]);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(t[i], NULL);
        for (long j = 0; j < n; j++) sum += (uint64_t)jobs[i].self << 32 | (uint64_t)j;
    }
    CHECK(chan_close(&main_view, c) == 1);
    for (int i = 3; i < 5; i++) pthread_join(t[i], NULL);
    CHECK(jobs[3].n + jobs[4].n == 3 * n && jobs[3].sum + jobs[4].sum == sum);
    CHECK(used_blocks(&main_view) == 1 && !c->recvq.first && !c->sendq.first);
    done();
}

/* Who came first is served first. */
static _Atomic long waiting;
static void recv_one(struct view *v, struct job *job) {
    struct chan *c = in(v, job->c);
    uint64_t x;
    while (atomic_load(&waiting) < job->n) sched_yield();
    uint32_t which, is;
    int64_t until;
    struct scase k = {c, 0, {0}};
    CHECK(chan_select(v, &k, 1, 0, &is, &which, &until) == SELECT_WAITS);
    atomic_fetch_add(&waiting, 1);
    while (chan_wait_end(v, &k, 1, &is, 0, &which) == SELECT_WAITS) futex_wait(&sudog_at(v, is)->done, WAIT_PENDING, 1000000);
    x = opened(v, &k.elem);
    CHECK(x == (uint64_t)job->n);
}
static void test_order_of_arrival(void) {
    fresh();
    struct chan *c = make(0);
    struct job jobs[5];
    pthread_t t[5];
    atomic_store(&waiting, 0);
    for (uint32_t i = 0; i < 5; i++) {
        jobs[i] = (struct job){c, NULL, i + 1, (long)i, 0, recv_one};
        start(&t[i], &jobs[i]);
    }
    while (atomic_load(&waiting) < 5) sched_yield();
    for (uint64_t i = 0; i < 5; i++) CHECK(try_send(&main_view, c, i) == SELECT_DONE);
    for (int i = 0; i < 5; i++) pthread_join(t[i], NULL);
    done();
}

/* Everybody selects to send and to receive on two channels, also on one twice: what is sent is received, once. */
static _Atomic long sent_sum, received_sum;
static void trade(struct view *v, struct job *job) {
    struct chan *c = in(v, job->c), *d = in(v, job->d);
    unsigned seed = job->self;
    for (long i = 1; i <= job->n; i++) {
        struct scase ks[] = {{c, 1, message(v, (uint64_t)i, i % 3 ? 0 : 700)}, {d, 0, {0}}, {c, 0, {0}},
                             {d, 1, message(v, (uint64_t)i, 0)}, {d, 0, {0}}};
        uint32_t which = 0;
        int give_up = rand_r(&seed) % 4 == 0;
        int how = select_until(v, ks, 5, &which, give_up ? nanotime() + rand_r(&seed) % 20000 : nanotime() + 1000000);
        if (how == SELECT_DONE && ks[which].send) atomic_fetch_add(&sent_sum, i);
        else if (how == SELECT_DONE) atomic_fetch_add(&received_sum, (long)opened(v, &ks[which].elem));
        else CHECK(how == SELECT_BLOCKS);
        for (int j = 0; j < 5; j++)
            if (ks[j].send && ks[j].elem.off) heap_free(v, ks[j].elem.off);
    }
}
static void test_select_stress(uint64_t cap) {
    fresh();
    struct chan *c = make(cap), *d = make(cap);
    struct job jobs[4];
    pthread_t t[4];
    uint64_t x;
    atomic_store(&sent_sum, 0), atomic_store(&received_sum, 0);
    for (uint32_t i = 0; i < 4; i++) {
        jobs[i] = (struct job){i % 2 ? c : d, i % 2 ? d : c, i + 1, 3000, 0, trade};
        start(&t[i], &jobs[i]);
    }
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    for (struct chan *e = c;; e = d) {
        while (try_recv(&main_view, e, &x) == SELECT_DONE) atomic_fetch_add(&received_sum, (long)x);
        if (e == d) break;
    }
    CHECK(atomic_load(&sent_sum) == atomic_load(&received_sum) && used_blocks(&main_view) == 2);
    CHECK(!c->recvq.first && !c->sendq.first && !d->recvq.first && !d->sendq.first);
    done();
}

/* go.dev/issue/18967: a closed or filled channel and select do not miss each other. */
static void close_it(struct view *v, struct job *job) {
    unsigned seed = (unsigned)job->n;
    pause_up_to(&seed, 200);
    CHECK(chan_close(v, in(v, job->c)) == 1);
}
static void test_close_races_with_waiters(void) {
    fresh();
    for (long i = 0; i < 300; i++) {
        struct chan *c = make(0);
        struct job jobs[2] = {{c, NULL, 1, i, 0, close_it}, {c, NULL, 2, 0, 0, recv_all}};
        pthread_t t[2];
        for (int j = 0; j < 2; j++) start(&t[j], &jobs[j]);
        int sent = send(&main_view, c, 0, 600);
        for (int j = 0; j < 2; j++) pthread_join(t[j], NULL);
        CHECK(jobs[1].n == sent);
        object_drop(&main_view, c->body.word);
        CHECK(object_trace(&coordinator) == 1 && used_blocks(&main_view) == 0);
    }
    done();
}

/* ---------------------------------------------------------------- killed processes */
#ifndef __SANITIZE_THREAD__                                   /* it knows of one process only */
static void trade_for_ever(uint32_t self, struct chan *c, struct chan *d) {
    struct view v;
    attach(&v, fd, self, KIND_M);
    for (;;) {
        struct job job = {self % 2 ? c : d, self % 2 ? d : c, self, 1000, 0, NULL};
        trade(&v, &job);
    }
}
static void test_killed_traders(uint64_t cap, int rounds) {
    fresh();
    struct chan *c = make(cap), *d = make(cap);
    pid_t pids[4];
    unsigned seed = 1;
    for (uint32_t i = 0; i < 4; i++)
        if ((pids[i] = fork_child()) == 0) trade_for_ever(i + 1, c, d);
    for (int round = 0; round < rounds; round++) {
        uint32_t k = (uint32_t)rand_r(&seed) % 4;
        usleep((unsigned)rand_r(&seed) % 3000);
        kill_child(pids[k]);
        buried(&coordinator, k + 1);
        if ((pids[k] = fork_child()) == 0) trade_for_ever(k + 1, c, d);
    }
    for (uint32_t k = 0; k < 4; k++) kill_child(pids[k]);
    for (uint32_t k = 0; k < 4; k++) buried(&coordinator, k + 1);
    uint64_t x;
    CHECK(!c->recvq.first && !c->sendq.first && !d->recvq.first && !d->sendq.first);
    while (try_recv(&main_view, c, &x) == SELECT_DONE || try_recv(&main_view, d, &x) == SELECT_DONE) continue;
    CHECK(used_blocks(&main_view) == 2 && pool_sweep(&coordinator, &main_view.seg->sudogs) == 0);
    CHECK(main_view.seg->sudogs.ring.tail - main_view.seg->sudogs.ring.head + main_view.nfree_sudogs ==
          main_view.seg->sudogs.next);
    for (int i = 0; i < 10; i++) CHECK(try_send(&main_view, c, 1) == (i < (int)cap ? SELECT_DONE : SELECT_BLOCKS));
    done();
}
#endif

int main(void) {
    test_a_buffer();
    test_blocks_go_with_messages();
    test_timers();
    test_a_wait_that_is_given_up_leaves_nothing();
    test_select_takes_any_that_is_ready();
    test_many_senders_and_receivers(0, 5000);
    test_many_senders_and_receivers(1, 5000);
    test_many_senders_and_receivers(10, 20000);
    test_order_of_arrival();
    test_select_stress(0);
    test_select_stress(2);
    test_close_races_with_waiters();
#ifndef __SANITIZE_THREAD__
    test_killed_traders(0, 60);
    test_killed_traders(2, 60);
#endif
    DONE("chan");
}
