#include "opening.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { IDLE_TURN_MS = 50 };
static const uint64_t FAREWELL_NS = 60000000000u; /* that it may take to arrive everywhere */
static const double SECOND_NS = 1e9;

/* The one message at the end. */
struct farewell {
    struct connection *publisher;
    uint64_t published_ns; /* 0: not yet */
    size_t arrived;
    struct histogram *latency; /* owned */
};

static void take_farewell(struct load *load, struct connection *connection, const struct frame *frame)
{
    static const char type[] = "{\"type\":\"Message\",";
    struct farewell *farewell = load->state;
    uint64_t now = now_ns();
    if (farewell->published_ns == 0 || connection->next != 0 || connection == farewell->publisher
        || !starts_with(frame->payload, frame->length, type)) {
        note_error(&load->problems, "unexpected: ", frame->payload, frame->length);
        return;
    }
    connection->next = 1;
    farewell->arrived++;
    histogram_add(farewell->latency, now - farewell->published_ns);
}

/* Publishes to all, and waits until each has got it. */
static void say_farewell(struct load *load, struct result *result)
{
    const struct options *options = load->options;
    struct farewell *farewell = load->state;
    size_t room = options->message_bytes + strlen(options->topic) + 128, wanted = load->count - 1;
    char *payload = malloc(options->message_bytes), *message = malloc(room);
    if (payload == NULL || message == NULL)
        exit(1);
    fill_payload(options->protocol, payload, options->message_bytes);
    size_t length = options->protocol->write_publish(message, room, options->topic, payload, options->message_bytes);
    connection_append(farewell->publisher, message, length);
    farewell->published_ns = now_ns();
    connection_flush(load, farewell->publisher);
    while (farewell->arrived < wanted && load->problems.errors == 0 && now_ns() - farewell->published_ns < FAREWELL_NS)
        load_turn(load, IDLE_TURN_MS);
    result->deliveries = farewell->arrived;
    result->publications = farewell->arrived == wanted;
    result->latency = farewell->latency;
    load->problems.lost += wanted - farewell->arrived;
    free(payload);
    free(message);
}

static void take_any(struct load *load, struct connection *connection, const struct frame *frame)
{
    (void)connection;
    note_error(&load->problems, "unexpected: ", frame->payload, frame->length);
}

bool input_ended(void)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    char ignored[64];
    return poll(&input, 1, 0) > 0 && read(STDIN_FILENO, ignored, sizeof ignored) <= 0;
}

bool run_opening(const struct options *options, struct result *result, struct problems *problems)
{
    struct load load;
    struct farewell farewell = {0};
    load_init(&load, options, options->connections + options->farewell);
    for (size_t index = 0; index < options->connections; index++)
        load.connections[index].subscribes = options->protocol->write_subscribe != NULL && options->topics > 0;
    load.on_message = take_any;
    if (options->farewell) {
        farewell.publisher = &load.connections[options->connections];
        farewell.publisher->role = ROLE_PUBLISHER;
        farewell.latency = calloc(1, sizeof *farewell.latency);
        if (farewell.latency == NULL)
            exit(1);
        load.on_message = take_farewell;
        load.state = &farewell;
    }
    struct cpu_time cpu = cpu_time_of(options->server_pids, options->server_pid_count);
    uint64_t start = now_ns();
    bool opened = load_open(&load);
    uint64_t end = now_ns();
    result->connect_seconds = (double)(end - start) / SECOND_NS;
    if (opened && options->mode == MODE_IDLE) {
        puts("ready");
        fflush(stdout);
        cpu = cpu_time_of(options->server_pids, options->server_pid_count);
        start = now_ns();
        progress_begin(&load.progress, start, load.ready);
        while (!input_ended()) {
            load_turn(&load, IDLE_TURN_MS);
            uint64_t now = now_ns();
            if (progress_is_due(&load.progress, now))
                progress_running(&load.progress, now, load.ready, true);
        }
        end = now_ns();
    }
    struct cpu_time now = cpu_time_of(options->server_pids, options->server_pid_count);
    result->server = cpu_time_between(cpu, now);
    result->seconds = (double)(end - start) / SECOND_NS;
    if (opened && options->farewell && load.problems.errors == 0)
        say_farewell(&load, result);
    name_cipher(result, &load);
    *problems = load.problems;
    problems->lost += load.count - load.ready;
    load_close(&load);
    return opened;
}
