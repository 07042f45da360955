/* What a send costs that leaves with others in one system call, beside a `send` of its own.
 *
 * `sends SOCKETS BYTES ROUNDS` connects that many TCP sockets over the loopback, sends BYTES on each of them in every
 * round and in every way, and prints nanoseconds a send for each way. The peers read between the timed parts, so sockets
 * are never full. A round that was interrupted is slow; the low percentiles are of rounds that were not. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#include "ring.h"

enum { LONGEST = 64 * 1024, BACKLOG = 4096, WAYS = 5 };

static const unsigned ways[WAYS] = {0, 8, 64, 256, 1024}; /* sends in a system call of io_uring; 0: plain `send` */
static uint8_t sent_bytes[LONGEST], read_bytes[LONGEST];

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void cut_short(void *owner, int taken)
{
    (void)owner;
    fprintf(stderr, "sends: a socket took only %d bytes\n", taken);
    exit(1);
}

static double now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static void connect_all(int *from, int *to, size_t count)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    if (bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, BACKLOG) != 0)
        fail("sends: listen");
    getsockname(listener, (struct sockaddr *)&address, &size);
    for (size_t index = 0; index < count; index++) {
        to[index] = socket(AF_INET, SOCK_STREAM, 0);
        if (to[index] < 0 || connect(to[index], (struct sockaddr *)&address, size) != 0)
            fail("sends: connect");
        from[index] = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (from[index] < 0 || !ring_add(from[index]))
            fail("sends: accept");
        setsockopt(from[index], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
}

/* Nanoseconds a send. */
static double send_all(const int *from, size_t count, size_t bytes, unsigned way)
{
    double began = now_ns();
    if (way == 0) {
        for (size_t index = 0; index < count; index++)
            if (send(from[index], sent_bytes, bytes, MSG_NOSIGNAL) != (ssize_t)bytes)
                fail("sends: send");
    } else {
        ring_limit(way);
        for (size_t index = 0; index < count; index++)
            ring_send(from[index], sent_bytes, bytes, NULL);
        ring_submit();
    }
    return (now_ns() - began) / (double)count;
}

static void read_all(const int *to, size_t count, size_t bytes)
{
    for (size_t index = 0; index < count; index++)
        for (size_t left = bytes; left != 0;) {
            ssize_t got = recv(to[index], read_bytes, left, 0);
            if (got <= 0)
                fail("sends: recv");
            left -= (size_t)got;
        }
}

static int by_size(const void *left, const void *right)
{
    double difference = *(const double *)left - *(const double *)right;
    return (difference > 0) - (difference < 0);
}

static size_t number(const char *text, size_t most)
{
    size_t value = strtoul(text, NULL, 10);
    if (value == 0 || value > most) {
        fprintf(stderr, "sends: %s is not from 1 to %zu\n", text, most);
        exit(2);
    }
    return value;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fputs("usage: sends SOCKETS BYTES ROUNDS\n", stderr);
        return 2;
    }
    size_t count = number(argv[1], 100000), bytes = number(argv[2], LONGEST), rounds = number(argv[3], 1000000);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (!ring_open(ways[WAYS - 1], cut_short))
        fail("sends: io_uring");
    int *from = calloc(count, sizeof *from), *to = calloc(count, sizeof *to);
    double *taken = calloc(WAYS * rounds, sizeof *taken);
    if (from == NULL || to == NULL || taken == NULL)
        abort();
    connect_all(from, to, count);
    for (size_t round = 0; round < rounds; round++)
        for (size_t turn = 0; turn < WAYS; turn++) {
            size_t way = (round + turn) % WAYS; /* none is always the first */
            taken[way * rounds + round] = send_all(from, count, bytes, ways[way]);
            read_all(to, count, bytes);
        }
    puts("sends a call    5 %   25 %   50 %  (ns a send)");
    for (size_t way = 0; way < WAYS; way++) {
        double *of = taken + way * rounds;
        qsort(of, rounds, sizeof *of, by_size);
        printf("%12u %6.0f %6.0f %6.0f\n", ways[way], of[rounds / 20], of[rounds / 4], of[rounds / 2]);
    }
    return 0;
}
