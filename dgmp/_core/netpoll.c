/* netpoll.c: started Gs of an M that wait for file descriptors (Go: netpoll.go, netpoll_epoll.go).
 *
 * One epoll for each M, made with the first wait.  A wait is a number: {word of the G, descriptor, in or out, state}.  It is
 * armed with EPOLLONESHOT for all who wait on its descriptor; on an event those it concerns are READY, their words go
 * through the M's own inbox (gready), and it is armed again for the others.  Whoever made a wait ends it, whatever its state.
 *
 * Two look for events: the M itself without blocking as it looks for work, and a thread that blocks in epoll_wait, runs no
 * Python and needs no GIL; if the M is parked, the thread gets it a P.  Each event comes once, to one of the two.  In Go an M
 * that would park blocks in epoll_wait itself; ours must be woken by other processes too, and they know of its note only.
 *
 * A descriptor that is closed leaves epoll without a word, and its number may name another file.  So while anybody waits, the
 * thread looks every second or so whether all are still there, and a wait that finds another file under its number ends the
 * older ones.  When nobody waits for a second, the thread sleeps until somebody does.
 *
 * All state is the process's own, under one mutex.  Called by the M's main thread and the thread in here.
 */
#include "netpoll.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define EVENTS 128                    /* taken at once, as in Go */
#define LOOK_MS 1000                  /* between looks for closed descriptors, and 1 ms more for each that is waited for */
#define STACK (128u << 10)

struct wait {
    uint64_t word;
    int fd;
    uint32_t events;                  /* 0: the number is free */
    int state;
    uint32_t next;                    /* number + 1 of the next wait on fd, or of the next free number */
};

struct netpoll {
    struct view *v;
    pthread_mutex_t mutex;
    pthread_cond_t someone;           /* waits again: for the thread, if asleep */
    pthread_t thread;
    int epfd, running, asleep;
    uint32_t nwaiting;
    struct wait *waits;
    uint32_t nwaits, free;            /* free: number + 1 */
    uint32_t *fds, nfds;              /* number + 1 of the first wait on each descriptor */
};

static void finished(struct netpoll *np, struct wait *w, int state) {
    w->state = state;
    store_rlx(&self_m(np->v)->polled, --np->nwaiting);
    gready(np->v, w->word);
}

/* Those of fd whom the events concern, and which are not `but`.  Returns how many. */
static int finish(struct netpoll *np, int fd, uint32_t events, int state, struct wait *but) {
    int n = 0;
    if (events & (EPOLLERR | EPOLLHUP)) events = ~0u;
    for (uint32_t *at = &np->fds[fd]; *at;) {
        struct wait *w = &np->waits[*at - 1];
        if (w == but || !(w->events & events)) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        finished(np, w, state), n++;
    }
    return n;
}

/* fd's next event is told of, if anybody waits for it.  newest: the wait just made, NULL none.  0, or errno. */
static int arm(struct netpoll *np, int fd, struct wait *newest) {
    struct epoll_event e = {.events = EPOLLONESHOT, .data.fd = fd};
    for (uint32_t i = np->fds[fd]; i; i = np->waits[i - 1].next) e.events |= np->waits[i - 1].events;
    if (e.events == EPOLLONESHOT || epoll_ctl(np->epfd, EPOLL_CTL_MOD, fd, &e) == 0) return 0;
    if (errno != ENOENT || !newest) return errno;
    finish(np, fd, ~0u, POLL_GONE, newest);                   /* they had waited for another file of that number */
    e.events = EPOLLONESHOT | newest->events;
    return epoll_ctl(np->epfd, EPOLL_CTL_ADD, fd, &e) == 0 ? 0 : errno;
}

static int happened(struct netpoll *np, const struct epoll_event *events, int n) {
    int readied = 0;
    for (int i = 0; i < n; i++) {
        int fd = events[i].data.fd;
        readied += finish(np, fd, events[i].events, POLL_READY, NULL);
        if (np->fds[fd] && arm(np, fd, NULL)) readied += finish(np, fd, ~0u, POLL_GONE, NULL);
    }
    return readied;
}

static void look_for_closed(struct netpoll *np) {
    for (uint32_t fd = 0; fd < np->nfds; fd++)
        if (np->fds[fd] && arm(np, (int)fd, NULL)) finish(np, (int)fd, ~0u, POLL_GONE, NULL);
}

int netpoll(struct netpoll *np) {
    struct epoll_event events[EVENTS];
    if (!np->nwaiting) return 0;
    int n = epoll_wait(np->epfd, events, EVENTS, 0);
    if (n <= 0) return 0;
    pthread_mutex_lock(&np->mutex);
    int readied = happened(np, events, n);
    pthread_mutex_unlock(&np->mutex);
    return readied;
}

static void cancellable(int yes) { pthread_setcancelstate(yes ? PTHREAD_CANCEL_ENABLE : PTHREAD_CANCEL_DISABLE, NULL); }

/* Nobody has waited for some time.  The mutex is held. */
static void sleep_until_someone(struct netpoll *np) {
    np->asleep = 1;
    atomic_fetch_add(&self_m(np->v)->own_threads, 1);
    cancellable(1);
    while (!np->nwaiting) pthread_cond_wait(&np->someone, &np->mutex);
    cancellable(0);
    atomic_fetch_sub(&self_m(np->v)->own_threads, 1);
    np->asleep = 0;
}

static void *poller(void *arg) {
    struct netpoll *np = arg;
    struct epoll_event events[EVENTS];
    pthread_mutex_lock(&np->mutex);
    for (;;) {
        int timeout = LOOK_MS + (int)np->nwaiting;
        pthread_mutex_unlock(&np->mutex);
        cancellable(1);
        int n = epoll_wait(np->epfd, events, EVENTS, timeout);
        int e = errno;
        cancellable(0);
        pthread_mutex_lock(&np->mutex);
        if (n < 0 && e != EINTR) break;
        if (n > 0) happened(np, events, n);
        else look_for_closed(np);
        if (n == 0 && !np->nwaiting) sleep_until_someone(np);
    }
    /* User code has closed our descriptor: all are to look for themselves, and the next wait begins anew. */
    for (uint32_t fd = 0; fd < np->nfds; fd++) finish(np, (int)fd, ~0u, POLL_READY, NULL);
    np->epfd = -1, np->running = 0;
    atomic_fetch_sub(&self_m(np->v)->own_threads, 1);
    pthread_detach(np->thread);
    pthread_mutex_unlock(&np->mutex);
    return NULL;
}

/* Signals are for the M's main thread. */
static int start_thread(struct netpoll *np) {
    sigset_t all, before;
    pthread_attr_t attr;
    sigfillset(&all);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int e = pthread_create(&np->thread, &attr, poller, np);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return e;
}

/* The mutex is held.  0, or errno. */
static int start(struct netpoll *np) {
    if (np->running) return 0;
    if (np->epfd < 0 && (np->epfd = epoll_create1(EPOLL_CLOEXEC)) < 0) return errno;
    int e = start_thread(np);
    if (!e) atomic_fetch_add(&self_m(np->v)->own_threads, 1);
    np->running = !e;
    return e;
}

struct netpoll *netpollinit(struct view *v) {
    struct netpoll *np = calloc(1, sizeof *np);
    if (!np) return NULL;
    np->v = v, np->epfd = -1;
    pthread_mutex_init(&np->mutex, NULL);
    pthread_cond_init(&np->someone, NULL);
    return np;
}

void netpollclose(struct netpoll *np) {
    if (!np || np->v->forked) return;                         /* our parent's thread is not here */
    if (np->running) {
        pthread_cancel(np->thread);
        pthread_join(np->thread, NULL);
    }
    if (np->epfd >= 0) close(np->epfd);
    free(np->waits);
    free(np->fds);
    free(np);
}

/* Room for descriptor fd and for one more wait.  0: out of memory. */
static int reserve(struct netpoll *np, uint32_t fd) {
    if (fd >= np->nfds) {
        uint32_t n = np->nfds ? np->nfds : 64;
        while (n <= fd) n *= 2;
        uint32_t *grown = realloc(np->fds, n * sizeof *grown);
        if (!grown) return 0;
        memset(grown + np->nfds, 0, (n - np->nfds) * sizeof *grown);
        np->fds = grown, np->nfds = n;
    }
    if (np->free) return 1;
    uint32_t n = np->nwaits ? 2 * np->nwaits : 16;
    struct wait *grown = realloc(np->waits, n * sizeof *grown);
    if (!grown) return 0;
    for (uint32_t i = np->nwaits; i < n; i++) grown[i] = (struct wait){.next = i + 1 < n ? i + 2 : 0};
    np->free = np->nwaits + 1;
    np->waits = grown, np->nwaits = n;
    return 1;
}

static void give_back(struct netpoll *np, struct wait *w) {
    w->events = 0, w->next = np->free;
    np->free = (uint32_t)(w - np->waits) + 1;
}

static void unlink_wait(struct netpoll *np, struct wait *w) {
    uint32_t *at = &np->fds[w->fd];
    while (&np->waits[*at - 1] != w) at = &np->waits[*at - 1].next;
    *at = w->next;
    store_rlx(&self_m(np->v)->polled, --np->nwaiting);
}

int64_t netpolladd(struct netpoll *np, int fd, int write, uint64_t word) {
    int e = 0;
    int64_t number = -1;
    pthread_mutex_lock(&np->mutex);
    if (fcntl(fd, F_GETFD) < 0) e = EBADF;                    /* there is room for each number up to fd: not for a wrong one */
    else if (!reserve(np, (uint32_t)fd)) e = ENOMEM;
    else if ((e = start(np)) == 0 && fd == np->epfd) e = EBADF;   /* the user's was closed, and its number is ours */
    if (!e) {
        number = np->free - 1;
        struct wait *w = &np->waits[number];
        np->free = w->next;
        *w = (struct wait){word, fd, write ? EPOLLOUT : EPOLLIN | EPOLLRDHUP, POLL_WAITING, np->fds[fd]};
        np->fds[fd] = (uint32_t)number + 1;
        store_rlx(&self_m(np->v)->polled, ++np->nwaiting);
        if ((e = arm(np, fd, w)) != 0) unlink_wait(np, w), give_back(np, w);
        else if (np->asleep) pthread_cond_signal(&np->someone);
    }
    pthread_mutex_unlock(&np->mutex);
    errno = e;
    return e ? -1 : number;
}

static int known(struct netpoll *np, uint32_t i) { return i < np->nwaits && np->waits[i].events; }

int netpollstate(struct netpoll *np, uint32_t i) {
    pthread_mutex_lock(&np->mutex);
    int state = known(np, i) ? np->waits[i].state : -1;
    pthread_mutex_unlock(&np->mutex);
    return state;
}

int netpollend(struct netpoll *np, uint32_t i) {
    int state = -1;
    pthread_mutex_lock(&np->mutex);
    if (known(np, i)) {
        struct wait *w = &np->waits[i];
        state = w->state;
        if (state == POLL_WAITING) unlink_wait(np, w);
        give_back(np, w);
    }
    pthread_mutex_unlock(&np->mutex);
    return state;
}
