"""Sockets whose peers have not authenticated; `newcomers.pxd` is the contract."""

from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from realtime_communication._core.base.memory cimport Slice, slice_of
from realtime_communication._core.base.table cimport table_add, table_find, table_init, table_remove
from realtime_communication._core.hub.session cimport Session

cdef enum:
    MAPPED_PREFIX = 12           # bytes of ::ffff:0:0/96, in front of an IPv4 address


cdef Slice site_of(Slice address) noexcept nogil:
    """The bytes that name the site; empty for an address of this machine, and for none."""
    cdef const uint8_t* data = address.data
    if address.size == 16:
        if memcmp(data, b"\0\0\0\0\0\0\0\0\0\0\xff\xff", MAPPED_PREFIX) == 0:
            return site_of(slice_of(data + MAPPED_PREFIX, 4))
        if memcmp(data, b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1", 16) == 0:
            return slice_of(NULL, 0)
        return slice_of(data, SITE_BYTES)
    if address.size != 4 or data[0] == 127:
        return slice_of(NULL, 0)
    return address


cdef Site* site_open(Newcomers* newcomers, Slice key) noexcept nogil:
    cdef Site* site = <Site*> table_find(&newcomers.sites, key.data, key.size)
    if site != NULL:
        return site
    site = <Site*> malloc(sizeof(Site))
    if site == NULL:
        return NULL
    memset(site, 0, sizeof(Site))
    memcpy(site.key, key.data, key.size)
    if table_add(&newcomers.sites, &site.entry, site.key, key.size) < 0:
        free(site)
        return NULL
    return site


cdef void newcomers_init(Newcomers* newcomers) noexcept nogil:
    memset(&newcomers.line, 0, sizeof(Line))
    table_init(&newcomers.sites)


cdef void enter_line(Line* line, Newcomer* newcomer, int which) noexcept nogil:
    newcomer.previous[which] = line.newest
    if line.newest != NULL:
        line.newest.next[which] = newcomer
    else:
        line.oldest = newcomer
    line.newest = newcomer
    line.count += 1


cdef void leave_line(Line* line, Newcomer* newcomer, int which) noexcept nogil:
    if newcomer.previous[which] != NULL:
        newcomer.previous[which].next[which] = newcomer.next[which]
    else:
        line.oldest = newcomer.next[which]
    if newcomer.next[which] != NULL:
        newcomer.next[which].previous[which] = newcomer.previous[which]
    else:
        line.newest = newcomer.previous[which]
    line.count -= 1


cdef Newcomer* newcomer_add(Newcomers* newcomers, Session* session, Slice address) noexcept nogil:
    cdef Newcomer* newcomer = <Newcomer*> malloc(sizeof(Newcomer))
    cdef Slice key = site_of(address)
    cdef Site* site = NULL
    if newcomer == NULL:
        return NULL
    if key.size:
        site = site_open(newcomers, key)
        if site == NULL:
            free(newcomer)
            return NULL
    memset(newcomer, 0, sizeof(Newcomer))
    newcomer.session = session
    newcomer.site = site
    enter_line(&newcomers.line, newcomer, LINE_OF_ALL)
    if site != NULL:
        enter_line(&site.line, newcomer, LINE_OF_SITE)
    session.newcomer = newcomer
    return newcomer


cdef void newcomer_remove(Newcomers* newcomers, Session* session) noexcept nogil:
    cdef Newcomer* newcomer = <Newcomer*> session.newcomer
    cdef Site* site
    if newcomer == NULL:
        return
    site = newcomer.site
    leave_line(&newcomers.line, newcomer, LINE_OF_ALL)
    if site != NULL:
        leave_line(&site.line, newcomer, LINE_OF_SITE)
        if site.line.count == 0:
            table_remove(&newcomers.sites, &site.entry)
            free(site)
    session.newcomer = NULL
    free(newcomer)
