#include "pingpong.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rtc.h"

enum { LONGEST_HEAD = 512 }; /* what a protocol has around a payload, the topic with it */
static const uint64_t STALLED_NS = 5000000000u;
static const uint64_t DRAIN_NS = 2000000000u;
static const double SECOND_NS = 1e9;

struct pingpong {
    uint64_t deliveries;
    uint64_t bytes;
    bool measuring;
    bool stopping;  /* what arrives is counted and not answered */
    char *message;  /* owned: the payload; with echo it has the connection's sequence number */
    size_t message_length;
    char *text;     /* owned: what the payload is sent in */
    size_t text_room;
};

static void make_echo(struct load *load)
{
    struct pingpong *pingpong = load->state;
    pingpong->message_length = load->options->message_bytes;
    pingpong->message = malloc(pingpong->message_length);
    pingpong->text_room = pingpong->message_length + LONGEST_HEAD;
    pingpong->text = malloc(pingpong->text_room);
    if (pingpong->message == NULL || pingpong->text == NULL)
        exit(1);
    fill_payload(protocol_of(load, &load->connections[0]), pingpong->message, pingpong->message_length);
}

static void send_text(struct load *load, struct connection *connection, size_t length)
{
    struct pingpong *pingpong = load->state;
    if (load->progress.every_ns != 0)
        connection->sent_ns = now_ns();
    connection_append(connection, pingpong->text, length);
    connection_flush(load, connection);
}

static void send_echo(struct load *load, struct connection *connection)
{
    struct pingpong *pingpong = load->state;
    const struct protocol *protocol = protocol_of(load, connection);
    size_t length = pingpong->message_length, room = pingpong->text_room;
    write_sequence(protocol, pingpong->message, connection->next);
    if (protocol->write_echo != NULL) {
        length = protocol->write_echo(pingpong->text, room, pingpong->message, length);
    } else {
        char topic[TOPIC_ROOM];
        write_topic(topic, load, connection);
        length = protocol->write_publish(pingpong->text, room, topic, pingpong->message, length);
    }
    send_text(load, connection, length);
}

static void send_direct(struct load *load, struct connection *connection)
{
    struct pingpong *pingpong = load->state;
    size_t length = write_text(pingpong->text, pingpong->text_room,
                               "{\"type\":\"DirectMessage\",\"to\":\"%s%zu\",\"payload\":%.*s}",
                               load->options->user_prefix, connection->index ^ 1, (int)pingpong->message_length,
                               pingpong->message);
    send_text(load, connection, length);
}

/* What it says comes back, or, of a pair, what the other one says: the time since it said something itself. */
static void count(struct load *load, const struct connection *connection, size_t length)
{
    struct pingpong *pingpong = load->state;
    pingpong->deliveries++;
    pingpong->bytes += length;
    if (load->progress.every_ns != 0)
        progress_add(&load->progress, now_ns() - connection->sent_ns, pingpong->measuring);
}

static void take_echo(struct load *load, struct connection *connection, const struct frame *frame)
{
    struct pingpong *pingpong = load->state;
    write_sequence(protocol_of(load, connection), pingpong->message, connection->next);
    if (frame->length != pingpong->message_length
        || memcmp(frame->payload, pingpong->message, pingpong->message_length) != 0) {
        note_error(&load->problems, "not the echo: ", frame->payload, frame->length);
        return;
    }
    connection->next++;
    count(load, connection, frame->length);
    if (!pingpong->stopping)
        send_echo(load, connection);
}

static void take_numbered(struct load *load, struct connection *connection, const struct frame *frame)
{
    struct pingpong *pingpong = load->state;
    bool direct = load->options->mode == MODE_DIRECT;
    uint64_t offset = number_after(frame, "\"offset\":", 9);
    if (!has_type(frame, direct ? "DirectMessage" : "Message") || offset == UINT64_MAX) {
        note_error(&load->problems, "unexpected: ", frame->payload, frame->length);
        return;
    }
    if (connection->next == 0) /* an inbox is older than this run */
        connection->next = direct ? offset : connection->base + 1;
    if (offset > connection->next)
        load->problems.gaps += offset - connection->next;
    else if (offset < connection->next)
        load->problems.duplicates++;
    connection->next = offset + 1;
    count(load, connection, frame->length);
    if (!pingpong->stopping)
        direct ? send_direct(load, connection) : send_echo(load, connection);
}

static void drive(struct load *load, struct pingpong *pingpong, struct result *result)
{
    const struct options *options = load->options;
    uint64_t from = now_ns() + (uint64_t)(options->warmup * SECOND_NS);
    uint64_t until = from + (uint64_t)(options->seconds * SECOND_NS), now, seen = 0, seen_ns = from;
    progress_begin(&load->progress, now_ns(), 0);
    while ((now = now_ns()) < from && load->problems.errors == 0) {
        load_turn(load, 0);
        if (progress_is_due(&load->progress, now))
            progress_running(&load->progress, now, pingpong->deliveries, false);
    }
    pingpong->measuring = true;
    struct cpu_time cpu = cpu_time_of(options->server_pids, options->server_pid_count);
    uint64_t deliveries = pingpong->deliveries, bytes = pingpong->bytes, received = load->received;
    uint64_t measured_from = now_ns();
    for (;;) {
        load_turn(load, 0);
        now = now_ns();
        if (progress_is_due(&load->progress, now))
            progress_running(&load->progress, now, pingpong->deliveries, true);
        if (pingpong->deliveries != seen) {
            seen = pingpong->deliveries;
            seen_ns = now;
        }
        result->stalled = now > seen_ns && now - seen_ns > STALLED_NS;
        if (now >= until || load->problems.errors != 0 || result->stalled)
            break;
    }
    pingpong->measuring = false;
    struct cpu_time end = cpu_time_of(options->server_pids, options->server_pid_count);
    result->seconds = (double)(now - measured_from) / SECOND_NS;
    result->deliveries = pingpong->deliveries - deliveries;
    result->publications = result->deliveries;
    result->bytes = pingpong->bytes - bytes;
    result->received = load->received - received;
    result->server = cpu_time_between(cpu, end);
}

bool run_pingpong(const struct options *options, struct result *result, struct problems *problems)
{
    static const enum role roles[] = {
        [MODE_DIRECT] = ROLE_USER, [MODE_ECHO] = ROLE_ECHO, [MODE_OWN] = ROLE_OWN};
    bool direct = options->mode == MODE_DIRECT;
    struct load load;
    struct pingpong pingpong = {0};
    load_init(&load, options, options->connections);
    for (size_t index = 0; index < load.count; index++) {
        struct connection *connection = &load.connections[index];
        connection->role = roles[options->mode];
        connection->subscribes = !direct && protocol_of(&load, connection)->write_echo == NULL;
    }
    load.on_message = options->mode == MODE_ECHO ? take_echo : take_numbered;
    load.state = &pingpong;
    make_echo(&load);
    uint64_t start = now_ns();
    bool opened = load_open(&load);
    result->connect_seconds = (double)(now_ns() - start) / SECOND_NS;
    if (opened) {
        uint64_t sent = 0, answered = 0;
        for (size_t index = 0; index < load.count; index++, sent++) /* both sides of a pair begin */
            direct ? send_direct(&load, &load.connections[index]) : send_echo(&load, &load.connections[index]);
        drive(&load, &pingpong, result);
        pingpong.stopping = true;
        answered = pingpong.deliveries;
        for (uint64_t until = now_ns() + DRAIN_NS; pingpong.deliveries < answered + sent && now_ns() < until;)
            load_turn(&load, 0);
        load.problems.lost += sent - (pingpong.deliveries - answered);
    }
    name_cipher(result, &load);
    *problems = load.problems;
    keep_latency(result, &load.progress);
    load_close(&load);
    free(pingpong.message);
    free(pingpong.text);
    return opened;
}
