/* bind_lock.c: the locks that `threading` has in an M: they know Gs.
 *
 * The Gs of an M share a thread.  CPython's RLock would let two of them in, and one that waits for a Lock of a parked G
 * would stop the very thread that is to run its holder.  So an RLock is owned here by a G, or by a thread that runs none, and
 * a G that must wait parks; threads, and the scheduler, sleep as they would with CPython's locks, whose looks these have.
 *
 * Everything happens under the GIL, so the state is plain words, and taking a free lock is what it is in CPython: one call
 * that runs no Python.  Waiters queue in order of arrival.  A release takes the first off the queue and wakes it to try
 * again, so whoever comes meanwhile is faster, and nobody waits for a switch; but one that was woken in vain is handed the
 * lock next time (Go: a starving mutex).  While a lock is free and somebody queues for it, one that has been woken is on its
 * way: it takes the lock, or wakes the next if it gives up.
 *
 * Called by user code in Ms (runtime.locks puts the types into threading).
 */
#include "binding.h"

#include <errno.h>
#include <stdlib.h>
#include <structmember.h>
#include <unistd.h>

uint64_t running_g;

static View *member;                  /* the M's; NULL: no M yet, and who waits is a thread */
static PyObject *park;                /* its park(waiter, deadline in ns or None): False if the caller is no G */
static uint64_t scheduler;            /* the thread that runs Gs */
static PyObject *Waiter_type, *Lock_type, *RLock_type;

enum { WAITS, WOKEN, HANDED };
#define RESTORE_TRIES 100             /* at the end of the stack none succeeds */

typedef struct Waiter {               /* also what a parked G waits for: see M.gopark */
    PyObject_HEAD
    struct Waiter *next, *prev;       /* in the queue */
    uint64_t who;                     /* will own the lock */
    uint64_t word;                    /* of the G that parks; 0: a thread, that sleeps on state */
    au32 state;
    int vain;                         /* it was woken, and another was faster */
    pid_t pid;                        /* after a fork the parent's are none of ours */
    PyObject *then;
} Waiter;

typedef struct {
    PyObject_HEAD
    uint64_t owner;                   /* a G's word (bit 63 set) or a thread's number; 0: free */
    unsigned long count;              /* of an RLock: how often it has been taken */
    Waiter *first, *last;
    PyObject *weakrefs;
} Lock;

static uint64_t me(void) {
    uint64_t thread = PyThread_get_thread_ident();
    return thread == scheduler && running_g ? running_g : thread;
}

static void enqueue(Lock *l, Waiter *w, int in_front) {
    Waiter **end = in_front ? &l->first : &l->last, **other = in_front ? &l->last : &l->first;
    w->next = in_front ? l->first : NULL;
    w->prev = in_front ? NULL : l->last;
    if (*end && in_front) (*end)->prev = w;
    else if (*end) (*end)->next = w;
    else *other = w;
    *end = w;
}

static void dequeue(Lock *l, Waiter *w) {
    *(w->prev ? &w->prev->next : &l->first) = w->next;
    *(w->next ? &w->next->prev : &l->last) = w->prev;
}

static void take(Lock *l, uint64_t who) { l->owner = who, l->count = 1; }

static void wake(Waiter *w) {
    if (w->word) gready(&member->v, w->word);
    else futex_wake(&w->state, 1);
}

/* The lock is free: the first in the queue learns of it. */
static void wake_next(Lock *l) {
    Waiter *w;
    while ((w = l->first) != NULL) {
        dequeue(l, w);
        if (w->pid != getpid()) continue;
        if (w->vain) take(l, w->who);
        atomic_store(&w->state, w->vain ? HANDED : WOKEN);
        wake(w);
        return;
    }
}

static void unlock_(Lock *l) {
    l->owner = 0, l->count = 0;
    if (l->first) wake_next(l);
}

/* 1: woken, perhaps for nothing; 0: the time is up; -1: an exception. */
static int sleep_once(Waiter *w, int64_t deadline) {
    int64_t left = deadline < 0 ? -1 : deadline - nanotime();
    if (deadline >= 0 && left <= 0) return 0;
    if (w->word) {
        PyObject *parked = deadline < 0 ? PyObject_CallFunction(park, "OO", (PyObject *)w, Py_None)
                                        : PyObject_CallFunction(park, "OL", (PyObject *)w, (long long)deadline);
        if (!parked) return -1;
        if (parked != Py_True) w->word = 0;
        Py_DECREF(parked);
        if (w->word) return 1;
    }
    int e;
    Py_BEGIN_ALLOW_THREADS
    e = futex_wait(&w->state, WAITS, left);
    Py_END_ALLOW_THREADS
    return e == EINTR && PyErr_CheckSignals() ? -1 : 1;
}

/* 1: who has the lock; 0: the time is up; -1: an exception. */
static int queue_for(Lock *l, uint64_t who, int64_t timeout) {
    int64_t deadline = timeout < 0 ? -1 : nanotime() + timeout;
    Waiter *w = PyObject_New(Waiter, (PyTypeObject *)Waiter_type);
    if (!w) return -1;
    w->who = who, w->vain = 0, w->pid = getpid();
    w->word = who & GWORD_FULL && member && !member->v.forked ? who : 0;
    atomic_store(&w->state, WAITS);
    w->then = PyList_New(0);
    if (!w->then) {
        Py_DECREF(w);
        return -1;
    }
    enqueue(l, w, 0);
    int slept;
    for (;;) {
        slept = sleep_once(w, deadline);
        uint32_t state = atomic_load(&w->state);
        if (state == HANDED) {
            if (slept < 0) unlock_(l);
            break;
        }
        if (slept >= 0 && !l->owner) {
            if (state == WAITS) dequeue(l, w);
            take(l, who);
            slept = 1;
            break;
        }
        if (slept <= 0) {
            if (state == WAITS) dequeue(l, w);
            else if (!l->owner) wake_next(l);
            break;
        }
        if (state == WOKEN) {
            w->vain = 1;
            atomic_store(&w->state, WAITS);
            enqueue(l, w, 1);
        }
    }
    if (slept == 0 && atomic_load(&w->state) == HANDED) slept = 1;
    Py_DECREF(w);
    return slept;
}

/* ---------------------------------------------------------------- what both have */

/* timeout of acquire(blocking=True, timeout=-1), in ns: -1 none, 0: it does not wait; -2: an exception */
static int64_t timeout_of(PyObject *args, PyObject *kw) {
    static char *names[] = {"blocking", "timeout", NULL};
    int blocking = 1;
    double timeout = -1;
    if (!kw && PyTuple_Size(args) == 0) return -1;
    if (!PyArg_ParseTupleAndKeywords(args, kw, "|pd:acquire", names, &blocking, &timeout)) return -2;
    if (!blocking && timeout != -1) PyErr_SetString(PyExc_ValueError, "can't specify a timeout for a non-blocking call");
    else if (!(timeout >= 0) && timeout != -1)
        PyErr_SetString(PyExc_ValueError, "timeout value must be a non-negative number");
    else if (timeout > 9223372036.0) PyErr_SetString(PyExc_OverflowError, "timeout value is too large");
    else return !blocking ? 0 : timeout == -1 ? -1 : (int64_t)(timeout * 1e9);
    return -2;
}

static PyObject *acquire_lock(Lock *l, uint64_t who, int64_t timeout) {
    if (!l->owner) {
        take(l, who);
        Py_RETURN_TRUE;
    }
    if (!timeout) Py_RETURN_FALSE;
    int got = queue_for(l, who, timeout);
    return got < 0 ? NULL : PyBool_FromLong(got);
}

static PyObject *lock_locked(Lock *l, PyObject *none) {
    (void)none;
    return PyBool_FromLong(l->owner != 0);
}

/* In a child that was forked while it was held, perhaps by a thread that is not there. */
static PyObject *lock_at_fork_reinit(Lock *l, PyObject *none) {
    (void)none;
    l->owner = 0, l->count = 0, l->first = l->last = NULL;
    Py_RETURN_NONE;
}

static PyObject *lock_new(PyTypeObject *type, PyObject *args, PyObject *kw) {
    (void)args, (void)kw;
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    return alloc(type, 0);
}

static void lock_dealloc(PyObject *l) {
    PyTypeObject *type = Py_TYPE(l);
    if (((Lock *)l)->weakrefs) PyObject_ClearWeakRefs(l);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(l);
    Py_DECREF(type);
}

/* ---------------------------------------------------------------- Lock */

static PyObject *lock_acquire(Lock *l, PyObject *args, PyObject *kw) {
    int64_t timeout = timeout_of(args, kw);
    return timeout == -2 ? NULL : acquire_lock(l, me(), timeout);
}

static PyObject *lock_enter(Lock *l, PyObject *none) {
    (void)none;
    return acquire_lock(l, me(), -1);
}

static PyObject *lock_release(Lock *l, PyObject *none) {
    (void)none;
    if (!l->owner) return PyErr_Format(PyExc_RuntimeError, "release unlocked lock");
    unlock_(l);
    Py_RETURN_NONE;
}

static PyObject *lock_exit(Lock *l, PyObject *args) {
    (void)args;
    return lock_release(l, NULL);
}

static PyObject *lock_repr(Lock *l) {
    return PyUnicode_FromFormat("<%s _thread.lock object at %p>", l->owner ? "locked" : "unlocked", (void *)l);
}

/* ---------------------------------------------------------------- RLock */

static PyObject *rlock_take(Lock *l, int64_t timeout) {
    uint64_t who = me();
    if (l->owner != who) return acquire_lock(l, who, timeout);
    if (l->count == ~0ul) return PyErr_Format(PyExc_OverflowError, "Internal lock count overflowed");
    l->count++;
    Py_RETURN_TRUE;
}

static PyObject *rlock_acquire(Lock *l, PyObject *args, PyObject *kw) {
    int64_t timeout = timeout_of(args, kw);
    return timeout == -2 ? NULL : rlock_take(l, timeout);
}

static PyObject *rlock_enter(Lock *l, PyObject *none) {
    (void)none;
    return rlock_take(l, -1);
}

static PyObject *rlock_release(Lock *l, PyObject *none) {
    (void)none;
    if (l->owner != me()) return PyErr_Format(PyExc_RuntimeError, "cannot release un-acquired lock");
    if (--l->count == 0) unlock_(l);
    Py_RETURN_NONE;
}

static PyObject *rlock_exit(Lock *l, PyObject *args) {
    (void)args;
    return rlock_release(l, NULL);
}

static PyObject *rlock_is_owned(Lock *l, PyObject *none) {
    (void)none;
    return PyBool_FromLong(l->owner == me());
}

static PyObject *rlock_recursion_count(Lock *l, PyObject *none) {
    (void)none;
    return PyLong_FromUnsignedLong(l->owner == me() ? l->count : 0);
}

/* _release_save() -> what _acquire_restore wants; Condition.wait calls both. */
static PyObject *rlock_release_save(Lock *l, PyObject *none) {
    (void)none;
    if (!l->count) return PyErr_Format(PyExc_RuntimeError, "cannot release un-acquired lock");
    PyObject *saved = Py_BuildValue("(kK)", l->count, (unsigned long long)l->owner);
    if (saved) unlock_(l);
    return saved;
}

static PyObject *rlock_acquire_restore(Lock *l, PyObject *saved) {
    unsigned long count;
    unsigned long long owner;
    if (!PyArg_ParseTuple(saved, "kK:_acquire_restore", &count, &owner)) return NULL;
    PyObject *got, *type = NULL, *error = NULL, *trace = NULL;
    for (int tries = 0; !(got = acquire_lock(l, owner, -1)); tries++) {   /* whoever calls counts on having it, whatever comes */
        if (tries == RESTORE_TRIES) break;
        Py_XDECREF(type);
        Py_XDECREF(error);
        Py_XDECREF(trace);
        type = error = trace = NULL;
        PyErr_Fetch(&type, &error, &trace);
    }
    if (got) l->count = count;
    else PyErr_Clear();
    Py_XDECREF(got);
    if (type) {
        PyErr_Restore(type, error, trace);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *rlock_repr(Lock *l) {
    return PyUnicode_FromFormat("<%s _thread.RLock object owner=%llu count=%lu at %p>", l->owner ? "locked" : "unlocked",
                                (unsigned long long)l->owner, l->count, (void *)l);
}

/* ---------------------------------------------------------------- types */

#define METHOD(name, function, flags) {name, (PyCFunction)(void (*)(void))function, flags, NULL}
static PyMethodDef lock_methods[] = {
    METHOD("acquire", lock_acquire, METH_VARARGS | METH_KEYWORDS), METHOD("release", lock_release, METH_NOARGS),
    METHOD("acquire_lock", lock_acquire, METH_VARARGS | METH_KEYWORDS), METHOD("release_lock", lock_release, METH_NOARGS),
    METHOD("locked", lock_locked, METH_NOARGS), METHOD("locked_lock", lock_locked, METH_NOARGS),
    METHOD("__enter__", lock_enter, METH_NOARGS), METHOD("__exit__", lock_exit, METH_VARARGS),
    METHOD("_at_fork_reinit", lock_at_fork_reinit, METH_NOARGS), {NULL, NULL, 0, NULL}};
static PyMethodDef rlock_methods[] = {
    METHOD("acquire", rlock_acquire, METH_VARARGS | METH_KEYWORDS), METHOD("release", rlock_release, METH_NOARGS),
    METHOD("__enter__", rlock_enter, METH_NOARGS), METHOD("__exit__", rlock_exit, METH_VARARGS),
    METHOD("_is_owned", rlock_is_owned, METH_NOARGS), METHOD("_recursion_count", rlock_recursion_count, METH_NOARGS),
    METHOD("_release_save", rlock_release_save, METH_NOARGS), METHOD("_acquire_restore", rlock_acquire_restore, METH_O),
    METHOD("_at_fork_reinit", lock_at_fork_reinit, METH_NOARGS), {NULL, NULL, 0, NULL}};
static PyMemberDef lock_members[] = {{"__weaklistoffset__", T_PYSSIZET, offsetof(Lock, weakrefs), READONLY, NULL},
                                     {NULL, 0, 0, 0, NULL}};
static PyType_Slot lock_slots[] = {{Py_tp_new, lock_new}, {Py_tp_dealloc, lock_dealloc}, {Py_tp_repr, lock_repr},
                                   {Py_tp_methods, lock_methods}, {Py_tp_members, lock_members}, {0, NULL}};
static PyType_Slot rlock_slots[] = {{Py_tp_new, lock_new}, {Py_tp_dealloc, lock_dealloc}, {Py_tp_repr, rlock_repr},
                                    {Py_tp_methods, rlock_methods}, {Py_tp_members, lock_members}, {0, NULL}};
static PyType_Spec lock_spec = {"_thread.lock", sizeof(Lock), 0, Py_TPFLAGS_DEFAULT, lock_slots};
static PyType_Spec rlock_spec = {"_thread.RLock", sizeof(Lock), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, rlock_slots};

static void waiter_dealloc(PyObject *w) {
    PyTypeObject *type = Py_TYPE(w);
    Py_XDECREF(((Waiter *)w)->then);
    PyObject_Free(w);
    Py_DECREF(type);
}
static PyMemberDef waiter_members[] = {{"_state", T_UINT, offsetof(Waiter, state), READONLY, NULL},
                                       {"_then", T_OBJECT, offsetof(Waiter, then), READONLY, NULL},
                                       {NULL, 0, 0, 0, NULL}};
static PyType_Slot waiter_slots[] = {{Py_tp_dealloc, waiter_dealloc}, {Py_tp_members, waiter_members}, {0, NULL}};
static PyType_Spec waiter_spec = {"dgmp._core.native.Waiter", sizeof(Waiter), 0,
                                  Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, waiter_slots};

/* allocate_lock() -> a Lock; what threading.Lock is up to 3.12 */
PyObject *allocate_lock(PyObject *mod, PyObject *none) {
    (void)mod, (void)none;
    return PyObject_CallNoArgs(Lock_type);
}

/* lock_owner() -> a number that tells who calls: the G, or the thread if it runs none */
PyObject *lock_owner(PyObject *mod, PyObject *none) {
    (void)mod, (void)none;
    return PyLong_FromUnsignedLongLong(me());
}

int add_lock_types(PyObject *mod) {
    if (!Lock_type && !(Lock_type = PyType_FromSpec(&lock_spec))) return -1;
    if (!RLock_type && !(RLock_type = PyType_FromSpec(&rlock_spec))) return -1;
    if (!Waiter_type && !(Waiter_type = PyType_FromSpec(&waiter_spec))) return -1;
    return PyModule_AddObject(mod, "Lock", Py_NewRef(Lock_type)) || PyModule_AddObject(mod, "RLock", Py_NewRef(RLock_type));
}

/* park_waiters(park): from now on Gs of this M that wait for a lock park, by park(waiter, deadline in ns or None), which
 * returns False if its caller is no G.  The calling thread is the one that runs Gs. */
static PyObject *View_park_waiters(View *self, PyObject *function) {
    CHECK(self);
    Py_XDECREF((PyObject *)member);
    Py_XDECREF(park);
    member = (View *)Py_NewRef((PyObject *)self);
    park = Py_NewRef(function);
    scheduler = PyThread_get_thread_ident();
    Py_RETURN_NONE;
}

PyMethodDef lock_view_methods[] = {ONE(park_waiters), {NULL, NULL, 0, NULL}};
