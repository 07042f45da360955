"""Publications over HTTP; `http_publications.pxd` is the contract."""

from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free

from realtime_communication._core.base.memory cimport Buffer, Slice, buffer_free, buffer_init, buffer_reserve, slice_of
from realtime_communication._core.hub.admission cimport Refusal, admit_user
from realtime_communication._core.hub.authorization cimport verdict_on
from realtime_communication._core.hub.core cimport Core, Position
from realtime_communication._core.hub.direct_messages cimport (
    any_arriving,
    any_elsewhere,
    check_targets,
    inboxes_full,
    retry_after,
    send_once,
)
from realtime_communication._core.hub.idempotency cimport idempotency_key
from realtime_communication._core.hub.outcome cimport BACKPRESSURE_RETRY_MS, DRAINING_RETRY_MS, NO_RETRY, ending
from realtime_communication._core.hub.peers cimport AUTHORITY_ARRIVING, AUTHORITY_HERE, peers_authority
from realtime_communication._core.hub.permissions cimport forbidden_to_publish
from realtime_communication._core.hub.publications cimport (
    consumers_full,
    publish_once,
    replace_payload,
    transformed_payload,
)
from realtime_communication._core.hub.relay cimport Later, relay_body
from realtime_communication._core.hub.scatter cimport names, send_spread
from realtime_communication._core.hub.session cimport Patterns, patterns_new
from realtime_communication._core.hub.token_bucket cimport bucket_init
from realtime_communication._core.hub.topic_rules cimport ACT_PUBLISH, refused_by_rule
from realtime_communication._core.hub.topics cimport EPOCH_SIZE
from realtime_communication._core.hub.transforms cimport refusal_by_transform
from realtime_communication._core.hub.users cimport User, user_open
from realtime_communication._core.hub.verdicts cimport VERDICT_DENIED, VERDICT_UNKNOWN
from realtime_communication._core.wire.envelope cimport (
    ERROR_BACKPRESSURE,
    JSON_TEXT,
    REQUEST_BROADCAST,
    REQUEST_DIRECT_MESSAGE,
    EnvelopeScratch,
    Request,
    envelope_parse,
    envelope_scratch_free,
    envelope_scratch_init,
    error_name,
)
from realtime_communication._core.hub.outcome import RequestError, UndecidedError


cdef enum:
    MOVING_RETRY_MS = 200        # told to a publisher whose topic arrives here

cdef const char* MOVING = b"its home on this server is changing; try again"


cdef object not_published_over_http(int outcome):
    cdef int code = 0
    cdef const char* message = refusal_by_transform(outcome, &code)
    if message == NULL:
        return RequestError("unavailable", "out of memory; try again later", BACKPRESSURE_RETRY_MS)
    return RequestError(error_name(code).decode(), message.decode())


cdef int take_request(Core core, Slice name) except -1:
    cdef Refusal refusal
    cdef User* user = user_open(&core.users, name)
    cdef bint admitted
    if user == NULL:
        raise RequestError("unavailable", "out of memory; try again later", BACKPRESSURE_RETRY_MS)
    if user.bucket.refilled_ms == 0:
        bucket_init(&user.bucket, &core.settings.user_rate, core.now_ms)
    admitted = admit_user(core, user, &refusal)
    core.forget_user(user)
    core.counters.requests += 1
    if not admitted:
        core.counters.rate_limited += 1
        raise RequestError("rate_limited", "more requests than the limit allows", refusal.retry_after_ms)
    return 0


cdef class Body:
    """One parsed body with what its slices point into, and the rights of its sender."""

    cdef EnvelopeScratch scratch
    cdef Request request
    cdef bytes text
    cdef bytes sender
    cdef uint8_t permissions
    cdef uint64_t roles
    cdef Patterns* patterns

    def __cinit__(self, Core core, bytes text not None, identity):
        envelope_scratch_init(&self.scratch)
        self.text = text
        self.sender = (<str> identity.user_id).encode()
        self.permissions = identity.permissions
        self.roles = core.roles_of(identity)
        self.patterns = patterns_new(identity.publish_patterns)

    def __dealloc__(self):
        free(self.patterns)
        envelope_scratch_free(&self.scratch)

    cdef int parse(self, Core core, int type, bint counted=False) except -1:
        """Read the body and, unless it was `counted` before, take it from the sender's limits. Raises RequestError."""
        if not counted:
            take_request(core, self.name())
        if envelope_parse(
                &self.scratch, JSON_TEXT, <const uint8_t*> self.text, len(self.text), type, &self.request) < 0:
            core.counters.invalid += 1
            raise RequestError(error_name(self.request.error).decode(), self.request.error_message.decode())
        return 0

    cdef Slice name(self):
        return slice_of(<const uint8_t*> self.sender, len(self.sender))


cdef int check_verdict(Core core, Body parsed) except -1:
    """Raises UndecidedError when somebody has to be asked first, RequestError when he has said no."""
    cdef Slice topic = parsed.request.topic
    cdef int verdict = verdict_on(core, ACT_PUBLISH, parsed.permissions, parsed.name(), topic)
    if verdict == VERDICT_UNKNOWN:
        raise UndecidedError("publish", (<const char*> topic.data)[:topic.size].decode())
    if verdict == VERDICT_DENIED:
        core.counters.denied += 1
        raise RequestError("forbidden", "topic: you are not allowed to publish on it")
    return 0


cdef object publish_body(Core core, bytes body, object identity, bint counted):
    cdef Body parsed = Body(core, body, identity)
    cdef Position position
    parsed.parse(core, REQUEST_BROADCAST, counted)
    cdef const char* refused = forbidden_to_publish(
        parsed.permissions, parsed.patterns, parsed.request.topic, parsed.request.topic_is_all)
    if refused == NULL and not parsed.request.topic_is_all:
        refused = refused_by_rule(core.rules, ACT_PUBLISH, parsed.permissions, parsed.roles, parsed.request.topic)
    if refused != NULL:
        raise RequestError("forbidden", refused.decode())
    if core.draining:
        raise RequestError("unavailable", ending().decode(), DRAINING_RETRY_MS)
    if core.verdicts is not None and not parsed.request.topic_is_all:
        check_verdict(core, parsed)
    if consumers_full(core, parsed.request.topic):
        core.counters.backpressure += 1
        raise RequestError("backpressure", "topic: a consumer does not keep up; try again later", BACKPRESSURE_RETRY_MS)
    cdef int authority = peers_authority(&core.peers, parsed.request.topic)
    cdef int outcome = 0
    cdef bytes changed
    cdef bytes key = b""
    cdef Later later
    if authority == AUTHORITY_ARRIVING:
        raise RequestError("unavailable", MOVING.decode(), MOVING_RETRY_MS)
    if authority != AUTHORITY_HERE:
        changed = transformed_payload(core, parsed.request.topic, &parsed.request, &outcome)
        if outcome < 0:
            raise not_published_over_http(outcome)
        replace_payload(&parsed.request, changed)
        if parsed.request.idempotency_key.data != NULL:
            key = idempotency_key(parsed.name(), parsed.request.topic, parsed.request.idempotency_key)
        later = relay_body(core, parsed.name(), &parsed.request, authority, key)
        if later is None:
            raise not_published_over_http(-1)
        return later
    outcome = publish_once(core, parsed.name(), &parsed.request, NULL, &position)
    if outcome < 0:
        raise not_published_over_http(outcome)
    return {"epoch": (<const char*> position.epoch)[:EPOCH_SIZE].decode(), "offset": position.offset}


cdef object send_body(Core core, bytes body, object identity):
    cdef Body parsed = Body(core, body, identity)
    cdef const char* message = NULL
    cdef Buffer lists
    cdef uint32_t delivered_count = 0, offline_count = 0
    cdef bint wait = False
    parsed.parse(core, REQUEST_DIRECT_MESSAGE)
    cdef Request* request = &parsed.request
    cdef int code = check_targets(core, parsed.permissions, parsed.roles, parsed.patterns, request, &message)
    if code:
        if code == ERROR_BACKPRESSURE:
            core.counters.backpressure += 1
        raise RequestError(error_name(code).decode(), message.decode(),
                           None if retry_after(code) == NO_RETRY else retry_after(code))
    if inboxes_full(core, request):
        core.counters.backpressure += 1
        raise RequestError("backpressure", "to: a recipient does not keep up; try again later", BACKPRESSURE_RETRY_MS)
    cdef Later later
    if core.peers.holding and any_arriving(core, request):
        raise RequestError("unavailable", MOVING.decode(), MOVING_RETRY_MS)
    if core.peers.spread and any_elsewhere(core, request):
        later = Later()
        code = send_spread(core, NULL, parsed.name(), request, later)
        if code < 0:
            raise not_published_over_http(code)
        return later
    buffer_init(&lists)
    try:
        if buffer_reserve(&lists, 2 * request.target_count * sizeof(Slice)) < 0:
            raise MemoryError
        code = send_once(core, parsed.name(), request, <Slice*> lists.data, &delivered_count,
                         <Slice*> lists.data + request.target_count, &offline_count, &wait)
        if code < 0:
            raise not_published_over_http(code)
        return {
            "delivered": names(<Slice*> lists.data, delivered_count),
            "offline": names(<Slice*> lists.data + request.target_count, offline_count),
        }
    except MemoryError:
        raise not_published_over_http(-1) from None
    finally:
        buffer_free(&lists)
