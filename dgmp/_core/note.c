/* note.c: one-time sleep and wake-up on a futex that processes share (Go: lock_futex.go).
 *
 * noteclear, then one notesleep and one notewakeup in any order: the sleep returns after the wake-up.  A second
 * wake-up before the next noteclear is a broken invariant.  Never FUTEX_PRIVATE_FLAG: the word is shared by processes.
 */
#include "core.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int64_t nanotime(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* 0: woken or the word differed; else ETIMEDOUT or EINTR.  timeout_ns < 0: none. */
int futex_wait(au32 *word, uint32_t expected, int64_t timeout_ns) {
    struct timespec t = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    if (syscall(SYS_futex, word, FUTEX_WAIT, expected, timeout_ns < 0 ? NULL : &t, NULL, 0) == 0) return 0;
    return errno == EAGAIN ? 0 : errno;
}

void futex_wake(au32 *word, int n) { syscall(SYS_futex, word, FUTEX_WAKE, n, NULL, NULL, 0); }

void noteclear(au32 *note) { atomic_store(note, 0); }

void notewakeup(struct view *v, au32 *note) {
    if (atomic_exchange(note, 1) != 0) throw(v, "notewakeup: double wakeup");
    futex_wake(note, 1);
}

int notesleep(au32 *note, int64_t spin_ns, int64_t timeout_ns) {
    int64_t start = spin_ns > 0 || timeout_ns >= 0 ? nanotime() : 0;
    if (spin_ns > 0)
        for (int i = 1; load_acq(note) == 0; i++) {
            procyield();
            if (i % 64 == 0 && nanotime() - start > spin_ns) break;
        }
    while (load_acq(note) == 0) {
        int64_t left = timeout_ns < 0 ? -1 : timeout_ns - (nanotime() - start);
        if (timeout_ns >= 0 && left <= 0) return 0;
        int e = futex_wait(note, 0, left);
        if (e == ETIMEDOUT || e == EINTR) return load_acq(note) != 0;
    }
    return 1;
}
