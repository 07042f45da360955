#include "protocol.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct protocol *const protocols[] = {
    &protocol_rtc, &protocol_text, &protocol_nats, &protocol_centrifugo, &protocol_socketio};

const struct protocol *protocol_named(const char *name)
{
    for (size_t index = 0; index < sizeof protocols / sizeof *protocols; index++)
        if (strcmp(protocols[index]->name, name) == 0)
            return protocols[index];
    return NULL;
}

void write_sequence(const struct protocol *protocol, char *payload, uint64_t sequence)
{
    char *digits = payload + protocol->is_quoted;
    for (int index = SEQUENCE_DIGITS - 1; index >= 0; index--, sequence /= 10)
        digits[index] = (char)('0' + sequence % 10);
}

void fill_payload(const struct protocol *protocol, char *payload, size_t length)
{
    for (size_t index = 0; index < length; index++)
        payload[index] = (char)('a' + index % 26);
    if (protocol->is_quoted)
        payload[0] = payload[length - 1] = '"';
    write_sequence(protocol, payload, 0);
}

uint64_t read_sequence(const struct protocol *protocol, const uint8_t *payload, size_t length)
{
    uint64_t value = 0;
    if (length < SEQUENCE_DIGITS + 2u)
        return UINT64_MAX;
    const uint8_t *digits = payload + protocol->is_quoted;
    for (int index = 0; index < SEQUENCE_DIGITS; index++) {
        if (digits[index] < '0' || digits[index] > '9')
            return UINT64_MAX;
        value = value * 10 + (uint64_t)(digits[index] - '0');
    }
    return value;
}

bool starts_with(const uint8_t *data, size_t length, const char *text)
{
    size_t wanted = strlen(text);
    return length >= wanted && memcmp(data, text, wanted) == 0;
}

size_t write_text(char *to, size_t room, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(to, room, format, arguments);
    va_end(arguments);
    return length < 0 || (size_t)length >= room ? 0 : (size_t)length;
}

struct inbound whole(enum kind kind, const uint8_t *data, size_t length)
{
    return (struct inbound){kind, data, length, length};
}
