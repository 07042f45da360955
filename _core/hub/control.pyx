"""The door for the control plane; `control.pxd` is the contract."""

import os
import random

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free, malloc

from realtime_communication._core.base.counters cimport counters_dict
from realtime_communication._core.base.memory cimport Slice, slice_of
from realtime_communication._core.base.shared cimport shared_key
from realtime_communication._core.base.table cimport TableCursor, table_start
from realtime_communication._core.hub.authorization cimport settle_verdict, take_waiting, verdict_on
from realtime_communication._core.hub.core cimport Position
from realtime_communication._core.hub.depths cimport DEPTHS, MOST_SLOWEST, survey
from realtime_communication._core.hub.dispatch cimport Dispatch
from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.http_publications cimport publish_body, send_body, take_request
from realtime_communication._core.hub.mailbox cimport mailbox_messages
from realtime_communication._core.hub.outbox cimport outbox_reply
from realtime_communication._core.hub.peers cimport AUTHORITY_HERE, peers_authority
from realtime_communication._core.hub.relay cimport relay_publish
from realtime_communication._core.hub.samples cimport samples_set_rate, samples_take
from realtime_communication._core.hub.session cimport (
    FLAG_BLOCKED,
    FLAG_COUNTED,
    FLAG_ECHO,
    PERMISSION_ADMIN,
    PERMISSION_READ,
    PERMISSION_SUBSCRIBE,
    PERMISSION_WRITE,
    SESSION_CLOSING,
    SESSION_HEAD,
    SESSION_OPEN,
    Session,
    login_text,
    session_id,
)
from realtime_communication._core.hub.shared_limits cimport shared_user_read
from realtime_communication._core.hub.token_bucket cimport TokenBucket, bucket_full_in_ms, bucket_init, bucket_remaining
from realtime_communication._core.hub.topic_rules cimport (
    ACT_HISTORY,
    ACT_PRESENCE,
    ACT_PUBLISH,
    ACT_SUBSCRIBE,
    refused_by_rule,
)
from realtime_communication._core.hub.topics cimport (
    TOPIC_PLAIN,
    Subscription,
    Topic,
    next_topic,
    store_largest,
    topic_epoch,
    topic_find,
    topic_name,
)
from realtime_communication._core.hub.users cimport User, user_find, user_id
from realtime_communication._core.hub.variants cimport variant_encoding
from realtime_communication._core.hub.verdicts cimport VERDICT_ALLOWED, VERDICT_UNKNOWN, Verdicts
from realtime_communication._core.wire.envelope cimport JSON_TEXT
from realtime_communication._core.wire.outbound cimport write_closing


ACTS = {"subscribe": ACT_SUBSCRIBE, "publish": ACT_PUBLISH}


cdef class Control(Dispatch):
    """What the control plane asks of the hub of one worker, and orders."""

    def publish_request(self, bytes body not None, identity, *, bint counted=False):  # no-cython-lint
        """Publish what came over HTTP: JSON {topic, payload, idempotency_key?}.

        `counted`: it was taken from the sender's limits before. Returns {"epoch", "offset"}. Raises RequestError with a
        code of the protocol's list, UndecidedError when somebody has to be asked whether the sender may.
        """
        self.home.refresh()
        try:
            return publish_body(self, body, identity, counted)
        finally:
            self.home.wake()

    def send_request(self, bytes body not None, identity):
        """Send what came over HTTP: JSON {to, payload, idempotency_key?}.

        Returns {"delivered", "offline"}, lists of user ids. Raises RequestError with a code of the protocol's list.
        """
        self.home.refresh()
        try:
            return send_body(self, body, identity)
        finally:
            self.home.wake()

    def ask_about(self, actions, ask, uint32_t most, uint32_t pending, uint64_t ttl_ms):
        """Let `ask(action, user, topic)` say whether users may do the `actions`, of `subscribe` and `publish`.

        It answers with a bool, which counts for `ttl_ms`, or with None: `decided` has the answer later, within 10
        seconds. At most `most` answers are remembered, and `pending` asked for at a time. Raises KeyError for another
        action.
        """
        cdef Verdicts verdicts = Verdicts(most, pending)
        for action in actions:
            verdicts.acts |= <uint8_t> (1 << <int> ACTS[action])
        verdicts.ask = ask
        verdicts.ttl_ms = ttl_ms
        self.verdicts = verdicts

    def verdict(self, str action not None, str user not None, str topic not None):
        """What was said of it and still counts, None for nothing. Nobody is asked."""
        cdef bytes name = user.encode(), text = topic.encode()
        cdef int verdict
        self.home.refresh()
        verdict = verdict_on(self, <int> ACTS[action], 0, slice_of(<const uint8_t*> name, len(name)),
                             slice_of(<const uint8_t*> text, len(text)))
        return None if verdict == VERDICT_UNKNOWN else verdict == VERDICT_ALLOWED

    def decided(self, str action not None, str user not None, str topic not None, bint allowed, uint64_t ttl_ms):
        """The answer to a question, which counts for `ttl_ms` milliseconds: those who wait for it go on."""
        cdef Session* session
        self.home.refresh()
        for token in settle_verdict(self, <int> ACTS[action], user.encode(), topic.encode(), allowed, ttl_ms):
            session = take_waiting(self, token)
            if session != NULL:
                self.go_on(session)
        self.home.wake()

    def reading_refused(self, identity, str topic not None, *, bint history):  # no-cython-lint
        """Why the rules of topics forbid `identity` to read a topic's history, or else who is present on it; None when
        they do not."""
        cdef bytes name = topic.encode()
        cdef const char* refused = refused_by_rule(
            self.rules, ACT_HISTORY if history else ACT_PRESENCE, identity.permissions, self.roles_of(identity),
            slice_of(<const uint8_t*> name, len(name)))
        return None if refused == NULL else refused.decode()

    def subscribe_user(self, str user_id not None, str topic not None, uint64_t order=0):  # no-cython-lint
        """Subscribe the live sessions of a user, whatever their tokens allow; how many are now. Each is told so.

        `order` names what is wanted, if all workers of the node are told: those on their way from one to another obey
        it once, where they arrive. Raises RequestError for a topic nobody can subscribe to.
        """
        cdef bytes name = user_id.encode()
        self.home.refresh()
        try:
            return self.order_user(name, topic, True, order) + self.count_moving(name)
        finally:
            self.home.wake()

    def unsubscribe_user(self, str user_id not None, str topic not None, uint64_t order=0):  # no-cython-lint
        """End the subscriptions of a user's live sessions; how many there were, but for sessions on their way to
        another worker. Each is told. `order` and errors as in `subscribe_user`."""
        self.home.refresh()
        try:
            return self.order_user(user_id.encode(), topic, False, order)
        finally:
            self.home.wake()

    def count_request(self, str user_id not None):  # no-cython-lint
        """Take a request that came over HTTP, and that the hub does not count by itself, from the user's limits. Raises
        RequestError when they are used up."""
        cdef bytes name = user_id.encode()
        self.home.refresh()
        take_request(self, slice_of(<const uint8_t*> name, len(name)))

    def user_limit(self, str user_id not None):  # no-cython-lint
        """The limit that a user's requests are under: (most requests at once, requests left, milliseconds until all are
        back); None when rate limiting is off."""
        cdef bytes name = user_id.encode()
        cdef User* user
        cdef TokenBucket* bucket
        cdef TokenBucket full, common
        if not self.settings.rate_limiting:
            return None
        self.home.refresh()
        user = user_find(&self.users, slice_of(<const uint8_t*> name, len(name)))
        bucket_init(&full, &self.settings.user_rate, self.now_ms)
        bucket = &user.bucket if user != NULL and user.bucket.refilled_ms else &full
        if self.shared != NULL and shared_user_read(
                self.shared, shared_key(self.shared, <const uint8_t*> name, len(name)), &common):
            bucket = &common
        return (
            bucket_remaining(&full, &self.settings.user_rate, self.now_ms),
            bucket_remaining(bucket, &self.settings.user_rate, self.now_ms),
            bucket_full_in_ms(bucket, &self.settings.user_rate, self.now_ms),
        )

    def publish_system(self, str topic not None, bytes payload not None):
        """Publish a valid JSON `payload` on a topic, as nobody. Raises MemoryError."""
        cdef bytes name = topic.encode()
        cdef Slice text = slice_of(<const uint8_t*> name, len(name))
        cdef int authority = peers_authority(&self.peers, text)
        cdef Position position
        self.home.refresh()
        if authority != AUTHORITY_HERE:
            if relay_publish(self, authority, text, TOPIC_PLAIN, slice_of(NULL, 0),
                             slice_of(<const uint8_t*> payload, len(payload)), JSON_TEXT, 0, b"", 0) < 0:
                raise MemoryError
        elif self.publish(slice_of(<const uint8_t*> name, len(name)), TOPIC_PLAIN, slice_of(NULL, 0),
                          slice_of(<const uint8_t*> payload, len(payload)), JSON_TEXT, NULL, &position) < 0:
            raise MemoryError
        self.home.wake()

    # --- what there is

    def observe(self, double rate):
        """Sample this share of all publications from now on; 0 samples none, and forgets what was not taken.

        Raises ValueError when it is not between 0 and 1, MemoryError.
        """
        if not 0 <= rate <= 1:
            raise ValueError(f"rate: {rate} is not between 0 and 1")
        if samples_set_rate(&self.samples, rate, int.from_bytes(os.urandom(8), "big")) < 0:
            raise MemoryError

    def take_samples(self):
        """The samples since they were last taken, at most 4,096, oldest first: (kind, topic, start, duration).

        The kind is `Broadcast` or `DirectMessage`, the start in nanoseconds since the epoch when its turn of the loop
        began, the duration in nanoseconds until that turn had written everything.
        """
        return samples_take(&self.samples)

    def topic_counts(self, uint32_t limit):
        """The topics with the most subscribers, at most `limit`: (topic, subscribers, offset), inboxes not counted."""
        cdef Topic** found
        cdef uint32_t count, i
        if limit == 0:
            return []
        limit = <uint32_t> min(<size_t> limit, self.store.topics.count)
        found = <Topic**> malloc((limit + 1) * sizeof(Topic*))
        if found == NULL:
            raise MemoryError
        try:
            count = store_largest(&self.store, found, limit)
            return [(text_of(topic_name(found[i])), found[i].subscribers, found[i].offset) for i in range(count)]
        finally:
            free(found)

    def connection_count(self):
        """WebSocket connections there are."""
        return self.counters.connections

    def closing_count(self):
        """Connections that are told to close, and whose sockets are still open."""
        cdef Session* session = self.sessions
        cdef uint64_t total = 0
        while session != NULL:
            total += session.state >= SESSION_CLOSING
            session = session.next
        return total

    def queued(self):
        """Messages and replies that wait in mailboxes."""
        cdef Session* session = self.sessions
        cdef uint64_t total = 0
        while session != NULL:
            total += mailbox_messages(&session.mailbox) + session.mailbox.priority_messages
            session = session.next
        return total

    def stats(self):
        """Counters and gauges by name."""
        made = counters_dict(&self.counters)
        made["topics"] = self.store.topics.count
        made["users"] = self.users.users.count
        made["members"] = self.users.members.count
        made["cached_messages"] = self.store.cached
        made["cached_bytes"] = self.store.cached_bytes
        made["idempotency_keys"] = len(self.answered)
        made["sessions"] = self.pool.live
        made["arenas"] = self.outbox.arenas.live
        made["arenas_kept"] = self.outbox.arenas.kept
        made["timers"] = self.wheel.count
        return made

    def connections(self, int limit=1000):
        """What is known of up to `limit` connections, newest first."""
        cdef Session* session = self.sessions
        made = []
        while session != NULL and len(made) < limit:
            if session.flags & FLAG_COUNTED:
                made.append(describe(self, session))
            session = session.next
        return made

    def connections_of(self, str user_id not None, int limit=1000):  # no-cython-lint
        """How many connections a user has, and what is known of up to `limit` of them, newest first."""
        cdef bytes name = user_id.encode()
        cdef User* user = user_find(&self.users, slice_of(<const uint8_t*> name, len(name)))
        cdef Session* session = user.sessions if user != NULL else NULL
        cdef int count = 0
        made = []
        while session != NULL:
            if session.flags & FLAG_COUNTED:
                count += 1
                if len(made) < limit:
                    made.append(describe(self, session))
            session = session.next_of_user
        return count, made

    def connection(self, str session_id not None, int limit=1000):  # no-cython-lint
        """One connection, as in `connections`, with what it may and up to `limit` of its topics; None when it is none.

        `expires_at` is in seconds since the epoch, `joined_at` in milliseconds. `lagging`: messages were skipped for
        it, and it is to be caught up. Inboxes are not among its topics.
        """
        cdef Session* session = self.sessions
        cdef uint64_t high, low
        try:
            number = int(session_id, 16)
        except ValueError:
            return None
        if not 0 <= number < 1 << 128:
            return None
        high, low = number >> 64, number & 0xFFFF_FFFF_FFFF_FFFF
        while session != NULL:
            if session.id_high == high and session.id_low == low and session.flags & FLAG_COUNTED:
                return described_in_full(self, session, limit)
            session = session.next
        return None

    def mailboxes(self, uint32_t limit):
        """How full mailboxes are: (depths, slowest).

        `depths` counts connections by what waits for them, messages and replies: nothing, one, two or three, four to
        seven, and so on; the last of its DEPTHS numbers is of all that have more. `slowest` are the at most `limit`
        connections with most waiting, most first, as in `connections`; those with nothing are not among them.
        """
        cdef uint64_t depths[DEPTHS]
        cdef uint32_t count = 0
        cdef uint32_t i
        cdef Session** slowest
        limit = min(limit, MOST_SLOWEST)
        slowest = <Session**> malloc((limit + 1) * sizeof(Session*))
        if slowest == NULL:
            raise MemoryError
        try:
            survey(self.sessions, depths, slowest, limit, &count)
            return [depths[i] for i in range(DEPTHS)], [describe(self, slowest[i]) for i in range(count)]
        finally:
            free(slowest)

    def topic(self, str name not None):  # no-cython-lint
        """What is known of one topic, as in `topics`; None when there is none of that name."""
        cdef bytes text = name.encode()
        cdef Topic* topic = topic_find(&self.store, slice_of(<const uint8_t*> text, len(text)))
        return describe_topic(topic) if topic != NULL else None

    def topics(self, int limit=1000):
        """What is known of up to `limit` topics."""
        cdef TableCursor cursor
        cdef Topic* topic
        made = []
        table_start(&cursor)
        while len(made) < limit:
            topic = next_topic(&self.store, &cursor)
            if topic == NULL:
                break
            made.append(describe_topic(topic))
        return made

    # --- the end of connections

    def disconnect(self, *, str session_id=None, str user_id=None, str login=None,  # no-cython-lint
                   int code=4403, str reason=""):
        """Close the connections that match all that is given; how many there were. Raises ValueError without any."""
        cdef Session* session = self.sessions
        cdef Session* following
        cdef bytes text = reason.encode()
        cdef int count = 0
        if session_id is None and user_id is None and login is None:
            raise ValueError("disconnect needs a session_id, a user_id or a login")
        self.note_disconnect(session_id, user_id, login, code, text)
        while session != NULL:
            following = session.next
            if session.flags & FLAG_COUNTED and (session_id is None or id_text(session) == session_id) and (
                    user_id is None or user_text(session) == user_id) and (
                    login is None or login_text(session.login) == login):
                self.close(session, code, text)
                count += 1
            session = following
        self.home.wake()
        return count

    def begin_drain(self, int spread_ms, str reason="server shutting down", int code=1001):
        """Refuse upgrades and publications from now on, and tell every client to come back within `spread_ms`
        milliseconds, each at another moment. `code` is what their connections will be closed with."""
        cdef Session* session = self.sessions
        cdef bytes text = reason.encode()
        self.draining = True
        self.home.refresh()
        while session != NULL:
            self.outbox.text.size = 0
            if session.state == SESSION_OPEN and not session.flags & FLAG_ECHO and write_closing(
                    &self.outbox.text, variant_encoding(session.variant), code,
                    slice_of(<const uint8_t*> text, len(text)), True, random.randint(0, spread_ms)) == 0:
                outbox_reply(&self.outbox, session, False)
            session = session.next
        self.home.wake()

    def close_all(self, int code, str reason not None):
        """Start the closing handshake on every connection."""
        cdef Session* session = self.sessions
        cdef Session* following
        cdef bytes text = reason.encode()
        self.home.refresh()
        while session != NULL:
            following = session.next
            if session.state == SESSION_HEAD:
                self.finish(session)
            self.close(session, code, text)
            session = following
        self.home.wake()


cdef str text_of(Slice text):
    return (<const char*> text.data)[:text.size].decode()


cdef str id_text(const Session* session):
    cdef uint8_t digits[32]
    session_id(session, digits)
    return (<const char*> digits)[:32].decode()


cdef str user_text(const Session* session):
    return text_of(user_id(<User*> session.user)) if session.user != NULL else None


cdef dict describe(Control hub, Session* session):
    return {
        "session_id": id_text(session),
        "user_id": user_text(session),
        "address": hub.peer_of(session),
        "transport": (<Driver> session.driver).transport(),
        "encoding": "json" if session.encoding == JSON_TEXT else "msgpack",
        "subscriptions": session.subscription_count,
        "queued": mailbox_messages(&session.mailbox),
        "replies_queued": session.mailbox.priority_messages,
        "blocked": session.flags & FLAG_BLOCKED != 0,
        "connected_ms": hub.now_ms - session.opened_ms,
        "silent_ms": hub.now_ms - session.received_ms,
    }


cdef dict described_in_full(Control hub, Session* session, int limit):
    cdef Subscription* subscription = <Subscription*> session.subscriptions
    topics = []
    while subscription != NULL and len(topics) < limit:
        topics.append({
            "topic": text_of(topic_name(subscription.topic)),
            "joined_at": subscription.joined_at,
            "watching": subscription.watching != 0,
            "lagging": subscription.lagging,
        })
        subscription = subscription.next_of_session
    bits = {
        "read": PERMISSION_READ, "write": PERMISSION_WRITE, "subscribe": PERMISSION_SUBSCRIBE, "admin": PERMISSION_ADMIN
    }
    return describe(hub, session) | {
        "login": login_text(session.login),
        "permissions": [name for name, bit in bits.items() if session.permissions & bit],
        "expires_at": session.expires_at if session.expires_at >= 0 else None,
        "topics": topics,
    }


cdef dict describe_topic(const Topic* topic):
    cdef uint8_t epoch[16]
    topic_epoch(topic, epoch)
    return {
        "topic": text_of(topic_name(topic)),
        "epoch": (<const char*> epoch)[:16].decode(),
        "offset": topic.offset,
        "subscribers": topic.subscribers,
        "cached": topic.cached,
    }
