/* heap.c: payload blocks in the segment: arguments and results too large for a slot, and function blobs.
 *
 * Sizes are powers of two.  A block's header says its class, its owner and its state.  Small classes go through a cache
 * of the process; the rest, and refills, take the robust mutex.  When no block of a class is left and the heap is used up
 * to its end, a larger one is split; when there is none either, neighbours that are free are merged.
 *
 * Free blocks stay warm: the first touch of a page costs ten times what writing to it does.  Once the runtime has been idle
 * for a while the coordinator gives them back (heap_trim).
 *
 * Nothing is lost with a dead process: a block is held (B_HELD, and its holder named) from before it leaves a free list
 * until a G refers to it, and again from before that reference goes until it is on a free list; the sweep frees what the
 * dead one held.  Between the store of a reference and of B_USED both are true: heap_keep settles those first.
 */
#include "core.h"

#include <string.h>
#include <sys/mman.h>

#define MIN_SHIFT 9                   /* 512 bytes */
#define CACHED_CLASSES 8              /* up to 64 KiB */
#define CACHE 16
#define PIECE (64ull << 20)           /* what is given back at once under the lock */

static struct block *block_at(struct view *v, uint64_t off) { return at(v, off); }
static uint64_t class_size(uint32_t c) { return 1ull << (c + MIN_SHIFT); }
static uint32_t class_of(uint64_t len) {
    uint32_t c = 0;
    while (c < NCLASSES && class_size(c) < len + sizeof(struct block)) c++;
    return len + sizeof(struct block) < len ? NCLASSES : c;
}

static void hold(struct view *v, struct block *b) { store_rel(&b->state, BWORD(B_HELD, v->self)); }

static void hold_new(struct view *v, struct block *b) {
    store_rlx(&b->shared, 0);
    store_rlx(&b->cold, 0);
    hold(v, b);
}

/* From here to heap_alloc: under the lock. */

/* Held before it is unlinked, so that it is never both free of lists and of a holder. */
static uint64_t pop(struct view *v, uint32_t c) {
    au64 *list = &v->seg->heap.free[c];
    uint64_t off = load_rlx(list);
    if (!off) return 0;
    hold_new(v, block_at(v, off));
    store_rel(list, load_rlx(&block_at(v, off)->next));
    return off;
}

static uint64_t bump(struct view *v, uint32_t c) {
    struct heap *h = &v->seg->heap;
    uint64_t off = load_rlx(&h->bump);
    if (off + class_size(c) > h->base + h->size) return 0;
    store_rlx(&block_at(v, off)->class, c);                   /* before bump: the sweep walks by class */
    hold_new(v, block_at(v, off));
    if (load_rlx(&h->top) < off + class_size(c)) store_rlx(&h->top, off + class_size(c));
    store_rel(&h->bump, off + class_size(c));
    return off;
}

static void link(struct view *v, uint64_t off) {
    struct block *b = block_at(v, off);
    au64 *list = &v->seg->heap.free[load_rlx(&b->class)];
    store_rlx(&b->next, load_rlx(list));
    store_rel(list, off);
}

/* The block is held.  Linked before it is called free. */
static void give(struct view *v, uint64_t off) {
    link(v, off);
    KILLPOINT(heap_give_locked);
    store_rel(&block_at(v, off)->state, B_FREE);
}

/* The smallest block that is larger, halved until it fits; each upper half is a block before the lower one ends there. */
static uint64_t split(struct view *v, uint32_t c) {
    uint64_t off = 0;
    uint32_t from = c;
    while (!off && ++from < NCLASSES) off = pop(v, from);
    for (; off && from > c; from--) {
        uint64_t upper = off + class_size(from - 1);
        store_rlx(&block_at(v, upper)->class, from - 1);
        hold_new(v, block_at(v, upper));
        KILLPOINT(heap_split_locked);
        store_rel(&block_at(v, off)->class, from - 1);
        give(v, upper);
    }
    return off;
}

/* The free lists anew, from the blocks themselves: neighbours of one size that are free become one, and what is free at
 * the end is not yet used.  Lists that somebody who died left half done are right again. */
static void relink(struct view *v) {
    struct heap *h = &v->seg->heap;
    uint64_t run[2 * NCLASSES], end = load_rlx(&h->bump);     /* free neighbours, each larger than the next */
    uint32_t n = 0;
    for (uint32_t c = 0; c < NCLASSES; c++) store_rel(&h->free[c], 0);
    for (uint64_t off = h->base, size; off < end; off += size) {
        struct block *b = block_at(v, off);
        size = class_size(load_rlx(&b->class));
        if (load_acq(&b->state) != B_FREE || (n && load_rlx(&b->class) > load_rlx(&block_at(v, run[n - 1])->class)))
            while (n) link(v, run[--n]);
        if (load_acq(&b->state) != B_FREE) continue;
        for (run[n++] = off; n > 1; n--) {
            struct block *lower = block_at(v, run[n - 2]);
            uint32_t c = load_rlx(&lower->class);
            if (c != load_rlx(&block_at(v, run[n - 1])->class) || c + 1 == NCLASSES) break;
            store_rlx(&lower->cold, 0);
            store_rel(&lower->class, c + 1);
        }
    }
    KILLPOINT(heap_relink_locked);
    while (n) store_rel(&h->bump, run[--n]);
}

static uint64_t take(struct view *v, uint32_t c) {
    uint64_t off = pop(v, c);
    if (!off) off = bump(v, c);
    return off ? off : split(v, c);
}

uint64_t heap_alloc(struct view *v, uint64_t len) {
    struct heap *h = &v->seg->heap;
    uint32_t c = class_of(len);
    if (c == NCLASSES) return 0;
    if (c < CACHED_CLASSES && v->ncached[c]) return v->cached[c][--v->ncached[c]] + sizeof(struct block);
    lock(v, &h->lock);
    uint64_t off = take(v, c);
    KILLPOINT(heap_locked);
    if (!off) {
        relink(v);
        off = take(v, c);
    }
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
    if (load_acq(&b->state) != BWORD(B_HELD, v->self)) throw(v, "heap_free: the block is not held");
    KILLPOINT(heap_free_before);
    if (load_rlx(&b->shared) && !readers_gone(v, b)) return;
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
    if (load_acq(&b->state) == BWORD(B_HELD, m)) store_rel(&b->state, B_USED);
}

/* Under the lock; m is dead.  1: the block is free now. */
static int sweep(struct view *v, struct block *b, uint32_t m) {
    if (load_acq(&b->state) == B_FREE) return 0;
    if (load_rlx(&b->shared)) return reader_forget(v, b, m);
    if (load_acq(&b->state) != BWORD(B_HELD, m)) return 0;
    store_rel(&b->state, B_FREE);
    return 1;
}

/* What dead process m held goes back to the free lists, and what it alone still read.  Returns how many blocks that were. */
uint32_t heap_sweep(struct view *v, uint32_t m) {
    struct heap *h = &v->seg->heap;
    uint32_t n = 0;
    lock(v, &h->lock);
    struct fn_entry *e = &v->fns[load_acq(&v->allm[m].filling)];
    if (load_acq(&v->allm[m].filling) && e->off && !load_acq(&e->hash)) {   /* nobody reads what it was filling */
        store_rel(&block_of(v, e->off)->state, BWORD(B_HELD, m));
        e->off = 0;
    }
    for (uint64_t off = h->base; off < load_rlx(&h->bump); off += class_size(load_rlx(&block_at(v, off)->class)))
        n += (uint32_t)sweep(v, block_at(v, off), m);
    relink(v);
    store_rlx(&v->allm[m].filling, 0);
    unlock(&h->lock);
    return n;
}

/* How many shared blocks there are, that is large payloads, and how many bytes they take. */
uint32_t heap_shared(struct view *v, uint64_t *bytes) {
    struct heap *h = &v->seg->heap;
    uint32_t n = 0;
    *bytes = 0;
    lock(v, &h->lock);
    for (uint64_t off = h->base, size; off < load_rlx(&h->bump); off += size) {
        struct block *b = block_at(v, off);
        size = class_size(load_rlx(&b->class));
        if (load_acq(&b->state) != B_FREE && load_rlx(&b->shared)) n++, *bytes += size;
    }
    unlock(&h->lock);
    return n;
}

/* A free block of more than 64 KiB that is warm, taken out of its list. */
static uint64_t pop_warm(struct view *v) {
    for (uint32_t c = CACHED_CLASSES; c < NCLASSES; c++)
        for (au64 *at = &v->seg->heap.free[c]; load_rlx(at); at = &block_at(v, load_rlx(at))->next) {
            uint64_t off = load_rlx(at);
            if (load_rlx(&block_at(v, off)->cold)) continue;
            hold_new(v, block_at(v, off));
            store_rel(at, load_rlx(&block_at(v, off)->next));
            return off;
        }
    return 0;
}

/* The last piece of what is warm beyond the blocks goes back to the system. */
static uint64_t trim_end(struct view *v) {
    struct heap *h = &v->seg->heap;
    uint64_t begin = (load_rlx(&h->bump) + 4095) & ~4095ull, end = load_rlx(&h->top);
    if (end <= begin) return 0;
    if (end - begin > PIECE) begin = (end - PIECE) & ~4095ull;
    madvise(at(v, begin), end - begin, MADV_REMOVE);
    store_rlx(&h->top, begin);
    return end - begin;
}

/* One warm block's memory, but for the page of its header, goes back to the system. */
uint64_t heap_trim(struct view *v) {
    struct heap *h = &v->seg->heap;
    lock(v, &h->lock);
    uint64_t off = pop_warm(v), given = off ? 0 : trim_end(v);
    unlock(&h->lock);
    if (!off) return given;
    struct block *b = block_at(v, off);
    uint64_t begin = (off + sizeof *b + 4095) & ~4095ull, end = (off + class_size(load_rlx(&b->class))) & ~4095ull;
    madvise(at(v, begin), end - begin, MADV_REMOVE);
    store_rlx(&b->cold, 1);
    lock(v, &h->lock);
    give(v, off);
    unlock(&h->lock);
    return end - begin;
}

/* FNV-1a; blobs with equal hashes are compared, so it need not be strong. */
uint64_t fn_hash(const void *data, uint64_t len) {
    uint64_t h = 0xcbf29ce484222325ull;
    for (uint64_t i = 0; i < len; i++) h = (h ^ ((const unsigned char *)data)[i]) * 0x100000001b3ull;
    return h;
}

/* Under the lock.  An entry with a block and without a hash was being filled by a process that died.  Its block is nobody's
 * in that entry before it is free, and what we fill is in our own record for the sweep. */
static int fn_fill(struct view *v, uint32_t i, uint64_t hash, const void *data, uint64_t len) {
    struct fn_entry *e = &v->fns[i];
    store_rel(&self_m(v)->filling, i);
    if (e->off) {
        uint64_t half_filled = e->off;
        hold(v, block_of(v, half_filled));
        e->off = 0;
        give(v, half_filled - sizeof(struct block));
    }
    uint32_t c = class_of(len);
    uint64_t off = c < NCLASSES ? take(v, c) : 0;
    if (!off) return 0;
    e->off = off + sizeof(struct block);
    heap_use(v, e->off);
    e->len = len;
    memcpy(at(v, e->off), data, len);
    KILLPOINT(fn_fill_locked);
    store_rel(&e->hash, hash);
    store_rlx(&self_m(v)->filling, 0);
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
