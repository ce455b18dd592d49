/* bind_world.c: the world of the Gs we spawn, see world.c; and what must come before a spawn. */
#include "binding.h"

#include <stdlib.h>
#include <string.h>

static PyObject *sys_path[2], *warnings_filters[2], *sys_modules;  /* a module's namespace and a name in it */

/* Where a world's lists are found: once, as these modules stay. */
static int name_in(PyObject *where[2], const char *module, const char *name) {
    PyObject *mod = PyImport_ImportModule(module);
    if (mod) where[0] = Py_XNewRef(PyModule_GetDict(mod));
    Py_XDECREF(mod);
    return mod && (where[1] = PyUnicode_InternFromString(name)) != NULL;
}
int names_of_world(void) {
    if (sys_modules) return 1;
    if (!name_in(sys_path, "sys", "path") || !name_in(warnings_filters, "warnings", "filters")) return 0;
    sys_modules = Py_XNewRef(PyImport_GetModuleDict());
    return sys_modules != NULL;
}

void watched_clear(struct watched *w) {
    struct watched was = *w;
    memset(w, 0, sizeof *w);
    Py_XDECREF(was.path.list);
    Py_XDECREF(was.filters.list);
    free(was.path.items);
    free(was.filters.items);
}

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

/* world_entered(number): this M is in that world, and so are our Gs.  In an M a world's number is its index, and above 32 bits
 * the number of the client. */
static PyObject *View_world_entered(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long long number = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    world_entered(&self->world, (uint32_t)number);
    self->world.client = (uint32_t)(number >> 32);
    Py_RETURN_NONE;
}

/* world_of(word) -> the number of that G's world */
static PyObject *View_world_of(View *self, PyObject *arg) {
    CHECK(self);
    unsigned long long w = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    struct g *g = &self->v.allgs[gword_index(w)];
    return PyLong_FromUnsignedLongLong((unsigned long long)load_rlx(&g->client) << 32 | g->world);
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

int act_first(View *self) {
    int there = PyDict_Contains(self->watched, self->mark);
    if (there != self->awaited) return there < 0 ? -1 : 0;
    PyObject *act = Py_NewRef(self->act), *done = PyObject_CallNoArgs(act);
    Py_DECREF(act);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

PyMethodDef world_methods[] = {
    ONE(tell_changes), NOARGS(look_for_changes), NOARGS(world_look), ONE(world_told), ONE(world_entered),
    ONE(world_of), ARGS(world_files), ARGS(watch), {NULL, NULL, 0, NULL}};
