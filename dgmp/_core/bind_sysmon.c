/* bind_sysmon.c: the coordinator looks for Ms that block, and takes their Ps. */
#include "binding.h"
#include "checkdead.h"
#include "place.h"
#include "retake.h"
#include "sysmon.h"

#include <stdlib.h>

static int has_sysmon(View *self) {
    if (self->sysmon) return 1;
    self->sysmon = calloc(1, sizeof *self->sysmon);
    if (self->sysmon && sysmon_init(&self->v, self->sysmon)) return 1;
    PyErr_NoMemory();
    return 0;
}

static int append(PyObject *list, PyObject *x) {
    int e = !x || PyList_Append(list, x);
    Py_XDECREF(x);
    return e;
}

/* What the last look has found: ([(p, own)] of Ps whose M blocks, [(m, pid)] of Ms that run user code without a P). */
static PyObject *found(View *self) {
    struct sysmon *s = self->sysmon;
    PyObject *blocked = PyList_New(0), *loose = PyList_New(0);
    int e = !blocked || !loose;
    for (uint32_t i = 0; !e && i < s->nblocked; i++)
        e = append(blocked, Py_BuildValue("(IK)", s->blocked[i], (unsigned long long)s->ps[s->blocked[i]].own));
    for (uint32_t i = 0; !e && i < s->nloose; i++)
        e = append(loose, Py_BuildValue("(II)", s->loose[i], load_acq(&self->v.allm[s->loose[i]].pid)));
    PyObject *out = e ? NULL : PyTuple_Pack(2, blocked, loose);
    Py_XDECREF(blocked);
    Py_XDECREF(loose);
    return out;
}

/* sysmon_wait(fd, timeout_ns) -> what a look has found, see found(); None: fd can be read, the time is up (< 0: never), or a
 * signal came. */
static PyObject *View_sysmon_wait(View *self, PyObject *args) {
    CHECK(self);
    int fd, any;
    long long timeout;
    if (!PyArg_ParseTuple(args, "iL", &fd, &timeout) || !has_sysmon(self)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    any = sysmon_wait(&self->v, self->sysmon, fd, timeout);
    Py_END_ALLOW_THREADS
    if (PyErr_CheckSignals()) return NULL;
    if (!any) Py_RETURN_NONE;
    return found(self);
}

/* sysmon_look(now) -> as sysmon_wait, after one look at time `now` */
static PyObject *View_sysmon_look(View *self, PyObject *arg) {
    CHECK(self);
    long long now = PyLong_AsLongLong(arg);
    if (PyErr_Occurred() || !has_sysmon(self)) return NULL;
    if (!sysmon_look(&self->v, self->sysmon, now)) Py_RETURN_NONE;
    return found(self);
}

/* retake(p, own) -> None if the P's word is another by now; else it has been taken: True if an M, or the idle list, has it,
 * False if there is work for which there is no M. */
static PyObject *View_retake(View *self, PyObject *args) {
    CHECK(self);
    unsigned int p;
    unsigned long long own;
    if (!PyArg_ParseTuple(args, "IK", &p, &own) || !has_sysmon(self)) return NULL;
    if (p >= MAX_PS) return PyErr_Format(PyExc_IndexError, "no P %u", p);
    if (self->sysmon->ps[p].own == own) sysmon_blocked(&self->v, self->sysmon, p);
    if (!retake(&self->v, &self->v.allp[p], own)) Py_RETURN_NONE;
    return PyBool_FromLong(handoffp(&self->v, &self->v.allp[p]));
}

/* newm_ahead(most) -> how many Ms were reserved: as many as it takes that `most`, but no more than wait for Ms that block,
 * are idle or being made. */
static PyObject *View_newm_ahead(View *self, PyObject *arg) {
    CHECK(self);
    struct view *v = &self->v;
    unsigned long most = PyLong_AsUnsignedLong(arg), n = 0;
    if (PyErr_Occurred()) return NULL;
    uint32_t waiting = (uint32_t)globrunqsize(v), without = ms_without_p(v), coming = nmidle(v);
    for (uint32_t i = 0; i < v->seg->nps; i = i + 1 == v->seg->nprocs ? MAX_PS : i + 1) waiting += runqsize(&v->allp[i]);
    for (uint32_t i = 0; i < v->seg->max_ms; i++) coming += MSTATE(load_acq(&v->allm[i].note)) == M_HANDED;
    if (most > waiting) most = waiting;
    if (most > without) most = without;
    while (coming + n < most && newm_ahead(v)) n++;
    return PyLong_FromUnsignedLong(n);
}

/* The G that M m runs, for people: (goid, name, for how many seconds). */
static PyObject *blocked_call(View *self, uint32_t m, uint64_t w, int64_t now) {
    struct view *v = &self->v;
    struct g_seen g;
    gread(v, gword_index(w), &g);
    uint32_t len = 0;
    const char *name = place_text(v, PLACE_NAME(g.place), &len);
    int64_t ns = now - (int64_t)load_rlx(&v->allm[m].since);
    return Py_BuildValue("(KNd)", (unsigned long long)g.goid, PyUnicode_DecodeUTF8(name ? name : "", (Py_ssize_t)len, "replace"),
                         ns > 0 ? (double)ns * 1e-9 : 0.0);
}

/* all_blocked() -> None if no work waits, or there is an M to be had for it.  Else [(goid, name, seconds)] of what the Ms run, if
 * each runs a G without a P, or waits for Gs of its own, and a P is idle; [] if not. */
static PyObject *View_all_blocked(View *self, PyObject *none) {
    (void)none;
    CHECK(self);
    struct view *v = &self->v;
    uint32_t own = 0, max_ms = v->seg->max_ms;
    if (!work_anywhere(v) || !out_of_ms(v)) Py_RETURN_NONE;
    for (uint32_t i = 0; i < max_ms; i++) own += MSTATE(atomic_load(&v->allm[i].note)) == M_IDLE;
    PyObject *out = PyList_New(0);
    if (!npidle(v) || ms_without_p(v) + own < max_ms) return out;
    int64_t now = nanotime();
    for (uint32_t i = 0; out && i < max_ms; i++) {
        uint64_t w = load_acq(&v->allm[i].curg);
        if (w && append(out, blocked_call(self, i, w, now))) Py_CLEAR(out);
    }
    return out;
}

PyMethodDef sysmon_methods[] = {ARGS(sysmon_wait), ONE(sysmon_look), ARGS(retake), ONE(newm_ahead), NOARGS(all_blocked), {NULL, NULL, 0, NULL}};
