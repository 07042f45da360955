#include "rtc.h"

#include <stdio.h>
#include <string.h>

enum { SEARCHED_BYTES = 160 };

bool has_type(const struct frame *frame, const char *name)
{
    char wanted[64];
    int length = snprintf(wanted, sizeof wanted, "{\"type\":\"%s\"", name);
    return frame->length > (size_t)length && memcmp(frame->payload, wanted, (size_t)length) == 0;
}

uint64_t number_after(const struct frame *frame, const char *key, size_t key_length)
{
    const char *end = (const char *)frame->payload + frame->length;
    size_t searched = frame->length < SEARCHED_BYTES ? frame->length : SEARCHED_BYTES;
    const char *at = memmem(frame->payload, searched, key, key_length);
    if (at == NULL)
        return UINT64_MAX;
    at += key_length;
    while (at < end && *at == ' ')
        at++;
    uint64_t value = 0;
    const char *digits = at;
    for (; at < end && *at >= '0' && *at <= '9'; at++)
        value = value * 10 + (uint64_t)(*at - '0');
    return at == digits ? UINT64_MAX : value;
}

static size_t write_subscribe(char *to, size_t room, const char *topic)
{
    return write_text(to, room, "{\"type\":\"Subscribe\",\"id\":1,\"topic\":\"%s\"}", topic);
}

static size_t write_publish(char *to, size_t room, const char *topic, const char *payload, size_t length)
{
    return write_text(to, room, "{\"type\":\"Broadcast\",\"topic\":\"%s\",\"payload\":%.*s}", topic, (int)length, payload);
}

/* The envelope is the message: whoever gets it looks into it. */
static struct inbound read_envelope(const uint8_t *data, size_t length)
{
    if (starts_with(data, length, "{\"type\":\"Connected\"") || starts_with(data, length, "{\"type\":\"Subscribed\""))
        return whole(KIND_ACCEPTED, data, length);
    return whole(KIND_MESSAGE, data, length);
}

/* Signing on is the upgrade with its token, which the server answers with `Connected`: nothing is written for it. */
static size_t write_nothing(char *to, size_t room, const char *token)
{
    (void)to, (void)room, (void)token;
    return 0;
}

const struct protocol protocol_rtc = {
    .name = "rtc",
    .path = "/ws",
    .subprotocol = "rtc.v1.json",
    .opcode = OPCODE_TEXT,
    .token_in_request = true,
    .is_numbered = true,
    .is_quoted = true,
    .write_sign_on = write_nothing,
    .write_subscribe = write_subscribe,
    .write_publish = write_publish,
    .read = read_envelope,
};
