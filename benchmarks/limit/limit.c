/* The physical limit: what a single thread on Linux can do at most with plain sockets.
 *
 * One epoll, one shared read buffer, a minimal WebSocket handshake and minimal frames. Everything read in one turn of
 * the loop is relayed with one `send` per subscriber. No envelopes, no limits, no history, no checks beyond what keeps
 * it standing: a server that does real work is measured as a share of this.
 *
 * Paths: /subscribe receives every message sent on /publish; /echo gets its own messages back.
 * `limit PORT` prints the port it listens on (PORT 0: a free one) and runs until it is killed. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_BUFFER = 256 * 1024, EVENTS = 1024, IDLE_POLLS = 256, BACKLOG = 4096, LONGEST_HEAD = 8192 };

/* The load generator always sends the sample nonce of RFC 6455 section 1.3, so the answer is a constant. */
static const char accepted[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                               "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

enum role { ROLE_NEW, ROLE_SUBSCRIBER, ROLE_PUBLISHER, ROLE_ECHO };

struct bytes {
    uint8_t *data;
    size_t length;
    size_t room;
};

struct peer {
    int fd;
    enum role role;
    bool waits;        /* epoll reports when it can be written */
    bool dirty;        /* echo: in `dirty_peers` */
    size_t subscribed; /* its place in `subscribers` */
    struct bytes rest; /* read, not a whole frame yet */
    struct bytes out;  /* not taken by the socket yet */
};

static int epoll_fd;
static uint8_t read_buffer[READ_BUFFER];
static struct bytes batch;          /* the publications of this turn, framed */
static struct peer **subscribers;
static size_t subscriber_count, subscriber_room;
static struct peer **dirty_peers;   /* echo peers with something to send */
static size_t dirty_count, dirty_room;

static uint8_t *reserve(struct bytes *bytes, size_t more)
{
    if (bytes->room - bytes->length < more) {
        bytes->room = bytes->room * 2 + more;
        bytes->data = realloc(bytes->data, bytes->room);
        if (bytes->data == NULL)
            abort();
    }
    return bytes->data + bytes->length;
}

static void append(struct bytes *bytes, const void *data, size_t length)
{
    memcpy(reserve(bytes, length), data, length);
    bytes->length += length;
}

static void push(struct peer ***list, size_t *count, size_t *room, struct peer *peer)
{
    if (*count == *room) {
        *room = *room * 2 + 64;
        *list = reallocarray(*list, *room, sizeof **list);
        if (*list == NULL)
            abort();
    }
    (*list)[(*count)++] = peer;
}

static void append_frame(struct bytes *to, uint8_t opcode, const uint8_t *masked, size_t length, const uint8_t *mask)
{
    uint8_t *at = reserve(to, length + 10);
    uint8_t *start = at;
    *at++ = (uint8_t)(0x80 | opcode);
    if (length < 126) {
        *at++ = (uint8_t)length;
    } else if (length <= 0xffff) {
        *at++ = 126;
        *at++ = (uint8_t)(length >> 8);
        *at++ = (uint8_t)length;
    } else {
        *at++ = 127;
        for (int shift = 56; shift >= 0; shift -= 8)
            *at++ = (uint8_t)((uint64_t)length >> shift);
    }
    for (size_t index = 0; index < length; index++)
        at[index] = masked[index] ^ mask[index & 3];
    to->length += (size_t)(at - start) + length;
}

static void watch(struct peer *peer, int operation, bool writing)
{
    struct epoll_event event = {.events = EPOLLIN | (writing ? EPOLLOUT : 0u), .data.ptr = peer};
    epoll_ctl(epoll_fd, operation, peer->fd, &event);
    peer->waits = writing;
}

/* Sends `data`; what the socket does not take is kept with the peer and leaves once it can be written. */
static void send_or_keep(struct peer *peer, const uint8_t *data, size_t length)
{
    if (peer->out.length != 0) {
        append(&peer->out, data, length);
        return;
    }
    ssize_t sent = send(peer->fd, data, length, MSG_NOSIGNAL);
    if (sent == (ssize_t)length || (sent < 0 && errno != EAGAIN))
        return; /* a broken peer is noticed by its next read */
    size_t taken = sent > 0 ? (size_t)sent : 0;
    append(&peer->out, data + taken, length - taken);
    watch(peer, EPOLL_CTL_MOD, true);
}

static void send_kept(struct peer *peer)
{
    ssize_t sent = send(peer->fd, peer->out.data, peer->out.length, MSG_NOSIGNAL);
    if (sent > 0) {
        peer->out.length -= (size_t)sent;
        memmove(peer->out.data, peer->out.data + sent, peer->out.length);
    }
    if (peer->out.length == 0 && peer->waits)
        watch(peer, EPOLL_CTL_MOD, false);
}

static void drop(struct peer *peer)
{
    if (peer->role == ROLE_SUBSCRIBER) {
        subscribers[peer->subscribed] = subscribers[--subscriber_count];
        subscribers[peer->subscribed]->subscribed = peer->subscribed;
    }
    close(peer->fd);
    free(peer->rest.data);
    free(peer->out.data);
    free(peer);
}

/* Answers an upgrade request. Returns the bytes it was, 0 when it is not complete, -1 to drop the peer. */
static long upgrade(struct peer *peer, const uint8_t *data, size_t length)
{
    const uint8_t *end = memmem(data, length, "\r\n\r\n", 4);
    if (end == NULL)
        return length > LONGEST_HEAD ? -1 : 0;
    if (length >= 15 && memcmp(data, "GET /subscribe ", 15) == 0) {
        peer->role = ROLE_SUBSCRIBER;
        peer->subscribed = subscriber_count;
        push(&subscribers, &subscriber_count, &subscriber_room, peer);
    } else if (length >= 13 && memcmp(data, "GET /publish ", 13) == 0) {
        peer->role = ROLE_PUBLISHER;
    } else if (length >= 10 && memcmp(data, "GET /echo ", 10) == 0) {
        peer->role = ROLE_ECHO;
    } else {
        return -1;
    }
    send_or_keep(peer, (const uint8_t *)accepted, sizeof accepted - 1);
    return end + 4 - data;
}

/* Relays the frame that `data` begins with. Returns its size, 0 when it is not complete, -1 to drop the peer. */
static long relay(struct peer *peer, const uint8_t *data, size_t length)
{
    if (length < 6)
        return 0;
    uint64_t size = data[1] & 0x7f;
    size_t head = 2;
    if (size == 126) {
        size = (uint64_t)data[2] << 8 | data[3];
        head = 4;
    } else if (size == 127) {
        if (length < 10)
            return 0;
        size = 0;
        for (int index = 2; index < 10; index++)
            size = size << 8 | data[index];
        head = 10;
    }
    if (size > READ_BUFFER / 2)
        return -1;
    if (length < head + 4 + size)
        return 0;
    uint8_t opcode = data[0] & 0x0f;
    if (opcode == 8)
        return -1;
    if (opcode <= 2 && peer->role == ROLE_PUBLISHER) {
        append_frame(&batch, opcode, data + head + 4, (size_t)size, data + head);
    } else if (opcode <= 2 && peer->role == ROLE_ECHO) {
        if (!peer->dirty)
            push(&dirty_peers, &dirty_count, &dirty_room, peer);
        peer->dirty = true;
        append_frame(&peer->out, opcode, data + head + 4, (size_t)size, data + head);
    }
    return (long)(head + 4 + (size_t)size);
}

/* Reads once and takes every whole frame. Returns false when the peer is to be dropped. */
static bool receive(struct peer *peer)
{
    size_t kept = peer->rest.length, at = 0;
    if (kept != 0)
        memcpy(read_buffer, peer->rest.data, kept);
    ssize_t got = recv(peer->fd, read_buffer + kept, READ_BUFFER - kept, 0);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    size_t length = kept + (size_t)got;
    for (;;) {
        long taken = peer->role == ROLE_NEW ? upgrade(peer, read_buffer + at, length - at)
                                            : relay(peer, read_buffer + at, length - at);
        if (taken < 0)
            return false;
        if (taken == 0)
            break;
        at += (size_t)taken;
    }
    peer->rest.length = 0;
    if (at < length)
        append(&peer->rest, read_buffer + at, length - at);
    return true;
}

static void accept_all(int listener)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct peer *peer = calloc(1, sizeof *peer);
        if (peer == NULL)
            abort();
        peer->fd = fd;
        watch(peer, EPOLL_CTL_ADD, false);
    }
}

/* The end of a turn: one send for each subscriber, and for each echo peer that said something. */
static void flush(void)
{
    if (batch.length != 0) {
        for (size_t index = 0; index < subscriber_count; index++)
            send_or_keep(subscribers[index], batch.data, batch.length);
        batch.length = 0;
    }
    for (size_t index = 0; index < dirty_count; index++) {
        struct peer *peer = dirty_peers[index];
        peer->dirty = false;
        send_kept(peer);
        if (peer->out.length != 0 && !peer->waits)
            watch(peer, EPOLL_CTL_MOD, true);
    }
    dirty_count = 0;
}

static int listen_on(uint16_t port)
{
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, BACKLOG) != 0) {
        perror("limit");
        exit(1);
    }
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%u\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

int main(int argc, char **argv)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_on((uint16_t)(argc > 1 ? atoi(argv[1]) : 0));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event);

    static struct epoll_event events[EVENTS];
    static struct peer *dropped[EVENTS];
    int idle = 0;
    for (;;) {
        /* Polls a bounded number of times before it sleeps, as the server's reactor does. */
        int count = epoll_wait(epoll_fd, events, EVENTS, idle < IDLE_POLLS ? 0 : -1);
        size_t dropped_count = 0;
        idle = count > 0 ? 0 : idle + 1;
        for (int index = 0; index < count; index++) {
            struct peer *peer = events[index].data.ptr;
            if (peer == NULL) {
                accept_all(listener);
                continue;
            }
            if (events[index].events & EPOLLOUT)
                send_kept(peer);
            if (events[index].events & (EPOLLIN | EPOLLERR | EPOLLHUP) && !receive(peer))
                dropped[dropped_count++] = peer;
        }
        flush();
        while (dropped_count != 0) /* after the flush, which still knows them */
            drop(dropped[--dropped_count]);
    }
}
