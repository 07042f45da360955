/* What was published where, and whether everybody saw it: topics with their epochs, and publications by number.
 *
 * The payload of a publication begins with its number, so that every delivery can be checked against every other one. */
#ifndef LOAD_LEDGER_H
#define LOAD_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LONGEST_EPOCH = 64, MOST_PUBLICATIONS = 1 << 20, MOST_OFFSETS = 1 << 22 };

/* The messages of a topic in one epoch. */
struct history {
    char epoch[LONGEST_EPOCH + 1];
    uint32_t *numbers;     /* owned: publication at offset `first` + index, plus 1; 0 where none was seen */
    size_t room;
    uint64_t first;        /* 0: none seen yet */
    uint64_t acknowledged; /* highest offset that was acknowledged */
    struct history *older; /* owned */
};

struct publication {
    uint32_t topic;
    bool acknowledged;
    uint64_t again_ns; /* not acknowledged: when to send it, again if it was sent; UINT64_MAX while it is under way */
    struct history *history; /* where it was seen or acknowledged last; or NULL */
    uint64_t offset;
};

struct ledger {
    struct history **topics; /* owned: the newest epoch of each first */
    size_t topic_count;
    struct publication *publications; /* owned */
    size_t published;
    size_t acknowledged;
    size_t oldest_open;      /* all before it are acknowledged */
    uint64_t doubled;        /* publications that are at two offsets of one epoch */
    uint64_t mixed;          /* deliveries or acknowledgements that contradict an earlier one */
};

/* Exits with 1 when there is no memory; so do the others. */
void ledger_init(struct ledger *ledger, size_t topics);
void ledger_free(struct ledger *ledger);

/* The topic's messages in that epoch. */
struct history *ledger_history(struct ledger *ledger, size_t topic, const char *epoch, size_t length);

/* A new publication's number; SIZE_MAX when there are MOST_PUBLICATIONS. */
size_t ledger_publish(struct ledger *ledger, size_t topic);

/* A publication was acknowledged. */
void ledger_acknowledge(struct ledger *ledger, size_t number, struct history *history, uint64_t offset);

/* A subscriber of the topic got it. */
void ledger_see(struct ledger *ledger, size_t topic, struct history *history, uint64_t offset, uint64_t number);

#endif
