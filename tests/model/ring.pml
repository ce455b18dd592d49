/* ring.pml: no G is lost or run twice when a process is killed between any two steps of put, overflow, get, steal, claim and
 * complete (dgmp/_core/runq.c, globrunq.c, gslab.c; repair.c).
 *
 * One step is one access of shared memory; the comments say where in C it stands.  M 0 owns P 0, and puts G N into its
 * runnext.  M 1 owns P 1 and steals.  Both run what they find until all is done.  At any moment one of them may be killed
 * (`unless`), and is repaired while the other goes on.
 *
 * A ring has CAP slots, not 256.  A kill empties the store buffer, and repair runs after, so what the dead one has
 * written is what it did, in order.  The Gs 1 to N - 1 are a client's, which lives; G N is M 0's own, and goes with it.  Slots
 * are not used again (no generations), and the owner's inbox is one step.
 *
 * The G that the dead one ran ends, or is run again, as its terms are (coordinator.deaths).
 *
 * Checked: every G ends once at its owner, and is run once at most, or once more than it has strikes.
 */
#ifdef OVERFLOW                       /* ring and runnext full, one more is put */
#define CAP 2
#define IN_RING 2
#define IN_GLOBAL 0
#define NEXT 1
#elif defined(STEAL)                  /* a ring from which two can be taken at once */
#define CAP 4
#define IN_RING 3
#define IN_GLOBAL 0
#define NEXT 0
#else                                 /* GLOBAL: a global queue from which two can be taken at once */
#define CAP 4
#define IN_RING 0
#define IN_GLOBAL 2
#define NEXT 1
#endif
#define N (IN_RING + IN_GLOBAL + NEXT + 1)  /* N is put */
#define NONE 15
#define CELLS 12

mtype = { RUNNABLE, RUNNING, DONE, COLLECTED };
typedef ring { byte head, tail, runnext; byte runq[CAP] };
typedef record { byte popping; bit intent; byte intent_p, intent_start, intent_n, intent_extra };
ring allp[2];
record allm[2];
mtype state[N + 1] = RUNNABLE;
byte by[N + 1], runs[N + 1], strikes[N + 1];  /* GM of the state word; how often user code has begun; of these in vain */
byte globrunq[CELLS], ghead, gtail, holder = NONE;
byte ended;
byte dying = NONE, dead = NONE;

/* The robust mutex; a dead holder's is free (EOWNERDEAD). */
inline lock() { atomic { holder == NONE -> holder = me } }
inline unlock() { holder = NONE }

inline globrunqput(w) {
    lock();
    globrunq[gtail] = w;
    gtail++;
    unlock()
}

/* The owner is told, and collects: the first time only. */
inline gtell(x) { atomic { if :: state[x] == DONE -> state[x] = COLLECTED; ended++ :: else fi } }

inline intent_begin(pp, start, n_, extra) {
    atomic { allm[me].intent_p = pp; allm[me].intent_start = start };
    atomic { allm[me].intent_n = n_; allm[me].intent_extra = extra };
    allm[me].intent = 1
}

inline intent_end() { allm[me].intent = 0 }

inline gclaim_and_run() {
#ifndef CLAIM_STORE
    atomic { if :: state[g] == RUNNABLE -> state[g] = RUNNING; by[g] = me; won = 1 :: else fi };
#else
    won = state[g] == RUNNABLE;
    if :: won -> atomic { state[g] = RUNNING; by[g] = me } :: else fi;
#endif
    allm[me].popping = 0;
    if
    :: won -> won = 0;
       atomic { runs[g]++; assert(runs[g] <= 1 + strikes[g]); state[g] = DONE };  /* user code; gcomplete */
       gtell(g)
    :: else
    fi;
    g = 0
}

#ifndef NO_POPPING
#define ANNOUNCE(w) allm[me].popping = w
#else
#define ANNOUNCE(w) skip
#endif

/* g = the next, or 0 */
inline runqget_ring() {
    do
    :: atomic { h = allp[p].head; if :: h == allp[p].tail -> h = 0; break :: else fi };
       g = allp[p].runq[h % CAP];
       ANNOUNCE(g);
       atomic { if :: allp[p].head == h -> allp[p].head = h + 1; h = 0; break :: else -> g = 0 fi }
    od
}

inline runqget() {
    g = allp[p].runnext;
    if
    :: g -> ANNOUNCE(g);
       atomic { if :: allp[p].runnext == g -> allp[p].runnext = 0 :: else -> g = 0 fi }
    :: else
    fi;
    if :: !g -> runqget_ring() :: else fi
}

/* g and half of the ring go to the global queue; won: they did */
inline runqputslow() {
    n = (t - h) / 2;
    assert(n == CAP / 2);
    batch = allp[p].runq[h % CAP];                            /* n is 1 with such a ring */
#ifndef NO_OVERFLOW_INTENT
    intent_begin(p, h, n, g);
#endif
    atomic { if :: allp[p].head == h -> allp[p].head = h + n; won = 1 :: else fi };
    if
    :: won -> lock();
       globrunq[gtail] = batch;
       globrunq[gtail + 1] = g;
       gtail = gtail + 2;
       unlock()
    :: else
    fi;
    atomic { n = 0; batch = 0 }
}

/* runqput(v, p, N, next = 1) */
inline runqput_next() {
    do
    :: g = allp[p].runnext;
#ifndef NO_KICK_INTENT
       intent_begin(p, 0, 0, g);
#endif
       atomic { if :: allp[p].runnext == g -> allp[p].runnext = N; break :: else fi }
    od;
    if
    :: g ->
       do
       :: atomic { h = allp[p].head; t = allp[p].tail };
          if
          :: t - h < CAP ->
#ifndef TAIL_FIRST
             allp[p].runq[t % CAP] = g;
             allp[p].tail = t + 1;
#else
             allp[p].tail = t + 1;
             allp[p].runq[t % CAP] = g;
#endif
             break
          :: else -> runqputslow();
             if :: won -> won = 0; break :: else fi
          fi
       od
    :: else
    fi;
    intent_end();
    atomic { g = 0; h = 0; t = 0 }
}

/* n = how many lie in our ring beyond its tail t now */
inline runqgrab(victim) {
    do
    :: h = allp[victim].head;
       atomic { n = allp[victim].tail - h; n = n - n / 2 };
       if
       :: n == 0 -> g = allp[victim].runnext;
          if :: !g -> break :: else fi;
          allp[p].runq[t % CAP] = g;
#ifndef NO_STEAL_INTENT
          intent_begin(p, t, 1, 0);
#endif
          atomic { if :: allp[victim].runnext == g -> allp[victim].runnext = 0; n = 1; break :: else fi }
       :: n > CAP / 2                                         /* h and tail do not belong together */
       :: else ->
#ifdef COPY_AFTER
          atomic { if :: allp[victim].head == h -> allp[victim].head = h + n; won = 1 :: else fi };
          if :: won :: else -> goto again fi;
          won = 0;
#endif
          allp[p].runq[t % CAP] = allp[victim].runq[h % CAP];
          if :: n == 2 -> allp[p].runq[(t + 1) % CAP] = allp[victim].runq[(h + 1) % CAP] :: else fi;
#ifdef COPY_AFTER
          break;
again:
#else
#ifndef NO_STEAL_INTENT
          intent_begin(p, t, n, 0);
#endif
          atomic { if :: allp[victim].head == h -> allp[victim].head = h + n; break :: else fi }
#endif
       fi
    od
}

inline runqsteal(victim) {
    t = allp[p].tail;
    runqgrab(victim);
    g = 0;
    if
    :: n -> g = allp[p].runq[(t + n - 1) % CAP];
       ANNOUNCE(g);
#ifdef CLEAR_FIRST
       intent_end();
#endif
       if :: n == 2 -> allp[p].tail = t + 1 :: else fi
    :: else
    fi;
#ifndef CLEAR_FIRST
    intent_end();
#endif
    atomic { h = 0; t = 0; n = 0 }
}

/* g = the first, or 0; nprocs is 2, and our ring is empty */
inline globrunqget() {
    if
    :: gtail > ghead ->
       lock();
       atomic { n = (gtail - ghead) / 2 + 1;
                if :: n > gtail - ghead -> n = gtail - ghead :: else fi;
                if :: n > CAP / 2 -> n = CAP / 2 :: else fi };
       if
       :: n -> atomic { t = allp[p].tail; g = globrunq[ghead] };
          if :: n == 2 -> allp[p].runq[t % CAP] = globrunq[ghead + 1] :: else fi;
          ANNOUNCE(g);
#ifndef NO_GLOBAL_INTENT
          intent_begin(p, t, n - 1, 0);
#endif
          ghead = ghead + n;
          unlock();
          if :: n == 2 -> allp[p].tail = t + 1 :: else fi;
          intent_end()
       :: else -> unlock()
       fi;
       atomic { n = 0; t = 0 }
    :: else
    fi
}

#define runqempty(i) (allp[i].head == allp[i].tail && !allp[i].runnext)
#define visible (gtail > ghead || !runqempty(0) || !runqempty(1))

/* Finds and runs until all is done; who finds nothing sleeps until there is something (park.pml). */
inline schedule() {
    do
    :: atomic { visible || ended == N -> if :: ended == N -> break :: else fi };
       runqget();
       if :: !g -> globrunqget() :: else fi;
       if :: !g -> runqsteal(1 - p) :: else fi;
       if :: g -> gclaim_and_run() :: else fi
    od
}

#define LOCALS byte p = me, g, h, t, n, batch; bit won
#define KILLED atomic { dying == me -> dead = me; if :: holder == me -> holder = NONE :: else fi }

active proctype owner() {
    byte me = 0;
    LOCALS;
    atomic {
        do :: g < IN_RING -> g++; allp[0].runq[g - 1] = g :: else -> break od;
        do :: gtail < IN_GLOBAL -> g++; globrunq[gtail] = g; gtail++ :: else -> break od;
        allp[0].tail = IN_RING;
        allp[0].runnext = (NEXT -> N - 1 : 0);
        g = 0
    };
    { runqput_next(); schedule() } unless { KILLED }
}

active proctype thief() {
    byte me = 1;
    LOCALS;
    { schedule() } unless { KILLED }
}

active proctype killer() {
    if
    :: dying = 0
    :: dying = 1
    :: skip
    fi
}

inline requeue(w) {
    g = w;
    if :: g && state[g] == RUNNABLE -> globrunqput(g) :: else fi;
    g = 0
}

/* The coordinator, once the death is certain. */
active proctype repair() {
    byte me = 2, g, i;
end:
    (dead != NONE);
    requeue(allm[dead].popping);                              /* requeue_moves */
    if
    :: allm[dead].intent ->
       do
       :: i < allm[dead].intent_n ->
          requeue(allp[allm[dead].intent_p].runq[(allm[dead].intent_start + i) % CAP]);
          i++
       :: else -> i = 0; break
       od;
       requeue(allm[dead].intent_extra)
    :: else
    fi;
    allm[dead].popping = 0;
    allm[dead].intent = 0;
    for (i : 1 .. N) {                                        /* settle_gs */
        if
        :: by[i] == dead && state[i] == RUNNING ->
           by[i] = me;                                        /* take_victim */
           if
           :: state[i] = DONE; gtell(i)                       /* victim_ends */
           :: atomic { strikes[i] = 1; state[i] = RUNNABLE }; globrunqput(i)  /* victim_again, gagain */
           fi
        :: by[i] == dead && state[i] == DONE -> gtell(i)      /* tell_again */
        :: atomic { i == N && dead == 0 && state[i] == RUNNABLE -> state[i] = COLLECTED; ended++ }
        :: else
        fi
    }
}

active proctype monitor() {
    timeout -> assert(ended == N)
}
