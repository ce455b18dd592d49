/* bind_observe.c: where Gs were spawned, and what every G, M and P is doing, for people; checkdead. */
#include "binding.h"

#include "checkdead.h"
#include "place.h"

#include <stdlib.h>

/* ---------------------------------------------------------------- places
 * What one instruction of a program spawns is called the same each time, so the numbers of its texts are remembered: by the
 * code object, which is kept lest another gets its address, the instruction, and the function's key in the function table or
 * else the label.  A few places of the table are tried for each; the first of them gives way. */
#define SITES 512
#define NEAR 4

struct site {
    PyObject *code, *label;           /* references; label NULL: the function says */
    long lasti;
    uint32_t fn, place;
};

void forget_sites(View *self) {
    for (uint32_t i = 0; self->sites && i < SITES; i++) {
        Py_CLEAR(self->sites[i].code);
        Py_CLEAR(self->sites[i].label);
    }
    free(self->sites);
    self->sites = NULL;
}

static int is_site(struct site *s, uint32_t fn, PyObject *code, long lasti, PyObject *label) {
    if (s->code != code || s->lasti != lasti) return 0;
    if (!s->label || !label) return s->label == label && s->fn == fn;
    return s->label == label || PyUnicode_Compare(s->label, label) == 0;
}

/* The number of a text, which is a str, or 0.  Leaves no exception. */
static uint32_t intern_text(View *self, PyObject *text, int rare) {
    PyObject *bytes = text ? PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace") : NULL;
    char *data;
    Py_ssize_t len;
    uint32_t number = 0;
    if (bytes && !PyBytes_AsStringAndSize(bytes, &data, &len)) number = place_intern(&self->v, data, (uint32_t)len, rare);
    Py_XDECREF(bytes);
    PyErr_Clear();
    return number;
}

/* One that is met for the first time: the Future says what and where it is. */
static int new_place(View *self, PyObject *future, PyObject *label, uint32_t *place) {
    PyObject *name = label ? Py_NewRef(label) : PyObject_GetAttrString(future, "_label");
    PyObject *spawned_at = name ? PyObject_GetAttrString(future, "spawned_at") : NULL;
    if (spawned_at) *place = PLACE(intern_text(self, name, label != NULL), intern_text(self, spawned_at, 0));
    Py_XDECREF(name);
    Py_XDECREF(spawned_at);
    return spawned_at ? 0 : -1;
}

/* The place of a G that is about to be spawned; label: a str, or None.  -1: an exception. */
int place_of(View *self, PyObject *future, uint32_t fn, PyObject *code, PyObject *instruction, PyObject *label,
             uint32_t *place) {
    *place = 0;
    long lasti = PyLong_AsLong(instruction);
    if (label == Py_None) label = NULL;
    else if (!PyUnicode_Check(label)) return PyErr_Format(PyExc_TypeError, "a label must be a str"), -1;
    Py_hash_t hash = label ? PyObject_Hash(label) : (Py_hash_t)fn;
    if ((lasti == -1 || hash == -1) && PyErr_Occurred()) return -1;
    if (!self->sites && !(self->sites = calloc(SITES, sizeof *self->sites))) return 0;
    uint64_t h = ((uint64_t)(uintptr_t)code >> 4 ^ (uint64_t)lasti << 20 ^ (uint64_t)hash << 32 ^ (uint64_t)hash) *
                 0x9e3779b97f4a7c15ull;
    uint32_t first = (uint32_t)(h >> 40);
    for (uint32_t i = 0; i < NEAR; i++) {
        struct site *s = &self->sites[(first + i) % SITES];
        if (is_site(s, fn, code, lasti, label)) return *place = s->place, 0;
    }
    if (new_place(self, future, label, place)) return -1;
    if (!self->sites) return 0;                               /* closed meanwhile */
    struct site *s = &self->sites[(first + self->sites_met++ % NEAR) % SITES];
    PyObject *was[2] = {s->code, s->label};
    s->code = Py_NewRef(code), s->label = Py_XNewRef(label), s->lasti = lasti, s->fn = fn, s->place = *place;
    Py_XDECREF(was[0]);
    Py_XDECREF(was[1]);
    return 0;
}

/* ---------------------------------------------------------------- what is going on */

/* Strings of texts, each made once. */
static PyObject *text_of(View *self, PyObject **texts, uint32_t number) {
    uint32_t len;
    if (!texts[number]) {
        const char *text = place_text(&self->v, number, &len);
        texts[number] = text ? PyUnicode_DecodeUTF8(text, (Py_ssize_t)len, "replace") : PyUnicode_FromString("");
    }
    return Py_XNewRef(texts[number]);
}

static PyObject *item(PyObject *tuple, uint32_t i) {
    PyObject *x = PyTuple_GetItem(tuple, i);
    return Py_XNewRef(x);
}

static PyObject *none_or(int is, unsigned long x) {
    if (is) return PyLong_FromUnsignedLong(x);
    Py_RETURN_NONE;
}

/* What `gs` has about one G; states, reasons, owners: words for them. */
static PyObject *g_tuple(View *self, struct g_seen *g, PyObject **texts, PyObject *states, PyObject *reasons,
                         PyObject *owners, uint64_t now) {
    struct view *v = &self->v;
    uint32_t status = GSTATUS(g->state), m = GM(g->state), why = g->wait_reason, nms = v->seg->nms;
    int gave_way = status == G_WAITING && (why == WHY_GOSCHED || why == WHY_PREEMPTED);
    int waits = status == G_WAITING && !gave_way;
    uint32_t reason = status == G_DEPS ? WHY_OTHER + (GATTEMPT(g->state) ? 2u : 1u) : waits ? why : WHY_NONE;
    PyObject *items[10] = {
        PyLong_FromUnsignedLongLong(g->goid),
        text_of(self, texts, PLACE_NAME(g->place)),
        item(states, gave_way ? G_RUNNABLE : status),
        item(reasons, reason),
        waits ? PyFloat_FromDouble(now > g->wait_since ? (double)(now - g->wait_since) * 1e-9 : 0.0) : none_or(0, 0),
        text_of(self, texts, PLACE_AT(g->place)),
        g->owner && g->owner <= nms ? item(owners, g->owner - 1) : PyUnicode_FromString(""),
        none_or(m < nms, m),
        none_or(m < nms, m < nms ? load_acq(&v->allm[m].pid) : 0),
        PyBool_FromLong(GATTEMPT(g->state) != 0)};
    PyObject *tuple = PyTuple_New(10);
    int e = !tuple;
    for (int i = 0; i < 10; i++) e |= !items[i];
    for (int i = 0; i < 10; i++) {
        if (e) Py_XDECREF(items[i]);
        else PyTuple_SetItem(tuple, i, items[i]);
    }
    if (e) Py_CLEAR(tuple);
    return tuple;
}

/* gs(states, reasons, owners) -> a list with a tuple for each G that has not been collected: (goid, name, state, wait reason,
 * seconds it has waited or None, where it was spawned, owner, M or None, its pid or None, whether it has been started).
 * states: words for G_DEAD and so on; reasons: for WHY_NONE and so on, and then for a G that waits for its arguments, and
 * for one that waits to be run again;
 * owners: for each process.  Stops nothing. */
static PyObject *View_gs(View *self, PyObject *const *a, Py_ssize_t n) {
    CHECK(self);
    if (n != 3) return PyErr_Format(PyExc_TypeError, "gs takes 3 arguments");
    struct view *v = &self->v;
    PyObject **texts = calloc(PLACE_TEXTS, sizeof *texts), *out = PyList_New(0);
    if (!texts) PyErr_NoMemory();
    uint64_t top = load_acq(&v->seg->gfree.next), now = (uint64_t)nanotime();
    for (uint32_t i = 0; texts && out && i < top; i++) {
        struct g_seen g;
        gread(v, i, &g);
        uint32_t status = GSTATUS(g.state);
        if (status == G_DEAD || status == G_ALLOCATED || status == G_COLLECTED) continue;
        PyObject *x = g_tuple(self, &g, texts, a[0], a[1], a[2], now);
        if (!x || PyList_Append(out, x)) Py_CLEAR(out);
        Py_XDECREF(x);
    }
    for (uint32_t i = 0; texts && i < PLACE_TEXTS; i++) Py_XDECREF(texts[i]);
    free(texts);
    return texts ? out : (Py_XDECREF(out), NULL);
}

/* The goid of a word; 0 none. */
static unsigned long long goid_of(struct view *v, uint64_t w) {
    return w && !(w & GWORD_TOKEN) ? __atomic_load_n(&v->allgs[gword_index(w)].goid, __ATOMIC_RELAXED) : 0;
}

/* ms() -> (number, pid, state M_*, P or -1, goid of the running G or 0, P to whose core it is bound or -1, threads of ours)
 * of each M that has a process */
static PyObject *View_ms(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    struct view *v = &self->v;
    PyObject *out = PyList_New(0);
    for (uint32_t i = 0; out && i < v->seg->max_ms; i++) {
        struct m *m = &v->allm[i];
        uint32_t pid = load_acq(&m->pid), state = MSTATE(atomic_load(&m->note));
        if (!pid || state == M_FREE || state == M_DEAD) continue;
        PyObject *x = Py_BuildValue("(IIIiKiI)", i, pid, state, (int)load_acq(&m->p) - 1, goid_of(v, load_acq(&m->curg)),
                                    (int)load_acq(&m->bound) - 1, load_acq(&m->own_threads));
        if (!x || PyList_Append(out, x)) Py_CLEAR(out);
        Py_XDECREF(x);
    }
    return out;
}

static const char *p_state(uint32_t state) {
    switch (state) {
    case P_IDLE: return "idle";
    case P_RUNNING: return "running";
    case P_SYSCALL: return "syscall";
    case P_GCSTOP: return "gcstop";
    case P_CLIENT: return "client";
    default: return "unknown";
    }
}

/* ps() -> (number, state, M or -1, words in its ring, goid of runnext or 0, schedtick) of each P; "client": of a client */
static PyObject *View_ps(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    struct view *v = &self->v;
    PyObject *out = PyList_New(0);
    for (uint32_t i = 0; out && i < v->seg->nps; i++) {
        struct p *p = &v->allp[i];
        uint64_t own = atomic_load(&p->own), next = load_acq(&p->runnext);
        if (i >= v->seg->nprocs && OWN_STATE(own) != P_CLIENT) continue;
        uint64_t head = load_acq(&p->head), tail = load_acq(&p->tail);
        PyObject *x = Py_BuildValue("(IsiKKK)", i, p_state(OWN_STATE(own)), OWN_M(own) == NONE ? -1 : (int)OWN_M(own),
                                    (unsigned long long)(tail > head ? tail - head : 0), goid_of(v, next),
                                    (unsigned long long)load_rlx(&p->schedtick));
        if (!x || PyList_Append(out, x)) Py_CLEAR(out);
        Py_XDECREF(x);
    }
    return out;
}

/* checkdead() -> 0 if something runs or can come, as far as the segment says; else a number that is another one once
 * anything has happened.  See checkdead.c. */
static PyObject *View_checkdead(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    return PyLong_FromUnsignedLongLong(checkdead(&self->v));
}

/* deadlocked(word, text) -> False if that G waits no more: it is to raise what the function table has at text. */
static PyObject *View_deadlocked(View *self, PyObject *args) {
    CHECK(self);
    unsigned long long w;
    unsigned int text;
    if (!PyArg_ParseTuple(args, "KI", &w, &text)) return NULL;
    return PyBool_FromLong(gdeadlocked(&self->v, w, text));
}

/* told_deadlock(word) -> the text that our G is to raise, once; 0 none */
static PyObject *View_told_deadlock(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long long w = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    return PyLong_FromUnsignedLong(gtold_deadlock(&self->v, w));
}

/* own_threads(n): so many more threads of this process, or fewer, run no user code now. */
static PyObject *View_own_threads(View *self, PyObject *arg) {
    CHECK(self);
    long n = PyLong_AsLong(arg);
    if (PyErr_Occurred()) return NULL;
    atomic_fetch_add(&self_m(&self->v)->own_threads, (uint32_t)n);
    Py_RETURN_NONE;
}

/* can_be_woken(is): a signal handler of user code may wake this M, or none can any more. */
static PyObject *View_can_be_woken(View *self, PyObject *arg) {
    self->handlers = arg == Py_True;
    Py_RETURN_NONE;
}

PyMethodDef observe_methods[] = {
    FAST(gs), NOARGS(ms), NOARGS(ps), NOARGS(checkdead), ARGS(deadlocked), ONE(told_deadlock), ONE(own_threads),
    ONE(can_be_woken), {NULL, NULL, 0, NULL}};
