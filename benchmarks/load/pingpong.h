/* Many conversations of one message each: raw echoes, or direct messages between pairs of users.
 *
 * Every message that arrives is answered at once. An echo must be the message that was sent; a direct message's
 * offset must be one more than the last of that inbox. */
#ifndef LOAD_PINGPONG_H
#define LOAD_PINGPONG_H

#include "connection.h"

/* Runs modes echo and direct. Returns false when the connections could not be opened. */
bool run_pingpong(const struct options *options, struct result *result, struct problems *problems);

#endif
