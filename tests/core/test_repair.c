/* Repair: a process is killed by SIGKILL at random instructions of put, get, steal, overflow and complete; afterwards every
 * G that was runnable can be claimed exactly once, or had been completed, and the P and the spinning bit are back. */
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
        if (!w) w = runqsteal(v, p, victim, 1, &n);
        if (!w) w = globrunqget(v, p, 0, &n);
        if (!w) continue;
        if (i % 7 == 0 && gclaim(v, w)) gcomplete(v, w, RESULT_VALUE, &i, sizeof i);
        else runqput(v, p, w, (int)(i & 1));
    }
}

int main(void) {
    unsigned seed = 1;
    for (int round = 0; round < ROUNDS; round++) {
        int fd = new_segment(3, 4);
        struct view client, coordinator, m0, m1;
        attach(&client, fd, 4, KIND_CLIENT);
        attach(&coordinator, fd, 5, KIND_CLIENT);
        attach(&m0, fd, 0, KIND_M);
        attach(&m1, fd, 1, KIND_M);
        struct p *own = &client.allp[3];
        for (int i = 0; i < GS; i++) {
            uint64_t w = spawn(&client);
            if (i % 4) globrunqput(&client, w); else runqput(&client, own, w, 0);
        }
        pid_t child = fork_child();
        if (child == 0) schedule_for_ever(&m0, own);
        usleep((useconds_t)(rand_r(&seed) % 1500));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        uint32_t ended = repair(&coordinator, 0, "died", 4);
        CHECK(ended <= 1 && nmspinning(&client) <= 1);
        /* everything that is left can be had by one other M, which the P of the dead was not lost to */
        struct p *p = pidleget(&m1);
        CHECK(p);
        acquirep(&m1, p);
        int inherit, got = 0;
        uint32_t n;
        for (;;) {
            uint64_t w = runqget(&m1, p, &inherit);
            if (!w) w = globrunqget(&m1, p, 0, &n);
            for (uint32_t i = 0; !w && i < client.seg->nps; i++)
                if (&client.allp[i] != p) w = runqsteal(&m1, p, &m1.allp[i], 1, &n);
            if (!w) break;
            if (w & GWORD_TOKEN) continue;
            if (gclaim(&m1, w)) gcomplete(&m1, w, RESULT_VALUE, "x", 1), got++;
        }
        int done = 0;
        for (uint64_t w; (w = inbox_pop(&client)) != 0;) {
            struct g *g = &client.allgs[gword_index(w)];
            if (GSTATUS(g->state) != G_DONE || GGEN(g->state) != gword_gen(w)) continue;
            gdiscard(&client, gword_index(w));
            done++;
        }
        CHECK(done == GS && got <= GS);
        segment_unmap(&client), segment_unmap(&coordinator), segment_unmap(&m0), segment_unmap(&m1);
        close(fd);
    }
    DONE("repair");
}
