/* checkdead: 0 while anything runs or can come; and what is read of a G belongs together while it changes. */
#include "check.h"
#include "checkdead.h"

enum { SEEN = 20000 };
static struct view client, m0, m1;
static _Atomic int stop;

static uint64_t spawn(struct view *v) {
    uint32_t index;
    struct g *g = gfget(v, &index);
    CHECK(g);
    g->args_len = 0;
    atomic_store(&g->state, GSTATE(G_RUNNABLE, NO_M, 0, GGEN(g->state)));
    return gword(index, GGEN(g->state));
}

static void park(struct view *v, uint64_t w, uint32_t why, uint64_t since) {
    struct g *g = &v->allgs[gword_index(w)];
    store_rlx(&g->wait_reason, why);
    store_rlx(&g->wait_since, since);
    CHECK(gcas(v, w, G_RUNNING, G_WAITING));
}

static void sleep_m(struct view *v) {
    atomic_store(&v->allm[v->self].asleep, 1);
    noteclear(v);
}

/* Parks and goes on; reason and time always match. */
static void *parker(void *arg) {
    uint64_t w = *(uint64_t *)arg;
    for (uint64_t i = 1; !stop; i++) {
        park(&m0, w, 1 + i % 7, i);
        CHECK(gcas(&m0, w, G_WAITING, G_RUNNING));
    }
    return NULL;
}

int main(void) {
    int fd = new_segment(2, 4);
    attach(&client, fd, 4, KIND_CLIENT);
    attach(&m0, fd, 0, KIND_M);
    attach(&m1, fd, 1, KIND_M);
    CHECK(checkdead(&client) == 0);                             /* M 0 runs */
    sleep_m(&m0), sleep_m(&m1);
    uint64_t done = checkdead(&client);
    CHECK(done && checkdead(&client) == done);
    uint64_t w = spawn(&client);
    CHECK(checkdead(&client) == 0);                             /* runnable */
    CHECK(gclaim(&m0, w) && checkdead(&client) == 0);           /* running */
    park(&m0, w, WHY_FUTURE, 1);
    CHECK(checkdead(&client) > done);
    done = checkdead(&client);
    uint32_t comes[] = {WHY_GOSCHED, WHY_PREEMPTED, WHY_SLEEP, WHY_IO};
    for (int i = 0; i < 4; i++) {
        atomic_store(&m0.allgs[gword_index(w)].wait_reason, comes[i]);
        CHECK(checkdead(&client) == 0);
    }
    atomic_store(&m0.allgs[gword_index(w)].wait_reason, WHY_CHAN_RECV);
    CHECK(checkdead(&client) == done);
    atomic_store(&m0.allm[0].asleep, 0);                        /* a timer is armed */
    CHECK(checkdead(&client) == 0);
    atomic_store(&m0.allm[0].asleep, 1);
    struct p *p = pidleget(&m1);
    CHECK(checkdead(&client) == 0);                             /* somebody has a P */
    pidleput(&m1, p);
    globrunqput(&m1, token(1));
    CHECK(checkdead(&client) == 0);                             /* there is work */
    p = with_p(&m1);
    uint32_t n;
    CHECK(globrunqget(&m1, p, 1, &n) == token(1));
    pidleput(&m1, releasep(&m1));
    CHECK(checkdead(&client) == done);
    inbox_push(&client, 4, w);
    CHECK(checkdead(&client) == 0 && inbox_pop(&client) == w);  /* something has come for the client */
    CHECK(checkdead(&client) > done);                           /* it was not quiet since */
    atomic_store(&client.allm[5].pid, 1);                       /* the coordinator does not count */
    CHECK(checkdead(&client));
    atomic_store(&client.seg->sched.closing, 1);
    CHECK(checkdead(&client) == 0);
    atomic_store(&client.seg->sched.closing, 0);
    /* the G is told once, while it waits */
    CHECK(!gtold_deadlock(&m0, w) && gdeadlocked(&client, w, 9) && gtold_deadlock(&m0, w) == 9 && !gtold_deadlock(&m0, w));
    CHECK(gcas(&m0, w, G_WAITING, G_RUNNING) && !gdeadlocked(&client, w, 9) && !gdeadlocked(&client, w + 1, 9));
    /* read while it parks and goes on all the time */
    pthread_t t;
    pthread_create(&t, NULL, parker, &w);
    for (int waits = 0; waits < SEEN;) {
        struct g_seen g;
        if (!gread(&client, gword_index(w), &g) || GSTATUS(g.state) != G_WAITING || !g.wait_since) continue;
        waits++;
        CHECK(g.wait_since == 1 || g.wait_reason == 1 + g.wait_since % 7);
    }
    stop = 1;
    pthread_join(t, NULL);
    DONE("checkdead");
}
