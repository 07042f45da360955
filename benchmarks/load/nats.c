/* The NATS client protocol in binary WebSocket messages, which are pieces of its stream of lines and payloads. */
#include <string.h>

#include "protocol.h"

enum {
    LONGEST_LINE = 8192, /* bytes; INFO has some hundred, and the server's own limit for a line is 4 KiB */
    LENGTH_DIGITS = 7,   /* of a payload's length: more than the longest message of the command line */
};

static size_t write_sign_on(char *to, size_t room, const char *token)
{
    (void)token;
    return write_text(to, room,
                      "CONNECT {\"verbose\":false,\"pedantic\":false,\"echo\":true,\"lang\":\"c\",\"version\":\"1\","
                      "\"protocol\":1}\r\nPING\r\n");
}

static size_t write_subscribe(char *to, size_t room, const char *topic)
{
    return write_text(to, room, "SUB %s 1\r\nPING\r\n", topic);
}

static size_t write_publish(char *to, size_t room, const char *topic, const char *payload, size_t length)
{
    return write_text(to, room, "PUB %s %zu\r\n%.*s\r\n", topic, length, (int)length, payload);
}

/* `MSG subject sid [reply-to] length`, then the payload and a line break. `line` has the line break's two bytes too. */
static struct inbound read_msg(const uint8_t *data, size_t length, size_t line)
{
    size_t digits = line - 2;
    while (digits > 0 && data[digits - 1] >= '0' && data[digits - 1] <= '9')
        digits--;
    if (digits == line - 2 || line - 2 - digits > LENGTH_DIGITS)
        return whole(KIND_REFUSED, data, length);
    size_t payload = 0;
    for (size_t at = digits; at < line - 2; at++)
        payload = payload * 10 + (size_t)(data[at] - '0');
    if (length < line + payload + 2)
        return (struct inbound){.kind = KIND_INCOMPLETE};
    return (struct inbound){KIND_MESSAGE, data + line, payload, line + payload + 2};
}

static struct inbound read_line(const uint8_t *data, size_t length)
{
    const uint8_t *end = memchr(data, '\n', length < LONGEST_LINE ? length : LONGEST_LINE);
    if (end == NULL)
        return length < LONGEST_LINE ? (struct inbound){.kind = KIND_INCOMPLETE} : whole(KIND_REFUSED, data, length);
    size_t line = (size_t)(end - data) + 1;
    if (starts_with(data, line, "MSG "))
        return read_msg(data, length, line);
    if (starts_with(data, line, "PING\r"))
        return whole(KIND_PING, data, line);
    if (starts_with(data, line, "PONG\r"))
        return whole(KIND_ACCEPTED, data, line);
    if (starts_with(data, line, "INFO "))
        return whole(KIND_WELCOME, data, line);
    return whole(KIND_REFUSED, data, line);
}

const struct protocol protocol_nats = {
    .name = "nats",
    .path = "/",
    .opcode = OPCODE_BINARY,
    .pong = "PONG\r\n",
    .write_sign_on = write_sign_on,
    .write_subscribe = write_subscribe,
    .write_publish = write_publish,
    .read = read_line,
};
