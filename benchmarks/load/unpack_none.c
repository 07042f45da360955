/* In place of unpack.c where the generator is built without the libraries of the compressed forms. */
#include "unpack.h"

const char *compression_name(enum compression compression)
{
    return compression == COMPRESSION_NONE ? "none" : "";
}

const char *compression_extension(enum compression compression)
{
    (void)compression;
    return NULL;
}

bool is_packed(enum compression compression, const struct frame *frame)
{
    (void)compression;
    (void)frame;
    return false;
}

struct unpacker *unpacker_new(enum compression compression)
{
    (void)compression;
    return NULL;
}

bool unpack(struct unpacker *unpacker, size_t number, struct frame *frame)
{
    (void)unpacker;
    (void)number;
    (void)frame;
    return false;
}

void unpacker_free(struct unpacker *unpacker)
{
    (void)unpacker;
}
