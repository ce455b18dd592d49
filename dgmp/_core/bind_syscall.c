/* bind_syscall.c: user code and the P: an M gives it away before it blocks, and waits for one after. */
#include "binding.h"
#include "retake.h"

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

PyMethodDef syscall_methods[] = {NOARGS(entersyscallblock), NOARGS(exitsyscall), {NULL, NULL, 0, NULL}};
