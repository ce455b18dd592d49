/* sema.h: see sema.c. */
#ifndef DGMP_SEMA_H
#define DGMP_SEMA_H

#include "sudog.h"

#define SEMA_NO_LIMIT UINT64_MAX

/* A body of TYPE_SEMA: n units, of which each process holds some.  Under the lock, unless said otherwise. */
struct sema {
    struct body body;
    uint64_t n;                       /* constant; SEMA_NO_LIMIT: it only counts what is held, and nobody waits for units */
    uint64_t tell_at;                 /* constant: the death of who holds so many is told to the next one; 0: never */
    uint64_t used;                    /* the sum of held[] */
    uint64_t ticket;
    uint64_t lost;                    /* units of dead ones whose release may still come (SEMA_NO_LIMIT) */
    au64 goid;                        /* of the G that was given units last, 0: a thread */
    au64 died_goid;                   /* that one, of who died */
    au32 died;                        /* to be told */
    au32 flag;                        /* whatever its users make of it; read without the lock */
    struct waitq queue, zeroq;        /* who waits for units, and who waits until none is held */
    /* What is half done, see sema_fix. */
    au32 granting;                    /* sudog + 1 of the waiter that is being given units: this will be held[m] */
    uint32_t granting_m;
    uint64_t granting_ticket, granting_held;
    au64 releasing;                   /* used + 1 as it will be */
    au64 held[];                      /* of each process */
};

enum { SEMA_DONE, SEMA_DIED, SEMA_BLOCKS, SEMA_WAITS, SEMA_NO_ROOM };

struct sema *sema_make(struct view *v, uint64_t n, uint64_t tell_at);  /* published and held by us; NULL: no room */
/* SEMA_DONE: we hold so many more.  SEMA_DIED: not so, but a holder has died since the last one that was told.  Else SEMA_BLOCKS
 * or, if it is to wait, SEMA_WAITS: *is is its sudog.  waiter: the G's word, 0 for a thread. */
int sema_acquire(struct view *v, struct sema *s, uint32_t units, uint64_t waiter, int wait, uint32_t *is);
int sema_wait_zero(struct view *v, struct sema *s, uint64_t waiter, int wait, uint32_t *is);  /* likewise, until none is held */
/* How a wait has ended, as above; SEMA_BLOCKS: it was given up, or is to be tried anew; SEMA_WAITS: it goes on. */
int sema_wait_end(struct view *v, struct sema *s, uint32_t is, int give_up);
int sema_release(struct view *v, struct sema *s, uint64_t units);  /* 0: so many are not held */
uint64_t sema_used(struct view *v, struct sema *s);
int semas_held(struct view *v);                                 /* whether this process has acquired any that it has not released */

#endif
