"""Requests that somebody outside has to allow; `authorization.pxd` is the contract."""

from libc.stdint cimport uint32_t, uint64_t, uint8_t

from realtime_communication._core.base.memory cimport Slice, bytes_of, slice_of
from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.outcome cimport NO_RETRY, OUTCOME_ASKED, OUTCOME_DONE, no_memory
from realtime_communication._core.hub.peers cimport (
    AUTHORITY_HERE,
    WAIT_VERDICT,
    Waiting,
    waiting_add,
    waiting_find,
    waiting_remove,
)
from realtime_communication._core.hub.session cimport FLAG_ASKED, PERMISSION_ADMIN, Session
from realtime_communication._core.hub.topic_rules cimport ACT_PUBLISH, ACT_SUBSCRIBE
from realtime_communication._core.hub.topics cimport TOPIC_PLAIN
from realtime_communication._core.hub.users cimport User, user_id
from realtime_communication._core.hub.verdicts cimport (
    VERDICT_ALLOWED,
    VERDICT_KEY,
    VERDICT_UNKNOWN,
    Verdicts,
    verdict_key,
)
from realtime_communication._core.wire.envelope cimport ERROR_FORBIDDEN, ERROR_UNAVAILABLE, Request

ACT_NAMES = {ACT_SUBSCRIBE: "subscribe", ACT_PUBLISH: "publish"}

cdef const char* TOO_MANY = b"topic: too many requests wait for leave to go on; try again"


cdef bint is_asked_about(Verdicts verdicts, int act, uint8_t permissions, Slice topic) noexcept:
    return verdicts.acts >> act & 1 and not permissions & PERMISSION_ADMIN and topic.data[0] != b"@"


cdef int verdict_on(Core core, int act, uint8_t permissions, Slice user, Slice topic) noexcept:
    cdef uint8_t place[VERDICT_KEY]
    if core.verdicts is None or not is_asked_about(core.verdicts, act, permissions, topic):
        return VERDICT_ALLOWED
    return core.verdicts.look(verdict_key(act, user, topic, place), core.now_ms)


cdef int authorize(Core core, Session* session, const Request* request, int act) noexcept:
    cdef Verdicts verdicts = core.verdicts
    cdef uint8_t place[VERDICT_KEY]
    cdef Slice user = user_id(<User*> session.user)
    cdef Slice key
    cdef int verdict
    if not is_asked_about(verdicts, act, session.permissions, request.topic):
        return AUTHORIZED
    key = verdict_key(act, user, request.topic, place)
    verdict = verdicts.look(key, core.now_ms)
    if verdict == VERDICT_UNKNOWN:
        try:
            return ask(core, session, request, act, key)
        except MemoryError:
            no_memory(core, session, request)
            return OUTCOME_DONE
    if verdict == VERDICT_ALLOWED:
        return AUTHORIZED
    return refuse(core, session, request, act)


cdef int refuse(Core core, Session* session, const Request* request, int act) noexcept:
    cdef const char* why = b"topic: you are not allowed to subscribe to it"
    if act == ACT_PUBLISH:
        why = b"topic: you are not allowed to publish on it"
    core.counters.denied += 1
    core.error(session, request, ERROR_FORBIDDEN, why, NO_RETRY, NULL)
    return OUTCOME_DONE


cdef int ask(Core core, Session* session, const Request* request, int act, Slice key) except -2:
    """Park the request until there is an answer; there may be one at once. Raises MemoryError."""
    cdef Verdicts verdicts = core.verdicts
    cdef bytes name = bytes_of(key)
    cdef list tokens = verdicts.asked.get(name)
    cdef Waiting* waiting
    if tokens is None and len(verdicts.asked) >= verdicts.most_asked:
        core.error(session, request, ERROR_UNAVAILABLE, TOO_MANY, ASK_RETRY_MS, NULL)
        return OUTCOME_DONE
    waiting = waiting_add(&core.peers, WAIT_VERDICT, AUTHORITY_HERE, session, request.id_kind, request.encoding,
                          request.id, request.topic, TOPIC_PLAIN, core.now_ms)
    if waiting == NULL:
        raise MemoryError
    if tokens is not None:
        tokens.append(waiting.token)
        return OUTCOME_ASKED
    verdicts.asked[name] = [waiting.token]
    try:
        answer = verdicts.ask(ACT_NAMES[act], bytes_of(user_id(<User*> session.user)).decode(),
                              bytes_of(request.topic).decode())
    except Exception:
        answer = False               # it was to be answered, not to fail: nobody is let through by that
    if answer is None:
        return OUTCOME_ASKED
    del verdicts.asked[name]
    waiting_remove(&core.peers, waiting)
    verdicts.remember(key, answer, core.now_ms + verdicts.ttl_ms)
    return AUTHORIZED if answer else refuse(core, session, request, act)


cdef object settle_verdict(Core core, int act, bytes user, bytes topic, bint allowed, uint64_t ttl_ms):
    cdef Verdicts verdicts = core.verdicts
    cdef uint8_t place[VERDICT_KEY]
    cdef Slice key
    if verdicts is None or len(user) > 254 or len(topic) > 255:
        return ()
    key = verdict_key(act, slice_of(<const uint8_t*> user, len(user)), slice_of(<const uint8_t*> topic, len(topic)),
                      place)
    verdicts.remember(key, allowed, core.now_ms + ttl_ms)
    return verdicts.asked.pop(bytes_of(key), ())


cdef Session* take_waiting(Core core, uint64_t token) noexcept:
    cdef Waiting* waiting = waiting_find(&core.peers, token)
    cdef Session* session
    if waiting == NULL:
        return NULL
    session = waiting.session
    waiting_remove(&core.peers, waiting)
    if session != NULL:
        session.flags &= ~<uint32_t> FLAG_ASKED
    return session
