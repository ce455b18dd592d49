/* The table of places: a text has one number, whoever adds it; it is read without a lock; a bounded share for rare ones. */
#include "check.h"
#include "place.h"

enum { N = 3000, THREADS = 3 };
static struct view views[THREADS];
static uint32_t numbers[THREADS][N];

static void *adder(void *arg) {
    struct view *v = arg;
    uint32_t len;
    char text[32];
    for (int i = 0; i < N; i++) {
        int n = snprintf(text, sizeof text, "file.py:%d", i);
        uint32_t number = numbers[v->self][i] = place_intern(v, text, (uint32_t)n, 0);
        const char *found = place_text(v, number, &len);
        CHECK(number && found && len == (uint32_t)n && memcmp(found, text, len) == 0);
    }
    return NULL;
}

int main(void) {
    int fd = new_segment(1, 4);
    pthread_t t[THREADS];
    uint32_t len;
    char text[PLACE_LONGEST + 100];
    for (uint32_t i = 0; i < THREADS; i++) attach(&views[i], fd, i, KIND_M);
    for (int i = 0; i < THREADS; i++) pthread_create(&t[i], NULL, adder, &views[i]);
    for (int i = 0; i < THREADS; i++) pthread_join(t[i], NULL);
    struct view *v = &views[0];
    for (int i = 0; i < N; i++)
        for (int j = 1; j < THREADS; j++) CHECK(numbers[j][i] == numbers[0][i]);
    CHECK(v->seg->places.n == N && !place_text(v, 0, &len) && !place_text(v, PLACE_TEXTS, &len));
    /* a long one is cut */
    memset(text, 'x', sizeof text);
    uint32_t cut = place_intern(v, text, sizeof text, 0);
    CHECK(place_text(v, cut, &len) && len == PLACE_LONGEST && place_intern(v, text, PLACE_LONGEST, 1) == cut);
    /* whoever died as it added one left an entry without a hash: it is free */
    struct text *texts = at(v, v->seg->places.texts);
    uint64_t hash = texts[cut].hash;
    texts[cut].hash = 0;
    CHECK(!place_text(v, cut, &len));
    CHECK(place_intern(v, text, PLACE_LONGEST, 0) == cut && texts[cut].hash == hash);
    /* rare ones leave room, and then the table is full, and what is in it is still found */
    uint32_t rare = 0, all = 0;
    for (int n, i = 0; (n = snprintf(text, sizeof text, "rare %d", i)) && place_intern(v, text, (uint32_t)n, 1); i++) rare++;
    for (int n, i = 0; (n = snprintf(text, sizeof text, "all %d", i)) && place_intern(v, text, (uint32_t)n, 0); i++) all++;
    CHECK(rare > PLACE_TEXTS / 4 && all > PLACE_TEXTS / 4);
    CHECK(place_intern(v, "rare 7", 6, 1) && place_intern(v, "file.py:7", 9, 0) == numbers[0][7]);
    DONE("place");
}
