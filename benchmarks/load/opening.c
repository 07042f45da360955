#include "opening.h"

#include <poll.h>
#include <stdio.h>
#include <unistd.h>

enum { IDLE_TURN_MS = 50 };
static const double SECOND_NS = 1e9;

static void take_any(struct load *load, struct connection *connection, const struct frame *frame)
{
    (void)connection;
    note_error(&load->problems, "unexpected: ", frame->payload, frame->length);
}

bool input_ended(void)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    char ignored[64];
    return poll(&input, 1, 0) > 0 && read(STDIN_FILENO, ignored, sizeof ignored) <= 0;
}

bool run_opening(const struct options *options, struct result *result, struct problems *problems)
{
    struct load load;
    load_init(&load, options, options->connections);
    for (size_t index = 0; index < load.count; index++)
        load.connections[index].subscribes = options->protocol->write_subscribe != NULL && options->topics > 0;
    load.on_message = take_any;
    struct cpu_time cpu = cpu_time_of(options->server_pids, options->server_pid_count);
    uint64_t start = now_ns();
    bool opened = load_open(&load);
    uint64_t end = now_ns();
    result->connect_seconds = (double)(end - start) / SECOND_NS;
    if (opened && options->mode == MODE_IDLE) {
        puts("ready");
        fflush(stdout);
        cpu = cpu_time_of(options->server_pids, options->server_pid_count);
        start = now_ns();
        progress_begin(&load.progress, start, load.ready);
        while (!input_ended()) {
            load_turn(&load, IDLE_TURN_MS);
            uint64_t now = now_ns();
            if (progress_is_due(&load.progress, now))
                progress_running(&load.progress, now, load.ready, true);
        }
        end = now_ns();
    }
    struct cpu_time now = cpu_time_of(options->server_pids, options->server_pid_count);
    result->server = cpu_time_between(cpu, now);
    result->seconds = (double)(end - start) / SECOND_NS;
    *problems = load.problems;
    problems->lost += load.count - load.ready;
    load_close(&load);
    return opened;
}
