/* Sends to many sockets by one system call, with io_uring (Linux 6.1).
 *
 * A send that the socket takes whole leaves no trace. What became of any other is told while the ring is submitted, and
 * nothing is under way afterwards: the bytes need not live longer than that call. */
#ifndef RING_H
#define RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of the bytes for `owner` the socket took `taken`, fewer than there were; negative: none, for that errno. */
typedef void ring_rest(void *owner, int taken);

/* A ring that is submitted by itself whenever `sends` are queued. Returns false, with errno, where it cannot be had. */
bool ring_open(unsigned sends, ring_rest *tell);

/* From now on it is submitted after fewer sends; at most as many as it was opened for. */
void ring_limit(unsigned sends);

/* Makes a socket known, before the first send to it. Returns false, with errno, when the system refuses. */
bool ring_add(int fd);

void ring_send(int fd, const void *data, size_t length, void *owner);
void ring_submit(void);

#endif
