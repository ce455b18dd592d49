/* bind_payload.c: large payloads.
 *
 * A Block is a shared block that this process holds (filled by pack, not given to a G yet) or reads.  What lies in it:
 * the number of its parts, their lengths, the parts, each on a cache line.  The first part is a pickle stream, the others are
 * the buffers that go with it.  Views of the parts keep the Block, the Block keeps the mapping. */
#include "binding.h"

#include <stdlib.h>
#include <string.h>

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
    if (out && n && (b->len < 16 || n > b->len / 8 - 1)) {    /* another process has written it */
        PyErr_Format(PyExc_ValueError, "a block of %llu bytes cannot have %llu parts", (unsigned long long)b->len,
                     (unsigned long long)n);
        Py_CLEAR(out);
    }
    for (uint64_t i = 0; out && i < n; i++) {
        uint64_t len = head[1 + i];
        if (at > b->len || len > b->len - at) {
            PyErr_Format(PyExc_ValueError, "part %llu of a block of %llu bytes reaches beyond it", (unsigned long long)i,
                         (unsigned long long)b->len);
            Py_CLEAR(out);
            break;
        }
        PyObject *part = PySequence_GetSlice(all, (Py_ssize_t)at, (Py_ssize_t)(at + len));
        if (!part || PyList_Append(out, part)) Py_CLEAR(out);
        Py_XDECREF(part);
        at += (len + 63) & ~63ull;
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
PyType_Spec block_spec = {"dgmp._core.native.Block", sizeof(Block), 0,
                                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, block_slots};

/* A payload as Python sees it: bytes, or the Block of a shared one, of which there is one in a process.  Somebody else
 * keeps it meanwhile. */
PyObject *payload(View *self, uint64_t off, const char *data, uint64_t len) {
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
PyObject *args_of(View *self, struct g *g) { return payload(self, g->args, gargs(&self->v, g), g->args_len); }
PyObject *result_of(View *self, struct g *g) { return payload(self, g->result, gresult(&self->v, g), g->result_len); }

/* The block's offset, which is the caller's now; 0: it is none, or another runtime's, or a G has it. */
uint64_t take_block(View *self, PyObject *x, uint64_t *len) {
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

PyMethodDef payload_methods[] = {
    ARGS(pack), {NULL, NULL, 0, NULL}};
