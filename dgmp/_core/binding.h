/* binding.h: what the files of the binding share.  View is one process's view of a segment; its methods are the core's
 * functions, each a single call that runs no Python between taking a G or a P and having published where it went.
 *
 * Words (names of Gs) travel to Python as plain ints.  The process-local tables live here too: which Future awaits a
 * slot, and how many Gs of ours still read its result (pins).
 *
 * module.c makes the types; each bind_*.c is one subject, with a table of its methods at its end.
 */
#ifndef DGMP_BINDING_H
#define DGMP_BINDING_H

#include <Python.h>                   /* no '#' in formats: built with 3.13's headers they fail on 3.11 and 3.12 */

#include "core.h"
#include "netpoll.h"
#include "poller.h"

/* Headers from 3.12 on take these for immortal, which on 3.11 they are not. */
#undef Py_RETURN_NONE
#undef Py_RETURN_TRUE
#undef Py_RETURN_FALSE
#define Py_RETURN_NONE do { Py_INCREF(Py_None); return Py_None; } while (0)
#define Py_RETURN_TRUE do { Py_INCREF(Py_True); return Py_True; } while (0)
#define Py_RETURN_FALSE do { Py_INCREF(Py_False); return Py_False; } while (0)

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

enum { C_ENCODE, C_UNPICKLE, C_LOADS, C_CLOSED, NCODEC };

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
    struct site *sites;               /* what this process has spawned where: bind_observe.c */
    uint32_t sites_met;
    int handlers;                     /* user code has installed a signal handler */
    PyObject *ready, *yielded;        /* started Gs of this M that can go on; NULL: it is none */
    unsigned int turn_tick;           /* see turns() */
    long long turn_ns;
    int64_t turn_at;
    uint64_t tick;                    /* rounds of schedule */
    uint64_t retire_at;               /* how many Gs its slot has run when this M has run its share; 0: there is none */
    int retire_seen;                  /* it has been asked to end, and has looked around since */
    int awaited;
    struct sysmon *sysmon;            /* the coordinator's, from its first look on */
    struct netpoll *poll;             /* of an M; NULL before its first wait for a descriptor */
    PyObject *handles;                /* of the shared objects we hold: word -> address of its Handle, not a reference */
    PyObject *codec[NCODEC];          /* see codec() */
    int kept;                         /* see keep(); -1: none */
    unsigned long main_thread;        /* on which the Gs of this M run; 0: it is none */
    struct View *next;
} View;

/* Names of a Future's slots, and the state that says it has its result: api.future. */
enum { N_WORD, N_KIND, N_DATA, N_STATE, N_THEN, NNAMES };
extern PyObject *names[NNAMES], *finished, *Block_type;

#define NOARGS(name) {#name, (PyCFunction)View_##name, METH_NOARGS, NULL}
#define ONE(name) {#name, (PyCFunction)View_##name, METH_O, NULL}
#define ARGS(name) {#name, (PyCFunction)View_##name, METH_VARARGS, NULL}
#define FAST(name) {#name, (PyCFunction)(void (*)(void))View_##name, METH_FASTCALL, NULL}

/* module.c */
int usable(View *self);               /* 0, with an exception: closed, or a forked child */
#define CHECK(self) do { if (!usable(self)) return NULL; } while (0)
struct slot *slot_of(View *self, uint32_t index);             /* may move the table */
int retiring(View *self);             /* this M is to end between Gs */
int take_back_p(View *self);          /* 0: this M holds no P */
struct p *own_p(View *self);          /* NULL, with an exception: this M holds no P */
PyObject *word_or_none(uint64_t w);
PyObject *pending_futures(View *self);
PyObject *terms_of(struct view *v, struct g *g);              /* bytes, or None */
void drop_futures(View *self);

/* bind_payload.c */
extern PyMethodDef payload_methods[];
extern PyType_Spec block_spec;
PyObject *payload(View *self, uint64_t off, const char *data, uint64_t len);
PyObject *args_of(View *self, struct g *g);
PyObject *result_of(View *self, struct g *g);
uint64_t take_block(View *self, PyObject *x, uint64_t *len);

/* bind_world.c */
extern PyMethodDef world_methods[];
int names_of_world(void);
void watched_clear(struct watched *w);
int act_first(View *self);            /* what watch() asks for; -1: an exception */

/* bind_spawn.c */
extern PyMethodDef spawn_methods[];
long long drain(View *self, PyObject *tell, uint64_t written_to);

/* bind_sched.c */
extern PyMethodDef sched_methods[];

/* bind_syscall.c */
extern PyMethodDef syscall_methods[];

/* bind_sysmon.c */
extern PyMethodDef sysmon_methods[];

/* bind_observe.c */
extern PyMethodDef observe_methods[];
int place_of(View *self, PyObject *future, uint32_t fn, PyObject *code, PyObject *instruction, PyObject *label,
             uint32_t *place);
void forget_sites(View *self);

/* bind_netpoll.c */
extern PyMethodDef netpoll_methods[];

/* bind_chan.c; first, those before any operation that may wake or wait */
extern PyMethodDef chan_methods[];
extern PyType_Spec handle_spec, wait_spec;
extern PyObject *Handle_type, *Wait_type;
PyObject *handle_of(View *self, uint64_t word, int held);
PyObject *no_object(View *self, const char *what, unsigned long long n);  /* NULL, with the exception */
PyObject *no_sudog(View *self);
void on_thread(View *self);
uint64_t waiter_here(View *self);
PyObject *take_readied(View *self);   /* words of Gs that Gs of this M have readied, as a list; or None */
void travels(View *self, struct g *g, const char *data, uint64_t len);   /* a payload, g's or NULL, has been put in its place */
void block_travels(View *self, struct g *g, uint64_t off, uint64_t len);
PyObject **result_handles(View *self, struct g *g, uint64_t *n);  /* of the objects in it; NULL: there are none */
void free_handles(PyObject **handles, uint64_t n);
PyObject *with_handles(PyObject *data, PyObject **handles, uint64_t n);

/* bind_coordinator.c */
extern PyMethodDef coordinator_methods[];

/* bind_lock.c */
extern PyMethodDef lock_view_methods[], steps_view_methods[];
extern uint64_t running_g;            /* the word of the G that this process runs, 0 none; in a forked child of user code still */
PyObject *allocate_lock(PyObject *mod, PyObject *none);
PyObject *lock_owner(PyObject *mod, PyObject *none);
int add_lock_types(PyObject *mod);    /* -1: an exception */

/* bind_stack.c */
PyObject *stack_address(PyObject *mod, PyObject *none);
PyObject *send_self(PyObject *mod, PyObject *number);

/* bind_exec.c */
PyObject *execute(PyObject *mod, PyObject *args);
PyObject *reap(PyObject *mod, PyObject *pidfd);
PyObject *signal_fd(PyObject *mod, PyObject *args);
PyObject *read_signal(PyObject *mod, PyObject *fd);

/* bind_spawners.c */
extern PyType_Spec spawners_spec;

/* bind_sema.c */
extern PyMethodDef sema_methods[];

#endif
