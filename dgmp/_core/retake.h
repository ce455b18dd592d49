/* retake.h: see retake.c. */
#ifndef DGMP_RETAKE_H
#define DGMP_RETAKE_H
#include "core.h"

enum { P_LOST, P_HELD, P_FROZEN };

void entersyscall(struct view *v);
int exitsyscallfast(struct view *v);
int exitsyscall_idle(struct view *v);                           /* an idle P is ours, the old one before others */
void exitsyscall_done(struct view *v);                          /* handed a P, an M goes on with its G */
int entersyscallblock(struct view *v);                          /* our P goes to others at once; 0: it had gone */
int retake(struct view *v, struct p *p, uint64_t own);          /* the coordinator; 0: p's word is another by now */
int handoffp(struct view *v, struct p *p);                      /* 0: there is work, and no M for it */
int holds_p(struct view *v, uint32_t m);                        /* p + 1 that M m holds, in whatever state; 0 none */

#endif
