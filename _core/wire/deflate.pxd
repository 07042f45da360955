# permessage-deflate (RFC 7692): what to answer to an offer, and whole messages in and out.
#
# Rules: no state between messages in either direction (both sides agree on no context takeover), so a connection costs
# no memory for it and one compressed message serves all subscribers with the same window. Work and memory of inflating
# are bounded by the caller's limit, negotiating by the header's length. igzip (`isal`) compresses, or Python's `zlib`
# where there is none; they write different bytes that mean the same. `zlib` inflates.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from realtime_communication._core.base.memory cimport Slice


cdef struct DeflateOffer:        # what was agreed on
    bint accepted                # else the other fields mean nothing
    uint8_t server_window_bits   # 9..15: the window to compress with
    bint server_window_asked     # the client named it, so the answer does too


# Reads the value of one Sec-WebSocket-Extensions header and takes the first acceptable offer in it. An offer that is
# malformed or asks for what we cannot do is passed over. With several headers: call for each until one is accepted.
cdef void deflate_negotiate(Slice header, DeflateOffer* out) noexcept nogil
# The value of the answer's Sec-WebSocket-Extensions header for an accepted offer. Raises MemoryError.
cdef bytes deflate_response(const DeflateOffer* offer)

# The payload of a message with RSV1, inflated; or None with `failure` set to the close code: 1009 above `limit` bytes,
# 1007 for what is no whole compressed message, 1011 without memory. Raises nothing. `failure` is 0 otherwise.
# A final block (BFINAL) may end the message, with or without the empty block of RFC 7692, 7.2.3.4 behind it; anything
# else behind it is refused. An empty payload counts as an empty message: zlib makes one of it for some clients.
cdef object inflate_message(const uint8_t* data, size_t size, size_t limit, int* failure)
# A message as it goes into a frame with RSV1, for peers that allow a window of `window_bits` (9..15) or larger.
# Raises MemoryError.
cdef bytes deflate_message(const uint8_t* data, size_t size, int window_bits)
# The bytes as one gzip frame (RFC 1952), as fast as deflate_message. Raises MemoryError.
cdef bytes gzip_frame(const uint8_t* data, size_t size)
