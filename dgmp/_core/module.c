/* module.c: the thin binding.  View is one process's view of a segment; its methods are the core's functions, each a
 * single call that runs no Python between taking a G or a P and having published where it went.
 *
 * Words (names of Gs) travel to Python as plain ints.  The process-local tables live here too: which Future awaits a
 * slot, and how many Gs of ours still read its result (pins).
 */
#include <Python.h>                   /* no '#' in formats: built with 3.13's headers they fail on 3.11 and 3.12 */

#include "core.h"

/* Headers from 3.12 on take these for immortal, which on 3.11 they are not. */
#undef Py_RETURN_NONE
#undef Py_RETURN_TRUE
#undef Py_RETURN_FALSE
#define Py_RETURN_NONE do { Py_INCREF(Py_None); return Py_None; } while (0)
#define Py_RETURN_TRUE do { Py_INCREF(Py_True); return Py_True; } while (0)
#define Py_RETURN_FALSE do { Py_INCREF(Py_False); return Py_False; } while (0)

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>

struct slot {                         /* what the owner keeps about a slot, in its own memory */
    PyObject *future;
    uint32_t pins;
    uint32_t drained;
};

struct items {                        /* a copy of a list, for a quick look whether it is still the same */
    PyObject *list, **items;
    Py_ssize_t n;
};

struct watched {                      /* of a world, what is Python's */
    struct items path, filters;
    Py_ssize_t modules;               /* how many there are */
};

typedef struct View {
    PyObject_HEAD
    struct view v;
    struct slot *slots;
    uint32_t nslots;
    uint64_t outstanding;             /* Gs of ours that have not been collected */
    int closed;
    PyObject *closed_type, *closed_text;  /* what every call raises then */
    int woke;                         /* our last spawn had to wake an M, or ask for one */
    struct world world;
    struct watched seen, told;        /* NULLs where nobody tells Gs of changes */
    PyObject *tell;                   /* is called with what has changed */
    uint64_t blocks_out, bytes_out;   /* shared blocks that are arguments of Gs of ours which have not been collected */
    PyObject *blocks;                 /* of the shared blocks we read: offset -> address of its Block, not a reference */
    uint64_t shown;                   /* sched.outputs when our process had last written all that Ms have sent */
    uint32_t levels_seen;             /* sched.log_levels that this M has applied */
    PyObject *watched, *mark, *act;   /* see watch() */
    int awaited;
    struct View *next;
} View;

/* Names of a Future's slots, and the state that says it has its result: api.future. */
enum { N_WORD, N_KIND, N_DATA, N_STATE, N_THEN, NNAMES };
static const char *const texts[NNAMES] = {"word", "_kind", "_data", "_state", "_then"};
static PyObject *names[NNAMES], *finished, *Block_type;
static PyObject *sys_path[2], *warnings_filters[2], *sys_modules;  /* a module's namespace and a name in it */

static View *views;                   /* all of this process, for the fork handler; under the GIL */

static void in_forked_child(void) {
    for (View *s = views; s; s = s->next) s->v.forked = 1;
}

static int usable(View *self) {
    if (!self->closed && !self->v.forked) return 1;
    if (self->v.forked)
        PyErr_SetString(PyExc_RuntimeError, "this process was forked from a dgmp process and is no member of its runtime; "
                                            "start one of its own with dgmp.Runtime()");
    else
        PyErr_SetObject(self->closed_type, self->closed_text);
    return 0;
}
#define CHECK(self) do { if (!usable(self)) return NULL; } while (0)

/* May move the table. */
static struct slot *slot_of(View *self, uint32_t index) {
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

static struct p *own_p(View *self) {
    uint32_t p = load_rlx(&self_m(&self->v)->p);
    if (p) return &self->v.allp[p - 1];
    PyErr_SetString(PyExc_RuntimeError, "this M holds no P");
    return NULL;
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
    self->world.notify = -1;
    self->next = views;
    views = self;
    self->blocks = PyDict_New();                              /* later it might run the garbage collector, and so Python */
    if (!self->blocks) Py_CLEAR(self);
    return (PyObject *)self;
}

/* ---------------------------------------------------------------- large payloads
 * A Block is a shared block that this process holds (filled by pack, not given to a G yet) or reads.  What lies in it:
 * the number of its parts, their lengths, the parts, each on a cache line.  The first part is a pickle stream, the others are
 * the buffers that go with it.  Views of the parts keep the Block, the Block keeps the mapping. */
typedef struct {
    PyObject_HEAD
    View *view;
    uint64_t off, len;                /* off 0: a G has it */
    int reads;
} Block;

static PyObject *Block_make(View *view, uint64_t off, uint64_t len, int reads) {
    allocfunc alloc = (allocfunc)PyType_GetSlot((PyTypeObject *)Block_type, Py_tp_alloc);
    Block *b = (Block *)alloc((PyTypeObject *)Block_type, 0);
    if (!b) return NULL;
    b->view = (View *)Py_NewRef((PyObject *)view);
    b->off = off, b->len = len, b->reads = reads;
    return (PyObject *)b;
}

static void Block_dealloc(Block *b) {
    PyTypeObject *type = Py_TYPE((PyObject *)b);
    View *view = b->view;
    if (b->off && !view->v.forked) {
        PyObject *type_, *error, *tb, *key;
        PyErr_Fetch(&type_, &error, &tb);
        if (b->reads && (key = PyLong_FromUnsignedLongLong(b->off))) {
            if (PyDict_DelItem(view->blocks, key)) PyErr_Clear();
            Py_DECREF(key);
        }
        PyErr_Restore(type_, error, tb);
        if (!view->closed && b->reads) reader_leave(&view->v, b->off);
        else if (!view->closed) heap_free(&view->v, b->off);
    }
    Py_DECREF((PyObject *)view);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(b);
    Py_DECREF(type);
}

static int Block_getbuffer(PyObject *self, Py_buffer *buffer, int flags) {
    Block *b = (Block *)self;
    if (!b->off) {
        PyErr_SetString(PyExc_BufferError, "the block has been given to a G");
        return -1;
    }
    return PyBuffer_FillInfo(buffer, self, shared_content(&b->view->v, b->off), (Py_ssize_t)b->len, 1, flags);
}

static Py_ssize_t Block_length(Block *b) { return (Py_ssize_t)b->len; }

/* parts() -> list of read-only memoryviews */
static PyObject *Block_parts(Block *b, PyObject *none) {
    (void)none;
    PyObject *all = PyMemoryView_FromObject((PyObject *)b), *out = all ? PyList_New(0) : NULL;
    uint64_t *head = b->off ? shared_content(&b->view->v, b->off) : NULL;
    uint64_t n = head ? head[0] : 0, at = (8 + 8 * n + 63) & ~63ull;
    for (uint64_t i = 0; out && i < n; i++) {
        PyObject *part = PySequence_GetSlice(all, (Py_ssize_t)at, (Py_ssize_t)(at + head[1 + i]));
        if (!part || PyList_Append(out, part)) Py_CLEAR(out);
        Py_XDECREF(part);
        at += (head[1 + i] + 63) & ~63ull;
    }
    Py_XDECREF(all);
    return out;
}

static PyMethodDef block_methods[] = {{"parts", (PyCFunction)Block_parts, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};
static PyType_Slot block_slots[] = {{Py_tp_dealloc, Block_dealloc},
                                    {Py_tp_methods, block_methods},
                                    {Py_sq_length, Block_length},
                                    {Py_bf_getbuffer, Block_getbuffer},
                                    {0, NULL}};
static PyType_Spec block_spec = {"dgmp._core.native.Block", sizeof(Block), 0,
                                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, block_slots};

/* A payload as Python sees it: bytes, or the Block of a shared one, of which there is one in a process.  Somebody else
 * keeps it meanwhile. */
static PyObject *payload(View *self, uint64_t off, const char *data, uint64_t len) {
    if (!off || !is_shared(&self->v, off)) return PyBytes_FromStringAndSize(data, (Py_ssize_t)len);
    PyObject *key = PyLong_FromUnsignedLongLong(off), *known = key ? PyDict_GetItemWithError(self->blocks, key) : NULL;
    PyObject *block = NULL;
    if (known) {
        block = Py_NewRef(PyLong_AsVoidPtr(known));
    } else if (key && !PyErr_Occurred() && (block = Block_make(self, off, len, 0))) {
        PyObject *address = PyLong_FromVoidPtr(block);
        if (!address || PyDict_SetItem(self->blocks, key, address)) {
            ((Block *)block)->off = 0;
            Py_CLEAR(block);
        } else {
            reader_enter(&self->v, off);
            ((Block *)block)->reads = 1;
        }
        Py_XDECREF(address);
    }
    Py_XDECREF(key);
    return block;
}
static PyObject *args_of(View *self, struct g *g) { return payload(self, g->args, gargs(&self->v, g), g->args_len); }
static PyObject *result_of(View *self, struct g *g) { return payload(self, g->result, gresult(&self->v, g), g->result_len); }

/* The block's offset, which is the caller's now; 0: it is none, or another runtime's, or a G has it. */
static uint64_t take_block(View *self, PyObject *x, uint64_t *len) {
    if (Py_TYPE(x) != (PyTypeObject *)Block_type || ((Block *)x)->view != self || ((Block *)x)->reads) return 0;
    uint64_t off = ((Block *)x)->off;
    *len = ((Block *)x)->len;
    ((Block *)x)->off = 0;
    return off;
}

/* Takes the buffers of the list; their sum goes to sizes[0], or each to one of sizes. */
static Py_ssize_t take_buffers(PyObject *list, Py_buffer *to, uint64_t *sizes, int sum) {
    Py_ssize_t n = PyList_Size(list);
    for (Py_ssize_t i = 0; i < n; i++) {
        if (PyObject_GetBuffer(PyList_GetItem(list, i), &to[i], PyBUF_SIMPLE)) {
            while (i--) PyBuffer_Release(&to[i]);
            return -1;
        }
        if (sum) sizes[0] += (uint64_t)to[i].len;
        else sizes[i] = (uint64_t)to[i].len;
    }
    return n;
}

enum { COPY_WITHOUT_GIL = 1 << 20 };

/* pack(stream, buffers) -> a Block with copies; both are lists of contiguous buffers, and stream's are one part. */
static PyObject *View_pack(View *self, PyObject *args) {
    CHECK(self);
    PyObject *stream, *buffers, *block = NULL;
    if (!PyArg_ParseTuple(args, "OO", &stream, &buffers)) return NULL;
    if (!PyList_Check(stream) || !PyList_Check(buffers)) return PyErr_Format(PyExc_TypeError, "pack takes two lists");
    Py_ssize_t ns = PyList_Size(stream), nb = PyList_Size(buffers), got = 0;
    Py_buffer *from = calloc((size_t)(ns + nb), sizeof *from);
    uint64_t *head = calloc((size_t)nb + 2, sizeof *head), at = 0;
    if (!from || !head) PyErr_NoMemory();
    else if (take_buffers(stream, from, head + 1, 1) == ns) {
        got = ns;
        if (take_buffers(buffers, from + ns, head + 2, 0) == nb) got += nb;
    }
    if (!PyErr_Occurred()) {
        head[0] = (uint64_t)nb + 1;
        uint64_t len = (8 * (head[0] + 1) + 63) & ~63ull;
        for (uint64_t i = 0; i < head[0]; i++) len += (head[1 + i] + 63) & ~63ull;
        uint64_t off = shared_alloc(&self->v, len);
        if (!off) PyErr_Format(PyExc_MemoryError, "no block of %llu bytes is free", (unsigned long long)len);
        else if (!(block = Block_make(self, off, len, 0))) heap_free(&self->v, off);
        else {
            char *to = shared_content(&self->v, off);
            memcpy(to, head, 8 * (head[0] + 1));
            PyThreadState *save = len >= COPY_WITHOUT_GIL ? PyEval_SaveThread() : NULL;
            at = (8 * (head[0] + 1) + 63) & ~63ull;
            for (Py_ssize_t i = 0; i < got; i++) {
                memcpy(to + at, from[i].buf, (size_t)from[i].len);
                at += (uint64_t)from[i].len;
                if (i >= ns - 1) at = (at + 63) & ~63ull;     /* the stream's pieces are one part */
            }
            if (save) PyEval_RestoreThread(save);
        }
    }
    for (Py_ssize_t i = 0; i < got; i++) PyBuffer_Release(&from[i]);
    free(from);
    free(head);
    return block;
}

static void drop_futures(View *self) {
    struct slot *slots = self->slots;
    uint32_t n = self->nslots;
    self->slots = NULL, self->nslots = 0;
    for (uint32_t i = 0; i < n; i++) Py_CLEAR(slots[i].future);
    free(slots);
}

static void watched_clear(struct watched *w) {
    struct watched was = *w;
    memset(w, 0, sizeof *w);
    Py_XDECREF(was.path.list);
    Py_XDECREF(was.filters.list);
    free(was.path.items);
    free(was.filters.items);
}

static void View_dealloc(View *self) {
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    for (View **s = &views; *s; s = &(*s)->next)
        if (*s == self) {
            *s = self->next;
            break;
        }
    drop_futures(self);
    Py_XDECREF(self->closed_type);
    Py_XDECREF(self->closed_text);
    watched_clear(&self->seen);
    watched_clear(&self->told);
    world_free(&self->world);
    Py_XDECREF(self->watched);
    Py_XDECREF(self->mark);
    Py_XDECREF(self->act);
    Py_XDECREF(self->tell);
    Py_XDECREF(self->blocks);
    segment_unmap(&self->v);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

/* close(error): every later call raises one like it (not itself: its traceback may lead back to us).  The mapping goes with
 * the object: a thread may still sleep in it. */
static PyObject *View_close(View *self, PyObject *error) {
    if (!self->closed) {
        self->closed_text = PyObject_Str(error);
        if (!self->closed_text) return NULL;
        self->closed_type = Py_NewRef((PyObject *)Py_TYPE(error));
        if (!self->v.forked) inbox_kick(&self->v, self->v.self);
    }
    self->closed = 1;
    Py_CLEAR(self->act);
    Py_CLEAR(self->tell);
    if (!self->v.forked) drop_futures(self);
    Py_RETURN_NONE;
}

/* ---------------------------------------------------------------- spawning and collecting */

/* In the order in which others may look: the state last.  Runs no Python code: these are slots of dgmp's own class. */
static int finish(PyObject *future, unsigned long kind, PyObject *data) {
    PyObject *k = PyLong_FromUnsignedLong(kind);
    int e = !k || PyObject_SetAttr(future, names[N_KIND], k) || PyObject_SetAttr(future, names[N_DATA], data) ||
            PyObject_SetAttr(future, names[N_STATE], finished);
    Py_XDECREF(k);
    return e;
}

/* The Gs that the new one waits for, as the caller found them when it encoded the call: still there, and not collected? */
static int still_there(View *self, PyObject *deps, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) {
        uint64_t w = PyLong_AsUnsignedLongLong(PyTuple_GetItem(deps, i));
        uint32_t index = gword_index(w);
        if (index >= self->nslots || !self->slots[index].future || self->slots[index].drained ||
            GGEN(load_acq(&self->v.allgs[index].state)) != gword_gen(w))
            return 0;
    }
    return 1;
}

/* Our side of gwait_for: what we wait for stays until we have run, our records until what we wait for is collected. */
static int wait_for(View *self, uint32_t index, uint64_t w, PyObject *on, Py_ssize_t n) {
    struct g *g = &self->v.allgs[index];
    struct deps *deps = at(&self->v, load_rlx(&g->deps));
    memset(deps, 0, sizeof *deps + (size_t)n * sizeof(struct dep));
    deps->n = (uint64_t)n;
    for (Py_ssize_t i = 0; i < n; i++) {
        deps->dep[i].on = gword_index(PyLong_AsUnsignedLongLong(PyTuple_GetItem(on, i)));
        self->slots[deps->dep[i].on].pins++;
    }
    int ready = gwait_for(&self->v, w);
    for (Py_ssize_t i = 0; i < n; i++)
        self->slots[index].pins += atomic_load(&deps->dep[i].done) != DEP_NEVER_LINKED;
    return ready;
}

/* heap_alloc, with the reference where a repair looks for it. */
static uint64_t alloc_for(struct view *v, uint64_t *ref, uint64_t len) {
    *ref = heap_alloc(v, len);
    if (*ref) heap_use(v, *ref);
    return *ref;
}

/* A slot with the call in it, allocated; data: bytes, or a Block, which is the slot's then.  NULL: none is free, or (with an
 * exception) no memory. */
static struct g *fill(View *self, uint32_t *index, PyObject *call, Py_ssize_t ndeps) {
    struct view *v = &self->v;
    char *data = NULL;
    Py_ssize_t len = 0;
    if (Py_TYPE(call) != (PyTypeObject *)Block_type && PyBytes_AsStringAndSize(call, &data, &len)) return NULL;
    struct g *g = gfget(v, index);
    if (!g) return NULL;
    uint64_t deps = 0;
    int e = !slot_of(self, *index);
    if (!e && len > INLINE_ARGS) e = !alloc_for(v, &g->args, (uint64_t)len);
    if (!e && ndeps) {
        deps = heap_alloc(v, sizeof(struct deps) + (uint64_t)ndeps * sizeof(struct dep));
        e = !deps;
    }
    if (e) {
        gdiscard(v, *index);
        PyErr_Format(PyExc_MemoryError, "the runtime's shared memory has no room for arguments of %zd bytes", len);
        return NULL;
    }
    if (deps) {
        store_rel(&g->deps, deps);
        heap_use(v, deps);
    }
    g->args_len = (uint64_t)len;
    if (data) {
        memcpy(g->args ? at(v, g->args) : g->inline_args, data, (size_t)len);
    } else if ((g->args = take_block(self, call, &g->args_len)) != 0) {
        heap_use(v, g->args);
        self->blocks_out++, self->bytes_out += g->args_len;
    } else {
        gdiscard(v, *index);
        return PyErr_Format(PyExc_ValueError, "not a block of this runtime, or it has been used"), NULL;
    }
    g->world = self->world.index;
    return g;
}

/* ---------------------------------------------------------------- the world of the Gs we spawn: see world.c */

static int list_look(PyObject *const where[2], struct items *to) {
    PyObject *list = PyDict_GetItemWithError(where[0], where[1]);
    int is_list = list && PyList_Check(list);
    to->list = is_list ? PyList_GetSlice(list, 0, PyList_Size(list)) : PyList_New(0);
    to->n = to->list ? PyList_Size(to->list) : 0;
    to->items = malloc((size_t)(to->n + 1) * sizeof *to->items);
    for (Py_ssize_t i = 0; to->items && i < to->n; i++) to->items[i] = PyList_GetItem(to->list, i);
    return to->list && to->items;
}

static int list_changed(PyObject *const where[2], const struct items *was) {
    PyObject *list = PyDict_GetItemWithError(where[0], where[1]);
    if (!list || !PyList_Check(list) || PyList_Size(list) != was->n) return 1;
    for (Py_ssize_t i = 0; i < was->n; i++)
        if (PyList_GetItem(list, i) != was->items[i]) {
            int same = PyObject_RichCompareBool(list, was->list, Py_EQ);
            if (same < 0) PyErr_Clear();                      /* a __eq__ of the user's: say that it has changed */
            return same != 1;
        }
    return 0;
}

/* "state": environment, directory, path or filters are not as they were when our Gs were last told; "files": it is time to
 * look at files; NULL: nothing. */
static const char *changed(View *self) {
    if (!self->told.path.list) return NULL;
    int what = list_changed(sys_path, &self->told.path) ? WORLD_STATE : WORLD_QUIET;
    if (what == WORLD_QUIET && !world_busy(&self->world)) {
        what = world_changed(&self->world);
        if (what != WORLD_STATE && list_changed(warnings_filters, &self->told.filters)) what = WORLD_STATE;
        if (what == WORLD_QUIET && PyDict_Size(sys_modules) != self->told.modules) what = WORLD_FILES;
    }
    return what == WORLD_STATE ? "state" : what == WORLD_FILES ? "files" : NULL;
}

/* tell_changes(tell): look_for_changes calls tell(what), where what is as above. */
static PyObject *View_tell_changes(View *self, PyObject *tell) {
    CHECK(self);
    PyObject *old = self->tell;
    self->tell = Py_NewRef(tell);
    Py_XDECREF(old);
    Py_RETURN_NONE;
}

/* look_for_changes(): before a spawn, as soon after the one before as can be (world_busy). */
static PyObject *View_look_for_changes(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    const char *what = self->tell ? changed(self) : NULL;
    if (!what) Py_RETURN_NONE;
    PyObject *tell = Py_NewRef(self->tell), *text = PyUnicode_FromString(what);
    PyObject *done = text ? PyObject_CallFunctionObjArgs(tell, text, NULL) : NULL;
    Py_DECREF(tell);
    Py_XDECREF(text);
    return done;
}

/* world_look(): what is now is what the next world_told() has told of. */
static PyObject *View_world_look(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    watched_clear(&self->seen);
    if (!self->told.path.list) world_watch(&self->world);
    if (!list_look(sys_path, &self->seen.path) || !list_look(warnings_filters, &self->seen.filters) ||
        !world_look(&self->world)) {
        watched_clear(&self->seen);
        return PyErr_NoMemory();
    }
    Py_RETURN_NONE;
}

/* world_told(index): the world that our Gs get from now on, which is what world_look() has seen. */
static PyObject *View_world_told(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long index = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred()) return NULL;
    if (!self->seen.path.list) return PyErr_Format(PyExc_RuntimeError, "world_look() comes first");
    struct watched was = self->told;
    self->seen.modules = was.modules;
    self->told = self->seen;
    memset(&self->seen, 0, sizeof self->seen);
    watched_clear(&was);
    world_told(&self->world, (uint32_t)index);
    Py_RETURN_NONE;
}

/* world_entered(index): this M is in that world, and so are our Gs. */
static PyObject *View_world_entered(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long index = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred()) return NULL;
    world_entered(&self->world, (uint32_t)index);
    Py_RETURN_NONE;
}

/* world_of(word) -> the world of that G */
static PyObject *View_world_of(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long long w = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    return PyLong_FromUnsignedLong(self->v.allgs[gword_index(w)].world);
}

/* world_files(fd, pause_ns): files have been looked at.  It is time to do so again when that inotify descriptor (-1: none) has
 * something, after a pause of so long, and when there are other modules than now. */
static PyObject *View_world_files(View *self, PyObject *args) {
    CHECK(self);
    int fd;
    long long pause;
    if (!PyArg_ParseTuple(args, "iL", &fd, &pause)) return NULL;
    self->world.notify = fd, self->world.files_ns = pause;
    self->told.modules = PyDict_Size(sys_modules);
    Py_RETURN_NONE;
}

/* watch(dict, key, awaited, act): spawn calls act() first whenever it is true (awaited) or not that key is in dict. */
static PyObject *View_watch(View *self, PyObject *args) {
    CHECK(self);
    PyObject *watched, *mark, *act;
    int awaited;
    if (!PyArg_ParseTuple(args, "OOpO", &watched, &mark, &awaited, &act)) return NULL;
    PyObject *old[] = {self->watched, self->mark, self->act};
    self->watched = Py_NewRef(watched), self->mark = Py_NewRef(mark), self->act = Py_NewRef(act), self->awaited = awaited;
    for (int i = 0; i < 3; i++) Py_XDECREF(old[i]);
    Py_RETURN_NONE;
}

static int act_first(View *self) {
    int there = PyDict_Contains(self->watched, self->mark);
    if (there != self->awaited) return there < 0 ? -1 : 0;
    PyObject *act = Py_NewRef(self->act), *done = PyObject_CallNoArgs(act);
    Py_DECREF(act);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* spawn(future, fn, args, where, deps), args bytes or a Block -> True; None when every slot is taken; False when one of deps has been collected
 * since the caller looked.
 * where: 0 the global queue, 1 our ring's tail, 2 our runnext, 3 the global queue without a wake-up (the main G: m0
 * finds it, and nobody else runs yet). */
static PyObject *View_spawn(View *self, PyObject *const *a, Py_ssize_t n) {
    CHECK(self);
    struct view *v = &self->v;
    if (n != 5) return PyErr_Format(PyExc_TypeError, "spawn takes 5 arguments");
    if (self->act && act_first(self)) return NULL;
    unsigned long fn = PyLong_AsUnsignedLong(a[1]);
    long where = PyLong_AsLong(a[3]);
    Py_ssize_t ndeps = a[4] == Py_None ? 0 : PyTuple_Size(a[4]);
    uint32_t index;
    if (PyErr_Occurred()) return NULL;
    if (ndeps && !still_there(self, a[4], ndeps)) Py_RETURN_FALSE;
    struct g *g = fill(self, &index, a[2], ndeps);
    if (!g) {
        if (PyErr_Occurred()) return NULL;
        Py_RETURN_NONE;
    }
    g->fn = (uint32_t)fn;
    uint64_t s = load_rlx(&g->state), w = gword(index, GGEN(s));
    PyObject *word = PyLong_FromUnsignedLongLong(w);
    if (!word || PyObject_SetAttr(a[0], names[N_WORD], word)) {
        Py_XDECREF(word);
        gdiscard(v, index);
        return NULL;
    }
    Py_DECREF(word);
    Py_INCREF(a[0]);
    struct slot *slot = &self->slots[index];
    slot->future = a[0], slot->pins = 0, slot->drained = 0;
    self->outstanding++;
    self->woke = 0;
    if (ndeps) {
        if (!wait_for(self, index, w, a[4], ndeps)) Py_RETURN_TRUE;
    } else {
        atomic_store(&g->state, GSTATE(G_RUNNABLE, NO_M, 0, GGEN(s)));
    }
    struct m *m = self_m(v);
    uint32_t p = load_rlx(&m->kind) == KIND_CLIENT ? v->self - v->seg->max_ms + v->seg->nprocs + 1 : load_rlx(&m->p);
    if (where == 0 || where == 3 || !p) globrunqput(v, w);
    else runqput(v, &v->allp[p - 1], w, where == 2);
    self->woke = where != 3 && wakep(v);
    if (self->told.path.list) world_spawned(&self->world);
    Py_RETURN_TRUE;
}

/* cancel(word) -> True if it was a G of ours that nobody had begun: it ends with None, and its Future is drained as usual.
 * 0: one that was never spawned. */
static PyObject *View_cancel(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long long w = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    uint32_t index = gword_index(w);
    int ours = (w & GWORD_FULL) && index < self->nslots && self->slots[index].future;
    return PyBool_FromLong(ours && gcancel(&self->v, w));
}

static void unpin(View *self, uint32_t index) {
    struct slot *slot = &self->slots[index];
    if (slot->pins && --slot->pins == 0 && slot->drained) gdiscard(&self->v, index);
}

/* Its result is with its Future.  Nobody walks its list of dependents any more, and it needs no result of another. */
static void let_go(View *self, uint32_t index) {
    struct view *v = &self->v;
    struct g *g = &v->allgs[index];
    struct slot *slot = &self->slots[index];
    slot->drained = 1;
    slot->pins++;                                             /* our own, while we look at our records */
    if (load_rlx(&g->deps)) {
        struct deps *deps = at(v, load_rlx(&g->deps));
        for (uint64_t i = 0; i < deps->n; i++) unpin(self, deps->dep[i].on);
    }
    for (uint64_t d = load_acq(&g->dependents) & ~DEPS_CLOSED, next; d; d = next) {
        struct dep *dep = at(v, d);
        next = dep->next;
        unpin(self, gword_index(dep->target));                /* may free the record */
    }
    unpin(self, index);
}

/* What Gs have printed comes before their results.  0, or how far the inbox may be drained once it has been written. */
static uint64_t output_first(View *self, uint64_t written_to) {
    if (atomic_load(&self->v.seg->sched.outputs) == self->shown) return 0;
    struct inbox *b = &self_m(&self->v)->inbox;
    uint64_t head = load_rlx(&b->head), tail = load_acq(&b->tail);
    if (head < written_to) return 0;
    return tail > head ? tail : head + 1;                     /* a cell is filled before tail moves */
}

/* drain(tell, written_to) -> how many Gs of ours were finished.  Their results are set in their Futures, and such as have
 * something in _then are appended to the list `tell`; their slots are dead again.
 * Or, in a client, a negative number, and nothing is finished: it has to write first what Ms have sent, then calls with minus
 * that number. */
static PyObject *View_drain(View *self, PyObject *const *a, Py_ssize_t nargs) {
    CHECK(self);
    if (nargs != 2) return PyErr_Format(PyExc_TypeError, "drain takes 2 arguments");
    struct view *v = &self->v;
    PyObject *tell = a[0];
    uint64_t written_to = PyLong_AsUnsignedLongLong(a[1]), first;
    int is_m = load_rlx(&self_m(v)->kind) == KIND_M;
    long n = 0;
    if (PyErr_Occurred()) return NULL;
    for (uint64_t w; (w = inbox_peek(v, v->self)) != 0;) {
        if (!is_m && (first = output_first(self, written_to)) != 0)
            return PyLong_FromLongLong(n ? n : -(long long)first);
        uint32_t index = gword_index(w);
        struct g *g = &v->allgs[index];
        struct slot *slot = index < self->nslots ? &self->slots[index] : NULL;
        PyObject *data = NULL;
        int ours = slot && slot->future && !slot->drained && gdone(v, w);
        if (ours && !(data = result_of(self, g))) return NULL;  /* the word is still there */
        ours = ours && gcollect(v, w);
        inbox_drop(v, v->self);
        if (!ours) {                                          /* told twice */
            Py_XDECREF(data);
            continue;
        }
        PyObject *future = slot->future;
        unsigned long kind = g->result_kind;
        if (g->args && is_shared(v, g->args)) self->blocks_out--, self->bytes_out -= g->args_len;
        slot->future = NULL;
        let_go(self, index);
        self->outstanding--, n++;
        int e = finish(future, kind, data);
        PyObject *then = e ? NULL : PyObject_GetAttr(future, names[N_THEN]);
        if (!then || (then != Py_None && PyList_Append(tell, future))) e = 1;
        Py_XDECREF(then);
        Py_DECREF(data);
        Py_DECREF(future);
        if (e) return NULL;
    }
    return PyLong_FromLong(n);
}

/* pending() -> the Futures of ours that have not finished */
static PyObject *View_pending(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    PyObject *out = PyList_New(0);
    for (uint32_t i = 0; out && i < self->nslots; i++)
        if (self->slots[i].future && PyList_Append(out, self->slots[i].future)) Py_CLEAR(out);
    return out;
}

static PyObject *View_inbox_empty(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    return PyBool_FromLong(inbox_empty(&self->v, self->v.self));
}

/* inbox_seq(): for wait, read before one looks at what one waits for */
static PyObject *View_inbox_seq(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    return PyLong_FromUnsignedLong(atomic_load(&self_m(&self->v)->inbox.seq));
}

/* wait(seq, word, more, spin_ns, timeout_ns): see inbox_wait.  Runs without the GIL. */
static PyObject *View_wait(View *self, PyObject *args) {
    CHECK(self);
    unsigned int seq;
    unsigned long long want, more;
    long long spin, timeout;
    int e;
    if (!PyArg_ParseTuple(args, "IKKLL", &seq, &want, &more, &spin, &timeout)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    e = inbox_wait(&self->v, seq, want, more, spin, timeout);
    Py_END_ALLOW_THREADS
    if (e == EINTR && PyErr_CheckSignals()) return NULL;
    Py_RETURN_NONE;
}

static PyObject *View_kick(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    inbox_kick(&self->v, self->v.self);
    Py_RETURN_NONE;
}

/* sent(): another packet lies in the output channel.  Also in a child that a G has forked: it may print. */
static PyObject *View_sent(View *self, PyObject *none) {
    (void)none;
    if (!self->closed) atomic_fetch_add(&self->v.seg->sched.outputs, 1);
    Py_RETURN_NONE;
}

/* shown(outputs): all has been written that had been sent when the attribute had this value. */
static PyObject *View_shown(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long long outputs = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    if (outputs > self->shown) self->shown = outputs;
    Py_RETURN_NONE;
}

/* publish_levels(key): Ms shall apply the logging levels of this function table entry. */
static PyObject *View_publish_levels(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long key = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred()) return NULL;
    atomic_store(&self->v.seg->sched.log_levels, (uint32_t)key);
    Py_RETURN_NONE;
}

/* new_levels() -> the entry to apply; claim says when there is another. */
static PyObject *View_new_levels(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    self->levels_seen = load_acq(&self->v.seg->sched.log_levels);
    return PyLong_FromUnsignedLong(self->levels_seen);
}

static PyObject *View_intern(View *self, PyObject *arg) {
    CHECK(self);
    char *data;
    Py_ssize_t len;
    uint32_t index;
    if (PyBytes_AsStringAndSize(arg, &data, &len)) return NULL;
    if (!fn_intern(&self->v, fn_hash(data, (uint64_t)len), data, (uint64_t)len, &index))
        return PyErr_Format(PyExc_MemoryError, "the runtime's function table is full");
    return PyLong_FromUnsignedLong(index);
}

static PyObject *View_function(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long i = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred()) return NULL;
    if (i >= self->v.seg->nfns || !load_acq(&self->v.fns[i].hash))
        return PyErr_Format(PyExc_LookupError, "no function %lu", i);
    return PyBytes_FromStringAndSize(at(&self->v, self->v.fns[i].off), (Py_ssize_t)self->v.fns[i].len);
}

/* ---------------------------------------------------------------- running: the M's side */
static PyObject *word_or_none(uint64_t w) {
    if (w) return PyLong_FromUnsignedLongLong(w);
    Py_RETURN_NONE;
}

/* runqget() -> (word, inherit_time) or None */
static PyObject *View_runqget(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    int inherit = 0;
    struct p *p = own_p(self);
    if (!p) return NULL;
    uint64_t w = runqget(&self->v, p, &inherit);
    if (!w) Py_RETURN_NONE;
    return Py_BuildValue("(KO)", (unsigned long long)w, inherit ? Py_True : Py_False);
}

/* runqget_ring() -> the ring's next word, past runnext, or None */
static PyObject *View_runqget_ring(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    struct p *p = own_p(self);
    return p ? word_or_none(runqget_ring(&self->v, p)) : NULL;
}

static PyObject *View_runqput(View *self, PyObject *args) {
    CHECK(self);
    unsigned long long w;
    int next;
    if (!PyArg_ParseTuple(args, "Kp", &w, &next)) return NULL;
    struct p *p = own_p(self);
    if (!p) return NULL;
    runqput(&self->v, p, w, next);
    Py_RETURN_NONE;
}

static PyObject *View_globrunqget(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long max = PyLong_AsUnsignedLong(arg);
    uint32_t n;
    if (PyErr_Occurred()) return NULL;
    struct p *p = own_p(self);
    if (!p) return NULL;
    uint64_t w = globrunqget(&self->v, p, (uint32_t)max, &n);
    struct m *m = self_m(&self->v);
    store_rlx(&m->n_global, load_rlx(&m->n_global) + n);
    return word_or_none(w);
}

static PyObject *View_globrunqput(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long long w = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    globrunqput(&self->v, w);
    Py_RETURN_NONE;
}

static PyObject *View_globrunqsize(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    return PyLong_FromUnsignedLongLong(globrunqsize(&self->v));
}

/* runqsteal(victim, steal_runnext, max) -> word or None; max 0: no bound */
static PyObject *View_runqsteal(View *self, PyObject *args) {
    CHECK(self);
    unsigned int victim, max;
    int next;
    uint32_t n;
    if (!PyArg_ParseTuple(args, "IpI", &victim, &next, &max)) return NULL;
    struct p *p = own_p(self);
    if (!p) return NULL;
    if (victim >= self->v.seg->nps) return PyErr_Format(PyExc_IndexError, "no P %u", victim);
    uint64_t w = runqsteal(&self->v, p, &self->v.allp[victim], next, max, &n);
    if (w) {
        struct m *m = self_m(&self->v);
        store_rlx(&m->n_steals, load_rlx(&m->n_steals) + 1);
        store_rlx(&m->n_stolen, load_rlx(&m->n_stolen) + n);
    }
    return word_or_none(w);
}

/* claim(word, inherit_time) -> (fn, goid, args, flags), or None: somebody else ran it.  flags: 1 it has waited for others, 2
 * there are new logging levels, 4 its world is not the one we are in. */
static PyObject *View_claim(View *self, PyObject *const *a, Py_ssize_t n) {
    CHECK(self);
    if (n != 2) return PyErr_Format(PyExc_TypeError, "claim takes 2 arguments");
    unsigned long long w = PyLong_AsUnsignedLongLong(a[0]);
    if (PyErr_Occurred()) return NULL;
    struct p *p = own_p(self);
    if (!p) return NULL;
    if (!gclaim(&self->v, w)) Py_RETURN_NONE;
    if (a[1] != Py_True) store_rlx(&p->schedtick, load_rlx(&p->schedtick) + 1);
    struct g *g = &self->v.allgs[gword_index(w)];
    int flags = (load_acq(&g->deps) != 0) | (load_acq(&self->v.seg->sched.log_levels) != self->levels_seen) << 1;
    if (g->world != self->world.entered) flags |= 4;
    return Py_BuildValue("(IKNi)", g->fn, (unsigned long long)g->goid,
                         args_of(self, g), flags);
}

static PyObject *View_schedtick(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    struct p *p = own_p(self);
    return p ? PyLong_FromUnsignedLongLong(load_rlx(&p->schedtick)) : NULL;
}

/* complete(word, kind, data) -> True if this completion won; data: bytes or a Block */
static PyObject *View_complete(View *self, PyObject *const *a, Py_ssize_t n) {
    CHECK(self);
    char *data;
    Py_ssize_t len;
    uint64_t off, size;
    if (n != 3) return PyErr_Format(PyExc_TypeError, "complete takes 3 arguments");
    unsigned long long w = PyLong_AsUnsignedLongLong(a[0]);
    unsigned long kind = PyLong_AsUnsignedLong(a[1]);
    if (PyErr_Occurred()) return NULL;
    if ((off = take_block(self, a[2], &size)) != 0) {
        int won = gcomplete_with(&self->v, w, (uint32_t)kind, off, size);
        if (!won) heap_free(&self->v, off);
        return PyBool_FromLong(won);
    }
    if (PyBytes_AsStringAndSize(a[2], &data, &len)) return NULL;
    return PyBool_FromLong(gcomplete(&self->v, w, (uint32_t)kind, data, (uint64_t)len));
}

static PyObject *change_status(View *self, PyObject *arg, uint32_t from, uint32_t to) {
    CHECK(self);
    unsigned long long w = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    if (!gcas(&self->v, w, from, to)) throw(&self->v, "casgstatus: G %u is not in status %u", gword_index(w), from);
    store_rel(&self_m(&self->v)->curg, to == G_RUNNING ? w : 0);
    if (to == G_WAITING) {
        struct m *m = self_m(&self->v);
        store_rlx(&m->n_parks, load_rlx(&m->n_parks) + 1);
    }
    Py_RETURN_NONE;
}
static PyObject *View_gpark(View *self, PyObject *arg) { return change_status(self, arg, G_RUNNING, G_WAITING); }
static PyObject *View_gresume(View *self, PyObject *arg) { return change_status(self, arg, G_WAITING, G_RUNNING); }

/* dep_results(word) -> list of (kind, data) of the Gs it waited for, in order. */
static PyObject *View_dep_results(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long long w = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    uint64_t off = load_acq(&self->v.allgs[gword_index(w)].deps);
    PyObject *out = PyList_New(0);
    if (!out || !off) return out;
    struct deps *deps = at(&self->v, off);
    for (uint64_t i = 0; i < deps->n; i++) {
        struct g *on = &self->v.allgs[deps->dep[i].on];
        PyObject *item = Py_BuildValue("(IN)", on->result_kind, result_of(self, on));
        if (!item || PyList_Append(out, item)) Py_CLEAR(out);
        Py_XDECREF(item);
        if (!out) break;
    }
    return out;
}

/* ---------------------------------------------------------------- Ps and Ms */

/* mstart() -> whether our maker had left us a P: how an M begins */
static PyObject *View_mstart(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    return PyBool_FromLong(mtake(&self->v) != NULL);
}

static PyObject *View_releasep(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    pidleput(&self->v, releasep(&self->v));
    Py_RETURN_NONE;
}

static PyObject *View_pidleget(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    struct p *p = pidleget(&self->v);
    if (p) acquirep(&self->v, p);
    return PyBool_FromLong(p != NULL);
}

/* handoffp(m): our P goes to parked M m, or (m < 0) to any M if there is work, else to the idle list. */
static PyObject *View_handoffp(View *self, PyObject *arg) {
    CHECK(self);
    long m = PyLong_AsLong(arg);
    if (PyErr_Occurred()) return NULL;
    struct view *v = &self->v;
    struct p *p = releasep(v);
    if (m >= 0) {
        if (startm_on(v, p, (uint32_t)m)) Py_RETURN_TRUE;
        acquirep(v, p);
        Py_RETURN_FALSE;
    }
    if (!runqempty(p) || globrunqsize(v)) return PyBool_FromLong(startm(v, p, 0));
    if (nmspinning(v) + npidle(v) == 0) return PyBool_FromLong(startm(v, p, 1));
    pidleput(v, p);
    fence_sc(&v->seg->sched.pidle[0]);
    if (work_anywhere(v)) wakep(v);
    Py_RETURN_TRUE;
}

/* take_token(word) -> m, whose token it is and which may be queued again from now on */
static PyObject *View_take_token(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long long w = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    uint32_t m = (uint32_t)(w & 0xffffu);
    atomic_store(&self->v.allm[m].token_queued, 0);
    return PyLong_FromUnsignedLong(m);
}

static PyObject *View_wakep(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    return PyBool_FromLong(wakep(&self->v));
}

static PyObject *View_become_spinning(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    return PyBool_FromLong(become_spinning(&self->v));
}
static PyObject *View_set_spinning(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    set_spinning(&self->v);
    Py_RETURN_NONE;
}
static PyObject *View_reset_spinning(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    reset_spinning(&self->v);
    Py_RETURN_NONE;
}
static PyObject *View_is_spinning(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    return PyBool_FromLong(is_spinning(&self->v));
}
static PyObject *View_needspinning(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    return PyBool_FromLong((long)atomic_load(&self->v.seg->sched.needspinning));
}
static PyObject *View_work_anywhere(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    return PyBool_FromLong(work_anywhere(&self->v));
}

/* spin(ns): looks at every queue and our inbox without taking anything; True as soon as there is something. */
static PyObject *View_spin(View *self, PyObject *arg) {
    CHECK(self);
    long long ns = PyLong_AsLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    int found = 0;
    Py_BEGIN_ALLOW_THREADS
    for (int64_t end = nanotime() + ns; !found && nanotime() < end;)
        for (int i = 0; i < 32 && !found; i++) {
            found = work_anywhere(&self->v) || !inbox_empty(&self->v, self->v.self) ||
                    atomic_load(&self->v.seg->sched.closing);
            procyield();
        }
    Py_END_ALLOW_THREADS
    return PyBool_FromLong(found);
}

/* stopm(ready, timeout_ns): parks this M, which holds no P, until it is handed one: True.  False when its inbox has
 * something, the time is up or a signal came: it runs again, without a P.  ready: its started Gs that are ready; looked at
 * after it is known to be parked, as another of its threads may add one until then. */
static PyObject *View_stopm(View *self, PyObject *const *a, Py_ssize_t n) {
    CHECK(self);
    if (n != 2) return PyErr_Format(PyExc_TypeError, "stopm takes 2 arguments");
    struct view *v = &self->v;
    long long timeout = PyLong_AsLongLong(a[1]);
    int woken = 0;
    if (PyErr_Occurred()) return NULL;
    mput(v);
    if (PyObject_Size(a[0]) > 0) want_p(v, v->self);
    if (inbox_empty(v, v->self)) {
        Py_BEGIN_ALLOW_THREADS
        woken = notesleep(v, timeout);
        Py_END_ALLOW_THREADS
    }
    if (!woken && munput(v)) {
        if (PyErr_CheckSignals()) return NULL;
        Py_RETURN_FALSE;
    }
    if (!woken) {                                             /* a waker chose us: its hand-over comes */
        Py_BEGIN_ALLOW_THREADS
        while (!notesleep(v, -1)) continue;
        Py_END_ALLOW_THREADS
    }
    return PyBool_FromLong(mtake(v) != NULL);
}

/* A thread of an M other than its main one has drained something the scheduler must see. */
static PyObject *View_wake_self(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    if (MSTATE(atomic_load(&self_m(&self->v)->note)) == M_IDLE) want_p(&self->v, self->v.self);
    Py_RETURN_NONE;
}

/* ---------------------------------------------------------------- the coordinator's side */

/* attach(kind, pid) -> False if another process has this slot, or nobody wants this M any more. */
static PyObject *View_attach(View *self, PyObject *args) {
    CHECK(self);
    unsigned int kind, pid;
    if (!PyArg_ParseTuple(args, "II", &kind, &pid)) return NULL;
    struct m *m = self_m(&self->v);
    uint32_t was = 0;
    if (!atomic_compare_exchange_strong(&m->pid, &was, pid) && was != pid) Py_RETURN_FALSE;
    if (kind == KIND_M && MSTATE(atomic_load(&m->note)) != M_HANDED) {
        atomic_compare_exchange_strong(&m->pid, &pid, 0);     /* pid first, then the look; startm_failed does it reversed */
        Py_RETURN_FALSE;
    }
    store_rlx(&m->kind, kind);
    if (kind == KIND_CLIENT) atomic_store(&m->note, MWORD(M_RUNNING, 0, 0));
    Py_RETURN_TRUE;
}

/* sysmon_sleep() -> True if all is idle, and whoever takes a P sets the alarm */
static PyObject *View_sysmon_sleep(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    return PyBool_FromLong(sysmon_sleep(&self->v));
}

/* rescue(looks) -> looks: so many in a row have found work beside an idle P */
static PyObject *View_rescue(View *self, PyObject *arg) {
    CHECK(self);
    long looks = PyLong_AsLong(arg);
    if (PyErr_Occurred()) return NULL;
    return PyLong_FromLong(rescue(&self->v, (int)looks));
}

/* unfinished() -> how many Gs of all owners have not finished; looks at every slot */
static PyObject *View_unfinished(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    return PyLong_FromUnsignedLongLong(gunfinished(&self->v));
}

/* trim() -> bytes of free memory given back to the system; 0: all of it has been */
static PyObject *View_trim(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    uint64_t n;
    Py_BEGIN_ALLOW_THREADS
    n = heap_trim(&self->v);
    Py_END_ALLOW_THREADS
    return PyLong_FromUnsignedLongLong(n);
}

/* large() -> (how many large payloads there are, the bytes they take); looks at every block */
static PyObject *View_large(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    uint64_t bytes;
    uint32_t n = heap_shared(&self->v, &bytes);
    return Py_BuildValue("(IK)", n, (unsigned long long)bytes);
}

/* unmap(): closed, and its address space given back; in a forked child too.  Only where no other thread can sleep in it. */
static PyObject *View_unmap(View *self, PyObject *none) {
    (void)none;
    self->closed = 1;
    drop_futures(self);
    segment_unmap(&self->v);
    Py_RETURN_NONE;
}

/* unstart(m): the process of reserved M m cannot be made. */
static PyObject *View_unstart(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long m = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred()) return NULL;
    if (m < self->v.seg->max_ms) startm_failed(&self->v, (uint32_t)m);
    Py_RETURN_NONE;
}

/* holders() -> list of (m, pid, p, bound) of the Ms that hold a P; bound: as p, -1 to none */
static PyObject *View_holders(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    PyObject *out = PyList_New(0);
    for (uint32_t i = 0; out && i < self->v.seg->max_ms; i++) {
        struct m *m = &self->v.allm[i];
        uint32_t p = load_acq(&m->p), pid = load_acq(&m->pid);
        if (!p || !pid) continue;
        PyObject *x = Py_BuildValue("(IIii)", i, pid, (int)p - 1, (int)load_acq(&m->bound) - 1);
        if (!x || PyList_Append(out, x)) Py_CLEAR(out);
        Py_XDECREF(x);
    }
    return out;
}

/* set_bound(m, p) -> False if m does not hold p; p -1: to none */
static PyObject *View_set_bound(View *self, PyObject *args) {
    CHECK(self);
    unsigned int m;
    int p;
    if (!PyArg_ParseTuple(args, "Ii", &m, &p)) return NULL;
    if (m >= self->v.seg->nms) return PyErr_Format(PyExc_IndexError, "no M %u", m);
    atomic_store(&self->v.allm[m].bound, (uint32_t)(p + 1));
    return PyBool_FromLong(p < 0 || load_acq(&self->v.allm[m].p) == (uint32_t)p + 1);
}

/* executed(m) -> how many Gs the Ms of that slot have begun */
static PyObject *View_executed(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long m = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred()) return NULL;
    if (m >= self->v.seg->nms) return PyErr_Format(PyExc_IndexError, "no M %lu", m);
    return PyLong_FromUnsignedLongLong(load_acq(&self->v.allm[m].n_executed));
}

/* starting() -> the Ms that were reserved and have no process yet */
static PyObject *View_starting(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    PyObject *out = PyList_New(0);
    for (uint32_t i = 0; out && i < self->v.seg->max_ms; i++) {
        struct m *m = &self->v.allm[i];
        if (MSTATE(atomic_load(&m->note)) != M_HANDED || load_acq(&m->pid)) continue;
        PyObject *x = PyLong_FromUnsignedLong(i);
        if (!x || PyList_Append(out, x)) Py_CLEAR(out);
        Py_XDECREF(x);
    }
    return out;
}

/* m_started(m, pid): a process was made for it. */
static PyObject *View_m_started(View *self, PyObject *args) {
    CHECK(self);
    unsigned int m, pid;
    if (!PyArg_ParseTuple(args, "II", &m, &pid)) return NULL;
    if (m >= self->v.seg->max_ms) return PyErr_Format(PyExc_IndexError, "no M %u", m);
    uint32_t was = 0;
    int ours = atomic_compare_exchange_strong(&self->v.allm[m].pid, &was, pid) || was == pid;
    if (ours) atomic_fetch_add(&self->v.seg->ms_made, 1);
    return PyBool_FromLong(ours);
}

/* pids() -> list of (m, pid) of every M that has a process */
static PyObject *View_pids(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    PyObject *out = PyList_New(0);
    for (uint32_t i = 0; out && i < self->v.seg->max_ms; i++) {
        uint32_t pid = load_acq(&self->v.allm[i].pid), state = MSTATE(atomic_load(&self->v.allm[i].note));
        if (!pid || state == M_FREE || state == M_DEAD) continue;
        PyObject *x = Py_BuildValue("(II)", i, pid);
        if (!x || PyList_Append(out, x)) Py_CLEAR(out);
        Py_XDECREF(x);
    }
    return out;
}

/* start_m0() -> 0: m0 with allp[0], as schedinit leaves them */
static PyObject *View_start_m0(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    struct view *v = &self->v;
    struct p *p = pidleget(v);
    if (!p || p != v->allp) throw(v, "schedinit: P 0 is not idle");
    return PyBool_FromLong(startm(v, p, 0));
}

/* repair(m, how) -> how many Gs ended with it */
static PyObject *View_repair(View *self, PyObject *args) {
    CHECK(self);
    unsigned int m;
    PyObject *how;
    char *data;
    Py_ssize_t len;
    if (!PyArg_ParseTuple(args, "IO", &m, &how) || PyBytes_AsStringAndSize(how, &data, &len)) return NULL;
    if (m >= self->v.seg->nms) return PyErr_Format(PyExc_IndexError, "no M %u", m);
    return PyLong_FromUnsignedLong(repair(&self->v, m, data, (uint64_t)len));
}

/* adopt(m) -> slots of the dead m that are still in use; 0: its own slot is free again */
static PyObject *View_adopt(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long m = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred()) return NULL;
    uint32_t live = adopt(&self->v, (uint32_t)m);
    if (!live) mfree(&self->v, (uint32_t)m);
    return PyLong_FromUnsignedLong(live);
}

/* running(m) -> (goid, word) of the G it runs, for messages; None */
static PyObject *View_running(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long m = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred()) return NULL;
    uint64_t w = load_acq(&self->v.allm[m].curg);
    if (!w) Py_RETURN_NONE;
    return PyLong_FromUnsignedLongLong(self->v.allgs[gword_index(w)].goid);
}

static PyObject *View_closing(View *self, PyObject *const *a, Py_ssize_t n) {
    CHECK(self);
    struct sched *s = &self->v.seg->sched;
    if (n) {
        unsigned long to = PyLong_AsUnsignedLong(a[0]);
        if (PyErr_Occurred()) return NULL;
        atomic_store(&s->closing, (uint32_t)to);
        for (uint32_t i = 0; i < self->v.seg->nms; i++) inbox_kick(&self->v, i);
    }
    return PyLong_FromUnsignedLong(atomic_load(&s->closing));
}

static int put(PyObject *d, const char *key, unsigned long long x) {
    PyObject *o = PyLong_FromUnsignedLongLong(x);
    int e = o ? PyDict_SetItemString(d, key, o) : -1;
    Py_XDECREF(o);
    return e;
}

/* stats() -> dict of counters, summed over Ms, and the queues' lengths */
static PyObject *View_stats(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    struct view *v = &self->v;
    unsigned long long gs = 0, steals = 0, stolen = 0, parks = 0, global = 0, spawned = 0, collected = 0, ms = 0;
    for (uint32_t i = 0; i < v->seg->nms; i++) {
        struct m *m = &v->allm[i];
        gs += load_rlx(&m->n_executed), steals += load_rlx(&m->n_steals), stolen += load_rlx(&m->n_stolen);
        parks += load_rlx(&m->n_parks), global += load_rlx(&m->n_global);
        spawned += load_rlx(&m->n_spawned), collected += load_rlx(&m->n_collected);
        uint32_t state = MSTATE(load_rlx(&m->note));
        ms += i < v->seg->max_ms && state != M_FREE && state != M_DEAD;
    }
    PyObject *d = PyDict_New();
    PyObject *q = PyList_New(0);
    if (!d || !q || put(d, "gs", gs) || put(d, "steals", steals) || put(d, "stolen", stolen) ||
        put(d, "parks", parks) || put(d, "globals", global) || put(d, "num_g", spawned - collected) ||
        put(d, "gomaxprocs", v->seg->nprocs) || put(d, "idleprocs", npidle(v)) || put(d, "threads", ms) ||
        put(d, "spinningthreads", nmspinning(v)) || put(d, "idlethreads", nmidle(v)) ||
        put(d, "needspinning", atomic_load(&v->seg->sched.needspinning)) || put(d, "runqueue", globrunqsize(v)) ||
        put(d, "throws", atomic_load(&v->seg->sched.throws)) ||
        put(d, "rescues", atomic_load(&v->seg->sched.rescues)) ||
        put(d, "spawned", spawned) || put(d, "ms_made", atomic_load(&v->seg->ms_made))) {
        Py_XDECREF(d);
        Py_XDECREF(q);
        return NULL;
    }
    for (uint32_t i = 0; i < v->seg->nprocs; i++) {
        PyObject *x = PyLong_FromUnsignedLong(runqsize(&v->allp[i]));
        if (!x || PyList_Append(q, x)) {
            Py_XDECREF(x);
            Py_DECREF(d);
            Py_DECREF(q);
            return NULL;
        }
        Py_DECREF(x);
    }
    PyDict_SetItemString(d, "runq", q);
    Py_DECREF(q);
    return d;
}

static PyObject *View_get(View *self, void *what) {
    CHECK(self);
    struct view *v = &self->v;
    struct m *m = self_m(v);
    switch ((intptr_t)what) {
    case 0: return PyLong_FromUnsignedLong(v->seg->nprocs);
    case 1: return PyLong_FromUnsignedLong(v->seg->nps);
    case 2: return PyLong_FromUnsignedLong(v->seg->max_ms);
    case 3: return PyLong_FromLong((long)load_rlx(&m->p) - 1);
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
    default: return PyBool_FromLong(self->woke);
    }
}

#define NOARGS(name) {#name, (PyCFunction)View_##name, METH_NOARGS, NULL}
#define ONE(name) {#name, (PyCFunction)View_##name, METH_O, NULL}
#define ARGS(name) {#name, (PyCFunction)View_##name, METH_VARARGS, NULL}
#define FAST(name) {#name, (PyCFunction)(void (*)(void))View_##name, METH_FASTCALL, NULL}
static PyMethodDef methods[] = {
    ONE(tell_changes), NOARGS(look_for_changes), NOARGS(world_look), ONE(world_told), ONE(world_entered), ONE(world_of), ARGS(world_files),
    ONE(close), FAST(spawn), ONE(cancel), FAST(drain), NOARGS(sent), ONE(shown), ARGS(watch), ONE(publish_levels), NOARGS(new_levels),
    NOARGS(pending), NOARGS(inbox_empty), NOARGS(inbox_seq), ARGS(wait), NOARGS(kick), ONE(intern), ONE(function), ARGS(pack),
    NOARGS(trim), NOARGS(large),
    NOARGS(runqget), NOARGS(runqget_ring), ARGS(runqput), ONE(globrunqget), ONE(globrunqput), NOARGS(globrunqsize), ARGS(runqsteal), FAST(claim),
    NOARGS(schedtick), FAST(complete), ONE(gpark), ONE(gresume), ONE(dep_results), NOARGS(mstart), NOARGS(releasep),
    NOARGS(pidleget), ONE(handoffp), ONE(take_token), NOARGS(wakep), NOARGS(become_spinning), NOARGS(set_spinning),
    NOARGS(reset_spinning), NOARGS(is_spinning), NOARGS(needspinning), NOARGS(work_anywhere), ONE(spin), FAST(stopm),
    NOARGS(wake_self), NOARGS(unfinished), NOARGS(unmap), NOARGS(sysmon_sleep), ONE(rescue), ONE(unstart), NOARGS(holders), ARGS(set_bound),
    ONE(executed), NOARGS(pids), ARGS(attach), NOARGS(starting), ARGS(m_started), NOARGS(start_m0), ARGS(repair), ONE(adopt),
    ONE(running), FAST(closing), NOARGS(stats), {NULL, NULL, 0, NULL}};

#define GET(name, i) {name, (getter)View_get, NULL, NULL, (void *)(intptr_t)(i)}
static PyGetSetDef getset[] = {GET("nprocs", 0), GET("nps", 1), GET("max_ms", 2), GET("p", 3), GET("id", 4), GET("nslots", 5),
                               GET("runtime_id", 6), GET("npidle", 7), GET("outstanding", 8),
                               GET("woke", 9), GET("bound", 10), GET("bytes_out", 11), GET("heap_size", 12), GET("blocks_out", 13), GET("outputs", 14), {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot slots[] = {{Py_tp_new, View_new},
                              {Py_tp_dealloc, View_dealloc},
                              {Py_tp_methods, methods},
                              {Py_tp_getset, getset},
                              {0, NULL}};
static PyType_Spec spec = {"dgmp._core.native.View", sizeof(View), 0, Py_TPFLAGS_DEFAULT, slots};

/* become_subreaper(): orphans below this process become its children. */
static PyObject *become_subreaper(PyObject *mod, PyObject *none) {
    (void)mod, (void)none;
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)) return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

/* die_with_parent(): SIGKILL for this process when the thread that is its parent ends. */
static PyObject *die_with_parent(PyObject *mod, PyObject *none) {
    (void)mod, (void)none;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)) return PyErr_SetFromErrno(PyExc_OSError);
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

static PyMethodDef functions[] = {{"alarm", make_alarm, METH_NOARGS, NULL},
                                  {"inotify", make_inotify, METH_NOARGS, NULL},
                                  {"inotify_watch", inotify_watch, METH_VARARGS, NULL},
                                  {"receive", (PyCFunction)(void (*)(void))receive, METH_FASTCALL, NULL},
                                  {"become_subreaper", become_subreaper, METH_NOARGS, NULL},
                                  {"die_with_parent", die_with_parent, METH_NOARGS, NULL},
                                  {"create", (PyCFunction)(void (*)(void))create, METH_VARARGS | METH_KEYWORDS, NULL},
                                  {NULL, NULL, 0, NULL}};
static struct PyModuleDef def = {PyModuleDef_HEAD_INIT, "native", "The C11 core of dgmp.", -1, functions,
                                 NULL, NULL, NULL, NULL};

/* Where a world's lists are found: once, as these modules stay. */
static int name_in(PyObject *where[2], const char *module, const char *name) {
    PyObject *mod = PyImport_ImportModule(module);
    if (mod) where[0] = Py_XNewRef(PyModule_GetDict(mod));
    Py_XDECREF(mod);
    return mod && (where[1] = PyUnicode_InternFromString(name)) != NULL;
}
static int names_of_world(void) {
    if (sys_modules) return 1;
    if (!name_in(sys_path, "sys", "path") || !name_in(warnings_filters, "warnings", "filters")) return 0;
    sys_modules = Py_XNewRef(PyImport_GetModuleDict());
    return sys_modules != NULL;
}

PyMODINIT_FUNC PyInit_native(void) {
    static int registered;
    for (int i = 0; i < NNAMES; i++)
        if (!names[i] && !(names[i] = PyUnicode_InternFromString(texts[i]))) return NULL;
    if (!names_of_world()) return NULL;
    if (!finished && !(finished = PyLong_FromLong(1))) return NULL;
    PyObject *mod = PyModule_Create(&def), *type = mod ? PyType_FromSpec(&spec) : NULL;
    if (type && !Block_type) Block_type = PyType_FromSpec(&block_spec);
    if (!type || !Block_type || PyModule_AddObject(mod, "View", type) ||
        PyModule_AddObject(mod, "Block", Py_NewRef(Block_type)) ||
        PyModule_AddIntConstant(mod, "RESULT_VALUE", RESULT_VALUE) ||
        PyModule_AddIntConstant(mod, "RESULT_ERROR", RESULT_ERROR) ||
        PyModule_AddIntConstant(mod, "RESULT_WORKER_DIED", RESULT_WORKER_DIED) ||
        PyModule_AddIntConstant(mod, "RESULT_NO_MEMORY", RESULT_NO_MEMORY) ||
        PyModule_AddIntConstant(mod, "RESULT_NONE", RESULT_NONE) ||
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
