/* Clients that come back: each has a subscription, some publish, and whoever loses its connection connects again and
 * subscribes from the last message that it saw.
 *
 * Rules: at every subscriber offsets must rise by one within an epoch, over all its connections; every publication is
 * repeated with the same idempotency key until it is acknowledged, and every acknowledged one has to be seen by all. */
#ifndef LOAD_RECONNECT_H
#define LOAD_RECONNECT_H

#include "connection.h"

/* Runs mode reconnect. It says `ready` on stdout when all are subscribed, and `back` when connections were lost and
 * none is away any more; at SIGUSR1 it resets all connections at once; when its standard input ends it publishes no
 * more, waits for what is missing and reports.
 * Returns false when the connections could not be opened. */
bool run_reconnect(const struct options *options, struct result *result, struct problems *problems,
                   struct comeback *comeback);

#endif
