/* place.c: the table of places: texts that say what Gs are called and where in a program they were spawned.
 *
 * Whoever spawns adds a text under the robust lock, once, and remembers its number; a G's slot has two such numbers, and
 * every process reads the texts without a lock.  The table is content-addressed and never shrinks: an entry is its bytes,
 * then its offset and length, then its hash, so one that is half done by a process that died is free still, and only its
 * bytes are lost.  A program may give each of its Gs a name of its own: such texts get half of the table.
 */
#include "place.h"

#include <string.h>

static uint64_t hash_of(const char *text, uint32_t len) {
    uint64_t h = fn_hash(text, len);
    return h ? h : 1;
}

/* It lies within the bytes of all texts. */
static int is_sound(const struct text *t) { return t->len <= PLACE_LONGEST && t->off <= PLACE_BYTES - t->len; }

/* Under the lock: i is free. */
static int add(struct view *v, struct text *t, uint64_t hash, const char *text, uint32_t len, int rare) {
    struct places *p = &v->seg->places;
    uint32_t share = rare ? 2 : 1, used = load_rlx(&p->used), n = load_rlx(&p->n);
    if (used + len > PLACE_BYTES / share || n >= PLACE_TEXTS / 4 * 3 / share) return 0;
    memcpy((char *)at(v, p->bytes) + used, text, len);
    t->off = used, t->len = len;
    store_rel(&p->used, used + len);
    store_rel(&p->n, n + 1);
    KILLPOINT(place_locked);
    store_rel(&t->hash, hash);
    return 1;
}

uint32_t place_intern(struct view *v, const char *text, uint32_t len, int rare) {
    struct places *p = &v->seg->places;
    struct text *texts = at(v, p->texts);
    if (len > PLACE_LONGEST) len = PLACE_LONGEST;
    uint64_t hash = hash_of(text, len);
    uint32_t found = 0;
    lock(v, &p->lock);
    for (uint32_t i = (uint32_t)(hash % PLACE_TEXTS), n = 0; n < PLACE_TEXTS; n++, i = (i + 1) % PLACE_TEXTS) {
        uint64_t was = load_acq(&texts[i].hash);
        if (i == 0) continue;
        int same = was == hash && texts[i].len == len && is_sound(&texts[i]) &&
                   memcmp((char *)at(v, p->bytes) + texts[i].off, text, len) == 0;
        if (was && !same) continue;
        if (was || add(v, &texts[i], hash, text, len, rare)) found = i;
        break;
    }
    unlock(&p->lock);
    return found;
}

const char *place_text(struct view *v, uint32_t number, uint32_t *len) {
    struct places *p = &v->seg->places;
    struct text *t = (struct text *)at(v, p->texts) + number;
    if (number == 0 || number >= PLACE_TEXTS || !load_acq(&t->hash) || !is_sound(t)) return NULL;
    *len = t->len;
    return (char *)at(v, p->bytes) + t->off;
}
