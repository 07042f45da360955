"""What the data plane is answered about credentials: at once, later, and never with an exception."""

import asyncio
import types

import pytest

from realtime_communication._core.hub.pending import Pending
from realtime_communication.auth.identity import Identity
from realtime_communication.config.protection import Security
from realtime_communication.config.schema import Config
from realtime_communication.http.services import Services
from realtime_communication.server.admission import Admission
from serving.proxy import scenario

ALICE = Identity(user_id="alice", permissions=1)
REFUSED = (401, "unauthorized", "no", [])
REMOTE = "203.0.113.7:5000"


class Chain:
    """Answers what the test says; remembers what it was asked."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    def authenticate_upgrade(self, headers, query, peer, secure=False):
        self.asked.append((peer, secure))
        return self.answer() if callable(self.answer) else self.answer

    def authenticate_message(self, token, api_key, peer):
        return self.answer() if callable(self.answer) else self.answer


def admission(answer, security=None):
    config = Config(security=security or Security())
    return Admission(Services(hub=None, chain=Chain(answer), config=config, profile="test", node_id="n"))


def upgrade(made, headers=(), peer=REMOTE, secure=False):
    return made.upgrade(list(headers), b"", peer, secure)


@pytest.mark.parametrize("answer", [ALICE, REFUSED, None])
def test_an_answer_at_once_is_passed_on(answer):
    assert upgrade(admission(answer), peer="127.0.0.1:5000") == answer
    assert admission(answer).message("token", None, REMOTE) is answer


class Tokens(Chain):
    """Accepts every token."""

    def accept_token(self, token):
        self.asked.append(token)
        return ALICE


def by_token(security=None, **services):
    config = Config(security=security or Security())
    made = Services(hub=None, chain=Tokens(REFUSED), config=config, profile="test", node_id="n", **services)
    return Admission(made)


def test_a_token_alone_decides():
    made = by_token()
    assert made.token("t") is ALICE
    assert made._services.chain.asked == ["t"]


def test_a_token_does_not_decide_where_tls_is_demanded_credentials_were_wrong_or_traces_are_made():
    failed = by_token()
    upgrade(failed)
    for made in (by_token(Security(enforce_tls=True)), failed, by_token(tracer=types.SimpleNamespace(enabled=True))):
        made._services.chain.asked.clear()
        assert made.token("t") is None
        assert made._services.chain.asked == []


def test_an_accepted_token_is_counted():
    seen = []

    class Metrics:
        def timed_authentication(self, check):
            return check

        def observe_authentication(self, accepted, seconds):
            seen.append((accepted, seconds >= 0))

    made = by_token(metrics=Metrics())
    made.token("t")
    made._services.chain.accept_token = lambda token: None
    made.token("t")
    assert seen == [(True, True)]


def test_a_refusal_says_how_many_more_there_may_be():
    made = admission(REFUSED)
    for left in ("39", "38"):
        answer = upgrade(made)
        assert answer[:3] == REFUSED[:3]
        headers = dict(answer[3])
        assert (headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]) == ("40", left)


def test_tls_is_demanded_before_credentials_are_looked_at():
    made = admission(ALICE, Security(enforce_tls=True))
    assert upgrade(made)[0] == 426
    assert made._services.chain.asked == []
    assert upgrade(made, secure=True) is ALICE


def test_the_chain_is_told_the_client_behind_a_trusted_proxy():
    made = admission(ALICE, Security(trusted_proxies=("203.0.113.0/24",)))
    forwarded = [(b"x-forwarded-for", b"198.51.100.4"), (b"x-forwarded-proto", b"https")]
    upgrade(made, forwarded)
    upgrade(made, forwarded, peer="192.0.2.1:1")
    assert made._services.chain.asked == [("198.51.100.4", True), ("192.0.2.1", False)]


def test_who_keeps_sending_wrong_credentials_has_to_wait():
    made = admission(REFUSED)
    statuses = [upgrade(made)[0] for _ in range(60)]
    assert set(statuses) == {401, 429}
    assert upgrade(made, peer="203.0.113.8:1")[0] == 401


@scenario
async def test_an_answer_that_takes_time_is_settled_later():
    async def later():
        await asyncio.sleep(0)
        return ALICE

    made = admission(later)
    upgraded, authenticated = upgrade(made), made.message("token", None, REMOTE)
    assert isinstance(upgraded, Pending) and isinstance(authenticated, Pending)
    while made._checking:
        await asyncio.sleep(0)
    assert upgraded.settled and authenticated.settled


@scenario
async def test_a_wrong_credential_counts_when_it_is_found_out():
    async def later():
        return REFUSED

    made = admission(later)
    for _ in range(45):
        upgrade(made)
    while made._checking:
        await asyncio.sleep(0)
    assert upgrade(made)[0] == 429


@scenario
async def test_an_error_refuses(caplog):
    async def broken():
        raise RuntimeError("a bug")

    made = admission(broken)
    pending = upgrade(made)
    while made._checking:
        await asyncio.sleep(0)
    assert pending.settled
    assert "authentication failed by an error of its own" in caplog.text


@scenario
async def test_the_end_cancels_what_is_under_way():
    made = admission(asyncio.Event().wait)
    pending = upgrade(made)
    await asyncio.sleep(0)
    made.close()
    while made._checking:
        await asyncio.sleep(0)
    assert pending.settled
