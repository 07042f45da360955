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
    newcomers.count = 0
    newcomers.oldest = NULL
    newcomers.newest = NULL
    table_init(&newcomers.sites)


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
    newcomer.previous = newcomers.newest
    if newcomers.newest != NULL:
        newcomers.newest.next = newcomer
    else:
        newcomers.oldest = newcomer
    newcomers.newest = newcomer
    newcomers.count += 1
    if site != NULL:
        newcomer.previous_of_site = site.newest
        if site.newest != NULL:
            site.newest.next_of_site = newcomer
        else:
            site.oldest = newcomer
        site.newest = newcomer
        site.count += 1
    session.newcomer = newcomer
    return newcomer


cdef void leave_site(Newcomers* newcomers, Newcomer* newcomer) noexcept nogil:
    cdef Site* site = newcomer.site
    if newcomer.previous_of_site != NULL:
        newcomer.previous_of_site.next_of_site = newcomer.next_of_site
    else:
        site.oldest = newcomer.next_of_site
    if newcomer.next_of_site != NULL:
        newcomer.next_of_site.previous_of_site = newcomer.previous_of_site
    else:
        site.newest = newcomer.previous_of_site
    site.count -= 1
    if site.count == 0:
        table_remove(&newcomers.sites, &site.entry)
        free(site)


cdef void newcomer_remove(Newcomers* newcomers, Session* session) noexcept nogil:
    cdef Newcomer* newcomer = <Newcomer*> session.newcomer
    if newcomer == NULL:
        return
    if newcomer.previous != NULL:
        newcomer.previous.next = newcomer.next
    else:
        newcomers.oldest = newcomer.next
    if newcomer.next != NULL:
        newcomer.next.previous = newcomer.previous
    else:
        newcomers.newest = newcomer.previous
    newcomers.count -= 1
    if newcomer.site != NULL:
        leave_site(newcomers, newcomer)
    session.newcomer = NULL
    free(newcomer)
