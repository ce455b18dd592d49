/* bind_netpoll.c: waits of an M's started Gs for file descriptors, and the M that runs the async Gs. */
#include "binding.h"

#include <errno.h>

/* poll_add(fd, write, word) -> the number of G word's wait until fd can be read, or written; None: there is nothing to wait
 * for, as with a regular file.  OSError: no open descriptor. */
static PyObject *View_poll_add(View *self, PyObject *args) {
    CHECK(self);
    int fd, write;
    unsigned long long w;
    if (!PyArg_ParseTuple(args, "ipK", &fd, &write, &w)) return NULL;
    if (!self->poll && !(self->poll = netpollinit(&self->v))) return PyErr_NoMemory();
    int64_t number = netpolladd(self->poll, fd, write, w);
    if (number >= 0) return PyLong_FromLongLong(number);
    if (errno != EPERM) return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyObject *state_of(View *self, PyObject *arg, int (*of)(struct netpoll *, uint32_t)) {
    CHECK(self);
    unsigned long i = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred()) return NULL;
    int state = self->poll ? of(self->poll, (uint32_t)i) : -1;
    return state < 0 ? PyErr_Format(PyExc_LookupError, "no wait %lu", i) : PyLong_FromLong(state);
}

/* poll_state(number) -> POLL_WAITING, POLL_READY or POLL_GONE */
static PyObject *View_poll_state(View *self, PyObject *arg) { return state_of(self, arg, netpollstate); }

/* poll_end(number) -> the same; the wait is over, one way or the other. */
static PyObject *View_poll_end(View *self, PyObject *arg) { return state_of(self, arg, netpollend); }

/* netpoll() -> how many Gs it has readied; their words are in our inbox.  Never blocks. */
static PyObject *View_netpoll(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    return PyLong_FromLong(self->poll ? netpoll(self->poll) : 0);
}

/* be_poller() -> whether this M runs the async Gs */
static PyObject *View_be_poller(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    return PyBool_FromLong(be_poller(&self->v));
}

/* hand_over(word) -> whether we still have our P: our running G, of which no code has run yet, goes to the M that runs the
 * async Gs. */
static PyObject *View_hand_over(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long long w = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    if (!ghand_over(&self->v, w)) throw(&self->v, "hand_over: G %u is not ours", gword_index(w));
    running_g = 0;
    return PyBool_FromLong(take_back_p(self));
}

/* asyncq_get() -> the next G that was handed over to us, or None */
static PyObject *View_asyncq_get(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    return word_or_none(asyncq_get(&self->v));
}

/* async_work() -> whether there is one */
static PyObject *View_async_work(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    return PyBool_FromLong(async_work(&self->v));
}

PyMethodDef netpoll_methods[] = {ARGS(poll_add), ONE(poll_state), ONE(poll_end), NOARGS(netpoll), NOARGS(be_poller),
                                 ONE(hand_over), NOARGS(asyncq_get), NOARGS(async_work), {NULL, NULL, 0, NULL}};
