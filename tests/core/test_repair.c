/* Repair.  What a dead M leaves at one certain instruction, written by hand; then a process is killed by SIGKILL at random
 * instructions of put, get, steal, overflow and complete: afterwards every G that was runnable can be claimed exactly
 * once, or had been completed, and the P and the spinning bit are back. */
#include "check.h"

enum { GS = 3000, ROUNDS = 150 };

static uint64_t spawn(struct view *v) {
    uint32_t index;
    struct g *g = gfget(v, &index);
    CHECK(g);
    uint64_t s = g->state;
    atomic_store(&g->state, GSTATE(G_RUNNABLE, NO_M, 0, GGEN(s)));
    return gword(index, GGEN(s));
}

/* The victim: schedules Gs from everywhere, parking some work in its own queues all the time. */
static void schedule_for_ever(struct view *v, struct p *victim) {
    struct p *p = with_p(v);
    uint32_t n;
    int inherit;
    for (long i = 0;; i++) {
        uint64_t w = runqget(v, p, &inherit);
        if (!w) w = runqsteal(v, p, victim, 1, 0, &n);
        if (!w) w = globrunqget(v, p, 0, &n);
        if (!w) continue;
        if (i % 7 == 0 && gclaim(v, w)) gcomplete(v, w, RESULT_VALUE, &i, sizeof i);
        else runqput(v, p, w, (int)(i & 1));
    }
}

static struct view client, coordinator, m0, m1;
static int fd;
static uint64_t ws[8];

static void fresh(uint32_t nprocs) {
    fd = new_segment(nprocs, 4);
    attach(&client, fd, 4, KIND_CLIENT);
    attach(&coordinator, fd, 5, KIND_CLIENT);
    attach(&m0, fd, 0, KIND_M);
    attach(&m1, fd, 1, KIND_M);
    for (int i = 0; i < 8; i++) ws[i] = spawn(&client);
}

static void stale(void) {
    segment_unmap(&client), segment_unmap(&coordinator), segment_unmap(&m0), segment_unmap(&m1);
    close(fd);
}

/* M 1 takes all there is, tokens aside, and claims it.  Returns how many claims it won. */
static int drain(uint64_t *claimed) {
    struct p *p = pidleget(&m1);
    CHECK(p);
    acquirep(&m1, p);
    int inherit, got = 0;
    uint32_t n;
    for (;;) {
        uint64_t w = runqget(&m1, p, &inherit);
        if (!w) w = globrunqget(&m1, p, 0, &n);
        for (uint32_t i = 0; !w && i < client.seg->nps; i++)
            if (&client.allp[i] != p) w = runqsteal(&m1, p, &m1.allp[i], 1, 0, &n);
        if (!w) break;
        if (w & GWORD_TOKEN || !gclaim(&m1, w)) continue;
        if (claimed) claimed[got] = w;
        gcomplete(&m1, w, RESULT_VALUE, "x", 1), got++;
    }
    pidleput(&m1, releasep(&m1));
    return got;
}

/* What M 0 leaves if it dies at one certain instruction, written by hand. */
static void by_hand(void) {
    struct m *dead = &m0.allm[0];
    uint64_t claimed[8] = {0}, w;
    int inherit;
    /* popped from its ring, not claimed; it held a P and its spinning bit was set */
    fresh(3);
    struct p *p = with_p(&m0);
    set_spinning(&m0);
    runqput(&m0, p, ws[0], 0);
    dead = &m0.allm[0];
    CHECK(runqget(&m0, p, &inherit) == ws[0] && dead->popping == ws[0] && runqempty(p));
    CHECK(buried(&coordinator, 0) == 0);
    CHECK(MSTATE(dead->note) == M_DEAD && MLIFE(dead->note) == 1 && dead->p == 0 && dead->popping == 0 && !(client.seg->sched.spinning[0] & 1));
    CHECK(OWN_M(p->own) != 0);                              /* handed to a new M for the work, or idle */
    CHECK(drain(claimed) == 1 && claimed[0] == ws[0]);
    stale();
    /* a thief after its CAS: three words beyond the tail of its own ring; the first of them is in another queue too */
    fresh(3);
    p = with_p(&m0), dead = &m0.allm[0];
    for (int i = 0; i < 3; i++) store_rlx(&p->runq[i], ws[i]);
    store_rlx(&dead->intent_p, (uint32_t)(p - m0.allp));
    store_rlx(&dead->intent_start, 0), store_rlx(&dead->intent_n, 3), store_rlx(&dead->intent_extra, 0);
    store_rel(&dead->intent, INTENT_RANGE);
    globrunqput(&client, ws[0]);
    CHECK(buried(&coordinator, 0) == 0 && dead->intent == INTENT_NONE);
    CHECK(globrunqsize(&client) == 4 && drain(claimed) == 3);
    CHECK(GSTATUS(client.allgs[gword_index(ws[0])].state) == G_DONE);
    stale();
    /* runqputslow after its CAS: two words left the ring, the third (extra) was never in it; ring 2..3 is still good */
    fresh(3);
    p = with_p(&m0), dead = &m0.allm[0];
    for (int i = 0; i < 4; i++) runqput(&m0, p, ws[i], 0);
    store_rlx(&dead->intent_p, (uint32_t)(p - m0.allp));
    store_rlx(&dead->intent_start, 0), store_rlx(&dead->intent_n, 2), store_rlx(&dead->intent_extra, ws[4]);
    store_rel(&dead->intent, INTENT_RANGE);
    store_rel(&p->head, 2);
    CHECK(buried(&coordinator, 0) == 0 && drain(claimed) == 5);
    stale();
    /* ... and before its CAS: the words are in the ring and in the record; only one claim can win */
    fresh(3);
    p = with_p(&m0), dead = &m0.allm[0];
    for (int i = 0; i < 4; i++) runqput(&m0, p, ws[i], 0);
    store_rlx(&dead->intent_p, (uint32_t)(p - m0.allp));
    store_rlx(&dead->intent_start, 0), store_rlx(&dead->intent_n, 2), store_rlx(&dead->intent_extra, 0);
    store_rel(&dead->intent, INTENT_RANGE);
    CHECK(buried(&coordinator, 0) == 0 && drain(claimed) == 4);
    stale();
    /* it ran one G and was writing the result of another: both end, and the owner is told once each */
    fresh(3);
    CHECK(gclaim(&m0, ws[0]) && gclaim(&m0, ws[1]) && gcas(&m0, ws[1], G_RUNNING, G_COMPLETING));
    CHECK(buried(&coordinator, 0) == 2 && buried(&coordinator, 0) == 0);
    int told[2] = {0};
    while ((w = inbox_pop(&client)) != 0) {
        struct g *g = &client.allgs[gword_index(w)];
        CHECK(w == ws[0] || w == ws[1]);
        CHECK(GSTATUS(g->state) == G_DONE && GGEN(g->state) == gword_gen(w));
        CHECK(g->result_kind == RESULT_WORKER_DIED && g->result_len == 4 && !memcmp(gresult(&client, g), "died", 4));
        told[w == ws[1]]++;
    }
    CHECK(told[0] && told[1]);                              /* the second repair may tell it again: harmless */
    stale();
    /* it took the idle bit of a P and died before it was the owner: the P is listed again */
    fresh(3);
    atomic_fetch_and(&client.seg->sched.pidle[0], ~1ull);
    CHECK(npidle(&client) == 2 && buried(&coordinator, 0) == 0 && npidle(&client) == 3);
    stale();
    /* it had chosen parked M 1 and died before the hand-over: M 1 is woken without a P, and the P is idle */
    fresh(1);
    p = pidleget(&m0);
    mput(&m1);
    atomic_store(&m1.allm[1].note, MWORD(M_WANTED, 0, 0));
    CHECK(buried(&coordinator, 0) == 0);
    CHECK(notesleep(&m1, 0) == 1 && mtake(&m1) == NULL);
    CHECK(OWN_STATE(p->own) == P_IDLE && npidle(&client) == 1);
    stale();
    /* a stale word (its slot has a new generation) and a G that runs elsewhere are not queued */
    fresh(3);
    dead = &m0.allm[0];
    CHECK(gclaim(&m1, ws[0]));
    atomic_store(&dead->popping, ws[0]);
    CHECK(buried(&coordinator, 0) == 0 && globrunqsize(&client) == 0);
    atomic_store(&dead->popping, ws[1] + 1);
    CHECK(buried(&coordinator, 0) == 0 && globrunqsize(&client) == 0);
    CHECK(gcomplete(&m1, ws[0], RESULT_VALUE, "x", 1));
    stale();
    /* it died in hand_over, M 1 owned the P already: it hears of it */
    fresh(1);
    p = pidleget(&m0);
    mput(&m1);
    atomic_store(&m1.allm[1].note, MWORD(M_WANTED, 0, 0));
    atomic_fetch_or(&client.seg->sched.spinning[0], 1);
    atomic_store(&p->own, OWN(P_RUNNING, 1, OWN_SEQ(p->own) + 1));
    CHECK(buried(&coordinator, 0) == 0);
    CHECK(notesleep(&m1, 0) == 1 && mtake(&m1) == m1.allp && is_spinning(&m1));
    stale();
    /* the same with a new M: it is made if it has a P, and not needed if it has none */
    for (int has_p = 0; has_p < 2; has_p++) {
        fresh(1);
        p = pidleget(&m0);
        atomic_store(&m1.allm[2].note, MWORD(M_STARTING, 0, 0));
        if (has_p) atomic_store(&p->own, OWN(P_RUNNING, 2, OWN_SEQ(p->own) + 1));
        CHECK(buried(&coordinator, 0) == 0);
        CHECK(MSTATE(m1.allm[2].note) == (has_p ? M_HANDED : M_FREE) && npidle(&m1) == !has_p);
        stale();
    }
    /* it announced a token for M 1 and died before it was queued; or had popped it */
    for (int popped = 0; popped < 2; popped++) {
        fresh(1);
        with_p(&m0);
        mput(&m1);
        if (popped) atomic_store(&m0.allm[0].popping, token(1));
        else atomic_store(&m1.allm[1].token_queued, 1);
        CHECK(buried(&coordinator, 0) == 0 && globrunqsize(&m1) == 1);
        stale();
    }
    /* it had the result of G 1, which G 2 waits for: told or not, G 2 becomes runnable once and the owner hears of G 1 */
    for (int told = 0; told < 2; told++) {
        fresh(1);
        uint32_t index;
        struct g *g2 = gfget(&client, &index);
        uint64_t w2 = gword(index, GGEN(g2->state)), off = heap_alloc(&client, sizeof(struct deps) + sizeof(struct dep));
        store_rel(&g2->deps, off), heap_use(&client, off);
        struct deps *d = at(&client, off);
        memset(d, 0, sizeof *d + sizeof(struct dep));
        d->n = 1, d->dep[0].on = gword_index(ws[0]);
        CHECK(gwait_for(&client, w2) == 0 && gclaim(&m0, ws[0]));
        if (told) gcomplete(&m0, ws[0], RESULT_VALUE, "x", 1);
        else client.allgs[gword_index(ws[0])].state = GSTATE(G_DONE, 0, 1, gword_gen(ws[0]));
        CHECK(buried(&coordinator, 0) == 0 && globrunqsize(&client) == 1);
        CHECK(gcollect(&client, inbox_pop(&client)));
        for (uint64_t again; (again = inbox_pop(&client)) != 0;) CHECK(!gcollect(&client, again));
        uint64_t done = client.allgs[gword_index(ws[0])].state;
        CHECK(buried(&coordinator, 0) == 0 && client.allgs[gword_index(ws[0])].state == done);
        stale();
    }
    /* blocks it held, also those of a slot that it was filling, completing or discarding, come back: none is lost */
    fresh(1);
    uint32_t index;
    struct g *g = gfget(&m0, &index);
    g->args = heap_alloc(&m0, 100000);                      /* not in use yet */
    CHECK(gclaim(&m0, ws[0]));
    client.allgs[gword_index(ws[0])].result = heap_alloc(&m0, 100000);
    CHECK(heap_alloc(&m0, 100000));
    uint64_t bump = client.seg->heap.bump;                  /* three blocks of that size below it */
    CHECK(buried(&coordinator, 0) == 1 && adopt(&coordinator, 0) == 0);
    CHECK(heap_alloc(&client, 100000) && heap_alloc(&client, 100000) && heap_alloc(&client, 100000));
    CHECK(client.seg->heap.bump == bump && heap_alloc(&client, 100000) && client.seg->heap.bump > bump);
    stale();
    /* its G was done, not collected, as another was made that takes its result: that runs still, and reads it after */
    fresh(1);
    uint64_t done = spawn(&m0), takes = spawn(&m0);
    CHECK(gclaim(&m1, done) && gcomplete(&m1, done, RESULT_VALUE, "argument", 8));
    uint64_t block = heap_alloc(&m0, sizeof(struct deps) + sizeof(struct dep));
    struct deps *deps = at(&m0, block);
    memset(deps, 0, sizeof *deps + sizeof(struct dep));
    deps->n = 1, deps->dep[0].on = gword_index(done);
    g = &m0.allgs[gword_index(takes)];
    store_rel(&g->deps, block);
    heap_use(&m0, block);
    CHECK(gwait_for(&m0, takes) == 1 && gclaim(&m1, takes));
    CHECK(buried(&coordinator, 0) == 0 && adopt(&coordinator, 0) == 2);
    CHECK(memcmp(gresult(&m1, &m1.allgs[deps->dep[0].on]), "argument", 8) == 0);
    CHECK(gcomplete(&m1, takes, RESULT_VALUE, "x", 1) && adopt(&coordinator, 0) == 0);
    stale();
    /* repair tells of a done one again while its owner drains: between the two tellings it cannot be collected, but after */
    fresh(1);
    CHECK(gclaim(&m0, ws[0]) && gcomplete(&m0, ws[0], RESULT_VALUE, "x", 1) && gdone(&client, ws[0]));
    uint64_t state = client.allgs[gword_index(ws[0])].state;
    atomic_store(&client.allgs[gword_index(ws[0])].state, GSTATE(G_COMPLETING, 5, 1, gword_gen(ws[0])));
    CHECK(!gdone(&client, ws[0]) && !gcollect(&client, inbox_pop(&client)));
    atomic_store(&client.allgs[gword_index(ws[0])].state, state);
    gtell(&client, gword_index(ws[0]));
    CHECK(gunfinished(&client, 0) == 7 && gcollect(&client, inbox_pop(&client)));
    stale();
    /* a G of another's was readied there, and nobody has looked: it is its owner's to collect, not whoever adopts */
    fresh(1);
    CHECK(gclaim(&m0, ws[0]));
    gready(&client, ws[0]);
    CHECK(buried(&coordinator, 0) == 1 && adopt(&coordinator, 0) == 0);
    CHECK(gdone(&client, ws[0]) && gcollect(&client, inbox_pop(&client)));
    stale();
    /* it died in refill: next is moved, the owners are not written yet; and with slots of its own */
    fresh(1);
    CHECK(gfget(&m0, &index));
    atomic_fetch_add(&client.seg->gfree.next, 64);
    CHECK(buried(&coordinator, 0) == 0 && adopt(&coordinator, 0) == 0);
    struct lring *r = &client.seg->gfree.ring;
    CHECK(r->tail - r->head == 128 && gfree_sweep(&coordinator) == 0);
    stale();
}

static void killed_anywhere(void) {
    unsigned seed = 1;
    for (int round = 0; round < ROUNDS; round++) {
        fd = new_segment(3, 4);
        attach(&client, fd, 4, KIND_CLIENT);
        attach(&coordinator, fd, 5, KIND_CLIENT);
        attach(&m0, fd, 0, KIND_M);
        attach(&m1, fd, 1, KIND_M);
        struct p *own = &client.allp[MAX_PS];
        for (int i = 0; i < GS; i++) {
            uint64_t w = spawn(&client);
            if (i % 4) globrunqput(&client, w); else runqput(&client, own, w, 0);
        }
        pid_t child = fork_child();
        if (child == 0) schedule_for_ever(&m0, own);
        usleep((useconds_t)(rand_r(&seed) % 1500));
        kill_child(child);
        uint32_t ended = buried(&coordinator, 0);
        CHECK(ended <= 1 && nmspinning(&client) <= 1);
        /* everything that is left can be had by one other M, which the P of the dead was not lost to */
        int got = drain(NULL);
        int done = 0;
        for (uint64_t w; (w = inbox_pop(&client)) != 0;) {
            struct g *g = &client.allgs[gword_index(w)];
            if (!gcollect(&client, w)) continue;
            CHECK(GSTATUS(g->state) == G_COLLECTED);
            gdiscard(&client, gword_index(w));
            done++;
        }
        CHECK(done == GS && got <= GS);
        stale();
    }
}

int main(void) {
    by_hand();
#ifndef __SANITIZE_THREAD__
    killed_anywhere();
#else
    (void)killed_anywhere;
#endif
    DONE("repair");
}
