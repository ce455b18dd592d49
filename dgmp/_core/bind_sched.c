/* bind_sched.c: the M's side: queues, claiming and completing Gs, Ps. */
#include "binding.h"
#include "retake.h"

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

static uint64_t steal_from(View *self, struct p *p, uint32_t victim, int next, uint32_t max) {
    struct view *v = &self->v;
    struct m *m = self_m(v);
    uint32_t n;
    uint64_t w = runqsteal(v, p, &v->allp[victim], next, max, &n);
    if (!w) return 0;
    store_rlx(&m->n_steals, load_rlx(&m->n_steals) + 1);
    store_rlx(&m->n_stolen, load_rlx(&m->n_stolen) + n);
    return w;
}

/* runqsteal(victim, steal_runnext, max) -> word or None; max 0: no bound */
static PyObject *View_runqsteal(View *self, PyObject *args) {
    CHECK(self);
    unsigned int victim, max;
    int next;
    if (!PyArg_ParseTuple(args, "IpI", &victim, &next, &max)) return NULL;
    struct p *p = own_p(self);
    if (!p) return NULL;
    if (victim >= self->v.seg->nps) return PyErr_Format(PyExc_IndexError, "no P %u", victim);
    return word_or_none(steal_from(self, p, victim, next, max));
}

/* steal_round(begin, step, steal_runnext, max) -> word or None: from the first P that has something, of all Ps and the clients'
 * behind them, from that one on in such steps; at most max from a client's. */
static PyObject *View_steal_round(View *self, PyObject *args) {
    CHECK(self);
    struct view *v = &self->v;
    unsigned int pos, step, max;
    int next;
    if (!PyArg_ParseTuple(args, "IIpI", &pos, &step, &next, &max)) return NULL;
    struct p *p = own_p(self);
    if (!p) return NULL;
    uint32_t procs = v->seg->nprocs, n = procs + v->seg->nps - MAX_PS;
    uint64_t w = 0;
    for (uint32_t i = 0; i < n && !w; i++, pos = (uint32_t)(((uint64_t)pos + step) % n)) {
        pos %= n;                                             /* there may be fewer now */
        uint32_t victim = pos < procs ? pos : pos - procs + MAX_PS;
        if (p != &v->allp[victim]) w = steal_from(self, p, victim, next, pos < procs ? 0 : max);
    }
    return word_or_none(w);
}

/* Those of our started Gs that can go on wait while another runs: sysmon may see to it that it gives way. */
static void publish_ready(View *self) {
    if (!self->ready) return;
    uint32_t n = (uint32_t)(PyObject_Size(self->ready) + PyObject_Size(self->yielded));
    struct m *m = self_m(&self->v);
    if (n == load_rlx(&m->ready)) return;
    atomic_store(&m->ready, n);
    if (n) sysmon_soon(&self->v);
}

/* next_timer(ns): when the first of our Gs that sleep is to go on; 0: none does. */
static PyObject *View_next_timer(View *self, PyObject *arg) {
    CHECK(self);
    long long ns = PyLong_AsLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    store_rel(&self_m(&self->v)->next_timer, (uint64_t)ns);
    Py_RETURN_NONE;
}

/* A G begins to run, or goes on: those that sleep depend on sysmon from here on. */
static void watch_timers(View *self) {
    if (load_rlx(&self_m(&self->v)->next_timer)) sysmon_soon(&self->v);
}

/* watch_ready(ready, yielded): where this M keeps its started Gs that can go on */
static PyObject *View_watch_ready(View *self, PyObject *args) {
    CHECK(self);
    PyObject *ready, *yielded;
    if (!PyArg_ParseTuple(args, "OO", &ready, &yielded)) return NULL;
    Py_XDECREF(self->ready);
    Py_XDECREF(self->yielded);
    self->ready = Py_NewRef(ready), self->yielded = Py_NewRef(yielded);
    Py_RETURN_NONE;
}

/* publish_ready(): there are more of them, while a G runs. */
static PyObject *View_publish_ready(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    publish_ready(self);
    Py_RETURN_NONE;
}

/* Go wakes it unconditionally.  A wake-up of a process costs 25 to 50 us where Go's costs 5, so we look first: work that was
 * published while we spun is seen after the fence in reset_spinning, later submitters do not see us spin. */
static void wake_another(struct view *v) {
    if (work_anywhere(v)) wakep(v);
}

/* retire_after(n): so many Gs are this M's share; the main G, which may run for as long as the program, is none of them. */
static PyObject *View_retire_after(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long long n = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    self->retire_at = load_rlx(&self_m(&self->v)->n_executed) + n;
    Py_RETURN_NONE;
}

int retiring(View *self) {
    struct m *m = self_m(&self->v);
    return load_acq(&m->retire) || (self->retire_at && load_rlx(&m->n_executed) >= self->retire_at);
}

/* retire_wait() -> whether this M, which is to end and has started Gs, takes no fresh ones from here on */
static PyObject *View_retire_wait(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    return PyBool_FromLong(retire_wait(&self->v));
}

/* Our running G has only so much time: who looks after that may have to look sooner. */
static void limited(struct view *v, struct terms *terms) {
    uint64_t ends = load_rlx(&terms->ends), at;
    if (ends) fence_sc(&v->seg->sched.limits_at);             /* View.late looks at curg after it has set that */
    if (ends && (!(at = atomic_load(&v->seg->sched.limits_at)) || ends < at)) wake_coordinator(v);
}

/* G w is ours now and user code begins: the M spins no more, so that another looks on if there is more, and its P can be
 * retaken.  The tuple of View.claim. */
static PyObject *begin(View *self, struct p *p, uint64_t w, int inherit_time) {
    struct view *v = &self->v;
    running_g = w;
    watch_timers(self);
    publish_ready(self);
    if (!inherit_time) {
        store_rlx(&p->schedtick, load_rlx(&p->schedtick) + 1);
        store_rlx(&self_m(v)->since, (uint64_t)coarse_time());
    }
    struct g *g = &v->allgs[gword_index(w)];
    if (g->goid == MAIN_GOID && self->retire_at) self->retire_at++;
    if (is_spinning(v)) reset_spinning(v), wake_another(v);
    entersyscall(v);
    long flags = (load_acq(&g->deps) != 0) | (load_acq(&v->seg->sched.log_levels) != self->levels_seen) << 1;
    uint32_t client = load_rlx(&g->client);
    if (g->world != self->world.entered || client != self->world.client) flags |= 4;
    if (!client_lives(v, client)) atomic_fetch_or(&g->flags, G_ASKED);
    uint32_t asked = load_acq(&g->flags) & (G_ASKED | G_TO_RAISE);
    if (asked & G_ASKED) flags |= 16;
    else if (asked) atomic_fetch_and(&g->flags, ~(uint32_t)G_TO_RAISE);  /* as its time was up, the time before */
    struct terms *terms = gterms(v, g);
    if (terms) {
        flags |= 8;
        atomic_store(&terms->ends, terms->timeout ? (uint64_t)nanotime() + terms->timeout : 0);
        limited(v, terms);
    }
    PyObject *out = PyTuple_New(5);
    PyObject *parts[] = {PyLong_FromUnsignedLong(g->fn), PyLong_FromUnsignedLongLong(g->goid), args_of(self, g),
                         PyLong_FromLong(flags), PyLong_FromUnsignedLongLong(w)};
    for (int i = 0; i < 5; i++) {
        if (!parts[i]) Py_CLEAR(out);
        if (out) PyTuple_SetItem(out, i, parts[i]);
        else Py_XDECREF(parts[i]);
    }
    return out;
}

/* claim(word, inherit_time) -> (fn, goid, args, flags, word), or None: somebody else ran it.  flags: 1 it has waited for
 * others, 2 there are new logging levels, 4 its world, or its client, is not the one we are in, 8 it has terms,
 * 16 it was asked to end, as it ran before, or its client has left. */
static PyObject *View_claim(View *self, PyObject *const *a, Py_ssize_t n) {
    CHECK(self);
    if (n != 2) return PyErr_Format(PyExc_TypeError, "claim takes 2 arguments");
    unsigned long long w = PyLong_AsUnsignedLongLong(a[0]);
    if (PyErr_Occurred()) return NULL;
    struct p *p = own_p(self);
    if (!p) return NULL;
    if (!gclaim(&self->v, w)) Py_RETURN_NONE;
    return begin(self, p, w, a[1] == Py_True);
}

/* turns(tick, ns): how often it is the turn of others than the next G of our P: of so many times, and after so long. */
static PyObject *View_turns(View *self, PyObject *args) {
    CHECK(self);
    if (!PyArg_ParseTuple(args, "IL", &self->turn_tick, &self->turn_ns)) return NULL;
    self->turn_at = coarse_time();
    Py_RETURN_NONE;
}

static int others_turn(View *self) {
    return !self->turn_tick || (self->tick + 1) % self->turn_tick == 0 || coarse_time() - self->turn_at >= self->turn_ns;
}

/* turn() -> whether it is the turn of others; another round of schedule begins. */
static PyObject *View_turn(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    int theirs = others_turn(self);
    self->tick++;
    if (theirs) self->turn_at = coarse_time();
    return PyBool_FromLong(theirs);
}

/* next_local(untold) -> as claim: the next G of our P, by the shortest way through schedule; or the word of a token.  None:
 * there is something else to look at, as in untold, the list for drain, or there is none. */
static PyObject *View_next_local(View *self, PyObject *untold) {
    CHECK(self);
    struct view *v = &self->v;
    struct p *p = own_p(self);
    if (!p) return NULL;
    if (others_turn(self) || !self->ready || PyObject_Size(self->ready) || PyObject_Size(self->yielded) || v->nreadied ||
        load_rlx(&self_m(v)->next_timer) || retiring(self))
        Py_RETURN_NONE;
    if (!inbox_empty(v, v->self)) {
        drain(self, untold, 0);
        inbox_kick(v, v->self);                               /* other threads of this process that wait */
        if (PyErr_Occurred()) return NULL;
    }
    if (PyList_Size(untold)) Py_RETURN_NONE;
    int inherit = 0;
    uint64_t w = runqget(v, p, &inherit);
    if (!w) Py_RETURN_NONE;
    self->tick++;
    if (w & GWORD_TOKEN) return PyLong_FromUnsignedLongLong(w);
    if (!gclaim(v, w)) Py_RETURN_NONE;
    return begin(self, p, w, inherit);
}

static PyObject *View_schedtick(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    struct p *p = own_p(self);
    return p ? PyLong_FromUnsignedLongLong(load_rlx(&p->schedtick)) : NULL;
}

/* G w ends with data, bytes or a Block; or, an int, is to be run again, not before then (ns) unless that is 0.  0, with an
 * exception: it is none of these. */
static int end_with(View *self, uint64_t w, uint32_t kind, PyObject *data) {
    struct view *v = &self->v;
    struct g *g = &v->allgs[gword_index(w)];
    uint64_t size, off = take_block(self, data, &size);
    char *bytes;
    Py_ssize_t len;
    if (PyLong_Check(data)) {
        unsigned long long when = PyLong_AsUnsignedLongLong(data);
        return !PyErr_Occurred() && gagain(v, w, when);
    }
    if (off) {
        block_travels(self, g, off, size);                    /* before: the slot is ours; and after, see there */
        if (gcomplete_with(v, w, kind, off, size)) block_travels(self, NULL, off, size);
        else heap_free(v, off);
        return 1;
    }
    if (PyBytes_AsStringAndSize(data, &bytes, &len)) return 0;
    travels(self, g, bytes, (uint64_t)len);
    gcomplete(v, w, kind, bytes, (uint64_t)len);
    travels(self, NULL, bytes, (uint64_t)len);
    return 1;
}

/* complete(word, kind, data) -> whether we have our P still, now that user code has ended; data: see end_with.  Completing
 * needs none. */
static PyObject *View_complete(View *self, PyObject *const *a, Py_ssize_t n) {
    CHECK(self);
    if (n != 3) return PyErr_Format(PyExc_TypeError, "complete takes 3 arguments");
    unsigned long long w = PyLong_AsUnsignedLongLong(a[0]);
    unsigned long kind = PyLong_AsUnsignedLong(a[1]);
    if (PyErr_Occurred() || !end_with(self, w, (uint32_t)kind, a[2])) return NULL;
    running_g = 0;
    return PyBool_FromLong(take_back_p(self));
}

/* finish(word, kind, data, host): as complete, for an async G, whose loop goes on in user code: G word waits, or is the host,
 * as whom the loop runs, and then G host, which waits, becomes that; 0: it does not. */
static PyObject *View_finish(View *self, PyObject *const *a, Py_ssize_t n) {
    CHECK(self);
    struct view *v = &self->v;
    if (n != 4) return PyErr_Format(PyExc_TypeError, "finish takes 4 arguments");
    unsigned long long w = PyLong_AsUnsignedLongLong(a[0]), host = PyLong_AsUnsignedLongLong(a[3]);
    unsigned long kind = PyLong_AsUnsignedLong(a[1]);
    if (PyErr_Occurred()) return NULL;
    if (!gcas(v, host ? host : w, G_WAITING, G_RUNNING)) throw(v, "finish: G %u does not wait", gword_index(host ? host : w));
    store_rlx(&self_m(v)->parked, load_rlx(&self_m(v)->parked) - 1);
    if (!end_with(self, w, (uint32_t)kind, a[2])) return NULL;
    if (load_rlx(&self_m(v)->step) == w) store_rel(&self_m(v)->step, 0);
    if (host) store_rel(&self_m(v)->curg, running_g = host);  /* as whom it waits for locks, too */
    Py_RETURN_NONE;
}

static int change_status(View *self, uint64_t w, uint32_t from, uint32_t to) {
    if (PyErr_Occurred()) return 0;
    if (!gcas(&self->v, w, from, to)) throw(&self->v, "casgstatus: G %u is not in status %u", gword_index(w), from);
    running_g = to == G_RUNNING ? w : 0;
    store_rel(&self_m(&self->v)->curg, running_g);
    return 1;
}

/* readied() -> words of other Gs of this M that can go on, or None. */
PyObject *take_readied(View *self) {
    struct view *v = &self->v;
    PyObject *out = v->nreadied ? PyList_New(0) : Py_NewRef(Py_None);
    for (uint32_t i = 0; out && i < v->nreadied; i++) {
        PyObject *word = PyLong_FromUnsignedLongLong(v->readied[i]);
        if (!word || PyList_Append(out, word)) Py_CLEAR(out);
        Py_XDECREF(word);
    }
    if (out) v->nreadied = 0;
    store_rel(&self_m(v)->readied, v->nreadied);
    return out;
}

static PyObject *View_readied(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    return take_readied(self);
}

/* gpark(word, reason) -> 1 if it is to raise Cancelled, plus 2 if our P is gone, plus 4 if there is something in readied(): our
 * running G waits from here on; reason: see
 * WHY_NONE. */
static PyObject *View_gpark(View *self, PyObject *const *a, Py_ssize_t n) {
    CHECK(self);
    if (n != 2) return PyErr_Format(PyExc_TypeError, "gpark takes 2 arguments");
    uint64_t w = PyLong_AsUnsignedLongLong(a[0]);
    unsigned long reason = PyLong_AsUnsignedLong(a[1]);
    if (PyErr_Occurred()) return NULL;
    struct g *g = &self->v.allgs[gword_index(w)];
    struct m *m = self_m(&self->v);
    store_rlx(&g->wait_reason, (uint32_t)reason);
    store_rlx(&g->wait_since, (uint64_t)nanotime());
    KILLPOINT(gpark_before);
    if (!change_status(self, w, G_RUNNING, G_WAITING)) return NULL;
    KILLPOINT(gpark_after);
    store_rlx(&m->n_parks, load_rlx(&m->n_parks) + 1);
    store_rlx(&m->parked, load_rlx(&m->parked) + 1);
    int to_raise = (atomic_load(&g->flags) & G_TO_RAISE) != 0;
    return PyLong_FromLong(to_raise | !take_back_p(self) << 1 | (self->v.nreadied > 0) << 2);
}

/* gresume(word) -> whether it is to raise Cancelled: it runs again, user code goes on. */
static PyObject *View_gresume(View *self, PyObject *arg) {
    CHECK(self);
    struct m *m = self_m(&self->v);
    uint64_t w = PyLong_AsUnsignedLongLong(arg);
    if (!change_status(self, w, G_WAITING, G_RUNNING)) return NULL;
    KILLPOINT(gresume_after);
    store_rlx(&m->parked, load_rlx(&m->parked) - 1);
    store_rlx(&m->since, (uint64_t)coarse_time());
    publish_ready(self);
    watch_timers(self);
    struct g *g = &self->v.allgs[gword_index(w)];
    if (load_rlx(&g->terms)) limited(&self->v, gterms(&self->v, g));
    entersyscall(&self->v);
    return PyBool_FromLong((atomic_load(&g->flags) & G_TO_RAISE) != 0);
}

/* asked(word) -> flags: 1 our running G has been asked to end, 2 it is to raise Cancelled, 32 as its time is up */
static PyObject *View_asked(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long long w = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    return PyLong_FromUnsignedLong(atomic_load(&self->v.allgs[gword_index(w)].flags) & (G_ASKED | G_TO_RAISE | G_LATE));
}

/* terms(word) -> (when its time is up, its attempt, what its owner has said, see ship.terms), of our G that has some */
static PyObject *View_terms(View *self, PyObject *arg) {
    CHECK(self);
    struct view *v = &self->v;
    unsigned long long w = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    struct g *g = &v->allgs[gword_index(w)];
    if (!load_rlx(&g->terms)) return PyErr_Format(PyExc_ValueError, "G %llu has no terms", w);
    return Py_BuildValue("(KIN)", (unsigned long long)load_rlx(&gterms(v, g)->ends), GATTEMPT(load_rlx(&g->state)), terms_of(v, g));
}

/* be_late(word): the time of our G is up; it is to raise Cancelled. */
static PyObject *View_be_late(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long long w = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    struct g *g = &self->v.allgs[gword_index(w)];
    if (gterms(&self->v, g)) atomic_store(&gterms(&self->v, g)->ends, 0);
    atomic_fetch_or(&g->flags, G_TO_RAISE | G_LATE);
    tell_coordinator(&self->v, w);                            /* who sees to it that it ends */
    Py_RETURN_NONE;
}

/* told(word) -> whether our running G is to raise Cancelled: it does, from here on. */
static PyObject *View_told(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long long w = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    uint32_t was = atomic_fetch_and(&self->v.allgs[gword_index(w)].flags, ~(uint32_t)G_TO_RAISE);
    return PyBool_FromLong((was & G_TO_RAISE) != 0);
}

/* gready(word): what that started G, on whichever M, waits for has come. */
static PyObject *View_gready(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long long w = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    gready(&self->v, w);
    Py_RETURN_NONE;
}

/* grant(word) -> True: that started G, on whichever M, has a permit for its gopark; False: it has ended. */
static PyObject *View_grant(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long long w = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    if (gword_index(w) >= self->v.seg->nslots) return PyErr_Format(PyExc_ValueError, "no G %llu", w);
    return PyBool_FromLong(ggrant(&self->v, w));
}

/* permitted(word) -> whether our G has a permit */
static PyObject *View_permitted(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long long w = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    return PyBool_FromLong((atomic_load(&self->v.allgs[gword_index(w)].flags) & G_PERMIT) != 0);
}

/* take_permit(word) -> whether our G had one */
static PyObject *View_take_permit(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long long w = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    uint32_t was = atomic_fetch_and(&self->v.allgs[gword_index(w)].flags, ~(uint32_t)G_PERMIT);
    return PyBool_FromLong((was & G_PERMIT) != 0);
}

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
    store_rlx(&self_m(&self->v)->retire, RETIRE_NONE);        /* of the one that had this slot before */
    said_forget(&self->v);
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

/* handoffp(m) -> False if parked M m did not want our P after all; m < 0: it goes to any M if there is work, else to the idle
 * list; False if there is work and no M for it. */
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
    return PyBool_FromLong(handoffp(v, p));
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
    KILLPOINT(spinning);
    for (int64_t end = nanotime() + ns; !found && nanotime() < end;)
        for (int i = 0; i < 32 && !found; i++) {
            found = work_anywhere(&self->v) || !inbox_empty(&self->v, self->v.self) ||
                    atomic_load(&self->v.seg->sched.closing);
            procyield();
        }
    Py_END_ALLOW_THREADS
    return PyBool_FromLong(found);
}

/* Work and an idle P, seen after we are known to be parked: whoever put the P there found no M (startm).  1: it is ours. */
static int look_once_more(struct view *v) {
    struct p *p = work_anywhere(v) ? pidleget(v) : NULL;
    if (!p) return 0;
    if (munput(v)) {
        acquirep(v, p);
        return 1;
    }
    handoffp(v, p);                                           /* a waker chose us: another P comes */
    return 0;
}

/* stopm(ready, timeout_ns, locked): parks this M, which holds no P, until it is handed one: True.  False when its inbox has
 * something, the time is up or a signal came: it runs again, without a P.  ready: its started Gs that are ready; looked at
 * after it is known to be parked, as another of its threads may add one until then.  locked: no P for other work. */
static PyObject *View_stopm(View *self, PyObject *const *a, Py_ssize_t n) {
    CHECK(self);
    if (n != 3) return PyErr_Format(PyExc_TypeError, "stopm takes 3 arguments");
    struct view *v = &self->v;
    long long timeout = PyLong_AsLongLong(a[1]);
    int woken = 0, locked = a[2] == Py_True;
    if (PyErr_Occurred()) return NULL;
    store_rlx(&self_m(v)->asleep, timeout < 0 && !self->handlers && !load_rlx(&self_m(v)->polled));
    if (locked) mput_locked(v);
    else mput(v);
    if (PyObject_Size(a[0]) > 0 || async_work(v) || v->nreadied) want_p(v, v->self);
    else if (!locked && look_once_more(v)) Py_RETURN_TRUE;
    int asked = load_acq(&self_m(v)->retire) == RETIRE_ASKED && !self->retire_seen;
    self->retire_seen |= asked;
    if (!asked && inbox_empty(v, v->self)) {
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
    wake_self(&self->v);
    Py_RETURN_NONE;
}

/* said(data): this M has written that to its stderr.  In a child that a G has forked nothing happens: it is no M. */
static PyObject *View_said(View *self, PyObject *data) {
    char *bytes;
    Py_ssize_t len;
    if (self->closed || self->v.forked) Py_RETURN_NONE;
    if (PyBytes_AsStringAndSize(data, &bytes, &len)) return NULL;
    said_keep(&self->v, bytes, (uint64_t)len);
    Py_RETURN_NONE;
}

PyMethodDef sched_methods[] = {
    NOARGS(runqget), NOARGS(runqget_ring), ARGS(runqput), ONE(globrunqget), ONE(globrunqput), NOARGS(globrunqsize),
    ARGS(runqsteal), ARGS(steal_round), FAST(claim), NOARGS(schedtick), FAST(complete), FAST(finish), FAST(gpark), ONE(gresume), ONE(asked),
    ONE(told), ONE(terms), ONE(be_late), ONE(gready), NOARGS(readied), ONE(grant), ONE(permitted), ONE(take_permit), ONE(dep_results),
    NOARGS(mstart), NOARGS(releasep), NOARGS(pidleget), ONE(handoffp), ONE(take_token), NOARGS(wakep),
    NOARGS(become_spinning), NOARGS(set_spinning), NOARGS(reset_spinning), NOARGS(is_spinning), NOARGS(needspinning),
    NOARGS(work_anywhere), ONE(spin), FAST(stopm), NOARGS(wake_self),
    ARGS(watch_ready), NOARGS(publish_ready), ONE(next_timer), ARGS(turns), NOARGS(turn), ONE(next_local), ONE(retire_after),
    NOARGS(retire_wait), ONE(said), {NULL, NULL, 0, NULL}};
