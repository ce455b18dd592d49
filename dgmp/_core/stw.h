/* stw.h: see stw.c. */
#ifndef DGMP_STW_H
#define DGMP_STW_H
#include "core.h"

void gcstopm(struct view *v);                                   /* sleeps while the world is stopped; may return early */
int stop_the_world(struct view *v);                             /* 0: another has it stopped; try again */
int stopped(struct view *v);                                    /* takes what it can get; 1: every P has stopped */
void start_the_world(struct view *v, uint32_t by);              /* by: m + 1 of who had stopped it */
void procresize(struct view *v, uint32_t n);

#endif
