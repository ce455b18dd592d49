/* spawn.h: see spawn.c. */
#ifndef DGMP_SPAWN_H
#define DGMP_SPAWN_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

enum { SPAWN_STACK = 1 << 16 };
enum { SPAWN_CLONE = 1, SPAWN_SETUP, SPAWN_CHDIR, SPAWN_EXEC };

struct spawn {
    const char *path;                 /* of the program: no PATH is searched */
    char *const *argv, *const *envp;
    const char *cwd;                  /* NULL: ours */
    int fds[3];                       /* what becomes 0, 1 and 2; -1: as ours */
    const cpu_set_t *cores;           /* NULL: as ours */
    size_t cores_size;
    int nice;                         /* is added to ours */
    int death_signal;                 /* the program gets it when the thread that spawns ends; 0: none */
    int ignore_terminal;              /* reading it from a background group fails, where it would stop the program */
    const sigset_t *ours;             /* what spawn_look() has found; NULL: the child looks, with 64 system calls */
    rlim_t nofile;                    /* the soft limit of descriptors; 0: as ours */
    pid_t pid;                        /* out */
    int pidfd;                        /* out; close-on-exec */
    int failed;                       /* out: SPAWN_..., where the errno comes from */
};

struct ended {                        /* what wait4 says of a process */
    int code;                         /* its exit code, or 0 */
    int signal;                       /* that killed it, or 0 */
    struct rusage usage;
};

int spawn(struct spawn *s);           /* 0, or an errno: then nothing runs */
char *spawn_stack(void);              /* of SPAWN_STACK bytes, for mmap's inverse; NULL: there is no memory */
int spawn_on(char *stack, struct spawn *s);   /* the same, on a stack that nobody else uses now, all signals being blocked */
void spawn_look(sigset_t *ours);      /* the signals that a program must find by default, and that are not so here */
int spawn_reap(int pidfd, struct ended *e);   /* 1: it has ended, and is no zombie any more; 0: it runs; -1: errno */
#endif
