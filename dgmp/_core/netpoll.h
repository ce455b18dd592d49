/* netpoll.h: see netpoll.c. */
#ifndef DGMP_NETPOLL_H
#define DGMP_NETPOLL_H

#include "core.h"

enum { POLL_WAITING, POLL_READY, POLL_GONE };                   /* GONE: the descriptor was closed meanwhile */

struct netpoll;
struct netpoll *netpollinit(struct view *v);                    /* NULL: errno says why */
void netpollclose(struct netpoll *np);
int64_t netpolladd(struct netpoll *np, int fd, int write, uint64_t word); /* a number; -1: errno says why */
int netpollstate(struct netpoll *np, uint32_t i);               /* -1: no such wait */
int netpollend(struct netpoll *np, uint32_t i);                 /* the same, and the number is free again */
int netpoll(struct netpoll *np);                                /* never blocks; how many Gs were readied */

#endif
