/* Every change of the environment or the directory is seen, however short before the next spawn; nothing else is. */
#include "check.h"

#include <sys/inotify.h>
#include <sys/stat.h>

#define ROUNDS 20000

static struct world w;

static void tell(void) {
    CHECK(world_look(&w));
    world_told(&w, 1);
}

/* As the binding does: a spawn has ended, something is done, and the next one begins. */
static int after(void (*act)(int), int i) {
    world_spawned(&w);
    if (act) act(i);
    return world_busy(&w) ? WORLD_QUIET : world_changed(&w);
}

static void set(int i) {
    char text[20];
    snprintf(text, sizeof text, "%d", i);
    setenv("DGMP_TEST_WORLD", text, 1);
}
static void go_there(int i) { CHECK(chdir(i % 2 ? "a" : "b") == 0 && chdir("..") == 0 && chdir(i % 2 ? "b" : "a") == 0); }
static void back(void) { CHECK(chdir("..") == 0); }
static void replace(int i) {
    (void)i;
    CHECK(chdir("..") == 0 && rename("a", "gone") == 0 && mkdir("a", 0700) == 0 && rmdir("gone") == 0 && chdir("a") == 0);
    usleep(20);
}
static void removed(int i) {
    (void)i;
    CHECK(rmdir("../a") == 0);
}
static void write_file(int i) {
    (void)i;
    FILE *file = fopen("file", "w");
    CHECK(file && fclose(file) == 0);
}
static void pause_a_little(int i) { usleep((useconds_t)i); }

int main(void) {
    char folder[] = "/tmp/dgmp-test-world-XXXXXX";
    CHECK(mkdtemp(folder) && chdir(folder) == 0 && mkdir("a", 0700) == 0 && mkdir("b", 0700) == 0);
    world_watch(&w);
    tell();
    CHECK(w.busy > 0 && w.per_ns > 0);
    int busy = 0;
    for (int i = 0; i < ROUNDS; i++) {
        CHECK(after(NULL, 0) == WORLD_QUIET);
        world_spawned(&w);
        busy += world_busy(&w);
    }
    CHECK(busy > ROUNDS / 2);                                 /* so it costs next to nothing */
    for (int i = 0; i < ROUNDS; i++) {
        /* C is faster than Python, which is why world_busy is left out here */
        world_spawned(&w), set(i);
        CHECK(world_changed(&w) == WORLD_STATE);
        tell();
        CHECK(world_changed(&w) != WORLD_STATE);
    }
    unsetenv("DGMP_TEST_WORLD");
    CHECK(world_changed(&w) == WORLD_STATE);
    tell();
    for (int i = 0; i < ROUNDS; i++) {
        CHECK(after(go_there, i) == WORLD_STATE);             /* three chdirs: about what one takes from Python */
        tell();
        back();
        CHECK(world_changed(&w) == WORLD_STATE);
        tell();
    }
    CHECK(chdir("a") == 0);
    tell();
    CHECK(after(replace, 0) == WORLD_STATE);
    tell();
    CHECK(after(removed, 0) != WORLD_STATE);                  /* it is the same still, without a path */
    CHECK(chdir(folder) == 0);
    CHECK(world_changed(&w) == WORLD_STATE);
    tell();

    w.files_ns = 200000000;                                    /* files: after a pause, */
    CHECK(after(pause_a_little, 20) == WORLD_QUIET);
    CHECK(after(pause_a_little, 300000) == WORLD_FILES);
    w.notify = inotify_init1(IN_NONBLOCK);                    /* or an event */
    CHECK(inotify_add_watch(w.notify, ".", IN_CREATE) > 0);
    CHECK(after(pause_a_little, 20) == WORLD_QUIET);
    CHECK(after(write_file, 0) == WORLD_FILES);

    world_entered(&w, 5);
    CHECK(w.index == 5 && w.entered == 5 && world_changed(&w) == WORLD_STATE);
    clearenv();
    tell();
    CHECK(world_changed(&w) != WORLD_STATE);
    set(1);
    CHECK(world_changed(&w) == WORLD_STATE);
    world_free(&w);
    CHECK(unlink("file") == 0 && rmdir("b") == 0 && rmdir(folder) == 0);
    DONE("world");
}
