/* object.h: see object.c. */
#ifndef DGMP_OBJECT_H
#define DGMP_OBJECT_H

#include "pool.h"

enum { TYPE_NONE, TYPE_CHAN, TYPE_SEMA, NTYPES };               /* what a shared object is */
enum { O_FREE, O_MAKING, O_LIVE, O_ENDING };
#define OSTATE(phase, type, gen) ((uint64_t)(phase) << 60 | (uint64_t)(type) << 48 | ((gen) & GEN_MASK))
#define OPHASE(s) ((uint32_t)((s) >> 60))
#define OTYPE(s) ((uint32_t)((s) >> 48) & 0xfffu)

/* An entry of the table.  A word names it, made as a G's is: {index, generation}. */
struct object {
    au32 owner;                       /* see pool.h: who makes or ends it; POOL_SHARED while it lives */
    au32 escaped;                     /* 1: it has been pickled, so others than the holders may refer to it */
    au64 state;                       /* {phase:4, type:12, generation:40} */
    uint64_t off;                     /* the block with its body; its maker, and who ends it */
    au64 touched;                     /* the trace (object_trace) during which it was put into a payload last */
    au64 holders[];                   /* one bit for each process: it has Python objects for it */
};

/* A body begins so, on a cache line; the lock guards all of the rest. */
struct body {
    struct lock lock;
    uint64_t word;
};

struct waitq;

/* What there is to do for objects of a type, all of it under the body's lock. */
struct object_type {
    void (*fix)(struct view *v, struct body *b);              /* somebody died who held the lock */
    void (*end)(struct view *v, struct body *b);              /* it is freed: blocks that it refers to go; may be repeated */
    void (*forget)(struct view *v, struct body *b, uint32_t dead);  /* that process is dead, and waits for nothing any more */
    struct waitq *(*queue)(struct body *b, uint32_t queue);   /* its queue of that number */
    void (*contents)(struct view *v, struct body *b, void *to); /* object_seen(to, ...) for each payload in it */
};
extern const struct object_type chan_type, sema_type;        /* all but fix and queue may be NULL */
const struct object_type *object_type_of(struct view *v, uint64_t word);

/* A body of that size, of which so much is zeroed, and the lock made.  NULL: no room. */
struct body *object_make(struct view *v, uint32_t type, uint64_t size, uint64_t zeroed, uint64_t *word);
void object_publish(struct view *v, uint64_t word);             /* made; we hold it */
int object_hold(struct view *v, uint64_t word);                 /* we hold it; its type, 0: it is gone */
void object_drop(struct view *v, uint64_t word);                /* we hold it no more */
void object_escape(struct view *v, uint64_t word);              /* it is about to be pickled, by a holder */
void object_lock(struct view *v, struct body *b);
static inline void object_unlock(struct body *b) { unlock(&b->lock); }
struct body *object_body(struct view *v, uint64_t word);        /* of a live one: held by the caller, or being repaired */

/* Payloads that hold shared objects end with their words, the number of these and OBJECTS_MAGIC: what unpickles it does not
 * read beyond the stream.  A shared block's last part is nothing else. */
#define OBJECTS_MAGIC 0x6f97c1d2a35be84full
uint64_t payload_objects(const char *data, uint64_t len, const char **words);    /* how many; *words: unaligned */
uint64_t block_objects(struct view *v, uint64_t off, uint64_t len, const char **words);  /* of what a payload block holds */
void objects_travel(struct view *v, const char *words, uint64_t n);  /* the payload with them has been put in its place */
void object_seen(void *to, const char *words, uint64_t n);

uint32_t object_trace(struct view *v);                          /* coordinator: frees what nobody refers to; how many */
void objects_fix(struct view *v);                               /* repair: no lock is left as somebody died with it */
void objects_forget(struct view *v, uint32_t dead);             /* repair: the dead one holds and makes nothing any more */
uint64_t objects_live(struct view *v);

#endif
