# Hash table of entries that live in their owners' structs; the keys are bytes that peers chose.
#
# Rules: nothing here raises, and nothing but the bucket arrays is allocated. An entry, and the bytes of its key
# close behind it, belong to the caller and must stay where they are from table_add to table_remove. Keys are hashed
# with SipHash-1-3 under a random key of this process, so that a peer cannot pick names that share a bucket.
#
# Theory: chains in a power of two of buckets. When the table is resized, each adding and each removing moves a few
# old buckets, lowest first, so no call takes long however many entries there are. An entry's place follows from its
# hash alone: its old bucket while that one has not been moved, its new bucket afterwards. A lookup so walks one
# chain, always. The key that was found last is compared first: within a request the same one is often looked for again,
# and hashing is most of a lookup. Iteration goes in the order of the bit-reversed hash, which no resize changes; see
# table_next.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef enum:
    TABLE_REACH = 65535          # bytes of the longest key, and to the key that lies furthest behind its entry


cdef struct TableEntry:          # 16 bytes; the first member of the caller's struct
    TableEntry* next             # in its chain
    uint32_t hash                # low half of the key's SipHash
    uint16_t key_size            # bytes
    uint16_t key_at              # bytes from the entry to its key, in the caller's block of memory


cdef struct Table:               # 56 bytes
    TableEntry** buckets         # mask + 1 chains; NULL before the first entry
    size_t mask
    size_t count                 # entries
    TableEntry** old_buckets     # what a resize still moves from; NULL when none is under way
    size_t old_mask
    size_t moved                 # old buckets below this one are empty
    TableEntry* recent           # found last; NULL when it was removed


cdef struct TableCursor:         # where an iteration stands; all zero at the start
    uint64_t position            # bit-reversed hash of the entry returned last
    size_t last                  # address of that entry: orders the entries of one hash


# SipHash-1-3 of the bytes under this process's key.
cdef uint64_t siphash13(const uint8_t* data, size_t size) noexcept nogil
# The same under another key.
cdef uint64_t keyed_siphash13(uint64_t low, uint64_t high, const uint8_t* data, size_t size) noexcept nogil

cdef void table_init(Table* table) noexcept nogil
# Frees the buckets and leaves an empty table; entries are not touched.
cdef void table_free(Table* table) noexcept nogil
# The entry of that key, or NULL.
cdef TableEntry* table_find(const Table* table, const uint8_t* key, size_t size) noexcept nogil
# Enters an entry whose key, behind it in the same block of memory, is not there yet. 0; -1 (nothing changed) when there
# is no memory for the first buckets or the key is out of TABLE_REACH. Having no memory to grow is no failure: chains
# get longer, growing is tried again.
cdef int table_add(Table* table, TableEntry* entry, const uint8_t* key, size_t size) noexcept nogil
# Takes out an entry that is in the table.
cdef void table_remove(Table* table, TableEntry* entry) noexcept nogil
# The next entry, or NULL at the end. Between calls any entry may be removed or added: each one that is there all the
# time is returned exactly once, whatever is resized meanwhile. Iterations may be nested, and abandoned at any point.
cdef TableEntry* table_next(const Table* table, TableCursor* cursor) noexcept nogil


cdef inline const uint8_t* entry_key(const TableEntry* entry) noexcept nogil:
    return <const uint8_t*> entry + entry.key_at


cdef inline void table_start(TableCursor* cursor) noexcept nogil:
    cursor.position = 0
    cursor.last = 0
