/* world.c: whether the process that spawns still is what its Gs were last told: its environment and working directory,
 * and whether it is time to look at files (what else belongs to a world is Python's: module.c).
 *
 * `told` is what was seen before the world's description was made, `seen` what is being looked at: whoever tells looks
 * first, describes then, and says last that it was told; so a change that comes meanwhile is a change after it.
 *
 * A spawn must not pay for this.  setenv replaces a pointer in environ, so that array tells all (6 ns).  The working
 * directory is a system call (200 ns): it is left out when the same thread has spawned so shortly before that there was no
 * time for a chdir, of which we measure what it takes at the least.
 * Called by the process's threads under the GIL; nothing of this is shared with other processes.
 */
#include "core.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

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

/* The shortest chdir: to where we are. */
static int64_t chdir_ns(void) {
    int64_t least = INT64_MAX;
    for (int i = 0; i < 8; i++) {
        int64_t start = nanotime();
        if (chdir(".")) return 0;
        int64_t took = nanotime() - start;
        if (took < least) least = took;
    }
    return least;
}

void world_watch(struct world *w) {
    w->notify = -1;
    w->chdir_ns = chdir_ns() + PYTHON_NS;
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

/* WORLD_STATE: environment or directory have changed; WORLD_QUIET: only rarer things may have; WORLD_FILES: it is time
 * to look at files too. */
int world_changed(struct world *w) {
    if (environ_changed(&w->told)) return WORLD_STATE;
    int64_t now = nanotime(), gap = now - w->ended;
    int same_thread = w->thread == pthread_self();
    if (gap < w->chdir_ns && same_thread && now - w->looked < LONGEST_NS) return WORLD_SAME;
    w->looked = now;
    if (cwd_changed(&w->told)) return WORLD_STATE;
    if (gap < FILE_NS && same_thread) return WORLD_QUIET;
    if (cwd_replaced(&w->told)) return WORLD_STATE;
    int n = 0;
    if (w->notify >= 0 && (ioctl(w->notify, FIONREAD, &n) || n)) return WORLD_FILES;
    return w->files_ns && gap >= w->files_ns ? WORLD_FILES : WORLD_QUIET;
}

void world_spawned(struct world *w) {
    w->ended = nanotime();
    w->thread = pthread_self();
}

void world_free(struct world *w) {
    free(w->told.vars);
    free(w->seen.vars);
}
