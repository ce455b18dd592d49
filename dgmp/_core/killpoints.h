/* killpoints.h: the places in the core at which a test can have its process die, stop or be late; see killpoints.c.
 *
 * Only with -DDGMP_KILLPOINTS (make killpoints).  In every other build KILLPOINT(name) is nothing at all, and the list is
 * empty.  _before and _after: the compare-and-swap, or the store, that publishes.  _locked: the process holds the mutex.
 */
#ifndef DGMP_KILLPOINTS_H
#define DGMP_KILLPOINTS_H

/* The ring of a P, and the global queue. */
#define KILLPOINTS_QUEUES(X) \
    X(runqput_next_before) X(runqput_next_after) X(runqput_before) X(runqput_after) \
    X(runqputslow_before) X(runqputslow_after) X(runqputslow_put) \
    X(runqget_next_before) X(runqget_next_after) X(runqget_before) X(runqget_after) \
    X(runqsteal_next_before) X(runqsteal_next_after) X(runqsteal_before) X(runqsteal_after) X(runqsteal_published) \
    X(globrunqput_locked) X(globrunqput_after) X(globrunqputhead_locked) \
    X(globrunqget_locked) X(globrunqget_after) X(globrunqget_published)

/* The life of a G. */
#define KILLPOINTS_GS(X) \
    X(gfget_before) X(gfget_after) X(gwait_for_before) X(gwait_for_linked) \
    X(gclaim_before) X(gclaim_after) X(gpark_before) X(gpark_after) X(gresume_after) \
    X(gcomplete_before) X(gcomplete_after) X(gfinish_before) X(gfinish_after) X(gfinish_woken) X(gfinish_told) \
    X(gready_target_before) X(gready_target_after) X(gagain_before) X(gagain_after) \
    X(gcancel_before) X(gcancel_after) X(gcollect_before) X(gcollect_after) X(gclear_before) X(gclear_after)

/* Ps, Ms, and how they are brought together. */
#define KILLPOINTS_IDLE(X) \
    X(spinning) X(set_spinning_after) X(reset_spinning_after) \
    X(pidleput_before) X(pidleput_after) X(pidletake_before) X(pidletake_after) \
    X(mput_before) X(mput_after) X(mtake_after) X(mwant_before) X(mwant_after) X(mreserve_before) X(mreserve_after) \
    X(wakep_before) X(startm_before) X(startm_reserved) X(want_p_before) X(want_p_after) \
    X(hand_over_before) X(hand_over_after) X(notewakeup_after) \
    X(entersyscall_before) X(entersyscall_after) X(exitsyscall_before) X(exitsyscall_after) \
    X(retake_before) X(retake_after) X(handoffp_before) X(handoffp_idle) \
    X(stop_the_world_after) X(freeze_after) X(procresize_before) X(procresize_destroyed) X(procresize_after) X(thaw_after)

/* Inboxes, pools, the heap, the tables. */
#define KILLPOINTS_MEMORY(X) \
    X(inbox_push_before) X(inbox_push_after) X(inbox_push_moved) X(inbox_drop_before) X(inbox_drop_after) \
    X(pool_take_locked) X(pool_put_locked) X(heap_locked) X(heap_give_locked) X(heap_split_locked) X(heap_relink_locked) \
    X(heap_free_before) X(fn_fill_locked) X(place_locked)

/* Channels and semaphores. */
#define KILLPOINTS_CHANS(X) \
    X(chan_locked) X(chan_send_locked) X(chan_recv_locked) X(chan_refill_locked) X(chan_close_locked) X(chan_unlocked) \
    X(wait_fired_locked) X(wait_finish_before) X(wait_finish_after) X(wait_cancel_after) \
    X(sema_locked) X(sema_grant_locked) X(sema_release_locked) X(object_publish_before) X(object_end_before)

/* The coordinator, as it repairs. */
#define KILLPOINTS_REPAIR(X) \
    X(repair_before) X(repair_dead) X(repair_requeued) X(repair_objects) X(repair_end_g) X(repair_settled) X(repair_swept) \
    X(repair_woken) X(repair_after) X(adopt_collected)

#define KILLPOINTS(X) \
    KILLPOINTS_QUEUES(X) KILLPOINTS_GS(X) KILLPOINTS_IDLE(X) KILLPOINTS_MEMORY(X) KILLPOINTS_CHANS(X) KILLPOINTS_REPAIR(X)

extern const char *const killpoint_names[];                     /* NULL at their end */

struct view;
#ifdef DGMP_KILLPOINTS
#define KILLPOINT_NUMBER(name) KILLPOINT_##name,
enum killpoint { KILLPOINTS(KILLPOINT_NUMBER) NKILLPOINTS };
extern int killpoints_armed;
void killpoints_arm(struct view *v, unsigned int kind);         /* this process attaches: it reads what it is to do */
void killpoints_disarm(struct view *v);                         /* v goes */
void killpoint(enum killpoint here);
#define KILLPOINT(name) do { if (__builtin_expect(killpoints_armed, 0)) killpoint(KILLPOINT_##name); } while (0)
#else
#define killpoints_arm(v, kind) ((void)0)
#define killpoints_disarm(v) ((void)(v))
#define KILLPOINT(name) ((void)0)
#endif

#endif
