/* Shared blocks: freed once, by whoever lets go last, and not before; what the dead read is forgotten. */
#include "check.h"

#include <sys/mman.h>
#include <sys/stat.h>

enum { READERS = 2, ROUNDS = 100000, LEN = 70000, OWNER = READERS };
static struct view v[READERS + 1];
static _Atomic long round_begun, entered, at_work;
static _Atomic uint64_t block;

/* A reader enters while the owner's G still refers to the block, and leaves as the owner lets go of it. */
static void *reader(void *arg) {
    struct view *me = arg;
    unsigned seed = me->self + 1;
    for (long r = 1; r <= ROUNDS; r++) {
        while (atomic_load(&round_begun) < r) sched_yield();
        uint64_t off = atomic_load(&block);
        reader_enter(me, off);
        atomic_fetch_add(&entered, 1);
        uint64_t *content = shared_content(me, off);
        pause_up_to(&seed, 60);
        CHECK(load_rlx((au64 *)content) == (uint64_t)r);      /* nobody has it anew while we read */
        reader_leave(me, off);
        atomic_fetch_sub(&at_work, 1);
    }
    return NULL;
}

static void churn(void) {
    pthread_t t[READERS];
    unsigned seed = 7;
    struct view *me = &v[OWNER];
    for (int i = 0; i < READERS; i++) pthread_create(&t[i], NULL, reader, &v[i]);
    uint64_t first = 0;
    for (long r = 1; r <= ROUNDS; r++) {
        uint64_t off = shared_alloc(me, LEN);
        CHECK(off && is_shared(me, off));
        if (!first) first = off;
        CHECK(off == first);                                  /* it was freed in the round before, once */
        store_rlx((au64 *)shared_content(me, off), (uint64_t)r);
        heap_use(me, off);
        atomic_store(&entered, 0);
        atomic_store(&at_work, READERS);
        atomic_store(&block, off);
        atomic_store(&round_begun, r);
        while (atomic_load(&entered) < READERS) sched_yield();
        pause_up_to(&seed, 60);
        heap_hold(me, off), heap_free(me, off);
        while (atomic_load(&at_work)) sched_yield();
    }
    for (int i = 0; i < READERS; i++) pthread_join(t[i], NULL);
}

static uint64_t used_by(uint32_t reads, int kept) {
    uint64_t off = shared_alloc(&v[OWNER], LEN);
    heap_use(&v[OWNER], off);
    for (uint32_t i = 0; i < READERS; i++)
        if (reads >> i & 1) reader_enter(&v[i], off);
    if (kept) heap_hold(&v[OWNER], off), heap_free(&v[OWNER], off);
    return off;
}
static uint32_t state_of(uint64_t off) { return load_rlx(&block_of(&v[0], off)->state); }

static void deaths(void) {
    uint64_t alone = used_by(1, 1), with_another = used_by(3, 1), with_a_g = used_by(1, 0), others = used_by(2, 1);
    uint64_t held = shared_alloc(&v[0], LEN);
    CHECK(alone && with_another && with_a_g && others && held);
    CHECK(BSTATE(state_of(alone)) == B_KEPT && state_of(with_a_g) == B_USED);
    CHECK(heap_sweep(&v[OWNER], 0) == 2);                     /* alone, and held */
    CHECK(state_of(alone) == B_FREE && state_of(held) == B_FREE);
    CHECK(BSTATE(state_of(with_another)) == B_KEPT && BSTATE(state_of(others)) == B_KEPT && state_of(with_a_g) == B_USED);
    reader_leave(&v[1], with_another);
    CHECK(state_of(with_another) == B_FREE);
    heap_hold(&v[OWNER], with_a_g), heap_free(&v[OWNER], with_a_g);
    CHECK(state_of(with_a_g) == B_FREE);                      /* the dead one does not read it any more */
    /* killed between taking its bit away and looking: the next sweep frees it */
    atomic_fetch_and((au64 *)(block_of(&v[1], others) + 1), ~2ull);
    CHECK(heap_sweep(&v[OWNER], 1) == 1 && state_of(others) == B_FREE);
    /* killed while it let go of a G's block that others read */
    uint64_t half = used_by(2, 0);
    heap_hold(&v[0], half);
    CHECK(heap_sweep(&v[OWNER], 0) == 0 && BSTATE(state_of(half)) == B_KEPT);
    reader_leave(&v[1], half);
    CHECK(state_of(half) == B_FREE);
    /* who found it KEPT and comes late does not win it when it is KEPT anew */
    uint64_t again = used_by(2, 1);
    uint32_t kept = state_of(again);
    reader_leave(&v[1], again);
    CHECK(used_by(2, 1) == again && BSTATE(state_of(again)) == B_KEPT && state_of(again) != kept);
    reader_leave(&v[1], again);
    CHECK(shared_alloc(&v[0], UINT64_MAX - 8) == 0 && shared_alloc(&v[0], 1ull << 40) == 0);
}

static uint64_t resident(int fd) {
    struct stat st;
    CHECK(fstat(fd, &st) == 0);
    return (uint64_t)st.st_blocks * 512;
}

/* Free memory goes back; what is in use stays as it is. */
static void trim(int fd) {
    uint64_t a = shared_alloc(&v[0], 1 << 20), b = shared_alloc(&v[0], 1 << 20);
    CHECK(a && b);
    memset(shared_content(&v[0], a), 1, 1 << 20), memset(shared_content(&v[0], b), 2, 1 << 20);
    uint64_t before = resident(fd);
    heap_free(&v[0], a);
    while (heap_trim(&v[1])) continue;
    CHECK(resident(fd) < before - (1 << 20) + 16384 && ((char *)shared_content(&v[0], b))[1 << 19] == 2);
    CHECK(heap_trim(&v[1]) == 0);
    uint64_t again = shared_alloc(&v[0], 1 << 20);
    CHECK(again == a && !load_rlx(&block_of(&v[0], again)->cold));
    heap_free(&v[0], again), heap_free(&v[0], b);
    CHECK(heap_trim(&v[1]) > 0);
    /* also what lay at the end of all blocks and is none any more: somebody has died */
    CHECK((a = shared_alloc(&v[0], 4 << 20)) != 0);
    memset(shared_content(&v[0], a), 3, 4 << 20);
    before = resident(fd);
    heap_free(&v[0], a);
    heap_sweep(&v[1], 1);
    CHECK(load_rlx(&v[0].seg->heap.bump) <= a && resident(fd) == before);
    while (heap_trim(&v[1])) continue;
    CHECK(resident(fd) < before - (4 << 20) + 16384 && heap_trim(&v[1]) == 0);
    CHECK((a = shared_alloc(&v[0], 4 << 20)) != 0 && ((char *)shared_content(&v[0], a))[2 << 20] == 0);
    heap_free(&v[0], a);
}

int main(void) {
    int fd = new_segment(1, READERS);
    for (uint32_t i = 0; i <= READERS; i++) attach(&v[i], fd, i, i < READERS ? KIND_M : KIND_CLIENT);
    deaths();
    churn();
    trim(fd);
    DONE("readers");
}
