/* hostile.h: a segment with bytes in it that no process of ours has written; for test_hostile.c and tests/fuzz. */
#ifndef HOSTILE_H
#define HOSTILE_H
#include "check.h"
#include "object.h"
#include "place.h"

#include <sys/mman.h>
#include <sys/stat.h>

static uint64_t sum;                  /* of what was read, so that it is */

static void read_bytes(const char *from, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) sum += (unsigned char)from[i];
}

static void read_ends(const void *from, uint64_t n, uint64_t size) {
    read_bytes(from, size);
    read_bytes((const char *)from + (n - 1) * size, size);
}

/* The first and the last entry of every table that the header names. */
__attribute__((unused)) static void read_tables(struct view *v) {
    struct segment *s = v->seg;
    struct lring *rings[] = {&s->globrunq, &s->asyncq, &s->gfree.ring, &s->objects.ring, &s->sudogs.ring};
    struct pool *pools[] = {&s->gfree, &s->objects, &s->sudogs};
    read_ends(v->allp, s->nps, sizeof *v->allp);
    read_ends(v->allp, s->nprocs, sizeof *v->allp);
    read_ends(v->allm, s->nms, sizeof *v->allm);
    read_ends(v->allgs, s->nslots, sizeof *v->allgs);
    read_ends(v->fns, s->nfns, sizeof *v->fns);
    for (int i = 0; i < 5; i++) read_ends(lring_cell(v, rings[i], 0), rings[i]->cap, 8);
    for (int i = 0; i < 3; i++) {
        read_ends(at(v, pools[i]->base), pools[i]->n, pools[i]->stride);
        sum += load_rlx((au32 *)((char *)at(v, pools[i]->base) + pools[i]->owner));
    }
    for (uint32_t i = 0; i < s->nms; i++) read_ends(at(v, v->allm[i].inbox.cells), s->inbox_cap, 8);
    read_ends(at(v, s->places.texts), PLACE_TEXTS, sizeof(struct text));
    read_ends(at(v, s->places.bytes), PLACE_BYTES, 1);
    read_ends(at(v, s->heap.base), s->heap.size, 1);
}

/* Everything that the payload's end names. */
__attribute__((unused)) static uint64_t read_words(const char *words, uint64_t n, const char *from, uint64_t len) {
    if (!n) return 0;
    CHECK(words >= from && n <= len / 8 && words + 8 * n <= from + len);
    read_bytes(words, 8 * n);
    return n;
}
#endif
