"""The how-to for an OpenID Connect provider: its configuration with a real issuer, and what it says of tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from serving.asking import ask
from serving.documents import blocks
from serving.oidc_issuer import OidcIssuer
from serving.peer import Peer
from serving.processes import ServerProcess, free_port

PAGE = "docs/howto/oidc.md"
AUDIENCE = "realtime"


@pytest.fixture(scope="module")
def issuer() -> Iterator[OidcIssuer]:
    with OidcIssuer() as made:
        yield made


@pytest.fixture(scope="module")
def trusting(issuer: OidcIssuer) -> Iterator[ServerProcess]:
    """A server with the page's configuration, but for the issuer's name."""
    (block,) = blocks("toml", path=PAGE)
    text = re.sub(r'issuer = "[^"]+"', f'issuer = "{issuer.url}"', block.text)
    process = WithText(text)
    process.start()
    try:
        yield process
    finally:
        process.dispose()


class WithText(ServerProcess):
    """A server with lines of TOML behind its settings."""

    def __init__(self, text: str) -> None:
        super().__init__("product", free_port(), None, None)
        self._text = text

    def configure(self, settings: dict[str, object] | None = None, *, text: str = "") -> None:
        super().configure(settings, text=self._text + text)


def status(server: ServerProcess, token: str) -> int:
    return ask(server.port, "GET", "/api/topics", {"Authorization": f"Bearer {token}"}).status


def test_its_tokens_let_users_in(trusting: ServerProcess, issuer: OidcIssuer) -> None:
    text = issuer.token("alice", aud=AUDIENCE, scope="openid profile read write subscribe")
    with Peer(trusting.url, token_text=text) as peer:
        assert peer.connected["user_id"] == "alice"
        assert peer.ok("Subscribe", topic="room:42") and peer.ok("Broadcast", topic="room:42", payload=1)


def test_a_scope_without_the_words_allows_nothing(trusting: ServerProcess, issuer: OidcIssuer) -> None:
    with Peer(trusting.url, token_text=issuer.token(aud=AUDIENCE, scope="openid profile email")) as peer:
        assert peer.error("Subscribe", topic="room:42")["code"] == "forbidden"


def test_permissions_count_in_place_of_the_scope(trusting: ServerProcess, issuer: OidcIssuer) -> None:
    text = issuer.token(aud=AUDIENCE, scope="openid", permissions=["subscribe"])
    with Peer(trusting.url, token_text=text) as peer:
        assert peer.ok("Subscribe", topic="room:42")
        assert peer.error("Broadcast", topic="room:42", payload=1)["code"] == "forbidden"


def test_roles_count_at_the_top_of_the_token_alone(trusting: ServerProcess, issuer: OidcIssuer) -> None:
    def answer(**claims: object) -> int:
        text = issuer.token(aud=AUDIENCE, scope="read", **claims)
        return ask(trusting.port, "GET", "/admin/stats", {"Authorization": f"Bearer {text}"}).status

    assert answer(roles=["admin"]) == 200
    assert answer(realm_access={"roles": ["admin"]}) == 403


def test_the_audience_is_one_string(trusting: ServerProcess, issuer: OidcIssuer) -> None:
    assert status(trusting, issuer.token(aud=AUDIENCE, scope="read")) == 200
    assert status(trusting, issuer.token(aud=[AUDIENCE, "account"], scope="read")) == 401
    assert status(trusting, issuer.token(aud="account", scope="read")) == 401
