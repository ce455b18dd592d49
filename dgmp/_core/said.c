/* said.c: the last that each M has written to its sys.stderr, so that who is told of its death can be told that, too.
 *
 * A ring of bytes for each M, which alone writes there, and counts after it has written: what it was at as it died may be
 * torn, and then lies where the oldest bytes were.  The coordinator reads it once the M is dead.
 */
#include "core.h"

#include <string.h>

static struct said *said_of(struct view *v, uint32_t m) { return (struct said *)at(v, v->seg->said) + m; }

void said_forget(struct view *v) { store_rel(&said_of(v, v->self)->n, 0); }

void said_keep(struct view *v, const char *data, uint64_t len) {
    struct said *s = said_of(v, v->self);
    uint64_t n = load_rlx(&s->n), skip = len > SAID_BYTES ? len - SAID_BYTES : 0;
    for (uint64_t i = skip; i < len;) {
        uint64_t to = (n + i) % SAID_BYTES, most = SAID_BYTES - to, piece = len - i < most ? len - i : most;
        memcpy(s->bytes + to, data + i, piece);
        i += piece;
    }
    store_rel(&s->n, n + len);
}

/* The bytes of M m, oldest first; how many. */
uint64_t said_last(struct view *v, uint32_t m, char *to) {
    struct said *s = said_of(v, m);
    uint64_t n = load_acq(&s->n), len = n < SAID_BYTES ? n : SAID_BYTES, from = (n - len) % SAID_BYTES;
    uint64_t first = SAID_BYTES - from < len ? SAID_BYTES - from : len;
    memcpy(to, s->bytes + from, first);
    memcpy(to + first, s->bytes, len - first);
    return len;
}
