/* spawners.c: threads that start the next command as one ends.  Called by the job launcher through bind_spawners.c.
 *
 * Where commands are short, most of what a launcher takes is the time between an end and the next start, on a core that idles
 * meanwhile.  So the launcher prepares a few commands ahead (put), and each spawner, a thread, waits for the jobs of its slots
 * by an epoll of its own: as one ends, it takes the oldest prepared one and starts it in the same slot, on the same core.  What
 * has started and what has ended is put on a list (reports), and an eventfd tells the launcher that there is something; it
 * alone knows what an end means, and reaps.  So until it has seen a report a pid names nobody else.
 *
 *   put         a command waits, the queue is first in, first out
 *   start       the caller starts the oldest one itself, in an idle slot; as that ends the slot's spawner goes on
 *   reports     what has happened since the last call, in the order in which it has: an end before the start that followed it
 *   take_back   the queue is empty, and what was just being started is running, or back in the queue: nothing starts any more
 *   close       for when nothing runs; children whose thread ends get their death signal, so threads end last
 *
 * A command that cannot be started goes back to the head of the queue, and nothing more is taken from it until the caller has
 * taken all back: it tries again by itself, and tells people what is wrong.  The end of the job before it has been reported, so
 * the caller has an idle slot, and finds that start() fails.
 *
 * The lock is held for a few instructions, never while a program is begun.  Of a job its thread alone writes while it is not on
 * the list of reports, and under the lock else.
 */
#include "spawners.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ------------------------------------------------------------------------------------------- under the lock */
static struct job *take(struct spawners *s) {
    struct job *job = s->refused ? NULL : s->head;
    if (!job) return NULL;
    s->head = job->next;
    if (!s->head) s->tail = &s->head;
    s->starting++;
    job->started = now(CLOCK_REALTIME), job->begun = now(CLOCK_MONOTONIC);   /* in the order of the queue */
    return job;
}

static void put_back(struct spawners *s, struct job *job) {
    job->next = s->head;
    if (!s->head) s->tail = &job->next;
    s->head = job;
    s->refused = 1;
}

static void report(struct spawners *s, struct job *job) {
    if (job->listed) return;
    job->listed = 1, job->next_report = NULL;
    *s->last_report = job;
    s->last_report = &job->next_report;
}

static void tell(struct spawners *s) {
    if (s->told || !s->reports) return;
    s->told = 1;
    eventfd_write(s->eventfd, 1);
}

/* ------------------------------------------------------------------------------------------- starting */
static int watch(int epoll, struct job *job) {
    struct epoll_event e = {EPOLLIN | EPOLLONESHOT, {.ptr = job}};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, job->spawn.pidfd, &e) == 0) return 0;
    int error = errno;
    kill(-job->spawn.pid, SIGKILL);   /* nobody could tell when it ends */
    while (waitpid(job->spawn.pid, NULL, 0) < 0 && errno == EINTR) continue;
    close(job->spawn.pidfd);
    return error;
}

/* What take() has given; with the lock, which is given up meanwhile. */
static int start(struct spawners *s, struct job *job, unsigned slot, char *stack) {
    pthread_mutex_unlock(&s->lock);
    job->slot = slot, job->elsewhere = stack != s->stack;
    if (job->enter) job->enter(job);
    job->spawn.ours = &s->ours;
    int e = spawn_on(stack, &job->spawn);
    pthread_mutex_lock(&s->lock);
    return e ? e : watch(s->threads[slot % s->nthreads].epoll, job);
}

/* What has come of it. */
static void started(struct spawners *s, struct job *job, int e) {
    if (e) {
        put_back(s, job);
    } else {
        s->running[job->slot] = job;
        report(s, job);
    }
    if (--s->starting == 0) pthread_cond_signal(&s->still);
}

/* The end is reported with the start that follows: in between the slot is not idle, and the job stays ours. */
static void goexit(struct spawner *m, struct job *job) {
    struct spawners *s = m->all;
    double ended = now(CLOCK_MONOTONIC);
    pthread_mutex_lock(&s->lock);
    struct job *next = take(s);
    int e = next ? start(s, next, job->slot, m->stack) : 0;
    job->ended = ended;
    s->running[job->slot] = NULL;
    report(s, job);
    if (next) started(s, next, e);
    tell(s);
    pthread_mutex_unlock(&s->lock);
}

static void *spawner(void *arg) {
    struct spawner *m = arg;
    for (;;) {
        struct epoll_event e;
        int n = epoll_wait(m->epoll, &e, 1, -1);
        if (n == 1 && !e.data.ptr) return NULL;
        if (n == 1) goexit(m, e.data.ptr);
    }
}

/* ------------------------------------------------------------------------------------------- the caller's side */
static int open_spawner(struct spawners *s, struct spawner *m) {
    struct epoll_event quit = {EPOLLIN, {.ptr = NULL}};
    m->all = s;
    m->stack = spawn_stack();
    m->epoll = epoll_create1(EPOLL_CLOEXEC);
    int e = !m->stack ? ENOMEM : m->epoll < 0 || epoll_ctl(m->epoll, EPOLL_CTL_ADD, s->quit, &quit) ? errno : 0;
    return e ? e : pthread_create(&m->thread, NULL, spawner, m);
}

static void close_spawner(struct spawner *m) {
    if (m->stack) munmap(m->stack, SPAWN_STACK);
    if (m->epoll >= 0) close(m->epoll);
}

int spawners_open(struct spawners *s, unsigned nthreads, unsigned nslots) {
    *s = (struct spawners){.lock = PTHREAD_MUTEX_INITIALIZER, .still = PTHREAD_COND_INITIALIZER, .nslots = nslots};
    s->tail = &s->head, s->last_report = &s->reports;
    s->running = calloc(nslots + 1, sizeof *s->running);
    s->threads = calloc(nthreads, sizeof *s->threads);
    s->stack = spawn_stack();
    s->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), s->quit = eventfd(0, EFD_CLOEXEC);
    int e = !s->running || !s->threads || !s->stack ? ENOMEM : s->eventfd < 0 || s->quit < 0 ? EMFILE : 0;
    spawn_look(&s->ours);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);           /* threads have them blocked as well: they are the caller's to take */
    while (!e && s->nthreads < nthreads) {
        e = open_spawner(s, &s->threads[s->nthreads]);
        if (e) close_spawner(&s->threads[s->nthreads]);
        else s->nthreads++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (e) spawners_close(s);
    return e;
}

void spawners_put(struct spawners *s, struct job *job) {
    job->next = NULL;
    pthread_mutex_lock(&s->lock);
    *s->tail = job;
    s->tail = &job->next;
    pthread_mutex_unlock(&s->lock);
}

int spawners_start(struct spawners *s, unsigned slot) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    pthread_mutex_lock(&s->lock);
    struct job *job = take(s);
    int e = job ? start(s, job, slot, s->stack) : EAGAIN;
    if (job) started(s, job, e);
    pthread_mutex_unlock(&s->lock);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return !e;
}

int spawners_reports(struct spawners *s, struct report *reports, int most) {
    int n = 0;
    eventfd_t told;
    pthread_mutex_lock(&s->lock);
    if (s->told) eventfd_read(s->eventfd, &told);
    s->told = 0;
    for (struct job *job; n < most && (job = s->reports) != NULL; n++) {
        s->reports = job->next_report;
        job->listed = 0;
        reports[n] = (struct report){job->ended ? job : NULL, !job->told, *job};
        job->told = 1;
    }
    if (!s->reports) s->last_report = &s->reports;
    tell(s);
    pthread_mutex_unlock(&s->lock);
    return n;
}

struct job *spawners_take_back(struct spawners *s) {
    pthread_mutex_lock(&s->lock);
    s->refused = 1;
    while (s->starting) pthread_cond_wait(&s->still, &s->lock);
    struct job *found = s->head;
    s->head = NULL, s->tail = &s->head, s->refused = 0;
    pthread_mutex_unlock(&s->lock);
    return found;
}

/* Puts it before the others. */
static void keep(struct job **left, struct job *job) {
    job->next = *left;
    *left = job;
}

struct job *spawners_close(struct spawners *s) {
    struct job *left = spawners_take_back(s);
    if (s->quit >= 0) eventfd_write(s->quit, 1);
    for (unsigned i = 0; i < s->nthreads; i++) pthread_join(s->threads[i].thread, NULL);
    for (unsigned i = 0; i < s->nthreads; i++) close_spawner(&s->threads[i]);
    for (struct job *job = s->reports; job; job = job->next_report)
        if (job->ended) keep(&left, job);
    for (unsigned i = 1; s->running && i <= s->nslots; i++)
        if (s->running[i]) keep(&left, s->running[i]);
    if (s->stack) munmap(s->stack, SPAWN_STACK);
    if (s->eventfd >= 0) close(s->eventfd);
    if (s->quit >= 0) close(s->quit);
    free(s->running);
    free(s->threads);
    return left;
}
