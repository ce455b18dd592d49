/* sysmon.h: see sysmon.c. */
#ifndef DGMP_SYSMON_H
#define DGMP_SYSMON_H
#include "core.h"

struct p_seen {                       /* a P, as it was at the last look */
    uint64_t own;                     /* its word, 0 when no user code ran */
    int64_t cpu;                      /* what its M had used, in ns */
    uint32_t asleep;                  /* whether that slept */
};
struct m_seen {
    uint64_t curg;                    /* in user code without a P: */
    int64_t cpu;
    int64_t told;                     /* when it was last told to stop */
    uint64_t g, switches;             /* with one, while others of its Gs wait: what was asked to give way, */
    int64_t asked;                    /* and when */
};
struct sysmon {                       /* the coordinator's memory */
    struct p_seen *ps;
    struct m_seen *ms;
    uint64_t *blocks;                 /* a bit for each function that was seen to block */
    uint32_t quiet, eager;            /* looks in a row that had no reason; this is the first one that has */
    uint32_t nblocked, nloose;        /* what the last look has found: */
    uint32_t *blocked;                /* Ps whose M blocks, with the words they were seen to have in ps, */
    uint32_t *loose;                  /* and Ms to be sent SIGURG: see sysmon.c */
};

int sysmon_init(struct view *v, struct sysmon *s);              /* 0: out of memory */
void sysmon_free(struct sysmon *s);
uint32_t sysmon_look(struct view *v, struct sysmon *s, int64_t now); /* how much it has found */
int sysmon_wait(struct view *v, struct sysmon *s, int fd, int64_t timeout_ns); /* 1: it has found something; 0: fd, or the time */
void sysmon_blocked(struct view *v, struct sysmon *s, uint32_t p); /* its function is known to block from here on */
uint32_t ms_without_p(struct view *v);                          /* how many Ms run user code, or block in it, without one */

#endif
