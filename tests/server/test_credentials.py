"""Credentials over reloads: secrets that rotate, state that stays, generations with and without other nodes."""

import asyncio
import time

import msgspec
import pytest

from realtime_communication.auth.api_key import hashed
from realtime_communication.auth.refresh import Rotation
from realtime_communication.broker.broker import broker_of
from realtime_communication.broker.memory import MemoryState
from realtime_communication.broker.redis_errors import RedisFailed
from realtime_communication.config.schema import ApiKey, Auth, AuthProvider, Config, Testing
from realtime_communication.errors import AuthenticationUnavailable
from realtime_communication.resilience.breaker import Breakers
from realtime_communication.server.credentials import Credentials, SharedFamilies, longest_life_secs
from serving.hand_clock import HandClock
from serving.tokens import token

OLD, NEW = ("the first secret, of 32 bytes or more", "the second secret, of 32 bytes or more")
HOUR = 3600


class Hub:
    """Records what is disconnected."""

    def __init__(self):
        self.closed = []

    def disconnect(self, **what):
        self.closed.append(what)
        return 1


def config(secret=OLD, **auth):
    return Config(auth=Auth(jwt_secret=secret, **auth), testing=Testing(use_in_memory_storage=True))


@pytest.fixture
def clock():
    return HandClock(time.time())


@pytest.fixture
def credentials(clock):
    made = config()
    breakers = Breakers(made.circuit_breaker)
    return Credentials(made, Hub(), broker_of(made, "node", breakers), breakers["auth_service"], clock)


def outcome(credentials, text):
    answer = credentials.chain.authenticate_upgrade([(b"authorization", b"Bearer " + text.encode())], b"", "peer")
    return answer[1] if isinstance(answer, tuple) else "in"


class TestApiKeys:
    def keys(self, *names, **rights):
        entries = tuple(ApiKey(key=hashed(name), user=name, **{"permissions": ("read",)} | rights) for name in names)
        return config(providers=(AuthProvider(type="jwt"), AuthProvider(type="api_key", keys=entries)))

    def login(self, credentials, name):
        return credentials.chain.authenticate_message(None, name, "peer").login

    def test_connections_of_those_that_are_gone_or_changed_are_closed(self, credentials):
        hub = credentials._disconnect.__self__
        credentials.prepare(self.keys("a", "b"))()
        a, b = self.login(credentials, "a"), self.login(credentials, "b")
        credentials.prepare(self.keys("b", "a", "c"))()
        assert hub.closed == []
        credentials.prepare(self.keys("b"))
        assert hub.closed == [], "only prepared"
        credentials.prepare(self.keys("b", "c"))()
        assert hub.closed == [{"login": a, "code": 4401, "reason": "API key revoked"}]
        credentials.prepare(self.keys("b", "c", permissions=("write",)))()
        assert {each["login"] for each in hub.closed[1:]} >= {b}
        assert len(hub.closed) == 3
        credentials.prepare(config())()
        assert len(hub.closed) == 5


class TestSecrets:
    def test_both_are_good_after_a_rotation_until_the_last_token_has_expired(self, credentials, clock):
        credentials.prepare(config(NEW))()
        lasting = {"exp": int(clock.now + 40 * 24 * HOUR)}
        assert [outcome(credentials, token(key=key, **lasting)) for key in (OLD, NEW)] == ["in", "in"]
        clock.now = credentials.earliest_end + 1
        credentials.prepare(config(NEW))()
        assert [outcome(credentials, token(key=key, **lasting)) for key in (OLD, NEW)] == ["unauthorized", "in"]
        assert credentials.earliest_end is None

    def test_the_earlier_one_lasts_as_long_as_its_tokens(self, credentials, clock):
        credentials.prepare(config(NEW, access_token_expiry_hours=2.0, refresh_token_expiry_days=1.0))()
        assert credentials.earliest_end == pytest.approx(clock.now + 24 * HOUR)
        assert longest_life_secs(Auth(access_token_expiry_hours=48.0, refresh_token_expiry_days=1.0)) == 48 * HOUR

    def test_a_rotation_back(self, credentials):
        credentials.prepare(config(NEW))()
        credentials.prepare(config(OLD))()
        assert [outcome(credentials, token(key=key)) for key in (OLD, NEW)] == ["in", "in"]

    def test_only_so_many_are_remembered(self, credentials):
        for number in range(8):
            credentials.prepare(config(f"{NEW} {number}"))()
        found = [outcome(credentials, token(key=f"{NEW} {number}")) for number in range(8)]
        assert found == ["unauthorized"] * 3 + ["in"] * 5

    def test_what_is_prepared_and_not_made_changes_nothing(self, credentials):
        credentials.prepare(config(NEW))
        assert [outcome(credentials, token(key=key)) for key in (OLD, NEW)] == ["in", "unauthorized"]

    def test_what_cannot_be_used_is_refused(self, credentials):
        with pytest.raises(ValueError, match="32 bytes"):
            credentials.prepare(config("short"))
        assert outcome(credentials, token(key=OLD)) == "in"


def test_issuers_keys_outlive_a_reload(credentials):
    oidc = AuthProvider(type="oauth2", issuer="https://issuer.example.com")
    credentials.prepare(config(providers=(oidc,)))()
    (before,) = credentials.chain.key_sources
    other = msgspec.structs.replace(oidc, name="other", issuer="https://other.example.com")
    credentials.prepare(config(providers=(oidc, other)))()
    assert credentials.chain.key_sources[0] is before
    assert [source.issuer for source in credentials.chain.key_sources][1:] == ["https://other.example.com"]


class Unreachable(MemoryState):
    async def compare_and_rotate(self, family, presented, attempt, ttl_secs):
        raise RedisFailed("LOST")


class TestFamilies:
    def rotate(self, families, generation):
        now = time.time()
        return asyncio.run(families.rotate("family", generation, now + 60, now))

    def test_what_all_nodes_know_decides(self):
        state = MemoryState()
        here, there = (SharedFamilies(state, lambda: True, strict=False) for _ in range(2))
        assert self.rotate(here, 0) is Rotation.DONE
        assert self.rotate(there, 1) is Rotation.DONE
        assert self.rotate(here, 2) is Rotation.DONE
        assert self.rotate(there, 1) is Rotation.REUSED
        assert self.rotate(here, 3) is Rotation.REUSED, "the family is revoked"

    @pytest.mark.parametrize("state", [Unreachable(), MemoryState()])
    def test_without_the_others_this_node_goes_on(self, state):
        families = SharedFamilies(state, lambda: isinstance(state, Unreachable), strict=False)
        assert self.rotate(families, 0) is Rotation.DONE
        assert self.rotate(families, 0) is Rotation.REUSED

    def test_unless_redis_is_required(self):
        with pytest.raises(AuthenticationUnavailable):
            self.rotate(SharedFamilies(Unreachable(), lambda: True, strict=True), 0)

    def test_what_was_rotated_with_the_others_is_known_without_them(self):
        reachable = [True]
        families = SharedFamilies(MemoryState(), lambda: reachable[0], strict=False)
        assert self.rotate(families, 0) is Rotation.DONE
        reachable[0] = False
        assert self.rotate(families, 0) is Rotation.REUSED
        assert self.rotate(families, 1) is Rotation.DONE

    def test_of_two_at_once_one_is_reuse_when_the_state_fails_meanwhile(self):
        class Failing(MemoryState):
            async def compare_and_rotate(self, family, presented, attempt, ttl_secs):
                await asyncio.sleep(0)
                raise RedisFailed("LOST")

        async def both():
            families, now = SharedFamilies(Failing(), lambda: True, strict=False), time.time()
            return await asyncio.gather(*(families.rotate("family", 0, now + 60, now) for _ in range(2)))

        assert sorted(outcome.value for outcome in asyncio.run(both())) == ["done", "reused"]
