/* bind_coordinator.c: the coordinator's side, and attaching. */
#include "binding.h"
#include "retake.h"

#include <stdlib.h>

/* attach(kind, pid[, client]) -> False if another process has this slot, or nobody wants this M any more.  client: the number
 * of one that joins a node that others have booted. */
static PyObject *View_attach(View *self, PyObject *args) {
    CHECK(self);
    unsigned int kind, pid;
    if (!PyArg_ParseTuple(args, "II|I", &kind, &pid, &self->world.client)) return NULL;
    struct m *m = self_m(&self->v);
    uint32_t was = 0;
    if (!atomic_compare_exchange_strong(&m->pid, &was, pid) && was != pid) Py_RETURN_FALSE;
    if (kind == KIND_M && MSTATE(atomic_load(&m->note)) != M_HANDED) {
        atomic_compare_exchange_strong(&m->pid, &pid, 0);     /* pid first, then the look; startm_failed does it reversed */
        Py_RETURN_FALSE;
    }
    store_rlx(&m->kind, kind);
    store_rlx(&m->own_threads, 0);
    killpoints_arm(&self->v, kind);
    if (kind == KIND_CLIENT) atomic_store(&m->note, MWORD(M_RUNNING, 0, MLIFE(load_rlx(&m->note))));
    Py_RETURN_TRUE;
}

/* admit(m, pid, client): that process is about to attach, as m; Gs that work for it may run. */
static PyObject *View_admit(View *self, PyObject *args) {
    CHECK(self);
    unsigned int m, pid, client;
    if (!PyArg_ParseTuple(args, "III", &m, &pid, &client)) return NULL;
    if (m >= self->v.seg->nms || m <= coordinator_of(&self->v) || m != self->v.seg->max_ms + CLIENT_SLOT(client))
        return PyErr_Format(PyExc_IndexError, "no client %u can be %u", client, m);
    atomic_store(&self->v.allm[m].pid, pid);
    store_rlx(&self->v.allm[m].kind, KIND_CLIENT);
    atomic_store(&self->v.allm[m].client, client);
    Py_RETURN_NONE;
}

/* dismiss(client): no G that works for it begins from here on. */
static PyObject *View_dismiss(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long client = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred()) return NULL;
    if (client && client_lives(&self->v, (uint32_t)client))
        atomic_store(&self->v.allm[self->v.seg->max_ms + CLIENT_SLOT(client)].client, 0);
    Py_RETURN_NONE;
}

/* clients() -> how many have attached */
static PyObject *View_clients(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    long n = 0;
    for (uint32_t i = coordinator_of(&self->v) + 1; i < self->v.seg->nms; i++) n += load_acq(&self->v.allm[i].client) != 0;
    return PyLong_FromLong(n);
}

/* started_for(client) -> [(word, its M, that one's pid, whether it is the client's own)] of the started Gs that work for it and
 * have not been asked to end */
static PyObject *View_started_for(View *self, PyObject *arg) {
    CHECK(self);
    struct view *v = &self->v;
    unsigned long client = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred()) return NULL;
    PyObject *out = PyList_New(0);
    for (uint32_t i = 0; out && i < load_acq(&v->seg->gfree.next); i++) {
        struct g *g = &v->allgs[i];
        uint64_t s = load_acq(&g->state);
        if ((GSTATUS(s) != G_RUNNING && GSTATUS(s) != G_WAITING) || load_acq(&g->client) != client ||
            load_acq(&g->flags) & G_ASKED)
            continue;
        int own = load_acq(&g->owner) == v->seg->max_ms + CLIENT_SLOT(client) + 1;
        PyObject *x = Py_BuildValue("(KIIO)", (unsigned long long)gword(i, GGEN(s)), GM(s), load_acq(&v->allm[GM(s)].pid),
                                    own ? Py_True : Py_False);
        if (!x || PyList_Append(out, x)) Py_CLEAR(out);
        Py_XDECREF(x);
    }
    return out;
}

/* ask_started(word) -> whether that G, started and not ended, has been asked to end.  Its owner is dead, or its M stopped. */
static PyObject *View_ask_started(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long long w = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    return PyBool_FromLong(gask(&self->v, w));
}

/* be_coordinator(): the calling thread is the coordinator's main one, and the others learn of its end. */
static PyObject *View_be_coordinator(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    live(&self->v, &self->v.seg->coordinator);
    Py_RETURN_NONE;
}

/* coordinator_died() -> whether it has, by any death; None: it has not begun.  In a closed view: True. */
static PyObject *View_coordinator_died(View *self, PyObject *none) {
    (void)none;
    int died = self->closed ? 1 : self->v.forked ? 0 : has_died(&self->v.seg->coordinator);
    if (died < 0) Py_RETURN_NONE;
    return PyBool_FromLong(died);
}

/* works() -> whether it is open, in no forked child, and has a coordinator; not before that has begun */
static PyObject *View_works(View *self, PyObject *none) {
    (void)none;
    return PyBool_FromLong(!self->closed && !self->v.forked && !has_died(&self->v.seg->coordinator));
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

/* unfinished([client]) -> how many Gs that work for a client, by default for ours, have not finished; looks at every slot */
static PyObject *View_unfinished(View *self, PyObject *const *a, Py_ssize_t n) {
    CHECK(self);
    unsigned long client = n ? PyLong_AsUnsignedLong(a[0]) : self->world.client;
    if (PyErr_Occurred()) return NULL;
    return PyLong_FromUnsignedLongLong(gunfinished(&self->v, (uint32_t)client));
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
        uint32_t p = (uint32_t)holds_p(&self->v, i), pid = load_acq(&m->pid);
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

/* start_m0() -> whether an M was woken or asked for: m0 with allp[0], as schedinit leaves them, but where a client that has
 * attached was faster */
static PyObject *View_start_m0(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    struct view *v = &self->v;
    struct p *p = pidleget(v);
    if (p != v->allp && v->seg->nms == coordinator_of(v) + 1) throw(v, "schedinit: P 0 is not idle");
    return PyBool_FromLong(p && startm(v, p, 0));
}

/* last_said(m) -> the last that M m has written to its stderr, bytes */
static PyObject *View_last_said(View *self, PyObject *arg) {
    CHECK(self);
    char bytes[SAID_BYTES];
    unsigned long m = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred()) return NULL;
    if (m >= self->v.seg->max_ms) return PyErr_Format(PyExc_IndexError, "no M %lu", m);
    uint64_t n = said_last(&self->v, (uint32_t)m, bytes);
    return PyBytes_FromStringAndSize(bytes, (Py_ssize_t)n);
}

/* retire(m): it shall end between two Gs, once nothing needs it any more. */
static PyObject *View_retire(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long m = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred()) return NULL;
    if (m >= self->v.seg->max_ms) return PyErr_Format(PyExc_IndexError, "no M %lu", m);
    retire_ask(&self->v, (uint32_t)m);
    Py_RETURN_NONE;
}

/* repair(m): that process is dead.  What becomes of its victims is for the coordinator to say. */
static PyObject *View_repair(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long m = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred()) return NULL;
    if (m >= self->v.seg->nms) return PyErr_Format(PyExc_IndexError, "no M %lu", m);
    repair(&self->v, (uint32_t)m);
    Py_RETURN_NONE;
}

PyObject *terms_of(struct view *v, struct g *g) {
    struct terms *terms = gterms(v, g);
    if (!terms) Py_RETURN_NONE;
    uint64_t size = terms->size;                              /* of a G that is not ours it may be anything by now */
    return PyBytes_FromStringAndSize((char *)terms, size < 4096 ? (Py_ssize_t)size : 0);
}

static int lives(struct view *v, uint32_t m) {
    return m >= v->seg->max_ms || MSTATE(load_acq(&v->allm[m].note)) != M_DEAD;
}

/* victims(m) -> [(word, goid, whether it ran, attempt, flags, terms or None, whether its owner lives)] of the Gs that were
 * started on the dead M m, after its repair */
static PyObject *View_victims(View *self, PyObject *arg) {
    CHECK(self);
    struct view *v = &self->v;
    unsigned long m = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred()) return NULL;
    PyObject *out = PyList_New(0);
    for (uint32_t i = 0; out && i < load_acq(&v->seg->gfree.next); i++) {
        if (!is_victim(v, (uint32_t)m, i)) continue;
        struct g *g = &v->allgs[i];
        uint64_t s = load_acq(&g->state);
        uint32_t owner = load_acq(&g->owner);
        uint64_t step = load_acq(&v->allm[m].step);
        int ran = step ? step == gword(i, GGEN(s)) : GSTATUS(s) != G_WAITING;
        PyObject *x = Py_BuildValue("(KKOIINO)", (unsigned long long)gword(i, GGEN(s)), (unsigned long long)g->goid,
                                    ran ? Py_True : Py_False, GATTEMPT(s), load_acq(&g->flags),
                                    terms_of(v, g), owner && owner != m + 1 && lives(v, owner - 1) ? Py_True : Py_False);
        if (!x || PyList_Append(out, x)) Py_CLEAR(out);
        Py_XDECREF(x);
    }
    return out;
}

/* end_victim(m, word, kind, data): it ends so. */
static PyObject *View_end_victim(View *self, PyObject *args) {
    CHECK(self);
    unsigned int m, kind;
    unsigned long long w;
    PyObject *data;
    char *bytes;
    Py_ssize_t len;
    if (!PyArg_ParseTuple(args, "IKIO", &m, &w, &kind, &data) || PyBytes_AsStringAndSize(data, &bytes, &len)) return NULL;
    victim_ends(&self->v, m, w, kind, bytes, (uint64_t)len);
    Py_RETURN_NONE;
}

/* rerun_victim(m, word, at): it is run again, not before `at` (ns) unless that is 0. */
static PyObject *View_rerun_victim(View *self, PyObject *args) {
    CHECK(self);
    unsigned int m;
    unsigned long long w, at;
    if (!PyArg_ParseTuple(args, "IKK", &m, &w, &at)) return NULL;
    victim_again(&self->v, m, w, at);
    Py_RETURN_NONE;
}

/* told() -> [(word, when it is to be run again or 0)] of Gs of which somebody has told us since: they wait to be run again, or
 * have been asked to end */
static PyObject *View_told_of(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    struct view *v = &self->v;
    PyObject *out = PyList_New(0);
    for (uint64_t w; out && (w = inbox_peek(v, v->self)) != 0; inbox_drop(v, v->self)) {
        struct g *g = &v->allgs[gword_index(w)];
        struct terms *terms = gterms(v, g);
        uint64_t s = load_acq(&g->state);
        int waits = terms && GSTATUS(s) == G_DEPS && GGEN(s) == gword_gen(w);
        PyObject *x = Py_BuildValue("(KK)", (unsigned long long)w, (unsigned long long)(waits ? load_acq(&terms->again) : 0));
        if (!x || PyList_Append(out, x)) Py_CLEAR(out);
        Py_XDECREF(x);
    }
    return out;
}

/* due(word) -> whether it waited to be run again, which it is */
static PyObject *View_due(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long long w = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    return PyBool_FromLong(gdue(&self->v, w));
}

/* started(word) -> (m, its pid, whether it runs right now, flags, attempt, terms or None) if that G is started and has not
 * ended; else None */
static PyObject *View_started(View *self, PyObject *arg) {
    CHECK(self);
    struct view *v = &self->v;
    unsigned long long w = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    struct g *g = &v->allgs[gword_index(w)];
    uint64_t s = atomic_load(&g->state);
    uint32_t m = GM(s), flags = load_acq(&g->flags);
    if (GGEN(s) != gword_gen(w) || (GSTATUS(s) != G_RUNNING && GSTATUS(s) != G_WAITING)) Py_RETURN_NONE;
    PyObject *terms = terms_of(v, g);
    int runs = running_on(&v->allm[m]) == w;
    uint64_t now = atomic_load(&g->state);
    if (GGEN(now) != GGEN(s) || GATTEMPT(now) != GATTEMPT(s) || GM(now) != m) {  /* the terms may be another's */
        Py_XDECREF(terms);
        Py_RETURN_NONE;
    }
    return Py_BuildValue("(IIOIIN)", m, load_acq(&v->allm[m].pid), runs ? Py_True : Py_False, flags, GATTEMPT(s), terms);
}

/* late(now) -> ([(m, word)] of running Gs whose time is up, when the next one's is or 0).  Who begins one with less time, or any
 * if that is 0, wakes us (limited). */
static PyObject *View_late(View *self, PyObject *arg) {
    CHECK(self);
    struct view *v = &self->v;
    unsigned long long now = PyLong_AsUnsignedLongLong(arg), next = 0;
    if (PyErr_Occurred()) return NULL;
    PyObject *out = PyList_New(0);
    atomic_store(&v->seg->sched.limits_at, 0);
    for (uint32_t i = 0; out && i < v->seg->max_ms; i++) {
        uint64_t w = running_on(&v->allm[i]);
        struct g *g = &v->allgs[gword_index(w)];
        uint64_t s = w ? atomic_load(&g->state) : 0;
        struct terms *terms = w ? gterms(v, g) : NULL;
        uint64_t ends = terms ? atomic_load(&terms->ends) : 0;
        if (!ends || (GSTATUS(s) != G_RUNNING && GSTATUS(s) != G_WAITING) || GGEN(s) != gword_gen(w) ||
            atomic_load(&g->state) != s)
            continue;
        if (ends > now) {
            if (!next || ends < next) next = ends;
            continue;
        }
        PyObject *x = Py_BuildValue("(IK)", i, (unsigned long long)w);
        if (!x || PyList_Append(out, x)) Py_CLEAR(out);
        Py_XDECREF(x);
    }
    atomic_store(&v->seg->sched.limits_at, next);
    return out ? Py_BuildValue("(NK)", out, next) : NULL;
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
    uint64_t w = running_on(&self->v.allm[m]);
    if (!w) Py_RETURN_NONE;
    return PyLong_FromUnsignedLongLong(self->v.allgs[gword_index(w)].goid);
}

/* running_word(m) -> the word of the G it runs, 0 none */
static PyObject *View_running_word(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long m = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred()) return NULL;
    return PyLong_FromUnsignedLongLong(running_on(&self->v.allm[m]));
}

/* alive(word) -> whether that G has not ended */
static PyObject *View_alive(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long long w = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    uint64_t s = load_acq(&self->v.allgs[gword_index(w)].state);
    return PyBool_FromLong(GGEN(s) == gword_gen(w) && GSTATUS(s) >= G_DEPS && GSTATUS(s) <= G_COMPLETING);
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

PyMethodDef coordinator_methods[] = {
    ARGS(attach), ARGS(admit), ONE(dismiss), NOARGS(clients), ONE(started_for), ONE(ask_started), NOARGS(be_coordinator), NOARGS(coordinator_died), NOARGS(works), NOARGS(sysmon_sleep), ONE(rescue),
    FAST(unfinished), NOARGS(trim), NOARGS(large), NOARGS(unmap),
    ONE(unstart), NOARGS(holders), ARGS(set_bound), ONE(executed), NOARGS(starting), ARGS(m_started), NOARGS(pids),
    NOARGS(start_m0), ONE(retire), ONE(last_said), ONE(repair), ONE(victims), ARGS(end_victim), ARGS(rerun_victim), NOARGS(told_of), ONE(due),
    ONE(started), ONE(late), ONE(adopt), ONE(running), ONE(running_word), ONE(alive), FAST(closing), NOARGS(stats), {NULL, NULL, 0, NULL}};
