#include "report.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

uint64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* Nanoseconds on a core, over all threads of a process; 0 without schedstat. */
static uint64_t run_time_ns(pid_t pid)
{
    char path[64 + sizeof(((struct dirent *)0)->d_name)];
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *threads = opendir(path);
    uint64_t sum = 0;
    for (struct dirent *thread; threads != NULL && (thread = readdir(threads)) != NULL;) {
        unsigned long long running;
        snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", (int)pid, thread->d_name);
        FILE *file = thread->d_name[0] == '.' ? NULL : fopen(path, "r");
        if (file == NULL)
            continue;
        if (fscanf(file, "%llu", &running) == 1)
            sum += running;
        fclose(file);
    }
    if (threads != NULL)
        closedir(threads);
    return sum;
}

static struct cpu_time cpu_ticks(pid_t pid)
{
    struct cpu_time used = {0, 0, 0};
    double tick = 1.0 / (double)sysconf(_SC_CLK_TCK);
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return used;
    size_t length = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    line[length] = '\0';
    /* The command may contain anything; the numbers start after its closing bracket (proc(5)). */
    const char *fields = strrchr(line, ')');
    unsigned long user, system;
    if (fields != NULL
        && sscanf(fields + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) == 2) {
        used.user = (double)user * tick;
        used.system = (double)system * tick;
    }
    return used;
}

struct cpu_time cpu_time_of(const pid_t *pids, size_t count)
{
    struct cpu_time sum = {0, 0, 0};
    for (size_t index = 0; index < count; index++) {
        struct cpu_time used = cpu_ticks(pids[index]);
        uint64_t exact = run_time_ns(pids[index]);
        sum.user += used.user;
        sum.system += used.system;
        sum.total += exact != 0 ? (double)exact / 1e9 : used.user + used.system;
    }
    return sum;
}

void cpu_time_of_each(const pid_t *pids, size_t count, double *seconds)
{
    for (size_t index = 0; index < count; index++)
        seconds[index] = cpu_time_of(&pids[index], 1).total;
}

struct cpu_time cpu_time_between(struct cpu_time start, struct cpu_time end)
{
    return (struct cpu_time){end.user - start.user, end.system - start.system, end.total - start.total};
}

void histogram_add(struct histogram *histogram, uint64_t nanoseconds)
{
    size_t bucket = (size_t)nanoseconds;
    if (nanoseconds >= HISTOGRAM_STEPS) {
        unsigned shift = 58u - (unsigned)__builtin_clzll(nanoseconds); /* keeps the top 6 bits: 32…63 */
        bucket = (size_t)shift * HISTOGRAM_STEPS + (size_t)(nanoseconds >> shift);
    }
    histogram->counts[bucket]++;
    histogram->total++;
    if (nanoseconds > histogram->most)
        histogram->most = nanoseconds;
}

/* Where a bucket begins. */
static double bucket_us(size_t bucket)
{
    if (bucket < 2 * HISTOGRAM_STEPS)
        return (double)bucket / 1000.0;
    size_t shift = bucket / HISTOGRAM_STEPS - 1;
    return (double)((uint64_t)(bucket - shift * HISTOGRAM_STEPS) << shift) / 1000.0;
}

double histogram_quantile(const struct histogram *histogram, double share)
{
    uint64_t wanted = (uint64_t)(share * (double)histogram->total + 0.5), seen = 0;
    for (size_t bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        seen += histogram->counts[bucket];
        if (seen >= wanted && seen > 0)
            return bucket_us(bucket);
    }
    return 0;
}

void describe(char *to, size_t room, const char *what, const void *detail, size_t length)
{
    size_t at = (size_t)snprintf(to, room, "%s", what);
    const char *text = detail;
    for (size_t index = 0; index < length && at + 1 < room; index++) {
        char letter = text[index];
        to[at++] = letter < ' ' || letter > '~' || letter == '"' || letter == '\\' ? '\'' : letter;
    }
    to[at < room ? at : room - 1] = '\0';
}

void note_error(struct problems *problems, const char *what, const void *detail, size_t length)
{
    if (problems->errors++ == 0)
        describe(problems->first, sizeof problems->first, what, detail, length);
}

static void print_stage(const char *name, const struct stage *stage)
{
    printf(",\"%s\":{\"first_ns\":%llu,\"half_ns\":%llu,\"p99_ns\":%llu,\"last_ns\":%llu}", name,
           (unsigned long long)stage->first_ns, (unsigned long long)stage->half_ns,
           (unsigned long long)stage->p99_ns, (unsigned long long)stage->last_ns);
}

/* Pairs of where a bucket begins, in microseconds, and what is in it. */
static void print_buckets(const struct histogram *histogram)
{
    const char *comma = "";
    printf(",\"buckets\":[");
    for (size_t bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        if (histogram->counts[bucket] == 0)
            continue;
        printf("%s[%.3f,%llu]", comma, bucket_us(bucket), (unsigned long long)histogram->counts[bucket]);
        comma = ",";
    }
    printf("]");
}

static void print_comeback(const struct comeback *comeback)
{
    const struct { const char *name; uint64_t value; } numbers[] = {
        {"lost", comeback->lost}, {"lost_first_ns", comeback->lost_first_ns}, {"lost_last_ns", comeback->lost_last_ns},
        {"refused", comeback->refused},
        {"turned_away", comeback->turned_away}, {"never_back", comeback->never_back},
        {"recovered", comeback->recovered}, {"recovered_messages", comeback->recovered_messages},
        {"reset", comeback->reset}, {"unseen", comeback->unseen}, {"lagged", comeback->lagged},
        {"refusals", comeback->refusals}, {"acknowledged", comeback->acknowledged},
    };
    printf(",\"comeback\":{\"why\":\"%s\"", comeback->why);
    print_stage("connected", &comeback->connected);
    print_stage("subscribed", &comeback->subscribed);
    for (size_t index = 0; index < sizeof numbers / sizeof *numbers; index++)
        printf(",\"%s\":%llu", numbers[index].name, (unsigned long long)numbers[index].value);
    printf("}");
}

static void print_shedding(const struct shedding *shedding)
{
    const struct { const char *name; uint64_t value; } numbers[] = {
        {"sent", shedding->sent}, {"held", shedding->held}, {"away", shedding->away},
        {"acknowledged", shedding->acknowledged}, {"rate_limited", shedding->rate_limited},
        {"unavailable", shedding->unavailable}, {"backpressure", shedding->backpressure},
        {"unanswered", shedding->unanswered}, {"lagged", shedding->lagged}, {"told", shedding->told},
        {"missing", shedding->missing}, {"made_up", shedding->made_up},
        {"closed_publishers", shedding->closed_publishers}, {"closed_subscribers", shedding->closed_subscribers},
        {"turned_away", shedding->turned_away},
    };
    printf(",\"shedding\":{\"why\":\"%s\"", shedding->why);
    for (size_t index = 0; index < sizeof numbers / sizeof *numbers; index++)
        printf(",\"%s\":%llu", numbers[index].name, (unsigned long long)numbers[index].value);
    printf("}");
}

void print_result(const struct result *result, const struct problems *problems, const struct comeback *comeback,
                  const struct shedding *shedding)
{
    printf("{\"mode\":\"%s\",\"connections\":%zu,\"connect_seconds\":%.6f,\"seconds\":%.6f,\"deliveries\":%llu,"
           "\"publications\":%llu,\"bytes\":%llu,\"received\":%llu,\"offered\":%.3f,\"server_user\":%.2f,\"server_system\":%.2f,"
           "\"server_cpu\":%.6f",
           result->mode, result->connections, result->connect_seconds, result->seconds,
           (unsigned long long)result->deliveries, (unsigned long long)result->publications,
           (unsigned long long)result->bytes,
           (unsigned long long)result->received, result->offered, result->server.user, result->server.system,
           result->server.total);
    printf(",\"server_cpus\":[");
    for (size_t index = 0; index < result->each_count; index++)
        printf("%s%.6f", index ? "," : "", result->each_cpu[index]);
    printf("]");
    if (result->cipher[0] != '\0')
        printf(",\"records\":%llu,\"cipher\":\"%s\"", (unsigned long long)result->records, result->cipher);
    if (result->latency != NULL)
        printf(",\"p50_us\":%.2f,\"p99_us\":%.2f,\"p999_us\":%.2f,\"max_us\":%.2f",
               histogram_quantile(result->latency, 0.5), histogram_quantile(result->latency, 0.99),
               histogram_quantile(result->latency, 0.999), (double)result->latency->most / 1000.0);
    if (result->latency != NULL && result->shows_buckets)
        print_buckets(result->latency);
    if (comeback != NULL)
        print_comeback(comeback);
    if (shedding != NULL)
        print_shedding(shedding);
    printf(",\"gaps\":%llu,\"duplicates\":%llu,\"disorder\":%llu,\"lost\":%llu,\"errors\":%llu,\"stalled\":%s,"
           "\"first_error\":\"%s\"}\n",
           (unsigned long long)problems->gaps, (unsigned long long)problems->duplicates,
           (unsigned long long)problems->disorder, (unsigned long long)problems->lost,
           (unsigned long long)problems->errors, result->stalled ? "true" : "false", problems->first);
    fflush(stdout);
}
