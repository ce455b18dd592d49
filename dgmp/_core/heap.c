/* heap.c: payload blocks in the segment: arguments and results too large for a slot, and function blobs.
 *
 * Sizes are powers of two.  A block's header says its class, its owner and its state, so that the blocks which a dead
 * process held or cached can be swept.  Small classes go through a cache of the process; the rest, and refills, take the
 * robust mutex.  Free lists are pushed by one store after the link is written, so a holder may die anywhere: at worst
 * one block is on no list, and the sweep puts it back.
 */
#include "core.h"

#include <string.h>

#define MIN_SHIFT 9                   /* 512 bytes */
#define CACHED_CLASSES 8              /* up to 64 KiB */
#define CACHE 16
enum { B_FREE = 1, B_CACHED, B_USED };

struct block {
    au32 state, owner, class, unused;
    uint64_t next;                    /* under the lock, while free */
    uint64_t pad;
};

static struct block *block_at(struct view *v, uint64_t off) { return at(v, off); }
static uint64_t class_size(uint32_t c) { return 1ull << (c + MIN_SHIFT); }

static uint64_t take(struct view *v, uint32_t c) {
    struct heap *h = &v->seg->heap;
    uint64_t off = load_rlx(&h->free[c]);
    if (off) {
        store_rlx(&h->free[c], block_at(v, off)->next);
    } else {
        off = load_rlx(&h->bump);
        if (off + class_size(c) > h->base + h->size) return 0;
        store_rlx(&block_at(v, off)->class, c);               /* before bump: the sweep walks by class */
        store_rel(&h->bump, off + class_size(c));
    }
    store_rlx(&block_at(v, off)->owner, v->self);
    store_rel(&block_at(v, off)->state, B_CACHED);
    return off;
}

static void give(struct view *v, uint64_t off) {
    struct heap *h = &v->seg->heap;
    struct block *b = block_at(v, off);
    uint32_t c = load_rlx(&b->class);
    b->next = load_rlx(&h->free[c]);
    store_rlx(&b->state, B_FREE);
    store_rel(&h->free[c], off);
}

uint64_t heap_alloc(struct view *v, uint64_t len) {
    struct heap *h = &v->seg->heap;
    uint64_t need = len + sizeof(struct block);
    uint32_t c = 0;
    while (c < NCLASSES && class_size(c) < need) c++;
    if (c == NCLASSES || need < len) return 0;
    if (c >= CACHED_CLASSES || v->ncached[c] == 0) {
        robust_lock(v, &h->lock, -1);
        uint64_t off = take(v, c);
        if (off && c < CACHED_CLASSES)
            for (uint64_t more; v->ncached[c] < CACHE / 2 && (more = take(v, c)) != 0;)
                v->cached[c][v->ncached[c]++] = more;
        pthread_mutex_unlock(&h->lock);
        if (!off) return 0;
        store_rel(&block_at(v, off)->state, B_USED);
        return off + sizeof(struct block);
    }
    uint64_t off = v->cached[c][--v->ncached[c]];
    store_rel(&block_at(v, off)->state, B_USED);
    return off + sizeof(struct block);
}

void heap_free(struct view *v, uint64_t payload) {
    struct heap *h = &v->seg->heap;
    uint64_t off = payload - sizeof(struct block);
    struct block *b = block_at(v, off);
    uint32_t c = load_rlx(&b->class);
    if (load_acq(&b->state) != B_USED) throw(v, "heap_free: the block is not in use");
    if (c < CACHED_CLASSES && v->ncached[c] < CACHE) {
        store_rlx(&b->owner, v->self);
        store_rel(&b->state, B_CACHED);
        v->cached[c][v->ncached[c]++] = off;
        return;
    }
    robust_lock(v, &h->lock, -1);
    give(v, off);
    pthread_mutex_unlock(&h->lock);
}

/* What dead process m had cached goes back to the free lists. */
uint32_t heap_sweep(struct view *v, uint32_t m) {
    struct heap *h = &v->seg->heap;
    uint32_t n = 0;
    robust_lock(v, &h->lock, -1);
    for (uint64_t off = h->base; off < load_rlx(&h->bump); off += class_size(load_rlx(&block_at(v, off)->class))) {
        struct block *b = block_at(v, off);
        if (load_acq(&b->state) == B_CACHED && load_rlx(&b->owner) == m) give(v, off), n++;
    }
    pthread_mutex_unlock(&h->lock);
    return n;
}

/* FNV-1a; blobs with equal hashes are compared, so it need not be strong. */
uint64_t fn_hash(const void *data, uint64_t len) {
    uint64_t h = 0xcbf29ce484222325ull;
    for (uint64_t i = 0; i < len; i++) h = (h ^ ((const unsigned char *)data)[i]) * 0x100000001b3ull;
    return h;
}

/* The function table: content-addressed, once per blob, never shrinking.  1: *index names it; 0: table or heap full. */
int fn_intern(struct view *v, uint64_t hash, const void *data, uint64_t len, uint32_t *index) {
    if (hash == 0) hash = 1;
    robust_lock(v, &v->seg->heap.lock, -1);
    int ok = 0;
    for (uint32_t n = 0, i = (uint32_t)(hash % v->seg->nfns); n < v->seg->nfns; n++, i = (i + 1) % v->seg->nfns) {
        struct fn_entry *e = &v->fns[i];
        uint64_t was = load_acq(&e->hash);
        if (i == 0) continue;                                 /* 0 means: the callable is among the arguments */
        if (was == hash && e->len == len && memcmp(at(v, e->off), data, len) == 0) {
            *index = i, ok = 1;
            break;
        }
        if (was) continue;
        uint32_t c = 0;
        while (c < NCLASSES && class_size(c) < len + sizeof(struct block)) c++;
        uint64_t off = c < NCLASSES ? take(v, c) : 0;
        if (!off) break;
        store_rel(&block_at(v, off)->state, B_USED);
        e->off = off + sizeof(struct block), e->len = len;
        memcpy(at(v, e->off), data, len);
        store_rel(&e->hash, hash);
        *index = i, ok = 1;
        break;
    }
    pthread_mutex_unlock(&v->seg->heap.lock);
    return ok;
}
