#include "websocket.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* The sample nonce of RFC 6455 section 1.3 and its answer: a fixed pair costs the generator no SHA-1 per connection. */
#define SAMPLE_KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define SAMPLE_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

int write_request(char *to, size_t room, const char *host, const char *path, const char *subprotocol,
                  const char *token_header, const char *token)
{
    int length = snprintf(to, room,
                          "GET %s HTTP/1.1\r\n"
                          "Host: %s\r\n"
                          "Upgrade: websocket\r\n"
                          "Connection: Upgrade\r\n"
                          "Sec-WebSocket-Key: " SAMPLE_KEY "\r\n"
                          "Sec-WebSocket-Version: 13\r\n"
                          "%s%s%s%s%s%s\r\n",
                          path, host, subprotocol ? "Sec-WebSocket-Protocol: " : "", subprotocol ? subprotocol : "",
                          subprotocol ? "\r\n" : "", token ? token_header : "", token ? token : "",
                          token ? "\r\n" : "");
    return length < 0 || (size_t)length >= room ? -1 : length;
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
    if ((data[0] & 0xf0) != 0x80 || (data[1] & 0x80) != 0)
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
    frame->payload = data + head;
    frame->length = (size_t)size;
    frame->size = head + (size_t)size;
    return 1;
}
