/* RFC 6455 as a client needs it: the opening request, masked frames out, unmasked frames in.
 *
 * Rules: no socket and no clock here; nothing is allocated. */
#ifndef LOAD_WEBSOCKET_H
#define LOAD_WEBSOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum opcode { OPCODE_TEXT = 1, OPCODE_BINARY = 2, OPCODE_CLOSE = 8, OPCODE_PING = 9, OPCODE_PONG = 10 };

/* Longest header of a masked frame: 2 bytes, a 64-bit length, the mask. */
enum { MAX_FRAME_HEADER = 14 };

struct frame {
    enum opcode opcode;
    bool deflated;          /* RSV1 of permessage-deflate; never on control frames */
    const uint8_t *payload; /* into the bytes that were parsed */
    size_t length;          /* of the payload, bytes */
    size_t size;            /* of header and payload, bytes */
};

/* What the opening request asks for; all but host and path may be NULL. */
struct request {
    const char *host;
    const char *path;
    const char *subprotocol;
    const char *extensions;
    const char *token_header; /* what stands before the token */
    const char *token;
};

/* Writes the opening request. Returns its length, or -1 when it does not fit. */
int write_request(char *to, size_t room, const struct request *request);

/* The length of the response head in `data` when it is complete and accepts the request of `write_request`,
 * 0 when more bytes are needed, -1 when it refuses. */
long read_response(const char *data, size_t length);

/* Writes one masked frame and returns its size. `to` has room for `length` + MAX_FRAME_HEADER. */
size_t write_frame(uint8_t *to, enum opcode opcode, const void *payload, size_t length, uint32_t mask);

/* Reads the frame that `data` begins with. Returns 1; 0 when it is not complete; -1 when it is none a server may send
 * here (masked, fragmented, reserved bits but RSV1 of a data frame). */
int read_frame(const uint8_t *data, size_t length, struct frame *frame);

#endif
