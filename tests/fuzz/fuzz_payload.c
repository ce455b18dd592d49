/* libFuzzer: payloads that end with the words of shared objects (object.c), in memory of their own, and as a block that several
 * processes may read, with a length that may not be its own; and texts of the table of places.  The input: a byte that says
 * which, four bytes of a length, then the content. */
#include "hostile.h"

static void in_memory(const uint8_t *data, size_t size) {
    char *copy = malloc(size);        /* AddressSanitizer sees where it ends */
    const char *words;
    if (size) memcpy(copy, data, size);
    uint64_t n = payload_objects(copy, size, &words);
    read_words(words, n, copy, size);
    free(copy);
}

static void in_block(struct view *v, uint64_t len, const uint8_t *data, size_t size) {
    const char *words;
    uint64_t off = shared_alloc(v, size ? size : 1), n;
    CHECK(off);
    char *content = shared_content(v, off);
    memcpy(content, data, size);
    n = block_objects(v, off, size, &words);
    read_words(words, n, content, size);
    n = block_objects(v, off, len, &words);
    read_words(words, n, content, len);
    if (n) objects_travel(v, words, n);
    heap_free(v, off);
}

static void in_texts(struct view *v, uint32_t number, const uint8_t *data, size_t size) {
    struct text *t = (struct text *)at(v, v->seg->places.texts) + number % PLACE_TEXTS;
    const char *text;
    uint32_t len;
    if (size < sizeof *t) return;
    memcpy(t, data, sizeof *t);
    if ((text = place_text(v, number, &len)) != NULL) {
        CHECK(text >= (char *)at(v, v->seg->places.bytes) && text + len <= (char *)at(v, v->seg->places.bytes) + PLACE_BYTES);
        read_bytes(text, len);
    }
    store_rlx(&t->hash, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct view v;
    uint32_t number;
    if (!v.seg) attach(&v, new_segment_of(2, 4, 64), 0, KIND_M);
    if (size < 5) return 0;
    memcpy(&number, data + 1, 4);
    switch (data[0] % 3) {
    case 0: in_memory(data + 5, size - 5); break;
    case 1: in_block(&v, number, data + 5, size - 5); break;
    default: in_texts(&v, number, data + 5, size - 5);
    }
    return 0;
}
