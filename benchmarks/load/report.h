/* Time, CPU time of the servers, latency, and the line of JSON at the end. */
#ifndef LOAD_REPORT_H
#define LOAD_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "options.h"

/* Monotonic time, nanoseconds. */
uint64_t now_ns(void);

struct cpu_time {
    double user;   /* seconds, in ticks of 10 ms */
    double system; /* seconds, in ticks of 10 ms */
    double total;  /* seconds, exact where the kernel has schedstat; otherwise the sum of the two */
};

/* What the processes have used so far. */
struct cpu_time cpu_time_of(const pid_t *pids, size_t count);

/* The total of each single one, into `seconds`. */
void cpu_time_of_each(const pid_t *pids, size_t count, double *seconds);

/* Log-linear: 32 buckets for each power of two of nanoseconds, so an error of at most 3 %. */
enum { HISTOGRAM_STEPS = 32, HISTOGRAM_BUCKETS = 64 * HISTOGRAM_STEPS };
struct histogram {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t total;
    uint64_t most;
};

/* How much more `end` is than `start`. */
struct cpu_time cpu_time_between(struct cpu_time start, struct cpu_time end);

void histogram_add(struct histogram *histogram, uint64_t nanoseconds);

/* The latency, in microseconds, that a share (0…1) of the entries does not exceed. */
double histogram_quantile(const struct histogram *histogram, double share);

/* Everything that can be wrong with what arrived. All zero in a run that counts. */
struct problems {
    uint64_t gaps;       /* messages skipped */
    uint64_t duplicates; /* messages seen before */
    uint64_t disorder;   /* messages that came after a later one */
    uint64_t lost;       /* messages that had not arrived when the run ended */
    uint64_t errors;     /* connections lost, `Error` and `Lagged` envelopes, frames that are none */
    char first[256];     /* what the first of the errors said, as printable ASCII */
};

void note_error(struct problems *problems, const char *what, const void *detail, size_t length);

struct result {
    const char *mode;
    size_t connections;
    double connect_seconds;
    double seconds;         /* measured */
    uint64_t deliveries;    /* messages that arrived in that time; echoes count once */
    uint64_t publications;  /* that had arrived everywhere in that time */
    uint64_t bytes;         /* of those deliveries' payloads; rtc: of their envelopes */
    uint64_t received;      /* bytes of everything that arrived in that time, with the frames' headers */
    uint64_t records;       /* of TLS, that these came in */
    char cipher[64];        /* of TLS; empty without */
    double offered;         /* latency: publications a second that were due; otherwise 0 */
    struct cpu_time server; /* used by the server in that time */
    double each_cpu[MAX_SERVER_PIDS]; /* the same for each of its processes, in the order they were named */
    size_t each_count;
    const struct histogram *latency; /* or NULL */
    bool shows_buckets;     /* the report has all of it, not only some quantiles */
    bool stalled;           /* nothing arrived for too long and the run was given up */
};

/* When connections that were lost had come so far, monotonic; all 0 when none did. */
struct stage {
    uint64_t first_ns;
    uint64_t half_ns;
    uint64_t p99_ns;
    uint64_t last_ns;
};

/* How connections that were lost came back. */
struct comeback {
    uint64_t lost;               /* connections, each time */
    uint64_t lost_first_ns;      /* monotonic, like all times here; 0: never */
    uint64_t lost_last_ns;
    struct stage connected;      /* signed on */
    struct stage subscribed;     /* and subscribed, with all that they had missed */
    uint64_t refused;            /* attempts that were not accepted */
    uint64_t turned_away;        /* attempts that were, and lost before they were subscribed */
    uint64_t never_back;         /* connections */
    uint64_t recovered;          /* subscriptions without a gap */
    uint64_t recovered_messages;
    uint64_t reset;              /* subscriptions that were told of a gap */
    uint64_t unseen;             /* acknowledged messages in these gaps, over all subscribers */
    uint64_t lagged;             /* `Lagged` envelopes */
    uint64_t refusals;           /* publications that were refused, and sent again */
    uint64_t acknowledged;       /* publications */
    char why[128];               /* of the first that was turned away */
};

/* What became of more than a server takes. Publications, unless it says otherwise; of the whole run. */
struct shedding {
    uint64_t sent;
    uint64_t held;         /* were due while the socket took nothing: never sent */
    uint64_t away;         /* were due while the publisher was not connected: never sent */
    uint64_t acknowledged;
    uint64_t rate_limited; /* refused with that code, as the next two */
    uint64_t unavailable;
    uint64_t backpressure;
    uint64_t unanswered;   /* on connections that were closed */
    uint64_t lagged;       /* envelopes */
    uint64_t told;         /* deliveries that `Lagged` says are missing */
    uint64_t missing;      /* deliveries that are missing there */
    uint64_t made_up;      /* deliveries that `Lagged` says follow */
    uint64_t closed_publishers;  /* connections, each time */
    uint64_t closed_subscribers;
    uint64_t turned_away;  /* attempts to come back that failed */
    char why[128];         /* of the first that was closed */
};

/* `comeback` is NULL in modes where connections do not come back, `shedding` where nothing is shed. */
void print_result(const struct result *result, const struct problems *problems, const struct comeback *comeback,
                  const struct shedding *shedding);

/* Writes `what` and `detail` as printable ASCII without quotes. */
void describe(char *to, size_t room, const char *what, const void *detail, size_t length);

#endif
