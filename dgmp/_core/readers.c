/* readers.c: blocks that are read in place (NumPy arrays and other large buffers), by several processes, and for longer than
 * the G that they came with lives.
 *
 * A shared block begins with one bit for each process: whether it reads the block.  A process sets its own while a G
 * refers to the block, or before it lets go of what it has filled, so nobody enters a block that could be gone; and clears
 * it when its last view has died.  When the G's reference goes, the block is KEPT for its readers; whoever finds it KEPT
 * and without readers, and wins the CAS, frees it: the last reader, or the process whose G it was.  Each of these first
 * makes its own change and then looks at the other's (both seq_cst), so one of them finds it; if that one is killed in
 * between, the next sweep does (heap_sweep), which also clears the bits of the dead.  The state of a KEPT block counts how
 * often it has been, so that who has looked and comes late does not win the block of another G, which has readers again.
 */
#include "core.h"

static uint32_t words(struct view *v) { return (v->seg->nms + 63) / 64; }

/* The masks, and room so that the content lies on a cache line. */
static uint64_t masks_size(struct view *v) {
    return ((sizeof(struct block) + 8ull * words(v) + 63) & ~63ull) - sizeof(struct block);
}

static au64 *masks(struct block *b) { return (au64 *)(b + 1); }

static int has_readers(struct view *v, struct block *b) {
    for (uint32_t i = 0; i < words(v); i++)
        if (atomic_load(&masks(b)[i])) return 1;
    return 0;
}

uint64_t shared_alloc(struct view *v, uint64_t len) {
    if (len > v->seg->heap.size) return 0;
    uint64_t off = heap_alloc(v, len + masks_size(v));
    if (!off) return 0;
    struct block *b = block_of(v, off);
    for (uint32_t i = 0; i < words(v); i++) store_rlx(&masks(b)[i], 0);
    store_rel(&b->shared, 1);
    return off;
}

int is_shared(struct view *v, uint64_t off) { return (int)load_rlx(&block_of(v, off)->shared); }

void *shared_content(struct view *v, uint64_t off) { return at(v, off + masks_size(v)); }

void reader_enter(struct view *v, uint64_t off) {
    atomic_fetch_or(&masks(block_of(v, off))[v->self / 64], 1ull << (v->self % 64));
}

/* By its holder, or in the stead of a dead one. */
static void keep(struct block *b) { atomic_store(&b->state, BWORD(B_KEPT, ++b->kept)); }

/* 1: it was KEPT, has no readers, and is in state `to` now. */
static int reclaim(struct view *v, struct block *b, uint32_t to) {
    uint32_t kept = atomic_load(&b->state);
    return BSTATE(kept) == B_KEPT && !has_readers(v, b) && atomic_compare_exchange_strong(&b->state, &kept, to);
}

void reader_leave(struct view *v, uint64_t off) {
    struct block *b = block_of(v, off);
    atomic_fetch_and(&masks(b)[v->self / 64], ~(1ull << (v->self % 64)));
    if (reclaim(v, b, BWORD(B_HELD, v->self))) heap_free(v, off);
}

int readers_gone(struct view *v, struct block *b) {
    if (!has_readers(v, b)) return 1;
    keep(b);
    return reclaim(v, b, BWORD(B_HELD, v->self));
}

int reader_forget(struct view *v, struct block *b, uint32_t m) {
    if (load_acq(&b->state) == BWORD(B_HELD, m)) keep(b);
    atomic_fetch_and(&masks(b)[m / 64], ~(1ull << (m % 64)));
    return reclaim(v, b, B_FREE);
}
