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
    bool stopping;  /* what arrives is counted and not answered */
    char *message;  /* owned: the payload; with echo it has the connection's sequence number */
    size_t message_length;
    char *text;     /* owned: what the payload is sent in */
};

static void make_echo(struct load *load)
{
    struct pingpong *pingpong = load->state;
    pingpong->message_length = load->options->message_bytes;
    pingpong->message = malloc(pingpong->message_length);
    pingpong->text = malloc(pingpong->message_length + LONGEST_HEAD);
    if (pingpong->message == NULL || pingpong->text == NULL)
        exit(1);
    fill_payload(protocol_of(load, &load->connections[0]), pingpong->message, pingpong->message_length);
}

static void send_echo(struct load *load, struct connection *connection)
{
    struct pingpong *pingpong = load->state;
    const struct protocol *protocol = protocol_of(load, connection);
    size_t length = pingpong->message_length, room = length + LONGEST_HEAD;
    write_sequence(protocol, pingpong->message, connection->next);
    if (protocol->write_echo != NULL) {
        length = protocol->write_echo(pingpong->text, room, pingpong->message, length);
    } else {
        char topic[TOPIC_ROOM];
        write_topic(topic, load, connection);
        length = protocol->write_publish(pingpong->text, room, topic, pingpong->message, length);
    }
    connection_append(connection, pingpong->text, length);
    connection_flush(load, connection);
}

static void send_direct(struct load *load, struct connection *connection)
{
    char head[96];
    int length = snprintf(head, sizeof head, "{\"type\":\"DirectMessage\",\"to\":\"u%zu\",\"payload\":\"",
                          connection->index ^ 1);
    size_t fill = load->options->message_bytes - 2;
    char text[1024];
    if ((size_t)length + fill + 2 > sizeof text)
        fill = sizeof text - (size_t)length - 2;
    memcpy(text, head, (size_t)length);
    memset(text + length, 'x', fill);
    memcpy(text + (size_t)length + fill, "\"}", 2);
    connection_append(connection, text, (size_t)length + fill + 2);
    connection_flush(load, connection);
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
    pingpong->deliveries++;
    pingpong->bytes += frame->length;
    if (!pingpong->stopping)
        send_echo(load, connection);
}

static void take_direct(struct load *load, struct connection *connection, const struct frame *frame)
{
    static const char type[] = "{\"type\":\"DirectMessage\",";
    struct pingpong *pingpong = load->state;
    uint64_t offset = number_after(frame, "\"offset\":", 9);
    if (frame->length < sizeof type || memcmp(frame->payload, type, sizeof type - 1) != 0 || offset == UINT64_MAX) {
        note_error(&load->problems, "unexpected: ", frame->payload, frame->length);
        return;
    }
    if (connection->next == 0)
        connection->next = offset; /* an inbox is older than this run */
    if (offset > connection->next)
        load->problems.gaps += offset - connection->next;
    else if (offset < connection->next)
        load->problems.duplicates++;
    connection->next = offset + 1;
    pingpong->deliveries++;
    pingpong->bytes += frame->length;
    if (!pingpong->stopping)
        send_direct(load, connection);
}

static void drive(struct load *load, struct pingpong *pingpong, struct result *result)
{
    const struct options *options = load->options;
    uint64_t from = now_ns() + (uint64_t)(options->warmup * SECOND_NS);
    uint64_t until = from + (uint64_t)(options->seconds * SECOND_NS), now, seen = 0, seen_ns = from;
    while (now_ns() < from && load->problems.errors == 0)
        load_turn(load, 0);
    struct cpu_time cpu = cpu_time_of(options->server_pids, options->server_pid_count);
    uint64_t deliveries = pingpong->deliveries, bytes = pingpong->bytes, received = load->received;
    uint64_t measured_from = now_ns();
    for (;;) {
        load_turn(load, 0);
        now = now_ns();
        if (pingpong->deliveries != seen) {
            seen = pingpong->deliveries;
            seen_ns = now;
        }
        result->stalled = now > seen_ns && now - seen_ns > STALLED_NS;
        if (now >= until || load->problems.errors != 0 || result->stalled)
            break;
    }
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
    bool direct = options->mode == MODE_DIRECT;
    struct load load;
    struct pingpong pingpong = {0};
    load_init(&load, options, options->connections);
    for (size_t index = 0; index < load.count; index++) {
        struct connection *connection = &load.connections[index];
        connection->role = direct ? ROLE_USER : ROLE_ECHO;
        connection->subscribes = !direct && protocol_of(&load, connection)->write_echo == NULL;
    }
    load.on_message = direct ? take_direct : take_echo;
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
    *problems = load.problems;
    load_close(&load);
    free(pingpong.message);
    free(pingpong.text);
    return opened;
}
