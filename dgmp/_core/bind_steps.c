/* bind_steps.c: what the task of an async G awaits in the place of its coroutine: the coroutine, which says each time that its
 * code begins or goes on that this is the G whose code runs (running_on).  For that the G is limited, and takes strikes. */
#include "binding.h"

typedef struct {
    PyObject_HEAD
    View *view;
    PyObject *coro;
    uint64_t word;                    /* of its G */
} Steps;
static PyObject *Steps_type;

/* The loop's own code runs, until a G's does. */
static PyObject *View_steps_end(View *self, PyObject *none) {
    (void)none;
    if (!self->closed && !self->v.forked) store_rel(&self_m(&self->v)->step, 0);
    Py_RETURN_NONE;
}

/* What comes after a step of it is counted as its, too, until steps_end: most often tasks that it has made.  The loop sees when
 * its time is up, and if that computes for ever sysmon does, which looks every 80 ms at least: nobody need be woken. */
static void step(Steps *s) {
    struct view *v = &s->view->v;
    if (s->view->closed || v->forked) return;
    struct m *m = self_m(v);
    store_rlx(&m->step_host, load_rlx(&m->curg));
    store_rel(&m->step, s->word);
}

static PySendResult Steps_send(PyObject *self, PyObject *value, PyObject **out) {
    step((Steps *)self);
    return PyIter_Send(((Steps *)self)->coro, value, out);
}

/* What generators return: the value, or StopIteration with it. */
static PyObject *as_generator(PySendResult how, PyObject *out) {
    if (how != PYGEN_RETURN) return out;                      /* NULL if it has raised */
    PyObject *stop = PyObject_CallFunctionObjArgs(PyExc_StopIteration, out, NULL);
    if (stop) PyErr_SetObject(PyExc_StopIteration, stop);
    Py_XDECREF(stop);
    Py_DECREF(out);
    return NULL;
}

static PyObject *Steps_send_method(PyObject *self, PyObject *value) {
    PyObject *out = NULL;
    PySendResult how = Steps_send(self, value, &out);
    return as_generator(how, out);
}

static PyObject *Steps_next(PyObject *self) { return Steps_send_method(self, Py_None); }

static PyObject *Steps_throw(PyObject *self, PyObject *args) {
    step((Steps *)self);
    PyObject *throw = PyObject_GetAttrString(((Steps *)self)->coro, "throw"), *out = throw ? PyObject_CallObject(throw, args) : NULL;
    Py_XDECREF(throw);
    return out;
}

static PyObject *Steps_close(PyObject *self, PyObject *none) {
    (void)none;
    return PyObject_CallMethod(((Steps *)self)->coro, "close", NULL);
}

static int Steps_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)((Steps *)self)->view);
    Py_VISIT(((Steps *)self)->coro);
    return 0;
}

static int Steps_clear(PyObject *self) {
    Py_CLEAR(((Steps *)self)->coro);
    return 0;
}

static void Steps_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(((Steps *)self)->coro);
    Py_XDECREF((PyObject *)((Steps *)self)->view);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyMethodDef steps_methods[] = {{"send", Steps_send_method, METH_O, NULL}, {"throw", Steps_throw, METH_VARARGS, NULL},
                                      {"close", Steps_close, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};
static PyType_Slot steps_slots[] = {{Py_tp_dealloc, Steps_dealloc}, {Py_tp_traverse, Steps_traverse}, {Py_tp_clear, Steps_clear},
                                    {Py_tp_iter, PyObject_SelfIter}, {Py_tp_iternext, Steps_next},
                                    {Py_am_await, PyObject_SelfIter}, {Py_am_send, Steps_send},
                                    {Py_tp_methods, steps_methods}, {0, NULL}};
static PyType_Spec steps_spec = {"dgmp._core.native.Steps", sizeof(Steps), 0,
                                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, steps_slots};

/* steps(coro, word) -> what awaits coro for the async G of that word */
static PyObject *View_steps(View *self, PyObject *args) {
    CHECK(self);
    PyObject *coro;
    unsigned long long w;
    if (!PyArg_ParseTuple(args, "OK", &coro, &w)) return NULL;
    if (!Steps_type && !(Steps_type = PyType_FromSpec(&steps_spec))) return NULL;
    Steps *s = PyObject_GC_New(Steps, (PyTypeObject *)Steps_type);
    if (!s) return NULL;
    s->view = (View *)Py_NewRef((PyObject *)self), s->coro = Py_NewRef(coro), s->word = w;
    PyObject_GC_Track((PyObject *)s);
    return (PyObject *)s;
}

PyMethodDef steps_view_methods[] = {ARGS(steps), NOARGS(steps_end), {NULL, NULL, 0, NULL}};
