/* Opening connections: how many a second, and what they cost while nothing happens on them. */
#ifndef LOAD_OPENING_H
#define LOAD_OPENING_H

#include "connection.h"

/* Runs modes connect and idle; idle says `ready` on stdout and holds its connections until stdin ends. Returns false
 * when the connections could not be opened. */
bool run_opening(const struct options *options, struct result *result, struct problems *problems);

/* Whether standard input has ended. What comes on it is dropped. */
bool input_ended(void);

#endif
