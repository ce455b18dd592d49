/* death.pml: waits at a channel when one of those who use it is killed at any step (dgmp/_core/chan.c, sudog.c).
 *
 * One step is one store to shared memory.  Three Gs, each in a process of its own, do one operation on a channel: G 0 sends,
 * G 2 receives, G 1 does either.  With ROOM the channel has a buffer of one, which is full at first.  One may be killed
 * (`unless`); whoever gets the lock after it mends what it left (chan_fix), and the coordinator repairs (sudogs_repair).
 * select, deadlines and close are in chan.pml.
 *
 * Checked when nothing can move any more: no G that lives waits beside another that could serve it, beside a message for it,
 * or beside room; who sleeps has not been ended; no message is received twice; the message of a sender that lives has arrived
 * if and only if it knows so, unless a receiver died with it: one at most is lost so.
 */
#define NONE 15
#define COORDINATOR 3
#ifdef ROOM
#define CAP 1
#else
#define CAP 0
#endif

mtype = { PENDING, DONE, RETRY };                             /* wait.done */
mtype = { BLOCKS, WAITS, WENT };

byte holder;                          /* the lock's: G + 1 */
bit inconsistent;                     /* its holder died */
chan recvq = [3] of { byte };         /* the links; */
chan sendq = [3] of { byte };
bit queued[3];                        /* and what counts */
bit sends[3];
byte fired[3];                        /* by whom + 1 */
mtype done[3] = DONE;
byte elem[3];
byte slot, head, tail = CAP;          /* the buffer: a slot and the two indices */
byte moving, moving_tail;
bit inbox[3], asleep[3];
byte sent[3], received[5];            /* message G + 1 is G's, 4 is there at first */
byte dying = NONE, dead = NONE;

inline rebuild() {                                            /* waitq_rebuild */
    atomic {
        do :: len(recvq) > 0 -> recvq?s :: len(recvq) == 0 -> break od;
        do :: len(sendq) > 0 -> sendq?s :: len(sendq) == 0 -> break od;
        s = 0;
        do
        :: s < 3 -> if :: queued[s] && sends[s] -> sendq!s :: queued[s] && !sends[s] -> recvq!s :: else fi; s++
        :: else -> break
        od;
        s = NONE
    }
}

inline finish_move() {
    if
    :: moving && tail == moving_tail -> slot = 0; moving = 0
    :: moving && tail != moving_tail ->
       if :: done[moving - 1] == PENDING -> done[moving - 1] = DONE; inbox[moving - 1] = 1 :: else fi;
       moving = 0
    :: else
    fi
}

inline object_lock() {
    atomic { holder == 0 -> holder = me + 1; s = inconsistent; inconsistent = 0 };
    if
    :: s == 1 -> rebuild(); finish_move();                    /* chan_fix */
#ifndef NO_REFILL
       if :: tail - head < CAP -> refill(); if :: w != NONE -> inbox[w] = 1; w = NONE :: else fi :: else fi
#endif
    :: else
    fi;
    s = NONE
}

inline waitq_remove(q, x) {
    queued[x] = 0;
    atomic { if :: q??[eval(x)] -> q??eval(x) :: else fi }
}

/* s = the first whose wait we win, unqueued, or NONE */
inline waitq_fire(q) {
    s = NONE;
    do
    :: nempty(q) ->
#ifndef UNQUEUE_FIRST
       atomic { q?<s>; won = (fired[s] == 0); if :: won -> fired[s] = me + 1 :: else fi };
       waitq_remove(q, s);
#else
       q?<s>;
       waitq_remove(q, s);
       atomic { won = (fired[s] == 0); if :: won -> fired[s] = me + 1 :: else fi };
#endif
       if :: won -> won = 0; break :: else -> s = NONE fi
    :: empty(q) -> break
    od
}

inline advance(x) { slot = x; tail = tail + 1 }

inline refill() {
    waitq_fire(sendq);
    if
    :: s != NONE -> w = s;
       moving_tail = tail;
#ifndef NO_MOVING
       moving = s + 1;
#endif
       advance(elem[s]);
       done[s] = DONE;
       moving = 0
    :: else
    fi;
    s = NONE
}

inline send_locked() {
    waitq_fire(recvq);
    if
    :: s != NONE -> w = s; elem[s] = me + 1; done[s] = DONE; how = WENT
    :: s == NONE && tail - head < CAP -> advance(me + 1); how = WENT
    :: else
    fi;
    s = NONE
}

inline recv_locked() {
    if
    :: tail != head -> got = slot;
       head = head + 1;
       slot = 0;
       refill();
       how = WENT
    :: else -> waitq_fire(sendq);
       if :: s != NONE -> w = s; got = elem[s]; done[s] = DONE; how = WENT :: else fi;
       s = NONE
    fi
}

inline operate() {
    do
    :: done[me] = PENDING;                                    /* wait_begin */
       how = BLOCKS;
       object_lock();
       if :: sends[me] -> send_locked() :: else -> recv_locked() fi;
       if
       :: how == BLOCKS -> how = WAITS;                       /* waitq_put */
          if
          :: sends[me] -> elem[me] = me + 1; queued[me] = 1; sendq!me
          :: else -> queued[me] = 1; recvq!me
          fi
       :: else
       fi;
       holder = 0;
       if :: w != NONE -> inbox[w] = 1; w = NONE :: else fi;  /* wait_wake */
       if :: how == WENT -> break :: else fi;
       do                                                     /* park */
       :: done[me] != PENDING -> break
       :: else -> asleep[me] = 1; atomic { inbox[me] -> inbox[me] = 0; asleep[me] = 0 }
       od;
       if                                                     /* chan_wait_end */
       :: done[me] == DONE -> got = elem[me]; fired[me] = 0; how = WENT; break
       :: else -> object_lock();
          if :: sends[me] -> waitq_remove(sendq, me) :: else -> waitq_remove(recvq, me) fi;
          holder = 0;
          elem[me] = 0;
          fired[me] = 0
       fi
    od;
    atomic {
        if
        :: sends[me] -> sent[me] = 1
        :: else -> assert(got != 0); received[got]++; assert(received[got] == 1)
        fi;
        got = 0; done[me] = DONE
    }
}

#define LOCALS byte s = NONE, w = NONE, got; bit won; mtype how = BLOCKS

active [3] proctype G() {
    byte me = _pid;
    LOCALS;
    atomic {
        if :: me == 0 && CAP -> slot = 4 :: else fi;
        if :: me == 0 -> sends[0] = 1 :: me == 1 -> if :: sends[1] = 1 :: skip fi :: else fi
    };
    (sends[0]);
    { operate() }
    unless {
        atomic {
            dying == me -> dead = me;
            asleep[me] = 0;
            if :: holder == me + 1 -> holder = 0; inconsistent = 1 :: else fi
        }
    }
}

active proctype killer() {
    if :: dying = 0 :: dying = 1 :: dying = 2 :: skip fi
}

active proctype repair() {
    byte me = COORDINATOR, i;
    LOCALS;
end:
    (dead != NONE);
    object_lock();                                            /* objects_fix */
    holder = 0;
    for (i : 0 .. 2) {                                        /* finish_waits */
        if
        :: i != dead && fired[i] == dead + 1 ->
#ifndef NO_RETRY
           if :: done[i] == PENDING -> done[i] = RETRY :: else fi;
#endif
           inbox[i] = 1
        :: else
        fi
    }
    object_lock();                                            /* unqueue */
    if
    :: queued[dead] && sends[dead] -> waitq_remove(sendq, dead)
    :: queued[dead] && !sends[dead] -> waitq_remove(recvq, dead)
    :: else
    fi;
    holder = 0;
    fired[dead] = 0
}

#define waits(g, s_) (dead != g && asleep[g] && sends[g] == s_)
#define some_wait(s_) (waits(0, s_) || waits(1, s_) || waits(2, s_))

active proctype monitor() {
    byte i, lost;
    timeout -> atomic {
        assert(holder == 0 && !inconsistent);
        assert(!(some_wait(1) && some_wait(0)));
        assert(!(some_wait(0) && tail != head));
        assert(!(some_wait(1) && tail - head < CAP));
        for (i : 0 .. 2) {
            assert(dead == i || asleep[i] == (done[i] == PENDING));
            if
            :: i != dead && sends[i] && !sent[i] -> assert(received[i + 1] == 0 && !(tail != head && slot == i + 1))
            :: i != dead && sent[i] && received[i + 1] == 0 && !(tail != head && slot == i + 1) -> lost++
            :: else
            fi;
            assert(!(received[i + 1] && tail != head && slot == i + 1))
        }
        if :: CAP && received[4] == 0 && !(tail != head && slot == 4) -> lost++ :: else fi;
        assert(lost == 0 || lost == 1 && dead != NONE && !sends[dead])
    }
}
