/* Locks whose holder died, is stopped, is stuck or under a debugger; lives; and a wall clock that jumps. */
#include "check.h"

#include <errno.h>
#include <sys/syscall.h>
#include <time.h>

static struct view v;
static au64 hours;                    /* that the wall clock is set forward at each look at it */

/* In place of libc's. */
int clock_gettime(clockid_t clock, struct timespec *t) {
    int e = (int)syscall(SYS_clock_gettime, clock, t);
    if (clock == CLOCK_REALTIME) t->tv_sec += 3600 * (time_t)atomic_fetch_add(&hours, 1);
    return e;
}

static void hold(void) { lock(&v, &v.seg->heap.lock); }

static void sleep_holding_it(void) {
    hold();
    raise(SIGSTOP);                   /* the parent knows that we do */
    pause();
}

/* A child of ours that holds the heap's lock, as M m, and is stopped. */
static pid_t holder(uint32_t m) {
    pid_t child = fork_child();
    if (child == 0) {
        v.self = m;
        sleep_holding_it();
    }
    int status;
    CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
    atomic_store(&v.allm[m].pid, (uint32_t)child);
    return child;
}

static int signal_of(pid_t child) {
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : -1;
}

static void take(void) {
    lock(&v, &v.seg->heap.lock);
    unlock(&v.seg->heap.lock);
}

/* In a child, after so long. */
static void later(pid_t pid, int number, useconds_t us) {
    if (fork_child() == 0) {
        usleep(us);
        kill(pid, number);
        _exit(0);
    }
}

static void test_stopped_m_is_killed_whatever_the_wall_clock_says(void) {
    pid_t child = holder(0);
    take();
    CHECK(signal_of(child) == SIGKILL);
}

static void test_stuck_m_is_killed(void) {
    pid_t child = holder(0);
    kill(child, SIGCONT);
    take();
    CHECK(signal_of(child) == SIGKILL);
}

static void test_stopped_client_and_coordinator_are_waited_for(uint32_t who) {
    pid_t child = holder(who);
    later(child, SIGTERM, 350000);
    later(child, SIGCONT, 400000);
    take();
    CHECK(signal_of(child) == SIGTERM);
    atomic_store(&v.allm[who].pid, (uint32_t)getpid());
}

static void test_m_under_a_debugger_is_waited_for(void) {
    pid_t child = holder(0);
    CHECK(ptrace(PTRACE_SEIZE, child, NULL, NULL) == 0 && ptrace(PTRACE_INTERRUPT, child, NULL, NULL) == 0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFSTOPPED(status));
    pid_t waiter = fork_child();
    if (waiter == 0) {
        v.self = 1;
        take();
        _exit(7);
    }
    usleep(400000);
    CHECK(waitpid(waiter, &status, WNOHANG) == 0 && kill(child, 0) == 0);
    kill(child, SIGTERM);             /* which a debugger sees first */
    CHECK(ptrace(PTRACE_DETACH, child, NULL, SIGTERM) == 0);
    kill(child, SIGCONT);
    CHECK(signal_of(child) == SIGTERM);
    CHECK(waitpid(waiter, &status, 0) == waiter && WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

static void test_life(void) {
    struct lock *l = &v.seg->coordinator;
    int begun[2];
    CHECK(pipe(begun) == 0 && has_died(l) == -1);
    pid_t child = fork_child();
    if (child == 0) {
        live(&v, l);
        if (write(begun[1], "", 1) != 1) _exit(1);
        if (fork() == 0) _exit(0);    /* a child of it is not it */
        pause();
    }
    char c;
    CHECK(read(begun[0], &c, 1) == 1);
    for (int i = 0; i < 3; i++) CHECK(has_died(l) == 0);
    kill_child(child);
    for (int i = 0; i < 3; i++) CHECK(has_died(l) == 1);
}

int main(void) {
    int fd = new_segment(2, 4);
    attach(&v, fd, 1, KIND_M);
    atomic_store(&v.allm[4].pid, (uint32_t)getpid());
    atomic_store(&v.allm[5].pid, (uint32_t)getpid());
#ifndef __SANITIZE_THREAD__
    test_stopped_m_is_killed_whatever_the_wall_clock_says();
    test_stuck_m_is_killed();
    test_stopped_client_and_coordinator_are_waited_for(4);
    test_stopped_client_and_coordinator_are_waited_for(5);
    test_m_under_a_debugger_is_waited_for();
    test_life();
    while (waitpid(-1, NULL, WNOHANG) > 0) continue;
#endif
    DONE("lock");
}
