"""`token` and `api-key`: make credentials, for operators."""

from __future__ import annotations

import time

import click

from realtime_communication.cli.serve import PASS_ON
from realtime_communication.config import load
from realtime_communication.errors import MisuseError

_PERMISSIONS = click.Choice(["read", "write", "subscribe", "admin"])


@click.command(context_settings=PASS_ON)
@click.option("--user", required=True, help="User the token is for.")
@click.option("--role", "roles", multiple=True, help="Role; may be repeated. `admin` may do everything.")
@click.option(
    "--permission",
    "permissions",
    multiple=True,
    type=_PERMISSIONS,
    help="Permission; may be repeated. Default: read, write and subscribe.",
)
@click.option("--subscribe", multiple=True, help="Topic, or prefix and *, it may subscribe to; may be repeated.")
@click.option("--publish", multiple=True, help="Topic, or prefix and *, it may publish on; may be repeated.")
@click.option("--login", help="Name of the login (claim session_id), to revoke all of it at once.")
@click.option(
    "--hours", type=click.FloatRange(min=0, min_open=True), help="Life; default: auth.access_token_expiry_hours."
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY=VALUE]...")
def token(
    user: str,
    roles: tuple[str, ...],
    permissions: tuple[str, ...],
    subscribe: tuple[str, ...],
    publish: tuple[str, ...],
    login: str | None,
    hours: float | None,
    words: tuple[str, ...],
) -> None:
    """Print an access token, signed with the configured secret.

    \b
    JWT_SECRET=… rtc token --user=alice --hours=1
    rtc token --user=ops --role=admin --config=/etc/rtc/config.toml
    """
    loaded = load(words)
    if loaded.secret_made:
        raise MisuseError("no secret is configured, and a running server knows only its own: set JWT_SECRET for both")
    from realtime_communication.auth.tokens import TokenIssuer

    auth = loaded.config.auth
    issuer = TokenIssuer(
        secret=auth.jwt_secret,
        issuer=auth.jwt_issuer,
        audience=auth.jwt_audience,
        lifetime_secs=round((hours or auth.access_token_expiry_hours) * 3600),
        algorithm=auth.jwt_algorithms[0],
    )
    topics = {name: patterns for name, patterns in (("subscribe", subscribe), ("publish", publish)) if patterns}
    try:
        made = issuer.access_token(
            user,
            time.time(),
            roles=roles or ("user",),
            permissions=permissions or ("read", "write", "subscribe"),
            topics=topics or None,
            login=login,
        )
    except ValueError as error:
        raise MisuseError(str(error)) from None
    click.echo(made)


@click.command("api-key")
@click.option("--user", required=True, help="User the key stands for.")
@click.option("--role", "roles", multiple=True, help="Role; may be repeated.")
def api_key(user: str, roles: tuple[str, ...]) -> None:
    """Make an API key: the key itself, and the lines for the configuration file, which hold only its hash.

    \b
    rtc api-key --user=backend --role=admin
    """
    from realtime_communication.auth.api_key import generate_key, hashed
    from realtime_communication.config.reference import toml

    key = generate_key()
    click.echo(f"# The key; it is shown only now: {key}")
    click.echo("[[auth.providers.keys]]  # below the [[auth.providers]] of type api_key")
    click.echo(f"key = {toml(hashed(key))}\nuser = {toml(user)}\nroles = {toml(list(roles))}")
