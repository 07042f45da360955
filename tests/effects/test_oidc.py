"""`[[auth.providers]]` of type `oauth2`: a real issuer in a process of its own, from configuration to answer."""

import asyncio
import base64
import contextlib
import json

import pytest

from realtime_communication.auth.chain import chain_of, key_sources_of, mock_issuer_of
from realtime_communication.resilience.breaker import Breakers, BreakerState
from serving.oidc_issuer import OidcIssuer
from serving.tokens import token as own_token


@pytest.fixture(scope="module")
def running():
    with OidcIssuer() as issuer:
        yield issuer


@pytest.fixture
def issuer(running):
    yield running
    running.control(mode="ok", key_mode="ok", cache_control="", discovery={}, further_keys=[])


@pytest.fixture
def asking(configure):
    """A chain of the configuration, with its services: ``async with asking(providers) as ask``.

    ``ask(token)`` is the user, or status and code of the refusal.
    """

    @contextlib.asynccontextmanager
    async def make(*providers, **settings):
        auth = {"providers": [{"type": "jwt", "priority": 1}, *providers]}
        config = configure({"auth": auth, **settings}).config
        breakers = Breakers(config.circuit_breaker)
        sources = key_sources_of(config.auth, breaker=breakers["auth_service"])
        chain = chain_of(config.auth, bypass=False, key_sources=sources)

        async def ask(token):
            found = chain.authenticate_upgrade([(b"authorization", b"Bearer " + token.encode())], b"", "192.0.2.1:1")
            answer = await found if hasattr(found, "__await__") else found
            return answer[:2] if isinstance(answer, tuple) else answer.user_id

        ask.breaker = breakers["auth_service"]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(source.run()) for source in chain.key_sources]
            try:
                yield ask
            finally:
                for task in tasks:
                    task.cancel()

    return make


def provider(issuer, **fields):
    return {"type": "oauth2", "issuer": issuer.url, "priority": 2, **fields}


REFUSED, UNAVAILABLE = (401, "unauthorized"), (503, "unavailable")


def test_issuer(issuer, asking):
    async def check():
        async with asking(provider(issuer)) as ask:
            for algorithm in ("RS256", "ES256", "EdDSA"):
                assert await ask(issuer.token("bob", algorithm)) == "bob"
            assert await ask(issuer.token("bob", iss=issuer.url + "/")) == REFUSED
            assert await ask(own_token("alice")) == "alice"
        async with asking({"type": "oauth2", "enabled": False}) as ask:
            assert await ask(issuer.token("bob")) == REFUSED

    asyncio.run(check())


def test_audience(issuer, asking):
    async def check():
        async with asking(provider(issuer)) as ask:
            assert await ask(issuer.token("bob", aud="realtime-communication")) == "bob"
            assert await ask(issuer.token("bob", aud="ours")) == REFUSED
        async with asking(provider(issuer, audience="ours")) as ask:
            assert await ask(issuer.token("bob", aud="ours")) == "bob"
            for other in ("realtime-communication", ["ours"], None):
                assert await ask(issuer.token("bob", aud=other)) == REFUSED

    asyncio.run(check())


def test_the_switches_are_for_the_servers_own_tokens(issuer, asking, configure):
    async def check():
        switches = dict.fromkeys(("validate_issuer", "validate_audience", "validate_exp", "validate_nbf"), False)
        config = configure({"auth": {"providers": [{"type": "jwt"}, provider(issuer)], **switches}}).config
        chain = chain_of(config.auth, bypass=False)
        task = asyncio.create_task(chain.key_sources[0].run())
        for claims in ({"aud": "other"}, {"exp": None}, {"exp": 1}, {"nbf": 4_000_000_000}):
            found = chain.authenticate_message(issuer.token("bob", **claims), None, "")
            assert isinstance(await found if hasattr(found, "__await__") else found, tuple)
        task.cancel()

    asyncio.run(check())


def test_a_key_that_is_new_is_fetched_and_one_that_was_withdrawn_is_gone(issuer, asking):
    async def check():
        async with asking(provider(issuer)) as ask:
            old = issuer.token("bob")
            assert await ask(old) == "bob"
            issuer.control(rotate=True)
            assert await ask(old) == "bob"  # nobody has asked for a new key yet
            assert await ask(issuer.token("bob")) == "bob"
            assert await ask(old) == REFUSED

    asyncio.run(check())


def test_a_thousand_unknown_keys_ask_the_issuer_once(issuer, asking):
    async def check():
        async with asking(provider(issuer)) as ask:
            good = issuer.token("bob")
            assert await ask(good) == "bob"
            before = issuer.counts()["/jwks"]
            template = issuer.token("eve").split(".")
            made_up = [_with_key_id(template, f"made-up-{number}") for number in range(1000)]
            answers = await asyncio.gather(*(ask(token) for token in made_up))
            assert set(answers) == {REFUSED}
            assert issuer.counts()["/jwks"] == before + 1
            assert await ask(good) == "bob"

    asyncio.run(check())


def _with_key_id(parts, key_id):
    header = json.dumps({"alg": "RS256", "typ": "JWT", "kid": key_id}).encode()
    return ".".join((base64.urlsafe_b64encode(header).rstrip(b"=").decode(), *parts[1:]))


@pytest.mark.parametrize("mode", ["500", "redirect", "big", "garbage"])
def test_an_issuer_that_breaks_does_not_lock_anybody_out(issuer, asking, mode):
    async def check():
        async with asking(provider(issuer)) as ask:
            known = issuer.token("bob")
            assert await ask(known) == "bob"
            issuer.control(mode=mode, key_mode=mode, rotate=True)
            assert await ask(issuer.token("bob")) == UNAVAILABLE
            assert await ask(known) == "bob"
            assert await ask(own_token("alice")) == "alice"

    asyncio.run(check())


def test_an_issuer_that_is_down_from_the_start_is_no_wrong_credential(issuer, asking):
    async def check():
        issuer.control(mode="500")
        settings = {"circuit_breaker": {"failure_threshold": 1}}
        async with asking(provider(issuer), **settings) as ask:
            assert await ask(issuer.token("bob")) == UNAVAILABLE
            assert await ask(issuer.token("bob")) == UNAVAILABLE
            assert await ask(own_token("alice")) == "alice"
            assert ask.breaker.state is BreakerState.OPEN

    asyncio.run(check())


def test_mock_external_services(configure):
    """The mock's tokens are accepted in the name of the configured issuer, which nobody asks for anything."""
    auth = {"providers": [{"type": "jwt"}, {"type": "oauth2", "issuer": "https://issuer.invalid", "audience": "us"}]}
    config = configure({"auth": auth, "development": {"mock_external_services": True}}).config
    mock = mock_issuer_of(config.auth)
    chain = chain_of(config.auth, bypass=False, key_sources=key_sources_of(config.auth, mock=mock))
    identity = chain.authenticate_message(mock.token("carol", chain._clock()), None, "")
    assert identity.user_id == "carol"
    assert mock_issuer_of(configure({}).config.auth) is None
