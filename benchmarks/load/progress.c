#include "progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double SECOND_NS = 1e9;

void progress_init(struct progress *progress, unsigned interval_ms)
{
    *progress = (struct progress){.every_ns = (uint64_t)interval_ms * 1000000u};
    if (interval_ms == 0)
        return;
    progress->next_ns = now_ns() + progress->every_ns;
    progress->interval = calloc(1, sizeof *progress->interval);
    progress->whole = calloc(1, sizeof *progress->whole);
    if (progress->interval == NULL || progress->whole == NULL) {
        fputs("load: no memory\n", stderr);
        exit(1);
    }
}

void progress_free(struct progress *progress)
{
    free(progress->interval);
    free(progress->whole);
}

/* A run that nobody listens to any more ends. */
static void end_line(void)
{
    if (fflush(stdout) != 0)
        exit(1);
}

bool progress_is_due(const struct progress *progress, uint64_t now)
{
    return progress->every_ns != 0 && now >= progress->next_ns;
}

void progress_opening(struct progress *progress, uint64_t now, size_t open, size_t count)
{
    progress->next_ns = now + progress->every_ns;
    printf("{\"progress\":\"opening\",\"open\":%zu,\"of\":%zu}\n", open, count);
    end_line();
}

void progress_begin(struct progress *progress, uint64_t now, uint64_t deliveries)
{
    progress->start_ns = progress->said_ns = now;
    progress->next_ns = now + progress->every_ns;
    progress->said = deliveries;
}

void progress_add(struct progress *progress, uint64_t nanoseconds, bool measuring)
{
    histogram_add(progress->interval, nanoseconds);
    if (measuring)
        histogram_add(progress->whole, nanoseconds);
}

void progress_running(struct progress *progress, uint64_t now, uint64_t deliveries, bool measuring)
{
    double since = (double)(now - progress->said_ns) / SECOND_NS;
    printf("{\"progress\":\"running\",\"at\":%.6f,\"measuring\":%s,\"deliveries\":%llu,\"rate\":%.3f",
           (double)(now - progress->start_ns) / SECOND_NS, measuring ? "true" : "false",
           (unsigned long long)deliveries, since > 0 ? (double)(deliveries - progress->said) / since : 0.0);
    if (progress->interval->total != 0)
        printf(",\"p50_us\":%.2f,\"p99_us\":%.2f", histogram_quantile(progress->interval, 0.5),
               histogram_quantile(progress->interval, 0.99));
    printf("}\n");
    end_line();
    memset(progress->interval, 0, sizeof *progress->interval);
    progress->said = deliveries;
    progress->said_ns = now;
    progress->next_ns += progress->every_ns;
    if (progress->next_ns <= now)
        progress->next_ns = now + progress->every_ns;
}

void keep_latency(struct result *result, struct progress *progress)
{
    if (progress->whole == NULL)
        return;
    result->shows_buckets = true;
    if (result->latency == NULL) {
        result->latency = progress->whole;
        progress->whole = NULL;
    }
}
