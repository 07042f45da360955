"""Counters as Python sees them; `counters.pxd` says what each one means."""

from libc.string cimport memset


cdef dict counters_dict(const Counters* counters):
    return {
        "connections": counters.connections,
        "subscriptions": counters.subscriptions,
        "pending": counters.pending,
        "accepted": counters.accepted,
        "handed_over": counters.handed_over,
        "refused": counters.refused,
        "upgraded": counters.upgraded,
        "closed": counters.closed,
        "protocol_errors": counters.protocol_errors,
        "timed_out": counters.timed_out,
        "abusive": counters.abusive,
        "slow_consumers": counters.slow_consumers,
        "expired": counters.expired,
        "crowded_out": counters.crowded_out,
        "accept_failures": counters.accept_failures,
        "bytes_received": counters.bytes_received,
        "bytes_sent": counters.bytes_sent,
        "writes": counters.writes,
        "blocked_writes": counters.blocked_writes,
        "requests": counters.requests,
        "invalid": counters.invalid,
        "rate_limited": counters.rate_limited,
        "publications": counters.publications,
        "deliveries": counters.deliveries,
        "dropped": counters.dropped,
        "lagged": counters.lagged,
        "caught_up": counters.caught_up,
        "untranscoded": counters.untranscoded,
        "backpressure": counters.backpressure,
        "duplicates": counters.duplicates,
        "auth_failures": counters.auth_failures,
        "transformed": counters.transformed,
        "transform_errors": counters.transform_errors,
        "samples_lost": counters.samples_lost,
        "upstream_dropped": counters.upstream_dropped,
        "migrated": counters.migrated,
        "denied": counters.denied,
        "unshared": counters.unshared,
    }


def counter_names():
    """Names of all counters, in the order of the contract."""
    cdef Counters counters
    memset(&counters, 0, sizeof(Counters))
    return list(counters_dict(&counters))
