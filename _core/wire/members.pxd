# The members of one map and the items of one array, walked one after the other without objects, in either encoding.
#
# Rules: no field, no request. The containers within a member's value are validated and skipped; whoever wants to see
# into them opens the value as a container of its own. A key comes as the text that it means, a value as the bytes
# that it is.
#
# Strings with escapes need a place for what they mean. Its room is made at once, for all strings of the input
# together, so that no text moves when the next one is unescaped: every string of an input may be asked for once, and
# none is longer than what stands in the input.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t

from realtime_communication._core.base.memory cimport Buffer, Slice
from realtime_communication._core.wire.msgpack_scan cimport MsgpackToken


cdef enum:
    MEMBERS_NO_MEMORY = -100     # beside the negative errors of the scanners


cdef struct Strings:             # where unescaped strings go
    Buffer* text                 # borrowed; empty before an input's first string
    size_t room                  # bytes of the whole input


cdef struct Container:           # a map or an array that is being walked
    Strings* strings
    int encoding                 # Encoding
    const uint8_t* data
    size_t size
    size_t at                    # JSON: behind the opening bracket or the last value; MessagePack: at the next token
    int depth                    # containers open, this one included
    bint is_map
    bint started                 # JSON: something was read
    uint32_t left                # MessagePack: items or pairs still to come


# Opens the container that `data` begins with (JSON: behind space). True when it is of the kind wanted; false also
# when there is none.
cdef bint open_container(Container* walk, Strings* strings, int encoding, Slice data, bint is_map,
                         int depth) noexcept nogil
# Reads the next member of a map, or the next item of an array (`key` stays then). 1; 0 at the end, with `walk.at`
# behind the container; or a JsonError, a MsgpackError, MEMBERS_NO_MEMORY.
cdef int next_member(Container* walk, Slice* key, Slice* value) noexcept nogil
# The scalar of a walked value, or which kind of container it is. For JSON an integer beyond 64 bits and every number
# with a sign, a point or an exponent counts as MSGPACK_FLOAT, without its value. 0 or MEMBERS_NO_MEMORY.
cdef int read_value(Strings* strings, int encoding, Slice value, MsgpackToken* token) noexcept nogil
