/* The load generator: see the usage text in options.c and the README one folder up. */
#include <signal.h>
#include <sys/resource.h>

#include "fanout.h"
#include "opening.h"
#include "overload.h"
#include "pingpong.h"
#include "reconnect.h"

int main(int argc, char **argv)
{
    struct options options;
    read_options(argc, argv, &options);
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);

    struct result result = {.mode = mode_name(options.mode), .connections = options.connections};
    struct problems problems = {0};
    struct comeback comeback = {0};
    struct shedding shedding = {0};
    bool opened = false;
    switch (options.mode) {
    case MODE_FANOUT:
    case MODE_LATENCY: opened = run_fanout(&options, &result, &problems); break;
    case MODE_ECHO:
    case MODE_OWN:
    case MODE_DIRECT: opened = run_pingpong(&options, &result, &problems); break;
    case MODE_CONNECT:
    case MODE_IDLE: opened = run_opening(&options, &result, &problems); break;
    case MODE_RECONNECT: opened = run_reconnect(&options, &result, &problems, &comeback); break;
    case MODE_OVERLOAD: opened = run_overload(&options, &result, &problems, &shedding); break;
    }
    print_result(&result, &problems, options.mode == MODE_RECONNECT ? &comeback : NULL,
                 options.mode == MODE_OVERLOAD ? &shedding : NULL);
    return opened ? 0 : 1;
}
