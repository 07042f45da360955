"""What belongs to a session, as bytes; `packing.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy

from realtime_communication._core.base.memory cimport Buffer, Slice, buffer_append
from realtime_communication._core.hub.peers cimport Frame, add_u8, add_u32, add_u64, take_number, take_slice
from realtime_communication._core.hub.session cimport (
    FLAG_DEFLATE,
    FLAG_EXPIRY_TOLD,
    FLAG_PINGED,
    Patterns,
    Session,
    login_new,
    login_text,
    narrowing_new,
    publish_patterns,
    session_info,
    subscribe_patterns,
)
from realtime_communication._core.hub.settings cimport MAX_CUSTOM_LIMITS
from realtime_communication._core.hub.token_bucket cimport TokenBucket
from realtime_communication._core.hub.topic_rules cimport TopicRules
from realtime_communication._core.hub.variants cimport DEFLATE_HIGHEST, DEFLATE_LOWEST, variant_of
from realtime_communication._core.wire.compression cimport COMPRESSION_GZIP
from realtime_communication._core.wire.frames cimport frame_parser_init
from realtime_communication._core.wire.tokens cimport token_latest
from realtime_communication._core.wire.transcode cimport MSGPACK

cdef enum:
    ABSENT = 0xFFFFFFFF          # in place of a size: there is none
    NUMBERS = 8                  # of 64 bits, at the head
    HAS_ROLES = 128              # beside the permissions: names of roles follow at the end


cdef int add_text(Buffer* out, const void* data, size_t size) noexcept nogil:
    if add_u32(out, <uint32_t> size) < 0:
        return -1
    return buffer_append(out, data, size)


cdef int add_patterns(Buffer* out, const Patterns* patterns) noexcept nogil:
    cdef uint32_t i
    if patterns == NULL:
        return add_u32(out, <uint32_t> ABSENT)
    if add_u32(out, patterns.count) < 0:
        return -1
    for i in range(patterns.count):
        if add_text(out, patterns.items[i].data, patterns.items[i].size) < 0:
            return -1
    return 0


cdef object take_text(Frame* frame, bint* ok):
    cdef uint64_t size = take_number(frame, 4, ok)
    cdef Slice text
    if not ok[0] or size == <uint64_t> ABSENT:
        return None
    text = take_slice(frame, <size_t> size, ok)
    return (<const char*> text.data)[:text.size]


cdef object take_patterns(Frame* frame, bint* ok):
    cdef uint64_t count = take_number(frame, 4, ok)
    if not ok[0] or count == <uint64_t> ABSENT:
        return None
    found = []
    while count and ok[0]:
        text = take_text(frame, ok)
        if text is not None:
            found.append(text.decode())
        count -= 1
    return found

cdef int pack_session(Buffer* out, const Session* session, TopicRules rules, uint64_t now_ms) except -1:
    cdef uint8_t permissions = <uint8_t> (session.permissions | (HAS_ROLES if session.roles else 0))
    cdef bint has_custom = session.custom != NULL
    cdef uint64_t number
    cdef Slice info = session_info(session)
    for number in (session.id_high, session.id_low, now_ms - session.received_ms, now_ms - session.since_ms,
                   now_ms - session.opened_ms, <uint32_t> (now_ms - session.strikes_ms),
                   <uint64_t> session.expires_at, <uint64_t> session.refresh_at):
        add_u64(out, number)
    add_u32(out, session.flags)
    add_u32(out, session.strikes)
    for number in (session.variant, session.encoding, session.compression, session.window_bits, permissions,
                   has_custom):
        add_u8(out, <uint8_t> number)
    buffer_append(out, &session.bucket, sizeof(TokenBucket))
    if has_custom:
        buffer_append(out, session.custom, MAX_CUSTOM_LIMITS * sizeof(TokenBucket))
    add_patterns(out, subscribe_patterns(session))
    add_patterns(out, publish_patterns(session))
    if session.login != NULL:
        login = login_text(session.login).encode()
        add_text(out, <const char*> <bytes> login, len(<bytes> login))
    else:
        add_u32(out, <uint32_t> ABSENT)
    if info.data != NULL:
        enough(add_text(out, info.data, info.size))
    else:
        enough(add_u32(out, <uint32_t> ABSENT))
    if session.roles:
        add_names(out, rules.names_of(session.roles))
    return 0


cdef int add_names(Buffer* out, list names) except -1:
    cdef bytes text
    enough(add_u32(out, <uint32_t> len(names)))
    for name in names:
        text = (<str> name).encode()
        enough(add_text(out, <const char*> text, len(text)))
    return 0


cdef int enough(int result) except -1:
    """A buffer that had no memory once takes nothing that follows."""
    if result < 0:
        raise MemoryError
    return 0


cdef int unpack_session(Session* session, Frame* frame, TopicRules rules, uint64_t now_ms) except -1:
    cdef bint ok = True
    cdef uint64_t[NUMBERS] numbers
    cdef uint8_t permissions
    cdef int i
    for i in range(NUMBERS):
        numbers[i] = take_number(frame, 8, &ok)
    session.id_high, session.id_low = numbers[0], numbers[1]
    session.received_ms = now_ms - numbers[2]
    session.since_ms = now_ms - numbers[3]
    session.opened_ms = now_ms - numbers[4]
    session.strikes_ms = <uint32_t> (now_ms - numbers[5])
    session.expires_at, session.refresh_at = <int64_t> numbers[6], <int64_t> numbers[7]
    session.flags |= <uint32_t> take_number(frame, 4, &ok) & (FLAG_EXPIRY_TOLD | FLAG_PINGED | FLAG_DEFLATE)
    session.strikes = <uint32_t> take_number(frame, 4, &ok)
    session.variant = <uint8_t> take_number(frame, 1, &ok)
    session.encoding = <uint8_t> take_number(frame, 1, &ok)
    session.compression = <uint8_t> take_number(frame, 1, &ok)
    session.window_bits = <uint8_t> take_number(frame, 1, &ok)
    permissions = <uint8_t> take_number(frame, 1, &ok)
    session.permissions = <uint8_t> (permissions & ~<int> HAS_ROLES)
    unpack_buckets(session, frame, &ok)
    subscribe = take_patterns(frame, &ok)
    publish = take_patterns(frame, &ok)
    login = take_text(frame, &ok)
    session.login = login_new(None if login is None else login.decode())
    session.narrowing = narrowing_new(subscribe, publish, take_text(frame, &ok))
    if permissions & HAS_ROLES:
        roles = take_patterns(frame, &ok)
        session.roles = rules.bits_of(roles) if rules is not None else 0
    if not ok or not is_possible(session):
        raise ValueError("not a session")
    frame_parser_init(&session.parser, session.flags & FLAG_DEFLATE != 0)
    return 0


cdef bint is_possible(const Session* session) noexcept:
    """Whether these are numbers that a session can have: others count with them, and find tables by them."""
    cdef int i
    if session.encoding > MSGPACK or session.compression > COMPRESSION_GZIP:
        return False
    if session.window_bits and not DEFLATE_LOWEST <= session.window_bits <= DEFLATE_HIGHEST:
        return False
    if session.variant != variant_of(session.encoding, session.compression, session.window_bits):
        return False
    if not -1 <= session.expires_at <= token_latest() or not -1 <= session.refresh_at <= token_latest():
        return False
    if session.bucket.balance < 0:
        return False
    for i in range(MAX_CUSTOM_LIMITS if session.custom != NULL else 0):
        if session.custom[i].balance < 0:
            return False
    return True


cdef int unpack_buckets(Session* session, Frame* frame, bint* ok) except -1:
    cdef bint has_custom = take_number(frame, 1, ok) != 0
    cdef Slice found = take_slice(frame, sizeof(TokenBucket), ok)
    if ok[0]:
        memcpy(&session.bucket, found.data, sizeof(TokenBucket))
    if not ok[0] or not has_custom:
        return 0
    found = take_slice(frame, MAX_CUSTOM_LIMITS * sizeof(TokenBucket), ok)
    if not ok[0]:
        return 0
    session.custom = <TokenBucket*> malloc(MAX_CUSTOM_LIMITS * sizeof(TokenBucket))
    if session.custom == NULL:
        raise MemoryError
    memcpy(session.custom, found.data, MAX_CUSTOM_LIMITS * sizeof(TokenBucket))
    return 0
