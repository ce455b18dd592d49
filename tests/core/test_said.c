/* The last that an M has written: a ring, read after its death. */
#include "check.h"

static char to[SAID_BYTES], all[20 * SAID_BYTES];

static void says(struct view *v, const char *data, uint64_t len, uint64_t *n) {
    said_keep(v, data, len);
    memcpy(all + *n, data, len);
    *n += len;
    uint64_t most = *n < SAID_BYTES ? *n : SAID_BYTES;
    CHECK(said_last(v, v->self, to) == most && memcmp(to, all + *n - most, most) == 0);
}

int main(void) {
    int fd = new_segment_of(1, 2, 64);
    struct view v, other;
    attach(&v, fd, 0, KIND_M);
    attach(&other, fd, 1, KIND_M);
    static char data[3 * SAID_BYTES];
    for (uint64_t i = 0; i < sizeof data; i++) data[i] = (char)(i * 7 + i / 251);
    uint64_t n = 0, lens[] = {0, 1, 5, 1000, SAID_BYTES - 1006, 1, SAID_BYTES, 3, SAID_BYTES + 1, 3 * SAID_BYTES, 2000, 2000, 77};
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) says(&v, data + i, lens[i] > i ? lens[i] - i : lens[i], &n);
    CHECK(said_last(&v, 1, to) == 0);
    said_keep(&other, "x", 1);
    CHECK(said_last(&v, 1, to) == 1 && to[0] == 'x' && said_last(&v, 0, to) == SAID_BYTES);
    said_forget(&v);
    CHECK(said_last(&v, 0, to) == 0 && said_last(&v, 1, to) == 1);
    DONE("said");
}
