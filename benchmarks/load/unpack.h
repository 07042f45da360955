/* Compressed messages: how a client asks for them, and what is in them.
 *
 * All subscribers of a form get the same bytes, so each message is decompressed once, by the usual library of its form,
 * and what the other subscribers get is compared with it byte for byte. A frame that is not the same is decompressed
 * by itself: what `unpack` returns is always what is in that very frame. */
#ifndef LOAD_UNPACK_H
#define LOAD_UNPACK_H

#include <stdbool.h>
#include <stddef.h>

#include "websocket.h"

enum compression {
    COMPRESSION_NONE,
    COMPRESSION_ZSTD,    /* these are asked for by subprotocol */
    COMPRESSION_LZ4,
    COMPRESSION_GZIP,
    COMPRESSION_DEFLATE, /* the extension permessage-deflate */
    COMPRESSIONS
};

struct unpacker;

/* Its name on the command line and, but for deflate, in a subprotocol. */
const char *compression_name(enum compression compression);

/* The value of Sec-WebSocket-Extensions that asks for it, or NULL. */
const char *compression_extension(enum compression compression);

/* Whether a data frame is compressed in that form. */
bool is_packed(enum compression compression, const struct frame *frame);

/* Exits with 1 when there is no memory. */
struct unpacker *unpacker_new(enum compression compression);

/* Replaces the payload of a frame by what is in it; it stays valid until the next call. `number` counts the compressed
 * frames of one connection: frames with the same number are expected to be the same. Returns false when it holds no
 * whole message or one of more than a MiB. */
bool unpack(struct unpacker *unpacker, size_t number, struct frame *frame);

void unpacker_free(struct unpacker *unpacker);

#endif
