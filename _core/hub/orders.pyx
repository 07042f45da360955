"""What operators want of sessions that are on their way; `orders.pxd` is the contract."""

from collections import deque

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from realtime_communication._core.base.memory cimport Buffer, Slice, slice_of
from realtime_communication._core.hub.http_requests cimport checked_topic, subscribe_session, unsubscribe_session
from realtime_communication._core.hub.peers cimport Frame, add_u32, add_u64, take_number
from realtime_communication._core.hub.places cimport Places
from realtime_communication._core.hub.session cimport FLAG_ARRIVING, SESSION_OPEN, Session, login_text, session_id
from realtime_communication._core.hub.users cimport User, user_find, user_id

cdef enum:
    WINDOW_MS = 10000            # for a session to arrive that was on its way when the order was given
    MOST = 1000                  # orders remembered


cdef class Orders(Places):

    def __cinit__(self, str node_id not None):
        self.sent_away = deque(maxlen=MOST)
        self.given = deque(maxlen=MOST)
        self.obeyed = deque(maxlen=MOST)

    cdef void note_disconnect(self, object named, object user, object login, int code, bytes reason) noexcept:
        if not self.peers.spread:
            return
        try:
            self.sent_away.append((self.now_ms, named, user, login, code, reason))
        except MemoryError:
            pass

    cdef bint is_sent_away(self, Session* session, bytes user) noexcept:
        """Closes a session that was to be closed while it was on its way."""
        cdef uint8_t digits[32]
        cdef uint64_t at
        if not self.sent_away:
            return False
        session_id(session, digits)
        name = (<const char*> digits)[:32].decode()
        login = login_text(session.login)
        for at, its_id, its_user, its_login, code, reason in self.sent_away:
            if at + WINDOW_MS >= self.now_ms and session.opened_ms <= at and (
                    its_id is None or its_id == name) and (
                    its_user is None or its_user == user.decode()) and (its_login is None or its_login == login):
                self.close(session, code, <bytes> reason)
                return True
        return False
    # --- to subscribe and to unsubscribe

    cdef int order_user(self, bytes user, str topic, bint subscribes, uint64_t order) except -1:
        cdef bytes name = checked_topic(topic)
        cdef User* found = user_find(&self.users, slice_of(<const uint8_t*> user, len(user)))
        cdef Session* session = found.sessions if found != NULL else NULL
        cdef Session* following
        cdef int count = 0
        if self.peers.spread and order:
            self.given.append((self.now_ms, order, user, name, subscribes))
        while session != NULL:
            following = session.next_of_user
            if session.state == SESSION_OPEN and not session.flags & FLAG_ARRIVING:
                if self.has_obeyed(session, order):
                    count += subscribes
                else:
                    count += self.obey(session, name, subscribes)
            session = following
        return count

    cdef bint obey(self, Session* session, bytes topic, bint subscribes) except -1:
        if subscribes:
            return subscribe_session(self, session, topic)
        return unsubscribe_session(self, session, topic)

    cdef bint has_obeyed(self, Session* session, uint64_t order) noexcept:
        for _, its_order, serial in self.obeyed:
            if its_order == order and serial == session.serial:
                return order != 0
        return False

    cdef int pack_orders(self, Buffer* out, Session* session) except -1:
        cdef Slice name = user_id(<User*> session.user)
        cdef bytes user = (<const char*> name.data)[:name.size]
        cdef set known = {order for _, order, its_user, _, _ in self.given if its_user == user}
        cdef uint64_t order
        cdef int result
        known.update([order for _, order, serial in self.obeyed if serial == session.serial])
        result = add_u32(out, <uint32_t> len(known))
        for order in known:
            result = add_u64(out, order)
        if result < 0:
            raise MemoryError
        return 0

    cdef int unpack_orders(self, Session* session, Frame* frame) except -1:
        cdef bint ok = True
        cdef uint64_t count = take_number(frame, 4, &ok), order
        while count and ok:
            order = take_number(frame, 8, &ok)
            self.obeyed.append((self.now_ms, order, session.serial))
            count -= 1
        if not ok:
            raise ValueError("not a session")
        return 0

    cdef void arrived(self, Session* session, list entry) noexcept:
        cdef uint64_t at
        try:
            for at, order, user, topic, subscribes in list(self.given):
                if at + WINDOW_MS >= self.now_ms and user == entry[1] and session.state == SESSION_OPEN and (
                        not self.has_obeyed(session, order)):
                    self.obey(session, topic, subscribes)
        except Exception:
            self.close(session, 1013, b"out of memory")
