/* Peers without a protocol of their own: a text frame is a message, and who subscribes or publishes is in the path. */
#include <string.h>

#include "protocol.h"

static size_t write_message(char *to, size_t room, const char *payload, size_t length)
{
    if (length > room)
        return 0;
    memcpy(to, payload, length);
    return length;
}

static size_t write_publish(char *to, size_t room, const char *topic, const char *payload, size_t length)
{
    (void)topic;
    return write_message(to, room, payload, length);
}

static struct inbound read_message(const uint8_t *data, size_t length)
{
    return whole(KIND_MESSAGE, data, length);
}

const struct protocol protocol_text = {
    .name = "text",
    .opcode = OPCODE_TEXT,
    .write_publish = write_publish,
    .write_echo = write_message,
    .read = read_message,
};
