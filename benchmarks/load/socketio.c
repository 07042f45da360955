/* Socket.IO 5 in Engine.IO 4 over WebSocket alone: one packet a WebSocket message (see peers/socketio_rooms.cjs).
 *
 * `s` subscribes to a room and is acknowledged, `p` publishes to it, `e` is sent back, and `m` is what clients get. */
#include <string.h>

#include "protocol.h"

static size_t write_sign_on(char *to, size_t room, const char *token)
{
    (void)token;
    return write_text(to, room, "40");
}

static size_t write_subscribe(char *to, size_t room, const char *topic)
{
    return write_text(to, room, "421[\"s\",\"%s\"]", topic);
}

static size_t write_publish(char *to, size_t room, const char *topic, const char *payload, size_t length)
{
    return write_text(to, room, "42[\"p\",\"%s\",%.*s]", topic, (int)length, payload);
}

static size_t write_echo(char *to, size_t room, const char *payload, size_t length)
{
    return write_text(to, room, "42[\"e\",%.*s]", (int)length, payload);
}

static struct inbound read_packet(const uint8_t *data, size_t length)
{
    static const char event[] = "42[\"m\",";
    enum { EVENT = sizeof event - 1 };
    if (starts_with(data, length, event) && length > EVENT && data[length - 1] == ']')
        return (struct inbound){KIND_MESSAGE, data + EVENT, length - EVENT - 1, length};
    if (starts_with(data, length, "0{"))
        return whole(KIND_WELCOME, data, length);
    if (starts_with(data, length, "40{") || starts_with(data, length, "431["))
        return whole(KIND_ACCEPTED, data, length);
    if (length == 1 && data[0] == '2')
        return whole(KIND_PING, data, length);
    return whole(KIND_REFUSED, data, length);
}

const struct protocol protocol_socketio = {
    .name = "socketio",
    .path = "/socket.io/?EIO=4&transport=websocket",
    .opcode = OPCODE_TEXT,
    .is_quoted = true,
    .pong = "3",
    .write_sign_on = write_sign_on,
    .write_subscribe = write_subscribe,
    .write_publish = write_publish,
    .write_echo = write_echo,
    .read = read_packet,
};
