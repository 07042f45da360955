"""What the operator allows and keeps on topics; `topic_rules.pxd` is the contract."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from realtime_communication._core.base.memory cimport Slice, slice_of
from realtime_communication._core.base.table cimport (
    TableCursor,
    TableEntry,
    table_add,
    table_find,
    table_free,
    table_init,
    table_next,
    table_remove,
    table_start,
)
from realtime_communication._core.hub.session cimport PERMISSION_ADMIN, pattern_matches


cdef struct Known:               # a topic that was asked about
    TableEntry entry             # keyed by the name, which follows the struct
    const TopicRule* rule


cdef class TopicRules:

    def __cinit__(self):
        self.texts = []
        self.roles = {}
        table_init(&self.known)

    def __dealloc__(self):
        self.forget()
        table_free(&self.known)
        free(self.items)

    cdef void forget(self) noexcept:
        cdef TableCursor cursor
        cdef TableEntry* entry
        table_start(&cursor)
        entry = table_next(&self.known, &cursor)
        while entry != NULL:
            table_remove(&self.known, entry)
            free(entry)
            entry = table_next(&self.known, &cursor)

    cdef uint64_t bits_of(self, object names) except? 0:
        cdef uint64_t bits = 0
        if names:
            for name in names:
                number = self.roles.get(name)
                if number is not None:
                    bits |= <uint64_t> 1 << <int> number
        return bits

    cdef list names_of(self, uint64_t bits):
        return [name for name, number in self.roles.items() if bits >> <int> number & 1]

    cdef uint64_t moved(self, TopicRules before, uint64_t bits) except? 0:
        if before is None or bits == 0:
            return 0
        return self.bits_of(before.names_of(bits))

    cdef const TopicRule* find(self, Slice topic) noexcept:
        cdef Known* known = <Known*> table_find(&self.known, topic.data, topic.size)
        cdef const TopicRule* rule = NULL
        cdef uint8_t* key
        cdef uint32_t i
        if known != NULL:
            return known.rule
        for i in range(self.count):
            if pattern_matches(self.items[i].pattern, topic):
                rule = &self.items[i]
                break
        if self.known.count >= KNOWN_TOPICS:
            self.forget()
        known = <Known*> malloc(sizeof(Known) + topic.size)
        if known == NULL:
            return rule
        known.rule = rule
        key = <uint8_t*> known + sizeof(Known)
        memcpy(key, topic.data, topic.size)
        if table_add(&self.known, &known.entry, key, topic.size) < 0:
            free(known)
        return rule


cdef uint64_t roles_read(TopicRules rules, object names, bint* limited) except? 0:
    """The bits of the roles that a rule names, which get one if they have none yet."""
    limited[0] = names is not None
    if names is None:
        return 0
    for name in names:
        if name not in rules.roles:
            if len(rules.roles) == MAX_RULE_ROLES:
                raise ValueError(f"topics: more than {MAX_RULE_ROLES} different roles")
            rules.roles[name] = len(rules.roles)
    return rules.bits_of(names)


cdef int rule_read(TopicRules rules, TopicRule* rule, object source) except -1:
    cdef str pattern = source.pattern
    cdef bytes text = pattern.encode()
    if not pattern or "*" in pattern[:len(pattern) - 1]:
        raise ValueError("topics: a pattern is a topic, or a prefix and * at its end")
    rules.texts.append(text)
    rule.pattern = slice_of(<const uint8_t*> text, len(text))
    rule.subscribe_roles = roles_read(rules, source.subscribe_roles, &rule.subscribe_limited)
    rule.publish_roles = roles_read(rules, source.publish_roles, &rule.publish_limited)
    rule.history = source.history
    rule.presence = source.presence
    rule.history_size = <uint32_t> (source.history_size or 0)
    rule.history_ms = 0
    if source.history_ttl_secs is not None:
        rule.history_ms = max(<uint32_t> 1, <uint32_t> (source.history_ttl_secs * 1000))
    if not rule.history or rule.history_size or rule.history_ms:
        rules.bounds_history = True
    return 0


cdef TopicRules topic_rules_read(object source):
    cdef list entries = list(source)
    cdef TopicRules made
    cdef uint32_t i
    if not entries:
        return None
    if len(entries) > MAX_RULES:
        raise ValueError(f"topics: {len(entries)} rules, at most {MAX_RULES}")
    made = TopicRules()
    made.items = <TopicRule*> calloc(len(entries), sizeof(TopicRule))
    if made.items == NULL:
        raise MemoryError
    for i in range(<uint32_t> len(entries)):
        rule_read(made, &made.items[i], entries[<Py_ssize_t> i])
        made.count += 1
    return made


cdef const char* refused_by(const TopicRule* rule, int act, uint8_t permissions, uint64_t roles,
                            Slice topic) noexcept nogil:
    if rule == NULL:
        return NULL
    if act == ACT_HISTORY and not rule.history:
        return b"topic: no history of it is kept"
    if act == ACT_PRESENCE and not rule.presence:
        return b"topic: who is present on it is not told"
    if permissions & PERMISSION_ADMIN:
        return NULL
    if act == ACT_PUBLISH:
        if rule.publish_limited and not roles & rule.publish_roles:
            return b"topic: only certain roles may publish on it"
        return NULL
    # An inbox can be read by its user alone, whatever the roles.
    if rule.subscribe_limited and not roles & rule.subscribe_roles and topic.data[0] != b"@":
        return b"topic: only certain roles may subscribe to it"
    return NULL


ACTS = {"subscribe": ACT_SUBSCRIBE, "publish": ACT_PUBLISH, "history": ACT_HISTORY, "presence": ACT_PRESENCE}


def describe(rules, str topic not None):
    """What the rule of a topic says, None without one. Raises ValueError."""
    cdef TopicRules read = topic_rules_read(rules)
    cdef bytes name = topic.encode()
    cdef const TopicRule* rule = rule_of(read, slice_of(<const uint8_t*> name, len(name)))
    if rule == NULL:
        return None
    return {
        "subscribe_roles": sorted(read.names_of(rule.subscribe_roles)) if rule.subscribe_limited else None,
        "publish_roles": sorted(read.names_of(rule.publish_roles)) if rule.publish_limited else None,
        "history": rule.history,
        "history_size": rule.history_size,
        "history_ms": rule.history_ms,
        "presence": rule.presence,
    }


def refusal(rules, str act not None, str topic not None, uint8_t permissions, roles):
    """Why somebody with these permissions and roles may not do that, None when he may. Raises ValueError."""
    cdef TopicRules read = topic_rules_read(rules)
    cdef bytes name = topic.encode()
    cdef uint64_t bits = read.bits_of(roles) if read is not None else 0
    cdef const char* found = refused_by_rule(
        read, <int> ACTS[act], permissions, bits, slice_of(<const uint8_t*> name, len(name)))
    return None if found == NULL else found.decode()


def known(rules, topics):
    """How many names are known after these were looked for. Raises ValueError."""
    cdef TopicRules read = topic_rules_read(rules)
    cdef bytes name
    for topic in topics:
        name = (<str> topic).encode()
        rule_of(read, slice_of(<const uint8_t*> name, len(name)))
    return read.known.count
