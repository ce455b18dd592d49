/* spawners.h: see spawners.c. */
#ifndef DGMP_SPAWNERS_H
#define DGMP_SPAWNERS_H

#include "spawn.h"

#include <pthread.h>

struct job {                          /* a command: prepared, then running, then ended */
    struct spawn spawn;               /* the caller's, complete but for slot variables; then its pid and pidfd */
    void *about;                      /* the caller's */
    void (*enter)(struct job *);      /* it is about to start in its slot; or NULL */
    unsigned slot;
    int elsewhere;                    /* it is the child of a spawner, not of the caller's thread */
    double started, begun, ended;     /* for people; by CLOCK_MONOTONIC; 0: it has not */
    int listed, told;                 /* on the list of reports; its start has been reported */
    struct job *next, *next_report;
};

struct report {                       /* of what has become of a job since the last one */
    struct job *ended;                /* NULL, or the job, which is the caller's again */
    int has_started;                  /* it had not been reported */
    struct job job;                   /* as it is now */
};

struct spawner {                      /* a thread */
    struct spawners *all;
    pthread_t thread;
    int epoll;                        /* of the pidfds of its slots' jobs */
    char *stack;
};

struct spawners {
    pthread_mutex_t lock;
    pthread_cond_t still;             /* nothing is being started */
    struct job *head, **tail;         /* prepared */
    struct job *reports, **last_report;
    struct job **running;             /* by slot, from 1 */
    unsigned nslots, nthreads, starting;
    int refused;                      /* nothing more is taken, until the caller has taken it all back */
    int told;                         /* the caller has been, by the eventfd, and has not looked yet */
    int eventfd, quit;                /* quit: an eventfd that all threads wait for */
    sigset_t ours;                    /* spawn_look() */
    char *stack;                      /* the caller's */
    struct spawner *threads;
};

int spawners_open(struct spawners *s, unsigned nthreads, unsigned nslots);   /* 0, or an errno */
void spawners_put(struct spawners *s, struct job *job);      /* it starts as a job of theirs ends, in that one's slot */
int spawners_start(struct spawners *s, unsigned slot);       /* here and now, in a slot that is idle; 0: it could not be */
int spawners_reports(struct spawners *s, struct report *reports, int most);  /* how many there were, at most so many */
struct job *spawners_take_back(struct spawners *s);          /* by next; nothing starts any more until the next put */
struct job *spawners_close(struct spawners *s);              /* all that are left, by next */
#endif
