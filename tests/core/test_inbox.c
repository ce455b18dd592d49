/* The inbox: each word once, laps, a producer that dies half-way, and no lost wake-up of who waits. */
#include "check.h"

enum { PRODUCERS = 3, EACH = 30000 };
static struct view views[PRODUCERS + 1];
static int fd;

static void *producer(void *arg) {
    long k = (long)arg;
    unsigned seed = (unsigned)k;
    for (long i = 0; i < EACH; i++) {
        while (views[k].allm[0].inbox.tail - views[k].allm[0].inbox.head > 6000) usleep(10);
        inbox_push(&views[k], 0, GWORD_FULL | (uint64_t)(k * EACH + i));
        if (rand_r(&seed) % 64 == 0)
            for (int j = rand_r(&seed) % 2000; j; j--) procyield();
    }
    return NULL;
}

int main(void) {
    fd = new_segment(1, PRODUCERS + 1);
    for (uint32_t i = 0; i <= PRODUCERS; i++) attach(&views[i], fd, i, KIND_CLIENT);
    struct view *v = &views[0];
    /* a producer that dies between its cell and tail is finished by the next, or by the consumer */
    au64 *cells = at(v, v->allm[0].inbox.cells);
    atomic_store(&cells[0], GWORD_FULL | 11);
    inbox_push(&views[1], 0, GWORD_FULL | 12);
    CHECK(inbox_pop(v) == (GWORD_FULL | 11) && inbox_pop(v) == (GWORD_FULL | 12) && inbox_pop(v) == 0);
    atomic_store(&cells[2], GWORD_FULL | 13);
    CHECK(!inbox_empty(v, 0) && inbox_pop(v) == (GWORD_FULL | 13) && inbox_empty(v, 0));
    /* many producers; the consumer sleeps whenever there is nothing: 8 laps of the ring */
    static long next[PRODUCERS + 1];
    pthread_t t[PRODUCERS];
    for (long k = 0; k < PRODUCERS; k++) pthread_create(&t[k], NULL, producer, (void *)(k + 1));
    for (long got = 0; got < PRODUCERS * EACH;) {
        uint64_t w = inbox_pop(v);
        if (!w) {
            int e = inbox_wait(v, 0, 0, 0, 2000000000);
            CHECK(e == 0 || inbox_empty(v, 0));       /* slept 2 s beside a full inbox: a lost wake-up */
            CHECK(e == 0 || got > 0);
            continue;
        }
        long k = (long)(w & 0xffffffff) / EACH, i = (long)(w & 0xffffffff) % EACH;
        CHECK(k >= 1 && k <= PRODUCERS && next[k] == i);     /* each producer's words in its order */
        next[k]++, got++;
    }
    for (int k = 0; k < PRODUCERS; k++) pthread_join(t[k], NULL);
    CHECK(inbox_empty(v, 0));
    DONE("inbox");
}
