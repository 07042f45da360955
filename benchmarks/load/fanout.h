/* One publisher, many subscribers of one topic: as fast as it goes, or at a fixed rate with latencies.
 *
 * A publication has landed once every subscriber got it. Sequence numbers (rtc: offsets from the topic's offset at the
 * start; otherwise the number that the publisher put into the payload) must rise by one at every subscriber. */
#ifndef LOAD_FANOUT_H
#define LOAD_FANOUT_H

#include "connection.h"

/* Runs modes fanout and latency. Returns false when the connections could not be opened. */
bool run_fanout(const struct options *options, struct result *result, struct problems *problems);

#endif
