/* gslab.c: allgs, the slots of all Gs, and gFree (Go: allgs, gfget, gfput, casgstatus).
 *
 * A slot's life: G_DEAD -> G_ALLOCATED (owner fills it) -> [G_DEPS] -> G_RUNNABLE -> G_RUNNING <-> G_WAITING ->
 * G_COMPLETING -> G_DONE -> (owner has read the result) G_DEAD with the next generation.  The state word decides: queues
 * may hold a word twice, and whoever wins the CAS from G_RUNNABLE runs it.  A G once made is reused, never unmade.
 */
#include "core.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK 64                      /* slots that move between a process and the global list at once */
#define KEEP 4096                     /* dead slots a process keeps for itself */

static void refill(struct view *v) {
    uint64_t ws[CHUNK];
    uint32_t n = lring_get(v, &v->seg->gfree, ws, CHUNK);
    if (n == 0) {
        uint64_t first = load_rlx(&v->seg->sched.g_next);
        if (first >= v->seg->nslots) return;
        first = atomic_fetch_add(&v->seg->sched.g_next, CHUNK);
        for (; n < CHUNK && first + n < v->seg->nslots; n++) ws[n] = first + n;
    }
    if (v->nfree + n > v->free_cap) {
        uint32_t cap = v->free_cap ? 2 * v->free_cap : 1024;
        uint32_t *grown = realloc(v->free, cap * sizeof *grown);
        if (!grown) throw(v, "out of memory");
        v->free = grown, v->free_cap = cap;
    }
    while (n--) {
        store_rel(&v->allgs[ws[n]].owner, v->self);           /* so that repair finds it when we die */
        v->free[v->nfree++] = (uint32_t)ws[n];
    }
}

/* A dead slot becomes ours to fill. */
struct g *gfget(struct view *v, uint32_t *index) {
    if (v->nfree == 0) refill(v);
    if (v->nfree == 0) return NULL;
    *index = v->free[--v->nfree];
    struct g *g = &v->allgs[*index];
    uint64_t s = load_acq(&g->state);
    if (GSTATUS(s) != G_DEAD) throw(v, "gfget: G %u is not dead", *index);
    g->args = g->result = g->deps = 0;
    store_rlx(&g->dependents, 0);
    store_rlx(&g->flags, 0);
    store_rel(&g->state, GSTATE(G_ALLOCATED, NO_M, 0, GGEN(s)));
    g->goid = atomic_fetch_add_explicit(&v->seg->sched.goidgen, 1, memory_order_relaxed) + 1;
    struct m *m = self_m(v);
    store_rlx(&m->n_spawned, load_rlx(&m->n_spawned) + 1);
    return g;
}

/* The slot is G_DEAD and ours. */
void gfput(struct view *v, uint32_t index) {
    if (v->nfree >= KEEP || v->nfree == v->free_cap) {
        uint64_t ws[CHUNK + 1];
        uint32_t n = 0;
        while (n < CHUNK && v->nfree) {
            uint32_t i = v->free[--v->nfree];
            store_rel(&v->allgs[i].owner, NONE);
            ws[n++] = i;
        }
        if (v->nfree == v->free_cap) {
            store_rel(&v->allgs[index].owner, NONE);
            ws[n++] = index;
            lring_put(v, &v->seg->gfree, ws, n);
            return;
        }
        if (n) lring_put(v, &v->seg->gfree, ws, n);
    }
    v->free[v->nfree++] = index;
}

/* Whoever popped the word becomes the one that runs it, or finds that another did. */
int gclaim(struct view *v, uint64_t w) {
    struct g *g = &v->allgs[gword_index(w)];
    struct m *m = self_m(v);
    uint64_t s = load_acq(&g->state);
    int won = GSTATUS(s) == G_RUNNABLE && GGEN(s) == gword_gen(w) &&
              atomic_compare_exchange_strong(&g->state, &s, GSTATE(G_RUNNING, v->self, GATTEMPT(s) + 1, GGEN(s)));
    if (won) {
        store_rel(&m->curg, w);
        store_rlx(&m->n_executed, load_rlx(&m->n_executed) + 1);
    }
    store_rel(&m->popping, 0);
    return won;
}

int gcas(struct view *v, uint64_t w, uint32_t from, uint32_t to) {
    struct g *g = &v->allgs[gword_index(w)];
    uint64_t s = load_acq(&g->state);
    return GSTATUS(s) == from && GM(s) == v->self && GGEN(s) == gword_gen(w) &&
           atomic_compare_exchange_strong(&g->state, &s, GSTATE(to, v->self, GATTEMPT(s), GGEN(s)));
}

void gset_result(struct view *v, struct g *g, uint32_t kind, const void *data, uint64_t len) {
    char *to = g->inline_result;
    g->result = 0;
    if (len > INLINE_RESULT) {
        g->result = heap_alloc(v, len);
        if (g->result) to = at(v, g->result);
        else kind = RESULT_NO_MEMORY, len = 0;
    }
    memcpy(to, data, len);
    g->result_len = len, g->result_kind = kind;
}

static int deps_ready(struct deps *d) {
    for (uint64_t i = 0; i < d->n; i++)
        if (!atomic_load(&d->dep[i].done)) return 0;
    return 1;
}

/* The last dependency of target is done: it becomes runnable, once. */
static void gready_target(struct view *v, uint64_t w) {
    struct g *g = &v->allgs[gword_index(w)];
    struct m *m = self_m(v);
    uint64_t s = atomic_load(&g->state);
    if (GSTATUS(s) != G_DEPS || GGEN(s) != gword_gen(w)) return;
    if (!deps_ready(at(v, g->deps))) return;
    store_rlx(&m->intent_n, 0);
    store_rlx(&m->intent_extra, w);
    store_rel(&m->intent, INTENT_RANGE);
    if (atomic_compare_exchange_strong(&g->state, &s, GSTATE(G_RUNNABLE, NO_M, 0, GGEN(s)))) {
        globrunqput(v, w);
        wakep(v);
    }
    store_rel(&m->intent, INTENT_NONE);
}

/* The result is there (G_DONE): the Gs that wait for it, then its owner, learn of it.  May be repeated. */
void gfinish(struct view *v, uint32_t index) {
    struct g *g = &v->allgs[index];
    uint64_t list = atomic_fetch_or(&g->dependents, DEPS_CLOSED) & ~DEPS_CLOSED;
    while (list) {
        struct dep *d = at(v, list);
        uint64_t next = d->next, target = d->target;          /* after the last mark the block may go */
        atomic_store(&d->done, 1);
        gready_target(v, target);
        list = next;
    }
    uint32_t owner = load_acq(&g->owner);
    if (owner != NONE) inbox_push(v, owner, gword(index, GGEN(load_acq(&g->state))));
}

/* Exactly one completion wins: the CAS to G_COMPLETING gives the right to write the result. */
int gcomplete(struct view *v, uint64_t w, uint32_t kind, const void *data, uint64_t len) {
    uint32_t index = gword_index(w);
    struct g *g = &v->allgs[index];
    if (!gcas(v, w, G_RUNNING, G_COMPLETING)) return 0;
    gset_result(v, g, kind, data, len);
    uint64_t s = load_rlx(&g->state);
    atomic_store(&g->state, GSTATE(G_DONE, v->self, GATTEMPT(s), GGEN(s)));
    store_rel(&self_m(v)->curg, 0);
    gfinish(v, index);
    return 1;
}

/* w waits for every G of its deps block (their owner is ours, and pins them).  1: all are done, it is the caller's to
 * make runnable; 0: the completer of the last one does. */
int gwait_for(struct view *v, uint64_t w, uint64_t deps_off) {
    struct g *g = &v->allgs[gword_index(w)];
    struct deps *deps = at(v, deps_off);
    g->deps = deps_off;
    for (uint64_t i = 0; i < deps->n; i++) deps->dep[i].target = w;
    atomic_store(&g->state, GSTATE(G_DEPS, NO_M, 0, gword_gen(w)));
    for (uint64_t i = 0; i < deps->n; i++) {
        struct dep *d = &deps->dep[i];
        struct g *on = &v->allgs[d->on];
        uint64_t top = atomic_load(&on->dependents);
        do {
            if (top & DEPS_CLOSED) {
                atomic_store(&d->done, 1);
                break;
            }
            d->next = top;
        } while (!atomic_compare_exchange_weak(&on->dependents, &top, (uint64_t)((char *)d - (char *)v->seg)));
    }
    uint64_t s = atomic_load(&g->state);
    return GSTATUS(s) == G_DEPS && deps_ready(deps) &&
           atomic_compare_exchange_strong(&g->state, &s, GSTATE(G_RUNNABLE, NO_M, 0, GGEN(s)));
}

/* Only the owner, after it has read the result. */
void gdiscard(struct view *v, uint32_t index) {
    struct g *g = &v->allgs[index];
    uint64_t s = load_acq(&g->state), args = g->args, result = g->result, deps = g->deps;
    g->args = g->result = g->deps = 0;
    atomic_store(&g->state, GSTATE(G_DEAD, NO_M, 0, GGEN(s) + 1));
    if (args) heap_free(v, args);
    if (result) heap_free(v, result);
    if (deps) heap_free(v, deps);
    struct m *m = self_m(v);
    store_rlx(&m->n_collected, load_rlx(&m->n_collected) + 1);
    gfput(v, index);
}
