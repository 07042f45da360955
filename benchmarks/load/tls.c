#include "tls.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* As <openssl/ssl.h> and <openssl/x509_vfy.h> have them; they are part of the library's binary interface. */
enum {
    SSL_ERROR_SSL = 1,
    SSL_ERROR_WANT_READ = 2,
    SSL_ERROR_WANT_WRITE = 3,
    SSL_ERROR_SYSCALL = 5,
    SSL_ERROR_ZERO_RETURN = 6,
    SSL_CTRL_MODE = 33,
    SSL_CTRL_SET_READ_AHEAD = 41,
    SSL_CTRL_SET_HOSTNAME = 55,
    SSL_MODE_PARTIAL_WRITE = 0x1,
    SSL_MODE_MOVING_BUFFER = 0x2,
    SSL_MODE_RELEASE_BUFFERS = 0x10,
    SSL_VERIFY_PEER = 1,
    HOST_NAME = 0, /* TLSEXT_NAMETYPE_host_name */
};

enum { LONGEST_NAME = 256, READ_AHEAD = 4 * (TLS_RECORD + 512) };

/* X(result, name, parameters): what is used of the library. `void *` stands for its own types. */
#define FUNCTIONS(X) \
    X(const void *, TLS_client_method, (void)) \
    X(void *, SSL_CTX_new, (const void *method)) \
    X(void, SSL_CTX_free, (void *context)) \
    X(long, SSL_CTX_ctrl, (void *context, int command, long number, void *argument)) \
    X(void, SSL_CTX_set_verify, (void *context, int mode, void *callback)) \
    X(void, SSL_CTX_set_default_read_buffer_len, (void *context, size_t length)) \
    X(int, SSL_CTX_set_default_verify_paths, (void *context)) \
    X(int, SSL_CTX_load_verify_locations, (void *context, const char *file, const char *folder)) \
    X(void *, SSL_new, (void *context)) \
    X(void, SSL_free, (void *ssl)) \
    X(int, SSL_set_fd, (void *ssl, int fd)) \
    X(void, SSL_set_connect_state, (void *ssl)) \
    X(long, SSL_ctrl, (void *ssl, int command, long number, void *argument)) \
    X(int, SSL_set1_host, (void *ssl, const char *name)) \
    X(void *, SSL_get0_param, (void *ssl)) \
    X(int, X509_VERIFY_PARAM_set1_ip_asc, (void *parameters, const char *address)) \
    X(int, SSL_do_handshake, (void *ssl)) \
    X(int, SSL_read, (void *ssl, void *data, int room)) \
    X(int, SSL_write, (void *ssl, const void *data, int length)) \
    X(int, SSL_get_error, (const void *ssl, int result)) \
    X(long, SSL_get_verify_result, (const void *ssl)) \
    X(const char *, X509_verify_cert_error_string, (long result)) \
    X(const void *, SSL_get_current_cipher, (const void *ssl)) \
    X(const char *, SSL_CIPHER_get_name, (const void *cipher)) \
    X(unsigned long, ERR_peek_error, (void)) \
    X(const char *, ERR_reason_error_string, (unsigned long error)) \
    X(void, ERR_clear_error, (void))

struct tls {
#define DECLARE(result, name, parameters) result (*name) parameters;
    FUNCTIONS(DECLARE)
#undef DECLARE
    void *library;
    void *context; /* an SSL_CTX */
    char name[LONGEST_NAME]; /* without brackets */
    bool is_address;
};

static bool load_library(struct tls *tls, char *problem, size_t room)
{
    static const char *const names[] = {"libssl.so.3", "libssl.so.1.1"};
    for (size_t index = 0; index < sizeof names / sizeof *names && tls->library == NULL; index++)
        tls->library = dlopen(names[index], RTLD_NOW | RTLD_LOCAL);
    if (tls->library == NULL) {
        snprintf(problem, room, "TLS needs OpenSSL's library %s, which was not found (Debian: libssl3)", names[0]);
        return false;
    }
    /* Those of libcrypto are found through libssl, which depends on it. */
#define FIND(result, name, parameters) \
    if ((*(void **)&tls->name = dlsym(tls->library, #name)) == NULL) { \
        snprintf(problem, room, "TLS needs OpenSSL 1.1.1 or later: this one has no " #name); \
        return false; \
    }
    FUNCTIONS(FIND)
#undef FIND
    return true;
}

/* Copies the name without an address's brackets; false when it is too long. */
static bool take_name(struct tls *tls, const char *name)
{
    size_t length = strlen(name);
    if (length >= 2 && name[0] == '[' && name[length - 1] == ']') {
        name++;
        length -= 2;
    }
    if (length >= sizeof tls->name)
        return false;
    memcpy(tls->name, name, length);
    unsigned char address[sizeof(struct in6_addr)];
    tls->is_address = inet_pton(AF_INET, tls->name, address) == 1 || inet_pton(AF_INET6, tls->name, address) == 1;
    return true;
}

static bool make_context(struct tls *tls, const struct tls_wanted *wanted, char *problem, size_t room)
{
    long mode = SSL_MODE_PARTIAL_WRITE | SSL_MODE_MOVING_BUFFER | SSL_MODE_RELEASE_BUFFERS;
    tls->context = tls->SSL_CTX_new(tls->TLS_client_method());
    if (tls->context == NULL || !take_name(tls, wanted->name)) {
        snprintf(problem, room, "TLS cannot be set up: no memory, or the host's name is too long");
        return false;
    }
    tls->SSL_CTX_ctrl(tls->context, SSL_CTRL_MODE, mode, NULL);
    tls->SSL_CTX_ctrl(tls->context, SSL_CTRL_SET_READ_AHEAD, 1, NULL);
    tls->SSL_CTX_set_default_read_buffer_len(tls->context, READ_AHEAD);
    if (wanted->insecure)
        return true;
    tls->SSL_CTX_set_verify(tls->context, SSL_VERIFY_PEER, NULL);
    int found = wanted->ca_file == NULL ? tls->SSL_CTX_set_default_verify_paths(tls->context)
                                        : tls->SSL_CTX_load_verify_locations(tls->context, wanted->ca_file, NULL);
    if (found != 1)
        snprintf(problem, room, "no certificates of authorities in %s",
                 wanted->ca_file == NULL ? "the places of this machine" : wanted->ca_file);
    return found == 1;
}

struct tls *tls_new(const struct tls_wanted *wanted, char *problem, size_t room)
{
    struct tls *tls = calloc(1, sizeof *tls);
    if (tls == NULL) {
        snprintf(problem, room, "no memory");
        return NULL;
    }
    if (!load_library(tls, problem, room) || !make_context(tls, wanted, problem, room)) {
        tls_free(tls);
        return NULL;
    }
    return tls;
}

void tls_free(struct tls *tls)
{
    if (tls->context != NULL)
        tls->SSL_CTX_free(tls->context);
    free(tls); /* the library stays: it cleans up at the end of the process */
}

struct tls_peer *tls_begin(const struct tls *tls, int fd)
{
    void *ssl = tls->SSL_new(tls->context);
    int done = ssl != NULL && tls->SSL_set_fd(ssl, fd) == 1;
    if (done && tls->is_address) {
        done = tls->X509_VERIFY_PARAM_set1_ip_asc(tls->SSL_get0_param(ssl), tls->name) == 1;
    } else if (done) {
        tls->SSL_ctrl(ssl, SSL_CTRL_SET_HOSTNAME, HOST_NAME, (void *)tls->name);
        done = tls->SSL_set1_host(ssl, tls->name) == 1;
    }
    if (!done) {
        fputs("load: no memory\n", stderr);
        exit(1);
    }
    tls->SSL_set_connect_state(ssl);
    return ssl;
}

void tls_end(const struct tls *tls, struct tls_peer *peer)
{
    tls->SSL_free(peer);
}

/* What a call that did not succeed means: errno is EAGAIN, EPROTO, or the socket's; 0 at the end of the stream. */
static ssize_t fault(const struct tls *tls, struct tls_peer *peer, int result)
{
    int problem = errno;
    switch (tls->SSL_get_error(peer, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: errno = EAGAIN; return -1;
    case SSL_ERROR_ZERO_RETURN: return 0;
    case SSL_ERROR_SYSCALL:
        errno = problem;
        return problem != 0 ? -1 : 0;
    default: errno = EPROTO; return -1;
    }
}

int tls_handshake(const struct tls *tls, struct tls_peer *peer, bool *writing)
{
    tls->ERR_clear_error();
    int result = tls->SSL_do_handshake(peer);
    if (result == 1)
        return 1;
    int why = tls->SSL_get_error(peer, result);
    *writing = why == SSL_ERROR_WANT_WRITE;
    return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

ssize_t tls_receive(const struct tls *tls, struct tls_peer *peer, void *data, size_t room, size_t *records)
{
    size_t filled = 0;
    tls->ERR_clear_error();
    errno = 0;
    while (room - filled >= TLS_RECORD) {
        int got = tls->SSL_read(peer, (char *)data + filled, TLS_RECORD);
        if (got <= 0) {
            ssize_t outcome = fault(tls, peer, got);
            return filled > 0 ? (ssize_t)filled : outcome; /* an end or a fault comes again at the next call */
        }
        filled += (size_t)got;
        ++*records;
    }
    return (ssize_t)filled;
}

ssize_t tls_send(const struct tls *tls, struct tls_peer *peer, const void *data, size_t length)
{
    size_t sent = 0;
    tls->ERR_clear_error();
    errno = 0;
    while (sent < length) {
        size_t piece = length - sent < TLS_RECORD ? length - sent : TLS_RECORD;
        int taken = tls->SSL_write(peer, (const char *)data + sent, (int)piece);
        if (taken <= 0) {
            ssize_t outcome = fault(tls, peer, taken);
            if (outcome == 0)
                errno = EPIPE;
            return sent > 0 ? (ssize_t)sent : -1;
        }
        sent += (size_t)taken;
    }
    return (ssize_t)sent;
}

void tls_describe(const struct tls *tls, const struct tls_peer *peer, char *to, size_t room)
{
    long verified = tls->SSL_get_verify_result(peer);
    unsigned long error = tls->ERR_peek_error();
    const char *reason = error != 0 ? tls->ERR_reason_error_string(error) : NULL;
    if (reason != NULL && strcmp(reason, "certificate verify failed") == 0)
        snprintf(to, room, "the certificate is not accepted: %s", tls->X509_verify_cert_error_string(verified));
    else
        snprintf(to, room, "TLS: %s", reason != NULL ? reason : "the peer ended the connection");
}

const char *tls_cipher(const struct tls *tls, const struct tls_peer *peer)
{
    return tls->SSL_CIPHER_get_name(tls->SSL_get_current_cipher(peer));
}
