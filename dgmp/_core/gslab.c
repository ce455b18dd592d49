/* gslab.c: allgs, the slots of all Gs, and gFree (Go: allgs, gfget, gfput, casgstatus).
 *
 * A slot's life: G_DEAD -> G_ALLOCATED (owner fills it) -> [G_DEPS] -> G_RUNNABLE -> G_RUNNING <-> G_WAITING ->
 * G_COMPLETING -> G_DONE -> G_COLLECTED (its owner has the result) -> G_DEAD with the next generation.  The state word
 * decides: queues may hold a word twice, and whoever wins the CAS from G_RUNNABLE runs it.  A G once made is reused,
 * never unmade.
 *
 * gFree: each process keeps dead slots; the surplus lies in a pool (pool.c).
 */
#include "pool.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK 64                      /* slots that move between a process and the global list at once */
#define GOIDS 16                      /* goids that a process takes at once, as in Go */
#define KEEP 4096                     /* dead slots a process keeps for itself */

/* Where there are few slots nobody keeps many from others. */
static uint32_t keep(struct view *v) {
    uint32_t n = v->seg->nslots / 64;
    return n > KEEP ? KEEP : n ? n : 1;
}
static uint32_t chunk(struct view *v) { return keep(v) < CHUNK ? keep(v) : CHUNK; }

static uint32_t slots_in_use(struct view *v) { return (uint32_t)load_acq(&v->seg->gfree.next); }

uint32_t gfree_sweep(struct view *v) { return pool_sweep(v, &v->seg->gfree); }

static void reserve(struct view *v, uint32_t n) {
    if (n <= v->free_cap) return;
    uint32_t *grown = realloc(v->free, 2 * n * sizeof *grown);
    if (!grown) throw(v, "out of memory");
    v->free = grown, v->free_cap = 2 * n;
}

/* A dead slot becomes ours to fill. */
struct g *gfget(struct view *v, uint32_t *index) {
    if (v->nfree == 0) {
        reserve(v, CHUNK);
        v->nfree = pool_take(v, &v->seg->gfree, v->free, chunk(v));
        if (v->nfree == 0) return NULL;
    }
    *index = v->free[--v->nfree];
    struct g *g = &v->allgs[*index];
    uint64_t s = load_acq(&g->state);
    if (GSTATUS(s) != G_DEAD) throw(v, "gfget: G %u is not dead", *index);
    g->args = g->result = 0;
    store_rlx(&g->deps, 0);
    store_rlx(&g->dependents, 0);
    store_rlx(&g->flags, 0);
    KILLPOINT(gfget_before);
    store_rel(&g->state, GSTATE(G_ALLOCATED, NO_M, 0, GGEN(s)));
    KILLPOINT(gfget_after);
    if (v->goid_next == v->goid_end) {
        v->goid_next = atomic_fetch_add_explicit(&v->seg->sched.goidgen, GOIDS, memory_order_relaxed) + 1;
        v->goid_end = v->goid_next + GOIDS;
    }
    g->goid = v->goid_next++;
    struct m *m = self_m(v);
    store_rlx(&m->n_spawned, load_rlx(&m->n_spawned) + 1);
    return g;
}

/* The slot is G_DEAD and ours. */
void gfput(struct view *v, uint32_t index) {
    if (v->nfree >= keep(v)) {
        uint32_t n = chunk(v);
        v->nfree -= n;
        pool_put(v, &v->seg->gfree, &v->free[v->nfree], n);
    }
    reserve(v, v->nfree + 1);
    v->free[v->nfree++] = index;
}

void gfflush(struct view *v) {
    if (v->nfree) pool_put(v, &v->seg->gfree, v->free, v->nfree);
    v->nfree = 0;
}

/* Whoever popped the word becomes the one that runs it, or finds that another did. */
int gclaim(struct view *v, uint64_t w) {
    struct g *g = &v->allgs[gword_index(w)];
    struct m *m = self_m(v);
    uint64_t s = load_acq(&g->state);
    KILLPOINT(gclaim_before);
    int won = GSTATUS(s) == G_RUNNABLE && GGEN(s) == gword_gen(w) &&
              atomic_compare_exchange_strong(&g->state, &s, GSTATE(G_RUNNING, v->self, GATTEMPT(s) + 1, GGEN(s)));
    if (won) {
        KILLPOINT(gclaim_after);
        store_rel(&m->curg, w);
        store_rlx(&m->n_executed, load_rlx(&m->n_executed) + 1);
    }
    store_rel(&m->popping, 0);
    return won;
}

/* Whoever has done what G w waits for calls this, on any process, after it has published that.  A G that is about to park
 * looks once more after it has said so; one call too many makes it look early. */
void gready(struct view *v, uint64_t w) {
    uint64_t s = atomic_load(&v->allgs[gword_index(w)].state);
    if (GGEN(s) == gword_gen(w) && (GSTATUS(s) == G_RUNNING || GSTATUS(s) == G_WAITING)) inbox_push(v, GM(s), w);
}

/* The permit is set before its state is read in gready; it looks for one after it has said that it waits.  If it ends in this
 * moment, the next G of the slot has a permit that nobody gave: its gopark comes back early, which every caller expects. */
int ggrant(struct view *v, uint64_t w) {
    struct g *g = &v->allgs[gword_index(w)];
    uint64_t s = atomic_load(&g->state);
    if ((GSTATUS(s) != G_RUNNING && GSTATUS(s) != G_WAITING) || GGEN(s) != gword_gen(w)) return 0;
    atomic_fetch_or(&g->flags, G_PERMIT);
    gready(v, w);
    return 1;
}

int gcas(struct view *v, uint64_t w, uint32_t from, uint32_t to) {
    struct g *g = &v->allgs[gword_index(w)];
    uint64_t s = load_acq(&g->state);
    return GSTATUS(s) == from && GM(s) == v->self && GGEN(s) == gword_gen(w) &&
           atomic_compare_exchange_strong(&g->state, &s, GSTATE(to, v->self, GATTEMPT(s), GGEN(s)));
}

void gset_result(struct view *v, struct g *g, uint32_t kind, const void *data, uint64_t len) {
    char *to = g->inline_result;
    if (len > INLINE_RESULT) {
        g->result = heap_alloc(v, len);
        if (g->result) {
            heap_use(v, g->result);
            to = at(v, g->result);
        } else {
            len = kind == RESULT_WORKER_DIED ? DEATH_PREFIX : 0;    /* which is told, if not how */
            if (!len) kind = RESULT_NO_MEMORY;
        }
    }
    memcpy(to, data, len);
    g->result_len = len, g->result_kind = kind;
}

static int deps_ready(struct deps *d) {
    uint64_t i = load_acq(&d->first);
    while (i < d->n && atomic_load(&d->dep[i].done) != DEP_WAITS) i++;
    store_rel(&d->first, i);
    return i == d->n;
}

/* The last dependency of target is done: it becomes runnable, once. */
static void gready_target(struct view *v, uint64_t w) {
    struct g *g = &v->allgs[gword_index(w)];
    struct m *m = self_m(v);
    uint64_t s = atomic_load(&g->state);
    if (GSTATUS(s) != G_DEPS || GATTEMPT(s) || GGEN(s) != gword_gen(w)) return;  /* or it waits to be run again */
    if (!deps_ready(at(v, load_acq(&g->deps)))) return;
    store_rlx(&m->intent_n, 0);
    store_rlx(&m->intent_extra, w);
    store_rel(&m->intent, INTENT_RANGE);
    KILLPOINT(gready_target_before);
    if (atomic_compare_exchange_strong(&g->state, &s, GSTATE(G_RUNNABLE, NO_M, 0, GGEN(s)))) {
        KILLPOINT(gready_target_after);
        globrunqput(v, w);
        wakep(v);
    }
    store_rel(&m->intent, INTENT_NONE);
}

/* The result is there: the Gs that wait for it learn of it.  Their records stay until this G is collected. */
void gwake_dependents(struct view *v, uint32_t index) {
    struct g *g = &v->allgs[index];
    uint64_t list = atomic_fetch_or(&g->dependents, DEPS_CLOSED) & ~DEPS_CLOSED;
    for (struct dep *d; list; list = d->next) {
        d = at(v, list);
        atomic_store(&d->done, DEP_DONE);
        gready_target(v, d->target);
    }
}

void gtell(struct view *v, uint32_t index) {
    struct g *g = &v->allgs[index];
    uint32_t owner = load_acq(&g->owner);
    if (owner) inbox_push(v, owner - 1, gword(index, GGEN(load_acq(&g->state))));
}

/* The result is written: who waits for it learns of it. */
static void gfinish(struct view *v, uint32_t index) {
    struct g *g = &v->allgs[index];
    uint64_t s = load_rlx(&g->state);
    KILLPOINT(gfinish_before);
    atomic_store(&g->state, GSTATE(G_DONE, v->self, GATTEMPT(s), GGEN(s)));
    KILLPOINT(gfinish_after);
    if (load_rlx(&self_m(v)->curg) == gword(index, GGEN(s))) store_rel(&self_m(v)->curg, 0);   /* not if it never ran */
    gwake_dependents(v, index);
    KILLPOINT(gfinish_woken);
    gtell(v, index);
    KILLPOINT(gfinish_told);
}

/* Exactly one completion wins: the CAS to G_COMPLETING gives the right to write the result.  Only after its word has been
 * pushed can the owner collect the G, so the slot is ours until then. */
int gcomplete(struct view *v, uint64_t w, uint32_t kind, const void *data, uint64_t len) {
    KILLPOINT(gcomplete_before);
    if (!gcas(v, w, G_RUNNING, G_COMPLETING)) return 0;
    KILLPOINT(gcomplete_after);
    gset_result(v, &v->allgs[gword_index(w)], kind, data, len);
    gfinish(v, gword_index(w));
    return 1;
}

/* The same with a block that we hold, which is the slot's from here on. */
int gcomplete_with(struct view *v, uint64_t w, uint32_t kind, uint64_t block, uint64_t len) {
    struct g *g = &v->allgs[gword_index(w)];
    KILLPOINT(gcomplete_before);
    if (!gcas(v, w, G_RUNNING, G_COMPLETING)) return 0;
    KILLPOINT(gcomplete_after);
    g->result = block, g->result_len = len, g->result_kind = kind;
    heap_use(v, block);
    gfinish(v, gword_index(w));
    return 1;
}

void tell_coordinator(struct view *v, uint64_t w) {
    inbox_push(v, coordinator_of(v), w);
    wake_coordinator(v);
}

/* Our running G is to be run again: it is as if nobody had begun it, but for its attempts; and
 * that it has been asked to end, if somebody has just done so.  at: not before then; it waits, as
 * for another G, and the coordinator makes it runnable.  `popping` names it until it is in somebody's hands. */
int gagain(struct view *v, uint64_t w, uint64_t at) {
    struct g *g = &v->allgs[gword_index(w)];
    struct m *m = self_m(v);
    uint64_t s = load_acq(&g->state), to = at ? G_DEPS : G_RUNNABLE;
    if (GM(s) != v->self || GGEN(s) != gword_gen(w)) return 0;
    store_rel(&m->popping, w);
    atomic_fetch_and(&g->flags, G_CARRIES | G_ASKED | G_TO_RAISE);
    if (gterms(v, g)) store_rel(&gterms(v, g)->ends, 0), store_rel(&gterms(v, g)->again, at);
    if (load_rlx(&m->curg) == w) store_rel(&m->curg, 0);
    KILLPOINT(gagain_before);
    atomic_store(&g->state, GSTATE(to, NO_M, GATTEMPT(s), GGEN(s)));
    KILLPOINT(gagain_after);
    if (at) tell_coordinator(v, w);
    else globrunqput(v, w), wakep(v);
    store_rel(&m->popping, 0);
    return 1;
}

/* The time has come for one that waits for it.  0: it does not any more. */
int gdue(struct view *v, uint64_t w) {
    struct g *g = &v->allgs[gword_index(w)];
    uint64_t s = atomic_load(&g->state);
    if (GSTATUS(s) != G_DEPS || GGEN(s) != gword_gen(w)) return 0;
    if (!atomic_compare_exchange_strong(&g->state, &s, GSTATE(G_RUNNABLE, NO_M, GATTEMPT(s), GGEN(s)))) return 0;
    globrunqput(v, w);
    wakep(v);
    return 1;
}

/* Its owner drops a G that nobody has begun: it ends as cancelled, without a word why, and is told of and collected like any
 * other.  Whoever pops its word afterwards claims in vain, and whoever completes what it waits for readies nothing; its
 * records stay as they were.  1: in time. */
int gcancel(struct view *v, uint64_t w) {
    struct g *g = &v->allgs[gword_index(w)];
    uint64_t s = load_acq(&g->state);
    do {
        if ((GSTATUS(s) != G_RUNNABLE && GSTATUS(s) != G_DEPS) || GGEN(s) != gword_gen(w)) return 0;
        KILLPOINT(gcancel_before);
    } while (!atomic_compare_exchange_strong(&g->state, &s, GSTATE(G_COMPLETING, v->self, GATTEMPT(s), GGEN(s))));
    KILLPOINT(gcancel_after);
    gset_result(v, g, RESULT_CANCELLED, "", 0);
    gfinish(v, gword_index(w));
    return 1;
}

/* A started G is asked to end, by its owner, which alone lets the slot be used again, or while its M is stopped: the flags are
 * this G's, and what one thread of its owner has begun nobody need finish, as the G ends with its owner.  Set before
 * its state is read; it looks at them after it has said that it waits.  0: it has ended. */
int gask(struct view *v, uint64_t w) {
    struct g *g = &v->allgs[gword_index(w)];
    uint64_t s = atomic_load(&g->state);
    if ((GSTATUS(s) != G_RUNNING && GSTATUS(s) != G_WAITING) || GGEN(s) != gword_gen(w)) return 0;
    uint32_t was = atomic_fetch_or(&g->flags, G_ASKED | G_TO_RAISE);
    if (was & G_TO_RAISE) return 2;                           /* it has not looked since: no inbox need fill with this */
    gready(v, w);
    return 1;
}

/* w waits for every G of its deps block (their owner is ours, and pins them).  1: all are done, it is the caller's to
 * make runnable; 0: the completer of the last one does. */
int gwait_for(struct view *v, uint64_t w) {
    struct g *g = &v->allgs[gword_index(w)];
    struct deps *deps = at(v, load_rlx(&g->deps));
    for (uint64_t i = 0; i < deps->n; i++) deps->dep[i].target = w;
    KILLPOINT(gwait_for_before);
    atomic_store(&g->state, GSTATE(G_DEPS, NO_M, 0, gword_gen(w)));
    for (uint64_t i = 0; i < deps->n; i++) {
        struct dep *d = &deps->dep[i];
        struct g *on = &v->allgs[d->on];
        uint64_t top = atomic_load(&on->dependents);
        do {
            if (top & DEPS_CLOSED) {
                atomic_store(&d->done, DEP_NEVER_LINKED);
                break;
            }
            d->next = top;
        } while (!atomic_compare_exchange_weak(&on->dependents, &top, (uint64_t)((char *)d - (char *)v->seg)));
    }
    KILLPOINT(gwait_for_linked);
    uint64_t s = atomic_load(&g->state);
    return GSTATUS(s) == G_DEPS && deps_ready(deps) &&
           atomic_compare_exchange_strong(&g->state, &s, GSTATE(G_RUNNABLE, NO_M, 0, GGEN(s)));
}

/* A word from the inbox of its owner.  Repair makes a finished G unfinished for a moment (tell_again) and then tells once
 * more, so who finds it so drops the word; who has read the result collects, and if that fails drops the word too. */
int gdone(struct view *v, uint64_t w) {
    uint64_t s = load_acq(&v->allgs[gword_index(w)].state);
    return !(w & GWORD_TOKEN) && GSTATUS(s) == G_DONE && GGEN(s) == gword_gen(w);
}

/* 1 the first time, for a G of ours that has finished. */
int gcollect(struct view *v, uint64_t w) {
    struct g *g = &v->allgs[gword_index(w)];
    uint64_t s = load_acq(&g->state);
    KILLPOINT(gcollect_before);
    int won = !(w & GWORD_TOKEN) && GSTATUS(s) == G_DONE && GGEN(s) == gword_gen(w) &&
              atomic_compare_exchange_strong(&g->state, &s, GSTATE(G_COLLECTED, NO_M, 0, GGEN(s)));
    KILLPOINT(gcollect_after);
    return won;
}

/* Only the owner, or who adopts for it.  The blocks are held while the references go, so that our death loses none. */
void gclear(struct view *v, uint32_t index) {
    struct g *g = &v->allgs[index];
    uint64_t s = load_acq(&g->state), blocks[4] = {g->args, g->result, load_rlx(&g->deps), load_rlx(&g->terms)};
    for (int i = 0; i < 4; i++)
        if (blocks[i]) heap_hold(v, blocks[i]);
    int carries = (load_rlx(&g->flags) & G_CARRIES) != 0;
    g->args = g->result = 0;
    store_rlx(&g->deps, 0);
    store_rlx(&g->terms, 0);
    KILLPOINT(gclear_before);
    atomic_store(&g->state, GSTATE(G_DEAD, NO_M, 0, GGEN(s) + 1));
    KILLPOINT(gclear_after);
    if (carries) object_orphaned(v);
    for (int i = 0; i < 4; i++)
        if (blocks[i]) heap_free(v, blocks[i]);
    gfput(v, index);
}

void gdiscard(struct view *v, uint32_t index) {
    struct m *m = self_m(v);
    gclear(v, index);
    store_rlx(&m->n_collected, load_rlx(&m->n_collected) + 1);
}

uint64_t gunfinished(struct view *v, uint32_t client) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < slots_in_use(v); i++) {
        uint32_t status = GSTATUS(load_acq(&v->allgs[i].state));
        n += status >= G_DEPS && status <= G_COMPLETING && load_acq(&v->allgs[i].client) == client;
    }
    return n;
}
