/* chan.h: see chan.c. */
#ifndef DGMP_CHAN_H
#define DGMP_CHAN_H

#include "sudog.h"

#define ELEM_TIME 0xffu               /* kind: what a timer channel gives: when it was due, int64 ns, monotonic */
#define NO_TIME INT64_MAX

/* A body of TYPE_CHAN.  Message i of all that have gone through the buffer lies in buf[i % cap], head <= i < tail. */
struct chan {
    struct body body;
    uint64_t cap;                     /* constant, as period */
    au64 head, tail;                  /* under the lock; len reads them without */
    au32 closed;
    au32 moving;                      /* sudog + 1 of the sender whose message is being put at tail `moving_tail` */
    uint64_t moving_tail, moving_ticket;
    uint64_t ticket;
    struct waitq recvq, sendq;
    int64_t due, period;              /* a timer channel: its next message; NO_TIME: none comes any more.  0: it is none */
    int64_t closes_at;                /* it closes by itself then, monotonic ns; NO_TIME: never */
    struct elem buf[];
};

/* A case of a select; send and receive are selects of one. */
struct scase {
    struct chan *c;
    uint32_t send;
    struct elem elem;                 /* to send: what, its block held by us; received: the same */
};
enum { SELECT_DONE, SELECT_CLOSED, SELECT_BLOCKS, SELECT_WAITS, SELECT_TIMER, SELECT_NO_ROOM };
#define NO_WAITER 1ull                /* in place of a G's word: do not wait */

/* cap messages; due, period, closes_at as above (0: no timer; NO_TIME: never).  Published and held by us; NULL: no room. */
struct chan *chan_make(struct view *v, uint64_t cap, int64_t due, int64_t period, int64_t closes_at);
int chan_close(struct view *v, struct chan *c);                 /* 0: it was closed; -1: it is a timer */
uint64_t chan_len(struct chan *c);
#define NO_KIND UINT32_MAX
/* The length of the first message in the buffer, and its kind, NO_KIND: there is none; copied if it is not longer than most. */
uint64_t chan_peek(struct view *v, struct chan *c, void *to, uint64_t most, uint32_t *kind);
int chan_closed(struct view *v, struct chan *c);

/* SELECT_DONE or SELECT_CLOSED: cases[*which] went, or its channel is closed.  Else, with NO_WAITER, SELECT_BLOCKS; with a
 * G's word, or 0 for a thread, SELECT_WAITS: is[0..n) are the sudogs of the wait, and at *until it is worth a new try.
 * SELECT_TIMER: one would send to a timer channel. */
int chan_select(struct view *v, struct scase *cases, uint32_t n, uint64_t waiter, uint32_t *is, uint32_t *which,
                int64_t *until);
/* Ends a wait: SELECT_DONE, SELECT_CLOSED as above; SELECT_BLOCKS: it was given up, or is to be tried anew: what was to be
 * sent is ours again.  SELECT_WAITS: it goes on: nothing has come and give_up was 0, or something is coming this instant. */
int chan_wait_end(struct view *v, struct scase *cases, uint32_t n, const uint32_t *is, int give_up, uint32_t *which);

#endif
