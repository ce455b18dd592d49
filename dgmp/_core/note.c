/* note.c: an M's note: sleep until a waker hands over a P (Go: lock_futex.go, m.park).
 *
 * noteclear, then one notesleep and one notewakeup in any order: the sleep returns after the wake-up.  The note is the
 * word that also says what the M does (core.h), so a wake-up is one CAS: it publishes the P, ends the sleep, and fails
 * if the M has died meanwhile, even if another lives in its slot by now.  Never FUTEX_PRIVATE_FLAG: processes share it.
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

int64_t coarse_time(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* 0: woken or the word differed; else ETIMEDOUT or EINTR.  timeout_ns < 0: none. */
int futex_wait(au32 *word, uint32_t expected, int64_t timeout_ns) {
    struct timespec t = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    if (syscall(SYS_futex, word, FUTEX_WAIT, expected, timeout_ns < 0 ? NULL : &t, NULL, 0) == 0) return 0;
    return errno == EAGAIN ? 0 : errno;
}

void futex_wake(au32 *word, int n) { syscall(SYS_futex, word, FUTEX_WAKE, n, NULL, NULL, 0); }

void noteclear(struct view *v) {
    au32 *note = &self_m(v)->note;
    uint32_t w = load_rlx(note);
    if (MSTATE(w) != M_RUNNING) throw(v, "noteclear: M %u is in state %u", v->self, MSTATE(w));
    atomic_store(note, MWORD(M_IDLE, 0, MLIFE(w)));
}

/* word: the note as the waker left it when it chose m (WANTED or STARTING). */
int notewakeup(struct view *v, uint32_t m, uint32_t word, uint32_t arg) {
    au32 *note = &v->allm[m].note;
    if (!atomic_compare_exchange_strong(note, &word, MWORD(M_HANDED, arg, MLIFE(word)))) return 0;
    KILLPOINT(notewakeup_after);
    futex_wake(note, 1);
    return 1;
}

int notesleep(struct view *v, int64_t timeout_ns) {
    au32 *note = &self_m(v)->note;
    int64_t end = timeout_ns < 0 ? 0 : nanotime() + timeout_ns;
    for (uint32_t w; MSTATE(w = load_acq(note)) != M_HANDED;) {
        int64_t left = timeout_ns < 0 ? -1 : end - nanotime();
        if (timeout_ns >= 0 && left <= 0) return 0;
        int e = futex_wait(note, w, left);
        if (e == ETIMEDOUT || e == EINTR) return MSTATE(load_acq(note)) == M_HANDED;
    }
    return 1;
}
