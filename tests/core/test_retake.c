/* User code as a syscall: taking a P away and back, stopping the world, and what sysmon sees of real processes. */
#include "check.h"
#include "retake.h"
#include "stw.h"
#include "sysmon.h"

#ifdef __SANITIZE_THREAD__
enum { ROUNDS = 5000, RESIZES = 500 };
#else
enum { ROUNDS = 100000, RESIZES = 5000 };
#endif
enum { WORDS = 1 << 16 };
static struct view m0, m1, client, coordinator;
static int fd;

/* All in one mapping: that two addresses are one word is nothing that TSan knows. */
static void fresh(uint32_t nprocs) {
    struct view *others[] = {&m1, &client, &coordinator};
    uint32_t numbers[] = {1, 8, 9};
    fd = new_segment(nprocs, 8);
    attach(&m0, fd, 0, KIND_M);
    for (int i = 0; i < 3; i++) {
        *others[i] = m0;
        others[i]->self = numbers[i];
        self_m(others[i])->kind = i ? KIND_CLIENT : KIND_M;
        self_m(others[i])->pid = (uint32_t)getpid() + numbers[i];
        self_m(others[i])->note = MWORD(M_RUNNING, 0, 0);
    }
}

static void done_with(void) {
    segment_unmap(&m0);
    close(fd);
}

/* ---------------------------------------------------------------- step by step */
static void in_turn(void) {
    fresh(2);
    struct p *p = with_p(&m0);
    entersyscall(&m0);
    uint64_t stretch = p->own;
    CHECK(OWN_STATE(stretch) == P_SYSCALL && OWN_M(stretch) == 0 && holds_p(&client, 0) == 1);
    CHECK(exitsyscallfast(&m0) == P_HELD && OWN_STATE(p->own) == P_RUNNING && m0.allm[0].p == 1);
    CHECK(exitsyscallfast(&m0) == P_HELD);                    /* it may ask twice */
    entersyscall(&m0);
    CHECK(p->own != stretch && !retake(&coordinator, p, stretch));            /* that stretch of user code is over */
    CHECK(!retake(&coordinator, p, OWN(P_IDLE, NONE, OWN_SEQ(p->own))));
    stretch = p->own;
    CHECK(retake(&coordinator, p, stretch) && OWN_M(p->own) == 9 && !holds_p(&client, 0));
    CHECK(handoffp(&coordinator, &coordinator.allp[0]) == 1 && npidle(&client) == 2);            /* no work: idle */
    CHECK(exitsyscallfast(&m0) == P_LOST && m0.allm[0].p == 0 && m0.allm[0].oldp == 1);
    CHECK(exitsyscallfast(&m0) == P_LOST);
    struct p *other = pidleget(&coordinator);                 /* the old one first, if it is idle */
    CHECK(other == coordinator.allp && exitsyscall_idle(&m0) && m0.allm[0].p == 2);
    entersyscall(&m0);
    /* given away beforehand: to an M, as there is work */
    mput(&m1);
    globrunqput(&client, GWORD_FULL | 7);
    CHECK(entersyscallblock(&m0) && !entersyscallblock(&m0) && m0.allm[0].p == 0);
    CHECK(notesleep(&m1, 0) && mtake(&m1) == &m1.allp[1]);
    pidleput(&coordinator, other);
    CHECK(exitsyscall_idle(&m0) && m0.allm[0].p == 1);
    set_spinning(&m0);                                        /* handed over to look for work, it goes on with its G */
    exitsyscall_done(&m0);
    CHECK(nmspinning(&client) == 0 && OWN_STATE(p->own) == P_SYSCALL);
    /* its death in user code leaves the P to others */
    buried(&coordinator, 0);
    CHECK(OWN_M(p->own) != 0 && m0.allm[0].syscall == 0);
    done_with();
}

/* ---------------------------------------------------------------- an owner against who takes */
static uint32_t held_by;                                      /* no atomic: who holds the P may write it, nobody else */
static _Atomic uint32_t popped[WORDS];
static _Atomic int over;

static void hold_and_queue(struct view *v, struct p *p, uint32_t *word) {
    int inherit;
    held_by = v->self;
    if (*word < WORDS) runqput(v, p, GWORD_FULL | *word, *word % 3 == 0), ++*word;
    uint64_t w = runqget(v, p, &inherit);
    if (w) atomic_fetch_add(&popped[(uint32_t)w], 1);
    CHECK(held_by == v->self);
}

static void *take_often(void *arg) {
    struct p *p = &coordinator.allp[0];
    uint32_t word = WORDS / 2;
    while (!atomic_load(&over)) {
        uint64_t own = atomic_load(&p->own);
        if (!retake(&coordinator, p, own)) continue;
        hold_and_queue(&coordinator, p, &word);
        pidleput(&coordinator, p);
    }
    return arg;
}

static void race(void) {
    fresh(1);
    struct p *p = with_p(&m0);
    uint32_t word = 0, lost = 0;
    pthread_t t;
    pthread_create(&t, NULL, take_often, NULL);
    for (int i = 0; i < ROUNDS || (!lost && i < 100 * ROUNDS); i++) {
        if (word < WORDS / 2) hold_and_queue(&m0, p, &word);
        else held_by = 0;
        entersyscall(&m0);
        for (int n = i % 64; n; n--) procyield();
        if (i >= ROUNDS) sched_yield();                       /* a busy machine: it has hardly let the other run */
        if (exitsyscallfast(&m0) == P_HELD) continue;
        lost++;
        while (!exitsyscall_idle(&m0)) sched_yield();
    }
    atomic_store(&over, 1);
    pthread_join(t, NULL);
    int inherit;
    for (uint64_t w; (w = runqget(&m0, p, &inherit)) != 0;) atomic_fetch_add(&popped[(uint32_t)w], 1);
    for (uint32_t i = 0; i < WORDS; i++) CHECK(popped[i] <= 1);
    for (uint32_t i = 0; i < word; i++) CHECK(popped[i] == 1);
    CHECK(lost > 0);
    done_with();
}

/* ---------------------------------------------------------------- the world */
static void *run_user_code(void *arg) {
    struct view *v = arg;
    uint32_t n = 0;
    while (!atomic_load(&over)) {
        while (!load_rlx(&self_m(v)->p) && !exitsyscall_idle(v) && !atomic_load(&over)) sched_yield();
        if (!load_rlx(&self_m(v)->p)) break;
        struct p *p = &v->allp[load_rlx(&self_m(v)->p) - 1];
        if (n < WORDS / 16) runqput(v, p, GWORD_FULL | (v->self * (WORDS / 16) + n), n % 2), n++;
        entersyscall(v);
        for (int got; (got = exitsyscallfast(v)) != P_HELD && got != P_LOST;) gcstopm(v);
    }
    if (load_rlx(&self_m(v)->p)) pidleput(v, releasep(v));
    atomic_store(&popped[v->self], n);
    return NULL;
}

static void stop_and_resize(struct view *v, uint32_t n) {
    while (!stop_the_world(v)) gcstopm(v);
    while (!stopped(v)) sched_yield();
    for (uint32_t i = 0; i < v->seg->nprocs; i++) CHECK(OWN_STATE(v->allp[i].own) == P_GCSTOP);
    procresize(v, n);
    start_the_world(v, v->self + 1);
}

static void *resize_often(void *arg) {
    struct view *v = arg;
    for (uint32_t i = 0; i < RESIZES / 2; i++) stop_and_resize(v, 1 + (i + v->self) % 5);
    return NULL;
}

/* All words that two Ms queue are found, once each, while the Ps come and go. */
static void resizes(void) {
    fresh(3);
    memset(popped, 0, sizeof popped);
    atomic_store(&over, 0);
    for (uint32_t i = 2; i < 8; i++) m0.allm[i].note = MWORD(M_DEAD, 0, 0);    /* nobody is there to make one */
    pthread_t t[4];
    pthread_create(&t[0], NULL, run_user_code, &m0);
    pthread_create(&t[1], NULL, run_user_code, &m1);
    pthread_create(&t[2], NULL, resize_often, &client);
    pthread_create(&t[3], NULL, resize_often, &coordinator);
    pthread_join(t[2], NULL);
    pthread_join(t[3], NULL);
    atomic_store(&over, 1);
    pthread_join(t[0], NULL);
    pthread_join(t[1], NULL);
    uint32_t n[2] = {popped[0], popped[1]}, count;
    memset(popped, 0, sizeof popped);
    stop_and_resize(&client, 1);
    struct p *p = with_p(&m0);
    int inherit;
    for (uint64_t w;;) {
        if (!(w = runqget(&m0, p, &inherit)) && !(w = globrunqget(&m0, p, 1, &count))) break;
        atomic_fetch_add(&popped[(uint32_t)w], 1);
    }
    for (uint32_t m = 0; m < 2; m++)
        for (uint32_t i = 0; i < WORDS / 16; i++) CHECK(popped[m * (WORDS / 16) + i] == (i < n[m]));
    CHECK(client.seg->nprocs == 1 && npidle(&client) == 0);
    done_with();
}

/* Queues keep their order, before what is queued globally. */
static void resize_keeps_order(void) {
    fresh(2);
    struct p *p = with_p(&m0), *q = with_p(&m1);
    uint32_t count;
    globrunqput(&client, GWORD_FULL | 9);
    for (uint64_t i = 2; i < 5; i++) runqput(&m1, q, GWORD_FULL | i, 0);
    runqput(&m1, q, GWORD_FULL | 1, 1);
    entersyscall(&m0);
    entersyscall(&m1);
    stop_and_resize(&client, 1);
    CHECK(exitsyscallfast(&m0) == P_HELD && exitsyscallfast(&m1) == P_LOST && OWN_STATE(q->own) == P_DEAD);
    for (uint64_t i = 1; i < 5; i++) CHECK(globrunqget(&m0, p, 1, &count) == (GWORD_FULL | i));
    CHECK(globrunqget(&m0, p, 1, &count) == (GWORD_FULL | 9) && !globrunqget(&m0, p, 1, &count));
    /* who has stopped the world dies: it goes on, with the Ps of those who run, and without those of the dead */
    entersyscall(&m0);
    stop_and_resize(&client, 3);
    CHECK(exitsyscall_idle(&m1));
    entersyscall(&m1);
    CHECK(stop_the_world(&m1) && !stop_the_world(&client) && stopped(&m1));
    CHECK(exitsyscallfast(&m0) == P_FROZEN);
    buried(&coordinator, 1);
    CHECK(client.seg->sched.gcwaiting == 0 && exitsyscallfast(&m0) == P_HELD && npidle(&client) == 2);
    /* an M that is frozen dies */
    entersyscall(&m0);
    CHECK(stop_the_world(&client) && stopped(&client));
    buried(&coordinator, 0);
    start_the_world(&client, 9);                              /* client 8's number is 9 */
    CHECK(npidle(&client) == 3 && client.seg->sched.gcwaiting == 0);
    done_with();
}

/* ---------------------------------------------------------------- sysmon */
static pid_t m_of(struct view *v, void (*work)(void)) {
    pid_t child = fork_child();
    if (child == 0) {
        work();
        _exit(0);
    }
    atomic_store(&self_m(v)->pid, (uint32_t)child);
    return child;
}

static void sleep_on(void) {
    for (;;) pause();
}

static void burn(void) {
    for (;;) procyield();
}

static void looks(void) {
    struct sysmon s = {0};
    fresh(2);
    CHECK(sysmon_init(&coordinator, &s));
    struct p *p = with_p(&m0);
    with_p(&m1);
    pid_t sleeper = m_of(&m0, sleep_on), burner = m_of(&m1, burn);
    atomic_store(&m0.allm[0].curg, gword(0, 1));
    atomic_store(&m0.allm[1].curg, gword(1, 1));
    m0.allgs[0].fn = 5;
    entersyscall(&m0);
    entersyscall(&m1);
    for (int i = 0; i < 5; i++, usleep(2000)) CHECK(sysmon_look(&coordinator, &s, nanotime()) == 0);  /* no work waits */
    CHECK(s.quiet == 5);
    globrunqput(&client, GWORD_FULL | 7);
    while (!sysmon_look(&coordinator, &s, nanotime())) usleep(2000);
    CHECK(s.nblocked == 1 && s.blocked[0] == 0 && s.nloose == 0 && s.quiet == 0);
    CHECK(s.ps[0].own == p->own);
    sysmon_blocked(&coordinator, &s, 0);
    /* another stretch of user code, in a function that is known to block: at the second look */
    CHECK(exitsyscallfast(&m0) == P_HELD);
    entersyscall(&m0);
    CHECK(sysmon_look(&coordinator, &s, nanotime()) == 0);
    while (!sysmon_look(&coordinator, &s, nanotime())) usleep(1000);
    CHECK(retake(&coordinator, p, s.ps[0].own));
    /* the other's is taken as if it had blocked, and it works on: it is to be told, and not at every look */
    struct p *q = &client.allp[1];
    CHECK(retake(&coordinator, q, q->own) && ms_without_p(&client) == 2);
    while (!sysmon_look(&coordinator, &s, nanotime())) usleep(2000);
    CHECK(s.nblocked == 0 && s.nloose == 1 && s.loose[0] == 1);
    CHECK(sysmon_look(&coordinator, &s, nanotime()) == 0);
    sysmon_free(&s);
    kill_child(sleeper);
    kill_child(burner);
    done_with();
}

int main(void) {
    looks();                                                  /* first: it forks, which TSan wants before threads */
    in_turn();
    race();
    resizes();
    resize_keeps_order();
    DONE("retake");
}
