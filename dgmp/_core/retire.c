/* retire.c: Ms that are to end, as they have run their share of Gs or have grown too large.
 *
 * An M ends between two Gs, and only when nothing needs it any more: no started G of its own, none that it has spawned, nothing
 * acquired.  It looks at that itself (runtime.proc); the coordinator asks, and wakes it if it is parked.  Nobody makes another
 * in its stead: its P goes to whoever wants work done, as when an M blocks, and that finds or makes an M.
 *
 * While it has started Gs left an M takes no fresh ones, which costs another process for these.  So not all may wait like
 * that: were every M there may be kept by a parked G, nobody would run what these wait for.  One that finds a quarter of
 * the others waiting already goes on as if nobody had asked it, until it has none left.  Two that look at once may both wait.
 */
#include "core.h"

void retire_ask(struct view *v, uint32_t m) {
    uint32_t none = RETIRE_NONE;
    atomic_compare_exchange_strong(&v->allm[m].retire, &none, RETIRE_ASKED);
    fence_sc(&v->allm[m].inbox.tail);                         /* the other side: it is known to be parked, and looks (stopm) */
    wakem(v, m);
}

int retire_wait(struct view *v) {
    uint32_t waiting = 1, procs = v->seg->nprocs, room = v->seg->max_ms > procs ? v->seg->max_ms - procs : 0;
    for (uint32_t i = 0; i < v->seg->max_ms; i++)
        waiting += i != v->self && load_acq(&v->allm[i].retire) == RETIRE_WAITS && load_acq(&v->allm[i].pid);
    if (4 * waiting > room) return 0;
    atomic_store(&self_m(v)->retire, RETIRE_WAITS);
    return 1;
}
