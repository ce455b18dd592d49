/* bind_syscall.c: user code and the P: an M gives it away before it blocks, and waits for one after; and how many Ps there
 * are. */
#include "binding.h"
#include "retake.h"
#include "stw.h"

#include <time.h>

#define STOP_NAP_NS 100000            /* Go's pause between two looks at what has not stopped */

/* entersyscallblock() -> whether we had a P, which goes to others at once: user code is about to block. */
static PyObject *View_entersyscallblock(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    return PyBool_FromLong(entersyscallblock(&self->v));
}

/* One sleep of an M that waits for a P in place.  1: it has one; 0: not yet; -1: a signal's handler has raised. */
static int wait_for_p(struct view *v) {
    int woken;
    mput(v);
    want_p(v, v->self);
    Py_BEGIN_ALLOW_THREADS
    woken = notesleep(v, -1);
    Py_END_ALLOW_THREADS
    if (!woken && munput(v)) return PyErr_CheckSignals() ? -1 : 0;
    if (!woken) {                                             /* a waker chose us: its hand-over comes */
        Py_BEGIN_ALLOW_THREADS
        while (!notesleep(v, -1)) continue;
        Py_END_ALLOW_THREADS
    }
    return mtake(v) != NULL;
}

/* exitsyscall() -> False: we had our P all the time.  True: we have waited until there was one for us, in the middle of a G,
 * which goes on.  From the main thread, in user code. */
static PyObject *View_exitsyscall(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    struct view *v = &self->v;
    int waited = 0, got = take_back_p(self);
    while (!got) {
        waited = 1;
        got = exitsyscall_idle(v) ? 1 : wait_for_p(v);
        if (got < 0) return NULL;
        if (!got) got = take_back_p(self);                    /* a signal's handler may have been here, and got one */
    }
    exitsyscall_done(v);
    return PyBool_FromLong(waited);
}

/* The world is ours to be stopped, within the time: 1, and start_the_world must come; 0: not within the time; -1: an
 * exception. */
static int try_stop(View *self, int64_t until) {
    struct view *v = &self->v;
    struct timespec nap = {0, STOP_NAP_NS};
    int ours = 0;
    while (!(ours = ours || stop_the_world(v)) || !stopped(v)) {
        if (PyErr_CheckSignals() || nanotime() > until) {
            if (ours) start_the_world(v, v->self + 1);
            return PyErr_Occurred() ? -1 : 0;
        }
        Py_BEGIN_ALLOW_THREADS
        nanosleep(&nap, NULL);
        Py_END_ALLOW_THREADS
    }
    return 1;
}

/* procresize(n, timeout_ns) -> how many Ps there were; the world stands meanwhile.  None: it could not be stopped so soon; an M
 * that is being made, or was stopped by somebody, keeps its P until it runs. */
static PyObject *View_procresize(View *self, PyObject *args) {
    CHECK(self);
    struct view *v = &self->v;
    unsigned int n;
    long long timeout;
    if (!PyArg_ParseTuple(args, "IL", &n, &timeout)) return NULL;
    if (n == 0 || n > MAX_PS || n > v->seg->max_ms) return PyErr_Format(PyExc_ValueError, "%u is no number of Ps", n);
    int ours = try_stop(self, nanotime() + timeout);
    if (ours < 0) return NULL;
    if (!ours) Py_RETURN_NONE;
    uint32_t old = v->seg->nprocs;
    procresize(v, n);
    start_the_world(v, v->self + 1);
    return PyLong_FromUnsignedLong(old);
}

PyMethodDef syscall_methods[] = {NOARGS(entersyscallblock), NOARGS(exitsyscall), ARGS(procresize), {NULL, NULL, 0, NULL}};
