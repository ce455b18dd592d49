/* bind_spawn.c: spawning and collecting Gs, waiting for them, and the function table. */
#include "binding.h"
#include "retake.h"

#include <errno.h>
#include <string.h>

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
static struct g *fill(View *self, uint32_t *index, PyObject *call, Py_ssize_t ndeps, PyObject *terms) {
    struct view *v = &self->v;
    char *data = NULL, *said = NULL;
    Py_ssize_t len = 0, nsaid = 0;
    if (terms != Py_None && PyBytes_AsStringAndSize(terms, &said, &nsaid)) return NULL;
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
    if (!e && said) {
        uint64_t block = heap_alloc(v, (uint64_t)nsaid);
        e = !block;
        if (block) {
            memcpy(at(v, block), said, (size_t)nsaid);
            store_rel(&g->terms, block);
            heap_use(v, block);
        }
    }
    if (e) {
        if (deps) heap_free(v, deps);
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
    store_rlx(&g->client, self->world.client);
    return g;
}

/* Into the ring of our P, a client's its own; in user code only if we can take that back.  0: there is none. */
static int put_local(struct view *v, uint64_t w, int next) {
    struct m *m = self_m(v);
    if (load_rlx(&m->kind) == KIND_CLIENT) {
        runqput(v, &v->allp[v->self - v->seg->max_ms + MAX_PS], w, next);
        return 1;
    }
    int in_user_code = load_rlx(&m->syscall) != 0;
    if (exitsyscallfast(v) != P_HELD) return 0;
    runqput(v, &v->allp[load_rlx(&m->p) - 1], w, next);
    if (in_user_code) entersyscall(v);
    return 1;
}

/* spawn(future, fn, args, where, deps[, code, lasti, label, terms]), args bytes or a Block -> True; None when every slot is taken,
 * or the coordinator is dead;
 * False when one of deps has been collected since the caller looked.
 * where: 0 the global queue, 1 our ring's tail, 2 our runnext, 3 the global queue without a wake-up (the main G: m0
 * finds it, and nobody else runs yet).
 * code, lasti: the instruction that spawns; label: what the G is called, None: as its function, which has the key fn;
 * terms: None, or bytes (ship.terms). */
static PyObject *View_spawn(View *self, PyObject *const *a, Py_ssize_t n) {
    CHECK(self);
    struct view *v = &self->v;
    if (n != 5 && n != 9) return PyErr_Format(PyExc_TypeError, "spawn takes 5 or 9 arguments");
    if (load_rlx(&self_m(v)->kind) == KIND_CLIENT && has_died(&v->seg->coordinator) > 0) Py_RETURN_NONE;
    if (self->act && act_first(self)) return NULL;
    unsigned long fn = PyLong_AsUnsignedLong(a[1]);
    long where = PyLong_AsLong(a[3]);
    Py_ssize_t ndeps = a[4] == Py_None ? 0 : PyTuple_Size(a[4]);
    uint32_t index, place = 0;
    if (PyErr_Occurred() || (n == 9 && place_of(self, a[0], (uint32_t)fn, a[5], a[6], a[7], &place))) return NULL;
    if (ndeps && !still_there(self, a[4], ndeps)) Py_RETURN_FALSE;
    struct g *g = fill(self, &index, a[2], ndeps, n == 9 ? a[8] : Py_None);
    if (!g) {
        if (PyErr_Occurred()) return NULL;
        Py_RETURN_NONE;
    }
    g->fn = (uint32_t)fn;
    store_rlx(&g->place, place);
    uint64_t s = load_rlx(&g->state), w = gword(index, GGEN(s));
    PyObject *word = PyLong_FromUnsignedLongLong(w);
    if (!word || PyObject_SetAttr(a[0], names[N_WORD], word)) {
        Py_XDECREF(word);
        gdiscard(v, index);
        return NULL;
    }
    Py_DECREF(word);
    if (g->args) block_travels(self, g, g->args, g->args_len);
    else travels(self, g, g->inline_args, g->args_len);
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
    if (where == 0 || where == 3 || !put_local(v, w, where == 2)) globrunqput(v, w);
    self->woke = where != 3 && wakep(v);
    if (self->told.path.list) world_spawned(&self->world);
    Py_RETURN_TRUE;
}

static int is_ours(View *self, uint64_t w) {
    uint32_t index = gword_index(w);
    return (w & GWORD_FULL) && index < self->nslots && self->slots[index].future;
}

/* cancel(word) -> True if it was a G of ours that nobody had begun: it ends as cancelled, and its Future is drained as usual.
 * 0: one that was never spawned. */
static PyObject *View_cancel(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long long w = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    return PyBool_FromLong(is_ours(self, w) && gcancel(&self->v, w));
}

/* ask(word) -> True if it is a started G of ours that has not ended: it has been asked to. */
static PyObject *View_ask(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long long w = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    int asked = is_ours(self, w) ? gask(&self->v, w) : 0;
    if (asked == 1) tell_coordinator(&self->v, w);                 /* who sees to it that it does */
    return PyBool_FromLong(asked);
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

/* A started G of this M's is told that it may go on. */
static int is_readied(struct view *v, uint64_t w) {
    uint64_t s = load_acq(&v->allgs[gword_index(w)].state);
    return !(w & GWORD_TOKEN) && GGEN(s) == gword_gen(w) && GM(s) == v->self &&
           (GSTATUS(s) == G_WAITING || GSTATUS(s) == G_RUNNING);
}

/* See View_drain; any number with an exception. */
long long drain(View *self, PyObject *tell, uint64_t written_to) {
    struct view *v = &self->v;
    uint64_t first;
    int is_m = load_rlx(&self_m(v)->kind) == KIND_M;
    long long n = 0;
    if (v->nreadied && PyThread_get_thread_ident() == self->main_thread) {
        PyObject *readied = take_readied(self);
        Py_ssize_t more = readied ? PyList_Size(readied) : -1, end = readied ? PyList_Size(tell) : 0;
        int e = !readied || PyList_SetSlice(tell, end, end, readied);
        Py_XDECREF(readied);
        if (e) return 0;
        n = more;
    }
    for (uint64_t w; (w = inbox_peek(v, v->self)) != 0;) {
        if (!is_m && (first = output_first(self, written_to)) != 0)
            return n ? n : -(long long)first;
        uint32_t index = gword_index(w);
        struct g *g = &v->allgs[index];
        struct slot *slot = index < self->nslots ? &self->slots[index] : NULL;
        PyObject *data = NULL;
        int ours = slot && slot->future && !slot->drained && gdone(v, w);
        if (ours && !(data = result_of(self, g))) return 0;  /* the word is still there */
        uint64_t nobjects = 0;
        PyObject **objects = ours ? result_handles(self, g, &nobjects) : NULL;
        ours = ours && gcollect(v, w);
        if (is_m && !ours && is_readied(v, w)) {
            PyObject *word = PyLong_FromUnsignedLongLong(w);
            if (!word || PyList_Append(tell, word)) {         /* the word is still there */
                Py_XDECREF(word);
                Py_XDECREF(data);
                return 0;
            }
            Py_DECREF(word);
            n++;
        }
        inbox_drop(v, v->self);
        if (!ours) {                                          /* told twice */
            Py_XDECREF(data);
            free_handles(objects, nobjects);
            continue;
        }
        PyObject *future = slot->future;
        unsigned long kind = g->result_kind;
        if (g->args && is_shared(v, g->args)) self->blocks_out--, self->bytes_out -= g->args_len;
        slot->future = NULL;
        let_go(self, index);
        self->outstanding--, n++;
        if (objects) data = with_handles(data, objects, nobjects);
        int e = !data || finish(future, kind, data);
        PyObject *then = e ? NULL : PyObject_GetAttr(future, names[N_THEN]);
        if (!then || (then != Py_None && PyList_Append(tell, future))) e = 1;
        Py_XDECREF(then);
        Py_XDECREF(data);
        Py_DECREF(future);
        if (e) return 0;
    }
    return n;
}

/* drain(tell, written_to) -> how many Gs of ours were finished, or readied.  Their results are set in their Futures, and such
 * as have something in _then are appended to the list `tell`; their slots are dead again.  So are the words of started Gs of
 * this M that can go on.
 * Or, in a client, a negative number, and nothing is finished: it has to write first what Ms have sent, then calls with minus
 * that number. */
static PyObject *View_drain(View *self, PyObject *const *a, Py_ssize_t nargs) {
    CHECK(self);
    if (nargs != 2) return PyErr_Format(PyExc_TypeError, "drain takes 2 arguments");
    uint64_t written_to = PyLong_AsUnsignedLongLong(a[1]);
    long long n = PyErr_Occurred() ? 0 : drain(self, a[0], written_to);
    return PyErr_Occurred() ? NULL : PyLong_FromLongLong(n);
}

/* pending() -> the Futures of ours that have not finished */
static PyObject *View_pending(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    return pending_futures(self);
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

static int fn_full(struct view *v) {
    for (uint32_t i = 1; i < v->seg->nfns; i++)
        if (!load_acq(&v->fns[i].hash)) return 0;
    return 1;
}

static PyObject *View_intern(View *self, PyObject *arg) {
    CHECK(self);
    char *data;
    Py_ssize_t len;
    uint32_t index;
    if (PyBytes_AsStringAndSize(arg, &data, &len)) return NULL;
    if (!fn_intern(&self->v, fn_hash(data, (uint64_t)len), data, (uint64_t)len, &index))
        return PyErr_Format(PyExc_MemoryError, fn_full(&self->v) ? "the runtime's function table, of %u entries, is full"
                                                                 : "the runtime's shared memory has no room for a function",
                            self->v.seg->nfns);
    travels(self, NULL, data, (uint64_t)len);
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

PyMethodDef spawn_methods[] = {
    FAST(spawn), ONE(cancel), ONE(ask), FAST(drain), NOARGS(pending), NOARGS(inbox_empty), NOARGS(inbox_seq), ARGS(wait),
    NOARGS(kick), NOARGS(sent), ONE(shown), ONE(publish_levels), NOARGS(new_levels), ONE(intern), ONE(function), {NULL, NULL, 0, NULL}};
