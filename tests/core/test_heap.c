/* Payload blocks: no overlap, whatever the order; what a dead process cached is swept; the function table. */
#include "check.h"

enum { N = 300, ROUNDS = 20000 };

static void *churn(void *arg) {
    struct view *v = arg;
    unsigned seed = v->self + 1;
    static _Thread_local struct { uint64_t off, len; unsigned char fill; } held[N];
    for (int r = 0; r < ROUNDS; r++) {
        int i = rand_r(&seed) % N;
        if (held[i].off) {
            unsigned char *b = at(v, held[i].off);
            for (uint64_t k = 0; k < held[i].len; k += 97) CHECK(b[k] == held[i].fill);
            heap_hold(v, held[i].off), heap_free(v, held[i].off);
            held[i].off = 0;
        } else {
            held[i].len = (uint64_t)rand_r(&seed) % (r % 50 ? 3000 : 100000) + 1;
            held[i].off = heap_alloc(v, held[i].len);
            if (!held[i].off) continue;
            heap_use(v, held[i].off);
            held[i].fill = (unsigned char)rand_r(&seed);
            memset(at(v, held[i].off), held[i].fill, held[i].len);
        }
    }
    for (int i = 0; i < N; i++)
        if (held[i].off) heap_hold(v, held[i].off), heap_free(v, held[i].off);
    return NULL;
}

int main(void) {
    int fd = new_segment(1, 4);
    struct view v[3];
    pthread_t t[3];
    for (uint32_t i = 0; i < 3; i++) attach(&v[i], fd, i, KIND_M);
    for (int i = 0; i < 3; i++) pthread_create(&t[i], NULL, churn, &v[i]);
    for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
    CHECK(heap_sweep(&v[0], 1) > 0 && heap_sweep(&v[0], 1) == 0);
    CHECK(heap_alloc(&v[0], 1ull << 40) == 0 && heap_alloc(&v[0], UINT64_MAX - 8) == 0);
    /* what is in use stays; what is held is swept unless something refers to it */
    memset(v[1].ncached, 0, sizeof v[1].ncached);
    uint64_t used = heap_alloc(&v[1], 9000), held = heap_alloc(&v[1], 9000), kept = heap_alloc(&v[1], 1 << 20);
    heap_use(&v[1], used), heap_keep(&v[0], kept, 1), heap_keep(&v[0], held, 2);
    CHECK(held && kept && heap_sweep(&v[0], 1) >= 1 && heap_sweep(&v[0], 1) == 0);
    heap_hold(&v[0], used), heap_free(&v[0], used);
    heap_hold(&v[0], kept), heap_free(&v[0], kept);
    uint32_t a, b, c;
    CHECK(fn_intern(&v[0], 5, "one", 3, &a) && fn_intern(&v[2], 5, "two", 3, &b) && fn_intern(&v[2], 5, "one", 3, &c));
    CHECK(a == c && a != b && a && b);                          /* the same hash, another blob: another entry */
    CHECK(memcmp(at(&v[0], v[0].fns[b].off), "two", 3) == 0);
    DONE("heap");
}
