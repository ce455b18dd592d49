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
    /* who fills an entry dies before its hash is there, and somebody else fills another before the repair */
    uint64_t half = heap_alloc(&v[1], 100000);
    v[1].allm[1].filling = 100;
    v[1].fns[100].off = half;
    CHECK(fn_intern(&v[2], 200, "other", 5, &a) && v[2].allm[2].filling == 0);
    CHECK(heap_sweep(&v[0], 1) >= 1 && v[0].fns[100].off == 0);
    static char blob[100000];
    CHECK(fn_intern(&v[2], 100, blob, sizeof blob, &a) && a == 100 && v[2].fns[100].off);
    /* or before anybody repairs: the next one to fill it frees the block */
    v[1].allm[1].filling = 101;
    v[1].fns[101].off = heap_alloc(&v[1], 100000);
    CHECK(fn_intern(&v[2], 101, blob, sizeof blob, &a) && a == 101);
    uint64_t filled = v[2].fns[101].off;
    CHECK(heap_sweep(&v[0], 1) == 0 && v[2].fns[101].off == filled);
    /* used up with small blocks, then with large ones, in any order: merged and split, none lost */
    uint64_t big[64], small[20000];
    for (int round = 0; round < 3; round++) {
        int n = 0, k = 0;
        while (n < 64 && (big[n] = heap_alloc(&v[0], 1 << 20)) != 0) heap_use(&v[0], big[n++]);
        CHECK(n >= 5);
        for (int i = 0; i < n; i++) heap_hold(&v[0], big[i]), heap_free(&v[0], big[i]);
        while (k < 20000 && (small[k] = heap_alloc(&v[0], 900)) != 0) heap_use(&v[0], small[k++]);
        CHECK(k > 10000);
        for (int i = 0; i < k; i++) heap_hold(&v[0], small[i]), heap_free(&v[0], small[i]);
        CHECK(heap_sweep(&v[0], 0) <= 8 * 16);              /* its caches */
        memset(v[0].ncached, 0, sizeof v[0].ncached);
        uint64_t one = heap_alloc(&v[0], 5 << 20);
        CHECK(one);
        heap_free(&v[0], one);
    }
    DONE("heap");
}
