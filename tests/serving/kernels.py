"""A kernel that refuses now and then what it mostly does, for the servers that are started with its `environment`.

    with unwilling_kernel() as kernel, started(1, settings, environment=kernel.environment) as servers:
        kernel.refuse(200)          # of a thousand calls
        ...
        assert kernel.refused > 100

A send is refused (ENOBUFS), interrupted (EINTR) or takes a part only, a receive is interrupted or gives a part only,
and an accept is refused (EMFILE, ENOBUFS, ECONNABORTED). That holds for the sockets of clients and of the workers among
themselves, not for pairs without a name: those are a supervisor's to its workers, and asyncio's to itself, and asyncio
ends a connection on any such error. `forget_names` lets no name be resolved, as when the name servers are away. Which
call meets what is drawn by a generator with a fixed beginning in each process.
"""

import contextlib
import mmap
import struct
from collections.abc import Iterator

from serving.preloaded import preloaded

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* Shared words: how many calls of a thousand are refused, calls refused so far, whether names are unknown, names asked
   for in vain. */
static volatile int64_t own[4];
static volatile int64_t *words = own;
static __thread uint64_t state = 88172645463325252ull;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("RTC_TEST_WORDS");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *found = file < 0 ? MAP_FAILED : mmap(0, sizeof own, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file >= 0)
        close(file);
    if (found != MAP_FAILED)
        words = found;
}

static uint64_t draw(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static int is_pair(int fd) {
    struct sockaddr_storage own, peer;
    socklen_t own_size = sizeof own, peer_size = sizeof peer;
    return getsockname(fd, (struct sockaddr *) &own, &own_size) == 0 && own.ss_family == AF_UNIX &&
           own_size <= sizeof own.ss_family && getpeername(fd, (struct sockaddr *) &peer, &peer_size) == 0 &&
           peer_size <= sizeof peer.ss_family;
}

static int refuses(int fd) {
    int64_t share = __atomic_load_n(&words[0], __ATOMIC_RELAXED);
    if (share == 0 || is_pair(fd) || (int64_t) (draw() % 1000) >= share)
        return 0;
    __atomic_add_fetch(&words[1], 1, __ATOMIC_RELAXED);
    return 1;
}

static void *real(const char *name) {
    return dlsym(RTLD_NEXT, name);
}

ssize_t send(int fd, const void *data, size_t size, int flags) {
    static ssize_t (*next)(int, const void *, size_t, int);
    if (!next)
        next = real("send");
    if (refuses(fd))
        switch (draw() % 3) {
        case 0:
            errno = ENOBUFS;
            return -1;
        case 1:
            errno = EINTR;
            return -1;
        default:
            size = 1 + size / 3;
        }
    return next(fd, data, size, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    static ssize_t (*next)(int, const struct msghdr *, int);
    if (!next)
        next = real("sendmsg");
    if (refuses(fd)) {
        struct msghdr first = *message;
        if (message->msg_controllen == 0 && message->msg_iovlen > 1 && draw() % 2) {
            first.msg_iovlen = 1;
            return next(fd, &first, flags);
        }
        errno = draw() % 2 ? ENOBUFS : EINTR;
        return -1;
    }
    return next(fd, message, flags);
}

ssize_t recv(int fd, void *data, size_t size, int flags) {
    static ssize_t (*next)(int, void *, size_t, int);
    if (!next)
        next = real("recv");
    if (refuses(fd)) {
        if (draw() % 2) {
            errno = EINTR;
            return -1;
        }
        size = 1 + size / 1000;
    }
    return next(fd, data, size, flags);
}

int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags) {
    static int (*next)(int, struct sockaddr *, socklen_t *, int);
    static const int errors[] = {EMFILE, ENOBUFS, ECONNABORTED};
    if (!next)
        next = real("accept4");
    if (refuses(fd)) {
        errno = errors[draw() % 3];
        return -1;
    }
    return next(fd, address, size, flags);
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **out) {
    static int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    struct addrinfo numeric = {.ai_flags = AI_NUMERICHOST};
    struct addrinfo *found;
    if (!next)
        next = real("getaddrinfo");
    if (node && __atomic_load_n(&words[2], __ATOMIC_RELAXED)) {
        if (next(node, 0, &numeric, &found) != 0) {
            __atomic_add_fetch(&words[3], 1, __ATOMIC_RELAXED);
            return EAI_AGAIN;
        }
        freeaddrinfo(found);
    }
    return next(node, service, hints, out);
}
"""

SHARE, REFUSED, NAMELESS, ASKED = range(4)


class Kernel:
    """That of the processes started with `environment`."""

    def __init__(self, environment: dict[str, str], memory: mmap.mmap) -> None:
        self.environment = environment
        self._memory = memory

    def refuse(self, share: int) -> None:
        """So many of a thousand calls meet trouble from now on."""
        self._write(SHARE, share)

    @property
    def refused(self) -> int:
        """Calls that met trouble so far."""
        return self._read(REFUSED)

    @property
    def asked_in_vain(self) -> int:
        """How often a name was asked for that could not be resolved."""
        return self._read(ASKED)

    def forget_names(self) -> None:
        """No name can be resolved from now on."""
        self._write(NAMELESS, 1)

    def know_names(self) -> None:
        """They can again."""
        self._write(NAMELESS, 0)

    def _read(self, word: int) -> int:
        (value,) = struct.unpack_from("<q", self._memory, 8 * word)
        return int(value)

    def _write(self, word: int, value: int) -> None:
        struct.pack_into("<q", self._memory, 8 * word, value)


@contextlib.contextmanager
def unwilling_kernel() -> Iterator[Kernel]:
    """A kernel that does what it is asked until it is told otherwise."""
    with preloaded(SOURCE) as (environment, memory):
        yield Kernel(environment, memory)
