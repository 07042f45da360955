# What the operator allows and keeps on topics: `[[topics]]` of the configuration.
#
# Rules: the first rule whose pattern matches a topic counts, and no other. Which one that is, is found once and kept by
# the topic's name, so that a request costs one look into a table; a hub without rules has no TopicRules at all. A role
# narrows what a token allows and never widens it; the role admin may always.
#
# Roles are names in tokens. Those that a rule names have a bit each, and a session keeps the bits of its own: another
# set of rules gives them other bits, see `moved`. A role that no rule named when the session was let in counts with
# its next token.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.base.table cimport Table


cdef enum Act:
    ACT_SUBSCRIBE = 0
    ACT_PUBLISH = 1
    ACT_HISTORY = 2              # to read what was published
    ACT_PRESENCE = 3             # to be told who is there


cdef enum:
    MAX_RULES = 256
    MAX_RULE_ROLES = 64          # different roles in all rules
    KNOWN_TOPICS = 8192          # names whose rule is known; one more, and all are looked for again


cdef struct TopicRule:
    Slice pattern                # a trailing '*' matches any rest
    bint subscribe_limited       # only `subscribe_roles` may
    bint publish_limited
    uint64_t subscribe_roles     # bits
    uint64_t publish_roles
    bint history                 # messages are kept
    bint presence                # who is there is told
    uint32_t history_size        # messages of a topic that are kept at most; 0: as many as the cache holds
    uint32_t history_ms          # how long; 0: as long as the cache holds them


cdef class TopicRules:
    cdef uint32_t count
    cdef TopicRule* items
    cdef readonly bint bounds_history    # a rule says something about the history
    cdef list texts              # what the patterns point into
    cdef readonly dict roles     # name -> its bit's number
    cdef Table known

    # The bits of these names. Raises TypeError for what is no collection of str.
    cdef uint64_t bits_of(self, object names) except? 0
    # The names of these bits.
    cdef list names_of(self, uint64_t bits)
    # The bits here of the roles that have `bits` in `before`, which may be None.
    cdef uint64_t moved(self, TopicRules before, uint64_t bits) except? 0
    cdef const TopicRule* find(self, Slice topic) noexcept
    # All names are looked for again.
    cdef void forget(self) noexcept


# The rules of objects with the attributes of the control plane's `TopicRule`; None for none. Raises ValueError naming
# what is out of range.
cdef TopicRules topic_rules_read(object source)

# NULL: no rule says anything of the topic.
cdef inline const TopicRule* rule_of(TopicRules rules, Slice topic) noexcept:
    if rules is None:
        return NULL
    return rules.find(topic)

# Why a rule forbids the act to somebody with these Permission bits and roles, for people; NULL: none does.
cdef const char* refused_by(const TopicRule* rule, int act, uint8_t permissions, uint64_t roles,
                            Slice topic) noexcept nogil

cdef inline const char* refused_by_rule(TopicRules rules, int act, uint8_t permissions, uint64_t roles,
                                        Slice topic) noexcept:
    if rules is None:
        return NULL
    return refused_by(rules.find(topic), act, permissions, roles, topic)
