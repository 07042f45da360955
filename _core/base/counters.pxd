# What the data plane counts. One struct for a worker; plain fields, added to without a lock by the one thread there is.

from libc.stdint cimport uint64_t

cdef enum:
    COUNTER_GAUGES = 3           # fields at the head of Counters that go up and down


cdef struct Counters:            # of uint64_t alone
    # gauges
    uint64_t connections             # WebSocket connections that passed the handshake and are not closed
    uint64_t subscriptions           # of clients, inboxes not counted
    uint64_t pending                 # connections that wait for an answer about their credential
    # events since the start
    uint64_t accepted                # sockets taken from the listeners
    uint64_t handed_over             # requests given to the HTTP application
    uint64_t refused                 # upgrades answered with an HTTP error
    uint64_t upgraded                # upgrades answered with 101
    uint64_t closed                  # connections that ended, for whatever reason
    uint64_t protocol_errors         # connections closed for breaking RFC 6455
    uint64_t timed_out               # connections closed with 4408
    uint64_t abusive                 # connections closed with 4429
    uint64_t slow_consumers          # connections closed with 4490
    uint64_t expired                 # connections closed because their token expired
    uint64_t crowded_out             # connections closed before they authenticated: too many others have not either
    uint64_t accept_failures         # accept() refused by the system, EMFILE above all
    uint64_t bytes_received
    uint64_t bytes_sent
    uint64_t writes                  # system calls that sent something
    uint64_t blocked_writes          # writes that found a full socket
    uint64_t requests                # envelopes received
    uint64_t invalid                 # envelopes that were no valid request
    uint64_t rate_limited            # requests refused by a limit
    uint64_t publications            # messages that got an offset
    uint64_t deliveries              # messages put into mailboxes
    uint64_t dropped                 # messages that found a full mailbox and were dropped
    uint64_t lagged                  # messages skipped for a slow consumer, to be caught up from the cache
    uint64_t caught_up               # messages given from the cache to a consumer that had lagged
    uint64_t untranscoded            # deliveries left out because transcoding is off
    uint64_t backpressure            # requests refused with `backpressure`
    uint64_t duplicates              # requests answered from the idempotency table
    uint64_t auth_failures           # upgrades, Authenticate and Refresh refused for their credential
    uint64_t transformed             # payloads that a transform has changed or refused
    uint64_t transform_errors        # payloads that a transform failed on
    uint64_t samples_lost            # samples overwritten before somebody took them
    uint64_t upstream_dropped        # publications that were not kept for an upstream that is away
    uint64_t migrated                # connections handed to another worker, live
    uint64_t denied                  # requests that whoever is asked about them refused
    uint64_t unshared                # requests this worker limited by itself: no place in the table of all workers


cdef dict counters_dict(const Counters* counters)
