/* G slots: one winner of each claim, generations, dependents readied once, everything back in gFree. */
#include "check.h"

enum { MS = 3, N = 2000 };
static struct view owner, ms[MS];
static uint64_t words[N];
static _Atomic int won[N];

static uint64_t spawn(struct view *v) {
    uint32_t index;
    struct g *g = gfget(v, &index);
    CHECK(g);
    uint64_t s = g->state;
    g->args_len = 0;
    atomic_store(&g->state, GSTATE(G_RUNNABLE, NO_M, 0, GGEN(s)));
    return gword(index, GGEN(s));
}

static void *claimer(void *arg) {
    struct view *v = arg;
    for (int i = 0; i < N; i++)
        if (gclaim(v, words[i])) {
            atomic_fetch_add(&won[i], 1);
            CHECK(gcomplete(v, words[i], RESULT_VALUE, &i, sizeof i) && !gcomplete(v, words[i], RESULT_VALUE, &i, 4));
        }
    return NULL;
}

int main(void) {
    int fd = new_segment(MS, 8);
    attach(&owner, fd, 8, KIND_CLIENT);
    for (uint32_t i = 0; i < MS; i++) attach(&ms[i], fd, i, KIND_M);
    for (int round = 0; round < 5; round++) {
        pthread_t t[MS];
        for (int i = 0; i < N; i++) words[i] = spawn(&owner), won[i] = 0;
        for (int i = 0; i < MS; i++) pthread_create(&t[i], NULL, claimer, &ms[i]);
        for (int i = 0; i < MS; i++) pthread_join(t[i], NULL);
        int n = 0;
        for (uint64_t w; (w = inbox_pop(&owner)) != 0; n++) {
            uint32_t index = gword_index(w);
            CHECK(gcollect(&owner, w) && !gcollect(&owner, w));
            gdiscard(&owner, index);
            CHECK(!gclaim(&ms[0], w));                          /* a stale word is worth nothing */
        }
        CHECK(n == N);
        for (int i = 0; i < N; i++) CHECK(won[i] == 1);
    }
    /* the owner cancels while others claim: each ends once, by one of them, and a cancelled one with an empty result */
    for (int round = 0; round < 50; round++) {
        pthread_t t[MS];
        int cancelled = 0, empty = 0;
        for (int i = 0; i < N; i++) words[i] = spawn(&owner), won[i] = 0;
        for (int i = 0; i < MS; i++) pthread_create(&t[i], NULL, claimer, &ms[i]);
        for (int i = N; i--;)
            if (gcancel(&owner, words[i])) {
                cancelled++, atomic_fetch_add(&won[i], 1);
                CHECK(!gcancel(&owner, words[i]) && !gclaim(&owner, words[i]));
            }
        for (int i = 0; i < MS; i++) pthread_join(t[i], NULL);
        int n = 0;
        for (uint64_t w; (w = inbox_pop(&owner)) != 0; n++) {
            struct g *g = &owner.allgs[gword_index(w)];
            CHECK(gcollect(&owner, w) && !gcancel(&owner, w));
            empty += g->result_kind == RESULT_CANCELLED && g->result_len == 0;
            gdiscard(&owner, gword_index(w));
            CHECK(!gcancel(&owner, w));                         /* a stale word */
        }
        CHECK(n == N && cancelled == empty);
        for (int i = 0; i < N; i++) CHECK(won[i] == 1);
    }
    /* an M that cancels a G of its own still runs the one it runs */
    uint64_t runs = spawn(&owner), child = spawn(&ms[0]);
    CHECK(gclaim(&ms[0], runs) && gcancel(&ms[0], child) && ms[0].allm[0].curg == runs);
    CHECK(gcollect(&ms[0], inbox_pop(&ms[0])) && gcomplete(&ms[0], runs, RESULT_VALUE, "x", 1) && ms[0].allm[0].curg == 0);
    CHECK(gcollect(&owner, inbox_pop(&owner)));
    gdiscard(&ms[0], gword_index(child)), gdiscard(&owner, gword_index(runs));
    CHECK(owner.seg->gfree.next <= N + 128);                   /* slots are reused, not made anew */
    /* a dependent becomes runnable when the last of those it waits for is done, once */
    uint64_t a = spawn(&owner), b = spawn(&owner);
    uint32_t index;
    struct g *g = gfget(&owner, &index);
    uint64_t w = gword(index, GGEN(g->state)), off = heap_alloc(&owner, sizeof(struct deps) + 2 * sizeof(struct dep));
    store_rel(&g->deps, off), heap_use(&owner, off);
    struct deps *d = at(&owner, off);
    memset(d, 0, sizeof *d + 2 * sizeof(struct dep));
    d->n = 2, d->dep[0].on = gword_index(a), d->dep[1].on = gword_index(b);
    CHECK(gwait_for(&owner, w) == 0);
    CHECK(gclaim(&ms[0], a) && gcomplete(&ms[0], a, RESULT_VALUE, "x", 1));
    CHECK(GSTATUS(g->state) == G_DEPS && globrunqsize(&owner) == 0);
    CHECK(gclaim(&ms[0], b) && gcomplete(&ms[0], b, RESULT_VALUE, "y", 1));
    CHECK(GSTATUS(g->state) == G_RUNNABLE && globrunqsize(&owner) == 1);
    gwake_dependents(&ms[0], gword_index(b));                         /* repeated, as repair may: nothing happens twice */
    CHECK(globrunqsize(&owner) == 1);
    /* one that waits for others is cancelled: they ready nothing */
    a = spawn(&owner), g = gfget(&owner, &index), w = gword(index, GGEN(g->state));
    off = heap_alloc(&owner, sizeof *d + sizeof(struct dep));
    store_rel(&g->deps, off), heap_use(&owner, off), d = at(&owner, off);
    memset(d, 0, sizeof *d + sizeof(struct dep));
    d->n = 1, d->dep[0].on = gword_index(a);
    CHECK(gwait_for(&owner, w) == 0 && gcancel(&owner, w) && !gcancel(&owner, w) && !gask(&owner, w));
    CHECK(gclaim(&ms[0], a) && gcomplete(&ms[0], a, RESULT_VALUE, "x", 1) && globrunqsize(&owner) == 1);
    CHECK(GSTATUS(g->state) == G_DONE && g->result_kind == RESULT_CANCELLED);
    /* a started one is asked to end, and its home hears of it; one that has ended is not */
    a = spawn(&owner);
    CHECK(!gask(&owner, a) && gclaim(&ms[0], a) && gask(&owner, a) && inbox_pop(&ms[0]) == a);
    CHECK(gask(&owner, a) == 2 && inbox_empty(&ms[0], 0));    /* it has not looked since */
    CHECK(gcas(&ms[0], a, G_RUNNING, G_WAITING) && atomic_fetch_and(&owner.allgs[gword_index(a)].flags, ~(uint32_t)G_TO_RAISE));
    CHECK(gask(&owner, a) == 1 && inbox_pop(&ms[0]) == a);
    CHECK(owner.allgs[gword_index(a)].flags == (G_ASKED | G_TO_RAISE) && gcas(&ms[0], a, G_WAITING, G_RUNNING));
    CHECK(gcomplete(&ms[0], a, RESULT_VALUE, "x", 1) && !gask(&owner, a) && inbox_empty(&ms[0], 0));
    a = spawn(&owner), b = gword(gword_index(a), gword_gen(a) - 1);
    CHECK(gclaim(&ms[0], a) && !gask(&owner, b) && owner.allgs[gword_index(a)].flags == 0);
    CHECK(gcomplete(&ms[0], a, RESULT_VALUE, "x", 1));
    /* one that asks too late is not linked */
    g = gfget(&owner, &index), w = gword(index, GGEN(g->state)), off = heap_alloc(&owner, sizeof *d + sizeof(struct dep));
    store_rel(&g->deps, off), heap_use(&owner, off), d = at(&owner, off);
    memset(d, 0, sizeof *d + sizeof(struct dep));
    d->n = 1, d->dep[0].on = gword_index(a);
    CHECK(gwait_for(&owner, w) == 1 && d->dep[0].done == DEP_NEVER_LINKED && GSTATUS(g->state) == G_RUNNABLE);
    /* all slots taken: NULL; a slot that nobody owns and no list has is found by the sweep */
    uint32_t taken = 0, last = 0;
    while (gfget(&owner, &index)) taken++, last = index;
    CHECK(owner.seg->gfree.next == 4096 && taken >= 4096 - N - 128 && gfree_sweep(&owner) == 0);
    gdiscard(&owner, last), gfflush(&owner);
    CHECK(gfget(&ms[1], &index) && index == last && !gfget(&ms[1], &index));
    gdiscard(&ms[1], last);
    atomic_store(&owner.allgs[last].owner, 0), ms[1].nfree = 0;
    CHECK(gfree_sweep(&owner) == 1 && gfree_sweep(&owner) == 0 && gfget(&owner, &index) && index == last);
    DONE("gslab");
}
