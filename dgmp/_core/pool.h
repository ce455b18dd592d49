/* pool.h: see pool.c. */
#ifndef DGMP_POOL_H
#define DGMP_POOL_H

#include "core.h"

/* A record's owner: m + 1 of the process that has it, POOL_SHARED while it is in use by all, 0 while
 * it lies in the ring or was never used. */
#define POOL_SHARED 0xffffffffu

uint32_t pool_take(struct view *v, struct pool *p, uint32_t *is, uint32_t n);  /* how many are ours now */
void pool_put(struct view *v, struct pool *p, const uint32_t *is, uint32_t n);
uint32_t pool_sweep(struct view *v, struct pool *p);            /* what a killed process lost is in the ring again */
static inline void *pool_at(struct view *v, struct pool *p, uint32_t i) { return at(v, p->base + (uint64_t)i * p->stride); }

#endif
