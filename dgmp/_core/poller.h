/* poller.h: see poller.c. */
#ifndef DGMP_POLLER_H
#define DGMP_POLLER_H

#include "core.h"

int be_poller(struct view *v);                                  /* 1: this M is the poller */
int ghand_over(struct view *v, uint64_t w);                     /* our G that has not begun goes to the poller */
uint64_t asyncq_get(struct view *v);                            /* by the poller; 0: nothing */
int async_work(struct view *v);                                 /* we are the poller, and there is something */
void poller_died(struct view *v, uint32_t m);                   /* by repair */

#endif
