/* sudog.h: see sudog.c. */
#ifndef DGMP_SUDOG_H
#define DGMP_SUDOG_H

#include "object.h"

/* A value on its way.  kind is the binding's; ELEM_OBJECTS: the payload ends with words of shared objects. */
#define ELEM_INLINE 108
#define ELEM_OBJECTS 0x100u
struct elem {
    uint64_t off, len;                /* off: of its block, 0: inline */
    uint32_t kind;
    char bytes[ELEM_INLINE];
};

/* How a wait ended, in `done`. */
enum { WAIT_PENDING, WAIT_DONE, WAIT_CLOSED, WAIT_RETRY };

/* One case of a wait: a place in the queue of one object.  The first case of a wait is its leader. */
struct sudog {
    au32 owner;                       /* see pool.h: the process that waits */
    au32 queued;                      /* the queue it is in (the object's numbers, from 1), 0 none; the object's lock */
    au32 next, prev;                  /* index + 1; under the object's lock */
    uint32_t leader, which;           /* index of the leader; which case this is.  These, object, ticket, waiter: its owner */
    uint64_t object;                  /* word of the object in whose queue it is */
    uint64_t ticket;                  /* in the order of arrival at that object */
    /* the leader's */
    au32 fired;                       /* FIRED(case, process): CAS from 0 wins the right to end the wait */
    au32 done;                        /* WAIT_*: whoever fired it, when all is written; a futex */
    uint64_t waiter;                  /* the G's word; 0: a thread, which sleeps on done */
    uint32_t sends, wanted;           /* of each case: elem goes from here, not to here; how much of the object it wants */
    struct elem elem;                 /* of one that sends: what; else what was handed over */
};
_Static_assert(sizeof(struct sudog) == 192, "a sudog is about three cache lines");
#define FIRED(which, m) (((uint32_t)(which) + 1) << 12 | ((m) & 0xfffu))
#define FIRED_CASE(w) (((w) >> 12) - 1)
#define FIRED_BY(w) ((w) & 0xfffu)
#define MOST_CASES 65536u
#define CANCELLED MOST_CASES          /* in place of a case: the waiter has given up */

struct waitq {                        /* in a body, under its lock: index + 1, 0 none */
    au32 first, last;
};

static inline struct sudog *sudog_at(struct view *v, uint32_t i) { return &v->sudogs[i]; }
static inline uint32_t sudog_index(struct view *v, struct sudog *s) { return (uint32_t)(s - v->sudogs); }
static inline struct sudog *leader_of(struct view *v, struct sudog *s) { return &v->sudogs[s->leader]; }

int wait_begin(struct view *v, uint64_t waiter, uint32_t *is, uint32_t n);  /* n cases; 0: there is no room */
void wait_end(struct view *v, const uint32_t *is, uint32_t n);  /* none of them is queued any more */
int wait_cancel(struct view *v, uint32_t leader);               /* 1: nobody will end it; 0: somebody has, or is about to */
void waitq_put(struct view *v, struct waitq *q, uint32_t queue, struct body *b, uint64_t ticket, struct sudog *s);
void waitq_remove(struct view *v, struct waitq *q, struct sudog *s);  /* if it is queued */
struct sudog *waitq_fire(struct view *v, struct waitq *q);      /* the first whose wait we win, unqueued; NULL: none */
void waitq_rebuild(struct view *v, struct waitq *q, uint32_t queue, struct body *b);  /* as the sudogs themselves say */
void wait_finish(struct view *v, struct sudog *s, uint32_t how);  /* all is written: `done` */
void wait_wake(struct view *v, uint32_t leader, uint64_t waiter);  /* after that, best without the lock */
void elem_hold(struct view *v, const struct elem *e);           /* we hold the objects in it: it is about to leave its place */
void elem_travels(struct view *v, const struct elem *e);        /* it has been put where others find it */
void elem_drop(struct view *v, struct elem *e);                 /* its block, if it is in use, is freed */
void elem_seen(struct view *v, void *to, const struct elem *e);   /* for object_type.contents */
void sudogs_repair(struct view *v, uint32_t dead);              /* waits that it was ending go on; its own are no more */
void sudogs_flush(struct view *v);

#endif
