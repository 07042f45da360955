#include "ring.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct {
    int fd;
    int entered;              /* its index among the registered rings: entering by it spares a look-up */
    unsigned sends, queued;   /* as many as one submission takes, and those that wait for one */
    unsigned tail, mask, completion_mask;
    _Atomic unsigned *submitted, *completed, *seen;
    struct io_uring_sqe *entries;
    struct io_uring_cqe *completions;
    ring_rest *tell;
} ring;

static int registers(unsigned operation, void *argument, unsigned count)
{
    return (int)syscall(SYS_io_uring_register, ring.fd, operation, argument, count);
}

static bool map(const struct io_uring_params *params)
{
    int protection = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
    size_t completions = params->cq_off.cqes + params->cq_entries * sizeof *ring.completions;
    size_t indexes = params->sq_off.array + params->sq_entries * sizeof(unsigned);
    uint8_t *shared = mmap(NULL, completions > indexes ? completions : indexes, protection, flags, ring.fd,
                           IORING_OFF_SQ_RING);
    ring.entries = mmap(NULL, params->sq_entries * sizeof *ring.entries, protection, flags, ring.fd, IORING_OFF_SQES);
    if (shared == MAP_FAILED || ring.entries == MAP_FAILED)
        return false;
    ring.submitted = (_Atomic unsigned *)(shared + params->sq_off.tail);
    ring.seen = (_Atomic unsigned *)(shared + params->cq_off.head);
    ring.completed = (_Atomic unsigned *)(shared + params->cq_off.tail);
    ring.completions = (struct io_uring_cqe *)(shared + params->cq_off.cqes);
    ring.mask = params->sq_entries - 1;
    ring.completion_mask = params->cq_entries - 1;
    unsigned *order = (unsigned *)(shared + params->sq_off.array);
    for (unsigned index = 0; index < params->sq_entries; index++)
        order[index] = index;
    return true;
}

bool ring_open(unsigned sends, ring_rest *tell)
{
    struct io_uring_params params = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL};
    ring.fd = (int)syscall(SYS_io_uring_setup, sends, &params);
    if (ring.fd < 0 || !map(&params))
        return false;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    struct io_uring_rsrc_register table = {.nr = (unsigned)files.rlim_cur, .flags = IORING_RSRC_REGISTER_SPARSE};
    struct io_uring_rsrc_update self = {.offset = -1U, .data = (uint64_t)ring.fd};
    if (registers(IORING_REGISTER_FILES2, &table, sizeof table) < 0 ||
        registers(IORING_REGISTER_RING_FDS, &self, 1) != 1)
        return false;
    ring.entered = (int)self.offset;
    ring.sends = sends;
    ring.tell = tell;
    return true;
}

void ring_limit(unsigned sends)
{
    ring.sends = sends;
}

bool ring_add(int fd)
{
    struct io_uring_rsrc_update update = {.offset = (unsigned)fd, .data = (uintptr_t)&fd};
    return registers(IORING_REGISTER_FILES_UPDATE, &update, 1) == 1;
}

void ring_send(int fd, const void *data, size_t length, void *owner)
{
    /* DONTWAIT: what a full socket refuses fails with EAGAIN, and is not polled for.
     * WAITALL: a send that is cut short counts as failed; otherwise it would be a success, and not be told. */
    ring.entries[ring.tail++ & ring.mask] = (struct io_uring_sqe){
        .opcode = IORING_OP_SEND,
        .flags = IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS,
        .fd = fd,
        .addr = (uintptr_t)data,
        .len = (unsigned)length,
        .msg_flags = MSG_NOSIGNAL | MSG_DONTWAIT | MSG_WAITALL,
        .user_data = (uintptr_t)owner,
    };
    if (++ring.queued == ring.sends)
        ring_submit();
}

static void tell_rests(void)
{
    unsigned at = atomic_load_explicit(ring.seen, memory_order_relaxed);
    unsigned end = atomic_load_explicit(ring.completed, memory_order_acquire);
    for (; at != end; at++) {
        struct io_uring_cqe *completion = &ring.completions[at & ring.completion_mask];
        ring.tell((void *)(uintptr_t)completion->user_data, completion->res);
    }
    atomic_store_explicit(ring.seen, at, memory_order_release);
}

void ring_submit(void)
{
    atomic_store_explicit(ring.submitted, ring.tail, memory_order_release);
    while (ring.queued != 0) {
        long taken = syscall(SYS_io_uring_enter, ring.entered, ring.queued, 0, IORING_ENTER_REGISTERED_RING, NULL, 0);
        if (taken < 0 && errno != EINTR)
            abort();
        if (taken > 0)
            ring.queued -= (unsigned)taken;
        tell_rests();
    }
}
