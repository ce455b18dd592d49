/* stw.c: stopping the world, and changing the number of Ps while it stands (Go: stopTheWorld, startTheWorld, gcstopm,
 * procresize).
 *
 * The world is stopped by whoever wins gcwaiting, with its number, so that the coordinator knows whose death leaves it so.
 * It takes every idle P, and freezes those of Ms in user code, which keep owner and seq: such an M is not replaced; it runs on
 * until it needs its P, and then waits for the start (exitsyscallfast).  An M in the scheduler soon goes into user code or
 * parks, so its P is waited for.  Nothing is counted: stopped looks at every P, as often as it takes.
 * Every step of procresize may be the last of its process: a P beyond nprocs is P_DEAD, one of the stopped world without an
 * owner is idle after the start, and a word that lies in two queues is run once.
 */
#include "stw.h"

#define PATIENCE_NS 100000000

void gcstopm(struct view *v) {
    au32 *gcwaiting = &v->seg->sched.gcwaiting;
    uint32_t by = atomic_load(gcwaiting);
    if (by) futex_wait(gcwaiting, by, PATIENCE_NS);
}

int stop_the_world(struct view *v) {
    uint32_t nobody = 0;
    if (!atomic_compare_exchange_strong(&v->seg->sched.gcwaiting, &nobody, v->self + 1)) return 0;
    KILLPOINT(stop_the_world_after);
    return 1;
}

/* An idle P's bit stays, and goes when somebody finds that it is wrong (pidletake). */
static int freeze(struct p *p) {
    uint64_t own = atomic_load(&p->own);
    switch (OWN_STATE(own)) {
    case P_IDLE:
    case P_SYSCALL:
        return atomic_compare_exchange_strong(&p->own, &own, OWN(P_GCSTOP, OWN_M(own), OWN_SEQ(own)));
    case P_RUNNING:
        return 0;
    default:
        return 1;
    }
}

int stopped(struct view *v) {
    int all = 1;
    for (uint32_t i = 0; i < v->seg->nprocs; i++) all &= freeze(&v->allp[i]);
    KILLPOINT(freeze_after);
    return all;
}

static void thaw(struct view *v, uint32_t i) {
    struct p *p = &v->allp[i];
    uint64_t own = atomic_load(&p->own);
    while (OWN_STATE(own) == P_GCSTOP || OWN_STATE(own) == P_DEAD) {
        int owned = OWN_STATE(own) == P_GCSTOP && OWN_M(own) != NONE;
        uint64_t to = owned ? OWN(P_SYSCALL, OWN_M(own), OWN_SEQ(own)) : OWN(P_IDLE, NONE, OWN_SEQ(own) + 1);
        if (!atomic_compare_exchange_strong(&p->own, &own, to)) continue;
        if (!owned) atomic_fetch_or(&v->seg->sched.pidle[i / 64], 1ull << (i % 64));
        return;
    }
}

void start_the_world(struct view *v, uint32_t by) {
    if (atomic_load(&v->seg->sched.gcwaiting) != by) return;
    for (uint32_t i = 0; i < v->seg->nprocs; i++) thaw(v, i);
    KILLPOINT(thaw_after);
    atomic_store(&v->seg->sched.gcwaiting, 0);
    futex_wake(&v->seg->sched.gcwaiting, 1 << 30);
    if (work_anywhere(v)) wakep(v);
}

/* Its queue goes to the head of the global one, in the order in which it would have been run; then there is no such P. */
static void destroy(struct view *v, struct p *p) {
    uint64_t batch[RUNQ_CAP + 1], h = load_acq(&p->head), t = load_acq(&p->tail), next = load_acq(&p->runnext);
    uint32_t n = 0;
    if (next) batch[n++] = next;
    for (uint64_t i = h; i < t; i++) batch[n++] = load_rlx(&p->runq[i % RUNQ_CAP]);
    if (n) globrunqputhead(v, batch, n);
    KILLPOINT(procresize_destroyed);
    store_rel(&p->runnext, 0);
    store_rel(&p->head, t);
    atomic_store(&p->own, OWN(P_DEAD, NONE, OWN_SEQ(load_acq(&p->own)) + 1));
}

void procresize(struct view *v, uint32_t n) {
    for (uint32_t i = v->seg->nprocs; i-- > n;) destroy(v, &v->allp[i]);
    KILLPOINT(procresize_before);
    atomic_store(&v->seg->nprocs, n);
    KILLPOINT(procresize_after);
}
