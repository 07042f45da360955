/* The command line of the load generator. */
#ifndef LOAD_OPTIONS_H
#define LOAD_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "protocol.h"
#include "unpack.h"

enum mode { MODE_FANOUT, MODE_LATENCY, MODE_ECHO, MODE_OWN, MODE_DIRECT, MODE_CONNECT, MODE_IDLE, MODE_RECONNECT,
            MODE_OVERLOAD };

enum { MAX_SERVER_PIDS = 64, MAX_PUBLISHERS = 1000 };

struct options {
    enum mode mode;
    const struct protocol *protocol;
    enum compression compression; /* that every connection asks for */
    struct sockaddr_storage address; /* where to connect, without the port; loopback unless it was given */
    const char *host;       /* what the header Host says before the port */
    bool tls;
    bool insecure;          /* with TLS: any certificate of the server will do */
    const char *ca_file;    /* with TLS: whom to trust; NULL: as the machine does */
    uint16_t port;
    uint16_t publish_port;  /* where the publisher connects; `port` unless it was given */
    const char *path;       /* NULL: the protocol's */
    const char *topic;      /* what is subscribed to and published on */
    unsigned topics;        /* idle, connect, reconnect: topics the connections are spread over; 0: no subscription */
    char **tokens;          /* one per connection, used in turn; the user of token i is `user_prefix`<i> */
    const char *token_header; /* that carries it, as it is written before it */
    const char *user_prefix;
    size_t token_count;
    size_t connections;     /* subscribers, echo connections, users (two make a pair), idle connections */
    size_t in_flight;       /* fanout: publications under way at any time */
    size_t message_bytes;   /* of the payload; with rtc of its JSON value, with text of the message */
    char *payload;          /* fanout, latency, with rtc: the JSON value that is published; NULL: letters */
    double seconds;         /* measured, after `warmup`; reconnect: the longest wait for what is missing at the end */
    double warmup;
    double rate;            /* latency, reconnect, overload: publications a second */
    double surge;           /* overload: publications a second in the measured time; `rate` before and after it */
    double after;           /* overload: seconds at `rate` behind the measured time */
    size_t slow;            /* overload: so many of the subscribers read nothing in the measured time */
    unsigned publishers;    /* reconnect: so many of the connections publish in turn; overload: beside them */
    unsigned jitter_ms;     /* reconnect: a lost connection is made again after up to so long */
    unsigned retry_ms;      /* reconnect: and tried again after about so long, a half more or less */
    unsigned progress_ms;   /* how often a line tells of the run; 0: never */
    bool farewell;          /* idle: one message goes to all connections at the end, and must arrive everywhere */
    unsigned opening;       /* connections being opened at any time */
    pid_t server_pids[MAX_SERVER_PIDS]; /* whose CPU time is measured along */
    size_t server_pid_count;
};

/* Reads the command line; on a mistake it says so on stderr and exits with 2. */
void read_options(int argc, char **argv, struct options *options);

const char *mode_name(enum mode mode);

#endif
