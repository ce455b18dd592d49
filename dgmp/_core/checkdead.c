/* checkdead.c: are all goroutines asleep (Go: checkdead)?  And what G is in which state, while nothing is stopped.
 *
 * A client's thread that waits without limit asks, now and then (api.deadlock).  Nothing runs if every P is idle, every
 * queue and inbox is empty, every M is parked, and each G that has not finished waits.  Nothing can come if every M has
 * said, as it parked, that no timer, poller or signal handler of its own can wake it; what else might come, threads and
 * handlers of the processes, the caller looks for.  All this is read piece by piece, so the caller looks twice: whatever
 * happens moves one of the counters that are summed up here, and none of them ever goes back.
 */
#include "checkdead.h"

#define TRIES 100                     /* a G that changes as often as we look is shown half old, half new */

/* The state word before and after is the same, and when it began to wait: all that is between belongs together.  0: it
 * has changed all the time. */
int gread(struct view *v, uint32_t index, struct g_seen *out) {
    struct g *g = &v->allgs[index];
    for (int i = 0; i < TRIES; i++) {
        out->state = load_acq(&g->state);
        out->wait_since = load_acq(&g->wait_since);
        out->goid = __atomic_load_n(&g->goid, __ATOMIC_RELAXED);
        out->owner = load_rlx(&g->owner);
        out->place = load_rlx(&g->place);
        out->wait_reason = load_acq(&g->wait_reason);
        atomic_thread_fence(memory_order_acquire);
        if (load_acq(&g->state) == out->state && load_rlx(&g->wait_since) == out->wait_since) return 1;
    }
    return 0;
}

/* M or client i: nothing of it runs or can come.  The coordinator, a client too, never waits for Gs. */
static int process_sleeps(struct view *v, uint32_t i) {
    struct m *m = &v->allm[i];
    uint32_t state = MSTATE(atomic_load(&m->note)), coordinator = v->seg->max_ms + 1;
    if (i >= v->seg->max_ms) return i == coordinator || !load_acq(&m->pid) || (i == v->self && inbox_empty(v, i));
    return state == M_FREE || state == M_DEAD ||
           (state == M_IDLE && load_acq(&m->asleep) && !load_acq(&m->polled) && inbox_empty(v, i));
}

static int g_sleeps(struct view *v, uint32_t i) {
    uint64_t s = load_acq(&v->allgs[i].state);
    uint32_t why = load_rlx(&v->allgs[i].wait_reason);
    switch (GSTATUS(s)) {
    case G_WAITING: return why != WHY_GOSCHED && why != WHY_PREEMPTED && why != WHY_SLEEP && why != WHY_IO;
    case G_DEPS: return GATTEMPT(s) == 0;                     /* else it is to be run again */
    case G_ALLOCATED: case G_RUNNABLE: case G_RUNNING: case G_COMPLETING: return 0;
    default: return 1;
    }
}

uint64_t checkdead(struct view *v) {
    uint64_t done = 1;
    if (atomic_load(&v->seg->sched.closing) || npidle(v) != v->seg->nprocs || work_anywhere(v)) return 0;
    for (uint32_t i = 0; i < v->seg->nms; i++) {
        struct m *m = &v->allm[i];
        if (!process_sleeps(v, i)) return 0;
        done += load_rlx(&m->n_executed) + load_rlx(&m->n_parks) + load_rlx(&m->n_spawned) + load_rlx(&m->inbox.tail);
    }
    uint64_t top = load_acq(&v->seg->gfree.next);
    for (uint32_t i = 0; i < top; i++)
        if (!g_sleeps(v, i)) return 0;
    return done;
}

int gdeadlocked(struct view *v, uint64_t w, uint32_t text) {
    struct g *g = &v->allgs[gword_index(w)];
    uint64_t s = load_acq(&g->state);
    if (GSTATUS(s) != G_WAITING || GGEN(s) != gword_gen(w)) return 0;
    atomic_store(&v->seg->sched.deadlock, text);
    atomic_fetch_or(&g->flags, (uint32_t)G_DEADLOCKED);
    gready(v, w);
    return 1;
}

uint32_t gtold_deadlock(struct view *v, uint64_t w) {
    struct g *g = &v->allgs[gword_index(w)];
    if (!(load_rlx(&g->flags) & G_DEADLOCKED)) return 0;
    atomic_fetch_and(&g->flags, ~(uint32_t)G_DEADLOCKED);
    return atomic_load(&v->seg->sched.deadlock);
}
