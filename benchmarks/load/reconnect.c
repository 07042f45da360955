#include "reconnect.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ledger.h"
#include "opening.h"
#include "rtc.h"

enum { TURN_MS = 1, NUMBER_DIGITS = 12, STARTS_PER_TURN = 256 };
static const uint64_t MS_NS = 1000000u;
static const uint64_t REPEAT_NS = 100000000u; /* after a refusal */
static const double SECOND_NS = 1e9;

/* One of the clients, over all its connections. */
struct client {
    struct history *history; /* what it is subscribed to */
    uint64_t offset;         /* of the last message it saw */
    bool away;
    uint64_t due_ns;         /* away, not connecting: when it tries */
    uint64_t told_ns;        /* `Closing` told it when to come back; 0: it did not */
    uint64_t connected_ns;   /* `Connected` came, after the last loss; 0: none */
    uint64_t subscribed_ns;  /* `Subscribed` came, likewise */
};

struct reconnect {
    struct client *clients; /* owned; in the order of the connections */
    struct ledger ledger;
    struct comeback comeback;
    size_t away;
    uint64_t turn_ns;
    uint64_t start_ns;
    uint64_t random;
    bool said_back;
    uint64_t deliveries;
    uint64_t bytes;
    char series[24];        /* begins the idempotency keys of this run */
    char *message;          /* owned; room for one publication */
};

static struct client *client_of(struct load *load, const struct connection *connection)
{
    struct reconnect *reconnect = load->state;
    return &reconnect->clients[connection->index];
}

static size_t topic_of(const struct load *load, const struct connection *connection)
{
    return connection->index % load->options->topics;
}

/* Between 0 and `most` (xorshift64*). */
static uint64_t any_of(struct reconnect *reconnect, uint64_t most)
{
    reconnect->random ^= reconnect->random >> 12;
    reconnect->random ^= reconnect->random << 25;
    reconnect->random ^= reconnect->random >> 27;
    return (reconnect->random * 0x2545f4914f6cdd1du >> 11) % (most + 1);
}

/* The text between `key`, which ends with a quote, and the next quote; NULL when it is not there. */
static const char *text_after(const char *from, const char *end, const char *key, size_t *length)
{
    const char *at = memmem(from, (size_t)(end - from), key, strlen(key));
    if (at == NULL)
        return NULL;
    at += strlen(key);
    const char *quote = memchr(at, '"', (size_t)(end - at));
    *length = quote == NULL ? 0 : (size_t)(quote - at);
    return quote == NULL ? NULL : at;
}

static uint64_t digits(const char *at, const char *end)
{
    uint64_t value = 0;
    for (; at < end && *at >= '0' && *at <= '9'; at++)
        value = value * 10 + (uint64_t)(*at - '0');
    return value;
}

static struct history *history_of(struct load *load, size_t topic, const struct frame *frame)
{
    struct reconnect *reconnect = load->state;
    const char *text = (const char *)frame->payload;
    size_t length;
    const char *epoch = text_after(text, text + frame->length, "\"epoch\":\"", &length);
    return epoch == NULL ? NULL : ledger_history(&reconnect->ledger, topic, epoch, length);
}

static void see(struct load *load, struct connection *connection, uint64_t offset, uint64_t number)
{
    struct reconnect *reconnect = load->state;
    struct client *client = client_of(load, connection);
    reconnect->deliveries++;
    ledger_see(&reconnect->ledger, topic_of(load, connection), client->history, offset, number);
    if (offset <= client->offset) {
        if (load->problems.gaps != 0)
            load->problems.disorder++;
        else
            load->problems.duplicates++;
        return;
    }
    load->problems.gaps += offset - client->offset - 1;
    client->offset = offset;
}

/* The messages of a `Subscribed`, each {"offset":…,"ts":…,"from":…,"payload":"…"}. */
static void see_recovered(struct load *load, struct connection *connection, const struct frame *frame)
{
    struct reconnect *reconnect = load->state;
    const char *at = (const char *)frame->payload, *end = at + frame->length;
    size_t length;
    at = memmem(at, frame->length, "\"messages\":[", 12);
    while (at != NULL && (at = memmem(at, (size_t)(end - at), "\"offset\":", 9)) != NULL) {
        uint64_t offset = digits(at + 9, end);
        const char *payload = text_after(at, end, "\"payload\":\"", &length);
        if (payload == NULL)
            break;
        reconnect->comeback.recovered_messages++;
        see(load, connection, offset, digits(payload, end));
        at = payload + length;
    }
}

static size_t write_subscribe(struct load *load, struct connection *connection, char *to, size_t room)
{
    struct client *client = client_of(load, connection);
    client->connected_ns = now_ns();
    int length = snprintf(to, room, "{\"type\":\"Subscribe\",\"id\":\"s\",\"topic\":\"%s-%zu\"", load->options->topic,
                          topic_of(load, connection));
    if (client->history != NULL)
        length += snprintf(to + length, room - (size_t)length, ",\"recover\":{\"epoch\":\"%s\",\"offset\":%llu}",
                           client->history->epoch, (unsigned long long)client->offset);
    length += snprintf(to + length, room - (size_t)length, "}");
    return (size_t)length;
}

/* It goes on behind `offset` of another history; what it had not seen of its own it will not see. */
static void begin_anew(struct reconnect *reconnect, struct client *client, struct history *history, uint64_t offset)
{
    if (client->history->acknowledged > client->offset)
        reconnect->comeback.unseen += client->history->acknowledged - client->offset;
    client->history = history;
    client->offset = offset;
}

static void take_subscribed(struct load *load, struct connection *connection, const struct frame *frame)
{
    static const char recovered[] = "\"recovered\":true";
    struct reconnect *reconnect = load->state;
    struct client *client = client_of(load, connection);
    struct history *history = history_of(load, topic_of(load, connection), frame);
    if (history == NULL) {
        note_error(&load->problems, "no epoch: ", frame->payload, frame->length);
        return;
    }
    client->subscribed_ns = now_ns();
    if (client->away) {
        client->away = false;
        reconnect->away--;
    }
    if (client->history == NULL) {
        client->history = history;
        client->offset = connection->base;
    } else if (history != client->history || memmem(frame->payload, frame->length, recovered, 16) == NULL) {
        reconnect->comeback.reset++;
        begin_anew(reconnect, client, history, connection->base);
    } else {
        reconnect->comeback.recovered++;
        see_recovered(load, connection, frame);
        if (client->offset != connection->base) { /* it said that nothing is missing */
            load->problems.gaps += connection->base > client->offset ? connection->base - client->offset : 1;
            client->offset = connection->base;
        }
    }
}

static void take_ack(struct load *load, const struct frame *frame)
{
    struct reconnect *reconnect = load->state;
    uint64_t number = number_after(frame, "\"id\":", 5), offset = number_after(frame, "\"offset\":", 9);
    struct history *history = number < reconnect->ledger.published
        ? history_of(load, reconnect->ledger.publications[number].topic, frame)
        : NULL;
    if (history == NULL || offset == UINT64_MAX)
        note_error(&load->problems, "no such publication: ", frame->payload, frame->length);
    else
        ledger_acknowledge(&reconnect->ledger, (size_t)number, history, offset);
}

static void take_lagged(struct load *load, struct connection *connection, const struct frame *frame)
{
    struct reconnect *reconnect = load->state;
    struct history *history = history_of(load, topic_of(load, connection), frame);
    reconnect->comeback.lagged++;
    if (history != NULL && memmem(frame->payload, frame->length, "\"recovered\":true", 16) == NULL)
        begin_anew(reconnect, client_of(load, connection), history, number_after(frame, "\"offset\":", 9));
}

static void take_refusal(struct load *load, const struct frame *frame)
{
    struct reconnect *reconnect = load->state;
    uint64_t number = number_after(frame, "\"id\":", 5);
    if (number >= reconnect->ledger.published) {
        note_error(&load->problems, "unexpected: ", frame->payload, frame->length);
        return;
    }
    reconnect->comeback.refusals++;
    reconnect->ledger.publications[number].again_ns = reconnect->turn_ns + REPEAT_NS;
}

static void take_message(struct load *load, struct connection *connection, const struct frame *frame)
{
    struct reconnect *reconnect = load->state;
    if (has_type(frame, "Message")) {
        size_t length;
        const char *text = (const char *)frame->payload, *end = text + frame->length;
        const char *payload = text_after(text, end, "\"payload\":\"", &length);
        uint64_t offset = number_after(frame, "\"offset\":", 9);
        reconnect->bytes += frame->length;
        if (payload == NULL || offset == UINT64_MAX)
            note_error(&load->problems, "not a publication: ", frame->payload, frame->length);
        else
            see(load, connection, offset, digits(payload, end));
    } else if (has_type(frame, "Ack")) {
        take_ack(load, frame);
    } else if (has_type(frame, "Lagged")) {
        take_lagged(load, connection, frame);
    } else if (has_type(frame, "Error")) {
        take_refusal(load, frame);
    } else if (has_type(frame, "Closing")) {
        uint64_t after_ms = number_after(frame, "\"after_ms\":", 11);
        client_of(load, connection)->told_ns = after_ms == UINT64_MAX ? 0 : reconnect->turn_ns + after_ms * MS_NS;
    } else {
        note_error(&load->problems, "unexpected: ", frame->payload, frame->length);
    }
}

static void take_loss(struct load *load, struct connection *connection, const struct loss *loss)
{
    struct reconnect *reconnect = load->state;
    struct comeback *comeback = &reconnect->comeback;
    struct client *client = client_of(load, connection);
    uint64_t now = now_ns();
    if (client->away) {
        uint64_t retry = load->options->retry_ms * MS_NS;
        client->due_ns = now + retry / 2 + any_of(reconnect, retry);
        if (loss->before == STATE_CONNECTING)
            comeback->refused++;
        else if (comeback->turned_away++ == 0)
            describe(comeback->why, sizeof comeback->why, loss->why, loss->detail, loss->length);
        return;
    }
    client->away = true;
    client->connected_ns = client->subscribed_ns = 0;
    client->due_ns = client->told_ns ? client->told_ns : now + any_of(reconnect, load->options->jitter_ms * MS_NS);
    client->told_ns = 0;
    reconnect->away++;
    comeback->lost++;
    comeback->lost_last_ns = now;
    if (comeback->lost_first_ns == 0)
        comeback->lost_first_ns = now;
    for (size_t number = reconnect->ledger.oldest_open; number < reconnect->ledger.published; number++)
        if (number % load->options->publishers == connection->index)
            reconnect->ledger.publications[number].again_ns = 0;
}

/* Those whose time has come try to connect. */
static void connect_again(struct load *load)
{
    struct reconnect *reconnect = load->state;
    size_t started = 0;
    for (size_t index = 0; index < load->count && reconnect->away != 0 && started < STARTS_PER_TURN; index++) {
        struct connection *connection = &load->connections[index];
        struct client *client = &reconnect->clients[index];
        if (!client->away || connection->state != STATE_CLOSED || client->due_ns > reconnect->turn_ns)
            continue;
        started++;
        if (!load_connect(load, connection))
            take_loss(load, connection, &(struct loss){.why = "cannot connect", .before = STATE_CONNECTING});
    }
}

static void send_publication(struct load *load, struct connection *connection, size_t number)
{
    struct reconnect *reconnect = load->state;
    struct publication *publication = &reconnect->ledger.publications[number];
    size_t fill = load->options->message_bytes - 2;
    int length = sprintf(reconnect->message,
                         "{\"type\":\"Broadcast\",\"id\":%zu,\"topic\":\"%s-%u\",\"idempotency_key\":\"%s-%zu\","
                         "\"payload\":\"",
                         number, load->options->topic, publication->topic, reconnect->series, number);
    memset(reconnect->message + length, 'a', fill);
    length += sprintf(reconnect->message + length, "%0*zu", NUMBER_DIGITS, number);
    reconnect->message[length] = '-';
    length += (int)fill - NUMBER_DIGITS;
    length += sprintf(reconnect->message + length, "\"}");
    publication->again_ns = UINT64_MAX;
    connection_append(connection, reconnect->message, (size_t)length);
}

/* What is due by the schedule, unless `stopping`, and what is not acknowledged on a connection that was lost. */
static void publish(struct load *load, bool stopping)
{
    struct reconnect *reconnect = load->state;
    struct ledger *ledger = &reconnect->ledger;
    double elapsed = (double)(reconnect->turn_ns - reconnect->start_ns) / SECOND_NS;
    while (!stopping && (double)ledger->published <= elapsed * load->options->rate)
        if (ledger_publish(ledger, ledger->published % load->options->topics) == SIZE_MAX)
            break;
    bool sent[MAX_PUBLISHERS] = {false};
    for (size_t number = ledger->oldest_open; number < ledger->published; number++) {
        struct publication *publication = &ledger->publications[number];
        size_t publisher = number % load->options->publishers;
        if (publication->acknowledged || publication->again_ns > reconnect->turn_ns
            || load->connections[publisher].state != STATE_READY)
            continue;
        send_publication(load, &load->connections[publisher], number);
        sent[publisher] = true;
    }
    for (size_t publisher = 0; publisher < load->options->publishers; publisher++)
        if (sent[publisher])
            connection_flush(load, &load->connections[publisher]);
}

static volatile sig_atomic_t cut;

static void ask_to_cut(int number)
{
    (void)number;
    cut = 1;
}

/* All connections at once, by a reset. */
static void cut_all(struct load *load)
{
    cut = 0;
    for (size_t index = 0; index < load->count; index++)
        load_cut(load, &load->connections[index]);
}

static void turn(struct load *load, bool stopping)
{
    struct reconnect *reconnect = load->state;
    struct comeback *comeback = &reconnect->comeback;
    load_turn(load, TURN_MS);
    reconnect->turn_ns = now_ns();
    if (cut)
        cut_all(load);
    connect_again(load);
    publish(load, stopping);
    if (comeback->lost != 0 && reconnect->away == 0 && !reconnect->said_back) {
        reconnect->said_back = true;
        puts("back");
        fflush(stdout);
    }
}

/* Acknowledged messages of their epoch that subscribers have not seen, over all of them. */
static uint64_t missing(const struct reconnect *reconnect, size_t count)
{
    uint64_t sum = 0;
    for (size_t index = 0; index < count; index++) {
        const struct client *client = &reconnect->clients[index];
        if (client->history->acknowledged > client->offset)
            sum += client->history->acknowledged - client->offset;
    }
    return sum;
}

static void settle(struct load *load)
{
    struct reconnect *reconnect = load->state;
    uint64_t until = now_ns() + (uint64_t)(load->options->seconds * SECOND_NS);
    for (; now_ns() < until; turn(load, true))
        if (reconnect->away == 0 && reconnect->ledger.acknowledged == reconnect->ledger.published
            && missing(reconnect, load->count) == 0)
            return;
}

static int by_time(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

/* When half, 99 % and all of those that came back had come to one of the two stages. */
static void summarize(const struct reconnect *reconnect, size_t count, bool subscribed, struct stage *stage)
{
    uint64_t *times = calloc(count, sizeof *times);
    size_t found = 0;
    if (times == NULL)
        exit(1);
    for (size_t index = 0; index < count; index++) {
        const struct client *client = &reconnect->clients[index];
        uint64_t time = subscribed ? client->subscribed_ns : client->connected_ns;
        if (time > reconnect->comeback.lost_first_ns)
            times[found++] = time;
    }
    qsort(times, found, sizeof *times, by_time);
    if (found != 0)
        *stage = (struct stage){times[0], times[found / 2], times[found * 99 / 100], times[found - 1]};
    free(times);
}

static void conclude(struct load *load, struct result *result)
{
    struct reconnect *reconnect = load->state;
    struct comeback *comeback = &reconnect->comeback;
    const struct ledger *ledger = &reconnect->ledger;
    if (comeback->lost != 0) {
        summarize(reconnect, load->count, false, &comeback->connected);
        summarize(reconnect, load->count, true, &comeback->subscribed);
    }
    comeback->never_back = reconnect->away;
    comeback->acknowledged = ledger->acknowledged;
    load->problems.duplicates += ledger->doubled;
    load->problems.disorder += ledger->mixed;
    load->problems.lost += missing(reconnect, load->count) + (ledger->published - ledger->acknowledged);
    result->seconds = (double)(now_ns() - reconnect->start_ns) / SECOND_NS;
    result->deliveries = reconnect->deliveries;
    result->publications = ledger->published;
    result->bytes = reconnect->bytes;
}

bool run_reconnect(const struct options *options, struct result *result, struct problems *problems,
                   struct comeback *comeback)
{
    struct load load;
    struct reconnect reconnect = {.random = now_ns() | 1};
    load_init(&load, options, options->connections);
    ledger_init(&reconnect.ledger, options->topics);
    reconnect.clients = calloc(load.count, sizeof *reconnect.clients);
    reconnect.message = malloc(options->message_bytes + strlen(options->topic) + 256);
    if (reconnect.clients == NULL || reconnect.message == NULL)
        exit(1);
    snprintf(reconnect.series, sizeof reconnect.series, "%llx", (unsigned long long)reconnect.random);
    for (size_t index = 0; index < load.count; index++)
        load.connections[index].subscribes = true;
    load.state = &reconnect;
    load.on_message = take_message;
    load.write_subscribe = write_subscribe;
    load.on_subscribed = take_subscribed;
    uint64_t start = now_ns();
    bool opened = load_open(&load);
    reconnect.start_ns = reconnect.turn_ns = now_ns();
    result->connect_seconds = (double)(reconnect.start_ns - start) / SECOND_NS;
    load.on_lost = take_loss;
    signal(SIGUSR1, ask_to_cut);
    if (opened) {
        puts("ready");
        fflush(stdout);
        while (!input_ended())
            turn(&load, false);
        settle(&load);
        conclude(&load, result);
    }
    name_cipher(result, &load);
    *problems = load.problems;
    *comeback = reconnect.comeback;
    load_close(&load);
    ledger_free(&reconnect.ledger);
    free(reconnect.clients);
    free(reconnect.message);
    return opened;
}
