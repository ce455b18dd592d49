/* Notes: a sleep returns after its wake-up whichever comes first; time-outs; between two processes. */
#include "check.h"

int main(void) {
    int fd = new_segment(1, 2);
    struct view v;
    attach(&v, fd, 0, KIND_M);
    au32 *there = &v.allm[0].note, *back = &v.allm[1].note;
    CHECK(notesleep(there, 0, 1000000) == 0);
    notewakeup(&v, there);
    CHECK(notesleep(there, 0, -1) == 1);
    noteclear(there);
    enum { ROUNDS = 5000 };
    pid_t child = fork_child();
    if (child == 0) {
        for (int i = 0; i < ROUNDS; i++) {
            while (!notesleep(there, i % 3 ? 0 : 2000, -1)) continue;
            noteclear(there);
            notewakeup(&v, back);
        }
        _exit(0);
    }
    for (int i = 0; i < ROUNDS; i++) {
        notewakeup(&v, there);
        while (!notesleep(back, i % 2 ? 0 : 2000, 5000000000)) CHECK(0 && "lost wake-up");
        noteclear(back);
    }
    int status;
    waitpid(child, &status, 0);
    CHECK(status == 0);
    /* a double wake-up is a broken invariant: the process ends */
    child = fork_child();
    if (child == 0) {
        fclose(stderr);
        notewakeup(&v, there);
        notewakeup(&v, there);
        _exit(0);
    }
    waitpid(child, &status, 0);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && v.seg->sched.throws == 1);
    DONE("note");
}
