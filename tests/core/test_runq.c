/* The local run queue: Go's TestSchedLocalQueue, ...Steal, ...Empty, overflow, and a stress of owner against thieves. */
#include "check.h"

#ifdef __SANITIZE_THREAD__
enum { N = 200000, THIEVES = 3, EMPTY_ROUNDS = 5000 };
#else
enum { N = 1000000, THIEVES = 3, EMPTY_ROUNDS = 20000 };
#endif
static struct view views[THIEVES + 1], client;
static struct p *ps[THIEVES + 1];
static _Atomic int taken[N + 1];
static _Atomic int stop;
static struct p *victim;

static uint64_t word(uint64_t i) { return GWORD_FULL | i; }

static void took(uint64_t w) {
    uint64_t i = w & 0xffffffff;
    CHECK(i >= 1 && i <= N);
    CHECK(atomic_fetch_add(&taken[i], 1) == 0);
}

/* Go: TestSchedLocalQueue */
static void local_queue(void) {
    struct view *v = &views[0];
    int inherit = -1;
    for (uint64_t n = 0; n < RUNQ_CAP; n++) {
        CHECK(runqempty(ps[0]) && runqget(v, ps[0], &inherit) == 0 && inherit == 0);
        for (uint64_t i = 1; i <= n; i++) {
            runqput(v, ps[0], word(i), 0);
            CHECK(!runqempty(ps[0]) && runqsize(ps[0]) == i);
        }
        for (uint64_t i = 1; i <= n; i++) CHECK(runqget(v, ps[0], &inherit) == word(i) && inherit == 0);
        CHECK(runqempty(ps[0]) && runqget(v, ps[0], &inherit) == 0);
    }
    /* runnext comes first and shares the time slice; what it kicks out goes to the tail */
    runqput(v, ps[0], word(1), 0), runqput(v, ps[0], word(2), 1), runqput(v, ps[0], word(3), 1);
    CHECK(runqget(v, ps[0], &inherit) == word(3) && inherit == 1);
    CHECK(runqget(v, ps[0], &inherit) == word(1) && inherit == 0);
    CHECK(runqget(v, ps[0], &inherit) == word(2) && inherit == 0 && runqempty(ps[0]));
}

/* Go: TestSchedLocalQueueSteal */
static void local_queue_steal(void) {
    int inherit;
    for (uint64_t n = 0; n < RUNQ_CAP; n++) {
        uint32_t c;
        int seen[RUNQ_CAP + 1] = {0};
        uint64_t stolen = 0, w;
        for (uint64_t i = 1; i <= n; i++) runqput(&views[0], ps[0], word(i), 0);
        if ((w = runqsteal(&views[1], ps[1], ps[0], 0, 0, &c)) != 0) stolen++, seen[w & 0xffff]++;
        while ((w = runqget(&views[1], ps[1], &inherit)) != 0) stolen++, seen[w & 0xffff]++;
        CHECK(stolen == c && (stolen == n / 2 || stolen == n / 2 + 1));
        while ((w = runqget(&views[0], ps[0], &inherit)) != 0) seen[w & 0xffff]++;
        for (uint64_t i = 1; i <= n; i++) CHECK(seen[i] == 1);
        CHECK(runqempty(ps[0]) && runqempty(ps[1]));
    }
    /* runnext only if asked for */
    uint32_t c;
    runqput(&views[0], ps[0], word(1), 1);
    CHECK(runqsteal(&views[1], ps[1], ps[0], 0, 0, &c) == 0 && c == 0);
    CHECK(runqsteal(&views[1], ps[1], ps[0], 1, 0, &c) == word(1) && c == 1 && runqempty(ps[0]) && runqempty(ps[1]));
}

/* The 257th word: the older half and then itself, 129 in order, go to the global queue. */
static void overflow(int next) {
    struct view *v = &views[0];
    int inherit;
    uint32_t c;
    for (uint64_t i = 1; i <= RUNQ_CAP; i++) runqput(v, ps[0], word(i), 0);
    if (next) runqput(v, ps[0], word(RUNQ_CAP + 1), 1);
    CHECK(globrunqsize(v) == 0);
    runqput(v, ps[0], word(RUNQ_CAP + 1 + (uint64_t)next), next);
    CHECK(globrunqsize(v) == RUNQ_CAP / 2 + 1 && runqsize(ps[0]) == RUNQ_CAP / 2 + (uint32_t)next);
    for (uint64_t i = 1; i <= RUNQ_CAP / 2; i++) CHECK(globrunqget(v, ps[1], 1, &c) == word(i));
    CHECK(globrunqget(v, ps[1], 1, &c) == word(RUNQ_CAP + 1) && globrunqsize(v) == 0);
    if (next) CHECK(runqget(v, ps[0], &inherit) == word(RUNQ_CAP + 2) && inherit == 1);
    for (uint64_t i = RUNQ_CAP / 2 + 1; i <= RUNQ_CAP; i++) CHECK(runqget(v, ps[0], &inherit) == word(i));
    CHECK(runqempty(ps[0]) && load_rlx(&self_m(v)->intent) == INTENT_NONE);
}

/* Go: TestSchedLocalQueueEmpty.  One G is always there while the owner moves it between runnext and ring. */
static _Atomic long rounds;
static void *watcher(void *arg) {
    for (long r = 1; r <= EMPTY_ROUNDS; r++) {
        meet(&rounds, 2 * r - 1);
        CHECK(!runqempty(ps[0]));                   /* it holds one G at every instant of this phase */
        meet(&rounds, 2 * r);
    }
    return arg;
}

static void empty_never_lies(void) {
    pthread_t t;
    int inherit;
    pthread_create(&t, NULL, watcher, NULL);
    for (long r = 1; r <= EMPTY_ROUNDS; r++) {
        runqput(&views[0], ps[0], word(1), r & 1);
        meet(&rounds, 2 * r - 1);
        runqput(&views[0], ps[0], word(2), r >> 1 & 1);
        CHECK(runqget(&views[0], ps[0], &inherit));
        meet(&rounds, 2 * r);
        CHECK(runqget(&views[0], ps[0], &inherit));
        CHECK(runqempty(ps[0]));
    }
    pthread_join(t, NULL);
}

static void *thief(void *arg) {
    long k = (long)arg;
    struct view *v = &views[k];
    int inherit;
    uint32_t n;
    for (int done = 0; !done;) {
        done = atomic_load(&stop);                  /* once more after the owner has stopped */
        uint64_t w;
        while ((w = runqsteal(v, ps[k], victim, 1, 0, &n)) != 0) {
            took(w);
            while ((w = runqget(v, ps[k], &inherit)) != 0) took(w);
        }
        while ((w = globrunqget(v, ps[k], 0, &n)) != 0) {
            took(w);
            while ((w = runqget(v, ps[k], &inherit)) != 0) took(w);
        }
    }
    return NULL;
}

/* Words 1..N through the owner's ring and runnext while thieves take what they can: each word comes out once.
 * every: the owner itself takes one after so many puts; a client's P, whose runnext is stolen at once, when it is 0. */
static void stress(struct view *v, struct p *p, unsigned every) {
    pthread_t t[THIEVES];
    int inherit;
    unsigned seed = every + 1;
    uint64_t w;
    victim = p;
    atomic_store(&stop, 0);
    for (int i = 0; i <= N; i++) atomic_store(&taken[i], 0);
    for (long k = 0; k < THIEVES; k++) pthread_create(&t[k], NULL, thief, (void *)(k + 1));
    for (uint64_t i = 1; i <= N; i++) {
        while (globrunqsize(v) > 8000) usleep(50);  /* the thieves may not get a CPU for a while */
        runqput(v, p, word(i), i % 3 != 0);
        if (every && i % every == 0 && (w = runqget(v, p, &inherit)) != 0) took(w);
        if (!every && i % 8 == 0) pause_up_to(&seed, 8);
    }
    while ((w = runqget(v, p, &inherit)) != 0) took(w);
    atomic_store(&stop, 1);
    for (int k = 0; k < THIEVES; k++) pthread_join(t[k], NULL);
    uint32_t n;
    while ((w = globrunqget(&views[0], ps[0], 1, &n)) != 0) took(w);
    for (int i = 1; i <= N; i++) CHECK(taken[i] == 1);
}

int main(void) {
    int fd = new_segment(THIEVES + 1, 8);
    for (uint32_t i = 0; i <= THIEVES; i++) attach(&views[i], fd, i, KIND_M), ps[i] = with_p(&views[i]);
    attach(&client, fd, 8, KIND_CLIENT);
    local_queue();
    local_queue_steal();
    overflow(0);
    overflow(1);
    empty_never_lies();
    stress(&views[0], ps[0], 2);
    stress(&client, &client.allp[MAX_PS], 0);
    DONE("runq");
}
