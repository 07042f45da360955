/* More than a server takes: publications at a fixed rate, then at a higher one, then at the first again.
 *
 * The rates hold whatever the server does (open loop). A publication that is due while the publisher's socket takes
 * nothing, or while the publisher is away, is held back: it is counted and never sent. Every one that is sent carries
 * when it was due, and is acknowledged or refused by name. The account of every subscriber has to be whole: offsets go
 * up by one, and where they do not a `Lagged` has told how many are missing.
 */
#ifndef LOAD_OVERLOAD_H
#define LOAD_OVERLOAD_H

#include "connection.h"

/* Opens the connections and runs all three phases. Returns false when they could not be opened. */
bool run_overload(const struct options *options, struct result *result, struct problems *problems,
                  struct shedding *shedding);

#endif
