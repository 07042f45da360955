/* Many WebSocket connections on one epoll: opens them in batches, signs them on, reads and writes frames.
 *
 * A connection is ready once the peer has accepted it: after the upgrade, after what the protocol has for signing on
 * and, when it is to subscribe, after the answer to that. What arrives later goes to `on_message`.
 * Everything is read into one shared buffer; only a frame that is not complete yet is kept with its connection. */
#ifndef LOAD_CONNECTION_H
#define LOAD_CONNECTION_H

#include <netinet/in.h>

#include "options.h"
#include "progress.h"
#include "report.h"
#include "tls.h"
#include "unpack.h"
#include "websocket.h"

enum { SHARED_BUFFER = 1 << 20, EVENTS_PER_TURN = 1024, TOPIC_ROOM = 256 };

enum role { ROLE_SUBSCRIBER, ROLE_PUBLISHER, ROLE_ECHO, ROLE_USER, ROLE_OWN };

enum state {
    STATE_CONNECTING,
    STATE_SECURING, /* the handshake of TLS */
    STATE_UPGRADING,
    STATE_SIGNING_ON,
    STATE_SUBSCRIBING,
    STATE_READY,
    STATE_CLOSED,
};

struct bytes {
    uint8_t *data; /* owned */
    size_t length;
    size_t room;
};

struct connection {
    int fd;
    enum role role;
    enum state state;
    size_t index;     /* among all connections; its user is `u<index>` when there are enough tokens */
    enum opcode opcode; /* of its messages */
    uint32_t mask;    /* of its frames */
    bool subscribes;
    bool waits;       /* epoll reports when it can be written */
    uint64_t base;    /* rtc: the topic's offset when it subscribed */
    uint64_t packed;  /* compressed frames that it got */
    uint64_t sent_ns; /* when its last message was sent; only where a run says its progress */
    uint64_t next;    /* the sequence number it must see next; the modes count it */
    struct tls_peer *tls; /* owned; NULL without TLS and while it is closed */
    struct bytes rest; /* received, not a complete frame yet */
    struct bytes stream; /* of frames, not a complete piece of the protocol yet */
    struct bytes out;  /* not sent yet */
};

/* Why a connection is lost, and what state it was in. */
struct loss {
    const char *why;
    const void *detail; /* or NULL */
    size_t length;
    enum state before;
};

struct load {
    const struct options *options;
    int epoll;
    struct connection *connections; /* owned */
    size_t count;
    size_t ready;   /* in STATE_READY */
    size_t closed;  /* lost since they were opened */
    uint64_t received; /* bytes, with the frames' headers; with TLS what they were inside of it */
    uint64_t records;  /* of TLS, that they came in */
    const char *cipher; /* of the last connection whose handshake was done, or NULL */
    struct problems problems;
    struct tls *tls; /* owned; NULL without TLS */
    struct progress progress;
    uint8_t *buffer; /* owned; SHARED_BUFFER bytes */
    struct unpacker *unpacker; /* owned; NULL without compression */
    /* A data message for a ready connection: its payload (rtc: the envelope). `frame` is valid during the call. */
    void (*on_message)(struct load *load, struct connection *connection, const struct frame *frame);
    /* Of a mode whose connections come back; otherwise NULL, and a lost connection is an error. A lost connection may
     * be connected again, but not from here. */
    void (*on_lost)(struct load *load, struct connection *connection, const struct loss *loss);
    /* Or NULL: writes what a connection subscribes with and returns its length. */
    size_t (*write_subscribe)(struct load *load, struct connection *connection, char *to, size_t room);
    /* Or NULL: the answer to it; the connection is ready. */
    void (*on_subscribed)(struct load *load, struct connection *connection, const struct frame *frame);
    void *state; /* of the mode */
};

/* Prepares `count` connections without opening them. Exits with 1 when there is no memory. */
void load_init(struct load *load, const struct options *options, size_t count);

/* Opens all connections, at most `options->opening` at a time, and returns once all are ready. Each connection's role
 * and `subscribes` were set before. Returns false, with the reason in `problems`, when one of them fails. */
bool load_open(struct load *load);

/* Connects a closed connection. Returns false, with errno, when the system refuses; the connection stays closed. */
bool load_connect(struct load *load, struct connection *connection);

/* Resets an open connection, which is lost then. */
void load_cut(struct load *load, struct connection *connection);

/* One turn: whatever can be read is read and handed to `on_message`. `timeout_ms` 0 polls. */
void load_turn(struct load *load, int timeout_ms);

/* Adds a frame to what the connection sends; `connection_flush` sends it. */
void connection_append(struct connection *connection, const void *payload, size_t length);

/* Sends what is waiting; what the socket does not take now leaves when it can. */
void connection_flush(struct load *load, struct connection *connection);

/* Tells the result of the cipher of TLS; it outlives the load. */
void name_cipher(struct result *result, const struct load *load);

/* Resets every connection, so that no port waits in TIME_WAIT for the next run, and frees everything. */
void load_close(struct load *load);

/* Makes room for `more` bytes behind those in `bytes`. Exits with 1 when there is no memory. */
void bytes_reserve(struct bytes *bytes, size_t more);

/* What the connection speaks: echo endpoints know no rtc.v1, whoever serves them. */
const struct protocol *protocol_of(const struct load *load, const struct connection *connection);

/* The topic that the connection subscribes to, into TOPIC_ROOM bytes: its own when it gets back what it says. */
void write_topic(char *to, const struct load *load, const struct connection *connection);

#endif
