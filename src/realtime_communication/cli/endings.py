"""How commands that talk to a server end: exit statuses, and the one line that says what to do.

0 done, 1 it did not work, 2 wrong use (click's own), 130 an end by Ctrl-C, 141 the reader of the output has gone, as a
shell reports it of a command that SIGPIPE has ended.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import sys
from collections.abc import Iterator

import click

from realtime_communication.client.errors import (
    AuthenticationFailed,
    ClientError,
    ConnectionLost,
    HandshakeRejected,
    ProtocolViolation,
    RequestError,
    RequestTimeout,
)

INTERRUPTED = 130
BROKEN_PIPE = 141

_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNEXPECTED_EOF_WHILE_READING"})
_REFUSED_STATUS = {
    400: "the server does not take this connection: a wss server asked by ws, or a path that is no WebSocket",
    403: "the server does not let this client's origin in: look at security.cors.allowed_origins",
    404: "there is no WebSocket at this path: the URL usually ends with /ws",
    405: "there is no WebSocket at this path: the URL usually ends with /ws",
    426: "the server wants TLS: use wss://",
}


@contextlib.contextmanager
def plain_endings(url: str) -> Iterator[None]:
    """Ends the command with one line and a status where its work with the server at `url` raises."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The interpreter flushes standard output once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
    except ClientError as error:
        raise click.ClickException(told(error, url)) from None


def told(error: ClientError, url: str) -> str:
    """What went wrong with the server at `url`, and what to do about it, in one line."""
    match error:
        case AuthenticationFailed():
            return (
                f"{url} refused the credentials ({error.code}): check RTC_TOKEN, RTC_API_KEY or the file;"
                " `rtc token --user=NAME` makes a token with the server's secret"
            )
        case HandshakeRejected(status=status):
            return f"{url}: {_REFUSED_STATUS.get(status, f'the server answered with status {status}')}"
        case RequestError():
            wait = f"; try again in {error.retry_after:g} s" if error.retry_after else ""
            return f"the server refused: {error.code}: {error.message}{wait}"
        case RequestTimeout():
            return f"{url} did not answer in time: is it overloaded, or something else at this address? See --timeout"
        case ConnectionLost():
            return _lost(error, url)
        case ProtocolViolation():
            return f"{url} is no server of this kind, or a proxy answers for it: {error}"
        case _:
            return f"{url}: {error}"


def _lost(error: ConnectionLost, url: str) -> str:
    cause = error.__cause__
    if isinstance(cause, ConnectionLost):  # the last attempt
        return told(cause, url)
    match cause:
        case ssl.SSLCertVerificationError():
            return (
                f"the certificate of {url} is not trusted ({cause.verify_message}): give its authority with --ca-file,"
                " and the name the certificate is for"
            )
        case ssl.SSLError() if cause.reason in _NOT_TLS:
            return f"{url} does not speak TLS: use ws:// or http://, or another port"
        case ssl.SSLError():
            return f"TLS with {url} failed: {cause.reason or cause}"
        case socket.gaierror():
            return f"there is no host of the name in {url}: {cause.strerror}"
        case ConnectionRefusedError():
            return f"nothing listens at {url}: is the server running, on this port?"
        case OSError():
            return f"{url} cannot be reached: {cause.strerror or cause}"
        case _:
            return f"{url}: {error}"
