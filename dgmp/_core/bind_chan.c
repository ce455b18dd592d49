/* bind_chan.c: shared objects as Python sees them, and channels: values to messages and back, select, waits.
 *
 * A Handle is a process's hold on a shared object, one for each object.  A message of a common type is its plain bytes; what
 * else there is goes through the pickling that codec() has named.  A Wait is a blocking operation that has been queued: it is
 * what a G parks on (runtime.proc.M.gopark looks at _state), or a thread sleeps on; dropped, it gives the operation up.
 */
#include "binding.h"
#include "chan.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---------------------------------------------------------------- handles */
typedef struct {
    PyObject_HEAD
    View *view;
    uint64_t word;
    struct body *body;
} Handle;
PyObject *Handle_type, *Wait_type;

static void Handle_dealloc(Handle *h) {
    PyTypeObject *type = Py_TYPE((PyObject *)h);
    View *view = h->view;
    if (h->word && !view->v.forked) {
        PyObject *t, *error, *tb, *key;
        PyErr_Fetch(&t, &error, &tb);
        if ((key = PyLong_FromUnsignedLongLong(h->word)) != NULL) {
            if (PyDict_DelItem(view->handles, key)) PyErr_Clear();
            Py_DECREF(key);
        }
        PyErr_Restore(t, error, tb);
        if (!view->closed) object_drop(&view->v, h->word);
    }
    Py_DECREF((PyObject *)view);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(h);
    Py_DECREF(type);
}

/* Our process holds the object of that word already, or (0) does not yet. */
static PyObject *Handle_make(View *self, uint64_t word, int held) {
    allocfunc alloc = (allocfunc)PyType_GetSlot((PyTypeObject *)Handle_type, Py_tp_alloc);
    Handle *h = (Handle *)alloc((PyTypeObject *)Handle_type, 0);
    if (!h) return NULL;
    h->view = (View *)Py_NewRef((PyObject *)self);
    PyObject *key = PyLong_FromUnsignedLongLong(word), *address = PyLong_FromVoidPtr(h);
    if (!key || !address || PyDict_SetItem(self->handles, key, address)) {
        Py_CLEAR(h);
    } else if (!held && !object_hold(&self->v, word)) {
        PyDict_DelItem(self->handles, key);
        PyErr_Format(PyExc_LookupError, "the object has ended");
        Py_CLEAR(h);
    } else {
        h->word = word;
        h->body = object_body(&self->v, word);
    }
    Py_XDECREF(key);
    Py_XDECREF(address);
    return (PyObject *)h;
}

PyObject *handle_of(View *self, uint64_t word, int held) {
    PyObject *key = PyLong_FromUnsignedLongLong(word), *known = key ? PyDict_GetItemWithError(self->handles, key) : NULL;
    Py_XDECREF(key);
    if (known) return Py_NewRef(PyLong_AsVoidPtr(known));
    return PyErr_Occurred() ? NULL : Handle_make(self, word, held);
}

/* handle(word) -> the Handle of a live object; LookupError: it has ended */
static PyObject *View_handle(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long long word = PyLong_AsUnsignedLongLong(arg);
    return PyErr_Occurred() ? NULL : handle_of(self, word, 0);
}

/* Handles of the n objects in a payload, whose words these are: the payload has kept them, or the core has made them ours.
 * Nothing here runs Python code.  What has ended is left out: unpickling says so. */
static PyObject **handles_at(View *self, const char *words, uint64_t n) {
    PyObject **handles = n ? calloc(n, sizeof *handles) : NULL;
    for (uint64_t i = 0; handles && i < n; i++) {
        uint64_t w;
        memcpy(&w, words + 8 * i, 8);
        if (!(handles[i] = handle_of(self, w, 0))) PyErr_Clear();
    }
    return handles;
}

void free_handles(PyObject **handles, uint64_t n) {
    for (uint64_t i = 0; handles && i < n; i++) Py_XDECREF(handles[i]);
    free(handles);
}

/* A payload of g's has been put in its place. */
static void note_objects(View *self, struct g *g, const char *words, uint64_t n) {
    objects_travel(&self->v, words, n);
    if (g) atomic_fetch_or(&g->flags, G_CARRIES);
}

void travels(View *self, struct g *g, const char *data, uint64_t len) {
    const char *words;
    uint64_t n = payload_objects(data, len, &words);
    if (n) note_objects(self, g, words, n);
}

void block_travels(View *self, struct g *g, uint64_t off, uint64_t len) {
    const char *words;
    uint64_t n = block_objects(&self->v, off, len, &words);
    if (n) note_objects(self, g, words, n);
}

PyObject **result_handles(View *self, struct g *g, uint64_t *n) {
    const char *words;
    *n = g->result ? block_objects(&self->v, g->result, g->result_len, &words)
                   : payload_objects(g->inline_result, g->result_len, &words);
    return handles_at(self, words, *n);
}

/* (data, Handles); steals all. */
PyObject *with_handles(PyObject *data, PyObject **handles, uint64_t n) {
    PyObject *all = PyTuple_New((Py_ssize_t)n), *both = NULL;
    for (uint64_t i = 0; all && i < n; i++)
        PyTuple_SetItem(all, (Py_ssize_t)i, Py_NewRef(handles[i] ? handles[i] : Py_None));
    if (all) both = PyTuple_Pack(2, data, all);
    Py_XDECREF(all);
    Py_DECREF(data);
    free_handles(handles, n);
    return both;
}

/* trace() -> how many objects nobody referred to any more; orphans() -> how many there may be */
static PyObject *View_trace(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    return PyLong_FromUnsignedLong(object_trace(&self->v));
}
static PyObject *View_orphans(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    return PyLong_FromUnsignedLongLong(load_acq(&self->v.seg->orphans));
}
static PyObject *View_objects(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    return PyLong_FromUnsignedLongLong(objects_live(&self->v));
}

/* ---------------------------------------------------------------- messages */
enum { E_NONE, E_FALSE, E_TRUE, E_INT, E_FLOAT, E_BYTES, E_STR, E_PICKLE, E_BLOCK };

/* codec(encode, unpickle, loads, closed): encode makes bytes or a Block, unpickle takes the bytes, loads the Block; closed is
 * the error for a channel that is. */
static PyObject *View_codec(View *self, PyObject *const *a, Py_ssize_t n) {
    CHECK(self);
    if (n != NCODEC) return PyErr_Format(PyExc_TypeError, "codec takes %d arguments", NCODEC);
    for (int i = 0; i < NCODEC; i++) {
        Py_XDECREF(self->codec[i]);
        self->codec[i] = Py_NewRef(a[i]);
    }
    Py_RETURN_NONE;
}

static int put_bytes(View *self, struct elem *e, uint32_t kind, const char *data, uint64_t len) {
    e->kind = kind, e->len = len, e->off = 0;
    if (len > ELEM_INLINE && !(e->off = heap_alloc(&self->v, len))) {
        PyErr_Format(PyExc_MemoryError, "the runtime's shared memory has no room for a message of %llu bytes",
                     (unsigned long long)len);
        return 0;
    }
    memcpy(e->off ? at(&self->v, e->off) : e->bytes, data, len);
    return 1;
}

static int encode_pickled(View *self, PyObject *x, struct elem *e) {
    if (!usable(self)) return 0;                              /* and then there is no codec */
    PyObject *encode = Py_NewRef(self->codec[C_ENCODE]), *data = PyObject_CallFunctionObjArgs(encode, x, NULL);
    Py_DECREF(encode);
    const char *words;
    char *bytes;
    Py_ssize_t len;
    int ok = 0;
    if (!data) return 0;
    if (PyBytes_Check(data)) {
        ok = PyBytes_AsStringAndSize(data, &bytes, &len) == 0 && put_bytes(self, e, E_PICKLE, bytes, (uint64_t)len);
        if (ok && payload_objects(bytes, (uint64_t)len, &words)) e->kind |= ELEM_OBJECTS;
    } else if ((e->off = take_block(self, data, &e->len)) != 0) {
        e->kind = E_BLOCK, ok = 1;
        if (block_objects(&self->v, e->off, e->len, &words)) e->kind |= ELEM_OBJECTS;
    } else {
        PyErr_Format(PyExc_TypeError, "a message is bytes or a block");
    }
    Py_DECREF(data);
    return ok;
}

/* 0: an exception.  The block, if there is one, is held. */
static int encode(View *self, PyObject *x, struct elem *e) {
    const char *text;
    char *bytes;
    Py_ssize_t len;
    int overflow;
    e->off = 0, e->len = 0;
    if (x == Py_None || x == Py_False || x == Py_True) {
        e->kind = x == Py_None ? E_NONE : x == Py_True ? E_TRUE : E_FALSE;
        return 1;
    }
    if (PyBytes_CheckExact(x))
        return PyBytes_AsStringAndSize(x, &bytes, &len) == 0 && put_bytes(self, e, E_BYTES, bytes, (uint64_t)len);
    if (PyLong_CheckExact(x)) {
        long long i = PyLong_AsLongLongAndOverflow(x, &overflow);
        if (!overflow) return put_bytes(self, e, E_INT, (char *)&i, sizeof i);
    } else if (PyFloat_CheckExact(x)) {
        double d = PyFloat_AsDouble(x);
        return put_bytes(self, e, E_FLOAT, (char *)&d, sizeof d);
    } else if (PyUnicode_CheckExact(x)) {
        if ((text = PyUnicode_AsUTF8AndSize(x, &len)) != NULL) return put_bytes(self, e, E_STR, text, (uint64_t)len);
        PyErr_Clear();                                        /* lone surrogates */
    }
    return encode_pickled(self, x, e);
}

static void drop(View *self, struct elem *e) {
    uint64_t off = e->off;
    e->off = 0;
    if (off && !self->closed && !self->v.forked) heap_free(&self->v, off);
}

/* When a timer was due, as time.time() would have said. */
static PyObject *wall_time(const char *bytes) {
    int64_t due;
    struct timespec now;
    memcpy(&due, bytes, sizeof due);
    clock_gettime(CLOCK_REALTIME, &now);
    return PyFloat_FromDouble((double)now.tv_sec + (double)now.tv_nsec / 1e9 - (double)(nanotime() - due) / 1e9);
}

static PyObject *unpickle(PyObject *with, PyObject *data) {
    PyObject *x = data ? PyObject_CallFunctionObjArgs(with, data, NULL) : NULL;
    Py_XDECREF(data);
    return x;
}

static uint64_t message_objects(View *self, struct elem *e, const char **words) {
    if (!(e->kind & ELEM_OBJECTS)) return 0;
    return e->off ? block_objects(&self->v, e->off, e->len, words) : payload_objects(e->bytes, e->len, words);
}

/* What was received and nobody wants. */
static void discard(View *self, struct elem *e) {
    const char *words;
    uint64_t n = message_objects(self, e, &words);
    free_handles(handles_at(self, words, n), n);
    drop(self, e);
}

/* What was received; its block goes.  Runs Python code at its end only, when all is in our hands: the objects in the message,
 * which the core has made ours, get their Handles before anything can run, and keep them until it is unpickled. */
static PyObject *decode(View *self, struct elem *e) {
    const char *data = e->off ? at(&self->v, e->off) : e->bytes, *words;
    uint64_t n = message_objects(self, e, &words);
    PyObject *x = NULL, **handles = handles_at(self, words, n);
    long long i;
    double d;
    switch (e->kind & 0xffu) {
    case E_NONE: x = Py_NewRef(Py_None); break;
    case E_FALSE: x = Py_NewRef(Py_False); break;
    case E_TRUE: x = Py_NewRef(Py_True); break;
    case E_INT: memcpy(&i, data, sizeof i), x = PyLong_FromLongLong(i); break;
    case E_FLOAT: memcpy(&d, data, sizeof d), x = PyFloat_FromDouble(d); break;
    case E_BYTES: x = PyBytes_FromStringAndSize(data, (Py_ssize_t)e->len); break;
    case E_STR: x = PyUnicode_FromStringAndSize(data, (Py_ssize_t)e->len); break;
    case ELEM_TIME: x = wall_time(data); break;
    case E_BLOCK: x = payload(self, e->off, data, e->len); break;
    default: x = PyBytes_FromStringAndSize(data, (Py_ssize_t)e->len);
    }
    drop(self, e);
    uint32_t kind = e->kind & 0xffu;
    if (kind == E_PICKLE || kind == E_BLOCK) x = unpickle(self->codec[kind == E_PICKLE ? C_UNPICKLE : C_LOADS], x);
    free_handles(handles, n);
    return x;
}

/* ---------------------------------------------------------------- waits */
enum { AS_VALUE, AS_PAIR, AS_CASE };  /* what a receive returns: the value; and ok; and the number of the case before */

typedef struct {
    PyObject_HEAD
    View *view;
    int queued;                       /* the sudogs is[0 .. n), or one if there is no case, wait */
    int came;                         /* it has had an outcome, which may be None */
    int as;
    uint32_t n;
    uint64_t waiter;
    int64_t until;                    /* when a try is worth while anyway, ns; NO_TIME: never */
    struct scase *cases;
    uint32_t *is;
    PyObject **handles;               /* of their channels */
    struct scase one;
    uint32_t one_is;
    PyObject *one_handle;
} Wait;

static PyObject *closed_error(View *self, const char *text) {
    PyErr_SetString(self->codec[C_CLOSED], text);
    return NULL;
}

/* The value of a case that went, or that its channel is closed. */
static PyObject *outcome(View *self, struct scase *cases, uint32_t which, int how, int as) {
    struct scase *k = &cases[which];
    int ok = how == SELECT_DONE;
    PyObject *x;
    if (k->send && !ok) return closed_error(self, "send on a closed channel");
    if (!k->send && !ok && as == AS_VALUE) return closed_error(self, "receive from a closed channel");
    x = ok && !k->send ? decode(self, &k->elem) : Py_NewRef(Py_None);
    if (!x || as == AS_VALUE) return x;
    PyObject *o = ok ? Py_True : Py_False;
    return as == AS_PAIR ? Py_BuildValue("(NO)", x, o) : Py_BuildValue("(INO)", which, x, o);
}

/* What could not be made; the limit that is in the way. */
PyObject *no_object(View *self, const char *what, unsigned long long n) {
    struct pool *p = &self->v.seg->objects;
    PyObject *name = PyUnicode_FromFormat(what, n);
    if (!name) return NULL;
    uint64_t given_back = load_acq(&p->ring.tail) - load_acq(&p->ring.head);
    if (load_acq(&p->next) >= p->n && !given_back)
        PyErr_Format(PyExc_MemoryError, "there can be no more than %u channels, mutexes and the like in a runtime, which there are: no "
                     "room for %U (what nobody refers to any more is found within seconds)", p->n, name);
    else
        PyErr_Format(PyExc_MemoryError, "the runtime's shared memory, of %llu bytes, has no room for %U",
                     (unsigned long long)self->v.seg->heap.size, name);
    Py_DECREF(name);
    return NULL;
}

/* All records of waits are in use, or kept by processes that have freed them: a few each. */
PyObject *no_sudog(View *self) {
    return PyErr_Format(PyExc_MemoryError, "no more than %u cases and calls can wait at channels, mutexes and the like of a "
                        "runtime at once", self->v.seg->sudogs.n);
}

static PyObject *failed(View *self, int how) {
    if (how == SELECT_TIMER) return PyErr_Format(PyExc_TypeError, "the channel of a timer can only be received from");
    return no_sudog(self);
}

static void drop_sends(View *self, struct scase *cases, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (cases[i].send) drop(self, &cases[i].elem);
}

/* Before operations that may wake somebody. */
void on_thread(View *self) { self->v.on_main = self->main_thread == PyThread_get_thread_ident(); }

/* Who waits: the G that runs, if this is the M's main thread, else (0) the thread. */
uint64_t waiter_here(View *self) {
    on_thread(self);
    return self->v.on_main ? load_rlx(&self_m(&self->v)->curg) : 0;
}

static void Wait_dealloc(Wait *w) {
    PyTypeObject *type = Py_TYPE((PyObject *)w);
    View *self = w->view;
    uint32_t which;
    if (w->queued && !self->closed && !self->v.forked) {
        while (chan_wait_end(&self->v, w->cases, w->n, w->is, 1, &which) == SELECT_WAITS) sched_yield();
        if (which < w->n && !w->cases[which].send) discard(self, &w->cases[which].elem);
    }
    if (w->cases) drop_sends(self, w->cases, w->n);
    for (uint32_t i = 0; w->handles && i < w->n; i++) Py_XDECREF(w->handles[i]);
    if (w->n > 1) {
        free(w->cases);
        free(w->is);
        free(w->handles);
    }
    Py_DECREF((PyObject *)self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(w);
    Py_DECREF(type);
}

/* For so many cases, without any. */
static Wait *Wait_make(View *self, uint32_t n, int as) {
    allocfunc alloc = (allocfunc)PyType_GetSlot((PyTypeObject *)Wait_type, Py_tp_alloc);
    Wait *w = (Wait *)alloc((PyTypeObject *)Wait_type, 0);
    if (!w) return NULL;
    w->view = (View *)Py_NewRef((PyObject *)self);
    w->cases = &w->one, w->is = &w->one_is, w->handles = &w->one_handle;
    w->n = n, w->as = as;
    if (n > 1) {
        w->cases = calloc(n, sizeof *w->cases);
        w->is = calloc(n, sizeof *w->is);
        w->handles = calloc(n, sizeof *w->handles);
        if (!w->cases || !w->is || !w->handles) {
            Py_DECREF((PyObject *)w);
            PyErr_NoMemory();
            return NULL;
        }
    }
    return w;
}

/* Tries, and queues it if nothing goes.  Steals w: returns it, or the outcome. */
static PyObject *begin(View *self, Wait *w) {
    uint32_t which = 0;
    int how = chan_select(&self->v, w->cases, w->n, w->waiter, w->is, &which, &w->until);
    if (how == SELECT_WAITS) {
        w->queued = 1;
        return (PyObject *)w;
    }
    PyObject *x = how == SELECT_DONE || how == SELECT_CLOSED ? outcome(self, w->cases, which, how, w->as) : failed(self, how);
    Py_DECREF((PyObject *)w);
    return x;
}

/* give_up() -> False: it has come in this moment, and end() is to be called */
static PyObject *Wait_give_up(Wait *w, PyObject *none) {
    (void)none;
    CHECK(w->view);
    uint32_t which;
    if (!w->queued) Py_RETURN_TRUE;
    struct sudog *leader = sudog_at(&w->view->v, w->is[0]);
    if (atomic_load(&leader->done) != WAIT_PENDING) Py_RETURN_FALSE;
    if (chan_wait_end(&w->view->v, w->cases, w->n, w->is, 1, &which) == SELECT_WAITS) Py_RETURN_FALSE;
    w->queued = 0;
    Py_RETURN_TRUE;
}

/* end(last) -> the outcome; the Wait itself: it goes on; None, if this is the last time: nothing has come.  What has been given
 * up, or is worth a new try (`until`), is tried anew, and queued again unless this is the last time. */
static PyObject *Wait_end(Wait *w, PyObject *last) {
    View *self = w->view;
    CHECK(self);
    uint32_t which = 0;
    on_thread(self);
    if (w->queued) {
        int late = w->until != NO_TIME && nanotime() >= w->until;
        int how = chan_wait_end(&self->v, w->cases, w->n, w->is, last == Py_True || late, &which);
        if (how == SELECT_WAITS) return Py_NewRef((PyObject *)w);
        w->queued = 0;
        w->came = how != SELECT_BLOCKS;
        if (w->came) return outcome(self, w->cases, which, how, w->as);
    }
    uint64_t who = last == Py_True ? NO_WAITER : w->waiter;
    int how = chan_select(&self->v, w->cases, w->n, who, w->is, &which, &w->until);
    if (how == SELECT_BLOCKS) Py_RETURN_NONE;
    if (how == SELECT_NO_ROOM || how == SELECT_TIMER) return failed(self, how);
    w->came = how != SELECT_WAITS;
    if (w->came) return outcome(self, w->cases, which, how, w->as);
    w->queued = 1;
    return Py_NewRef((PyObject *)w);
}

static au32 *done_of(Wait *w) { return &sudog_at(&w->view->v, w->is[0])->done; }

/* sleep(spin_ns, timeout_ns): the calling thread, until it may have ended; without the GIL */
static PyObject *Wait_sleep(Wait *w, PyObject *const *a, Py_ssize_t n) {
    CHECK(w->view);
    if (n != 2) return PyErr_Format(PyExc_TypeError, "sleep takes 2 arguments");
    long long spin = PyLong_AsLongLong(a[0]), timeout = PyLong_AsLongLong(a[1]);
    int e = 0;
    if (PyErr_Occurred()) return NULL;
    if (!w->queued) Py_RETURN_NONE;
    au32 *done = done_of(w);
    Py_BEGIN_ALLOW_THREADS
    int64_t end = spin > 0 ? nanotime() + spin : 0;
    while (end && atomic_load(done) == WAIT_PENDING && nanotime() < end)
        for (int i = 0; i < 32; i++) procyield();
    if (atomic_load(done) == WAIT_PENDING && timeout > 0) e = futex_wait(done, WAIT_PENDING, timeout);
    Py_END_ALLOW_THREADS
    if (e == EINTR && PyErr_CheckSignals()) return NULL;
    Py_RETURN_NONE;
}

/* For gopark: whether it has ended; it needs no list of who waits. */
static PyObject *Wait_state(Wait *w, void *closure) {
    (void)closure;
    return PyBool_FromLong(!w->queued || w->view->closed || w->view->v.forked || atomic_load(done_of(w)) != WAIT_PENDING);
}
static PyObject *Wait_then(Wait *w, void *closure) {
    (void)w, (void)closure;
    Py_RETURN_NONE;
}
static PyObject *Wait_came(Wait *w, void *closure) {
    (void)closure;
    return PyBool_FromLong(w->came);
}
static PyObject *Wait_until(Wait *w, void *closure) {
    (void)closure;
    return PyLong_FromLongLong(w->until);
}

static PyMethodDef wait_methods[] = {
    {"end", (PyCFunction)Wait_end, METH_O, NULL}, {"give_up", (PyCFunction)Wait_give_up, METH_NOARGS, NULL},
    {"sleep", (PyCFunction)(void (*)(void))Wait_sleep, METH_FASTCALL, NULL}, {NULL, NULL, 0, NULL}};
static PyGetSetDef wait_getset[] = {{"_state", (getter)Wait_state, NULL, NULL, NULL},
                                    {"_then", (getter)Wait_then, NULL, NULL, NULL},
                                    {"came", (getter)Wait_came, NULL, NULL, NULL},
                                    {"until", (getter)Wait_until, NULL, NULL, NULL}, {NULL, NULL, NULL, NULL, NULL}};
static PyType_Slot wait_slots[] = {{Py_tp_dealloc, Wait_dealloc}, {Py_tp_methods, wait_methods},
                                   {Py_tp_getset, wait_getset}, {0, NULL}};
PyType_Spec wait_spec = {"dgmp._core.native.Wait", sizeof(Wait), 0,
                         Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, wait_slots};

/* ---------------------------------------------------------------- channels */

/* chan(capacity, due, period, closes_at) -> a Handle; see chan.h: ns, 0 no timer, < 0 never */
static PyObject *View_chan(View *self, PyObject *args) {
    CHECK(self);
    unsigned long long cap;
    long long due, period, closes_at;
    if (!PyArg_ParseTuple(args, "KLLL", &cap, &due, &period, &closes_at)) return NULL;
    struct chan *c = chan_make(&self->v, cap, due < 0 ? NO_TIME : due, period, closes_at < 0 ? NO_TIME : closes_at);
    if (!c)
        return no_object(self, "a channel of capacity %llu", cap);
    PyObject *h = Handle_make(self, c->body.word, 1);
    if (!h) object_drop(&self->v, c->body.word);
    return h;
}

static struct chan *chan_of(Handle *h) {
    if (!usable(h->view)) return NULL;
    if (!h->view->codec[0]) PyErr_SetString(PyExc_RuntimeError, "codec() comes first");
    return h->view->codec[0] ? (struct chan *)h->body : NULL;
}

/* One case at the channel.  NULL, or a Wait with it. */
static PyObject *one(Handle *h, uint64_t who, PyObject *value, int as, int *how) {
    View *self = h->view;
    struct chan *c = chan_of(h);
    struct scase k = {c, value != NULL, {0}};
    uint32_t which = 0;
    int64_t until;
    *how = SELECT_NO_ROOM;
    if (!c || (value && !encode(self, value, &k.elem))) return NULL;
    on_thread(self);
    *how = chan_select(&self->v, &k, 1, NO_WAITER, NULL, &which, &until);
    if (*how == SELECT_BLOCKS && who != NO_WAITER) {
        Wait *w = Wait_make(self, 1, as);
        if (w) {
            w->one = k, w->waiter = who, w->one_handle = Py_NewRef((PyObject *)h);
            return begin(self, w);
        }
    }
    PyObject *x = *how == SELECT_DONE || *how == SELECT_CLOSED ? outcome(self, &k, 0, *how, as) :
                  *how == SELECT_BLOCKS && who == NO_WAITER ? Py_NewRef(Py_None) : PyErr_Occurred() ? NULL : failed(self, *how);
    if (value) drop(self, &k.elem);
    return x;
}

/* send(value) -> None, or a Wait; recv() -> the value, or a Wait; recv_ok() -> (value, ok), or a Wait */
static PyObject *Handle_send(Handle *h, PyObject *value) {
    int how;
    return one(h, waiter_here(h->view), value, AS_VALUE, &how);
}
static PyObject *Handle_recv(Handle *h, PyObject *none) {
    (void)none;
    int how;
    return one(h, waiter_here(h->view), NULL, AS_VALUE, &how);
}
static PyObject *Handle_recv_ok(Handle *h, PyObject *none) {
    (void)none;
    int how;
    return one(h, waiter_here(h->view), NULL, AS_PAIR, &how);
}

/* try_send(value) -> whether it went; try_recv() -> (value, whether there was one) */
static PyObject *Handle_try_send(Handle *h, PyObject *value) {
    int how;
    PyObject *x = one(h, NO_WAITER, value, AS_VALUE, &how);
    if (!x) return NULL;
    Py_DECREF(x);
    return PyBool_FromLong(how == SELECT_DONE);
}
static PyObject *Handle_try_recv(Handle *h, PyObject *none) {
    (void)none;
    int how;
    PyObject *x = one(h, NO_WAITER, NULL, AS_VALUE, &how);
    return x ? Py_BuildValue("(NO)", x, how == SELECT_DONE ? Py_True : Py_False) : NULL;
}

static PyObject *Handle_close(Handle *h, PyObject *none) {
    (void)none;
    struct chan *c = chan_of(h);
    if (!c) return NULL;
    on_thread(h->view);
    int closed = chan_close(&h->view->v, c);
    if (closed < 0) return failed(h->view, SELECT_TIMER);
    if (!closed) return closed_error(h->view, "close of a closed channel");
    Py_RETURN_NONE;
}

static PyObject *Handle_closed(Handle *h, PyObject *none) {
    (void)none;
    on_thread(h->view);
    struct chan *c = chan_of(h);
    return c ? PyBool_FromLong(chan_closed(&h->view->v, c)) : NULL;
}

/* peek() -> the first message in the buffer, which stays there; None if there is none, or it is not bytes */
static PyObject *Handle_peek(Handle *h, PyObject *none) {
    (void)none;
    struct chan *c = chan_of(h);
    uint32_t kind;
    if (!c) return NULL;
    uint64_t len = chan_peek(&h->view->v, c, NULL, 0, &kind);
    if (kind != E_BYTES) Py_RETURN_NONE;
    char *copy = malloc(len + 1);
    if (!copy) return PyErr_NoMemory();
    len = chan_peek(&h->view->v, c, copy, len, &kind);
    PyObject *data = kind == E_BYTES ? PyBytes_FromStringAndSize(copy, (Py_ssize_t)len) : Py_NewRef(Py_None);
    free(copy);
    return data;
}

/* escape(): it is about to be pickled */
static PyObject *Handle_escape(Handle *h, PyObject *none) {
    (void)none;
    CHECK(h->view);
    object_escape(&h->view->v, h->word);
    Py_RETURN_NONE;
}

static PyObject *Handle_word(Handle *h, void *what) {
    if (!what) return PyLong_FromUnsignedLongLong(h->word);
    struct chan *c = chan_of(h);
    if (!c) return NULL;
    return PyLong_FromUnsignedLongLong(what == (void *)1 ? chan_len(c) : c->cap);
}

/* select(cases, block) -> (i, value, ok), or a Wait, or None: nothing goes now; a case is (Handle,), which receives, or
 * (Handle, value) */
static PyObject *View_select(View *self, PyObject *const *a, Py_ssize_t nargs) {
    CHECK(self);
    if (nargs != 2) return PyErr_Format(PyExc_TypeError, "select takes 2 arguments");
    Py_ssize_t n = PyTuple_Size(a[0]);
    if (n < 0) return NULL;
    if (n > (Py_ssize_t)MOST_CASES) return PyErr_Format(PyExc_ValueError, "select takes at most %d cases", MOST_CASES);
    Wait *w = Wait_make(self, (uint32_t)n, AS_CASE);
    for (Py_ssize_t i = 0; w && i < n; i++) {
        PyObject *k = PyTuple_GetItem(a[0], i);
        Handle *h = k && PyTuple_Check(k) ? (Handle *)PyTuple_GetItem(k, 0) : NULL;
        if (!h || Py_TYPE((PyObject *)h) != (PyTypeObject *)Handle_type || h->view != self) {
            if (!PyErr_Occurred()) PyErr_Format(PyExc_ValueError, "the channels of a select belong to different runtimes");
            Py_CLEAR(w);
            break;
        }
        struct scase *c = &w->cases[i];
        w->handles[i] = Py_NewRef((PyObject *)h);
        c->c = (struct chan *)h->body;
        if (PyTuple_Size(k) < 2) continue;
        if (c->c->due) failed(self, SELECT_TIMER);
        else if (encode(self, PyTuple_GetItem(k, 1), &c->elem)) c->send = 1;
        if (!c->send) Py_CLEAR(w);
    }
    if (!w) return NULL;
    w->waiter = waiter_here(self);
    if (a[1] == Py_True) return begin(self, w);
    uint32_t which = 0;
    int how = chan_select(&self->v, w->cases, w->n, NO_WAITER, w->is, &which, &w->until);
    PyObject *x = how == SELECT_BLOCKS ? Py_NewRef(Py_None) :
                  how == SELECT_DONE || how == SELECT_CLOSED ? outcome(self, w->cases, which, how, AS_CASE) : failed(self, how);
    Py_DECREF((PyObject *)w);
    return x;
}

/* main_is_here(): the calling thread is the one on which this M's Gs run */
static PyObject *View_main_is_here(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    self->main_thread = PyThread_get_thread_ident();
    Py_RETURN_NONE;
}

static PyMethodDef handle_methods[] = {
    {"send", (PyCFunction)Handle_send, METH_O, NULL}, {"recv", (PyCFunction)Handle_recv, METH_NOARGS, NULL},
    {"recv_ok", (PyCFunction)Handle_recv_ok, METH_NOARGS, NULL}, {"try_send", (PyCFunction)Handle_try_send, METH_O, NULL},
    {"try_recv", (PyCFunction)Handle_try_recv, METH_NOARGS, NULL}, {"close", (PyCFunction)Handle_close, METH_NOARGS, NULL},
    {"closed", (PyCFunction)Handle_closed, METH_NOARGS, NULL}, {"escape", (PyCFunction)Handle_escape, METH_NOARGS, NULL},
    {"peek", (PyCFunction)Handle_peek, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL}};
static PyGetSetDef handle_getset[] = {{"word", (getter)Handle_word, NULL, NULL, NULL},
                                      {"len", (getter)Handle_word, NULL, NULL, (void *)1},
                                      {"cap", (getter)Handle_word, NULL, NULL, (void *)2}, {NULL, NULL, NULL, NULL, NULL}};
static PyType_Slot handle_slots[] = {{Py_tp_dealloc, Handle_dealloc}, {Py_tp_methods, handle_methods},
                                     {Py_tp_getset, handle_getset}, {0, NULL}};
PyType_Spec handle_spec = {"dgmp._core.native.Handle", sizeof(Handle), 0,
                           Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, handle_slots};

PyMethodDef chan_methods[] = {
    ONE(handle), NOARGS(trace), NOARGS(orphans), NOARGS(objects), FAST(codec), ARGS(chan), FAST(select), NOARGS(main_is_here),
    {NULL, NULL, 0, NULL}};
