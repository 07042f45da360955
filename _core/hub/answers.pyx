"""Answers to what this worker has asked; `answers.pxd` is the contract."""

from cpython.ref cimport Py_DECREF
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport strlen

from realtime_communication._core.base.memory cimport Slice, buffer_free, bytes_of, slice_of
from realtime_communication._core.hub.feed cimport CODE_MOVED, MOVING, RETRY_MS
from realtime_communication._core.hub.feed cimport Feed
from realtime_communication._core.hub.history cimport history_answered
from realtime_communication._core.hub.http_requests cimport given_answered
from realtime_communication._core.hub.outbox cimport outbox_reply
from realtime_communication._core.hub.outcome cimport OUTCOME_ASKED, no_memory
from realtime_communication._core.hub.outcome cimport start as reply_buffer
from realtime_communication._core.hub.peers cimport (
    AUTHORITY_ARRIVING,
    AUTHORITY_NOBODY,
    FRAME_INTEREST,
    FRAME_PAGE,
    FRAME_SUBSCRIBE,
    FRAME_SUBSCRIBED,
    WAIT_ACK,
    WAIT_GIVEN,
    WAIT_MOVED,
    WAIT_PAGE,
    WAIT_PRESENCE,
    WAIT_RELAY,
    WAIT_SUBSCRIBED,
    WAIT_SYNC,
    WAIT_TARGET,
    WAIT_VERDICT,
    WAIT_WELCOME,
    Body,
    Frame,
    Group,
    Waiting,
    waiting_remove,
    waiting_topic,
)
from realtime_communication._core.hub.relay cimport (
    Later,
    ask_subscribe,
    ask_welcome,
    end_feed,
    epoch_number,
    is_used,
    request_of,
)
from realtime_communication._core.hub.scatter cimport group_answered
from realtime_communication._core.hub.session cimport FLAG_ASKED, FLAG_WITHHELD, SESSION_OPEN, Inbound, Session
from realtime_communication._core.hub.stored_messages cimport next_body
from realtime_communication._core.hub.subscriptions cimport is_covered, subscribe_answered
from realtime_communication._core.hub.topic_rules cimport TopicRule, rule_of
from realtime_communication._core.hub.topics cimport (
    EPOCH_SIZE,
    TOPIC_PLAIN,
    Topic,
    epoch_text,
    topic_find,
    topic_name,
    topic_release,
    topic_reset,
)
from realtime_communication._core.hub.variants cimport variant_encoding
from realtime_communication._core.wire.envelope cimport ERROR_UNAVAILABLE, Request, envelope_parse, error_name
from realtime_communication._core.wire.outbound cimport write_ack
from realtime_communication._core.hub.outcome import RequestError


cdef void show_by_rule(const TopicRule* rule, int64_t history, uint64_t wall_ms, uint64_t newest, Frame* bodies,
                       uint64_t* first, bint* recovered) noexcept nogil:
    """Leave out what the rule does not show any more; the upstream keeps it for those who were subscribed all along.
    With something left out nothing was recovered, and the newest `history` messages are what is answered."""
    cdef Frame rest = bodies[0]
    cdef Body body
    cdef uint64_t at = first[0]
    cdef uint64_t least = at
    if rule.history_size and newest >= rule.history_size:
        least = newest + 1 - rule.history_size
    while next_body(&rest, &body):
        if at >= least and not (rule.history_ms and body.ts + rule.history_ms < wall_ms):
            break
        bodies[0] = rest
        at += 1
    if at == first[0]:
        return
    recovered[0] = False
    while newest + 1 - at > <uint64_t> max(history, 0) and next_body(bodies, &body):
        at += 1
    first[0] = at


cdef class Answers(Feed):

    def __cinit__(self, str node_id not None):
        self.inbound = Inbound()

    def __dealloc__(self):
        while self.peers.oldest != NULL:
            self.drop_waiting(self.peers.oldest)

    cdef void drop_waiting(self, Waiting* waiting) noexcept:
        """Take it out; a request over HTTP must have been answered."""
        cdef Topic* topic
        cdef Later later
        if waiting.kind in (WAIT_SUBSCRIBED, WAIT_PAGE, WAIT_SYNC, WAIT_GIVEN, WAIT_MOVED) or (
                waiting.kind == WAIT_RELAY and waiting.asked == FRAME_SUBSCRIBE):
            topic = topic_find(&self.store, waiting_topic(waiting))
            if topic != NULL and topic.asking:
                topic.asking -= 1
                topic_release(&self.store, topic)
        if waiting.later != NULL:
            later = <Later> waiting.later
            waiting.later = NULL
            Py_DECREF(later)
        waiting_remove(&self.peers, waiting)

    cdef void acked(self, Waiting* waiting, uint64_t epoch, uint64_t offset, bint reached) noexcept:
        cdef Request request
        cdef uint8_t text[EPOCH_SIZE]
        cdef Session* session = waiting.session
        cdef Group* group = waiting.group
        cdef Later later = <Later> waiting.later if waiting.later != NULL else None
        request_of(waiting, &request)
        if waiting.kind == WAIT_RELAY:
            self.answer_ack(waiting.peer, waiting.peer_token, epoch, offset, reached)
        elif waiting.kind == WAIT_TARGET:
            group.reached[waiting.target] = reached
            group_answered(self, session, group, &request, later)
        elif waiting.kind == WAIT_WELCOME:
            if session != NULL:
                self.let_out(session)
        elif waiting.kind == WAIT_ACK:
            epoch_text(epoch, text)
            if later is not None:
                later.settle({"epoch": (<const char*> text)[:EPOCH_SIZE].decode(), "offset": offset}, None)
            elif session != NULL and request.id_kind and write_ack(
                    reply_buffer(self), variant_encoding(session.variant), &request, request.topic,
                    slice_of(text, EPOCH_SIZE), offset) == 0:
                outbox_reply(&self.outbox, session, False)
        else:
            return
        self.drop_waiting(waiting)

    cdef void refused(self, Waiting* waiting, int code, Slice text, int64_t retry) noexcept:
        cdef Request request
        cdef Session* session = waiting.session
        cdef Group* group = waiting.group
        cdef Later later = <Later> waiting.later if waiting.later != NULL else None
        cdef int kind = waiting.kind
        cdef bytes message = bytes_of(text) + b"\0"
        cdef str why
        if kind == WAIT_MOVED and self.place_refused(waiting):
            return
        if kind == WAIT_WELCOME:
            self.welcome_refused(waiting, code)
            return
        if kind == WAIT_SYNC:
            self.sync_refused(waiting)
            return
        request_of(waiting, &request)
        if code == CODE_MOVED and session != NULL and kind in (WAIT_SUBSCRIBED, WAIT_PAGE, WAIT_PRESENCE):
            # Handled again in a moment, when this worker has heard of the new home too.
            session.flags &= ~<uint32_t> FLAG_ASKED
            self.wait(session)
            self.unsynced = True
            self.drop_waiting(waiting)
            return
        if code == CODE_MOVED:
            code = ERROR_UNAVAILABLE
        if kind == WAIT_RELAY:
            self.answer_refuse(waiting.peer, waiting.peer_token, code, <const char*> message, retry)
        elif kind == WAIT_TARGET:
            group.code = code
            group_answered(self, session, group, &request, later)
        elif later is not None:
            why = bytes_of(text).decode()
            later.settle(None, RequestError(error_name(code).decode(), why, max(retry, 0)))
        elif session != NULL and kind != WAIT_GIVEN:
            self.error(session, &request, code, <const char*> message, retry, NULL)
            if kind in (WAIT_SUBSCRIBED, WAIT_PAGE, WAIT_PRESENCE, WAIT_VERDICT):
                session.flags &= ~<uint32_t> FLAG_ASKED
                buffer_free(&session.parked)
                self.go_on(session)
        self.drop_waiting(waiting)

    cdef void sync_refused(self, Waiting* waiting) noexcept:
        cdef Topic* topic = topic_find(&self.store, waiting_topic(waiting))
        if topic != NULL and topic.asking:
            topic.asking -= 1
            topic_release(&self.store, topic)
        waiting.kind = 0
        waiting_remove(&self.peers, waiting)
        self.unsynced = True     # asked again with the next tick

    cdef void welcome_refused(self, Waiting* waiting, int code) noexcept:
        if code == CODE_MOVED and waiting.session != NULL and waiting.session.flags & FLAG_WITHHELD:
            waiting.authority = AUTHORITY_NOBODY  # with the next tick this worker has heard of the new home too
            self.unsynced = True
            return
        if waiting.session != NULL:
            self.let_out(waiting.session)  # it is served all the same, as far as this worker can
        self.drop_waiting(waiting)

    cdef void ask_welcomes_again(self) noexcept:
        cdef Waiting* waiting = self.peers.oldest
        cdef Waiting* following
        while waiting != NULL:
            following = waiting.next
            if waiting.kind == WAIT_WELCOME and waiting.authority == AUTHORITY_NOBODY:
                if waiting.session != NULL and waiting.session.flags & FLAG_WITHHELD and not (
                        ask_welcome(self, waiting.session)):
                    self.let_out(waiting.session)
                self.drop_waiting(waiting)
            waiting = following

    cdef void place_answered(self, Waiting* waiting, Topic* topic, bint recovered, Frame* bodies,
                             uint64_t first) noexcept:
        pass

    cdef bint place_refused(self, Waiting* waiting) noexcept:
        return False

    cdef void end_place(self, Waiting* waiting) noexcept:
        self.drop_waiting(waiting)

    cdef bint resume_parked(self, Session* session) noexcept:
        session.flags &= ~<uint32_t> FLAG_ASKED
        return session.state == SESSION_OPEN and envelope_parse(
            &self.inbound.scratch, session.encoding, session.parked.data, session.parked.size, 0,
            &self.inbound.request) == 0

    cdef void subscribe_settled(self, Waiting* waiting, uint64_t epoch, uint64_t offset, bint recovered, uint64_t first,
                                Slice bodies) noexcept:
        cdef Topic* topic = topic_find(&self.store, waiting_topic(waiting))
        cdef Session* session = waiting.session
        cdef Frame rest = frame_of(bodies)
        if topic == NULL or waiting.kind not in (
                WAIT_SUBSCRIBED, WAIT_SYNC, WAIT_RELAY, WAIT_GIVEN, WAIT_MOVED, WAIT_WELCOME):
            self.drop_waiting(waiting)
            return
        if waiting.authority != topic.authority and topic.authority != AUTHORITY_ARRIVING:
            # The topic has moved since: whoever answers does not feed this worker any more.
            self.refused(waiting, CODE_MOVED, slice_of(MOVING, strlen(MOVING)), RETRY_MS)
            return
        self.catch_up(waiting, topic, epoch, offset, recovered, first, &rest)
        if waiting.kind == WAIT_RELAY and waiting.asked == FRAME_INTEREST:
            self.answer_ack(waiting.peer, waiting.peer_token, epoch, offset, True)
        elif waiting.kind == WAIT_RELAY:
            self.gain_interest(waiting.peer, topic)
            self.answer_bodies(waiting.peer, FRAME_SUBSCRIBED, waiting.peer_token, epoch, offset, recovered, first,
                               bodies)
        elif waiting.kind == WAIT_WELCOME and session != NULL:
            self.let_out(session)
        elif waiting.kind == WAIT_GIVEN and session != NULL:
            given_answered(self, session, topic_name(topic))
        elif waiting.kind == WAIT_SUBSCRIBED and session != NULL:
            if self.resume_parked(session) and not self.answer_subscribe(waiting, topic, recovered, &rest, first):
                session.flags |= FLAG_ASKED
                self.drop_waiting(waiting)
                return
            buffer_free(&session.parked)
            self.go_on(session)
        elif waiting.kind == WAIT_MOVED:
            self.place_answered(waiting, topic, recovered, &rest, first)
        if not is_used(self, topic):
            end_feed(self, topic)
        if waiting.kind == WAIT_MOVED:
            self.end_place(waiting)
        else:
            self.drop_waiting(waiting)

    cdef void catch_up(self, Waiting* waiting, Topic* topic, uint64_t epoch, uint64_t offset, bint recovered,
                       uint64_t first, Frame* bodies) noexcept:
        cdef Body body
        if topic.synced:
            if topic.epoch != epoch:
                self.reset(topic, epoch, offset)
            return
        if waiting.kind == WAIT_SYNC and recovered and topic.epoch == epoch:
            # Those who are subscribed already get what they have missed as if nothing had happened.
            while next_body(bodies, &body):
                if first == topic.offset + 1:
                    self.deliver(topic, first, &body)
                first += 1
        if topic.epoch != epoch or topic.offset != offset:
            if topic.offset or (topic.kind == TOPIC_PLAIN and is_used(self, topic)):
                self.reset(topic, epoch, offset)
            else:
                topic_reset(&self.store, topic, epoch, offset)
        topic.synced = True
        topic.foreign = True

    cdef bint answer_subscribe(self, Waiting* waiting, Topic* topic, bint recovered, Frame* bodies,
                               uint64_t first) noexcept:
        """The request that was parked. False when its authority has to be asked once more."""
        cdef const Request* request = &self.inbound.request
        cdef const TopicRule* rule = rule_of(self.rules, request.topic)
        cdef int outcome
        if rule != NULL and not rule.history:
            self.inbound.request.has_position = False  # as `subscribe` has it
            self.inbound.request.history = -1
        if is_covered(topic, request.has_position, epoch_number(request.epoch), request.offset, request.history):
            subscribe_answered(self, waiting.session, request, topic, recovered, NULL, first)
        elif waiting.asked:      # the mirror has let go of it since
            outcome = ask_subscribe(self, waiting.session, request, topic)
            if outcome == OUTCOME_ASKED:
                return False
            no_memory(self, waiting.session, request)
        else:
            if rule != NULL and rule.history:
                show_by_rule(rule, request.history, self.wall_ms, topic.offset, bodies, &first, &recovered)
            subscribe_answered(self, waiting.session, request, topic, recovered, bodies, first)
        return True

    cdef void history_settled(self, Waiting* waiting, uint64_t epoch, uint64_t offset, uint64_t first,
                              Slice bodies) noexcept:
        cdef Session* session = waiting.session
        cdef Frame rest = frame_of(bodies)
        if waiting.kind == WAIT_RELAY:
            self.answer_bodies(waiting.peer, FRAME_PAGE, waiting.peer_token, epoch, offset, False, first, bodies)
        elif waiting.kind == WAIT_PAGE and session != NULL:
            if self.resume_parked(session):
                history_answered(self, session, &self.inbound.request, epoch, offset, &rest, first)
            buffer_free(&session.parked)
            self.go_on(session)
        self.drop_waiting(waiting)
