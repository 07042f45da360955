#include "websocket.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* The sample nonce of RFC 6455 section 1.3 and its answer: a fixed pair costs the generator no SHA-1 per connection. */
#define SAMPLE_KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define SAMPLE_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

/* Appends a header line, or nothing without a value. `length` is SIZE_MAX once there was not enough room. */
static size_t append_header(char *to, size_t room, size_t length, const char *name, const char *value)
{
    if (value == NULL || length >= room)
        return length;
    int more = snprintf(to + length, room - length, "%s%s\r\n", name, value);
    return more < 0 || (size_t)more >= room - length ? SIZE_MAX : length + (size_t)more;
}

int write_request(char *to, size_t room, const struct request *request)
{
    int line = snprintf(to, room, "GET %s HTTP/1.1\r\n", request->path);
    size_t length = line < 0 || (size_t)line >= room ? SIZE_MAX : (size_t)line;
    length = append_header(to, room, length, "Host: ", request->host);
    length = append_header(to, room, length, "Upgrade: ", "websocket");
    length = append_header(to, room, length, "Connection: ", "Upgrade");
    length = append_header(to, room, length, "Sec-WebSocket-Key: ", SAMPLE_KEY);
    length = append_header(to, room, length, "Sec-WebSocket-Version: ", "13");
    length = append_header(to, room, length, "Sec-WebSocket-Protocol: ", request->subprotocol);
    length = append_header(to, room, length, "Sec-WebSocket-Extensions: ", request->extensions);
    length = append_header(to, room, length, request->token_header, request->token);
    length = append_header(to, room, length, "", "");
    return length == SIZE_MAX ? -1 : (int)length;
}

long read_response(const char *data, size_t length)
{
    const char *end = memmem(data, length, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    size_t head = (size_t)(end - data) + 4;
    if (head < 12 || memcmp(data, "HTTP/1.1 101", 12) != 0)
        return -1;
    return memmem(data, head, SAMPLE_ACCEPT "\r\n", sizeof SAMPLE_ACCEPT + 1) != NULL ? (long)head : -1;
}

size_t write_frame(uint8_t *to, enum opcode opcode, const void *payload, size_t length, uint32_t mask)
{
    size_t at = 0;
    to[at++] = (uint8_t)(0x80 | opcode);
    if (length < 126) {
        to[at++] = (uint8_t)(0x80 | length);
    } else if (length <= 0xffff) {
        to[at++] = 0x80 | 126;
        to[at++] = (uint8_t)(length >> 8);
        to[at++] = (uint8_t)length;
    } else {
        to[at++] = 0x80 | 127;
        for (int shift = 56; shift >= 0; shift -= 8)
            to[at++] = (uint8_t)((uint64_t)length >> shift);
    }
    uint8_t key[4];
    memcpy(key, &mask, 4);
    memcpy(to + at, key, 4);
    at += 4;
    const uint8_t *from = payload;
    for (size_t index = 0; index < length; index++)
        to[at + index] = from[index] ^ key[index & 3];
    return at + length;
}

int read_frame(const uint8_t *data, size_t length, struct frame *frame)
{
    if (length < 2)
        return 0;
    bool deflated = (data[0] & 0xf8) == 0xc0; /* RSV1, and no control frame */
    if ((!deflated && (data[0] & 0xf0) != 0x80) || (data[1] & 0x80) != 0)
        return -1;
    uint64_t size = data[1];
    size_t head = 2;
    if (size == 126) {
        if (length < 4)
            return 0;
        size = (uint64_t)data[2] << 8 | data[3];
        head = 4;
    } else if (size == 127) {
        if (length < 10)
            return 0;
        size = 0;
        for (int index = 2; index < 10; index++)
            size = size << 8 | data[index];
        head = 10;
    }
    if (length - head < size)
        return 0;
    frame->opcode = data[0] & 0x0f;
    frame->deflated = deflated;
    frame->payload = data + head;
    frame->length = (size_t)size;
    frame->size = head + (size_t)size;
    return 1;
}
