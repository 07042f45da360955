#include "connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rtc.h"

enum {
    /* A loopback address has some 28,000 ephemeral ports. Spread over many source addresses, connections that are made
     * again seldom get a port whose last connection is in TIME_WAIT: with a few addresses, a third of them would. */
    CONNECTIONS_PER_ADDRESS = 500,
    OPENING_TIMEOUT_NS_PER_CONNECTION = 20 * 1000 * 1000,
    LONGEST_REQUEST = 8192,
    LONGEST_PROBLEM = 256,
};

static void out_of_memory(void)
{
    fputs("load: no memory\n", stderr);
    exit(1);
}

void bytes_reserve(struct bytes *bytes, size_t more)
{
    if (bytes->room - bytes->length >= more)
        return;
    size_t room = bytes->length + more + bytes->room;
    uint8_t *grown = realloc(bytes->data, room);
    if (grown == NULL)
        out_of_memory();
    bytes->data = grown;
    bytes->room = room;
}

static void bytes_append(struct bytes *bytes, const void *data, size_t length)
{
    bytes_reserve(bytes, length);
    memcpy(bytes->data + bytes->length, data, length);
    bytes->length += length;
}

static struct tls *open_tls(const struct options *options)
{
    char problem[LONGEST_PROBLEM];
    struct tls_wanted wanted = {.name = options->host, .ca_file = options->ca_file, .insecure = options->insecure};
    struct tls *tls = tls_new(&wanted, problem, sizeof problem);
    if (tls == NULL) {
        fprintf(stderr, "load: %s\n", problem);
        exit(1);
    }
    return tls;
}

void load_init(struct load *load, const struct options *options, size_t count)
{
    *load = (struct load){.options = options, .count = count};
    load->epoll = epoll_create1(EPOLL_CLOEXEC);
    load->connections = calloc(count, sizeof *load->connections);
    load->buffer = malloc(SHARED_BUFFER);
    if (options->tls)
        load->tls = open_tls(options);
    if (options->compression != COMPRESSION_NONE)
        load->unpacker = unpacker_new(options->compression);
    progress_init(&load->progress, options->progress_ms);
    if (load->epoll < 0 || load->connections == NULL || load->buffer == NULL)
        out_of_memory();
    for (size_t index = 0; index < count; index++) {
        struct connection *connection = &load->connections[index];
        connection->fd = -1;
        connection->index = index;
        connection->state = STATE_CLOSED;
        connection->opcode = options->protocol->opcode;
        connection->mask = 0x9e3779b9u * (uint32_t)(index + 1) | 0x01010101u;
    }
}

static void watch(struct load *load, struct connection *connection, int operation, bool writing)
{
    struct epoll_event event = {.events = EPOLLIN | (writing ? EPOLLOUT : 0u), .data.ptr = connection};
    epoll_ctl(load->epoll, operation, connection->fd, &event);
    connection->waits = writing;
}

static void release(const struct load *load, struct connection *connection)
{
    if (connection->tls != NULL)
        tls_end(load->tls, connection->tls);
    connection->tls = NULL;
}

static void lose(struct load *load, struct connection *connection, const char *why, const void *detail, size_t length)
{
    if (connection->state == STATE_CLOSED)
        return;
    struct loss loss = {why, detail, length, connection->state};
    if (connection->state == STATE_READY)
        load->ready--;
    connection->state = STATE_CLOSED;
    release(load, connection);
    close(connection->fd);
    connection->fd = -1;
    connection->rest.length = connection->out.length = 0;
    load->closed++;
    if (load->on_lost != NULL)
        load->on_lost(load, connection, &loss);
    else
        note_error(&load->problems, why, detail, length);
}

static void reset_on_close(const struct connection *connection)
{
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
}

void load_cut(struct load *load, struct connection *connection)
{
    if (connection->state == STATE_CLOSED)
        return;
    reset_on_close(connection);
    lose(load, connection, "cut", NULL, 0);
}

/* For a fault of TLS. */
static void lose_secured(struct load *load, struct connection *connection)
{
    char why[LONGEST_PROBLEM];
    tls_describe(load->tls, connection->tls, why, sizeof why);
    lose(load, connection, why, NULL, 0);
}

static const char *path_of(const struct load *load, const struct connection *connection)
{
    static const char *const paths[] = {"/subscribe", "/publish", "/echo", "/echo", "/echo"};
    if (load->options->path != NULL)
        return load->options->path;
    return load->options->protocol->path != NULL ? load->options->protocol->path : paths[connection->role];
}

static uint16_t port_of(const struct load *load, const struct connection *connection)
{
    return connection->role == ROLE_PUBLISHER ? load->options->publish_port : load->options->port;
}

static const char *token_of(const struct load *load, const struct connection *connection)
{
    const struct options *options = load->options;
    return options->token_count ? options->tokens[connection->index % options->token_count] : NULL;
}

/* Gives a connection to a loopback address one of many source addresses. */
static bool bind_source(const struct connection *connection, const struct sockaddr_storage *to)
{
    enum { LOOPBACK_NET = 127 };
    const struct sockaddr_in *four = (const struct sockaddr_in *)to;
    if (to->ss_family != AF_INET || ntohl(four->sin_addr.s_addr) >> 24 != LOOPBACK_NET)
        return true;
    int on = 1;
    setsockopt(connection->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    uint32_t source = INADDR_LOOPBACK + 1 + (uint32_t)(connection->index / CONNECTIONS_PER_ADDRESS);
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(source)};
    return bind(connection->fd, (struct sockaddr *)&from, sizeof from) == 0;
}

static bool start_connecting(struct load *load, struct connection *connection)
{
    struct sockaddr_storage to = load->options->address;
    bool is_six = to.ss_family == AF_INET6;
    connection->fd = socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connection->fd < 0)
        return false;
    connection->stream.length = 0;
    int on = 1;
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connection->state = STATE_CONNECTING;
    if (!bind_source(connection, &to))
        return false;
    if (is_six)
        ((struct sockaddr_in6 *)&to)->sin6_port = htons(port_of(load, connection));
    else
        ((struct sockaddr_in *)&to)->sin_port = htons(port_of(load, connection));
    socklen_t size = is_six ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    if (connect(connection->fd, (struct sockaddr *)&to, size) != 0 && errno != EINPROGRESS)
        return false;
    watch(load, connection, EPOLL_CTL_ADD, true);
    return true;
}

bool load_connect(struct load *load, struct connection *connection)
{
    if (start_connecting(load, connection))
        return true;
    int problem = errno;
    if (connection->fd >= 0)
        close(connection->fd);
    connection->fd = -1;
    connection->state = STATE_CLOSED;
    errno = problem;
    return false;
}

static void send_request(struct load *load, struct connection *connection)
{
    const struct protocol *protocol = load->options->protocol;
    enum compression compression = load->options->compression;
    char host[300], subprotocol[64], request[LONGEST_REQUEST];
    snprintf(host, sizeof host, "%s:%u", load->options->host, port_of(load, connection));
    struct request wanted = {.host = host, .path = path_of(load, connection), .subprotocol = protocol->subprotocol,
                             .extensions = compression_extension(compression),
                             .token_header = load->options->token_header,
                             .token = protocol->token_in_request ? token_of(load, connection) : NULL};
    if (compression != COMPRESSION_NONE && wanted.extensions == NULL) {
        snprintf(subprotocol, sizeof subprotocol, "%s+%s", protocol->subprotocol, compression_name(compression));
        wanted.subprotocol = subprotocol;
    }
    int length = write_request(request, sizeof request, &wanted);
    if (length < 0) {
        lose(load, connection, "the token is too long", NULL, 0);
        return;
    }
    connection->state = STATE_UPGRADING;
    bytes_append(&connection->out, request, (size_t)length);
    connection_flush(load, connection);
}

/* Goes on with the handshake, and asks for the upgrade when it is done. */
static void secure(struct load *load, struct connection *connection)
{
    bool writing = false;
    if (connection->tls == NULL)
        connection->tls = tls_begin(load->tls, connection->fd);
    connection->state = STATE_SECURING;
    int outcome = tls_handshake(load->tls, connection->tls, &writing);
    if (outcome > 0) {
        load->cipher = tls_cipher(load->tls, connection->tls);
        send_request(load, connection);
    } else if (outcome < 0) {
        lose_secured(load, connection);
    } else if (writing != connection->waits) {
        watch(load, connection, EPOLL_CTL_MOD, writing);
    }
}

static void become_ready(struct load *load, struct connection *connection)
{
    connection->state = STATE_READY;
    load->ready++;
}

const struct protocol *protocol_of(const struct load *load, const struct connection *connection)
{
    const struct protocol *protocol = load->options->protocol;
    return connection->role == ROLE_ECHO && protocol == &protocol_rtc ? &protocol_text : protocol;
}

void write_topic(char *to, const struct load *load, const struct connection *connection)
{
    const struct options *options = load->options;
    if (connection->role == ROLE_ECHO || connection->role == ROLE_OWN)
        snprintf(to, TOPIC_ROOM, "%s-%zu", options->topic, connection->index);
    else if (options->topics > 1)
        snprintf(to, TOPIC_ROOM, "%s-%zu", options->topic, connection->index % options->topics);
    else
        snprintf(to, TOPIC_ROOM, "%s", options->topic);
}

static void sign_on(struct load *load, struct connection *connection)
{
    char text[LONGEST_REQUEST];
    size_t length = protocol_of(load, connection)->write_sign_on(text, sizeof text, token_of(load, connection));
    if (length != 0) {
        connection_append(connection, text, length);
        connection_flush(load, connection);
    }
}

static void subscribe(struct load *load, struct connection *connection)
{
    char topic[TOPIC_ROOM], text[2 * TOPIC_ROOM];
    size_t length;
    if (load->write_subscribe != NULL) {
        length = load->write_subscribe(load, connection, text, sizeof text);
    } else {
        write_topic(topic, load, connection);
        length = protocol_of(load, connection)->write_subscribe(text, sizeof text, topic);
    }
    connection->state = STATE_SUBSCRIBING;
    connection_append(connection, text, length);
    connection_flush(load, connection);
}

static void after_upgrade(struct load *load, struct connection *connection)
{
    const struct protocol *protocol = protocol_of(load, connection);
    if (protocol->write_sign_on == NULL) {
        become_ready(load, connection);
        return;
    }
    connection->state = STATE_SIGNING_ON;
    if (protocol->begins)
        sign_on(load, connection);
}

static void after_acceptance(struct load *load, struct connection *connection, const struct frame *answer)
{
    if (connection->state == STATE_SIGNING_ON && connection->subscribes) {
        subscribe(load, connection);
        return;
    }
    bool subscribed = connection->state == STATE_SUBSCRIBING;
    if (subscribed)
        connection->base = number_after(answer, "\"offset\":", 9);
    become_ready(load, connection);
    if (subscribed && load->on_subscribed != NULL)
        load->on_subscribed(load, connection, answer);
}

static void take_piece(struct load *load, struct connection *connection, const struct inbound *piece)
{
    const char *pong = protocol_of(load, connection)->pong;
    struct frame frame = {connection->opcode, false, piece->payload, piece->length, piece->size};
    switch (piece->kind) {
    case KIND_INCOMPLETE:
    case KIND_ACKNOWLEDGED: return;
    case KIND_WELCOME:
        if (connection->state == STATE_SIGNING_ON)
            sign_on(load, connection);
        return;
    case KIND_PING:
        connection_append(connection, pong, strlen(pong));
        connection_flush(load, connection);
        return;
    case KIND_ACCEPTED:
        if (connection->state != STATE_READY) {
            after_acceptance(load, connection, &frame);
            return;
        }
        break;
    case KIND_MESSAGE:
    case KIND_REFUSED: break;
    }
    if (connection->state == STATE_READY)
        load->on_message(load, connection, &frame);
    else
        lose(load, connection, "instead of being accepted: ", frame.payload, frame.length);
}

/* Takes as many pieces of the protocol as `data` holds and returns how many bytes they were. */
static size_t take_pieces(struct load *load, struct connection *connection, const uint8_t *data, size_t length)
{
    const struct protocol *protocol = protocol_of(load, connection);
    size_t at = 0;
    while (at < length && connection->state != STATE_CLOSED) {
        struct inbound piece = protocol->read(data + at, length - at);
        if (piece.kind == KIND_INCOMPLETE)
            break;
        take_piece(load, connection, &piece);
        at += piece.size;
    }
    return at;
}

static void take_data(struct load *load, struct connection *connection, const struct frame *frame)
{
    struct bytes *stream = &connection->stream;
    if (stream->length != 0) {
        bytes_append(stream, frame->payload, frame->length);
        size_t used = take_pieces(load, connection, stream->data, stream->length);
        stream->length -= used;
        memmove(stream->data, stream->data + used, stream->length);
        return;
    }
    size_t used = take_pieces(load, connection, frame->payload, frame->length);
    if (used < frame->length && connection->state != STATE_CLOSED)
        bytes_append(stream, frame->payload + used, frame->length - used);
}

static void take_frame(struct load *load, struct connection *connection, const struct frame *frame)
{
    if (frame->opcode == OPCODE_PING) {
        bytes_reserve(&connection->out, frame->length + MAX_FRAME_HEADER);
        connection->out.length += write_frame(connection->out.data + connection->out.length, OPCODE_PONG,
                                              frame->payload, frame->length, connection->mask);
        connection_flush(load, connection);
        return;
    }
    if (frame->opcode == OPCODE_PONG)
        return;
    if (frame->opcode == OPCODE_CLOSE) {
        char why[64];
        int code = frame->length >= 2 ? frame->payload[0] << 8 | frame->payload[1] : 1005;
        snprintf(why, sizeof why, "closed with %d ", code);
        lose(load, connection, why, frame->payload + 2, frame->length > 2 ? frame->length - 2 : 0);
        return;
    }
    struct frame data = *frame;
    if (is_packed(load->options->compression, frame)) {
        if (!unpack(load->unpacker, connection->packed++, &data)) {
            lose(load, connection, "no message of the form that was asked for", NULL, 0);
            return;
        }
    } else if (frame->deflated) {
        lose(load, connection, "deflated, which was not asked for", NULL, 0);
        return;
    }
    take_data(load, connection, &data);
}

/* Reads as many frames as `data` holds and returns how many bytes they were. */
static size_t take(struct load *load, struct connection *connection, const uint8_t *data, size_t length)
{
    size_t at = 0;
    if (connection->state == STATE_UPGRADING) {
        long head = read_response((const char *)data, length);
        if (head < 0)
            lose(load, connection, "upgrade refused: ", data, length);
        if (head <= 0)
            return 0;
        at = (size_t)head;
        after_upgrade(load, connection);
    }
    struct frame frame;
    while (connection->state != STATE_CLOSED) {
        int found = read_frame(data + at, length - at, &frame);
        if (found < 0)
            lose(load, connection, "not a frame a server may send", NULL, 0);
        if (found <= 0)
            break;
        take_frame(load, connection, &frame);
        at += frame.size;
    }
    return at;
}

static ssize_t read_some(struct load *load, struct connection *connection, uint8_t *data, size_t room)
{
    if (connection->tls == NULL)
        return recv(connection->fd, data, room, 0);
    size_t records = 0;
    ssize_t got = tls_receive(load->tls, connection->tls, data, room, &records);
    load->records += records;
    return got;
}

static ssize_t write_some(struct load *load, struct connection *connection, const struct bytes *out)
{
    if (connection->tls == NULL)
        return send(connection->fd, out->data, out->length, MSG_NOSIGNAL);
    return tls_send(load->tls, connection->tls, out->data, out->length);
}

static void lose_failed(struct load *load, struct connection *connection)
{
    if (connection->tls != NULL && errno == EPROTO)
        lose_secured(load, connection);
    else
        lose(load, connection, strerror(errno), NULL, 0);
}

/* Reads once. Whether there may be more that epoll does not tell of, because it is inside the library. */
static bool receive(struct load *load, struct connection *connection)
{
    struct bytes *rest = &connection->rest;
    size_t kept = rest->length;
    if (kept > SHARED_BUFFER / 2) {
        lose(load, connection, "a frame is too long", NULL, 0);
        return false;
    }
    if (kept != 0)
        memcpy(load->buffer, rest->data, kept);
    ssize_t got = read_some(load, connection, load->buffer + kept, SHARED_BUFFER - kept);
    if (got <= 0) {
        if (got == 0)
            lose(load, connection, "the server closed", NULL, 0);
        else if (errno != EAGAIN && errno != EINTR)
            lose_failed(load, connection);
        return false;
    }
    load->received += (size_t)got;
    size_t length = kept + (size_t)got;
    rest->length = 0;
    size_t used = take(load, connection, load->buffer, length);
    if (connection->state != STATE_CLOSED && used < length)
        bytes_append(rest, load->buffer + used, length - used);
    return connection->tls != NULL && SHARED_BUFFER - length < TLS_RECORD;
}

/* The socket is connected. */
static void begin(struct load *load, struct connection *connection)
{
    if (load->tls != NULL)
        secure(load, connection);
    else
        send_request(load, connection);
}

static void take_input(struct load *load, struct connection *connection)
{
    if (connection->state == STATE_SECURING)
        secure(load, connection);
    else
        while (receive(load, connection) && connection->state != STATE_CLOSED)
            ;
}

void load_turn(struct load *load, int timeout_ms)
{
    struct epoll_event events[EVENTS_PER_TURN];
    int count = epoll_wait(load->epoll, events, EVENTS_PER_TURN, timeout_ms);
    for (int index = 0; index < count; index++) {
        struct connection *connection = events[index].data.ptr;
        if (connection->state == STATE_CLOSED)
            continue;
        if (events[index].events & EPOLLOUT) {
            if (connection->state == STATE_CONNECTING && !(events[index].events & (EPOLLERR | EPOLLHUP)))
                begin(load, connection);
            else if (connection->state == STATE_SECURING)
                secure(load, connection);
            else
                connection_flush(load, connection);
        }
        if (connection->state != STATE_CLOSED && events[index].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
            take_input(load, connection);
    }
}

bool load_open(struct load *load)
{
    uint64_t deadline = now_ns() + 10000000000u + load->count * (uint64_t)OPENING_TIMEOUT_NS_PER_CONNECTION;
    size_t started = 0;
    while (load->ready < load->count && load->problems.errors == 0) {
        while (started < load->count && started - load->ready < load->options->opening) {
            if (!start_connecting(load, &load->connections[started])) {
                note_error(&load->problems, "cannot connect: ", strerror(errno), strlen(strerror(errno)));
                return false;
            }
            started++;
        }
        load_turn(load, 0);
        uint64_t now = now_ns();
        if (progress_is_due(&load->progress, now))
            progress_opening(&load->progress, now, load->ready, load->count);
        if (now > deadline) {
            note_error(&load->problems, "opening the connections took too long", NULL, 0);
            return false;
        }
    }
    return load->problems.errors == 0;
}

void connection_append(struct connection *connection, const void *payload, size_t length)
{
    bytes_reserve(&connection->out, length + MAX_FRAME_HEADER);
    connection->out.length += write_frame(connection->out.data + connection->out.length, connection->opcode, payload,
                                          length, connection->mask);
}

void connection_flush(struct load *load, struct connection *connection)
{
    struct bytes *out = &connection->out;
    if (connection->state == STATE_CLOSED)
        return;
    if (out->length != 0) {
        ssize_t sent = write_some(load, connection, out);
        if (sent < 0 && errno != EAGAIN && errno != EINTR) {
            lose_failed(load, connection);
            return;
        }
        if (sent > 0) {
            out->length -= (size_t)sent;
            memmove(out->data, out->data + sent, out->length);
        }
    }
    if ((out->length != 0) != connection->waits)
        watch(load, connection, EPOLL_CTL_MOD, out->length != 0);
}

void name_cipher(struct result *result, const struct load *load)
{
    if (load->cipher != NULL)
        snprintf(result->cipher, sizeof result->cipher, "%s", load->cipher);
}

void load_close(struct load *load)
{
    for (size_t index = 0; index < load->count; index++) {
        struct connection *connection = &load->connections[index];
        release(load, connection);
        if (connection->fd >= 0) {
            reset_on_close(connection);
            close(connection->fd);
        }
        free(connection->rest.data);
        free(connection->stream.data);
        free(connection->out.data);
    }
    close(load->epoll);
    progress_free(&load->progress);
    free(load->connections);
    free(load->buffer);
    if (load->unpacker != NULL)
        unpacker_free(load->unpacker);
    if (load->tls != NULL)
        tls_free(load->tls);
}
