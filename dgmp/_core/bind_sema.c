/* bind_sema.c: semaphores.  They are named by their objects' words, which the caller holds.
 *
 * How an operation went is appended to a list of the caller's in the same call, so that an interrupt right after cannot keep
 * it from knowing: SEMA_DONE, SEMA_DIED, SEMA_BLOCKS; or, negative, a wait (-1 - its sudog), for sema_wait_end. */
#include "binding.h"
#include "sema.h"

#include <errno.h>
#include <sched.h>

static struct sema *sema_of(View *self, PyObject *word) {
    unsigned long long w = PyLong_AsUnsignedLongLong(word);
    if (PyErr_Occurred()) return NULL;
    on_thread(self);                                          /* what follows may wake somebody */
    struct body *b = object_body(&self->v, w);
    if (!b || object_type_of(&self->v, w) != &sema_type) {
        PyErr_SetString(PyExc_ValueError, "there is no such semaphore");
        return NULL;
    }
    return (struct sema *)b;
}

/* sema_new(n, tell_at) -> a Handle; n 0: no limit */
static PyObject *View_sema_new(View *self, PyObject *args) {
    CHECK(self);
    unsigned long long n, tell_at;
    if (!PyArg_ParseTuple(args, "KK", &n, &tell_at)) return NULL;
    struct sema *s = sema_make(&self->v, n ? n : SEMA_NO_LIMIT, tell_at);
    if (!s) return no_object(self, "one more of them", 0);
    PyObject *h = handle_of(self, s->body.word, 1);
    if (!h) object_drop(&self->v, s->body.word);
    return h;
}

/* The caller does not learn of it: it is as if it had not been. */
static void undo(View *self, struct sema *s, int how, uint32_t is, uint64_t units) {
    while (how == SEMA_WAITS && (how = sema_wait_end(&self->v, s, is, 1)) == SEMA_WAITS) sched_yield();
    if (how == SEMA_DONE) sema_release(&self->v, s, units);
}

static PyObject *report(View *self, struct sema *s, PyObject *to, int how, uint32_t is, uint64_t units) {
    if (how == SEMA_NO_ROOM) return no_sudog(self);
    PyObject *x = PyLong_FromLong(how == SEMA_WAITS ? -1 - (long)is : how);
    if (!x || PyList_SetItem(to, 0, x)) {
        undo(self, s, how, is, units);
        return NULL;
    }
    Py_RETURN_NONE;
}

static int is_report(PyObject *to) {
    if (PyList_Check(to) && PyList_Size(to) == 1) return 1;
    PyErr_SetString(PyExc_TypeError, "how it went is put into a list of one");
    return 0;
}

/* sema_acquire(word, units, waiter, wait, to): waiter: the G's word, 0 for a thread. */
static PyObject *View_sema_acquire(View *self, PyObject *const *a, Py_ssize_t n) {
    CHECK(self);
    uint32_t is = 0;
    if (n != 5) return PyErr_Format(PyExc_TypeError, "sema_acquire takes 5 arguments");
    struct sema *s = sema_of(self, a[0]);
    unsigned long units = PyLong_AsUnsignedLong(a[1]);
    unsigned long long waiter = PyLong_AsUnsignedLongLong(a[2]);
    if (PyErr_Occurred() || !s || !is_report(a[4])) return NULL;
    int how = sema_acquire(&self->v, s, (uint32_t)units, waiter, a[3] == Py_True, &is);
    return report(self, s, a[4], how, is, units);
}

/* sema_wait_zero(word, waiter, wait, to) */
static PyObject *View_sema_wait_zero(View *self, PyObject *const *a, Py_ssize_t n) {
    CHECK(self);
    uint32_t is = 0;
    if (n != 4) return PyErr_Format(PyExc_TypeError, "sema_wait_zero takes 4 arguments");
    struct sema *s = sema_of(self, a[0]);
    unsigned long long waiter = PyLong_AsUnsignedLongLong(a[1]);
    if (PyErr_Occurred() || !s || !is_report(a[3])) return NULL;
    int how = sema_wait_zero(&self->v, s, waiter, a[2] == Py_True, &is);
    return report(self, s, a[3], how, is, 0);
}

static int wait_of(View *self, PyObject *wait, uint32_t *is) {
    long w = PyLong_AsLong(wait);
    if (PyErr_Occurred()) return 0;
    *is = (uint32_t)(-1 - w);
    if (w < 0 && *is < self->v.seg->sudogs.n && load_acq(&sudog_at(&self->v, *is)->owner) == self->v.self + 1) return 1;
    PyErr_SetString(PyExc_ValueError, "there is no such wait");
    return 0;
}

/* sema_wait_end(word, give_up, to): to has the wait, and then how it ended; SEMA_BLOCKS: it was given up, or is to be tried
 * anew.  It stays where it is while the wait goes on. */
static PyObject *View_sema_wait_end(View *self, PyObject *const *a, Py_ssize_t n) {
    CHECK(self);
    uint32_t is;
    if (n != 3) return PyErr_Format(PyExc_TypeError, "sema_wait_end takes 3 arguments");
    struct sema *s = sema_of(self, a[0]);
    if (!s || !is_report(a[2]) || !wait_of(self, PyList_GetItem(a[2], 0), &is)) return NULL;
    int how = sema_wait_end(&self->v, s, is, a[1] == Py_True);
    if (how == SEMA_WAITS) Py_RETURN_NONE;
    return report(self, s, a[2], how, is, 0);                 /* small numbers: this does not fail */
}

/* sema_pending(wait) -> whether it goes on */
static PyObject *View_sema_pending(View *self, PyObject *arg) {
    CHECK(self);
    uint32_t is;
    if (!wait_of(self, arg, &is)) return NULL;
    return PyBool_FromLong(atomic_load(&sudog_at(&self->v, is)->done) == WAIT_PENDING);
}

/* sema_sleep(wait, timeout_ns): until it has ended, or for so long; for threads. */
static PyObject *View_sema_sleep(View *self, PyObject *const *a, Py_ssize_t n) {
    CHECK(self);
    uint32_t is;
    if (n != 2) return PyErr_Format(PyExc_TypeError, "sema_sleep takes 2 arguments");
    long long timeout = PyLong_AsLongLong(a[1]);
    if (PyErr_Occurred() || !wait_of(self, a[0], &is)) return NULL;
    au32 *done = &sudog_at(&self->v, is)->done;
    int e;
    Py_BEGIN_ALLOW_THREADS
    e = futex_wait(done, WAIT_PENDING, timeout);
    Py_END_ALLOW_THREADS
    if (e == EINTR && PyErr_CheckSignals()) return NULL;
    Py_RETURN_NONE;
}

/* sema_release(word, units) -> False: so many are not held */
static PyObject *View_sema_release(View *self, PyObject *const *a, Py_ssize_t n) {
    CHECK(self);
    if (n != 2) return PyErr_Format(PyExc_TypeError, "sema_release takes 2 arguments");
    struct sema *s = sema_of(self, a[0]);
    unsigned long long units = PyLong_AsUnsignedLongLong(a[1]);
    if (PyErr_Occurred() || !s) return NULL;
    return PyBool_FromLong(sema_release(&self->v, s, units));
}

/* sema_state(word) -> (units held, flag, goid of the G that was given units last, that of who died) */
static PyObject *View_sema_state(View *self, PyObject *arg) {
    CHECK(self);
    struct sema *s = sema_of(self, arg);
    if (!s) return NULL;
    return Py_BuildValue("(KIKK)", (unsigned long long)sema_used(&self->v, s), load_acq(&s->flag),
                         (unsigned long long)load_rlx(&s->goid), (unsigned long long)load_rlx(&s->died_goid));
}

/* sema_set_flag(word) */
static PyObject *View_sema_set_flag(View *self, PyObject *arg) {
    CHECK(self);
    struct sema *s = sema_of(self, arg);
    if (!s) return NULL;
    atomic_store(&s->flag, 1);
    Py_RETURN_NONE;
}

/* semas_held() -> whether this process has acquired units that it has not released */
static PyObject *View_semas_held(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    return PyBool_FromLong(semas_held(&self->v));
}

PyMethodDef sema_methods[] = {
    ARGS(sema_new), FAST(sema_acquire), FAST(sema_wait_zero), FAST(sema_wait_end), ONE(sema_pending), FAST(sema_sleep),
    FAST(sema_release), ONE(sema_state), ONE(sema_set_flag), NOARGS(semas_held), {NULL, NULL, 0, NULL}};
