#include "overload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "rtc.h"

enum {
    TURN_MS = 1,
    DUE_DIGITS = 20,
    TIMED_OF = 16,            /* one subscriber of so many times what it gets */
    MOST_WAITING = 64 * 1024, /* bytes of a publisher that its socket has not taken */
    SEND_BUFFER = 64 * 1024,  /* of a publisher's socket: what is in there is late already */
};
static const uint64_t MS_NS = 1000000u;
static const uint64_t STALLED_NS = 60000000000u; /* what a full machine dropped, TCP sends again after up to 26 s */
static const double SECOND_NS = 1e9;

struct overload {
    struct shedding *shedding;
    size_t subscribers;       /* the first connections; the last `slow` of them read nothing meanwhile */
    size_t publishers;        /* the connections behind them */
    uint64_t *pending;        /* owned; of each publisher: sent, not answered */
    uint64_t *due_ns;         /* owned; of each connection that is away: when it tries again */
    size_t away;
    uint64_t due_at_ns;       /* when the next publication is due */
    uint64_t numbered;        /* publications that were due */
    uint64_t last_offset;     /* the highest that anybody was told of */
    uint64_t deliveries;
    uint64_t bytes;
    uint64_t last_arrival_ns;
    uint64_t turn_ns;
    uint64_t random;
    bool measuring;           /* in the phase with the higher rate */
    char *message;            /* owned; room for one publication */
};

static bool is_publisher(const struct overload *overload, const struct connection *connection)
{
    return connection->index >= overload->subscribers;
}

static void know(struct overload *overload, uint64_t offset)
{
    if (offset > overload->last_offset)
        overload->last_offset = offset;
}

static void time_arrival(struct load *load, const struct frame *frame)
{
    static const char key[] = "\"payload\":\"";
    struct overload *overload = load->state;
    const char *end = (const char *)frame->payload + frame->length;
    const char *at = memmem(frame->payload, frame->length, key, sizeof key - 1);
    uint64_t due = 0, now = now_ns();
    if (at == NULL)
        return;
    for (at += sizeof key - 1; at < end && *at >= '0' && *at <= '9'; at++)
        due = due * 10 + (uint64_t)(*at - '0');
    progress_add(&load->progress, now > due ? now - due : 0, overload->measuring);
}

static void take_delivery(struct load *load, struct connection *connection, const struct frame *frame)
{
    struct overload *overload = load->state;
    uint64_t offset = number_after(frame, "\"offset\":", 9);
    if (offset == UINT64_MAX) {
        note_error(&load->problems, "not a publication: ", frame->payload, frame->length);
        return;
    }
    if (offset < connection->next) {
        if (load->problems.gaps != 0)
            load->problems.disorder++;
        else
            load->problems.duplicates++;
        return;
    }
    load->problems.gaps += offset - connection->next;
    connection->next = offset + 1;
    know(overload, offset);
    overload->deliveries++;
    overload->bytes += frame->length;
    overload->last_arrival_ns = overload->turn_ns;
    if (load->progress.every_ns != 0 && connection->index % TIMED_OF == 0
        && connection->index < overload->subscribers - load->options->slow)
        time_arrival(load, frame);
}

/* What is missing must be as many as it says; what it says will follow is not missing. */
static void take_lagged(struct load *load, struct connection *connection, const struct frame *frame)
{
    struct overload *overload = load->state;
    uint64_t missed = number_after(frame, "\"missed\":", 9), offset = number_after(frame, "\"offset\":", 9);
    overload->shedding->lagged++;
    overload->last_arrival_ns = overload->turn_ns;
    if (missed == UINT64_MAX || offset == UINT64_MAX) {
        note_error(&load->problems, "no account: ", frame->payload, frame->length);
        return;
    }
    if (memmem(frame->payload, frame->length, "\"recovered\":true", 16) != NULL) {
        overload->shedding->made_up += missed;
        return;
    }
    uint64_t skipped = offset + 1 - connection->next;
    overload->shedding->told += missed;
    overload->shedding->missing += skipped;
    if (offset + 1 < connection->next || skipped != missed)
        load->problems.gaps += skipped > missed ? skipped - missed : missed - skipped;
    connection->next = offset + 1;
    know(overload, offset);
}

static void take_refusal(struct load *load, const struct frame *frame)
{
    struct overload *overload = load->state;
    struct shedding *shedding = overload->shedding;
    if (memmem(frame->payload, frame->length, "\"code\":\"rate_limited\"", 21) != NULL)
        shedding->rate_limited++;
    else if (memmem(frame->payload, frame->length, "\"code\":\"unavailable\"", 20) != NULL)
        shedding->unavailable++;
    else if (memmem(frame->payload, frame->length, "\"code\":\"backpressure\"", 21) != NULL)
        shedding->backpressure++;
    else
        note_error(&load->problems, "unexpected: ", frame->payload, frame->length);
}

static void take_answer(struct load *load, struct connection *connection, const struct frame *frame)
{
    struct overload *overload = load->state;
    uint64_t *pending = &overload->pending[connection->index - overload->subscribers];
    if (has_type(frame, "Ack")) {
        uint64_t offset = number_after(frame, "\"offset\":", 9);
        overload->shedding->acknowledged++;
        know(overload, offset == UINT64_MAX ? 0 : offset);
    } else if (has_type(frame, "Error")) {
        take_refusal(load, frame);
    } else if (has_type(frame, "Closing")) {
        return;
    } else {
        note_error(&load->problems, "unexpected: ", frame->payload, frame->length);
        return;
    }
    if (*pending != 0)
        --*pending;
}

static void take_message(struct load *load, struct connection *connection, const struct frame *frame)
{
    struct overload *overload = load->state;
    if (is_publisher(overload, connection))
        take_answer(load, connection, frame);
    else if (has_type(frame, "Message"))
        take_delivery(load, connection, frame);
    else if (has_type(frame, "Lagged"))
        take_lagged(load, connection, frame);
    else if (!has_type(frame, "Closing"))
        note_error(&load->problems, "unexpected: ", frame->payload, frame->length);
}

/* A subscriber that comes again begins a new account: the close told it that the old one is over. */
static void take_subscribed(struct load *load, struct connection *connection, const struct frame *frame)
{
    struct overload *overload = load->state;
    (void)frame;
    connection->next = connection->base + 1;
    know(overload, connection->base);
}

static void take_loss(struct load *load, struct connection *connection, const struct loss *loss)
{
    struct overload *overload = load->state;
    struct shedding *shedding = overload->shedding;
    uint64_t wait = 2 * load->options->retry_ms * MS_NS;
    overload->random ^= overload->random << 13;
    overload->random ^= overload->random >> 7;
    overload->random ^= overload->random << 17;
    overload->away += overload->due_ns[connection->index] == 0;
    overload->due_ns[connection->index] = now_ns() + overload->random % wait + 1;
    if (loss->before != STATE_READY) {
        shedding->turned_away++;
        return;
    }
    if (shedding->closed_publishers + shedding->closed_subscribers == 0)
        describe(shedding->why, sizeof shedding->why, loss->why, loss->detail, loss->length);
    if (is_publisher(overload, connection)) {
        uint64_t *pending = &overload->pending[connection->index - overload->subscribers];
        shedding->closed_publishers++;
        shedding->unanswered += *pending;
        *pending = 0;
    } else {
        shedding->closed_subscribers++;
    }
}

static void connect_again(struct load *load)
{
    struct overload *overload = load->state;
    for (size_t index = 0; index < load->count && overload->away != 0; index++) {
        struct connection *connection = &load->connections[index];
        if (overload->due_ns[index] == 0 || overload->due_ns[index] > overload->turn_ns)
            continue;
        overload->due_ns[index] = 0;
        overload->away--;
        if (!load_connect(load, connection))
            take_loss(load, connection, &(struct loss){.why = "cannot connect", .before = STATE_CONNECTING});
    }
}

static void publish(struct load *load, struct connection *connection, uint64_t due_ns)
{
    struct overload *overload = load->state;
    size_t fill = load->options->message_bytes - 2 - DUE_DIGITS;
    int length = sprintf(overload->message, "{\"type\":\"Broadcast\",\"id\":%llu,\"topic\":\"%s\",\"payload\":\"%0*llu",
                         (unsigned long long)overload->numbered, load->options->topic, DUE_DIGITS,
                         (unsigned long long)due_ns);
    memset(overload->message + length, 'a', fill);
    memcpy(overload->message + length + fill, "\"}", 2);
    connection_append(connection, overload->message, (size_t)length + fill + 2);
    overload->pending[connection->index - overload->subscribers]++;
    overload->shedding->sent++;
}

/* All that is due by now, each publisher in turn. */
static void publish_due(struct load *load, double rate)
{
    struct overload *overload = load->state;
    uint64_t step = (uint64_t)(SECOND_NS / rate), before = overload->numbered;
    while (overload->due_at_ns <= overload->turn_ns) {
        struct connection *connection =
            &load->connections[overload->subscribers + overload->numbered % overload->publishers];
        if (connection->state != STATE_READY)
            overload->shedding->away++;
        else if (connection->out.length > MOST_WAITING)
            overload->shedding->held++;
        else
            publish(load, connection, overload->due_at_ns);
        overload->numbered++;
        overload->due_at_ns += step;
    }
    for (size_t index = 0; index < overload->publishers && overload->numbered != before; index++)
        if (load->connections[overload->subscribers + index].state == STATE_READY)
            connection_flush(load, &load->connections[overload->subscribers + index]);
}

static void turn(struct load *load)
{
    struct overload *overload = load->state;
    load_turn(load, TURN_MS);
    overload->turn_ns = now_ns();
    connect_again(load);
    if (progress_is_due(&load->progress, overload->turn_ns))
        progress_running(&load->progress, overload->turn_ns, overload->deliveries, overload->measuring);
}

/* One phase at one rate. */
static void hold(struct load *load, double rate, double seconds)
{
    struct overload *overload = load->state;
    uint64_t until = now_ns() + (uint64_t)(seconds * SECOND_NS);
    overload->due_at_ns = now_ns();
    while (overload->turn_ns < until && load->problems.errors == 0) {
        turn(load);
        publish_due(load, rate);
    }
}

/* Whether the slow subscribers read. */
static void let_read(struct load *load, bool reading)
{
    struct overload *overload = load->state;
    for (size_t index = overload->subscribers - load->options->slow; index < overload->subscribers; index++) {
        struct connection *connection = &load->connections[index];
        struct epoll_event event = {.events = reading ? EPOLLIN : 0u, .data.ptr = connection};
        if (connection->state == STATE_READY)
            epoll_ctl(load->epoll, EPOLL_CTL_MOD, connection->fd, &event);
    }
}

/* The phase with the higher rate, and what it was like. */
static void surge(struct load *load, struct result *result)
{
    struct overload *overload = load->state;
    const struct options *options = load->options;
    struct cpu_time cpu = cpu_time_of(options->server_pids, options->server_pid_count);
    uint64_t deliveries = overload->deliveries, bytes = overload->bytes, received = load->received;
    uint64_t acknowledged = overload->shedding->acknowledged, due = overload->numbered;
    uint64_t start = now_ns();
    overload->measuring = true;
    let_read(load, false);
    hold(load, options->surge, options->seconds);
    let_read(load, true);
    overload->measuring = false;
    result->seconds = (double)(now_ns() - start) / SECOND_NS;
    result->server = cpu_time_between(cpu, cpu_time_of(options->server_pids, options->server_pid_count));
    result->deliveries = overload->deliveries - deliveries;
    result->publications = overload->shedding->acknowledged - acknowledged;
    result->bytes = overload->bytes - bytes;
    result->received = load->received - received;
    result->offered = (double)(overload->numbered - due) / result->seconds;
}

/* Messages that subscribers have not got, nor been told of. */
static uint64_t missing(const struct load *load)
{
    const struct overload *overload = load->state;
    uint64_t sum = 0;
    for (size_t index = 0; index < overload->subscribers; index++)
        if (load->connections[index].next <= overload->last_offset)
            sum += overload->last_offset + 1 - load->connections[index].next;
    return sum;
}

static uint64_t unanswered(const struct overload *overload)
{
    uint64_t sum = 0;
    for (size_t index = 0; index < overload->publishers; index++)
        sum += overload->pending[index];
    return sum;
}

/* What was sent must arrive, or be told of. */
static void drain(struct load *load, struct result *result)
{
    struct overload *overload = load->state;
    overload->last_arrival_ns = overload->turn_ns = now_ns();
    while (load->problems.errors == 0 && (overload->away != 0 || unanswered(overload) != 0 || missing(load) != 0)) {
        if (overload->turn_ns - overload->last_arrival_ns > STALLED_NS) {
            result->stalled = true;
            break;
        }
        turn(load);
    }
    load->problems.lost += missing(load) + unanswered(overload);
}

static void prepare(struct load *load, struct overload *overload)
{
    const struct options *options = load->options;
    overload->subscribers = options->connections;
    overload->publishers = options->publishers;
    overload->random = now_ns() | 1;
    overload->pending = calloc(overload->publishers, sizeof *overload->pending);
    overload->due_ns = calloc(load->count, sizeof *overload->due_ns);
    overload->message = malloc(options->message_bytes + strlen(options->topic) + 128);
    if (overload->pending == NULL || overload->due_ns == NULL || overload->message == NULL)
        exit(1);
    for (size_t index = 0; index < load->count; index++)
        load->connections[index].subscribes = index < overload->subscribers;
    load->on_message = take_message;
    load->on_subscribed = take_subscribed;
    load->state = overload;
}

static void narrow(struct load *load)
{
    const struct overload *overload = load->state;
    int room = SEND_BUFFER;
    for (size_t index = 0; index < overload->publishers; index++)
        setsockopt(load->connections[overload->subscribers + index].fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
}

bool run_overload(const struct options *options, struct result *result, struct problems *problems,
                  struct shedding *shedding)
{
    struct load load;
    struct overload overload = {.shedding = shedding};
    load_init(&load, options, options->connections + options->publishers);
    prepare(&load, &overload);
    uint64_t start = now_ns();
    bool opened = load_open(&load);
    result->connect_seconds = (double)(now_ns() - start) / SECOND_NS;
    load.on_lost = take_loss;
    if (opened) {
        narrow(&load);
        progress_begin(&load.progress, now_ns(), 0);
        hold(&load, options->rate, options->warmup);
        surge(&load, result);
        hold(&load, options->rate, options->after);
        drain(&load, result);
    }
    *problems = load.problems;
    keep_latency(result, &load.progress);
    result->shows_buckets = false;
    load_close(&load);
    free(overload.pending);
    free(overload.due_ns);
    free(overload.message);
    return opened;
}
