/* sysmon asks a G to give way that has had its time while started Gs of its M wait, and no other (preemptone). */
#include "check.h"
#include "sysmon.h"

enum { SLICE = 10000000 };
static struct view client, m0;
static struct sysmon s;

static uint64_t run_one(void) {
    uint32_t index;
    struct g *g = gfget(&client, &index);
    CHECK(g);
    atomic_store(&g->state, GSTATE(G_RUNNABLE, NO_M, 0, GGEN(g->state)));
    uint64_t w = gword(index, GGEN(g->state));
    CHECK(gclaim(&m0, w));
    return w;
}

int main(void) {
    int fd = new_segment(2, 4);
    attach(&client, fd, 4, KIND_CLIENT);
    attach(&m0, fd, 0, KIND_M);
    struct m *m = self_m(&m0);
    atomic_store(&m->pid, (uint32_t)getpid());                  /* this thread runs, as sysmon finds */
    CHECK(sysmon_init(&client, &s));
    struct p *p = pidleget(&m0);
    CHECK(p);
    acquirep(&m0, p);
    run_one();
    int64_t now = nanotime();
    store_rlx(&m->since, (uint64_t)now);
    atomic_store(&m->ready, 1);
    CHECK(sysmon_look(&client, &s, now + SLICE / 2) == 0);      /* it still has time */
    CHECK(s.quiet == 0);                                        /* but is to be looked at again */
    CHECK(sysmon_look(&client, &s, now + SLICE) == 1 && s.nloose == 1 && s.loose[0] == 0);
    CHECK(sysmon_look(&client, &s, now + SLICE + SLICE / 2) == 0);
    CHECK(sysmon_look(&client, &s, now + 2 * SLICE) == 1);      /* it may have been where it could not: once more */
    store_rlx(&m->n_parks, load_rlx(&m->n_parks) + 1);          /* another slice of the same G */
    store_rlx(&m->since, (uint64_t)(now + 2 * SLICE));
    CHECK(sysmon_look(&client, &s, now + 2 * SLICE + 1) == 0);
    CHECK(sysmon_look(&client, &s, now + 3 * SLICE) == 1);
    atomic_store(&m->ready, 0);
    CHECK(sysmon_look(&client, &s, now + 9 * SLICE) == 0 && s.quiet == 1);
    uint64_t other = run_one();                                 /* a word for one that waits lies in the inbox */
    inbox_push(&client, 0, other);
    CHECK(sysmon_look(&client, &s, now + 9 * SLICE) == 1);
    inbox_drop(&m0, 0);
    CHECK(sysmon_look(&client, &s, now + 19 * SLICE) == 0);
    atomic_store(&m->ready, 1);
    pidleput(&m0, releasep(&m0));                               /* without a P it is another matter */
    for (int i = 0; i < 3; i++) {
        sysmon_look(&client, &s, now + (30 + 2 * i) * SLICE);
        CHECK(s.ms[0].asked == now + 9 * SLICE);
    }
    sysmon_free(&s);
    DONE("preempt");
}
