# One value from JSON to MessagePack or back, for subscribers that use the other encoding than the publisher.
#
# Rules: the input is one value that `json_scan` or `msgpack_scan` has accepted. Integers that fit 64 bits stay
# integers, larger ones become doubles; a double is written as the shortest text that reads back as the same double,
# with a point or an exponent so that it stays one (1.0 stays 1.0; -0 without a point becomes the integer 0). Binary
# becomes a base64 string (RFC 4648, section 4). Keys keep their order, equal keys stay as they are. The result is
# at most 6 times the input (a control character in a MessagePack string) plus 32 bytes.

from realtime_communication._core.base.memory cimport Buffer, Slice


cdef enum Encoding:
    JSON_TEXT = 0                # subprotocol rtc.v1.json
    MSGPACK = 1                  # subprotocol rtc.v1.msgpack
    ENCODINGS = 2                # how many there are


# Appends `payload` in the encoding `target` (copied as it is when `source` equals it). 0, or -1 without memory, with
# nothing appended. Bytes that were never validated do no harm, but what they become is undefined, -1 included.
cdef int transcode(Slice payload, int source, int target, Buffer* out) noexcept nogil
# Appends a finite double as the shortest JSON number that reads back as the same double. 0, or -1 without memory.
cdef int write_json_double(Buffer* out, double value) noexcept with gil
