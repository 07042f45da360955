"""What is added to issued tokens."""

import pytest

from realtime_communication.auth.custom_claims import MAX_USER_AGENT, is_wanted, issued_claims
from realtime_communication.config.schema import CustomClaims

ALL = {
    "include_user_metadata": True,
    "include_device_info": True,
    "include_location": True,
    "custom_fields": {"tier": "gold"},
}


def issued(metadata={"team": "red"}, agent="curl/8", address="192.0.2.1", **wanted):  # noqa: B006
    return issued_claims(CustomClaims(**wanted), user_metadata=metadata, user_agent=agent, address=address)


@pytest.mark.parametrize(
    ("key", "claims"),
    [
        ("include_user_metadata", {"user_metadata": {"team": "red"}}),
        ("include_device_info", {"device_info": {"user_agent": "curl/8"}}),
        ("include_location", {"location": {"address": "192.0.2.1"}}),
        ("custom_fields", {"tier": "gold"}),
    ],
)
def test_each_only_where_it_is_configured(key, claims):
    assert issued() == {}
    assert issued(**{key: ALL[key]}) == claims
    assert is_wanted(CustomClaims(**{key: ALL[key]}))
    assert not is_wanted(CustomClaims())


def test_what_is_not_known_is_left_out():
    assert issued(None, "", "", **ALL) == {"tier": "gold"}


def test_a_long_user_agent_is_cut():
    assert len(issued(agent="x" * 1000, **ALL)["device_info"]["user_agent"]) == MAX_USER_AGENT
