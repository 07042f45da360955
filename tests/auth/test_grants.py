"""Nobody gives away more than they have."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_communication.auth.grants import InvalidField, TokenRequest, TopicRequest, covers, grant_of
from realtime_communication.auth.identity import ALL_PERMISSIONS, READ, SUBSCRIBE, WRITE, Identity
from realtime_communication.errors import RequestRefused

ADMIN = Identity(user_id="root", permissions=ALL_PERMISSIONS)
ROBOT = Identity(user_id="robot", permissions=READ | WRITE | SUBSCRIBE, credential="api_key")
WRITER = Identity(user_id="writer", permissions=WRITE, credential="api_key")
NARROW = Identity(user_id="narrow", permissions=READ | WRITE | SUBSCRIBE, subscribe_patterns=("room:*", "news"))


def granted(by, **fields):
    return grant_of(TokenRequest(**{"user_id": "alice", **fields}), by, most_secs=3600)


def refused(by, **fields):
    with pytest.raises(RequestRefused) as caught:
        granted(by, **fields)
    assert caught.value.code == "forbidden"
    return caught.value.message


def invalid(**fields):
    with pytest.raises(InvalidField) as caught:
        granted(ADMIN, **fields)
    return str(caught.value)


def test_defaults():
    grant = granted(ROBOT)
    assert (grant.roles, grant.permissions) == (("user",), ("read", "write", "subscribe"))
    assert (grant.topics, grant.login, grant.user_metadata, grant.lifetime_secs) == (None, None, None, 3600)


def test_defaults_are_never_more_than_one_has():
    assert granted(WRITER).permissions == ("write",)
    assert granted(NARROW).topics == {"subscribe": ("room:*", "news")}


def test_roles():
    assert granted(ADMIN, roles=["admin"]).roles == ("admin",)
    assert granted(ROBOT, roles=["editor", "user"]).roles == ("editor", "user")
    assert refused(ROBOT, roles=["user", "admin"]).startswith("roles")


def test_permissions():
    assert granted(ADMIN, permissions=["read"]).permissions == ("read",)
    assert granted(WRITER, permissions=["write"]).permissions == ("write",)
    assert granted(WRITER, permissions=[]).permissions == ()
    assert refused(WRITER, permissions=["write", "read"]).startswith("permissions")
    assert invalid(permissions=["admin"]).startswith("permissions")
    assert invalid(permissions=["fly"]).startswith("permissions")


def test_topics():
    assert granted(NARROW, topics=TopicRequest(subscribe=["room:42", "news"])).topics == {
        "subscribe": ("room:42", "news")
    }
    assert granted(NARROW, topics=TopicRequest(publish=["*"])).topics == {
        "subscribe": ("room:*", "news"),
        "publish": ("*",),
    }
    for wide in ("*", "roo*", "news*", "other"):
        assert refused(NARROW, topics=TopicRequest(subscribe=["room:1", wide])).startswith("topics.subscribe")
    assert granted(ADMIN, topics=TopicRequest(subscribe=["*"])).topics == {"subscribe": ("*",)}


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"user_id": ""}, "user_id"),
        ({"user_id": "x" * 129}, "user_id"),
        ({"user_id": "a\nb"}, "user_id"),
        ({"session_id": ""}, "session_id"),
        ({"session_id": "x" * 129}, "session_id"),
        ({"roles": [""]}, "roles"),
        ({"roles": ["x" * 65]}, "roles"),
        ({"roles": ["r"] * 33}, "roles"),
        ({"permissions": ["read"] * 33}, "permissions"),
        ({"topics": TopicRequest(subscribe=["a*b"])}, "topics.subscribe"),
        ({"topics": TopicRequest(publish=["a"] * 65)}, "topics.publish"),
        ({"user_metadata": {"a": "x" * 2048}}, "user_metadata"),
        ({"expires_in": 0}, "expires_in"),
        ({"expires_in": -1}, "expires_in"),
        ({"expires_in": 3601}, "expires_in"),
        ({"expires_in": 2**63}, "expires_in"),
    ],
    ids=str,
)
def test_what_cannot_be(fields, name):
    assert name in invalid(**fields)


def test_metadata_is_as_it_will_be_read():
    assert granted(ROBOT, user_metadata={"a": float("inf"), "b": [1, "é"]}).user_metadata == {"a": None, "b": [1, "é"]}


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text("ab:", max_size=4), st.booleans(), st.text("ab:", max_size=4), st.booleans(), st.text("ab:", max_size=6))
def test_what_covers_what(wide, any_wide, narrow, any_narrow, topic):
    def names(pattern, topic):
        return topic.startswith(pattern[:-1]) if pattern.endswith("*") else topic == pattern

    wide, narrow = wide + "*" * any_wide, narrow + "*" * any_narrow
    if covers(wide, narrow) and names(narrow, topic):
        assert names(wide, topic)
    assert covers(wide, wide)
