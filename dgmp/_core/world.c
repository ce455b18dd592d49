/* world.c: whether the process that spawns still is what its Gs were last told: its environment and working directory,
 * and whether it is time to look at files (what else belongs to a world is Python's: bind_world.c).
 *
 * `told` is what was seen before the world's description was made, `seen` what is being looked at: whoever tells looks
 * first, describes then, and says last that it was told; so a change that comes meanwhile is a change after it.
 *
 * A spawn must not pay for this.  Shortly after another one by the same thread there was no time for an os.chdir or
 * os.environ[...] = ..., of which we measure what they take at the least (`busy`), so nothing is looked at.  Later on:
 * setenv replaces a pointer in environ, so that array tells all (6 ns); the working directory is a system call (200 ns).
 * Called by the process's threads under the GIL; nothing of this is shared with other processes.
 */
#include "core.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#define PYTHON_NS 150                 /* what Python spends at the least from one spawn to the next with an os.chdir between,
                                       * beside the chdir itself: 390 measured */
#define FILE_NS 10000                 /* nobody writes a file, or replaces a directory, in less */
#define LONGEST_NS 1000000            /* but look at least so often: other threads may be faster */

extern char **environ;

/* Nobody but setenv and its like write to it, and a longer one is another array. */
static int environ_changed(struct world_seen *s) {
    return environ != s->env || (environ && memcmp(environ, s->vars, s->nvars * sizeof *s->vars) != 0);
}

static int environ_look(struct world_seen *s) {
    size_t n = 0;
    s->env = environ;
    if (!environ) return 1;
    while (environ[n++]) continue;                            /* its end is part of it */
    char **grown = realloc(s->vars, n * sizeof *grown);
    if (!grown) return 0;
    memcpy(grown, environ, n * sizeof *grown);
    s->vars = grown, s->nvars = n;
    return 1;
}

/* "" when there is no such path: it was removed, or lies outside of our root. */
static void get_cwd(char *to) {
    if (syscall(SYS_getcwd, to, CWD_MAX) < 0 || *to != '/') *to = 0;
}

/* A directory that has been removed under us is the same one still. */
static int cwd_changed(struct world_seen *s) {
    char now[CWD_MAX];
    get_cwd(now);
    return *now && strcmp(now, s->cwd) != 0;
}

static int cwd_replaced(struct world_seen *s) {
    struct stat st;
    return stat(".", &st) == 0 && (st.st_ino != s->ino || st.st_dev != s->dev);
}

/* A clock in units of its own that is cheaper than the system's (10 ns, not 25), and `where` it holds. */
static uint64_t ticks(uint32_t *where) {
#if defined(__x86_64__)
    return __rdtscp(where);           /* of one core, whose number the kernel has put there */
#elif defined(__aarch64__)
    uint64_t t;
    __asm__ volatile("isb; mrs %0, cntvct_el0" : "=r"(t));
    *where = 0;
    return t;
#else
    *where = 0;
    return (uint64_t)nanotime();
#endif
}

/* How many ticks a chdir to where we are takes at the least, and how many there are in a nanosecond. */
void world_watch(struct world *w) {
    uint64_t least = UINT64_MAX, begin = 0, end = 0;
    int64_t start = nanotime(), ns;
    for (int i = 0; i < 8; i++) {
        uint32_t here, there;
        uint64_t from = ticks(&here);
        int e = chdir(".");
        end = ticks(&there);
        if (!i) begin = from;
        if (e || here != there) continue;
        if (end - from < least) least = end - from;
    }
    ns = nanotime() - start;
    w->notify = -1;
    w->per_ns = ns > 0 && end > begin ? (double)(end - begin) / (double)ns : 0;
    w->busy = least == UINT64_MAX ? 0 : least + (uint64_t)(PYTHON_NS * w->per_ns);
}

int world_look(struct world *w) {
    struct world_seen *s = &w->seen;
    struct stat st;
    if (!environ_look(s)) return 0;
    get_cwd(s->cwd);
    int e = stat(".", &st);
    s->dev = e ? 0 : st.st_dev, s->ino = e ? 0 : st.st_ino;
    return 1;
}

void world_told(struct world *w, uint32_t index) {
    struct world_seen was = w->told;
    w->told = w->seen, w->seen = was;
    w->index = index;
}

/* An M has become another world; if it tells of its own changes it looks before it spawns, as nothing is as it was. */
void world_entered(struct world *w, uint32_t index) {
    w->index = w->entered = index;
    w->told.env = NULL;
}

/* Whether so little time has passed since the last spawn that nothing can have changed. */
int world_busy(struct world *w) {
    uint32_t where;
    uint64_t now = ticks(&where);
    return now - w->ended < w->busy && where == w->where && w->thread == pthread_self() && now - w->looked < w->longest;
}

/* WORLD_STATE: environment or directory have changed; WORLD_FILES: it is time to look at files too; else WORLD_QUIET. */
int world_changed(struct world *w) {
    uint32_t where;
    uint64_t now = ticks(&where);
    double pause = (double)(now - w->ended) / w->per_ns;      /* infinite, or huge, if we do not know */
    int short_pause = pause < FILE_NS && where == w->where && w->thread == pthread_self();
    w->looked = now, w->longest = (uint64_t)(LONGEST_NS * w->per_ns);
    if (environ_changed(&w->told) || cwd_changed(&w->told)) return WORLD_STATE;
    if (short_pause) return WORLD_QUIET;
    if (cwd_replaced(&w->told)) return WORLD_STATE;
    int n = 0;
    if (w->notify >= 0 && (ioctl(w->notify, FIONREAD, &n) || n)) return WORLD_FILES;
    return w->files_ns && pause >= (double)w->files_ns ? WORLD_FILES : WORLD_QUIET;
}

void world_spawned(struct world *w) {
    w->ended = ticks(&w->where);
    w->thread = pthread_self();
}

void world_free(struct world *w) {
    free(w->told.vars);
    free(w->seen.vars);
}
