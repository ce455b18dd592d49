/* core.h: everything that lies in the shared segment, in one place (Go: runtime2.go).
 *
 * One memfd segment is mapped by every process of a node: clients, the coordinator, the Ms.  Mappings differ, so
 * nothing in here is a pointer: a G is named by a word {index, generation}, a block by its offset.  Each field says
 * who may write it.  A process may be killed, or stopped, between any two instructions; so every change of ownership
 * is one atomic store or compare-and-swap, or it is announced beforehand in the mover's intent record, or it is made
 * under a robust mutex whose protected state is consistent after every single store.
 *
 * "Owner" of a ring below is whoever holds the P (DESIGN.md, rule 2).  Memory orders are explained where they stand;
 * atomics without a comment are seq_cst.
 */
#ifndef DGMP_CORE_H
#define DGMP_CORE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "killpoints.h"

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics must be lock-free: the segment is shared by processes");
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "32-bit atomics must be lock-free: futexes live in the segment");

typedef _Atomic uint64_t au64;
typedef _Atomic uint32_t au32;

#define CACHELINE 64
#define ALIGNED __attribute__((aligned(CACHELINE)))
#define load_rlx(x) atomic_load_explicit(x, memory_order_relaxed)
#define load_acq(x) atomic_load_explicit(x, memory_order_acquire)
#define store_rlx(x, v) atomic_store_explicit(x, v, memory_order_relaxed)
#define store_rel(x, v) atomic_store_explicit(x, v, memory_order_release)

/* The two fences of GMP-SPEC 2.0 (StoreLoad).  ThreadSanitizer does not model bare fences: under it a seq_cst
 * read-modify-write of a word both sides share takes the fence's place. */
#ifdef __SANITIZE_THREAD__
#define fence_sc(word) ((void)atomic_fetch_add(word, 0))
#else
#define fence_sc(word) ((void)(word), atomic_thread_fence(memory_order_seq_cst))
#endif

/* ------------------------------------------------------------------------------------------------- words
 * A queue entry: {full:1, token:1, index:22, generation:40}.  0 is "no G".  A token names an M instead of a G: that M
 * has started Gs that are ready, and whoever pops the token hands its P over (globrunq only). */
#define GWORD_FULL (1ull << 63)
#define GWORD_TOKEN (1ull << 62)
#define GEN_BITS 40
#define GEN_MASK ((1ull << GEN_BITS) - 1)
#define INDEX_MASK ((1u << 22) - 1)
static inline uint64_t gword(uint32_t index, uint64_t gen) {
    return GWORD_FULL | (uint64_t)index << GEN_BITS | (gen & GEN_MASK);
}
static inline uint32_t gword_index(uint64_t w) { return (uint32_t)(w >> GEN_BITS) & INDEX_MASK; }
static inline uint64_t gword_gen(uint64_t w) { return w & GEN_MASK; }
static inline uint64_t token(uint32_t m) { return GWORD_FULL | GWORD_TOKEN | m; }

/* ------------------------------------------------------------------------------------------------- P */
#define RUNQ_CAP 256
#define NONE 0xffffu

/* P.own = {state:8, m:16, seq:40}: a P's ownership is this one word; only whoever won it may touch tail and runnext.
 *   P_DEAD: 0, beyond nprocs.  P_IDLE: anybody may take it.  P_RUNNING: m's, in the scheduler.
 *   P_SYSCALL: m's, which runs user code: m takes it back, and the coordinator takes it away, by a CAS of the exact word
 *   (retake.c).  P_GCSTOP: the world is stopped; m, unless NONE, has it in P_SYSCALL afterwards (stw.c). */
enum { P_DEAD, P_IDLE, P_RUNNING, P_SYSCALL, P_GCSTOP, P_CLIENT };
#define MAX_PS 1024                   /* Ps that run Gs are allp[0 .. nprocs), clients' [MAX_PS .. nps); sparse between */
#define OWN(state, m, seq) ((uint64_t)(state) << 56 | (uint64_t)((m) & 0xffffu) << 40 | ((seq) & GEN_MASK))
#define OWN_STATE(w) ((uint32_t)((w) >> 56))
#define OWN_M(w) ((uint32_t)((w) >> 40) & 0xffffu)
#define OWN_SEQ(w) ((w) & GEN_MASK)

struct p {
    ALIGNED au64 head;                /* anybody: CAS */
    ALIGNED au64 tail;                /* owner: store-release */
    au64 runnext;                     /* owner: exchange; a thief may only CAS it to 0 */
    ALIGNED au64 own;                 /* CAS; see idle.c */
    au64 schedtick;                   /* owner: counts executes that did not inherit their time slice */
    ALIGNED au64 runq[RUNQ_CAP];      /* owner writes beyond tail; stale thieves may read at any time, so atomic */
};

/* ------------------------------------------------------------------------------------------------- inbox
 * Many producers, one consumer.  A cell holds a word, or (bit 63 clear) the lap at which it is free: a producer that
 * was stopped for a whole lap cannot write into the wrong one. */
struct inbox {
    ALIGNED au64 tail;                /* producers: CAS, after their cell */
    ALIGNED au64 head;                /* consumer */
    ALIGNED au32 seq;                 /* futex: bumped to wake sleeping threads */
    au32 waiters;                     /* threads of the consumer's process that sleep on seq */
    au64 want;                        /* the word that is awaited; ANY_WORD: every one wakes */
    au64 wake_at;                     /* or: wake when tail has come this far */
    uint64_t cells;                   /* offset of the ring; constant */
};
#define ANY_WORD 1ull

/* ------------------------------------------------------------------------------------------------- M
 * An attached process: an M, or a client, which is an M that runs no Gs.  The coordinator attaches as a client of its
 * own.  Unless said otherwise a field is written by the process itself, and by the coordinator once it is dead.
 *
 * What an M does is one word, m.note = {life:16, arg:12, state:4}, which is also the futex it parks on (note.c):
 *   RUNNING -> IDLE -> WANTED -> HANDED -> RUNNING   parks, is chosen by a waker, is handed a P, runs
 *   FREE -> STARTING -> HANDED                       a slot is reserved for a new M, which finds its P when it starts
 * arg: the waker's number while WANTED or STARTING (if it dies half-way, repair finishes); p + 1, or 0 for none, when
 * HANDED.  life counts the deaths in this slot: a waker that comes too late for one life cannot meddle with the next. */
enum { M_FREE, M_STARTING, M_RUNNING, M_IDLE, M_WANTED, M_HANDED, M_DEAD };
#define MWORD(state, arg, life) ((uint32_t)(life) << 16 | ((uint32_t)(arg) & 0xfffu) << 4 | (state))
#define MSTATE(w) ((w) & 15u)
#define MARG(w) ((w) >> 4 & 0xfffu)
#define MLIFE(w) ((w) >> 16)
enum { KIND_M = 1, KIND_CLIENT };
enum { INTENT_NONE, INTENT_RANGE };

struct m {
    ALIGNED au32 note;                /* see above */
    au32 kind;
    au32 pid;                         /* the coordinator, at start */
    au32 p;                           /* p + 1 held, 0 none */
    au32 token_queued;                /* 1 while a token for this M is on the global queue */
    au32 parked;                      /* started Gs of its own that wait: others had better take the fresh ones */
    au32 polled;                      /* and of these, how many wait for a file descriptor */
    au32 bound;                       /* p + 1: it is bound to that P's core, 0 to none; the coordinator, and itself */
    au32 asleep;                      /* 1 while it is parked and no timer, poller or signal handler of its own can wake it */
    au32 own_threads;                 /* threads of ours beside the main one, while they have nothing to do */
    au32 retire;                      /* RETIRE_ASKED: coordinator, it shall end between Gs; RETIRE_WAITS: self, see retire.c */
    au32 client;                      /* of a client that has attached: its number, while it is there; coordinator */
    ALIGNED au64 syscall;             /* what P.own was set to when it went into user code, 0 in the scheduler; self */
    au32 oldp;                        /* p + 1 that it held last; self */
    au32 readied;                     /* started Gs of it that others of it have readied, and it has not looked at yet */
    au64 popping;                     /* the word being popped; cleared once its G is claimed.  Written for each G, so
                                       * not on the line that every inbox_push reads */
    au64 curg;                        /* the word of the running G, 0 none; for people, and sysmon */
    au64 step;                        /* the word of the async G whose code runs, while the loop does as `step_host`: running_on */
    au64 step_host;
    au64 next_timer;                  /* when the first of its started Gs that sleep is to go on, monotonic ns; 0: none */
    au64 since;                       /* when its time slice began, by the coarse clock */
    au32 ready;                       /* while it runs: how many of the M's other started Gs can go on */
    /* The intent record: slots [start, start+n) of ring `p`, and `extra`, are on their way.  Written before the CAS
     * that takes them, cleared after they are published.  Repair requeues them all: a word queued twice is harmless,
     * as only one state CAS can win. */
    au32 intent;
    au32 intent_p;
    au64 intent_start;
    au64 intent_n;
    au64 intent_extra;
    au32 filling;                     /* the function table entry it is filling, 0 none */
    /* statistics: self only, relaxed */
    au64 n_executed, n_steals, n_stolen, n_parks, n_global, n_spawned, n_collected;
    struct inbox inbox;
};

/* The word of the G whose code M m runs, 0 none.  The loop of its async Gs runs as one of them, and steps through all. */
static inline uint64_t running_on(struct m *m) {
    uint64_t curg = load_acq(&m->curg), step = load_acq(&m->step);
    return step && load_rlx(&m->step_host) == curg ? step : curg;
}

/* ------------------------------------------------------------------------------------------------- G
 * state = {status:4, m:12, attempt:8, generation:40}. A queue's copy of a G is worth something only while generation
 * and status agree: whoever wins the CAS from G_RUNNABLE runs it. */
enum { G_DEAD, G_ALLOCATED, G_DEPS, G_RUNNABLE, G_RUNNING, G_WAITING, G_COMPLETING, G_DONE, G_COLLECTED };
#define NO_M 0xfffu
#define GSTATE(status, m, attempt, gen) \
    ((uint64_t)(status) << 60 | (uint64_t)((m) & 0xfffu) << 48 | (uint64_t)((attempt) & 0xffu) << 40 | ((gen) & GEN_MASK))
#define GSTATUS(w) ((uint32_t)((w) >> 60))
#define GM(w) ((uint32_t)((w) >> 48) & 0xfffu)
#define GATTEMPT(w) ((uint32_t)((w) >> 40) & 0xffu)
#define GGEN(w) ((w) & GEN_MASK)
#define MAIN_GOID 1                   /* the first one that is made */
#define G_CARRIES 0x80000000u         /* in flags: there are shared objects in its arguments or its result */
#define INLINE_ARGS 88
#define INLINE_RESULT 72

struct g {
    au64 state;
    uint64_t goid;                    /* owner, at spawn */
    au32 owner;                       /* m + 1 of the process that awaits it; 0 while on the global free list */
    uint32_t fn;                      /* function table entry */
    uint64_t args, args_len;          /* owner, at spawn; offset 0: inline.  Kept intact until completion (rule 3) */
    uint64_t result, result_len;      /* whoever won the CAS to G_COMPLETING */
    uint32_t result_kind;
    au32 flags;                       /* G_ASKED, G_TO_RAISE: its owner sets them, it clears the second;
                                       * G_PERMIT: anybody sets it, it clears it */
    au64 dependents;                  /* stack of struct dep offsets; | DEPS_CLOSED once the result is there */
    au64 deps;                        /* offset of its own struct deps block; 0: it waits for nothing */
    au64 terms;                       /* offset of its struct terms, 0 none; owner, at spawn */
    uint32_t world;                   /* function table entry of what it runs in, 0: what was at boot; owner, at spawn */
    au32 wait_reason;                 /* G_WAITING: why, and since when; its M.  For people */
    au64 wait_since;
    au32 place;                       /* its name and where it was spawned, see place.h; owner, at spawn.  For people */
    au32 client;                      /* the number of the client it works for, 0 who booted the node; owner, at spawn */
    char inline_args[INLINE_ARGS];
    char inline_result[INLINE_RESULT];
};
_Static_assert(sizeof(struct g) <= 272, "a G slot is about four cache lines");

/* Why a G waits (Go: waitReason). */
enum { WHY_NONE, WHY_GOSCHED, WHY_FUTURE, WHY_CHAN_RECV, WHY_CHAN_SEND, WHY_SELECT, WHY_SEMA, WHY_SLEEP, WHY_IO,
       WHY_LOCK, WHY_PREEMPTED, WHY_OTHER };

/* g.flags: it has been asked to end, and has not been told yet; nothing can wake it any more, and it is to learn that
 * (checkdead.h); its time was up, and so it has been asked. */
enum { G_ASKED = 1, G_TO_RAISE = 2, G_PERMIT = 4, G_DEADLOCKED = 16, G_LATE = 32 };

/* What its owner has said about how a G may fail: these words, then what policy reads of it (ship.terms). */
struct terms {
    uint64_t size;                    /* of it all; constant */
    uint64_t timeout;                 /* ns that it may take each time it runs, 0 any */
    au64 ends;                        /* when its time is up, 0 never; its M, as it begins */
    au64 again;                       /* when it is to be run again, 0: it has not failed; whoever has it wait for that */
};

/* What the result bytes are. */
enum { RESULT_VALUE, RESULT_ERROR, RESULT_WORKER_DIED, RESULT_NO_MEMORY, RESULT_NONE, RESULT_CANCELLED };

#define DEATH_PREFIX 16               /* bytes of a RESULT_WORKER_DIED without which it says nothing: ship.death */

/* A G that waits for others' results has one record for each.  There is no counter: whoever marks a record done looks
 * whether all are, so a completer that dies half-way is finished by walking the same list again.  The records stay until
 * every G they wait for has been collected, so that such a walk meets no freed block. */
#define DEPS_CLOSED 1ull
enum { DEP_WAITS, DEP_DONE, DEP_NEVER_LINKED };    /* the last: it was done when we asked */
struct dep {
    uint64_t next;                    /* offset of the next dependent of the same G, 0 none */
    uint64_t target;                  /* word of the G that waits */
    uint32_t on;                      /* index of the G it waits for */
    au32 done;
};
struct deps {
    uint64_t n;
    au64 first;                       /* all before it are done; perhaps more: a hint, so that n of them cost O(n) */
    struct dep dep[];
};

/* ------------------------------------------------------------------------------------------------- locked rings */
struct lock {
    ALIGNED pthread_mutex_t mutex;    /* robust, process-shared */
    au32 holder;                      /* m + 1, for the coordinator's look at who keeps it waiting */
};

struct lring {                        /* globrunq, and the global part of gFree */
    struct lock lock;
    ALIGNED au64 head;                /* under lock; read without it for emptiness */
    au64 tail;
    uint64_t cells;                   /* offset; constant */
    uint64_t cap;
};

struct fn_entry {
    au64 hash;                        /* 0: free; written last, under the heap's lock */
    uint64_t off, len;                /* off without hash: whoever wrote it died */
};

/* place.c: texts by their number, for people. */
struct text {
    au64 hash;                        /* 0: free; written last, under the lock */
    uint32_t off, len;                /* in the bytes of all texts */
};
struct places {
    struct lock lock;
    uint64_t texts, bytes;            /* offsets; constant */
    au32 used;                        /* under lock: bytes, */
    au32 n;                           /* and texts */
};

/* A block of the heap: this header, then the payload.  state = {owner:24, state:8}; the owner is that of a held block.
 * FREE: on a free list.  HELD: by its owner, until a G refers to it.  USED: by a G.  KEPT: no G refers to it any more, its
 * readers do (readers.c); in the place of the owner is a count then. */
enum { B_FREE = 1, B_HELD, B_USED, B_KEPT };
#define BWORD(state, owner) ((uint32_t)(state) | (uint32_t)(owner) << 8)
#define BSTATE(w) ((w) & 0xffu)
struct block {
    au32 state;
    au32 class;
    au32 shared;                      /* 1: the payload begins with the masks of its readers */
    au32 cold;                        /* free, and its memory has been given back */
    au64 next;                        /* under the lock, while free */
    uint32_t kept;                    /* how often it has been KEPT; whoever makes it so */
    uint32_t pad;
};

#define NCLASSES 40
struct heap {
    struct lock lock;
    uint64_t base, size;              /* constant */
    au64 bump;                        /* under lock: the end of all blocks */
    au64 top;                         /* under lock: as far as memory may be warm; blocks at the end may have ceased to be */
    au64 free[NCLASSES];              /* under lock: offset of the first free block of the class */
};

/* ------------------------------------------------------------------------------------------------- sched */
enum { SYSMON_AWAKE, SYSMON_SLOW, SYSMON_ASLEEP };
#define IDLE_WORDS 64                 /* 4,096 bits: an upper bound for Ps and for Ms */
/* npidle and nmspinning are no counters but the number of bits set in masks: what a dead process contributed is then
 * exactly its own bit, and nothing needs guessing (GMP-SPEC 2.17-1).  pidle and midle are hints: the word of the P or
 * the M decides.  A spinning bit belongs to whoever owns the P, and travels with it from the waker to the M. */
struct sched {
    ALIGNED au64 pidle[IDLE_WORDS];   /* bit set: the P is idle and free to take */
    ALIGNED au64 spinning[IDLE_WORDS]; /* bit set: the M that holds this P looks for work */
    ALIGNED au64 midle[IDLE_WORDS];   /* bit set: the M is parked */
    ALIGNED au32 needspinning;
    ALIGNED au64 goidgen;             /* handed out in batches, as Go does */
    ALIGNED au64 outputs;             /* an M, after each packet it has sent to the client's output channel, and repair:
                                       * while it stands there is nothing to be read before a result is given out */
    ALIGNED au32 closing;                    /* 1: no new work; 2: the coordinator is gone */
    au32 log_levels;                  /* client: the function table entry with its logging levels, 0 none */
    ALIGNED au32 gcwaiting;           /* m + 1 of whoever stops the world, by CAS; futex */
    au32 sysmonwait;                  /* how sysmon sleeps; whoever changes it by CAS sets its alarm */
    au32 rescues;                     /* work beside an idle P and nobody coming, at several looks: should stay 0 */
    au32 throws;                      /* broken invariants met; the first message is kept */
    char throw_text[160];
    au64 limits_at;                   /* coordinator: when it looks next whether a running G's time is up */
    au32 deadlock;                    /* function table entry with what the last G that was deadlocked is to be told */
#ifdef DGMP_KILLPOINTS
    au32 killed;                      /* how often kill points have struck */
#endif
};

/* Records that processes take and give back; pool.c. */
struct pool {
    struct lring ring;                /* indices of what was given back */
    au64 next;                        /* under the ring's lock: records never used start here */
    uint64_t base;                    /* offset of the records; constant, as what follows */
    uint32_t n, stride;
    uint32_t owner;                   /* where in a record its owner stands */
};

#define SAID_BYTES 2048
struct said {                         /* said.c */
    au64 n;                           /* bytes that were ever written; the last of them are here */
    char bytes[SAID_BYTES];
};

#define MAGIC 0x31706d6764ull         /* "dgmp1" */
#define VERSION 1
struct segment {
    uint64_t magic, version, size, header_size;
    au32 nprocs;                      /* Ps that run Gs: allp[0 .. nprocs); whoever has stopped the world */
    uint32_t nps;                     /* clients' Ps, allp[MAX_PS .. nps): rings that no M runs and every M may steal from */
    uint32_t nms, max_ms;             /* slots for Ms: allm[0 .. max_ms); clients: [max_ms .. nms) */
    uint32_t nslots, nfns;
    uint64_t allp, allm, allgs, fns;  /* offsets */
    uint64_t said;                    /* offset of struct said, one for each M */
    uint64_t inbox_cap;
    uint64_t runtime_id;
    au32 ms_made;                      /* by the coordinator, for stats */
    struct sched sched;
    struct lring globrunq, asyncq;
    au32 poller;                      /* m + 1 of the M that runs the async Gs, 0 none: poller.c */
    struct heap heap;
    struct places places;
    struct lock coordinator;          /* its main thread holds it for life */
    struct pool gfree, objects, sudogs;  /* the slots of Gs; object.c, sudog.c */
    ALIGNED au64 trace;               /* coordinator: the number of the trace that was begun last */
    au64 orphans;                     /* objects that have lost their last holder since, and may be gone with it */
};

/* world.c: what a process looked like.  Process-local. */
#define CWD_MAX 4096
struct world_seen {
    char **env, **vars;               /* environ, and a copy of the array with its end */
    size_t nvars;
    char cwd[CWD_MAX];                /* "": it has no path */
    dev_t dev;
    ino_t ino;
};
struct world {
    uint32_t index;                   /* function table entry of the world that our Gs get, */
    uint32_t entered;                 /* and of that which we are in */
    uint32_t client;                  /* for which they work, and in an M those of that world */
    int notify;                       /* inotify descriptor, -1 none: it has something when files are to be looked at */
    int64_t files_ns;                 /* and they are after a pause of at least so long, 0: never */
    double per_ns;                    /* ticks; 0: not known */
    uint64_t ended, looked;           /* in ticks: when the last spawn ended, when all was looked at */
    uint64_t busy, longest;           /* see world_busy */
    uint32_t where;                   /* ended holds there */
    pthread_t thread;                 /* that spawned last */
    struct world_seen told, seen;
};

#define SUDOGS_KEPT 128
#define READIED_KEPT 64

/* A process's view of the segment: process-local, owned by the binding or by a C test. */
struct view {
    struct segment *seg;
    struct p *allp;
    struct m *allm;
    struct g *allgs;
    struct fn_entry *fns;
    uint32_t self;                    /* index of this process in allm */
    uint32_t nfree, free_cap;         /* gFree of this process: indices of dead slots it owns */
    uint32_t *free;
    uint64_t goid_next, goid_end;     /* what is left of our batch of goids */
    uint64_t seed;                    /* of random choices */
    uint32_t ncached[NCLASSES];       /* heap cache of this process */
    uint64_t cached[NCLASSES][16];
    struct sudog *sudogs;
    uint32_t nfree_sudogs;            /* sudogs of this process that are not in use */
    uint32_t free_sudogs[SUDOGS_KEPT];
    int on_main;                      /* the caller runs on the thread of this M's Gs: what it readies here goes to readied */
    uint32_t nreadied;
    uint64_t readied[READIED_KEPT];   /* words, in order */
    int coordinator_fd;               /* eventfd that wakes the coordinator, -1 none (C tests) */
    int sysmon_fd;                    /* timerfd, shared by all: sysmon's alarm; -1 none */
    int forked;                       /* set in a child that user code forked: it is no member (rule 6) */
};

/* segment.c */
_Noreturn void throw(struct view *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
struct config { uint32_t nprocs, max_ms, nclients, nslots; uint64_t heap_size; };
int segment_create(struct config *c, int *fd_out);              /* -> 0, or errno */
int segment_map(int fd, struct view *v, uint32_t self, const char **why);
void segment_unmap(struct view *v);
int lock_init(struct lock *l);
void lock(struct view *v, struct lock *l);
int lock_robust(struct view *v, struct lock *l);                /* 1: its last holder died */
void unlock(struct lock *l);
void live(struct view *v, struct lock *l);
int has_died(struct lock *l);                                   /* who called live(); -1: nobody has */
static inline void *at(struct view *v, uint64_t off) { return (char *)v->seg + off; }
static inline struct m *self_m(struct view *v) { return &v->allm[v->self]; }
static inline uint32_t coordinator_of(struct view *v) { return v->seg->max_ms + 1; }

/* The number of a client that has attached says which process that is, and which of those that have had its slot:
 * {serial:24, slot:8}, where the slot counts from max_ms.  0 is the client that booted the node, which ends with it. */
#define CLIENT_SLOT(client) ((client) & 0xffu)
static inline int client_lives(struct view *v, uint32_t client) {
    uint32_t i = v->seg->max_ms + CLIENT_SLOT(client);
    return !client || (i < v->seg->nms && load_acq(&v->allm[i].client) == client);
}

/* note.c */
int futex_wait(au32 *word, uint32_t expected, int64_t timeout_ns);
void futex_wake(au32 *word, int n);
void noteclear(struct view *v);                                 /* this M is parked from here on */
int notewakeup(struct view *v, uint32_t m, uint32_t word, uint32_t arg); /* 0: that life of m is over */
int notesleep(struct view *v, int64_t timeout_ns);              /* 1: woken, 0: timed out or a signal came */
int64_t nanotime(void);
int64_t coarse_time(void);                                      /* nanotime, some ms late, for a fifth of its price */
static inline void procyield(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* runq.c */
void runqput(struct view *v, struct p *p, uint64_t g, int next);
uint64_t runqget(struct view *v, struct p *p, int *inherit);
uint64_t runqget_ring(struct view *v, struct p *p);             /* passes over runnext */
uint64_t runqsteal(struct view *v, struct p *p, struct p *victim, int steal_runnext, uint32_t max,
                   uint32_t *count);
int runqempty(struct p *p);
uint32_t runqsize(struct p *p);

/* globrunq.c */
void globrunqput(struct view *v, uint64_t g);
void globrunqputbatch(struct view *v, const uint64_t *gs, uint32_t n);
void globrunqputhead(struct view *v, const uint64_t *gs, uint32_t n);
uint64_t globrunqget(struct view *v, struct p *p, uint32_t max, uint32_t *count);
uint64_t globrunqsize(struct view *v);
static inline au64 *lring_cell(struct view *v, struct lring *r, uint64_t i) {
    return (au64 *)at(v, r->cells) + i % r->cap;
}

/* gslab.c */
struct g *gfget(struct view *v, uint32_t *index);               /* NULL: all slots are taken */
void gfput(struct view *v, uint32_t index);
int gclaim(struct view *v, uint64_t w);                         /* G_RUNNABLE -> G_RUNNING here */
void gready(struct view *v, uint64_t w);                         /* a started G can go on: its home M learns of it */
int ggrant(struct view *v, uint64_t w);                          /* a permit to go on, for one gopark; 0: it has ended */
int gcas(struct view *v, uint64_t w, uint32_t from, uint32_t to); /* a status change of a G of this M */
int gcomplete(struct view *v, uint64_t w, uint32_t kind, const void *data, uint64_t len);
int gcomplete_with(struct view *v, uint64_t w, uint32_t kind, uint64_t block, uint64_t len);
int gagain(struct view *v, uint64_t w, uint64_t at);            /* G_RUNNING here -> G_RUNNABLE, or G_DEPS until then */
void tell_coordinator(struct view *v, uint64_t w);              /* of that G: it waits to be run again, or has been asked to end */
int gdue(struct view *v, uint64_t w);                           /* and on to G_RUNNABLE, by the coordinator */
int gcancel(struct view *v, uint64_t w);                        /* G_RUNNABLE or G_DEPS -> G_DONE, by its owner */
int gask(struct view *v, uint64_t w);                           /* a started G shall end; see there.  2: it knows */
void gset_result(struct view *v, struct g *g, uint32_t kind, const void *data, uint64_t len);
void gtell(struct view *v, uint32_t index);                     /* G_DONE: its owner learns of it */
void gwake_dependents(struct view *v, uint32_t index);          /* the result is there; may be repeated */
int gwait_for(struct view *v, uint64_t w);                      /* G_ALLOCATED -> G_DEPS; 1: ready already */
int gdone(struct view *v, uint64_t w);                          /* its result may be read, then collected */
int gcollect(struct view *v, uint64_t w);                       /* G_DONE -> G_COLLECTED; 0: a stale or repeated word */
uint64_t gunfinished(struct view *v, uint32_t client);          /* how many Gs that work for it have not finished */
void gclear(struct view *v, uint32_t index);                    /* slot and blocks go */
void gdiscard(struct view *v, uint32_t index);                  /* and it counts as collected by us */
uint32_t gfree_sweep(struct view *v);                           /* slots that a killed process lost are free again */
void gfflush(struct view *v);                                   /* our dead slots go to the global list */
static inline const char *gresult(struct view *v, struct g *g) {
    return g->result ? at(v, g->result) : g->inline_result;
}
static inline struct terms *gterms(struct view *v, struct g *g) {
    uint64_t off = load_acq(&g->terms);
    return off ? at(v, off) : NULL;
}
static inline const char *gargs(struct view *v, struct g *g) { return g->args ? at(v, g->args) : g->inline_args; }

/* repair.c: the coordinator's, once a process's death is certain */
void repair(struct view *v, uint32_t m);
int is_victim(struct view *v, uint32_t dead, uint32_t i);       /* a G that was started on M `dead`, after its repair: */
int victim_ends(struct view *v, uint32_t dead, uint64_t w, uint32_t kind, const void *data, uint64_t len);
int victim_again(struct view *v, uint32_t dead, uint64_t w, uint64_t at);
void mfree(struct view *v, uint32_t m);
uint32_t adopt(struct view *v, uint32_t m);                     /* collects for a dead owner; its slots still in use */

/* object.c; the rest is in object.h */
void object_orphaned(struct view *v);                           /* something that referred to shared objects is gone */

/* idle.c */
uint32_t npidle(struct view *v);
uint32_t nmspinning(struct view *v);
uint32_t nmidle(struct view *v);
void pidleput(struct view *v, struct p *p);
struct p *pidleget(struct view *v);
struct p *pidletake(struct view *v, uint32_t i);                /* P i, if it is idle */
void acquirep(struct view *v, struct p *p);
struct p *releasep(struct view *v);
void mput(struct view *v);
void mput_locked(struct view *v);
int munput(struct view *v);                                     /* 1: running again; 0: a waker was faster */
struct p *mtake(struct view *v);                                /* HANDED -> RUNNING: the P we were given, or NULL */
int wakep(struct view *v);                                      /* 1: an M was woken or asked for */
int startm(struct view *v, struct p *p, int spinning);          /* as wakep; 0: no M to be had, p is idle again */
int newm_ahead(struct view *v);                                 /* the coordinator, which then makes it */
int startm_on(struct view *v, struct p *p, uint32_t m);         /* hand p to parked m; 0: it was not parked */
int wakem(struct view *v, uint32_t m);                          /* parked m looks around, without a P; 0: it was not parked */
void wake_self(struct view *v);                                 /* by another thread of an M, which may be parked */
void want_p(struct view *v, uint32_t m);                        /* for a parked M with ready Gs */
int become_spinning(struct view *v);                            /* 0: enough Ms spin */
void set_spinning(struct view *v);
void reset_spinning(struct view *v);
int is_spinning(struct view *v);
int work_anywhere(struct view *v);
void startm_failed(struct view *v, uint32_t m);                 /* no process could be made for reserved m */
int stranded(struct view *v);                                   /* work beside an idle P */
int out_of_ms(struct view *v);                                  /* every M is at work, and none is left to be made */
int rescue(struct view *v, int looks);                          /* looks in a row that were stranded; sees to it */
void sysmon_wake(struct view *v);                               /* there may be something for it to see to */
int sysmon_sleep(struct view *v);                               /* 1: all is idle, and who takes a P sets the alarm */
void sysmon_soon(struct view *v);                               /* the caller has published why, and fenced */
void wake_coordinator(struct view *v);

/* said.c */
void said_forget(struct view *v);                               /* a new M begins */
void said_keep(struct view *v, const char *data, uint64_t len);
uint64_t said_last(struct view *v, uint32_t m, char *to);       /* at most SAID_BYTES */

/* retire.c */
enum { RETIRE_NONE, RETIRE_ASKED, RETIRE_WAITS };
void retire_ask(struct view *v, uint32_t m);                    /* the coordinator */
int retire_wait(struct view *v);                                /* 0: its M had better go on */

/* world.c */
enum { WORLD_QUIET, WORLD_STATE, WORLD_FILES };
void world_watch(struct world *w);
int world_busy(struct world *w);
int world_changed(struct world *w);
int world_look(struct world *w);                                /* 0: out of memory */
void world_told(struct world *w, uint32_t index);
void world_entered(struct world *w, uint32_t index);
void world_spawned(struct world *w);
void world_free(struct world *w);

/* inbox.c */
void inbox_push(struct view *v, uint32_t m, uint64_t w);
uint64_t inbox_peek(struct view *v, uint32_t m);                /* the next word, 0 none */
void inbox_drop(struct view *v, uint32_t m);                    /* it has been dealt with */
int inbox_empty(struct view *v, uint32_t m);
int inbox_wait(struct view *v, uint32_t seq, uint64_t want, uint64_t more, int64_t spin_ns, int64_t timeout_ns);
void inbox_kick(struct view *v, uint32_t m);

/* heap.c */
/* A block is *held* by its process until a G refers to it; what a dead process held is swept. */
uint64_t heap_alloc(struct view *v, uint64_t len);              /* offset of the payload, held; 0: full */
void heap_use(struct view *v, uint64_t off);                    /* held -> in use: the reference has been written */
void heap_hold(struct view *v, uint64_t off);                   /* in use -> held: the reference is about to go */
void heap_free(struct view *v, uint64_t off);                   /* held -> free */
void heap_keep(struct view *v, uint64_t off, uint32_t m);       /* held by m -> in use */
uint32_t heap_sweep(struct view *v, uint32_t m);
uint64_t heap_trim(struct view *v);                             /* gives free memory back; bytes, 0: nothing is left to give */
uint32_t heap_shared(struct view *v, uint64_t *bytes);
int fn_intern(struct view *v, uint64_t hash, const void *data, uint64_t len, uint32_t *index);
uint64_t fn_hash(const void *data, uint64_t len);
static inline struct block *block_of(struct view *v, uint64_t payload) { return at(v, payload - sizeof(struct block)); }

/* readers.c */
uint64_t shared_alloc(struct view *v, uint64_t len);            /* as heap_alloc; the block may be read in place */
int is_shared(struct view *v, uint64_t off);
void *shared_content(struct view *v, uint64_t off);             /* aligned to 64 bytes */
void reader_enter(struct view *v, uint64_t off);                /* while a G refers to it, or while we hold it */
void reader_leave(struct view *v, uint64_t off);                /* the last one frees it, if no G refers to it */
int readers_gone(struct view *v, struct block *b);              /* held by us: 1, it is to be freed; 0: they free it */
int reader_forget(struct view *v, struct block *b, uint32_t m); /* m is dead: 1, the block is now free */

#endif
