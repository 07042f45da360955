/* TLS of the generator's connections, by the OpenSSL that the machine has.
 *
 * The library is loaded when a run asks for TLS, and is neither linked nor needed for building: a wheel carries no
 * library of the system it was built on, and plain runs go without. Everything here works on non-blocking sockets;
 * what is sealed and what arrived in part waits inside the library. */
#ifndef LOAD_TLS_H
#define LOAD_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { TLS_RECORD = 16384 }; /* most that one record carries (RFC 8446 section 5.1) */

struct tls;      /* what all connections share */
struct tls_peer; /* one connection's: an SSL of the library's */

struct tls_wanted {
    const char *name;    /* the certificate must be for: a host name, or an address, maybe in brackets */
    const char *ca_file; /* certificates of those who are trusted; NULL: as the machine has them */
    bool insecure;       /* any certificate will do */
};

/* Loads the library. NULL when that fails, with a line that says why in `problem`. */
struct tls *tls_new(const struct tls_wanted *wanted, char *problem, size_t room);
void tls_free(struct tls *tls);

/* The client's side on a connected socket, which stays the caller's. Exits with 1 when there is no memory. */
struct tls_peer *tls_begin(const struct tls *tls, int fd);
void tls_end(const struct tls *tls, struct tls_peer *peer);

/* Goes on with the handshake. 1 when it is done, 0 when the socket has to be waited for (`writing`: until it takes
 * more), -1 when it failed. */
int tls_handshake(const struct tls *tls, struct tls_peer *peer, bool *writing);

/* Like recv and send: -1 with EAGAIN in errno when the socket has to be waited for. A receive takes what is there as
 * long as a whole record has room, and counts the records; -1 with EPROTO when the peer broke TLS. */
ssize_t tls_receive(const struct tls *tls, struct tls_peer *peer, void *data, size_t room, size_t *records);
ssize_t tls_send(const struct tls *tls, struct tls_peer *peer, const void *data, size_t length);

/* Why the last handshake, receive or send failed, into `to`. */
void tls_describe(const struct tls *tls, const struct tls_peer *peer, char *to, size_t room);

/* The cipher suite of a connection whose handshake is done; valid as long as `tls`. */
const char *tls_cipher(const struct tls *tls, const struct tls_peer *peer);

#endif
