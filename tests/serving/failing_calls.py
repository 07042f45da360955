"""System calls on sockets that fail now and then, by a library that is loaded before the C library.

    with failing_calls(every=7) as environment, started(1, settings, environment=environment) as servers:

Of the calls named below every so many-th fails, with one error after the other, before it has done anything. Which
errors a call may have is in its man page: those that say nothing about the connection.
"""

import contextlib
import struct
from collections.abc import Iterator

from serving.preloaded import preloaded

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static int64_t every;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("RTC_TEST_WORDS");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    if (read(file, &every, sizeof every) != sizeof every)
        every = 0;
    close(file);
}

/* Clients come over TCP: what a process says to itself, and its supervisor to it, does not fail. */
static int is_client(int file) {
    int family = 0;
    socklen_t size = sizeof family;
    return getsockopt(file, SOL_SOCKET, SO_DOMAIN, &family, &size) == 0 && family == AF_INET;
}

/* Whether this call fails; with which error, of so many. */
static int fails(unsigned *calls, const int *errors, unsigned count) {
    uint64_t now = ++*calls;
    if (!every || now % (uint64_t) every)
        return 0;
    errno = errors[now / (uint64_t) every % count];
    return 1;
}

#define FAIL(...)                                                                 \
    do {                                                                          \
        static unsigned calls;                                                    \
        static const int errors[] = {__VA_ARGS__};                                \
        if (is_client(file) && fails(&calls, errors, sizeof errors / sizeof *errors)) \
            return -1;                                                            \
    } while (0)

#define REAL(name) ((__typeof__(&name)) dlsym(RTLD_NEXT, #name))

ssize_t recv(int file, void *data, size_t size, int flags) {
    static ssize_t (*real)(int, void *, size_t, int);
    FAIL(EINTR, EAGAIN, ENOMEM, ENOBUFS);
    if (!real)
        real = REAL(recv);
    return real(file, data, size, flags);
}

ssize_t send(int file, const void *data, size_t size, int flags) {
    static ssize_t (*real)(int, const void *, size_t, int);
    FAIL(EINTR, EAGAIN, ENOMEM, ENOBUFS);
    if (!real)
        real = REAL(send);
    return real(file, data, size, flags);
}

ssize_t sendmsg(int file, const struct msghdr *message, int flags) {
    static ssize_t (*real)(int, const struct msghdr *, int);
    FAIL(EINTR, EAGAIN, ENOMEM, ENOBUFS);
    if (!real)
        real = REAL(sendmsg);
    return real(file, message, flags);
}

int accept4(int file, struct sockaddr *address, socklen_t *size, int flags) {
    static int (*real)(int, struct sockaddr *, socklen_t *, int);
    FAIL(EINTR, EAGAIN, ECONNABORTED, ENOMEM, ENOBUFS, EMFILE);
    if (!real)
        real = REAL(accept4);
    return real(file, address, size, flags);
}

int epoll_wait(int file, struct epoll_event *events, int most, int timeout) {
    static int (*real)(int, struct epoll_event *, int, int);
    static unsigned calls;
    static const int interrupted = EINTR;
    if (fails(&calls, &interrupted, 1))
        return -1;
    if (!real)
        real = REAL(epoll_wait);
    return real(file, events, most, timeout);
}
"""


@contextlib.contextmanager
def failing_calls(every: int) -> Iterator[dict[str, str]]:
    """The environment of processes in which they fail."""
    with preloaded(SOURCE) as (environment, memory):
        struct.pack_into("<q", memory, 0, every)
        yield environment
