/* process.c: what the kernel says of a process: for sysmon, and for who waits for a lock that another holds. */
#include "process.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char thread_state(uint32_t pid, const char *thread) {
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%u/task/%.16s/stat", pid, thread);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) return 0;
    text[n] = 0;
    const char *end = strrchr(text, ')');                     /* the name before it may hold anything */
    return end && end[1] ? end[2] : 0;
}

char process_state(uint32_t pid) {
    char main_thread[12];
    snprintf(main_thread, sizeof main_thread, "%u", pid);
    return thread_state(pid, main_thread);
}

int64_t process_cpu(uint32_t pid) {
    struct timespec t;
    clockid_t clock = ~(clockid_t)pid * 8 + 2;                /* MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) */
    return clock_gettime(clock, &t) ? -1 : (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int process_sleeps(uint32_t pid) {
    char path[40];
    snprintf(path, sizeof path, "/proc/%u/task", pid);
    DIR *tasks = opendir(path);
    int sleeps = tasks != NULL;
    for (struct dirent *task; sleeps && (task = readdir(tasks)) != NULL;) {
        if (task->d_name[0] == '.') continue;
        char state = thread_state(pid, task->d_name);
        sleeps = state == 'S' || state == 'D';
    }
    if (tasks) closedir(tasks);
    return sleeps;
}
