/* checkdead.h: reading Gs while they change, and whether all of them are asleep for ever.  See checkdead.c. */
#ifndef DGMP_CHECKDEAD_H
#define DGMP_CHECKDEAD_H

#include "core.h"

struct g_seen {
    uint64_t state, goid, wait_since;
    uint32_t owner, place, wait_reason;
};
int gread(struct view *v, uint32_t index, struct g_seen *out);
uint64_t checkdead(struct view *v);                             /* 0: no; else what has been done in all so far */
int gdeadlocked(struct view *v, uint64_t w, uint32_t text);     /* G w is to be told; 0: it waits no more */
uint32_t gtold_deadlock(struct view *v, uint64_t w);            /* our G w: the text for it, once; 0 none */

#endif
