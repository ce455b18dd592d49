/* chan.pml: channels and select: no message is lost or doubled, nobody waits beside one who could serve him
 * (dgmp/_core/chan.c, sudog.c; api/chan.py: wait_for, api/member.py: park).
 *
 * Three Gs do two operations each, on two channels.  A wait has a sudog for each case, and the G has the same sudogs for its
 * next wait.  What is under a channel's lock is one step, up to the words that others reach without it: `fired`, `done`, the
 * value in a sudog, and the home M's inbox.
 *
 * CROSS: selects that send to each other, with their cases in opposite order.  LIMIT: a sender and receivers with deadlines,
 * which may pass at any moment.  CLOSE: a channel is closed while others wait.
 *
 * Checked when nothing can move any more: a message has been received, or lies in the buffer, if and only if its sender knows
 * that it was sent; whoever sleeps is in the queues of its cases and nobody has ended its wait; no channel has a sender and a
 * receiver waiting; no lock is held.  Deaths are not here: test_kill.c steps through those.
 */
#define NONE 15
#define CANCELLED 9
#define MAX_VALUE 13

mtype = { PENDING, DONE, CLOSED };                            /* wait.done */
mtype = { BLOCKS, WAITS, WENT, IS_CLOSED };                   /* what chan_select says */
#ifdef CAP1
#define CAP 1
#else
#define CAP 0
#endif

byte holder[2];                       /* a lock's: G + 1 */
chan recvq[2] = [6] of { byte };
chan sendq[2] = [6] of { byte };
byte buf[2];                          /* 0: empty */
bit closed[2];
byte fired[3];                        /* 0, case + 1, CANCELLED */
mtype done[3] = DONE;
byte elem[6];                         /* of sudog 2 * G + case */
bit inbox[3], asleep[3];
byte sent[MAX_VALUE], received[MAX_VALUE];

inline object_lock(x) { atomic { holder[x] == 0 -> holder[x] = me + 1 } }
inline object_unlock(x) { holder[x] = 0 }

/* In the order of addresses, each channel once. */
inline lock_all() {
#ifndef LOCK_AS_GIVEN
    if
    :: n == 2 && c[0] != c[1] -> object_lock(0); object_lock(1)
    :: else -> object_lock(c[0])
    fi
#else
    object_lock(c[0]);
    if :: n == 2 && c[0] != c[1] -> object_lock(c[1]) :: else fi
#endif
}

inline unlock_all() {
    object_unlock(c[0]);
    if :: n == 2 && c[0] != c[1] -> object_unlock(c[1]) :: else fi
}

/* s = the first whose wait we win, unqueued, or NONE */
inline waitq_fire(q) {
    s = NONE;
    do
    :: atomic { nempty(q) -> q?s;
#ifndef FIRED_STORE
                if :: fired[s / 2] == 0 -> fired[s / 2] = s % 2 + 1; break :: else -> s = NONE fi
#else
                if :: fired[s / 2] == 0 :: else -> s = NONE fi
#endif
       }
#ifdef FIRED_STORE
       if :: s != NONE -> fired[s / 2] = s % 2 + 1; break :: else fi
#endif
    :: empty(q) -> break
    od
}

inline wait_finish(how) {
    done[s / 2] = how
}

inline send_locked(k) {
    if
    :: closed[c[k]] -> how = IS_CLOSED
    :: else -> waitq_fire(recvq[c[k]]);
       if
       :: s != NONE -> w = s / 2;
#ifdef DONE_FIRST
          wait_finish(DONE);
          elem[s] = value[k];
#else
          elem[s] = value[k];
#ifdef WAKE_FIRST
          inbox[w] = 1;
          w = NONE;
#endif
          wait_finish(DONE);
#endif
          how = WENT
       :: atomic { s == NONE && CAP && buf[c[k]] == 0 -> buf[c[k]] = value[k]; how = WENT }
       :: else
       fi;
       s = NONE
    fi
}

inline recv_locked(k) {
    if
    :: buf[c[k]] -> value[k] = buf[c[k]];
       buf[c[k]] = 0;
       waitq_fire(sendq[c[k]]);                               /* refill */
       if :: s != NONE -> w = s / 2; buf[c[k]] = elem[s]; wait_finish(DONE) :: else fi;
       how = WENT
    :: !buf[c[k]] && closed[c[k]] -> how = IS_CLOSED
    :: else -> waitq_fire(sendq[c[k]]);
       if :: s != NONE -> w = s / 2; value[k] = elem[s]; wait_finish(DONE); how = WENT :: else fi
    fi;
    s = NONE
}

inline try_one(k) {
    which = k;
    if :: sends[k] -> send_locked(k) :: else -> recv_locked(k) fi
}

inline queue(k) {
    if
    :: sends[k] -> elem[2 * me + k] = value[k]; sendq[c[k]]!2 * me + k
    :: else -> recvq[c[k]]!2 * me + k
    fi
}

/* chan_select */
inline select_(waits) {
    atomic { how = BLOCKS; w = NONE };
    if :: waits -> done[me] = PENDING :: else fi;             /* wait_begin */
    lock_all();
    if                                                        /* try_all: in any order */
    :: n == 1 -> try_one(0)
    :: n == 2 -> try_one(0); if :: how == BLOCKS -> try_one(1) :: else fi
    :: n == 2 -> try_one(1); if :: how == BLOCKS -> try_one(0) :: else fi
    fi;
#ifdef QUEUE_LATE
    unlock_all();
    lock_all();
#endif
    if
    :: atomic { how == BLOCKS && waits -> how = WAITS; queue(0); if :: n == 2 -> queue(1) :: else fi }
    :: else
    fi;
    unlock_all();
    if :: w != NONE -> inbox[w] = 1; w = NONE :: else fi;     /* wait_wake: gready */
    if :: waits && how != WAITS -> atomic { done[me] = DONE; fired[me] = 0 } :: else fi  /* wait_end */
}

inline remove(k) {
    atomic {
        if
        :: sends[k] && sendq[c[k]]??[eval(2 * me + k)] -> sendq[c[k]]??eval(2 * me + k)
        :: !sends[k] && recvq[c[k]]??[eval(2 * me + k)] -> recvq[c[k]]??eval(2 * me + k)
        :: else
        fi
    }
}

/* chan_wait_end; how = WAITS: it goes on */
inline chan_wait_end(give_up) {
    ended = done[me];
    if
    :: ended == PENDING && !give_up -> how = WAITS
    :: else ->
       if
       :: ended == PENDING ->                                 /* wait_cancel */
#ifndef CANCEL_STORE
          atomic { if :: fired[me] == 0 -> fired[me] = CANCELLED; how = BLOCKS :: else -> how = WAITS fi }
#else
          if :: fired[me] == 0 -> fired[me] = CANCELLED; how = BLOCKS :: else -> how = WAITS fi
#endif
       :: else -> how = (ended == DONE -> WENT : IS_CLOSED); which = fired[me] - 1
       fi;
       if
       :: how != WAITS ->
#ifndef NO_DEQUEUE
          if
          :: n > 1 || ended == PENDING -> lock_all(); remove(0); if :: n == 2 -> remove(1) :: else fi; unlock_all()
          :: else
          fi;
#endif
          atomic { if :: how == WENT && !sends[which] -> value[which] = elem[2 * me + which] :: else fi };
          atomic { elem[2 * me] = 0; elem[2 * me + 1] = 0; done[me] = DONE; fired[me] = 0 }  /* wait_end */
       :: else
       fi
    fi
}

/* The operation of cases 0 .. n - 1, as Chan.send, recv and select do it. */
inline operate() {
    select_(1);
    do
    :: how == WAITS ->                                        /* park, until it has come or is late */
       do
       :: done[me] != PENDING -> break
       :: else ->
          asleep[me] = 1;
          if
          :: atomic { inbox[me] -> inbox[me] = 0; asleep[me] = 0 }
          :: atomic { limit -> asleep[me] = 0; late = 1; break }
          fi
       od;
       chan_wait_end(late)                                    /* give_up, or Wait.end */
    :: else -> break
    od;
    if :: late && how == BLOCKS -> select_(0) :: else fi;     /* Wait.end(last): a last try */
    atomic {
        late = 0;
        if
        :: how == WENT && sends[which] -> sent[value[which]]++
        :: how == WENT && !sends[which] -> assert(value[which] != 0); received[value[which]]++;
           assert(received[value[which]] == 1)
        :: else
        fi;
        value[0] = 0; value[1] = 0; which = 0; ended = 0; how = BLOCKS
    }
}

#define LOCALS byte n, c[2], value[2], s = NONE, w = NONE, which, round; bit sends[2], limit, late; mtype how = BLOCKS, ended
#define SEND(k, ch) c[k] = ch; sends[k] = 1; value[k] = 4 * me + 2 * round + k + 1
#define RECV(k, ch) c[k] = ch; sends[k] = 0; value[k] = 0

inline chan_close(x) {
    object_lock(x);
    closed[x] = 1;
    do                                                        /* wake_all */
    :: waitq_fire(recvq[x]); if :: s == NONE -> break :: else fi; w = s / 2; wait_finish(CLOSED); inbox[w] = 1
    od;
    do
    :: waitq_fire(sendq[x]); if :: s == NONE -> break :: else fi; w = s / 2; wait_finish(CLOSED); inbox[w] = 1
    od;
    atomic { s = NONE; w = NONE };
    object_unlock(x)
}

active [3] proctype G() {
    byte me = _pid;
    LOCALS;
    do
    :: round < 2 ->
#ifdef CROSS
       if
       :: atomic { me == 0 -> n = 2; SEND(0, 0); RECV(1, 1) }
       :: atomic { me == 1 -> n = 2; SEND(0, 1); RECV(1, 0) }
       :: atomic { me == 2 -> n = 1; limit = 1; RECV(0, 0) }
       fi;
       if :: me == 2 && round == 1 -> break :: else fi;
#endif
#ifdef LIMIT
       if
       :: atomic { me == 0 -> n = 1; limit = 1; SEND(0, 0) }
       :: atomic { me == 1 -> n = 1; limit = (round == 0); RECV(0, 0) }
       :: atomic { me == 2 -> n = 2; limit = 1; RECV(0, 1); RECV(1, 0) }
       fi;
       if :: me == 2 && round == 1 -> break :: else fi;
#endif
#ifdef CLOSE
       if
       :: atomic { me == 0 && round == 0 -> n = 1; SEND(0, 1) }
       :: me == 0 && round == 1 -> chan_close(0); break
       :: atomic { me == 1 -> n = 2; RECV(0, 0); RECV(1, 1) }
       :: atomic { me == 2 -> n = 1; SEND(0, 0) }
       fi;
#endif
       operate();
       round++
    :: else -> break
    od
}

#define queued(g) (recvq[0]??[eval(2 * g)] || recvq[0]??[eval(2 * g + 1)] || recvq[1]??[eval(2 * g)] || \
                   recvq[1]??[eval(2 * g + 1)] || sendq[0]??[eval(2 * g)] || sendq[0]??[eval(2 * g + 1)] || \
                   sendq[1]??[eval(2 * g)] || sendq[1]??[eval(2 * g + 1)])

active proctype monitor() {
    byte i;
    timeout -> atomic {
        assert(holder[0] == 0 && holder[1] == 0);
        for (i : 0 .. 1) {
            assert(empty(recvq[i]) || (empty(sendq[i]) && buf[i] == 0 && !closed[i]));
            assert(empty(sendq[i]) || (CAP == 0 || buf[i]) && !closed[i])
        }
        for (i : 0 .. 2) {
            assert(asleep[i] == (done[i] == PENDING));
            assert(asleep[i] == queued(i));
            assert(!asleep[i] || fired[i] == 0)
        }
        for (i : 1 .. MAX_VALUE - 1) { assert(received[i] + (buf[0] == i) + (buf[1] == i) == sent[i]) }
    }
}
