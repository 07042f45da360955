"""Identities from verified claims."""

import pytest

from realtime_communication.auth.identity import (
    ADMIN,
    ALL_PERMISSIONS,
    MAX_TIMESTAMP,
    READ,
    SUBSCRIBE,
    WRITE,
    ClaimError,
    identity_from_claims,
)

GUIDE = {
    "sub": "user_123",
    "user_id": "user_123",
    "session_id": "session_456",
    "roles": ["user", "subscriber"],
    "permissions": ["read", "write", "subscribe"],
    "refresh_threshold": 1234611490,
}


def identity(expires_at=1234654290, **claims):
    return identity_from_claims({"sub": "alice", **claims}, expires_at=expires_at)


def test_the_token_of_the_guide():
    made = identity_from_claims(GUIDE, expires_at=1234654290)
    assert made.user_id == "user_123"
    assert made.login == "session_456"
    assert made.permissions == READ | WRITE | SUBSCRIBE
    assert (made.expires_at, made.refresh_at) == (1234654290, 1234611490)
    assert made.subscribe_patterns is None
    assert made.publish_patterns is None


def test_user_id_comes_before_sub():
    assert identity(user_id="bob").user_id == "bob"
    assert identity_from_claims({"user_id": "bob"}, expires_at=None).user_id == "bob"


@pytest.mark.parametrize("claim", ["sub", "user_id"])
@pytest.mark.parametrize(
    "value", ["", 7, None, True, ["alice"], {"a": 1}, "x" * 129, "é" * 65, "a\nb", "a\x00", "a\x7f", "a\x85", "\ud800"]
)
def test_a_user_that_is_no_name_is_refused(claim, value):
    with pytest.raises(ClaimError, match=claim):
        identity(**{claim: value})


def test_no_user_at_all_is_refused():
    with pytest.raises(ClaimError, match="neither"):
        identity_from_claims({"roles": ["user"]}, expires_at=None)


def test_a_user_of_128_bytes_is_accepted():
    assert identity(sub="é" * 64).user_id == "é" * 64


@pytest.mark.parametrize(
    ("permissions", "bits"),
    [
        (["read"], READ),
        (["write"], WRITE),
        (["subscribe"], SUBSCRIBE),
        (["read", "read", "fly"], READ),
        (["admin"], 0),
        ([], 0),
        (None, 0),
    ],
)
def test_permissions(permissions, bits):
    assert identity(permissions=permissions).permissions == bits


def test_the_admin_role_may_do_all():
    admin = identity(roles=["user", "admin"])
    assert admin.permissions == ALL_PERMISSIONS
    assert admin.may(ADMIN | WRITE)
    assert not identity(roles=["administrator"]).may(ADMIN)


@pytest.mark.parametrize("claim", ["roles", "permissions"])
@pytest.mark.parametrize("value", ["admin", {"admin": 1}, [1], [["admin"]], 7, True])
def test_lists_of_the_wrong_type_are_refused(claim, value):
    with pytest.raises(ClaimError, match=claim):
        identity(**{claim: value})


def test_topic_patterns():
    made = identity(topics={"subscribe": ["room:*", "news"], "publish": []})
    assert made.subscribe_patterns == ("room:*", "news")
    assert made.publish_patterns == ()
    assert identity(topics={"publish": ["*"]}).subscribe_patterns is None


@pytest.mark.parametrize(
    "topics",
    [
        [],
        "room:*",
        {"subscribe": "room:*"},
        {"subscribe": [1]},
        {"subscribe": [""]},
        {"subscribe": ["a*b"]},
        {"publish": ["**"]},
        {"publish": ["x" * 256]},
        {"read": ["a"]},
    ],
)
def test_topics_of_the_wrong_shape_are_refused(topics):
    with pytest.raises(ClaimError, match="topics"):
        identity(topics=topics)


@pytest.mark.parametrize("value", ["1", 1.5, -1, True, MAX_TIMESTAMP + 1, float("nan")])
def test_a_refresh_threshold_that_is_no_time_is_refused(value):
    with pytest.raises(ClaimError, match="refresh_threshold"):
        identity(refresh_threshold=value)


def test_the_refresh_is_never_after_the_expiry():
    assert identity(expires_at=100, refresh_threshold=200).refresh_at == 100


@pytest.mark.parametrize("value", ["", 7, "x" * 129, "a\rb"])
def test_a_login_that_is_no_name_is_refused(value):
    with pytest.raises(ClaimError, match="session_id"):
        identity(session_id=value)
