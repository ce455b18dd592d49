/* spawn.c: a program is started, and its end taken note of.  Called by the job launcher and by the keeper of a daemon's jobs.
 *
 * The child shares our memory until it has become the program (vfork), so it costs no copy of our page tables, and whatever
 * goes wrong in it is written where we read it.  As in glibc's posix_spawn it has a stack of its own, and all signals are
 * blocked around it: a handler of ours must not run in it.  It makes no call but system calls.  That no raw clone is used
 * elsewhere (a robust mutex is not recovered then) does not matter here: the child holds no lock, and becomes another program.
 *
 * What posix_spawn cannot: in one call the program gets a process group of its own, a signal when we die, cores, niceness,
 * a folder, and a pidfd names it from its first moment.  Its signals are as by default, and none is blocked; those that our
 * own parent has ignored for us stay ignored (nohup), but for SIGPIPE and SIGXFSZ, which are Python's.  Of descriptors it has
 * 0, 1 and 2: all of ours are close-on-exec.
 */
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif
#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x1000
#endif

#ifdef __SANITIZE_THREAD__            /* whose clone() takes it for a fork, in which the other threads have gone */
extern int __clone(int (*function)(void *), void *stack, int flags, void *arg, ...);
#define clone __clone
#endif

struct child {
    struct spawn *s;
    const sigset_t *none;
    pid_t parent;
    int error;                        /* out, by the child */
};

/* As the kernel has it: glibc's function, and a sanitizer's in front of it, keep notes in our memory. */
struct kernel_sigaction {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

static void set_signal(int number, void (*handler)(int)) {
    struct kernel_sigaction a = {.handler = handler};
    syscall(SYS_rt_sigaction, number, &a, NULL, sizeof a.mask);
}

/* What this process does at a signal is not what a program is to begin with. */
static int is_ours(int number) {
    struct kernel_sigaction now;
    if (syscall(SYS_rt_sigaction, number, NULL, &now, sizeof now.mask) || now.handler == SIG_DFL) return 0;
    return now.handler != SIG_IGN || number == SIGPIPE || number == SIGXFSZ;
}

void spawn_look(sigset_t *ours) {
    sigemptyset(ours);
    for (int number = 1; number < NSIG; number++)
        if (is_ours(number)) sigaddset(ours, number);
}

static void default_signals(const sigset_t *ours, int ignore_terminal) {
    for (int number = 1; number < NSIG; number++)
        if (ours ? sigismember(ours, number) == 1 : is_ours(number)) set_signal(number, SIG_DFL);
    if (ignore_terminal) {
        set_signal(SIGTTIN, SIG_IGN);
        set_signal(SIGTTOU, SIG_IGN);
    }
}

/* None of them may be among 0, 1 and 2 of us, but in its own place. */
static int descriptors(const int fds[3]) {
    for (int i = 0; i < 3; i++) {
        if (fds[i] == i) {
            int flags = fcntl(i, F_GETFD);
            if (flags < 0 || fcntl(i, F_SETFD, flags & ~FD_CLOEXEC)) return -1;
        } else if (fds[i] >= 0 && dup2(fds[i], i) < 0) return -1;
    }
    return 0;
}

static int setup(const struct spawn *s, pid_t parent) {
    if (setpgid(0, 0)) return -1;
    if (s->death_signal && prctl(PR_SET_PDEATHSIG, (unsigned long)s->death_signal, 0, 0, 0)) return -1;
    if (s->death_signal && getppid() != parent) return -1;
    if (s->cores && sched_setaffinity(0, s->cores_size, s->cores)) return -1;
    if (s->nice) {
        errno = 0;
        int now = getpriority(PRIO_PROCESS, 0);
        if (errno || setpriority(PRIO_PROCESS, 0, now + s->nice)) return -1;
    }
    if (s->nofile) {
        struct rlimit limit;
        if (getrlimit(RLIMIT_NOFILE, &limit)) return -1;
        limit.rlim_cur = s->nofile < limit.rlim_max ? s->nofile : limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit)) return -1;
    }
    return descriptors(s->fds);
}

static int become_program(void *arg) {
    struct child *c = arg;
    struct spawn *s = c->s;
    default_signals(s->ours, s->ignore_terminal);
    s->failed = SPAWN_SETUP;
    if (setup(s, c->parent) == 0) {
        s->failed = SPAWN_CHDIR;
        if (!s->cwd || chdir(s->cwd) == 0) {
            s->failed = SPAWN_EXEC;
            sigprocmask(SIG_SETMASK, c->none, NULL);
            execve(s->path, s->argv, s->envp);
        }
    }
    c->error = errno ? errno : ECHILD;
    return 127;                       /* clone() exits with it */
}

char *spawn_stack(void) {
    char *made = mmap(NULL, SPAWN_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    return made == MAP_FAILED ? NULL : made;
}

int spawn_on(char *stack, struct spawn *s) {
    sigset_t none;
    sigemptyset(&none);
    struct child c = {s, &none, getpid(), 0};
    s->failed = SPAWN_CLONE, s->pidfd = -1;
    s->pid = clone(become_program, stack + SPAWN_STACK, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &c, &s->pidfd);
    int e = s->pid < 0 ? errno : c.error;
    if (e && s->pid > 0) {
        while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR) continue;
        close(s->pidfd);
        s->pidfd = -1;
    }
    if (!e) s->failed = 0;
    return e;
}

int spawn(struct spawn *s) {
    static char *stack;               /* one is enough: we stand still while it is in use */
    static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
    sigset_t all, before;
    int e = ENOMEM;
    sigfillset(&all);
    pthread_mutex_lock(&one);
    if (!stack) stack = spawn_stack();
    s->failed = SPAWN_CLONE;
    if (stack) {
        pthread_sigmask(SIG_BLOCK, &all, &before);
        e = spawn_on(stack, s);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    pthread_mutex_unlock(&one);
    return e;
}

int spawn_reap(int pidfd, struct ended *e) {
    siginfo_t info = {.si_pid = 0};
    long n;
    do n = syscall(SYS_waitid, P_PIDFD, pidfd, &info, WEXITED | WNOHANG, &e->usage);   /* glibc's waitid gives no usage */
    while (n < 0 && errno == EINTR);
    if (n < 0) return -1;
    if (!info.si_pid) return 0;
    e->code = info.si_code == CLD_EXITED ? info.si_status : 0;
    e->signal = info.si_code == CLD_EXITED ? 0 : info.si_status;
    return 1;
}
