/* segment.c: making, mapping and checking the shared segment, and throw.
 *
 * The segment is a memfd: it has no name, so no kill can leak it, and it does not count against /dev/shm.  It is
 * sparse: the tables are laid out for their greatest size, and pages come when first touched.
 */
#include "core.h"
#include "place.h"
#include "sudog.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* A broken invariant: say so and end this process.  A scheduler that hides corruption cannot be debugged. */
_Noreturn void throw(struct view *v, const char *fmt, ...) {
    char text[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (v && v->seg && atomic_fetch_add(&v->seg->sched.throws, 1) == 0)
        memcpy(v->seg->sched.throw_text, text, sizeof text);
    fprintf(stderr, "dgmp: fatal error: %s (pid %d)\n", text, (int)getpid());
    abort();
}

static uint64_t place(uint64_t *end, uint64_t n, uint64_t size) {
    uint64_t off = (*end + 4095) & ~4095ull;
    *end = off + n * size;
    return off;
}

static void place_pool(uint64_t *end, struct pool *p, uint32_t n, size_t stride, size_t owner) {
    p->n = n, p->stride = (uint32_t)stride, p->owner = (uint32_t)owner;
    p->ring.cap = n, p->ring.cells = place(end, n, 8);
    p->base = place(end, n, stride);
}

static uint64_t layout(struct segment *s, const struct config *c) {
    uint64_t end = sizeof *s;
    s->magic = MAGIC, s->version = VERSION, s->header_size = sizeof *s;
    s->nprocs = c->nprocs;
    s->nps = MAX_PS + c->nclients;
    s->max_ms = c->max_ms, s->nms = c->max_ms + c->nclients;
    s->nslots = c->nslots, s->nfns = 1u << 16;
    s->inbox_cap = 2ull * c->nslots;
    s->globrunq.cap = 4ull * c->nslots, s->asyncq.cap = 2ull * c->nslots;
    s->allp = place(&end, s->nps, sizeof(struct p));
    s->allm = place(&end, s->nms, sizeof(struct m));
    s->fns = place(&end, s->nfns, sizeof(struct fn_entry));
    s->globrunq.cells = place(&end, s->globrunq.cap, 8);
    place_pool(&end, &s->gfree, c->nslots, sizeof(struct g), offsetof(struct g, owner));
    place_pool(&end, &s->objects, c->nslots, sizeof(struct object) + 8 * ((s->nms + 63) / 64), offsetof(struct object, owner));
    place_pool(&end, &s->sudogs, 2 * c->nslots, sizeof(struct sudog), offsetof(struct sudog, owner));
    s->asyncq.cells = place(&end, s->asyncq.cap, 8);
    s->allgs = s->gfree.base;
    uint64_t inboxes = place(&end, s->nms, s->inbox_cap * 8);
    s->said = place(&end, s->max_ms, sizeof(struct said));
    s->places.texts = place(&end, PLACE_TEXTS, sizeof(struct text));
    s->places.bytes = place(&end, PLACE_BYTES, 1);
    s->heap.size = c->heap_size;
    s->heap.base = place(&end, 1, c->heap_size);
    s->size = (end + 4095) & ~4095ull;
    return inboxes;
}

static int try_create(const struct config *c, int fd) {
    struct segment head;
    memset(&head, 0, sizeof head);
    uint64_t inboxes = layout(&head, c);
    struct rlimit room;
    if (getrlimit(RLIMIT_AS, &room) == 0 && room.rlim_cur != RLIM_INFINITY && head.size > room.rlim_cur / 2) return ENOMEM;
    if (ftruncate(fd, (off_t)head.size)) return errno;
    struct segment *s = mmap(NULL, head.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (s == MAP_FAILED) return errno;
    memcpy(s, &head, sizeof head);
    int e = lock_init(&s->globrunq.lock);
    if (!e) e = lock_init(&s->gfree.ring.lock);
    if (!e) e = lock_init(&s->asyncq.lock);
    if (!e) e = lock_init(&s->heap.lock);
    if (!e) e = lock_init(&s->places.lock);
    if (!e) e = lock_init(&s->coordinator);
    if (!e) e = lock_init(&s->objects.ring.lock);
    if (!e) e = lock_init(&s->sudogs.ring.lock);
    atomic_store(&s->heap.bump, s->heap.base);
    atomic_store(&s->sched.sysmonwait, SYSMON_ASLEEP);
    s->globrunq.head = s->globrunq.tail = s->globrunq.cap << 16;  /* globrunqputhead goes below */
    if (getrandom(&s->runtime_id, sizeof s->runtime_id, 0) != sizeof s->runtime_id) e = e ? e : EIO;
    struct p *allp = (void *)((char *)s + s->allp);
    struct m *allm = (void *)((char *)s + s->allm);
    for (uint32_t i = 0; i < s->nprocs; i++) {
        store_rlx(&allp[i].own, OWN(P_IDLE, NONE, 0));
        s->sched.pidle[i / 64] |= 1ull << (i % 64);
    }
    for (uint32_t i = MAX_PS; i < s->nps; i++) store_rlx(&allp[i].own, OWN(P_CLIENT, s->max_ms + i - MAX_PS, 0));
    for (uint32_t i = 0; i < s->nms; i++) allm[i].inbox.cells = inboxes + i * s->inbox_cap * 8;
    munmap(s, head.size);
    return e;
}

static int is_possible(const struct config *c) {
    return c->nprocs > 0 && c->nprocs <= MAX_PS && c->max_ms > 0 && (uint64_t)c->max_ms + c->nclients < NO_M && c->nslots > 0 &&
           c->nslots <= INDEX_MASK;
}

static int same_ring(const struct lring *a, const struct lring *b) { return a->cells == b->cells && a->cap == b->cap; }
static int same_pool(const struct pool *a, const struct pool *b) {
    return same_ring(&a->ring, &b->ring) && a->base == b->base && a->n == b->n && a->stride == b->stride && a->owner == b->owner;
}

/* Its header is what layout makes of the sizes in it, and the file is as long as that takes: no table reaches beyond. */
static int is_sound(struct segment *s) {
    struct config c = {load_rlx(&s->nprocs), s->max_ms, s->nms - s->max_ms, s->nslots, s->heap.size};
    struct segment own;
    if (!is_possible(&c) || c.heap_size > s->size) return 0;
    memset(&own, 0, sizeof own);
    uint64_t inboxes = layout(&own, &c);
    struct m *allm = (void *)((char *)s + own.allm);
    if (s->size != own.size || s->nps != own.nps || s->nfns != own.nfns || s->allp != own.allp || s->allm != own.allm ||
        s->allgs != own.allgs || s->fns != own.fns || s->inbox_cap != own.inbox_cap || s->said != own.said ||
        s->places.texts != own.places.texts || s->places.bytes != own.places.bytes || s->heap.base != own.heap.base ||
        !same_ring(&s->globrunq, &own.globrunq) || !same_ring(&s->asyncq, &own.asyncq) || !same_pool(&s->gfree, &own.gfree) ||
        !same_pool(&s->objects, &own.objects) || !same_pool(&s->sudogs, &own.sudogs))
        return 0;
    for (uint32_t i = 0; i < s->nms; i++)
        if (allm[i].inbox.cells != inboxes + i * s->inbox_cap * 8) return 0;
    return 1;
}

/* Makes a segment; the heap, then the slots, shrink until it fits under the process's limits: half of the address space is
 * for what else a process needs. */
int segment_create(struct config *c, int *fd_out) {
    if (!is_possible(c)) return EINVAL;
    int fd = memfd_create("dgmp", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return errno;
    int e = try_create(c, fd);
    while (e == ENOMEM || e == EFBIG || e == EINVAL || e == ENOSPC) {
        if (c->heap_size > (16u << 20)) c->heap_size /= 2;
        else if (c->nslots > 1024) c->nslots /= 2;
        else break;
        e = try_create(c, fd);
    }
    if (!e && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) e = errno;
    if (e) close(fd);
    else *fd_out = fd;
    return e;
}

int segment_map(int fd, struct view *v, uint32_t self, const char **why) {
    struct stat st;
    memset(v, 0, sizeof *v);
    *why = NULL;
    if (fstat(fd, &st)) return errno;
    if ((uint64_t)st.st_size < sizeof(struct segment)) {
        *why = "the file is no dgmp segment";
        return EINVAL;
    }
    struct segment *s = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (s == MAP_FAILED) return errno;
    if (s->magic != MAGIC) *why = "the file is no dgmp segment";
    else if (s->version != VERSION || s->header_size != sizeof *s || s->size != (uint64_t)st.st_size)
        *why = "the segment was made by another version of dgmp";
    else if (!is_sound(s)) *why = "the segment's header is damaged";
    else if (self >= s->nms) *why = "there is no such process slot";
    if (*why) {
        munmap(s, (size_t)st.st_size);
        return EINVAL;
    }
    madvise(s, s->size, MADV_DONTDUMP);
    v->seg = s;
    v->allp = at(v, s->allp), v->allm = at(v, s->allm), v->allgs = at(v, s->allgs), v->fns = at(v, s->fns);
    v->sudogs = at(v, s->sudogs.base);
    v->self = self, v->coordinator_fd = v->sysmon_fd = -1;
    return 0;
}

void segment_unmap(struct view *v) {
    killpoints_disarm(v);
    if (v->seg) munmap(v->seg, v->seg->size);
    free(v->free);
    memset(v, 0, sizeof *v);
}
