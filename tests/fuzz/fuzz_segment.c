/* libFuzzer: a file whose header is partly the input, mapped as a segment.  The input: pairs of a place in the header (2 bytes)
 * and what is put there (8 bytes); first, a byte: how the file's size differs. */
#include "hostile.h"

#include <errno.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int fd = -1;
    static char good[sizeof(struct segment)];
    static off_t whole;
    struct view v;
    const char *why;
    if (fd < 0) {
        struct config c = {2, 4, 2, 64, 1 << 16};
        int sealed, e = segment_create(&c, &sealed);
        CHECK(e == 0 && pread(sealed, good, sizeof good, 0) == sizeof good);
        whole = lseek(sealed, 0, SEEK_END);
        fd = memfd_create("hostile", MFD_CLOEXEC);
        CHECK(ftruncate(fd, whole) == 0);
        struct segment *s = mmap(NULL, (size_t)whole, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        CHECK(pread(sealed, s, (size_t)whole, 0) == whole);
        munmap(s, (size_t)whole);
        close(sealed);
    }
    if (size < 1) return 0;
    char header[sizeof good];
    memcpy(header, good, sizeof good);
    for (size_t i = 1; i + 10 <= size; i += 10) {
        uint16_t at;
        memcpy(&at, data + i, 2);
        memcpy(header + at % (sizeof good / 8) * 8, data + i + 2, 8);
    }
    off_t other = data[0] < 128 ? whole : data[0] < 192 ? whole - 512 * (data[0] - 127) : whole + 4096 * (data[0] - 191);
    CHECK(ftruncate(fd, other) == 0 && pwrite(fd, header, sizeof header, 0) == sizeof header);
    int e = segment_map(fd, &v, data[0] % 8, &why);
    CHECK(e == 0 || (e == EINVAL && why));
    if (e == 0) {
        CHECK(other == whole && data[0] % 8 < 6);
        read_tables(&v);
        segment_unmap(&v);
    }
    CHECK(ftruncate(fd, whole) == 0);
    return 0;
}
