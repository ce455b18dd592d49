/* park.pml: no wake-up is lost between who submits work and who parks (dgmp/_core/idle.c, note.c, retake.c, inbox.c;
 * dgmp/runtime/proc.py: findrunnable, stopm, claim, resetspinning).
 *
 * One step is one access of shared memory; the comments say where in C it stands.  NP Ps that run Gs, NM slots for Ms, and a
 * client whose ring no M runs.  Rings hold numbers of Gs only (ring.pml looks into them).
 *
 * Memory: as x86 and C11 have it, a store to a ring's tail waits in a store buffer (`lag`) for some time after its process has
 * gone on; a fence, or a read-modify-write of that process, empties it.  Loads that a weaker machine might take before a
 * read-modify-write that stands before them are the mutants that look first.
 *
 * The first G to run awaits the end of others in one of three ways.  FORK: it spawns one, and keeps its P until all have
 * ended, so that another M must run them.  PARK: it spawns one and parks, so that its home M must be told.  BLOCK: in a system
 * call, its P given away.
 *
 * With DEATH the client may be killed at any step of its wake-ups, and is repaired (repair.c: finish_wakeup, release_ps).
 *
 * Checked: when nothing can move any more every G has ended, every P is idle and nobody spins.  sysmon's `rescue`, which would
 * find lost work after some milliseconds, is not here: nothing may depend on it.  Nor are: retaking, a stopped world,
 * timers, async Gs, locked Ms.
 */
#ifndef NP
#define NP 2
#endif
#ifndef NM
#define NM 2
#endif
#ifndef SPAWNS
#define SPAWNS 2                      /* by the client */
#endif
#ifdef BLOCK
#define TOTAL SPAWNS
#elif defined(DEATH)
#define TOTAL (spawned + (claims > 0))
#else
#define TOTAL (SPAWNS + 1)
#endif
#define CLIENT NP                     /* its ring; as a process NM */
#define RINGS (NP + 1)
#define NONE 15

mtype = { FREE, STARTING, RUNNING, IDLE, WANTED, HANDED };    /* m.note */
mtype note[NM] = FREE;
byte arg[NM];                         /* p + 1 handed over, 0 none */
bit midle[NM];
byte own[NP] = NONE;                  /* P.own: its M, NONE: P_IDLE; NM: the client's, for a moment */
bit pidle[NP] = 1;
bit spinning[NP];
bit needspinning;
byte ring[RINGS], lag[RINGS];         /* words that all see; and those in their owner's store buffer */
byte tokens;                          /* the global queue: only tokens go there; a mask of Ms */
bit token_queued[NM];
bit inbox[NM];                        /* the parent is readied */
byte claims, ended, spawned;
byte waker[NM];                       /* with DEATH: MARG of a note that is WANTED or STARTING */
bit dying, dead;                      /* the client */
#define REPAIR (NM + 1)
#ifdef DEATH
#define BY(x) waker[m] = x
#else
#define BY(x) skip
#endif
bit child_done;
byte home;                            /* M of the parent */

#define nmspinning (SUM(spinning))
#define npidle (SUM(pidle))
#if NP == 1
#define SUM(x) x[0]
#else
#define SUM(x) (x[0] + x[1])
#endif

/* The processor empties its store buffer when it likes. */
active proctype memory() {
    byte r;
end:
    do
    :: atomic { lag[0] -> ring[0] = ring[0] + 1; lag[0]-- }
    :: atomic { lag[1] -> ring[1] = ring[1] + 1; lag[1]-- }
#if NP > 1
    :: atomic { lag[2] -> ring[2] = ring[2] + 1; lag[2]-- }
#endif
    od
}

/* What every process has: its number, the ring whose tail it writes, and room for the inlines below. */
#define LOCALS byte mine = NONE, p = NONE, q = NONE, i, m, found; bit work, snap[NM], with_spinning
#define DRAIN if :: mine != NONE -> ring[mine] = ring[mine] + lag[mine]; lag[mine] = 0 :: else fi
#define GIVEN(pp) if :: mine == pp -> mine = NONE :: else fi

inline fence_sc() { atomic { DRAIN } }

inline work_anywhere() {
    if
    :: atomic { tokens -> work = 1 }                          /* globrunqsize */
    :: else -> work = 0; i = 0;
       do
       :: atomic { i < RINGS && !work -> work = (ring[i] + (i == mine -> lag[i] : 0)) > 0; i++ }  /* runqempty */
       :: else -> i = 0; break
       od
    fi
}

inline pidleput(pp) {
    atomic { DRAIN; assert(own[pp] == me); own[pp] = NONE; GIVEN(pp) };  /* own_set */
    atomic { pidle[pp] = 1 }                                  /* set_bit */
}

/* to = an idle P that is ours now, or NONE */
inline pidleget(to) {
    do
    :: atomic { npidle == 0 -> break }                        /* atomic_load of the mask */
    :: atomic { else -> i = (pidle[0] -> 0 : NP - 1) }
       atomic { DRAIN; found = pidle[i]; pidle[i] = 0 };      /* pidletake: clear_bit */
       if
       :: atomic { found && own[i] == NONE -> DRAIN; own[i] = me; to = i; found = 0; i = 0; break }  /* own_take */
       :: atomic { else -> found = 0; i = 0 }
       fi
    od
}

/* q, which is ours, becomes m's, whose note is WANTED or STARTING by us. */
inline hand_over() {
    if
    :: atomic { with_spinning -> DRAIN; spinning[q] = 1 }     /* set_bit */
    :: else
    fi;
    atomic { DRAIN; assert(own[q] == me); own[q] = m; GIVEN(q) };  /* own_set */
    atomic { assert(note[m] == WANTED || note[m] == STARTING); /* notewakeup */
             note[m] = HANDED; BY(0); arg[m] = q + 1; q = NONE; m = 0; with_spinning = 0 }
}

/* found = 1: m is wanted by us */
inline mwant() {
    if
    :: atomic { note[m] == IDLE -> DRAIN; note[m] = WANTED; BY(me); found = 1 };
       atomic { midle[m] = 0 }                                /* clear_bit */
    :: else
    fi
}

inline mget() {
    atomic { found = 0; m = 0; i = 0; do :: i < NM -> snap[i] = midle[i]; i++ :: else -> break od; i = 0 };
    do
    :: atomic { m < NM && !found && !snap[m] -> m++ }
    :: m < NM && !found && snap[m] -> mwant(); if :: found :: else -> m++ fi
    :: else -> break
    od;
    atomic { i = 0; do :: i < NM -> snap[i] = 0; i++ :: else -> break od; i = 0 }
}

inline mreserve() {
    m = 0;
    do
    :: atomic { m < NM && !found && note[m] == FREE -> DRAIN; note[m] = STARTING; BY(me); found = 1 }
    :: atomic { m < NM && !found && note[m] != FREE -> m++ }
    :: else -> break
    od
}

inline any_m_parked() {
    atomic { work = 0; i = 0;
             do :: i < NM -> work = work || (midle[i] && note[i] == IDLE); i++ :: else -> break od; i = 0 }
}

/* q is ours */
inline startm(spins) {
    with_spinning = spins;
    do
    :: mget();
       if :: found :: else -> mreserve() fi;
       if
       :: found -> found = 0; hand_over(); break
       :: else -> m = 0;
          pidleput(q);
          q = NONE;
#ifndef NO_STARTM_LOOK
          fence_sc();
          any_m_parked();
          if :: work -> work_anywhere() :: else fi;
          if :: work -> work = 0; pidleget(q) :: else fi;
#endif
          if :: q == NONE -> with_spinning = 0; break :: else fi
       fi
    od
}

inline wakep() {
#ifndef NO_SUBMIT_FENCE
    fence_sc();
#endif
    if
    :: atomic { nmspinning > 0 -> skip }
    :: else -> pidleget(q);
       if
       :: q != NONE -> startm(1)
       :: else ->
#ifndef NO_NEEDSPINNING
          needspinning = 1
#else
          skip
#endif
       fi
    fi
}

inline handoffp() {                                           /* q is ours */
    work_anywhere();
    if
    :: work -> work = 0; startm(0)
    :: else -> pidleput(q);
       q = NONE;
#ifndef NO_HANDOFF_LOOK
       fence_sc();
       work_anywhere();
       if :: work -> work = 0; wakep() :: else fi
#endif
    fi
}

/* q = a P and startm_on(q, who): found says whether that M was parked still */
inline startm_on(who) {
    atomic { found = 0; m = who };
    mwant();
    if :: found -> hand_over(); found = 1 :: else -> m = 0 fi
}

inline want_p(who) {
    pidleget(q);
    if
    :: q != NONE -> startm_on(who);
       if
       :: found -> found = 0
       :: else -> pidleput(q); q = NONE;
          fence_sc();
          work_anywhere();
          if :: work -> work = 0; wakep() :: else fi
       fi
    :: else ->
       atomic { found = token_queued[who]; token_queued[who] = 1 };
       if
       :: !found -> atomic { tokens = tokens | (1 << who) };  /* globrunqput */
#ifndef NO_TOKEN_WAKE
          wakep()
#endif
       :: else -> found = 0
       fi
    fi
}

inline runqput(r) {                                           /* store_rel of tail */
    atomic { lag[r] = lag[r] + 1; if :: r == CLIENT -> spawned++ :: else fi }
}

active proctype client() {
    byte me = NM, n;
    LOCALS;
    mine = CLIENT;
    {
        do
        :: n < SPAWNS -> n++; runqput(CLIENT); wakep()        /* View_spawn */
        :: else -> break
        od
    } unless { atomic { dying -> DRAIN; dead = 1 } }
}

inline set_spinning() {
    atomic { DRAIN; spinning[p] = 1 };
    needspinning = 0
}

inline reset_spinning() { atomic { DRAIN; assert(spinning[p]); spinning[p] = 0 } }  /* clear_bit; the fence after it */

/* M.resetspinning, wake_another */
inline another_looks() {
    reset_spinning();
    work_anywhere();
    if :: work -> work = 0; wakep() :: else fi
}

/* What is readied goes on, unless it does already. */
inline collect() {
    atomic { if :: inbox[me] -> inbox[me] = 0; ready = ready || parked; parked = 0 :: else fi }
}

/* Handed over no P, as its waker died first: it parks again. */
inline mtake() {
    atomic {
        note[me] == HANDED -> note[me] = RUNNING;
        if :: arg[me] -> p = arg[me] - 1; mine = p; arg[me] = 0 :: else -> goto stopm fi
    }
}

active [NM] proctype M() {
    byte me = _pid - 2, g, n;
    bit parked, ready;                /* the parent, in M.parked or M.ready */
    LOCALS;
end_unborn:
    mtake();
schedule:
    collect();
    if
    :: ready -> ready = 0;
       if :: spinning[p] -> another_looks() :: else fi;
       ended++;                                               /* the parent goes on, and ends */
       goto schedule
    :: else
    fi;
    if
    :: atomic { ring[p] + lag[p] > 0 -> DRAIN; ring[p] = ring[p] - 1; goto execute }  /* runqget, the CAS of head */
    :: else
    fi;
#ifdef PARK
    if
    :: atomic { tokens -> atomic { g = 0; do :: tokens & (1 << g) -> break :: else -> g++ od; tokens = tokens & ~(1 << g) } }
       atomic { token_queued[g] = 0; if :: g == me -> g = 0; goto schedule :: else fi };       /* claim: take_token */
       if :: spinning[p] -> another_looks() :: else fi;
       q = p;
       startm_on(g);                                          /* View.handoffp(m) */
       if :: found -> found = 0; p = NONE; g = 0; goto stopm :: else -> q = NONE; g = 0; goto schedule fi
    :: else
    fi;
#endif
    /* become_spinning, stealwork */
    if
    :: spinning[p]
    :: atomic { !spinning[p] && !needspinning && 2 * nmspinning >= NP - npidle -> goto look }
    :: else -> set_spinning()
    fi;
    g = 0;
    do
    :: atomic { g < RINGS && g != p && ring[g] > 0 -> n = ring[g] - ring[g] / 2; ring[g] = ring[g] - n; g = 0; DRAIN };
       if :: n > 1 -> atomic { lag[p] = lag[p] + n - 1; n = 0 } :: else -> n = 0 fi;  /* runqsteal: store_rel of tail */
       goto execute
    :: atomic { g < RINGS && (g == p || ring[g] == 0) -> g++ }
    :: else -> g = 0; break
    od;
look:
    if :: tokens -> goto schedule :: else fi;                 /* globrunqsize */
    if
    :: !spinning[p] && needspinning -> set_spinning(); goto schedule
    :: else
    fi;
#ifdef LOOK_FIRST
    work_anywhere();
#endif
    n = spinning[p];
    if :: spinning[p] -> reset_spinning() :: else fi;
    pidleput(p);                                              /* View.releasep */
    p = NONE;
#ifdef LOOK_ONLY_SPINNERS
    if :: n -> work_anywhere() :: else fi;
#elif !defined(LOOK_FIRST) && !defined(NO_LOOK)
    work_anywhere();
#endif
#ifndef LOOK_ONLY_SPINNERS
    n = 0;
#endif
    if
    :: work -> n = 0; work = 0; pidleget(p);
       if :: p != NONE -> mine = p; set_spinning(); goto schedule :: else fi
    :: else
    fi;
stopm:
    collect();
#ifdef INBOX_FIRST
    g = inbox[me];
#endif
#ifdef LOOK_FIRST
    work_anywhere();
#endif
    midle[me] = 1;                                            /* mput: set_bit */
    atomic { assert(note[me] == RUNNING); note[me] = IDLE };  /* noteclear, fence */
    if
    :: ready -> want_p(me)
    :: else ->
#ifndef NO_STOPM_LOOK
#ifdef LOOK_ONLY_SPINNERS
       if :: n -> n = 0; work_anywhere() :: else fi;
#elif !defined(LOOK_FIRST)
       work_anywhere();                                       /* look_once_more */
#endif
       if
       :: work -> work = 0; pidleget(q);
          if
          :: q != NONE ->
             midle[me] = 0;                                   /* munput */
             if
             :: atomic { note[me] == IDLE -> note[me] = RUNNING; p = q; mine = p; q = NONE; goto schedule }
             :: else -> handoffp()
             fi
          :: else
          fi
       :: else
       fi
#endif
    fi;
#ifdef INBOX_FIRST
    if :: g && !ready -> g = 0;
#else
    if :: inbox[me] ->                                        /* not slept, not woken */
#endif
       midle[me] = 0;                                         /* munput */
       if
       :: atomic { note[me] == IDLE -> note[me] = RUNNING; goto stopm }
       :: else
       fi
    :: else
    fi;
end_asleep:
    mtake();
    goto schedule;
execute:
    atomic { g = claims; claims++; if :: g == 0 -> home = me :: else fi };  /* gclaim */
    if :: spinning[p] -> another_looks() :: else fi;          /* begin */
    if
    :: g == 0 -> g = 0;
#ifndef BLOCK
       runqput(p);
       wakep();
#endif
#ifdef DEATH
       (ended > 0);
       ended++
#elif defined(FORK)
       (ended == TOTAL - 1);
       ended++
#endif
#ifdef PARK
       parked = 1;                                            /* gpark, and then it looks once more at what it waits for */
       atomic { if :: child_done -> parked = 0; ready = 1 :: else fi }
#endif
#ifdef BLOCK
       q = p; p = NONE;
       handoffp();                                            /* entersyscallblock */
       (ended == TOTAL - 1);
       ended++;
       goto stopm                                             /* exitsyscall0 */
#endif
    :: else -> g = 0;
       ended++;
#ifdef PARK
       g = child_done;
       child_done = 1;                                        /* the first to end readies the parent: inbox_push */
       if
       :: !g -> inbox[home] = 1;
          if :: note[home] == IDLE -> want_p(home) :: else fi /* wake_m */
       :: else -> g = 0
       fi
#endif
    fi;
    goto schedule
}

active proctype monitor() {
    timeout -> assert(ended == TOTAL && npidle == NP && nmspinning == 0)
}

#ifdef DEATH
active proctype killer() {
    if :: dying = 1 :: skip fi
}

inline finish_wakeup() {
    if
    :: atomic { (note[g] == WANTED || note[g] == STARTING) && waker[g] == NM ->
                waker[g] = 0;                                 /* p_of; nobody else changes it now */
                if
                :: own[0] == g -> arg[g] = 1; note[g] = HANDED
                :: own[0] != g && own[NP - 1] == g -> arg[g] = NP; note[g] = HANDED
                :: else -> note[g] = (note[g] == WANTED -> HANDED : FREE)
                fi }
    :: else
    fi
}

active proctype repair() {
    byte me = REPAIR, g;
    LOCALS;
end_alive:
    dead;
#ifndef NO_FINISH
    for (g : 0 .. NM - 1) { finish_wakeup() }
#endif
    for (g : 0 .. NP - 1) {                                   /* release_ps */
        if
        :: atomic { own[g] == NM -> own[g] = me; q = g };
           spinning[q] = 0;
           work_anywhere();
           if
           :: work -> work = 0; startm(0)
           :: else -> pidleput(q); q = NONE
           fi
        :: own[g] == NONE ->
#ifndef NO_BIT
           pidle[g] = 1
#else
           skip
#endif
        :: else
        fi
    }
#ifndef NO_LAST_LOOK
    work_anywhere();
    if :: work -> work = 0; wakep() :: else fi
#endif
}
#endif
