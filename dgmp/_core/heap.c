/* heap.c: payload blocks in the segment: arguments and results too large for a slot, and function blobs.
 *
 * Sizes are powers of two.  A block's header says its class, its owner and its state.  Small classes go through a cache
 * of the process; the rest, and refills, take the robust mutex.
 *
 * Nothing is lost with a dead process: a block is held (B_HELD, and its holder named) from before it leaves a free list
 * until a G refers to it, and again from before that reference goes until it is on a free list; the sweep frees what the
 * dead one held.  Between the store of a reference and of B_USED both are true: heap_keep settles those first.
 */
#include "core.h"

#include <string.h>

#define MIN_SHIFT 9                   /* 512 bytes */
#define CACHED_CLASSES 8              /* up to 64 KiB */
#define CACHE 16
enum { B_FREE = 1, B_HELD, B_USED };

struct block {
    au32 state, owner, class, unused; /* owner: of a held block */
    au64 next;                        /* under the lock, while free */
    uint64_t pad;
};

static struct block *block_at(struct view *v, uint64_t off) { return at(v, off); }
static struct block *block_of(struct view *v, uint64_t payload) { return block_at(v, payload - sizeof(struct block)); }
static uint64_t class_size(uint32_t c) { return 1ull << (c + MIN_SHIFT); }
static uint32_t class_of(uint64_t len) {
    uint32_t c = 0;
    while (c < NCLASSES && class_size(c) < len + sizeof(struct block)) c++;
    return len + sizeof(struct block) < len ? NCLASSES : c;
}

static void hold(struct view *v, struct block *b) {
    store_rlx(&b->owner, v->self);
    store_rel(&b->state, B_HELD);
}

/* Under the lock.  Held before it is unlinked, so that it is never both free of lists and of a holder. */
static uint64_t take(struct view *v, uint32_t c) {
    struct heap *h = &v->seg->heap;
    uint64_t off = load_rlx(&h->free[c]);
    if (off) {
        hold(v, block_at(v, off));
        store_rel(&h->free[c], load_rlx(&block_at(v, off)->next));
        return off;
    }
    off = load_rlx(&h->bump);
    if (off + class_size(c) > h->base + h->size) return 0;
    store_rlx(&block_at(v, off)->class, c);                   /* before bump: the sweep walks by class */
    hold(v, block_at(v, off));
    store_rel(&h->bump, off + class_size(c));
    return off;
}

/* Under the lock; the block is held.  Linked before it is called free. */
static void give(struct view *v, uint64_t off) {
    struct heap *h = &v->seg->heap;
    struct block *b = block_at(v, off);
    uint32_t c = load_rlx(&b->class);
    store_rlx(&b->next, load_rlx(&h->free[c]));
    store_rel(&h->free[c], off);
    store_rel(&b->state, B_FREE);
}

uint64_t heap_alloc(struct view *v, uint64_t len) {
    struct heap *h = &v->seg->heap;
    uint32_t c = class_of(len);
    if (c == NCLASSES) return 0;
    if (c < CACHED_CLASSES && v->ncached[c]) return v->cached[c][--v->ncached[c]] + sizeof(struct block);
    lock(v, &h->lock);
    uint64_t off = take(v, c);
    if (off && c < CACHED_CLASSES)
        for (uint64_t more; v->ncached[c] < CACHE / 2 && (more = take(v, c)) != 0;)
            v->cached[c][v->ncached[c]++] = more;
    unlock(&h->lock);
    return off ? off + sizeof(struct block) : 0;
}

void heap_use(struct view *v, uint64_t payload) { store_rel(&block_of(v, payload)->state, B_USED); }

void heap_hold(struct view *v, uint64_t payload) {
    if (load_acq(&block_of(v, payload)->state) != B_USED) throw(v, "heap_hold: the block is not in use");
    hold(v, block_of(v, payload));
}

void heap_free(struct view *v, uint64_t payload) {
    struct heap *h = &v->seg->heap;
    struct block *b = block_of(v, payload);
    uint32_t c = load_rlx(&b->class);
    if (load_acq(&b->state) != B_HELD || load_rlx(&b->owner) != v->self) throw(v, "heap_free: the block is not held");
    if (c < CACHED_CLASSES && v->ncached[c] < CACHE) {
        v->cached[c][v->ncached[c]++] = payload - sizeof(struct block);
        return;
    }
    lock(v, &h->lock);
    give(v, payload - sizeof(struct block));
    unlock(&h->lock);
}

/* m is dead, and a G refers to this block. */
void heap_keep(struct view *v, uint64_t payload, uint32_t m) {
    struct block *b = block_of(v, payload);
    if (load_acq(&b->state) == B_HELD && load_rlx(&b->owner) == m) store_rel(&b->state, B_USED);
}

/* What dead process m held goes back to the free lists.  Returns how many blocks that were. */
uint32_t heap_sweep(struct view *v, uint32_t m) {
    struct heap *h = &v->seg->heap;
    uint32_t n = 0;
    lock(v, &h->lock);
    struct fn_entry *filling = &v->fns[load_acq(&h->filling)];
    if (filling->off) heap_keep(v, filling->off, m);
    for (uint32_t c = 0; c < NCLASSES; c++)                   /* it may have died between a link and a state */
        for (uint64_t off = load_rlx(&h->free[c]); off; off = load_rlx(&block_at(v, off)->next))
            store_rel(&block_at(v, off)->state, B_FREE);
    for (uint64_t off = h->base; off < load_rlx(&h->bump); off += class_size(load_rlx(&block_at(v, off)->class))) {
        struct block *b = block_at(v, off);
        if (load_acq(&b->state) == B_HELD && load_rlx(&b->owner) == m) give(v, off), n++;
    }
    unlock(&h->lock);
    return n;
}

/* FNV-1a; blobs with equal hashes are compared, so it need not be strong. */
uint64_t fn_hash(const void *data, uint64_t len) {
    uint64_t h = 0xcbf29ce484222325ull;
    for (uint64_t i = 0; i < len; i++) h = (h ^ ((const unsigned char *)data)[i]) * 0x100000001b3ull;
    return h;
}

/* Under the lock.  An entry with a block and without a hash was being filled by a process that died. */
static int fn_fill(struct view *v, uint32_t i, uint64_t hash, const void *data, uint64_t len) {
    struct fn_entry *e = &v->fns[i];
    store_rel(&v->seg->heap.filling, i);                      /* the sweep keeps what it refers to */
    if (e->off) {
        hold(v, block_of(v, e->off));
        give(v, e->off - sizeof(struct block));
        e->off = 0;
    }
    uint32_t c = class_of(len);
    uint64_t off = c < NCLASSES ? take(v, c) : 0;
    if (!off) return 0;
    e->off = off + sizeof(struct block);
    heap_use(v, e->off);
    e->len = len;
    memcpy(at(v, e->off), data, len);
    store_rel(&e->hash, hash);
    return 1;
}

/* The function table: content-addressed, once per blob, never shrinking.  1: *index names it; 0: table or heap full. */
int fn_intern(struct view *v, uint64_t hash, const void *data, uint64_t len, uint32_t *index) {
    if (hash == 0) hash = 1;
    lock(v, &v->seg->heap.lock);
    int ok = 0;
    for (uint32_t n = 0, i = (uint32_t)(hash % v->seg->nfns); n < v->seg->nfns; n++, i = (i + 1) % v->seg->nfns) {
        struct fn_entry *e = &v->fns[i];
        uint64_t was = load_acq(&e->hash);
        if (i == 0) continue;                                 /* 0 means: the callable is among the arguments */
        if (was && (was != hash || e->len != len || memcmp(at(v, e->off), data, len) != 0)) continue;
        ok = was || fn_fill(v, i, hash, data, len);
        *index = i;
        break;
    }
    unlock(&v->seg->heap.lock);
    return ok;
}
