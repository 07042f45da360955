# Broadcast, and what all publications have in common: once or again, transformed, here or where the topic is at home.
#
# Rules: what is published is published through `core`; a request that is refused has published nothing. Bytes of the
# request are borrowed; nothing here keeps them.

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.core cimport Core, Position
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.wire.envelope cimport Request


# A Broadcast of a connection; an Outcome.
cdef int broadcast(Core core, Session* session, const Request* request) noexcept
# Publishes a Broadcast on a topic that is at home here, or finds the answer it got before; `session` is NULL over HTTP.
# 0, or as `publish_transformed`.
cdef int publish_once(Core core, Slice sender, const Request* request, Session* session, Position* position) noexcept
# What another worker asks for. `key` is b"" or an idempotency key with its scope: answered before, nothing is published
# again. 0, or -1 without memory. `reached`: whether the user has a session on this node.
cdef int publish_keyed(Core core, Slice topic, int kind, Slice sender, Slice payload, int encoding, bytes key,
                       Position* position) noexcept
cdef int publish_inbox(Core core, Slice user, Slice sender, Slice payload, int encoding, bytes key, Position* position,
                       bint* reached) noexcept

# Overflow `block`: whether a subscriber of the topic has no room; what is pending is handed out first.
cdef bint consumers_full(Core core, Slice name) noexcept
# What a transform makes of the payload, None when it stays as it is; `outcome` is negative when it is refused. Raises
# MemoryError.
cdef bytes transformed_payload(Core core, Slice topic, const Request* request, int* outcome)
# `payload` is JSON, None for the request's own; the request borrows it.
cdef void replace_payload(Request* request, bytes payload) noexcept
# The Error of a negative outcome.
cdef void not_published(Core core, Session* session, const Request* request, int outcome) noexcept
