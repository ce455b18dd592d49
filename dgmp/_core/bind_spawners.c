/* bind_spawners.c: Spawners, which start the next command as one ends (spawners.c; dgmp.jobs.spawners).
 *
 * What a command needs is copied into one block of memory, so that it can be begun without the GIL. */
#include "binding.h"
#include "spawners.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { AT_ONCE = 32, NUMBER = 12 };

typedef struct {
    PyObject_HEAD
    struct spawners s;
    int open;
    PyObject *environment, *of_slot;  /* tuples of bytes: what all commands have; NAME= of what is the slot */
    int ignore_terminal, nice, death_signal;
    rlim_t nofile;
} Spawners;

struct command {
    struct job job;
    char **slots;                     /* the last ones of its environment: NAME=, of what is the slot */
    char *texts[];                    /* argv, NULL, environment, NULL; then the texts themselves */
};

static void enter(struct job *job) {
    for (char **variable = ((struct command *)job)->slots; *variable; variable++)
        snprintf(strchr(*variable, '=') + 1, NUMBER, "%u", job->slot);
}

static void drop(struct job *job) {
    Py_XDECREF((PyObject *)job->about);
    free(job);
}

static void drop_all(struct job *job) {
    for (struct job *next; job; job = next) {
        next = job->next;
        drop(job);
    }
}

/* Spawners(threads, slots, environment, of_slot, nice, death_signal, ignore_terminal, nofile): environment and of_slot are
 * tuples of bytes, of_slot of b"NAME=" whose value is the slot.  The handlers of signals stay as they are now. */
static PyObject *Spawners_new(PyTypeObject *type, PyObject *args, PyObject *kw) {
    unsigned int threads, slots;
    PyObject *environment, *of_slot;
    int nice, death_signal, ignore_terminal;
    unsigned long long nofile;
    (void)kw;
    if (!PyArg_ParseTuple(args, "IIO!O!iipK", &threads, &slots, &PyTuple_Type, &environment, &PyTuple_Type, &of_slot, &nice,
                          &death_signal, &ignore_terminal, &nofile))
        return NULL;
    Spawners *self = (Spawners *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (!self) return NULL;
    self->environment = Py_NewRef(environment), self->of_slot = Py_NewRef(of_slot);
    self->nice = nice, self->death_signal = death_signal;
    self->ignore_terminal = ignore_terminal, self->nofile = (rlim_t)nofile;
    int e = spawners_open(&self->s, threads, slots);
    self->open = !e;
    if (!e) return (PyObject *)self;
    errno = e;
    Py_DECREF(self);
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *Spawners_close(Spawners *self, PyObject *none) {
    (void)none;
    struct job *left = NULL;
    if (self->open) {
        self->open = 0;
        Py_BEGIN_ALLOW_THREADS
        left = spawners_close(&self->s);
        Py_END_ALLOW_THREADS
    }
    drop_all(left);
    Py_RETURN_NONE;
}

static void Spawners_dealloc(Spawners *self) {
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    Py_XDECREF(Spawners_close(self, NULL));
    Py_XDECREF(self->environment);
    Py_XDECREF(self->of_slot);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static int usable_spawners(Spawners *self) {
    if (!self->open) PyErr_SetString(PyExc_ValueError, "these spawners are closed");
    return self->open;
}
#define OPEN(self) do { if (!usable_spawners(self)) return NULL; } while (0)

/* The items of argv and of variables as bytes, in one list; then the path and the folder, which may be None. */
static PyObject *encoded(PyObject *argv, PyObject *variables, PyObject *path, PyObject *cwd) {
    PyObject *all = PyList_New(0), *from[] = {argv, variables};
    for (int i = 0; all && i < 2; i++) {
        Py_ssize_t n = PySequence_Size(from[i]);
        for (Py_ssize_t k = 0; all && k < n; k++) {
            PyObject *item = PySequence_GetItem(from[i], k), *bytes = NULL;
            if (!item || !PyUnicode_FSConverter(item, &bytes) || PyList_Append(all, bytes)) Py_CLEAR(all);
            Py_XDECREF(item);
            Py_XDECREF(bytes);
        }
        if (n < 0) Py_CLEAR(all);
    }
    PyObject *last[] = {path, cwd};
    for (int i = 0; all && i < 2; i++) {
        PyObject *bytes = NULL;
        if (last[i] == Py_None) continue;
        if (!PyUnicode_FSConverter(last[i], &bytes) || PyList_Append(all, bytes)) Py_CLEAR(all);
        Py_XDECREF(bytes);
    }
    return all;
}

static char *copy(char **to, PyObject *bytes) {
    size_t n = (size_t)PyBytes_Size(bytes) + 1;
    char *at = memcpy(*to, PyBytes_AsString(bytes), n);
    *to += n;
    return at;
}

/* put(about, path, argv, variables, cwd, stdin, stdout, stderr): prepares a command; its descriptors stay open until it has been
 * reported, or taken back. */
static PyObject *Spawners_put(Spawners *self, PyObject *args) {
    OPEN(self);
    PyObject *about, *path, *argv, *variables, *cwd;
    int fds[3];
    if (!PyArg_ParseTuple(args, "OOOOOiii", &about, &path, &argv, &variables, &cwd, &fds[0], &fds[1], &fds[2])) return NULL;
    PyObject *all = encoded(argv, variables, path, cwd);
    if (!all) return NULL;
    size_t nargs = (size_t)PySequence_Size(argv), nown = (size_t)PySequence_Size(variables);
    size_t ncommon = (size_t)PyTuple_Size(self->environment), nslot = (size_t)PyTuple_Size(self->of_slot);
    size_t npointers = nargs + 1 + ncommon + nown + nslot + 1, bytes = nslot * (NUMBER + 1);
    for (Py_ssize_t i = 0, n = PyList_Size(all); i < n; i++) bytes += (size_t)PyBytes_Size(PyList_GetItem(all, i)) + 1;
    for (size_t i = 0; i < nslot; i++) bytes += (size_t)PyBytes_Size(PyTuple_GetItem(self->of_slot, (Py_ssize_t)i));
    struct command *c = calloc(1, sizeof *c + npointers * sizeof *c->texts + bytes);
    if (!c) {
        Py_DECREF(all);
        return PyErr_NoMemory();
    }
    char **envp = c->texts + nargs + 1, *to = (char *)(c->texts + npointers);
    Py_ssize_t next = 0;
    for (size_t i = 0; i < nargs; i++) c->texts[i] = copy(&to, PyList_GetItem(all, next++));
    c->job.spawn = (struct spawn){.argv = c->texts, .envp = envp, .fds = {fds[0], fds[1], fds[2]}, .nice = self->nice,
        .death_signal = self->death_signal, .ignore_terminal = self->ignore_terminal, .nofile = self->nofile};
    for (size_t i = 0; i < ncommon; i++) *envp++ = PyBytes_AsString(PyTuple_GetItem(self->environment, (Py_ssize_t)i));
    for (size_t i = 0; i < nown; i++) *envp++ = copy(&to, PyList_GetItem(all, next++));
    c->slots = envp;
    for (size_t i = 0; i < nslot; i++, to += NUMBER) *envp++ = copy(&to, PyTuple_GetItem(self->of_slot, (Py_ssize_t)i));
    c->job.spawn.path = copy(&to, PyList_GetItem(all, next++));
    if (cwd != Py_None) c->job.spawn.cwd = copy(&to, PyList_GetItem(all, next));
    c->job.about = Py_NewRef(about), c->job.enter = enter;
    spawners_put(&self->s, &c->job);
    Py_DECREF(all);
    Py_RETURN_NONE;
}

/* start(slot) -> whether the oldest one could be started in this slot, here and now */
static PyObject *Spawners_start(Spawners *self, PyObject *arg) {
    OPEN(self);
    unsigned long slot = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred()) return NULL;
    if (slot < 1 || slot > self->s.nslots) return PyErr_Format(PyExc_ValueError, "no slot %lu", slot);
    int started;
    Py_BEGIN_ALLOW_THREADS
    started = spawners_start(&self->s, (unsigned)slot);
    Py_END_ALLOW_THREADS
    return PyBool_FromLong(started);
}

/* about, slot, pid, pidfd, started, begun, elsewhere, ended; a pid of 0 where the start had been reported before, ended 0.0
 * where it runs. */
static PyObject *told_of(const struct report *r) {
    const struct job *job = &r->job;
    return Py_BuildValue("(OIiiddid)", (PyObject *)job->about, job->slot, r->has_started ? (int)job->spawn.pid : 0,
                         job->spawn.pidfd, job->started, job->begun, job->elsewhere, job->ended);
}

/* reports() -> what has happened since, in its order, as told_of() tells it */
static PyObject *Spawners_reports(Spawners *self, PyObject *none) {
    (void)none;
    OPEN(self);
    struct report found[AT_ONCE];
    PyObject *out = PyList_New(0);
    for (int n = AT_ONCE; out && n == AT_ONCE;) {
        n = spawners_reports(&self->s, found, AT_ONCE);
        for (int i = 0; i < n; i++) {
            PyObject *one = out ? told_of(&found[i]) : NULL;
            if (!one || PyList_Append(out, one)) Py_CLEAR(out);
            Py_XDECREF(one);
            if (found[i].ended) drop(found[i].ended);
        }
    }
    return out;
}

/* take_back() -> what has been put and has not started, in its order.  Nothing starts any more until the next put(). */
static PyObject *Spawners_take_back(Spawners *self, PyObject *none) {
    (void)none;
    OPEN(self);
    struct job *found;
    Py_BEGIN_ALLOW_THREADS
    found = spawners_take_back(&self->s);
    Py_END_ALLOW_THREADS
    PyObject *out = PyList_New(0);
    for (struct job *job = found; out && job; job = job->next)
        if (PyList_Append(out, (PyObject *)job->about)) Py_CLEAR(out);
    drop_all(found);
    return out;
}

/* fileno() -> can be read while there are reports */
static PyObject *Spawners_fileno(Spawners *self, PyObject *none) {
    (void)none;
    OPEN(self);
    return PyLong_FromLong(self->s.eventfd);
}

#define METHOD(name, flags) {#name, (PyCFunction)(void (*)(void))Spawners_##name, flags, NULL}
static PyMethodDef methods[] = {METHOD(put, METH_VARARGS), METHOD(start, METH_O), METHOD(reports, METH_NOARGS),
                                METHOD(take_back, METH_NOARGS), METHOD(fileno, METH_NOARGS), METHOD(close, METH_NOARGS),
                                {NULL, NULL, 0, NULL}};
static PyType_Slot slots[] = {{Py_tp_new, Spawners_new},
                              {Py_tp_dealloc, Spawners_dealloc},
                              {Py_tp_methods, methods},
                              {0, NULL}};
PyType_Spec spawners_spec = {"dgmp._core.native.Spawners", sizeof(Spawners), 0, Py_TPFLAGS_DEFAULT, slots};
