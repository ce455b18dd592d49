/* retake.c: a P whose M runs user code, and how it is taken from one that blocks (Go: entersyscall, exitsyscall, retake,
 * handoffp).
 *
 * User code may block at any line, so all of it is what Go calls a syscall: entersyscall sets P.own to {P_SYSCALL, M, seq},
 * and keeps the word.  Whoever wins the CAS from exactly this word has the P: its M, at the next call of the runtime that needs
 * one (exitsyscallfast), or the coordinator, when the M blocks (retake).  seq grows each time, so a look that came too late
 * takes nothing.  An M that finds its P gone completes its G, or parks it, without one, and then waits for a P like any idle
 * M; user code that goes on meanwhile is stopped by a signal, in place (runtime.preempt).  A P that is frozen as the world is
 * stopped (P_GCSTOP with its M and seq) is the M's again afterwards; it waits for that.
 */
#include "retake.h"

/* The M holds a P, in the scheduler.  seq_cst, as who stops the world, or looks for a P to retake, must see it. */
void entersyscall(struct view *v) {
    struct m *m = self_m(v);
    uint32_t p = load_rlx(&m->p);
    if (!p) throw(v, "entersyscall: M %u holds no P", v->self);
    uint64_t own = load_acq(&v->allp[p - 1].own), next = OWN(P_SYSCALL, v->self, OWN_SEQ(own) + 1);
    if (OWN_STATE(own) != P_RUNNING || OWN_M(own) != v->self) throw(v, "entersyscall: P %u is not ours", p - 1);
    store_rlx(&m->syscall, next);
    KILLPOINT(entersyscall_before);
    atomic_store(&v->allp[p - 1].own, next);
    KILLPOINT(entersyscall_after);
}

/* P_HELD: the M is in the scheduler and holds its P.  P_LOST: it holds none.  P_FROZEN: the world is stopped. */
int exitsyscallfast(struct view *v) {
    struct m *m = self_m(v);
    uint64_t was = load_rlx(&m->syscall), own = was;
    uint32_t p = load_rlx(&m->p);
    if (!was) return p ? P_HELD : P_LOST;
    KILLPOINT(exitsyscall_before);
    if (atomic_compare_exchange_strong(&v->allp[p - 1].own, &own, OWN(P_RUNNING, v->self, OWN_SEQ(was)))) {
        KILLPOINT(exitsyscall_after);
        store_rlx(&m->syscall, 0);
        return P_HELD;
    }
    if (own == OWN(P_GCSTOP, v->self, OWN_SEQ(was))) return P_FROZEN;
    store_rlx(&m->syscall, 0);
    store_rel(&m->p, 0);
    store_rlx(&m->oldp, p);
    return P_LOST;
}

int exitsyscall_idle(struct view *v) {
    uint32_t old = load_rlx(&self_m(v)->oldp);
    struct p *p = old && old <= v->seg->nprocs ? pidletake(v, old - 1) : NULL;
    if (!p) p = pidleget(v);
    if (p) acquirep(v, p);
    return p != NULL;
}

/* If it was handed over to look for work, another looks. */
void exitsyscall_done(struct view *v) {
    if (is_spinning(v)) {
        reset_spinning(v);
        if (work_anywhere(v)) wakep(v);
    }
    entersyscall(v);
}

int entersyscallblock(struct view *v) {
    if (exitsyscallfast(v) != P_HELD) return 0;
    struct p *p = releasep(v);
    store_rlx(&self_m(v)->oldp, (uint32_t)(p - v->allp) + 1);
    handoffp(v, p);
    return 1;
}

int retake(struct view *v, struct p *p, uint64_t own) {
    KILLPOINT(retake_before);
    int won = OWN_STATE(own) == P_SYSCALL &&
              atomic_compare_exchange_strong(&p->own, &own, OWN(P_RUNNING, v->self, OWN_SEQ(own) + 1));
    KILLPOINT(retake_after);
    return won;
}

/* The caller owns p.  An M is started in every situation in which one that holds p would find work; all but the started Gs of
 * Ms, which ask for a P themselves (want_p). */
int handoffp(struct view *v, struct p *p) {
    KILLPOINT(handoffp_before);
    if (work_anywhere(v)) return startm(v, p, 0);
    pidleput(v, p);
    KILLPOINT(handoffp_idle);
    fence_sc(&v->seg->sched.pidle[0]);
    if (work_anywhere(v)) wakep(v);
    return 1;
}

int holds_p(struct view *v, uint32_t m) {
    uint32_t p = load_acq(&v->allm[m].p);
    if (!p) return 0;
    uint64_t own = load_acq(&v->allp[p - 1].own);
    uint32_t state = OWN_STATE(own);
    return OWN_M(own) == m && (state == P_RUNNING || state == P_SYSCALL || state == P_GCSTOP) ? (int)p : 0;
}
