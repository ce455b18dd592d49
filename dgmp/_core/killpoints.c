/* killpoints.c: dying on purpose, for tests; only with -DDGMP_KILLPOINTS.  A process learns from its environment, as it
 * attaches, what it is to do:
 *
 *   DGMP_KILLPOINT=[role/]name[:n[:how]]
 *       role: m (unless said otherwise), client, coordinator, any.   name: one of killpoints.h, or * for each of them.
 *       n: at the n-th passage (1).   how: KILL (unless said otherwise), STOP, SEGV, ABRT, TERM: that signal;
 *       EXIT: _exit(1);  LATE: it sleeps for a millisecond, and goes on.
 *   DGMP_KILLPOINT_SEED=number: at each passage with a probability of 1/n.  What is drawn follows from the seed, the slot of
 *       the process and how many have died in it before.
 *   DGMP_KILLPOINT_TIMES=number: so often in a runtime (1); 0: without bound.
 *   DGMP_KILLPOINT_LOG=file: gets a line for each.
 */
#include "core.h"

#ifdef DGMP_KILLPOINTS
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LATE_NS 1000000
enum { EXIT = 1000, LATE };

#define KILLPOINT_NAME(name) #name,
const char *const killpoint_names[] = {KILLPOINTS(KILLPOINT_NAME) NULL};

static const struct { const char *name; int how; } ways[] = {
    {"KILL", SIGKILL}, {"STOP", SIGSTOP}, {"SEGV", SIGSEGV}, {"ABRT", SIGABRT}, {"TERM", SIGTERM}, {"EXIT", EXIT}, {"LATE", LATE}};

int killpoints_armed;
static struct view *of;
static enum killpoint where;          /* NKILLPOINTS: everywhere */
static int how, log_fd = -1, random_;
static unsigned long n, times;
static _Atomic unsigned long passed;
static au64 seed;

static _Noreturn void refuse(const char *text) {
    fprintf(stderr, "dgmp: DGMP_KILLPOINT=%s: expected [m|client|coordinator|any/]name[:n[:how]]\n", text);
    _exit(2);
}

static unsigned long number(const char *variable, unsigned long otherwise) {
    const char *text = getenv(variable);
    return text ? strtoul(text, NULL, 0) : otherwise;
}

static int is_role(const char *role, struct view *v, unsigned int kind) {
    const char *ours = kind == KIND_M ? "m" : v->self == v->seg->max_ms + 1 ? "coordinator" : "client";
    return !strcmp(role, "any") || !strcmp(role, ours);
}

static enum killpoint point_named(const char *name) {
    int i = 0;
    while (i < NKILLPOINTS && strcmp(killpoint_names[i], name) != 0) i++;
    return (enum killpoint)i;
}

static int way_named(const char *name) {
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (!strcmp(ways[i].name, name)) return ways[i].how;
    return 0;
}

void killpoints_arm(struct view *v, unsigned int kind) {
    const char *text = getenv("DGMP_KILLPOINT"), *log = getenv("DGMP_KILLPOINT_LOG"), *name = text;
    char role[16] = "m", point[64] = "", way[8] = "KILL";
    killpoints_armed = 0;             /* whoever forked us may have been */
    if (!text || !*text) return;
    if (strchr(text, '/')) {
        if (sscanf(text, "%15[a-z]/", role) != 1) refuse(text);
        name = strchr(text, '/') + 1;
    }
    n = 1;
    if (sscanf(name, "%63[a-z_*]:%lu:%7[A-Z]", point, &n, way) < 1) refuse(text);
    where = point_named(point), how = way_named(way);
    if ((where == NKILLPOINTS && strcmp(point, "*") != 0) || !how || !n) refuse(text);
    if (!is_role(role, v, kind)) return;
    atomic_store(&passed, 0);
    of = v, times = number("DGMP_KILLPOINT_TIMES", 1), random_ = getenv("DGMP_KILLPOINT_SEED") != NULL;
    atomic_store(&seed, number("DGMP_KILLPOINT_SEED", 0) ^ (uint64_t)v->self << 32 ^
                            (uint64_t)MLIFE(atomic_load(&self_m(v)->note)) << 48);
    if (log_fd < 0 && log) log_fd = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    killpoints_armed = 1;
}

void killpoints_disarm(struct view *v) {
    if (of == v) killpoints_armed = 0;
}

/* splitmix64 */
static uint64_t draw(void) {
    uint64_t x = atomic_fetch_add(&seed, 0x9e3779b97f4a7c15ull) + 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

static void say(enum killpoint here) {
    char line[128];
    int len = snprintf(line, sizeof line, "%s m%u pid %d\n", killpoint_names[here], of->self, (int)getpid());
    if (log_fd >= 0 && write(log_fd, line, (size_t)len) != len) _exit(2);
}

static void act(void) {
    struct timespec late = {0, LATE_NS};
    switch (how) {
    case LATE: nanosleep(&late, NULL); return;
    case EXIT: _exit(1);
    case SIGKILL: case SIGSTOP: kill(getpid(), how); return;
    default:
        signal(how, SIG_DFL);
        raise(how);
    }
}

void killpoint(enum killpoint here) {
    if ((where != NKILLPOINTS && where != here) || of->forked) return;
    if (random_ ? draw() % n != 0 : atomic_fetch_add(&passed, 1) + 1 != n) return;
    int e = errno;
    uint32_t before = atomic_fetch_add(&of->seg->sched.killed, 1);
    if (times && before >= times) return;
    say(here);
    act();
    errno = e;
}
#else
const char *const killpoint_names[] = {NULL};
#endif
