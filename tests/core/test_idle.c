/* The two fences of GMP-SPEC 2.0: submitting against parking, between two real processes; and wakep's hand-over. */
#include "check.h"

#ifdef __SANITIZE_THREAD__
enum { ROUNDS = 20000 };
#else
enum { ROUNDS = 3000000 };
#endif
static struct view submitter, parker;
static struct p *p0;
static struct shared { _Atomic long meet, submitted_saw, parked_saw, last; } *shared;
#define ENOUGH_NS 20000000000         /* on a machine with little to spare: fewer rounds */

static void submit_side(void) {
    int inherit;
    int64_t end = nanotime() + ENOUGH_NS;
    for (long r = 1; !atomic_load(&shared->last); r++) {
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
        if (r == ROUNDS || (r % 1024 == 0 && nanotime() > end)) atomic_store(&shared->last, 1);
        meet(&shared->meet, 3 * r);
    }
}

static void park_side(void) {
    for (long r = 1; !atomic_load(&shared->last); r++) {
        set_spinning(&parker);
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
    int fd = new_segment(2, 2);
    attach(&submitter, fd, 0, KIND_M);
    attach(&parker, fd, 1, KIND_M);
    p0 = with_p(&submitter);
    with_p(&parker);
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
    pidleput(&parker, releasep(&parker));
    mput(&parker);
    CHECK(nmidle(&submitter) == 1 && npidle(&submitter) == 1);
    CHECK(wakep(&submitter) == 1 && wakep(&submitter) == 0);
    CHECK(nmspinning(&submitter) == 1 && nmidle(&submitter) == 0 && npidle(&submitter) == 0);
    CHECK(notesleep(&parker, 0) == 1 && mtake(&parker) == &parker.allp[1] && is_spinning(&parker));
    /* no idle M: a slot is reserved before anybody else can look, and finds its P when it starts */
    reset_spinning(&parker);
    pidleput(&parker, releasep(&parker));
    pidleput(&submitter, releasep(&submitter));
    atomic_store(&submitter.allm[0].note, MWORD(M_FREE, 0, 3));
    CHECK(wakep(&parker) == 1 && submitter.allm[0].note == MWORD(M_HANDED, 1, 3));
    CHECK(OWN_M(submitter.allp[0].own) == 0 && nmspinning(&parker) == 1);
    CHECK(mtake(&submitter) == &submitter.allp[0] && is_spinning(&submitter));
    reset_spinning(&submitter);
    /* the M that a waker chose dies before the hand-over: the P is the waker's again, and finds another */
    mput(&parker);
    uint32_t late = MWORD(M_WANTED, 0, MLIFE(parker.allm[1].note));
    atomic_store(&parker.allm[1].note, late);
    buried(&submitter, 1);
    CHECK(!notewakeup(&submitter, 1, late, 2) && npidle(&submitter) == 1);
    struct p *p = pidleget(&submitter);
    CHECK(startm_on(&submitter, p, 1) == 0 && startm(&submitter, p, 0) == 0 && npidle(&submitter) == 1);
    /* an idle bit whose P is not idle (a repair was too careful) goes, and the next one is found */
    atomic_fetch_or(&submitter.seg->sched.pidle[0], 1);
    CHECK(pidleget(&submitter) == &submitter.allp[1] && npidle(&submitter) == 0 && !pidleget(&submitter));
    DONE("idle");
}
