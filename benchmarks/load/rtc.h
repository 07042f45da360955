/* rtc.v1 envelopes in JSON, as far as the modes look into them. */
#ifndef LOAD_RTC_H
#define LOAD_RTC_H

#include "protocol.h"

/* Whether the frame is an envelope of that type. */
bool has_type(const struct frame *frame, const char *name);

/* The number that follows `key` in the first bytes of an envelope; UINT64_MAX when there is none. */
uint64_t number_after(const struct frame *frame, const char *key, size_t key_length);

#endif
