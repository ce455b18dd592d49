/* module.c: the module and the type View; see binding.h. */
#include "binding.h"
#include "retake.h"
#include "sema.h"
#include "stw.h"
#include "sysmon.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

PyObject *names[NNAMES], *finished, *Block_type;
static const char *const texts[NNAMES] = {"word", "_kind", "_data", "_state", "_then"};

static View *views;                   /* all of this process, for the fork handler; under the GIL */

static void in_forked_child(void) {
    for (View *s = views; s; s = s->next) s->v.forked = 1;
}

int usable(View *self) {
    if (!self->closed && !self->v.forked) return 1;
    if (self->v.forked)
        PyErr_SetString(PyExc_RuntimeError, "this process was forked from a dgmp process and is no member of its runtime; "
                                            "start one of its own with dgmp.Runtime()");
    else
        PyErr_SetObject(self->closed_type, self->closed_text);
    return 0;
}

/* May move the table. */
struct slot *slot_of(View *self, uint32_t index) {
    if (index >= self->nslots) {
        uint32_t n = self->nslots ? self->nslots : 1024;
        while (n <= index) n *= 2;
        struct slot *grown = realloc(self->slots, n * sizeof *grown);
        if (!grown) return NULL;
        memset(grown + self->nslots, 0, (n - self->nslots) * sizeof *grown);
        self->slots = grown, self->nslots = n;
    }
    return &self->slots[index];
}

/* Out of user code into the scheduler, with our P, if that is still ours; waits while the world is stopped. */
int take_back_p(View *self) {
    int got;
    while ((got = exitsyscallfast(&self->v)) == P_FROZEN) {
        Py_BEGIN_ALLOW_THREADS
        gcstopm(&self->v);
        Py_END_ALLOW_THREADS
    }
    return got == P_HELD;
}

struct p *own_p(View *self) {
    if (take_back_p(self)) return &self->v.allp[load_rlx(&self_m(&self->v)->p) - 1];
    PyErr_SetString(PyExc_RuntimeError, "this M holds no P");
    return NULL;
}

PyObject *word_or_none(uint64_t w) {
    if (w) return PyLong_FromUnsignedLongLong(w);
    Py_RETURN_NONE;
}

/* ---------------------------------------------------------------- making and mapping */
static PyObject *create(PyObject *mod, PyObject *args, PyObject *kw) {
    (void)mod;
    static char *names[] = {"nprocs", "max_ms", "nclients", "nslots", "heap_size", NULL};
    struct config c;
    unsigned long long heap;
    int fd;
    if (!PyArg_ParseTupleAndKeywords(args, kw, "IIIIK", names, &c.nprocs, &c.max_ms, &c.nclients, &c.nslots, &heap))
        return NULL;
    c.heap_size = heap;
    int e = segment_create(&c, &fd);
    if (e) {
        errno = e;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyLong_FromLong(fd);
}

static PyObject *View_new(PyTypeObject *type, PyObject *args, PyObject *kw) {
    static char *names[] = {"fd", "self", "coordinator_fd", "sysmon_fd", NULL};
    int fd, cfd = -1, sfd = -1;
    unsigned int me;
    const char *why;
    if (!PyArg_ParseTupleAndKeywords(args, kw, "iI|ii", names, &fd, &me, &cfd, &sfd)) return NULL;
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    View *self = (View *)alloc(type, 0);
    if (!self) return NULL;
    int e = segment_map(fd, &self->v, me, &why);
    if (e) {
        if (why) PyErr_SetString(PyExc_ValueError, why);
        else {
            errno = e;
            PyErr_SetFromErrno(PyExc_OSError);
        }
        Py_DECREF(self);
        return NULL;
    }
    self->v.coordinator_fd = cfd, self->v.sysmon_fd = sfd;
    self->world.notify = self->kept = -1;
    self->next = views;
    views = self;
    self->blocks = PyDict_New();                              /* later it might run the garbage collector, and so Python */
    self->handles = PyDict_New();
    if (!self->blocks || !self->handles) Py_CLEAR(self);
    return (PyObject *)self;
}

/* Those of ours that have not finished, as a list. */
PyObject *pending_futures(View *self) {
    PyObject *out = PyList_New(0);
    for (uint32_t i = 0; out && i < self->nslots; i++)
        if (self->slots[i].future && PyList_Append(out, self->slots[i].future)) Py_CLEAR(out);
    return out;
}

void drop_futures(View *self) {
    struct slot *slots = self->slots;
    uint32_t n = self->nslots;
    self->slots = NULL, self->nslots = 0;
    for (uint32_t i = 0; i < n; i++) Py_CLEAR(slots[i].future);
    free(slots);
}

static void View_dealloc(View *self) {
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    for (View **s = &views; *s; s = &(*s)->next)
        if (*s == self) {
            *s = self->next;
            break;
        }
    netpollclose(self->poll);
    drop_futures(self);
    Py_XDECREF(self->closed_type);
    Py_XDECREF(self->closed_text);
    if (self->sysmon) sysmon_free(self->sysmon);
    free(self->sysmon);
    watched_clear(&self->seen);
    watched_clear(&self->told);
    world_free(&self->world);
    Py_XDECREF(self->ready);
    Py_XDECREF(self->yielded);
    Py_XDECREF(self->watched);
    Py_XDECREF(self->mark);
    Py_XDECREF(self->act);
    Py_XDECREF(self->tell);
    Py_XDECREF(self->blocks);
    forget_sites(self);
    Py_XDECREF(self->handles);
    for (int i = 0; i < NCODEC; i++) Py_XDECREF(self->codec[i]);
    segment_unmap(&self->v);
    if (self->kept >= 0) close(self->kept);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

/* close(error) -> the Futures of ours that have not finished.  Every later call raises one like error (not itself: its traceback
 * may lead back to us).  The mapping goes with the object: a thread may still sleep in it. */
static PyObject *View_close(View *self, PyObject *error) {
    PyObject *pending = pending_futures(self);
    if (!pending) return NULL;
    if (!self->closed) {
        self->closed_text = PyObject_Str(error);
        if (!self->closed_text) {
            Py_DECREF(pending);
            return NULL;
        }
        self->closed_type = Py_NewRef((PyObject *)Py_TYPE(error));
        if (!self->v.forked) inbox_kick(&self->v, self->v.self);
    }
    self->closed = 1;
    netpollclose(self->poll);
    self->poll = NULL;
    Py_CLEAR(self->act);
    Py_CLEAR(self->tell);
    Py_CLEAR(self->codec[C_ENCODE]);                          /* a node's, which refers to us */
    forget_sites(self);
    if (!self->v.forked) drop_futures(self);
    return pending;
}

/* keep(fd) -> whether something in our mapping is read in place, even if we are closed: then the descriptor is ours from here
 * on, and closed when nothing is. */
static PyObject *View_keep(View *self, PyObject *arg) {
    long fd = PyLong_AsLong(arg);
    if (PyErr_Occurred()) return NULL;
    int reads = PyDict_Size(self->blocks) > 0 && self->kept < 0;
    if (reads) self->kept = (int)fd;
    return PyBool_FromLong(reads);
}

static PyObject *View_get(View *self, void *what) {
    CHECK(self);
    struct view *v = &self->v;
    struct m *m = self_m(v);
    switch ((intptr_t)what) {
    case 0: return PyLong_FromUnsignedLong(v->seg->nprocs);
    case 1: return PyLong_FromUnsignedLong(v->seg->nps);
    case 2: return PyLong_FromUnsignedLong(v->seg->max_ms);
    case 3: return PyLong_FromLong((long)holds_p(v, v->self) - 1);
    case 4: return PyLong_FromUnsignedLong(v->self);
    case 5: return PyLong_FromUnsignedLong(v->seg->nslots);
    case 6: return PyLong_FromUnsignedLongLong(v->seg->runtime_id);
    case 7: return PyLong_FromUnsignedLong(npidle(v));
    case 8: return PyLong_FromUnsignedLongLong(self->outstanding);
    case 11: return PyLong_FromUnsignedLongLong(self->bytes_out);
    case 13: return PyLong_FromUnsignedLongLong(self->blocks_out);
    case 12: return PyLong_FromUnsignedLongLong(v->seg->heap.size);
    case 10: return PyLong_FromLong((long)load_acq(&m->bound) - 1);
    case 14: return PyLong_FromUnsignedLongLong(atomic_load(&v->seg->sched.outputs));
    case 15: return PyLong_FromUnsignedLong(MAX_PS);
    case 16: return PyLong_FromUnsignedLongLong(self->tick);
    case 17: return PyBool_FromLong(retiring(self));
    default: return PyBool_FromLong(self->woke);
    }
}

PyMethodDef own_methods[] = {
    ONE(close), ONE(keep), {NULL, NULL, 0, NULL}};

/* All of a View's methods, in one table. */
static PyMethodDef *all_methods(void) {
    static PyMethodDef all[256];
    PyMethodDef *tables[] = {own_methods, payload_methods, world_methods, spawn_methods, sched_methods,
                             syscall_methods, sysmon_methods, observe_methods, lock_view_methods, steps_view_methods,
                             netpoll_methods, chan_methods, sema_methods, coordinator_methods};
    size_t n = 0;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        for (PyMethodDef *m = tables[i]; m->ml_name && n < sizeof all / sizeof *all - 1; m++) all[n++] = *m;
    return all;
}

#define GET(name, i) {name, (getter)View_get, NULL, NULL, (void *)(intptr_t)(i)}
static PyGetSetDef getset[] = {GET("nprocs", 0), GET("nps", 1), GET("max_ms", 2), GET("p", 3), GET("id", 4), GET("nslots", 5),
                               GET("runtime_id", 6), GET("npidle", 7), GET("outstanding", 8),
                               GET("woke", 9), GET("bound", 10), GET("bytes_out", 11), GET("heap_size", 12), GET("blocks_out", 13), GET("outputs", 14),
                               GET("max_ps", 15), GET("tick", 16), GET("retiring", 17), {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot slots[] = {{Py_tp_new, View_new},
                              {Py_tp_dealloc, View_dealloc},
                              {Py_tp_methods, NULL},
                              {Py_tp_getset, getset},
                              {0, NULL}};
static PyType_Spec spec = {"dgmp._core.native.View", sizeof(View), 0, Py_TPFLAGS_DEFAULT, slots};

/* become_subreaper(): orphans below this process become its children. */
static PyObject *become_subreaper(PyObject *mod, PyObject *none) {
    (void)mod, (void)none;
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)) return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

/* when_parent_dies(signal): this process gets it when the thread that is its parent ends. */
static PyObject *when_parent_dies(PyObject *mod, PyObject *arg) {
    (void)mod;
    unsigned long number = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred()) return NULL;
    if (prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)) return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

/* receive(fd, packets): the packets that lie in the socket now are appended to the list, all of them or until an error; no
 * more, as their senders may be as fast as we are.  OSError: it is closed. */
static PyObject *receive(PyObject *mod, PyObject *const *a, Py_ssize_t n) {
    (void)mod;
    static char packet[1 << 16];      /* under the GIL */
    if (n != 2) return PyErr_Format(PyExc_TypeError, "receive takes 2 arguments");
    int fd = (int)PyLong_AsLong(a[0]), left;
    if (PyErr_Occurred()) return NULL;
    if (ioctl(fd, FIONREAD, &left)) return PyErr_SetFromErrno(PyExc_OSError);
    while (left > 0) {
        ssize_t len = recv(fd, packet, sizeof packet, MSG_DONTWAIT);
        if (len < 0 && errno == EINTR) continue;
        if (len <= 0) break;
        left -= (int)len;
        PyObject *data = PyBytes_FromStringAndSize(packet, len);
        int e = !data || PyList_Append(a[1], data);
        Py_XDECREF(data);
        if (e) return NULL;
    }
    Py_RETURN_NONE;
}

/* alarm() -> a timerfd for sysmon */
static PyObject *make_alarm(PyObject *mod, PyObject *none) {
    (void)mod, (void)none;
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    return fd < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(fd);
}

/* inotify() -> a descriptor without watches, not to be waited for */
static PyObject *make_inotify(PyObject *mod, PyObject *none) {
    (void)mod, (void)none;
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    return fd < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(fd);
}

/* inotify_watch(fd, path, mask) -> the watch's number */
static PyObject *inotify_watch(PyObject *mod, PyObject *args) {
    (void)mod;
    int fd;
    unsigned int mask;
    PyObject *path;
    if (!PyArg_ParseTuple(args, "iO&I", &fd, PyUnicode_FSConverter, &path, &mask)) return NULL;
    int watch = inotify_add_watch(fd, PyBytes_AsString(path), mask);
    if (watch < 0) PyErr_SetFromErrno(PyExc_OSError);
    Py_DECREF(path);
    return watch < 0 ? NULL : PyLong_FromLong(watch);
}

static PyMethodDef functions[] = {{"allocate_lock", allocate_lock, METH_NOARGS, NULL},
                                  {"lock_owner", lock_owner, METH_NOARGS, NULL},
                                  {"stack_address", stack_address, METH_NOARGS, NULL},
                                  {"send_self", send_self, METH_O, NULL},
                                  {"execute", execute, METH_VARARGS, NULL},
                                  {"reap", reap, METH_O, NULL},
                                  {"signal_fd", signal_fd, METH_VARARGS, NULL},
                                  {"read_signal", read_signal, METH_O, NULL},
                                  {"alarm", make_alarm, METH_NOARGS, NULL},
                                  {"inotify", make_inotify, METH_NOARGS, NULL},
                                  {"inotify_watch", inotify_watch, METH_VARARGS, NULL},
                                  {"receive", (PyCFunction)(void (*)(void))receive, METH_FASTCALL, NULL},
                                  {"become_subreaper", become_subreaper, METH_NOARGS, NULL},
                                  {"when_parent_dies", when_parent_dies, METH_O, NULL},
                                  {"create", (PyCFunction)(void (*)(void))create, METH_VARARGS | METH_KEYWORDS, NULL},
                                  {NULL, NULL, 0, NULL}};
static struct PyModuleDef def = {PyModuleDef_HEAD_INIT, "native", "The C11 core of dgmp.", -1, functions,
                                 NULL, NULL, NULL, NULL};

/* Their names, as a tuple; of an ordinary build: (). */
static PyObject *killpoints(void) {
    Py_ssize_t n = 0;
    while (killpoint_names[n]) n++;
    PyObject *out = PyTuple_New(n);
    for (Py_ssize_t i = 0; out && i < n; i++) {
        PyObject *name = PyUnicode_FromString(killpoint_names[i]);
        if (!name || PyTuple_SetItem(out, i, name)) Py_CLEAR(out);
    }
    return out;
}

PyMODINIT_FUNC PyInit_native(void) {
    static int registered;
    for (int i = 0; i < NNAMES; i++)
        if (!names[i] && !(names[i] = PyUnicode_InternFromString(texts[i]))) return NULL;
    for (PyType_Slot *s = slots; s->slot; s++)
        if (s->slot == Py_tp_methods) s->pfunc = all_methods();
    if (!names_of_world()) return NULL;
    if (!finished && !(finished = PyLong_FromLong(1))) return NULL;
    PyObject *mod = PyModule_Create(&def), *type = mod ? PyType_FromSpec(&spec) : NULL;
    if (type && !Block_type) Block_type = PyType_FromSpec(&block_spec);
    if (type && !Handle_type) Handle_type = PyType_FromSpec(&handle_spec);
    if (type && !Wait_type) Wait_type = PyType_FromSpec(&wait_spec);
    if (!type || !Block_type || !Handle_type || !Wait_type || PyModule_AddObject(mod, "View", type) || add_lock_types(mod) ||
        PyModule_AddObject(mod, "Handle", Py_NewRef(Handle_type)) ||
        PyModule_AddObject(mod, "Wait", Py_NewRef(Wait_type)) ||
        PyModule_AddObject(mod, "Spawners", PyType_FromSpec(&spawners_spec)) ||
        PyModule_AddObject(mod, "KILLPOINTS", killpoints()) ||
        PyModule_AddIntConstant(mod, "OBJECTS_MAGIC", (long)OBJECTS_MAGIC) ||
        PyModule_AddObject(mod, "Block", Py_NewRef(Block_type)) ||
        PyModule_AddIntConstant(mod, "RESULT_VALUE", RESULT_VALUE) ||
        PyModule_AddIntConstant(mod, "RESULT_ERROR", RESULT_ERROR) ||
        PyModule_AddIntConstant(mod, "RESULT_WORKER_DIED", RESULT_WORKER_DIED) ||
        PyModule_AddIntConstant(mod, "RESULT_NO_MEMORY", RESULT_NO_MEMORY) ||
        PyModule_AddIntConstant(mod, "RESULT_NONE", RESULT_NONE) ||
        PyModule_AddIntConstant(mod, "RESULT_CANCELLED", RESULT_CANCELLED) ||
        PyModule_AddIntConstant(mod, "WHY_NONE", WHY_NONE) || PyModule_AddIntConstant(mod, "WHY_GOSCHED", WHY_GOSCHED) ||
        PyModule_AddIntConstant(mod, "WHY_FUTURE", WHY_FUTURE) ||
        PyModule_AddIntConstant(mod, "WHY_CHAN_RECV", WHY_CHAN_RECV) ||
        PyModule_AddIntConstant(mod, "WHY_CHAN_SEND", WHY_CHAN_SEND) ||
        PyModule_AddIntConstant(mod, "WHY_SELECT", WHY_SELECT) || PyModule_AddIntConstant(mod, "WHY_SEMA", WHY_SEMA) ||
        PyModule_AddIntConstant(mod, "WHY_SLEEP", WHY_SLEEP) || PyModule_AddIntConstant(mod, "WHY_IO", WHY_IO) ||
        PyModule_AddIntConstant(mod, "WHY_LOCK", WHY_LOCK) ||
        PyModule_AddIntConstant(mod, "WHY_PREEMPTED", WHY_PREEMPTED) ||
        PyModule_AddIntConstant(mod, "WHY_OTHER", WHY_OTHER) ||
        PyModule_AddIntConstant(mod, "POLL_WAITING", POLL_WAITING) ||
        PyModule_AddIntConstant(mod, "POLL_READY", POLL_READY) || PyModule_AddIntConstant(mod, "POLL_GONE", POLL_GONE) ||
        PyModule_AddIntConstant(mod, "SEMA_DONE", SEMA_DONE) || PyModule_AddIntConstant(mod, "SEMA_DIED", SEMA_DIED) ||
        PyModule_AddIntConstant(mod, "SEMA_BLOCKS", SEMA_BLOCKS) ||
        PyModule_AddIntConstant(mod, "KIND_M", KIND_M) || PyModule_AddIntConstant(mod, "KIND_CLIENT", KIND_CLIENT)) {
        Py_XDECREF(mod);
        return NULL;
    }
    if (!registered) {
        registered = 1;
        pthread_atfork(NULL, NULL, in_forked_child);
    }
    return mod;
}
