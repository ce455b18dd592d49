/* check.h: what the C tests share: CHECK, segments, threads or processes that run a function each. */
#ifndef CHECK_H
#define CHECK_H
#include "core.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static _Atomic long checks;
#define CHECK(x) do { atomic_fetch_add_explicit(&checks, 1, memory_order_relaxed); if (!(x)) { \
    fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #x); _exit(1); } } while (0)
#define DONE(name) do { printf("%s: %ld checks passed\n", name, (long)checks); return 0; } while (0)

#ifdef __SANITIZE_ADDRESS__
#define MOST_SECONDS 600              /* it slows some of them down tenfold */
#else
#define MOST_SECONDS 180              /* on a machine that does much else */
#endif

/* A test that hangs ends by SIGALRM; its children end with it (fork_child). */
__attribute__((constructor)) static void watchdog(void) { alarm(MOST_SECONDS); }

/* A child that does not outlive the test.  From the main thread only. */
__attribute__((unused)) static pid_t fork_child(void) {
    pid_t parent = getpid(), child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(1);
    }
    return child;
}

__attribute__((unused)) static void kill_child(pid_t child) {
    kill(child, SIGKILL);
    CHECK(waitpid(child, NULL, 0) == child);
}

/* A child that stands before act(), to be taken through it instruction by instruction. */
__attribute__((unused)) static pid_t stopped_before(void (*act)(void)) {
    pid_t child = fork_child();
    if (child == 0) {
        CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
        raise(SIGSTOP);
        act();
        raise(SIGSTOP);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    return child;
}

/* One instruction.  0: act() is over. */
__attribute__((unused)) static int step(pid_t child) {
    int status;
    CHECK(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) == 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFSTOPPED(status) && (WSTOPSIG(status) == SIGTRAP || WSTOPSIG(status) == SIGSTOP));
    return WSTOPSIG(status) != SIGSTOP;
}

/* One M index for each thread or process; two clients: max_ms and max_ms + 1. */
static int new_segment_of(uint32_t nprocs, uint32_t max_ms, uint32_t nslots) {
    struct config c = {nprocs, max_ms, 2, nslots, 16u << 20};
    int fd, e = segment_create(&c, &fd);
    CHECK(e == 0 && c.nslots == nslots);
    return fd;
}
__attribute__((unused)) static int new_segment(uint32_t nprocs, uint32_t max_ms) {
    return new_segment_of(nprocs, max_ms, 4096);
}

__attribute__((unused)) static void pause_up_to(unsigned *seed, int n) {
    for (int i = rand_r(seed) % n; i; i--) procyield();
}

/* A view of its own for each thread or process; all map the same segment. */
__attribute__((unused)) static void attach(struct view *v, int fd, uint32_t m, uint32_t kind) {
    const char *why;
    CHECK(segment_map(fd, v, m, &why) == 0);
    atomic_store(&v->allm[m].kind, kind);
    atomic_store(&v->allm[m].pid, (uint32_t)getpid() + m);
    if (kind == KIND_M) atomic_store(&v->allm[m].note, MWORD(M_RUNNING, 0, 0));
}

/* The next word of v's inbox, taken out. */
__attribute__((unused)) static uint64_t inbox_pop(struct view *v) {
    uint64_t w = inbox_peek(v, v->self);
    if (w) inbox_drop(v, v->self);
    return w;
}

/* m runs with the P it takes. */
__attribute__((unused)) static struct p *with_p(struct view *v) {
    struct p *p = pidleget(v);
    CHECK(p);
    acquirep(v, p);
    return p;
}

/* A barrier of two that spins: both sides start a round at nearly the same instant. */
__attribute__((unused)) static void meet(_Atomic long *a, long round) {
    atomic_fetch_add(a, 1);
    for (long i = 0; atomic_load(a) < 2 * round; i++)
        if (i > 200) sched_yield(); else procyield();
}

/* As the coordinator does it for Gs that are not to be run again: repaired, and the Gs that the dead one has left ended.
 * Returns how many these were. */
__attribute__((unused)) static uint32_t buried(struct view *v, uint32_t dead) {
    uint32_t ended = 0;
    repair(v, dead);
    for (uint32_t i = 0; i < load_acq(&v->seg->gfree.next); i++)
        if (is_victim(v, dead, i))
            ended += victim_ends(v, dead, gword(i, GGEN(load_acq(&v->allgs[i].state))), RESULT_WORKER_DIED, "died", 4) != 0;
    return ended;
}

#endif
