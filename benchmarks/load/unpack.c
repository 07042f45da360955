#include "unpack.h"

#include <lz4frame.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

enum { KEPT = 256, LONGEST_PLAIN = 1 << 20, WINDOW_BITS = 15, GZIP_BITS = 16 };

struct kept {
    uint8_t *packed; /* owned */
    uint8_t *plain;  /* owned */
    size_t packed_length;
    size_t plain_length;
};

struct unpacker {
    enum compression compression;
    struct kept kept[KEPT]; /* by number % KEPT */
    uint8_t *room;          /* owned; LONGEST_PLAIN bytes */
    ZSTD_DCtx *zstd;
    LZ4F_dctx *lz4;
    z_stream zlib;
};

static const char *const names[COMPRESSIONS] = {"none", "zstd", "lz4", "gzip", "deflate"};

const char *compression_name(enum compression compression)
{
    return names[compression];
}

const char *compression_extension(enum compression compression)
{
    return compression == COMPRESSION_DEFLATE
        ? "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        : NULL;
}

bool is_packed(enum compression compression, const struct frame *frame)
{
    if (compression == COMPRESSION_DEFLATE)
        return frame->deflated;
    return compression != COMPRESSION_NONE && frame->opcode == OPCODE_BINARY;
}

static void no_memory(void)
{
    fputs("load: no memory\n", stderr);
    exit(1);
}

struct unpacker *unpacker_new(enum compression compression)
{
    struct unpacker *unpacker = calloc(1, sizeof *unpacker);
    if (unpacker == NULL || (unpacker->room = malloc(LONGEST_PLAIN)) == NULL)
        no_memory();
    unpacker->compression = compression;
    bool made = true;
    if (compression == COMPRESSION_ZSTD)
        made = (unpacker->zstd = ZSTD_createDCtx()) != NULL;
    else if (compression == COMPRESSION_LZ4)
        made = !LZ4F_isError(LZ4F_createDecompressionContext(&unpacker->lz4, LZ4F_VERSION));
    else
        made = inflateInit2(&unpacker->zlib, compression == COMPRESSION_GZIP ? GZIP_BITS + WINDOW_BITS : -WINDOW_BITS)
            == Z_OK;
    if (!made)
        no_memory();
    return unpacker;
}

/* Each returns the length of what it wrote into the room, or -1. */

static long unpack_zstd(struct unpacker *unpacker, const struct frame *frame)
{
    size_t length = ZSTD_decompressDCtx(unpacker->zstd, unpacker->room, LONGEST_PLAIN, frame->payload, frame->length);
    return ZSTD_isError(length) ? -1 : (long)length;
}

static long unpack_lz4(struct unpacker *unpacker, const struct frame *frame)
{
    size_t taken = frame->length, made = LONGEST_PLAIN;
    size_t hint = LZ4F_decompress(unpacker->lz4, unpacker->room, &made, frame->payload, &taken, NULL);
    if (hint == 0 && taken == frame->length)
        return (long)made;
    LZ4F_resetDecompressionContext(unpacker->lz4);
    return -1;
}

static long unpack_zlib(struct unpacker *unpacker, const struct frame *frame)
{
    static const uint8_t tail[] = {0, 0, 0xff, 0xff}; /* left out of every message: RFC 7692, 7.2.1 */
    z_stream *zlib = &unpacker->zlib;
    inflateReset(zlib);
    zlib->next_in = (uint8_t *)frame->payload;
    zlib->avail_in = (unsigned)frame->length;
    zlib->next_out = unpacker->room;
    zlib->avail_out = LONGEST_PLAIN;
    int state = inflate(zlib, Z_SYNC_FLUSH);
    bool whole = state == Z_STREAM_END && zlib->avail_in == 0;
    if (unpacker->compression == COMPRESSION_DEFLATE && state == Z_OK && zlib->avail_in == 0) {
        zlib->next_in = (uint8_t *)tail;
        zlib->avail_in = sizeof tail;
        state = inflate(zlib, Z_SYNC_FLUSH);
        whole = state == Z_OK && zlib->avail_in == 0 && zlib->avail_out != 0;
    }
    return whole ? (long)(LONGEST_PLAIN - zlib->avail_out) : -1;
}

static uint8_t *copy_of(uint8_t *old, const uint8_t *data, size_t length)
{
    uint8_t *copy = realloc(old, length + 1);
    if (copy == NULL)
        no_memory();
    memcpy(copy, data, length);
    return copy;
}

bool unpack(struct unpacker *unpacker, size_t number, struct frame *frame)
{
    struct kept *kept = &unpacker->kept[number % KEPT];
    if (kept->packed == NULL || kept->packed_length != frame->length
        || memcmp(kept->packed, frame->payload, frame->length) != 0) {
        long length = unpacker->compression == COMPRESSION_ZSTD ? unpack_zstd(unpacker, frame)
            : unpacker->compression == COMPRESSION_LZ4          ? unpack_lz4(unpacker, frame)
                                                                : unpack_zlib(unpacker, frame);
        if (length < 0)
            return false;
        kept->packed = copy_of(kept->packed, frame->payload, frame->length);
        kept->packed_length = frame->length;
        kept->plain = copy_of(kept->plain, unpacker->room, (size_t)length);
        kept->plain_length = (size_t)length;
    }
    frame->payload = kept->plain;
    frame->length = kept->plain_length;
    return true;
}

void unpacker_free(struct unpacker *unpacker)
{
    for (size_t index = 0; index < KEPT; index++) {
        free(unpacker->kept[index].packed);
        free(unpacker->kept[index].plain);
    }
    ZSTD_freeDCtx(unpacker->zstd);
    LZ4F_freeDecompressionContext(unpacker->lz4);
    if (unpacker->zstd == NULL && unpacker->lz4 == NULL)
        inflateEnd(&unpacker->zlib);
    free(unpacker->room);
    free(unpacker);
}
