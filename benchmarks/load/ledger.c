#include "ledger.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *must(void *memory)
{
    if (memory == NULL) {
        fputs("load: no memory\n", stderr);
        exit(1);
    }
    return memory;
}

void ledger_init(struct ledger *ledger, size_t topics)
{
    *ledger = (struct ledger){.topic_count = topics};
    ledger->topics = must(calloc(topics, sizeof(struct history *)));
    ledger->publications = must(calloc(MOST_PUBLICATIONS, sizeof *ledger->publications));
}

void ledger_free(struct ledger *ledger)
{
    for (size_t topic = 0; topic < ledger->topic_count; topic++) {
        for (struct history *history = ledger->topics[topic]; history != NULL;) {
            struct history *older = history->older;
            free(history->numbers);
            free(history);
            history = older;
        }
    }
    free(ledger->topics);
    free(ledger->publications);
}

struct history *ledger_history(struct ledger *ledger, size_t topic, const char *epoch, size_t length)
{
    if (length > LONGEST_EPOCH)
        length = LONGEST_EPOCH;
    for (struct history *history = ledger->topics[topic]; history != NULL; history = history->older)
        if (strlen(history->epoch) == length && memcmp(history->epoch, epoch, length) == 0)
            return history;
    struct history *made = must(calloc(1, sizeof *made));
    memcpy(made->epoch, epoch, length);
    made->older = ledger->topics[topic];
    return ledger->topics[topic] = made;
}

size_t ledger_publish(struct ledger *ledger, size_t topic)
{
    if (ledger->published == MOST_PUBLICATIONS)
        return SIZE_MAX;
    ledger->publications[ledger->published].topic = (uint32_t)topic;
    return ledger->published++;
}

/* Where the number of the publication at that offset is kept; NULL when the offset cannot be right. */
static uint32_t *place(struct history *history, uint64_t offset)
{
    if (history->first == 0)
        history->first = offset;
    if (offset < history->first) { /* acknowledgements and deliveries need not come in one order */
        size_t more = (size_t)(history->first - offset);
        if (more > MOST_OFFSETS || history->room + more > MOST_OFFSETS)
            return NULL;
        history->numbers = must(reallocarray(history->numbers, history->room + more, sizeof *history->numbers));
        memmove(history->numbers + more, history->numbers, history->room * sizeof *history->numbers);
        memset(history->numbers, 0, more * sizeof *history->numbers);
        history->room += more;
        history->first = offset;
    }
    uint64_t index = offset - history->first;
    if (index >= MOST_OFFSETS)
        return NULL;
    if (index >= history->room) {
        size_t room = 2 * (size_t)index + 16;
        history->numbers = must(reallocarray(history->numbers, room, sizeof *history->numbers));
        memset(history->numbers + history->room, 0, (room - history->room) * sizeof *history->numbers);
        history->room = room;
    }
    return &history->numbers[index];
}

static void note(struct ledger *ledger, size_t number, struct history *history, uint64_t offset)
{
    struct publication *publication = &ledger->publications[number];
    uint32_t *known = place(history, offset);
    if (known == NULL || (*known != 0 && *known != number + 1)) {
        ledger->mixed++;
        return;
    }
    if (publication->history == history && publication->offset != offset && *known == 0)
        ledger->doubled++;
    *known = (uint32_t)number + 1;
    publication->history = history;
    publication->offset = offset;
}

void ledger_acknowledge(struct ledger *ledger, size_t number, struct history *history, uint64_t offset)
{
    if (!ledger->publications[number].acknowledged)
        ledger->acknowledged++;
    ledger->publications[number].acknowledged = true;
    while (ledger->oldest_open < ledger->published && ledger->publications[ledger->oldest_open].acknowledged)
        ledger->oldest_open++;
    if (offset > history->acknowledged)
        history->acknowledged = offset;
    note(ledger, number, history, offset);
}

void ledger_see(struct ledger *ledger, size_t topic, struct history *history, uint64_t offset, uint64_t number)
{
    if (number >= ledger->published || ledger->publications[number].topic != topic)
        ledger->mixed++;
    else
        note(ledger, (size_t)number, history, offset);
}
