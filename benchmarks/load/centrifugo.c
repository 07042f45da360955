/* Centrifugo's JSON protocol: one reply or push a line, several of them in a WebSocket message. */
#include <string.h>

#include "protocol.h"

static size_t write_sign_on(char *to, size_t room, const char *token)
{
    return token != NULL ? write_text(to, room, "{\"id\":1,\"connect\":{\"token\":\"%s\"}}", token)
                         : write_text(to, room, "{\"id\":1,\"connect\":{}}");
}

static size_t write_subscribe(char *to, size_t room, const char *topic)
{
    return write_text(to, room, "{\"id\":2,\"subscribe\":{\"channel\":\"%s\"}}", topic);
}

static size_t write_publish(char *to, size_t room, const char *topic, const char *payload, size_t length)
{
    return write_text(to, room, "{\"id\":3,\"publish\":{\"channel\":\"%s\",\"data\":%.*s}}", topic, (int)length, payload);
}

/* The payload of a push is the JSON string behind `"data":`; it has no escapes, since the generator sends none. */
static struct inbound read_push(const uint8_t *data, size_t line)
{
    static const char key[] = "\"data\":";
    enum { KEY = sizeof key - 1 };
    const uint8_t *payload = memmem(data, line, key, KEY);
    if (payload == NULL)
        return whole(KIND_REFUSED, data, line);
    payload += KEY;
    size_t left = line - (size_t)(payload - data);
    const uint8_t *end = left > 1 && *payload == '"' ? memchr(payload + 1, '"', left - 1) : NULL;
    if (end == NULL)
        return whole(KIND_REFUSED, data, line);
    return (struct inbound){KIND_MESSAGE, payload, (size_t)(end - payload) + 1, line};
}

static struct inbound read_line(const uint8_t *data, size_t length)
{
    const uint8_t *end = memchr(data, '\n', length);
    size_t line = end == NULL ? length : (size_t)(end - data) + 1;
    if (starts_with(data, line, "{\"push\":{\"channel\":") && memmem(data, line, "\"pub\":", 6) != NULL)
        return read_push(data, line);
    if (starts_with(data, line, "{\"id\":1,\"connect\":") || starts_with(data, line, "{\"id\":2,\"subscribe\":"))
        return whole(KIND_ACCEPTED, data, line);
    if (starts_with(data, line, "{\"id\":3,\"publish\":"))
        return whole(KIND_ACKNOWLEDGED, data, line);
    if (starts_with(data, line, "{}"))
        return whole(KIND_PING, data, line);
    return whole(KIND_REFUSED, data, line);
}

const struct protocol protocol_centrifugo = {
    .name = "centrifugo",
    .path = "/connection/websocket",
    .opcode = OPCODE_TEXT,
    .is_quoted = true,
    .pong = "{}",
    .write_sign_on = write_sign_on,
    .begins = true,
    .write_subscribe = write_subscribe,
    .write_publish = write_publish,
    .read = read_line,
};
