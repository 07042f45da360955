"""The list of what is no longer accepted."""

import msgspec
import pytest

from realtime_communication.auth.identity import MAX_TIMESTAMP, Identity
from realtime_communication.auth.revocation import Revocation, Revocations
from realtime_communication.errors import AuthenticationFailed
from serving.hand_clock import HandClock

NOW = 1_700_000_000


class Hub:
    """Remembers whom it was told to disconnect."""

    def __init__(self):
        self.told = []

    def disconnect(self, *, user_id=None, login=None, code, reason):
        self.told.append((user_id, login, code, reason))
        return 2


@pytest.fixture
def hub():
    return Hub()


@pytest.fixture
def clock():
    return HandClock(NOW + 0.5)


@pytest.fixture
def revocations(hub, clock):
    return Revocations(hub.disconnect, clock=clock)


def revoked(revocations, clock, **fields):
    try:
        revocations.check(Identity(**{"user_id": "alice", "login": "phone", "issued_at": NOW} | fields), clock())
    except AuthenticationFailed as error:
        assert "revoked" in error.message
        return True
    return False


def login(name="phone", until=NOW + 60, at=NOW):
    return Revocation("login", name, at, until)


def user(name="alice", until=NOW + 60, at=NOW):
    return Revocation("user", name, at, until)


def test_a_login(revocations, hub, clock):
    assert not revoked(revocations, clock)
    assert revocations.revoke(login()) == 2
    assert hub.told == [(None, "phone", 4401, "token revoked")]
    assert revoked(revocations, clock)
    assert revoked(revocations, clock, user_id="bob", issued_at=NOW + 9)
    assert not revoked(revocations, clock, login="desk")
    assert not revoked(revocations, clock, login=None)
    clock.now = NOW + 60
    assert not revoked(revocations, clock)
    assert len(revocations) == 0


def test_a_user_up_to_now(revocations, hub, clock):
    assert revocations.revoke(user()) == 2
    assert hub.told == [("alice", None, 4401, "token revoked")]
    assert revoked(revocations, clock)
    assert revoked(revocations, clock, issued_at=NOW + 0.9)  # within the same second
    assert revoked(revocations, clock, issued_at=None)
    assert not revoked(revocations, clock, issued_at=NOW + 1)
    assert not revoked(revocations, clock, user_id="bob")


def test_a_token_issued_right_after_is_good(revocations, clock):
    assert revocations.earliest_issue("alice", clock()) == NOW
    revocations.revoke(user())
    assert revocations.earliest_issue("alice", clock()) == NOW + 1
    assert not revoked(revocations, clock, issued_at=NOW + 1)
    assert revocations.earliest_issue("alice", NOW + 30) == NOW + 30


def test_revoked_twice_the_later_holds(revocations, clock):
    revocations.revoke(user(at=NOW + 3, until=NOW + 100))
    revocations.revoke(user(at=NOW, until=NOW + 50))
    assert revoked(revocations, clock, issued_at=NOW + 3)
    clock.now = NOW + 99
    assert revoked(revocations, clock)


def test_what_is_told_on(revocations, clock):
    told = []
    revocations.on_revoked(told.append)
    revocations.revoke(login())
    revocations.apply(msgspec.to_builtins(user("bob")))
    assert told == [login()]
    assert revoked(revocations, clock, user_id="bob", login=None)


def test_times_with_fractions(revocations, clock):
    revocations.apply({"kind": "user", "name": "alice", "at": NOW + 0.75, "until": NOW + 60.5})
    assert revoked(revocations, clock, issued_at=NOW)
    assert revocations.earliest_issue("alice", NOW + 0.9) == NOW + 1
    assert not revoked(revocations, clock, issued_at=NOW + 1)


def test_what_comes_back_from_others_is_the_same(hub, clock):
    here, there = Revocations(hub.disconnect, clock=clock), Revocations(hub.disconnect, clock=clock)
    here.on_revoked(lambda event: there.apply(msgspec.json.decode(msgspec.json.encode(event))))
    here.revoke(login())
    assert revoked(there, clock)
    there.apply(msgspec.to_builtins(login()))
    assert len(there) == 1


def test_a_listener_that_fails_hurts_nobody(revocations, clock, caplog):
    told = []
    revocations.on_revoked(lambda event: 1 / 0)
    revocations.on_revoked(told.append)
    assert revocations.revoke(login()) == 2
    assert told == [login()]
    assert revoked(revocations, clock)
    assert any(record.exc_info for record in caplog.records)


def test_an_old_one_closes_but_is_not_kept(revocations, hub):
    revocations.apply(login(until=NOW - 1))
    assert len(hub.told) == 1
    assert len(revocations) == 0


@pytest.mark.parametrize(
    "change",
    [
        *({"kind": "all"}, {"kind": None}, {"name": ""}, {"name": "x" * 129}, {"name": 7}, {"at": -1}, {"at": "1"}),
        *({"at": MAX_TIMESTAMP + 1}, {"until": None}, {"more": 1}, {"at": float("nan")}),
        *({"until": float("nan")}, {"until": float("inf")}, {"until": -1}),
    ],
)
def test_malformed_events(revocations, hub, change):
    with pytest.raises(ValueError):
        revocations.apply(msgspec.to_builtins(login()) | change)
    assert hub.told == []


def test_the_bound(hub, clock):
    small = Revocations(hub.disconnect, most=3, clock=clock)
    for number in range(10):
        small.revoke(login(str(number), until=NOW + 60 + number))
    assert len(small) == 3
    assert not revoked(small, clock, login="6")
    assert revoked(small, clock, login="7")
