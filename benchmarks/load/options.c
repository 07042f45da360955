#include "options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST_IN_FLIGHT = 32768, LONGEST_MESSAGE = 1 << 20 };

static const char *const mode_names[] = {"fanout", "latency", "echo", "own", "direct", "connect", "idle", "reconnect",
                                         "overload"};

static const char usage[] =
    "usage: load --mode=fanout|latency|echo|own|direct|connect|idle|reconnect|overload --port=N\n"
    "            [--protocol=rtc|text|nats|centrifugo|socketio] [--tokens=FILE]\n"
    "            [--address=127.0.0.1] [--host=NAME] [--token-header=NAME] [--user-prefix=u] [--progress-ms=N]\n"
    "            [--connections=N] [--in-flight=N] [--message-bytes=N] [--seconds=S] [--warmup=S] [--rate=N]\n"
    "            [--path=/ws] [--topic=bench] [--topics=N] [--opening=N] [--publish-port=N] [--server-pid=N ...]\n"
    "            [--publishers=N] [--jitter-ms=N] [--retry-ms=N] [--surge=N] [--after=S] [--slow=N]\n"
    "            [--tls] [--ca-file=FILE] [--insecure] [--farewell]\n"
    "            [--compression=none|zstd|lz4|gzip|deflate] [--payload=FILE]\n"
    "prints one line of JSON; idle and reconnect print `ready` first and go on until their standard input ends\n";

const char *mode_name(enum mode mode)
{
    return mode_names[mode];
}

static void fail(const char *problem, const char *value)
{
    fprintf(stderr, "load: %s%s%s\n%s", problem, value ? ": " : "", value ? value : "", usage);
    exit(2);
}

static double number(const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= least && value <= most))
        fail("a number is out of range", text);
    return value;
}

static enum mode mode_of(const char *name)
{
    for (size_t index = 0; index < sizeof mode_names / sizeof *mode_names; index++)
        if (strcmp(mode_names[index], name) == 0)
            return (enum mode)index;
    fail("no such mode", name);
    return MODE_FANOUT;
}

static enum compression compression_of(const char *name)
{
    for (int form = 0; form < COMPRESSIONS; form++)
        if (strcmp(compression_name((enum compression)form), name) == 0)
            return (enum compression)form;
    fail("no such compression", name);
    return COMPRESSION_NONE;
}

/* Reads the value that is published; the line break at the end of the file is not part of it. */
static void read_payload(const char *path, struct options *options)
{
    FILE *file = fopen(path, "r");
    if (file == NULL)
        fail(strerror(errno), path);
    options->payload = malloc(LONGEST_MESSAGE);
    if (options->payload == NULL)
        fail("no memory", NULL);
    size_t length = fread(options->payload, 1, LONGEST_MESSAGE, file);
    fclose(file);
    while (length > 0 && options->payload[length - 1] == '\n')
        length--;
    if (length == 0 || length == LONGEST_MESSAGE)
        fail("the payload is empty or too long", path);
    options->message_bytes = length;
}

/* A numeric address of IPv4 or IPv6: names are for the caller to resolve. */
static void read_address(const char *text, struct sockaddr_storage *address)
{
    struct sockaddr_in *four = (struct sockaddr_in *)address;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)address;
    *address = (struct sockaddr_storage){0};
    if (inet_pton(AF_INET, text, &four->sin_addr) == 1)
        address->ss_family = AF_INET;
    else if (inet_pton(AF_INET6, text, &six->sin6_addr) == 1)
        address->ss_family = AF_INET6;
    else
        fail("not a numeric address", text);
}

static char *header_of(const char *name)
{
    char *header = NULL;
    if (asprintf(&header, "%s: ", name) < 0)
        fail("no memory", NULL);
    return header;
}

static void read_tokens(const char *path, struct options *options)
{
    FILE *file = fopen(path, "r");
    if (file == NULL)
        fail(strerror(errno), path);
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    while ((length = getline(&line, &room, file)) > 0) {
        line[strcspn(line, "\r\n")] = '\0';
        char **grown = reallocarray(options->tokens, options->token_count + 1, sizeof *grown);
        if (grown == NULL || (grown[options->token_count] = strdup(line)) == NULL)
            fail("no memory", NULL);
        options->tokens = grown;
        options->token_count++;
    }
    free(line);
    fclose(file);
}

void read_options(int argc, char **argv, struct options *options)
{
    static const struct option names[] = {
        {"mode", required_argument, NULL, 'm'},       {"protocol", required_argument, NULL, 'p'},
        {"port", required_argument, NULL, 'P'},       {"path", required_argument, NULL, 'a'},
        {"topic", required_argument, NULL, 't'},      {"topics", required_argument, NULL, 'T'},
        {"tokens", required_argument, NULL, 'k'},     {"connections", required_argument, NULL, 'c'},
        {"in-flight", required_argument, NULL, 'f'},  {"message-bytes", required_argument, NULL, 'b'},
        {"seconds", required_argument, NULL, 's'},    {"warmup", required_argument, NULL, 'w'},
        {"rate", required_argument, NULL, 'r'},       {"opening", required_argument, NULL, 'o'},
        {"server-pid", required_argument, NULL, 'S'}, {"publish-port", required_argument, NULL, 'U'},
        {"publishers", required_argument, NULL, 'B'}, {"jitter-ms", required_argument, NULL, 'j'},
        {"retry-ms", required_argument, NULL, 'y'},   {"compression", required_argument, NULL, 'z'},
        {"payload", required_argument, NULL, 'l'},    {"address", required_argument, NULL, 'A'},
        {"host", required_argument, NULL, 'H'},       {"token-header", required_argument, NULL, 'h'},
        {"user-prefix", required_argument, NULL, 'u'}, {"progress-ms", required_argument, NULL, 'g'},
        {"tls", no_argument, NULL, 'e'},              {"ca-file", required_argument, NULL, 'F'},
        {"insecure", no_argument, NULL, 'i'},         {"farewell", no_argument, NULL, 'W'},
        {"surge", required_argument, NULL, 'G'},      {"after", required_argument, NULL, 'R'},
        {"slow", required_argument, NULL, 'L'},
        {NULL, 0, NULL, 0},
    };
    *options = (struct options){.protocol = &protocol_rtc, .topic = "bench", .topics = 1, .connections = 64,
                                .in_flight = 1, .message_bytes = 100, .seconds = 1, .warmup = 0.2, .rate = 100, .surge = 300,
                                .opening = 64, .token_header = "Authorization: Bearer ",
                                .user_prefix = "u", .host = "127.0.0.1", .publishers = 2, .jitter_ms = 250, .retry_ms = 100};
    bool has_mode = false;
    read_address("127.0.0.1", &options->address);
    int option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (option) {
        case 'm': options->mode = mode_of(optarg); has_mode = true; break;
        case 'p':
            options->protocol = protocol_named(optarg);
            if (options->protocol == NULL)
                fail("no such protocol", optarg);
            break;
        case 'z': options->compression = compression_of(optarg); break;
        case 'l': read_payload(optarg, options); break;
        case 'P': options->port = (uint16_t)number(optarg, 1, 65535); break;
        case 'U': options->publish_port = (uint16_t)number(optarg, 1, 65535); break;
        case 'a': options->path = optarg; break;
        case 't': options->topic = optarg; break;
        case 'T': options->topics = (unsigned)number(optarg, 0, 1e6); break;
        case 'k': read_tokens(optarg, options); break;
        case 'c': options->connections = (size_t)number(optarg, 1, 1e6); break;
        case 'f': options->in_flight = (size_t)number(optarg, 1, LONGEST_IN_FLIGHT); break;
        case 'b': options->message_bytes = (size_t)number(optarg, 24, LONGEST_MESSAGE); break;
        case 's': options->seconds = number(optarg, 0, 3600); break;
        case 'w': options->warmup = number(optarg, 0, 3600); break;
        case 'r': options->rate = number(optarg, 0.1, 1e7); break;
        case 'o': options->opening = (unsigned)number(optarg, 1, 10000); break;
        case 'A': read_address(optarg, &options->address); break;
        case 'H': options->host = optarg; break;
        case 'h': options->token_header = header_of(optarg); break;
        case 'u': options->user_prefix = optarg; break;
        case 'g': options->progress_ms = (unsigned)number(optarg, 0, 60000); break;
        case 'B': options->publishers = (unsigned)number(optarg, 1, MAX_PUBLISHERS); break;
        case 'j': options->jitter_ms = (unsigned)number(optarg, 0, 60000); break;
        case 'y': options->retry_ms = (unsigned)number(optarg, 1, 60000); break;
        case 'e': options->tls = true; break;
        case 'F': options->ca_file = optarg; break;
        case 'i': options->insecure = true; break;
        case 'G': options->surge = number(optarg, 0.1, 1e7); break;
        case 'R': options->after = number(optarg, 0, 3600); break;
        case 'L': options->slow = (size_t)number(optarg, 0, 1e6); break;
        case 'W': options->farewell = true; break;
        case 'S':
            if (options->server_pid_count == MAX_SERVER_PIDS)
                fail("too many server processes", optarg);
            options->server_pids[options->server_pid_count++] = (pid_t)number(optarg, 1, 1e9);
            break;
        default: fail("that option is not known", NULL);
        }
    }
    if (optind != argc)
        fail("one argument too many", argv[optind]);
    if (!has_mode || options->port == 0)
        fail("--mode and --port are needed", NULL);
    if (options->publish_port == 0)
        options->publish_port = options->port;
    if (strlen(options->topic) > 200)
        fail("the topic is too long", NULL);
    if ((options->compression != COMPRESSION_NONE || options->payload != NULL) && options->protocol != &protocol_rtc)
        fail("compression and payload need rtc", NULL);
    if (strlen(options->user_prefix) > 64)
        fail("the prefix of the users is too long", options->user_prefix);
    if (options->farewell && (options->mode != MODE_IDLE || options->topics != 1))
        fail("farewell needs idle and one topic", NULL);
    if (options->mode == MODE_OWN && options->protocol != &protocol_rtc)
        fail("own needs rtc", NULL);
    if (options->mode == MODE_DIRECT && (options->protocol != &protocol_rtc || options->connections % 2 != 0))
        fail("direct needs rtc and an even number of connections", NULL);
    if (options->mode == MODE_RECONNECT
        && (options->protocol != &protocol_rtc || options->topics == 0 || options->publishers > options->connections))
        fail("reconnect needs rtc, a topic and no more publishers than connections", NULL);
    if (options->mode == MODE_OVERLOAD
        && (options->protocol != &protocol_rtc || options->topics != 1 || options->slow >= options->connections))
        fail("overload needs rtc, one topic and subscribers that are not slow", NULL);
}
