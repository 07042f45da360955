"""Which running server a command talks to, and as whom: the options and variables that all such commands share.

Credentials come from variables and files: what is on a command line, every user of the machine can see.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from realtime_communication.cli.load import credentials
from realtime_communication.client.http_pool import Endpoint

if TYPE_CHECKING:
    from realtime_communication.client import Callback, Client, ConnectionEvent
    from realtime_communication.client.http import Publisher

DEFAULT_URL: Final = "ws://localhost:8081/ws"
URL_VARIABLE: Final = "RTC_URL"
TOKEN_VARIABLE: Final = "RTC_TOKEN"
KEY_VARIABLE: Final = "RTC_API_KEY"
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

_OPTIONS: Final = (
    click.option(
        "--url",
        envvar=URL_VARIABLE,
        default=DEFAULT_URL,
        show_default=True,
        show_envvar=True,
        help="The server: ws(s)://host:port/ws or http(s)://host:port.",
    ),
    click.option("--token-file", type=_FILE, help=f"File with an access token; or the token in {TOKEN_VARIABLE}."),
    click.option("--api-key-file", type=_FILE, help=f"File with an API key; or the key in {KEY_VARIABLE}."),
    click.option("--token", help=f"The token itself. Others see it in the list of processes: better {TOKEN_VARIABLE}."),
    click.option("--ca-file", type=_FILE, help="PEM file of the authority of a certificate that is not public."),
    click.option(
        "--timeout",
        type=click.FloatRange(0.1, 3600),
        default=10.0,
        show_default=True,
        help="Seconds to wait for the server.",
    ),
)


class Remote(msgspec.Struct, frozen=True):
    """A server, and what is shown to it."""

    endpoint: Endpoint
    url: str
    """Of the WebSocket."""
    token: str | None
    api_key: str | None
    ca_file: Path | None
    timeout: float

    def __repr__(self) -> str:
        return f"Remote({self.url!r})"

    def at(self, url: str) -> Remote:
        """Another server, with the same credentials. Raises ValueError."""
        endpoint = Endpoint.of(url)
        return msgspec.structs.replace(self, endpoint=endpoint, url=_websocket(endpoint))

    def client(self, on_event: Callback[ConnectionEvent] | None = None) -> Client:
        """A client that gives up when the server cannot be reached at first, and comes back when it is lost later."""
        from realtime_communication.client import connect

        return connect(
            self.url,
            token=self.token,
            api_key=self.api_key,
            request_timeout=self.timeout,
            open_timeout=self.timeout,
            retry_open=False,
            on_event=on_event,
            ssl_context=self._ssl_context(),
        )

    def publisher(self) -> Publisher:
        """The HTTP API."""
        from realtime_communication.client.http import Publisher

        return Publisher(
            self.endpoint.url,
            token=self.token,
            api_key=self.api_key,
            timeout=self.timeout,
            retries=0,
            ssl_context=self._ssl_context(),
        )

    def _ssl_context(self) -> ssl.SSLContext | None:
        """Raises click.BadParameter for a file that holds no certificates."""
        if not self.endpoint.secure:
            return None
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or str(error)
            raise click.BadParameter(
                f"{self.ca_file} holds no certificates: {reason}", param_hint="'--ca-file'"
            ) from None


def with_remote(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options to a command, which gets a Remote as `remote` in their place."""

    def call(
        url: str,
        token_file: Path | None,
        api_key_file: Path | None,
        token: str | None,
        ca_file: Path | None,
        timeout: float,
        **others: Any,
    ) -> Any:
        return command(remote=read(url, token_file, api_key_file, token, ca_file, timeout), **others)

    call.__name__, call.__doc__ = command.__name__, command.__doc__
    call.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    for option in reversed(_OPTIONS):
        call = option(call)
    return call


def read(
    url: str,
    token_file: Path | None = None,
    api_key_file: Path | None = None,
    token: str | None = None,
    ca_file: Path | None = None,
    timeout: float = 10.0,
) -> Remote:
    """The server that options and variables name. An option goes before a variable. Raises click.UsageError."""
    try:
        endpoint = Endpoint.of(url)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=f"'--url' / {URL_VARIABLE}") from None
    found_token, found_key = _credentials(token_file, api_key_file, token)
    return Remote(endpoint, _websocket(endpoint), found_token, found_key, ca_file, timeout)


def _websocket(endpoint: Endpoint) -> str:
    return f"{'wss' if endpoint.secure else 'ws'}://{endpoint.url.partition('://')[2]}/ws"


def _credentials(
    token_file: Path | None, api_key_file: Path | None, token: str | None
) -> tuple[str | None, str | None]:
    """A token or an API key."""
    given = [value for value in (token_file, api_key_file, token) if value is not None]
    if len(given) > 1:
        raise click.UsageError("give one of --token-file, --api-key-file and --token")
    if token_file is not None:
        return _checked(credentials.text_of(token_file, "'--token-file'"), "'--token-file'"), None
    if api_key_file is not None:
        return None, _checked(credentials.text_of(api_key_file, "'--api-key-file'"), "'--api-key-file'")
    if token is not None:
        return _checked(token, "'--token'"), None
    variables = [name for name in (TOKEN_VARIABLE, KEY_VARIABLE) if os.environ.get(name)]
    if not variables:
        raise click.UsageError(
            f"no credentials: set {TOKEN_VARIABLE} or {KEY_VARIABLE}, or give --token-file or --api-key-file"
        )
    if len(variables) > 1:
        raise click.UsageError(f"{TOKEN_VARIABLE} and {KEY_VARIABLE} are both set: unset one")
    value = _checked(os.environ[variables[0]], variables[0])
    return (value, None) if variables == [TOKEN_VARIABLE] else (None, value)


def _checked(value: str, hint: str) -> str:
    found = credentials.tokens(value.splitlines(), hint).values
    if len(found) > 1:
        raise click.BadParameter("holds several lines: one token or key is needed", param_hint=hint)
    return found[0]
