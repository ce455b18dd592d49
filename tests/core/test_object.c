/* Shared objects: who holds them, how they end, and what the trace finds in payloads. */
#include "check.h"
#include "chan.h"

enum { MS = 3, CLIENT = MS, COORDINATOR = MS + 1 };
static struct view client, m0, m1, coordinator;
static int fd;

static void fresh(void) {
    fd = new_segment_of(2, MS, 8192);
    attach(&m0, fd, 0, KIND_M), attach(&m1, fd, 1, KIND_M);
    attach(&client, fd, CLIENT, KIND_CLIENT), attach(&coordinator, fd, COORDINATOR, KIND_CLIENT);
}
static void done(void) {
    struct view *vs[] = {&m0, &m1, &client, &coordinator};
    for (int i = 0; i < 4; i++) segment_unmap(vs[i]);
    close(fd);
}

static struct chan *make(struct view *v, uint64_t cap) {
    struct chan *c = chan_make(v, cap, 0, 0, NO_TIME);
    CHECK(c);
    return c;
}
static uint64_t word(struct chan *c) { return c->body.word; }
static struct chan *in(struct view *v, uint64_t w) { return (struct chan *)object_body(v, w); }

/* What ends with the words of these objects. */
static struct elem carrier(struct view *v, uint64_t a, uint64_t b) {
    struct elem e = {0, 0, ELEM_OBJECTS, ""};
    uint64_t n = b ? 2 : 1, tail[4] = {a, b, n, OBJECTS_MAGIC};
    if (!b) tail[1] = n, tail[2] = OBJECTS_MAGIC;
    memcpy(e.bytes, "pickle", 6);
    memcpy(e.bytes + 6, tail, 8 * (n + 2));
    e.len = 6 + 8 * (n + 2);
    object_escape(v, a);
    if (b) object_escape(v, b);
    return e;
}

static int send(struct view *v, struct chan *c, struct elem *e) {
    uint32_t which;
    int64_t until;
    struct scase k = {c, 1, *e};
    return chan_select(v, &k, 1, NO_WAITER, NULL, &which, &until);
}
static int recv(struct view *v, struct chan *c, struct elem *e) {
    uint32_t which;
    int64_t until;
    struct scase k = {c, 0, {0}};
    int how = chan_select(v, &k, 1, NO_WAITER, NULL, &which, &until);
    *e = k.elem;
    return how;
}

static void test_an_object_that_did_not_travel_ends_at_once(void) {
    fresh();
    struct chan *c = make(&client, 3);
    uint64_t w = word(c);
    CHECK(objects_live(&client) == 1 && object_body(&m0, w));
    object_drop(&client, w);
    CHECK(objects_live(&client) == 0 && !object_body(&client, w) && !object_hold(&m1, w));
    uint64_t again = word(make(&client, 0));
    CHECK(again != w && gword_index(again) == gword_index(w));
    CHECK(!object_hold(&m0, w) && !object_hold(&m0, gword(9000, 0)));
    CHECK(client.seg->objects.ring.tail >= 1);
    done();
}

static void test_holders_keep_what_has_travelled(void) {
    fresh();
    uint64_t w = word(make(&client, 0));
    object_escape(&client, w);
    CHECK(object_hold(&m0, w));
    object_drop(&client, w);
    CHECK(object_trace(&coordinator) == 0 && in(&m0, w));
    object_drop(&m0, w);
    CHECK(coordinator.seg->orphans == 1);
    CHECK(object_trace(&coordinator) == 1 && !in(&m0, w) && coordinator.seg->orphans == 0);
    done();
}

static void test_payloads_keep_what_they_hold(void) {
    fresh();
    struct chan *c = make(&client, 2);
    uint64_t a = word(make(&client, 0)), b = word(make(&client, 0));
    struct elem e = carrier(&client, a, b);
    CHECK(send(&client, c, &e) == SELECT_DONE);
    object_drop(&client, a), object_drop(&client, b);
    CHECK(object_trace(&coordinator) == 0 && in(&m0, a) && in(&m0, b));
    CHECK(recv(&client, c, &e) == SELECT_DONE);               /* who receives holds them from then on */
    CHECK(object_trace(&coordinator) == 0 && in(&m0, a) && in(&m0, b));
    object_drop(&client, a), object_drop(&client, b);
    CHECK(object_trace(&coordinator) == 2 && !in(&m0, a) && !in(&m0, b));
    done();
}

static void test_arguments_results_and_functions_keep_what_they_hold(void) {
    fresh();
    uint64_t ws[4];
    for (int i = 0; i < 4; i++) ws[i] = word(make(&client, 0));
    uint32_t index, fn;
    struct g *g = gfget(&client, &index);
    struct elem e = carrier(&client, ws[0], 0);
    memcpy(g->inline_args, e.bytes, e.len);
    g->args_len = e.len;
    uint64_t w = gword(index, GGEN(g->state));
    atomic_store(&g->state, GSTATE(G_RUNNABLE, NO_M, 0, gword_gen(w)));
    e = carrier(&client, ws[1], 0);
    CHECK(fn_intern(&client, 1, e.bytes, e.len, &fn));
    for (int i = 0; i < 4; i++) object_escape(&client, ws[i]), object_drop(&client, ws[i]);
    CHECK(object_trace(&coordinator) == 2 && in(&m0, ws[0]) && in(&m0, ws[1]) && !in(&m0, ws[2]));
    uint64_t r = word(make(&m0, 0));
    e = carrier(&m0, r, 0);
    char large[3000] = "";
    memcpy(large + sizeof large - e.len, e.bytes, e.len);
    CHECK(gclaim(&m0, w) && gcomplete(&m0, w, RESULT_VALUE, large, sizeof large));
    object_drop(&m0, r);
    CHECK(object_trace(&coordinator) == 0 && in(&m0, r));
    CHECK(gcollect(&client, w));
    gdiscard(&client, index);
    CHECK(object_trace(&coordinator) == 2 && !in(&m0, r) && !in(&m0, ws[0]) && in(&m0, ws[1]));
    done();
}

static void test_what_holds_itself_ends(void) {
    fresh();
    struct chan *c = make(&client, 1), *d = make(&client, 1), *e = make(&client, 1);
    uint64_t wc = word(c), wd = word(d), we = word(e);
    struct elem x = carrier(&client, wd, 0);
    CHECK(send(&client, c, &x) == SELECT_DONE);
    x = carrier(&client, wc, we);
    CHECK(send(&client, d, &x) == SELECT_DONE);
    object_drop(&client, wd), object_drop(&client, we);
    CHECK(object_trace(&coordinator) == 0 && in(&m0, we));    /* through c and d */
    object_drop(&client, wc);
    CHECK(object_trace(&coordinator) == 3 && objects_live(&m0) == 0);
    done();
}

static void test_what_travels_during_a_trace_stays(void) {
    fresh();
    uint64_t a = word(make(&client, 0));
    struct elem e = carrier(&client, a, 0);
    const char *words;
    uint64_t n = payload_objects(e.bytes, e.len, &words);
    object_drop(&client, a);
    atomic_fetch_add(&client.seg->trace, 1);                  /* as if a trace had begun */
    objects_travel(&client, words, n);
    atomic_fetch_sub(&client.seg->trace, 1);
    CHECK(object_trace(&coordinator) == 0 && in(&m0, a));
    CHECK(object_trace(&coordinator) == 1);
    done();
}

static void test_a_dead_holder(void) {
    fresh();
    uint64_t mine = word(make(&m0, 0)), shared = word(make(&m0, 0)), last = word(make(&m0, 5));
    object_escape(&m0, shared), object_escape(&m0, last);
    CHECK(object_hold(&client, shared));
    object_hold(&m0, shared);
    buried(&coordinator, 0);
    CHECK(!in(&m1, mine) && in(&m1, shared) && in(&m1, last));
    CHECK(object_trace(&coordinator) == 1 && in(&m1, shared) && !in(&m1, last));
    object_drop(&client, shared);
    CHECK(object_trace(&coordinator) == 1 && objects_live(&m1) == 0);
    done();
}

static void test_payload_objects_believes_nothing(void) {
    const char *words;
    uint64_t tail[3] = {7, 1, OBJECTS_MAGIC};
    CHECK(payload_objects((char *)tail, 24, &words) == 1 && words == (char *)tail);
    CHECK(payload_objects((char *)tail + 8, 16, &words) == 0);
    CHECK(payload_objects((char *)tail, 23, &words) == 0 && payload_objects("", 0, &words) == 0);
    tail[1] = 1ull << 61;
    CHECK(payload_objects((char *)tail, 24, &words) == 0);
    fresh();
    uint64_t base = m0.seg->heap.base, size = m0.seg->heap.size;
    CHECK(block_objects(&m0, 1, 8, &words) == 0 && block_objects(&m0, base + 64, size, &words) == 0);
    done();
}

/* Everybody makes, passes on, holds and drops, while the coordinator traces. */
enum { TURNS = 3000 };
static uint64_t common;
static void *pass_on(void *arg) {
    struct view v;
    uint32_t self = (uint32_t)(intptr_t)arg;
    unsigned seed = self;
    attach(&v, fd, self, KIND_M);
    struct chan *c = in(&v, common);
    for (int i = 0; i < TURNS; i++) {
        uint64_t w = word(make(&v, 0));
        struct elem e = carrier(&v, w, 0);
        int sent = send(&v, c, &e) == SELECT_DONE;
        object_drop(&v, w);
        pause_up_to(&seed, 50);
        if (!sent || i % 3) continue;
        if (recv(&v, c, &e) != SELECT_DONE) continue;
        memcpy(&w, e.bytes + 6, 8);
        CHECK(in(&v, w));
        object_drop(&v, w);
    }
    segment_unmap(&v);
    return NULL;
}
static void test_objects_pass_through_a_channel(void) {
    fresh();
    struct chan *c = make(&client, 100);
    common = word(c);
    object_escape(&client, common);
    pthread_t threads[2];
    for (intptr_t i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, pass_on, (void *)i) == 0);
#ifndef __SANITIZE_THREAD__                                   /* the trace reads what others write, and does not believe it */
    for (int i = 0; i < 50; i++) object_trace(&coordinator);
#endif
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    object_trace(&coordinator);
    struct elem e;
    uint64_t left = chan_len(c), w;
    CHECK(objects_live(&client) == left + 1);
    for (; recv(&client, c, &e) == SELECT_DONE; left--) {
        memcpy(&w, e.bytes + 6, 8);
        CHECK(in(&client, w));
        object_drop(&client, w);
    }
    object_trace(&coordinator);
    CHECK(left == 0 && objects_live(&client) == 1);
    done();
}

/* In functions, which a trace that began when there were fewer objects looks at last. */
static void test_objects_made_during_a_trace(void) {
    fresh();
    pid_t child = fork_child();
    if (child == 0) {
        for (uint32_t i = 0, fn; i < 4000; i++) {
            struct elem e = carrier(&m0, word(make(&m0, 0)), 0);
            CHECK(fn_intern(&m0, 60000 + i, e.bytes, e.len, &fn));
        }
        _exit(0);
    }
    int status;
    while (waitpid(child, &status, WNOHANG) == 0) CHECK(object_trace(&coordinator) == 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0 && objects_live(&m0) == 4000);
    done();
}

int main(void) {
    test_an_object_that_did_not_travel_ends_at_once();
    test_holders_keep_what_has_travelled();
    test_payloads_keep_what_they_hold();
    test_arguments_results_and_functions_keep_what_they_hold();
    test_what_holds_itself_ends();
    test_what_travels_during_a_trace_stays();
    test_a_dead_holder();
    test_payload_objects_believes_nothing();
    test_objects_pass_through_a_channel();
    test_objects_made_during_a_trace();
    DONE("object");
}
