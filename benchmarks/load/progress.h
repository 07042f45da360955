/* What a run says while it goes on: a line of JSON on stdout at each interval, and the latencies behind it.
 *
 *     {"progress":"opening","open":12,"of":100}
 *     {"progress":"running","at":0.25,"measuring":true,"deliveries":1200,"rate":4800.0,"p50_us":91.0,"p99_us":120.5}
 *
 * When nobody reads the lines any more, the process exits with 1.
 * Without an interval nothing is said and nothing is timed: what is measured beside other servers pays for none of it. */
#ifndef LOAD_PROGRESS_H
#define LOAD_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "report.h"

struct progress {
    uint64_t every_ns;  /* 0: nothing is said */
    uint64_t start_ns;  /* of what `at` counts from */
    uint64_t next_ns;   /* when the next line is due */
    uint64_t said;      /* deliveries at the line before */
    uint64_t said_ns;   /* and its time */
    struct histogram *interval; /* owned: latencies since the line before; NULL when nothing is said */
    struct histogram *whole;    /* owned: of the measured time, likewise */
};

/* Exits with 1 when there is no memory. */
void progress_init(struct progress *progress, unsigned interval_ms);
void progress_free(struct progress *progress);

/* Whether a line is due. */
bool progress_is_due(const struct progress *progress, uint64_t now);

/* Says how many connections are open. */
void progress_opening(struct progress *progress, uint64_t now, size_t open, size_t count);

/* What follows counts from now. */
void progress_begin(struct progress *progress, uint64_t now, uint64_t deliveries);

/* A latency, of the interval, and of the whole when it is measured. */
void progress_add(struct progress *progress, uint64_t nanoseconds, bool measuring);

/* Gives the result the latencies of the whole, unless it has its own. */
void keep_latency(struct result *result, struct progress *progress);

/* Says how many deliveries there were so far, and what the interval was like, and begins another one. */
void progress_running(struct progress *progress, uint64_t now, uint64_t deliveries, bool measuring);

#endif
