# The outbound order: from a publication or a reply to the mailboxes of those who get it.
#
# A publication is encoded once per variant that has a subscriber, into that variant's arena, and waits as the topic's
# *run* for others to follow it; `flush_topics` walks the subscribers once per run. So 64 messages to 1,000 subscribers
# cost 64 encodings and 1,000 spans. A subscriber whose socket is full gets references to the messages instead
# (mailbox.pxd), under the bound and the overflow strategy of the settings.
#
# Rules: whatever would change who is subscribed, or must stand behind what was published before, flushes the topic
# first. A driver that fails to write is not dealt with here: its session goes to `broken`, for the hub to end after the
# walk.

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t

from realtime_communication._core.base.counters cimport Counters
from realtime_communication._core.hub.backlog cimport Outbox
from realtime_communication._core.hub.message cimport Message
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.settings cimport Settings
from realtime_communication._core.hub.topics cimport Topic, TopicStore


cdef void outbox_init(Outbox* outbox, Settings* settings, Counters* counters, TopicStore* store,
                      size_t kept_arenas) noexcept nogil
cdef void outbox_free(Outbox* outbox) noexcept nogil

# Puts the session on the list of those to write.
cdef void outbox_touch(Outbox* outbox, Session* session) noexcept nogil
# Sends the envelope in `text` to one session, ahead of its data (`in_order` False) or behind it. 0, or -1 without
# memory: the session is closed at the end of the turn then.
cdef int outbox_reply(Outbox* outbox, Session* session, bint in_order) noexcept

# A message that topic_append has numbered goes to the topic's subscribers, except the session whose serial is
# `message.excluded`. Always 0: for whom there is no memory it waits, or is skipped as for slow consumers, who are told.
cdef int outbox_publish(Outbox* outbox, Topic* topic, Message* message) noexcept
cdef void outbox_flush_topic(Outbox* outbox, Topic* topic) noexcept
# Every subscriber is told, behind what waits for it, that the topic goes on where it stands now: in another epoch, or
# (`missed` above 0) so many messages further on in the same one.
cdef void outbox_tell_reset(Outbox* outbox, Topic* topic, uint64_t missed) noexcept
cdef void outbox_flush_topics(Outbox* outbox) noexcept

# A blocked session's bytes have all left: encodes more from its backlog. False when nothing is left, and the session is
# no longer blocked.
cdef bint outbox_refill(Outbox* outbox, Session* session) noexcept
