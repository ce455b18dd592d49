/* Bytes that none of ours has written: a header that does not fit its file is refused, and says why; what names a length of its
 * own is not believed. */
#include "hostile.h"

#include <errno.h>

static const uint64_t VALUES[] = {0, 1, 7, 0xff, 0xffffffffull, 1ull << 32, 1ull << 62, ~0ull, ~0ull << 32};

/* Every word of the header, in turn, becomes something else. */
static void headers(void) {
    struct config c = {2, 4, 2, 1024, 1 << 20};
    struct view v;
    const char *why;
    int fd, refused = 0;
    CHECK(segment_create(&c, &fd) == 0);
    uint64_t *header = mmap(NULL, sizeof(struct segment), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    for (size_t i = 0; i < sizeof(struct segment) / 8; i++)
        for (size_t k = 0; k < 3 * sizeof VALUES / sizeof *VALUES; k++) {
            uint64_t was = header[i], to = VALUES[k / 3];
            header[i] = k % 3 == 0 ? to : k % 3 == 1 ? was + to : was ^ to;
            int e = segment_map(fd, &v, 0, &why);
            CHECK(e == 0 || (e == EINVAL && why));
            refused += e != 0;
            if (e == 0) read_tables(&v), segment_unmap(&v);
            header[i] = was;
        }
    CHECK(refused > 500);
    CHECK(segment_map(fd, &v, 6, &why) == EINVAL && why && segment_map(fd, &v, 5, &why) == 0);
    /* where an inbox lies */
    v.allm[3].inbox.cells += 1ull << 40;
    struct view w;
    CHECK(segment_map(fd, &w, 0, &why) == EINVAL && why);
    segment_unmap(&v);
    munmap(header, sizeof(struct segment));
    close(fd);
}

/* Files that are something else, or were cut off. */
static void files(void) {
    struct view v;
    const char *why;
    int fd = memfd_create("hostile", MFD_CLOEXEC), whole = new_segment(2, 4);
    static char bytes[sizeof(struct segment) + 4096];
    CHECK(segment_map(fd, &v, 0, &why) == EINVAL && why);
    CHECK(pread(whole, bytes, sizeof bytes, 0) == sizeof bytes);
    for (size_t n = 4096; n <= sizeof bytes; n += 512) {
        CHECK(ftruncate(fd, 0) == 0 && pwrite(fd, bytes, n, 0) == (ssize_t)n);
        CHECK(segment_map(fd, &v, 0, &why) == EINVAL && why);
    }
    close(fd);
    close(whole);
}

static void texts(void) {
    struct view v;
    uint32_t len;
    attach(&v, new_segment(2, 4), 0, KIND_M);
    uint32_t number = place_intern(&v, "here", 4, 0);
    struct text *t = (struct text *)at(&v, v.seg->places.texts) + number;
    CHECK(place_text(&v, number, &len) && len == 4 && !place_text(&v, PLACE_TEXTS, &len) && !place_text(&v, 0, &len));
    t->off = PLACE_BYTES - 3;
    CHECK(!place_text(&v, number, &len));
    t->off = 0, t->len = 0xffffffffu;
    CHECK(!place_text(&v, number, &len));
    CHECK(place_intern(&v, "here", 4, 0) != number);
    segment_unmap(&v);
}

/* A block at the heap's end, which its reader finds larger than it is. */
static void blocks(void) {
    struct view v;
    const char *words;
    attach(&v, new_segment(2, 4), 0, KIND_M);
    uint64_t off = shared_alloc(&v, 4000), end = v.seg->heap.base + v.seg->heap.size;
    uint64_t *head = shared_content(&v, off);
    head[0] = ~0ull / 8;
    CHECK(block_objects(&v, off, 4000, &words) == 0 && block_objects(&v, off, end - off, &words) == 0);
    head[0] = 2, head[1] = end - off - 64 - 64, head[2] = 0;
    CHECK(block_objects(&v, off, end - off, &words) == 0 && block_objects(&v, end, 0, &words) == 0);
    head[0] = 2, head[1] = 64, head[2] = end - off - 128;
    CHECK(block_objects(&v, off, end - off, &words) == 0);
    segment_unmap(&v);
}

int main(void) {
    headers();
    files();
    texts();
    blocks();
    DONE("hostile");
}
