/* repair.c: what a dead process leaves half-done is finished or discarded (GMP-SPEC 2.17).
 *
 * Only the coordinator calls this, and only once the death is certain.  Everything the dead one may have held is read
 * from its own record: its intent (words on their way between queues), the word it was popping, its P, an M it was about
 * to wake, its slots and the blocks it held.  Requeueing a word that another queue holds too is harmless: one state CAS
 * wins.  The order matters: its note says DEAD before its Ps are looked for, so that a waker who hands it one now fails.
 */
#include "poller.h"
#include "stw.h"
#include "sudog.h"

#include <string.h>

static void requeue(struct view *v, uint64_t w) {
    if (!(w & GWORD_FULL)) return;
    if (w & GWORD_TOKEN) {                                    /* popped, perhaps not handed its P: see requeue_tokens */
        atomic_store(&v->allm[w & 0xffffu].token_queued, 1);
        return;
    }
    struct g *g = &v->allgs[gword_index(w)];
    uint64_t s = atomic_load(&g->state);
    if (GGEN(s) != gword_gen(w)) return;
    if (GSTATUS(s) == G_RUNNABLE) globrunqput(v, w);
    if (GSTATUS(s) == G_DEPS && gterms(v, g) && load_acq(&gterms(v, g)->again)) inbox_push(v, v->self, w);  /* gagain */
}

static void requeue_moves(struct view *v, struct m *m) {
    requeue(v, load_acq(&m->popping));
    if (load_acq(&m->intent) == INTENT_RANGE) {
        struct p *p = &v->allp[load_rlx(&m->intent_p)];
        for (uint64_t i = 0; i < load_rlx(&m->intent_n) && i < RUNQ_CAP; i++)
            requeue(v, load_rlx(&p->runq[(load_rlx(&m->intent_start) + i) % RUNQ_CAP]));
        requeue(v, load_rlx(&m->intent_extra));
    }
    store_rel(&m->popping, 0);
    store_rel(&m->intent, INTENT_NONE);
}

/* The dead one may have announced a token and not queued it.  One too many is harmless. */
static void requeue_tokens(struct view *v) {
    for (uint32_t i = 0; i < v->seg->max_ms; i++)
        if (atomic_load(&v->allm[i].token_queued)) globrunqput(v, token(i));
}

static struct p *p_of(struct view *v, uint32_t m) {
    for (uint32_t i = 0; i < v->seg->nprocs; i++) {
        uint64_t own = atomic_load(&v->allp[i].own);
        if (OWN_STATE(own) == P_RUNNING && OWN_M(own) == m) return &v->allp[i];
    }
    return NULL;
}

/* M i was chosen by the dead one.  If it owns a P already it only has to hear of it; else it is not needed. */
static void finish_wakeup(struct view *v, uint32_t dead, uint32_t i) {
    au32 *note = &v->allm[i].note;
    uint32_t w = atomic_load(note);
    if (MSTATE(w) == M_HANDED) futex_wake(note, 1);           /* perhaps only this was missing */
    if ((MSTATE(w) != M_WANTED && MSTATE(w) != M_STARTING) || MARG(w) != dead) return;
    struct p *p = p_of(v, i);
    if (p || MSTATE(w) == M_WANTED) notewakeup(v, i, w, p ? (uint32_t)(p - v->allp) + 1 : 0);
    else atomic_compare_exchange_strong(note, &w, MWORD(M_FREE, 0, MLIFE(w)));
}

/* P i is ours if it was the dead one's; one that is frozen is nobody's, and idle when the world starts. */
static int release(struct view *v, uint32_t i, uint32_t dead) {
    au64 *p = &v->allp[i].own;
    for (uint64_t own = atomic_load(p); OWN_M(own) == dead;) {
        uint32_t state = OWN_STATE(own);
        if (state != P_RUNNING && state != P_SYSCALL && state != P_GCSTOP) return 0;
        uint64_t to = state == P_GCSTOP ? OWN(P_GCSTOP, NONE, OWN_SEQ(own) + 1) : OWN(P_RUNNING, v->self, OWN_SEQ(own) + 1);
        if (atomic_compare_exchange_strong(p, &own, to)) return state != P_GCSTOP;
    }
    return 0;
}

static void release_ps(struct view *v, uint32_t dead) {
    struct sched *s = &v->seg->sched;
    for (uint32_t i = 0; i < v->seg->nprocs; i++) {
        uint64_t own = atomic_load(&v->allp[i].own), bit = 1ull << (i % 64);
        if (release(v, i, dead)) {
            atomic_fetch_and(&s->spinning[i / 64], ~bit);
            if (work_anywhere(v)) startm(v, &v->allp[i], 0);
            else pidleput(v, &v->allp[i]);
        } else if (OWN_STATE(own) == P_IDLE) {
            atomic_fetch_or(&s->pidle[i / 64], bit);          /* it may have died before or after its own bit change */
        }
    }
}

static void keep_blocks(struct view *v, struct g *g, uint32_t dead) {
    if (g->args) heap_keep(v, g->args, dead);
    if (g->result) heap_keep(v, g->result, dead);
    if (load_acq(&g->deps)) heap_keep(v, load_acq(&g->deps), dead);
    if (load_acq(&g->terms)) heap_keep(v, load_acq(&g->terms), dead);
}

int is_victim(struct view *v, uint32_t dead, uint32_t i) {
    uint64_t s = load_acq(&v->allgs[i].state);
    return GM(s) == dead && GSTATUS(s) >= G_RUNNING && GSTATUS(s) <= G_COMPLETING;
}

/* It is ours from here on, as it was before it ran: the dead one may have been writing its result. */
static uint64_t take_victim(struct view *v, uint32_t dead, uint64_t w) {
    uint32_t i = gword_index(w);
    struct g *g = &v->allgs[i];
    uint64_t s = load_acq(&g->state), half_done = g->result;
    if (!is_victim(v, dead, i) || GGEN(s) != gword_gen(w)) return 0;
    s = GSTATE(G_COMPLETING, v->self, GATTEMPT(s), GGEN(s));
    atomic_store(&g->state, s);
    KILLPOINT(repair_end_g);
    g->result = 0;
    if (half_done) heap_hold(v, half_done), heap_free(v, half_done);
    return s;
}

int victim_ends(struct view *v, uint32_t dead, uint64_t w, uint32_t kind, const void *data, uint64_t len) {
    uint64_t s = take_victim(v, dead, w);
    if (!s) return 0;
    gset_result(v, &v->allgs[gword_index(w)], kind, data, len);
    atomic_store(&v->allgs[gword_index(w)].state, GSTATE(G_DONE, v->self, GATTEMPT(s), GGEN(s)));
    gwake_dependents(v, gword_index(w));
    gtell(v, gword_index(w));
    return 1;
}

int victim_again(struct view *v, uint32_t dead, uint64_t w, uint64_t at) {
    return take_victim(v, dead, w) && gagain(v, w, at);
}

/* It was done; perhaps not everybody was told.  While we look through the list its owner must not collect it: the CAS
 * fails if it has. */
static void tell_again(struct view *v, uint32_t i, uint64_t s) {
    struct g *g = &v->allgs[i];
    if (!atomic_compare_exchange_strong(&g->state, &s, GSTATE(G_COMPLETING, v->self, GATTEMPT(s), GGEN(s)))) return;
    gwake_dependents(v, i);
    atomic_store(&g->state, GSTATE(G_DONE, v->self, GATTEMPT(s), GGEN(s)));
    gtell(v, i);
}

static int unfinished(uint32_t status) { return status != G_DEAD && status != G_COLLECTED; }

/* What the dead one has left of Gs.  Those that were started there are victims from here on: the coordinator says what
 * becomes of them (coordinator.deaths). */
static void settle_gs(struct view *v, uint32_t dead) {
    uint64_t top = load_acq(&v->seg->gfree.next);
    for (uint32_t i = 0; i < top; i++) {
        struct g *g = &v->allgs[i];
        uint64_t s = atomic_load(&g->state);
        uint32_t status = GSTATUS(s);
        int ran = GM(s) == dead && status >= G_RUNNING && status <= G_DONE, owned = load_acq(&g->owner) == dead + 1;
        if (ran || owned) keep_blocks(v, g, dead);
        if (ran && status == G_DONE) tell_again(v, i, s);
        else if (!ran && owned && (status == G_RUNNABLE || status == G_DEPS || status == G_ALLOCATED))
            atomic_compare_exchange_strong(&g->state, &s, GSTATE(G_COLLECTED, NO_M, 0, GGEN(s)));
    }
}

/* What a dead client had spawned and nobody had begun is collected: nothing in its ring is worth looking at, and the next client
 * that has its slot goes on there. */
static void empty_ring(struct view *v, uint32_t dead) {
    if (dead < v->seg->max_ms) return;
    struct p *p = &v->allp[dead - v->seg->max_ms + MAX_PS];
    uint64_t h = load_acq(&p->head);
    atomic_exchange(&p->runnext, 0);
    while (!atomic_compare_exchange_weak(&p->head, &h, load_acq(&p->tail))) continue;
}

/* Collects in the stead of a dead owner.  Returns the number of its slots that are in use: while any is unfinished, those
 * that are finished stay too, as their results may be the arguments of one that is not (only the dead one's pins, in its
 * own memory, said which). */
uint32_t adopt(struct view *v, uint32_t dead) {
    uint32_t live = 0, kept = 0;
    uint64_t top = load_acq(&v->seg->gfree.next);
    for (uint64_t w; (w = inbox_peek(v, dead)) != 0; inbox_drop(v, dead))
        if (load_acq(&v->allgs[gword_index(w)].owner) == dead + 1) gcollect(v, w);  /* else a G of another's was readied here */
    for (uint32_t i = 0; i < top; i++)
        live += load_acq(&v->allgs[i].owner) == dead + 1 && unfinished(GSTATUS(atomic_load(&v->allgs[i].state)));
    for (uint32_t i = 0; i < top; i++) {
        struct g *g = &v->allgs[i];
        if (load_acq(&g->owner) != dead + 1) continue;
        uint32_t status = GSTATUS(atomic_load(&g->state));
        if (unfinished(status) || (live && status == G_COLLECTED)) {
            kept++;
            continue;
        }
        store_rel(&g->owner, v->self + 1);
        KILLPOINT(adopt_collected);
        if (status == G_COLLECTED) gclear(v, i);
        else gfput(v, i);
    }
    gfflush(v);
    return kept;
}

void repair(struct view *v, uint32_t dead) {
    struct m *m = &v->allm[dead];
    uint32_t w = atomic_load(&m->note);
    KILLPOINT(repair_before);
    while (!atomic_compare_exchange_weak(&m->note, &w, MWORD(M_DEAD, 0, MLIFE(w) + 1))) continue;
    atomic_fetch_and(&v->seg->sched.midle[dead / 64], ~(1ull << (dead % 64)));
    KILLPOINT(repair_dead);
    start_the_world(v, dead + 1);
    requeue_moves(v, m);
    KILLPOINT(repair_requeued);
    atomic_fetch_add(&v->seg->sched.outputs, 1);              /* it may have died before it counted its last packet */
    objects_fix(v);
    sudogs_repair(v, dead);
    objects_forget(v, dead);
    KILLPOINT(repair_objects);
    settle_gs(v, dead);
    empty_ring(v, dead);
    KILLPOINT(repair_settled);
    heap_sweep(v, dead);
    gfree_sweep(v);
    KILLPOINT(repair_swept);
    atomic_store(&m->p, 0);
    atomic_store(&m->syscall, 0);
    atomic_store(&m->oldp, 0);
    if (running_on(m) == atomic_load(&m->curg)) atomic_store(&m->step, 0);  /* else View.victims sees whose code ran */
    atomic_store(&m->curg, 0);
    atomic_store(&m->parked, 0);
    atomic_store(&m->next_timer, 0);
    atomic_store(&m->polled, 0);
    atomic_store(&m->token_queued, 0);
    poller_died(v, dead);
    for (uint32_t i = 0; i < v->seg->max_ms; i++) finish_wakeup(v, dead, i);
    KILLPOINT(repair_woken);
    release_ps(v, dead);
    requeue_tokens(v);
    if (work_anywhere(v)) wakep(v);
    KILLPOINT(repair_after);
}

/* The slot of a dead M of which nothing is left can be reserved again.  All that it had spawned is collected; it may have
 * died before it counted one, or after. */
void mfree(struct view *v, uint32_t dead) {
    struct m *m = &v->allm[dead];
    store_rlx(&m->n_collected, load_rlx(&m->n_spawned));
    atomic_store(&m->step, 0);
    atomic_store(&m->pid, 0);
    atomic_store(&m->note, MWORD(M_FREE, 0, MLIFE(load_rlx(&m->note))));
}
