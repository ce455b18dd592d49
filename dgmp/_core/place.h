/* place.h: what Gs are called and where they were spawned, readable by every process.  See place.c. */
#ifndef DGMP_PLACE_H
#define DGMP_PLACE_H

#include "core.h"

#define PLACE_TEXTS (1u << 16)        /* texts are numbered by 16 bits; 0 is none */
#define PLACE_BYTES (8u << 20)
#define PLACE_LONGEST 1024            /* bytes of a text */

/* A G's place = {name:16, at:16}, the numbers of two texts. */
#define PLACE(name, at) ((uint32_t)(name) << 16 | (uint32_t)(at))
#define PLACE_NAME(x) ((x) >> 16)
#define PLACE_AT(x) ((x) & 0xffffu)

/* rare: a text of which a program may have any number.  Returns its number, 0 if there is no room for it. */
uint32_t place_intern(struct view *v, const char *text, uint32_t len, int rare);
const char *place_text(struct view *v, uint32_t number, uint32_t *len);   /* NULL: there is no such text */

#endif
