"""Hash table for keys that peers choose; `table.pxd` is the contract. `ByteTable` lets tests reach it from Python."""

import os

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

cdef extern from "<endian.h>" nogil:
    uint64_t le64toh(uint64_t value)

cdef enum:
    SMALLEST = 4                 # buckets of a table with few entries
    STEP_FILLED = 2              # buckets with entries moved by one call: old ones are gone before the next growth
    STEP_VISITED = 16            # buckets looked at by one call, empty ones included
    SPARSE = 8                   # buckets per entry above which the table shrinks

cdef uint64_t secret_low
cdef uint64_t secret_high


cdef inline uint64_t rotated(uint64_t value, int bits) noexcept nogil:
    return (value << bits) | (value >> (64 - bits))


cdef inline void sip_round(uint64_t* v) noexcept nogil:
    v[0] += v[1]
    v[1] = rotated(v[1], 13) ^ v[0]
    v[0] = rotated(v[0], 32)
    v[2] += v[3]
    v[3] = rotated(v[3], 16) ^ v[2]
    v[0] += v[3]
    v[3] = rotated(v[3], 21) ^ v[0]
    v[2] += v[1]
    v[1] = rotated(v[1], 17) ^ v[2]
    v[2] = rotated(v[2], 32)


# Aumasson, Bernstein: "SipHash: a fast short-input PRF" (2012), with 1 compression and 3 finalization rounds.
cdef uint64_t keyed_siphash13(uint64_t low, uint64_t high, const uint8_t* data, size_t size) noexcept nogil:
    cdef uint64_t[4] v
    cdef uint64_t word = 0
    cdef size_t at = 0
    v[0] = low ^ <uint64_t> 0x736f6d6570736575
    v[1] = high ^ <uint64_t> 0x646f72616e646f6d
    v[2] = low ^ <uint64_t> 0x6c7967656e657261
    v[3] = high ^ <uint64_t> 0x7465646279746573
    while size - at >= 8:
        memcpy(&word, data + at, 8)
        word = le64toh(word)
        v[3] ^= word
        sip_round(v)
        v[0] ^= word
        at += 8
    word = 0
    if size - at:
        memcpy(&word, data + at, size - at)
        word = le64toh(word)
    word |= <uint64_t> (size & 0xff) << 56
    v[3] ^= word
    sip_round(v)
    v[0] ^= word
    v[2] ^= 0xff
    sip_round(v)
    sip_round(v)
    sip_round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


cdef uint64_t siphash13(const uint8_t* data, size_t size) noexcept nogil:
    return keyed_siphash13(secret_low, secret_high, data, size)


cdef inline uint32_t reversed_bits(uint32_t value) noexcept nogil:
    value = ((value >> 1) & 0x55555555) | ((value & 0x55555555) << 1)
    value = ((value >> 2) & 0x33333333) | ((value & 0x33333333) << 2)
    value = ((value >> 4) & 0x0f0f0f0f) | ((value & 0x0f0f0f0f) << 4)
    value = ((value >> 8) & 0x00ff00ff) | ((value & 0x00ff00ff) << 8)
    return (value >> 16) | (value << 16)


cdef inline TableEntry** home(const Table* table, uint32_t hash) noexcept nogil:
    """The chain in which an entry with that hash is, or belongs; the table must have buckets."""
    if table.old_buckets != NULL and (hash & table.old_mask) >= table.moved:
        return &table.old_buckets[hash & table.old_mask]
    return &table.buckets[hash & table.mask]


cdef void table_init(Table* table) noexcept nogil:
    table.buckets = NULL
    table.mask = 0
    table.count = 0
    table.old_buckets = NULL
    table.old_mask = 0
    table.moved = 0
    table.recent = NULL


cdef void table_free(Table* table) noexcept nogil:
    free(table.buckets)
    free(table.old_buckets)
    table_init(table)


cdef TableEntry* table_find(const Table* table, const uint8_t* key, size_t size) noexcept nogil:
    cdef TableEntry* entry = table.recent
    cdef uint32_t hash
    if table.count == 0:
        return NULL
    if entry != NULL and entry.key_size == size and (size == 0 or memcmp(entry_key(entry), key, size) == 0):
        return entry
    hash = <uint32_t> siphash13(key, size)
    entry = home(table, hash)[0]
    while entry != NULL:
        if entry.hash == hash and entry.key_size == size and (size == 0 or memcmp(entry_key(entry), key, size) == 0):
            (<Table*> table).recent = entry
            return entry
        entry = entry.next
    return NULL


cdef void resize(Table* table, size_t size) noexcept nogil:
    """Begin to move into `size` buckets; without memory all stays as it is."""
    cdef TableEntry** buckets = <TableEntry**> calloc(size, sizeof(TableEntry*))
    if buckets == NULL:
        return
    table.old_buckets = table.buckets
    table.old_mask = table.mask
    table.moved = 0
    table.buckets = buckets
    table.mask = size - 1


cdef void move_some(Table* table) noexcept nogil:
    """One step of the resize that is under way."""
    cdef int filled = 0
    cdef int visited = 0
    cdef TableEntry* entry
    cdef TableEntry* following
    cdef TableEntry** chain
    while filled < STEP_FILLED and visited < STEP_VISITED:
        if table.moved > table.old_mask:
            free(table.old_buckets)
            table.old_buckets = NULL
            return
        entry = table.old_buckets[table.moved]
        table.moved += 1
        visited += 1
        if entry != NULL:
            filled += 1
        while entry != NULL:
            following = entry.next
            chain = &table.buckets[entry.hash & table.mask]
            entry.next = chain[0]
            chain[0] = entry
            entry = following


cdef int table_add(Table* table, TableEntry* entry, const uint8_t* key, size_t size) noexcept nogil:
    cdef TableEntry** chain
    cdef size_t away = <size_t> key - <size_t> entry
    if size > TABLE_REACH or away > TABLE_REACH:
        return -1
    if table.buckets == NULL:
        table.buckets = <TableEntry**> calloc(SMALLEST, sizeof(TableEntry*))
        if table.buckets == NULL:
            return -1
        table.mask = SMALLEST - 1
    if table.old_buckets != NULL:
        move_some(table)
    elif table.count > table.mask and table.mask < <uint32_t> 0xffffffff:
        resize(table, (table.mask + 1) * 2)
    entry.key_at = <uint16_t> away
    entry.key_size = <uint16_t> size
    entry.hash = <uint32_t> siphash13(key, size)
    chain = home(table, entry.hash)
    entry.next = chain[0]
    chain[0] = entry
    table.count += 1
    return 0


cdef void table_remove(Table* table, TableEntry* entry) noexcept nogil:
    cdef TableEntry** link = home(table, entry.hash)
    cdef size_t size
    while link[0] != entry:
        link = &link[0].next
    link[0] = entry.next
    entry.next = NULL
    if table.recent == entry:
        table.recent = NULL
    table.count -= 1
    if table.count == 0:
        # Nothing is left to move, and memory goes back to where it was before the first entry.
        table_free(table)
    elif table.old_buckets != NULL:
        move_some(table)
    elif table.mask >= SMALLEST and table.count < (table.mask + 1) // SPARSE:
        size = SMALLEST
        while size < table.count * 2:
            size *= 2
        resize(table, size)


cdef inline TableEntry* earlier(TableEntry* chain, const TableCursor* cursor, TableEntry* best) noexcept nogil:
    """Of a chain and `best` the first one, in the order of iteration, that lies behind the cursor."""
    cdef uint32_t position
    cdef uint32_t best_position = 0
    if best != NULL:
        best_position = reversed_bits(best.hash)
    while chain != NULL:
        position = reversed_bits(chain.hash)
        if position > cursor.position or (position == cursor.position and <size_t> chain > cursor.last):
            if best == NULL or position < best_position or (
                position == best_position and <size_t> chain < <size_t> best
            ):
                best = chain
                best_position = position
        chain = chain.next
    return best


# All entries whose hashes agree in the bits of the smaller mask share one bucket of the smaller array, and are spread
# over a few of the larger; reversed, those bits lead, so such a group is one range of positions. The cursor goes from
# group to group, and in a group to the least entry behind it: nothing has to be remembered but the last one returned.
cdef TableEntry* table_next(const Table* table, TableCursor* cursor) noexcept nogil:
    cdef size_t small
    cdef size_t group
    cdef size_t at
    cdef uint64_t width
    cdef TableEntry* best
    while table.count and cursor.position <= <uint64_t> 0xffffffff:
        small = table.mask
        if table.old_buckets != NULL and table.old_mask < small:
            small = table.old_mask
        width = (<uint64_t> 1 << 32) // (small + 1)
        group = reversed_bits(<uint32_t> cursor.position) & small
        best = NULL
        at = group
        while at <= table.mask:
            best = earlier(table.buckets[at], cursor, best)
            at += small + 1
        if table.old_buckets != NULL:
            at = group
            while at <= table.old_mask:
                if at >= table.moved:
                    best = earlier(table.old_buckets[at], cursor, best)
                at += small + 1
        if best != NULL:
            cursor.position = reversed_bits(best.hash)
            cursor.last = <size_t> best
            return best
        cursor.position = (cursor.position // width + 1) * width
        cursor.last = 0
    return NULL


cdef struct KeyedEntry:
    TableEntry entry
    uint64_t value
    uint8_t key[1]


cdef class ByteTable:
    """A `Table` of integers by bytes held by Python, so that tests can compare it with a dict."""

    cdef Table table

    def __cinit__(self):
        table_init(&self.table)

    def __dealloc__(self):
        cdef TableCursor cursor
        cdef TableEntry* entry
        table_start(&cursor)
        while True:
            entry = table_next(&self.table, &cursor)
            if entry == NULL:
                break
            table_remove(&self.table, entry)
            free(entry)
        table_free(&self.table)

    def __len__(self):
        return self.table.count

    def add(self, bytes key not None, uint64_t value):
        """Enter `key`; raises KeyError when it is there already, MemoryError, for a key out of reach too."""
        if table_find(&self.table, <const uint8_t*> key, len(key)) != NULL:
            raise KeyError(key)
        cdef KeyedEntry* entry = <KeyedEntry*> malloc(sizeof(KeyedEntry) + len(key))
        if entry == NULL:
            raise MemoryError
        memcpy(entry.key, <const uint8_t*> key, len(key))
        entry.value = value
        if table_add(&self.table, &entry.entry, entry.key, len(key)) < 0:
            free(entry)
            raise MemoryError

    def find(self, bytes key not None):
        """The value of `key`, or None."""
        cdef TableEntry* entry = table_find(&self.table, <const uint8_t*> key, len(key))
        return None if entry == NULL else (<KeyedEntry*> entry).value

    def remove(self, bytes key not None):
        """Take `key` out; raises KeyError when it is not there."""
        cdef TableEntry* entry = table_find(&self.table, <const uint8_t*> key, len(key))
        if entry == NULL:
            raise KeyError(key)
        table_remove(&self.table, entry)
        free(entry)

    def __iter__(self):
        """Keys; any may be added or removed between two of them."""
        cdef TableCursor cursor
        cdef TableEntry* entry
        table_start(&cursor)
        while True:
            entry = table_next(&self.table, &cursor)
            if entry == NULL:
                return
            yield (<const char*> entry_key(entry))[:entry.key_size]

    @property
    def buckets(self):
        """Buckets in use, those that a resize has not moved yet included; 0 for an empty table."""
        if self.table.buckets == NULL:
            return 0
        return self.table.mask + 1 + (self.table.old_mask + 1 if self.table.old_buckets != NULL else 0)

    @property
    def resizing(self):
        """Whether a resize is under way."""
        return self.table.old_buckets != NULL

    @property
    def longest_chain(self):
        """Entries in the fullest bucket."""
        cdef size_t longest = 0
        cdef size_t length
        cdef size_t at
        cdef TableEntry* entry
        if self.table.buckets == NULL:
            return 0
        for at in range(self.table.mask + 1):
            length = 0
            entry = self.table.buckets[at]
            while entry != NULL:
                length += 1
                entry = entry.next
            longest = max(longest, length)
        return longest


def siphash(bytes data not None, bytes key = None):
    """SipHash-1-3 of `data`, under this process's key or the 16 bytes of `key`; raises ValueError for another size."""
    cdef uint64_t[2] words
    if key is None:
        return siphash13(<const uint8_t*> data, len(data))
    if len(key) != 16:
        raise ValueError("the key has 16 bytes")
    memcpy(words, <const uint8_t*> key, 16)
    return keyed_siphash13(le64toh(words[0]), le64toh(words[1]), <const uint8_t*> data, len(data))


cdef int draw_secret() except -1:
    global secret_low, secret_high
    cdef bytes drawn = os.urandom(16)
    memcpy(&secret_low, <const uint8_t*> drawn, 8)
    memcpy(&secret_high, <const uint8_t*> drawn + 8, 8)
    return 0


draw_secret()
