/* Spawning: what the program gets, what becomes of one that cannot be begun, its end and what it used; that no signal of ours
 * and no descriptor reaches it; that it dies with us. */
#include "check.h"
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>

static char *const environment[] = {"A=1", "PATH=/usr/bin:/bin", NULL};

static struct spawn shell(char **argv, const char *script, int out) {
    argv[0] = "sh", argv[1] = "-c", argv[2] = (char *)script, argv[3] = NULL;
    return (struct spawn){.path = "/bin/sh", .argv = argv, .envp = environment, .fds = {-1, out, -1}, .cwd = "/"};
}

static struct ended end_of(struct spawn *s) {
    struct ended e;
    struct pollfd p = {s->pidfd, POLLIN, 0};
    CHECK(poll(&p, 1, 60000) == 1);
    CHECK(spawn_reap(s->pidfd, &e) == 1);
    CHECK(spawn_reap(s->pidfd, &e) == -1 && errno == ECHILD);
    close(s->pidfd);
    return e;
}

/* What the script prints. */
static const char *said(struct spawn *s, int from[2]) {
    static char text[4096];
    CHECK(spawn(s) == 0 && s->failed == 0 && s->pid > 0);
    struct ended e = end_of(s);
    CHECK(e.code == 0 && e.signal == 0);
    ssize_t n = read(from[0], text, sizeof text - 1);
    CHECK(n >= 0);
    text[n] = 0;
    return text;
}

static void handler(int number) { (void)number; }

int main(void) {
    int p[2];
    char *argv[4], expected[64];
    CHECK(pipe2(p, O_CLOEXEC) == 0);
    struct spawn s = shell(argv, "echo $A; pwd; ulimit -Sn", p[1]);
    s.nofile = 77;
    CHECK(strcmp(said(&s, p), "1\n/\n77\n") == 0);
    /* a process group of its own; cores; niceness, added to ours */
    s = shell(argv, "set -- $(cat /proc/$$/stat); echo $(($1 == $5)) ${19}; grep -o 'Cpus_allowed_list.*' /proc/$$/status", p[1]);
    cpu_set_t one, ours;
    CHECK(sched_getaffinity(0, sizeof ours, &ours) == 0);
    int core = 0;
    while (!CPU_ISSET(core, &ours)) core++;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    s.cores = &one, s.cores_size = sizeof one, s.nice = 2;
    int nice_now = getpriority(PRIO_PROCESS, 0);
    snprintf(expected, sizeof expected, "1 %d\nCpus_allowed_list:\t%d\n", nice_now + 2 > 19 ? 19 : nice_now + 2, core);
    CHECK(strcmp(said(&s, p), expected) == 0);
    /* signals are as by default and none is blocked, whatever ours are; what was ignored for us stays so; ours do not change */
    sigset_t all, before, after;
    sigfillset(&all);
    signal(SIGUSR1, handler);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    sigprocmask(SIG_BLOCK, &all, &before);
    s = shell(argv, "grep -E 'Sig(Blk|Ign)' /proc/self/status; kill -USR1 $$ & wait; kill -PIPE $$", p[1]);
    CHECK(spawn(&s) == 0);
    struct ended e = end_of(&s);
    CHECK(e.signal == SIGUSR1 || e.signal == SIGPIPE);
    char text[256] = "";
    unsigned long blocked = 1, ignored = 0;
    CHECK(read(p[0], text, sizeof text - 1) > 0 && sscanf(text, "SigBlk:\t%lx\nSigIgn:\t%lx", &blocked, &ignored) == 2);
    CHECK(!blocked && (ignored & 0x7fffffff) == 1);              /* make's children ignore 32 and 33, which are libc's */
    sigprocmask(SIG_SETMASK, &before, &after);
    CHECK(sigismember(&after, SIGTERM) && sigismember(&after, SIGUSR1));
    struct sigaction now;
    CHECK(sigaction(SIGUSR1, NULL, &now) == 0 && now.sa_handler == handler);
    signal(SIGHUP, SIG_DFL);
    /* what cannot be begun: the errno, where it comes from, and no process is left */
    s = shell(argv, "", -1);
    s.path = "/nowhere/at/all";
    CHECK(spawn(&s) == ENOENT && s.failed == SPAWN_EXEC);
    s.path = "/etc";
    CHECK(spawn(&s) == EACCES && s.failed == SPAWN_EXEC);
    s = shell(argv, "", -1);
    s.cwd = "/nowhere";
    CHECK(spawn(&s) == ENOENT && s.failed == SPAWN_CHDIR);
    s = shell(argv, "", 9999);
    CHECK(spawn(&s) == EBADF && s.failed == SPAWN_SETUP);
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
    /* a running one is not reaped; its signal; its CPU time */
    s = shell(argv, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; kill -STOP $$; exit 3", -1);
    CHECK(spawn(&s) == 0);
    CHECK(waitid(P_PID, (id_t)s.pid, &(siginfo_t){0}, WSTOPPED) == 0 && spawn_reap(s.pidfd, &e) == 0);
    CHECK(kill(-s.pid, SIGKILL) == 0);
    e = end_of(&s);
    CHECK(e.signal == SIGKILL && e.code == 0 && e.usage.ru_utime.tv_usec + e.usage.ru_utime.tv_sec * 1000000 > 0);
    /* it dies with who has spawned it */
    int up[2];
    CHECK(pipe(up) == 0);
    pid_t parent = fork_child();
    if (parent == 0) {
        s = shell(argv, "echo; exec sleep 1000", up[1]);
        s.death_signal = SIGKILL;
        CHECK(spawn(&s) == 0);
        pause();
    }
    close(up[1]);
    CHECK(read(up[0], text, sizeof text) == 1);                  /* it has begun */
    kill_child(parent);
    struct pollfd hup = {up[0], 0, 0};
    CHECK(poll(&hup, 1, 60000) == 1);                           /* nobody holds it any more */
    DONE("spawn");
}
