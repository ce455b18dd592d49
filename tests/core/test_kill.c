/* Killed between any two instructions, literally: each operation of M 0 runs in a child that is single-stepped, and after
 * every instruction a copy of the segment is repaired as if the child had just been killed.  In each copy nothing may be
 * lost or doubled: Gs, Ps, spinning bits, wake-ups, slots, blocks. */
#include "check.h"
#include "chan.h"
#include "retake.h"
#include "stw.h"

#include <errno.h>
#include <sys/mman.h>

enum { PS = 2, MS = 3, CLIENT = MS, COORDINATOR = MS + 1, SLOTS = 1024, HEAP_COPIED = 1 << 20, OWNER_DIED = 0x40000000 };
static struct view m0, m1, client, to_m1, to_client, to_coordinator;
static int fd, to_fd;
static const char *op_name;
static long at_step;

#undef CHECK
#define CHECK(x) do { checks++; if (!(x)) { \
    fprintf(stderr, "%s:%d: %s killed after instruction %ld: not true: %s\n", __FILE__, __LINE__, op_name, at_step, #x); \
    _exit(1); } } while (0)

static uint64_t spawn(struct view *v, uint64_t len) {
    uint32_t index;
    struct g *g = gfget(v, &index);
    CHECK(g);
    uint64_t s = g->state;
    if (len) {
        g->args = heap_alloc(v, len);
        heap_use(v, g->args);
    }
    atomic_store(&g->state, GSTATE(G_RUNNABLE, NO_M, 0, GGEN(s)));
    return gword(index, GGEN(s));
}

static uint64_t spawn_after(struct view *v, const uint64_t *on, uint64_t n) {
    uint32_t index;
    struct g *g = gfget(v, &index);
    uint64_t off = heap_alloc(v, sizeof(struct deps) + n * sizeof(struct dep)), w = gword(index, GGEN(g->state));
    store_rel(&g->deps, off);
    heap_use(v, off);
    struct deps *d = at(v, off);
    memset(d, 0, sizeof *d + n * sizeof(struct dep));
    d->n = n;
    for (uint64_t i = 0; i < n; i++) d->dep[i].on = gword_index(on[i]);
    CHECK(gwait_for(v, w) == 0);
    return w;
}

/* ---------------------------------------------------------------- the operations; each has a set-up by living processes */
static struct p *p0;
static uint64_t w[8];
static char big[3000];

static void put_next(void) { runqput(&m0, p0, w[0], 1); }
static void before_put(void) { w[0] = spawn(&m0, 0), runqput(&m0, p0, spawn(&client, 0), 1); }

static void before_overflow(void) {
    for (int i = 0; i < RUNQ_CAP; i++) runqput(&m0, p0, spawn(&client, 0), 0);
    w[0] = spawn(&m0, 0);
}
static void overflow(void) { runqput(&m0, p0, w[0], 0); }

static void before_get(void) { runqput(&m0, p0, spawn(&client, 0), 0), runqput(&m0, p0, spawn(&client, 0), 1); }
static void get(void) {
    int inherit;
    gclaim(&m0, runqget(&m0, p0, &inherit));
    gclaim(&m0, runqget(&m0, p0, &inherit));
}

static void before_steal(void) {
    for (int i = 0; i < 5; i++) runqput(&client, &client.allp[MAX_PS], spawn(&client, 0), 0);
}
static void steal(void) {
    uint32_t n;
    for (int i = 0; i < 2; i++) gclaim(&m0, runqsteal(&m0, p0, &m0.allp[MAX_PS], 1, 0, &n));
}

static void before_steal_next(void) { runqput(&client, &client.allp[MAX_PS], spawn(&client, 0), 1); }

static void before_global(void) {
    for (int i = 0; i < 7; i++) globrunqput(&client, spawn(&client, 0));
}
static void global(void) {
    uint32_t n;
    gclaim(&m0, globrunqget(&m0, p0, 0, &n));
}

static void before_complete(void) {
    w[0] = spawn(&client, 2000), w[1] = spawn(&client, 0);
    spawn_after(&client, w, 1), spawn_after(&client, w, 2), spawn_after(&client, w, 1);
    CHECK(gclaim(&m0, w[0]) && gclaim(&m0, w[1]) && gcomplete(&m0, w[1], RESULT_VALUE, "x", 1));
}
static void complete(void) { CHECK(gcomplete(&m0, w[0], RESULT_VALUE, big, sizeof big)); }

/* Its run is over, and it is to be run again: now, or when its time has come. */
static void before_again(void) {
    w[0] = spawn(&client, 0);
    struct g *g = &client.allgs[gword_index(w[0])];
    g->terms = heap_alloc(&client, sizeof(struct terms));
    memset(at(&client, g->terms), 0, sizeof(struct terms));
    heap_use(&client, g->terms);
    CHECK(gclaim(&m0, w[0]));
}
static void again(void) { CHECK(gagain(&m0, w[0], 0)); }
static void again_later(void) { CHECK(gagain(&m0, w[0], 7)); }

/* As View_spawn does it, for a G of M 0's own. */
static void spawn_child(void) {
    uint64_t g = spawn(&m0, 2000);
    runqput(&m0, p0, g, 1);
    wakep(&m0);
}
static void spawn_waiter(void) {
    uint64_t g = spawn(&m0, 0);
    runqput(&m0, p0, g, 0);
    spawn_after(&m0, &g, 1);
}

static void before_collect(void) {
    for (int i = 0; i < 3; i++) {
        w[i] = spawn(&m0, 2000);
        CHECK(gclaim(&m1, w[i]) && gcomplete(&m1, w[i], RESULT_VALUE, big, sizeof big));
    }
}
static void collect(void) {
    for (uint64_t g; (g = inbox_peek(&m0, 0)) != 0;) {
        int ours = gcollect(&m0, g);
        inbox_drop(&m0, 0);
        if (ours) gdiscard(&m0, gword_index(g));
    }
}

/* Large arguments and results: read in place by M 0, or by M 1 too, while or after a G refers to them. */
static uint64_t blocks[3];
static void before_share(void) {
    for (int i = 0; i < 3; i++) {
        struct g *g = &client.allgs[gword_index(w[i] = spawn(&client, 0))];
        g->args = blocks[i] = shared_alloc(&client, 70000);
        heap_use(&client, g->args);
    }
    CHECK(gclaim(&m0, w[0]));
    globrunqput(&client, w[1]), globrunqput(&client, w[2]);
    reader_enter(&m1, blocks[2]);
}
static void share(void) {
    reader_enter(&m0, blocks[0]);
    reader_enter(&m0, blocks[2]);
    CHECK(gcomplete_with(&m0, w[0], RESULT_VALUE, shared_alloc(&m0, 80000), 80000));
    reader_leave(&m0, blocks[2]);
}
static void before_leave(void) {
    before_share();
    for (int i = 0; i < 3; i++) reader_enter(&m0, blocks[i]);
    CHECK(gcomplete(&m0, w[0], RESULT_VALUE, "x", 1) && inbox_peek(&client, CLIENT) == w[0]);
    CHECK(gcollect(&client, w[0]));
    inbox_drop(&client, CLIENT);
    gdiscard(&client, gword_index(w[0]));                     /* blocks[0]: M 0 alone has it */
}
static void leave(void) {
    for (int i = 0; i < 3; i++) reader_leave(&m0, blocks[i]);
}

static void before_cancel(void) {
    w[0] = spawn(&m0, 2000), w[1] = spawn(&m0, 0);
    runqput(&m0, p0, w[0], 0), globrunqput(&m0, w[1]);
    spawn_after(&m0, w, 1), spawn_after(&m0, w + 1, 1);
}
static void cancel(void) { CHECK(gcancel(&m0, w[0]) && gcancel(&m0, w[1])); }

static void m1_parks(void) { mput(&m1); }
static void before_wake(void) { m1_parks(), globrunqput(&client, spawn(&client, 0)); }
static void wake(void) { wakep(&m0); }
static void before_new(void) { globrunqput(&client, spawn(&client, 0)); }

/* M 1 is parked and has a started G that w[0] readies: with an idle P, and without. */
static void before_ready(void) {
    m1_parks();
    w[0] = spawn(&m1, 0);
    CHECK(gclaim(&m0, w[0]));
}
static void before_ready_busy(void) {
    before_ready();
    CHECK(pidleget(&client));                                 /* the last idle P: somebody else's now */
}
static void ready(void) { gcomplete(&m0, w[0], RESULT_VALUE, "x", 1); }

static void before_park(void) { set_spinning(&m0); }
static void park(void) {
    reset_spinning(&m0);
    pidleput(&m0, releasep(&m0));
    fence_sc(&m0.seg->sched.pidle[0]);
    if (work_anywhere(&m0)) return;
    mput(&m0);
    munput(&m0);
    acquirep(&m0, pidleget(&m0));
}
static void hand_off(void) { startm_on(&m0, releasep(&m0), 1); }
static void hand_to_new(void) { startm(&m0, releasep(&m0), 0); }

static void before_block(void) {
    m1_parks();
    globrunqput(&client, spawn(&client, 0));
    entersyscall(&m0);
}
static void block(void) { entersyscallblock(&m0); }

static void in_and_out(void) {
    entersyscall(&m0);
    exitsyscallfast(&m0);
}

/* Two Ps with work become one, and two again. */
static void before_resize(void) {
    for (int i = 0; i < 3; i++) runqput(&m0, p0, spawn(&client, 0), 1), runqput(&m0, &m0.allp[1], spawn(&client, 0), 1);
    entersyscall(&m0);
}
static void resize(void) {
    for (uint32_t n = 1; n <= 2; n++) {
        stop_the_world(&m0);
        while (!stopped(&m0)) continue;
        procresize(&m0, n);
        start_the_world(&m0, 1);
    }
}

/* Channels.  The client has made them; M 1 waits at the first, or M 0 does; messages are numbered, and each has a block. */
static uint64_t chans[2];
static struct scase m1_case;
static uint32_t m1_is, nmessages;
static int m1_waits;

static struct chan *chan_in(struct view *v, int i) { return (struct chan *)object_body(v, chans[i]); }
static struct elem message(struct view *v) {
    struct elem e = {heap_alloc(v, 600), 600, 1, ""};
    *(uint64_t *)at(v, e.off) = nmessages++;
    return e;
}
static int try_select(struct view *v, struct scase *k, uint32_t n, uint64_t waiter, uint32_t *is) {
    uint32_t which;
    int64_t until;
    int how = chan_select(v, k, n, waiter, is, &which, &until);
    return how;
}
static void make_chans(uint64_t cap, uint32_t full) {
    nmessages = 0;
    for (int i = 0; i < 2; i++) {
        struct chan *c = chan_make(&client, cap, 0, 0, NO_TIME);
        chans[i] = c->body.word;
        object_escape(&client, chans[i]);
    }
    for (uint32_t i = 0; i < full; i++) {
        struct scase k = {chan_in(&client, 0), 1, message(&client)};
        CHECK(try_select(&client, &k, 1, NO_WAITER, NULL) == SELECT_DONE);
    }
}
static void m1_begins(int send) {
    m1_case = (struct scase){chan_in(&m1, 0), (uint32_t)send, {0}};
    if (send) m1_case.elem = message(&m1);
    m1_waits = 1;
    CHECK(try_select(&m1, &m1_case, 1, 0, &m1_is) == SELECT_WAITS);
}
static void before_send(void) { make_chans(0, 0), m1_begins(0); }
static void before_send_room(void) { make_chans(2, 1); }
static void before_recv(void) { make_chans(0, 0), m1_begins(1); }
static void before_recv_full(void) { make_chans(2, 2), m1_begins(1); }
static void send_one(void) {
    struct scase k = {chan_in(&m0, 0), 1, message(&m0)};
    CHECK(try_select(&m0, &k, 1, NO_WAITER, NULL) == SELECT_DONE);
}
static void recv_one(void) {
    struct scase k = {chan_in(&m0, 0), 0, {0}};
    CHECK(try_select(&m0, &k, 1, NO_WAITER, NULL) == SELECT_DONE);
    heap_free(&m0, k.elem.off);
}
static void close_one(void) { CHECK(chan_close(&m0, chan_in(&m0, 0)) == 1); }
static void before_select(void) { make_chans(0, 0); }
static void wait_and_give_up(void) {
    struct scase ks[] = {{chan_in(&m0, 0), 1, message(&m0)}, {chan_in(&m0, 1), 0, {0}}, {chan_in(&m0, 0), 0, {0}}};
    uint32_t is[3], which;
    CHECK(try_select(&m0, ks, 3, 0, is) == SELECT_WAITS);
    CHECK(chan_wait_end(&m0, ks, 3, is, 1, &which) == SELECT_BLOCKS);
    heap_free(&m0, ks[0].elem.off);
}
static void make_and_drop(void) {
    struct chan *c = chan_make(&m0, 2, 0, 0, NO_TIME);
    for (int i = 0; i < 2; i++) {
        struct scase k = {c, 1, message(&m0)};
        CHECK(try_select(&m0, &k, 1, NO_WAITER, NULL) == SELECT_DONE);
    }
    object_drop(&m0, c->body.word);
}

static struct op { const char *name; void (*before)(void), (*act)(void); } ops[] = {
    {"put", before_put, put_next}, {"overflow", before_overflow, overflow}, {"get", before_get, get},
    {"steal", before_steal, steal}, {"steal runnext", before_steal_next, steal}, {"globrunqget", before_global, global},
    {"complete", before_complete, complete}, {"run again", before_again, again},
    {"run again later", before_again, again_later}, {"spawn", NULL, spawn_child}, {"spawn a waiter", NULL, spawn_waiter},
    {"share", before_share, share}, {"leave", before_leave, leave}, {"collect", before_collect, collect},
    {"cancel", before_cancel, cancel}, {"wake", before_wake, wake}, {"new M", before_new, wake},
    {"ready", before_ready, ready}, {"ready by token", before_ready_busy, ready}, {"park", before_park, park},
    {"hand off", m1_parks, hand_off}, {"hand to a new M", NULL, hand_to_new}, {"block", before_block, block},
    {"in and out", NULL, in_and_out}, {"resize", before_resize, resize}, {"send to who waits", before_send, send_one},
    {"send into the buffer", before_send_room, send_one}, {"receive from who waits", before_recv, recv_one},
    {"receive and refill", before_recv_full, recv_one}, {"receive from the buffer", before_send_room, recv_one},
    {"close", before_send, close_one}, {"close with a sender", before_recv_full, close_one},
    {"wait and give up", before_select, wait_and_give_up}, {"make and drop", NULL, make_and_drop}};

/* ---------------------------------------------------------------- what must hold */

static void its_holder_died(struct lock *l, pid_t child) {
    if ((l->mutex.__data.__lock & 0x3fffffff) == child) l->mutex.__data.__lock = OWNER_DIED;
}

/* A copy of the segment as it is, in which the stopped child is dead. */
static void copy(pid_t child) {
    struct segment *from = m0.seg, *to = to_m1.seg;
    char *a = (char *)from, *b = (char *)to;
    memcpy(b, a, from->allp + PS * sizeof(struct p));         /* most Ps are never used */
    uint64_t clients = from->allp + MAX_PS * sizeof(struct p);
    memcpy(b + clients, a + clients, from->fns - clients);
    memcpy(b + from->globrunq.cells, a + from->globrunq.cells, from->objects.base - from->globrunq.cells);
    struct pool *pools[] = {&from->objects, &from->sudogs};
    for (int i = 0; i < 2; i++) memcpy(b + pools[i]->base, a + pools[i]->base, pools[i]->next * pools[i]->stride);
    memcpy(b + from->allgs, a + from->allgs, from->heap.base + HEAP_COPIED - from->allgs);
    struct lock *locks[] = {&to->globrunq.lock, &to->gfree.ring.lock, &to->heap.lock, &to->objects.ring.lock, &to->sudogs.ring.lock};
    for (int i = 0; i < 5; i++) its_holder_died(locks[i], child);
    for (uint32_t i = 0; i < to->objects.next; i++) {
        struct object *o = pool_at(&to_m1, &to->objects, i);
        if (o->off) its_holder_died((struct lock *)(b + ((o->off + 63) & ~63ull)), child);
    }
}

/* M 1 has what M 0 had: it runs all there is.  Returns how many Gs it ran. */
static void run_everything(void) {
    struct view *v = &to_m1;
    int inherit;
    uint32_t n;
    uint64_t own = atomic_load(&v->allp[0].own);
    atomic_store(&v->allp[0].own, OWN(P_RUNNING, 1, OWN_SEQ(own) + 1));       /* whoever has it: it is a test's P now */
    struct p *p = &v->allp[0];
    atomic_store(&v->allm[1].p, 1);
    for (;;) {
        uint64_t g = runqget(v, p, &inherit);
        if (!g) g = globrunqget(v, p, 0, &n);
        for (uint32_t i = 1; !g && i < v->seg->nps; i = i == 1 ? MAX_PS : i + 1)
            g = runqsteal(v, p, &v->allp[i], 1, 0, &n);
        if (!g) return;
        if (!(g & GWORD_TOKEN) && gclaim(v, g)) gcomplete(v, g, RESULT_VALUE, "x", 1);
    }
}

static int has_token(struct view *v, uint32_t m) {
    struct lring *r = &v->seg->globrunq;
    for (uint64_t i = r->head; i < r->tail; i++)
        if (load_rlx(lring_cell(v, r, i)) == token(m)) return 1;
    return 0;
}

static void check_ps_and_ms(void) {
    struct view *v = &to_m1;
    int coming = 0;
    for (uint32_t i = 0; i < MS; i++) {
        uint32_t note = v->allm[i].note;
        CHECK(MSTATE(note) != M_WANTED && MSTATE(note) != M_STARTING);
        coming += MSTATE(note) == M_HANDED;
        if (MSTATE(note) == M_HANDED && MARG(note)) CHECK(OWN_M(v->allp[MARG(note) - 1].own) == i);
    }
    for (uint32_t i = 0; i < PS; i++) {
        uint64_t own = v->allp[i].own;
        int idle = v->seg->sched.pidle[0] >> i & 1, spins = v->seg->sched.spinning[0] >> i & 1;
        CHECK(OWN_STATE(own) == P_IDLE ? idle && !spins : OWN_M(own) != 0 || MSTATE(v->allm[0].note) == M_HANDED);
        if (OWN_STATE(own) == P_RUNNING && OWN_M(own) < MS)
            CHECK(v->allm[OWN_M(own)].note == MWORD(M_HANDED, i + 1, MLIFE(v->allm[OWN_M(own)].note)));
    }
    CHECK(!work_anywhere(v) || npidle(v) == 0 || coming);     /* work and an idle P: somebody comes */
    if (MSTATE(v->allm[1].note) == M_IDLE) CHECK(inbox_empty(v, 1) || has_token(v, 1));
}

static void check_gs(uint32_t clients) {
    struct view *v = &to_client;
    run_everything();
    uint32_t told = 0, out = 0;
    for (uint64_t g; (g = inbox_peek(v, CLIENT)) != 0; inbox_drop(v, CLIENT)) told += (uint32_t)gcollect(v, g);
    CHECK(told == clients);
    for (uint64_t g; (g = inbox_peek(v, 1)) != 0; inbox_drop(v, 1)) gcollect(v, g);
    CHECK(adopt(&to_coordinator, 0) == 0);
    for (uint32_t i = 0; i < v->seg->gfree.next; i++) {
        uint64_t s = v->allgs[i].state;
        CHECK(GSTATUS(s) == G_DEAD || GSTATUS(s) == G_COLLECTED);
        CHECK(v->allgs[i].owner != 1);
        out += v->allgs[i].owner != 0;
    }
    CHECK(v->seg->gfree.ring.tail - v->seg->gfree.ring.head + out == v->seg->gfree.next && gfree_sweep(&to_coordinator) == 0);
}

/* Each block in use is referred to once; none is held by the dead; sweeping again finds nothing. */
static void check_blocks(void) {
    struct view *v = &to_coordinator;
    uint32_t used = 0, referred = 0, owned_by_dead = 0;
    au64 *readers;
    for (uint64_t off = v->seg->heap.base; off < v->seg->heap.bump;) {
        struct block *b = at(v, off);
        readers = (au64 *)(b + 1);
        CHECK(b->state == B_FREE || !b->shared || (*readers & 1) == 0);       /* the dead read nothing */
        CHECK(BSTATE(b->state) != B_KEPT || *readers);
        used += b->state == B_USED, owned_by_dead += b->state == BWORD(B_HELD, 0);
        off += 512ull << b->class;
    }
    for (uint32_t i = 0; i < v->seg->gfree.next; i++) {
        struct g *g = &v->allgs[i];
        if (GSTATUS(g->state) != G_DEAD) referred += (g->args != 0) + (g->result != 0) + (g->deps != 0) + (g->terms != 0);
    }
    CHECK(used == referred && owned_by_dead == 0 && heap_sweep(v, 0) == 0);
}

static uint64_t opened(struct view *v, struct elem *e) {
    uint64_t x = *(uint64_t *)at(v, e->off);
    heap_free(v, e->off);
    return x;
}

/* M 1's wait ends, or can be given up, and goes on only beside no message and no room; each message is in one place, but for
 * the one that the dead had in its hands. */
static void check_chans(void) {
    uint32_t got[8] = {0}, all = 0, which;
    if (m1_waits) {
        struct scase k = m1_case;
        k.c = chan_in(&to_m1, 0);
        if (load_acq(&sudog_at(&to_m1, m1_is)->done) == WAIT_PENDING) CHECK(chan_len(k.c) == (k.send ? k.c->cap : 0));
        int how = chan_wait_end(&to_m1, &k, 1, &m1_is, 1, &which);
        CHECK(how != SELECT_WAITS);
        if (k.send ? how != SELECT_DONE : how == SELECT_DONE) got[opened(&to_m1, &k.elem)]++;
    }
    for (int i = 0; i < 2 && chans[0]; i++) {
        struct chan *c = chan_in(&to_client, i);
        struct scase k = {c, 0, {0}};
        while (try_select(&to_client, &k, 1, NO_WAITER, NULL) == SELECT_DONE) got[opened(&to_client, &k.elem)]++;
        CHECK(!c->recvq.first && !c->recvq.last && !c->sendq.first && !c->sendq.last && !c->moving);
        object_drop(&to_client, chans[i]);
    }
    if (chans[0]) object_trace(&to_coordinator);
    struct segment *s = to_m1.seg;
    CHECK(objects_live(&to_client) == 0 && s->objects.ring.tail - s->objects.ring.head == s->objects.next);
    for (uint32_t i = 0; i < 8; i++) {
        CHECK(got[i] <= 1);
        all += got[i];
    }
    CHECK(all + 1 >= nmessages);
    for (uint32_t i = 0; i < s->sudogs.next; i++) CHECK(sudog_at(&to_m1, i)->owner != 1 && !sudog_at(&to_m1, i)->queued);
    CHECK(pool_sweep(&to_coordinator, &s->sudogs) == 0);
}

static void check_killed_here(pid_t child) {
    copy(child);
    struct view *vs[] = {&to_m1, &to_client, &to_coordinator};
    for (int i = 0; i < 3; i++) vs[i]->nfree = vs[i]->nfree_sudogs = 0, memset(vs[i]->ncached, 0, sizeof vs[i]->ncached);
    uint32_t clients = 0;
    for (uint32_t i = 0; i < to_m1.seg->gfree.next; i++)
        clients += to_m1.allgs[i].owner == CLIENT + 1 && GSTATUS(to_m1.allgs[i].state) != G_DEAD;
    buried(&to_coordinator, 0);
    for (uint64_t g; (g = inbox_pop(&to_coordinator)) != 0;) gdue(&to_coordinator, g);
    check_ps_and_ms();
    check_gs(clients);
    check_chans();
    check_blocks();
}

static void fresh(void) {
    fd = new_segment_of(PS, MS, SLOTS);
    attach(&m0, fd, 0, KIND_M), attach(&m1, fd, 1, KIND_M), attach(&client, fd, CLIENT, KIND_CLIENT);
    p0 = with_p(&m0);
    CHECK(p0 == m0.allp);
    m0.seed = 1;                                              /* reading the clock never ends for who is stepped */
    m1_waits = 0, chans[0] = chans[1] = 0, nmessages = 0;
}

static void step_through(struct op *op) {
    alarm(60);                                                /* for each: a busy machine switches slowly between us two */
    fresh();
    op_name = op->name;
    if (op->before) op->before();
    pid_t child = stopped_before(op->act);
    at_step = 0;
    check_killed_here(child);
    while (step(child)) {
        at_step++;
        check_killed_here(child);
    }
    kill_child(child);
    check_killed_here(child);
    segment_unmap(&m0), segment_unmap(&m1), segment_unmap(&client);
    close(fd);
    if (getenv("VERBOSE")) fprintf(stderr, "%s: %ld instructions\n", op->name, at_step);
}

int main(void) {
    pid_t probe = fork_child();
    if (probe == 0) _exit(ptrace(PTRACE_TRACEME, 0, NULL, NULL) ? 1 : 0);
    int status;
    waitpid(probe, &status, 0);
    if (status) {
        printf("kill: skipped: ptrace is not allowed here\n");
        return 0;
    }
    to_fd = new_segment_of(PS, MS, SLOTS);
    const char *why;
    CHECK(segment_map(to_fd, &to_m1, 1, &why) == 0 && segment_map(to_fd, &to_client, CLIENT, &why) == 0);
    CHECK(segment_map(to_fd, &to_coordinator, COORDINATOR, &why) == 0);
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) step_through(&ops[i]);
    DONE("kill");
}
