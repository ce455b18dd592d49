/* The two fences of GMP-SPEC 2.0: submitting against parking, between two real processes; and wakep's hand-over. */
#include "check.h"

#ifdef __SANITIZE_THREAD__
enum { ROUNDS = 20000 };
#else
enum { ROUNDS = 3000000 };
#endif
static struct view submitter, parker;
static struct p *p0;
static struct shared { _Atomic long meet, submitted_saw, parked_saw; } *shared;

static void submit_side(void) {
    int inherit;
    for (long r = 1; r <= ROUNDS; r++) {
        atomic_store(&submitter.seg->sched.needspinning, 0);
        meet(&shared->meet, 3 * r - 2);
        runqput(&submitter, p0, GWORD_FULL | 7, 0);
        wakep(&submitter);                          /* no idle P: it leaves needspinning unless it saw a spinner */
        atomic_store(&shared->submitted_saw, !atomic_load(&submitter.seg->sched.needspinning));
        meet(&shared->meet, 3 * r - 1);
        if (atomic_load(&shared->submitted_saw) && !atomic_load(&shared->parked_saw)) {
            fprintf(stderr, "round %ld: who submitted relied on the spinner, who parked saw no work\n", r);
            _exit(1);
        }
        runqget(&submitter, p0, &inherit);
        meet(&shared->meet, 3 * r);
    }
}

static void park_side(void) {
    for (long r = 1; r <= ROUNDS; r++) {
        atomic_fetch_or(&parker.seg->sched.mspinning[0], 2);
        meet(&shared->meet, 3 * r - 2);
        for (long i = r % 16; i; i--) __asm__ volatile("" ::: "memory");
        reset_spinning(&parker);
        atomic_store(&shared->parked_saw, work_anywhere(&parker));
        meet(&shared->meet, 3 * r - 1);
        meet(&shared->meet, 3 * r);
    }
}

static void *park_thread(void *arg) {
    park_side();
    return arg;
}

int main(void) {
    int fd = new_segment(1, 2);
    attach(&submitter, fd, 0, KIND_M);
    attach(&parker, fd, 1, KIND_M);
    p0 = with_p(&submitter);
    CHECK(npidle(&submitter) == 0 && nmspinning(&submitter) == 0);
    shared = (void *)at(&submitter, submitter.seg->heap.base);
#ifdef __SANITIZE_THREAD__
    pthread_t t;
    pthread_create(&t, NULL, park_thread, NULL);
    submit_side();
    pthread_join(t, NULL);
#else
    (void)park_thread;
    pid_t child = fork_child();
    if (child == 0) {
        park_side();
        _exit(0);
    }
    submit_side();
    int status;
    waitpid(child, &status, 0);
    CHECK(status == 0);
#endif
    /* wakep: takes the idle P, wakes the parked M, presets its spinning bit; a second one does nothing. */
    pidleput(&submitter, releasep(&submitter));
    mput(&parker);
    CHECK(nmidle(&submitter) == 1 && npidle(&submitter) == 1);
    CHECK(wakep(&submitter) == 1 && wakep(&submitter) == 0);
    CHECK(notesleep(&self_m(&parker)->note, 0, 0) == 1);
    CHECK(is_spinning(&parker) && self_m(&parker)->nextp == 1 && npidle(&submitter) == 0);
    /* no idle M: a slot is reserved before anybody else can look */
    acquirep(&parker, &parker.allp[0]);
    reset_spinning(&parker);
    pidleput(&parker, releasep(&parker));
    atomic_store(&submitter.allm[0].state, M_FREE);
    CHECK(wakep(&parker) == 1 && MSTATE(submitter.allm[0].state) == M_STARTING);
    CHECK(OWN_M(submitter.allp[0].own) == 0 && nmspinning(&parker) == 1);
    DONE("idle");
}
