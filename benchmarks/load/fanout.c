#include "fanout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rtc.h"

enum { RING = 1 << 16 }; /* more than publications can be in flight */
static const uint64_t STALLED_NS = 15000000000u; /* a burst of a slow server takes some seconds */
static const uint64_t SETTLE_NS = 200000000u;
static const uint64_t PATIENCE_NS = 30000000000u;
static const double SECOND_NS = 1e9;

struct fanout {
    struct connection *publisher;
    size_t subscribers;
    uint32_t arrived[RING];  /* subscribers that got publication n, at n % RING */
    uint64_t due_ns[RING];   /* when publication n was to be sent */
    uint64_t published;
    uint64_t landed;
    uint64_t deliveries;
    uint64_t bytes;
    uint64_t last_arrival_ns;
    uint64_t turn_ns;        /* the time at the start of this turn */
    size_t offset_at;        /* where envelopes so far had their offset; checked before it is used */
    bool measuring;
    struct histogram *latency; /* or NULL */
    char *message;           /* owned: the publication */
    size_t message_length;
    char *payload;           /* of it, where its number is written; NULL when the server gives the numbers */
};

static uint64_t offset_of(struct fanout *fanout, const struct connection *connection, const struct frame *frame)
{
    static const char key[] = "\"offset\":";
    enum { KEY = sizeof key - 1 };
    const char *text = (const char *)frame->payload;
    static const char type[] = "{\"type\":\"Message\",";
    if (frame->length < sizeof type - 1 || memcmp(text, type, sizeof type - 1) != 0)
        return UINT64_MAX;
    uint64_t offset = 0;
    if (fanout->offset_at + KEY < frame->length && memcmp(text + fanout->offset_at, key, KEY) == 0) {
        for (const char *at = text + fanout->offset_at + KEY; *at >= '0' && *at <= '9'; at++)
            offset = offset * 10 + (uint64_t)(*at - '0');
    } else {
        const char *at = memmem(text, frame->length, key, KEY);
        if (at == NULL)
            return UINT64_MAX;
        fanout->offset_at = (size_t)(at - text);
        offset = number_after(frame, key, KEY);
    }
    return offset - connection->base - 1;
}

static uint64_t sequence_of(struct fanout *fanout, const struct options *options, const struct connection *connection,
                            const struct frame *frame)
{
    if (options->protocol->is_numbered)
        return offset_of(fanout, connection, frame);
    return frame->length == options->message_bytes
        ? read_sequence(options->protocol, frame->payload, frame->length)
        : UINT64_MAX;
}

static void count_arrival(struct fanout *fanout, uint64_t sequence)
{
    if (++fanout->arrived[sequence % RING] == fanout->subscribers) {
        fanout->arrived[sequence % RING] = 0;
        fanout->landed++;
    }
}

static void time_arrival(struct load *load, uint64_t sequence)
{
    struct fanout *fanout = load->state;
    uint64_t now = now_ns(), due = fanout->due_ns[sequence % RING];
    uint64_t taken = now > due ? now - due : 0;
    if (fanout->latency != NULL && fanout->measuring)
        histogram_add(fanout->latency, taken);
    if (load->progress.every_ns != 0)
        progress_add(&load->progress, taken, fanout->measuring);
}

static void take_message(struct load *load, struct connection *connection, const struct frame *frame)
{
    struct fanout *fanout = load->state;
    uint64_t sequence = connection == fanout->publisher
        ? UINT64_MAX
        : sequence_of(fanout, load->options, connection, frame);
    if (sequence >= fanout->published) {
        note_error(&load->problems, "unexpected: ", frame->payload, frame->length);
        return;
    }
    fanout->last_arrival_ns = fanout->turn_ns;
    if (sequence < connection->next) {
        if (load->problems.gaps != 0)
            load->problems.disorder++;
        else
            load->problems.duplicates++;
        return;
    }
    while (connection->next < sequence) { /* counted as arrived too, so that the run goes on */
        load->problems.gaps++;
        count_arrival(fanout, connection->next++);
    }
    connection->next++;
    fanout->deliveries++;
    fanout->bytes += frame->length;
    if (fanout->latency != NULL || load->progress.every_ns != 0)
        time_arrival(load, sequence);
    count_arrival(fanout, sequence);
}

static void make_message(struct fanout *fanout, const struct options *options)
{
    const struct protocol *protocol = options->protocol;
    size_t room = options->message_bytes + strlen(options->topic) + 128;
    char *payload = malloc(options->message_bytes);
    fanout->message = malloc(room);
    if (payload == NULL || fanout->message == NULL)
        exit(1);
    if (options->payload != NULL)
        memcpy(payload, options->payload, options->message_bytes);
    else
        fill_payload(protocol, payload, options->message_bytes);
    fanout->message_length =
        protocol->write_publish(fanout->message, room, options->topic, payload, options->message_bytes);
    if (!protocol->is_numbered)
        fanout->payload = memmem(fanout->message, fanout->message_length, payload, options->message_bytes);
    free(payload);
}

static void publish(struct fanout *fanout, const struct options *options, uint64_t due_ns)
{
    if (fanout->payload != NULL)
        write_sequence(options->protocol, fanout->payload, fanout->published);
    fanout->due_ns[fanout->published % RING] = due_ns;
    fanout->published++;
    connection_append(fanout->publisher, fanout->message, fanout->message_length);
}

/* Keeps `in_flight` publications under way, or follows the schedule of a fixed rate. */
static void publish_more(struct load *load, struct fanout *fanout, uint64_t start_ns)
{
    const struct options *options = load->options;
    uint64_t before = fanout->published;
    if (options->mode == MODE_FANOUT) {
        while (fanout->published - fanout->landed < options->in_flight)
            publish(fanout, options, fanout->turn_ns);
    } else {
        while (fanout->published - fanout->landed < RING / 2) {
            uint64_t due = start_ns + (uint64_t)((double)fanout->published * SECOND_NS / options->rate);
            if (due > fanout->turn_ns)
                break;
            publish(fanout, options, due);
        }
    }
    if (fanout->published != before)
        connection_flush(load, fanout->publisher);
}

static bool stalled(const struct fanout *fanout)
{
    return fanout->published > fanout->landed && fanout->turn_ns > fanout->last_arrival_ns
        && fanout->turn_ns - fanout->last_arrival_ns > STALLED_NS;
}

/* Whether a whole turn of what is in flight has landed since `landed`: a server that is slower than that works in bursts,
 * and a shorter time would measure where in a burst it fell. Nobody is waited for longer than PATIENCE_NS. */
static bool had_a_turn(const struct fanout *fanout, const struct options *options, uint64_t landed, uint64_t since_ns)
{
    return options->mode == MODE_LATENCY || fanout->landed - landed >= options->in_flight
        || fanout->turn_ns > since_ns + PATIENCE_NS;
}

static void drive(struct load *load, struct fanout *fanout, struct result *result)
{
    const struct options *options = load->options;
    uint64_t start = now_ns(), from = start + (uint64_t)(options->warmup * SECOND_NS);
    uint64_t until = from + (uint64_t)(options->seconds * SECOND_NS), measured_from = from;
    uint64_t deliveries = 0, landed = 0, bytes = 0, received = 0, records = 0;
    struct cpu_time cpu = {0, 0, 0};
    double each[MAX_SERVER_PIDS] = {0};
    fanout->last_arrival_ns = start;
    progress_begin(&load->progress, start, 0);
    for (;;) {
        fanout->turn_ns = now_ns();
        if (!fanout->measuring && fanout->turn_ns >= from) {
            fanout->measuring = true;
            cpu = cpu_time_of(options->server_pids, options->server_pid_count);
            cpu_time_of_each(options->server_pids, options->server_pid_count, each);
            deliveries = fanout->deliveries;
            landed = fanout->landed;
            bytes = fanout->bytes;
            received = load->received;
            records = load->records;
            measured_from = now_ns();
        }
        if (progress_is_due(&load->progress, fanout->turn_ns))
            progress_running(&load->progress, fanout->turn_ns, fanout->deliveries, fanout->measuring);
        if (load->problems.errors != 0
            || (fanout->turn_ns >= until && had_a_turn(fanout, options, landed, until)))
            break;
        if (stalled(fanout)) {
            result->stalled = true;
            break;
        }
        publish_more(load, fanout, start);
        load_turn(load, 0);
    }
    struct cpu_time end = cpu_time_of(options->server_pids, options->server_pid_count);
    result->each_count = options->server_pid_count;
    cpu_time_of_each(options->server_pids, options->server_pid_count, result->each_cpu);
    for (size_t index = 0; index < result->each_count; index++)
        result->each_cpu[index] -= each[index];
    result->seconds = (double)(fanout->turn_ns - measured_from) / SECOND_NS;
    result->deliveries = fanout->deliveries - deliveries;
    result->publications = fanout->landed - landed;
    result->bytes = fanout->bytes - bytes;
    result->received = load->received - received;
    result->records = load->records - records;
    name_cipher(result, load);
    result->server = cpu_time_between(cpu, end);
}

/* A text peer says nothing once it has registered a subscriber, so it gets a moment after the last upgrade. */
static void settle(struct load *load)
{
    for (uint64_t until = now_ns() + SETTLE_NS; now_ns() < until;)
        load_turn(load, 10);
}

/* What is in flight when the measuring ends must still arrive. */
static void drain(struct load *load, struct fanout *fanout)
{
    fanout->measuring = false;
    fanout->last_arrival_ns = now_ns();
    do {
        load_turn(load, 0);
        fanout->turn_ns = now_ns();
    } while (fanout->landed < fanout->published && load->problems.errors == 0 && !stalled(fanout));
    for (size_t index = 0; index < fanout->subscribers; index++)
        load->problems.lost += fanout->published - load->connections[index].next;
}

bool run_fanout(const struct options *options, struct result *result, struct problems *problems)
{
    struct load load;
    load_init(&load, options, options->connections + 1);
    struct fanout *fanout = calloc(1, sizeof *fanout);
    if (fanout == NULL)
        exit(1);
    fanout->subscribers = options->connections;
    fanout->publisher = &load.connections[options->connections];
    fanout->publisher->role = ROLE_PUBLISHER;
    for (size_t index = 0; index < options->connections; index++)
        load.connections[index].subscribes = options->protocol->write_subscribe != NULL;
    load.on_message = take_message;
    load.state = fanout;
    make_message(fanout, options);
    if (options->mode == MODE_LATENCY) {
        result->offered = options->rate;
        result->latency = fanout->latency = calloc(1, sizeof *fanout->latency);
        if (fanout->latency == NULL)
            exit(1);
    }
    uint64_t start = now_ns();
    bool opened = load_open(&load);
    result->connect_seconds = (double)(now_ns() - start) / SECOND_NS;
    if (opened) {
        settle(&load);
        drive(&load, fanout, result);
        drain(&load, fanout);
    }
    *problems = load.problems;
    keep_latency(result, &load.progress);
    load_close(&load);
    free(fanout->message);
    free(fanout);
    return opened;
}
