/* object.c: shared objects: channels and what parks Gs otherwise; a table of them, and how long each lives.
 *
 * An entry of the table names the block with the object's body, and says by one bit for each process who has Python objects
 * for it.  The bits lie in the table, which is never unmade: a process that comes too late sets a bit of another object's,
 * sees by the generation that it did, and takes it back.
 *
 * Life.  An object that was never pickled is its maker's alone, and ends as that drops it.  One that was (`escaped`) may
 * also be referred to by payloads on their way: arguments and results of Gs, messages in channels, functions in the
 * table.  Nobody counts these references, as who counts may die: now and then the coordinator looks which objects have a
 * holder or are in a payload that can still be received, and ends the others (object_trace).  Payloads say what they hold at
 * their ends.
 *
 * A reference moves while the coordinator looks, so it looks at payloads first, at holders last: who takes a payload out
 * becomes a holder before the payload goes.  Who puts one in notes the number of the trace (`touched`) after that and
 * before it lets go; what was touched during a trace stays.
 *
 * Each entry has an owner (pool.c) while it is made or ended, so that who dies then is repaired: objects_forget.
 */
#include "sudog.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

static struct object *entry(struct view *v, uint32_t i) { return pool_at(v, &v->seg->objects, i); }
static uint32_t in_use(struct view *v) { return (uint32_t)load_acq(&v->seg->objects.next); }
static uint32_t words(struct view *v) { return (v->seg->nms + 63) / 64; }
static struct body *body_at(struct view *v, uint64_t off) { return at(v, (off + 63) & ~63ull); }

static int is_live(uint64_t state, uint64_t word) { return OPHASE(state) == O_LIVE && GGEN(state) == gword_gen(word); }


/* The coordinator is none: its bit is a pin. */
static int has_holders(struct view *v, struct object *o) {
    uint32_t c = coordinator_of(v);
    for (uint32_t i = 0; i < words(v); i++)
        if (atomic_load(&o->holders[i]) & ~(i == c / 64 ? 1ull << (c % 64) : 0)) return 1;
    return 0;
}
static int is_pinned(struct view *v, struct object *o) {
    uint32_t c = coordinator_of(v);
    return (int)(atomic_load(&o->holders[c / 64]) >> (c % 64) & 1);
}
static int set_holder(struct object *o, uint32_t m) {         /* 1: it was none */
    return !(atomic_fetch_or(&o->holders[m / 64], 1ull << (m % 64)) >> (m % 64) & 1);
}
static int clear_holder(struct object *o, uint32_t m) {       /* 1: it was one */
    return (int)(atomic_fetch_and(&o->holders[m / 64], ~(1ull << (m % 64))) >> (m % 64) & 1);
}

static const struct object_type *types[NTYPES] = {[TYPE_CHAN] = &chan_type, [TYPE_SEMA] = &sema_type};

const struct object_type *object_type_of(struct view *v, uint64_t word) {
    return types[OTYPE(load_acq(&entry(v, gword_index(word))->state))];
}

/* ---------------------------------------------------------------- making and ending */
struct body *object_make(struct view *v, uint32_t type, uint64_t size, uint64_t zeroed, uint64_t *word) {
    uint32_t i;
    if (size > v->seg->heap.size || !pool_take(v, &v->seg->objects, &i, 1)) return NULL;
    struct object *o = entry(v, i);
    uint64_t gen = GGEN(load_acq(&o->state));
    store_rlx(&o->escaped, 0);
    store_rlx(&o->touched, 0);
    store_rel(&o->state, OSTATE(O_MAKING, type, gen));
    uint64_t off = heap_alloc(v, size + 64);                  /* room to lie on a cache line */
    if (!off) {
        store_rel(&o->state, OSTATE(O_FREE, 0, gen));
        pool_put(v, &v->seg->objects, &i, 1);
        return NULL;
    }
    struct body *b = body_at(v, off);
    memset(b, 0, zeroed);
    if (lock_init(&b->lock)) throw(v, "a mutex of the segment cannot be made");
    b->word = *word = gword(i, gen);
    o->off = off;
    heap_use(v, off);
    return b;
}

void object_publish(struct view *v, uint64_t word) {
    struct object *o = entry(v, gword_index(word));
    uint64_t s = load_rlx(&o->state);
    set_holder(o, v->self);
    KILLPOINT(object_publish_before);
    atomic_store(&o->state, OSTATE(O_LIVE, OTYPE(s), GGEN(s)));
    store_rel(&o->owner, POOL_SHARED);
}

/* Its entry is ours, in phase O_MAKING or O_ENDING, and nobody refers to it. */
static void end(struct view *v, uint32_t i) {
    struct object *o = entry(v, i);
    uint64_t s = load_rlx(&o->state), off = o->off;
    KILLPOINT(object_end_before);
    if (off) {
        if (OPHASE(s) == O_ENDING && types[OTYPE(s)]->end) types[OTYPE(s)]->end(v, body_at(v, off));
        heap_hold(v, off);
        o->off = 0;
        heap_free(v, off);
    }
    atomic_store(&o->state, OSTATE(O_FREE, 0, GGEN(s) + 1));
    pool_put(v, &v->seg->objects, &i, 1);
}

void object_orphaned(struct view *v) {
    atomic_fetch_add(&v->seg->orphans, 1);
    sysmon_wake(v);
}

void object_drop(struct view *v, uint64_t word) {
    struct object *o = entry(v, gword_index(word));
    uint64_t s = load_acq(&o->state);
    if (load_acq(&o->escaped)) {
        clear_holder(o, v->self);
        if (!has_holders(v, o)) object_orphaned(v);
        return;
    }
    store_rel(&o->owner, v->self + 1);                        /* nobody else can refer to it */
    atomic_store(&o->state, OSTATE(O_ENDING, OTYPE(s), GGEN(s)));
    clear_holder(o, v->self);
    if (is_pinned(v, o)) {                                    /* the coordinator looks at it now, and ends it later */
        store_rel(&o->escaped, 1);
        atomic_store(&o->state, s);
        store_rel(&o->owner, POOL_SHARED);
        object_orphaned(v);
        return;
    }
    end(v, gword_index(word));
}

/* The coordinator: nobody ends it meanwhile.  Its body, or NULL. */
static struct body *pin(struct view *v, uint32_t i) {
    struct object *o = entry(v, i);
    set_holder(o, coordinator_of(v));
    if (OPHASE(atomic_load(&o->state)) == O_LIVE) return body_at(v, o->off);
    clear_holder(o, coordinator_of(v));
    return NULL;
}
static void unpin(struct view *v, uint32_t i) { clear_holder(entry(v, i), coordinator_of(v)); }

/* Our bit, then the look at its phase; who ends it does it in reverse. */
int object_hold(struct view *v, uint64_t word) {
    if (gword_index(word) >= in_use(v)) return 0;
    struct object *o = entry(v, gword_index(word));
    int is_new = set_holder(o, v->self);
    uint64_t s = atomic_load(&o->state);
    for (; OPHASE(s) == O_ENDING && GGEN(s) == gword_gen(word); s = atomic_load(&o->state)) sched_yield();
    if (is_live(s, word)) return (int)OTYPE(s);
    if (is_new) clear_holder(o, v->self);
    return 0;
}

void object_escape(struct view *v, uint64_t word) { store_rel(&entry(v, gword_index(word))->escaped, 1); }

void object_lock(struct view *v, struct body *b) {
    if (lock_robust(v, &b->lock)) object_type_of(v, b->word)->fix(v, b);
}

struct body *object_body(struct view *v, uint64_t word) {
    struct object *o = entry(v, gword_index(word));
    return gword_index(word) < in_use(v) && is_live(load_acq(&o->state), word) ? body_at(v, o->off) : NULL;
}

uint64_t objects_live(struct view *v) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < in_use(v); i++) n += OPHASE(load_acq(&entry(v, i)->state)) == O_LIVE;
    return n;
}

/* ---------------------------------------------------------------- payloads */
uint64_t payload_objects(const char *data, uint64_t len, const char **at_words) {
    uint64_t n, magic;
    if (len < 16) return 0;
    memcpy(&magic, data + len - 8, 8);
    if (magic != OBJECTS_MAGIC) return 0;
    memcpy(&n, data + len - 16, 8);
    if (n > (len - 16) / 8) return 0;
    *at_words = data + len - 16 - 8 * n;
    return n;
}

/* Another process may free the block as we read it: nothing in it is believed. */
uint64_t block_objects(struct view *v, uint64_t off, uint64_t len, const char **at_words) {
    uint64_t end = v->seg->heap.base + v->seg->heap.size;
    if (off < v->seg->heap.base || off >= end || len > end - off) return 0;
    if (!is_shared(v, off)) return payload_objects(at(v, off), len, at_words);
    const uint64_t *head = shared_content(v, off);
    uint64_t begin = (uint64_t)((const char *)head - (const char *)v->seg);
    if (begin >= end || len > end - begin) return 0;
    if (len < 16 || head[0] < 2 || head[0] > len / 8 - 1) return 0;
    uint64_t n = head[0], last = head[n], at = (8 + 8 * n + 63) & ~63ull;
    for (uint64_t i = 0; i + 1 < n && at < len; i++) at += (head[1 + i] + 63) & ~63ull;
    return at < len && last <= len - at ? payload_objects((const char *)head + at, last, at_words) : 0;
}

static uint64_t word_of(const char *at_words, uint64_t i) {
    uint64_t w;
    memcpy(&w, at_words + 8 * i, 8);
    return w;
}

void objects_travel(struct view *v, const char *at_words, uint64_t n) {
    uint64_t trace = atomic_fetch_add(&v->seg->trace, 0);     /* a fence too: who counts a trace after this finds the payload */
    for (uint64_t i = 0; i < n; i++) {
        uint64_t w = word_of(at_words, i);
        if (gword_index(w) < in_use(v)) atomic_store(&entry(v, gword_index(w))->touched, trace);
    }
}

/* ---------------------------------------------------------------- the trace */
struct edge { uint32_t to, next; };
struct trace {
    struct view *v;
    unsigned char *found;             /* of each object */
    uint32_t *edges;                  /* of each: its first edge + 1 */
    struct edge *edge;
    uint32_t nedges, room, from;      /* from: whose contents are being looked at; NONE_OF: everybody's */
    int failed;
    uint32_t top;                     /* objects made meanwhile, beyond it, are not looked at */
};
#define NONE_OF 0xffffffffu

static void add_edge(struct trace *t, uint32_t to) {
    if (t->nedges == t->room) {
        uint32_t room = t->room ? 2 * t->room : 1024;
        struct edge *grown = realloc(t->edge, room * sizeof *grown);
        if (!grown) {
            t->failed = 1;
            return;
        }
        t->edge = grown, t->room = room;
    }
    t->edge[t->nedges] = (struct edge){to, t->edges[t->from]};
    t->edges[t->from] = ++t->nedges;
}

static uint64_t elem_objects(struct view *v, const struct elem *e, const char **at_words) {
    if (!(e->kind & ELEM_OBJECTS)) return 0;
    if (e->off) return block_objects(v, e->off, e->len, at_words);
    return e->len <= ELEM_INLINE ? payload_objects(e->bytes, e->len, at_words) : 0;
}

void elem_hold(struct view *v, const struct elem *e) {
    const char *at_words;
    uint64_t n = elem_objects(v, e, &at_words);
    for (uint64_t i = 0; i < n; i++) object_hold(v, word_of(at_words, i));
}

void elem_travels(struct view *v, const struct elem *e) {
    const char *at_words;
    uint64_t n = elem_objects(v, e, &at_words);
    if (n) objects_travel(v, at_words, n);
}

void elem_seen(struct view *v, void *to, const struct elem *e) {
    const char *at_words;
    uint64_t n = elem_objects(v, e, &at_words);
    if (n) object_seen(to, at_words, n);
}

void object_seen(void *to, const char *at_words, uint64_t n) {
    struct trace *t = to;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t w = word_of(at_words, i);
        if (gword_index(w) >= t->top || !is_live(load_acq(&entry(t->v, gword_index(w))->state), w)) continue;
        if (t->from == NONE_OF) t->found[gword_index(w)] = 1;
        else add_edge(t, gword_index(w));
    }
}

static void seen_at(struct trace *t, uint64_t off, const char *bytes, uint64_t most, uint64_t len) {
    const char *at_words;
    uint64_t n = off ? block_objects(t->v, off, len, &at_words) : len <= most ? payload_objects(bytes, len, &at_words) : 0;
    if (n) object_seen(t, at_words, n);
}

static void look_at_gs(struct trace *t) {
    struct view *v = t->v;
    for (uint32_t i = 0; i < load_acq(&v->seg->gfree.next); i++) {
        struct g *g = &v->allgs[i];
        uint32_t status = GSTATUS(load_acq(&g->state));
        if (status != G_DEAD) seen_at(t, g->args, g->inline_args, INLINE_ARGS, g->args_len);
        if (status >= G_COMPLETING) seen_at(t, g->result, g->inline_result, INLINE_RESULT, g->result_len);
    }
}

static void look_at_functions(struct trace *t) {
    for (uint32_t i = 0; i < t->v->seg->nfns; i++)
        if (load_acq(&t->v->fns[i].hash)) seen_at(t, t->v->fns[i].off, NULL, 0, t->v->fns[i].len);
}

/* Of waits that go on, and what has come to those that have ended. */
static void look_at_sudogs(struct trace *t) {
    for (uint32_t i = 0; i < load_acq(&t->v->seg->sudogs.next); i++) elem_seen(t->v, t, &sudog_at(t->v, i)->elem);
}

static void look_into_objects(struct trace *t, uint32_t top) {
    for (t->from = 0; t->from < top; t->from++) {
        struct body *b = pin(t->v, t->from);
        if (!b) continue;
        const struct object_type *type = object_type_of(t->v, b->word);
        if (type->contents) {
            object_lock(t->v, b);
            type->contents(t->v, b, t);
            object_unlock(b);
        }
        unpin(t->v, t->from);
    }
    t->from = NONE_OF;
}

static void look_at_holders(struct trace *t, uint32_t top) {
    for (uint32_t i = 0; i < top; i++)
        if (has_holders(t->v, entry(t->v, i))) t->found[i] = 1;
}

/* What is found leads to what it contains. */
static void follow(struct trace *t, uint32_t top) {
    uint32_t *todo = malloc((top + 1) * sizeof *todo), n = 0;
    if (!todo) {
        t->failed = 1;
        return;
    }
    for (uint32_t i = 0; i < top; i++)
        if (t->found[i]) todo[n++] = i;
    while (n)
        for (uint32_t e = t->edges[todo[--n]]; e;) {
            struct edge *edge = &t->edge[e - 1];
            e = edge->next;
            if (edge->to >= top || t->found[edge->to]) continue;
            t->found[edge->to] = 1;
            todo[n++] = edge->to;
        }
    free(todo);
}

static int end_orphan(struct view *v, uint32_t i, uint64_t trace) {
    struct object *o = entry(v, i);
    uint64_t s = atomic_load(&o->state);
    if (OPHASE(s) != O_LIVE || !load_acq(&o->escaped)) return 0;
    if (atomic_load(&o->touched) >= trace) {                  /* to be looked at again */
        object_orphaned(v);
        return 0;
    }
    store_rel(&o->owner, v->self + 1);
    atomic_store(&o->state, OSTATE(O_ENDING, OTYPE(s), GGEN(s)));
    if (has_holders(v, o)) {                                  /* somebody came, and waits to see what becomes of it */
        atomic_store(&o->state, s);
        store_rel(&o->owner, POOL_SHARED);
        return 0;
    }
    end(v, i);
    return 1;
}

uint32_t object_trace(struct view *v) {
    uint32_t top = in_use(v), ended = 0;
    struct trace t = {v, calloc(top + 1, 1), calloc(top + 1, 4), NULL, 0, 0, NONE_OF, 0, top};
    uint64_t number = atomic_fetch_add(&v->seg->trace, 1) + 1;
    atomic_store(&v->seg->orphans, 0);
    if (t.found && t.edges) {
        look_at_gs(&t);
        look_at_functions(&t);
        look_at_sudogs(&t);
        look_into_objects(&t, top);
        look_at_sudogs(&t);                                   /* a message may have gone from a channel to who waits for it */
        look_at_holders(&t, top);
        follow(&t, top);
        for (uint32_t i = 0; i < top && !t.failed; i++)
            if (!t.found[i]) ended += (uint32_t)end_orphan(v, i, number);
    }
    free(t.found);
    free(t.edges);
    free(t.edge);
    return ended;
}

/* ---------------------------------------------------------------- repair */
void objects_fix(struct view *v) {
    for (uint32_t i = 0; i < in_use(v); i++) {
        struct body *b = pin(v, i);
        if (!b) continue;
        object_lock(v, b);
        object_unlock(b);
        unpin(v, i);
    }
}

static void forget(struct view *v, uint32_t i, uint32_t dead) {
    struct object *o = entry(v, i);
    uint64_t s = load_acq(&o->state);
    int was_its = load_acq(&o->owner) == dead + 1;
    if (was_its && o->off) heap_keep(v, o->off, dead);
    if (was_its && OPHASE(s) == O_FREE) {
        pool_put(v, &v->seg->objects, &i, 1);
    } else if (was_its && OPHASE(s) != O_LIVE) {
        clear_holder(o, dead);
        end(v, i);
    } else if (clear_holder(o, dead) && OPHASE(s) == O_LIVE) {
        if (was_its) store_rel(&o->owner, POOL_SHARED);
        if (has_holders(v, o)) return;
        if (load_acq(&o->escaped)) {
            object_orphaned(v);
            return;
        }
        store_rel(&o->owner, v->self + 1);
        atomic_store(&o->state, OSTATE(O_ENDING, OTYPE(s), GGEN(s)));
        end(v, i);
    }
}

static void forget_in(struct view *v, uint32_t i, uint32_t dead) {
    struct body *b = pin(v, i);
    if (!b) return;
    const struct object_type *type = object_type_of(v, b->word);
    if (type->forget) {
        object_lock(v, b);
        type->forget(v, b, dead);
        object_unlock(b);
    }
    unpin(v, i);
}

void objects_forget(struct view *v, uint32_t dead) {
    for (uint32_t i = 0; i < in_use(v); i++) forget_in(v, i, dead);
    for (uint32_t i = 0; i < in_use(v); i++) forget(v, i, dead);
    pool_sweep(v, &v->seg->objects);
}
