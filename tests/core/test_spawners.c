/* Spawners: prepared commands start in the slots of those that end, never more than there are slots, each once, in their order;
 * what cannot be started comes back with all that follows; what is taken back does not start; they can be closed while jobs
 * run, and those end with them. */
#include "check.h"
#include "spawners.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>

enum { SLOTS = 5, THREADS = 2, JOBS = 300, AHEAD = 4 };

static char *const environment[] = {"PATH=/usr/bin:/bin", NULL};
static char *quick[] = {"true", NULL}, *forever[] = {"sleep", "1000", NULL};
static struct job jobs[JOBS];
static int state[JOBS];               /* 0, 1 running, 2 ended */

static struct job *prepared(int i, const char *path, char **argv) {
    jobs[i] = (struct job){.spawn = {.path = path, .argv = argv, .envp = environment, .fds = {-1, -1, -1},
                                     .death_signal = SIGKILL}, .about = &state[i]};
    return &jobs[i];
}

/* Goes through the reports; returns how many have ended.  Slots: who runs in each. */
static int look(struct spawners *s, int *slots, int *started) {
    struct report r[3];
    int ended = 0, n;
    while ((n = spawners_reports(s, r, 3)) > 0)
        for (int k = 0; k < n; k++) {
            struct job *job = &r[k].job;
            int i = (int)((int *)job->about - state);
            if (r[k].has_started) {
                CHECK(state[i] == 0 && !slots[job->slot]);
                state[i] = 1, slots[job->slot] = 1 + i, (*started)++;
                CHECK(job->begun > 0 && job->started > 0 && job->spawn.pid > 0);
            }
            if (!r[k].ended) continue;
            CHECK(r[k].ended == &jobs[i] && state[i] == 1 && slots[job->slot] == 1 + i && job->ended >= job->begun);
            state[i] = 2, slots[job->slot] = 0, ended++;
            struct ended e;
            CHECK(spawn_reap(job->spawn.pidfd, &e) == 1);
            close(job->spawn.pidfd);
        }
    return ended;
}

static void wait_for(struct spawners *s) {
    struct pollfd p = {s->eventfd, POLLIN, 0};
    CHECK(poll(&p, 1, 60000) == 1);
}

int main(void) {
    struct spawners s;
    int slots[SLOTS + 1] = {0}, put = 0, started = 0, ended = 0;
    CHECK(spawners_open(&s, THREADS, SLOTS) == 0);
    CHECK(!spawners_start(&s, 1) && !spawners_take_back(&s));
    while (ended < JOBS) {
        for (; put < JOBS && put - started < AHEAD; put++) spawners_put(&s, prepared(put, "/bin/true", quick));
        unsigned slot = 1;
        while (slot <= SLOTS && slots[slot]) slot++;
        if (slot > SLOTS || !spawners_start(&s, slot)) wait_for(&s);
        ended += look(&s, slots, &started);
    }
    for (int i = 1; i < JOBS; i++)                            /* threads take in order, and begin at most so many at once */
        for (int k = 0; k + THREADS < i; k++) CHECK(jobs[k].begun < jobs[i].begun);
    CHECK(started == JOBS && waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
    /* what cannot be started comes back, with what follows; the end before it is known */
    memset(state, 0, sizeof state);
    spawners_put(&s, prepared(0, "/bin/true", quick));
    spawners_put(&s, prepared(1, "/nowhere", quick));
    spawners_put(&s, prepared(2, "/bin/true", quick));
    CHECK(spawners_start(&s, 1));
    for (ended = 0; !ended; ended = look(&s, slots, &started)) wait_for(&s);
    CHECK(ended == 1 && !spawners_start(&s, 2));
    struct job *back = spawners_take_back(&s);
    CHECK(back == &jobs[1] && back->next == &jobs[2] && !back->next->next);
    spawners_put(&s, back);
    CHECK(!spawners_start(&s, 2));
    CHECK(spawners_take_back(&s) == &jobs[1] && !spawners_take_back(&s));
    /* what has been taken back does not start; what runs when they are closed ends */
    memset(state, 0, sizeof state);
    spawners_put(&s, prepared(0, "/bin/true", quick));
    spawners_put(&s, prepared(1, "/bin/sleep", forever));
    spawners_put(&s, prepared(2, "/bin/sleep", forever));
    CHECK(spawners_start(&s, 1));
    for (started = 0; started < 2; look(&s, slots, &started)) wait_for(&s);
    CHECK(spawners_take_back(&s) == &jobs[2]);
    CHECK(state[0] == 2 && state[1] == 1);
    CHECK(spawners_close(&s) == &jobs[1] && !jobs[1].next);
    int status;
    CHECK(waitpid(jobs[1].spawn.pid, &status, 0) == jobs[1].spawn.pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    close(jobs[1].spawn.pidfd);
    int fd = open("/dev/null", O_RDONLY);
    CHECK(fd == 3);                                           /* no descriptor is left */
    DONE("spawners");
}
