/* Notes: a sleep returns after its wake-up whichever comes first; time-outs; between two processes; a wake-up that comes
 * too late for one life of an M does not touch the next. */
#include "check.h"

static struct view a, b;

/* What a waker does, without a P.  Returns 0 while m is not parked. */
static int wake(struct view *by, uint32_t m) {
    au32 *note = &by->allm[m].note;
    uint32_t w = atomic_load(note), want = MWORD(M_WANTED, by->self, MLIFE(w));
    return MSTATE(w) == M_IDLE && atomic_compare_exchange_strong(note, &w, want) && notewakeup(by, m, want, 0);
}

static void wake_soon(struct view *by, uint32_t m) {
    for (int64_t end = nanotime() + 20000000000; !wake(by, m);) CHECK(nanotime() < end && "lost wake-up");
}

int main(void) {
    int fd = new_segment(1, 2), status;
    attach(&a, fd, 0, KIND_M);
    attach(&b, fd, 1, KIND_M);
    CHECK(!wake(&b, 0));                                        /* it runs */
    noteclear(&a);
    CHECK(notesleep(&a, 1000000) == 0);
    CHECK(wake(&b, 0) && !wake(&b, 0));                         /* once */
    CHECK(notesleep(&a, -1) == 1 && notesleep(&a, 0) == 1 && mtake(&a) == NULL);
    CHECK(MSTATE(a.allm[0].note) == M_RUNNING);
    /* its death, and another M in the same slot: the late waker fails, and the new one sleeps on */
    noteclear(&a);
    uint32_t old = MWORD(M_WANTED, 1, 0);
    atomic_store(&a.allm[0].note, old);
    CHECK(buried(&b, 0) == 0);
    mfree(&b, 0);
    CHECK(a.allm[0].note == MWORD(M_FREE, 0, 1));
    atomic_store(&a.allm[0].note, MWORD(M_WANTED, 1, 1));
    CHECK(!notewakeup(&b, 0, old, 1) && a.allm[0].note == MWORD(M_WANTED, 1, 1));
    CHECK(notewakeup(&b, 0, MWORD(M_WANTED, 1, 1), 0) && mtake(&a) == NULL);
    enum { ROUNDS = 5000 };
    pid_t child = fork_child();
    if (child == 0) {
        for (int i = 0; i < ROUNDS; i++) {
            noteclear(&b);
            while (!notesleep(&b, -1)) continue;
            mtake(&b);
            wake_soon(&b, 0);
        }
        _exit(0);
    }
    for (int i = 0; i < ROUNDS; i++) {
        wake_soon(&a, 1);
        noteclear(&a);
        while (!notesleep(&a, 5000000000)) CHECK(0 && "lost wake-up");
        mtake(&a);
    }
    waitpid(child, &status, 0);
    CHECK(status == 0);
    /* parking twice, or taking what was not handed over, is a broken invariant: the process ends */
    for (int i = 0; i < 2; i++) {
        child = fork_child();
        if (child == 0) {
            fclose(stderr);
            if (i) mtake(&a);
            noteclear(&a);
            noteclear(&a);
            _exit(0);
        }
        waitpid(child, &status, 0);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    }
    CHECK(a.seg->sched.throws == 2);
    DONE("note");
}
