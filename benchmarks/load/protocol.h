/* What the servers speak inside WebSocket messages: one table of functions for each, bytes in and bytes out.
 *
 * Rules: no socket, no clock, no allocation here. A protocol writes what a client says and reads what a server says,
 * one piece at a time; connection.c drives them:
 *
 *     upgrade -> [WELCOME -> write_sign_on ->] ACCEPTED -> [write_subscribe -> ACCEPTED ->] ready
 *
 * A payload is as long as the command line says and carries a number of SEQUENCE_DIGITS digits, by which the modes
 * prove that nothing was lost, doubled or reordered; with rtc.v1 the offset that the server gave is that number. */
#ifndef LOAD_PROTOCOL_H
#define LOAD_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "websocket.h"

enum { SEQUENCE_DIGITS = 20 };

enum kind {
    KIND_INCOMPLETE,   /* more bytes are needed */
    KIND_WELCOME,      /* the server is ready for the client's sign-on; later it means nothing */
    KIND_ACCEPTED,     /* what was asked for last is done: signed on, or subscribed */
    KIND_MESSAGE,      /* a message; with rtc.v1 any other envelope, which the modes look into */
    KIND_PING,         /* wants `pong` */
    KIND_ACKNOWLEDGED, /* a publication was taken; nothing follows from it */
    KIND_REFUSED,      /* an error, or nothing that this server may say */
};

struct inbound {
    enum kind kind;
    const uint8_t *payload; /* of a message: into the bytes that were read */
    size_t length;          /* of the payload, bytes */
    size_t size;            /* of all that was read for it, bytes */
};

struct protocol {
    const char *name;
    const char *path;        /* NULL: /subscribe, /publish or /echo by role */
    const char *subprotocol; /* or NULL */
    enum opcode opcode;      /* of what the client sends */
    bool token_in_request;   /* the token is a header of the upgrade; otherwise write_sign_on gets it */
    bool is_numbered;        /* messages have offsets from the server; otherwise the number is in the payload */
    bool is_quoted;          /* the payload is a JSON string: it has its quotes, and digits and letters between */
    const char *pong;        /* what a PING is answered with, or NULL */

    /* Each writes into `to` and returns the length, or 0 when there is not enough room. */

    /* NULL: a client is signed on after the upgrade. `token` may be NULL. */
    size_t (*write_sign_on)(char *to, size_t room, const char *token);
    bool begins; /* the client says write_sign_on at once; otherwise it waits for a WELCOME */
    /* NULL: whoever connects to the path is subscribed. */
    size_t (*write_subscribe)(char *to, size_t room, const char *topic);
    size_t (*write_publish)(char *to, size_t room, const char *topic, const char *payload, size_t length);
    /* What the server sends back to the same client. NULL: there is no such thing, and a client gets back what it
     * publishes on a topic of its own. */
    size_t (*write_echo)(char *to, size_t room, const char *payload, size_t length);

    /* Reads the first piece of `data`, of at least one byte. What is incomplete is read again when more has come. */
    struct inbound (*read)(const uint8_t *data, size_t length);
};

extern const struct protocol protocol_rtc, protocol_text, protocol_nats, protocol_centrifugo, protocol_socketio;

/* The protocol of that name, or NULL. */
const struct protocol *protocol_named(const char *name);

/* Fills a payload of `length` bytes, at least SEQUENCE_DIGITS + 2, with letters; its number is 0. */
void fill_payload(const struct protocol *protocol, char *payload, size_t length);

/* Writes the number into a payload. */
void write_sequence(const struct protocol *protocol, char *payload, uint64_t sequence);

/* The number in a payload; UINT64_MAX when there is none. */
uint64_t read_sequence(const struct protocol *protocol, const uint8_t *payload, size_t length);

/* Whether the bytes begin with that text. */
bool starts_with(const uint8_t *data, size_t length, const char *text);

/* Puts a text together; 0 when it does not fit. */
__attribute__((format(printf, 3, 4))) size_t write_text(char *to, size_t room, const char *format, ...);

/* `kind` for all of `data`. */
struct inbound whole(enum kind kind, const uint8_t *data, size_t length);

#endif
