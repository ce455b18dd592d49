/* process.h: what the kernel says of a process. */
#ifndef DGMP_PROCESS_H
#define DGMP_PROCESS_H
#include "core.h"

char process_state(uint32_t pid);     /* of its main thread: R, S, D, T (stopped), t (by a debugger) ...; 0: it is gone */
int64_t process_cpu(uint32_t pid);    /* the CPU time it has used, in ns; -1: it is gone */
int process_sleeps(uint32_t pid);     /* whether every thread of it does */
#endif
